"""What the dashboard shows: rows of panels, each with its unit and its queries.

In queries ``{ev}`` stands for the chosen endpoints and variants (``{ev, x="y"}`` for more of them), ``{e}`` for the
endpoints alone, ``[rate]`` for Grafana's interval that fits the scrapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Panel(NamedTuple):
    """One chart. ``unit``: Grafana's name of it; ``queries``: legend -> PromQL; ``width``: of 24 columns; ``kind``: a
    panel type of Grafana; ``least``, ``most``: the ends of its axis, None = as the values are."""

    title: str
    about: str
    unit: str
    queries: Mapping[str, str]
    width: int = 8
    kind: str = "timeseries"
    least: float | None = 0.0
    most: float | None = None


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


_BY = "endpoint, variant"
_PAIR = "endpoint, variant, production"
_EV, _E, _BESIDE = "{{endpoint}} {{variant}}", "{{endpoint}}", "{{endpoint}} {{variant}} beside {{production}}"
_SCHEDULE = "{{endpoint}} {{schedule}}"
_BY_SIDE, _SIDE = f"{_BY}, config", f"{_EV} {{{{config}}}}"


def _rate(metric: str, by: str = _BY, chosen: str = "{ev}") -> str:
    """A counter's growth a second."""
    return f"sum by ({by}) (rate(sagemaker_{metric}{chosen}[rate]))"


def _sum(metric: str, by: str = _BY, chosen: str = "{ev}") -> str:
    """A gauge, over all processes."""
    return f"sum by ({by}) (sagemaker_{metric}{chosen})"


def _most(metric: str, by: str = "endpoint", chosen: str = "{e}") -> str:
    """A gauge that only one process knows."""
    return f"max by ({by}) (sagemaker_{metric}{chosen})"


def _quantile(q: int, metric: str) -> str:
    """A percentile of a histogram."""
    return f"histogram_quantile(0.{q}, {_rate(f'{metric}_bucket', f'le, {_BY}')})"


def _quantiles(metric: str) -> dict[str, str]:
    """Median and 99th percentile."""
    return {f"p{q} {_EV}": _quantile(q, metric) for q in (50, 99)}


def _each(quantity: Mapping[str, str]) -> dict[str, str]:
    """A counter for each word."""
    return {f"{word} {_EV}": _rate(metric) for word, metric in quantity.items()}


def _pair_seconds(side: str) -> str:
    """What the calls that two variants answered took in one of them."""
    return _rate("shadow_pair_seconds_total", _PAIR, f'{{ev, side="{side}"}}')


def _number(title: str, about: str, unit: str, query: str) -> Panel:
    """One value, now."""
    return Panel(title, about, unit, {title: query}, 4, "stat")


_NOW = Row(
    "Now",
    (
        _number(
            "Calls a second",
            "All chosen, shadows' copies too.",
            "reqps",
            "sum(rate(sagemaker_invocations_total{ev}[rate]))",
        ),
        _number(
            "Failed",
            "Share of the calls that were not answered with 2xx.",
            "percentunit",
            "sum(rate(sagemaker_invocation_model_errors_total{ev}[rate])) / "
            "clamp_min(sum(rate(sagemaker_invocations_total{ev}[rate])), 1e-9)",
        ),
        _number(
            "p99",
            "99th percentile of the time in workers.",
            "s",
            "histogram_quantile(0.99, sum by (le) (rate(sagemaker_model_latency_seconds_bucket{ev}[rate])))",
        ),
        _number("Workers ready", "Processes that can answer.", "short", 'sum(sagemaker_workers{ev, state="READY"})'),
        _number("Models in memory", "Summed over workers.", "short", "sum(sagemaker_loaded_models{ev})"),
        _number("Backlog", "Asynchronous calls not yet ended.", "short", "sum(sagemaker_approximate_backlog_size{e})"),
    ),
)
_TRAFFIC = Row(
    "Traffic",
    (
        Panel("Calls", "Given to each variant.", "reqps", {_EV: _rate("invocations_total")}, 12),
        Panel(
            "Share of each variant",
            "Of the endpoint's calls; shadows' copies are counted with them.",
            "percentunit",
            {
                _EV: f"{_rate('invocations_total')} / on (endpoint) group_left () "
                + _rate("invocations_total", "endpoint", "{e}")
            },
            12,
            most=1.0,
        ),
        Panel(
            "Errors of models",
            "4xx and 5xx that a model answered.",
            "reqps",
            {_EV + " {{class}}": _rate("invocation_errors_total", f"{_BY}, class")},
        ),
        Panel(
            "Failed calls",
            "Share that was not answered with 2xx, timeouts and lost workers included.",
            "percentunit",
            {_EV: f"{_rate('invocation_model_errors_total')} / {_rate('invocations_total')}"},
        ),
        Panel(
            "Refused before a variant was chosen",
            "By error code: throttling, unknown names, missing rights.",
            "reqps",
            {"{{code}}": _rate("rejected_requests_total", "code", "")},
        ),
        Panel("In flight", "Accepted and not answered, queued ones too.", "short", {_EV: _sum("concurrent_requests")}),
        Panel(
            "Calls predicted together",
            "Mean size of the batches that workers form.",
            "short",
            {_EV: f"{_rate('batch_calls_sum')} / {_rate('batch_calls_count')}"},
        ),
        Panel("Placed again", "Their worker had died.", "reqps", {_EV: _rate("retried_invocations_total")}),
    ),
)
_LATENCY = Row(
    "Latency",
    (
        Panel("In the worker", "From sending a call until its answer.", "s", _quantiles("model_latency_seconds")),
        Panel("Around it", "Waiting for a place, retries.", "s", _quantiles("overhead_latency_seconds")),
        Panel("First part of a stream", "From sending until it came.", "s", _quantiles("first_chunk_latency_seconds")),
        Panel(
            "Distribution",
            "Calls by the time they took in the worker.",
            "short",
            {"{{le}}": "sum by (le) (increase(sagemaker_model_latency_seconds_bucket{ev}[rate]))"},
            16,
            "heatmap",
        ),
        Panel("Broken streams", "After their first part.", "reqps", {_EV: _rate("mid_stream_errors_total")}),
    ),
)
_WORKERS = Row(
    "Workers",
    (
        Panel("Workers", "By state.", "short", {_EV + " {{state}}": _sum("workers", f"{_BY}, state")}, 6),
        Panel(
            "Deaths",
            "Workers that ended without being told to, an hour.",
            "short",
            {_EV: "sum by (endpoint, variant) (increase(sagemaker_worker_deaths_total{ev}[1h]))"},
            6,
        ),
        Panel("Start", "Until a worker is ready.", "s", _quantiles("worker_start_seconds"), 6),
        Panel("Refused models", "They kept ending workers.", "short", {_EV: _sum("quarantined_models")}, 6),
    ),
)
_SCALING = Row(
    "Scaling",
    (
        Panel(
            "Capacity",
            "Workers that there should be, and those that can answer.",
            "short",
            {f"desired {_EV}": _sum("desired_workers"), f"ready {_EV}": _sum("workers", chosen='{ev, state="READY"}')},
        ),
        Panel("Wait in the worker", "Until a call was predicted.", "s", _quantiles("queue_seconds")),
        Panel(
            "Calls without capacity",
            "Refused, as a component had no copy.",
            "reqps",
            {_EV: _rate("no_capacity_invocation_failures_total")},
        ),
        Panel("Processors", "Busy ones, of all workers.", "short", {_EV: _rate("worker_cpu_seconds_total")}),
        Panel(
            "Memory of workers",
            "Resident; what they share is counted in each.",
            "bytes",
            {_EV: _sum("worker_memory_bytes")},
        ),
        Panel("From zero", "Until the first worker took a call.", "s", _quantiles("model_setup_seconds")),
        Panel(
            "Changes of capacity",
            "An hour, by status.",
            "short",
            {
                _EV + " {{status}}": "sum by (endpoint, variant, status) "
                "(increase(sagemaker_scaling_activities_total{ev}[1h]))"
            },
            12,
        ),
        Panel("Alarms", "By state.", "short", {"{{state}}": _sum("alarms", "state", "")}, 12),
    ),
)
_GUARDED = Row(
    "Guarded updates",
    (
        Panel("Calls", "Sent to each side.", "reqps", {_SIDE: _rate("deployment_invocations_total", _BY_SIDE)}),
        Panel(
            "Errors",
            "Of each side: 4xx, 5xx, and all that were not 2xx (model).",
            "reqps",
            {_SIDE + " {{class}}": _rate("deployment_invocation_errors_total", f"{_BY_SIDE}, class")},
        ),
        Panel(
            "p99 in the worker",
            "Of each side.",
            "s",
            {
                _SIDE: "histogram_quantile(0.99, "
                + _rate("deployment_model_latency_seconds_bucket", f"le, {_BY_SIDE}")
                + ")"
            },
        ),
    ),
)
_MODELS = Row(
    "Models in memory",
    (
        Panel("Memory", "Measured bytes of the models in memory.", "bytes", {_EV: _sum("model_memory_bytes")}),
        Panel("Models", "In memory, summed over workers.", "short", {_EV: _sum("loaded_models")}),
        Panel(
            "Hits",
            "Share of the calls whose model was in memory.",
            "percentunit",
            {
                _EV: _rate("model_cache_requests_total", chosen='{ev, result="hit"}')
                + f" / {_rate('model_cache_requests_total')}"
            },
            most=1.0,
        ),
        Panel(
            "Evictions and failed loads",
            "Models that had to make room, and those that could not be loaded.",
            "ops",
            _each({"evicted": "model_evictions_total", "failed": "model_load_failures_total"}),
        ),
        Panel(
            "Loading",
            "Fetching, loading and releasing a model: 99th percentiles.",
            "s",
            {f"{name} {_EV}": _quantile(99, f"model_{name}_seconds") for name in ("download", "load", "unload")},
        ),
        Panel("Waiting for a model", "It was not in memory.", "s", _quantiles("model_loading_wait_seconds")),
    ),
)
_LATER = Row(
    "Asynchronous calls",
    (
        Panel(
            "Backlog",
            "Queued or being processed; and by instance.",
            "short",
            {
                _E: _sum("approximate_backlog_size", "endpoint", "{e}"),
                f"{_E} by instance": _sum("approximate_backlog_size_per_instance", "endpoint", "{e}"),
            },
        ),
        Panel("Age of the oldest", "Of them.", "s", {_E: _most("approximate_age_of_oldest_request_seconds")}),
        Panel(
            "Without capacity",
            "1 while calls are queued and there is no instance.",
            "short",
            {_E: _most("has_backlog_without_capacity")},
            most=1.0,
        ),
        Panel(
            "Ends",
            "Processed, failed, expired.",
            "ops",
            _each(
                {
                    "processed": "invocations_processed_total",
                    "failed": "invocation_failures_total",
                    "expired": "expired_requests_total",
                }
            ),
        ),
        Panel("Time in the backlog", "Until a call was begun.", "s", _quantiles("time_in_backlog_seconds")),
        Panel("Time to the end", "Until its answer was published.", "s", _quantiles("total_processing_seconds")),
        Panel(
            "Objects and notices that failed",
            "Inputs not read, answers not written, notices given up.",
            "ops",
            _each(
                {
                    "input": "request_download_failures_total",
                    "answer": "response_upload_failures_total",
                    "notice": "notification_failures_total",
                }
            ),
            12,
        ),
        Panel(
            "Objects",
            "Time to get an input and to write an answer: 99th percentiles.",
            "s",
            {
                f"input {_EV}": _quantile(99, "request_download_seconds"),
                f"answer {_EV}": _quantile(99, "response_upload_seconds"),
            },
            12,
        ),
    ),
)
_TRANSFORMS = Row(
    "Transform jobs",
    (
        Panel(
            "Progress",
            "How much of the input of each running job is done.",
            "percentunit",
            {_E: _most("transform_progress_ratio", chosen="")},
            most=1.0,
        ),
        Panel(
            "Records",
            "Answered (done) and not (failed).",
            "ops",
            {_E + " {{result}}": _rate("transform_records_total", "endpoint, result", "")},
        ),
        Panel(
            "Jobs that ended",
            "An hour, by status.",
            "short",
            {"{{status}}": "sum by (status) (increase(sagemaker_transform_jobs_total[1h]))"},
        ),
    ),
)
_SHADOWS = Row(
    "Shadow variants",
    (
        Panel(
            "Copies",
            "Calls that a shadow and production both answered; copies that were dropped.",
            "reqps",
            {_BESIDE: _rate("shadow_pairs_total", _PAIR), f"dropped {_EV}": _rate("shadow_dropped_total")},
        ),
        Panel(
            "Slower than production by",
            "Mean difference of the times of the same calls; below 0 the shadow is faster.",
            "s",
            {
                _BESIDE: f"({_pair_seconds('shadow')} - {_pair_seconds('production')}) / "
                + _rate("shadow_pairs_total", _PAIR)
            },
            least=None,
        ),
        Panel(
            "Spread of that difference",
            "Its root mean square.",
            "s",
            {
                _BESIDE: f"sqrt({_rate('shadow_pair_squared_difference_total', _PAIR)} / "
                f"{_rate('shadow_pairs_total', _PAIR)})"
            },
        ),
    ),
)
_MONITORING = Row(
    "Capture, labels, monitoring, explanations",
    (
        Panel("Captured", "Calls that were written down.", "reqps", {_EV: _rate("data_capture_records_total")}),
        Panel(
            "Not captured",
            "By reason.",
            "reqps",
            {_EV + " {{reason}}": _rate("data_capture_dropped_total", f"{_BY}, reason")},
        ),
        Panel(
            "Capture stopped",
            "Processes that have stopped: a disk is full or fails, or the destination is away.",
            "short",
            {_E: _sum("data_capture_stopped", "endpoint", "{e}")},
        ),
        Panel(
            "Labels",
            "Ground truth that came in, by result.",
            "ops",
            {_E + " {{result}}": _rate("ground_truth_records_total", "endpoint, result", "{e}")},
        ),
        Panel(
            "Violations",
            "Found by each schedule's last execution.",
            "short",
            {_SCHEDULE: _most("monitoring_violations", "endpoint, schedule")},
        ),
        Panel(
            "Distance from the baseline",
            "The ten features that have drifted furthest.",
            "short",
            {
                _SCHEDULE + " {{feature}}": "topk(10, "
                + _most("feature_baseline_drift", "endpoint, schedule, feature")
                + ")"
            },
        ),
        Panel(
            "Model quality and bias",
            "Metrics of each schedule's last execution.",
            "short",
            {_SCHEDULE + " {{metric}}": _most("monitoring_metric", "endpoint, schedule, metric")},
            least=None,
        ),
        Panel(
            "Since the last execution",
            "How long ago each schedule's last one was finished.",
            "s",
            {_SCHEDULE: f"time() - {_most('monitoring_finished_seconds', 'endpoint, schedule')}"},
        ),
        Panel(
            "Executions",
            "Of monitoring schedules, an hour, by status.",
            "short",
            {"{{status}}": "sum by (status) (increase(sagemaker_monitoring_executions_total[1h]))"},
        ),
        Panel("Explained", "Calls answered with attributions.", "reqps", {_EV: _rate("explanations_total")}, 12),
        Panel("Time to explain", "One call.", "s", _quantiles("explanation_seconds"), 12),
    ),
)

ROWS: tuple[Row, ...] = (
    _NOW, _TRAFFIC, _LATENCY, _WORKERS, _SCALING, _GUARDED, _MODELS, _LATER, _TRANSFORMS, _SHADOWS, _MONITORING,
)  # fmt: skip
