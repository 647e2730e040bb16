"""The jobs process's parts in one process, with real workers, a real queue and real files: what the tests of
asynchronous calls drive. An event loop runs in a thread of its own; ``do`` runs a coroutine there."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import orjson

from serving.config import Settings
from serving.endpoint import Directory
from serving.fleet.placing import frameworks_of
from serving.fleet.resolve import endpoint_fleets
from serving.fleet.table import endpoint_row
from serving.jobs.async_inference import AsyncConsumers, AsyncDoor
from serving.jobs.clock import Clock, since_boot
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.work import QueueSession, Work
from serving.objects import LocalObjects
from serving.types import AsyncSpec, EndpointSpec, ModelSpec, VariantSpec
from serving.watch.metrics import Registry, snapshot
from serving.workers.supervisor import Supervisor
from tests.toys import write_script_model

T = TypeVar("T")

#: What a body asks of the model: ``echo …``, ``fail …``, ``die``, ``size N``, ``wait PATH`` (until there is a file),
#: ``die-unless PATH``. It notes every call's beginning in a file.
MODEL = """
import os, pathlib, signal, time

def transform_fn(model, body, content_type, accept):
    word, _, rest = bytes(body).decode("latin-1").partition(" ")
    with open(NOTES, "a") as notes:
        notes.write(word + " " + rest[:80] + "\\n")
    if word == "fail":
        raise ValueError("this model does not like " + rest)
    if word == "die" or (word == "die-unless" and not pathlib.Path(rest).exists()):
        signal.raise_signal(signal.SIGSEGV)
    if word == "size":
        return b"x" * int(rest), "application/octet-stream"
    while word == "wait" and not pathlib.Path(rest).exists():
        time.sleep(0.005)  # the model waits, not the test
    return b"answer to " + bytes(body[:200]), "text/plain"
"""


class Store(LocalObjects):
    """Objects in files; while ``trouble`` says so, writing those whose URL has ``trouble[0]`` in it fails with
    ``trouble[1]``."""

    trouble: tuple[str, Exception] | None = None

    def put(self, url: str, content: bytes | Path, content_type: str = "") -> None:
        """See ``ObjectStore``."""
        if self.trouble is not None and self.trouble[0] in url:
            raise self.trouble[1]
        super().put(url, content, content_type)


class Workshop:
    """Everything for asynchronous calls of one server; ``folder`` is its data folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        self.settings = Settings(**{"data_dir": folder, "allow_code": True, "drain_seconds": 5.0, **settings})
        self.model = folder / "model"
        if not self.model.exists():
            write_script_model(self.model, f"NOTES = {str(self.notes)!r}\n" + MODEL)
        self.objects = Store(folder / "s3", folder / "spool")
        self.skew = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._specs: dict[str, EndpointSpec] = {}
        self._run_dir = Path(tempfile.mkdtemp(prefix="workshop-"))
        self._version = 0
        self.notices = 0
        self.do(self._open())

    def do(self, work: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
        """What a coroutine comes to."""
        return self.begin(work).result(seconds)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """A coroutine under way."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # -- life -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self.registry = Registry(self._run_dir / "metrics", "control")
        self._supervisor = Supervisor(self.settings, self._run_dir, self.registry, self._changed)
        self._server = await asyncio.start_unix_server(self._hear, str(self._run_dir / "control.sock"))
        self._supervisor.start()
        self.directory = Directory(self.registry, "123456789012", 1024, queue=True)
        self._sweeping = asyncio.create_task(self.directory.sweep_forever())
        await self._open_queue()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._supervisor.on_worker(orjson.loads(await reader.readline()), reader, writer)
        except (ConnectionError, ValueError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _open_queue(self) -> None:
        self.queue = await asyncio.to_thread(
            Queue(f"sqlite:///{self.folder / 'queue.db'}", Clock(lambda: since_boot() + self.skew)).open
        )
        self.thread = QueueThread(self.queue)
        self.consumers = AsyncConsumers(
            self.thread, self.objects, self.directory, self.settings, self.registry, f"test-{time.monotonic_ns()}",
            self._noticed,
        )  # fmt: skip
        self.door = AsyncDoor(self.consumers)
        await self.consumers.start()

    def _noticed(self) -> None:
        self.notices += 1

    def stop(self) -> None:
        """What SIGTERM does to the consumers, and the end of the queue."""
        self.do(self.consumers.rest())
        self.do(self._close_queue())

    def kill(self) -> None:
        """The consumers end as by kill -9: nothing is handed back. Workers live on."""

        async def cut() -> None:
            here = asyncio.current_task()
            ours = [task for task in asyncio.all_tasks() if "jobs/async_" in _file_of(task) and task is not here]
            self.consumers.close()
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await self._close_queue()

        self.do(cut())

    async def _close_queue(self) -> None:
        self.consumers.close()
        await asyncio.to_thread(self.thread.close)
        self.queue.close()

    def restart(self) -> None:
        """Open again what was stopped or killed."""
        self.do(self._open_queue())

    def close(self) -> None:
        """End everything."""

        async def end() -> None:
            self.consumers.close()
            self._sweeping.cancel()
            await asyncio.to_thread(self.thread.close)
            self.queue.close()
            self.directory.abandon()
            self._server.close()
            await self._supervisor.close()
            await asyncio.sleep(0)  # closed transports say so
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.registry.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    # -- endpoints ------------------------------------------------------------------------------------------------

    def endpoint(
        self,
        name: str,
        count: int = 1,
        asynchronous: bool = True,
        wait: bool = True,
        weights: Mapping[str, float] = MappingProxyType({"AllTraffic": 1.0}),
        **config: Any,
    ) -> None:
        """An endpoint of ``count`` workers for each variant; ``config``: of its AsyncSpec."""
        self.do(self._endpoint(name, count, weights, _spec(name, config) if asynchronous else None))
        if wait and count:
            self.eventually(lambda: self.directory.endpoints[name].workers == count * len(weights))

    async def _endpoint(self, name: str, count: int, weights: Mapping[str, float], spec: AsyncSpec | None) -> None:
        model = ModelSpec("model", str(self.model))
        variants = tuple(VariantSpec(variant, (model,), weight, count) for variant, weight in weights.items())
        self._specs[name] = made = EndpointSpec(name, name, variants, asynchronous=spec)
        for fleet in endpoint_fleets(made):
            if fleet.key in self._supervisor.fleets:
                self._supervisor.resize(fleet.key, count)
            else:
                self._supervisor.put(fleet, str(self.model), frameworks_of(self.model, False, True))
        self._changed()

    def delete(self, name: str) -> None:
        """The endpoint goes, and its workers."""

        async def delete() -> None:
            made = self._specs.pop(name)
            self._supervisor.remove([fleet.key for fleet in endpoint_fleets(made)], 0.0)
            self._changed()

        self.do(delete())

    def _changed(self) -> None:
        self._version += 1
        fleets, now = self._supervisor.fleets, time.monotonic()
        rows = [endpoint_row(one, fleets, (), ("InService", "", True), now) for one in self._specs.values()]
        table = orjson.loads(orjson.dumps({"version": self._version, "aliases": {}, "endpoints": rows}))
        self._supervisor.show(table)
        self._supervisor.table_sent(self._version)
        self.directory.apply(table)
        self._supervisor.table_seen(self._version)
        self.consumers.apply(table)

    # -- calls ----------------------------------------------------------------------------------------------------

    def submit(self, endpoint: str, payload: bytes = b"echo", **args: Any) -> dict[str, Any]:
        """Put a call into an endpoint's queue."""
        asked = {"endpoint": endpoint, "content_type": "text/plain", **args}
        return self.do(self.door.submit(asked, payload))

    def ended(self, endpoint: str, id: str, seconds: float = 60.0) -> dict[str, Any]:
        """The status of a call that has ended."""
        status = self.do(self.door.status({"endpoint": endpoint, "id": id, "wait": seconds}), seconds + 10)
        assert status["Status"] not in ("Queued", "InProgress"), status
        return status

    def result(self, endpoint: str, payload: bytes = b"echo", **args: Any) -> dict[str, Any]:
        """The status of a call, submitted and ended."""
        return self.ended(endpoint, self.submit(endpoint, payload, **args)["Id"])

    def object(self, url: str) -> bytes | None:
        """An object, if there is one."""
        path = self.folder / "s3" / url.removeprefix("s3://")
        return path.read_bytes() if path.exists() else None

    def objects_in(self, prefix: str) -> list[str]:
        """The names beneath a prefix."""
        return [one.url.removeprefix(prefix) for one in self.objects.list(prefix)]

    def begun(self) -> list[str]:
        """What the model was called with, in order."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def ask(self, question: Callable[[QueueSession], T]) -> T:
        """What the queue knows."""
        return self.do(self._ask(question))

    async def _ask(self, question: Callable[[QueueSession], T]) -> T:
        return await self.thread.do(question)

    def messages(self) -> list[Work]:
        """The works of the outbox, oldest first."""
        return self.ask(lambda session: session.page("outbox", (), 0, 1000, newest_first=False))

    def metric(self, name: str, *labels: str) -> float | None:
        """The first cell of a series; None when there is none."""
        cells = snapshot(self._run_dir / "metrics").get((name, labels))
        return cells[0] if cells else None

    def eventually(self, fact: Callable[[], bool], seconds: float = 30.0) -> None:
        """Look until it is so."""
        end, pause = time.monotonic() + seconds, threading.Event()
        while not fact():
            assert time.monotonic() < end, "it did not come to that"
            pause.wait(0.01)


def _file_of(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


def _spec(name: str, config: Mapping[str, Any]) -> AsyncSpec:
    usual = {
        "output": f"s3://bucket/{name}/out",
        "failure": f"s3://bucket/{name}/bad",
        "concurrency": 4,
        "success_topic": "",
        "error_topic": "",
        "include": (),
        "since": 1.0,
    }
    return AsyncSpec(**{**usual, **config})
