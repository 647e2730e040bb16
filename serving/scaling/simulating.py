"""A trace's traffic on workers that are no workers, on a clock that is no clock: what a way of scaling comes to.

Calls wait in one line and take the first place that is free; a worker has ``concurrency`` places, and is ready
``start_seconds`` after it was asked for. Four times a second the scaler looks, at what the server's own meters would
show it then, and says how many workers there should be.

::

    calls ───▶ waiting ───▶ places of ready workers ───▶ answered
                  │               ▲
                  ▼               │ ready start_seconds later
               Virtual ───▶ scaler: desired workers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple, Protocol

import numpy as np

from serving.scaling.traces import Trace
from serving.scaling.virtual import TICK, Virtual


class Load(NamedTuple):
    """Calls: when they come, and the seconds each takes; the same for every way of scaling that is compared."""

    trace: Trace
    services: np.ndarray

    @property
    def busy_workers(self) -> float:
        """Workers that would be just enough, on the average, were every place always taken."""
        return float(self.services.sum()) / self.trace.seconds


@dataclass(frozen=True, slots=True)
class Setup:
    """What the workers are like. ``slow_seconds``: a call that waits longer is a violation."""

    minimum: int
    maximum: int
    concurrency: int = 1
    start_seconds: float = 0.1
    slow_seconds: float = 0.5


class Scaler(Protocol):
    """A way of scaling. ``start_seconds``: how long its workers take to start, None = as the setup says."""

    name: str
    start_seconds: float | None

    def look(self, seen: Virtual) -> int:
        """How many workers there should be, given what is seen now; within the setup's bounds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a day, or whatever the trace is of, came to. ``waits``: seconds, one a call. ``ready``, ``in_flight``: at
    each tick."""

    name: str
    worker_seconds: float
    utilisation: float
    waits: np.ndarray
    violations: int
    changes: int
    most: int
    ready: np.ndarray
    in_flight: np.ndarray

    @property
    def worker_hours(self) -> float:
        """What is paid for: workers that are there or starting."""
        return self.worker_seconds / 3600

    def wait(self, q: float) -> float:
        """A percentile of the waits, in seconds."""
        return float(np.percentile(self.waits, q))


class _Fleet:
    """The workers: how many are asked for, are starting, are ready, and when each of their places is free."""

    def __init__(self, setup: Setup, start_seconds: float) -> None:
        self._places = setup.concurrency
        self._start = start_seconds
        self.current = self.ready = setup.minimum
        self.free = [0.0] * (self.ready * self._places)
        self._starting: list[float] = []
        self.drained = 0.0
        self.changes = 0

    def promote(self, now: float) -> None:
        """Workers that have started by now are ready."""
        while self._starting and self._starting[0] <= now:
            self._starting.pop(0)
            self.ready += 1

    def resize(self, desired: int, now: float) -> None:
        """More start; of fewer those go first that are not ready, then the idle, then those soon done."""
        self.changes += desired != self.current
        for _ in range(desired - self.current):
            self._starting.append(now + self._start)
            for _ in range(self._places):
                heappush(self.free, now + self._start)
        for _ in range(self.current - desired):
            if self._starting:
                ready_at = self._starting.pop()
                for _ in range(self._places):
                    self.free.remove(ready_at)
                heapify(self.free)
            else:
                self.drained += max(0.0, max(heappop(self.free) for _ in range(self._places)) - now)
                self.ready -= 1
        self.current = desired

    def busy(self, now: float) -> int:
        """Places with a call."""
        return sum([free > now for free in self.free]) - len(self._starting) * self._places


def run(load: Load, setup: Setup, scaler: Scaler) -> Outcome:
    """Replay the load. A thousand calls take about a millisecond."""
    arrivals, services = load.trace.arrivals.tolist(), load.services.tolist()
    ticks = int(np.ceil(load.trace.seconds / TICK))
    arrived = np.searchsorted(load.trace.arrivals, np.arange(1, ticks + 1) * TICK).tolist()
    arrived[-1] = len(arrivals)
    start = setup.start_seconds if scaler.start_seconds is None else scaler.start_seconds
    fleet, seen = _Fleet(setup, start), Virtual(ticks)
    waits: list[float] = []
    worker_seconds, most = 0.0, fleet.current
    for tick in range(ticks):
        now = tick * TICK
        fleet.promote(now)
        waiting = int(seen.calls) - len(waits)
        seen.sample(now, fleet.current, fleet.ready, waiting, fleet.busy(now), setup.concurrency)
        desired = scaler.look(seen)
        if desired != fleet.current:
            fleet.resize(desired, now)
            most = max(most, desired)
        worker_seconds += fleet.current * TICK
        seen.count(arrived[tick])
        if len(waits) < arrived[tick]:
            _serve(arrivals, services, arrived[tick], now + TICK, fleet.free, waits)
    _serve(arrivals, services, len(arrivals), float("inf"), fleet.free, waits)
    waits += [load.trace.seconds - at for at in arrivals[len(waits) :]]  # nobody was left to answer them
    worker_seconds += fleet.drained
    found = np.asarray(waits)
    return Outcome(
        scaler.name,
        worker_seconds,
        float(load.services.sum()) / (worker_seconds * setup.concurrency) if worker_seconds else 0.0,
        found,
        int((found > setup.slow_seconds).sum()),
        fleet.changes,
        most,
        *seen.drawn(),
    )


def _serve(
    arrivals: Sequence[float],
    services: Sequence[float],
    arrived: int,
    end: float,
    free: list[float],
    waits: list[float],
) -> None:
    """Give places to the calls that have come, first come first served, as long as they begin before ``end``. A place
    of a worker that is starting is free when that is ready."""
    if not free:
        return
    for number in range(len(waits), arrived):
        at, soonest = arrivals[number], free[0]
        begin = at if at > soonest else soonest
        if begin >= end:
            return
        heapreplace(free, begin + services[number])
        waits.append(begin - at)
