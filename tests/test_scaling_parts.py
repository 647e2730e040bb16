"""Facts about the parts of the autoscaler that need no server: counts in records, missed runs, the log, the clock."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet import capacity, room, scaled, timing
from serving.fleet.decision_log import DecisionLog
from serving.fleet.records import Record
from serving.fleet.scaled import Scaled
from serving.fleet.scaling_records import Scheduled
from serving.scaling import deciding, timetable
from serving.scaling.remembering import State
from serving.scaling.tracking import Capacity
from serving.scaling.values import (
    COPIES,
    INSTANCES,
    PROVISIONED,
    Alarm,
    AlarmReading,
    Decision,
    NotScaled,
    Query,
    Resource,
    Step,
    StepScaling,
    Target,
    TargetTracking,
)
from serving.watch.readings import Metric, Stat

VARIANT = Resource("endpoint/e/variant/v", INSTANCES)
PROVISION = Resource("endpoint/e/variant/v", PROVISIONED)
COMPONENT = Resource("inference-component/c", COPIES)
ENDPOINT_BODY = {"Serving": {"Generation": 1, "Variants": {"v": {"Weight": 1.0, "Count": 2}, "w": {"Count": 5}}}}
DAY = 86_400.0


def record(kind: str, body: object, status: str = "InService") -> Record:
    """A record of this body."""
    assert isinstance(body, dict)
    return Record(kind, "e" if kind == "endpoint" else "c", body, 1.0, 1.0, status)


def test_a_capacity_is_read_and_written_where_its_dimension_keeps_it() -> None:
    """Instances, copies and provisioned concurrency; all else of the record stays as it is."""
    endpoint = record("endpoint", ENDPOINT_BODY)
    component = record("inference-component", {"Serving": {"Generation": 1, "Count": 1}})
    assert 2 == capacity.count(endpoint, VARIANT)
    assert 1 == capacity.count(component, COMPONENT)
    changed = capacity.with_count(endpoint, VARIANT, 7)
    assert {"v": {"Weight": 1.0, "Count": 7}, "w": {"Count": 5}} == changed["Serving"]["Variants"]
    assert {"Serving": {"Generation": 1, "Count": 0}} == capacity.with_count(component, COMPONENT, 0)
    assert 2 == endpoint.body["Serving"]["Variants"]["v"]["Count"]


def test_a_variant_that_has_gone_has_no_capacity() -> None:
    """Nothing is scaled that an update has taken away."""
    gone = Resource("endpoint/e/variant/x", INSTANCES)
    assert capacity.count(record("endpoint", ENDPOINT_BODY), gone) is None
    assert "It has no capacity that could be scaled." == capacity.refusal(record("endpoint", ENDPOINT_BODY), gone)


@pytest.mark.parametrize("status", ["Creating", "RollingBack", "Failed", "Deleting", "SystemUpdating"])
def test_scaling_waits_for_a_record_at_rest(status: str) -> None:
    """Only what is in service, or is just being scaled, can be scaled."""
    assert f"Scaling is blocked in status {status}." == capacity.refusal(
        record("endpoint", ENDPOINT_BODY, status), VARIANT
    )


def test_scaling_waits_for_an_update() -> None:
    """A pending deployment is switched to whole; a count that is on its way may be changed again."""
    pending = record("endpoint", {**ENDPOINT_BODY, "Pending": {}}, "Updating")
    assert "Scaling is blocked while an update is on its way." == capacity.refusal(pending, VARIANT)
    assert "" == capacity.refusal(record("endpoint", ENDPOINT_BODY, "Updating"), VARIANT)


def timed(schedule: str, since: float, end: float | None = None) -> timing.Timed:
    """An action whose runs up to ``since`` have been made."""
    action = Scheduled(VARIANT, "a", schedule, "UTC", None, end, 1, 2)
    table = timetable.parse(schedule, "UTC", None, end)
    return timing.Timed(action, "r", table, since, table.next(since))


@pytest.mark.parametrize(
    ("schedule", "since", "now", "expected"),
    [
        ("cron(0 9 * * ? *)", 0.0, 10 * DAY, 9 * DAY + 9 * 3600.0),
        ("cron(0 9 * * ? *)", 9 * DAY + 9 * 3600.0, 10 * DAY, None),
        ("cron(0/1 * * * ? *)", 0.0, 300 * DAY + 30.0, 300 * DAY),
        ("cron(0 0 1 1 ? *)", 0.0, 400 * DAY, 365 * DAY),
        ("at(1970-01-02T00:00:00)", 0.0, 300 * DAY, DAY),
        ("at(1970-01-02T00:00:00)", DAY, 300 * DAY, None),
        ("rate(1 hour)", 0.0, 3 * 3600.0 + 1, 3 * 3600.0),
    ],
)
def test_of_runs_that_were_missed_the_last_is_made(
    schedule: str, since: float, now: float, expected: float | None
) -> None:
    """However long there was no server; what has been run is not run again."""
    assert expected == timing.last(timed(schedule, since), now)


def test_an_action_that_has_ended_is_run_no_more() -> None:
    """Runs after its EndTime are none, those before it are made up for."""
    assert 3600.0 == timing.last(timed("rate(1 hour)", 0.0, end=2 * 3600.0 - 1), DAY)


def decided(desired: int, *reasons: str) -> Decision:
    """A decision about two instances."""
    return Decision(VARIANT, 2, desired, "why", "p", (("p", "70 of 70"),), tuple(map(NotScaled, reasons)))


def test_the_log_keeps_what_is_new(tmp_path: Path) -> None:
    """Decisions that say the same as the one before are one entry, the newest of all is known nevertheless."""
    log = DecisionLog(tmp_path)
    for at in range(5):
        log.add(decided(2), float(at))
    log.add(decided(4), 5.0)
    log.add(decided(2, "AlreadyAtMaxCapacity"), 6.0)
    log.close()
    assert [6.0, 5.0, 0.0] == [one["Time"] for one in log.entries(VARIANT)]
    lines = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert [2, 4, 2] == [one["Desired"] for one in lines]
    assert [[{"Code": "AlreadyAtMaxCapacity"}]] == [one["NotScaledReasons"] for one in log.not_scaled()]
    log.keep([])
    assert log.latest(VARIANT) is None


def test_a_clock_that_is_set_moves_what_is_remembered() -> None:
    """A cooldown lasts as long as it was to, whatever the clock says."""
    state = State(history=(Capacity(-math.inf, 1), Capacity(100.0, 2)), out_until=150.0, in_until=120.0)
    later = scaled.shifted(state, 3600.0)
    assert (3750.0, 3720.0) == (later.out_until, later.in_until)
    assert (Capacity(-math.inf, 1), Capacity(3700.0, 2)) == later.history


def test_memory_that_is_left_is_what_linux_says(tmp_path: Path) -> None:
    """Available memory of the machine, and no more than this container may use; pages that are shared do not count."""
    (tmp_path / "meminfo").write_text("MemTotal: 10 kB\nMemAvailable: 5 kB\n")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "statm").write_text("100 50 20 1 0 30 0\n")
    assert 30 * os.sysconf("SC_PAGE_SIZE") == room.own_bytes(7, tmp_path)
    assert 0 == room.own_bytes(8, tmp_path)
    assert 5 * 1024 == room.free_bytes([7], tmp_path)


CALLS = Stat(Metric("AWS/SageMaker", "InvocationsPerInstance"), "Sum", per_minute=True)
HIGH = Alarm("high", (Query("m", CALLS),), 5.0, 3, 3, 70.0, "GreaterThanThreshold")
LOW = Alarm("low", (Query("m", CALLS),), 5.0, 15, 15, 63.0, "LessThanThreshold")
OWN = Alarm("own", (Query("m", CALLS),), 60.0, 1, 1, 1.0, "GreaterThanOrEqualToThreshold")
TRACKING = TargetTracking("calls", 70.0, HIGH, LOW, 0.0, 0.0)
STEPS = StepScaling("steps", "arn", "ChangeInCapacity", (Step(0.0, None, 1),))
STATES = st.sampled_from(["OK", "ALARM", "INSUFFICIENT_DATA"])


@given(
    states=st.tuples(STATES, STATES, STATES),
    value=st.floats(0.0, 1000.0),
    count=st.integers(0, 6),
    policies=st.lists(st.sampled_from([TRACKING, STEPS]), max_size=2),
    suspended=st.tuples(st.booleans(), st.booleans()),
)
def test_a_target_at_rest_is_one_whose_next_look_changes_nothing(
    states: tuple[str, str, str],
    value: float,
    count: int,
    policies: list[TargetTracking | StepScaling],
    suspended: tuple[bool, bool],
) -> None:
    """A look is only left out where it would have come to nothing, whatever alarms say and however much later it is."""
    readings = {
        alarm.name: AlarmReading(state, "", (value,) * alarm.evaluations, 0.0, 100.0)  # type: ignore[arg-type]  # of STATES
        for alarm, state in zip((HIGH, LOW, OWN), states, strict=True)
    }
    watchers = {"arn": [OWN]}
    target = Target(VARIANT, 1, 4, *suspended)
    one = Scaled(target, tuple(policies), "e", "v", "endpoint/e", count, "")
    assert not one.rests(readings, watchers)
    decision, one.state = deciding.decide(target, policies, readings, count, one.state, 100.0, watchers)
    if one.rests(readings, watchers):
        assert (count, count) == (decision.current, decision.desired)
        later, _ = deciding.decide(target, policies, readings, count, one.state, 1e6, watchers)
        assert count == later.desired
    else:
        assert decision.desired != count or {"OK"} != set(states)


def test_a_target_that_is_touched_rests_no_more() -> None:
    """Other limits, another capacity, an alarm in another state: it is looked at again."""
    readings = {name: AlarmReading("OK", "", (0.0,), 0.0, 100.0) for name in ("high", "low")}
    one = Scaled(Target(VARIANT, 1, 4), (TRACKING,), "e", "v", "endpoint/e", 2, "")
    assert [False, True] == [one.rests(readings, {}) for _ in range(2)]
    one.count = 3
    assert [False, True] == [one.rests(readings, {}) for _ in range(2)]
    one.target = Target(VARIANT, 1, 5)
    assert [False, True] == [one.rests(readings, {}) for _ in range(2)]
    readings["low"] = readings["low"]._replace(state="INSUFFICIENT_DATA")
    assert [False, True] == [one.rests(readings, {}) for _ in range(2)]
