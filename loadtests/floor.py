"""The floor: the least that a front and one worker can be in Python. What the server costs above it is ours to answer.

An asyncio + httptools front on uvloop and one worker over a Unix socket, with the server's own parser and engine:
no routing, no limits, no errors, no metrics. A frame is ``length:u32 id:u32 body``; each side writes the frames of
one loop tick, or of one read, together, and the worker predicts once for all the calls that one read brought.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np

    from serving.runtimes.base import TensorModel

_FRAME = struct.Struct("<II")
_READ_BYTES = 1 << 20


class Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are whole now: (id, body)."""
        buffer = self._buffer
        buffer += data
        at, size = 0, len(buffer)
        while size - at >= _FRAME.size:
            length, call = _FRAME.unpack_from(buffer, at)
            end = at + _FRAME.size + length
            if end > size:
                break
            yield call, bytes(buffer[at + _FRAME.size : end])
            at = end
        del buffer[:at]


def frame(call: int, body: bytes) -> bytes:
    """One frame."""
    return _FRAME.pack(len(body), call) + body


class Link(asyncio.Protocol):
    """The front's end of the Unix socket: joins the frames of a loop tick, hands replies to those who wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._outgoing: list[bytes] = []
        self._waiting: dict[int, Callable[[bytes], None]] = {}
        self._next = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The worker's socket."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only

    def send(self, body: bytes, reply: Callable[[bytes], None]) -> None:
        """Pass a call on; ``reply`` is called with the answer's body."""
        self._next = (self._next + 1) & 0xFFFFFFFF
        self._waiting[self._next] = reply
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(frame(self._next, body))

    def _flush(self) -> None:
        self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        """Answers."""
        for call, body in self._frames.feed(data):
            self._waiting.pop(call)(body)


class Front(asyncio.Protocol):
    """An HTTP connection: every request, whatever its path, is a call of the one model."""

    def __init__(self, link: Link, media_type: str) -> None:
        import httptools

        self._link = link
        self._head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: %d\r\n\r\n".encode()
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._link.send(body, self._reply)

    def _reply(self, body: bytes) -> None:
        if not self._transport.is_closing():  # a write to a gone client must not break the shared link
            self._transport.write(self._head % len(body) + body)


def load_model(path: Path, threads: int) -> TensorModel:
    """The artifact at ``path`` with the server's own runtime, its fastest engine chosen."""
    from serving.runtimes.base import LoadSettings, TensorModel
    from serving.runtimes.registry import load
    from serving.workers.artifacts import recognise

    model = load(recognise(path), LoadSettings(threads=threads))
    if not isinstance(model, TensorModel):
        raise TypeError("the floor serves tensor models only")
    model.optimise()
    return model


def stacked(model: TensorModel, bodies: Sequence[bytes], content_type: str) -> tuple[np.ndarray, list[int]]:
    """The rows of all ``bodies`` in one array, and the count of each. Raises ``ValueError`` for anything unusual."""
    from serving.codecs.registry import decode_rows

    together = decode_rows(bodies, content_type, model.spec)
    if together is None:
        raise ValueError("the floor takes plain numeric rows only")
    return together


def work(channel: socket.socket, path: Path, content_type: str, threads: int) -> None:
    """The worker: one read, one prediction, one write, for ever."""
    from serving.codecs.registry import encode_each

    model = load_model(path, threads)
    frames = Frames()
    channel.sendall(model.default_accept.encode())
    while data := channel.recv(_READ_BYTES):
        batch = list(frames.feed(data))
        if batch:
            rows, counts = stacked(model, [body for _, body in batch], content_type)
            bodies = encode_each(model.predict(rows), counts, model.default_accept, model.layout)
            channel.sendall(b"".join([frame(call, body) for (call, _), body in zip(batch, bodies, strict=True)]))


async def serve(channel: socket.socket, media_type: str, port: int) -> None:
    """The front."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(Link, sock=channel)
    server = await loop.create_server(lambda: Front(link, media_type), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """``python -m loadtests.floor --model ARTIFACT --port N [--content-type T] [--threads N]``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--content-type", default="text/csv")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        work(theirs, arguments.model, arguments.content_type, arguments.threads)
        os._exit(0)
    theirs.close()
    media_type = ours.recv(256).decode()  # sent when the model is loaded
    if not media_type:
        raise SystemExit("the floor's worker could not load the model")
    ours.setblocking(False)

    import uvloop

    uvloop.run(serve(ours, media_type, arguments.port))


if __name__ == "__main__":
    main()
