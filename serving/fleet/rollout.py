"""The plan of a guarded update: which part of the calls the new fleet answers when, and what is watched then. Pure.

``behaviour/08``; SageMaker API, DeploymentConfig. *Blue* is what serves, *green* what shall. Capacity is counted in
instances over all variants, which move in step; traffic follows active instances, rounded up to a whole one::

    ALL_AT_ONCE                100 % ──TerminationWait──► blue goes
    CANARY 30 % of 3           33 %  ──WaitInterval──► 100 % ──TerminationWait──► blue goes
    LINEAR 30 % of 10          30 % ─► 60 % ─► 90 % ─► 100 % ──TerminationWait──► blue goes     (─►: WaitInterval)
    ROLLING 50 % of 4          2 new, bake, 2 old go ─► 2 new, bake, 2 old go

Where there is but one instance, a canary or a step is the percentage itself: a part of an instance can be none.

How far an update got stands in its record, in ``Pending``::

    "Rollout": {"Step": 0, "Phase": "Creating" | "ActivatingTraffic" | "Baking", "Since": 1789000000.0}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from serving.errors import ValidationError

Body = Mapping[str, Any]
Counts = Mapping[str, int]

CREATING, ACTIVATING, BAKING = "Creating", "ActivatingTraffic", "Baking"
_WAIT, _TERMINATION = "WaitIntervalInSeconds", "TerminationWaitInSeconds"


class Step(NamedTuple):
    """Green answers ``share`` of the calls, by ``active`` instances; that is watched for ``bake`` seconds (which
    ``member`` of the policy says). ``green``: the instances that it needs by variant; ``blue``: those that stay after
    the bake. ``kind`` of capacity, for people: canary, linear, batch or full."""

    share: float
    active: int
    bake: int
    member: str
    green: Counts
    blue: Counts
    kind: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A guarded update. ``alarms``: names of those that call it off; ``timeout``: seconds it may take, None = any;
    ``back``: instances per step of a rollback."""

    steps: tuple[Step, ...]
    old: Counts
    new: Counts
    alarms: tuple[str, ...] = ()
    timeout: int | None = None
    rolling: bool = False
    back: int = 0

    def blue(self, step: int) -> Counts:
        """Instances of blue while a step is made and bakes."""
        return self.steps[step - 1].blue if step else self.old


class Progress(NamedTuple):
    """How far an update got: its ``phase`` in a step, and ``since`` when (epoch seconds)."""

    step: int
    phase: str
    since: float

    def as_body(self) -> dict[str, Any]:
        """As the record keeps it."""
        return {"Step": self.step, "Phase": self.phase, "Since": self.since}


def progress(pending: Body) -> Progress | None:
    """How far a pending deployment got; None: its guarded update has not begun."""
    found = pending.get("Rollout")
    return Progress(found["Step"], found["Phase"], found["Since"]) if found else None


def counts(deployment: Body) -> dict[str, int]:
    """Instances of a deployment's production variants; copies of an inference component's, which has no name here."""
    if "Config" not in deployment:
        return {"": deployment["Count"]}
    names = [one["VariantName"] for one in deployment["Config"]["ProductionVariants"]]
    return {name: deployment["Variants"][name]["Count"] for name in names}


def is_guarded(serving: Body, pending: Body) -> bool:
    """Is a pending deployment to replace one that serves step by step? Inference components are; their endpoints have
    no fleets of their own, and serverless variants no instances: they are switched at once."""
    return "DeploymentConfig" in pending and _has_instances(serving) and _has_instances(pending)


def _has_instances(deployment: Body) -> bool:
    variants = deployment.get("Config", {}).get("ProductionVariants", ())
    return all("ModelName" in one and "ServerlessConfig" not in one for one in variants)


def of(serving: Body, pending: Body) -> Plan:
    """The plan of a pending deployment beside the one that serves. Raises ``ValidationError`` as ``plan`` does."""
    return plan(pending["DeploymentConfig"], counts(serving), counts(pending))


def plan(config: Body, old: Counts, new: Counts) -> Plan:
    """The plan of a DeploymentConfig, from instances by variant to others. Raises ``ValidationError`` for a size that
    is not within AWS's bounds of this capacity."""
    alarms = tuple(one["AlarmName"] for one in config.get("AutoRollbackConfiguration", {}).get("Alarms", ()))
    if "RollingUpdatePolicy" in config:
        return _rolling(config["RollingUpdatePolicy"], old, new, alarms)
    policy = config.get("BlueGreenUpdatePolicy", {})
    timeout, total = policy.get("MaximumExecutionTimeoutInSeconds"), sum(new.values())
    routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE", _WAIT: 0})
    wait, termination = routing[_WAIT], policy.get(_TERMINATION, 0)
    full = Step(1.0, total, termination, _TERMINATION, new, dict.fromkeys(old, 0), "full")
    shares: list[float] = []
    if routing["Type"] == "CANARY":
        shares = _shares("CanarySize", routing["CanarySize"], total, 1)[:1]
    elif routing["Type"] == "LINEAR":
        shares = _shares("LinearStepSize", routing["LinearStepSize"], total, 10)[:-1]
    kind = routing["Type"].lower()
    before = [Step(one, math.ceil(round(total * one, 6)), wait, _WAIT, new, old, kind) for one in shares]
    return Plan((*before, full), old, new, alarms, timeout)


def _shares(member: str, size: Body, total: int, least: int) -> list[float]:
    """The shares that steps of a size come to, up to 1.0."""
    if size["Type"] == "CAPACITY_PERCENT" and total <= 1:
        step = size["Value"] / 100
        return [min(1.0, round(step * at, 6)) for at in range(1, math.ceil(100 / size["Value"]) + 1)]
    if size["Type"] != "CAPACITY_PERCENT":
        _check_part(member, size["Value"], total, least, total / 2)
        return _by_instances(size["Value"], total)
    if member == "CanarySize":
        return [math.ceil(total * size["Value"] / 100) / total]
    steps = [min(100, size["Value"] * at) for at in range(1, math.ceil(100 / size["Value"]) + 1)]
    shares = [math.ceil(total * one / 100) / total for one in steps]
    return list(dict.fromkeys(shares))


def _by_instances(step: int, total: int) -> list[float]:
    return [min(step * at, total) / total for at in range(1, math.ceil(total / step) + 1)]


def _check_part(member: str, value: int, total: int, least: int, most: float) -> None:
    if value > most or value * 100 < total * least:
        raise ValidationError(
            f"{member} must be from {least} to 50 percent of the endpoint's {total} instance(s), not {value} of them. "
            "Please give it as CAPACITY_PERCENT."
        )


def _rolling(policy: Body, old: Counts, new: Counts, alarms: tuple[str, ...]) -> Plan:
    total, wait = max(1, sum(new.values())), policy[_WAIT]
    back = policy.get("RollbackMaximumBatchSize", {"Type": "CAPACITY_PERCENT", "Value": 100})
    size = policy["MaximumBatchSize"]
    if size["Type"] != "CAPACITY_PERCENT":
        _check_part("MaximumBatchSize", size["Value"], total, 5, max(1.0, total / 2))
    steps = []
    for share in _by_instances(_batch(size, total), total):
        kind = "full" if share == 1.0 else "batch"
        active = round(share * total)
        steps.append(Step(share, active, wait, _WAIT, _part(new, share), _part(old, 1.0 - share), kind))
    timeout = policy.get("MaximumExecutionTimeoutInSeconds")
    return Plan(tuple(steps), old, new, alarms, timeout, True, _batch(back, total))


def _batch(size: Body, total: int) -> int:
    if size["Type"] == "CAPACITY_PERCENT":
        return max(1, math.ceil(total * int(size["Value"]) / 100))
    return min(int(size["Value"]), total)


def _part(counts: Counts, share: float) -> dict[str, int]:
    """So much of each variant's instances, rounded up: none only where there is to be none."""
    return {name: math.ceil(round(count * share, 6)) for name, count in counts.items()}


class Return(NamedTuple):
    """A step back: ``blue`` and ``green`` instances by variant, and green's share of the calls."""

    share: float
    blue: Counts
    green: Counts


def rollback(plan: Plan, step: int) -> tuple[Return, ...]:
    """How traffic comes back to blue from a step that was being made. Blue/green: at once, as blue is whole. Rolling:
    blue's workers come again in batches."""
    nothing = dict.fromkeys(plan.new, 0)
    if not plan.rolling:
        return (Return(0.0, plan.old, nothing),)
    total = max(1, sum(plan.new.values()))
    left = range(plan.steps[step].active - plan.back, 0, -plan.back)
    shares = [one / total for one in left]
    return (*(Return(one, _part(plan.old, 1.0 - one), _part(plan.new, one)) for one in shares),
            Return(0.0, plan.old, nothing))  # fmt: skip


def share(plan: Plan, at: Progress) -> float:
    """Green's share of the calls in a phase."""
    if at.phase == BAKING:
        return plan.steps[at.step].share
    return plan.steps[at.step - 1].share if at.step else 0.0


def following(plan: Plan, at: Progress, now: float) -> Progress | None:
    """The phase after one that is over; None: the update is."""
    if at.phase == CREATING:
        return Progress(at.step, ACTIVATING, now)
    if at.phase == ACTIVATING:
        return Progress(at.step, BAKING, now)
    return Progress(at.step + 1, CREATING, now) if at.step + 1 < len(plan.steps) else None


def with_counts(deployment: Body, counts: Counts) -> dict[str, Any]:
    """A deployment with other numbers of instances, or copies."""
    if "Config" not in deployment:
        return {**deployment, "Count": counts[""]}
    variants = {
        name: {**values, "Count": counts.get(name, values["Count"])} for name, values in deployment["Variants"].items()
    }
    return {**deployment, "Variants": variants}


def message(plan: Plan, at: Progress) -> str:
    """What Describe says of a phase (VariantStatus, StatusMessage)."""
    step = plan.steps[at.step]
    capacity = f"{step.kind} capacity of {step.active} instance(s)"
    if step.active != round(step.share * max(1, sum(plan.new.values())), 6):
        capacity = f"{step.share:.4g} of the calls, {capacity}"
    if at.phase == BAKING:
        return f"Baking for {step.bake} seconds ({step.member}) with traffic enabled on {capacity}."
    if at.phase == ACTIVATING:
        return f"Activating traffic on {capacity}."
    return f"Creating {sum(step.green.values())} instance(s)."
