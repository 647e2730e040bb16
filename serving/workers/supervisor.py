"""The control process's side of workers: start, watch, replace, drain, resize. Runs no model, serves no request.

::

    STARTING ──ready──► READY ──drain──► DRAINING ──► (gone)
        └──────── died / failed / overdue ──► (gone), replaced after a back-off

A worker leaves in three steps: it leaves the routing table, every front says it has seen that, then it is told to
drain; so no call is ever sent to a worker that is going. What to do next is decided by small pure functions; this
file acts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from serving.config import Settings, native_environment, usable_memory
from serving.errors import ServiceUnavailable
from serving.types import VariantSpec
from serving.watch.journal import Journal
from serving.watch.metrics import Registry
from serving.workers import cells
from serving.workers.plan import WorkerPlan
from serving.workers.quarantine import Quarantine, self_inflicted

STARTING, READY, DRAINING = "STARTING", "READY", "DRAINING"
_TICK = 0.1
#: A worker that lived this long before it died is replaced at once; quicker deaths back off.
_HEALTHY_SECONDS = 5.0
_MOST_FAILED_STARTS = 8
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 10.0
_OVERDUE_GRACE = 0.5
_FAREWELL_SECONDS = 2.0

log = logging.getLogger("serving.supervisor")


@dataclass(eq=False, slots=True)
class WorkerHandle:
    """One worker as the supervisor sees it."""

    plan: WorkerPlan
    state: str = STARTING
    pid: int = 0
    writer: asyncio.StreamWriter | None = None
    ready_at: float = 0.0
    overdue: bool = False
    leaving: bool = False
    drained_version: int = 0
    kill_at: float = 0.0
    ended: bool = False
    engine: str = ""
    bytes: int = 0

    def order(self, **message: object) -> None:
        """Send it one order; a dead worker does not mind."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


@dataclass(eq=False, slots=True)
class Fleet:
    """The workers of one variant: how many there should be and those there are."""

    endpoint: str
    spec: VariantSpec
    location: str
    frameworks: frozenset[str]
    desired: int
    workers: dict[str, WorkerHandle] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)
    failed_starts: int = 0
    next_start: float = 0.0
    failure: str = ""
    failure_kind: str = ""

    @property
    def given_up(self) -> bool:
        """Start failures have used up the patience; nothing more is tried until the variant changes."""
        return self.failed_starts >= _MOST_FAILED_STARTS

    def live(self) -> list[WorkerHandle]:
        """Workers that are or will be taking calls."""
        return [worker for worker in self.workers.values() if worker.state != DRAINING]

    def staying(self) -> list[WorkerHandle]:
        """Live workers, without those that leave as soon as they are replaced."""
        return [worker for worker in self.live() if not worker.leaving]


def backoff(failed_starts: int) -> float:
    """Seconds to wait before the next start after so many failures in a row."""
    return 0.0 if failed_starts == 0 else float(min(_FIRST_BACKOFF * 2 ** (failed_starts - 1), _LONGEST_BACKOFF))


def overdue(busy: list[cells.Busy], now: float, invocation_timeout: float, load_timeout: float) -> bool:
    """Is one batch or load of this worker running past its time? A worker that merely is busy, with its interpreter
    lock held for minutes by honest batches one after another, never is: every batch has its own start."""
    limits = {cells.RUNNING: invocation_timeout + _OVERDUE_GRACE, cells.LOADING: load_timeout + _OVERDUE_GRACE}
    return any(now - one.since > limits[one.state] for one in busy)


class _Forkserver:
    """The process workers of one set of frameworks are forked from; started on first need."""

    def __init__(
        self, frameworks: frozenset[str], threads: int, on_message: Callable[[dict[str, object]], None]
    ) -> None:
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.workers.forkserver", str(theirs.fileno()), ",".join(sorted(frameworks))],
            pass_fds=[theirs.fileno()],
            env=native_environment(threads),
        )
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._on_message = on_message
        self._reader: asyncio.Task[None] | None = None
        self._out = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to hear it."""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        buffer = b""
        while data := await self._out.sock_recv(self._socket, 1 << 16):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._on_message(json.loads(line))
        self._on_message({"gone": True})

    async def spawn(self, plan: WorkerPlan) -> None:
        """Ask for a worker; the answer comes as a message."""
        await self._out.sock_sendall(self._socket, json.dumps({"spawn": plan.to_json()}).encode() + b"\n")

    def close(self) -> None:
        """End it."""
        if self._reader is not None:
            self._reader.cancel()
        self._socket.close()
        self.process.kill()
        self.process.wait()


class Supervisor:
    """All fleets of this server. Build, ``start``, then change it through ``put``, ``remove`` and ``resize``."""

    def __init__(self, settings: Settings, run_dir: Path, registry: Registry, on_change: Callable[[], None]) -> None:
        """``on_change`` is called whenever the routing table may have changed."""
        self.settings = settings
        self.run_dir = run_dir
        self.fleets: dict[tuple[str, str], Fleet] = {}
        self._registry = registry
        self._tell_change = on_change
        self._news = asyncio.Event()
        self._forkservers: dict[frozenset[str], _Forkserver] = {}
        self._by_id: dict[str, tuple[Fleet, WorkerHandle]] = {}
        self._by_pid: dict[int, str] = {}
        self._numbers = itertools.count(1)
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._seen_version = 0
        self._threads = 0
        self._journal = Journal(settings.data_dir / "evictions.jsonl")

    # -- what there should be -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin supervising."""
        self._ticker = asyncio.create_task(self._tick_forever())

    def warm(self, frameworks: frozenset[str]) -> None:
        """Start the forkserver for these frameworks ahead of its first worker."""
        if frameworks not in self._forkservers:
            forkserver = _Forkserver(
                frameworks, self.settings.threads, lambda message: self._on_forked(frameworks, message)
            )
            self._forkservers[frameworks] = forkserver
            forkserver.start()

    def put(self, endpoint: str, spec: VariantSpec, location: str, frameworks: frozenset[str]) -> Fleet:
        """There shall be this variant. ``location``: the resolved path of its artifact or prefix."""
        fleet = Fleet(endpoint, spec, location, frameworks, spec.instance_count)
        self.fleets[endpoint, spec.name] = fleet
        self.warm(frameworks)
        self._reconcile(fleet, time.monotonic())
        return fleet

    def remove(self, endpoint: str, variant: str) -> None:
        """The variant shall go: its workers drain."""
        fleet = self.fleets.pop((endpoint, variant), None)
        if fleet is not None:
            fleet.desired = 0
            self._reconcile(fleet, time.monotonic())

    def resize(self, endpoint: str, variant: str, count: int) -> None:
        """The variant shall have ``count`` workers (0 or more)."""
        fleet = self.fleets[endpoint, variant]
        fleet.desired, fleet.failed_starts = count, 0
        self._reconcile(fleet, time.monotonic())

    def _reconcile(self, fleet: Fleet, now: float) -> None:
        staying, before = fleet.staying(), len(fleet.live())
        if len(staying) < fleet.desired and not self._closing and not fleet.given_up and now >= fleet.next_start:
            for _ in range(fleet.desired - len(staying)):
                self._start_worker(fleet)
        for worker in staying[fleet.desired :]:
            self._retire(worker)
        if sum(worker.state == READY for worker in staying) >= fleet.desired:
            for worker in fleet.live():
                if worker.leaving:
                    self._retire(worker)
        if len(fleet.live()) != before:
            self._share_resources()

    def _share_resources(self) -> None:
        """Native threads follow the number of workers; so does each worker's share of model memory."""
        count = sum(len(fleet.live()) for fleet in self.fleets.values())
        threads = self._threads_for(count)
        if threads != self._threads:
            self._threads = threads
            for _, worker in self._by_id.values():
                worker.order(op="threads", threads=threads)
        for fleet in self.fleets.values():
            for worker in fleet.live():
                worker.order(op="budget", bytes=self._budget(fleet))

    def _threads_for(self, workers: int) -> int:
        return max(1, self.settings.threads // max(1, workers))

    def _budget(self, fleet: Fleet) -> int:
        """A worker's share: model memory over the multi-model variants, then over the variant's workers."""
        sharing = sum(1 for other in self.fleets.values() if other.spec.model.mode == "MultiModel")
        return self.settings.model_memory // max(1, sharing) // max(1, fleet.desired)

    # -- one worker's life ----------------------------------------------------------------------------------------

    def _start_worker(self, fleet: Fleet) -> None:
        plan = self._plan(fleet)
        worker = WorkerHandle(plan)
        fleet.workers[plan.worker_id] = worker
        self._by_id[plan.worker_id] = (fleet, worker)
        self.warm(fleet.frameworks)
        task = asyncio.create_task(self._forkservers[fleet.frameworks].spawn(plan))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _plan(self, fleet: Fleet) -> WorkerPlan:
        settings, spec = self.settings, fleet.spec
        return WorkerPlan(
            worker_id=f"{next(self._numbers):04d}",
            endpoint=fleet.endpoint,
            variant=spec.name,
            multi_model=spec.model.mode == "MultiModel",
            location=fleet.location,
            environment=dict(spec.model.environment),
            keep=spec.model.cache == "Enabled",
            run_dir=str(self.run_dir),
            cache_dir=str(settings.data_dir / "artifacts"),
            disk_budget=settings.disk_cache,
            budget=self._budget(fleet),
            memory_cap=settings.worker_memory or _memory_cap(settings.model_memory, usable_memory()),
            allow_code=settings.allow_code,
            threads=self._threads_for(sum(len(one.live()) for one in self.fleets.values()) + 1),
            recycle=settings.worker_recycle,
            max_batch_calls=settings.max_batch_calls,
            max_batch_bytes=8 * 2**20,
            load_wait=settings.invocation_timeout_seconds,
            log_format=settings.log_format,
            log_level=settings.log_level,
            decided_at=time.monotonic(),
        )

    def _on_forked(self, frameworks: frozenset[str], message: dict[str, object]) -> None:
        if "spawned" in message:
            known = self._by_id.get(str(message["spawned"]))
            if known is not None:
                known[1].pid = int(str(message["pid"]))
                self._by_pid[known[1].pid] = known[1].plan.worker_id
        elif "died" in message:
            self._on_death(int(str(message["died"])), int(str(message["status"])))
        elif "gone" in message and not self._closing:
            self._on_forkserver_gone(frameworks)

    def _on_forkserver_gone(self, frameworks: frozenset[str]) -> None:
        """Its workers live on but can no longer be waited for: replace them all, from a new one."""
        log.error("a forkserver ended; its workers are replaced")
        self._forkservers.pop(frameworks).close()
        for fleet in self.fleets.values():
            if fleet.frameworks == frameworks:
                for worker in list(fleet.workers.values()):
                    if worker.pid:
                        _kill(worker.pid)
                    self._forget(fleet, worker)
                fleet.failed_starts += 1
                fleet.next_start = time.monotonic() + backoff(fleet.failed_starts)
        self._on_change()

    async def on_worker(
        self, hello: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A worker has connected to the control socket and said hello; hear it until its end."""
        known = self._by_id.get(str(hello["worker"]))
        if known is None:
            writer.close()
            return
        fleet, worker = known
        worker.writer = writer
        if worker.state == DRAINING and worker.drained_version <= self._seen_version:
            worker.order(op="drain")
        while line := await reader.readline():
            self._on_event(fleet, worker, json.loads(line))

    def _on_event(self, fleet: Fleet, worker: WorkerHandle, event: dict[str, object]) -> None:
        kind = event["ev"]
        if kind == "ready" and worker.state == STARTING:
            worker.state, worker.ready_at = READY, time.monotonic()
            worker.engine, worker.bytes = str(event.get("engine", "")), int(str(event.get("bytes", 0)))
            seconds = worker.ready_at - worker.plan.decided_at
            labels = (fleet.endpoint, fleet.spec.name)
            self._registry.histogram("sagemaker_worker_start_seconds", *labels).observe(seconds)
            log.info("worker %s of %s/%s ready in %.0f ms", worker.plan.worker_id, *labels, seconds * 1e3)
            fleet.failure = ""
            self._on_change()
        elif kind == "failed":
            fleet.failure, fleet.failure_kind = str(event["message"]), str(event["error"])
            self._on_change()
            log.error("variant %s/%s: %s", fleet.endpoint, fleet.spec.name, fleet.failure)
            if worker.pid:
                _kill(worker.pid)
        elif kind == "bloated" and worker.state == READY:
            log.warning("worker %s does not return memory (%s bytes); replacing it", worker.plan.worker_id, event)
            self._replace(fleet, worker)
        elif kind == "evicted":
            record = {"time": time.time(), "endpoint": fleet.endpoint, "variant": fleet.spec.name}
            self._journal.add(record | {"worker": worker.plan.worker_id} | event)

    def on_stalled(self, worker_id: str) -> None:
        """A front reports: this worker's interpreter has not turned for a while, and calls of other models wait. A
        successor is started, at most one at a time; the stalled worker leaves when that is ready."""
        known = self._by_id.get(worker_id)
        if known is not None and known[1].state == READY and not any(one.leaving for one in known[0].live()):
            log.warning("worker %s is held up by one model; replacing it", worker_id)
            self._replace(*known)

    def _replace(self, fleet: Fleet, worker: WorkerHandle) -> None:
        """Start the successor first; the old one leaves when that is ready."""
        worker.leaving = True
        self._reconcile(fleet, time.monotonic())

    def _on_death(self, pid: int, status: int) -> None:
        worker_id = self._by_pid.pop(pid, None)
        self._registry.fold(pid)
        if worker_id is None or worker_id not in self._by_id:
            return
        fleet, worker = self._by_id[worker_id]
        expected = worker.state == DRAINING
        now = time.monotonic()
        if not expected and not self._closing:
            self._blame(fleet, worker, status, now)
        self._forget(fleet, worker)
        if not expected:
            self._reconcile(fleet, now)
        self._on_change()

    def _blame(self, fleet: Fleet, worker: WorkerHandle, status: int, now: float) -> None:
        labels = (fleet.endpoint, fleet.spec.name)
        self._registry.counter("sagemaker_worker_deaths_total", *labels).add()
        busy = cells.read(worker.plan.cell)
        log.error("worker %s of %s/%s ended (%s)", worker.plan.worker_id, *labels, _ending(status, worker.overdue))
        if self_inflicted(status, worker.overdue) and not fleet.failure:
            for one in busy:
                if fleet.quarantine.strike(one.model, now) is not None:
                    log.error("a model of %s/%s is quarantined: it keeps ending its worker", *labels)
        lived = now - worker.ready_at if worker.ready_at else 0.0
        if lived >= _HEALTHY_SECONDS or (worker.ready_at and not self_inflicted(status, worker.overdue)):
            fleet.failed_starts = 0
        elif not worker.ready_at:
            fleet.failed_starts += 1
            fleet.next_start = now + backoff(fleet.failed_starts)
            if fleet.given_up:
                fleet.failure = fleet.failure or f"its worker failed to start {fleet.failed_starts} times in a row"
                log.error("variant %s/%s: giving up: %s", *labels, fleet.failure)

    def _forget(self, fleet: Fleet, worker: WorkerHandle) -> None:
        worker.ended = True
        fleet.workers.pop(worker.plan.worker_id, None)
        self._by_id.pop(worker.plan.worker_id, None)
        if worker.writer is not None:
            worker.writer.close()
        for path in (worker.plan.socket, worker.plan.cell):
            path.unlink(missing_ok=True)

    def _retire(self, worker: WorkerHandle) -> None:
        """Take it out of the routing table; it is told to drain once every front has seen that."""
        worker.state = DRAINING
        worker.drained_version = 0  # unknown until the table is sent
        worker.kill_at = time.monotonic() + self.settings.drain_seconds + self.settings.invocation_timeout_seconds
        self._on_change()

    def table_sent(self, version: int) -> None:
        """A routing table without the draining workers has been sent as ``version``."""
        for _, worker in self._by_id.values():
            if worker.state == DRAINING and worker.drained_version == 0:
                worker.drained_version = version

    def table_seen(self, version: int) -> None:
        """Every front works by table ``version`` or a later one: workers missing from it may go."""
        self._seen_version = version
        for _, worker in self._by_id.values():
            if worker.state == DRAINING and 0 < worker.drained_version <= version:
                worker.order(op="drain")

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK)  # the supervisor's clock, not synchronisation
            try:
                self._tick(time.monotonic())
            except Exception:
                log.exception("supervision tick failed")

    def _tick(self, now: float) -> None:
        settings = self.settings
        changed = False
        for fleet in list(self.fleets.values()):
            for worker in list(fleet.workers.values()):
                busy = cells.read(worker.plan.cell) if worker.pid else []
                if overdue(busy, now, settings.invocation_timeout_seconds, settings.load_timeout_seconds):
                    worker.overdue = True
                    log.error("worker %s is stuck in a model; ending it", worker.plan.worker_id)
                    _kill(worker.pid)
            before = fleet.quarantine.refused(now)
            changed |= before != fleet.quarantine.refused(now + _TICK)
            self._reconcile(fleet, now)
            self._count(fleet, len(before))
        for _, worker in list(self._by_id.values()):
            if worker.kill_at > 0 and now > worker.kill_at and worker.pid:
                _kill(worker.pid)
        self._journal.flush()
        if changed:
            self._on_change()

    def _count(self, fleet: Fleet, refused: int) -> None:
        labels = (fleet.endpoint, fleet.spec.name)
        for state in (STARTING, READY, DRAINING):
            count = sum(1 for worker in fleet.workers.values() if worker.state == state)
            self._registry.counter("sagemaker_workers", *labels, state).set(count)
        self._registry.counter("sagemaker_quarantined_models", *labels).set(refused)

    def _on_change(self) -> None:
        self._news.set()
        self._tell_change()

    async def settled(self, patience: float) -> None:
        """Return when every fleet has the workers it should have. Raises ``ServiceUnavailable`` with the reason when
        one has failed, or after ``patience`` seconds."""
        end = time.monotonic() + patience
        while True:
            self._news.clear()
            waiting = [f for f in self.fleets.values() if sum(w.state == READY for w in f.live()) < f.desired]
            failed = next((fleet for fleet in waiting if fleet.failure), None)
            if failed is not None:
                raise ServiceUnavailable(f"{failed.endpoint}/{failed.spec.name}: {failed.failure}")
            if not waiting:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, end - time.monotonic()))
            if time.monotonic() >= end:
                raise ServiceUnavailable(f"{waiting[0].endpoint}/{waiting[0].spec.name} is not ready in time")

    async def close(self) -> None:
        """End every worker and forkserver. Call after the fronts have gone."""
        self._closing = True
        if self._ticker is not None:
            self._ticker.cancel()
        for _, worker in list(self._by_id.values()):
            worker.order(op="drain")
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                while self._by_id:  # workers end by themselves: no front is connected any more
                    self._news.clear()
                    await self._news.wait()
        for _, worker in list(self._by_id.values()):
            if worker.pid:
                _kill(worker.pid)
        for forkserver in self._forkservers.values():
            forkserver.close()
        self._journal.close()


def _memory_cap(model_memory: int, usable: int) -> int:
    """Bytes a worker may take beyond its start: room for its models and the work on them, but never so much that the
    machine runs out before the model is refused."""
    return min(max(2 * model_memory, 2**30), int(0.8 * usable))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _ending(status: int, stuck: bool) -> str:
    if stuck:
        return "ended by us: a model ran past its time"
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit status {os.waitstatus_to_exitcode(status)}"
