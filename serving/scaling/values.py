"""What the parts of scaling hand to each other: metrics by name, alarms, targets, policies, decisions. Frozen, small.

Spelled as SageMaker, Application Auto Scaling and CloudWatch spell it (``reference/api/06``, ``behaviour/07``, ``09``).
All times are epoch seconds, or those of a simulator's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from serving.watch.readings import Metric as Metric
from serving.watch.readings import Stat as Stat

#: The service namespace of every scalable target here.
NAMESPACE = "sagemaker"

INSTANCES = "sagemaker:variant:DesiredInstanceCount"
PROVISIONED = "sagemaker:variant:DesiredProvisionedConcurrency"
COPIES = "sagemaker:inference-component:DesiredCopyCount"
DIMENSIONS = (INSTANCES, PROVISIONED, COPIES)

OK: Final = "OK"
ALARM: Final = "ALARM"
NO_DATA: Final = "INSUFFICIENT_DATA"
AlarmState = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Comparison = Literal[
    "GreaterThanOrEqualToThreshold", "GreaterThanThreshold", "LessThanThreshold", "LessThanOrEqualToThreshold"
]
MissingData = Literal["missing", "notBreaching", "breaching", "ignore"]

#: AWS's period of evaluation, and the one that metrics "per minute" are per.
MINUTE = 60.0


# --- what is measured -------------------------------------------------------------------------------------------------


class Query(NamedTuple):
    """One of several that a metric maths expression is made of: a ``stat``, or an ``expression`` over others' ids.
    ``returned``: is it the result?"""

    id: str
    stat: Stat | None = None
    expression: str = ""
    returned: bool = True


class Readings(Protocol):
    """What has been measured, asked by name: the server's own meters, or a simulator's."""

    def series(self, stat: Stat, period: float, start: float, end: float) -> Sequence[tuple[float, float]]:
        """(start of the period, value), oldest first, of the whole periods (multiples of ``period`` since 1970) from
        ``start`` to before ``end``; periods without data are left out. Units are CloudWatch's (``behaviour/09``:
        latencies in microseconds). Nothing is known of an unknown metric. Any thread may ask."""


# --- alarms -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alarm:
    """PutMetricAlarm, as it is evaluated: ``datapoints`` of the last ``evaluations`` periods of ``period`` seconds on
    the wrong side of ``threshold``. ``queries``: one for a plain metric, several for metric maths. ``actions``: ARNs
    told on ALARM."""

    name: str
    queries: tuple[Query, ...]
    period: float
    evaluations: int
    datapoints: int
    threshold: float
    comparison: Comparison
    missing: MissingData = "missing"
    actions: tuple[str, ...] = ()


class AlarmReading(NamedTuple):
    """An alarm at its last evaluation. ``values``: those of its evaluation periods, oldest first, None = no data;
    ``since``: when it came to this state; ``at``: when it was evaluated; ``end``: the end of the latest of those
    periods, None = of the last whole one at ``at`` (no metric comes late)."""

    state: AlarmState
    reason: str
    values: tuple[float | None, ...]
    since: float
    at: float
    end: float | None = None


# --- what is scaled ---------------------------------------------------------------------------------------------------


class Resource(NamedTuple):
    """What is scaled: ``endpoint/E/variant/V`` or ``inference-component/C``, in one dimension."""

    id: str
    dimension: str


@dataclass(frozen=True, slots=True)
class Target:
    """A scalable target. Capacities are instances, copies or provisioned concurrency."""

    resource: Resource
    minimum: int
    maximum: int
    suspended_in: bool = False
    suspended_out: bool = False
    suspended_schedule: bool = False


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """A target tracking policy with its two alarms (``low`` None with DisableScaleIn). Cooldowns in seconds."""

    name: str
    value: float
    high: Alarm
    low: Alarm | None
    out_cooldown: float
    in_cooldown: float


class Step(NamedTuple):
    """A step adjustment; bounds are relative to the alarm's threshold, None = open."""

    lower: float | None
    upper: float | None
    adjustment: int


@dataclass(frozen=True, slots=True)
class StepScaling:
    """A step scaling policy; whose alarms name its ``arn`` as an action. ``cooldown`` in seconds."""

    name: str
    arn: str
    kind: Literal["ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity"]
    steps: tuple[Step, ...]
    magnitude: int = 0
    cooldown: float = 300.0
    aggregation: Literal["Average", "Minimum", "Maximum"] = "Average"


Policy = TargetTracking | StepScaling


# --- what is decided --------------------------------------------------------------------------------------------------


class NotScaled(NamedTuple):
    """Why there was no more, or no less (Application Auto Scaling API, NotScaledReason)."""

    code: str
    maximum: int | None = None
    minimum: int | None = None
    current: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one look at a target came to. ``desired`` == ``current``: nothing changes. ``cause`` is AWS's sentence;
    ``measured``: policy -> what it saw, in words, for people; ``not_scaled``: what held it back."""

    resource: Resource
    current: int
    desired: int
    cause: str = ""
    policy: str = ""
    measured: tuple[tuple[str, str], ...] = ()
    not_scaled: tuple[NotScaled, ...] = ()
