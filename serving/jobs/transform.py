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
        self._swept = False
        self._closing = False

    async def start(self) -> None:
        """What earlier processes had leased is to be done again. Raises ``ServiceUnavailable``."""
        await self._means.queue.do(
            lambda session: session.rescue([one for one in session.owners() if one.startswith(_OWNER)])
        )  # fmt: skip

    def apply(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Work by the table's ``transforms`` from now on: new jobs are begun, those that are gone are left."""
        if self._closing:
            return
        wanted = {(row["name"], float(row["created"])): row for row in rows}
        for key in set(self._tasks) - set(wanted):
            self._tasks.pop(key).cancel()
            del self._runs[key]
        for key, row in wanted.items():
            if key in self._runs:
                self._runs[key].update(row)
            else:
                self._begin(key, row)
        self._sweep({name for name, _ in wanted})

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

    def _sweep(self, wanted: set[str]) -> None:
        """Once: remove the parts of jobs that ended without this process."""
        if self._swept:
            return
        self._swept = True
        folder = self._means.objects.spool / "transform"
        gone = [one for one in folder.iterdir() if one.name not in wanted] if folder.is_dir() else []
        for one in gone:
            shutil.rmtree(one, ignore_errors=True)

    async def close(self) -> None:
        """Stop all runs: what they had written is kept and handed back."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
