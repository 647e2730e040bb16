"""What there should be, made to be: one driver for each endpoint and inference component, and the table for the fronts.

The store says what should exist; the supervisor's fleets are what does. A driver looks at its record, does the next
thing that is missing, writes down how far it got, and looks again; so after a kill -9 at any moment it simply goes on::

    Creating ──► fleets up ──► InService            (cannot come up: Failed)
    Updating, with a pending deployment ──► its fleets come up beside the old ones ──► the table is switched, every
        front works by it ──► InService; the old fleets drain        (cannot come up: RollingBack ──► InService, old)
    Updating, with a DeploymentConfig ──► step by step (guarded.py) ──► InService
    Updating, without a pending deployment ──► weights and counts change in place ──► InService
    Deleting ──► out of the table ──► drained ──► the record goes
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.config import Settings
from serving.errors import ServiceUnavailable, ServingError
from serving.fleet import alarm_records, on_demand, rollout
from serving.fleet.deployed import Deployed, deployed
from serving.fleet.guarded import ROLLBACK_FAILED, Guarded, Means, rolled_back, serving, succeeded, without
from serving.fleet.names import ModelNames
from serving.fleet.placing import place
from serving.fleet.store import Record, Session, Stale, StoreThread
from serving.fleet.table import RIGID, Elastic, Scaling, endpoint_row, green_row, pool_row
from serving.scaling.values import AlarmReading
from serving.storage import ArtifactStore
from serving.types import FleetKey, FleetSpec
from serving.watch.metrics import Holder
from serving.workers.roster import Fleet
from serving.workers.supervisor import Supervisor

ENDPOINT, COMPONENT = "endpoint", "inference-component"
IN_PROGRESS = frozenset({"Creating", "Updating", "RollingBack", "Deleting", "SystemUpdating"})
_LONGEST_REASON = 1024
_FIRST_RETRY, _LONGEST_RETRY = 0.5, 60.0
#: Fronts are not kept waiting any longer for those whose artifacts take long to fetch.
_ENTER_SECONDS = 5.0
#: What workers of a deleted asynchronous endpoint get: whoever has its table has called their calls off.
_CALLED_OFF_SECONDS = 1.0
#: What a shadow variant's workers get, for the copies that they have: nobody waits for one that hangs.
_COPIES_SECONDS = 5.0

log = logging.getLogger("serving.fleet")


#: Returns when every process that sends calls works by the newest table.
Known = Callable[[], Awaitable[None]]


def retry_pause(failures: int) -> float:
    """Seconds until what has failed, after so many failures before, is tried again."""
    return min(_FIRST_RETRY * 2.0 ** min(failures, 30), _LONGEST_RETRY)


def tag(kind: str, name: str) -> str:
    """How actions and the reconciler call a record, however its name is written: it has one driver at most."""
    return f"{kind}/{name.lower()}"


class Endpoints:
    """All endpoints and inference components of this server."""

    def __init__(
        self,
        supervisor: Supervisor,
        artifacts: ArtifactStore,
        thread: StoreThread,
        on_change: Callable[[], None],
        known: Known,
    ) -> None:
        """``on_change``: the table may have changed. ``elastic`` may be set to who knows what scales, ``alarm`` to who
        knows what an alarm came to, ``note`` to who keeps what people may see (``History.note``)."""
        self.elastic: Elastic = RIGID.elastic
        self.names = ModelNames(supervisor, on_change)
        self._supervisor = supervisor
        self._settings: Settings = supervisor.settings
        self._artifacts = artifacts
        self._thread = thread
        self._on_change = on_change
        self._known = known
        self._running: dict[str, Deployed] = {}
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._drivers: dict[str, _Driver] = {}
        self._started = False
        self._entering: set[str] = set()
        self.alarm: Callable[[str], AlarmReading | None] = lambda name: None
        self.note: Callable[[str, str, str], None] = lambda endpoint, variant, text: None
        self._guarded = Guarded(
            Means(
                supervisor,
                self._running,
                self._raise_up,
                self._commit,
                self._serve,
                on_change,
                known,
                self._let_go,
                self._look_later,
                self._alarm,
                lambda endpoint, variant, text: self.note(endpoint, variant, text),
                self._patience,
            )
        )

    # -- asked by the control API ---------------------------------------------------------------------------------

    async def start(self, patience: float) -> None:
        """Bring up everything the store holds; returns when each has come up or has failed to, after ``patience``
        seconds at the latest."""
        records = await self._thread.read(lambda session: [*session.every(ENDPOINT), *session.every(COMPONENT)])
        self._started = True
        tags = [tag(record.kind, record.name) for record in records]
        self._entering.update(tags)
        self.touch(tags)
        asyncio.get_running_loop().call_later(_ENTER_SECONDS, self.enter, *tags)
        self.enter()
        await self.settled(tags, patience)

    @property
    def entered(self) -> bool:
        """Is everything that was stored in the table, so that fronts may be told of it? A front that heard of half of
        them would call the others unknown."""
        return self._started and not self._entering

    def enter(self, *tags: str) -> None:
        """These are in the table, or will not be soon."""
        waited = bool(self._entering) or not tags
        self._entering.difference_update(tags)
        if waited and not self._entering:
            self._on_change()

    def touch(self, tags: Iterable[str]) -> None:
        """The desired state of these has changed. Before ``start`` this waits for it."""
        for one in tags if self._started else ():
            driver = self._drivers.get(one)
            if driver is None:
                driver = self._drivers[one] = _Driver(self, one)
            driver.look()

    async def known(self) -> None:
        """Return when every front works by the newest table, or has had time enough to."""
        await self._known()

    async def settled(self, tags: Iterable[str], seconds: float) -> None:
        """Return when these are as they should be, or have failed; after ``seconds`` at the latest."""
        waiting = [driver.settled.wait() for one in tags if (driver := self._drivers.get(one)) is not None]
        if waiting:
            _, left = await asyncio.wait([asyncio.ensure_future(one) for one in waiting], timeout=seconds)
            for task in left:
                task.cancel()

    def endpoints(self) -> list[str]:
        """The names of those that run."""
        return sorted(one.endpoint for one in self._running.values() if one.spec is not None)

    def live(self, name: str) -> Mapping[str, Any] | None:
        """The endpoint's row of the routing table as it was last sent (``table.py``); any thread may ask."""
        return self._rows.get(name)

    async def _alarm(self, name: str) -> AlarmReading | None:
        """What an alarm came to; as long as none is evaluated, what it had come to before."""
        reading = self.alarm(name)
        if reading is None:
            record = await self._thread.read(lambda session: alarm_records.get(session, name))
            return alarm_records.stored_reading(record) if record is not None else None
        return reading

    def _look_later(self, one: str, seconds: float) -> None:
        """Look at this record again in so many seconds."""
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self.touch, [one])
        else:
            self.touch([one])

    def dismiss(self, one: str) -> None:
        """Its record has gone."""
        self._drivers.pop(one, None)

    def close(self) -> None:
        """Drive nothing any more."""
        for driver in self._drivers.values():
            driver.stop()

    # -- the table ------------------------------------------------------------------------------------------------

    def table(
        self, version: int, transforms: Sequence[Mapping[str, Any]] = (), schedules: Collection[Holder] = ()
    ) -> dict[str, Any]:
        """The routing table (``table.py``). ``transforms``: the open transform jobs (``transforms.py``); ``schedules``:
        whose series there are by monitoring schedules (``monitoring.py``)."""
        now, fleets = time.monotonic(), self._supervisor.fleets
        scaling = Scaling(self.elastic, self._settings.hold_on_zero_seconds)
        components: dict[str, list[Fleet]] = {}
        coming: dict[str, list[dict[str, Any]]] = {}
        for one in self._running.values():
            if one.spec is None:
                components.setdefault(one.endpoint, []).extend(fleets[key] for key in one.keys if key in fleets)
            if one.spec is None and one.green is not None:
                pools = [pool_row(fleets[key], now, scaling) for key in one.green.keys if key in fleets]
                coming.setdefault(one.endpoint, []).extend({"share": one.share, "pool": pool} for pool in pools)
        rows = []
        for one in self._running.values():
            if one.spec is not None:
                status = (one.status, one.reason, one.up)
                row = endpoint_row(one.spec, fleets, components.get(one.endpoint, ()), status, now, scaling)
                green = one.green.spec if one.green is not None else None
                beside = _unless_empty("green", green and green_row(green, one.share, fleets, now, scaling))
                rows.append(row | beside | _unless_empty("green_components", coming.get(one.endpoint)))
        self._rows = {row["name"]: row for row in rows}
        own = [job["row"] for job in transforms if job["row"] is not None]
        self._supervisor.show({"endpoints": [*rows, *own], "schedules": schedules})
        return {"version": version, "aliases": self.names.table(), "endpoints": rows, "transforms": [*transforms]}

    # -- steps, called by drivers ---------------------------------------------------------------------------------

    async def advance(self, kind: str, name: str) -> bool:
        """Do what is missing for one record. Returns whether there still is one. Raises ``ServingError`` when it could
        not even be tried."""
        record = await self._thread.read(lambda session: session.get(kind, name))
        if record is None or record.status == "Deleting":
            await self._withdraw(tag(kind, name))
            if record is not None:
                await self._thread.write(lambda session: session.remove(kind, name))
            return False
        known = self._running.get(tag(kind, name))
        serves = "Serving" not in record.body or (known is not None and known.up)
        lost = None if serves else await self._come_back(record)
        if "Pending" in record.body and record.status == "RollingBack":  # it was cut short
            await self._guarded.undo(tag(kind, name), record, str(record.body.get("FailureReason", "")))
        elif "Pending" in record.body and record.status != "Failed":
            await self._update(record)
        elif record.status in IN_PROGRESS and lost is None:
            await self._adjust(record)
        elif record.status in IN_PROGRESS:  # what it shall be is written down; it can be changed again, or deleted
            await self._commit(record, lambda one: _adjusted(one, ""))
        else:
            self._note(record)
        if lost is not None and not self._running[tag(kind, name)].up:
            self._say(tag(kind, name), reason=lost.message)
            raise lost
        await self._bring_shadows(tag(kind, name))
        return True

    def _note(self, record: Record) -> None:
        """What people may read of it."""
        if tag(record.kind, record.name) in self._running:
            reason = str(record.body.get("FailureReason", ""))
            self._say(tag(record.kind, record.name), status=record.status, reason=reason)

    def _say(self, one: str, **what: Any) -> None:
        self._running[one] = replace(self._running[one], **what)
        self._on_change()

    def _serve(self, one: str, made: Deployed) -> None:
        """Calls are for these from now on."""
        self._running[one] = made
        for fleet in made.answering:
            self.names.locate(fleet.key.endpoint, Path(self._supervisor.fleets[fleet.key].location))
        self.enter(one)
        self._on_change()

    async def _bring_shadows(self, one: str) -> None:
        """What came back after a restart without its shadow variants gets them as soon as they can be had. Raises
        ``ServingError`` as long as they cannot."""
        made = self._running.get(one)
        missing = [fleet for fleet in made.shadows if fleet.key not in self._supervisor.fleets] if made else []
        if made is None or not made.up or not missing:
            return
        try:
            await self._raise_up(missing)
        except ServingError as error:
            self._say(one, reason=f"{missing[0].key.variant}: {error.message}")
            raise
        self._on_change()

    async def _raise_up(self, fleets: Sequence[FleetSpec]) -> None:
        """Start these fleets. Raises ``ServingError`` for an artifact that is missing, unknown or not allowed."""
        places = [await asyncio.to_thread(self._place, fleet) for fleet in fleets]
        for fleet, (location, frameworks) in zip(fleets, places, strict=True):
            if fleet.key not in self._supervisor.fleets:
                self._supervisor.put(fleet, str(location), frameworks)

    def _place(self, fleet: FleetSpec) -> tuple[Path, frozenset[str]]:
        return place(fleet, self._artifacts, self._settings.allow_code)

    async def _come_back(self, record: Record) -> ServingError | None:
        """After a restart: what served shall serve again; shadow variants come as soon as they can, and hold up
        nobody. Returns why it cannot even be tried."""
        one = tag(record.kind, record.name)
        made = replace(deployed(record, serving(record)), status=record.status)
        self._running[one] = replace(made, up=False)
        try:
            await self._raise_up(made.answering)
        except ServingError as error:
            self._say(one, reason=error.message)  # callers are told why
            self.enter(one)
            return error
        self._serve(one, made)
        try:
            await self._supervisor.settled([fleet.key for fleet in made.answering], self._patience)
        except ServiceUnavailable as error:
            log.error("%s does not come back: %s", record.name, error.message)
        return None

    @property
    def _patience(self) -> float:
        return self._settings.load_timeout_seconds

    async def _update(self, record: Record) -> None:
        one, pending = tag(record.kind, record.name), record.body["Pending"]
        mixed = rollout.progress(pending) is None and one in self._running and self._running[one].green is not None
        serves = record.body.get("Serving")
        if serves and rollout.is_guarded(serves, pending) and not mixed:  # mixed: since a rollback failed
            await self._guarded.advance(one, record)
        else:
            await self._roll_out(record)

    async def _roll_out(self, record: Record) -> None:
        """Bring the pending deployment up beside what serves; switch to it whole, or leave everything as it was."""
        one, pending = tag(record.kind, record.name), record.body["Pending"]
        before = self._running.get(one)
        coming: tuple[FleetKey, ...] = ()
        try:
            made = replace(deployed(record, pending), status=record.status)
            coming = made.keys
            if before != made or "Serving" not in record.body:  # else it serves; only to write that down has failed
                await self._raise_up(on_demand.proving(made.fleets))
                if before is None:
                    self._serve(one, made)  # nobody is served yet: calls may wait for it
                await self._supervisor.settled(coming, self._patience)
        except ServingError as error:
            log.error("%s: its deployment cannot come up: %s", record.name, error.message)
            await self._refuse(record, coming, error.message[:_LONGEST_REASON])
            return
        self._serve(one, made)
        await self._known()
        await self._commit(record, succeeded)
        self._remove(self._fleets_of(record) - set(coming), before)
        self._on_change()

    def _remove(self, keys: set[FleetKey], known: Deployed | None, seconds: float | None = None) -> None:
        """Let these fleets go, and give their calls time to end: ``seconds``, or as long as calls may take; copies not
        as long."""
        shadows = {fleet.key for fleet in known.shadows} & keys if known else set()
        self._supervisor.remove(shadows, _COPIES_SECONDS if seconds is None else seconds)
        self._supervisor.remove(keys - shadows, seconds)

    def _let_go(self, record: Record, staying: set[FleetKey], known: Deployed) -> set[FleetKey]:
        """All fleets of a record but these shall go, among them those ``known``; returns their keys."""
        gone = self._fleets_of(record) - staying
        self._remove(gone, known)
        self._on_change()
        return gone

    def _fleets_of(self, record: Record) -> set[FleetKey]:
        """All there are, of whichever deployment."""
        component = record.kind == COMPONENT
        owner = (record.parent, record.name) if component else (record.name, "")
        return {key for key in self._supervisor.fleets if (key.endpoint, key.component) == owner}

    async def _refuse(self, record: Record, coming: Iterable[FleetKey], reason: str) -> None:
        self._supervisor.remove(coming)
        if "Serving" not in record.body:
            self._running.pop(tag(record.kind, record.name), None)
            self._on_change()
            await self._commit(record, lambda one: _failed(one, reason))
            return
        await self._commit(record, lambda one: _rolling_back(one, reason))
        await self._supervisor.drained(set(coming))
        await self._commit(record, lambda one: rolled_back(one, reason))

    async def _adjust(self, record: Record) -> None:
        """Weights and counts change in place."""
        one, reason = tag(record.kind, record.name), ""
        made, before = replace(deployed(record, record.body["Serving"]), status=record.status), self._running.get(one)
        mixed = before is not None and before.green is not None  # since a rollback failed, and until blue is whole
        self._running[one] = replace(before, fleets=made.fleets, spec=made.spec) if before and mixed else made
        for fleet in made.fleets:
            known = self._supervisor.fleets.get(fleet.key)
            if known is not None and (known.desired != (count := on_demand.adjusted(known, fleet)) or mixed):
                self._supervisor.resize(fleet.key, count)
        self._on_change()
        try:
            await self._supervisor.settled(made.keys, self._patience)
        except ServiceUnavailable as error:
            reason = error.message[:_LONGEST_REASON]
        if mixed and not reason:
            self._running[one] = made
            self._on_change()
        await self._known()
        if mixed and not reason:
            self._let_go(record, set(made.keys), made)
        done = "InService" if not (mixed and reason) else ROLLBACK_FAILED
        await self._commit(record, lambda kept: _adjusted(kept, reason, done) if _same(kept, record) else _as_is(kept))

    async def _withdraw(self, one: str) -> None:
        """Nothing of this runs any more when it returns."""
        before = self._running.pop(one, None)
        if before is None:
            return
        if before.spec is not None:
            self.names.forget_endpoint(before.endpoint)
        self._on_change()
        await self._known()
        called_off = before.spec is not None and before.spec.asynchronous is not None
        keys = {*before.keys, *(before.green.keys if before.green is not None else ())}
        self._remove(keys, before, _CALLED_OFF_SECONDS if called_off else None)
        self._on_change()
        await self._supervisor.drained(keys)

    async def _commit(self, record: Record, change: Callable[[Record], tuple[str, Mapping[str, Any]]]) -> None:
        """Write how far a record got, unless it has meanwhile been asked for something else."""

        def write(session: Session) -> Record | None:
            now = session.get(record.kind, record.name)
            if now is None:
                return None
            status, body = change(now)
            return session.change(now, now=time.time(), status=status, body=body)

        written = await self._thread.write(write)
        if written is not None:
            self._note(written)


def _unless_empty(member: str, value: object) -> dict[str, Any]:
    """A member, if there is anything to say in it."""
    return {member: value} if value else {}


# --- what a step leaves in the record: pure ---------------------------------------------------------------------------


def _failed(record: Record, reason: str) -> tuple[str, Mapping[str, Any]]:
    return "Failed", {**record.body, "FailureReason": reason}


def _rolling_back(record: Record, reason: str) -> tuple[str, Mapping[str, Any]]:
    return "RollingBack", {**record.body, "FailureReason": reason}


def _adjusted(record: Record, reason: str, status: str = "InService") -> tuple[str, Mapping[str, Any]]:
    return status, without(record.body, "FailureReason") | ({"FailureReason": reason} if reason else {})


def _same(record: Record, before: Record) -> bool:
    """Has it not been changed since? Scaling asks for another count before the last one is reached."""
    return record.revision == before.revision


def _as_is(record: Record) -> tuple[str, Mapping[str, Any]]:
    return record.status, record.body


class _Driver:
    """Looks at one record until nothing is missing; again whenever told to; until there is none."""

    def __init__(self, endpoints: Endpoints, one: str) -> None:
        self.settled = asyncio.Event()
        self._endpoints = endpoints
        self._tag = one
        self._again = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def look(self) -> None:
        """Its record has changed."""
        self.settled.clear()
        self._again.set()

    def stop(self) -> None:
        """Look no more; nobody need wait for it."""
        self._task.cancel()
        self.settled.set()

    async def _run(self) -> None:
        exists, failures = True, 0
        while exists or self._again.is_set():
            await self._again.wait()
            self._again.clear()
            exists, failures = await self._look(failures)
            self._endpoints.enter(self._tag)
            if not self._again.is_set():
                self.settled.set()
        self._endpoints.dismiss(self._tag)

    async def _look(self, failures: int) -> tuple[bool, int]:
        """One look: is there still a record, and how many looks in a row have failed?"""
        kind, _, name = self._tag.partition("/")
        try:
            return await self._endpoints.advance(kind, name), 0
        except Stale:
            self._again.set()
            return True, failures
        except ServingError as error:
            log.error("%s: %s Trying again.", self._tag, error.message)
        except Exception:
            log.exception("%s could not be looked after", self._tag)
        asyncio.get_running_loop().call_later(retry_pause(failures), self._again.set)
        return True, failures + 1
