"""What a step scaling policy asks for while an alarm that names it is in ALARM (``behaviour/07``, Step scaling)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serving.scaling.values import Alarm, AlarmReading, Step, StepScaling

_AGGREGATES = {"Minimum": min, "Maximum": max}


def measured(policy: StepScaling, alarm: Alarm, reading: AlarmReading) -> float:
    """The value that picks the step: the evaluated datapoints under the policy's aggregation. Where an alarm went off
    for want of data, its threshold."""
    values = [value for value in reading.values if value is not None]
    if not values:
        return alarm.threshold
    aggregate = _AGGREGATES.get(policy.aggregation)
    return sum(values) / len(values) if aggregate is None else aggregate(values)


def chosen(steps: Sequence[Step], beyond: float) -> Step | None:
    """The step for a metric ``beyond`` the threshold. Above it the lower bound belongs to the step, below it the
    upper."""
    for step in steps:
        lower = -math.inf if step.lower is None else step.lower
        upper = math.inf if step.upper is None else step.upper
        if (lower <= beyond < upper) if beyond >= 0 else (lower < beyond <= upper):
            return step
    return next((step for step in steps if beyond == 0 and step.upper == 0), None)


def changed(policy: StepScaling, step: Step, base: int) -> int:
    """The capacity that a step makes of ``base``, never below 0."""
    if policy.kind == "ExactCapacity":
        return max(0, step.adjustment)
    if policy.kind == "ChangeInCapacity":
        return max(0, base + step.adjustment)
    return max(0, base + _percent(base * step.adjustment / 100, policy.magnitude))


def _percent(change: float, least: int) -> int:
    """Rounded as AWS rounds: above 1 down, within 0..1 to 1, below -1 toward zero; at least ``least``."""
    if change == 0:
        return 0
    by = max(1, math.floor(abs(change) + 1e-9), abs(least))
    return by if change > 0 else -by
