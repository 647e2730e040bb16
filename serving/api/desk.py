"""Where one process of a server is asked by others: a unix socket, many questions at a time on each connection.

What goes over it: ``frames.py``. Who asks: ``desk_link.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from serving import frames
from serving.errors import ServingError

#: Bytes that either side reads ahead of what it takes apart.
READ_AHEAD = 2**20

#: What is asked, and with which bytes -> a value, and bytes.
Answer = Callable[[Mapping[str, Any], bytes], Awaitable[tuple[Any, bytes]]]

log = logging.getLogger("serving.desk")


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next frame. Raises ``asyncio.IncompleteReadError`` at the end, and ``ValueError`` for what is no frame."""
    whole, text = frames.lengths(await reader.readexactly(frames.HEAD.size))
    return frames.unpack(await reader.readexactly(whole), text)


class Outgoing:
    """Frames of one turn of the loop go out in one write: what comes together is answered together."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: list[bytes] = []

    def send(self, fields: Mapping[str, Any], payload: bytes = b"") -> None:
        """A frame; nobody minds when the other side has gone."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frames.pack(fields, payload))

    def _flush(self) -> None:
        waiting, self._frames = self._frames, []
        if not self._writer.is_closing():
            self._writer.write(b"".join(waiting))


class Desk:
    """Where others ask: one connection each, many questions at a time, answered in any order."""

    def __init__(self, answers: Callable[[str], Awaitable[Answer]]) -> None:
        """``answers`` finds who answers a question, by its name; raises ``ServingError``."""
        self._answers = answers
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.idle = asyncio.Event()
        self.idle.set()

    async def start(self, path: Path) -> None:
        """Listen; a socket that a predecessor has left is replaced."""
        self._server = await asyncio.start_unix_server(self._serve, str(path), limit=READ_AHEAD)

    def close(self) -> None:
        """Hear nobody any more."""
        if self._server is not None:
            self._server.close()
        for connection in self._open:
            connection.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = asyncio.current_task()
        assert here is not None
        self._open.add(here)
        self.idle.clear()
        asked: dict[int, asyncio.Task[None]] = {}
        outgoing = Outgoing(writer)
        try:
            while True:
                fields, payload = await read_frame(reader)
                id = fields["id"]
                if fields["what"] == "left":
                    if id in asked:
                        asked[id].cancel()
                    continue
                asked[id] = task = asyncio.create_task(self._reply(outgoing, fields, payload))
                task.add_done_callback(lambda _, id=id: asked.pop(id))  # type: ignore[misc]  # a default argument
        except (OSError, asyncio.IncompleteReadError, ValueError, KeyError) as error:
            log.debug("a connection ended: %r", error)
        except asyncio.CancelledError:  # the end of the loop, which would be logged as a failure of this callback
            return
        finally:
            for task in asked.values():
                task.cancel()
            writer.close()
            self._open.discard(here)
            if not self._open:
                self.idle.set()

    async def _reply(self, outgoing: Outgoing, fields: Mapping[str, Any], payload: bytes) -> None:
        told: dict[str, Any] = {"id": fields["id"]}
        data = b""
        try:
            answer = await self._answers(fields["what"])
            told["value"], data = await answer(fields["args"], payload)
        except ServingError as error:
            told |= frames.failure(error)
        except Exception:
            log.exception("a question failed")
            told |= {"error": "InternalFailure", "message": "An internal failure occurred."}
        outgoing.send(told, data)
