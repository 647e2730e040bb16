"""What memory this process really holds, and giving it back.

Resident-set growth alone misreads a load into space an evicted model left behind (growth 0), so the heap's own books
are read too and the larger of the two counts.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PAGE = mmap.PAGESIZE
#: Bytes beside the models: request bodies, thread stacks, what the allocator keeps for reuse.
SLACK = 32 * 2**20
_KEPT = 2**20


#: The C library's ``struct mallinfo2``, field by field.
_BOOKS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _MallInfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _BOOKS.split()]


def _glibc(name: str) -> ctypes._CFuncPtr | None:  # type: ignore[name-defined]  # ctypes has no public name for it
    return getattr(ctypes.CDLL(None), name, None)


_mallinfo2 = _glibc("mallinfo2")
if _mallinfo2 is not None:
    _mallinfo2.restype = _MallInfo2
_malloc_trim = _glibc("malloc_trim")


class Held(NamedTuple):
    """Bytes: ``resident`` in physical memory, ``heap`` handed out by malloc (0 where the C library cannot say)."""

    resident: int
    heap: int


def resident() -> int:
    """Bytes of this process in physical memory. 5 µs."""
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(statm, 256).split()[1]) * _PAGE
    finally:
        os.close(statm)


def held() -> Held:
    """This process now. 10 µs in a tidy heap, 2 ms in one of a hundred thousand free pieces: the C library counts them
    all, and nobody can allocate meanwhile."""
    if _mallinfo2 is None:
        return Held(resident(), 0)
    info = _mallinfo2()
    return Held(resident(), info.uordblks + info.hblkhd)


def growth(before: Held, after: Held) -> int:
    """Bytes a load took: the larger of what physical memory and the heap's books say, at least 0."""
    return max(after.resident - before.resident, after.heap - before.heap, 0)


class Weighing:
    """One piece of work on the scales; ``stop`` is called once."""

    def __init__(self, scales: Scales, number: int, alone: bool, before: Held | None) -> None:
        self._scales = scales
        self._number = number
        self._alone = alone
        self._before = before

    def stop(self) -> int | None:
        """Bytes the work took; None when other work overlapped it, or it was not to be weighed. What it freed again but
        the allocator has kept is given back first."""
        if self._before is None:
            self._scales._stopped(self._number)
            return None
        after = held()
        if growth(self._before, after) > after.heap - self._before.heap + _KEPT:
            give_back()
            after = held()
        undisturbed = self._scales._stopped(self._number)
        return growth(self._before, after) if self._alone and undisturbed else None


class Scales:
    """Measures what a piece of work takes in memory. When two pieces overlap nobody can tell whose bytes are whose."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._started = 0

    def start(self, weigh: bool = True) -> Weighing:
        """Begin a piece of work. ``weigh`` False: it is only to be known that it happens."""
        with self._lock:
            self._running += 1
            self._started += 1
            return Weighing(self, self._started, self._running == 1, held() if weigh else None)

    def _stopped(self, number: int) -> bool:
        with self._lock:
            self._running -= 1
            return self._started == number


def allowance(budget: float) -> float:
    """How much more than at its start a worker with ``budget`` bytes of models may hold before models must leave."""
    return budget * 1.1 + SLACK


def give_back(collect: bool = False) -> None:
    """Return freed pages to the system; with ``collect``, break Python's reference cycles first."""
    if collect:
        gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)


def quiet_collector() -> None:
    """Leave what start-up made out of every collection, and collect less often: a call makes a dozen short-lived
    objects and no cycle, so the default (every 700 allocations) is work for nothing on the invocation path."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def cap(limit: int) -> None:
    """Refuse this process more than ``limit`` bytes of private writable memory beyond what it has: an allocation beyond
    it fails in the process that asked (MemoryError, bad_alloc) before the machine runs out. And should the machine run
    out all the same, the system is asked to end this process rather than its parents."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit += data()
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def data() -> int:
    """Private writable memory mapped now, bytes: what ``cap`` limits. 50 µs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
