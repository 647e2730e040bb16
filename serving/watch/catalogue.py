"""CloudWatch's metrics of SageMaker, and how each is made of ours (``behaviour/09``, ``03``).

A variant is asked for by (EndpointName, VariantName), during a guarded update also by either side's EndpointConfigName;
an inference component by InferenceComponentName; an asynchronous endpoint's backlog by EndpointName. Beside AWS's
namespaces, ``Prometheus`` has every metric of ``/metrics`` by its own name, labels and units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from serving.errors import ValidationError
from serving.types import FleetKey
from serving.watch.metrics import FAMILIES
from serving.watch.readings import Metric, Stat

SAGEMAKER = "AWS/SageMaker"
HOSTS = "/aws/sagemaker/Endpoints"
COMPONENT_HOSTS = "/aws/sagemaker/InferenceComponents"
PROMETHEUS = "Prometheus"

ENDPOINT, VARIANT, CONFIG, COMPONENT = "EndpointName", "VariantName", "EndpointConfigName", "InferenceComponentName"
Dimensions = tuple[tuple[str, str], ...]
#: The values of a metric's labels endpoint and variant.
Labels = tuple[str, ...]

#: How a metric follows from the series of its family:
#: - calls: each of the family's events is a value of 1; ``calls_each``: of 1 by the workers that were ready then
#: - share: each call is a value of 1 if the family counts it, else 0; ``hits``: of those that the family counts at all
#: - times: a histogram's values
#: - level: a gauge; ``level_each``: by the workers that are ready; ``level_of``: percent of a limit
#: - busy: seconds of the family by seconds of time and worker, in percent; ``memory``: percent of the machine's
Shape = Literal["calls", "calls_each", "share", "hits", "times", "level", "level_each", "level_of", "busy", "memory"]


class Measure(NamedTuple):
    """What a metric is made of. ``third``: the value of the family's third label that counts; ``scale``: from our unit
    to CloudWatch's; ``limit``: of ``level_of``, which of the subject's."""

    shape: Shape
    family: str
    unit: str = "None"
    third: str = ""
    scale: float = 1.0
    limit: str = ""


class Subject(NamedTuple):
    """Something that has metrics: a variant, a component, or an asynchronous endpoint (``kind``). ``labels``: its
    series'; ``parts``: those of its containers where it has several, ``direct`` where each is called by itself;
    ``limits``: of a serverless variant."""

    kind: Literal["variant", "component", "endpoint"]
    labels: Labels
    asynchronous: bool = False
    parts: tuple[Labels, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    direct: bool = False

    def holders(self, family: str) -> tuple[Labels, ...]:
        """Whose series of this metric its own is the sum of: its containers', but for what is counted of a series of
        containers as one (``workers/chain.py``)."""
        return self.parts if self.parts and (self.direct or family not in _OF_WHOLE) else (self.labels,)


CALLS = "sagemaker_invocations_total"
_ERRORS = "sagemaker_invocation_errors_total"
IN_FLIGHT = "sagemaker_concurrent_requests"
_OF_WHOLE = {CALLS, _ERRORS, "sagemaker_invocation_model_errors_total", "sagemaker_model_latency_seconds"}


def _micros(family: str) -> Measure:
    return Measure("times", f"sagemaker_{family}_seconds", "Microseconds", scale=1e6)


def _count(family: str) -> Measure:
    return Measure("calls", f"sagemaker_{family}_total", "Count")


#: Of every variant and component. What an asynchronous one has not is in ``_NOT_ASYNCHRONOUS``.
_REQUESTS: Mapping[str, Measure] = {
    "Invocations": Measure("calls", CALLS),
    "Invocation4XXErrors": Measure("share", _ERRORS, third="4xx"),
    "Invocation5XXErrors": Measure("share", _ERRORS, third="5xx"),
    "InvocationModelErrors": Measure("share", "sagemaker_invocation_model_errors_total"),
    "MidStreamErrors": Measure("share", "sagemaker_mid_stream_errors_total"),
    "ModelLatency": _micros("model_latency"),
    "OverheadLatency": _micros("overhead_latency"),
    "FirstChunkLatency": _micros("first_chunk_latency"),
    "QueueLatency": _micros("queue"),
    "ModelSetupTime": _micros("model_setup"),
    "ModelLoadingWaitTime": _micros("model_loading_wait"),
    "ModelDownloadingTime": _micros("model_download"),
    "ModelLoadingTime": _micros("model_load"),
    "ModelUnloadingTime": _micros("model_unload"),
    "ModelCacheHit": Measure("hits", "sagemaker_model_cache_requests_total", third="hit"),
    "ExplanationsPerInstance": Measure("calls_each", "sagemaker_explanations_total"),
}
_PER_INSTANCE: Mapping[str, Measure] = {
    "InvocationsPerInstance": Measure("calls_each", CALLS),
    "ConcurrentRequestsPerModel": Measure("level_each", IN_FLIGHT),
}
_PER_COPY: Mapping[str, Measure] = {
    "InvocationsPerCopy": Measure("calls_each", CALLS),
    "ConcurrentRequestsPerCopy": Measure("level_each", IN_FLIGHT),
    "NoCapacityInvocationFailures": Measure("calls", "sagemaker_no_capacity_invocation_failures_total"),
}
_LATER: Mapping[str, Measure] = {
    "InvocationsProcesssed": _count("invocations_processed"),  # AWS's spelling
    "InvocationFailures": _count("invocation_failures"),
    "ExpiredRequests": _count("expired_requests"),
    "RequestDownloadFailures": _count("request_download_failures"),
    "ResponseUploadFailures": _count("response_upload_failures"),
    "NotificationFailures": _count("notification_failures"),
    "RequestDownloadLatency": _micros("request_download"),
    "ResponseUploadLatency": _micros("response_upload"),
    "TimeInBacklog": Measure("times", "sagemaker_time_in_backlog_seconds", "Milliseconds", scale=1e3),
    "TotalProcessingTime": Measure("times", "sagemaker_total_processing_seconds", "Milliseconds", scale=1e3),
}
_BACKLOG: Mapping[str, Measure] = {
    "ApproximateBacklogSize": Measure("level", "sagemaker_approximate_backlog_size", "Count"),
    "ApproximateBacklogSizePerInstance": Measure("level", "sagemaker_approximate_backlog_size_per_instance", "Count"),
    "ApproximateAgeOfOldestRequest": Measure("level", "sagemaker_approximate_age_of_oldest_request_seconds", "Seconds"),
    "HasBacklogWithoutCapacity": Measure("level", "sagemaker_has_backlog_without_capacity", "Count"),
}
_SERVERLESS: Mapping[str, Measure] = {
    "ServerlessConcurrentExecutionsUtilization": Measure("level_of", IN_FLIGHT, limit="concurrency"),
    "ServerlessProvisionedConcurrencyUtilization": Measure("level_of", IN_FLIGHT, limit="provisioned"),
}
_CPU = Measure("busy", "sagemaker_worker_cpu_seconds_total", "Percent", scale=100.0)
_MEMORY = Measure("memory", "sagemaker_worker_memory_bytes", "Percent", scale=100.0)
_HOST: Mapping[str, Measure] = {
    "CPUUtilization": _CPU,
    "MemoryUtilization": _MEMORY,
    "LoadedModelCount": Measure("level", "sagemaker_loaded_models"),
}
_COMPONENT_HOST: Mapping[str, Measure] = {"CPUUtilizationNormalized": _CPU, "MemoryUtilizationNormalized": _MEMORY}
_NOT_ASYNCHRONOUS = {"Invocations", "InvocationsPerInstance", "OverheadLatency"}

#: Of one side of a guarded update.
_SIDE: Mapping[str, Measure] = {
    "Invocations": Measure("calls", "sagemaker_deployment_invocations_total"),
    "Invocation4XXErrors": Measure("share", "sagemaker_deployment_invocation_errors_total", third="4xx"),
    "Invocation5XXErrors": Measure("share", "sagemaker_deployment_invocation_errors_total", third="5xx"),
    "InvocationModelErrors": Measure("share", "sagemaker_deployment_invocation_errors_total", third="model"),
    "ModelLatency": _micros("deployment_model_latency"),
}
#: What the calls are that a share is of.
CALLS_OF: Mapping[str, str] = {
    "sagemaker_deployment_invocation_errors_total": "sagemaker_deployment_invocations_total",
    "sagemaker_model_cache_requests_total": "sagemaker_model_cache_requests_total",
}

#: AWS's predefined metrics of target tracking: metric, statistic, whether it is a sum per minute.
_PREDEFINED: Mapping[str, tuple[str, str, bool]] = {
    "SageMakerVariantInvocationsPerInstance": ("InvocationsPerInstance", "Sum", True),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": ("ConcurrentRequestsPerModel", "Maximum", False),
    "SageMakerVariantProvisionedConcurrencyUtilization": (
        "ServerlessProvisionedConcurrencyUtilization",
        "Maximum",
        False,
    ),
    "SageMakerInferenceComponentInvocationsPerCopy": ("InvocationsPerCopy", "Sum", True),
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": (
        "ConcurrentRequestsPerCopy",
        "Maximum",
        False,
    ),
}


def predefined(kind: str, resource: tuple[str, str]) -> Stat:
    """What a PredefinedMetricType measures of a resource (its id and dimension: ``endpoint/E/variant/V`` or
    ``inference-component/C``). Raises ``ValidationError`` for a type that there is not, or not of this resource."""
    name, statistic, per_minute = _PREDEFINED.get(kind, ("", "", False))
    words = resource[0].split("/")
    if words[0] == "inference-component" and name in _PER_COPY:
        dimensions: Dimensions = ((COMPONENT, words[1]),)
    elif words[0] == "endpoint" and name and name not in _PER_COPY:
        dimensions = ((ENDPOINT, words[1]), (VARIANT, words[3]))
    else:
        raise ValidationError(f"Predefined metric type {kind} is not supported for resource {resource[0]}.")
    return Stat(Metric(SAGEMAKER, name, dimensions), statistic, per_minute)


def measures(subject: Subject) -> Iterator[tuple[str, str, Measure]]:
    """(namespace, name, how) of every metric that a subject has."""
    if subject.kind == "endpoint":
        yield from ((SAGEMAKER, name, one) for name, one in _BACKLOG.items())
        return
    component = subject.kind == "component"
    tables = [_REQUESTS, _PER_COPY if component else _PER_INSTANCE]
    tables += [_LATER] if subject.asynchronous else []
    for name, one in (pair for table in tables for pair in table.items()):
        if not (subject.asynchronous and name in _NOT_ASYNCHRONOUS):
            yield SAGEMAKER, name, one
    limits = dict(subject.limits)
    yield from ((SAGEMAKER, name, one) for name, one in _SERVERLESS.items() if limits.get(one.limit))
    hosts = _COMPONENT_HOST if component else _HOST
    yield from ((COMPONENT_HOSTS if component else HOSTS, name, one) for name, one in hosts.items())


def side_measures() -> Iterator[tuple[str, str, Measure]]:
    """(namespace, name, how) of every metric by EndpointConfigName."""
    yield from ((SAGEMAKER, name, one) for name, one in _SIDE.items())


def own(family: str) -> Measure:
    """A metric of ours, as namespace ``Prometheus`` has it."""
    kind = FAMILIES[family].kind
    shape: Shape = "times" if kind == "histogram" else "level" if kind == "gauge" else "calls"
    return Measure(shape, family)


def unit(metric: Metric) -> str:
    """CloudWatch's unit of a metric; ``None`` for one it has not heard of."""
    tables = (_REQUESTS, _PER_INSTANCE, _PER_COPY, _LATER, _BACKLOG, _SERVERLESS, _HOST, _COMPONENT_HOST)
    return next((table[metric.name].unit for table in tables if metric.name in table), "None")


def subjects(table: Mapping[str, Any]) -> dict[Dimensions, Subject]:
    """Whatever has metrics by a routing table (``fleet/table.py``), by its dimensions."""
    found: dict[Dimensions, Subject] = {}
    for row in table["endpoints"]:
        name, later = row["name"], bool(row["asynchronous"])
        if later:
            found[((ENDPOINT, name),)] = Subject("endpoint", (name,), True)
        for variant in (*row["variants"], *row["shadows"]):
            keys = [FleetKey(*pool["key"]) for pool in variant["pools"]]
            parts = tuple(key.labels for key in keys if key.part)
            limits = tuple(sorted((variant.get("serverless") or {}).items()))
            dimensions = ((ENDPOINT, name), (VARIANT, variant["name"]))
            labels, direct = (name, variant["name"]), bool(variant.get("direct"))
            found[dimensions] = Subject("variant", labels, later, parts, limits, direct)
        for pool in row["components"]:
            key = FleetKey(*pool["key"])
            found[((COMPONENT, key.component),)] = Subject("component", key.labels, later)
    return found
