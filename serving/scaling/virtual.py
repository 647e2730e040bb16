"""What meters would show of a fleet that is only simulated: CloudWatch's metrics by name, sampled at each tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from serving.scaling.values import MINUTE, Stat

#: Seconds between two looks: as often as fronts tell of calls that wait.
TICK = 0.25


class Virtual:
    """The samples of all ticks so far, and what is there now. Implements ``Readings``; dimensions are not looked at, as
    there is one fleet only."""

    def __init__(self, ticks: int) -> None:
        self.now = 0.0
        self.calls = 0.0
        self.current = self.ready = self.waiting = self.in_flight = 0
        self.places = 1
        self.tick = -1
        self._calls = np.zeros(ticks)
        self._ready = np.zeros(ticks)
        self._waiting = np.zeros(ticks)
        self._busy = np.zeros(ticks)
        self._known: dict[tuple[Stat, float], dict[int, float]] = {}

    def sample(self, now: float, current: int, ready: int, waiting: int, busy: int, places: int) -> None:
        """A tick begins: ``busy`` of the ``places`` that each ready worker has are taken."""
        self.tick += 1
        tick = self.tick
        self.now, self.current, self.ready, self.waiting, self.places = now, current, ready, waiting, places
        self.in_flight = waiting + busy
        self._ready[tick], self._waiting[tick], self._busy[tick] = ready, waiting, busy

    def count(self, calls: float) -> None:
        """A tick ends: so many calls have come since the beginning."""
        self._calls[self.tick] = calls - self.calls
        self.calls = calls

    def pressure(self, seconds: float) -> tuple[float, int]:
        """(calls that came, fewest in flight) of the last ``seconds``."""
        since = max(0, self.tick - round(seconds / TICK))
        waiting, busy = self._waiting[since : self.tick + 1], self._busy[since : self.tick + 1]
        return float(self._calls[since : self.tick].sum()), int((waiting + busy).min())

    def mean_in_flight(self, seconds: float) -> float:
        """Of the last ``seconds``, or what has passed of them."""
        span = slice(max(0, self.tick + 1 - round(seconds / TICK)), self.tick + 1)
        return float((self._waiting[span] + self._busy[span]).mean())

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """(ready workers, calls in flight) at each tick."""
        return self._ready, self._waiting + self._busy

    def series(self, stat: Stat, period: float, start: float, end: float) -> Sequence[tuple[float, float]]:
        """As ``Readings.series``."""
        if stat.metric.name not in METRICS:
            return ()
        known = self._known.setdefault((stat, period), {})
        first, last = math.ceil(start / period - 1e-9), math.floor(min(end, self.now) / period + 1e-9)
        numbers = range(max(first, 0), last)
        for number in numbers:
            if number not in known:
                known[number] = self._value(stat, period, number)
        return [(number * period, known[number]) for number in numbers]

    def _value(self, stat: Stat, period: float, number: int) -> float:
        first = round(number * period / TICK)
        last = max(first + 1, round((number + 1) * period / TICK))
        counted, values = METRICS[stat.metric.name]
        found = _statistic(stat.statistic, counted, values(self, slice(first, last)), self._calls[first:last])
        return found * (MINUTE / period if stat.per_minute else 1.0)

    def per_instance(self, span: slice) -> np.ndarray:
        """Calls of each tick by ready worker."""
        return self._calls[span] / np.maximum(1, self._ready[span])

    def all_calls(self, span: slice) -> np.ndarray:
        """Calls of each tick."""
        return self._calls[span]

    def lost(self, span: slice) -> np.ndarray:
        """Calls that came while no worker was ready."""
        return np.where(self._ready[span] > 0, 0.0, self._calls[span])

    def concurrency(self, span: slice) -> np.ndarray:
        """Calls in flight by ready worker, those that wait included."""
        return (self._waiting[span] + self._busy[span]) / np.maximum(1, self._ready[span])

    def busy_percent(self, span: slice) -> np.ndarray:
        """Of each ready worker's places, those with a call."""
        return 100 * self._busy[span] / np.maximum(1, self._ready[span] * self.places)

    def backlog(self, span: slice) -> np.ndarray:
        """Calls that wait."""
        return self._waiting[span]

    def backlog_per_instance(self, span: slice) -> np.ndarray:
        """Calls that wait, by ready worker."""
        return self._waiting[span] / np.maximum(1, self._ready[span])

    def without_capacity(self, span: slice) -> np.ndarray:
        """1 where calls wait and no worker is ready."""
        return np.where((self._ready[span] == 0) & (self._waiting[span] > 0), 1.0, 0.0)


def _statistic(name: str, counted: bool, values: np.ndarray, calls: np.ndarray) -> float:
    """``counted``: the values are of calls, and their average is by call (CloudWatch: each call is a sample)."""
    if name == "SampleCount":
        return float(calls.sum()) if counted else float(len(values))
    if name == "Sum":
        return float(values.sum())
    if name == "Average":
        return float(values.sum() / max(1.0, calls.sum())) if counted else float(values.mean())
    if name == "Minimum":
        return float(values.min())
    return float(values.max()) if name == "Maximum" else float(np.percentile(values, float(name[1:])))


#: Metric -> is it counted with calls, or a level; and its value in each tick.
METRICS: dict[str, tuple[bool, Callable[[Virtual, slice], np.ndarray]]] = {
    "Invocations": (True, Virtual.all_calls),
    "InvocationsPerInstance": (True, Virtual.per_instance),
    "InvocationsPerCopy": (True, Virtual.per_instance),
    "NoCapacityInvocationFailures": (True, Virtual.lost),
    "ConcurrentRequestsPerModel": (False, Virtual.concurrency),
    "ConcurrentRequestsPerCopy": (False, Virtual.concurrency),
    "CPUUtilization": (False, Virtual.busy_percent),
    "CPUUtilizationNormalized": (False, Virtual.busy_percent),
    "ApproximateBacklogSize": (False, Virtual.backlog),
    "ApproximateBacklogSizePerInstance": (False, Virtual.backlog_per_instance),
    "HasBacklogWithoutCapacity": (False, Virtual.without_capacity),
}
