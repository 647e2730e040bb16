"""Which models a worker holds: least recently used first out, bounded by measured bytes. Decides; loads nothing.

::

    ABSENT ──want──► LOADING ──loaded──► READY ──evict/unload──► ABSENT
      ▲                 ├────failed────► FAILED (until retry_at) ──want──► LOADING
      └─── nothing ─────┘

The order is that of the last batch's end, and a model in use is never taken (``behaviour/01``: LRU by last invocation
completion, pinned while in flight or loading).
All methods are called under the worker's lock; ``now`` is monotonic seconds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cachetools import LRUCache

from serving.errors import ModelNotReady, RequestRefused, ServingError
from serving.runtimes.base import Model
from serving.workers.batcher import Pace
from serving.workers.cells import model_key

ABSENT, LOADING, READY, FAILED = "ABSENT", "LOADING", "READY", "FAILED"
_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0
#: Failures remembered at once: a folder may hold any number of damaged artifacts.
_MOST_FAILURES = 10_000
#: What is over at the next call if it is over at all: no such artifact (one may be put there), no room just now.
_NOT_REMEMBERED = (RequestRefused, ModelNotReady)


@dataclass(slots=True, eq=False)
class Entry:
    """One model. ``bytes`` is the reservation while it loads, the measurement after (``bytes_was``, once it
    has left); ``pins`` count batches in it; ``pace`` is what its calls have cost of late; ``key`` its name
    in the worker's cell; ``source`` names its artifact's exact version, ``format`` and ``file`` what it was loaded
    from; ``pinned`` is the folder on disk that must stay while the model lives."""

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
    pace: Pace = field(default_factory=Pace)
    key: int = 0
    source: str = ""
    format: str = ""
    file: Path | None = None
    bytes_was: int = 0
    pinned: Path | None = None


class ModelCache:
    """The books of one worker's models: ``used`` is the sum of the entries' bytes."""

    def __init__(self, budget: float = math.inf, keep: bool = True) -> None:
        """``budget`` bytes for all models; ``keep`` False unloads a model after each use (ModelCacheSetting)."""
        self.budget = budget
        self.keep = keep
        self.used = 0
        self._entries: dict[str, Entry] = {}
        self._order: OrderedDict[str, Entry] = OrderedDict()
        self._loading: dict[str, Entry] = {}
        self._failed: OrderedDict[str, Entry] = OrderedDict()
        self._measured: LRUCache[str, int] = LRUCache(maxsize=100_000)

    def get(self, name: str) -> Entry | None:
        """The entry, whatever its state."""
        return self._entries.get(name)

    def want(self, name: str, now: float) -> tuple[Entry, bool]:
        """The entry of a wanted model, and whether the caller must start its load (exactly one caller is told so)."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = self._loading[name] = Entry(name, LOADING, key=model_key(name))
            return entry, True
        if entry.state == FAILED and now >= entry.retry_at:
            entry.state = LOADING
            self._loading[name] = self._failed.pop(name)
            return entry, True
        return entry, False

    def guess(self, source: str, size_on_disk: int) -> int:
        """Bytes an artifact will take: what it took last time, else its size on disk."""
        return int(self._measured.get(source, size_on_disk))

    def knows(self, source: str) -> bool:
        """Has this version been measured?"""
        return source in self._measured

    def measured(self, source: str, size: int) -> None:
        """This version of an artifact takes ``size`` bytes, whether or not they fit."""
        self._measured[source] = size

    def fits(self, size: int) -> bool:
        """Would ``size`` more bytes stay within the budget?"""
        return self.used + size <= self.budget

    def victim(self, spared: Callable[[str], bool] = lambda _: False) -> Entry | None:
        """Take the least recently used idle model that is not ``spared`` (calls wait for it) out of the books; None
        when every model is in use."""
        free = (entry for name, entry in self._order.items() if not entry.pins and not spared(name))
        entry = next(free, None)
        if entry is not None:
            self._forget(entry)
        return entry

    def reserve(self, entry: Entry, size: int) -> None:
        """Count ``size`` bytes for an entry: its load begins now, or it turned out to take another amount."""
        self.used += size - entry.bytes
        entry.bytes = size

    def loaded(self, entry: Entry, model: Model, size: int, seconds: float) -> None:
        """The load has ended well and took ``size`` bytes."""
        self.reserve(entry, size)
        del self._loading[entry.name]
        entry.state, entry.model, entry.error, entry.failures = READY, model, None, 0
        entry.load_seconds = seconds
        self._order[entry.name] = entry

    def failed(self, entry: Entry, error: ServingError, now: float) -> None:
        """The load has failed: the error is everybody's until ``retry_at`` (1 s, doubling to 60 s), unless it says that
        there was nothing to load, or no room: then the next call tries again."""
        self.reserve(entry, 0)
        del self._loading[entry.name]
        if isinstance(error, _NOT_REMEMBERED):
            self._forget(entry)
            return
        entry.state, entry.error, entry.model = FAILED, error, None
        entry.retry_at = now + min(_FIRST_BACKOFF * 2 ** min(entry.failures, 30), _LONGEST_BACKOFF)
        entry.failures += 1
        self._failed[entry.name] = entry
        if len(self._failed) > _MOST_FAILURES:
            self._forget(next(iter(self._failed.values())))

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
        self._order.move_to_end(entry.name)
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
        del self._entries[entry.name]
        self._order.pop(entry.name, None)
        self._failed.pop(entry.name, None)
        self.used -= entry.bytes
        entry.state, entry.bytes_was, entry.bytes = ABSENT, entry.bytes, 0

    def ready(self, name: str = "") -> list[Entry]:
        """The models in memory: all of them, or the one of this name."""
        if name:
            entry = self._entries.get(name)
            return [entry] if entry is not None and entry.state == READY else []
        return list(self._order.values())

    @property
    def count(self) -> int:
        """How many models are in memory."""
        return len(self._order)

    def loading(self) -> list[str]:
        """Names of the models whose load was asked for and has not ended."""
        return list(self._loading)
