"""What workers take of the machine: processor time and memory, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from serving.watch.metrics import Registry

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: A worker that takes less than this of a processor is looked at that seldom; the seconds are spread by its pid.
_QUIET, _SELDOM, _SPREAD = 0.02, 4.0, 3

Labels = tuple[str, str]


class Usage(NamedTuple):
    """Of one process: processor seconds since it began, resident bytes."""

    cpu: float
    memory: int


class _Seen(NamedTuple):
    usage: Usage
    at: float
    next: float


def usage(pid: int) -> Usage | None:
    """Of a process as it stands; None = it has ended. 13 microseconds."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = os.read(file, 1024).rpartition(b")")[2].split()
        finally:
            os.close(file)
        return Usage((int(words[11]) + int(words[12])) / _TICKS_A_SECOND, int(words[21]) * _PAGE)
    except (OSError, IndexError, ValueError):
        return None


class UsageMetrics:
    """Counts it by variant: looked at every second, in workers that do nothing every few."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._seen: dict[int, _Seen] = {}
        self._told: set[Labels] = set()

    def look(self, workers: Iterable[tuple[Labels, int]], now: float) -> None:
        """These workers (labels, pid) are there now."""
        seen: dict[int, _Seen] = {}
        bytes_of = dict.fromkeys(self._told, 0)
        for labels, pid in workers:
            known = self._look_at(labels, pid, now)
            if known is not None:
                seen[pid] = known
                bytes_of[labels] = bytes_of.get(labels, 0) + known.usage.memory
        for labels, size in bytes_of.items():
            self._registry.counter("sagemaker_worker_memory_bytes", *labels).set(size)
        self._seen, self._told = seen, {labels for labels, size in bytes_of.items() if size}

    def _look_at(self, labels: Labels, pid: int, now: float) -> _Seen | None:
        known = self._seen.get(pid)
        if known is not None and now < known.next:
            return known
        found = usage(pid)
        if found is None:
            return None
        before, then = (known.usage.cpu, known.at) if known else (0.0, now - _SELDOM)
        spent = found.cpu - before
        self._registry.counter("sagemaker_worker_cpu_seconds_total", *labels).add(spent)
        quiet = spent < _QUIET * (now - then)
        return _Seen(found, now, now + _SELDOM + pid % _SPREAD if quiet else now)
