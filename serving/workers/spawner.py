"""The supervisor's end of a forkserver: the process that workers of one set of frameworks are forked from."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress

from serving.config import native_environment
from serving.workers.plan import WorkerPlan


class Spawner:
    """A started forkserver. Build, ``start`` hearing it, ``spawn``, ``close``."""

    def __init__(
        self, frameworks: frozenset[str], threads: int, on_message: Callable[[dict[str, object]], None]
    ) -> None:
        """``on_message`` hears each of its lines (``forkserver.py``), and ``{"gone": True}`` when it has ended."""
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.workers.forkserver", str(theirs.fileno()), ",".join(sorted(frameworks))],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=native_environment(threads),
        )
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._on_message = on_message
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to hear it."""
        self._run(self._read())

    def spawn(self, plan: WorkerPlan) -> None:
        """Ask for a worker; the answer comes as a message."""
        self._run(self._send(json.dumps({"spawn": plan.to_json()}).encode() + b"\n"))

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, line: bytes) -> None:
        with suppress(OSError):  # it has just ended: the reader hears that
            async with self._sending:
                await self._loop.sock_sendall(self._socket, line)

    async def _read(self) -> None:
        buffer = b""
        with suppress(OSError):
            while data := await self._loop.sock_recv(self._socket, 1 << 16):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._on_message(json.loads(line))
        self._on_message({"gone": True})

    def close(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        self._socket.close()
        self.process.kill()
        self.process.wait()
