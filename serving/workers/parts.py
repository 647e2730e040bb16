"""A streamed answer as its front sees it, from its first part on. Runs on the front's event loop; nothing blocks.

The worker may send as much as it has credit for, and gets more as the caller takes what has come: what waits here is
bounded by ``wire.STREAM_WINDOW`` and one part.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.errors import ServingError
from serving.types import Reply
from serving.workers import wire
from serving.workers.channel import Call, Channel

#: Credit is given in pieces of at least so much.
_PIECE = wire.STREAM_WINDOW // 4

Take = Callable[[bytes], None]
End = Callable[["ServingError | None"], None]
Over = Callable[[], None]


class Parts:
    """The parts after the first, for one consumer: it ``follow``s, and ``grant``s for every part, the first included,
    once it is out of the way."""

    __slots__ = (
        "_call", "_channel", "_early", "_end", "_over", "_owed", "_result", "_seconds", "_take", "_taps", "_unspent",
        "_until",
    )  # fmt: skip

    def __init__(self, channel: Channel, call: Call, first: int, now: float) -> None:
        """``first``: bytes of the first part."""
        self._channel = channel
        self._call = call
        self._seconds = call.invocation.deadline - call.started
        self._until = call.started + call.invocation.stream_seconds
        self._unspent = wire.STREAM_WINDOW - wire.cost(first)
        self._owed = 0
        self._early: list[bytes] = []
        self._result: Reply | ServingError | None = None
        self._take: Take | None = None
        self._end: End | None = None
        self._taps: tuple[tuple[Take, Over], ...] = ()
        self._over = False
        call.invocation = call.invocation._replace(body=b"")  # nobody will need it again
        self._set_deadline(now)

    # -- the consumer's -------------------------------------------------------------------------------------------

    def follow(self, take: Take, end: End) -> None:
        """``take`` gets each part as it comes, then ``end`` None or what broke the stream. Both are called at once for
        what has come already."""
        self._take, self._end = take, end
        early, self._early = self._early, []
        for part in early:
            take(part)
        if self._result is not None:
            self._tell_end(self._result)

    def grant(self, part: int) -> None:
        """A part of so many bytes is out of the way: there is room for more."""
        self._owed += wire.cost(part)
        call, channel = self._call, self._channel
        if self._owed >= _PIECE and call.done is not None and not channel.lost:
            channel.send(wire.pack_credit(call.id, self._owed))
            self._unspent += self._owed
            self._owed = 0
            self._set_deadline(time.monotonic())

    def cancel(self) -> None:
        """The caller has left. Does nothing once the answer has ended."""
        self._take = self._end = None
        self._early.clear()
        self._call.cancel()
        self._tell_taps()

    # -- those who look on----------------------------------------------------------------------------------------

    def tap(self, take: Take, end: Over) -> None:
        """Have ``take`` see each part that comes from now on, and ``end`` that no more will, or that nobody wants
        them. The consumer's pace is not changed by it."""
        if self._over:
            end()
        else:
            self._taps += ((take, end),)

    def _tell_taps(self) -> None:
        self._over = True
        taps, self._taps = self._taps, ()
        for _, end in taps:
            end()

    # -- the pool's -----------------------------------------------------------------------------------------------

    def add(self, part: bytes) -> None:
        """A part has come."""
        self._unspent -= wire.cost(len(part))
        self._set_deadline(self._channel.read_at)
        for take, _ in self._taps:
            take(part)
        if self._take is not None:
            self._take(part)
        else:
            self._early.append(part)

    def ended(self, result: Reply | ServingError) -> None:
        """The last part has come, or none will."""
        self._result = result
        try:
            self._tell_end(result)
        finally:
            self._tell_taps()

    def _tell_end(self, result: Reply | ServingError) -> None:
        end, self._take, self._end = self._end, None, None
        if end is not None:
            end(result if isinstance(result, ServingError) else None)

    def _set_deadline(self, now: float) -> None:
        """The next part is due in good time only where the worker may send one."""
        due = now + self._seconds if self._unspent > 0 else self._until
        self._call.deadline = min(due, self._until)
