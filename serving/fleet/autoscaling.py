"""Capacity that follows the load: for every scalable target, what its policies make of what is measured, done.

::

    alarms evaluated ──► decide (scaling/deciding.py) ──► what the machine has (scaling/machine.py)
    fronts: calls wait, a call came to nothing ──► burst, wake (scaling/bursting.py)
    a time has come (fleet/timing.py) ──► limits ──► decide
          └──► counts and activities, one transaction ──► workers ──► activity ended (fleet/changing.py)

Looks are taken one at a time. A look that finds the store away is taken again; nothing is decided from what is not
known to be so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from serving.errors import ServingError
from serving.fleet import scaled, scaling_view, timing
from serving.fleet.alarms import Alarms
from serving.fleet.changing import Change, Changes, Made
from serving.fleet.decision_log import DecisionLog
from serving.fleet.endpoints import Endpoints, retry_pause
from serving.fleet.room import Room
from serving.fleet.scaled import Scaled
from serving.fleet.store import StoreThread
from serving.scaling import deciding, remembering
from serving.scaling.bursting import Pressure
from serving.scaling.values import Alarm, Decision, Resource
from serving.watch.history import History
from serving.watch.metrics import Registry
from serving.workers.supervisor import Supervisor

#: The clock is looked at so often at least: it may be set, and a machine may sleep.
_LONGEST_SLEEP = 30.0
#: A clock that is set by less is only kept right.
_CLOCK_SLACK = 1.0
#: So long no more workers are asked for after their start has failed; longer each time.
_FIRST_HELD, _LONGEST_HELD = 10.0, 600.0
#: After the store has been read it is left alone for so many times as long, and for so many seconds at most.
_READ_REST, _LONGEST_REST = 9.0, 1.0
_HELD = "Workers have failed to start; this is tried again later."
_NO_ROOM = "The machine still has no room for more workers."

log = logging.getLogger("serving.scaling")


class Autoscaling:
    """All scalable targets of this server. Build, ``start``, ``close``."""

    def __init__(
        self,
        thread: StoreThread,
        supervisor: Supervisor,
        endpoints: Endpoints,
        alarms: Alarms,
        history: History,
        on_change: Callable[[], None],
        registry: Registry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``on_change``: ``elastic`` answers otherwise than before. ``clock``: epoch seconds."""
        self._settings = supervisor.settings
        self._thread = thread
        self._supervisor = supervisor
        self._alarms = alarms
        self._history = history
        self._on_change = on_change
        self._registry = registry
        self._clock = clock
        self._changes = Changes(thread, supervisor, endpoints, self._ended)
        self._room = Room(supervisor, self._changes)
        self._log = DecisionLog(self._settings.data_dir)
        self._timetable = timing.Timetables(thread, clock)
        self._scaled: dict[Resource, Scaled] = {}
        self._by_name: dict[tuple[str, str], Scaled] = {}
        self._elastic: dict[tuple[str, str], dict[str, Any]] = {}
        self._stale, self._due, self._next_read = True, False, 0.0
        self._news = asyncio.Event()
        self._acting = asyncio.Lock()
        self._ahead = clock() - time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Know what scales, before fronts hear of what there is: they would refuse calls that they are to hold."""
        self._elastic = self._how_elastic(await self._thread.read(scaled.read))

    def start(self) -> None:
        """Begin: load what is stored, go on with what a former server left open."""
        self._in_background(self._loop())

    def close(self) -> None:
        """Decide nothing any more."""
        for task in self._tasks:
            task.cancel()
        self._changes.close()
        self._log.close()

    # -- what others tell -----------------------------------------------------------------------------------------

    def touch(self, tags: Iterable[str]) -> None:
        """Records of these have changed: ``scalable-target/…``, ``scaling-policy/…``, ``scheduled-action/…``, and
        those of what is scaled, ``endpoint/NAME`` and ``inference-component/NAME``."""
        mine = {known.tag for known in self._scaled.values()}
        if any(one in mine or one.partition("/")[0] in scaled.KINDS for one in tags):
            self._stale = self._due = True
            self._news.set()

    def evaluated(self) -> None:
        """A round of alarms has been evaluated: decide."""
        self._due = True
        self._news.set()

    def pressure(self, report: Mapping[str, Any]) -> None:
        """Calls wait for workers, by what all fronts report (``pressures.py``); ``name`` is a variant's or
        component's."""
        one = self._by_name.get((report["endpoint"], report["name"]))
        now = self._clock()
        if one is None or one.count is None or one.refusal or one.acting or one.is_held():
            return
        numbers = (report[name] for name in ("window", "calls", "pending_least", "pending", "ready"))
        pressure = Pressure(one.target.resource, now, *numbers)
        decision, one.state = deciding.burst(one.target, one.policies, pressure, one.count, one.state, now)
        if decision.desired > decision.current:
            self._hurry(one, decision)

    def wake(self, report: Mapping[str, Any]) -> None:
        """A call has come for ``{"endpoint", "name"}``, which has no workers and is to have none."""
        one = self._by_name.get((report["endpoint"], report["name"]))
        now = self._clock()
        if one is None or one.count is None or one.refusal or one.acting or one.is_held():
            return
        decision, one.state = deciding.wake(one.target, one.count, one.state, now)
        if decision.desired > decision.current:
            self._hurry(one, decision)

    # -- what others ask ------------------------------------------------------------------------------------------

    def elastic(self, endpoint: str, name: str) -> Mapping[str, Any] | None:
        """How fronts treat this variant or component: ``{"hold": seconds, "report": bool}``; None when it is no
        scalable target. They hold a call so long when there is no worker, and report that calls wait."""
        return self._elastic.get((endpoint, name))

    def not_scaled(self) -> list[dict[str, Any]]:
        """Activities that came to nothing, newest first (``decision_log.py``). Any thread may ask."""
        return self._log.not_scaled()

    async def view(self, endpoint: str) -> dict[str, Any]:
        """Everything about an endpoint's scaling, for people (``scaling_view.py``)."""
        found = [one for one in self._scaled.values() if one.endpoint.lower() == endpoint.lower()]
        resources = [one.target.resource for one in found]
        activities = await self._thread.read(partial(scaling_view.activities, resources))
        now = self._clock()
        targets = [
            {
                **scaling_view.target(one, self._alarms.reading, now),
                "CurrentCapacity": self._changes.ready(one.target.resource),
                "ScheduledActions": self._timetable.upcoming(one.target.resource, now),
                "Latest": self._log.latest(one.target.resource),
                "Decisions": self._log.entries(one.target.resource),
                "Activities": activities[one.target.resource],
            }
            for one in found
        ]
        return {
            "EndpointName": found[0].endpoint if found else endpoint,
            "PeriodSeconds": self._settings.scaling_period_seconds,
            "Time": now,
            "Machine": self._room.left(),
            "Targets": targets,
        }

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        failures, resumed = 0, False
        while True:
            self._news.clear()
            try:
                if not resumed:
                    await self._changes.resume()
                    resumed = True
                pause, failures = await self._look(), 0
            except Exception as error:
                if not isinstance(error, ServingError):
                    log.exception("scalable targets could not be looked after")
                pause = retry_pause(failures)
                failures += 1
            self._log.flush()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause)

    def _watch_clock(self) -> None:
        """Cooldowns end when they should, and what has been read is right, though the clock is set."""
        ahead = self._clock() - time.monotonic()
        jump, self._ahead = ahead - self._ahead, ahead
        if abs(jump) > _CLOCK_SLACK:
            for one in self._scaled.values():
                one.state = scaled.shifted(one.state, jump)
            self._stale = True

    async def _look(self) -> float:
        """Do all there is to do; how long there is nothing then."""
        self._watch_clock()
        if self._refused:
            self._stale = self._due = True  # it may have come to rest
        for resource, text in await self._timetable.run_due():
            self._note(resource, text)
            self._stale = self._due = True
        if self._stale:
            wait = self._next_read - time.monotonic()
            if wait > 0:
                return wait
            await self._read_again()
        if self._due:
            self._due = False
            try:
                await self._decide()
            except Exception:
                self._due = True
                raise
        pause = min(max(self._timetable.next_due() - self._clock(), 0.0), _LONGEST_SLEEP)
        return min(pause, self._settings.scaling_period_seconds) if self._refused else pause

    @property
    def _refused(self) -> bool:
        """Is there a target whose capacity could not be set, as far as is known?"""
        return any(one.refusal for one in self._scaled.values())

    async def _read_again(self) -> None:
        """Take in what the store has now. Of many targets this takes a while: others want the store too."""
        self._stale, began = False, time.monotonic()
        try:
            records, actions = await self._thread.read(
                lambda session: (scaled.read(session), timing.read(session, self._clock()))
            )
        except Exception:
            self._stale = True
            raise
        now = time.monotonic()
        self._next_read = now + min(_READ_REST * (now - began), _LONGEST_REST)
        self._scaled = {one.target.resource: one.following(self._scaled.get(one.target.resource)) for one in records}
        self._by_name = {(one.endpoint, one.name): one for one in self._scaled.values()}
        self._timetable.take_in(actions)
        self._log.keep(self._scaled.keys())
        self._room.keep(self._scaled.keys())
        elastic = self._how_elastic(records)
        if elastic != self._elastic:
            self._elastic = elastic
            self._on_change()

    def _how_elastic(self, records: Iterable[Scaled]) -> dict[tuple[str, str], dict[str, Any]]:
        hold = self._settings.hold_on_zero_seconds
        return {(one.endpoint, one.name): one.elastic(hold) for one in records}

    async def _decide(self) -> None:
        """Look at every target once."""
        now, readings = self._clock(), self._alarms.all_readings()
        watchers = self._watchers()
        decisions = []
        for one in self._scaled.values():
            if one.count is None or one.refusal or one.acting or one.rests(readings, watchers):
                continue
            decision, state = deciding.decide(one.target, one.policies, readings, one.count, one.state, now, watchers)
            one.state = state
            if decision.desired > decision.current and one.is_held():
                one.state = remembering.dropped(one.state)
                self._log.add(decision, now, _HELD)
            elif decision.desired != decision.current:
                decisions.append(decision)
            else:
                self._log.add(decision, now)
        if decisions:
            await self._act(decisions)

    def _watchers(self) -> Mapping[str, Sequence[Alarm]]:
        """ARN of each step policy -> the alarms whose action it is."""
        arns = {arn for one in self._scaled.values() for arn in one.step_arns}
        found: dict[str, list[Alarm]] = {arn: [] for arn in arns}
        for alarm in self._alarms.specs().values() if arns else ():
            for arn in arns.intersection(alarm.actions):
                found[arn].append(alarm)
        return found

    # -- acting ---------------------------------------------------------------------------------------------------

    def _hurry(self, one: Scaled, decision: Decision) -> None:
        """Act on this now, beside the loop."""
        one.acting = True

        async def act() -> None:
            try:
                await self._act([decision])
            except ServingError as error:
                log.warning("%s: %s", decision.resource.id, error.message)

        self._in_background(act())

    async def _act(self, decisions: Sequence[Decision]) -> None:
        """Make what is decided so, as far as the machine has room for it. Raises ``ServiceUnavailable`` when the store
        is away: nothing has changed then."""
        concerned = [self._scaled[one.resource] for one in decisions if one.resource in self._scaled]
        for one in concerned:
            one.acting = True
        try:
            async with self._acting:
                changes = self._room.granted(decisions, self._scaled)
                made = await self._changes.make(changes) if changes else {}
        finally:
            for one in concerned:
                one.acting = False
        wanted = {change.resource: change for change in changes}
        for decision in decisions:
            self._acted(decision, wanted.get(decision.resource), made.get(decision.resource, Made(_NO_ROOM)))
        self._log.flush()

    def _acted(self, decision: Decision, change: Change | None, made: Made) -> None:
        """Remember what became of a decision."""
        one = self._scaled.get(decision.resource)
        outcome = made.refusal or (change.shortage if change else "")
        self._log.add(decision, self._clock(), outcome)
        if one is None:
            return
        if change is not None and change.shortage:
            self._count(one, "Unfulfilled")
        if change is None or made.refusal:
            one.state = remembering.dropped(one.state)
            if change is not None and not change.shortage:
                one.refusal, self._stale = made.refusal, True
            return
        one.count = change.desired
        text = f"capacity {made.before} → {change.desired}: {decision.cause}"
        self._note(decision.resource, text + (f" ({change.shortage})" if change.shortage else ""))

    def _ended(self, resource: Resource, before: int, after: int, failure: str) -> None:
        """A change has been fulfilled, or has failed."""
        one, now = self._scaled.get(resource), self._clock()
        if one is None:
            return
        self._count(one, "Failed" if failure else "Successful")
        one.state = remembering.fulfilled(one.state, before, after, now)
        one.held_until, one.failures = 0.0, 0 if not failure else one.failures + 1
        if failure:
            one.state, one.held_until = remembering.dropped(one.state), time.monotonic() + _held_seconds(one.failures)
            one.count = after
            self._note(resource, f"capacity could not be changed: {failure}")

    def _count(self, one: Scaled, status: str) -> None:
        """How a change ended."""
        self._registry.counter("sagemaker_scaling_activities_total", one.endpoint, one.name, status).add()

    def _note(self, resource: Resource, text: str) -> None:
        """An event of the endpoint's, for people."""
        one = self._scaled.get(resource)
        if one is not None:
            self._history.note(one.endpoint, one.name, text)

    def _in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _held_seconds(failures: int) -> float:
    """How long no more workers are asked for after so many changes in a row have failed."""
    return min(_FIRST_HELD * 2.0 ** min(failures - 1, 30), _LONGEST_HELD)
