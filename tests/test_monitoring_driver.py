"""Schedules driven by a clock that is turned by hand, with a task that answers as it is told: which runs are made, with
what, and how each ends. On a real store, without a server (``test_monitoring_runs.py`` has one)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ObjectUnavailable, ServiceUnavailable, ServingError, ValidationError
from serving.fleet import executions, monitoring
from serving.fleet.endpoints import tag
from serving.fleet.executions import EXECUTION, SCHEDULE
from serving.fleet.monitoring import Monitoring
from serving.fleet.schedules import DAY, HOUR
from serving.fleet.store import Record, Store, StoreThread
from serving.watch.metrics import Registry, snapshot

NOON = 20_000 * DAY + 12 * HOUR
RESULT = {"Violations": 0, "Records": 5, "Output": "s3://out/e/s", "Drift": {"a": 0.01}, "Metrics": {}}
Answer = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def completed(args: Mapping[str, Any]) -> Any:
    """An execution that finds nothing wrong."""
    return RESULT


class World:
    """A store, a clock, a driver, and what its task was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(f"sqlite:///{folder / 'state.sqlite'}").open()
        self.now = NOON
        self.asked: list[Mapping[str, Any]] = []

    def add(self, expression: str, name: str = "s", **body: Any) -> None:
        """A schedule of endpoint ``e`` since a minute past noon; it is then."""
        self.now = NOON + 60
        definition = {"Type": "DataQuality", "Name": "d", "Output": "s3://out", "Seconds": 60, **body}
        definition.setdefault("Endpoint", {"EndpointName": "e"})
        times = {"DataAnalysisStartTime": "-PT2H", "DataAnalysisEndTime": "-PT1H"} if expression == "NOW" else {}
        config = {"ScheduleConfig": {"ScheduleExpression": expression, **times}}
        kept = {
            "Config": config, "Definition": definition, "Since": NOON + 60, "Missed": 0,
            "Alert": executions.new_alert(NOON),
        }  # fmt: skip
        with self.store.write() as session:
            session.add(Record(SCHEDULE, name, kept, NOON, NOON, "Scheduled", parent="e", facet="DataQuality"))

    def schedule(self, name: str = "s") -> Record:
        """As it is kept."""
        with self.store.read() as session:
            record = session.get(SCHEDULE, name)
        assert record is not None
        return record

    def executions(self) -> list[Record]:
        """All of them, oldest first."""
        with self.store.read() as session:
            return session.every(EXECUTION)

    def run(
        self, until: Callable[[], bool], answer: Answer = completed, then: Callable[[Monitoring], None] | None = None
    ) -> None:
        """Drive until something holds."""

        async def task(name: str, args: Mapping[str, Any], seconds: float) -> Any:
            assert ("execution", True) == (name, seconds > args["Definition"]["Seconds"])
            self.asked.append(args)
            return await answer(args)

        async def drive() -> None:
            thread, registry = StoreThread(self.store), Registry(self.folder / "metrics", "control")
            driver = Monitoring(thread, task, registry, clock=lambda: self.now)
            driver.start()
            try:
                async with asyncio.timeout(20):
                    if then is not None:
                        await asyncio.to_thread(_wait, lambda: bool(self.asked))
                        then(driver)
                    await asyncio.to_thread(_wait, until)
            finally:
                driver.close()
                await asyncio.to_thread(thread.close)
                registry.close()

        asyncio.run(drive())

    def statuses(self) -> list[str]:
        """Of all executions."""
        return [record.status for record in self.executions()]

    def ended(self, count: int = 1) -> Callable[[], bool]:
        """Have so many executions ended?"""
        return lambda: count == sum(status not in executions.OPEN for status in self.statuses())


def _wait(fact: Callable[[], bool]) -> None:
    end, pause = time.monotonic() + 20, threading.Event()
    while not fact():
        assert time.monotonic() < end
        pause.wait(0.005)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """At noon."""
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(monitoring, "retry_pause", lambda failures: 0.0)


# --- which runs are made ----------------------------------------------------------------------------------------------


def test_a_run_looks_at_the_step_before_it(world: World) -> None:
    """Every hour: at one o'clock the hour from noon."""
    world.add("cron(0 * ? * * *)")
    world.now = NOON + HOUR + 90
    world.run(world.ended())
    (asked,) = world.asked
    assert ([NOON, NOON + HOUR], NOON + HOUR) == (asked["Window"], asked["ScheduledTime"])
    assert ("s", "e", None) == (asked["Schedule"], asked["Endpoint"], asked["Capture"])
    (record,) = world.executions()
    assert ("Completed", NOON + HOUR, 1) == (record.status, record.body["ScheduledTime"], record.body["Attempts"])
    assert "Completed: Job completed successfully with no violations." == record.body["ExitMessage"]
    assert NOON + 2 * HOUR == executions.next_time(world.schedule())


def test_offsets_move_the_window(world: World) -> None:
    """Of labels that come a day later."""
    given = {"EndpointName": "e", "StartTimeOffset": "-P2D", "EndTimeOffset": "-P1D"}
    world.add("cron(0 12 ? * * *)", Endpoint=given)
    world.now = NOON + DAY
    world.run(world.ended())
    assert [NOON - DAY, NOON] == world.asked[0]["Window"]


def test_now_runs_once_with_its_own_window(world: World) -> None:
    """However long the driver lives."""
    world.add("NOW")
    world.run(world.ended())
    world.now += 10 * DAY
    world.run(lambda: True)
    assert [[NOON + 60 - 2 * HOUR, NOON + 60 - HOUR]] == [one["Window"] for one in world.asked]


def test_after_a_downtime_the_latest_run_is_made_up_for(world: World) -> None:
    """And the others are counted."""
    world.add("cron(0 * ? * * *)")
    world.now = NOON + 10 * HOUR + 1
    world.run(world.ended())
    assert [NOON + 10 * HOUR] == [one["ScheduledTime"] for one in world.asked]
    assert (9, 9) == (world.schedule().body["Missed"], world.executions()[0].body["Missed"])


@pytest.mark.parametrize("ahead", [2 * HOUR, 400 * DAY])
def test_a_clock_that_is_put_back_stops_no_schedule(world: World, ahead: float) -> None:
    """The server was wrong about the time when it last ran: it goes on by the right one."""
    world.add("cron(0 * ? * * *)")
    world.now = NOON + ahead
    world.run(world.ended())
    world.now = NOON + 90
    world.run(lambda: NOON + 90 == world.schedule().body["Since"])
    world.now = NOON + HOUR + 1
    world.run(world.ended(2))
    assert [NOON + ahead, NOON + HOUR] == [one["ScheduledTime"] for one in world.asked]


def test_a_clock_that_is_put_back_a_little_repeats_no_run(world: World) -> None:
    """As time servers do."""
    world.add("cron(0 * ? * * *)")
    world.now = NOON + HOUR
    world.run(world.ended())
    world.now = NOON + HOUR - 5
    world.run(lambda: True)
    world.now = NOON + 2 * HOUR
    world.run(world.ended(2))
    assert [NOON + HOUR, NOON + 2 * HOUR] == [one["ScheduledTime"] for one in world.asked]


def test_a_stopped_schedule_makes_no_run(world: World) -> None:
    """Another one does."""
    world.add("cron(0 * ? * * *)")
    world.add("cron(0 * ? * * *)", "t")
    record = world.schedule()
    with world.store.write() as session:
        session.change(record, now=NOON, status="Stopped")
    world.now = NOON + HOUR
    world.run(world.ended())
    assert ["t"] == [one["Schedule"] for one in world.asked]


# --- how they end -----------------------------------------------------------------------------------------------------


def test_violations_are_a_status_an_alert_and_series(world: World) -> None:
    """Which a new server shows again, from what is kept."""

    async def violated(args: Mapping[str, Any]) -> Any:
        return {**RESULT, "Violations": 2, "Drift": {"a": 0.5}}

    world.add("cron(0 * ? * * *)")
    world.now = NOON + HOUR
    world.run(world.ended(), violated)
    assert ["CompletedWithViolations"] == world.statuses()
    alert = world.schedule().body["Alert"]
    assert ("InAlert", [True]) == (alert["Status"], alert["Datapoints"])
    series = ("sagemaker_feature_baseline_drift", ("e", "s", "a"))
    for _ in range(2):
        world.run(lambda: [0.5] == snapshot(world.folder / "metrics").get(series))
        for path in (world.folder / "metrics").iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("error", "attempts", "words"),
    [
        (ValidationError("Job inputs had no data"), 1, "Job inputs had no data"),
        (ServiceUnavailable("The monitor process was killed."), 3, "The monitor process was killed."),
        (ObjectUnavailable("The store is away."), 3, "The store is away."),
        (ObjectUnavailable("Access denied.", transient=False), 1, "Access denied."),
    ],
)
def test_what_may_pass_is_tried_three_times(world: World, error: ServingError, attempts: int, words: str) -> None:
    """Then the execution has failed, with the reason; the next run is another."""

    async def fails(args: Mapping[str, Any]) -> Any:
        raise error

    world.add("cron(0 * ? * * *)")
    world.now = NOON + HOUR
    world.run(world.ended(), fails)
    (record,) = world.executions()
    assert ("Failed", words, attempts) == (record.status, record.body["FailureReason"], len(world.asked))
    world.now += HOUR
    world.run(world.ended(2))
    assert ["Failed", "Completed"] == world.statuses()


def test_an_execution_has_its_time(world: World) -> None:
    """MaxRuntimeInSeconds."""

    async def for_ever(args: Mapping[str, Any]) -> Any:
        await asyncio.Event().wait()

    world.add("NOW", Seconds=0.05)
    world.run(world.ended(), for_ever)
    (record,) = world.executions()
    assert "The execution took longer than MaxRuntimeInSeconds, 0." == record.body["FailureReason"]


def test_an_execution_that_is_told_to_stop_ends(world: World) -> None:
    """Whatever its task is at."""

    async def for_ever(args: Mapping[str, Any]) -> Any:
        await asyncio.Event().wait()

    def stop(driver: Monitoring) -> None:
        (record,) = world.executions()
        schedule = world.schedule()
        with world.store.write() as session:
            session.change(record, now=world.now, status="Stopping")
            session.change(schedule, now=world.now, status="Stopped")
        driver.touch([tag(SCHEDULE, "s")])

    world.add("NOW")
    world.run(world.ended(), for_ever, stop)
    assert ["Stopped"] == world.statuses()


def test_an_execution_that_ends_its_server_is_given_up(world: World) -> None:
    """After three starts: it must not do so for ever."""

    async def for_ever(args: Mapping[str, Any]) -> Any:
        await asyncio.Event().wait()

    world.add("NOW")
    for count in range(1, 4):
        world.run(lambda count=count: count == len(world.asked), for_ever)  # type: ignore[misc]  # a default argument
        assert ["InProgress"] == world.statuses()
    world.run(world.ended(), for_ever)
    (record,) = world.executions()
    assert (3, "Failed") == (len(world.asked), record.status)
    assert "3 times while this execution was at work" in record.body["FailureReason"]


def test_old_executions_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept."""
    monkeypatch.setattr(monitoring, "MOST_EXECUTIONS", 3)
    world.add("cron(0 * ? * * *)")
    for hour in range(1, 6):
        world.now = NOON + hour * HOUR
        kept = min(hour, 3)
        # The oldest one goes after the newest one has begun, whose predecessors alone may be as many as are kept.
        world.run(
            lambda asked=hour, kept=kept: (  # type: ignore[misc]  # default arguments
                asked == len(world.asked) and world.ended(kept)() and kept == len(world.executions())
            )
        )
    assert [NOON + hour * HOUR for hour in (3, 4, 5)] == [one.body["ScheduledTime"] for one in world.executions()]


def test_old_executions_of_schedules_that_have_gone_go_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes a schedule of another name for each run fills no disk."""
    monkeypatch.setattr(monitoring, "MOST_EXECUTIONS", 3)
    monkeypatch.setattr(monitoring, "MOST_OF_ALL", 4)
    for number in range(6):
        world.add("NOW", f"s{number}")
        world.run(lambda number=number: number + 1 == len(world.asked) and world.ended(min(number + 1, 4))())  # type: ignore[misc]  # a default argument
        with world.store.write() as session:
            session.remove(SCHEDULE, f"s{number}")
    assert ["s2", "s3", "s4", "s5"] == [one.parent for one in world.executions()]
