"""What one series has been over the last hours: written only when it changes, thinned as it grows old. Pure.

A period of time is asked for by its ends. So an entry may go once it is neither recent nor the last before an end that
somebody may ask for: multiples of the scaling period at first, of ten seconds, at last of a minute only.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from math import ceil, floor, isnan
from typing import NamedTuple

#: Seconds by which a look at the end of a period may seem to be off: sums of sixths of periods are not exact.
_NEAR = 1e-4
#: A track that grew to so many entries is looked through for those that may go.
_THIN_AT = 128


class Grid(NamedTuple):
    """Which ends of periods are kept: for ``recent`` seconds every entry; then multiples of ``period`` for twenty-five
    of them, of 10 s for ten minutes, of a minute for ``kept`` seconds."""

    period: float
    recent: float
    kept: float = 3 * 3600.0

    def widths(self, age: float) -> tuple[float, ...]:
        """The lengths of the periods that entries of this age may be asked for; none = they go."""
        most = ((self.period, 25 * self.period), (10.0, 600.0), (60.0, self.kept))
        return tuple(width for width, oldest in most if age <= oldest)


def _through(time: float, width: float) -> int:
    """The period that a counter's look at ``time`` is of: its end belongs to it."""
    return ceil((time - _NEAR) / width)


def _from(time: float, width: float) -> int:
    """The period that a level's look at ``time`` is of: its beginning belongs to it."""
    return floor((time + _NEAR) / width)


def _staying(times: Sequence[float], now: float, grid: Grid, bucket: Callable[[float, float], int]) -> list[int]:
    """The entries that stay: the last of each period, and the last of those that go, which tells where all began."""
    recent = bisect_left(times, now - grid.recent)
    stay = []
    for at in range(min(recent, len(times) - 1)):
        time, then = times[at], times[at + 1]
        widths = grid.widths(now - time)
        if any(bucket(time, one) != bucket(then, one) for one in widths) or (not widths and grid.widths(now - then)):
            stay.append(at)
    return [*stay, *range(min(recent, len(times) - 1), len(times))]


class Total:
    """A number that only grows: a counter, or one cell of a histogram. 0 before its first entry."""

    __slots__ = ("_thin_at", "times", "values")

    def __init__(self) -> None:
        self.times = array("d")
        self.values = array("d")
        self._thin_at = _THIN_AT

    def put(self, now: float, value: float, grid: Grid) -> None:
        """It is ``value`` now."""
        self.times.append(now)
        self.values.append(value)
        if len(self.times) >= self._thin_at:
            stay = _staying(self.times, now, grid, _through)
            self.times = array("d", [self.times[at] for at in stay])
            self.values = array("d", [self.values[at] for at in stay])
            self._thin_at = max(_THIN_AT, len(stay) * 3 // 2)

    def at(self, time: float) -> float:
        """What it was."""
        found = bisect_right(self.times, time + _NEAR) - 1
        return self.values[found] if found >= 0 else 0.0

    def grown(self, start: float, end: float) -> float:
        """By how much it grew after ``start`` and up to ``end``. One that went back began anew."""
        before, after = self.at(start), self.at(end)
        return after - before if after >= before else after

    def move(self, seconds: float) -> None:
        """It was all so much later."""
        self.times = array("d", [time + seconds for time in self.times])

    @property
    def bytes(self) -> int:
        """About what it takes."""
        return 200 + 16 * len(self.times)


class Buckets:
    """A histogram: its cells as ``metrics.Histogram`` has them. Entries of one sixth of a period are one."""

    __slots__ = ("_thin_at", "cells", "times")

    def __init__(self) -> None:
        self.times = array("d")
        self.cells: list[bytes] = []
        self._thin_at = _THIN_AT

    def put(self, now: float, cells: bytes, grid: Grid) -> None:
        """They are these (float64) now."""
        step = grid.period / 6
        if self.times and _through(self.times[-1], step) == _through(now, step):
            self.times[-1], self.cells[-1] = now, cells
            return
        self.times.append(now)
        self.cells.append(cells)
        if len(self.times) >= self._thin_at:
            stay = _staying(self.times, now, grid, _through)
            self.times = array("d", [self.times[at] for at in stay])
            self.cells = [self.cells[at] for at in stay]
            self._thin_at = max(_THIN_AT, len(stay) * 3 // 2)

    def grown(self, start: float, end: float) -> Sequence[float]:
        """What was added to each cell after ``start`` and up to ``end``; empty = nothing."""
        first, last = bisect_right(self.times, start + _NEAR) - 1, bisect_right(self.times, end + _NEAR) - 1
        if last < 0 or first == last:
            return ()
        after = memoryview(self.cells[last]).cast("d")
        if first < 0:
            return after.tolist()
        before = memoryview(self.cells[first]).cast("d")
        if any(now < then for now, then in zip(after, before, strict=True)):
            return after.tolist()
        return [now - then for now, then in zip(after, before, strict=True)]

    def move(self, seconds: float) -> None:
        """It was all so much later."""
        self.times = array("d", [time + seconds for time in self.times])

    @property
    def bytes(self) -> int:
        """About what it takes."""
        return 200 + (8 + 8 + 40 + (len(self.cells[0]) if self.cells else 0)) * len(self.times)


class Spread(NamedTuple):
    """A level over a period: time-weighted mean, least, most."""

    mean: float
    least: float
    most: float


class Level:
    """A number that goes up and down. ``nan`` = there was none. Its entries also have the least and most of those that
    went before them, and the level's integral over time."""

    __slots__ = ("_thin_at", "integrals", "known", "leasts", "mosts", "times", "values")

    def __init__(self) -> None:
        self.times, self.values = array("d"), array("d")
        self.leasts, self.mosts = array("d"), array("d")
        self.integrals, self.known = array("d"), array("d")
        self._thin_at = _THIN_AT

    def put(self, now: float, value: float, grid: Grid) -> None:
        """It is ``value`` from now on."""
        integral, known = self._until(len(self.times) - 1, now)
        self.times.append(now)
        self.values.append(value)
        self.leasts.append(value)
        self.mosts.append(value)
        self.integrals.append(integral)
        self.known.append(known)
        if len(self.times) >= self._thin_at:
            self._thin(now, grid)

    def _until(self, at: int, time: float) -> tuple[float, float]:
        """The integral, and the seconds in which there was a level, up to ``time``, which entry ``at`` is the last
        before."""
        if at < 0:
            return 0.0, 0.0
        value, seconds = self.values[at], max(0.0, time - self.times[at])
        if isnan(value):
            return self.integrals[at], self.known[at]
        return self.integrals[at] + value * seconds, self.known[at] + seconds

    def _thin(self, now: float, grid: Grid) -> None:
        stay = _staying(self.times, now, grid, _from)
        begin = 0
        for at in stay:
            self.leasts[at] = _least(self.leasts[begin : at + 1])
            self.mosts[at] = _most(self.mosts[begin : at + 1])
            begin = at + 1
        self.times, self.values, self.leasts, self.mosts, self.integrals, self.known = (
            array("d", [column[at] for at in stay])
            for column in (self.times, self.values, self.leasts, self.mosts, self.integrals, self.known)
        )
        self._thin_at = max(_THIN_AT, len(stay) * 3 // 2)

    def at(self, time: float) -> float:
        """What it was; ``nan`` before its first entry."""
        found = bisect_right(self.times, time) - 1
        return self.values[found] if found >= 0 else float("nan")

    def spread(self, start: float, end: float, step: float) -> Spread | None:
        """From ``start`` to before ``end``; None = there was none. What it was before the period counts for its mean,
        and for the rest unless a look at it within the first ``step`` seconds found another."""
        first, last = bisect_right(self.times, start + _NEAR) - 1, bisect_left(self.times, end - _NEAR) - 1
        (low, known), (high, so_far) = self._until(first, start), self._until(last, end)
        begin = first + 1
        carried = first >= 0 and not (begin <= last and self.times[begin] < start + step)
        at_start = [self.values[first]] if carried else []
        if first >= 0 and self.times[first] >= start - _NEAR:
            at_start = [self.values[first]]
        leasts = [one for one in (*at_start, *self.leasts[begin : last + 1]) if not isnan(one)]
        mosts = [one for one in (*at_start, *self.mosts[begin : last + 1]) if not isnan(one)]
        if not leasts or so_far <= known:
            return None
        return Spread((high - low) / (so_far - known), min(leasts), max(mosts))

    def move(self, seconds: float) -> None:
        """It was all so much later."""
        self.times = array("d", [time + seconds for time in self.times])

    @property
    def bytes(self) -> int:
        """About what it takes."""
        return 500 + 48 * len(self.times)


def _least(values: Sequence[float]) -> float:
    return min((one for one in values if not isnan(one)), default=float("nan"))


def _most(values: Sequence[float]) -> float:
    return max((one for one in values if not isnan(one)), default=float("nan"))
