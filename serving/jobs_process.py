"""The jobs process: it holds the queue, and does the work that answers later. It runs no model code.

``python -m serving.jobs_process``, started by control (``children.py``) when it is first needed, told everything on its
standard input. Fronts ask it over ``jobs.sock`` (``api/jobs_link.py``); what it does, it does through
``Endpoint.invoke`` like any front, by the routing table that control pushes.

When the queue cannot be opened this process says so, answers 503, and tries again. When it is told to stop it starts
nothing new, hands back what it had leased, and goes on answering fronts until the last of them has gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from serving.api.desk import Answer, Desk
from serving.config import Settings
from serving.endpoint import Directory
from serving.errors import ServiceUnavailable, ServingError, ValidationError
from serving.jobs.async_inference import AsyncConsumers, AsyncDoor
from serving.jobs.notifier import Notifier
from serving.jobs.outbox import deliver_forever
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.transform import Transforms
from serving.link import ControlLink, settings_of
from serving.objects import open_objects
from serving.watch.capturing import open_captures
from serving.watch.logs import configure as configure_logs
from serving.watch.metrics import Registry
from serving.watch.observing import Observer
from serving.watch.slow import SlowCalls
from serving.watch.tracing import open_tracing
from serving.workers import memory

#: A queue that cannot be opened is tried again so soon, and later each time.
_REOPEN_SECONDS, _LONGEST_REOPEN_SECONDS = 0.2, 10.0
#: A table that a front works by already is waited for so long.
_TABLE_SECONDS = 2.0
#: After a defect of ours.
_PAUSE_SECONDS = 5.0
#: A question that comes while the queue is being opened waits so long for it.
_OPENING_SECONDS = 5.0

log = logging.getLogger("serving.jobs")


class Service:
    """What there is while the queue is open: who takes work in, and who works it off."""

    def __init__(self, settings: Settings, directory: Directory, registry: Registry, link: ControlLink) -> None:
        self._settings = settings
        self._directory = directory
        self._registry = registry
        self._link = link
        self._queue: Queue
        self._thread: QueueThread
        self._consumers: AsyncConsumers
        self._transforms: Transforms
        self._door: AsyncDoor
        self._applied = asyncio.Event()
        self._answers: dict[str, Answer] = {}
        self._owner = f"jobs-{uuid.uuid4()}"
        self._noticed = asyncio.Event()
        self._notifier = Notifier(settings)
        self._delivering: asyncio.Task[None]

    async def start(self) -> None:
        """Open the queue, and take up what is in it. Raises ``ServingError`` when that cannot be done now."""
        self._queue = await asyncio.to_thread(Queue(self._settings.queue_url).open)
        self._thread = QueueThread(self._queue)
        try:
            await self._take_up()
        except BaseException:
            await self._let_go()
            raise

    async def _take_up(self) -> None:
        settings, directory, registry = self._settings, self._directory, self._registry
        objects = await asyncio.to_thread(open_objects, settings)
        self._consumers = AsyncConsumers(
            self._thread, objects, directory, settings, registry, self._owner, self._noticed.set
        )
        self._transforms = Transforms(self._thread, objects, directory, registry, self._link.ask)
        try:
            await self._transforms.start()
            await self._consumers.start()
        except BaseException:
            self._consumers.close()
            raise
        self._delivering = asyncio.create_task(self._deliver())
        self._door = door = AsyncDoor(self._consumers)
        self._answers = {
            "submit": _with_bytes(self._submit),
            "status": _of(door.status),
            "page": _of(door.page),
            "cancel": _of(door.cancel),
            "read": lambda args, _: door.read(args),
        }

    def apply(self, table: dict[str, Any]) -> None:
        """Work by this table from now on, as ``directory`` does already."""
        self._consumers.apply(table)
        self._transforms.apply(table.get("transforms", ()))
        self._applied.set()
        self._applied = asyncio.Event()

    async def _submit(self, args: Mapping[str, Any], payload: bytes) -> Any:
        """A front that knows the endpoint may have heard of it a moment before we do."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TABLE_SECONDS):
                while self._directory.table["version"] < args["table"]:
                    await self._applied.wait()
        return await self._door.submit(args, payload)

    async def rest(self) -> None:
        """Start nothing more, and hand back what was leased. Calls are still taken in."""
        await asyncio.gather(self._consumers.rest(), self._transforms.close())
        self._delivering.cancel()  # last: calls that have just ended have something to tell
        await asyncio.wait([self._delivering])
        self._notifier.close()

    async def close(self) -> None:
        """Let go of the queue."""
        self._consumers.close()
        await self._let_go()

    async def _let_go(self) -> None:
        await asyncio.to_thread(self._thread.close)
        self._queue.close()

    async def _deliver(self) -> None:
        """Notifications go out as long as this process lives, whatever becomes of one."""
        while True:
            try:
                metrics = self._consumers.means.metrics
                await deliver_forever(
                    self._thread, self._notifier, self._owner, wake=self._noticed, given_up=metrics.undelivered
                )
            except Exception:
                log.exception("notifications have to wait")
            await asyncio.sleep(_PAUSE_SECONDS)  # a defect must not spin

    def answer(self, what: str) -> Answer:
        """Who answers a question, by its name. Raises ``ValidationError``."""
        if what not in self._answers:
            raise ValidationError(f"unknown question {what!r}")
        return self._answers[what]


def _with_bytes(ask: Callable[[Mapping[str, Any], bytes], Awaitable[Any]]) -> Answer:
    """A question that brings bytes, and whose answer has none."""

    async def answer(args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        return await ask(args, payload), b""

    return answer


def _of(ask: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Answer:
    """A question and an answer without bytes."""
    return _with_bytes(lambda args, _: ask(args))


class Jobs:
    """The process as a whole: its service as soon as the queue is open, its desk, and its line to control."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        settings, self._run_dir = settings_of(plan["settings"]), Path(plan["run_dir"])
        registry = Registry(self._run_dir / "metrics", "jobs")
        registry.slow = self._slow = SlowCalls(registry.path.with_suffix(".slow"))
        self._link = ControlLink(plan["number"])
        self._captures = open_captures(settings, registry, "jobs")
        self._tracing = open_tracing("jobs")
        self._directory = Directory(
            registry,
            settings.account_id,
            settings.max_queue,
            self._link.stalled,
            queue=True,
            observers=self._observers,
            on_scaling=self._link.scaling,
        )
        self._service = Service(settings, self._directory, registry, self._link)
        self._desk = Desk(self._who_answers)
        self._table: dict[str, Any] | None = None
        self._open = asyncio.Event()
        self._trouble = ""
        self._stopping = asyncio.Event()
        self._server_stops = False

    def _observers(self, row: Mapping[str, Any]) -> tuple[Observer, ...]:
        return (*self._tracing.observers(row), *self._captures.observers(row))

    async def run(self) -> None:
        """Work until told to stop, then leave in good order; or until control has gone, which is the end."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        self._captures.start()
        await self._desk.start(self._run_dir / "jobs.sock")
        follows = asyncio.create_task(self._link.hear(self._run_dir / "control.sock", self._apply, self._stop))
        works = asyncio.create_task(self._work())
        await asyncio.wait({follows, works}, return_when=asyncio.FIRST_COMPLETED)
        await self._captures.close()
        self._tracing.close()
        if works.done():
            works.result()

    def _stop(self) -> None:
        self._server_stops = True
        self._stopping.set()

    async def _work(self) -> None:
        sweeping = asyncio.create_task(self._directory.sweep_forever())
        opening = asyncio.create_task(self._open_queue())
        telling = asyncio.create_task(self._slow.flush_forever())
        await self._stopping.wait()
        opening.cancel()
        telling.cancel()
        if self._open.is_set():
            await self._service.rest()
        if self._server_stops:
            await self._desk.idle.wait()  # what fronts still accept is kept, for the next start
        if self._open.is_set():
            await self._service.close()
        sweeping.cancel()

    async def _open_queue(self) -> None:
        await self._link.knows.wait()  # until then no endpoint is known
        pause = _REOPEN_SECONDS
        while not self._open.is_set():
            try:
                await self._service.start()
            except Exception as error:
                why = error.message if isinstance(error, ServingError) else repr(error)
                if why != self._trouble:
                    log.error("the queue cannot be opened, asynchronous calls are refused: %s", why)
                self._trouble = why
                await asyncio.sleep(pause)  # between two attempts
                pause = min(2 * pause, _LONGEST_REOPEN_SECONDS)
            else:
                self._open.set()
        if self._trouble:
            log.info("the queue is open")
        if self._table is not None:
            self._service.apply(self._table)

    def _apply(self, table: dict[str, Any]) -> None:
        self._table = table
        every = with_transforms(table)
        self._directory.apply(every)
        self._captures.keep(every)
        if self._open.is_set():
            self._service.apply(table)

    async def _who_answers(self, what: str) -> Answer:
        if not self._open.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._open.wait(), 0.0 if self._trouble else _OPENING_SECONDS)
        if not self._open.is_set():
            raise ServiceUnavailable("The queue of asynchronous calls cannot be opened; the server's log says why.")
        return self._service.answer(what)


def with_transforms(table: dict[str, Any]) -> dict[str, Any]:
    """The table with the workers of transform jobs as endpoints, which is what they are for ``Endpoint.invoke``."""
    rows = [job["row"] for job in table.get("transforms", ()) if job["row"] is not None]
    return {**table, "endpoints": [*table["endpoints"], *rows]}


def main() -> None:
    """Work until control says stop, or has gone."""
    plan = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = plan["settings"]
    configure_logs(settings["log_format"], settings["log_level"])
    memory.quiet_collector()
    uvloop.run(Jobs(plan).run())
    os._exit(0)


if __name__ == "__main__":
    main()
