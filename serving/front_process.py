"""A front: the process that holds the listening socket. HTTP in, frames to workers out; it runs no model code.

``python -m serving.front_process``, started by control (``children.py``), told everything on its standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from serving.api import auth, routes
from serving.api.explain_link import ExplainLink
from serving.api.fast import FastProtocol
from serving.api.front import Front
from serving.api.jobs_link import JobsLink
from serving.endpoint import Directory
from serving.link import ControlLink, settings_of
from serving.watch.capturing import open_captures
from serving.watch.logs import configure as configure_logs
from serving.watch.metrics import Registry
from serving.watch.observing import Observer
from serving.watch.slow import SlowCalls
from serving.watch.tracing import open_tracing
from serving.workers import memory
from serving.workers.places import Siblings

_BACKLOG = 2048


async def _front(plan: Mapping[str, Any]) -> None:
    settings, run_dir = settings_of(plan["settings"]), Path(plan["run_dir"])
    registry = Registry(run_dir / "metrics", f"front-{plan['number']}")
    registry.slow = SlowCalls(registry.path.with_suffix(".slow"))
    link = ControlLink(plan["number"])
    captures = open_captures(settings, registry, "front")
    tracing = open_tracing("front")

    def observers(row: Mapping[str, Any]) -> tuple[Observer, ...]:
        return (*tracing.observers(row), *captures.observers(row))

    directory = Directory(
        registry,
        settings.account_id,
        settings.max_queue,
        link.stalled,
        observers=observers,
        on_scaling=link.scaling,
        siblings=Siblings(plan["number"], settings.fronts, run_dir),
    )
    keys = auth.load_keys(settings.access_keys) if settings.access_keys else None
    jobs = JobsLink(run_dir / "jobs.sock", lambda: link.ask("jobs", {}))
    explainer = ExplainLink(run_dir / "explain.sock", lambda: link.ask("explain", {}))
    front = Front(settings, directory, registry, run_dir / "metrics", link.ask, jobs, explainer, keys)
    config = uvicorn.Config(
        routes.build(front), http=FastProtocol.bind(front), loop="none", lifespan="off", ws="none", log_config=None,
        access_log=False, server_header=False, timeout_keep_alive=75, backlog=_BACKLOG,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )  # fmt: skip
    server = _Server(config)

    def stop() -> None:
        front.draining = True
        front.stopping.set()
        server.should_exit = True
        link.knows.set()  # a start that failed may come to nothing before there is a table

    def apply(table: dict[str, Any]) -> None:
        directory.apply(table)
        captures.keep(table)

    async def follow() -> None:
        told = await link.hear(run_dir / "control.sock", apply, stop)
        if not told:
            directory.abandon()
        stop()

    sock = socket.socket(fileno=plan["fd"])
    front.clock = asyncio.get_running_loop().time()
    captures.start()
    tasks = [
        asyncio.create_task(follow()),
        asyncio.create_task(directory.sweep_forever()),
        asyncio.create_task(_sweep_connections(server, front)),
    ]
    await link.knows.wait()  # until then connections wait in the backlog: better than to be told of no endpoint
    if not server.should_exit:
        await server.serve(sockets=[sock])
    jobs.close()
    explainer.close()
    for task in tasks:
        task.cancel()
    await captures.close()
    tracing.close()


async def _sweep_connections(server: Any, front: Front) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)  # the sweep's clock
        front.clock = now = loop.time()
        front.registry.slow.flush()
        for connection in list(server.server_state.connections):
            connection.sweep(now)


class _Server(uvicorn.Server):
    """uvicorn's server, which takes in what the kernel has already accepted before it closes the listener."""

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


def _backlog(listener: socket.socket) -> list[socket.socket]:
    """Connections that the kernel has accepted for a (non-blocking) listener: their requests may be written already."""
    accepted = []
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


def main() -> None:
    """Serve until control says stop, or has gone."""
    plan = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = plan["settings"]
    configure_logs(settings["log_format"], settings["log_level"])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its life is ours to tell
    memory.quiet_collector()
    uvloop.run(_front(plan))
    os._exit(0)


if __name__ == "__main__":
    main()
