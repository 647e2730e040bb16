"""What a step scaling policy's configuration may be (Application Auto Scaling API, StepAdjustment). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from serving.errors import ValidationError

Body = Mapping[str, Any]

#: Application Auto Scaling, quotas.
MOST_STEPS = 20


def check_steps(config: Body) -> None:
    """Steps without gap or overlap, over an adjustment that is said. Raises ``ValidationError``."""
    kind, steps = config.get("AdjustmentType"), config.get("StepAdjustments")
    if kind is None:
        raise ValidationError("AdjustmentType must be specified")
    if not steps:
        raise ValidationError("At least one StepAdjustment must be specified")
    if len(steps) > MOST_STEPS:
        raise ValidationError(f"At most {MOST_STEPS} StepAdjustments may be specified")
    _check_intervals([_interval(one) for one in steps])
    if kind == "ExactCapacity" and any(one["ScalingAdjustment"] < 0 for one in steps):
        raise ValidationError("ScalingAdjustment cannot be negative for AdjustmentType ExactCapacity")
    if "MinAdjustmentMagnitude" in config:
        if kind != "PercentChangeInCapacity":
            raise ValidationError("MinAdjustmentMagnitude is only for AdjustmentType PercentChangeInCapacity")
        if config["MinAdjustmentMagnitude"] < 1:
            raise ValidationError("MinAdjustmentMagnitude must be at least 1")
    if config.get("Cooldown", 0) < 0:
        raise ValidationError("Cooldown cannot be negative")


def _interval(step: Body) -> tuple[float, float]:
    low, high = step.get("MetricIntervalLowerBound", -math.inf), step.get("MetricIntervalUpperBound", math.inf)
    if math.isinf(low) and math.isinf(high):
        raise ValidationError("A StepAdjustment must have a MetricIntervalLowerBound or a MetricIntervalUpperBound")
    if low >= high:
        raise ValidationError("MetricIntervalLowerBound must be less than MetricIntervalUpperBound")
    return low, high


def _check_intervals(intervals: Sequence[tuple[float, float]]) -> None:
    for ends, what in (([low for low, _ in intervals], "Lower"), ([-high for _, high in intervals], "Upper")):
        if ends.count(-math.inf) > 1:
            raise ValidationError(f"At most one StepAdjustment may have an unspecified MetricInterval{what}Bound")
    ordered = sorted(intervals)
    for (_, high), (low, _) in pairwise(ordered):
        if low < high:
            raise ValidationError("StepAdjustment intervals can't overlap")
        if low > high:
            raise ValidationError("StepAdjustment intervals can't have a gap between them")
    if -math.inf < ordered[0][0] < 0:
        raise ValidationError("There must be a StepAdjustment with an unspecified lower bound if one is negative")
    if 0 < ordered[-1][1] < math.inf:
        raise ValidationError("There must be a StepAdjustment with an unspecified upper bound if one is positive")
