"""The connection of a front to one worker, and the calls on it. Runs on the front's event loop; nothing blocks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from serving.errors import ServiceUnavailable, ServingError
from serving.types import Invocation, Reply
from serving.workers import cells, wire
from serving.workers.admission import Flow

#: Frames with more than this are not joined with others.
_LARGE = 256 * 1024

log = logging.getLogger("serving.front")

Done = Callable[["Reply | ServingError"], None]


class Address(NamedTuple):
    """A ready worker, as the routing table names it."""

    worker_id: str
    socket: str
    cell: str


class Takes(Protocol):
    """Whoever the parts of an answer are for (``parts.py``)."""

    def add(self, part: bytes) -> None: ...  # noqa: D102


class Owner(Protocol):
    """What a channel and a call need of their pool."""

    variant: str
    loop: asyncio.AbstractEventLoop

    def cancel(self, call: Call) -> None: ...  # noqa: D102
    def on_connected(self, channel: Channel) -> None: ...  # noqa: D102
    def on_answer(self, channel: Channel, call: Call, answer: wire.Answer) -> None: ...  # noqa: D102
    def on_lost(self, channel: Channel, calls: list[Call], reading: cells.Reading) -> None: ...  # noqa: D102


class Call:
    """One accepted call until its answer. ``strikes``: workers that ended while it may have been running; ``alone``: it
    runs with no other from now on; ``avoid``: a worker that asked to place it elsewhere; ``parts``: those of an answer
    that has begun; ``deadline``: when (the next of them) must have come."""

    __slots__ = (
        "alone",
        "avoid",
        "channel",
        "deadline",
        "done",
        "flow",
        "id",
        "invocation",
        "parked",
        "parts",
        "pool",
        "sent",
        "started",
        "strikes",
    )

    def __init__(self, pool: Owner, flow: Flow, id: int, invocation: Invocation, done: Done, started: float) -> None:
        self.pool = pool
        self.flow = flow
        self.id = id
        self.invocation = invocation
        self.done: Done | None = done
        self.started = started
        self.sent = started
        self.deadline = invocation.deadline
        self.strikes = invocation.strikes
        self.alone = invocation.strikes > 0
        self.avoid: Channel | None = None
        self.channel: Channel | None = None
        self.parked = False
        self.parts: Takes | None = None

    @property
    def variant(self) -> str:
        """Who was chosen to answer."""
        return self.pool.variant

    def cancel(self) -> None:
        """The caller has left. Does nothing once the call is answered."""
        self.pool.cancel(self)


class Channel(asyncio.Protocol):
    """The connection to one worker. One write per loop tick however many calls are sent in it."""

    def __init__(self, pool: Owner, address: Address) -> None:
        self.address = address
        self.pending: dict[int, Call] = {}
        self.operations: dict[int, asyncio.Future[wire.Answer]] = {}
        self.retiring = False
        self.stalled = False
        self.lost = False
        self.read_at = 0.0
        self._pool = pool
        self._loop = pool.loop
        self._reader = wire.AnswerReader()
        self._out: list[bytes] = []
        self._large = False
        self._transport: asyncio.Transport | None = None
        self.cell = cells.Reader(Path(address.cell))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: calls may come."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, though not by inheritance
        self._pool.on_connected(self)

    def send(self, *frame: bytes) -> None:
        """Queue a frame, whole or in parts, for this tick's write."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += frame
        if len(frame[-1]) > _LARGE:
            self._large = True

    def _flush(self) -> None:
        out, self._out = self._out, []
        large, self._large = self._large, False
        if self._transport is None or self.lost:
            return
        if large:
            self._transport.writelines(out)  # joined they would be there twice: a body may be a gigabyte
        else:
            self._transport.write(b"".join(out))

    @property
    def outstanding(self) -> int:
        """Calls in flight."""
        return len(self.pending)

    def data_received(self, data: bytes) -> None:
        """Answers: each goes to its caller; one broken caller must not cost the others theirs."""
        self.read_at = time.monotonic()
        try:
            self._reader.feed(data, self._take)
        except wire.BrokenFrame as error:
            log.error("worker %s sent a broken frame: %s", self.address.worker_id, error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, answer: wire.Answer) -> None:
        call = self.pending.pop(answer.id, None)
        if call is not None:
            self._pool.on_answer(self, call, answer)
            if self.retiring:
                self.close_if_idle()
            return
        waiting = self.operations.pop(answer.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def withdraw(self, call: Call) -> None:
        """The call is no longer this worker's: its answer, if it comes, is thrown away."""
        if self.pending.pop(call.id, None) is None:
            return
        if not self.lost:
            self.send(wire.pack_request(wire.CANCEL, call.id, 0.0, 0.0, b"", b""))
        if self.retiring:
            self._loop.call_soon(self.close_if_idle)

    def retire(self) -> None:
        """Take no new calls; close when the last is answered."""
        self.retiring = True
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close if nothing is in flight."""
        if not self.pending and not self.operations and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has gone: all its calls are placed again, or fail, now."""
        self.lost = True
        reading = self.cell.read()
        self.cell.close()
        for waiting in self.operations.values():
            if not waiting.done():
                waiting.set_exception(ServiceUnavailable("the worker ended"))
        calls, self.pending = list(self.pending.values()), {}
        self._pool.on_lost(self, calls, reading)
