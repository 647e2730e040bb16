"""Counters and histograms that cost a tenth of a microsecond, survive a kill -9 and are summed over processes.

Each process maps a file of plain float64 cells and says beside it, line by line, what each cell means. Adding is one
array store. A scrape (any front) reads all files and sums them: counters and histograms over living and dead processes,
gauges over the living. The file of a dead process is folded into its parent's before it is removed, so a counter never
goes back. Scrapes and folds take no lock, so that a stopped process holds up neither: a fold makes the count of folds
odd while it lasts, and a scrape that saw it odd, or change, reads again.

The series of an endpoint that has gone go too. What is shown (``Registry.show``) says the control process before any
process lets go of a cell, so no scrape sees part of a sum. A process lets go (``Registry.keep``) by putting a new index
in place of its old one; a scrape whose index was replaced while it read the cells reads again. Cells are used again
only when nobody holds the ``Counter`` or ``Histogram`` over them any more, so that a late call counts into a cell that
has no meaning, never into another's. Adding knows nothing of all this.

Names, units and labels:
``reference/behaviour/09-metrics.md`` (AWS's metric list and our mapping); microseconds become seconds.

Why not prometheus-client's own multiprocess mode: 1-3 µs a call against 0.1-0.2 (measured). Its exposition format and
its collector interface are used as they are.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import struct
import weakref
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.types import FleetKey
from serving.watch import slow

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Histogram bounds in seconds: 100 µs to 60 s.
LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
#: Of what may wait for hours: 10 ms to six hours.
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)

_SEGMENT = 64 * 1024
_PER_SEGMENT = _SEGMENT // 8
_FOLDS = struct.Struct("<Q")
#: A fold lasts about as long as a scrape; only one that never ends (its process was stopped) uses these up.
_SCRAPES = 50

log = logging.getLogger("serving.metrics")


class Family(NamedTuple):
    """One metric: its help text, kind (counter, gauge, histogram), labels, and bounds if it is a histogram."""

    help: str
    kind: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


#: Whose a series is: the values of its labels endpoint and variant, or of the endpoint alone; of a pair, all three.
Holder = tuple[str, ...]
_EV, _E = ("endpoint", "variant"), ("endpoint",)
#: Of a shadow variant beside a production variant.
_PAIR = (*_EV, "production")
#: Of one side of a guarded update.
_EVC = (*_EV, "config")
#: Of a monitoring schedule: its holder is (endpoint, "", schedule).
_ES = ("endpoint", "schedule")
#: Every metric there is. The README's table is checked against it.
FAMILIES: dict[str, Family] = {
    "sagemaker_invocations_total": Family("Calls sent to a variant (AWS: Invocations)", "counter", _EV),
    "sagemaker_invocation_errors_total": Family(
        "Answers of 4xx or 5xx by the model (AWS: Invocation4XXErrors, Invocation5XXErrors)",
        "counter",
        (*_EV, "class"),
    ),
    "sagemaker_invocation_model_errors_total": Family(
        "Answers that were not 2xx, timeouts and lost workers included (AWS: InvocationModelErrors)", "counter", _EV
    ),
    "sagemaker_rejected_requests_total": Family("Requests refused before a variant was chosen", "counter", ("code",)),
    "sagemaker_retried_invocations_total": Family("Calls placed again because their worker died", "counter", _EV),
    "sagemaker_model_latency_seconds": Family(
        "Time from sending a call to a worker until its answer (AWS: ModelLatency)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_first_chunk_latency_seconds": Family(
        "Time from sending a streamed call to a worker until its first part (AWS: FirstChunkLatency)",
        "histogram",
        _EV,
        LATENCY_BUCKETS,
    ),
    "sagemaker_mid_stream_errors_total": Family(
        "Streamed answers that broke after their first part (AWS: MidStreamErrors)", "counter", _EV
    ),
    "sagemaker_overhead_latency_seconds": Family(
        "Time in the server outside the worker (AWS: OverheadLatency)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_batch_calls": Family("Calls predicted together", "histogram", _EV, BATCH_BUCKETS),
    "sagemaker_concurrent_requests": Family(
        "Calls in flight, queued ones included (AWS: ConcurrentRequestsPerModel)", "gauge", _EV
    ),
    "sagemaker_model_cache_requests_total": Family(
        "Calls whose model was in memory (hit) or not (miss) (AWS: ModelCacheHit)", "counter", (*_EV, "result")
    ),
    "sagemaker_loaded_models": Family("Models in memory, summed over workers (AWS: LoadedModelCount)", "gauge", _EV),
    "sagemaker_model_memory_bytes": Family("Measured bytes of the models in memory", "gauge", _EV),
    "sagemaker_model_loading_wait_seconds": Family(
        "Time calls waited for their model (AWS: ModelLoadingWaitTime)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_model_download_seconds": Family(
        "Time to fetch and unpack an artifact (AWS: ModelDownloadingTime)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_model_load_seconds": Family(
        "Time to load an artifact (AWS: ModelLoadingTime)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_model_unload_seconds": Family(
        "Time to release a model (AWS: ModelUnloadingTime)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_model_load_failures_total": Family("Loads that failed", "counter", _EV),
    "sagemaker_model_evictions_total": Family("Models evicted to make room", "counter", _EV),
    "sagemaker_workers": Family("Workers by state", "gauge", (*_EV, "state")),
    "sagemaker_worker_start_seconds": Family(
        "Time from deciding to start a worker until it is ready", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_worker_deaths_total": Family("Workers that ended without being told to", "counter", _EV),
    "sagemaker_quarantined_models": Family("Models refused because they kill their workers", "gauge", _EV),
    "sagemaker_approximate_backlog_size": Family(
        "Asynchronous calls queued or being processed (AWS: ApproximateBacklogSize)", "gauge", _E
    ),
    "sagemaker_approximate_backlog_size_per_instance": Family(
        "The same by instance, NaN without any (AWS: ApproximateBacklogSizePerInstance)", "gauge", _E
    ),
    "sagemaker_approximate_age_of_oldest_request_seconds": Family(
        "Age of the oldest of them (AWS: ApproximateAgeOfOldestRequest)", "gauge", _E
    ),
    "sagemaker_has_backlog_without_capacity": Family(
        "1 while calls are queued and there is no instance (AWS: HasBacklogWithoutCapacity)", "gauge", _E
    ),
    "sagemaker_invocations_processed_total": Family(
        "Asynchronous calls that were run to an end (AWS: InvocationsProcesssed)", "counter", _EV
    ),
    "sagemaker_invocation_failures_total": Family(
        "Asynchronous calls without a successful answer (AWS: InvocationFailures)", "counter", _EV
    ),
    "sagemaker_expired_requests_total": Family(
        "Asynchronous calls that waited too long (AWS: ExpiredRequests)", "counter", _EV
    ),
    "sagemaker_request_download_failures_total": Family(
        "Inputs that could not be read (AWS: RequestDownloadFailures)", "counter", _EV
    ),
    "sagemaker_response_upload_failures_total": Family(
        "Answers that could not be written (AWS: ResponseUploadFailures)", "counter", _EV
    ),
    "sagemaker_notification_failures_total": Family(
        "Notifications that were given up (AWS: NotificationFailures)", "counter", _EV
    ),
    "sagemaker_request_download_seconds": Family(
        "Time to get an input (AWS: RequestDownloadLatency)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_response_upload_seconds": Family(
        "Time to write an answer (AWS: ResponseUploadLatency)", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_time_in_backlog_seconds": Family(
        "Time an asynchronous call waited in the queue (AWS: TimeInBacklog)", "histogram", _EV, WAIT_BUCKETS
    ),
    "sagemaker_total_processing_seconds": Family(
        "Time from its receipt until it was published (AWS: TotalProcessingTime)", "histogram", _EV, WAIT_BUCKETS
    ),
    "sagemaker_explanations_total": Family(
        "Records that were explained (AWS: ExplanationsPerInstance, by instance)", "counter", _EV
    ),
    "sagemaker_explanation_seconds": Family(
        "Time from a model's answer until it was explained", "histogram", _EV, LATENCY_BUCKETS
    ),
    "sagemaker_transform_records_total": Family(
        "Records of a running transform job that were answered (done) or could not be (failed)",
        "counter",
        (*_EV, "result"),
    ),
    "sagemaker_transform_progress_ratio": Family(
        "How much of the input of a running transform job is done, 0 to 1", "gauge", _EV
    ),
    "sagemaker_data_capture_records_total": Family("Captured calls that were written down", "counter", _EV),
    "sagemaker_data_capture_dropped_total": Family(
        "Captured calls that were not, or not wholly: capture had stopped, overload, too_large (one direction), error",
        "counter",
        (*_EV, "reason"),
    ),
    "sagemaker_data_capture_stopped": Family(
        "Processes that have stopped capturing: a disk is full or fails, or the destination is away", "gauge", _E
    ),
    "sagemaker_transform_jobs_total": Family("Transform jobs that ended, by status", "counter", ("status",)),
    "sagemaker_monitoring_executions_total": Family(
        "Monitoring executions that ended, by status", "counter", ("status",)
    ),
    "sagemaker_monitoring_violations": Family("Violations found by a schedule's last execution", "gauge", _ES),
    "sagemaker_monitoring_finished_seconds": Family(
        "When a schedule's last execution was finished, in seconds since 1970", "gauge", _ES
    ),
    "sagemaker_feature_baseline_drift": Family(
        "Distance of a feature from its baseline (AWS: feature_baseline_drift_*)", "gauge", (*_ES, "feature")
    ),
    "sagemaker_monitoring_metric": Family(
        "A metric of a schedule's last execution: f1, auc, mae, DPPL, ... (AWS: model-metrics, bias_metric_*)",
        "gauge",
        (*_ES, "metric"),
    ),
    "sagemaker_ground_truth_records_total": Family(
        "Labels that were sent, by result (accepted, rejected)", "counter", (*_E, "result")
    ),
    "sagemaker_shadow_dropped_total": Family(
        "Copies a shadow variant did not get: it held too many, or refused them", "counter", _EV
    ),
    "sagemaker_shadow_pairs_total": Family(
        "Calls that a production and a shadow variant both answered", "counter", _PAIR
    ),
    "sagemaker_shadow_pair_seconds_total": Family(
        "Time these took in each, by side (production, shadow)", "counter", (*_PAIR, "side")
    ),
    "sagemaker_shadow_pair_squared_difference_total": Family(
        "Squares, summed, of the shadow's seconds less production's for the same call", "counter", _PAIR
    ),
    "sagemaker_queue_seconds": Family(
        "Time calls waited in their worker until they were predicted; part of the model latency",
        "histogram",
        _EV,
        LATENCY_BUCKETS,
    ),
    "sagemaker_worker_cpu_seconds_total": Family(
        "Processor time of workers (AWS: CPUUtilization, by instance and time)", "counter", _EV
    ),
    "sagemaker_worker_memory_bytes": Family(
        "Resident memory of workers, what they share counted in each (AWS: MemoryUtilization)", "gauge", _EV
    ),
    "sagemaker_desired_workers": Family("Workers that there should be", "gauge", _EV),
    "sagemaker_no_capacity_invocation_failures_total": Family(
        "Calls refused because a component had no copy (AWS: NoCapacityInvocationFailures)", "counter", _EV
    ),
    "sagemaker_model_setup_seconds": Family(
        "Time a call waited for the first worker of what had none (AWS: ModelSetupTime)",
        "histogram",
        _EV,
        LATENCY_BUCKETS,
    ),
    "sagemaker_scaling_activities_total": Family(
        "Changes of capacity by scaling that ended, by status", "counter", (*_EV, "status")
    ),
    "sagemaker_alarms": Family("Alarms by state", "gauge", ("state",)),
    "sagemaker_deployment_invocations_total": Family(
        "Calls sent to each side of a guarded update (AWS: Invocations by EndpointConfigName)", "counter", _EVC
    ),
    "sagemaker_deployment_invocation_errors_total": Family(
        "Their answers of 4xx and 5xx; those that were not 2xx (model)", "counter", (*_EVC, "class")
    ),
    "sagemaker_deployment_model_latency_seconds": Family(
        "Their time from being sent to a worker until the answer", "histogram", _EVC, LATENCY_BUCKETS
    ),
}


class Counter:
    """One cell that only grows (or, for a gauge, is set)."""

    __slots__ = ("__weakref__", "_at", "_cells")

    def __init__(self, cells: memoryview[float], at: int) -> None:
        self._cells = cells
        self._at = at

    def add(self, amount: float = 1.0) -> None:
        """Add to it."""
        self._cells[self._at] += amount

    def set(self, value: float) -> None:
        """Replace it (gauges)."""
        self._cells[self._at] = value

    @property
    def value(self) -> float:
        """What it holds."""
        return float(self._cells[self._at])


class Histogram:
    """A cell for each bucket (not cumulative), the last one for all above the bounds, then the sum."""

    __slots__ = ("__weakref__", "_at", "_bounds", "_cells", "_sum")

    def __init__(self, cells: memoryview[float], at: int, bounds: tuple[float, ...]) -> None:
        self._cells = cells
        self._at = at
        self._bounds = bounds
        self._sum = at + len(bounds) + 1

    def none(self) -> None:
        """Count one value of 0."""
        self._cells[self._at] += 1.0

    def observe(self, value: float) -> None:
        """Count one value."""
        cells = self._cells
        cells[self._at + bisect_left(self._bounds, value)] += 1.0
        cells[self._sum] += value


class _Place(NamedTuple):
    """``size`` cells from ``at`` on in a segment, which are those from ``offset`` on in the file."""

    cells: memoryview[float]
    at: int
    offset: int
    size: int


class _Entry(NamedTuple):
    """A series in the index."""

    place: _Place
    line: str


class Registry:
    """One process's metrics file. ``role`` names the process, for people who look into the folder. New series and
    ``keep`` are for one thread; adding to what is there is for any. ``slow``: where single calls worth a look are kept,
    in a process that keeps any."""

    slow = slow.NONE

    def __init__(self, folder: Path, role: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / f"{role}.{os.getpid()}.cells"
        self._file = self.path.open("w+b")
        self._index = self.path.with_suffix(".index").open("w", encoding="utf-8")
        self._cells: memoryview[float] = memoryview(b"").cast("d")
        self._segments = 0
        self._used = _PER_SEGMENT
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._entries: dict[tuple[str, ...], _Entry] = {}
        self._holders: dict[Holder, list[tuple[str, ...]]] = {}
        self._free: dict[int, list[_Place]] = {}
        self._let_go: list[tuple[weakref.ref[Counter | Histogram], _Place]] = []
        self._shown: Collection[Holder] = ()
        self._written: Collection[Holder] | None = None
        self._shows = 0

    def _allocate(self, name: str, labels: tuple[str, ...], count: int) -> _Place:
        free = self._free.get(count)
        place = free.pop() if free else self._new_place(count)
        place.cells[place.at : place.at + count] = memoryview(bytes(8 * count)).cast("d")
        line = json.dumps([name, list(labels), place.offset, count]) + "\n"
        self._index.write(line)
        self._index.flush()
        self._entries[name, *labels] = _Entry(place, line)
        holder = holder_of(name, labels)
        if holder is not None:
            self._holders.setdefault(holder, []).append((name, *labels))
        return place

    def _new_place(self, count: int) -> _Place:
        if self._used + count > _PER_SEGMENT:
            self._file.truncate((self._segments + 1) * _SEGMENT)
            memory = mmap.mmap(self._file.fileno(), _SEGMENT, offset=self._segments * _SEGMENT)
            self._cells = memoryview(memory).cast("d")
            self._segments += 1
            self._used = 0
        at = self._used
        self._used += count
        return _Place(self._cells, at, (self._segments - 1) * _PER_SEGMENT + at, count)

    def counter(self, name: str, *labels: str) -> Counter:
        """The cell of a counter or gauge for these label values; the same object each time."""
        key = (name, *labels)
        found = self._counters.get(key)
        if found is None:
            assert len(labels) == len(FAMILIES[name].labels), name
            place = self._allocate(name, labels, 1)
            found = self._counters[key] = Counter(place.cells, place.at)
        return found

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The cells of a histogram for these label values; the same object each time."""
        key = (name, *labels)
        found = self._histograms.get(key)
        if found is None:
            bounds = FAMILIES[name].buckets
            assert len(labels) == len(FAMILIES[name].labels), name
            place = self._allocate(name, labels, len(bounds) + 2)
            found = self._histograms[key] = Histogram(place.cells, place.at, bounds)
        return found

    def show(self, holders: Collection[Holder]) -> None:
        """From now on scrapes show the series of these endpoints and variants, and of no others. Only one process of a
        folder may say so, and before any of them lets go of a series. ``keep`` keeps them too."""
        self._shown = holders
        if holders == self._written:
            return
        self._shows += 1
        fresh = self.folder / "shown.fresh"
        try:
            fresh.write_text(json.dumps([self._shows, sorted(holders)]), encoding="ascii")
            fresh.replace(self.folder / "shown")
            self._written = holders
        except OSError as error:  # the next table brings another try
            log.warning("scrapes may not show every endpoint: %s", error.strerror)

    def keep(self, holders: Collection[Holder]) -> Collection[Holder]:
        """Let go of the series of all endpoints and variants but these, and those shown; they begin at 0 should they
        ever come back. Returns the ones that still have series here."""
        gone = [one for one in self._holders if one not in holders and one not in self._shown]
        if gone:
            try:
                self._forget(gone)
            except OSError as error:  # they stay until the next time
                log.warning("metric series could not be forgotten: %s", error.strerror)
            self._reclaim()
        return self._holders.keys()

    def _forget(self, gone: Collection[Holder]) -> None:
        keys = [key for holder in gone for key in self._holders[holder]]
        leaving = set(keys)
        fresh, path = self.path.with_suffix(".fresh"), self.path.with_suffix(".index")
        fresh.write_text("".join(one.line for key, one in self._entries.items() if key not in leaving), "utf-8")
        index = fresh.open("a", encoding="utf-8")
        fresh.replace(path)  # from here on no scrape reads these cells by their old names
        self._index.close()
        self._index = index
        for key in keys:
            series = self._counters.pop(key, None) or self._histograms.pop(key)
            self._let_go.append((weakref.ref(series), self._entries.pop(key).place))
        for holder in gone:
            del self._holders[holder]

    def _reclaim(self) -> None:
        """Cells that nobody can count into any more may be used again."""
        held = []
        for series, place in self._let_go:
            if series() is None:
                self._free.setdefault(place.size, []).append(place)
            else:
                held.append((series, place))
        self._let_go = held

    def close(self) -> None:
        """No new cells; those there are live on until the process ends."""
        self._file.close()
        self._index.close()

    def fold(self, pid: int) -> None:
        """Add the counters and histograms of a dead process to ours and remove its file. Its gauges die with it. Only
        one process of a folder, the parent of the others, may do this."""
        for path in self.folder.glob(f"*.{pid}.cells"):
            with _folding(self.folder):
                for name, labels, values in _read(path):
                    if FAMILIES[name].kind != "gauge":
                        self._absorb(name, labels, values)
                path.unlink(missing_ok=True)
                for suffix in (".index", ".fresh"):
                    path.with_suffix(suffix).unlink(missing_ok=True)

    def _absorb(self, name: str, labels: tuple[str, ...], values: list[float]) -> None:
        if FAMILIES[name].kind == "counter":
            self.counter(name, *labels).add(values[0])
            return
        histogram = self.histogram(name, *labels)
        for at, value in enumerate(values):
            histogram._cells[histogram._at + at] += value


def folds(folder: Path) -> int:
    """Twice the folds so far; odd while one is under way."""
    try:
        return int(_FOLDS.unpack((folder / "folds").read_bytes())[0])
    except (OSError, struct.error):  # none yet, or the first is writing
        return 0


@contextmanager
def _folding(folder: Path) -> Iterator[None]:
    """Tell scrapes that the numbers of a dead process are moving."""
    count = folds(folder)
    with (folder / "folds").open("wb" if not count else "r+b", buffering=0) as file:
        file.write(_FOLDS.pack(count + 1))
        try:
            yield
        finally:
            file.seek(0)
            file.write(_FOLDS.pack(count + 2))


def holders(table: Mapping[str, Any]) -> frozenset[Holder]:
    """Whose series there are by a routing table (``fleet/table.py``): its endpoints, their variants, the containers of
    these where there are several, components, and shadow variants, alone and beside each production variant; during a
    guarded update also both sides' variants by config."""
    found: set[Holder] = set()
    for row in table["endpoints"]:
        shadows = row.get("shadows", ())
        variants = [*row["variants"], *shadows]
        found.add((row["name"],))
        found.update((row["name"], variant["name"]) for variant in variants)
        found.update((row["name"], one["name"], other["name"]) for one in shadows for other in row["variants"])
        if green := row.get("green"):
            variants += green["variants"]
            found.update((row["name"], one["name"]) for one in green["variants"])
            for config in (row["config"], green["config"]):
                found.update((row["name"], one["name"], "", config) for one in variants)
        pools = [pool for variant in variants for pool in variant["pools"]]
        found.update(FleetKey(*pool["key"]).labels for pool in (*pools, *row["components"]))
    found.update(table.get("schedules", ()))
    return frozenset(found)


def holder_of(name: str, labels: tuple[str, ...]) -> Holder | None:
    """Whose a series is; ``None`` for one of the whole server."""
    known = FAMILIES[name].labels
    if known[:3] == _PAIR:
        return labels[:3]
    if known[:2] == _ES:
        return labels[0], "", labels[1]
    if known[:3] == _EVC:
        return *labels[:2], "", labels[2]
    return labels[:2] if known[:2] == _EV else labels if known == _E else None


def _read(path: Path) -> Iterator[tuple[str, tuple[str, ...], list[float]]]:
    try:
        index, data = _read_pair(path)
    except OSError:
        return
    cells = memoryview(data[: len(data) // 8 * 8]).cast("d")
    for line in index.decode("ascii", errors="replace").splitlines():
        try:
            name, labels, offset, count = json.loads(line)
        except (ValueError, TypeError):
            continue  # the last line of a process that died while writing it
        if name in FAMILIES and offset + count <= len(cells):
            yield name, tuple(labels), list(cells[offset : offset + count])


def _read_pair(path: Path) -> tuple[bytes, bytes]:
    """An index and its cells. Cells get another meaning only after their index has been replaced; then this reads
    again, as often as an endpoint goes while it reads."""
    while True:
        with path.with_suffix(".index").open("rb") as index:
            lines, data = index.read(), path.read_bytes()
            if os.path.samestat(os.fstat(index.fileno()), path.with_suffix(".index").stat()):
                return lines, data


def _shown(folder: Path) -> bytes:
    """What ``Registry.show`` has written: never the same twice, and empty as long as it has not."""
    try:
        return (folder / "shown").read_bytes()
    except OSError:
        return b""


Snapshot = dict[tuple[str, tuple[str, ...]], list[float]]
#: One process's file -> (metric, label values, cells) of each of its series.
Read = Callable[[Path], Iterable[tuple[str, tuple[str, ...], list[float]]]]


def snapshot(folder: Path, read: Read = _read) -> Snapshot:
    """The sum over all processes: (metric, label values) -> cells (one, or a histogram's buckets and sum). ``read``:
    how one process's file is read (``history.Reader``: some metrics only)."""
    total: Snapshot = {}
    shown = b""
    for _ in range(_SCRAPES):
        before, shown = folds(folder), _shown(folder)
        total = _sum(folder, read)
        if before % 2 == 0 and before == folds(folder) and shown == _shown(folder):
            break
    if not shown:
        return total
    visible = {None, *map(tuple, json.loads(shown)[1])}
    return {key: values for key, values in total.items() if holder_of(*key) in visible}


def _sum(folder: Path, read: Read) -> Snapshot:
    total: Snapshot = {}
    for path in sorted(folder.glob("*.cells")):
        for name, labels, values in read(path):
            old = total.get((name, labels))
            total[name, labels] = values if old is None else [a + b for a, b in zip(old, values, strict=True)]
    return total


class Collector:
    """prometheus-client's collector interface over ``snapshot``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Metric families for one scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        taken = snapshot(self._folder)
        for name, family in FAMILIES.items():
            series = {labels: values for (metric, labels), values in taken.items() if metric == name}
            if family.kind == "histogram":
                histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
                for labels, values in series.items():
                    histogram.add_metric(labels, _cumulative(family.buckets, values), sum_value=values[-1])
                yield histogram
            else:
                plain = kinds[family.kind](name.removesuffix("_total"), family.help, labels=family.labels)
                for labels, values in series.items():
                    plain.add_metric(labels, values[0])
                yield plain


def _cumulative(bounds: tuple[float, ...], values: list[float]) -> list[tuple[str, float]]:
    running, buckets = 0.0, []
    for bound, value in zip((*map(str, bounds), "+Inf"), values, strict=False):
        running += value
        buckets.append((bound, running))
    return buckets


def exposition(folder: Path, accept: str = "") -> tuple[bytes, str]:
    """The scrape page and its content type, in the form ``accept`` asks for."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(folder))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
