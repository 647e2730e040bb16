"""A target under a load that is drawn from a seed, on a clock of its own: the policies' loop without a server.

::

    load (calls a second) ──► Poisson counts of each tick ──► metric of each period ──► alarms ──► decide ──► workers
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.scaling import alarming, deciding
from serving.scaling.values import (
    INSTANCES,
    MINUTE,
    Alarm,
    AlarmReading,
    Decision,
    Metric,
    Query,
    Resource,
    Stat,
    Target,
    TargetTracking,
)

RESOURCE = Resource("endpoint/churn/variant/blue", INSTANCES)
DIMENSIONS = (("EndpointName", "churn"), ("VariantName", "blue"))
INVOCATIONS = Stat(Metric("AWS/SageMaker", "InvocationsPerInstance", DIMENSIONS), "Sum", per_minute=True)
CONCURRENCY = Stat(Metric("AWS/SageMaker", "ConcurrentRequestsPerModel", DIMENSIONS), "Maximum")
#: A clock's beginning: a whole number of minutes.
START = 600_000.0


def a_target(minimum: int = 1, maximum: int = 20, **suspended: bool) -> Target:
    """A variant of one to twenty instances."""
    return Target(RESOURCE, minimum, maximum, **suspended)


def tracking(
    value: float,
    period: float = 5.0,
    stat: Stat = INVOCATIONS,
    scale_in: bool = True,
    cooldown: float | None = None,
    name: str = "follow",
) -> TargetTracking:
    """A target tracking policy with the alarms that PutScalingPolicy makes for it."""
    query = (Query("m1", stat),)
    fast = period / 6 if stat.statistic == "Maximum" else period
    high = Alarm(f"{name}-high", query, fast, 3, 3, value, "GreaterThanThreshold")
    low = Alarm(f"{name}-low", query, period, 15, 15, 0.9 * value, "LessThanThreshold") if scale_in else None
    pause = 5 * period if cooldown is None else cooldown
    return TargetTracking(name, value, high, low, pause, pause)


class Seen(NamedTuple):
    """A change of capacity."""

    at: float
    before: int
    after: int


@dataclass
class World:
    """``load``: calls a second at a time; ``service``: seconds that a call takes on the mean; ``start``: seconds
    that a worker needs to be ready. ``changes``: what was decided, as it went."""

    policy: TargetTracking
    load: Callable[[float], float]
    target: Target = field(default_factory=a_target)
    seed: int = 0
    current: int = 1
    start: float = 0.5
    tick: float = 0.5
    service: float = 0.1
    changes: list[Seen] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def run(self, seconds: float) -> list[Seen]:
        """Let time pass; the changes of capacity."""
        for _ in self.looks(seconds):
            pass
        return self.changes

    def looks(self, seconds: float) -> Iterator[int]:
        """Let time pass; the capacity after each look at the target."""
        dice, state, now = random.Random(self.seed), deciding.State(), START
        ready, due = self.current, 0.0
        pending: tuple[int, int] | None = None
        sums: dict[str, float] = {}
        values: dict[str, list[float | None]] = {}
        readings: dict[str, AlarmReading] = {}
        alarms = [alarm for alarm in (self.policy.high, self.policy.low) if alarm is not None]
        flying = step = 0
        while now < START + seconds:
            calls = _poisson(dice, self.load(now - START) * self.tick)
            stay = math.exp(-self.tick / self.service)
            flying = sum(dice.random() < stay for _ in range(flying))
            flying += _poisson(dice, self.load(now - START) * self.service * (1 - stay))
            step += 1
            now = START + step * self.tick
            evaluated = False
            for alarm in alarms:
                self._count(sums, alarm, calls / max(1, ready), flying / max(1, ready))
                if step % round(alarm.period / self.tick) == 0:
                    series = values.setdefault(alarm.name, [None] * alarming.periods(alarm))
                    series.append(sums.pop(alarm.name))
                    before = readings.get(alarm.name)
                    readings[alarm.name] = alarming.evaluate(alarm, series[-alarming.periods(alarm) :], before, now)
                    evaluated = True
            if pending is not None and now >= due:
                ready = pending[1]
                state = deciding.fulfilled(state, *pending, now)
                pending = None
            if not evaluated:
                continue
            decision, state = deciding.decide(self.target, [self.policy], readings, self.current, state, now)
            self.decisions.append(decision)
            if decision.desired != self.current:
                self.changes.append(Seen(now - START, self.current, decision.desired))
                pending, due = (ready, decision.desired), now + self.start
                self.current = decision.desired
            yield self.current

    def _count(self, sums: dict[str, float], alarm: Alarm, calls: float, flying: float) -> None:
        stat = alarm.queries[0].stat
        assert stat is not None
        if stat.statistic == "Maximum":
            sums[alarm.name] = max(sums.get(alarm.name, 0.0), flying)
        else:
            sums[alarm.name] = sums.get(alarm.name, 0.0) + calls * MINUTE / alarm.period


def _poisson(dice: random.Random, mean: float) -> int:
    """A draw: by waiting times where the mean is small, else rounded from the normal curve."""
    if mean > 50:
        return max(0, round(dice.gauss(mean, mean**0.5)))
    count, waited = 0, dice.expovariate(1.0)
    while waited < mean:
        count, waited = count + 1, waited + dice.expovariate(1.0)
    return count
