"""The explain process: it finds out why models predict what they do. It runs no model code.

``python -m serving.explain_process``, started by control (``children.py``) when it is first needed, told everything on
its standard input. Fronts ask it over ``explain.sock`` (``api/explain_link.py``), monitoring runs too
(``explain/asking.py``); models are called through ``Endpoint.invoke`` like from any front, by the routing table that
control pushes. Such calls are no caller's: they are neither captured, nor shadowed, nor counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from serving.api.desk import Answer, Desk
from serving.endpoint import Directory
from serving.errors import ValidationError
from serving.explain.explainer import Explainers
from serving.link import ControlLink, settings_of
from serving.objects import open_objects
from serving.watch.logs import configure as configure_logs
from serving.watch.metrics import Registry, holders
from serving.workers import memory
from serving.workers.places import Siblings

#: A table that a front works by already is waited for so long.
_TABLE_SECONDS = 2.0


class Explain:
    """The process as a whole: its desk, what is answered there, and its line to control."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        settings, self._run_dir = settings_of(plan["settings"]), Path(plan["run_dir"])
        self._registry = Registry(self._run_dir / "metrics", "explain")
        uncounted = Registry(self._run_dir / "uncounted", "explain")
        self._link = ControlLink(plan["number"])
        self._directory = Directory(
            uncounted,
            settings.account_id,
            settings.max_queue,
            self._link.stalled,
            on_scaling=self._link.scaling,
            siblings=Siblings(plan["number"], settings.fronts + 1, self._run_dir),
        )
        self._explainers = Explainers(self._directory, open_objects(settings), self._registry)
        self._desk = Desk(self._who_answers)
        self._applied = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until told to stop, and until nobody asks any more; or until control has gone."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        sweeping = asyncio.create_task(self._directory.sweep_forever())
        await self._desk.start(self._run_dir / "explain.sock")
        path = self._run_dir / "control.sock"
        follows = asyncio.create_task(self._link.hear(path, self._apply, self._stopping.set))
        stops = asyncio.create_task(self._stop())
        await asyncio.wait({follows, stops}, return_when=asyncio.FIRST_COMPLETED)
        sweeping.cancel()
        if follows.done():
            follows.result()

    async def _stop(self) -> None:
        await self._stopping.wait()
        await self._desk.idle.wait()  # fronts finish what they accepted

    def _apply(self, table: dict[str, Any]) -> None:
        self._directory.apply(unwatched(table))
        self._registry.keep(holders(table))
        self._applied.set()
        self._applied = asyncio.Event()

    async def _who_answers(self, what: str) -> Answer:
        if what == "explain":
            return self._explain
        if what == "attributions":
            return self._attributions
        raise ValidationError(f"unknown question {what!r}")

    async def _explain(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        """A front that knows the endpoint may have heard of it a moment before we do."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TABLE_SECONDS):
                while self._directory.table["version"] < args["table"]:
                    await self._applied.wait()
        return await self._explainers.explain(args, payload)

    async def _attributions(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        """Nobody is told of an endpoint that is not there before we know which are."""
        await self._link.knows.wait()
        return await self._explainers.attributions(args, payload)


def unwatched(table: dict[str, Any]) -> dict[str, Any]:
    """The table without those who look on and without shadows."""
    rows = [{**row, "capture": None, "shadows": []} for row in table["endpoints"]]
    return {**table, "endpoints": rows}


def main() -> None:
    """Work until control says stop, or has gone."""
    plan = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = plan["settings"]
    configure_logs(settings["log_format"], settings["log_level"])
    memory.quiet_collector()
    uvloop.run(_run(plan))
    os._exit(0)


async def _run(plan: Mapping[str, Any]) -> None:
    await Explain(plan).run()


if __name__ == "__main__":
    main()
