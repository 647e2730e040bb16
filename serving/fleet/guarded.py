"""A guarded update, driven: the plan's next thing (``rollout.py``), done and written down, until it is over or undone.

::

    Creating ──► green's workers are there ──► ActivatingTraffic ──► every front shares the calls ──► Baking
       ▲                                                                                               │ time is up
       └── next step: fewer of blue, more of green ◄───────────────────────────────────────────────────┤
                                                                         last step: green serves alone ◄┘
    an alarm in ALARM, workers that do not come, no time left ──► RollingBack ──► all calls to blue ──► green drains

Each phase is in the record before it begins. A server that was killed goes on with the step it was at: green comes up
beside blue again, its share is turned on, and that is watched anew, as nobody has watched it meanwhile. One that was
rolling back has done so when blue is up.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from serving.errors import ServingError
from serving.fleet import rollout
from serving.fleet.deployed import Deployed, deployed
from serving.fleet.records import Record
from serving.fleet.rollout import ACTIVATING, BAKING, CREATING, Counts, Plan, Progress
from serving.scaling.values import ALARM, AlarmReading
from serving.types import FleetKey, FleetSpec
from serving.workers.supervisor import Supervisor

ROLLBACK_FAILED = "UpdateRollbackFailed"
#: While it bakes, alarms are looked at so often: they are in memory.
_LOOK_SECONDS = 0.25
_LONGEST_REASON = 1024

#: What is written of a record: its status and body.
Change = Callable[[Record], tuple[str, Mapping[str, Any]]]

log = logging.getLogger("serving.fleet")


@dataclass(frozen=True, slots=True)
class Means:
    """What a guarded update works with. ``running``: what runs, by record; ``raise_up``: start fleets; ``commit``:
    write how far a record got; ``changed``: the table may have; ``known``: every front works by the newest table;
    ``remove``: let all fleets of a record go but these; ``again``: look at a record in so many seconds; ``alarm``: what
    it came to; ``note``: what people may see of an endpoint's variant ("" = all) happening."""

    supervisor: Supervisor
    running: dict[str, Deployed]
    raise_up: Callable[[list[FleetSpec]], Awaitable[None]]
    commit: Callable[[Record, Change], Awaitable[None]]
    serve: Callable[[str, Deployed], None]
    changed: Callable[[], None]
    known: Callable[[], Awaitable[None]]
    remove: Callable[[Record, set[FleetKey], Deployed], set[FleetKey]]
    again: Callable[[str, float], None]
    alarm: Callable[[str], Awaitable[AlarmReading | None]]
    note: Callable[[str, str, str], None]
    patience: float


@dataclass(slots=True)
class _Watch:
    """What this process knows of an update, by its own clock: until when it may take, which step it has turned on, and
    until when that bakes."""

    deadline: float
    step: int = -1
    until: float = 0.0


class _CalledOff(ServingError):
    """The update is not to go on."""


class Guarded:
    """All guarded updates."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._watches: dict[tuple[str, int], _Watch] = {}

    async def advance(self, one: str, record: Record) -> None:
        """Do the next thing for the record ``one``, which has a pending deployment beside one that serves."""
        pending = record.body["Pending"]
        plan = rollout.of(record.body["Serving"], pending)
        at = rollout.progress(pending)
        watch = self._watch(one, pending, plan)
        try:
            if at is None:
                await self._look_out(plan, watch)
                await self._write(one, record, Progress(0, CREATING, time.time()))
            elif at.phase == BAKING and watch.step == at.step:
                await self._bake(one, record, plan, at, watch)
            else:
                await self._make(one, record, plan, at, watch)
        except ServingError as error:
            self._tell(record, error.message, logging.WARNING)
            await self._back(one, record, plan, at, error.message[:_LONGEST_REASON])

    def _watch(self, one: str, pending: Mapping[str, Any], plan: Plan) -> _Watch:
        key = (one, int(pending["Generation"]))
        watch = self._watches.get(key)
        if watch is None:
            spent = max(0.0, time.time() - pending["StartTime"])
            left = math.inf if plan.timeout is None else plan.timeout - spent
            watch = self._watches[key] = _Watch(time.monotonic() + left)
        return watch

    def _forget(self, one: str) -> None:
        for key in [key for key in self._watches if key[0] == one]:
            del self._watches[key]

    async def _look_out(self, plan: Plan, watch: _Watch) -> None:
        """Raises ``_CalledOff`` when an alarm is in ALARM, or time has run out."""
        readings = [(name, await self._means.alarm(name)) for name in plan.alarms]
        raised = [f'"{name}" ({reading.reason})' for name, reading in readings if reading and reading.state == ALARM]
        if raised:
            raise _CalledOff(f"The deployment was rolled back: in ALARM state is {', '.join(raised)}")
        if time.monotonic() > watch.deadline:
            raise _CalledOff(
                "The deployment was rolled back: it was not over within MaximumExecutionTimeoutInSeconds "
                f"({plan.timeout})."
            )

    async def _write(self, one: str, record: Record, at: Progress) -> None:
        """Write a phase down, and go on with it."""

        def change(kept: Record) -> tuple[str, Mapping[str, Any]]:
            return kept.status, {**kept.body, "Pending": {**kept.body["Pending"], "Rollout": at.as_body()}}

        await self._means.commit(record, change)
        self._means.again(one, 0.0)

    # -- forwards -------------------------------------------------------------------------------------------------

    async def _make(self, one: str, record: Record, plan: Plan, at: Progress, watch: _Watch) -> None:
        """What a step needs comes up; then it has its share of the calls."""
        means, step = self._means, plan.steps[at.step]
        green = deployed(record, rollout.with_counts(record.body["Pending"], step.green))
        await self._resize(green)
        means.running[one] = replace(means.running[one], green=green)
        means.changed()
        await means.supervisor.settled(green.keys, means.patience)
        await means.known()  # fronts have connected, and lose no time when the calls come
        await self._look_out(plan, watch)
        activating = Progress(at.step, ACTIVATING, time.time())
        await self._write(one, record, activating)
        await self._share(one, step.share)
        self._tell(record, rollout.message(plan, Progress(at.step, BAKING, 0.0)))
        watch.step, watch.until = at.step, time.monotonic() + step.bake
        await self._write(one, record, Progress(at.step, BAKING, time.time()))

    def _tell(self, record: Record, text: str, level: int = logging.INFO) -> None:
        log.log(level, "%s: %s", record.name, text)
        self._means.note(record.parent or record.name, record.name if record.parent else "", text)

    async def _share(self, one: str, share: float) -> None:
        means = self._means
        means.running[one] = replace(means.running[one], share=share)
        means.changed()
        await means.known()

    async def _resize(self, made: Deployed) -> list[FleetKey]:
        """There shall be these fleets, of these sizes. Returns those that were not so."""
        fleets = self._means.supervisor.fleets
        await self._means.raise_up([fleet for fleet in made.fleets if fleet.key not in fleets])
        other = [fleet for fleet in made.fleets if fleets[fleet.key].desired != fleet.count]
        for fleet in other:
            self._means.supervisor.resize(fleet.key, fleet.count)
        return [fleet.key for fleet in other]

    async def _bake(self, one: str, record: Record, plan: Plan, at: Progress, watch: _Watch) -> None:
        """Watch; when the time is up, go on."""
        await self._look_out(plan, watch)
        left = watch.until - time.monotonic()
        if left > 0:
            self._means.again(one, min(left, _LOOK_SECONDS))
            return
        following = rollout.following(plan, at, time.time())
        if following is None:
            await self._finish(one, record)
            return
        await self._write(one, record, following)
        await self._of_blue(one, record, plan.blue(following.step))

    async def _of_blue(self, one: str, record: Record, counts: Counts) -> list[FleetKey]:
        """So many instances of blue there shall be. Returns the fleets that have to change for it."""
        running = self._means.running[one]
        blue = deployed(record, rollout.with_counts(record.body["Serving"], counts))
        changed = await self._resize(blue)
        self._means.running[one] = replace(running, fleets=blue.fleets, spec=blue.spec)
        self._means.changed()
        return changed

    async def _finish(self, one: str, record: Record) -> None:
        """Green serves alone; blue's last calls end."""
        made, blue = replace(deployed(record, record.body["Pending"]), status=record.status), self._means.running[one]
        self._means.serve(one, made)
        await self._means.known()
        await self._means.commit(record, succeeded)
        self._means.remove(record, set(made.keys), blue)
        self._tell(record, "The update is complete.")
        self._forget(one)

    # -- and back -------------------------------------------------------------------------------------------------

    async def _back(self, one: str, record: Record, plan: Plan, at: Progress | None, reason: str) -> None:
        """All calls are blue's again; green goes."""
        means = self._means
        await means.commit(record, lambda kept: ("RollingBack", {**kept.body, "FailureReason": reason}))
        for step in rollout.rollback(plan, at.step if at else 0):
            try:
                changed = await self._of_blue(one, record, step.blue)
                await means.supervisor.settled(changed, means.patience)
            except ServingError as error:
                await self._fail(one, record, f"{reason} The rollback failed: {error.message}"[:_LONGEST_REASON])
                return
            if means.running[one].green is not None:
                await self._share(one, step.share)
                await self._less_green(one, record, step.green)
        await self.undo(one, record, reason)

    async def undo(self, one: str, record: Record, reason: str) -> None:
        """The last of a rollback, which a former server may have begun: blue is whole and alone, and green drains."""
        means = self._means
        await self._of_blue(one, record, rollout.counts(record.body["Serving"]))
        green = means.running[one].green
        means.running[one] = replace(means.running[one], green=None, share=0.0)
        means.changed()
        await means.known()
        self._forget(one)
        gone = means.remove(record, set(means.running[one].keys), green or means.running[one])
        await means.supervisor.drained(gone)
        await means.commit(record, lambda kept: rolled_back(kept, reason))

    async def _less_green(self, one: str, record: Record, counts: Counts) -> None:
        if any(counts.values()):
            green = deployed(record, rollout.with_counts(record.body["Pending"], counts))
            for fleet in green.fleets:
                if fleet.key in self._means.supervisor.fleets:
                    self._means.supervisor.resize(fleet.key, fleet.count)

    async def _fail(self, one: str, record: Record, reason: str) -> None:
        """Neither forwards nor back: both go on with what they have, and somebody has to look at it."""
        log.error("%s: %s", record.name, reason)
        self._forget(one)

        def change(kept: Record) -> tuple[str, Mapping[str, Any]]:
            return ROLLBACK_FAILED, rolled_back(kept, reason)[1]

        await self._means.commit(record, change)


# --- what a step leaves in the record: pure ---------------------------------------------------------------------------


def without(body: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """A body without some of its members."""
    return {name: value for name, value in body.items() if name not in fields}


def succeeded(record: Record) -> tuple[str, Mapping[str, Any]]:
    """The pending deployment serves."""
    pending = record.body["Pending"]
    serving = without(pending, "DeploymentConfig", "Rollout")
    body = without(record.body, "Pending", "FailureReason") | {"Serving": serving}
    if "DeploymentConfig" in pending:
        body["LastDeploymentConfig"] = pending["DeploymentConfig"]
    return "InService", body


def rolled_back(record: Record, reason: str) -> tuple[str, Mapping[str, Any]]:
    """What served goes on, and this is why."""
    return "InService", without(record.body, "Pending") | {"FailureReason": reason}


def serving(record: Record) -> Mapping[str, Any]:
    """What serves, with the instances that it has in the middle of a guarded update."""
    body: Mapping[str, Any] = record.body
    pending = body.get("Pending", {})
    at = rollout.progress(pending)
    if at is None or record.status != "Updating":
        found: Mapping[str, Any] = body["Serving"]
        return found
    return rollout.with_counts(body["Serving"], rollout.of(body["Serving"], pending).blue(at.step))
