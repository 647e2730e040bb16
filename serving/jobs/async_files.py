"""Bytes of asynchronous calls on their way: inputs as they are handed to workers, answers until they are published.

What does not fit into a row lies in the spool, under names that tell whose it is: ``async-JOB.in`` and
``async-JOB-ATTEMPT.out``. A file is on the disk before the row that names it is; one that no open row names belongs to
nobody.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar, cast

from serving.errors import ObjectMissing, ObjectUnavailable
from serving.jobs.async_calls import LARGEST_INPUT, Outcome
from serving.jobs.work import Work
from serving.objects.base import ObjectStore
from serving.storage import write_atomic

T = TypeVar("T")

_THREADS = 32
#: Larger inputs are mapped and not read.
_READ = 2**20
_MARK = "async-"


def payload_file(job: str) -> str:
    """The spool's name of a payload that is too large for its row."""
    return f"{_MARK}{job}.in"


def answer_file(job: str, attempt: int) -> str:
    """The spool's name of an answer that is too large for its row."""
    return f"{_MARK}{job}-{attempt}.out"


def job_of(name: str) -> str:
    """Whose a file of the spool is; the reverse of both."""
    job, _, kind = name.removeprefix(_MARK).rpartition(".")
    return job.rpartition("-")[0] if kind == "out" else job


class Files:
    """The object store and its spool, for callers that can await."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(_THREADS, "objects")

    async def do(self, act: Callable[[], T]) -> T:
        """What ``act`` comes to, on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    def close(self) -> None:
        """Nothing more is begun; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- inputs ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def input(self, work: Work) -> AsyncIterator[bytes]:
        """The body of a call, as long as the ``with`` lasts: of any size, without a copy of a large one on our heap.
        Raises ``ObjectMissing``, ``ObjectUnavailable``."""
        body = work.body
        if not body.get("input") and not body.get("spooled"):
            yield work.payload
            return
        async with self._held(self._source(work)) as path:
            yield await self.do(lambda: _read(path))

    def _source(self, work: Work) -> AbstractContextManager[Path]:
        if work.body.get("input"):
            return self._objects.fetch(str(work.body["input"]))
        return nullcontext(self._objects.spool / str(work.body["spooled"]))

    @asynccontextmanager
    async def _held(self, source: AbstractContextManager[Path]) -> AsyncIterator[Path]:
        stack = ExitStack()
        entering = asyncio.ensure_future(self.do(lambda: stack.enter_context(source)))
        try:
            yield await asyncio.shield(entering)
        finally:
            entering.add_done_callback(lambda done: self._leave(stack, done))

    def _leave(self, stack: ExitStack, entered: asyncio.Future[Path]) -> None:
        """Let a source go, also one that was not there yet when its caller left."""
        if not entered.cancelled() and entered.exception() is None:
            with suppress(RuntimeError):  # everything ends
                self._threads.submit(stack.close)

    # -- what waits in the spool ----------------------------------------------------------------------------------

    async def spool(self, name: str, data: bytes) -> None:
        """Write a file of the spool; it is on the disk when this returns. Raises ``OSError``."""
        await self.do(lambda: write_atomic(self._objects.spool / name, data))

    async def discard(self, *names: str) -> None:
        """Remove files of the spool; nothing happens when there are none."""
        wanted = [name for name in names if name]
        if wanted:
            await self.do(lambda: _remove(self._objects.spool, wanted))

    async def spooled(self) -> list[str]:
        """The names of all these files, also of those that were being written."""

        def names() -> list[str]:
            spool = self._objects.spool
            return [one.name for pattern in (f"{_MARK}*", f".{_MARK}*.tmp") for one in spool.glob(pattern)]

        return await self.do(names)

    # -- objects --------------------------------------------------------------------------------------------------

    async def publish(self, outcome: Outcome, answer: bytes) -> None:
        """Put the final object; may be repeated, and after a crash is. Raises ``ServingError``."""
        if outcome.spooled:
            await self.do(lambda: self._publish_file(outcome))
        else:
            await self.put(outcome.location, answer, outcome.content_type)

    def _publish_file(self, outcome: Outcome) -> None:
        path = self._objects.spool / outcome.spooled
        if path.exists():
            self._objects.put(outcome.location, path, outcome.content_type)
            path.unlink(missing_ok=True)
        elif self._objects.stat(outcome.location) is None:  # else it was put, and only the note of that was lost
            raise ObjectMissing("The answer was lost from the spool before it could be uploaded.")

    async def put(self, url: str, content: bytes, content_type: str) -> None:
        """Put a small object. Raises ``ServingError``."""
        await self.do(lambda: self._objects.put(url, content, content_type))

    async def piece(self, url: str, offset: int, most: int) -> tuple[bytes, int]:
        """Up to ``most`` bytes of an object from ``offset`` on, and its size. Raises ``ServingError``."""
        return await self.do(lambda: self._piece(url, offset, most))

    def _piece(self, url: str, offset: int, most: int) -> tuple[bytes, int]:
        info = self._objects.stat(url)
        if info is None:
            raise ObjectMissing(f"There is no object {url}.")
        if offset >= info.size:
            return b"", info.size
        with self._objects.open(url, offset, info.version) as file:
            return file.read(most), info.size


def _read(path: Path) -> bytes:
    """A file's content, mapped when it is large. Not closed: the map goes with the last who holds it, as a call that
    timed out may still be on its way to a worker."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_INPUT:
                raise ObjectUnavailable(f"It has {size} bytes; at most {LARGEST_INPUT} can be read.", transient=False)
            if size <= _READ:
                return file.read()
            return cast("bytes", mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise ObjectMissing("The input has gone.") from None
    except OSError as error:
        raise ObjectUnavailable(f"The input could not be read: {error.strerror}.") from None


def _remove(folder: Path, names: Collection[str]) -> None:
    for name in names:
        with suppress(OSError):
            (folder / name).unlink()
