"""Those who make the world as it should be, as one for the control API: each hears of its own kinds of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serving.fleet.alarm_records import ALARM
from serving.fleet.alarms import Alarms
from serving.fleet.autoscaling import Autoscaling
from serving.fleet.endpoints import Endpoints
from serving.fleet.executions import SCHEDULE
from serving.fleet.monitoring import Monitoring
from serving.fleet.scaled import KINDS
from serving.fleet.transforms import TRANSFORM, Transforms


class Drivers:
    """Endpoints with their inference components, transform jobs, monitoring schedules, alarms, and what scales."""

    def __init__(
        self,
        endpoints: Endpoints,
        transforms: Transforms,
        monitoring: Monitoring,
        alarms: Alarms,
        autoscaling: Autoscaling,
        capture_stopped: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """``capture_stopped``: has a process stopped capturing the calls of this endpoint? It may read files."""
        self._endpoints = endpoints
        self._transforms = transforms
        self._monitoring = monitoring
        self._alarms = alarms
        self._autoscaling = autoscaling
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
        apart = _apart(tags)
        self._endpoints.touch(apart["endpoints"])
        self._transforms.touch(apart[TRANSFORM])
        self._monitoring.touch(apart[SCHEDULE])
        self._alarms.touch(apart[ALARM])
        self._autoscaling.touch([*apart["scaling"], *apart["endpoints"]])

    async def settled(self, tags: Iterable[str], seconds: float) -> None:
        """Return when these are as they should be, or have failed; after ``seconds`` at the latest. A job takes as long
        as it takes, and so does a schedule's run: they are not waited for."""
        await self._endpoints.settled(_apart(tags)["endpoints"], seconds)


def _apart(tags: Iterable[str]) -> dict[str, list[str]]:
    """The tags by who hears of them: transform jobs, monitoring schedules, alarms, scaling, and endpoints with their
    inference components."""
    found: dict[str, list[str]] = {TRANSFORM: [], SCHEDULE: [], ALARM: [], "scaling": [], "endpoints": []}
    for one in tags:
        kind = one.partition("/")[0]
        found["scaling" if kind in KINDS else kind if kind in found else "endpoints"].append(one)
    return found
