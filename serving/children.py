"""Control's side of the processes started from this program: fronts, the jobs process and the explain process.

Each is told its plan on standard input, says hello on ``control.sock``, hears every routing table and says when it
works by it (``link.py``). One that ends is replaced. Fronts are there from the start; the jobs process (queue,
asynchronous calls, transform jobs, notifications) and the explain process when they are first needed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from serving.config import Settings
from serving.errors import ServiceUnavailable
from serving.link import plain
from serving.watch.metrics import Registry

Kind = Literal["front", "jobs", "explain"]
_MODULES: dict[Kind, str] = {
    "front": "serving.front_process",
    "jobs": "serving.jobs_process",
    "explain": "serving.explain_process",
}
#: What those that are only there when they are needed do, for a message.
_WORK: dict[Kind, str] = {"jobs": "keeps asynchronous calls and jobs", "explain": "computes explanations"}
#: A child that ends is replaced so soon; one that keeps ending before it has heard us, later each time.
_RESTART_SECONDS, _LONGEST_RESTART_SECONDS = 0.2, 5.0
#: Fronts that may end in a row without ever having heard us, before the start is given up.
_MOST_FAILED_FRONTS = 5
#: Who needs the jobs or explain process waits so long for it to come up.
_THERE_SECONDS = 10.0
#: Events of scaling.
_OF_SCALING = frozenset({"wake", "pressure", "demand"})
#: What only the jobs process is told of.
_FOR_JOBS = frozenset({"transforms"})
#: What children say of calls that wait for workers.
_OF_SCALING = frozenset({"pressure", "wake", "demand"})

log = logging.getLogger("serving")


class Hooks(NamedTuple):
    """What control does when children speak: answer a question, hear of a stalled worker, of a table being seen (or of
    a child that need not see it any more), and of calls that wait for workers (``pressure``, ``wake``, ``demand``;
    ``child`` is who says so)."""

    answer: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
    stalled: Callable[[str], None]
    seen: Callable[[], None]
    scaling: Callable[[Mapping[str, Any]], None]


class Child:
    """One such process. ``seen``: the version of the table it works by."""

    def __init__(self, number: int, kind: Kind, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.kind = kind
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.writer: asyncio.StreamWriter | None = None
        self.seen = 0

    def send(self, message: Mapping[str, Any]) -> None:
        """One JSON line; a child that has gone does not mind."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    @property
    def counts(self) -> bool:
        """Must a table be seen by it before what is not in that table may go? The jobs and explain processes send
        calls only once they are connected; a front that is not is on its way."""
        return self.kind == "front" or self.writer is not None


class Children:
    """All of them."""

    def __init__(self, settings: Settings, run_dir: Path, registry: Registry, hooks: Hooks) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._registry = registry
        self._hooks = hooks
        self._all: dict[int, Child] = {}
        self._numbers = itertools.count(1)
        self._failed: dict[Kind, int] = dict.fromkeys(_MODULES, 0)
        self._table: dict[str, Any] = {"version": 0}
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: set[Kind] = set()
        self._there: dict[Kind, asyncio.Event] = {kind: asyncio.Event() for kind in _WORK}
        self._stopping = False

    # -- what control asks for ------------------------------------------------------------------------------------

    def start_fronts(self, listener: socket.socket) -> None:
        """As many as the settings say, all accepting from ``listener``."""
        self._listener = listener
        for _ in range(self._settings.fronts):
            self._start("front")

    def want(self, kind: Kind) -> None:
        """From now on there shall be such a process."""
        if kind not in self._wanted and not self._stopping:
            self._wanted.add(kind)
            self._start(kind)

    async def there(self, kind: Kind) -> None:
        """Return when the process of this kind can be connected to; it is started if need be. Raises
        ``ServiceUnavailable``."""
        self.want(kind)
        try:
            await asyncio.wait_for(self._there[kind].wait(), _THERE_SECONDS)
        except TimeoutError:
            raise ServiceUnavailable(f"The process that {_WORK[kind]} does not come up.") from None

    def push(self, table: dict[str, Any]) -> None:
        """Tell all of a new table. One with an asynchronous endpoint or a transform job brings up the jobs process, one
        with an explainer the explain process."""
        self._table = table
        if table.get("transforms") or any(row["asynchronous"] for row in table["endpoints"]):
            self.want("jobs")
        if any(row["explainer"] for row in table["endpoints"]):
            self.want("explain")
        for child in self._all.values():
            self._send_table(child)

    def all_know(self, version: int) -> bool:
        """Is every front there, and does everyone who counts work by this table or a later one?"""
        fronts = [child for child in self._all.values() if child.kind == "front"]
        return len(fronts) == self._settings.fronts and self.seen >= version

    @property
    def seen(self) -> int:
        """The version that everyone who counts has seen."""
        return min((child.seen for child in self._all.values() if child.counts), default=0)

    @property
    def hopeless(self) -> bool:
        """Do fronts end as soon as they are started?"""
        return self._failed["front"] >= _MOST_FAILED_FRONTS

    async def stop(self, seconds: float) -> None:
        """All finish what was accepted and go; those that have not within ``seconds`` are ended."""
        self._stopping = True
        for child in self._all.values():
            child.send({"op": "stop"})
            if child.writer is None:
                child.process.terminate()
        end = time.monotonic() + seconds
        for child in self._all.values():
            try:
                await asyncio.to_thread(child.process.wait, max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not drain in %.0f s", _name(child), seconds)
                child.process.kill()
                child.process.wait()
        for task in self._tasks:
            task.cancel()

    # -- one child's life -----------------------------------------------------------------------------------------

    def _start(self, kind: Kind) -> None:
        number = next(self._numbers)
        plan: dict[str, Any] = {"number": number, "run_dir": str(self._run_dir), "settings": plain(self._settings)}
        inherited = []
        if kind == "front":
            assert self._listener is not None
            plan["fd"] = self._listener.fileno()
            inherited.append(plan["fd"])
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULES[kind]], stdin=subprocess.PIPE, pass_fds=inherited, start_new_session=True
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already: its pidfd says so
            process.stdin.write(json.dumps(plan).encode())
            process.stdin.close()
        child = self._all[number] = Child(number, kind, process)
        asyncio.get_running_loop().add_reader(child.pidfd, self._on_end, child)

    async def hear(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A child has connected and said hello: hear it until its end. Raises ``KeyError`` for one not known."""
        child = self._all[number]
        child.writer = writer
        if child.kind in self._there:
            self._there[child.kind].set()
        if self._table["version"]:
            self._send_table(child)
        while line := await reader.readline():
            message = json.loads(line)
            if message["ev"] == "seen":
                child.seen = message["version"]
                self._hooks.seen()
            elif message["ev"] == "stalled":
                self._hooks.stalled(message["worker"])
            elif message["ev"] in _OF_SCALING:
                self._hooks.scaling({**message, "child": number})
            elif message["ev"] == "ask":
                self._in_background(self._tell(child, message))
            elif message["ev"] in _OF_SCALING:
                self._hooks.scaling({**message, "child": number})
        if not self._stopping:
            child.process.kill()  # without this channel it is of no use

    def _send_table(self, child: Child) -> None:
        table = self._table
        if child.kind != "jobs":
            table = {name: value for name, value in table.items() if name not in _FOR_JOBS}
        child.send({"op": "table", "table": table})

    async def _tell(self, child: Child, question: Mapping[str, Any]) -> None:
        child.send(await self._hooks.answer(question))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_end(self, child: Child) -> None:
        """Replace it. A front's listening socket is ours, so connections wait in its backlog meanwhile; the jobs
        process's queue is on the disk."""
        asyncio.get_running_loop().remove_reader(child.pidfd)
        os.close(child.pidfd)
        if self._stopping:
            return
        log.error("%s ended; starting another", _name(child))
        del self._all[child.number]
        child.process.wait()
        self._registry.fold(child.process.pid)
        self._failed[child.kind] = 0 if child.seen else self._failed[child.kind] + 1
        if child.kind in self._there:
            self._there[child.kind].clear()
        self._hooks.seen()
        self._hooks.scaling({"ev": "gone", "child": child.number})
        self._in_background(self._start_later(child.kind))

    async def _start_later(self, kind: Kind) -> None:
        pause = _RESTART_SECONDS * 2.0 ** min(self._failed[kind], 16) if kind in _WORK else _RESTART_SECONDS
        await asyncio.sleep(min(pause, _LONGEST_RESTART_SECONDS))  # a child that dies at start must not spin
        if self._stopping:
            return
        try:
            self._start(kind)
        except OSError as error:  # no memory, no descriptors: this may pass
            log.error("a process cannot be started: %s", error.strerror)
            self._failed[kind] += 1
            self._in_background(self._start_later(kind))


def _name(child: Child) -> str:
    return f"front {child.number}" if child.kind == "front" else f"the {child.kind} process"
