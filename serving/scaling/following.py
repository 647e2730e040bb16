"""The server's own policies on the simulator's clock: the same alarms, the same deciding, the same answer to bursts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from serving.scaling import alarming, deciding, maths
from serving.scaling.bursting import Pressure
from serving.scaling.deciding import State
from serving.scaling.values import Alarm, AlarmReading, Policy, Target, TargetTracking
from serving.scaling.virtual import METRICS, Virtual

#: Seconds over which fronts look at calls that wait.
_WINDOW = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """A target's policies, and the alarms that name step policies (by the policy's ARN)."""

    target: Target
    policies: Sequence[Policy]
    watchers: Mapping[str, Sequence[Alarm]]

    def alarms(self) -> Iterator[Alarm]:
        """All that are evaluated."""
        for policy in self.policies:
            if isinstance(policy, TargetTracking):
                yield policy.high
                yield from [policy.low] if policy.low else []
        for watching in self.watchers.values():
            yield from watching

    def unknown(self) -> list[str]:
        """Metrics that these rules look at and a simulation does not have."""
        stats = [query.stat for alarm in self.alarms() for query in alarm.queries if query.stat is not None]
        return sorted({stat.metric.name for stat in stats} - METRICS.keys())


class Following:
    """Capacity that follows ``rules``. ``lag``: seconds until a metric can be read; ``bursts``: are calls that wait
    answered at once, and is a worker started for the first call where there is none?"""

    def __init__(
        self, name: str, rules: Rules, bursts: bool = True, lag: float = 0.0, start_seconds: float | None = None
    ) -> None:
        self.name = name
        self.start_seconds = start_seconds
        self._rules = rules
        self._bursts = bursts
        self._lag = lag
        self._alarms = list(rules.alarms())
        self._due = [0.0] * len(self._alarms)
        self._next = 0.0
        self._readings: dict[str, AlarmReading] = {}
        self._state = State()
        self._change: tuple[int, int] | None = None

    def look(self, seen: Virtual) -> int:
        """As ``Scaler.look``."""
        if self._change is not None and seen.ready == seen.current:
            self._state = deciding.fulfilled(self._state, *self._change, seen.now)
            self._change = None
        desired = seen.current
        if seen.now >= self._next:
            self._evaluate(seen)
            decision, self._state = deciding.decide(
                self._rules.target,
                self._rules.policies,
                self._readings,
                seen.current,
                self._state,
                seen.now,
                self._rules.watchers,
            )
            desired = decision.desired
        if self._bursts and desired == seen.current:
            desired = self._urgent(seen)
        if desired != seen.current:
            self._change = (seen.current, desired)
        return desired

    def _evaluate(self, seen: Virtual) -> None:
        """The alarms whose period has ended."""
        for number, alarm in enumerate(self._alarms):
            if seen.now < self._due[number]:
                continue
            end = math.floor((seen.now - self._lag) / alarm.period + 1e-9) * alarm.period
            self._due[number] = end + alarm.period + self._lag
            length = alarming.periods(alarm)
            start = end - length * alarm.period
            found = {round((at - start) / alarm.period): value for at, value in _series(alarm, seen, start, end)}
            values = [found.get(place) for place in range(length)]
            self._readings[alarm.name] = alarming.evaluate(alarm, values, self._readings.get(alarm.name), seen.now)
        self._next = min(self._due, default=math.inf)

    def _urgent(self, seen: Virtual) -> int:
        """What calls that wait need at once, or what there is."""
        rules, now = self._rules, seen.now
        if not seen.waiting:
            return seen.current
        if seen.current == 0:
            decision, self._state = deciding.wake(rules.target, 0, self._state, now)
            return decision.desired
        calls, least = seen.pressure(_WINDOW)
        report = Pressure(rules.target.resource, now, _WINDOW, round(calls), least, seen.in_flight, seen.ready)
        decision, self._state = deciding.burst(rules.target, rules.policies, report, seen.current, self._state, now)
        return decision.desired


def _series(alarm: Alarm, seen: Virtual, start: float, end: float) -> Sequence[tuple[float, float]]:
    """What the alarm looks at."""
    first = alarm.queries[0].stat
    if first is not None and len(alarm.queries) == 1:
        return seen.series(first, alarm.period, start, end)
    return maths.evaluate(alarm.queries, lambda stat: seen.series(stat, alarm.period, start, end))
