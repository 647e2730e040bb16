"""A front's line to the jobs process: questions about asynchronous calls over ``jobs.sock``, many at a time.

A frame is two 32-bit little-endian lengths (of all that follows, and of the JSON in it), JSON, and bytes::

    question   {"id": 1, "what": "submit", "args": {…}} + payload        {"id": 1, "what": "left"}: nobody waits for it
    answer     {"id": 1, "value": …} + bytes                             {"id": 1, "error": NAME, "message": …}

Every question may be asked twice: a submission carries the id of its job, and putting that into the queue again
changes nothing. So one whose connection has broken is asked again, for a few seconds, while control replaces the
process; when that time is over nothing was promised to anybody.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from serving.errors import BY_NAME, ServiceUnavailable, ServingError, Throttled

_HEAD = struct.Struct("<II")
_LONGEST_FRAME = 2**28
#: Bytes that either side reads ahead of what it takes apart.
READ_AHEAD = 2**20
#: A question is asked again for so long after its connection broke.
_PATIENCE_SECONDS = 10.0
#: An answer that does not come within this, beyond what the question itself says it may take, is given up.
_ANSWER_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
#: Questions, and bytes of their payloads, that may be on their way at a time.
_MOST_ASKED, _MOST_BYTES = 8192, 2**27


def frame(fields: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """A question or an answer as it goes over the socket."""
    text = orjson.dumps(fields)
    return b"".join((_HEAD.pack(len(text) + len(payload), len(text)), text, payload))


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next frame. Raises ``asyncio.IncompleteReadError`` at the end, and ``ValueError`` for what is no frame."""
    whole, text = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if not text <= whole <= _LONGEST_FRAME:
        raise ValueError("not a frame")
    data = await reader.readexactly(whole)
    return orjson.loads(data[:text]), data[text:]


class Outgoing:
    """Frames of one turn of the loop go out in one write: what comes together is answered together."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: list[bytes] = []

    def send(self, fields: Mapping[str, Any], payload: bytes = b"") -> None:
        """A frame; nobody minds when the other side has gone."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frame(fields, payload))

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if not self._writer.is_closing():
            self._writer.write(b"".join(frames))


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
                    answer.set_exception(BY_NAME.get(fields["error"], ServiceUnavailable)(fields["message"]))
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


class JobsLink:
    """The line of one front. ``start`` asks control to have a jobs process, and returns when it listens."""

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
        if self._asked >= _MOST_ASKED or self._bytes + len(payload) > _MOST_BYTES:
            raise Throttled("Too many asynchronous calls are being taken in; please try again.")
        self._asked += 1
        self._bytes += len(payload)
        try:
            async with asyncio.timeout(wait + _ANSWER_SECONDS):
                return await self._ask(what, args, payload)
        except TimeoutError:
            raise ServiceUnavailable("The queue of asynchronous calls does not answer.") from None
        finally:
            self._asked -= 1
            self._bytes -= len(payload)

    async def _ask(self, what: str, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        broken_at = 0.0
        while True:
            try:
                line = await self._connected()
                return await line.ask(what, args, payload)
            except (_Broken, OSError):
                broken_at = broken_at or time.monotonic()
                if time.monotonic() - broken_at > _PATIENCE_SECONDS:
                    raise ServiceUnavailable("The queue of asynchronous calls cannot be reached.") from None
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
