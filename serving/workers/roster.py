"""The workers there are and those there should be, as plain values, and what follows from them. Decides; starts and
ends nothing (``supervisor.py`` does)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass, field

from serving.types import FleetSpec
from serving.workers import cells
from serving.workers.plan import WorkerPlan
from serving.workers.quarantine import Quarantine, self_inflicted

#: GONE: its control channel has ended, its process perhaps not yet.
STARTING, READY, DRAINING, GONE = "STARTING", "READY", "DRAINING", "GONE"
#: A worker that lived this long before it died is replaced at once; quicker deaths back off.
HEALTHY_SECONDS = 5.0
MOST_FAILED_STARTS = 8
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 10.0
#: Stalled workers that may be replaced at once, beyond one for each that there should be.
_MOST_STALLED = 2


@dataclass(eq=False, slots=True)
class WorkerHandle:
    """One worker as the supervisor sees it. ``condemned``: the models it is ended for; ``leaving``: it goes when its
    successor is ready; ``stalled``: a model holds its interpreter lock; ``dismissed``: we have ended it;
    ``idle_until``: what it may have begun since it was last looked at cannot be overdue before."""

    plan: WorkerPlan
    state: str = STARTING
    pid: int = 0
    writer: asyncio.StreamWriter | None = None
    ready_at: float = 0.0
    gone_at: float = 0.0
    condemned: frozenset[int] = frozenset()
    leaving: bool = False
    stalled: bool = False
    dismissed: bool = False
    drained_version: int = 0
    kill_at: float = 0.0
    ended: bool = False
    engine: str = ""
    bytes: int = 0
    idle_until: float = 0.0
    cell: cells.Reader | None = None

    def reading(self) -> cells.Reading:
        """Its cell as it stands; empty before it has made one."""
        if self.cell is None and self.plan.cell.exists():
            self.cell = cells.Reader(self.plan.cell)
        return self.cell.read() if self.cell is not None else cells.Reading([])

    def forget_cell(self) -> None:
        """It is read no more."""
        if self.cell is not None:
            self.cell.close()

    def order(self, **message: object) -> None:
        """Send it one order; a dead worker does not mind."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


@dataclass(eq=False, slots=True)
class Fleet:
    """Workers that are alike: how many there should be and those there are."""

    spec: FleetSpec
    location: str
    frameworks: frozenset[str]
    desired: int
    workers: dict[str, WorkerHandle] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    failed_starts: int = 0
    next_start: float = 0.0
    failure: str = ""

    @property
    def given_up(self) -> bool:
        """Start failures have used up the patience; nothing more is tried until the variant changes."""
        return self.failed_starts >= MOST_FAILED_STARTS

    def live(self) -> list[WorkerHandle]:
        """Workers that are or will be taking calls."""
        return [worker for worker in self.workers.values() if worker.state != DRAINING]

    def staying(self) -> list[WorkerHandle]:
        """Live workers, oldest first, without those that leave as soon as they are replaced and those that stand
        still: another stands in for such a one, and goes again when it turns on."""
        return [worker for worker in self.live() if not (worker.leaving or worker.stalled)]

    def settled(self) -> bool:
        """Has it just the workers it should have, all of them fit?"""
        if len(self.workers) != self.desired:
            return False
        return all(one.state == READY and not (one.leaving or one.stalled) for one in self.workers.values())

    def may_stall(self) -> bool:
        """May one more worker be taken for stalled, and be replaced?"""
        return sum(worker.stalled for worker in self.workers.values()) < self.desired + _MOST_STALLED

    def start_failed(self, now: float) -> None:
        """A start has failed: the next one waits longer, and after enough of them there is none."""
        self.failed_starts += 1
        self.next_start = now + backoff(self.failed_starts)
        if self.given_up:
            self.failure = self.failure or f"its worker failed to start {self.failed_starts} times in a row"

    def start_over(self) -> None:
        """What failed before counts no longer."""
        self.failed_starts, self.next_start, self.failure = 0, 0.0, ""


def backoff(failed_starts: int) -> float:
    """Seconds to wait before the next start after so many failures in a row."""
    return min(_FIRST_BACKOFF * 2.0 ** min(failed_starts - 1, 30), _LONGEST_BACKOFF) if failed_starts else 0.0


def blamed(worker: WorkerHandle, reading: cells.Reading, status: int) -> frozenset[int]:
    """The models that a worker's end (wait status ``status``) is held against: those it was ended for; else, unless
    the end came from outside, the one that ``cells.culprit`` finds."""
    if worker.condemned:
        return worker.condemned
    if worker.dismissed or not (self_inflicted(status) or reading.last_words):
        return frozenset()
    found = cells.culprit(reading)
    return frozenset() if found is None else frozenset({found.model})


def is_failed_start(worker: WorkerHandle, reading: cells.Reading, status: int, now: float) -> bool:
    """Is this end a failure to start? It never was ready; or it ended by itself soon after, with nothing to do."""
    if not worker.ready_at:
        return True
    return self_inflicted(status) and not reading.busy and now - worker.ready_at < HEALTHY_SECONDS


def is_recovered(worker: WorkerHandle, status: int, now: float) -> bool:
    """Does this end show that starting works? It had been ready, and for a while, or was ended from outside."""
    return worker.ready_at > 0 and (now - worker.ready_at >= HEALTHY_SECONDS or not self_inflicted(status))


def memory_cap(worker_memory: int, model_memory: int, usable: int) -> int:
    """Bytes a worker may take beyond its start: room for its models and the work on them, but never so much that the
    machine runs out before the model is refused. ``worker_memory``: what the operator says, 0 = nothing."""
    return worker_memory or min(max(2 * model_memory, 2**30), int(0.8 * usable))


def budget(model_memory: int, cap: int, sharing: int, desired: int) -> int:
    """A worker's share of model memory, in bytes: over the multi-model variants, then over the variant's workers; and
    always a quarter of what it may take is left for the work on its models."""
    return min(model_memory // max(1, sharing) // max(1, desired), cap * 3 // 4)


def ending(worker: WorkerHandle, status: int) -> str:
    """How a worker ended, in words."""
    if worker.condemned:
        return "by us: a model ran past its time"
    if worker.dismissed:
        return "by us"
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit status {os.waitstatus_to_exitcode(status)}"
