"""A reply on its way out as an event stream, at the pace of whoever reads it. Used by both doors.

The first part comes with the reply; the others follow as the model makes them, each asked for only when there is room.
What goes wrong before the first part is an ordinary HTTP error; afterwards it is a frame, and then a clean end, because
clients drop an unfinished frame without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from serving.api import eventstream
from serving.errors import InvocationTimedOut, ModelError, ServingError
from serving.types import Reply
from serving.workers.parts import End, Take

#: A whole answer goes out in parts of this size, so that no loop is held up for long.
_PART = 2**20
_LONGEST_MESSAGE = 2048


class Rest(Protocol):
    """The parts after the first (``workers/parts.py``)."""

    def follow(self, take: Take, end: End) -> None: ...  # noqa: D102
    def grant(self, part: int) -> None: ...  # noqa: D102
    def cancel(self) -> None: ...  # noqa: D102


class _Whole:
    """The rest of an answer that is here already: a part for each that has gone out."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)[_PART:]
        self._take: Take | None = None
        self._end: End | None = None

    def follow(self, take: Take, end: End) -> None:
        self._take, self._end = take, end
        if not self._body:
            end(None)

    def grant(self, part: int) -> None:
        take, end, body = self._take, self._end, self._body
        if take is None or end is None or not body:
            return
        self._body = body[_PART:]
        take(bytes(body[:_PART]))
        if not self._body:
            end(None)

    def cancel(self) -> None:
        self._take = self._end = None


def split(reply: Reply) -> tuple[bytes, Rest]:
    """The first part of a reply and where the others come from."""
    if reply.rest is not None:
        return reply.body, cast("Rest", reply.rest)
    return reply.body[:_PART], _Whole(reply.body)


def broken(error: ServingError) -> bytes:
    """The frame for what went wrong after the first part (SageMaker Runtime API, ResponseStream)."""
    message = error.message[:_LONGEST_MESSAGE]
    if isinstance(error, ModelError):
        timed_out = isinstance(error, InvocationTimedOut)
        return eventstream.exception(
            "ModelStreamError", message, "ModelInvocationTimeExceeded" if timed_out else "StreamBroken"
        )
    return eventstream.exception("InternalStreamFailure", message)


class Outgoing:
    """One stream on one connection of the fast door. ``write`` takes frames; ``over`` is called once, after the last
    has been written. While the client reads too slowly (``pause``) parts that were on their way are still written;
    no more are asked for until it reads again (``resume``)."""

    def __init__(self, rest: Rest, first: bytes, write: Callable[[bytes], None], over: Callable[[], None]) -> None:
        """``first``: the first part; writing it is this object's too."""
        self._rest = rest
        self._first = first
        self._write = write
        self._over = over
        self._paused = False
        self._unasked: list[int] = []
        self._ended = False
        self._granting = False

    def start(self) -> None:
        """Write the first part and whatever has come since."""
        first, self._first = self._first, b""
        if first:
            self._write(eventstream.payload_part(first))
        self._unasked.append(len(first))
        self._rest.follow(self._take, self._end)
        self._ask()

    def pause(self) -> None:
        """Ask for no more."""
        self._paused = True

    def resume(self) -> None:
        """There is room again."""
        self._paused = False
        self._ask()

    def cut(self, error: ServingError) -> None:
        """It must end now."""
        if not self._ended:
            self._rest.cancel()
            self._end(error)

    def _take(self, part: bytes) -> None:
        self._write(eventstream.payload_part(part))
        self._unasked.append(len(part))
        self._ask()

    def _ask(self) -> None:
        """Ask for as many parts as have been written. An answer may come at once, from within."""
        if self._granting:
            return
        self._granting = True
        try:
            while self._unasked and not self._paused and not self._ended:
                self._rest.grant(self._unasked.pop())
        finally:
            self._granting = False

    def _end(self, error: ServingError | None) -> None:
        self._ended = True
        if error is not None:
            self._write(broken(error))
        self._over()


class StreamedResponse(StreamingResponse):
    """The same for an ASGI server, which asks for each frame. However it ends, the model is let go."""

    def __init__(self, reply: Reply, headers: dict[str, str]) -> None:
        first, self._rest = split(reply)
        super().__init__(self._frames(first), 200, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._rest.cancel()  # while parts come in every turn of the loop, no task group stops who takes them
            return message

        try:
            await super().__call__(scope, heard, send)
        finally:
            self._rest.cancel()

    async def _frames(self, first: bytes) -> AsyncIterator[bytes]:
        coming: asyncio.Queue[bytes | ServingError | None] = asyncio.Queue()  # never longer than the model has credit
        self._rest.follow(coming.put_nowait, coming.put_nowait)
        part: bytes | ServingError | None = first
        while isinstance(part, bytes):
            if part:
                yield eventstream.payload_part(part)
            self._rest.grant(len(part))
            part = await coming.get()
        if part is not None:
            yield broken(part)
