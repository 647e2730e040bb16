"""A front's line to another process of the server: questions over its socket (``frames.py``), many at a time.

A question whose connection has broken is asked again, for a few seconds, while control replaces the process, if asking
twice changes nothing; when that time is over nothing was promised to anybody.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from serving import frames
from serving.api.desk import READ_AHEAD, Outgoing, read_frame
from serving.errors import ServiceUnavailable, ServingError, Throttled

#: A question is asked again for so long after its connection broke.
_PATIENCE_SECONDS = 10.0
#: An answer that does not come within this, beyond what the question itself says it may take, is given up.
_ANSWER_SECONDS = 30.0
_PAUSE_SECONDS = 0.05


class _Broken(Exception):
    """The connection ended before the answer."""


class _Line:
    """One connection and who waits on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.alive = True
        self._reader = reader
        self._writer = writer
        self._outgoing = Outgoing(writer)
        self._answers: dict[int, asyncio.Future[tuple[Any, bytes]]] = {}
        self._ids = itertools.count(1)
        self._hearing = asyncio.create_task(self._hear())

    async def ask(self, what: str, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        """Raises ``_Broken``, or the answer's ``ServingError``. Who leaves is taken to want nothing any more."""
        if not self.alive:
            raise _Broken
        id = next(self._ids)
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        try:
            self._outgoing.send({"id": id, "what": what, "args": args}, payload)
            value: tuple[Any, bytes] = await answer
            return value
        except asyncio.CancelledError:
            self._outgoing.send({"id": id, "what": "left"})
            raise
        finally:
            del self._answers[id]

    async def _hear(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, ValueError, KeyError):
            while True:
                fields, payload = await read_frame(self._reader)
                answer = self._answers.get(fields["id"])
                if answer is None or answer.done():
                    continue
                if "error" in fields:
                    answer.set_exception(frames.error_of(fields))
                else:
                    answer.set_result((fields["value"], payload))
        self.alive = False
        self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(_Broken())

    def close(self) -> None:
        """Nobody asks any more."""
        self._hearing.cancel()
        self.alive = False
        self._writer.close()


class DeskLink:
    """The line of one front to one process. ``start`` asks control to have such a process, and returns when it
    listens. What it says when there is no answer, and how much may be on its way, each kind of process says itself."""

    #: There is too much on its way; no answer in time; nobody there; the connection broke under a question.
    busy: ClassVar[str]
    silent: ClassVar[str]
    unreachable: ClassVar[str]
    broken: ClassVar[str]
    #: Is a question asked again when its connection has broken?
    repeats: ClassVar[bool] = True
    #: Questions, and bytes of their payloads, that may be on their way at a time.
    most_asked: ClassVar[int] = 8192
    most_bytes: ClassVar[int] = 2**27

    def __init__(self, path: Path, start: Callable[[], Awaitable[Any]]) -> None:
        self._path = path
        self._start = start
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()
        self._asked = self._bytes = 0

    async def ask(
        self, what: str, args: Mapping[str, Any], payload: bytes = b"", wait: float = 0.0
    ) -> tuple[Any, bytes]:
        """The answer to a question, and the bytes that came with it. ``wait``: seconds that answering may take because
        the question says so. Raises the answer's ``ServingError``, ``Throttled`` when too much is on its way, and
        ``ServiceUnavailable`` when there is no answer."""
        if self._asked >= self.most_asked or self._bytes + len(payload) > self.most_bytes:
            raise Throttled(self.busy)
        self._asked += 1
        self._bytes += len(payload)
        try:
            async with asyncio.timeout(wait + _ANSWER_SECONDS):
                return await self._ask(what, args, payload)
        except TimeoutError:
            raise ServiceUnavailable(self.silent) from None
        finally:
            self._asked -= 1
            self._bytes -= len(payload)

    async def _ask(self, what: str, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        broken_at = 0.0
        while True:
            asking = False
            try:
                line = await self._connected()
                asking = line.alive
                return await line.ask(what, args, payload)
            except (_Broken, OSError):
                if asking and not self.repeats:
                    raise ServiceUnavailable(self.broken) from None
                broken_at = broken_at or time.monotonic()
                if time.monotonic() - broken_at > _PATIENCE_SECONDS:
                    raise ServiceUnavailable(self.unreachable) from None
            await asyncio.sleep(_PAUSE_SECONDS)  # between two attempts to connect

    async def _connected(self) -> _Line:
        if self._line is not None and self._line.alive:
            return self._line
        async with self._connecting:
            if self._line is None or not self._line.alive:
                self._line = await self._connect()
            return self._line

    async def _connect(self) -> _Line:
        """Raises ``OSError``: the process that has just come up has just gone."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path), limit=READ_AHEAD)
        except OSError:
            with suppress(ServingError):  # there may be one soon
                await self._start()
            reader, writer = await asyncio.open_unix_connection(str(self._path), limit=READ_AHEAD)
        return _Line(reader, writer)

    def close(self) -> None:
        """Ask nothing more."""
        if self._line is not None:
            self._line.close()
