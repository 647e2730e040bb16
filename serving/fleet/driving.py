"""Those who make the world as it should be, as one for the control API: each hears of its own kinds of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serving.fleet.endpoints import Endpoints
from serving.fleet.executions import SCHEDULE
from serving.fleet.monitoring import Monitoring
from serving.fleet.transforms import TRANSFORM, Transforms


class Drivers:
    """Endpoints with their inference components, transform jobs, and monitoring schedules."""

    def __init__(
        self,
        endpoints: Endpoints,
        transforms: Transforms,
        monitoring: Monitoring,
        capture_stopped: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """``capture_stopped``: has a process stopped capturing the calls of this endpoint? It may read files."""
        self._endpoints = endpoints
        self._transforms = transforms
        self._monitoring = monitoring
        self._capture_stopped = capture_stopped
        self.progress = transforms.progress
        self.news = transforms.news

    def live(self, name: str) -> Mapping[str, Any] | None:
        """What runs of an endpoint now (``fleet/endpoints.py``), and ``capture_stopped``, where calls are captured.
        Asked on the store's thread."""
        row = self._endpoints.live(name)
        if row is None or not row["capture"]:
            return row
        return {**row, "capture_stopped": self._capture_stopped(row["name"])}

    def touch(self, tags: Iterable[str]) -> None:
        """The desired state of these has changed."""
        jobs, schedules, others = _apart(tags)
        self._endpoints.touch(others)
        self._transforms.touch(jobs)
        self._monitoring.touch(schedules)

    async def settled(self, tags: Iterable[str], seconds: float) -> None:
        """Return when these are as they should be, or have failed; after ``seconds`` at the latest. A job takes as long
        as it takes, and so does a schedule's run: they are not waited for."""
        await self._endpoints.settled(_apart(tags)[2], seconds)


def _apart(tags: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Tags of transform jobs, of monitoring schedules, and the others."""
    found: dict[str, list[str]] = {TRANSFORM: [], SCHEDULE: [], "": []}
    for one in tags:
        kind = one.partition("/")[0]
        found[kind if kind in found else ""].append(one)
    return found[TRANSFORM], found[SCHEDULE], found[""]
