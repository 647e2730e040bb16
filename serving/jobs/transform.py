"""The transform jobs that the routing table names: each is run until control knows how it ended."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from serving.endpoint import Directory
from serving.jobs.queue import QueueThread
from serving.jobs.transform_plan import own_lane
from serving.jobs.transform_run import Ask, JobRun, Means
from serving.objects import ObjectStore
from serving.watch.metrics import Registry

#: A job whose run has broken is taken up again after so long.
_AGAIN_SECONDS = 5.0
_OWNER = "transform-"

log = logging.getLogger("serving.jobs")

_Key = tuple[str, float]


class Transforms:
    """Build, ``start`` once the queue is open, ``apply`` every table, ``close``."""

    def __init__(
        self, queue: QueueThread, objects: ObjectStore, directory: Directory, registry: Registry, ask: Ask
    ) -> None:
        """``directory`` has each job's workers as the endpoint ``transform-job/NAME``; ``ask`` reaches control."""
        self._means = Means(queue, objects, directory, registry, ask, f"{_OWNER}{uuid.uuid4().hex}")
        self._runs: dict[_Key, JobRun] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closing = False

    async def start(self) -> None:
        """What earlier processes had leased is to be done again, and the parts of jobs that have ended are removed.
        Raises ``ServiceUnavailable``."""
        await self._means.queue.do(
            lambda session: session.rescue([one for one in session.owners() if one.startswith(_OWNER)])
        )
        folder = self._means.objects.spool / "transform"
        for left in sorted(folder.iterdir()) if folder.is_dir() else ():
            lane = own_lane(left.name)
            if not (await self._means.queue.do(lambda session, lane=lane: session.backlog(lane))).size:  # type: ignore[misc]  # a default argument
                await asyncio.to_thread(shutil.rmtree, left, True)

    def apply(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Work by the table's ``transforms`` from now on: new jobs are begun, those that are gone are left."""
        if self._closing:
            return
        wanted = {(row["name"], float(row["created"])): row for row in rows}
        for key in set(self._runs) - set(wanted):
            left = asyncio.create_task(self._leave(self._runs.pop(key), self._tasks.pop(key)))
            self._leaving.add(left)
            left.add_done_callback(self._leaving.discard)
        for key, row in wanted.items():
            if key in self._runs:
                self._runs[key].update(row)
            else:
                self._begin(key, row)

    async def _leave(self, run: JobRun, task: asyncio.Task[None]) -> None:
        """The job is no longer in the table: it has ended, and usually we have said so ourselves."""
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            await run.abandon()

    def _begin(self, key: _Key, row: Mapping[str, Any]) -> None:
        run = JobRun(row, self._means)
        self._runs[key] = run
        self._tasks[key] = asyncio.create_task(self._follow(key, run))

    async def _follow(self, key: _Key, run: JobRun) -> None:
        """A defect of ours must not leave a job behind: it goes on where it was."""
        try:
            await run.run()
        except Exception:
            log.exception("transform job %s has to be taken up again", key[0])
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._again, key, run)

    def _again(self, key: _Key, run: JobRun) -> None:
        if self._runs.get(key) is run and not self._closing:
            self._begin(key, run.row)

    async def close(self) -> None:
        """Stop all runs: what they had written is kept and handed back."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        tasks = [*self._tasks.values(), *self._leaving]
        if tasks:
            await asyncio.wait(tasks)
