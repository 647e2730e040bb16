"""Scheduled actions, run when their time comes: they set a target's limits, whatever cooldowns there are.

What has run is written into the action (``Since``) in the transaction that sets the limits, so that after a kill -9 at
any moment it is run once. Of the runs that came while no server was there, the last of each action is made up for.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from serving.errors import ServingError
from serving.fleet import activities, scaling_records
from serving.fleet.records import Record, Session
from serving.fleet.scaling_records import Scheduled
from serving.fleet.store import StoreThread
from serving.scaling import timetable
from serving.scaling.timetable import Timetable
from serving.scaling.values import Resource

#: How far back the last of many missed runs is looked for, step by step: a rare one lies further back.
_LOOK_BACK = (120.0, 7_200.0, 172_800.0, 32 * 86_400.0, math.inf)

log = logging.getLogger("serving.scaling")


class Timed(NamedTuple):
    """A scheduled action with its timetable. ``record``: its record's name; ``since``: later runs are still to be
    made; ``due``: the next of them, None = never."""

    action: Scheduled
    record: str
    table: Timetable
    since: float
    due: float | None


class Timetables:
    """All scheduled actions. ``clock``: epoch seconds."""

    def __init__(self, thread: StoreThread, clock: Callable[[], float] = time.time) -> None:
        self._thread = thread
        self._clock = clock
        self._all: list[Timed] = []

    def take_in(self, timed: Sequence[Timed]) -> None:
        """These there are now (``read``)."""
        self._all = list(timed)

    def next_due(self) -> float:
        """When the next run is; infinity for never."""
        return min((one.due for one in self._all if one.due is not None), default=math.inf)

    def upcoming(self, resource: Resource, now: float) -> list[dict[str, Any]]:
        """A target's actions for people, and when each runs next."""
        return [
            {
                "ScheduledActionName": one.action.name,
                "Schedule": one.action.schedule,
                "MinCapacity": one.action.minimum,
                "MaxCapacity": one.action.maximum,
                "Next": one.table.next(now),
            }
            for one in self._all
            if one.action.resource == resource
        ]

    async def run_due(self) -> list[tuple[Resource, str]]:
        """Run what has come due; what was done, in words. Raises ``ServiceUnavailable`` when the store is away."""
        now = self._clock()
        runs = [(at, one) for one in self._all if one.due is not None and one.due <= now and (at := last(one, now))]
        if not runs:
            return []
        return await self._thread.write(partial(_run, sorted(runs, key=lambda run: run[0]), now))


# --- when: pure -------------------------------------------------------------------------------------------------------


def last(one: Timed, now: float) -> float | None:
    """The last run that is due at ``now``; None = none is."""
    found = None
    for back in _LOOK_BACK:
        at = one.table.next(max(one.since, now - back))
        while at is not None and at <= now:
            found, at = at, one.table.next(at)
        if found is not None or now - back <= one.since:
            return found
    return None


# --- transactions -----------------------------------------------------------------------------------------------------


def read(session: Session, now: float) -> list[Timed]:
    """All scheduled actions. One that is ahead of the clock, which has been put back, goes on from now."""
    found = (_timed(record, now) for record in session.every(scaling_records.ACTION))
    return [one for one in found if one is not None]


def _timed(record: Record, now: float) -> Timed | None:
    action = scaling_records.scheduled_of(record.body)
    try:
        table = timetable.parse(action.schedule, action.timezone, action.start, action.end, record.created)
    except ServingError as error:
        log.warning("scheduled action %s is not run: %s", action.name, error.message)
        return None
    since = min(max(record.modified, record.body.get("Since", 0.0)), now)
    one = Timed(action, record.name, table, since, None)
    return one._replace(due=one.table.next(since))


def _run(runs: Iterable[tuple[float, Timed]], now: float, session: Session) -> list[tuple[Resource, str]]:
    return [(one.action.resource, text) for at, one in runs if (text := _run_one(one, at, now, session))]


def _run_one(one: Timed, at: float, now: float, session: Session) -> str:
    """Make a run; what was done, empty = nothing."""
    record = session.get(scaling_records.ACTION, one.record)
    target = session.get(scaling_records.TARGET, scaling_records.key(one.action.resource))
    if record is None or target is None or scaling_records.scheduled_of(record.body) != one.action:
        return ""  # it has gone, or is another since
    session.change(record, now=record.modified, body={**record.body, "Since": at})
    if scaling_records.target_of(target.body).suspended_schedule:
        return ""
    limits = _limits(target.body, one.action)
    session.change(target, now=now, body={**target.body, **limits})
    what = f"min capacity to {limits['MinCapacity']} and max capacity to {limits['MaxCapacity']}"
    cause = f"scheduled action name {one.action.name} was triggered"
    said = {"Description": f"Setting {what}.", "Cause": cause, "StatusMessage": f"Successfully set {what}."}
    activities.note(session, one.action.resource, said, "Successful", now)
    return f"scheduled action {one.action.name}: {what}"


def _limits(body: Mapping[str, Any], action: Scheduled) -> dict[str, int]:
    """The limits that the action sets; one that is not said gives way."""
    low, high = body["MinCapacity"], body["MaxCapacity"]
    if action.minimum is not None:
        low, high = action.minimum, max(high, action.minimum)
    if action.maximum is not None:
        low, high = min(low, action.maximum), action.maximum
    return {"MinCapacity": low, "MaxCapacity": high}
