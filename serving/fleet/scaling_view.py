"""A scalable target as people are shown it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serving.fleet import activities as records
from serving.fleet.scaled import Scaled
from serving.fleet.store import Session
from serving.scaling.remembering import State
from serving.scaling.values import Alarm, AlarmReading, Policy, Resource, TargetTracking

#: Activities that are shown.
_SHOWN = 20

#: An alarm's last reading, by its name.
Reading = Callable[[str], AlarmReading | None]


def activities(resources: Iterable[Resource], session: Session) -> dict[Resource, list[dict[str, Any]]]:
    """The newest of each, newest first."""
    return {one: [records.told(record) for record in records.latest(session, one, _SHOWN)] for one in resources}


def target(one: Scaled, reading: Reading, now: float) -> dict[str, Any]:
    """Limits, capacity, and each policy with what it measures. Times are epoch seconds, what is ``…Left`` seconds."""
    limits = one.target
    return {
        "ResourceId": limits.resource.id,
        "ScalableDimension": limits.resource.dimension,
        "Name": one.name,
        "MinCapacity": limits.minimum,
        "MaxCapacity": limits.maximum,
        "SuspendedState": {
            "DynamicScalingInSuspended": limits.suspended_in,
            "DynamicScalingOutSuspended": limits.suspended_out,
            "ScheduledScalingSuspended": limits.suspended_schedule,
        },
        "DesiredCapacity": one.count,
        "Blocked": one.refusal,
        "CooldownLeft": _cooldown(one.state, now),
        "Policies": [_policy(policy, reading) for policy in one.policies],
    }


def _cooldown(state: State, now: float) -> dict[str, float]:
    ends = {"Out": state.out_until, "In": state.in_until}
    return {name: round(end - now, 1) if math.isfinite(end) and end > now else 0.0 for name, end in ends.items()}


def _policy(policy: Policy, reading: Reading) -> Mapping[str, Any]:
    if not isinstance(policy, TargetTracking):
        return {"PolicyName": policy.name, "PolicyType": "StepScaling", "PolicyARN": policy.arn}
    alarms = [policy.high, *([policy.low] if policy.low else [])]
    seen = reading(policy.high.name)
    return {
        "PolicyName": policy.name,
        "PolicyType": "TargetTrackingScaling",
        "Metric": _metric(policy.high),
        "TargetValue": policy.value,
        "Measured": next((value for value in reversed(seen.values) if value is not None), None) if seen else None,
        "Alarms": [_alarm(one, reading(one.name)) for one in alarms],
    }


def _metric(alarm: Alarm) -> str:
    """The name of what is tracked; of metric maths, the expression."""
    result = next((one for one in alarm.queries if one.returned), alarm.queries[0])
    return result.stat.metric.name if result.stat else result.expression


def _alarm(alarm: Alarm, seen: AlarmReading | None) -> dict[str, Any]:
    return {
        "AlarmName": alarm.name,
        "Threshold": alarm.threshold,
        "ComparisonOperator": alarm.comparison,
        "PeriodSeconds": alarm.period,
        "EvaluationPeriods": alarm.evaluations,
        "StateValue": seen.state if seen else "INSUFFICIENT_DATA",
        "StateReason": seen.reason if seen else "",
        "Since": seen.since if seen else None,
    }
