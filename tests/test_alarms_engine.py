"""Alarms over a real store: evaluated as their periods end, told at once, written down once, found again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from serving.errors import ValidationError
from serving.fleet import alarm_records
from serving.fleet.alarm_records import ALARM, HISTORY
from serving.fleet.alarm_values import Window
from serving.fleet.alarms import Alarms
from serving.fleet.scaling_records import alarm_of
from serving.fleet.store import Query, Record, Session, Store, StoreThread
from serving.scaling.values import AlarmReading, Metric, Stat
from serving.scaling.values import Query as Wanted
from tests.stores import opened

T0 = 1_000_000.0
CPU = Metric("AWS/SageMaker", "Invocations", (("EndpointName", "e"), ("VariantName", "v")))


class Measured:
    """Readings whose values are given by period: ``{start: value}``; it notes what it is asked."""

    def __init__(self, values: dict[float, float]) -> None:
        self.values = values
        self.asked: list[tuple[Stat, float, float]] = []

    def series(self, stat: Stat, period: float, start: float, end: float) -> Sequence[tuple[float, float]]:
        """What was given, of the periods that begin in the span."""
        self.asked.append((stat, start, end))
        if stat.metric.name == "broken":
            raise RuntimeError("a defect")
        return [(at, value) for at, value in sorted(self.values.items()) if start <= at < end]


def body(name: str = "high", **more: Any) -> dict[str, Any]:
    """PutMetricAlarm: two periods of ten seconds above 70."""
    return {
        "AlarmName": name,
        "Namespace": CPU.namespace,
        "MetricName": CPU.name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in CPU.dimensions],
        "Statistic": "Sum",
        "Period": 10,
        "EvaluationPeriods": 2,
        "Threshold": 70.0,
        "ComparisonOperator": "GreaterThanThreshold",
        **more,
    }


class Desk:
    """A store with alarms over it, a clock that is set, and what was told."""

    def __init__(self, store: Store, values: dict[float, float]) -> None:
        self.now = T0
        self.store = store
        self.thread = StoreThread(store)
        self.measured = Measured(values)
        self.told: list[str] = []
        self.rounds = 0
        self.alarms = self.restarted()

    def restarted(self) -> Alarms:
        """The alarms of a server that starts now on the same store."""

        def round() -> None:
            self.rounds += 1

        def note(endpoint: str, variant: str, text: str) -> None:
            assert ("e", "v") == (endpoint, variant)
            self.told.append(text)

        self.alarms = Alarms(self.thread, self.measured, clock=lambda: self.now, on_evaluated=round, note=note)
        return self.alarms

    def state(self, name: str = "high") -> str:
        """What the alarm has come to."""
        reading = self.alarms.reading(name)
        assert reading is not None
        return reading.state

    async def put(self, **more: Any) -> None:
        """PutMetricAlarm, and the driver is told."""
        given, now = body(**more), self.now
        await self.thread.write(lambda session: alarm_records.put(session, given, now))
        self.alarms.touch([alarm_records.tag(given["AlarmName"])])

    async def look(self, now: float) -> float:
        """One round at a time, and what it found written down."""
        self.now = now
        pause = await self.alarms.look()
        await self.alarms.write()
        return pause

    def stored(self, name: str = "high") -> Record:
        """The alarm's record."""
        with self.store.read() as session:
            record = alarm_records.get(session, name)
        assert record is not None
        return record

    def history(self, kind: str = "StateUpdate") -> list[str]:
        """The summaries of what happened, oldest first."""
        with self.store.read() as session:
            items, _ = session.find(Query(HISTORY, descending=False, limit=100, status=kind))
        return [item.body["HistorySummary"] for item in items]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Over an empty store."""
    with opened(f"sqlite:///{tmp_path}/state.db") as store:
        desk = Desk(store, {})
        yield desk
        desk.thread.close()


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's own coroutine."""
    asyncio.run(story())


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_an_alarm_goes_off_with_the_period_that_makes_it_so(desk: Desk) -> None:
    """Two of two above the threshold, evaluated at the end of each period; told once."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 - 20: 10.0, T0 - 10: 10.0, T0: 80.0, T0 + 10: 90.0, T0 + 20: 95.0}
        pauses = [await desk.look(T0 + at) for at in (0, 10, 20, 30)]
        assert [10.0] * 4 == pauses
        assert ["alarm high: OK -> ALARM"] == desk.told
        reading = desk.alarms.reading("high")
        assert reading is not None
        assert ("ALARM", (90.0, 95.0), T0 + 20, T0 + 30) == (reading.state, reading.values, reading.since, reading.at)
        assert 4 == desk.rounds

    play(story)


def test_a_policys_own_alarms_are_no_news(desk: Desk) -> None:
    """They come and go with the load; the change of capacity is told instead."""

    async def story() -> None:
        name = "TargetTracking-endpoint/e/variant/v-AlarmHigh-1"
        await desk.put(AlarmName=name)
        desk.measured.values = {T0 - 20: 10.0, T0 - 10: 10.0, T0: 80.0, T0 + 10: 90.0}
        for at in (0, 10, 20):
            await desk.look(T0 + at)
        assert ("ALARM", []) == (desk.state(name), desk.told)

    play(story)


def test_an_alarm_looks_at_nothing_between_its_periods(desk: Desk) -> None:
    """A round in which no period has ended costs no reading and tells nobody."""

    async def story() -> None:
        await desk.put()
        assert 8.0 == await desk.look(T0 + 2)  # new: looked at now, and at the end of the period that is under way
        desk.measured.asked.clear()
        assert 7.0 == await desk.look(T0 + 3)
        assert ([], 1) == (desk.measured.asked, desk.rounds)

    play(story)


def test_a_clock_that_is_set_back_stops_no_alarm(desk: Desk) -> None:
    """An hour back, and the next period of then ends as any other."""

    async def story() -> None:
        await desk.put()
        await desk.look(T0)
        desk.measured.values = {T0 - 3620: 99.0, T0 - 3610: 99.0}
        await desk.look(T0 - 3600)
        reading = desk.alarms.reading("high")
        assert reading is not None
        assert "ALARM" == reading.state

    play(story)


def test_a_changed_alarm_is_evaluated_anew_at_once(desk: Desk) -> None:
    """Not at the end of the period that it had before."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 - 20: 50.0, T0 - 10: 50.0}
        await desk.look(T0)
        await desk.put(Threshold=40.0)
        await desk.look(T0 + 1)
        assert ["alarm high: OK -> ALARM"] == desk.told
        assert "ALARM" == desk.stored().status

    play(story)


def test_a_deleted_alarm_is_forgotten(desk: Desk) -> None:
    """Whoever asks is told that there is none; its history stays."""

    async def story() -> None:
        await desk.put()
        await desk.look(T0)
        await desk.thread.write(lambda session: alarm_records.remove(session, "high", T0 + 1))
        desk.alarms.touch([alarm_records.tag("high")])
        await desk.look(T0 + 1)
        assert desk.alarms.reading("high") is None
        assert {} == desk.alarms.specs()
        assert ['Alarm "high" created', 'Alarm "high" deleted'] == desk.history("ConfigurationUpdate")

    play(story)


def test_an_alarm_that_went_untold_is_forgotten_within_a_minute(desk: Desk) -> None:
    """All records are read again now and then."""

    async def story() -> None:
        await desk.put()
        await desk.look(T0)
        await desk.thread.write(lambda session: alarm_records.remove(session, "high", T0 + 1))
        for seconds in range(10, 70, 10):
            await desk.look(T0 + seconds)
        assert desk.alarms.reading("high") is None

    play(story)


def test_names_mind_case(desk: Desk) -> None:
    """As CloudWatch's do, though the store's do not."""

    async def story() -> None:
        await desk.put(name="high")
        await desk.put(name="High", Threshold=5.0)
        desk.measured.values = {T0 - 20: 50.0, T0 - 10: 50.0}
        await desk.look(T0)
        assert ("OK", "ALARM") == (desk.state("high"), desk.state("High"))

    play(story)


def test_an_alarm_that_cannot_be_read_holds_up_no_other(desk: Desk) -> None:
    """A body without a metric (an older version's, say) is passed over."""

    async def story() -> None:
        await desk.put()
        await desk.put(name="odd", Period=0)
        await desk.look(T0)
        assert ["high"] == list(desk.alarms.specs())

    play(story)


def test_a_metric_that_cannot_be_read_holds_up_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A defect in one is an alarm without data, and one line of log."""

    async def story() -> None:
        await desk.put(AlarmName="a", MetricName="broken", TreatMissingData="breaching")
        await desk.put()
        desk.measured.values = {T0 - 20: 80.0, T0 - 10: 90.0}
        await desk.look(T0)
        await desk.look(T0 + 10)
        assert ("ALARM", "ALARM") == (desk.state("a"), desk.state())

    play(story)
    assert ["alarm a: a defect"] == caplog.messages


# --- states in the store ----------------------------------------------------------------------------------------------


def test_a_state_is_written_with_its_reason(desk: Desk) -> None:
    """What DescribeAlarms shows; and an item of history with both states."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 - 20: 80.0, T0 - 10: 90.0}
        await desk.look(T0)
        record = desk.stored()
        assert "ALARM" == record.status
        assert "2 out of the last 2 datapoints" in record.body["StateReason"]
        data = orjson.loads(record.body["StateReasonData"])
        assert ([80.0, 90.0], 70.0, "Sum") == (data["recentDatapoints"], data["threshold"], data["statistic"])
        assert ["Alarm updated from INSUFFICIENT_DATA to ALARM"] == desk.history()

    play(story)


def test_a_state_that_stays_is_not_written_again(desk: Desk) -> None:
    """Hundreds of alarms that are as they were cost the store nothing."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 + 10 * at: 80.0 for at in range(-2, 3)}
        await desk.look(T0)
        revision = desk.stored().revision
        await desk.look(T0 + 10)
        await desk.look(T0 + 20)
        assert revision == desk.stored().revision

    play(story)


def test_a_restart_finds_the_state_as_it_was_left(desk: Desk) -> None:
    """Since when, too: an alarm that stays on is not told again."""

    async def story() -> None:
        await desk.put(TreatMissingData="ignore")
        desk.measured.values = {T0 - 20: 80.0, T0 - 10: 90.0}
        await desk.look(T0)
        desk.told.clear()
        desk.measured.values = {}  # the meters of a new server remember nothing
        desk.restarted()
        await desk.look(T0 + 30)
        reading = desk.alarms.reading("high")
        assert reading is not None
        assert ("ALARM", T0, []) == (reading.state, reading.since, desk.told)

    play(story)


def set_state(name: str, state: Any, now: float) -> Callable[[Session], Record]:
    """SetAlarmState's transaction."""

    def write(session: Session) -> Record:
        record = alarm_records.get(session, name)
        assert record is not None
        return alarm_records.change_state(session, record, AlarmReading(state, "said so", (), now, now))

    return write


def test_a_state_that_is_set_lasts_until_the_next_evaluation(desk: Desk) -> None:
    """It is told at once, and undone by what is measured."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 + 10 * at: 10.0 for at in range(-9, 3)}  # the same again and again
        await desk.look(T0)
        await desk.thread.write(set_state("high", "ALARM", T0 + 1))
        desk.alarms.touch([alarm_records.tag("high")])
        await desk.look(T0 + 1)
        assert "alarm high: OK -> ALARM" == desk.told[-1]
        assert "StateReasonData" not in desk.stored().body
        await desk.look(T0 + 10)
        assert "alarm high: ALARM -> OK" == desk.told[-1]
        assert "OK" == desk.stored().status

    play(story)


def test_a_state_that_is_set_counts_once(desk: Desk) -> None:
    """What an evaluation found since stands, even while the store does not know it yet."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 + 10 * at: 10.0 for at in range(-2, 3)}
        await desk.look(T0)
        await desk.thread.write(set_state("high", "ALARM", T0 + 1))
        for now in (T0 + 1, T0 + 10, T0 + 11):
            desk.now = now
            desk.alarms.touch([alarm_records.tag("high")])
            await desk.alarms.look()
        assert ("OK", "ALARM") == (desk.state(), desk.stored().status)
        await desk.alarms.write()
        assert "OK" == desk.stored().status

    play(story)


def test_a_state_that_is_set_stays_where_nothing_is_measured(desk: Desk) -> None:
    """With TreatMissingData ignore; even when an evaluation came between its writing and the news of it."""

    async def story() -> None:
        await desk.put(TreatMissingData="ignore")
        await desk.look(T0)
        await desk.thread.write(set_state("high", "ALARM", T0 + 9))
        await desk.look(T0 + 10)  # nobody has told yet
        desk.alarms.touch([alarm_records.tag("high")])
        await desk.look(T0 + 11)
        await desk.look(T0 + 20)
        reading = desk.alarms.reading("high")
        assert reading is not None
        assert ("ALARM", "ALARM") == (reading.state, desk.stored().status)

    play(story)


def test_a_new_configuration_keeps_the_state(desk: Desk) -> None:
    """PutMetricAlarm changes all but what the alarm has come to."""

    async def story() -> None:
        await desk.put(TreatMissingData="ignore")
        desk.measured.values = {T0 - 20: 80.0, T0 - 10: 90.0}
        await desk.look(T0)
        await desk.put(TreatMissingData="ignore", AlarmDescription="x", MetricName="other")
        record = desk.stored()
        assert ("ALARM", T0, "x") == (
            record.status,
            record.body["StateTransitionedTimestamp"],
            record.body["AlarmDescription"],
        )

    play(story)


def test_a_store_that_is_away_loses_no_state(desk: Desk) -> None:
    """What could not be written is written with the next."""

    async def story() -> None:
        await desk.put()
        desk.measured.values = {T0 - 20: 80.0, T0 - 10: 90.0}
        desk.now = T0
        await desk.alarms.look()
        desk.store.close()
        with pytest.raises(Exception, match="closed"):
            await desk.alarms.write()
        desk.store.open()
        await desk.alarms.write()
        assert "ALARM" == desk.stored().status

    play(story)


def test_history_is_bounded_by_alarm(desk: Desk) -> None:
    """The newest are kept."""
    with desk.store.write() as session:
        for at in range(alarm_records.MOST_ITEMS + 5):
            alarm_records.put(session, body(), T0 + at)
    with desk.store.read() as session:
        assert alarm_records.MOST_ITEMS == session.count(HISTORY)
        newest, _ = session.find(Query(HISTORY, limit=1))
        assert 1 == session.count(ALARM)
    assert T0 + alarm_records.MOST_ITEMS + 4 == newest[0].created


# --- values -----------------------------------------------------------------------------------------------------------

SUM = (Wanted("m1", Stat(CPU, "Sum")),)


def test_what_is_over_is_asked_for_once() -> None:
    """Two alarms on one metric, round after round: one question of one period each."""
    measured = Measured({10.0 * at: float(at) for at in range(100)})
    values = Window(measured, SUM, 10.0)
    assert (17.0, 18.0, 19.0) == values.of(3, 200.0)
    assert (18.0, 19.0) == values.of(2, 200.0)
    measured.asked.clear()
    assert (18.0, 19.0, 20.0) == values.of(3, 210.0)
    assert (19.0, 20.0) == values.of(2, 210.0)
    assert [(SUM[0].stat, 200.0, 210.0)] == measured.asked


@given(
    some.dictionaries(some.integers(0, 30), some.floats(0, 100)),
    some.lists(some.tuples(some.integers(1, 4), some.integers(1, 8)), min_size=1, max_size=8),
)
def test_remembered_values_are_the_measured_ones(values: dict[int, float], steps: list[tuple[int, int]]) -> None:
    """Whatever is missing, however far and in whatever lengths is asked."""
    measured = Measured({float(at): value for at, value in values.items()})
    kept, end = Window(measured, SUM, 1.0), 2
    for step, length in steps:
        end += step
        wanted = tuple(values.get(at) for at in range(end - length, end))
        assert wanted == kept.of(length, float(end))


def test_a_value_that_comes_late_is_seen() -> None:
    """The newest period was not known at its end: it is asked for again."""
    measured = Measured({0.0: 1.0})
    values = Window(measured, SUM, 1.0)
    assert (1.0, None) == values.of(2, 2.0)
    measured.values[1.0] = 5.0
    assert (5.0, None) == values.of(2, 3.0)


def test_what_clients_put_is_always_asked_anew() -> None:
    """They may put what is past."""
    own = (Wanted("m1", Stat(Metric("Mine", "m"), "Sum")),)
    measured = Measured({0.0: 1.0, 1.0: 1.0})
    values = Window(measured, own, 1.0)
    assert (1.0, 1.0) == values.of(2, 2.0)
    measured.values[0.0] = 7.0
    assert (7.0, 1.0) == values.of(2, 2.0)


def test_an_alarm_names_what_it_looks_at() -> None:
    """The record's name is the same for the same name, whatever is in it, and fit for the store."""
    assert alarm_records.key("a/b") == alarm_records.tag("a/b").removeprefix("alarm/")
    assert alarm_records.key("a") != alarm_records.key("A")
    with pytest.raises(ValidationError):
        alarm_of(body(Period=0))
