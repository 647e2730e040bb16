"""What memory this process really holds, and giving it back.

Resident-set growth alone misreads a load into space an evicted model left behind (growth 0), so the heap's own books
are read too and the larger of the two counts.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import resource
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PAGE = mmap.PAGESIZE
_STATM = Path("/proc/self/statm")


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


def held() -> Held:
    """This process now. 10-100 µs."""
    resident = int(_STATM.read_text().split()[1]) * _PAGE
    if _mallinfo2 is None:
        return Held(resident, 0)
    info = _mallinfo2()
    return Held(resident, info.uordblks + info.hblkhd)


def growth(before: Held, after: Held) -> int:
    """Bytes a load took: the larger of what physical memory and the heap's books say, at least 0."""
    return max(after.resident - before.resident, after.heap - before.heap, 0)


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
    limit += _data_bytes()
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _data_bytes() -> int:
    """Private writable memory mapped now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
