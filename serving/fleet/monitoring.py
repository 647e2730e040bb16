"""Monitoring schedules, run when their time comes: one execution at a time, each in a monitor process.

Whatever happens is written down first. A run whose time has come becomes an execution, and the schedule forgets that
time, in one transaction; an execution is InProgress before its process is started. So after a kill -9 at any moment the
next start finds what was open and does it again, under the same name and to the same files::

    due ──► Pending ──► InProgress ──► Completed | CompletedWithViolations | Failed
                │            └── its process died, the store is away: again, three times in all
                └────────────┴──► Stopping ──► Stopped

A schedule has one open execution at most: while it is at work, later times wait, and of those only the latest is run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from serving.errors import ObjectUnavailable, ServiceUnavailable, ServingError
from serving.fleet import executions
from serving.fleet.endpoints import ENDPOINT, retry_pause
from serving.fleet.executions import EXECUTION, OPEN, SCHEDULE
from serving.fleet.store import Query, Record, Session, StoreThread, in_states
from serving.watch.metrics import Holder, Registry
from serving.watch.monitored import Gauges

#: Runs a task in a monitor process (``monitors.py``): its name, its arguments, the seconds it may take.
Run = Callable[[str, Mapping[str, Any], float], Awaitable[Any]]

#: Executions of a schedule that are remembered; and of all, those that have gone too.
MOST_EXECUTIONS, MOST_OF_ALL = 100, 20_000
#: Starts of one execution, when its process dies or what it reads is out of reach.
_MOST_ATTEMPTS = 3
#: The clock is looked at so often at least: it may be set, and a machine may sleep.
_LONGEST_SLEEP = 30.0
#: A process gets so much longer than its own time limit says before control ends it.
_GRACE_SECONDS = 5.0
_PAGE = 100
_LOST = "The server was stopped or lost its monitor process {count} times while this execution was at work."

log = logging.getLogger("serving.fleet")


class Monitoring:
    """All schedules and their executions."""

    def __init__(
        self,
        thread: StoreThread,
        run: Run,
        registry: Registry,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``on_change``: other series are to be shown (``holders``). ``clock``: epoch seconds."""
        self._thread = thread
        self._run = run
        self._registry = registry
        self._gauges = Gauges(registry)
        self._on_change = on_change
        self._clock = clock
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, Record] | None = None
        self._work: asyncio.Task[Any] | None = None
        self._working_on = ""
        self._closed = False

    def start(self) -> None:
        """Begin: what a former server left open first."""
        self._task = asyncio.create_task(self._loop())

    def close(self) -> None:
        """No more runs; the one under way is given up, and taken up by the next start."""
        self._closed = True  # a cancellation is lost where what was waited for comes in the same moment
        for task in (self._task, self._work):
            if task is not None:
                task.cancel()

    def touch(self, tags: Iterable[str]) -> None:
        """These schedules have changed."""
        if list(tags):
            self._again.set()
            if self._work is not None:
                asyncio.get_running_loop().create_task(self._look_at_work())

    def holders(self) -> frozenset[Holder]:
        """Whose series there are by schedules."""
        return self._gauges.holders

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        failures = 0
        while not self._closed:
            self._again.clear()
            try:
                if self._last is None:
                    self._last = {one.parent.lower(): one for one in await self._thread.read(_last_finished)}
                pause = await self._look()
                failures = 0
            except Exception as error:
                if not isinstance(error, ServingError):
                    log.exception("monitoring schedules could not be looked after")
                pause = retry_pause(failures)
                failures += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), pause)

    async def _look(self) -> float:
        """Do all there is to do; how long there is nothing then."""
        while True:
            due, schedules = await self._thread.read(lambda session: _plan(session, self._clock()))
            if due <= self._clock():
                await self._thread.write(lambda session: _begin_due(session, self._clock()))
                due, schedules = await self._thread.read(lambda session: _plan(session, self._clock()))
            self._show(schedules)
            record = await self._thread.read(_first_open)
            if record is None:
                return min(max(due - self._clock(), 0.0), _LONGEST_SLEEP)
            await self._advance(record)

    def _show(self, schedules: Collection[tuple[str, str]]) -> None:
        """The series of all schedules there are. Cells live only while their schedule is shown, so every look writes
        them anew."""
        if self._gauges.keep(schedules):
            self._on_change()
        names = {schedule.lower() for _, schedule in schedules}
        self._last = {name: one for name, one in (self._last or {}).items() if name in names}
        for one in self._last.values():
            self._gauges.show(one.body["EndpointName"], one.parent, one.modified, one.body["Result"])

    async def _advance(self, record: Record) -> None:
        """Bring one open execution to its end."""
        if record.status == "Stopping":
            await self._end(record, lambda kept: ("Stopped", kept.body))
            return
        attempts = int(record.body["Attempts"])
        if attempts >= _MOST_ATTEMPTS:
            await self._end(record, lambda kept: executions.failed(kept, _LOST.format(count=attempts)))
            return
        args = await self._thread.write(lambda session: _take_up(session, record.name, self._clock()))
        if args is None:
            return  # it has been told to stop in the meantime, or has gone
        self._working_on = record.name
        self._work = asyncio.create_task(self._done(args))
        try:
            outcome = await self._work
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if here is not None and here.cancelling():
                raise
            return  # it is Stopping now
        finally:
            self._work, self._working_on = None, ""
        if isinstance(outcome, ServingError):
            await self._missed(record.name, attempts + 1, outcome)
        else:
            await self._end(record, lambda kept: outcome)

    async def _done(self, args: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | ServingError:
        """Status and body of an execution whose task has ended; the error, when it may be tried again."""
        record, seconds = args["Record"], float(args["Definition"]["Seconds"])
        plan = {name: value for name, value in args.items() if name != "Record"}
        try:
            async with asyncio.timeout(seconds):
                result = await self._run("execution", plan, seconds + _GRACE_SECONDS)
        except TimeoutError:
            return executions.failed(record, f"The execution took longer than MaxRuntimeInSeconds, {seconds:.0f}.")
        except ServingError as error:
            if isinstance(error, ServiceUnavailable) or (isinstance(error, ObjectUnavailable) and error.transient):
                return error
            return executions.failed(record, error.message)
        return executions.completed(record, result)

    async def _missed(self, name: str, attempts: int, error: ServingError) -> None:
        """An attempt that came to nothing through no fault of the execution's."""
        log.warning("monitoring execution %s: %s", name, error.message)
        if attempts >= _MOST_ATTEMPTS:
            record = await self._thread.read(lambda session: session.get(EXECUTION, name))
            if record is not None:
                await self._end(record, lambda kept: executions.failed(kept, error.message))
        else:
            await asyncio.sleep(retry_pause(attempts))  # what is out of reach may come back

    async def _look_at_work(self) -> None:
        """End the process of an execution that has been told to stop."""
        name = self._working_on
        with suppress(ServingError):
            record = await self._thread.read(lambda session: session.get(EXECUTION, name))
            stops = record is None or record.status == "Stopping"
            if stops and self._work is not None and name == self._working_on:
                self._work.cancel()

    async def _end(self, record: Record, outcome: Callable[[Record], tuple[str, Mapping[str, Any]]]) -> None:
        """Write how an execution ended, and what follows: its schedule's alert, and old executions go."""
        ended = await self._thread.write(lambda session: _close(session, record.name, outcome, self._clock()))
        if ended is None:
            return
        self._registry.counter("sagemaker_monitoring_executions_total", ended.status).add()
        said = ended.body.get("ExitMessage") or ended.body.get("FailureReason") or ended.status
        log.info("monitoring execution %s: %s", ended.name, said)
        if ended.status in executions.FINISHED and self._last is not None:
            self._last[ended.parent.lower()] = ended


# --- transactions -----------------------------------------------------------------------------------------------------


def _plan(session: Session, now: float) -> tuple[float, frozenset[tuple[str, str]]]:
    """When there is next something to do (``_begin_due``), infinity for never, and (endpoint, schedule) of all
    schedules there are. One whose execution is open waits for its end."""
    busy = {record.parent.lower() for record in _open(session)}
    every = session.every(SCHEDULE)
    free = [record for record in every if record.name.lower() not in busy]
    times = (now if executions.is_ahead(record, now) else executions.next_time(record) for record in free)
    soonest = min((time for time in times if time is not None), default=float("inf"))
    return soonest, frozenset((record.parent, record.name) for record in every)


def _begin_due(session: Session, now: float) -> None:
    """Make executions of the runs whose time has come. A schedule that is ahead of the clock goes on from now."""
    busy = {record.parent.lower() for record in _open(session)}
    for record in session.every(SCHEDULE):
        if record.name.lower() not in busy and executions.is_ahead(record, now):
            record = session.change(record, now=record.modified, body={**record.body, "Since": now})
        found = executions.due(record, now) if record.name.lower() not in busy else None
        if found is not None:
            session.add(executions.execution(record, found, session.next_number(EXECUTION), now))
            session.change(record, now=record.modified, body=executions.after_run(record, found))


def _open(session: Session) -> list[Record]:
    """All executions that have not ended, oldest first; those that are to stop before all others."""
    found = in_states(session, EXECUTION, OPEN)
    return sorted(found, key=lambda record: (record.status != "Stopping", record.created, record.name))


def _first_open(session: Session) -> Record | None:
    return next(iter(_open(session)), None)


def _take_up(session: Session, name: str, now: float) -> dict[str, Any] | None:
    """An execution is InProgress from here on: its task's arguments (``monitor/runs.py``); None when it is not to be
    run any more."""
    record = session.get(EXECUTION, name)
    if record is None or record.status not in ("Pending", "InProgress"):
        return None
    body = {**record.body, "Attempts": record.body["Attempts"] + 1}
    record = session.change(record, now=now, status="InProgress", body=body)
    endpoint = record.body["EndpointName"]
    return {
        "Record": record,
        "Schedule": record.parent,
        "Endpoint": endpoint,
        "ScheduledTime": record.body["ScheduledTime"],
        "Window": record.body["Window"],
        "Definition": record.body["Definition"],
        "Capture": _capture(session, endpoint) if endpoint else None,
    }


def _capture(session: Session, endpoint: str) -> dict[str, Any] | None:
    """Where an endpoint's captured calls lie: destination and variants; None when it has gone or captures nothing."""
    record = session.get(ENDPOINT, endpoint)
    deployed = (record.body.get("Serving") or record.body.get("Pending")) if record is not None else None
    config = deployed["Config"] if deployed else {}
    if "DataCaptureConfig" not in config:
        return None
    return {
        "Destination": config["DataCaptureConfig"]["DestinationS3Uri"],
        "Variants": [one["VariantName"] for one in config["ProductionVariants"]],
    }


def _close(
    session: Session, name: str, outcome: Callable[[Record], tuple[str, Mapping[str, Any]]], now: float
) -> Record | None:
    """Write how an execution ended; None when it has gone, or ended before."""
    record = session.get(EXECUTION, name)
    if record is None or record.status not in OPEN:
        return None
    status, body = outcome(record)
    if record.status == "Stopping":  # whoever stopped it has been answered
        status = "Stopped"
    ended = session.change(record, now=now, status=status, body={**record.body, **body})
    schedule = session.get(SCHEDULE, record.parent)
    if schedule is not None and status in executions.FINISHED:
        alert = executions.with_datapoint(schedule.body["Alert"], status != "Completed", now)
        session.change(schedule, now=schedule.modified, body={**schedule.body, "Alert": alert})
    _prune(session, record.parent)
    return ended


def _prune(session: Session, schedule: str) -> None:
    """Forget the oldest executions beyond those that are kept."""
    for parent, most in ((schedule, MOST_EXECUTIONS), ("", MOST_OF_ALL)):
        excess = session.count(EXECUTION, parent) - most
        if excess <= 0:
            continue
        oldest, _ = session.find(Query(EXECUTION, parent=parent, descending=False, limit=min(excess, _PAGE)))
        for record in oldest:
            if record.status not in OPEN:
                session.remove(EXECUTION, record.name)


def _last_finished(session: Session) -> list[Record]:
    """Of every schedule, the newest execution that was finished: what its series showed before the server stopped."""
    found = []
    for record in session.every(SCHEDULE):
        page, _ = session.find(Query(EXECUTION, parent=record.name, limit=10))
        found += [one for one in page if one.status in executions.FINISHED][:1]
    return found
