"""Serverless variants: as many workers as there are calls, within limits; none when there have been none for a while.

::

    fronts: so many calls at a time ──► workers for them, at once      at most MaxConcurrency
    a worker that no call has needed for serverless_idle_seconds ──► goes      at least ProvisionedConcurrency

Nothing of it is written down: after a restart a variant has what is provisioned, until calls come.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from serving.config import Settings, usable_cores
from serving.types import FleetKey, FleetSpec, ServerlessSpec
from serving.workers import places
from serving.workers.roster import STARTING, Fleet
from serving.workers.supervisor import Supervisor

#: Workers for each core that serverless variants may have in all beyond what is provisioned, unless the settings say.
_WORKERS_PER_CORE = 4
#: Idle time is looked at so often in its course, but not without pause, and once a second at least.
_LOOKS, _SHORTEST_TICK, _LONGEST_TICK = 10, 0.05, 1.0
#: A model that does not start is tried again with the first call after so long.
_RETRY_SECONDS = 30.0

log = logging.getLogger("serving.scaling")


def proving(fleets: Iterable[FleetSpec]) -> list[FleetSpec]:
    """These fleets as they come up for the first time: each with a worker at least, which shows that its model loads;
    one that calls do not need goes again."""
    return [replace(one, count=max(1, one.count)) if one.serverless else one for one in fleets]


def adjusted(fleet: Fleet, spec: FleetSpec) -> int:
    """Workers that a fleet should have which is to work by ``spec`` from now on. What calls have brought stays."""
    if spec.serverless is None:
        return spec.count
    fleet.spec = spec
    return min(max(fleet.desired, spec.serverless.provisioned), spec.serverless.most)


def used(before: Sequence[float], calls: int, now: float) -> tuple[float, ...]:
    """When the first worker, the second, ... was last needed, with ``calls`` at a time now."""
    return (*[now] * calls, *before[calls:])


def wanted(spec: ServerlessSpec, last: Sequence[float], now: float, idle: float) -> int:
    """Workers that a variant should have: those that were needed within the last ``idle`` seconds."""
    needed = max((number for number, at in enumerate(last, 1) if now - at < idle), default=0)
    return min(max(needed, spec.provisioned), spec.most)


def granted(wishes: Mapping[FleetKey, tuple[int, int]], room: int) -> dict[FleetKey, int]:
    """Workers of each variant that has ``(least, wanted)``, where all together may have ``room`` beyond the least: in
    turn one more each, so that one busy variant leaves something for the others. One worker each is never refused."""
    counts = {key: max(least, min(1, wanted)) for key, (least, wanted) in wishes.items()}
    room -= sum(counts[key] - least for key, (least, _) in wishes.items())
    while room > 0 and (short := [key for key, (_, wanted) in wishes.items() if counts[key] < wanted]):
        for key in short[:room]:
            counts[key] += 1
        room -= len(short)
    return counts


@dataclass(eq=False, slots=True)
class _Variant:
    """What is known of one: the calls at a time that each child has, when workers were last needed, and since when no
    start is tried any more."""

    calls: dict[int, int] = field(default_factory=dict)
    last: tuple[float, ...] = ()
    refused_at: float = 0.0


class OnDemand:
    """The workers of all serverless variants. Build, ``start``, ``close``."""

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        self._idle = settings.serverless_idle_seconds
        self._most = settings.most_workers or _WORKERS_PER_CORE * usable_cores()
        self._supervisor = supervisor
        self._variants: dict[FleetKey, _Variant] = {}
        self._task: asyncio.Task[None] | None = None
        self._due = False

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._look_forever())

    def close(self) -> None:
        """Leave all as it is."""
        if self._task is not None:
            self._task.cancel()

    def demand(self, event: Mapping[str, Any]) -> None:
        """A child has so many calls at a time: ``{"endpoint", "generation", "name", "pending", "child"}``."""
        key = FleetKey(event["endpoint"], event["generation"], event["name"])
        variant, fleet = self._variants.setdefault(key, _Variant()), self._supervisor.fleets.get(key)
        variant.calls[event["child"]] = event["pending"]
        calls = sum(variant.calls.values())
        variant.last = used(variant.last, calls, time.monotonic())
        if fleet is not None and calls > fleet.desired and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def gone(self, child: int) -> None:
        """A child has ended, and its calls with it."""
        for key, variant in self._variants.items():
            variant.calls.pop(child, None)
            places.free(self._supervisor.run_dir, key.generation, child)

    async def _look_forever(self) -> None:
        tick = min(max(self._idle / _LOOKS, _SHORTEST_TICK), _LONGEST_TICK)
        while True:
            await asyncio.sleep(tick)  # idle time passes without anybody telling
            try:
                self._look()
            except Exception:
                log.exception("serverless variants could not be looked after")

    def _look(self) -> None:
        """Bring every serverless variant to what its calls need now."""
        self._due, now, fleets = False, time.monotonic(), self._supervisor.fleets
        here = {key: fleet for key, fleet in fleets.items() if fleet.spec.serverless is not None}
        for gone in self._variants.keys() - here.keys():
            places.forget(self._supervisor.run_dir, gone.generation)
        self._variants = {key: self._variants.get(key) or _Variant() for key in here}
        wishes = {key: self._wish(fleet, self._variants[key], now) for key, fleet in here.items()}
        for key, count in granted(wishes, self._most).items():
            fleet = here[key]
            if count != fleet.desired and not (count > fleet.desired > 0 and fleet.failed_starts):
                self._supervisor.resize(key, count)

    def _wish(self, fleet: Fleet, variant: _Variant, now: float) -> tuple[int, int]:
        """What it must have, and what its calls need. One that is coming up is not idle; one that cannot is let go
        after a while, so that the next call tries again."""
        spec = fleet.spec.serverless
        assert spec is not None  # it is one of them
        if fleet.given_up and not spec.provisioned:
            variant.refused_at = variant.refused_at or now
            if now - variant.refused_at > _RETRY_SECONDS:
                variant.last, variant.refused_at = (), 0.0
                return 0, 0
            return 0, fleet.desired
        calls = sum(variant.calls.values())
        if not variant.last or any(worker.state == STARTING for worker in fleet.workers.values()):
            calls = max(calls, fleet.desired)
        variant.last = used(variant.last, calls, now)
        return min(spec.provisioned, spec.most), wanted(spec, variant.last, now, self._idle)
