"""What CloudWatch's model does not say of an alarm or a metric query: which members go together, which values mean
something here. Every check raises before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import (
    InvalidParameterCombination,
    InvalidParameterValue,
    MissingParameter,
    ValidationError,
)
from serving.scaling import maths
from serving.scaling.values import Metric, Query, Stat

Body = Mapping[str, Any]

#: Seconds that a period may have, but for multiples of a minute.
_SHORT_PERIODS = (1, 5, 10, 20, 30)
#: All periods of an alarm together, in seconds: as far as the meters remember (``watch/meters.py``; CloudWatch: a day).
_LONGEST_WINDOW = 3 * 3600
_TOO_LONG = "Metrics cannot be checked over more than three hours (EvaluationPeriods * Period): no more is remembered."
#: Points that an alarm's expressions may compute each time.
_MOST_QUERIES_OF_ALARM, _MOST_POINTS_OF_ALARM = 20, 20_000
_STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
_PERCENTILE = re.compile(r"p(100|[0-9]{1,2}(\.[0-9]{1,10})?)")
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_MISSING = ("missing", "notBreaching", "breaching", "ignore")
#: Members of a plain metric, which metric maths replaces.
_PLAIN = ("MetricName", "Namespace", "Dimensions", "Period", "Unit", "Statistic", "ExtendedStatistic")
#: Ways of evaluating that are not offered here.
_NOT_OFFERED = (
    "ThresholdMetricId",
    "EvaluationWindow",
    "WarmUpConfiguration",
    "EvaluationCriteria",
    "EvaluationInterval",
)


def check_alarm(params: Body) -> None:
    """PutMetricAlarm's members together. Raises ``ValidationError`` and those below it."""
    for name in _NOT_OFFERED:
        if name in params:
            raise ValidationError(f"{name} is not offered by this server.")
    for name in ("EvaluationPeriods", "ComparisonOperator", "Threshold"):
        if name not in params:
            raise MissingParameter(f"The parameter {name} is required.")
    if "Upper" in params["ComparisonOperator"] or "Lower" in params["ComparisonOperator"]:
        raise ValidationError("Anomaly detection is not offered by this server: ComparisonOperator needs a threshold.")
    if params.get("EvaluateLowSampleCountPercentile", "evaluate") != "evaluate":
        raise ValidationError("EvaluateLowSampleCountPercentile must be evaluate: a percentile of few counts too.")
    if params.get("TreatMissingData", "missing") not in _MISSING:
        raise ValidationError(f"TreatMissingData must be one of {', '.join(_MISSING)}.")
    if params.get("DatapointsToAlarm", 1) > params["EvaluationPeriods"]:
        raise ValidationError("DatapointsToAlarm must be less than or equal to EvaluationPeriods.")
    for name in ("OKActions", "AlarmActions", "InsufficientDataActions"):
        for action in params.get(name, []):
            if not action.startswith("arn:"):
                raise ValidationError(f"Invalid arn syntax: {action}")
    period = _period_of_queries(params) if "Metrics" in params else _period_of_metric(params)
    if period * params["EvaluationPeriods"] > _LONGEST_WINDOW:
        raise ValidationError(_TOO_LONG)


def _period_of_metric(params: Body) -> int:
    for name in ("MetricName", "Namespace", "Period"):
        if name not in params:
            raise MissingParameter(f"The parameter {name} is required, or Metrics instead.")
    if ("Statistic" in params) == ("ExtendedStatistic" in params):
        raise InvalidParameterCombination("Exactly one of Statistic and ExtendedStatistic is required.")
    check_period(params["Period"])
    check_dimensions(params)
    check_statistic(params.get("Statistic") or params["ExtendedStatistic"])
    return int(params["Period"])


def _period_of_queries(params: Body) -> int:
    given = [name for name in _PLAIN if name in params]
    if given:
        raise InvalidParameterCombination(f"{given[0]} cannot be used together with Metrics.")
    if params["EvaluationPeriods"] > _LONGEST_WINDOW:  # of a second each
        raise ValidationError(_TOO_LONG)
    if len(params["Metrics"]) > _MOST_QUERIES_OF_ALARM:
        raise ValidationError(f"An alarm has {_MOST_QUERIES_OF_ALARM} metrics and expressions at most.")
    queries = read_queries(params["Metrics"])
    if sum(query.returned for query in queries) != 1:
        raise ValidationError("Exactly one element of the metrics list should return data.")
    periods = {one["MetricStat"]["Period"] for one in params["Metrics"] if "MetricStat" in one}
    if len(periods) != 1:
        raise ValidationError("All metrics of an alarm have the same period.")
    points = [(float(at), 1.0) for at in range(params["EvaluationPeriods"])]
    maths.evaluate(queries, lambda stat: points, most=_MOST_POINTS_OF_ALARM)  # as it will be, every period
    return int(periods.pop())


def read_queries(given: Sequence[Body]) -> tuple[Query, ...]:
    """MetricDataQueries as values. Raises ``ValidationError`` for what is no query."""
    if not given:
        raise MissingParameter("At least one metric or expression is required.")
    queries = tuple(_query(one) for one in given)
    ids = [query.id for query in queries]
    if len(set(ids)) < len(ids):
        raise ValidationError("The ids of metrics and expressions must be unique.")
    return queries


def _query(given: Body) -> Query:
    id, stat = given["Id"], given.get("MetricStat")
    if not _ID.fullmatch(id):
        raise ValidationError(f"The id {id!r} is not one: a lower-case letter, then letters, digits and underscores.")
    if (stat is None) == ("Expression" not in given):
        raise ValidationError(f"The query {id} needs either a MetricStat or an Expression.")
    if stat is None:
        return Query(id, None, given["Expression"], given.get("ReturnData", True))
    metric = stat["Metric"]
    for name in ("Namespace", "MetricName"):
        if name not in metric:
            raise MissingParameter(f"The query {id} needs the metric's {name}.")
    check_period(stat["Period"])
    check_dimensions(metric)
    check_statistic(stat["Stat"])
    return Query(id, Stat(metric_of(metric), stat["Stat"]), returned=given.get("ReturnData", True))


def metric_of(given: Body) -> Metric:
    """The identity of a metric in a request."""
    return Metric(given["Namespace"], given["MetricName"], dimensions(given))


def dimensions(given: Body) -> tuple[tuple[str, str], ...]:
    """A request's Dimensions, as part of a metric's identity."""
    return tuple(sorted((one["Name"], one.get("Value", "")) for one in given.get("Dimensions", [])))


def check_dimensions(given: Body) -> None:
    """No dimension twice. Raises ``InvalidParameterValue``."""
    names = [one["Name"] for one in given.get("Dimensions", [])]
    if len(set(names)) < len(names):
        raise InvalidParameterValue("The parameter Dimensions names a dimension twice.")


def check_statistic(name: str) -> None:
    """One that is computed here. Raises ``InvalidParameterValue``."""
    if name not in _STATISTICS and not _PERCENTILE.fullmatch(name):
        known = ", ".join(_STATISTICS)
        raise InvalidParameterValue(f"The statistic {name[:64]!r} is not offered: {known} and percentiles such as p99.")


def check_period(seconds: int) -> None:
    """A length that periods have. Raises ``InvalidParameterValue``."""
    if seconds not in _SHORT_PERIODS and seconds % 60:
        raise InvalidParameterValue("The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")
