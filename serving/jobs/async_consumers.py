"""All queues of asynchronous calls: a lane for each endpoint (``async_lane.py``), kept as the routing table says; what
predecessors left is taken up; expiry, metrics and pruning now and then."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from serving.config import Settings
from serving.endpoint import Directory
from serving.errors import ServingError
from serving.jobs import notices
from serving.jobs.async_calls import PREFIX
from serving.jobs.async_ends import MOST_EXPIRED, EndingConsumer, end_expired
from serving.jobs.async_files import Files, job_of
from serving.jobs.async_lane import Lane
from serving.jobs.async_runs import Means, Runs
from serving.jobs.backlog import AsyncMetrics, instances
from serving.jobs.queue import QueueThread
from serving.jobs.work import OPEN, Backlog, NewWork, QueueSession, Work
from serving.objects.base import ObjectStore
from serving.watch.metrics import Registry

_SWEEP_SECONDS, _PRUNE_SECONDS, _MEASURE_SECONDS = 5.0, 60.0, 0.25
_PRUNED_AT_ONCE = 1000
#: Part of ``drain_seconds`` that calls under way get to finish: the rest is for handing back.
_DRAIN_SHARE = 0.8

log = logging.getLogger("serving.jobs")


class AsyncConsumers:
    """All lanes, and what is done for all of them now and then."""

    def __init__(
        self,
        queue: QueueThread,
        objects: ObjectStore,
        directory: Directory,
        settings: Settings,
        registry: Registry,
        owner: str,
        on_notice: Callable[[], None] = lambda: None,
    ) -> None:
        """``owner``: this process in the queue's eyes. ``on_notice``: there is something in the outbox."""
        self.files = Files(objects)
        self.means = Means(queue, self.files, directory, settings, AsyncMetrics(registry), owner, on_notice)
        self._runs = Runs(self.means)
        self._ending = EndingConsumer(self.means)
        self._lanes: dict[str, Lane] = {}
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        self._began = False
        self._resting = False

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what predecessors left: what they were running is queued again in its place, what they had decided
        is published. Those of the same kind (``KIND-…``) are taken for predecessors. Raises ``ServingError``."""
        means = self.means
        rescued, lanes = await means.queue.do(self._inherit)
        if rescued:
            log.info("%d works were left under way; they go on", rescued)
        for name in await self.files.spooled():
            if not await means.queue.do(partial(_is_needed, name)):
                await self.files.discard(name)
        self._began = True
        for name in lanes:
            self._in_background(self.lane(name.removeprefix(PREFIX)).take_over())
        self._ending.start()
        self._in_background(self._sweep_forever())
        self._in_background(self._measure_forever())
        if means.directory.table["version"]:
            self.apply(means.directory.table)

    def _inherit(self, session: QueueSession) -> tuple[int, list[str]]:
        owner = self.means.owner
        kind = owner.partition("-")[0] + "-"
        rescued = session.rescue([one for one in session.owners() if one.startswith(kind) and one != owner])
        return len(rescued), [lane for lane in session.lanes() if lane.startswith(PREFIX)]

    async def rest(self) -> None:
        """Start nothing more; let calls under way finish for a while, and hand back the rest. Jobs may still be put."""
        self._resting = True
        seconds = self.means.settings.drain_seconds * _DRAIN_SHARE
        await self._ending.rest()
        await asyncio.gather(*(lane.rest(seconds) for lane in self._lanes.values()), return_exceptions=True)

    def close(self) -> None:
        """The end, after ``rest`` or without it."""
        for lane in self._lanes.values():
            lane.close()
        self._ending.close()
        for task in self._tasks:
            task.cancel()
        self.files.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        async def safely() -> None:
            try:
                await work
            except ServingError as error:
                log.error("the queue of asynchronous calls: %s", error.message)
            except Exception:
                log.exception("the queue of asynchronous calls")

        task = asyncio.create_task(safely())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the table ------------------------------------------------------------------------------------------------

    def apply(self, table: Mapping[str, Any]) -> None:
        """Work by this table from now on; the directory does already."""
        if not self._began:
            return
        rows = {str(row["name"]): row for row in table["endpoints"]}
        for name, row in rows.items():
            if row.get("async"):
                self.lane(name)
                self._announce(name, row)
        for name, lane in self._lanes.items():
            endpoint = self.means.directory.endpoints.get(name)
            if endpoint is not None:
                endpoint.on_ready_change = lane.wake
            elif name in self._rows:
                self._in_background(lane.doom())
            lane.changed = True
            lane.wake()
        self._rows = rows
        self._stirred.set()

    def _announce(self, name: str, row: Mapping[str, Any]) -> None:
        """Test notices, when an endpoint is made or changed (``behaviour/03``)."""
        known, since = self._rows.get(name), row["async"]["since"]
        if known is not None and known.get("async") and known["async"]["since"] == since:
            if _sizes(known) == _sizes(row):
                return
            occasion = str(uuid.uuid4())
        else:
            occasion = repr(since)
        tests = notices.of_test(name, row["async"], occasion)
        if tests:
            self._in_background(self._put_notices(tests))

    async def _put_notices(self, new: list[NewWork]) -> None:
        await self.means.queue.do(lambda session: session.put_all(new))
        self.means.on_notice()

    def lane(self, endpoint: str) -> Lane:
        """The lane of an endpoint; made when there is none yet."""
        lane = self._lanes.get(endpoint)
        if lane is None:
            lane = self._lanes[endpoint] = Lane(endpoint, self.means, self._runs)
            there = self.means.directory.endpoints.get(endpoint)
            if there is not None:
                there.on_ready_change = lane.wake
            lane.wake()
        return lane

    # -- what the door tells --------------------------------------------------------------------------------------

    def came(self, endpoint: str) -> None:
        """A job has been put into the endpoint's queue."""
        lane = self.lane(endpoint)
        lane.changed = True
        lane.wake()
        self._stirred.set()

    def cancelled(self, work: Work) -> None:
        """A job has been cancelled in the queue."""
        lane = self._lanes.get(str(work.body["endpoint"]))
        if lane is not None:
            lane.call_off(work.name)
        self.means.ends.tell(work.name)
        self._ending.wake()
        self._stirred.set()

    # -- now and then ---------------------------------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        pruned = 0.0
        while True:
            try:
                await self.sweep()
                if time.monotonic() - pruned > _PRUNE_SECONDS:
                    pruned = time.monotonic()
                    await self.prune()
            except ServingError as error:
                log.warning("the sweep of asynchronous calls has to wait: %s", error.message)
            await asyncio.sleep(_SWEEP_SECONDS)  # the sweep's clock

    async def sweep(self) -> None:
        """End what has waited too long, wake who may have missed something, measure."""
        means, busy = self.means, any(lane.busy for lane in self._lanes.values())

        def look(session: QueueSession) -> list[str]:
            session.ripen()
            if busy:
                session.beat(means.owner)
            return session.lanes()

        lanes = await means.queue.do(look)
        while await self._expire() == MOST_EXPIRED:
            pass  # there may be more, and others have had their turn
        for name in lanes:
            if name.startswith(PREFIX):
                lane = self.lane(name.removeprefix(PREFIX))
                lane.changed = True
                lane.wake()
        self._stirred.set()

    async def _expire(self) -> int:
        """End some of what has waited too long; how many that was."""
        means = self.means
        expired = await means.queue.do(lambda session: end_expired(session, means, time.time()))
        for work, outcome in expired:
            log.info("asynchronous call %s (%s) expired in the queue", work.name, work.label)
            means.metrics.ended(work, outcome, time.time())
            means.ends.tell(work.name)
        if expired:
            self._ending.wake()
        return len(expired)

    async def prune(self) -> None:
        """Forget what ended long ago."""
        limit, more = time.time() - self.means.settings.job_retention_seconds, True
        while more:
            gone = await self.means.queue.do(lambda session: session.prune(limit, _PRUNED_AT_ONCE))
            more = gone == _PRUNED_AT_ONCE

    async def _measure_forever(self) -> None:
        """Backlogs are told soon after they change, and not for every change."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            lanes = [lane for lane in self._lanes.values() if lane.changed]
            try:
                await self._measure(lanes)
            except ServingError as error:
                log.debug("the backlog could not be measured: %s", error.message)
            await asyncio.sleep(_MEASURE_SECONDS)  # not for every change

    async def _measure(self, lanes: Sequence[Lane]) -> None:
        def measure(session: QueueSession) -> list[Backlog]:
            return [session.backlog(lane.name) for lane in lanes]

        for lane in lanes:
            lane.changed = False
        measured = await self.means.queue.do(measure) if lanes else []
        for lane, backlog in zip(lanes, measured, strict=True):
            row = self._rows.get(lane.endpoint)
            if row is not None:
                self.means.metrics.measured(row, backlog)
                if backlog.size and not instances(row):
                    self._wake(lane.endpoint)
            elif not backlog.size and not lane.busy and self.means.directory.table["version"]:
                self._drop(lane)

    def _wake(self, name: str) -> None:
        """There is work for an endpoint without a worker: where it scales, it gets one."""
        endpoint = self.means.directory.endpoints.get(name)
        if endpoint is not None:
            endpoint.wake()

    def _drop(self, lane: Lane) -> None:
        """Nothing is left of an endpoint that has gone."""
        lane.close()
        self._lanes.pop(lane.endpoint, None)


def _is_needed(name: str, session: QueueSession) -> bool:
    """Does an open work name this file of the spool?"""
    work = session.get(job_of(name))
    named = [] if work is None else [work.body.get("spooled"), (work.outcome or {}).get("spooled")]
    return work is not None and work.state in OPEN and name in named


def _sizes(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    return [(one["name"], one["weight"], one["count"]) for one in row["variants"]]
