"""What a transform job leaves beside its outputs: the object that names bad records, and the manifests of what it read
and wrote. Everything blocks but the pages of its rows."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import orjson

from serving.jobs.parts import Part
from serving.jobs.queue import QueueThread
from serving.jobs.transform_calls import Hop
from serving.jobs.transform_plan import Terms
from serving.jobs.work import State, Work
from serving.objects import ObjectStore

_PAGE = 500
_COPY = 1 << 20


class Leavings:
    """One job's. ``folder``: of the job in the spool, where its objects' errors lie as ``INDEX.errors``."""

    def __init__(self, terms: Terms, objects: ObjectStore, queue: QueueThread, folder: Path, hop: Hop) -> None:
        self._terms, self._objects, self._queue, self._folder, self._hop = terms, objects, queue, folder, hop

    async def publish_errors(self) -> None:
        """Write what is wrong with which record of which object, in the order of the objects."""
        path = self._folder / "errors.jsonl"
        at = 0
        with Part(path) as part:
            async for rows in self.rows("done", "failed"):
                indexes = [row.body["index"] for row in rows if row.outcome and row.outcome.get("errors")]
                at = await self._hop(self._copy, indexes, part, at)
        await self._hop(self._objects.put, self._terms.errors_url, path, "application/jsonlines")

    def _copy(self, indexes: list[int], part: Part, at: int) -> int:
        for index in indexes:
            with suppress(FileNotFoundError), (self._folder / f"{index}.errors").open("rb") as file:
                while chunk := file.read(_COPY):
                    at = part.write(at, [chunk])
        return at

    async def publish_manifests(self, started: float) -> None:
        """DataCaptureConfig of a job: which objects were read, and which were written for them (``behaviour/04``)."""
        hour = time.strftime("%Y/%m/%d/%H", time.gmtime(started))
        name = uuid.uuid5(uuid.NAMESPACE_URL, self._terms.id)
        for kind, member in (("input", "url"), ("output", "output")):
            path = self._folder / f"{kind}.json"
            await self._manifest(path, lambda row, member=member: str(row.body[member]))  # type: ignore[misc]  # a default argument
            url = f"{self._terms.capture.rstrip('/')}/{kind}/{hour}/{name}.json"
            await self._hop(self._objects.put, url, path, "application/json")

    async def _manifest(self, path: Path, url: Callable[[Work], str]) -> None:
        prefix: str | None = None
        async for rows in self.rows("done"):
            known = [] if prefix is None else [prefix]
            prefix = os.path.commonprefix([url(row) for row in rows] + known)  # noqa: RUF071  URLs are no paths
        head = prefix[: prefix.rfind("/") + 1] if prefix else ""
        with Part(path) as part:
            at = part.write(0, [b"[" + orjson.dumps({"prefix": head})])
            async for rows in self.rows("done"):
                keys = [orjson.dumps(url(row).removeprefix(head)) for row in rows]
                at = await self._hop(part.write, at, [b"," + b",".join(keys)])
            part.write(at, [b"]"])

    async def remove_outputs(self) -> None:
        """A stopped job leaves no output (``behaviour/04``): remove those of the objects that were through, and of the
        others whose process ended, perhaps between the output and the row."""
        async for rows in self.rows("done", "cancelled"):
            urls = [str(row.body["output"]) for row in rows if row.state == "done" or row.deaths]
            await self._hop(self._delete, urls)

    def _delete(self, urls: list[str]) -> None:
        for url in urls:
            self._objects.delete(url)

    async def rows(self, *states: State) -> AsyncIterator[list[Work]]:
        """The job's rows in such states, in their order, some at a time."""
        after = 0
        while True:
            page: list[Work] = await self._queue.do(
                lambda session, after=after: session.page(self._terms.lane, states, after, _PAGE, newest_first=False)  # type: ignore[misc]  # a default argument
            )
            if page:
                yield page
            if len(page) < _PAGE:
                return
            after = page[-1].id
