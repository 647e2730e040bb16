"""What the machine has left for more workers, and who gets it (``scaling/machine.py``)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from serving.config import usable_cores, usable_memory
from serving.fleet.changing import Change, Changes
from serving.fleet.scaled import Scaled
from serving.scaling import machine
from serving.scaling.values import Decision, Resource
from serving.workers.supervisor import Supervisor

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Of a worker that nothing is known of yet.
USUAL_BYTES = 64 * 2**20
#: That there is no room is told again so late.
_TOLD_AGAIN_SECONDS = 600.0


class Room:
    """Shares out the machine."""

    def __init__(self, supervisor: Supervisor, changes: Changes) -> None:
        self._supervisor = supervisor
        self._settings = supervisor.settings
        self._changes = changes
        self._told: dict[Resource, float] = {}

    def keep(self, resources: Collection[Resource]) -> None:
        """Forget all others."""
        self._told = {one: at for one, at in self._told.items() if one in resources}

    def granted(self, decisions: Sequence[Decision], scaled: Mapping[Resource, Scaled]) -> list[Change]:
        """What is decided, as far as there is room for it."""
        desired = {decision.resource: decision.desired for decision in decisions}
        if all(decision.desired <= decision.current for decision in decisions):
            return [Change(one.resource, one.desired, one.cause) for one in decisions]
        wishes = [self._wish(one, desired.get(one.target.resource)) for one in scaled.values()]
        has = self.left()
        cores, free = has["Cores"], has["MemoryFreeBytes"]
        granted = machine.grant(wishes, cores, free, has["MostExtraWorkers"])
        shortage = f"This machine has no room for more workers ({cores} cores, {free // 2**20} MiB of memory left)."
        changes = []
        for one in decisions:
            gets = granted.get(one.resource, one.desired)
            short = shortage if gets < one.desired else ""
            if gets != one.current or not self._told_lately(one.resource):
                changes.append(Change(one.resource, gets, one.cause, one.desired, short))
            if short:
                self._told[one.resource] = time.monotonic()
        return changes

    def left(self) -> dict[str, int]:
        """What there is for workers: cores, bytes of memory that are left, workers beyond all minimums."""
        pids = [worker.pid for fleet in self._supervisor.fleets.values() for worker in fleet.live() if worker.pid]
        cores = usable_cores()
        most = self._settings.most_workers or machine.PER_CORE * cores
        return {"Cores": cores, "MemoryFreeBytes": free_bytes(pids), "MostExtraWorkers": most}

    def _wish(self, one: Scaled, desired: int | None) -> machine.Wish:
        """What a target asks of the machine; None = what it has. The first worker of what has none is a promise, as its
        minimum is: a call waits for it."""
        resource, has = one.target.resource, one.count or 0
        if desired is None:
            return machine.Wish(resource, has, has, one.target.minimum, USUAL_BYTES)
        minimum = max(one.target.minimum, min(1, desired))
        return machine.Wish(resource, has, desired, minimum, self._bytes(resource))

    def _told_lately(self, resource: Resource) -> bool:
        """Has an activity said of late that the machine has no room for more?"""
        return time.monotonic() - self._told.get(resource, -math.inf) < _TOLD_AGAIN_SECONDS

    def _bytes(self, resource: Resource) -> int:
        """What one more worker takes: as much as the largest there is."""
        workers = [worker for key in self._changes.keys(resource) for worker in self._supervisor.fleets[key].live()]
        return max((own_bytes(worker.pid) for worker in workers if worker.pid), default=0) or USUAL_BYTES


# --- as Linux tells it ------------------------------------------------------------------------------------------------


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
