"""The child side of control's channel: what a front and the jobs process are told, and what they ask.

A child reads its plan (JSON) from standard input and connects to ``control.sock``. JSON lines go both ways::

    child → control   {"ev": "hello", "child": 3}              {"ev": "seen", "version": 7}
                      {"ev": "stalled", "worker": "0001"}      {"ev": "ask", "id": 1, "what": "api", "args": {…}}
                      {"ev": "wake", "endpoint": "e", "name": "v"}
                      {"ev": "pressure", "endpoint": "e", "name": "v", "window": 1.0, "calls": 70, "pending_least": 3,
                       "pending": 5, "ready": 1}
                      {"ev": "demand", "endpoint": "e", "generation": 3, "name": "v", "pending": 2}
    control → child   {"op": "table", "table": {…}}            {"op": "stop"}
                      {"op": "answer", "id": 1, "value": …}    {"op": "answer", "id": 1, "error": NAME, "message": …}

When control ends, however it ends, the channel closes, and the child ends too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving.config import Settings
from serving.errors import BY_NAME, ServiceUnavailable
from serving.workers.elastic import Event

#: Questions to control: most are a matter of milliseconds, a change may be held until it has settled.
_ASK_SECONDS = 30.0
#: The longest line: a routing table of many workers.
_LONGEST_LINE = 2**26


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON values."""
    return {
        name: str(value) if isinstance(value, Path) else [str(v) for v in value] if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
    }


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The reverse of ``plain``."""
    paths = {name: Path(values[name]) for name in ("data_dir", "settings_file", "access_keys") if values[name]}
    many = {"file_roots": tuple(map(Path, values["file_roots"])), "notify_hosts": tuple(values["notify_hosts"])}
    return Settings(**{**values, **paths, **many})


class ControlLink:
    """A child's line to control: tables in, acknowledgements and questions out. ``knows`` is set with the first table,
    or when there will be none."""

    def __init__(self, number: int) -> None:
        """``number``: the child's, as its plan says."""
        self.knows = asyncio.Event()
        self._number = number
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def ask(self, what: str, args: Mapping[str, Any]) -> Any:
        """A question to control (``api.front.Ask``). Raises its ``ServingError``, and ``ServiceUnavailable`` when
        control does not answer."""
        if self._writer is None or self._writer.is_closing():
            raise ServiceUnavailable("The server is shutting down.")
        id = next(self._ids)
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        self._send({"ev": "ask", "id": id, "what": what, "args": args})
        try:
            return await asyncio.wait_for(answer, _ASK_SECONDS)
        except TimeoutError:
            raise ServiceUnavailable("The control process did not answer.") from None
        finally:
            self._answers.pop(id, None)

    def stalled(self, worker_id: str) -> None:
        """Tell control that a worker's interpreter does not turn (``pool.Pool.on_stalled``)."""
        self._send({"ev": "stalled", "worker": worker_id})

    def scaling(self, event: Event) -> None:
        """Tell control where calls want workers (``pool.Pool.on_scaling``)."""
        self._send(event.message())

    async def hear(self, path: Path, on_table: Callable[[dict[str, Any]], None], on_stop: Callable[[], None]) -> bool:
        """Follow control until it ends; returns whether it had said stop before. ``on_stop`` hears that word; what is
        asked afterwards is still answered."""
        told = False
        with suppress(OSError):  # control has gone
            reader, self._writer = await asyncio.open_unix_connection(str(path), limit=_LONGEST_LINE)
            self._send({"ev": "hello", "child": self._number})
            while line := await reader.readline():
                message = json.loads(line)
                if message["op"] == "table":
                    on_table(message["table"])
                    self.knows.set()
                    self._send({"ev": "seen", "version": message["table"]["version"]})
                elif message["op"] == "answer":
                    self._resolve(message)
                elif message["op"] == "stop":
                    told = True
                    on_stop()
        self.knows.set()
        if self._writer is not None:
            self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ServiceUnavailable("The server is shutting down."))
        return told

    def _resolve(self, message: Mapping[str, Any]) -> None:
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(BY_NAME.get(message["error"], ServiceUnavailable)(message["message"]))
        else:
            answer.set_result(message.get("value"))
