"""Loading, releasing and improving models, on threads beside the invocation path.

One load at a time is measured (resident growth means nothing when two overlap); while one takes more than a second,
the others go ahead on their guesses, so that a slow artifact cannot hold them up. Closing and improving
have threads of their own: a load that waits for room must not hold up what would make room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from serving.errors import LoadFailed, ModelNotReady, OutOfMemory, ServingError
from serving.runtimes import registry as runtimes
from serving.runtimes.base import Artifact, LoadSettings, Model, TensorModel
from serving.watch.metrics import Registry
from serving.workers import artifacts, memory
from serving.workers.batcher import Lines
from serving.workers.cells import LOADING, Cell
from serving.workers.crew import Crew
from serving.workers.estimates import Estimates
from serving.workers.model_cache import READY, Entry, ModelCache
from serving.workers.pipeline import first_line
from serving.workers.plan import WorkerPlan

_LOADERS = 3
#: With ModelCacheSetting Disabled every call loads: SageMaker raises the concurrency of loads then, and so do we.
_LOADERS_WITHOUT_CACHE = 6
#: Loads at once when some of them hang.
_MOST_LOADERS = 16
_TURN_SECONDS = 1.0
#: A model is improved once it has answered this many calls (it costs a quarter of a second of processor time, which a
#: start of many endpoints does not have, and saves tens of microseconds a call); one of many only into memory that
#: nobody else needs.
_WORTH_IMPROVING = 128
#: What an improvement takes, as a multiple of the model's own bytes, before any was measured.
_IMPROVEMENT = 8.0
_TRIM_SECONDS = 0.5
#: Evicted models up to this many bytes in all, and a twentieth of the budget, are closed after the load that they made
#: room for, which its callers wait for; others before.
_CLOSED_LATER = 4 * 2**20
#: Physical memory is looked at again when so many bytes have been loaded.
_CHECKED = 2**20
#: A copy of an artifact up to this size is loaded first to keep a framework's one-time costs out of its measurement.
_REHEARSED = 16 * 2**20
_MOST_OVERHEAD = 256 * 2**20

log = logging.getLogger("serving.worker")


class Host(Protocol):
    """What a loader needs of its worker."""

    plan: WorkerPlan
    lock: threading.Lock
    room: threading.Condition
    lines: Lines
    cache: ModelCache
    cell: Cell
    registry: Registry
    baseline: memory.Held

    def on_loaded(self, entry: Entry, seconds: float) -> None: ...  # noqa: D102
    def on_load_failed(self, entry: Entry, error: ServingError) -> None: ...  # noqa: D102
    def on_closed(self, entry: Entry) -> None: ...  # noqa: D102
    def book(self) -> None: ...  # noqa: D102
    def tell(self, event: dict[str, object]) -> None: ...  # noqa: D102
    def take_slot(self) -> int: ...  # noqa: D102
    def free_slot(self, slot: int) -> None: ...  # noqa: D102


class Loader:
    """The worker's loading threads."""

    def __init__(self, host: Host) -> None:
        self._host = host
        plan = host.plan
        labels = (plan.endpoint, plan.variant)
        loaders = _LOADERS if plan.keep else _LOADERS_WITHOUT_CACHE
        self._crew = Crew("load", loaders, _MOST_LOADERS)
        self._closers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="close")
        self._chores = ThreadPoolExecutor(max_workers=1, thread_name_prefix="improve")
        self._turn = threading.Lock()
        self._turn_since = 0.0
        self._scales = memory.Scales()
        self._rehearsed: set[tuple[str, bool]] = set()
        self._improvement = _IMPROVEMENT
        self._estimates = Estimates(host.cache)
        self._threads = plan.threads
        self._unchecked = 0
        self._unclosed = 0
        self._trimmed_at = 0.0
        self._untrimmed = False
        self._disk = artifacts.ArtifactCache(Path(plan.cache_dir), plan.disk_budget)
        self._download = host.registry.histogram("sagemaker_model_download_seconds", *labels)
        self._load_time = host.registry.histogram("sagemaker_model_load_seconds", *labels)
        self._unload_time = host.registry.histogram("sagemaker_model_unload_seconds", *labels)
        self._failures = host.registry.counter("sagemaker_model_load_failures_total", *labels)
        self._evictions = host.registry.counter("sagemaker_model_evictions_total", *labels)

    # -- orders, given with the lock held ---------------------------------------------------------------------------

    def submit(self, entry: Entry) -> None:
        """Load a model soon; the host hears how it went."""
        self._crew.submit(self._load, entry)

    def release(self, entries: Iterable[Entry], asked: bool = False) -> None:
        """Close models soon that are already out of the books; the host hears when each is closed. ``asked``: somebody
        waits for their memory, so give it back at once."""
        self._host.room.notify_all()
        for entry in entries:
            self._unclosed += entry.bytes_was
            self._closers.submit(self._close_released, entry, asked)

    def consider(self, entry: Entry) -> None:
        """After each batch: hold the budget, if nothing could leave before; improve a model that has earned it."""
        cache = self._host.cache
        if not cache.fits(0):
            self.release(self._overflow())
        if entry.improved or entry.state != READY or entry.doomed or not isinstance(entry.model, TensorModel):
            return
        if entry.uses < _WORTH_IMPROVING:
            return
        if self._host.plan.multi_model and (not cache.keep or not cache.fits(int(entry.bytes * self._improvement))):
            return
        entry.improved = True
        cache.pin(entry)
        self._chores.submit(self._improve, entry, entry.model)

    def set_threads(self, threads: int) -> None:
        """Native threads for models loaded from now on, and for those in memory that can change."""
        self._threads = threads
        for entry in self._host.cache.ready():
            if entry.model is not None:
                self._chores.submit(entry.model.set_threads, threads)

    def set_budget(self, budget: float) -> None:
        """The worker's share of the memory has changed."""
        self._host.cache.budget = budget
        self.release(self._overflow())

    def tidy(self) -> None:
        """Once a second, without the lock: give back what the last closed models have left; let loads that hang not
        hold up the others."""
        self._crew.look()
        if self._untrimmed:
            self._trim()

    # -- on a loading thread ----------------------------------------------------------------------------------------

    def _load(self, entry: Entry) -> None:
        host = self._host
        victims: list[Entry] = []
        with host.lock:
            slot = host.take_slot()
        try:
            model, size, seconds = self._brought(entry, slot, victims)
        except BaseException as error:
            self._failed(entry, error)
        else:
            self._succeeded(entry, model, size, seconds)
        finally:
            host.cell.clear(slot)
            with host.lock:
                host.free_slot(slot)
                self.release(victims)

    def _brought(self, entry: Entry, slot: int, victims: list[Entry]) -> tuple[Model, int, float]:
        """Fetch, make room, load: the model, its bytes, the seconds its load took. What takes more than was guessed,
        when nothing else can leave, is closed again and waits for room of the right size. The worker's cell says
        LOADING but for the waiting: that must not look like a load that hangs. ``victims`` gets the evicted models that
        are still to be closed."""
        host = self._host
        host.cell.set(slot, LOADING, entry.key, time.monotonic())
        artifact = self._artifact(entry)
        for _ in range(2):
            host.cell.clear(slot)
            victims += self._make_room(entry, artifact)
            started = time.monotonic()
            host.cell.set(slot, LOADING, entry.key, started)
            model, size = self._measured(entry, artifact)
            if self._found_room(entry, size):
                return model, size, time.monotonic() - started
            self._discard(model)
            del model
        raise self._no_room(entry)

    def _succeeded(self, entry: Entry, model: Model, size: int, seconds: float) -> None:
        host = self._host
        with host.lock:
            host.cache.loaded(entry, model, size, seconds)
            self.release(self._overflow())
            self._load_time.observe(seconds)
            host.on_loaded(entry, seconds)
            if not host.plan.multi_model:
                self.consider(entry)
            self._unchecked += size
            look = host.plan.multi_model and self._unchecked > _CHECKED
            self._unchecked *= not look
        # From here on the callers are being answered: whatever this thread does keeps the interpreter from them.
        level = logging.DEBUG if host.plan.multi_model else logging.INFO
        log.log(level, "loaded %r: %s, %d bytes, %.0f ms", entry.name, model.engine, size, seconds * 1e3)
        if look:
            self._hold_resident()

    def _failed(self, entry: Entry, error: BaseException) -> None:
        if isinstance(error, ServingError):
            clean = error
        elif isinstance(error, MemoryError):
            clean = OutOfMemory(f"not enough memory to load model {entry.name!r}")
        else:
            log.error("loading %r failed", entry.name, exc_info=error)
            why = error.strerror if isinstance(error, OSError) else first_line(error)  # str() would name the path
            clean = LoadFailed(f"model {entry.name!r} cannot be loaded: {type(error).__name__}: {why}")
        self._unpin(entry)
        with self._host.lock:
            self._failures.add()
            self._host.cache.failed(entry, clean, time.monotonic())
            self._host.room.notify_all()
            self._host.on_load_failed(entry, clean)

    def _artifact(self, entry: Entry) -> Artifact:
        """Fetch and recognise what is to be loaded."""
        plan, began = self._host.plan, time.monotonic()
        location = Path(plan.location)
        path = artifacts.locate(location, entry.name) if plan.multi_model else location
        status = path.stat()
        entry.source = f"{path}:{status.st_mtime_ns}:{status.st_size}"
        fetched = self._disk.fetch(path)
        artifact = artifacts.recognise(fetched)
        artifacts.check_allowed(artifact, plan.allow_code)
        entry.format, entry.file = artifact.format, artifact.file
        if fetched != path:
            if artifact.format == "script":  # its code may open files of its folder at any time
                self._disk.pin(fetched)
                entry.pinned = fetched
            with self._host.lock:
                self._download.observe(time.monotonic() - began)
        return artifact

    def _make_room(self, entry: Entry, artifact: Artifact) -> list[Entry]:
        """Evict idle models until the guess fits, waiting for busy ones if need be; then reserve it. Returns evicted
        models that can be closed when the load is done: closed meanwhile, they would upset its measurement."""
        host = self._host
        cache, end = host.cache, time.monotonic() + host.plan.load_wait
        victims: list[Entry] = []
        with host.lock:
            guess = self._estimates.of(entry.source, artifact)
            if guess > cache.budget:
                raise self._too_large(entry, guess)
            while not cache.fits(guess):
                victim = cache.victim(self._wanted)
                if victim is not None:
                    self._journal(victim, "room for another model")
                    victims.append(victim)
                    continue
                self.release(victims)
                victims = []
                if not host.room.wait(end - time.monotonic()):
                    raise self._no_room(entry)
            cache.reserve(entry, guess)
            unclosed = self._unclosed + sum(victim.bytes_was for victim in victims)
        later = unclosed <= min(_CLOSED_LATER, cache.budget / 20)
        while victims and not later:
            self._close(victims.pop())
        return victims

    def _found_room(self, entry: Entry, size: int) -> bool:
        """The model is there and takes ``size``: evict for what that is over the guess. False when it must not stay."""
        cache = self._host.cache
        with self._host.lock:
            more = size > entry.bytes
            cache.reserve(entry, size)
            self.release(self._overflow())
            if cache.fits(0) or not more:
                return True
            cache.reserve(entry, 0)
            return False

    def _discard(self, model: Model) -> None:
        model.close()
        del model
        memory.give_back(collect=True)

    def _wanted(self, name: str) -> bool:
        """Do calls wait for this model's turn?"""
        line = self._host.lines.line(name)
        return line is not None and bool(line.calls)

    def _measured(self, entry: Entry, artifact: Artifact) -> tuple[Model, int]:
        """Load, and say how many bytes it took (the guess, if something else was going on at the same time)."""
        budget = self._host.cache.budget
        doubtful = artifact.bytes <= min(budget, _REHEARSED)  # calls in progress grow too, by more than a small model
        model, grown = self._weighed(entry, artifact)
        if grown is not None and grown > budget and doubtful:
            self._discard(model)
            model, grown = self._weighed(entry, artifact)
        if grown is None:
            return model, entry.bytes
        if grown > budget and doubtful:  # not learnt: it would be shut out for good
            self._discard(model)
            raise self._too_large(entry, grown)
        with self._host.lock:
            size = self._estimates.learn(entry.source, artifact, grown)
        if size > budget:
            self._discard(model)
            raise self._too_large(entry, size)
        return model, size

    def _weighed(self, entry: Entry, artifact: Artifact) -> tuple[Model, int | None]:
        """The loaded model, and by how much memory grew meanwhile; None where that would say nothing."""
        alone = self._turn.acquire(timeout=max(0.0, self._turn_since + _TURN_SECONDS - time.monotonic()))
        self._turn_since = time.monotonic() if alone else self._turn_since
        try:
            if alone and self._host.plan.multi_model:
                self._rehearse(artifact)
            weighing = self._scales.start(alone and self._estimates.worth_weighing(entry.source, artifact))
            try:
                model = self._built(artifact)
            finally:
                grown = weighing.stop()
        finally:
            if alone:
                self._turn.release()
        return model, grown

    def _built(self, artifact: Artifact) -> Model:
        plan = self._host.plan
        settings = LoadSettings(plan.allow_code, self._threads, plan.environment)
        model = runtimes.load_contained(artifact, settings, plan.repository)
        if not plan.multi_model:
            _warm(model)
        return model

    def _too_large(self, entry: Entry, size: int) -> OutOfMemory:
        budget = int(self._host.cache.budget)
        return OutOfMemory(f"model {entry.name!r} takes {size} bytes; this worker has {budget} for all its models")

    def _no_room(self, entry: Entry) -> ModelNotReady:
        return ModelNotReady(f"no memory for model {entry.name!r}: every loaded model is in use. Please try again.")

    def _rehearse(self, artifact: Artifact, improve: bool = False) -> None:
        """Once per kind: load, use and close a copy. Libraries, thread pools and registries that come with a first
        load are the worker's, not the model's: what is left of the copy counts to the baseline. Code is never run
        twice, and a large model's own bytes drown the difference."""
        step = (artifact.kind, improve)
        if step in self._rehearsed or artifact.executes_code or artifact.bytes > _REHEARSED:
            return
        before = memory.resident()
        try:
            copy = self._built(artifact)
            _warm(copy)
            if improve and isinstance(copy, TensorModel):
                copy.optimise()
            copy.close()
            del copy
        except Exception:
            return  # the load itself will say why
        self._rehearsed.add(step)
        memory.give_back()
        overhead = min(max(0, memory.resident() - before), _MOST_OVERHEAD)
        with self._host.lock:
            base = self._host.baseline
            self._host.baseline = memory.Held(base.resident + overhead, base.heap)
        first = artifact.algorithm or artifact.format
        log.info("the first %r model brought %d bytes of libraries with it", first, overhead)

    # -- what must go -----------------------------------------------------------------------------------------------

    def _overflow(self) -> list[Entry]:
        """With the lock held: idle models that must go because the books are over the budget."""
        cache, victims = self._host.cache, []
        while not cache.fits(0):
            victim = cache.victim(self._wanted)
            if victim is None:
                break
            self._journal(victim, "over the memory budget")
            victims.append(victim)
        return victims

    def _hold_resident(self) -> None:
        """The books are estimates; physical memory is the promise. Where it is above the allowance although free memory
        was given back, idle models go until their bytes make up for it."""
        cache = self._host.cache
        if self._excess() <= 0:
            return
        memory.give_back(collect=True)
        victims, excess = [], self._excess()
        with self._host.lock:
            while excess > 0 and cache.count > 1:
                victim = cache.victim(self._wanted)
                if victim is None:
                    break
                excess -= max(victim.bytes_was, 1)
                self._journal(victim, "physical memory over the budget")
                victims.append(victim)
        for victim in victims:
            self._close(victim)
        if victims:
            self._trim()

    def _excess(self) -> float:
        grown = memory.resident() - self._host.baseline.resident
        return grown - memory.allowance(self._host.cache.budget)

    def _journal(self, victim: Entry, why: str) -> None:
        self._evictions.add()
        event = {"ev": "evicted", "model": victim.name, "why": why, "bytes": victim.bytes_was}
        self._host.tell(event | {"reload_seconds": round(victim.load_seconds, 6), "uses": victim.uses})

    def _close(self, entry: Entry, asked: bool = False) -> None:
        """Free a model that is out of the books. ``asked``: give its pages back now, not within the next second."""
        began = time.monotonic()
        model, entry.model = entry.model, None
        if model is not None:
            weighing = self._scales.start(weigh=False)  # a load at the same time cannot be measured
            try:
                model.close()
            except Exception:
                log.exception("closing %r failed", entry.name)
            del model
            weighing.stop()
        self._unpin(entry)
        self._untrimmed = True
        if asked or began - self._trimmed_at > _TRIM_SECONDS:
            self._trim()
        with self._host.lock:
            self._unload_time.observe(time.monotonic() - began)
            self._host.book()
            self._host.on_closed(entry)

    def _close_released(self, entry: Entry, asked: bool) -> None:
        self._close(entry, asked)
        with self._host.lock:
            self._unclosed -= entry.bytes_was

    def _trim(self) -> None:
        self._untrimmed, self._trimmed_at = False, time.monotonic()
        memory.give_back()

    def _unpin(self, entry: Entry) -> None:
        pinned, entry.pinned = entry.pinned, None
        if pinned is not None:
            self._disk.unpin(pinned)

    # -- on the thread for chores -----------------------------------------------------------------------------------

    def _improve(self, entry: Entry, model: TensorModel) -> None:
        """Let the model look for a faster engine; count what that costs in memory."""
        host, grown = self._host, 0
        try:
            if host.plan.multi_model:
                self._rehearse(self._artifact(entry), improve=True)
            grown = self._improved(entry, model)
        except Exception:
            log.exception("model %r stays with its own engine", entry.name)
        with host.lock:
            host.cache.reserve(entry, entry.bytes + grown)
            if host.cache.unpin(entry, 0):
                self.release([entry])
            self.release(self._overflow())
            host.book()

    def _improved(self, entry: Entry, model: TensorModel) -> int:
        """Bytes the improvement took: measured, or by the last one that was when something else was going on."""
        weighing = self._scales.start()
        try:
            changed = model.optimise()
        finally:
            grown = weighing.stop()
        if changed:
            log.info("model %r now answers with %s", entry.name, model.engine)
        if grown is None:
            return int(entry.bytes * self._improvement) if changed else 0
        if changed and entry.bytes:
            self._improvement = grown / entry.bytes
        return grown


def _warm(model: Model) -> None:
    """One prediction on zeros, so that the first caller does not pay for first-use work of the framework."""
    if not isinstance(model, TensorModel) or len(model.spec.tensors) != 1:
        return
    shape = [1, *model.spec.tensors[0].shape[1:]]
    dtype = model.spec.tensors[0].dtype
    if None in shape or dtype == "str" or np.prod([size or 0 for size in shape]) > 10**7:
        return
    try:
        model.predict(np.zeros([size or 0 for size in shape], dtype))
    except Exception as error:
        log.debug("warming with zeros was refused: %s", error)
