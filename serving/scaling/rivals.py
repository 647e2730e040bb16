"""How others scale, to be compared with: Kubernetes' HorizontalPodAutoscaler and Knative's KPA, by their rules.

The rules and their defaults are those of the table in ``behaviour/07``. Both are given what helps them: pods start as
fast as our workers, metrics are those of this very moment, and Knative's activator loses nothing on the way.
"""

from __future__ import annotations

import math
from collections import deque

from serving.scaling.simulating import Setup
from serving.scaling.values import Stat
from serving.scaling.virtual import Virtual


def _clamp(desired: int, setup: Setup, least: int) -> int:
    return max(least, setup.minimum, min(desired, setup.maximum))


class HorizontalPodAutoscaler:
    """Every 15 s: ceil(current x metric / target), unless within 10 % of it. At most doubles, or four pods more, in
    15 s; goes down to the highest recommendation of the last 300 s. Never below one."""

    name = "Kubernetes HPA"
    start_seconds: float | None = None
    POLL, TOLERANCE, STABLE, PODS = 15.0, 0.1, 300.0, 4

    def __init__(self, setup: Setup, stat: Stat, target: float) -> None:
        self._setup = setup
        self._stat = stat
        self._target = target
        self._due = self.POLL
        self._recommended: deque[tuple[float, int]] = deque()

    def look(self, seen: Virtual) -> int:
        """As ``Scaler.look``."""
        if seen.now < self._due:
            return max(seen.current, 1)
        self._due += self.POLL
        series = seen.series(self._stat, self.POLL, seen.now - self.POLL, seen.now)
        if not series or not seen.ready:
            return max(seen.current, 1)
        ratio = series[-1][1] / self._target
        wanted = seen.current if abs(ratio - 1) <= self.TOLERANCE else math.ceil(seen.ready * ratio - 1e-9)
        self._recommended.append((seen.now, _clamp(wanted, self._setup, 1)))
        while self._recommended[0][0] <= seen.now - self.STABLE:
            self._recommended.popleft()
        stable = max(desired for _, desired in self._recommended)
        if wanted > seen.current:
            most = max(2 * seen.current, seen.current + self.PODS)
            return _clamp(min(wanted, most), self._setup, 1)
        return _clamp(min(stable, seen.current), self._setup, 1)


class KnativePodAutoscaler:
    """Every 2 s: ceil(calls in flight / target), of the last 60 s; once the last 6 s ask for twice what is ready, of
    those, without ever shrinking until 60 s have passed since. Down to half at most in a step; to none after 60 s
    without calls and 30 s of grace."""

    name = "Knative KPA"
    start_seconds: float | None = None
    POLL, STABLE, PANIC, GRACE = 2.0, 60.0, 6.0, 30.0
    UTILISATION, PANICS_AT, GROWS_BY = 0.7, 2.0, 1000

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._target = self.UTILISATION * setup.concurrency
        self._due = self.POLL
        self._panic_until = -math.inf
        self._panic_most = 0
        self._idle_since: float | None = None

    def look(self, seen: Virtual) -> int:
        """As ``Scaler.look``."""
        if seen.current == 0 and seen.waiting:
            return max(1, self._setup.minimum)  # the activator pokes the autoscaler at once
        if seen.now < self._due:
            return seen.current
        self._due += self.POLL
        ready = max(1, seen.ready)
        stable, panic = self._wanted(seen, self.STABLE, ready), self._wanted(seen, self.PANIC, ready)
        if panic / ready >= self.PANICS_AT:
            self._panic_until = seen.now + self.STABLE
        if seen.now < self._panic_until:
            self._panic_most = max(self._panic_most, panic, seen.current)
            stable = self._panic_most
        else:
            self._panic_most = 0
        return _clamp(self._unless_idle(stable, seen), self._setup, 0)

    def _wanted(self, seen: Virtual, seconds: float, ready: int) -> int:
        wanted = math.ceil(seen.mean_in_flight(seconds) / self._target - 1e-9)
        return max(min(wanted, ready * self.GROWS_BY), ready // 2)

    def _unless_idle(self, wanted: int, seen: Virtual) -> int:
        """The last worker stays for the grace period."""
        if wanted or seen.mean_in_flight(self.STABLE):
            self._idle_since = None
            return max(wanted, 1)
        if self._idle_since is None:
            self._idle_since = seen.now
        return 0 if seen.now - self._idle_since >= self.GRACE else max(1, min(seen.current, 1))
