"""What the machine has left for more workers, as Linux tells it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from serving.config import usable_memory

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Of a worker that nothing is known of yet.
USUAL_BYTES = 64 * 2**20


def own_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Memory that a process shares with no other, such as the forkserver it comes from; 0 when it has ended."""
    try:
        words = (proc / str(pid) / "statm").read_text().split()
        return max(int(words[1]) - int(words[2]), 0) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def free_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Memory for more workers: what the machine has available, and what those of ``pids`` leave of what this container
    may use."""
    left = usable_memory() - sum(own_bytes(pid, proc) for pid in pids)
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        available = left
    return max(min(left, available), 0)
