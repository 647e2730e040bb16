"""Captures of several variants, put together call by call, in bounded memory.

Production's and a shadow's records of one call have one event id (inference ids are the caller's, and may be the same
for many calls) and lie in files of the same minutes. All variants are read side by side, always the one that is behind,
and what has not found its other half is forgotten when all are past its time, or when too much waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from serving.monitor.values import Complaints, Record

#: Files are begun anew each minute; records of one call are written when their answers are there, which takes 60 s at
#: most, or as long as a stream.
_PATIENCE_SECONDS = 600.0
#: Characters of bodies that wait for their other half.
_MOST_WAITING = 192 << 20
#: What a record takes beside its bodies, about.
_RECORD = 1000


class Both(NamedTuple):
    """A call as production and as the shadow had it."""

    production: Record
    shadow: Record


class Joined:
    """Pairs of one pass, and what was left over: ``unmatched`` of production, of the shadow. The shadow gets a sample
    of the calls, so many of production's are."""

    def __init__(
        self, production: Sequence[Iterable[Record]], shadow: Iterable[Record], complaints: Complaints
    ) -> None:
        """``production``: a stream for each variant; each stream about in order of time."""
        self._streams = [*((False, iter(one)) for one in production), (True, iter(shadow))]
        self._complaints = complaints
        self._waiting: dict[bool, OrderedDict[str, Record]] = {False: OrderedDict(), True: OrderedDict()}
        self._size = 0
        self.unmatched = {False: 0, True: 0}
        self.records = {False: 0, True: 0}

    def __iter__(self) -> Iterator[Both]:
        times = [float("-inf")] * len(self._streams)
        open_ones = set(range(len(self._streams)))
        while open_ones:
            behind = min(open_ones, key=times.__getitem__)
            is_shadow, stream = self._streams[behind]
            record = next(stream, None)
            if record is None:
                open_ones.remove(behind)
                continue
            times[behind] = max(times[behind], record.time)
            self.records[is_shadow] += 1
            other = self._take(record, not is_shadow)
            if other is None:
                self._wait(record, is_shadow)
                self._forget(min(times[one] for one in open_ones) - _PATIENCE_SECONDS)
            else:
                yield Both(other, record) if is_shadow else Both(record, other)
        for side, waiting in self._waiting.items():
            self.unmatched[side] += len(waiting)

    def _take(self, record: Record, side: bool) -> Record | None:
        other = self._waiting[side].pop(record.event_id, None)
        if other is not None:
            self._size -= _size(other)
        return other

    def _wait(self, record: Record, side: bool) -> None:
        old = self._waiting[side].pop(record.event_id, None)
        if old is not None:  # a queued call may be answered more than once
            self._complaints.add("a call was captured twice: the later counts", record.key)
            self._drop(old, side)
        self._waiting[side][record.event_id] = record
        self._size += _size(record)

    def _drop(self, record: Record, side: bool) -> None:
        self._size -= _size(record)
        self.unmatched[side] += 1

    def _forget(self, before: float) -> None:
        for side, waiting in self._waiting.items():
            while waiting and next(iter(waiting.values())).time < before:
                self._drop(waiting.popitem(last=False)[1], side)
        while self._size > _MOST_WAITING:
            side = max(self._waiting, key=lambda one: len(self._waiting[one]))
            _, record = self._waiting[side].popitem(last=False)
            self._complaints.add(
                "a captured call was forgotten before its other half came: too many waited", record.key
            )
            self._drop(record, side)


def _size(record: Record) -> int:
    return _RECORD + sum(len(side.data) for side in (record.input, record.output) if side is not None)
