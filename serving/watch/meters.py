"""The meters: what has been measured lately, by CloudWatch's names, for policies, alarms and whoever asks.

::

    metric files of all processes ──tail.py──► what changed ──► tracks.py: each series over time
                                                                     │
    Stat ──catalogue.py──► how it is made of series ─────────────────┴──► (start of period, value), ...

SageMaker sends zeros without traffic: calls and errors of an idle variant are 0, its latencies are nothing. Gauges are
looked at several times in each sixth of a scaling period, so that a maximum is one. All that is kept is of the last
three hours, by the minute, and finer the younger it is; nothing survives the server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, isnan, nan
from pathlib import Path
from typing import Any

from serving.watch import catalogue
from serving.watch.catalogue import (
    CALLS,
    CONFIG,
    ENDPOINT,
    IN_FLIGHT,
    PROMETHEUS,
    VARIANT,
    Dimensions,
    Labels,
    Subject,
)
from serving.watch.custom import Custom
from serving.watch.measuring import Measuring, Source, Track
from serving.watch.metrics import FAMILIES, holder_of, holders
from serving.watch.readings import Metric, Stat
from serving.watch.tail import Cells, Key, Tail
from serving.watch.tracks import Buckets, Grid, Level, Total

_KEPT = 3 * 3600.0
_EXPLAINED, _WORKERS = "sagemaker_explanations_total", "sagemaker_workers"
#: What is looked at several times in a sixth of a period: their most is asked for.
_GAUGES = (IN_FLIGHT, _WORKERS)
#: A share of a processor that the looks may take when much changes between them.
_SHARE = 0.005
_SLOWEST = 1.0
#: A clock that goes back by more is taken to have been put right.
_BACK = 2.0
#: Bytes of tracks beyond which less of the past is kept, looked at so often; and the least that is.
_MOST_BYTES, _WEIGHED, _LEAST_KEPT = 64 * 2**20, 60.0, 1800.0

log = logging.getLogger("serving.meters")


class Meters:
    """Implements ``scaling.values.Readings`` over a metrics folder. Build, ``start``, ``know`` each routing table,
    ``close``. Any thread may ask."""

    def __init__(
        self,
        folder: Path,
        period: float = 5.0,
        memory: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``period``: the scaling period; ``memory``: bytes of the machine's, for its utilisation; ``clock``: epoch
        seconds."""
        self.tick = min(max(period / 18, 0.05), 1.0)
        self._looks = max(1, int(period / 6 / self.tick + 1e-6))
        self._longest = max(_KEPT, 20 * period)
        self._grid = Grid(period, min(max(2.5 * period, 10.0), 300.0), self._longest)
        self._clock = clock
        self._tail = Tail(folder, lambda name: name.startswith("worker-"))
        self._every = min(5.0, max(1.0, period))
        self._all_at = self._weigh_at = 0.0
        self._last = self._full = clock()
        self._tracks: dict[Key, Track] = {}
        self._each: dict[Key, Total | Level] = {}
        self._subjects: dict[Dimensions, Subject] = {}
        self._since: dict[Dimensions, float] = {}
        self._whose: dict[Labels, Subject] = {}
        self._sides: dict[Dimensions, tuple[Labels, float]] = {}
        self._measuring = Measuring(self._tracks, self._each, self.tick, memory)
        self._sources: dict[Metric, Source] = {}
        self._custom = Custom()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # -- the loop -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to measure, in a thread of its own."""
        self._thread = threading.Thread(target=self._measure, name="meters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Measure nothing any more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._tail.close()

    def _measure(self) -> None:
        pause = self.tick
        while not self._closing.wait(pause):
            begun = time.thread_time()
            try:
                self.sample(whole=False)
            except Exception:
                log.exception("the meters could not be read")
            step = min(max(self.tick, (time.thread_time() - begun) / _SHARE), max(self.tick, _SLOWEST))
            now = self._clock()
            pause = max(self.tick / 4, ceil((now + step / 2) / self.tick) * self.tick - now)

    def sample(self, whole: bool = True) -> None:
        """Read the meters now. Unless ``whole``, counters are read only at multiples of a sixth of the period."""
        with self._lock:
            now = self._clock()
            if now < self._last - _BACK:
                self._set_back(now - self._last)
            late = now % self.tick
            if late < self.tick / 4:
                now -= late  # this look is of the multiple of the tick that has just gone by
            if now <= self._full or (now <= self._last and not whole):
                return
            now = max(now, self._last)
            whole = whole or round(now / self.tick) % self._looks == 0 or now - self._full > self._looks * self.tick
            everything = whole and now >= self._all_at
            changes = self._tail.changed(everything, () if whole else _GAUGES)
            if changes is None:
                return
            if everything:
                self._all_at = now + self._every - self.tick / 2
                if now >= self._weigh_at:
                    self._weigh(now)
            self._last = now
            if whole:
                self._full = now
            for key, cells in changes.items():
                self._put(now, key, cells)
            self._divide(now, changes)

    def _set_back(self, seconds: float) -> None:
        """The clock has been put back: so is all that was measured."""
        for tracks in (self._tracks, self._each):
            for track in tracks.values():
                track.move(seconds)
        self._since = {dimensions: at + seconds for dimensions, at in self._since.items()}
        self._sides = {dimensions: (labels, at + seconds) for dimensions, (labels, at) in self._sides.items()}
        self._sources.clear()
        self._last, self._full = self._last + seconds, self._full + seconds
        self._all_at = self._weigh_at = 0.0

    def _weigh(self, now: float) -> None:
        """Much that changes all the time is kept for a shorter time."""
        self._weigh_at = now + _WEIGHED
        kept, size = self._grid.kept, self.bytes
        if size > _MOST_BYTES:
            kept = max(_LEAST_KEPT, 20 * self._grid.period, kept / 2)
        elif size < _MOST_BYTES / 4:
            kept = min(self._longest, kept * 2)
        self._grid = self._grid._replace(kept=kept)

    def _put(self, now: float, key: Key, cells: Cells | None) -> None:
        kind = FAMILIES[key[0]].kind
        track = self._tracks.get(key)
        if cells is None:
            if isinstance(track, Level) and track.at(now) != 0.0:
                track.put(now, 0.0, self._grid)
            return
        if track is None:
            self._know_side(key, now)
            if kind != "gauge" and not cells.any():
                return  # it has counted nothing yet
            made: Track = Level() if kind == "gauge" else Buckets() if kind == "histogram" else Total()
            track = self._tracks[key] = made
        if isinstance(track, Buckets):
            track.put(now, cells.tobytes(), self._grid)
        else:
            track.put(now, float(cells[0]), self._grid)

    def _divide(self, now: float, changes: Mapping[Key, Cells | None]) -> None:
        """What is told by instance: each call counts as one by the workers that are ready when it comes."""
        for key in changes:
            if key[0] in (CALLS, _EXPLAINED):
                subject = self._whose.get(key[1:3])
                track = self._tracks.get(key)
                if subject is None or not isinstance(track, Total):
                    continue
                each = self._each.get(key)
                if not isinstance(each, Total):
                    each = self._each[key] = Total()
                before = track.values[-2] if len(track.values) > 1 else 0.0
                added = track.values[-1] - before if track.values[-1] >= before else track.values[-1]
                each.put(now, each.at(now) + added / max(1.0, self._measuring.ready(subject)), self._grid)
        touched = {self._whose.get(key[1:3]) for key in changes if key[0] in _GAUGES}
        for subject in touched:
            if subject is not None:
                self._share_out(now, subject)

    def _share_out(self, now: float, subject: Subject) -> None:
        """Its calls in flight by the workers that are ready."""
        tracks = [self._tracks.get((IN_FLIGHT, *labels)) for labels in subject.holders(IN_FLIGHT)]
        levels = [one.values[-1] for one in tracks if isinstance(one, Level)]
        if levels:
            share = sum(levels) / max(1.0, self._measuring.ready(subject))
            key = (IN_FLIGHT, *subject.labels)
            each = self._each.get(key)
            if not isinstance(each, Level):
                each = self._each[key] = Level()
            if each.at(now) != share:
                each.put(now, share, self._grid)

    # -- what there is --------------------------------------------------------------------------------------------

    def know(self, table: Mapping[str, Any]) -> None:
        """What there is by this routing table. The numbers of what is no more go; should it come again, it begins
        anew."""
        with self._lock:
            now = self._clock()
            found = catalogue.subjects(table)
            self._since = {dimensions: self._since.get(dimensions, now) for dimensions in found}
            self._subjects = found
            self._sources.clear()
            self._whose = {labels: one for one in found.values() for labels in (one.labels, *one.parts)}
            there = {None, *holders(table)}
            for tracks in (self._tracks, self._each):
                for key in [key for key in tracks if holder_of(key[0], key[1:]) not in there]:
                    del tracks[key]
            self._sides = {dimensions: side for dimensions, side in self._sides.items() if side[0][:2] in there}

    def _know_side(self, key: Key, now: float) -> None:
        """Series of one side of a guarded update begin with it, and are 0 until its first call."""
        if FAMILIES[key[0]].labels[:3] == ("endpoint", "variant", "config"):
            labels = key[1:4]
            dimensions = ((CONFIG, labels[2]), (ENDPOINT, labels[0]), (VARIANT, labels[1]))
            self._sides.setdefault(dimensions, (labels, now - self.tick))

    def listed(
        self, namespace: str = "", name: str = "", dimensions: Sequence[tuple[str, str | None]] = ()
    ) -> list[Metric]:
        """The metrics that there are: of this namespace and name, if any is given, with these dimensions (and perhaps
        more); a dimension's value may be left open (None)."""
        with self._lock:
            return [
                metric
                for metric in self._metrics()
                if namespace in ("", metric.namespace)
                and name in ("", metric.name)
                and all(any(key == k and value in (None, v) for k, v in metric.dimensions) for key, value in dimensions)
            ]

    def _metrics(self) -> Iterator[Metric]:
        for dimensions, subject in self._subjects.items():
            for space, name, _ in catalogue.measures(subject):
                yield Metric(space, name, dimensions)
        for dimensions in self._sides:
            for space, name, _ in catalogue.side_measures():
                yield Metric(space, name, dimensions)
        for key in self._tracks:
            yield Metric(PROMETHEUS, key[0], tuple(sorted(zip(FAMILIES[key[0]].labels, key[1:], strict=True))))
        yield from self._custom.metrics()

    # -- what has been measured -------------------------------------------------------------------------------------

    def put(self, namespace: str, data: Sequence[Mapping[str, Any]]) -> None:
        """Take in PutMetricData's data, in its own words. Raises ``ValidationError`` for those that are none, and takes
        none of them then."""
        with self._lock:
            self._custom.put(namespace, data, self._clock())

    def series(self, stat: Stat, period: float, start: float, end: float) -> Sequence[tuple[float, float]]:
        """As ``Readings`` has it: the whole periods that are over and were looked at to their end."""
        with self._lock:
            now = self._clock()
            if now - self._full >= self.tick / 4 and end > self._full:
                self.sample()  # periods end at the moment somebody asks for them
            start = max(start, self._full - self._grid.kept)
            first = ceil(round(start / period, 3))
            count = ceil(round(end / period, 3)) - first
            ends = [((first + at) * period, (first + at + 1) * period) for at in range(max(0, count))]
            found = self._values(stat, [(a, b) for a, b in ends if b <= self._full + 1e-4])
        scale = 60.0 / period if stat.per_minute else 1.0
        return [(at, value * scale) for at, value in found]

    def _values(self, stat: Stat, periods: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        source = self._source(stat.metric)
        values: list[tuple[float, float]] = []
        for start, end in periods:
            if source is None:
                found = self._custom.aggregate(stat.metric, start, end)
            else:
                found = self._measuring.of(source, start, end) if end > source.since else None
            value = found.value(stat.statistic) if found else nan
            if not isnan(value):
                values.append((start, value))
        return values

    def _source(self, metric: Metric) -> Source | None:
        """What a metric is made of; None for one that is no series of ours."""
        known = self._sources.get(metric)
        if known is None:
            known = self._found(metric)
            if known is not None:
                self._sources[metric] = known
        return known

    def _found(self, metric: Metric) -> Source | None:
        if metric.namespace == PROMETHEUS:
            return self._own(metric)
        subject, side = self._subjects.get(metric.dimensions), self._sides.get(metric.dimensions)
        if subject is not None:
            there, since = catalogue.measures(subject), self._since[metric.dimensions]
        elif side is not None:
            there, since = catalogue.side_measures(), side[1]
        else:
            return None
        for space, name, measure in there:
            if (space, name) == (metric.namespace, metric.name):
                whose = subject.holders(measure.family) if subject else (side[0] if side else (),)
                third = (measure.third,) if measure.third else ()
                return Source(measure, subject, tuple((measure.family, *one, *third) for one in whose), since)
        return None

    def _own(self, metric: Metric) -> Source | None:
        """A series of ours: all its labels are given. Counters of what there is are 0 before they count."""
        if metric.name not in FAMILIES:
            return None
        labels, given = FAMILIES[metric.name].labels, dict(metric.dimensions)
        if set(labels) != set(given):
            return None
        values = tuple(given[label] for label in labels)
        idle = FAMILIES[metric.name].kind == "counter" and values[:2] in self._whose
        if not idle and (metric.name, *values) not in self._tracks:
            return None
        return Source(catalogue.own(metric.name), None, ((metric.name, *values),), 0.0)

    @property
    def bytes(self) -> int:
        """About what is kept."""
        with self._lock:
            return sum(one.bytes for table in (self._tracks, self._each) for one in table.values())
