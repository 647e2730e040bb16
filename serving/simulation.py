"""``serving simulate``: a trace through scaling policies before they are deployed, beside how others would scale.

The file of policies is what the scaling API takes, or the sections of a declared deployment::

    ScalableTargets: [{ResourceId: endpoint/E/variant/V, MinCapacity: 1, MaxCapacity: 8, ...}]
    ScalingPolicies: [{PolicyName: ..., PolicyType: TargetTrackingScaling, ...}]
    Alarms:          [{AlarmName: ..., AlarmActions: [the name or ARN of a step policy], ...}]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serving.config import read_document
from serving.errors import ConfigError, ValidationError
from serving.fleet import scaling_records
from serving.fleet.tracking_alarms import PREDEFINED
from serving.scaling import charting, traces
from serving.scaling.charting import Chart, Panel, Series
from serving.scaling.following import Following, Rules
from serving.scaling.rivals import HorizontalPodAutoscaler, KnativePodAutoscaler
from serving.scaling.simulating import Load, Outcome, Scaler, Setup, run
from serving.scaling.values import COPIES, INSTANCES, MINUTE, NAMESPACE, TargetTracking
from serving.scaling.virtual import METRICS

Body = Mapping[str, Any]
Service = Callable[[np.random.Generator, int], np.ndarray]

HEADINGS = ("WAY", "WORKER-HOURS", "BUSY", "WAIT P50", "WAIT P99", "SLOW CALLS", "CHANGES", "MOST")
#: Coefficient of variation of the lognormal's service times.
_SPREAD = 0.5
#: Workers that are simulated: each is a place in memory.
_MOST_WORKERS = 10_000
#: Columns of the drawing in a terminal, and points of a chart.
_COLUMNS, _ROWS, _POINTS = 72, 6, 720
_COLOURS = ("#1f6f8b", "#b5651d", "#5b5b9f", "#3f7f4f")

#: How long a call takes, in units of the mean.
DISTRIBUTIONS: Mapping[str, Service] = {
    "lognormal": lambda dice, count: dice.lognormal(
        -math.log1p(_SPREAD**2) / 2, math.sqrt(math.log1p(_SPREAD**2)), count
    ),
    "constant": lambda dice, count: np.ones(count),
    "exponential": lambda dice, count: dice.exponential(1.0, count),
}


class Calls(NamedTuple):
    """How the trace's calls are made: ``scale`` times its traffic; each takes ``service_seconds`` on the average."""

    scale: float
    service_seconds: float
    distribution: str
    seed: int


class Timing(NamedTuple):
    """``period``: ours, in seconds. Of AWS: how late its metrics are, and how long its instances take to start; None =
    as long as ours."""

    period: float
    aws_lag: float = 0.0
    aws_start: float | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A target and what scales it, as the API takes them."""

    target: Body
    policies: Sequence[Body]
    alarms: Sequence[Body]


# --- what is read -----------------------------------------------------------------------------------------------------


def load(path: str, calls: Calls) -> Load:
    """The trace's calls; ``-`` reads standard input. Raises ``ConfigError``."""
    if calls.distribution not in DISTRIBUTIONS:
        raise ConfigError(f"There is no distribution {calls.distribution!r}: {', '.join(DISTRIBUTIONS)}.")
    try:
        lines = sys.stdin if path == "-" else Path(path).read_text(encoding="utf-8").splitlines()
        trace = traces.drawn(traces.parse(lines), calls.scale, calls.seed)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}.") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.message}") from None
    dice = np.random.default_rng([calls.seed, 1])
    return Load(trace, calls.service_seconds * DISTRIBUTIONS[calls.distribution](dice, len(trace.arrivals)))


def document(path: Path, resource: str = "") -> Document:
    """The target of ``resource`` (needed where the file has several) with its policies. Raises ``ConfigError``."""
    from serving.api.schema import Schema  # AWS's models are read where a file is

    raw = read_document(path)
    scaling, watching = Schema.load("application-autoscaling"), Schema.load("cloudwatch", ["PutMetricAlarm"])
    found = [
        _checked(scaling, "RegisterScalableTarget", {"ServiceNamespace": NAMESPACE, **one}, place)
        for place, one in _section(raw, "ScalableTargets")
    ]
    mine = [one for one in found if not resource or one["ResourceId"] == resource]
    if len(mine) != 1:
        names = ", ".join(one["ResourceId"] for one in found) or "none"
        raise ConfigError(f"{path.name} has {len(mine)} scalable targets to simulate; name one of: {names}.")
    (target,) = mine
    key = {name: target[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
    _check_bounds(target)
    policies = [
        _checked(scaling, "PutScalingPolicy", {**key, **one}, place)
        for place, one in _section(raw, "ScalingPolicies")
        if one.get("ResourceId", key["ResourceId"]) == key["ResourceId"]
    ]
    if not policies:
        raise ConfigError(f"{path.name} has no scaling policy for {key['ResourceId']}.")
    for policy in policies:
        _check_policy(policy)
    alarms = [_checked(watching, "PutMetricAlarm", one, place) for place, one in _section(raw, "Alarms")]
    return Document(target, policies, alarms)


def _section(raw: Body, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, body) of a section; a target's dimension follows from its id where it is not said."""
    bodies = raw.get(name, [])
    if not isinstance(bodies, list) or not all(isinstance(one, dict) for one in bodies):
        raise ConfigError(f"{name} must be a list of mappings.")
    for index, body in enumerate(bodies):
        usual: dict[str, Any] = {}
        if name == "ScalableTargets":
            dimension = COPIES if str(body.get("ResourceId", "")).startswith("inference-component/") else INSTANCES
            usual = {"ScalableDimension": dimension}
        yield f"{name}[{index}]", {**usual, **body}


def _checked(schema: Any, operation: str, body: Body, place: str) -> dict[str, Any]:
    try:
        checked: dict[str, Any] = schema.check(operation, dict(body), trusted=True)
    except ValidationError as error:
        raise ConfigError(f"{place}: {error.message}") from None
    return checked


def _check_bounds(target: Body) -> None:
    least, most = target.get("MinCapacity"), target.get("MaxCapacity")
    if least is None or most is None or not 0 <= least <= most or not most:
        raise ConfigError(f"MinCapacity {least} and MaxCapacity {most} of {target['ResourceId']} are no bounds.")
    if most > _MOST_WORKERS:
        raise ConfigError(
            f"MaxCapacity of {target['ResourceId']} is {most}; {_MOST_WORKERS} workers are simulated at most."
        )


def _check_policy(policy: Body) -> None:
    """What the API would refuse, beyond the model's own constraints."""
    name, kind = policy["PolicyName"], policy.get("PolicyType", "StepScaling")
    member = {
        "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
        "StepScaling": "StepScalingPolicyConfiguration",
    }.get(kind)
    if member is None or not policy.get(member):
        raise ConfigError(f"The policy {name} of type {kind} has no configuration of that type that can be simulated.")
    config = policy[member]
    if kind == "StepScaling":
        if not config.get("AdjustmentType") or not config.get("StepAdjustments"):
            raise ConfigError(f"The step policy {name} needs an AdjustmentType and StepAdjustments.")
        return
    if not math.isfinite(config["TargetValue"]) or config["TargetValue"] <= 0:
        raise ConfigError(f"The TargetValue of {name} is {config['TargetValue']:g}; it must be above 0.")
    predefined = config.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
    if predefined is None and "CustomizedMetricSpecification" not in config:
        raise ConfigError(f"The policy {name} names no metric.")
    if predefined is not None and predefined not in PREDEFINED:
        raise ConfigError(
            f"The policy {name}: {predefined} is no metric of SageMaker's; there are {', '.join(PREDEFINED)}."
        )


def bounds(found: Document) -> tuple[int, int]:
    """The target's Min- and MaxCapacity."""
    return found.target["MinCapacity"], found.target["MaxCapacity"]


# --- what is compared -------------------------------------------------------------------------------------------------


def rules(found: Document, period: float) -> Rules:
    """The policies as values, their alarms with this period. Raises ``ConfigError`` for a metric that a simulation has
    not."""
    policies, watchers = [], {}
    for number, body in enumerate(found.policies):
        arn = f"policyName/{body['PolicyName']}"
        record = {
            "PolicyType": "StepScaling",
            **body,
            "PolicyARN": arn,
            "Period": period,
            "AlarmId": {"High": str(number), "Low": str(number)},
        }
        policies.append(scaling_records.policy_of(record))
        named = [one for one in found.alarms if _names(one, body["PolicyName"])]
        watchers[arn] = [scaling_records.alarm_of(one) for one in named]
    made = Rules(scaling_records.target_of(found.target), policies, watchers)
    if unknown := made.unknown():
        raise ConfigError(f"Not simulated: {', '.join(unknown)}. A simulation has {', '.join(sorted(METRICS))}.")
    return made


def _names(alarm: Body, policy: str) -> bool:
    """An alarm names a policy by its name or its ARN."""
    return any(action == policy or action.endswith(f"policyName/{policy}") for action in alarm.get("AlarmActions", ()))


def ways(found: Document, setup: Setup, timing: Timing) -> list[Scaler]:
    """Ours first; then AWS's timing of the same policies, and the rules of others where the policies can be said in
    theirs: HPA takes the first target tracking policy's metric and target, KPA its own."""
    ours = rules(found, timing.period)
    aws = rules(found, MINUTE)
    made: list[Scaler] = [
        Following(f"ours, {timing.period:g} s", ours),
        Following("AWS's timing", aws, bursts=False, lag=timing.aws_lag, start_seconds=timing.aws_start),
    ]
    tracking = next((policy for policy in ours.policies if isinstance(policy, TargetTracking)), None)
    if tracking is not None and tracking.high.queries[0].stat is not None:
        stat = tracking.high.queries[0].stat
        made.append(HorizontalPodAutoscaler(setup, stat._replace(statistic=_by_pod(stat.statistic)), tracking.value))
    return [*made, KnativePodAutoscaler(setup)]


def _by_pod(statistic: str) -> str:
    """HPA averages over pods and its window; it knows no maximum."""
    return "Average" if statistic == "Maximum" else statistic


def compare(load: Load, found: Document, setup: Setup, timing: Timing) -> Iterator[Outcome]:
    """Each way on the same calls, as they are done."""
    for way in ways(found, setup, timing):
        yield run(load, setup, way)


# --- what is told -----------------------------------------------------------------------------------------------------


def rows(outcomes: Iterable[Outcome]) -> list[tuple[str, ...]]:
    """The table, under ``HEADINGS``."""
    return [
        (
            one.name,
            f"{one.worker_hours:.1f}",
            f"{one.utilisation:.0%}",
            _milliseconds(one.wait(50)),
            _milliseconds(one.wait(99)),
            f"{one.violations:,} ({one.violations / len(one.waits):.2%})",
            f"{one.changes:,}",
            str(one.most),
        )
        for one in outcomes
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.0f} s"


def told(load: Load, setup: Setup, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, for another program."""
    return {
        "Calls": len(load.trace.arrivals),
        "Seconds": load.trace.seconds,
        "BusyWorkers": load.busy_workers,
        "SlowSeconds": setup.slow_seconds,
        "Ways": [
            {
                "Name": one.name,
                "WorkerHours": one.worker_hours,
                "Utilisation": one.utilisation,
                "WaitP50Seconds": one.wait(50),
                "WaitP99Seconds": one.wait(99),
                "SlowCalls": one.violations,
                "Changes": one.changes,
                "Most": one.most,
            }
            for one in outcomes
        ],
    }


def drawing(load: Load, setup: Setup, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Load and capacity in lines for a terminal; what the signs mean last."""
    needed = _needed(load, setup, _COLUMNS)
    held = [_by_column(one.ready, _COLUMNS) for one in outcomes]
    limit = charting.ceiling([*needed, *(max(one) for one in held)])
    for one, capacity in zip(outcomes, held, strict=True):
        yield f"{one.name}: {one.worker_hours:.1f} worker-hours, {one.violations:,} slow calls"
        yield from charting.capacity_lines(needed, capacity, limit, _ROWS)
        yield charting.time_line(load.trace.seconds, _COLUMNS)
    yield "█ workers that the calls keep busy   ░ workers to spare   ! calls for which there is none"


def chart(load: Load, setup: Setup, outcomes: Sequence[Outcome]) -> Chart:
    """A panel for each way: the workers that the calls need, those that are ready, and when calls waited too long."""
    seconds = load.trace.seconds
    xs = [number * seconds / _POINTS for number in range(_POINTS)]
    needed = _needed(load, setup, _POINTS)
    panels = []
    for one, colour in zip(outcomes, _COLOURS, strict=False):
        slow = load.trace.arrivals[one.waits > setup.slow_seconds]
        marks = sorted({round(at / seconds * _POINTS) for at in slow.tolist()})
        row = dict(zip(HEADINGS, *rows([one]), strict=True))
        title = f"{one.name}: {row['WORKER-HOURS']} worker-hours, p99 wait {row['WAIT P99']}, slow {row['SLOW CALLS']}"
        series = (
            Series("needed", "area", "#888888", xs, needed),
            Series("ready", "steps", colour, xs, _by_column(one.ready, _POINTS)),
            Series("slow calls", "marks", "#cc2222", [mark * seconds / _POINTS for mark in marks]),
        )
        panels.append(Panel(title, "workers", series))
    calls = f"{len(load.trace.arrivals):,} calls in {traces.days(seconds)}"
    return Chart(f"{calls}: capacity by way of scaling", seconds, panels)


def _needed(load: Load, setup: Setup, columns: int) -> list[float]:
    """Workers that the calls of each column keep busy."""
    seconds = load.trace.seconds
    places = np.minimum((load.trace.arrivals / seconds * columns).astype(int), columns - 1)
    work = np.bincount(places, weights=load.services, minlength=columns)
    return [float(value) for value in work * columns / seconds / setup.concurrency]


def _by_column(ticks: np.ndarray, columns: int) -> list[float]:
    """The mean of each column's ticks."""
    edges = np.linspace(0, len(ticks), columns + 1).astype(int)
    return [float(ticks[a : max(b, a + 1)].mean()) for a, b in pairwise(edges)]
