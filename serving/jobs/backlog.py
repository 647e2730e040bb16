"""What is counted of asynchronous calls (``behaviour/03``, Metrics; seconds where AWS has microseconds)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from serving.jobs.async_calls import Outcome
from serving.jobs.work import Backlog, Work
from serving.watch.metrics import Counter, Histogram, Registry

_COUNTED: Mapping[str, str] = {
    "download": "sagemaker_request_download_failures_total",
    "upload": "sagemaker_response_upload_failures_total",
    "expired": "sagemaker_expired_requests_total",
}


def instances(row: Mapping[str, Any]) -> int:
    """Complete instances of all variants of a table row: workers of the container that has the fewest."""
    return sum(min((len(pool["workers"]) for pool in one["pools"]), default=0) for one in row["variants"])


class AsyncMetrics:
    """The cells, found anew each time: those of an endpoint that has gone mean nothing any more."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def measured(self, row: Mapping[str, Any], backlog: Backlog) -> None:
        """An endpoint's backlog as it stands. Per instance it is undefined where there is none (not a number)."""
        endpoint, there = str(row["name"]), instances(row)
        self._gauge("sagemaker_approximate_backlog_size", endpoint).set(backlog.size)
        share = backlog.size / there if there else math.nan
        self._gauge("sagemaker_approximate_backlog_size_per_instance", endpoint).set(share)
        self._gauge("sagemaker_approximate_age_of_oldest_request_seconds", endpoint).set(backlog.oldest_age)
        self._gauge("sagemaker_has_backlog_without_capacity", endpoint).set(float(backlog.size > 0 and not there))

    def _gauge(self, name: str, endpoint: str) -> Counter:
        return self._registry.counter(name, endpoint)

    def ended(self, work: Work, outcome: Outcome, now: float) -> None:
        """A job has its end, and whoever wanted to know has been told (``now``: epoch seconds)."""
        labels = str(work.body["endpoint"]), outcome.variant
        if outcome.cause in _COUNTED:
            self._registry.counter(_COUNTED[outcome.cause], *labels).add()
        if outcome.status != "Completed":
            self._registry.counter("sagemaker_invocation_failures_total", *labels).add()
        if work.started is not None:
            self._registry.counter("sagemaker_invocations_processed_total", *labels).add()
            waited = self._histogram("sagemaker_time_in_backlog_seconds", *labels)
            waited.observe(max(0.0, work.started - work.created))
        total = self._histogram("sagemaker_total_processing_seconds", *labels)
        total.observe(max(0.0, now - work.created))

    def undelivered(self, notice: Work) -> None:
        """A notice has been given up (``outbox.deliver_forever``)."""
        endpoint, variant = str(notice.body["endpoint"]), str(notice.body["variant"])
        self._registry.counter("sagemaker_notification_failures_total", endpoint, variant).add()

    def downloaded(self, endpoint: str, variant: str, seconds: float) -> None:
        """So long it took until an input was there."""
        self._histogram("sagemaker_request_download_seconds", endpoint, variant).observe(seconds)

    def uploaded(self, endpoint: str, variant: str, seconds: float) -> None:
        """So long it took until a final object was there."""
        self._histogram("sagemaker_response_upload_seconds", endpoint, variant).observe(seconds)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return self._registry.histogram(name, *labels)
