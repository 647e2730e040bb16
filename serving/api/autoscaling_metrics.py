"""What a target tracking policy's configuration may be (Application Auto Scaling API,
TargetTrackingScalingPolicyConfiguration). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.errors import ValidationError
from serving.fleet.tracking_alarms import PREDEFINED
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


def _check_queries(queries: Sequence[Body]) -> None:
    if not queries:
        raise ValidationError("Metrics must have at least one metric")
    ids = [one["Id"] for one in queries]
    if len(set(ids)) < len(ids):
        raise ValidationError("The Ids of Metrics must be unique")
    if sum(one.get("ReturnData", True) for one in queries) != 1:
        raise ValidationError("Exactly one of Metrics must have ReturnData true")
    for one in queries:
        if ("Expression" in one) == ("MetricStat" in one):
            raise ValidationError(f"Metric {one['Id']} must have either Expression or MetricStat")
