"""Capacity that follows the load: for every scalable target, what its policies make of what is measured, done.

::

    alarms evaluated ──► decide (scaling/deciding.py) ──► what the machine has (scaling/machine.py)
    fronts: calls wait, a call came to nothing ──► burst, wake (scaling/bursting.py)
    a time has come (scaling/timetable.py), a target's limits changed
          └──► counts and activities, one transaction ──► workers ──► activity Successful | Failed | Unfulfilled
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from serving.config import Settings
from serving.fleet.endpoints import Endpoints
from serving.fleet.store import StoreThread
from serving.watch.history import History

log = logging.getLogger("serving.scaling")


class Elastic(TypedDict):
    """What fronts do for a variant or component that is scaled: ``hold`` a call for so many seconds when there is no
    worker, ``report`` that calls wait."""

    hold: float
    report: bool


class Autoscaling:
    """All scalable targets of this server. Build, ``start``, ``close``."""

    def __init__(
        self,
        settings: Settings,
        thread: StoreThread,
        endpoints: Endpoints,
        history: History,
        on_change: Callable[[], None],
    ) -> None:
        """``on_change``: ``elastic`` answers otherwise than before."""
        self._settings = settings
        self._thread = thread
        self._endpoints = endpoints
        self._history = history
        self._on_change = on_change

    def start(self) -> None:
        """Begin: load what is stored, go on with what a former server left open."""

    def close(self) -> None:
        """Decide nothing any more."""

    # -- what others tell -----------------------------------------------------------------------------------------

    def touch(self, tags: Iterable[str]) -> None:
        """Records of these have changed: ``scalable-target/…``, ``scaling-policy/…``, ``scheduled-action/…``, and
        those of what is scaled, ``endpoint/NAME`` and ``inference-component/NAME``."""

    def evaluated(self) -> None:
        """A round of alarms has been evaluated: decide."""

    def pressure(self, report: Mapping[str, Any]) -> None:
        """A front reports that calls wait for workers: ``{"endpoint", "name", "window", "calls", "pending_least",
        "pending", "ready"}``; ``name`` is a variant's or component's."""

    def wake(self, report: Mapping[str, Any]) -> None:
        """A call has come for ``{"endpoint", "name"}``, which has no workers and is to have none."""

    # -- what others ask ------------------------------------------------------------------------------------------

    def elastic(self, endpoint: str, name: str) -> Elastic | None:
        """How fronts treat this variant or component; None when it is no scalable target."""
        return None

    def view(self, endpoint: str) -> dict[str, Any]:
        """Everything about an endpoint's scaling, for people."""
        return {"EndpointName": endpoint, "Targets": []}
