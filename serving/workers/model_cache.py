"""Which models a worker holds: least recently used first out, bounded by measured bytes. Decides; loads nothing.

::

    ABSENT ──want──► LOADING ──loaded──► READY ──evict/unload──► ABSENT
                        └────failed────► FAILED (until retry_at) ──want──► LOADING

The order is that of the last batch's end, and a model in use is never taken (``behaviour/01``: LRU by last invocation
completion, pinned while in flight or loading).
All methods are called under the worker's lock; ``now`` is monotonic seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cachetools import LRUCache

from serving.errors import ServingError
from serving.runtimes.base import Model
from serving.workers.cells import model_key

LOADING, READY, FAILED = "LOADING", "READY", "FAILED"
_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0


@dataclass(slots=True, eq=False)
class Entry:
    """One model. ``bytes`` is the reservation while it loads, the measurement after (``bytes_was``, once it
    has left); ``pins`` count batches in it; ``cost`` is a call's share of a batch of late, in seconds; ``key`` its name
    in the worker's cell; ``source`` names its artifact's exact version."""

    name: str
    state: str
    bytes: int = 0
    model: Model | None = None
    error: ServingError | None = None
    failures: int = 0
    retry_at: float = 0.0
    pins: int = 0
    load_seconds: float = 0.0
    uses: int = 0
    doomed: bool = False
    improved: bool = False
    cost: float = 0.0
    key: int = 0
    source: str = ""
    bytes_was: int = 0


class ModelCache:
    """The books of one worker's models."""

    def __init__(self, budget: float = math.inf, keep: bool = True) -> None:
        """``budget`` bytes for all models; ``keep`` False unloads a model after each use (ModelCacheSetting)."""
        self.budget = budget
        self.keep = keep
        self.used = 0
        self._entries: dict[str, Entry] = {}
        self._order: LRUCache[str, Entry] = LRUCache(maxsize=math.inf)
        self._measured: LRUCache[str, int] = LRUCache(maxsize=100_000)

    def get(self, name: str) -> Entry | None:
        """The entry, whatever its state."""
        return self._entries.get(name)

    def want(self, name: str, now: float) -> tuple[Entry, bool]:
        """The entry of a wanted model, and whether the caller must start its load (exactly one caller is told so)."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = Entry(name, LOADING, key=model_key(name))
            return entry, True
        if entry.state == FAILED and now >= entry.retry_at:
            entry.state = LOADING
            return entry, True
        return entry, False

    def guess(self, source: str, size_on_disk: int) -> int:
        """Bytes an artifact will take: what it took last time, else its size on disk."""
        return int(self._measured.get(source, size_on_disk))

    def fits(self, size: int) -> bool:
        """Would ``size`` more bytes stay within the budget?"""
        return self.used + size <= self.budget

    def victim(self) -> Entry | None:
        """Take the least recently used idle model out of the books; None when every model is in use."""
        passed: list[Entry] = []
        victim = None
        while self._order and victim is None:
            entry = self._order.popitem()[1]
            if entry.pins:
                passed.append(entry)
            else:
                victim = entry
        for entry in passed:  # in use: they will be the most recent anyway
            self._order[entry.name] = entry
        if victim is not None:
            self._forget(victim)
        return victim

    def reserve(self, entry: Entry, size: int) -> None:
        """Count ``size`` bytes for a load that begins now."""
        self.used += size - entry.bytes
        entry.bytes = size

    def loaded(self, entry: Entry, model: Model, size: int, seconds: float) -> None:
        """The load has ended well and took ``size`` bytes."""
        self.reserve(entry, size)
        if entry.source:
            self._measured[entry.source] = size
        entry.state, entry.model, entry.error, entry.failures = READY, model, None, 0
        entry.load_seconds = seconds
        self._order[entry.name] = entry

    def failed(self, entry: Entry, error: ServingError, now: float) -> None:
        """The load has failed: the error is everybody's until ``retry_at`` (1 s, doubling to 60 s)."""
        self.reserve(entry, 0)
        entry.state, entry.error, entry.model = FAILED, error, None
        entry.retry_at = now + min(_FIRST_BACKOFF * 2**entry.failures, _LONGEST_BACKOFF)
        entry.failures += 1

    def pin(self, entry: Entry) -> None:
        """A batch begins."""
        entry.pins += 1

    def unpin(self, entry: Entry, calls: int) -> bool:
        """A batch of ``calls`` has ended. True when the model is to be unloaded now."""
        entry.pins -= 1
        entry.uses += calls
        if entry.pins:
            return False
        if entry.doomed or not self.keep:
            self._forget(entry)
            return True
        if self.budget != math.inf:
            self._order.get(entry.name)  # a look makes it the most recent
        return False

    def unload(self, name: str) -> Entry | None:
        """Take a READY model out on request: returned if it is idle; if it is in use it goes after its last batch."""
        entry = self._entries.get(name)
        if entry is None or entry.state != READY:
            return None
        if entry.pins:
            entry.doomed = True
            return None
        self._forget(entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.name) is entry:
            del self._entries[entry.name]
            self._order.pop(entry.name, None)
        self.used -= entry.bytes
        entry.bytes_was, entry.bytes = entry.bytes, 0

    def ready(self) -> list[Entry]:
        """The models in memory."""
        return [entry for entry in self._entries.values() if entry.state == READY]
