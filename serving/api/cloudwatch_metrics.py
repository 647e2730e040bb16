"""Metrics of the CloudWatch API: read, listed, and taken in. What is measured: ``watch/meters.py``."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from serving.api.cloudwatch_checks import (
    check_dimensions,
    check_period,
    check_statistic,
    metric_of,
)
from serving.api.control_call import ControlCall, Meters, Outcome
from serving.errors import (
    InvalidParameterCombination,
    InvalidParameterValue,
    MissingParameter,
    ServiceUnavailable,
    ValidationError,
)
from serving.fleet import tokens
from serving.scaling.values import Metric, Stat
from serving.watch import catalogue

#: Datapoints of one GetMetricStatistics (CloudWatch's own limit).
_MOST_STATISTICS = 1_440
#: Metrics on a page of ListMetrics.
_PAGE = 500
#: Data of one PutMetricData.
_MOST_DATA = 1_000
#: Seals page tokens, which are good until the server ends.
PAGES = secrets.token_bytes(32)

#: (start of the period, value), oldest first.
Series = Sequence[tuple[float, float]]


def meters_of(call: ControlCall) -> Meters:
    """The server's meters. Raises ``ServiceUnavailable``."""
    if call.readings is None:
        raise ServiceUnavailable("Nothing has been measured yet.")
    return call.readings


# --- reading ----------------------------------------------------------------------------------------------------------


def get_statistics(call: ControlCall) -> Outcome:
    """GetMetricStatistics: one metric under several statistics. A period without data has no datapoint."""
    params, meters = call.params, meters_of(call)
    wanted = [*params.get("Statistics", ()), *params.get("ExtendedStatistics", ())]
    if not wanted:
        raise MissingParameter("Must specify either Statistics or ExtendedStatistics.")
    check_span(params)
    check_period(params["Period"])
    check_dimensions(params)
    _check_count(params["StartTime"], params["EndTime"], params["Period"], _MOST_STATISTICS)
    metric = metric_of(params)
    unit = catalogue.unit(metric)
    if unit not in ("None", params.get("Unit", unit)):
        return Outcome({"Label": metric.name, "Datapoints": []})  # there is none in that unit
    points: dict[float, dict[str, Any]] = {}
    for name in wanted:
        check_statistic(name)
        stat = Stat(metric, name)
        for at, value in series(meters, stat, params["Period"], params["StartTime"], params["EndTime"]):
            point = points.setdefault(at, {"Timestamp": at, "Unit": params.get("Unit", unit)})
            if name in params.get("Statistics", ()):
                point[name] = value
            else:
                point.setdefault("ExtendedStatistics", {})[name] = value
    return Outcome({"Label": metric.name, "Datapoints": [points[at] for at in sorted(points)]})


def series(meters: Meters, stat: Stat, period: int, start: float, end: float) -> Series:
    """Whole periods from the one that ``start`` lies in to the last that begins before ``end``."""
    return meters.series(stat, period, math.floor(start / period) * period, math.ceil(end / period) * period)


def check_span(params: Mapping[str, Any]) -> None:
    """Raises ``InvalidParameterCombination`` for a time that ends before it begins."""
    if params["StartTime"] >= params["EndTime"]:
        raise InvalidParameterCombination("The parameter StartTime must be less than the parameter EndTime.")


def _check_count(start: float, end: float, period: int, most: int) -> None:
    count = math.ceil((end - start) / period)
    if count > most:
        raise InvalidParameterCombination(
            f"You have requested up to {count} datapoints, which exceeds the limit of {most}. You may reduce the "
            "datapoints requested by increasing Period, or decreasing the time range."
        )


# --- listing ----------------------------------------------------------------------------------------------------------


def list_metrics(call: ControlCall) -> Outcome:
    """ListMetrics: which metrics there are, by namespace, name and dimensions, in pages."""
    params = call.params
    filters = params.get("Dimensions", ())
    exact = [(one["Name"], one["Value"]) for one in filters if "Value" in one]
    named = {one["Name"] for one in filters}
    found = sorted(
        metric
        for metric in meters_of(call).listed(params.get("Namespace", ""), params.get("MetricName", ""), exact)
        if named <= {name for name, _ in metric.dimensions}
    )
    purpose = [params.get("Namespace"), params.get("MetricName"), exact, sorted(named)]
    after = tokens.unseal(PAGES, purpose, params.get("NextToken", ""))
    if after:
        last = Metric(after[0], after[1], tuple((name, value) for name, value in after[2]))
        found = [metric for metric in found if metric > last]
    page = found[:_PAGE]
    token = {"NextToken": tokens.seal(PAGES, purpose, list(page[-1]))} if len(found) > len(page) else {}
    return Outcome({"Metrics": [_shown(metric) for metric in page], **token})


def _shown(metric: Metric) -> dict[str, Any]:
    pairs = [{"Name": name, "Value": value} for name, value in metric.dimensions]
    return {"Namespace": metric.namespace, "MetricName": metric.name, "Dimensions": pairs}


# --- taking in --------------------------------------------------------------------------------------------------------


def put_data(call: ControlCall) -> Outcome:
    """PutMetricData: all that is given is kept, or none of it."""
    params = call.params
    namespace = params["Namespace"]
    if namespace.startswith(("AWS/", "/aws/")) or namespace == "Prometheus":
        raise InvalidParameterValue(
            f"The value {namespace} for parameter Namespace is invalid: it is the server's own."
        )
    entities = params.get("EntityMetricData", ())
    data = [*params.get("MetricData", ()), *(datum for one in entities for datum in one.get("MetricData", ()))]
    if not data:
        raise MissingParameter("The parameter MetricData is required.")
    if len(data) > _MOST_DATA:
        raise InvalidParameterValue(f"The collection MetricData must not have a size greater than {_MOST_DATA}.")
    for at, datum in enumerate(data, start=1):
        _check_datum(datum, f"MetricData.member.{at}")
    try:
        meters_of(call).put(namespace, data)
    except ValidationError as error:
        raise InvalidParameterValue(error.message) from None
    return Outcome({})


def _check_datum(datum: Mapping[str, Any], path: str) -> None:
    """Which members go together; their values are for the meters to check."""
    given = [name for name in ("Value", "StatisticValues", "Values") if name in datum]
    if not given:
        raise MissingParameter(f"At least one of the parameters {path}.Value, Values and StatisticValues is required.")
    if len(given) > 1:
        raise InvalidParameterCombination(f"The parameters {path}.{given[0]} and {given[1]} are mutually exclusive.")
    if "Counts" in datum and "Values" not in datum:
        raise InvalidParameterCombination(f"The parameter {path}.Counts needs {path}.Values.")
    summed = datum.get("StatisticValues")
    if summed and (summed["SampleCount"] <= 0 or summed["Minimum"] > summed["Maximum"]):
        raise InvalidParameterValue(f"The parameter {path}.StatisticValues cannot be those of any samples.")
    check_dimensions(datum)
    if datum.get("StorageResolution", 60) not in (1, 60):
        raise InvalidParameterValue(f"The parameter {path}.StorageResolution must be 1 or 60.")
