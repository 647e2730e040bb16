"""Transform jobs, from their creation to their end: a job's own workers are started, its work is left to the jobs
process, and when that has said how the job ended the workers go.

The store's record is the truth about a job. Whatever is done about it is written down first, so that after a kill -9 at
any moment its driver simply goes on::

    InProgress ──► its turn ──► workers up, TransformStartTime ──► ready in the table: the jobs process works
        │                └── they cannot come up: told in the table ───────┤
        └──► Stopping, told in the table ──────────────────────────────────┤ the jobs process says how it
                                                                           ▼ ended: kept as Outcome
                              out of the table ──► workers gone ──► Completed | Failed | Stopped

The record's body::

    {"Job": {CreateTransformJob…}, "Parameters": {"MaxConcurrentTransforms", "MaxPayloadInMB", "BatchStrategy"},
     "Deployment": DEPLOYMENT, "TransformStartTime": 1.0, "Outcome": {"Status", "Reason", "Time", "Progress"}}

(``DEPLOYMENT``: ``fleet/resolve.py``.) Of one that has ended it is ``Job``, ``Parameters``, ``TransformStartTime``,
``TransformEndTime``, ``FailureReason`` and ``Progress``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from serving.errors import ServingError
from serving.fleet import resolve
from serving.fleet.endpoints import Known, retry_pause, tag
from serving.fleet.placing import place
from serving.fleet.store import Record, Session, StoreThread, in_states
from serving.fleet.table import endpoint_row
from serving.storage import ArtifactStore
from serving.types import EndpointSpec, FleetKey, FleetSpec
from serving.workers.roster import READY, Fleet
from serving.workers.supervisor import Supervisor

TRANSFORM = "transform-job"
VARIANT = "AllTraffic"
OPEN = ("InProgress", "Stopping")

#: ModelClientConfig, InvocationsTimeoutInSeconds.
_USUAL_CALL_SECONDS = 600
_LONGEST_REASON = 1024
#: Nobody wants the answers of a job that has ended: its workers get so long to notice.
_FAREWELL_SECONDS = 1.0
#: Instances of jobs at work at once, for each core: beyond them jobs wait for their turn.
_INSTANCES_PER_CORE, _LEAST_INSTANCES = 4, 8

#: A model that could be loaded before the server was started again may be out of reach for so many tries, about 2 min.
_MOST_FAILURES = 8

log = logging.getLogger("serving.fleet")


# --- what follows from a record: pure ---------------------------------------------------------------------------------


def deployment(model_name: str, model: Mapping[str, Any], instances: int, now: float) -> dict[str, Any]:
    """What a job runs by, copied when it is created: one variant with one model (``fleet/resolve.py``)."""
    variant = {
        "VariantName": VARIANT,
        "ModelName": model_name,
        "InitialInstanceCount": instances,
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    }
    return resolve.deployment(1, "", {"ProductionVariants": [variant]}, {model_name: model}, now)


def spec_of(name: str, deployed: Mapping[str, Any]) -> EndpointSpec:
    """A job's workers as an endpoint, under a name that no endpoint can have. Raises ``ValidationError`` for a
    container that this server cannot run."""
    return resolve.endpoint_spec(f"{TRANSFORM}/{name}", deployed)


def fleets_of(spec: EndpointSpec, job: Mapping[str, Any]) -> tuple[FleetSpec, ...]:
    """One fleet for each container, whose calls may run as long as the job lets them. A record that ends workers is
    found by its job (``jobs/transform_calls.py``), which a quarantine would hold up for minutes."""
    seconds = job.get("ModelClientConfig", {}).get("InvocationsTimeoutInSeconds", _USUAL_CALL_SECONDS)
    job_fleets = resolve.endpoint_fleets(spec)
    return tuple(replace(one, call_seconds=float(seconds), quarantine=0.0) for one in job_fleets)


def instances_of(record: Record) -> int:
    """TransformResources, InstanceCount."""
    return int(record.body["Job"]["TransformResources"]["InstanceCount"])


def outcome(status: str, reason: str, now: float, progress: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """How a job ended, as its record keeps it."""
    made: dict[str, Any] = {"Status": status, "Reason": reason[:_LONGEST_REASON], "Time": now}
    return made | ({"Progress": dict(progress)} if progress else {})


def ended(record: Record) -> tuple[str, dict[str, Any]]:
    """Status and body of a job with an outcome once its workers have gone."""
    found = record.body["Outcome"]
    body = {name: value for name, value in record.body.items() if name not in ("Outcome", "Deployment")}
    body["TransformEndTime"] = found["Time"]
    if found["Status"] == "Failed":
        body["FailureReason"] = found["Reason"] or "The job failed."
    if "Progress" in found:
        body["Progress"] = found["Progress"]
    return found["Status"], body


class Wish(NamedTuple):
    """A job that is at work, or would like to be."""

    tag: str
    instances: int
    runs: bool


def in_turn(wishes: Iterable[Wish], capacity: int) -> list[str]:
    """Which of the waiting jobs may start, of all in the order they came: as many as there is room for, none before one
    that came earlier; one that is larger than all the room has it for itself."""
    wishes = list(wishes)
    taken = sum(one.instances for one in wishes if one.runs)
    started = []
    for one in wishes:
        if one.runs:
            continue
        if taken and taken + one.instances > capacity:
            break
        taken += one.instances
        started.append(one.tag)
    return started


def lost(fleets: Iterable[Fleet]) -> str:
    """Why a fleet that is not tried to be started any more has nobody left; empty while there is hope."""
    for fleet in fleets:
        if fleet.given_up and not any(worker.state == READY for worker in fleet.workers.values()):
            return fleet.failure
    return ""


# --- jobs -------------------------------------------------------------------------------------------------------------


class Transforms:
    """All transform jobs that have not ended."""

    def __init__(
        self,
        supervisor: Supervisor,
        artifacts: ArtifactStore,
        thread: StoreThread,
        on_change: Callable[[], None],
        known: Known,
    ) -> None:
        """``on_change``: the table may have changed. ``known`` returns when everyone works by the newest."""
        self._supervisor = supervisor
        self._settings = supervisor.settings
        self._artifacts = artifacts
        self._thread = thread
        self._on_change = on_change
        self._known = known
        self._jobs: dict[str, _Job] = {}
        self._capacity = max(_LEAST_INSTANCES, _INSTANCES_PER_CORE * self._settings.threads)
        self._started = False

    async def start(self) -> None:
        """Take up every job that has not ended; all of them are in the table when this returns."""
        self._started = True
        for record in await self._thread.read(_open_jobs):
            self._drive(tag(TRANSFORM, record.name), record)

    def touch(self, tags: Iterable[str]) -> None:
        """The desired state of these has changed. Before ``start`` this waits for it."""
        for one in tags if self._started else ():
            job = self._jobs.get(one)
            if job is None:
                self._drive(one, None)
            else:
                job.again.set()

    def _drive(self, one: str, record: Record | None) -> None:
        job = self._jobs[one] = _Job(one, record)
        job.shown = record is not None and "Outcome" not in record.body
        job.again.set()
        job.task = asyncio.create_task(self._run(job))

    def close(self) -> None:
        """Drive nothing any more."""
        for job in self._jobs.values():
            if job.task is not None:
                job.task.cancel()

    def progress(self, name: str) -> Mapping[str, Any] | None:
        """How far a running job is, as the jobs process said last; any thread may ask."""
        job = self._jobs.get(tag(TRANSFORM, name))
        return job.progress if job is not None else None

    async def news(self, one: str, revision: int, seconds: float) -> None:
        """Return when the job's record has changed beyond ``revision``, or it is driven no more; after ``seconds`` at
        the latest."""
        job = self._jobs.get(one)
        if job is not None and (job.record is None or job.record.revision <= revision):
            with suppress(TimeoutError):
                await asyncio.wait_for(job.changed.wait(), seconds)

    def rows(self) -> list[dict[str, Any]]:
        """What the jobs process is told: every job that has no outcome yet (``table["transforms"]``). ``ready``: its
        workers have come, and calls may wait for them. ``failure``: why no worker will ever come again."""
        now = time.monotonic()
        return [self._row(job, job.record, now) for job in self._jobs.values() if job.record and job.shown]

    def _row(self, job: _Job, record: Record, now: float) -> dict[str, Any]:
        fleets, row = [self._supervisor.fleets[key] for key in job.keys if key in self._supervisor.fleets], None
        if job.spec is not None and fleets:
            row = endpoint_row(job.spec, self._supervisor.fleets, (), ("InService", "", True), now)
        return {
            "name": record.name,
            "created": record.created,
            "stopping": record.status == "Stopping",
            "ready": job.ready,
            "instances": instances_of(record),
            "row": row,
            "job": {**record.body["Job"], **record.body["Parameters"]},
            "failure": job.failure or (lost(fleets) if job.ready else ""),
        }

    async def report(self, args: Mapping[str, Any]) -> None:
        """What the jobs process says of a job: how far it is, or, until it is answered, how it ended. To be told twice
        changes nothing, nor does what is said of a job that is not there. Raises ``ServingError`` when it could not be
        kept."""
        one = tag(TRANSFORM, str(args["name"]))
        job = self._jobs.get(one)
        if args["state"] == "progress":
            if job is not None:
                job.progress = args["progress"]
            return

        def keep(session: Session) -> Record | None:
            record = session.get(TRANSFORM, str(args["name"]))
            if record is None or record.status not in OPEN or "Outcome" in record.body:
                return None
            if record.created != args["created"]:
                return None
            found = outcome(args["status"], args.get("reason", ""), time.time(), args.get("progress"))
            return session.change(record, now=found["Time"], body={**record.body, "Outcome": found})

        await self._thread.write(keep)
        self.touch([one] if job is not None else ())

    # -- one job's life -------------------------------------------------------------------------------------------

    async def _run(self, job: _Job) -> None:
        """Look at a job until there is nothing left to do about it; again whenever told to."""
        done = False
        while not done:
            await job.again.wait()
            job.again.clear()
            try:
                done = await self._advance(job)
                job.failures = 0
            except Exception as error:
                if isinstance(error, ServingError):
                    log.error("%s: %s Trying again.", job.tag, error.message)
                else:
                    log.exception("%s could not be looked after", job.tag)
                asyncio.get_running_loop().call_later(retry_pause(job.failures), job.again.set)
                job.failures += 1
        del self._jobs[job.tag]
        job.know(None)

    async def _advance(self, job: _Job) -> bool:
        """Do the next thing that is missing. Returns whether nothing is any more. Raises ``ServingError`` when it could
        not be tried."""
        record = await self._thread.read(lambda session: session.get(TRANSFORM, job.tag.partition("/")[2]))
        job.know(record)
        if record is None or record.status not in OPEN:
            await self._withdraw(job)
            return True
        if "Outcome" in record.body:
            await self._withdraw(job)
            await self._commit(job, ended)
            return True
        job.shown = True
        self._on_change()
        if record.status == "InProgress" and not job.ready and not job.failure:
            self._give_turns()
            if job.runs:
                await self._raise_up(job, record)
        return False

    def _give_turns(self) -> None:
        """Let those start whose turn it is."""
        wishes = [
            Wish(one, instances_of(job.record), job.runs)
            for one, job in self._jobs.items()
            if job.runs or (job.shown and job.record is not None and job.record.status == "InProgress")
            if job.record is not None
        ]
        for one in in_turn(wishes, self._capacity):
            self._jobs[one].runs = True
            self._jobs[one].again.set()

    async def _raise_up(self, job: _Job, record: Record) -> None:
        """Bring its workers up. Of a job whose model cannot be had, or cannot load, the jobs process is told so, which
        ends it as it ends all jobs; one whose model once could is tried some more."""
        try:
            if not job.keys:
                await self._start_workers(job, record)
            if not await self._workers_come(job):
                return  # it has been told something in the meantime
        except ServingError as error:
            if "TransformStartTime" in record.body and job.failures < _MOST_FAILURES:
                self._dismiss(job)
                raise
            log.error("%s: its model cannot be used: %s", job.tag, error.message)
            job.failure = error.message.removeprefix(f"{TRANSFORM}/{record.name}/{VARIANT}").lstrip(":/ ")
            self._dismiss(job)
            return
        job.ready = True
        self._on_change()
        if "TransformStartTime" not in record.body:
            await self._commit(job, lambda kept: (kept.status, {**kept.body, "TransformStartTime": time.time()}))

    async def _start_workers(self, job: _Job, record: Record) -> None:
        """Raises ``ServingError`` for an artifact that is missing, unknown or not allowed."""
        spec = spec_of(record.name, record.body["Deployment"])
        fleets = fleets_of(spec, record.body["Job"])
        allow_code = self._settings.allow_code
        places = [await asyncio.to_thread(place, one, self._artifacts, allow_code) for one in fleets]
        for fleet, (location, frameworks) in zip(fleets, places, strict=True):
            self._supervisor.put(fleet, str(location), frameworks)
        job.spec, job.keys = spec, tuple(one.key for one in fleets)
        self._on_change()

    async def _workers_come(self, job: _Job) -> bool:
        """Whether they are all there; False when the job should be looked at again first. Raises ``ServiceUnavailable``
        when they cannot come."""
        settled = asyncio.ensure_future(self._supervisor.settled(job.keys, self._settings.load_timeout_seconds))
        told = asyncio.ensure_future(job.again.wait())
        try:
            await asyncio.wait({settled, told}, return_when=asyncio.FIRST_COMPLETED)
            if settled.done():
                settled.result()
            return settled.done()
        finally:
            settled.cancel()
            told.cancel()

    async def _withdraw(self, job: _Job) -> None:
        """Nothing of this job runs any more when it returns; the next one may."""
        if job.shown or job.keys:
            job.shown = False
            self._on_change()
            await self._known()
            keys = job.keys
            self._dismiss(job)
            await self._supervisor.drained(keys)
        job.runs = False
        self._give_turns()

    def _dismiss(self, job: _Job) -> None:
        self._supervisor.remove(job.keys, _FAREWELL_SECONDS)
        job.keys, job.spec = (), None
        self._on_change()

    async def _commit(self, job: _Job, change: Callable[[Record], tuple[str, Mapping[str, Any]]]) -> None:
        """Write how far a job got: its status and body by what is written now."""

        def write(session: Session) -> Record | None:
            record = session.get(TRANSFORM, job.tag.partition("/")[2])
            if record is None or record.status not in OPEN:
                return None
            status, body = change(record)
            return session.change(record, now=time.time(), status=status, body=body)

        job.know(await self._thread.write(write))


class _Job:
    """One of them, as its driver knows it. ``runs``: its turn has come; ``ready``: its workers had all come once;
    ``shown``: it is in the table; ``failure``: why its model cannot be used; ``failures``: looks in a row that came to
    nothing; ``changed`` is set, and replaced, whenever its record is another."""

    def __init__(self, tag: str, record: Record | None) -> None:
        self.tag = tag
        self.record = record
        self.again = asyncio.Event()
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.spec: EndpointSpec | None = None
        self.keys: tuple[FleetKey, ...] = ()
        self.runs = False
        self.ready = False
        self.shown = False
        self.failure = ""
        self.failures = 0
        self.progress: Mapping[str, Any] | None = None

    def know(self, record: Record | None) -> None:
        """This is its record now; None = it is driven no more."""
        before, self.record = self.record, record
        if before is None or record is None or before.revision != record.revision:
            self.changed.set()
            self.changed = asyncio.Event()


def _open_jobs(session: Session) -> list[Record]:
    """Those that have not ended, oldest first."""
    found = in_states(session, TRANSFORM, OPEN)
    return sorted(found, key=lambda record: (record.created, record.name))
