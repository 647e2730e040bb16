"""The control process's side of workers: start, watch, replace, drain, resize. Runs no model, serves no request.

::

    STARTING ──ready──► READY ──drain──► DRAINING ──► (ended)
        └──────── died / failed / overdue ──► (ended), replaced after a back-off

A worker leaves in three steps: it leaves the routing table, every front says it has seen that, then it is told to
drain; so no call is ever sent to a worker that is going. What follows from what is decided in ``roster.py``; this file
acts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from serving.config import Settings, usable_memory
from serving.errors import ServiceUnavailable
from serving.types import FleetKey, FleetSpec
from serving.watch.journal import Journal
from serving.watch.metrics import Registry, holders
from serving.workers import cells, roster
from serving.workers.plan import WorkerPlan
from serving.workers.roster import DRAINING, GONE, READY, STARTING, Fleet, WorkerHandle
from serving.workers.spawner import Spawner
from serving.workers.usage import UsageMetrics

_TICK = 0.1
_OVERDUE_GRACE = 0.5
#: A worker that does not even say hello, or whose control channel has ended, is ended so long after.
_START_GRACE, _GONE_GRACE = 10.0, 0.3
_STALLED_SECONDS = 1.0
#: Ticks between looks at what changes slowly.
_SELDOM = 10
_FAREWELL_SECONDS = 2.0

log = logging.getLogger("serving.supervisor")


class Supervisor:
    """All fleets of this server. Build, ``start``, then change it through ``put``, ``remove`` and ``resize``."""

    def __init__(self, settings: Settings, run_dir: Path, registry: Registry, on_change: Callable[[], None]) -> None:
        """``on_change`` is called whenever the routing table may have changed."""
        self.settings = settings
        self.run_dir = run_dir
        self.fleets: dict[FleetKey, Fleet] = {}
        self._registry = registry
        self._tell_change = on_change
        self._news = asyncio.Event()
        self._spawners: dict[frozenset[str], Spawner] = {}
        self._by_id: dict[str, tuple[Fleet, WorkerHandle]] = {}
        self._by_pid: dict[int, str] = {}
        self._numbers = itertools.count(1)
        self._ticker: asyncio.Task[None] | None = None
        self._closing = False
        self._seen_version = 0
        self._threads = 0
        self._counted: Collection[tuple[str, ...]] = ()
        self._usage = UsageMetrics(registry)
        self._ticks = self._shows = 0
        self._stood: list[object] = []
        self._journal = Journal(settings.data_dir / "evictions.jsonl")

    # -- what there should be -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin supervising."""
        self._ticker = asyncio.create_task(self._tick_forever())

    def warm(self, frameworks: frozenset[str]) -> None:
        """Start the forkserver for these frameworks ahead of its first worker."""
        if frameworks not in self._spawners:
            threads = self.settings.threads
            spawner = Spawner(frameworks, threads, lambda message: self._on_forked(frameworks, message))
            self._spawners[frameworks] = spawner
            spawner.start()

    def put(self, spec: FleetSpec, location: str, frameworks: frozenset[str]) -> Fleet:
        """There shall be these workers. ``location``: the resolved path of their artifact or prefix."""
        fleet = self.fleets[spec.key] = Fleet(spec, location, frameworks, spec.count)
        self.warm(frameworks)
        self._reconcile(fleet, time.monotonic())
        return fleet

    def remove(self, keys: Iterable[FleetKey], patience: float | None = None) -> None:
        """These workers shall go: they drain. ``patience``: seconds that their calls get; by default as long as any
        call may take."""
        for key in list(keys):
            fleet = self.fleets.pop(key, None)
            if fleet is not None:
                fleet.desired = 0
                for worker in fleet.live():  # one that stands still too: nobody will look at it when it turns again
                    self._retire(fleet, worker, patience)
                self._share_resources()

    def resize(self, key: FleetKey, count: int) -> None:
        """There shall be ``count`` workers (0 or more)."""
        fleet = self.fleets[key]
        fleet.desired = count
        fleet.start_over()
        self._reconcile(fleet, time.monotonic())

    def _reconcile(self, fleet: Fleet, now: float) -> None:
        staying, before = fleet.staying(), len(fleet.live())
        if len(staying) < fleet.desired and not self._closing and not fleet.given_up and now >= fleet.next_start:
            for _ in range(fleet.desired - len(staying)):
                self._start_worker(fleet)
        for worker in staying[fleet.desired :]:
            self._retire(fleet, worker)
        if sum(worker.state == READY for worker in staying) >= fleet.desired:
            for worker in fleet.live():
                if worker.leaving:
                    self._retire(fleet, worker)
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
        sharing = sum(1 for other in self.fleets.values() if other.spec.model.mode == "MultiModel")
        return roster.budget(self.settings.model_memory, self._memory_cap(), sharing, fleet.desired)

    def _memory_cap(self) -> int:
        return roster.memory_cap(self.settings.worker_memory, self.settings.model_memory, usable_memory())

    # -- one worker's life ----------------------------------------------------------------------------------------

    def _start_worker(self, fleet: Fleet) -> None:
        plan = self._plan(fleet)
        worker = WorkerHandle(plan)
        fleet.workers[plan.worker_id] = worker
        self._by_id[plan.worker_id] = (fleet, worker)
        self.warm(fleet.frameworks)
        self._spawners[fleet.frameworks].spawn(plan)

    def _plan(self, fleet: Fleet) -> WorkerPlan:
        settings, spec = self.settings, fleet.spec
        endpoint, variant = spec.key.labels
        return WorkerPlan(
            worker_id=f"{next(self._numbers):04d}",
            endpoint=endpoint,
            variant=variant,
            multi_model=spec.model.mode == "MultiModel",
            location=fleet.location,
            environment=dict(spec.model.environment),
            keep=spec.model.cache == "Enabled",
            run_dir=str(self.run_dir),
            cache_dir=str(settings.data_dir / "artifacts"),
            disk_budget=settings.disk_cache,
            budget=self._budget(fleet),
            memory_cap=spec.serverless.memory if spec.serverless else self._memory_cap(),
            allow_code=settings.allow_code,
            threads=self._threads_for(sum(len(one.live()) for one in self.fleets.values()) + 1),
            recycle=settings.worker_recycle,
            max_batch_calls=1 if spec.serverless else settings.max_batch_calls,
            max_batch_bytes=8 * 2**20,
            load_wait=self._longest_call(fleet),
            own_limits=fleet.spec.call_seconds > 0,
            log_format=settings.log_format,
            log_level=settings.log_level,
            decided_at=time.monotonic(),
            nice=spec.nice,
            repository=spec.model.repository,
        )

    def _on_forked(self, frameworks: frozenset[str], message: dict[str, object]) -> None:
        if "spawned" in message:
            self._know_pid(str(message["spawned"]), int(str(message["pid"])))
        elif "died" in message:
            self._on_death(int(str(message["died"])), int(str(message["status"])))
        elif "gone" in message and not self._closing:
            self._on_forkserver_gone(frameworks)

    def _know_pid(self, worker_id: str, pid: int) -> None:
        """Its forkserver and its own hello both say so, in any order."""
        known = self._by_id.get(worker_id)
        if known is not None:
            known[1].pid = pid
            self._by_pid[pid] = worker_id

    def _on_forkserver_gone(self, frameworks: frozenset[str]) -> None:
        """Its workers end with it, and nobody can wait for them: replace them all, from a new one."""
        log.error("a forkserver ended; its workers are replaced")
        self._spawners.pop(frameworks).close()
        for fleet, worker in list(self._by_id.values()):
            if fleet.frameworks == frameworks:
                if worker.ready_at:
                    fleet.failed_starts = 0  # its workers do start: what ended is not theirs
                if worker.pid:
                    _kill(worker.pid)
                    self._by_pid.pop(worker.pid, None)
                    self._registry.fold(worker.pid)
                self._forget(fleet, worker)
        for fleet in self.fleets.values():
            if fleet.frameworks == frameworks:
                fleet.start_failed(time.monotonic())
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
        self._know_pid(worker.plan.worker_id, int(str(hello["pid"])))
        if worker.state == DRAINING and worker.drained_version <= self._seen_version:
            worker.order(op="drain")
        try:
            while line := await reader.readline():
                self._on_event(fleet, worker, json.loads(line))
        finally:
            self._on_gone(worker)

    def _on_gone(self, worker: WorkerHandle) -> None:
        """Its control channel has ended. Mostly it has died, as its forkserver will say; should it live on with its
        descriptors closed, it is ended soon."""
        if not worker.ended:
            worker.gone_at = time.monotonic()
            if worker.state != DRAINING:
                worker.state = GONE
                self._on_change()

    def _on_event(self, fleet: Fleet, worker: WorkerHandle, event: dict[str, object]) -> None:
        kind = event["ev"]
        if kind == "ready" and worker.state == STARTING:
            worker.state, worker.ready_at = READY, time.monotonic()
            worker.engine, worker.bytes = str(event.get("engine", "")), int(str(event.get("bytes", 0)))
            seconds = worker.ready_at - worker.plan.decided_at
            labels = fleet.spec.key.labels
            self._registry.histogram("sagemaker_worker_start_seconds", *labels).observe(seconds)
            log.info("worker %s of %s/%s ready in %.0f ms", worker.plan.worker_id, *labels, seconds * 1e3)
            fleet.failure = ""
            self._on_change()
        elif kind == "failed":
            fleet.failure = str(event["message"])
            self._on_change()
            log.error("variant %s/%s: %s", *fleet.spec.key.labels, fleet.failure)
            worker.dismissed = True
            _kill(worker.pid)
        elif kind == "bloated" and worker.state == READY:
            log.warning("worker %s does not return memory (%s); replacing it", worker.plan.worker_id, event)
            worker.leaving = True
            self._reconcile(fleet, time.monotonic())
        elif kind == "spoiled":
            self._strike(fleet, cells.model_key(str(event["model"])), time.monotonic())
        elif kind == "evicted":
            endpoint, variant = fleet.spec.key.labels
            record = {"time": time.time(), "endpoint": endpoint, "variant": variant}
            self._journal.add(record | {"worker": worker.plan.worker_id} | event)

    def on_stalled(self, worker_id: str) -> None:
        """A front reports: this worker's interpreter has not turned for a while, and calls of other models wait.
        Another worker is started to stand in for it."""
        known = self._by_id.get(worker_id)
        if known is not None and known[1].state == READY and not known[1].stalled and known[0].may_stall():
            log.warning("worker %s is held up by one model; another stands in for it", worker_id)
            known[1].stalled = True
            self._reconcile(known[0], time.monotonic())

    def _on_death(self, pid: int, status: int) -> None:
        worker_id = self._by_pid.pop(pid, None)
        self._registry.fold(pid)
        if worker_id is None or worker_id not in self._by_id:
            return
        fleet, worker = self._by_id[worker_id]
        told = worker.state == DRAINING and (worker.dismissed or status == 0)
        now = time.monotonic()
        if not told and not self._closing:
            self._blame(fleet, worker, status, now)
        self._forget(fleet, worker)
        if not told:
            self._reconcile(fleet, now)
        self._on_change()

    def _blame(self, fleet: Fleet, worker: WorkerHandle, status: int, now: float) -> None:
        labels = fleet.spec.key.labels
        self._registry.counter("sagemaker_worker_deaths_total", *labels).add()
        reading = cells.read(worker.plan.cell)
        log.error("worker %s of %s/%s ended (%s)", worker.plan.worker_id, *labels, roster.ending(worker, status))
        if reading.last_words:
            log.error("worker %s, last words: %s", worker.plan.worker_id, reading.last_words[:2000])
        for model in roster.blamed(worker, reading, status):
            self._strike(fleet, model, now)
        if roster.is_failed_start(worker, reading, status, now):
            fleet.start_failed(now)
            if fleet.given_up:
                log.error("variant %s/%s: giving up: %s", *labels, fleet.failure)
        elif roster.is_recovered(worker, status, now):
            fleet.failed_starts = 0

    def _strike(self, fleet: Fleet, model: int, now: float) -> None:
        if fleet.quarantine.strike(model, now, fleet.spec.quarantine) is not None:
            log.error("a model of %s/%s is quarantined: it keeps ending workers", *fleet.spec.key.labels)
            self._count(now)  # whoever is refused for it finds it counted
            self._on_change()

    def _forget(self, fleet: Fleet, worker: WorkerHandle) -> None:
        worker.ended = True
        fleet.workers.pop(worker.plan.worker_id, None)
        self._by_id.pop(worker.plan.worker_id, None)
        worker.forget_cell()
        if worker.writer is not None:
            worker.writer.close()
        for path in (worker.plan.socket, worker.plan.cell):
            path.unlink(missing_ok=True)

    def _longest_call(self, fleet: Fleet) -> float:
        return fleet.spec.call_seconds or self.settings.invocation_timeout_seconds

    def _retire(self, fleet: Fleet, worker: WorkerHandle, patience: float | None = None) -> None:
        """Take it out of the routing table; it is told to drain once every front has seen that."""
        worker.state = DRAINING
        worker.drained_version = 0  # unknown until the table is sent
        if patience is None:
            longest = max(self._longest_call(fleet), self.settings.stream_timeout_seconds)
            patience = self.settings.drain_seconds + longest
        worker.kill_at = time.monotonic() + patience
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
        self._ticks += 1
        for fleet, worker in list(self._by_id.values()):
            if worker.pid and (now >= worker.idle_until or worker.state != READY or worker.stalled or worker.gone_at):
                self._look_at(fleet, worker, now)
        changed = False
        for fleet in list(self.fleets.values()):
            if not fleet.quarantine.empty:
                before = fleet.quarantine.refused(now)
                changed |= before != fleet.quarantine.refused(now + _TICK)
            if not fleet.settled():
                self._reconcile(fleet, now)
        if self._standing() != self._stood or self._ticks % _SELDOM == 0:
            self._count(now)
        if self._ticks % _SELDOM == 0:
            live = [(fleet.spec.key.labels, worker.pid) for fleet, worker in self._by_id.values() if worker.pid]
            self._usage.look(live, now)
        self._journal.flush()
        if changed:
            self._on_change()

    def _standing(self) -> list[object]:
        """What is counted: as long as it is the same, so are the counts."""
        return [
            *(worker.state for _, worker in self._by_id.values()),
            *self._by_id,
            *self.fleets,
            *(fleet.desired for fleet in self.fleets.values()),
            any(not fleet.quarantine.empty for fleet in self.fleets.values()) and self._ticks,
            self._shows,
        ]

    def _look_at(self, fleet: Fleet, worker: WorkerHandle, now: float) -> None:
        """End a worker that is stuck in a model, does not start, or cannot be told anything; see whether a stalled one
        turns again."""
        settings, plan = self.settings, worker.plan
        reading = worker.reading()
        worker.idle_until = now if reading.busy else now + _OVERDUE_GRACE
        longest = self._longest_call(fleet) + _OVERDUE_GRACE, settings.load_timeout_seconds + _OVERDUE_GRACE
        late = cells.overdue(reading.busy, now, *longest, grace=_OVERDUE_GRACE)
        if late and not worker.condemned:
            log.error("worker %s is stuck in a model; ending it", plan.worker_id)
            worker.condemned = frozenset(one.model for one in late)
            _kill(worker.pid)
        elif worker.gone_at and now - worker.gone_at > _GONE_GRACE and not worker.condemned:
            found = cells.suspect(reading)
            worker.condemned, worker.dismissed = frozenset({found.model} if found else ()), True
            _kill(worker.pid)
        elif worker.state == STARTING and now - plan.decided_at > settings.load_timeout_seconds + _START_GRACE:
            _kill(worker.pid)
        elif worker.kill_at and now > worker.kill_at:
            worker.dismissed = True
            _kill(worker.pid)
        if worker.stalled and now - reading.beat < _STALLED_SECONDS:
            log.info("worker %s turns again", plan.worker_id)
            worker.stalled = False

    def _count(self, now: float) -> None:
        """Gauges by metric labels: the deployments of one variant count together, and one that has gone as nothing
        until its series go too."""
        self._stood = self._standing()
        counts: dict[tuple[str, ...], int] = dict.fromkeys(self._counted, 0)
        for fleet, worker in self._by_id.values():
            state = ("sagemaker_workers", *fleet.spec.key.labels, worker.state)
            counts[state] = counts.get(state, 0) + 1
        for fleet in self.fleets.values():
            labels = fleet.spec.key.labels
            refused, desired = ("sagemaker_quarantined_models", *labels), ("sagemaker_desired_workers", *labels)
            counts[refused] = counts.get(refused, 0) + len(fleet.quarantine.refused(now))
            counts[desired] = counts.get(desired, 0) + fleet.desired
            for one in (STARTING, READY, DRAINING, GONE):
                counts.setdefault(("sagemaker_workers", *labels, one), 0)
        for (name, *labels_of), count in counts.items():
            self._registry.counter(name, *labels_of).set(count)
        fleets = {*self.fleets.values(), *(fleet for fleet, _ in self._by_id.values())}
        held = self._registry.keep({fleet.spec.key.labels for fleet in fleets})
        self._counted = [one for one in counts if one[1:3] in held]

    def show(self, table: dict[str, object]) -> None:
        """Metrics are of what this routing table names, which fronts are about to hear of."""
        self._shows += 1
        self._registry.show(holders(table))

    def _on_change(self) -> None:
        self._news.set()
        self._tell_change()

    async def settled(self, keys: Collection[FleetKey], patience: float) -> None:
        """Return when these fleets have the workers they should have. Raises ``ServiceUnavailable`` with the reason
        when one has failed, or after ``patience`` seconds. A fleet that is removed meanwhile is not waited for."""
        end = time.monotonic() + patience
        while True:
            self._news.clear()
            fleets = [self.fleets[key] for key in keys if key in self.fleets]
            waiting = [f for f in fleets if sum(w.state == READY for w in f.live()) < f.desired]
            failed = next((fleet for fleet in waiting if fleet.failure), None)
            if failed is not None:
                raise ServiceUnavailable(f"{'/'.join(failed.spec.key.labels)}: {failed.failure}")
            if not waiting:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, end - time.monotonic()))
            if time.monotonic() >= end:
                late, failed_starts = "/".join(waiting[0].spec.key.labels), waiting[0].failed_starts
                ends = f": its worker ended {failed_starts} times before it was ready" if failed_starts else ""
                raise ServiceUnavailable(f"{late} was not ready within {patience:.0f} s{ends}")

    async def drained(self, keys: Collection[FleetKey]) -> None:
        """Return when no worker of these (removed) fleets is left: each is ended by its time limit at the latest."""
        while True:
            self._news.clear()
            if not any(fleet.spec.key in keys for fleet, _ in self._by_id.values()):
                self._count(time.monotonic())  # should the same name come back, it begins at 0
                return
            await self._news.wait()

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
        for spawner in self._spawners.values():
            spawner.close()
        self._journal.close()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
