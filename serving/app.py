"""The processes of one server, put together: control here, fronts started from it, workers behind its supervisor.

::

    run() ── control: asyncio loop, no hot request passes through it
      ├─ fronts:       python -m serving.front_process         (hold the listening socket; HTTP in, frames out)
      ├─ jobs process: python -m serving.jobs_process          (the queue; started when first needed)
      ├─ explain process: python -m serving.explain_process    (explanations; started when first needed)
      └─ forkservers:  python -m serving.workers.forkserver …  ── workers

Control and its children talk JSON lines over ``control.sock`` in a private run folder. When control ends, however it
ends, its children see that socket close and end too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from serving.api import auth
from serving.api.control_api import ControlApi
from serving.api.control_call import Watched
from serving.children import Children, Hooks
from serving.config import Settings, usable_memory
from serving.declared import Body, Document, named_paths
from serving.deploying import apply
from serving.errors import ConfigError, ServiceUnavailable, ServingError, ValidationError
from serving.fleet import scaling_records
from serving.fleet.alarms import Alarms
from serving.fleet.autoscaling import Autoscaling
from serving.fleet.driving import Drivers
from serving.fleet.endpoints import COMPONENT, ENDPOINT, Endpoints
from serving.fleet.monitoring import Monitoring
from serving.fleet.on_demand import OnDemand
from serving.fleet.pressures import Pressures
from serving.fleet.store import Record, Session, Store, StoreThread
from serving.fleet.table import failures
from serving.fleet.transforms import Transforms
from serving.monitors import Monitors
from serving.storage import DataLock, open_store
from serving.watch import capturing, metrics, points
from serving.watch.history import History, sample_forever
from serving.watch.logs import configure as configure_logs
from serving.watch.meters import Meters
from serving.watch.metrics import Registry
from serving.workers.supervisor import Supervisor

_BACKLOG = 2048
_MOST_FILES = 65_536
#: A front that has not taken a new table in for so long is not waited for: it will.
_KNOWN_SECONDS = 5.0

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


class _Control:
    """The control process: owns the truth and the other processes."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._registry = Registry(run_dir / "metrics", "control")
        self._history = History()
        self._meters = Meters(self._registry.folder, settings.scaling_period_seconds, usable_memory())
        self._supervisor = Supervisor(settings, run_dir, self._registry, self._changed)
        self._store = Store(settings.database_url or f"sqlite:///{settings.data_dir.absolute() / 'serving.db'}")
        self._thread = StoreThread(self._store)
        self._endpoints: Endpoints
        self._transforms: Transforms
        self._monitoring: Monitoring
        self._alarms: Alarms
        self._autoscaling: Autoscaling
        self._api: ControlApi
        hooks = Hooks(self._answer, self._supervisor.on_stalled, self._on_seen, self._on_scaling)
        self._children = Children(settings, run_dir, self._registry, hooks)
        self._monitors = Monitors(settings, run_dir)
        self._pressures = Pressures()
        self._on_demand = OnDemand(settings, self._supervisor)
        self._version = 0
        self._push_due = False
        self._stopping = asyncio.Event()
        self._seen = asyncio.Event()
        self._listener: socket.socket

    async def serve(self, document: Document, on_ready: OnReady) -> int:
        settings, loop = self._settings, asyncio.get_running_loop()
        self._listener = listen(settings.host, settings.port)
        artifacts = open_store(settings, named_paths(document))
        self._endpoints = Endpoints(self._supervisor, artifacts, self._thread, self._changed, self._known)
        self._transforms = Transforms(self._supervisor, artifacts, self._thread, self._changed, self._known)
        self._monitoring = Monitoring(self._thread, self._monitor, self._registry, self._changed)
        self._alarms = Alarms(
            self._thread,
            self._meters,
            on_evaluated=lambda: self._autoscaling.evaluated(),
            registry=self._registry,
            note=self._history.note,
        )
        self._autoscaling = Autoscaling(
            self._thread,
            self._supervisor,
            self._endpoints,
            self._alarms,
            self._history,
            self._changed,
            self._registry,
        )
        self._endpoints.elastic = self._autoscaling.elastic
        self._endpoints.alarm, self._endpoints.note = self._alarms.reading, self._history.note
        drivers = Drivers(
            self._endpoints, self._transforms, self._monitoring, self._alarms, self._autoscaling, self._capture_stopped
        )
        watched = Watched(self._meters, self._alarms, self._autoscaling.not_scaled)
        self._api = ControlApi(settings, self._thread, drivers, watched=watched)
        server = await asyncio.start_unix_server(self._connected, str(self._run_dir / "control.sock"), limit=2**25)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_soon)
        sampling = asyncio.create_task(sample_forever(self._history, self._registry.folder))
        self._meters.start()
        try:
            self._supervisor.start()
            self._on_demand.start()
            self._children.start_fronts(self._listener)
            if settings.has_queue:
                self._children.want("jobs")
            self._api.start()
            await asyncio.to_thread(self._store.open)
            await self._unless_stopped(self._raise_up(document))
            if not self._stopping.is_set():
                host, port = self._listener.getsockname()[:2]
                url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                self._monitoring.start()
                self._alarms.start()
                self._autoscaling.start()
                on_ready(url, self._endpoints.endpoints())
            await self._stopping.wait()
            return 0
        finally:
            sampling.cancel()
            self._meters.close()
            self._endpoints.close()
            self._transforms.close()
            self._monitoring.close()
            self._alarms.close()
            self._autoscaling.close()
            self._on_demand.close()
            await self._monitors.close()
            await self._stop()
            server.close()
            await asyncio.to_thread(self._thread.close)
            self._store.close()

    def _capture_stopped(self, name: str) -> bool:
        return capturing.is_stopped(metrics.snapshot(self._run_dir / "metrics"), name)

    async def _monitor(self, task: str, args: Mapping[str, Any], seconds: float) -> Any:
        """Run a task for a schedule, and have there what it needs."""
        if args["Definition"]["Type"] == "ModelExplainability":
            await self._children.there("explain")
        return await self._monitors.run(task, args, seconds)

    async def _raise_up(self, document: Document) -> None:
        """What is declared and what is stored come up, and every front knows. Raises ``ServingError`` when something
        declared cannot."""
        declared = {body["EndpointName"].lower() for body in document.endpoints}
        await self._thread.write(lambda session: _forget_undeclared(session, declared))
        scaling = _scaling_names(document)
        await self._thread.write(lambda session: scaling_records.forget_undeclared(session, scaling, time.time()))
        await apply(document, self._declare, log.info)
        await self._thread.write(_forget_orphans)
        period = self._settings.scaling_period_seconds
        await self._thread.write(lambda session: scaling_records.tidy(session, period, time.time()))
        await self._autoscaling.load()
        await self._transforms.start()
        await self._endpoints.start(self._settings.load_timeout_seconds)
        await self._refuse_failed(declared)
        while not self._children.all_know(self._version):
            if self._children.hopeless:
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
                while self._push_due or not self._children.all_know(self._version):
                    self._seen.clear()
                    await self._seen.wait()

    async def _stop(self) -> None:
        """Fronts finish what was accepted and go, and the jobs process hands back its work; then the workers."""
        self._listener.close()
        self._stopping.set()
        await self._children.stop(self._settings.drain_seconds)
        await self._supervisor.close()

    # -- children ---------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody has connected: a worker, a front or the jobs process, as the first line says."""
        try:
            hello = json.loads(await reader.readline())
            if "worker" in hello:
                await self._supervisor.on_worker(hello, reader, writer)
            else:
                await self._children.hear(hello["child"], reader, writer)
        except (ConnectionError, ValueError, KeyError) as error:
            log.debug("a child's control channel ended: %r", error)
        except asyncio.CancelledError:  # the end of the loop, which would be logged as a failure of this callback
            return
        finally:
            writer.close()

    def _on_seen(self) -> None:
        """A child works by a newer table, or there is one child less to wait for."""
        self._seen.set()
        self._supervisor.table_seen(self._children.seen)

    async def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = {"op": "answer", "id": question["id"]}
        try:
            return reply | {"value": await self._handle(question["what"], question["args"])}
        except ServingError as error:
            return reply | {"error": type(error).__name__, "message": error.message}
        except Exception:
            log.exception("a child's question failed")
            return reply | {"error": "InternalFailure", "message": "An internal failure occurred."}

    async def _handle(self, what: str, args: Mapping[str, Any]) -> Any:
        """A child's question, by name. Raises ``ServingError``."""
        if what == "api":
            return await self._api.handle(args)
        if what == "jobs":
            return await self._children.there("jobs")
        if what == "explain":
            return await self._children.there("explain")
        if what == "history":
            return points.answer(self._history, args)
        if what == "scaling":
            return await self._autoscaling.view(args["endpoint"])
        if what == "transform":
            return await self._transforms.report(args)
        if what == "monitor":
            return await self._monitors.ask(args)
        names = self._endpoints.names
        if what == "name_model":
            target = names.give(args["endpoint"], args["name"], args["url"])
            await asyncio.sleep(0)  # the table is sent at the end of this tick: before the answer
            return target
        if what == "forget_model":
            names.forget(args["endpoint"], args["name"])
            return await asyncio.sleep(0)
        raise ValidationError(f"unknown question {what!r}")

    def _on_scaling(self, event: Mapping[str, Any]) -> None:
        """A front tells how its calls fare (``children.Hooks``)."""
        if event["ev"] == "pressure":
            self._autoscaling.pressure(self._pressures.add(event, time.monotonic()))
        elif event["ev"] == "wake":
            self._autoscaling.wake(event)
        elif event["ev"] == "demand":
            self._on_demand.demand(event)
        else:
            self._pressures.gone(event["child"])
            self._on_demand.gone(event["child"])

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
        table = self._endpoints.table(self._version, self._transforms.rows(), self._monitoring.holders())
        self._supervisor.table_sent(self._version)
        self._meters.know(table)
        self._children.push(table)
        self._seen.set()


def _endpoint_record(name: str, session: Session) -> Record | None:
    return session.get(ENDPOINT, name)


def _taken_out(session: Session, name: str) -> list[Body]:
    """The tags of an endpoint that is no more."""
    tags: list[Body] = [{"Key": key, "Value": value} for key, value in session.tags(ENDPOINT, name)]
    session.remove(ENDPOINT, name)
    return tags


def _scaling_names(document: Document) -> frozenset[str]:
    """The names of the records of how it scales, in lower case."""
    declared = [(section.names, body) for section, body in document.scaling if section.is_scaling]
    return frozenset(
        scaling_records.key(scaling_records.resource_of(body), *(body[name] for name in names[2:])).lower()
        for names, body in declared
    )


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
