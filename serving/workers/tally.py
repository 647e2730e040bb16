"""What is counted of a variant's calls in a front."""

from __future__ import annotations

from serving import errors
from serving.errors import ServingError
from serving.watch.metrics import Registry


class VariantMetrics:
    """The cells one variant's calls are counted in."""

    def __init__(self, registry: Registry, endpoint: str, variant: str) -> None:
        self._registry, self._labels = registry, (endpoint, variant)
        labels = (endpoint, variant)
        self.invocations = registry.counter("sagemaker_invocations_total", *labels)
        self.errors_4xx = registry.counter("sagemaker_invocation_errors_total", *labels, "4xx")
        self.errors_5xx = registry.counter("sagemaker_invocation_errors_total", *labels, "5xx")
        self.model_errors = registry.counter("sagemaker_invocation_model_errors_total", *labels)
        self.retried = registry.counter("sagemaker_retried_invocations_total", *labels)
        self.model_latency = registry.histogram("sagemaker_model_latency_seconds", *labels)
        self.overhead = registry.histogram("sagemaker_overhead_latency_seconds", *labels)
        self.queue = registry.histogram("sagemaker_queue_seconds", *labels)
        self.concurrent = registry.counter("sagemaker_concurrent_requests", *labels)
        self.first_part = registry.histogram("sagemaker_first_chunk_latency_seconds", *labels)
        self.broken = registry.counter("sagemaker_mid_stream_errors_total", *labels)
        self.load_wait = registry.histogram("sagemaker_model_loading_wait_seconds", *labels)

    def no_capacity(self) -> None:
        """Count a call that found no worker, and none on its way."""
        self._registry.counter("sagemaker_no_capacity_invocation_failures_total", *self._labels).add()

    def set_up(self, seconds: float) -> None:
        """A call has got the first worker of what had none, after so many seconds."""
        self._registry.histogram("sagemaker_model_setup_seconds", *self._labels).observe(seconds)

    def failed(self, error: ServingError) -> None:
        """Count an answer that was not 2xx."""
        if not isinstance(error, errors.RequestRefused):
            self.model_errors.add()
        status = error.original_status if isinstance(error, errors.ModelError) else error.status
        if 400 <= status < 500:
            self.errors_4xx.add()
        elif status >= 500:
            self.errors_5xx.add()
