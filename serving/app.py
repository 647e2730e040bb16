"""The processes of one server, put together: control here, fronts started from it, workers behind its supervisor.

::

    run() ── control: asyncio loop, no hot request passes through it
      ├─ fronts:      python -m serving.app FD…   (hold the listening socket; HTTP in, frames out)
      └─ forkservers: python -m serving.workers.forkserver …  ── workers

Control and its children talk JSON lines over ``control.sock`` in a private run folder. When control ends, however it
ends, its children see that socket close and end too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.api import auth
from serving.api.control_api import ControlApi
from serving.config import Settings
from serving.declared import Body, Document, named_paths
from serving.deploying import apply
from serving.errors import BY_NAME, ConfigError, ServiceUnavailable, ServingError, ValidationError
from serving.fleet.endpoints import COMPONENT, ENDPOINT, Endpoints
from serving.fleet.store import Record, Session, Store, StoreThread
from serving.fleet.table import failures
from serving.storage import DataLock, open_store
from serving.watch.logs import configure as configure_logs
from serving.watch.metrics import Registry
from serving.workers import memory
from serving.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from serving.api.front import Front

_BACKLOG = 2048
_MOST_FILES = 65_536
_FRONT_RESTART_SECONDS = 0.2
#: A front that has not taken a new table in for so long is not waited for: it will.
_KNOWN_SECONDS = 5.0
#: Questions to control: most are a matter of milliseconds, a change may be held until it has settled.
_ASK_SECONDS = 30.0
#: Fronts that may end in a row without ever having heard us, before the start is given up.
_MOST_FAILED_FRONTS = 5

#: Told the base URL and the names of all endpoints there are.
OnReady = Callable[[str, list[str]], None]

log = logging.getLogger("serving")


def run(settings: Settings, document: Document, on_ready: OnReady) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status (0 = drained). What ``document`` declares is put into the
    store first; what clients made through the API is there already.

    ``on_ready`` is called once when every endpoint can answer or has failed to come back. Raises
    ``ServingError`` when the server cannot start: address in use, data folder in use, a declared artifact that is
    missing, refused or cannot load.
    """
    configure_logs(settings.log_format, settings.log_level)
    _allow_open_files()
    if settings.access_keys:
        auth.load_keys(settings.access_keys)  # each front reads them: what is wrong with them is said here, once
    with DataLock(settings.data_dir):
        run_dir = Path(tempfile.mkdtemp(prefix="serving-"))
        try:
            return asyncio.run(_Control(settings, run_dir).serve(document, on_ready))
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)


def _allow_open_files() -> None:
    """Every connection is an open file, and the usual soft limit (1,024) is below ``max_connections``. Inherited by
    fronts and workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_FILES)), hard))


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, bound here once and inherited by all fronts. Raises ``ConfigError``."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(f"Cannot listen on {host}:{port}: {error.strerror or error}.") from None
    return sock


# --- control --------------------------------------------------------------------------------------------------------


class _FrontHandle:
    """One front process as control sees it."""

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.writer: asyncio.StreamWriter | None = None
        self.seen = 0

    def send(self, message: Mapping[str, Any]) -> None:
        """One JSON line; a front that has gone does not mind."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class _Control:
    """The control process: owns the truth and the other processes."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._registry = Registry(run_dir / "metrics", "control")
        self._supervisor = Supervisor(settings, run_dir, self._registry, self._changed)
        self._store = Store(settings.database_url or f"sqlite:///{settings.data_dir.absolute() / 'serving.db'}")
        self._thread = StoreThread(self._store)
        self._endpoints: Endpoints
        self._api: ControlApi
        self._fronts: dict[int, _FrontHandle] = {}
        self._front_numbers = itertools.count(1)
        self._failed_fronts = 0
        self._version = 0
        self._push_due = False
        self._stopping = asyncio.Event()
        self._seen = asyncio.Event()
        self._watchers: set[asyncio.Task[None]] = set()
        self._listener: socket.socket

    async def serve(self, document: Document, on_ready: OnReady) -> int:
        settings, loop = self._settings, asyncio.get_running_loop()
        self._listener = listen(settings.host, settings.port)
        artifacts = open_store(settings, named_paths(document))
        self._endpoints = Endpoints(self._supervisor, artifacts, self._thread, self._changed, self._known)
        self._api = ControlApi(settings, self._thread, self._endpoints)
        server = await asyncio.start_unix_server(self._connected, str(self._run_dir / "control.sock"), limit=2**25)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_soon)
        try:
            self._supervisor.start()
            for _ in range(settings.fronts):
                self._start_front()
            self._api.start()
            await asyncio.to_thread(self._store.open)
            await self._unless_stopped(self._raise_up(document))
            if not self._stopping.is_set():
                host, port = self._listener.getsockname()[:2]
                url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                on_ready(url, self._endpoints.endpoints())
            await self._stopping.wait()
            return 0
        finally:
            self._endpoints.close()
            await self._stop()
            server.close()
            await asyncio.to_thread(self._thread.close)
            self._store.close()

    async def _raise_up(self, document: Document) -> None:
        """What is declared and what is stored come up, and every front knows. Raises ``ServingError`` when something
        declared cannot."""
        declared = {body["EndpointName"].lower() for body in document.endpoints}
        await self._thread.write(lambda session: _forget_undeclared(session, declared))
        await apply(document, self._declare, log.info)
        await self._thread.write(_forget_orphans)
        await self._endpoints.start(self._settings.load_timeout_seconds)
        await self._refuse_failed(declared)
        while not self._all_know():
            if self._failed_fronts >= _MOST_FAILED_FRONTS:
                raise ServiceUnavailable("The processes that answer HTTP end as soon as they are started.")
            self._seen.clear()
            await self._seen.wait()

    async def _declare(self, operation: str, params: Body) -> Body:
        """A call for a declared thing, before anything runs: an endpoint that changes is simply made anew."""
        if operation in ("UpdateEndpoint", "DeleteEndpoint"):
            tags = await self._thread.write(lambda session: _taken_out(session, params["EndpointName"]))
            if operation == "DeleteEndpoint":
                return {}
            operation, params = "CreateEndpoint", {**params, "Tags": tags}
        return await self._api.call(operation, params, trusted=True)

    async def _refuse_failed(self, declared: Iterable[str]) -> None:
        for name in declared:
            record = await self._thread.read(partial(_endpoint_record, name))
            if record is None or "Serving" not in record.body:
                reason = record.body.get("FailureReason", "it did not come up in time") if record else "it has gone"
                raise ServiceUnavailable(str(reason))
            live = self._endpoints.live(record.name)
            failed = failures(live) if live else []
            if failed:
                raise ServiceUnavailable("; ".join(failed))

    def _stop_soon(self) -> None:
        self._stopping.set()
        self._seen.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, unless a signal comes first."""
        working, stopped = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if working.done():
            working.result()
        working.cancel()

    async def _known(self) -> None:
        """Return when every front works by the newest table, or has had time enough to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_KNOWN_SECONDS):
                while self._push_due or not self._all_know():
                    self._seen.clear()
                    await self._seen.wait()

    def _all_know(self) -> bool:
        """Does every front work by the newest table?"""
        fronts = self._fronts.values()
        return len(fronts) == self._settings.fronts and all(front.seen >= self._version for front in fronts)

    async def _stop(self) -> None:
        """Fronts finish what was accepted and go; then the workers."""
        self._listener.close()
        self._stopping.set()
        for front in self._fronts.values():
            front.send({"op": "stop"})
            if front.writer is None:
                front.process.terminate()
        end = time.monotonic() + self._settings.drain_seconds
        for front in self._fronts.values():
            try:
                await asyncio.to_thread(front.process.wait, max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("front %d did not drain in %.0f s", front.number, self._settings.drain_seconds)
                front.process.kill()
                front.process.wait()
        for watcher in self._watchers:
            watcher.cancel()
        await self._supervisor.close()

    # -- fronts -----------------------------------------------------------------------------------------------------

    def _start_front(self) -> None:
        number, fd = next(self._front_numbers), self._listener.fileno()
        plan = {"number": number, "fd": fd, "run_dir": str(self._run_dir), "settings": _plain(self._settings)}
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.app"], stdin=subprocess.PIPE, pass_fds=[fd], start_new_session=True
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already: its pidfd says so
            process.stdin.write(json.dumps(plan).encode())
            process.stdin.close()
        front = self._fronts[number] = _FrontHandle(number, process)
        asyncio.get_running_loop().add_reader(front.pidfd, self._on_front_end, front)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A child has connected: a worker or a front, as its first line says."""
        try:
            hello = json.loads(await reader.readline())
            if "worker" in hello:
                await self._supervisor.on_worker(hello, reader, writer)
            else:
                await self._hear_front(self._fronts[hello["front"]], reader, writer)
        except (ConnectionError, ValueError, KeyError) as error:
            log.debug("a child's control channel ended: %r", error)
        except asyncio.CancelledError:  # the end of the loop, which would be logged as a failure of this callback
            return
        finally:
            writer.close()

    async def _hear_front(
        self, front: _FrontHandle, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        front.writer = writer
        if self._version:
            front.send({"op": "table", "table": self._endpoints.table(self._version)})
        while line := await reader.readline():
            message = json.loads(line)
            if message["ev"] == "seen":
                front.seen = message["version"]
                self._seen.set()
                self._supervisor.table_seen(min(one.seen for one in self._fronts.values()))
            elif message["ev"] == "stalled":
                self._supervisor.on_stalled(message["worker"])
            elif message["ev"] == "ask":
                self._in_background(self._tell(front, message))
        if not self._stopping.is_set():
            front.process.kill()  # without this channel it is of no use

    async def _tell(self, front: _FrontHandle, question: Mapping[str, Any]) -> None:
        front.send(await self._answer(question))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = {"op": "answer", "id": question["id"]}
        try:
            return reply | {"value": await self._handle(question["what"], question["args"])}
        except ServingError as error:
            return reply | {"error": type(error).__name__, "message": error.message}
        except Exception:
            log.exception("a front's question failed")
            return reply | {"error": "InternalFailure", "message": "An internal failure occurred."}

    async def _handle(self, what: str, args: Mapping[str, Any]) -> Any:
        """A front's question, by name. Raises ``ServingError``."""
        if what == "api":
            return await self._api.handle(args)
        names = self._endpoints.names
        if what == "name_model":
            target = names.give(args["endpoint"], args["name"], args["url"])
            await asyncio.sleep(0)  # the table is sent at the end of this tick: before the answer
            return target
        if what == "forget_model":
            names.forget(args["endpoint"], args["name"])
            return await asyncio.sleep(0)
        raise ValidationError(f"unknown question {what!r}")

    def _on_front_end(self, front: _FrontHandle) -> None:
        """Replace it. The listening socket is ours, so connections wait in its backlog meanwhile."""
        asyncio.get_running_loop().remove_reader(front.pidfd)
        os.close(front.pidfd)
        if self._stopping.is_set():
            return
        log.error("front %d ended; starting another", front.number)
        del self._fronts[front.number]
        front.process.wait()
        self._registry.fold(front.process.pid)
        self._failed_fronts = 0 if front.seen else self._failed_fronts + 1
        self._seen.set()
        self._in_background(self._start_front_later())

    async def _start_front_later(self) -> None:
        await asyncio.sleep(_FRONT_RESTART_SECONDS)  # a front that dies at start must not spin
        if not self._stopping.is_set():
            self._start_front()

    def _changed(self) -> None:
        """Something in the routing table may have changed: push it once, at the end of this tick."""
        if not self._push_due:
            self._push_due = True
            asyncio.get_running_loop().call_soon(self._push)

    def _push(self) -> None:
        self._push_due = False
        if not self._endpoints.entered:
            return  # when the last has entered, it is told
        self._version += 1
        table = self._endpoints.table(self._version)
        self._supervisor.table_sent(self._version)
        for front in self._fronts.values():
            front.send({"op": "table", "table": table})
        self._seen.set()


def _endpoint_record(name: str, session: Session) -> Record | None:
    return session.get(ENDPOINT, name)


def _taken_out(session: Session, name: str) -> list[Body]:
    """The tags of an endpoint that is no more."""
    tags: list[Body] = [{"Key": key, "Value": value} for key, value in session.tags(ENDPOINT, name)]
    session.remove(ENDPOINT, name)
    return tags


def _forget_undeclared(session: Session, declared: set[str]) -> None:
    """A declared endpoint lives as long as it is declared; one whose last start or change came to nothing is declared
    anew. What the API made stays, but for one that was going and is declared now."""
    for record in session.every(ENDPOINT):
        wanted = record.name.lower() in declared
        own = record.body.get("Origin") == "declared"
        if (own and not (wanted and record.status == "InService")) or (wanted and record.status == "Deleting"):
            session.remove(ENDPOINT, record.name)


def _forget_orphans(session: Session) -> None:
    """Inference components go with their endpoint."""
    endpoints = {record.name.lower() for record in session.every(ENDPOINT)}
    for record in session.every(COMPONENT):
        if record.parent.lower() not in endpoints:
            session.remove(COMPONENT, record.name)


def _plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON values."""
    return {
        name: str(value) if isinstance(value, Path) else [str(v) for v in value] if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
    }


def _settings(plain: Mapping[str, Any]) -> Settings:
    """The reverse of ``_plain``."""
    paths = {name: Path(plain[name]) for name in ("data_dir", "settings_file", "access_keys") if plain[name]}
    many = {"file_roots": tuple(map(Path, plain["file_roots"])), "notify_hosts": tuple(plain["notify_hosts"])}
    return Settings(**{**plain, **paths, **many})


# --- front ----------------------------------------------------------------------------------------------------------


class _ControlLink:
    """A front's line to control: tables in, acknowledgements and questions out."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self.knows = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def ask(self, what: str, args: Mapping[str, Any]) -> Any:
        """A question to control (``front.Ask``)."""
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

    async def hear(self, path: Path, number: int, front: Front, stop: Callable[[], None]) -> None:
        """Follow control until it ends or says stop."""
        reader, self._writer = await asyncio.open_unix_connection(str(path), limit=2**26)
        self._send({"ev": "hello", "front": number})
        told = False
        with suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                if message["op"] == "table":
                    front.directory.apply(message["table"])
                    self.knows.set()
                    self._send({"ev": "seen", "version": message["table"]["version"]})
                elif message["op"] == "answer":
                    self._resolve(message)
                elif message["op"] == "stop":
                    told = front.draining = True
                    stop()  # and hear on: answers to what was accepted are still to come
        self.knows.set()
        self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ServiceUnavailable("The server is shutting down."))
        if not told:
            front.directory.abandon()
        front.draining = True
        stop()

    def _resolve(self, message: Mapping[str, Any]) -> None:
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(BY_NAME.get(message["error"], ServiceUnavailable)(message["message"]))
        else:
            answer.set_result(message.get("value"))


async def _front(plan: Mapping[str, Any]) -> None:
    import uvicorn

    from serving.api import routes
    from serving.api.fast import FastProtocol
    from serving.api.front import Front
    from serving.endpoint import Directory

    settings, run_dir = _settings(plan["settings"]), Path(plan["run_dir"])
    registry = Registry(run_dir / "metrics", f"front-{plan['number']}")
    link = _ControlLink()
    directory = Directory(registry, settings.account_id, settings.max_queue, link.stalled)
    keys = auth.load_keys(settings.access_keys) if settings.access_keys else None
    front = Front(settings, directory, registry, run_dir / "metrics", link.ask, keys)
    config = uvicorn.Config(
        routes.build(front), http=FastProtocol.bind(front), loop="none", lifespan="off", ws="none", log_config=None,
        access_log=False, server_header=False, timeout_keep_alive=75, backlog=_BACKLOG,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )  # fmt: skip
    server = _make_server(config)

    def stop() -> None:
        server.should_exit = True
        link.knows.set()  # a start that failed may come to nothing before there is a table

    sock = socket.socket(fileno=plan["fd"])
    front.clock = asyncio.get_running_loop().time()
    tasks = [
        asyncio.create_task(link.hear(run_dir / "control.sock", plan["number"], front, stop)),
        asyncio.create_task(directory.sweep_forever()),
        asyncio.create_task(_sweep_connections(server, front)),
    ]
    await link.knows.wait()  # until then connections wait in the backlog: better than to be told of no endpoint
    if not server.should_exit:
        await server.serve(sockets=[sock])
    for task in tasks:
        task.cancel()


async def _sweep_connections(server: Any, front: Front) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)  # the sweep's clock
        front.clock = now = loop.time()
        for connection in list(server.server_state.connections):
            connection.sweep(now)


def _make_server(config: Any) -> Any:
    """uvicorn's server, which takes in what the kernel has already accepted before it closes the listener."""
    import uvicorn

    class FrontServer(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            accepted = [connection for sock in sockets or () for connection in _backlog(sock)]
            for server in self.servers:
                server.close()  # at once: nothing has come between the last accept and this
            loop = asyncio.get_running_loop()
            for connection in accepted:
                await loop.connect_accepted_socket(self._protocol, connection)
            await super().shutdown(sockets)

        def _protocol(self) -> Any:
            made: Any = self.config.http_protocol_class
            return made(config=self.config, server_state=self.server_state, app_state={})

    return FrontServer(config)


def _backlog(listener: socket.socket) -> list[socket.socket]:
    """Connections that the kernel has accepted for a (non-blocking) listener: their requests may be written already."""
    accepted = []
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


def front_main() -> None:
    """``python -m serving.app``: a front, told everything on its standard input."""
    import uvloop

    plan = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = plan["settings"]
    configure_logs(settings["log_format"], settings["log_level"])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its life is ours to tell
    memory.quiet_collector()
    uvloop.run(_front(plan))
    os._exit(0)


if __name__ == "__main__":
    front_main()
