"""Changes of capacity, made and followed to their end.

::

    Change ──► one transaction: count into its record (Updating), activity InProgress
        ──► workers at once; the record's driver confirms it (InService)
        ──► as many as there shall be are ready: activity Successful | Unfulfilled
            or cannot be: the count goes back to what there is: activity Failed

A newer change of the same capacity takes over: the older activity is Overridden. What a former server left open is
followed from where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from serving.errors import ServiceUnavailable, ServingError
from serving.fleet import activities, capacity
from serving.fleet.endpoints import Endpoints, retry_pause, tag
from serving.fleet.records import Record, Session, Stale
from serving.fleet.store import StoreThread, in_states
from serving.scaling.values import COPIES, PROVISIONED, Resource
from serving.types import FleetKey
from serving.workers.roster import READY
from serving.workers.supervisor import Supervisor

_MOST_ATTEMPTS = 6

log = logging.getLogger("serving.scaling")


class Change(NamedTuple):
    """A capacity that is to be another. ``wanted`` above ``desired``: what was asked for, of which the machine has no
    more, for want of what ``shortage`` says."""

    resource: Resource
    desired: int
    cause: str
    wanted: int = 0
    shortage: str = ""


class Made(NamedTuple):
    """What became of a change: ``refusal`` says why it was not made, else it has gone into the record; ``before``: the
    capacity until then."""

    refusal: str = ""
    before: int = 0
    activity: str = ""
    record: Record | None = None


#: Told when a change is fulfilled, or has failed: the resource, the capacity before and after it, the failure.
OnEnd = Callable[[Resource, int, int, str], None]


class Changes:
    """Makes changes of capacity."""

    def __init__(self, thread: StoreThread, supervisor: Supervisor, endpoints: Endpoints, on_end: OnEnd) -> None:
        self._thread = thread
        self._supervisor = supervisor
        self._endpoints = endpoints
        self._on_end = on_end
        self._following: dict[Resource, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Follow nothing any more."""
        for task in self._following.values():
            task.cancel()

    @property
    def under_way(self) -> frozenset[Resource]:
        """Those whose last change has not been fulfilled yet."""
        return frozenset(self._following)

    async def resume(self) -> None:
        """Follow what a former server has left open."""
        records = await self._thread.read(lambda session: in_states(session, activities.ACTIVITY, activities.OPEN))
        for record in records:
            change = Change(Resource(record.parent, record.facet), record.body["Desired"], record.body["Cause"])
            self._follow(change, Made(before=record.body["Before"], activity=record.name))

    async def make(self, changes: Sequence[Change]) -> Mapping[Resource, Made]:
        """Make these, all in one transaction; returns when they are durable and workers are on their way. Raises
        ``ServiceUnavailable`` when the store cannot be written: nothing has changed then."""
        made = await self._thread.write(partial(_write, changes, time.time()))
        touched = set()
        for change in changes:
            done = made[change.resource]
            if done.record is not None:
                self._resize(change, done.record)
                touched.add(tag(done.record.kind, done.record.name))
        self._endpoints.touch(touched)
        for change in changes:
            if made[change.resource].record is not None:
                self._follow(change, made[change.resource])
        return made

    def keys(self, resource: Resource) -> list[FleetKey]:
        """The fleets whose workers are its capacity; those of the newest deployment."""
        where = capacity.place(resource)
        if resource.dimension == COPIES:
            found = [key for key in self._supervisor.fleets if key.component.lower() == where.name.lower()]
        else:
            owner = (where.name.lower(), where.variant, "")
            found = [
                key for key in self._supervisor.fleets if (key.endpoint.lower(), key.variant, key.component) == owner
            ]
        newest = max((key.generation for key in found), default=0)
        return [key for key in found if key.generation == newest]

    def ready(self, resource: Resource) -> int:
        """The complete instances, or copies, that answer now."""
        fleets = [self._supervisor.fleets[key] for key in self.keys(resource)]
        return min((sum(worker.state == READY for worker in fleet.live()) for fleet in fleets), default=0)

    def _resize(self, change: Change, record: Record) -> None:
        """Workers need not wait for the record's driver, which finds them as they shall be."""
        if change.resource.dimension == PROVISIONED:
            return  # how many run follows from the calls too: who counts them is told by the driver
        generation = record.body["Serving"]["Generation"]
        for key in self.keys(change.resource):
            if key.generation == generation and self._supervisor.fleets[key].desired != change.desired:
                self._supervisor.resize(key, change.desired)

    # -- to its end -----------------------------------------------------------------------------------------------

    def _follow(self, change: Change, made: Made) -> None:
        resource = change.resource
        former = self._following.pop(resource, None)
        if former is not None:
            former.cancel()
        task = self._following[resource] = asyncio.create_task(self._to_its_end(change, made))

        def done(ended: asyncio.Task[None]) -> None:
            if self._following.get(resource) is ended:
                del self._following[resource]

        task.add_done_callback(done)

    async def _to_its_end(self, change: Change, made: Made) -> None:
        failure, patience = "", self._supervisor.settings.load_timeout_seconds
        where = capacity.place(change.resource)
        try:
            if change.resource.dimension == PROVISIONED:
                await self._endpoints.settled([tag(where.kind, where.name)], patience)  # it says how many shall run
            await self._supervisor.settled(self.keys(change.resource), patience)
        except ServiceUnavailable as error:
            failure = error.message
            await self._endpoints.known()  # calls that were held for it hear why, before it is forgotten
        if not self.keys(change.resource):
            failure = "It has gone."
        left = change.desired if not failure else min(change.desired, max(made.before, self.ready(change.resource)))
        self._on_end(change.resource, made.before, left, failure)
        for attempt in range(_MOST_ATTEMPTS):
            try:
                record = await self._thread.write(partial(_end, change, made.activity, left, failure, time.time()))
            except (ServingError, Stale) as error:
                log.warning("%s: how its change ended could not be written: %s", change.resource.id, error)
                await asyncio.sleep(retry_pause(attempt))  # the store may come back
                continue
            if record is not None:
                self._resize(change._replace(desired=left), record)
                self._endpoints.touch([tag(record.kind, record.name)])
            return


# --- transactions ---------------------------------------------------------------------------------------------------


def _write(changes: Iterable[Change], now: float, session: Session) -> dict[Resource, Made]:
    return {change.resource: _write_one(change, now, session) for change in changes}


def _write_one(change: Change, now: float, session: Session) -> Made:
    where = capacity.place(change.resource)
    record = session.get(where.kind, where.name)
    refusal = capacity.refusal(record, change.resource)
    if record is None or refusal:
        return Made(refusal)
    before = capacity.count(record, change.resource)
    if before is None or before == change.desired:
        if change.wanted > change.desired:
            activities.unfulfilled(session, change.resource, change.wanted, change.cause, change.shortage, now)
            return Made(change.shortage)
        return Made("It has been changed in the meantime.")
    record = session.change(
        record, now=now, status="Updating", body=capacity.with_count(record, change.resource, change.desired)
    )
    counts = activities.Counts(before, change.desired, max(change.wanted, change.desired))
    begun = activities.begin(session, change.resource, counts, change.cause, now)
    return Made("", before, begun.name, record)


def _end(change: Change, activity: str, left: int, failure: str, now: float, session: Session) -> Record | None:
    """Write how a change ended. Of one that has failed the capacity goes back to what is ``left``: its record then."""
    ended = activities.end(session, activity, now, failure, change.shortage)
    if ended is None or left == change.desired:
        return None
    where = capacity.place(change.resource)
    record = session.get(where.kind, where.name)
    if record is None or capacity.refusal(record, change.resource):
        return None
    if capacity.count(record, change.resource) != change.desired:
        return None  # somebody has asked for something else since
    return session.change(record, now=now, status="Updating", body=capacity.with_count(record, change.resource, left))
