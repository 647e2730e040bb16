"""One front's channel as a worker sees it: frames in, answers out, never blocking."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from serving.workers import wire
from serving.workers.batcher import Call

_MOST_BUFFERS = 64


class Connection:
    """A front's channel. What a send leaves over goes out as the socket drains; nothing is copied for it."""

    __slots__ = ("_left", "calls", "closed", "reader", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reader = wire.RequestReader()
        self.calls: dict[int, Call] = {}
        self.closed = False
        self._left: deque[bytes | memoryview] = deque()

    def send(self, frames: Sequence[bytes], wait_writable: Callable[[Connection], None]) -> None:
        """Write frames in order, after those that still wait. ``wait_writable`` hears when some are left over."""
        if self.closed or not frames:
            return
        if self._left:
            self._left.extend(frames)
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the read side will see the end
        if sent < len(data):
            self._left.append(memoryview(data)[sent:])
            wait_writable(self)

    def flush(self) -> bool:
        """Write on what was left over, once the socket is writable. True when nothing is left."""
        left = self._left
        try:
            sent = self.sock.sendmsg(list(islice(left, _MOST_BUFFERS)))
        except BlockingIOError:
            return False
        except OSError:
            left.clear()
            return True
        while left and sent >= len(left[0]):
            sent -= len(left.popleft())
        if sent:
            left[0] = memoryview(left[0])[sent:]
        return not left
