"""A period of a metric, made of the tracks of the series it is made of (``catalogue.py`` says how). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from serving.watch.aggregates import Aggregate, of_buckets
from serving.watch.catalogue import CALLS, CALLS_OF, IN_FLIGHT, Measure, Subject
from serving.watch.metrics import FAMILIES
from serving.watch.tail import Key
from serving.watch.tracks import Buckets, Level, Total

Track = Total | Buckets | Level
_WORKERS, _READY = "sagemaker_workers", "READY"


class Source(NamedTuple):
    """What a metric is made of: how, whose it is, of the sum of which series, and since when it is told."""

    measure: Measure
    subject: Subject | None
    keys: tuple[Key, ...]
    since: float


class Measuring:
    """Over ``tracks`` by series, and ``each``: those of what is told by instance. ``step``: seconds between looks;
    ``memory``: bytes of the machine's."""

    def __init__(
        self, tracks: Mapping[Key, Track], each: Mapping[Key, Total | Level], step: float, memory: int
    ) -> None:
        self._tracks = tracks
        self._each = each
        self._step = step
        self._memory = memory

    def ready(self, subject: Subject) -> float:
        """Complete instances that can answer now: workers of the container that has the fewest; where each container
        is called by itself, the most."""
        counts = [one.values[-1] if isinstance(one, Level) else 0.0 for one in self._workers(subject)]
        return (max if subject.direct else min)(counts)

    def _workers(self, subject: Subject) -> list[Track | None]:
        return [self._tracks.get((_WORKERS, *labels, _READY)) for labels in subject.parts or (subject.labels,)]

    def of(self, source: Source, start: float, end: float) -> Aggregate | None:
        """One period of a metric."""
        measure, keys = source.measure, source.keys
        if measure.shape == "calls":
            grown = self._grown(keys, start, end)
            return Aggregate(grown, grown, float(grown > 0), float(grown > 0))
        if measure.shape == "calls_each":
            return self._by_instance(keys, start, end)
        if measure.shape in ("share", "hits"):
            return self._share(source, start, end)
        if measure.shape == "times":
            return self._times(source, start, end)
        if measure.shape == "busy":
            return self._busy(source, start, end)
        return self._level(source, start, end)

    def _grown(self, keys: Iterable[Key], start: float, end: float) -> float:
        tracks = (self._tracks.get(key) for key in keys)
        return sum(one.grown(start, end) for one in tracks if isinstance(one, Total))

    def _by_instance(self, keys: Sequence[Key], start: float, end: float) -> Aggregate:
        tracks, calls = (self._each.get(key) for key in keys), self._grown(keys, start, end)
        total = sum(one.grown(start, end) for one in tracks if isinstance(one, Total))
        mean = total / calls if calls else 0.0
        return Aggregate(calls, total, mean, mean)

    def _share(self, source: Source, start: float, end: float) -> Aggregate | None:
        """Each call is 1 if it is counted, else 0."""
        measure, counted = source.measure, self._grown(source.keys, start, end)
        if measure.shape == "hits":
            asked = [(*key[:3], result) for key in source.keys for result in ("hit", "miss")]
            calls = self._grown(asked, start, end)
            if not calls:
                return None
        else:
            family = CALLS_OF.get(measure.family, CALLS)
            labels = len(FAMILIES[family].labels) + 1
            calls = max(counted, self._grown([(family, *key[1:labels]) for key in source.keys], start, end))
        return Aggregate(calls, counted, float(0 < calls == counted), float(counted > 0))

    def _times(self, source: Source, start: float, end: float) -> Aggregate | None:
        tracks = [self._tracks.get(key) for key in source.keys]
        grown = [cells for one in tracks if isinstance(one, Buckets) and (cells := one.grown(start, end))]
        cells = [sum(column) for column in zip(*grown, strict=True)]
        return of_buckets(FAMILIES[source.measure.family].buckets, cells, source.measure.scale) if cells else None

    def _busy(self, source: Source, start: float, end: float) -> Aggregate | None:
        """Percent of a processor, by instance."""
        workers = self._instances(source, start, end)
        if not workers:
            return None
        mean = source.measure.scale * self._grown(source.keys, start, end) / (end - start) / workers
        return Aggregate(workers, mean * workers, mean, mean)

    def _instances(self, source: Source, start: float, end: float) -> float:
        """Complete instances, over the period."""
        subject = source.subject
        if subject is None:
            return 0.0
        tracks = self._workers(subject)
        spreads = [one.spread(start, end, self._step) if isinstance(one, Level) else None for one in tracks]
        return (max if subject.direct else min)((one.mean if one else 0.0) for one in spreads)

    def _level(self, source: Source, start: float, end: float) -> Aggregate | None:
        measure, subject = source.measure, source.subject
        if measure.shape == "level_each" and subject is not None:
            tracks: list[Track | None] = [self._each.get((measure.family, *subject.labels))]
        else:
            tracks = [self._tracks.get(key) for key in source.keys]
        spreads = [one.spread(start, end, self._step) for one in tracks if isinstance(one, Level)]
        there = [one for one in spreads if one is not None]
        if not there:
            idle = subject is not None and measure.family == IN_FLIGHT
            return Aggregate(1.0, 0.0, 0.0, 0.0) if idle else None
        scale = measure.scale
        if measure.shape == "memory":
            workers = self._instances(source, start, end)
            if not workers or not self._memory:
                return None
            scale /= self._memory * workers
        elif measure.shape == "level_of" and subject is not None:
            scale *= 100.0 / dict(subject.limits)[measure.limit]
        mean, least, most = (scale * sum(column) for column in zip(*there, strict=True))
        return Aggregate(1.0, mean, least, most)
