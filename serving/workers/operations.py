"""The container multi-model API inside a worker: list, load and unload models, each answered when it is done. And what
a model was loaded from, for those who want to look into it themselves (``explain/forests.py``).

All methods are called with the worker's lock held.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from serving.errors import ServingError
from serving.workers import answers, wire
from serving.workers.connection import Connection
from serving.workers.model_cache import FAILED, READY, Entry, ModelCache

_Asker = tuple[Connection, int]


class Operations:
    """Who has asked for what and not been answered yet."""

    def __init__(
        self,
        cache: ModelCache,
        send: Callable[[Connection, bytes], None],
        load: Callable[[Entry], None],
        release: Callable[[Entry], None],
    ) -> None:
        """``load`` begins a load, ``release`` closes a model that is out of the books; the worker hears of both and
        calls ``loaded``, ``failed`` or ``closed``."""
        self._cache = cache
        self._send = send
        self._load = load
        self._release = release
        self._waiting: dict[str, list[_Asker]] = {}
        self._leaving: dict[Entry, list[_Asker]] = {}

    def do(self, connection: Connection, request: wire.Request) -> None:
        """One operation: its name is the frame's meta, the model's name its body."""
        name = request.body.decode("utf-8", "replace")
        if request.meta == b"list":
            models = [
                {"model": entry.name, "bytes": entry.bytes, "uses": entry.uses, "load_seconds": entry.load_seconds}
                for entry in self._cache.ready(name)
            ]
            self._reply((connection, request.id), {"models": models})
        elif request.meta == b"file":
            self._reply((connection, request.id), self._file(name))
        elif request.meta == b"unload":
            self._unload((connection, request.id), name)
        elif request.meta == b"load":
            self._want((connection, request.id), name)

    def _file(self, name: str) -> dict[str, str]:
        entry = self._cache.get(name)
        if entry is None or entry.state != READY or entry.file is None:
            return {}
        return {"format": entry.format, "file": str(entry.file)}

    def _want(self, asker: _Asker, name: str) -> None:
        entry, start = self._cache.want(name, time.monotonic())
        if entry.state == READY:
            self._reply(asker, {"already": name})
        elif entry.state == FAILED and entry.error is not None:
            self._send(asker[0], answers.error_frame(asker[1], entry.error))
        else:
            self._waiting.setdefault(name, []).append(asker)
            if start:
                self._load(entry)

    def _unload(self, asker: _Asker, name: str) -> None:
        """Answered when the model's memory is free: in use, it goes after its last batch (``behaviour/01``)."""
        known = self._cache.get(name)
        if known is None or known.state != READY:
            self._reply(asker, {"unloaded": False})
            return
        self._leaving.setdefault(known, []).append(asker)
        entry = self._cache.unload(name)
        if entry is not None:
            self._release(entry)

    def loaded(self, entry: Entry) -> None:
        """A load has ended well."""
        for asker in self._waiting.pop(entry.name, ()):
            self._reply(asker, {"loaded": entry.name, "bytes": entry.bytes})

    def failed(self, entry: Entry, error: ServingError) -> None:
        """A load has failed."""
        for connection, id in self._waiting.pop(entry.name, ()):
            self._send(connection, answers.error_frame(id, error))

    def closed(self, entry: Entry) -> None:
        """A model's memory is free."""
        for asker in self._leaving.pop(entry, ()):
            self._reply(asker, {"unloaded": True})

    def _reply(self, asker: _Asker, value: object) -> None:
        body = json.dumps(value).encode()
        frame = wire.pack_answer(wire.REPLY, 0, asker[1], (0, 0, 0, 0, 0), 0, b"application/json", body)
        self._send(asker[0], frame)
