"""The last hour in numbers: what the metric cells say of every variant, every few seconds, in bounded memory.

::

    metric files ──► Reader ──► Sample: number, time, and a Row of each variant, of each endpoint, of the server

A row is raw: counters as they have grown, gauges as they stand, histograms bucket by bucket (``COLUMNS``). What people
want to see (calls a second, quantiles) follows from two of them (``points.py``). The sums are those of a scrape
(``metrics.snapshot``), but an index is parsed only where it has grown. Nothing here grows with models: series are of
variants and endpoints.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from serving.watch.metrics import FAMILIES, Holder, snapshot

SAMPLE_SECONDS = 5.0
#: An hour of them. The variants beyond the busiest are kept for two minutes: what a table of them all shows.
_KEPT, _RECENT, _MOST_HOLDERS = 720, 24, 128
_MOST_EVENTS = 200

log = logging.getLogger("serving.history")


class Column(NamedTuple):
    """A number of a row: the metric it is read from, and the value of that metric's third label (empty: it has none, or
    all its values are summed)."""

    family: str
    label: str = ""


#: What is kept of a variant (or component, or container of several), by the name it is asked for.
COLUMNS: dict[str, Column] = {
    "calls": Column("sagemaker_invocations_total"),
    "errors_4xx": Column("sagemaker_invocation_errors_total", "4xx"),
    "errors_5xx": Column("sagemaker_invocation_errors_total", "5xx"),
    "model_errors": Column("sagemaker_invocation_model_errors_total"),
    "hits": Column("sagemaker_model_cache_requests_total", "hit"),
    "misses": Column("sagemaker_model_cache_requests_total", "miss"),
    "evictions": Column("sagemaker_model_evictions_total"),
    "deaths": Column("sagemaker_worker_deaths_total"),
    "processed": Column("sagemaker_invocations_processed_total"),
    "failed": Column("sagemaker_invocation_failures_total"),
    "expired": Column("sagemaker_expired_requests_total"),
    "concurrent": Column("sagemaker_concurrent_requests"),
    "models": Column("sagemaker_loaded_models"),
    "model_bytes": Column("sagemaker_model_memory_bytes"),
    "workers": Column("sagemaker_workers"),
    "ready": Column("sagemaker_workers", "READY"),
    "desired": Column("sagemaker_desired_workers"),
    "backlog": Column("sagemaker_approximate_backlog_size"),
    "oldest": Column("sagemaker_approximate_age_of_oldest_request_seconds"),
    "progress": Column("sagemaker_transform_progress_ratio"),
    "records_done": Column("sagemaker_transform_records_total", "done"),
    "records_failed": Column("sagemaker_transform_records_total", "failed"),
    "rejected": Column("sagemaker_rejected_requests_total"),
    "latency": Column("sagemaker_model_latency_seconds"),
}


def _layout() -> dict[str, slice]:
    """Where each column's cells are in a row."""
    at, places = 0, {}
    for name, column in COLUMNS.items():
        buckets = FAMILIES[column.family].buckets
        size = len(buckets) + 2 if buckets else 1
        places[name] = slice(at, at + size)
        at += size
    return places


_PLACES = _layout()
_SIZE = max(place.stop for place in _PLACES.values())
_GROWING = array("B", bytes(_SIZE))
for _name, _column in COLUMNS.items():
    if FAMILIES[_column.family].kind != "gauge":
        _GROWING[_PLACES[_name]] = array("B", [1] * (_PLACES[_name].stop - _PLACES[_name].start))
#: (metric, third label) -> the columns it goes into.
_INTO: dict[tuple[str, str], list[int]] = {}
for _name, _column in COLUMNS.items():
    _INTO.setdefault(_column, []).append(_PLACES[_name].start)
#: Shadow variants alone have series of this one.
_SHADOWS = "sagemaker_shadow_dropped_total"
_READ = frozenset({_SHADOWS, *(column.family for column in COLUMNS.values())})
#: The row of the whole server.
SERVER: Holder = ()


@dataclass(frozen=True, slots=True)
class Row:
    """The numbers of one variant, endpoint or server at one time. What it has no series for is 0. ``shadow``: of a
    shadow variant, whose calls are copies."""

    cells: Sequence[float]
    shadow: bool = False

    def __getitem__(self, name: str) -> float:
        """A counter or gauge of ``COLUMNS``."""
        return float(self.cells[_PLACES[name].start])

    def histogram(self, name: str) -> Sequence[float]:
        """A histogram's buckets (not cumulative; the last is for all above the bounds), then the sum."""
        return self.cells[_PLACES[name]]

    def since(self, before: Row | None) -> Row:
        """What has been added since; gauges as they stand now. A counter that has gone back began anew."""
        old = before.cells if before is not None else _ZEROS
        grown = array("d", self.cells)
        for at, (now, then) in enumerate(zip(self.cells, old, strict=True)):
            if _GROWING[at] and now >= then:
                grown[at] = now - then
        return Row(grown, self.shadow)


_ZEROS = array("d", bytes(8 * _SIZE))
NOTHING = Row(_ZEROS)


class Sample(NamedTuple):
    """All rows of one time (epoch seconds). Numbers go up by one, and on from where an earlier server was."""

    number: int
    time: float
    rows: Mapping[Holder, Row]


class Event(NamedTuple):
    """Something that happened to an endpoint, in words: workers that came or ended, and whatever is noted."""

    time: float
    endpoint: str
    variant: str
    text: str


# --- reading --------------------------------------------------------------------------------------------------------


class _Index(NamedTuple):
    """What is known of one process's index: the file, bytes parsed, its series, and the cells that these span."""

    inode: int
    parsed: int
    series: list[tuple[str, tuple[str, ...], int, int]]
    span: int


class Reader:
    """Reads one process's metric file for ``metrics.snapshot``, of the metrics in ``families`` only; remembers what
    the index says."""

    def __init__(self, families: frozenset[str] = _READ) -> None:
        self._families = families
        self._known: dict[Path, _Index] = {}

    def __call__(self, path: Path) -> Iterator[tuple[str, tuple[str, ...], list[float]]]:
        """(metric, label values, cells), as far as there are any; nothing of a process that has just been folded."""
        try:
            index, data = self._read(path)
        except OSError:
            self._known.pop(path, None)
            return
        cells = memoryview(data[: len(data) // 8 * 8]).cast("d")
        for name, labels, offset, count in index.series:
            if offset + count <= len(cells):
                yield name, labels, list(cells[offset : offset + count])

    def _read(self, path: Path) -> tuple[_Index, bytes]:
        """Cells get another meaning only after their index has been replaced; then this reads again (``metrics``)."""
        lines = path.with_suffix(".index")
        while True:
            index = self._parse(path, lines)
            with path.open("rb", buffering=0) as file:
                data = file.read(8 * index.span)
            if lines.stat().st_ino == index.inode:
                return index, data

    def _parse(self, path: Path, lines: Path) -> _Index:
        known = self._known.get(path)
        with lines.open("rb", buffering=0) as file:
            stat = os.fstat(file.fileno())
            if known is not None and known.inode == stat.st_ino and known.parsed == stat.st_size:
                return known
            if known is None or known.inode != stat.st_ino or known.parsed > stat.st_size:
                known = _Index(stat.st_ino, 0, [], 0)
            file.seek(known.parsed)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        series = known.series + [one for line in whole.splitlines() if (one := self._series(line)) is not None]
        span = max((offset + count for _, _, offset, count in series), default=0)
        index = self._known[path] = _Index(known.inode, known.parsed + len(whole), series, span)
        return index

    def _series(self, line: bytes) -> tuple[str, tuple[str, ...], int, int] | None:
        try:
            name, labels, offset, count = json.loads(line)
        except (ValueError, TypeError):
            return None  # of a process that died while writing it
        return (name, tuple(labels), offset, count) if name in self._families else None

    def forget(self, folder: Path) -> None:
        """Let go of files that are there no more."""
        for path in [path for path in self._known if not path.exists() or path.parent != folder]:
            del self._known[path]


def rows(series: Mapping[tuple[str, tuple[str, ...]], Sequence[float]]) -> dict[Holder, Row]:
    """A ``metrics.Snapshot`` as rows by whose they are: (endpoint, variant), (endpoint,), or () for nobody's."""
    found: dict[Holder, array[float]] = {}
    for (name, labels), values in series.items():
        known = FAMILIES[name].labels
        size = 2 if known[:2] == ("endpoint", "variant") else 1 if known == ("endpoint",) else 0
        row = found.get(labels[:size])
        if row is None:
            row = found[labels[:size]] = array("d", _ZEROS)
        third = labels[2] if len(labels) > 2 else ""
        for place in (*_INTO.get((name, third), ()), *(_INTO.get((name, ""), ()) if third else ())):
            for at, value in enumerate(values):
                row[place + at] += value
    shadows = {labels for name, labels in series if name == _SHADOWS}
    return {holder: Row(cells, holder in shadows) for holder, cells in found.items()}


# --- keeping --------------------------------------------------------------------------------------------------------


class History:
    """The samples of the last hour, oldest first, and the last events. ``clock``: epoch seconds."""

    def __init__(
        self,
        seconds: float = SAMPLE_SECONDS,
        kept: int = _KEPT,
        recent: int = _RECENT,
        most: int = _MOST_HOLDERS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``recent`` samples have every row, those before the rows of the ``most`` busiest and of the server."""
        self.seconds = seconds
        self.samples: deque[Sample] = deque(maxlen=kept)
        self.events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        self._recent = recent
        self._most = most
        self._clock = clock
        self._first = int(clock())

    @property
    def seconds_left(self) -> float:
        """Until the next sample will be there."""
        if not self.samples:
            return 0.5
        return min(self.seconds, max(0.25, self.samples[-1].time + self.seconds + 0.25 - self._clock()))

    @property
    def number(self) -> int:
        """The newest sample's; 0 = there is none yet."""
        return self.samples[-1].number if self.samples else 0

    def add(self, taken: Mapping[Holder, Row]) -> Sample:
        """Put in the rows of now. Rows that have not changed are kept once."""
        last = self.samples[-1] if self.samples else None
        before = last.rows if last else {}
        kept = {}
        for holder, row in taken.items():
            if holder != SERVER:
                old = before.get(holder)
                kept[holder] = old if old is not None and old.cells == row.cells else row
        kept[SERVER] = _whole(kept, before, taken.get(SERVER, NOTHING))
        sample = Sample(last.number + 1 if last else self._first, self._clock(), kept)
        if last is not None:
            self.events.extend(happened(last, sample))
        self.samples.append(sample)
        self._thin()
        return sample

    def note(self, endpoint: str, variant: str, text: str) -> None:
        """Keep an event that no number tells."""
        self.events.append(Event(self._clock(), endpoint, variant, text))

    def _thin(self) -> None:
        """The sample that is no longer recent keeps the rows of those that were busiest since."""
        at = len(self.samples) - self._recent - 1
        if at < 0 or len(self.samples[at].rows) <= self._most + 1:
            return
        old, now = self.samples[at], self.samples[-1].rows
        others = [one for one in old.rows if one != SERVER]
        by_calls = sorted(others, key=lambda one: now.get(one, NOTHING)["calls"] - old.rows[one]["calls"])
        busy = {SERVER, *by_calls[-self._most :]}
        self.samples[at] = old._replace(rows={one: row for one, row in old.rows.items() if one in busy})


def is_part(holder: Holder) -> bool:
    """Is it a container of several, whose calls are those of its variant?"""
    return len(holder) == 2 and "/" in holder[1]


def _cells_of(*names: str) -> frozenset[int]:
    return frozenset(at for name in names for at in range(_PLACES[name].start, _PLACES[name].stop))


_GAUGES = tuple(at for at in range(_SIZE) if not _GROWING[at])
#: What is counted of a container's calls that its variant counts too, and what of a copy is nobody's call.
_OF_PARTS = _cells_of("calls", "latency")
_OF_COPIES = _cells_of("calls", "latency", "errors_4xx", "errors_5xx", "model_errors")


def _whole(now: Mapping[Holder, Row], before: Mapping[Holder, Row], own: Row) -> Row:
    """The server's row: what everybody's counters have grown by (those of an endpoint that goes take nothing away), and
    the sum of the gauges. No call counts twice. ``own``: what is counted for nobody."""
    total = array("d", before[SERVER].cells if SERVER in before else _ZEROS)
    for at in _GAUGES:
        total[at] = 0.0
    for holder, row in now.items():
        if holder == SERVER:
            continue
        grown = _still(row) if row is before.get(holder) else row.since(before.get(holder)).cells
        left_out = _OF_COPIES if row.shadow else _OF_PARTS if is_part(holder) else frozenset()
        for at, value in enumerate(grown):
            if value and at not in left_out:
                total[at] += value
    total[_PLACES["rejected"].start] = own["rejected"]
    return Row(total)


def _still(row: Row) -> Sequence[float]:
    """The row of one whose numbers have not changed: its gauges."""
    cells = array("d", _ZEROS)
    for at in _GAUGES:
        cells[at] = row.cells[at]
    return cells


def happened(before: Sample, now: Sample) -> Iterable[Event]:
    """What two samples tell of the workers in between."""
    for holder, row in now.rows.items():
        if len(holder) != 2:
            continue
        old = before.rows.get(holder, NOTHING)
        if row is old:
            continue  # nothing has changed
        ended = int(row.since(old)["deaths"]) if holder in before.rows else 0
        if ended:
            yield Event(now.time, *holder, f"{ended} worker{'s' * (ended > 1)} ended without being told to")
        if row["ready"] != old["ready"]:
            yield Event(now.time, *holder, f"workers ready: {old['ready']:.0f} → {row['ready']:.0f}")
    for holder in before.rows:
        if len(holder) == 2 and holder not in now.rows and before.rows[holder]["ready"]:
            yield Event(now.time, *holder, f"workers ready: {before.rows[holder]['ready']:.0f} → 0 (taken away)")


# --- the loop -------------------------------------------------------------------------------------------------------


async def sample_forever(history: History, folder: Path) -> None:
    """Take a sample every ``history.seconds``, in a thread of its own. What goes wrong costs a sample."""
    reader = Reader()

    def take() -> dict[Holder, Row]:
        reader.forget(folder)
        return rows(snapshot(folder, reader))

    while True:
        try:
            history.add(await asyncio.to_thread(take))
        except Exception:
            log.exception("the numbers of now could not be kept")
        await asyncio.sleep(history.seconds)  # the samples' clock
