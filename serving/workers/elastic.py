"""A pool's part in scaling, as its front sees it: calls held while nothing runs, and how hard calls press on what does.

Control hears of both (``link.py``) and adds workers (``fleet/autoscaling.py``). Runs on the front's event loop, and
only where a pool is said to scale: others pay nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from serving.types import FleetKey
from serving.workers.channel import Call

#: Looks (``pool.SWEEP_SECONDS`` apart) before control hears that calls wait: a moment of it is usual. From then on each
#: says more surely how many come, up to so many.
_FEWEST_LOOKS, _MOST_LOOKS = 4, 9
#: Control is told again so soon of calls that are still held: it may have had no room before.
_AGAIN_SECONDS = 0.25


class Event(NamedTuple):
    """What control is told: ``kind`` = ``wake``, ``pressure`` or ``demand``, of an endpoint's variant or component."""

    kind: str
    endpoint: str
    name: str
    more: dict[str, Any]

    def message(self) -> dict[str, Any]:
        """As it is sent (``link.py``)."""
        return {"ev": self.kind, "endpoint": self.endpoint, "name": self.name, **self.more}


def event(kind: str, key: FleetKey, **more: Any) -> Event:
    """An event of the workers of ``key``."""
    return Event(kind, key.endpoint, key.component or key.variant, more)


class Waiting:
    """Calls that wait although there is to be no worker: each until its time is over, or one comes after all."""

    def __init__(self) -> None:
        self._until: dict[Call, float] = {}
        self._woken = 0.0

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, call: Call) -> bool:
        return call in self._until

    def add(self, call: Call, seconds: float, now: float) -> None:
        """This one waits too, from its beginning on."""
        self._until[call] = max(call.started + seconds, now)

    def remove(self, call: Call) -> None:
        """This one waits no longer."""
        self._until.pop(call, None)
        if not self._until:
            self._woken = 0.0

    def is_time_to_wake(self, now: float) -> bool:
        """Should control be told now that calls wait?"""
        if now - self._woken < _AGAIN_SECONDS:
            return False
        self._woken = now
        return True

    def over(self, now: float) -> list[Call]:
        """Those that have waited as long as they may; who waits no longer is forgotten."""
        self._until = {call: until for call, until in self._until.items() if call.parked and call.done is not None}
        if not self._until:
            self._woken = 0.0
        return [call for call, until in self._until.items() if until <= now]


class _Look(NamedTuple):
    at: float
    arrived: float
    pending: int


class Gauge:
    """How hard calls press on a pool: looks, four a second, since when they wait."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque(maxlen=_MOST_LOOKS)

    def look(self, now: float, arrived: float, pending: int, ready: int, fronts: int) -> dict[str, Any] | None:
        """One look: ``arrived`` calls since ever, ``pending`` at this front now, on ``ready`` workers. Returns what
        control is told when more calls than this front's share of the workers have been here for a while."""
        looks = self._looks
        if pending * fronts <= ready:
            looks.clear()
            return None
        looks.append(_Look(now, arrived, pending))
        if len(looks) < _FEWEST_LOOKS:
            return None
        return {
            "window": now - looks[0].at,
            "calls": int(arrived - looks[0].arrived),
            "pending_least": min(look.pending for look in looks),
            "pending": pending,
            "ready": ready,
        }
