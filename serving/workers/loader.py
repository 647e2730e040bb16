"""Loading, releasing and improving models, on threads beside the invocation path.

One load at a time is measured (resident growth means nothing when two overlap); a load that has to wait more than a
second for its turn goes ahead unmeasured, on its guess, so that one slow artifact cannot hold up the others.
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
from serving.workers.cells import LOADING, Cell
from serving.workers.model_cache import Entry, ModelCache
from serving.workers.pipeline import first_line
from serving.workers.plan import WorkerPlan

_LOADERS = 3
_TURN_SECONDS = 1.0
#: A model of many is improved once it has answered this many calls; a single model at once.
_WORTH_IMPROVING = 64
_TRIM_SECONDS = 0.5

log = logging.getLogger("serving.worker")


class Host(Protocol):
    """What a loader needs of its worker."""

    plan: WorkerPlan
    lock: threading.Lock
    room: threading.Condition
    cache: ModelCache
    cell: Cell
    registry: Registry
    baseline: memory.Held

    def on_loaded(self, entry: Entry, seconds: float) -> None: ...  # noqa: D102
    def on_load_failed(self, entry: Entry, error: ServingError) -> None: ...  # noqa: D102
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
        self._pool = ThreadPoolExecutor(max_workers=_LOADERS, thread_name_prefix="load")
        self._turn = threading.Lock()
        self._threads = plan.threads
        self._last_trim = 0.0
        self._disk = artifacts.ArtifactCache(Path(plan.cache_dir), plan.disk_budget)
        self._download = host.registry.histogram("sagemaker_model_download_seconds", *labels)
        self._load_time = host.registry.histogram("sagemaker_model_load_seconds", *labels)
        self._unload_time = host.registry.histogram("sagemaker_model_unload_seconds", *labels)
        self._failures = host.registry.counter("sagemaker_model_load_failures_total", *labels)
        self._evictions = host.registry.counter("sagemaker_model_evictions_total", *labels)

    def submit(self, entry: Entry) -> None:
        """Load a model soon; the host hears how it went. Called with the lock held."""
        self._pool.submit(self._load, entry)

    def release(self, entries: Iterable[Entry]) -> None:
        """Close models soon. Called with the lock held, for entries already out of the books."""
        for entry in entries:
            self._pool.submit(self._close, entry)

    def consider(self, entry: Entry) -> None:
        """Improve a model once it has earned it. Called with the lock held, after each batch."""
        if entry.improved or (self._host.plan.multi_model and entry.uses < _WORTH_IMPROVING):
            return
        entry.improved = True
        if isinstance(entry.model, TensorModel):
            self._host.cache.pin(entry)
            self._pool.submit(self._improve, entry, entry.model)

    def set_threads(self, threads: int) -> None:
        """Native threads for models loaded from now on, and for those in memory that can change."""
        self._threads = threads
        for entry in self._host.cache.ready():
            if entry.model is not None:
                self._pool.submit(entry.model.set_threads, threads)

    # -- on a loading thread --------------------------------------------------------------------------------------

    def _load(self, entry: Entry) -> None:
        host, began = self._host, time.monotonic()
        with host.lock:
            slot = host.take_slot()
        host.cell.set(slot, LOADING, entry.key, began)
        try:
            artifact = self._artifact(entry)
            self._make_room(entry, artifact)
            started = time.monotonic()
            model, size = self._measured(entry, artifact)
        except BaseException as error:
            self._failed(entry, error)
        else:
            seconds = time.monotonic() - started
            with host.lock:
                host.cache.loaded(entry, model, size, seconds)
                victims = self._overflow()
                self._load_time.observe(seconds)
                host.on_loaded(entry, seconds)
                self.consider(entry)
            for victim in victims:
                self._close(victim)
            log.info("loaded %r: %s, %d bytes, %.0f ms", entry.name, model.engine, size, seconds * 1e3)
        finally:
            host.cell.clear(slot)
            with host.lock:
                host.free_slot(slot)

    def _failed(self, entry: Entry, error: BaseException) -> None:
        if isinstance(error, ServingError):
            clean = error
        elif isinstance(error, MemoryError):
            clean = OutOfMemory(f"not enough memory to load model {entry.name!r}")
        else:
            log.error("loading %r failed", entry.name, exc_info=error)
            clean = LoadFailed(f"model {entry.name!r} cannot be loaded: {type(error).__name__}: {first_line(error)}")
        with self._host.lock:
            self._failures.add()
            self._host.cache.failed(entry, clean, time.monotonic())
            self._host.on_load_failed(entry, clean)

    def _artifact(self, entry: Entry) -> Artifact:
        """Fetch and recognise what is to be loaded."""
        plan, began = self._host.plan, time.monotonic()
        location = Path(plan.location)
        path = artifacts.locate(location, entry.name) if plan.multi_model else location
        status = path.stat()
        entry.source = f"{path}:{status.st_mtime_ns}:{status.st_size}"
        fetched = self._disk.fetch(path)
        if fetched != path:
            self._download.observe(time.monotonic() - began)
        artifact = artifacts.recognise(fetched)
        artifacts.check_allowed(artifact, plan.allow_code)
        return artifact

    def _make_room(self, entry: Entry, artifact: Artifact) -> None:
        """Evict idle models until the guess fits, waiting for busy ones if need be; then reserve it."""
        host = self._host
        cache, patience = host.cache, time.monotonic() + host.plan.load_wait
        victims: list[Entry] = []
        with host.lock:
            guess = cache.guess(entry.source, artifact.bytes)
            if guess > cache.budget:
                raise OutOfMemory(
                    f"model {entry.name!r} needs {guess} bytes; this worker has {int(cache.budget)} for all its models"
                )
            while not cache.fits(guess):
                victim = cache.victim()
                if victim is not None:
                    self._journal(victim, "room for another model")
                    victims.append(victim)
                elif not host.room.wait(patience - time.monotonic()):
                    raise ModelNotReady(f"no memory for model {entry.name!r}: every loaded model is in use")
            cache.reserve(entry, guess)
        for victim in victims:
            self._close(victim)

    def _measured(self, entry: Entry, artifact: Artifact) -> tuple[Model, int]:
        """Load, and say how many bytes it took (the guess, if it could not be measured alone)."""
        host = self._host
        alone = self._turn.acquire(timeout=_TURN_SECONDS)
        try:
            before = memory.held()
            settings = LoadSettings(host.plan.allow_code, self._threads, host.plan.environment)
            model = runtimes.load(artifact, settings)
            if not host.plan.multi_model:
                _warm(model)
            size = memory.growth(before, memory.held()) if alone else entry.bytes
        finally:
            if alone:
                self._turn.release()
        if size > host.cache.budget:
            model.close()
            memory.give_back(collect=True)
            raise OutOfMemory(
                f"model {entry.name!r} takes {size} bytes; this worker has {int(host.cache.budget)} for all its models"
            )
        return model, size

    def _overflow(self) -> list[Entry]:
        """With the lock held: what must go because a load took more than guessed, or the system counts more than we."""
        cache, victims = self._host.cache, []
        excess = memory.held().resident - self._host.baseline.resident - cache.budget
        while not cache.fits(0) or (excess > 0 and len(cache.ready()) > 1):
            victim = cache.victim()
            if victim is None:
                break
            excess -= max(victim.bytes_was, 1)
            self._journal(victim, "over the memory budget")
            victims.append(victim)
        return victims

    def _journal(self, victim: Entry, why: str) -> None:
        self._evictions.add()
        event = {"ev": "evicted", "model": victim.name, "why": why, "bytes": victim.bytes_was}
        self._host.tell(event | {"reload_seconds": round(victim.load_seconds, 6), "uses": victim.uses})

    def _close(self, entry: Entry) -> None:
        began = time.monotonic()
        model, entry.model = entry.model, None
        if model is not None:
            try:
                model.close()
            except Exception:
                log.exception("closing %r failed", entry.name)
        del model
        if began - self._last_trim > _TRIM_SECONDS:
            self._last_trim = began
            memory.give_back()
        self._unload_time.observe(time.monotonic() - began)
        with self._host.lock:
            self._host.book()

    def _improve(self, entry: Entry, model: TensorModel) -> None:
        """Let the model look for a faster engine; count what that costs in memory."""
        host = self._host
        try:
            with self._turn:
                before = memory.held()
                if model.optimise():
                    log.info("model %r now answers with %s", entry.name, model.engine)
                grown = memory.growth(before, memory.held())
        except Exception:
            log.exception("model %r stays with its own engine", entry.name)
            grown = 0
        with host.lock:
            host.cache.reserve(entry, entry.bytes + grown)
            if host.cache.unpin(entry, 0):
                self.release([entry])
            for victim in self._overflow():
                self.release([victim])
            host.book()


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
