"""What a target tracking policy's configuration may be (Application Auto Scaling API,
TargetTrackingScalingPolicyConfiguration). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.api.cloudwatch_checks import read_queries
from serving.errors import RequestRefused, ValidationError
from serving.fleet.tracking_alarms import PREDEFINED
from serving.scaling import maths
from serving.scaling.values import Resource

Body = Mapping[str, Any]

_NAMED = ("MetricName", "Namespace", "Statistic")
_LARGEST = 2.0**360


def check_metric(config: Body, resource: Resource) -> None:
    """One metric with a target that it can be at. Raises ``ValidationError``."""
    target = config["TargetValue"]
    if not 0 < target <= _LARGEST:
        raise ValidationError(f"TargetValue is {target}; it must be greater than 0, and at most 2^360")
    for member in ("ScaleOutCooldown", "ScaleInCooldown"):
        if config.get(member, 0) < 0:
            raise ValidationError(f"{member} cannot be negative")
    predefined, custom = config.get("PredefinedMetricSpecification"), config.get("CustomizedMetricSpecification")
    if (predefined is None) == (custom is None):
        raise ValidationError(
            "Either PredefinedMetricSpecification or CustomizedMetricSpecification must be given, and not both"
        )
    if predefined is not None:
        _check_predefined(predefined, resource)
    elif custom is not None:
        _check_custom(custom)


def _check_predefined(given: Body, resource: Resource) -> None:
    kind = given["PredefinedMetricType"]
    if PREDEFINED.get(kind) != resource.dimension:
        known = ", ".join(one for one, dimension in PREDEFINED.items() if dimension == resource.dimension)
        raise ValidationError(
            f"Metric type {kind} is not valid for scalable dimension {resource.dimension}; valid are: {known}"
        )
    if "ResourceLabel" in given:
        raise ValidationError(f"ResourceLabel cannot be given for metric type {kind}")


def _check_custom(given: Body) -> None:
    queries = given.get("Metrics")
    if queries is not None:
        if any(member in given for member in (*_NAMED, "Dimensions", "Unit")):
            raise ValidationError("CustomizedMetricSpecification has either Metrics or a single metric, not both")
        _check_queries(queries)
        return
    missing = [member for member in _NAMED if member not in given]
    if missing:
        raise ValidationError(f"CustomizedMetricSpecification must have {', '.join(missing)}")


def _check_queries(given: Sequence[Body]) -> None:
    """As for an alarm on metric maths, which this will be: one result, of what can be computed."""
    timed = [
        {**one, "MetricStat": {**one["MetricStat"], "Period": 60}} if "MetricStat" in one else one for one in given
    ]
    try:
        queries = read_queries(timed)
        maths.evaluate(queries, lambda stat: ())
    except RequestRefused as error:  # CloudWatch has codes of its own for these
        raise ValidationError(f"Metrics: {error.message}") from None
    if sum(query.returned for query in queries) != 1:
        raise ValidationError("Metrics: exactly one must have ReturnData true")
