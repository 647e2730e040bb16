"""Which capacity a target gets: the formula, bounds, cooldowns, several policies, suspensions, steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scaling import alarming, deciding, stepping
from serving.scaling.bursting import Pressure
from serving.scaling.deciding import State, decide, fulfilled
from serving.scaling.values import (
    Alarm,
    AlarmReading,
    AlarmState,
    Decision,
    Metric,
    NotScaled,
    Policy,
    Query,
    Stat,
    Step,
    StepScaling,
    Target,
    TargetTracking,
)
from tests.loads import CONCURRENCY, INVOCATIONS, RESOURCE, START, a_target, tracking

CPU = Stat(Metric("/aws/sagemaker/Endpoints", "CPUUtilization", ()), "Average")
MINUTE = 60.0
AWS = tracking(70, MINUTE)


def read(policy: TargetTracking, values: Sequence[float | None] | float, now: float) -> dict[str, AlarmReading]:
    """The policy's alarms after these values of their periods, the latest last (one value: always that)."""
    alarms = [one for one in (policy.high, policy.low) if one is not None]
    series = [values] * 17 if isinstance(values, float | int) else list(values)
    return {one.name: alarming.evaluate(one, series, None, now) for one in alarms}


def look(
    policy: TargetTracking,
    values: Sequence[float | None] | float,
    current: int,
    state: State | None = None,
    now: float = START,
    target: Target | None = None,
) -> tuple[Decision, State]:
    """One look at a target with one policy."""
    readings = read(policy, values, now)
    return decide(target or a_target(), [policy], readings, current, state or State(), now)


def counted(policy: TargetTracking, value: float, current: int) -> int:
    """The capacity after one look."""
    return look(policy, value, current)[0].desired


# --- the formula ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "metric", "target", "expected"),
    [(4, 105, 70, 6), (1, 130, 5, 20), (6, 30, 70, 3), (3, 65, 70, 3), (3, 63, 70, 3), (9, 7, 70, 5), (2, 0, 70, 1)],
)
def test_the_published_table(current: int, metric: float, target: float, expected: int) -> None:
    """``behaviour/07``: proportional, rounded up, at most half of what there is at a time, within 1 to 20."""
    assert expected == counted(tracking(target, MINUTE), metric, current)


@pytest.mark.parametrize("stat", [INVOCATIONS, CONCURRENCY, CPU])
def test_more_is_asked_for_in_every_metric(stat: Stat) -> None:
    """Whatever it is."""
    assert 6 == counted(tracking(7000, MINUTE, stat), 10500, 4)


def test_the_latest_period_says_how_much_more() -> None:
    """A load that grows is answered where it is, not where it was on the mean."""
    assert 8 == look(tracking(7000, MINUTE), [1000.0] * 12 + [7700, 10500, 14000], 4)[0].desired


def test_the_mean_of_the_periods_says_how_much_less() -> None:
    """Half a minute without calls is not taken for the load."""
    assert 6 == look(tracking(7000, MINUTE), [5500.0] * 14 + [0.0], 8)[0].desired


def test_the_cause() -> None:
    """AWS's sentence, and what was measured."""
    more = look(AWS, 105, 4)[0]
    assert "monitor alarm follow-high in state ALARM triggered policy follow" == more.cause
    assert ("follow", (("follow", "105 of 70 (high ALARM, low OK)"),)) == (more.policy, more.measured)
    assert "monitor alarm follow-low in state ALARM triggered policy follow" == look(AWS, 30, 6)[0].cause


@pytest.mark.parametrize("values", [[], [None] * 17, [500.0], [500.0, 500.0], [0.0] * 14])
def test_too_little_data_is_no_action(values: list[float | None]) -> None:
    """Without three periods above, or fifteen below, nothing is done."""
    assert 4 == look(AWS, values, 4)[0].desired


def test_the_alarms_that_were_never_evaluated() -> None:
    """Nothing is known: nothing is done."""
    assert 4 == decide(a_target(), [AWS], {}, 4, State(), START)[0].desired


def test_an_alarm_that_was_set_by_hand() -> None:
    """SetAlarmState brings no values: a target tracking policy does not act on it."""
    by_hand = {AWS.high.name: AlarmReading("ALARM", "a test", (), START, START)}
    assert 4 == decide(a_target(), [AWS], by_hand, 4, State(), START)[0].desired


@given(st.integers(1, 20), st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from([INVOCATIONS, CONCURRENCY, CPU]))
def test_a_higher_metric_never_gives_less(current: int, metric: float, more: float, stat: Stat) -> None:
    """Monotone in what is measured."""
    policy = tracking(70, MINUTE, stat)
    assert counted(policy, metric, current) <= counted(policy, metric + more, current)


@given(
    st.integers(0, 30),
    st.lists(st.none() | st.floats(-(2.0**360), 2.0**360) | st.floats(0, 1e4), max_size=20),
    st.floats(2.0**-360, 2.0**360) | st.floats(1, 1e4),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_never_outside_the_bounds(
    current: int, values: list[float | None], target: float, minimum: int, more: int
) -> None:
    """Whatever is measured, and wherever capacity is; a scale-in takes half at most."""
    bounds = Target(RESOURCE, minimum, minimum + more)
    decision = look(tracking(target, MINUTE), values, current, target=bounds)[0]
    assert bounds.minimum <= decision.desired <= bounds.maximum
    if bounds.minimum <= current <= bounds.maximum:
        assert decision.desired >= current - max(1, current // 2)


# --- bounds, suspensions, reasons -------------------------------------------------------------------------------------


def test_new_bounds_act_at_once() -> None:
    """A raised minimum and a lowered maximum need no alarm, and are not held back by suspensions or cooldowns."""
    suspended = {"suspended_in": True, "suspended_out": True}
    busy = State(in_until=START + 1e6, out_until=START + 1e6)
    up = decide(a_target(3, 8, **suspended), [AWS], {}, 1, busy, START)[0]
    down = decide(a_target(3, 8, **suspended), [AWS], {}, 12, busy, START)[0]
    assert (3, "minimum capacity was set to 3") == (up.desired, up.cause)
    assert (8, "maximum capacity was set to 8") == (down.desired, down.cause)


def test_suspensions() -> None:
    """Each direction by itself; and it is said."""
    out, within = a_target(suspended_out=True), a_target(suspended_in=True)
    held, _ = look(AWS, 105, 4, target=out)
    assert (4, ("", "scaling out is suspended")) == (held.desired, held.measured[-1])
    assert 3 == look(AWS, 30, 6, target=out)[0].desired
    held, _ = look(AWS, 30, 6, target=within)
    assert (6, ("", "scaling in is suspended")) == (held.desired, held.measured[-1])
    assert 6 == look(AWS, 105, 4, target=within)[0].desired


def test_reasons_not_scaled() -> None:
    """AWS's codes where there is no more and no less; also with what is given, when it is not all."""
    top, bottom = look(AWS, 105, 6, target=a_target(1, 6))[0], look(AWS, 30, 2, target=a_target(2, 6))[0]
    assert (6, (NotScaled("AlreadyAtMaxCapacity", maximum=6, current=6),)) == (top.desired, top.not_scaled)
    assert (2, (NotScaled("AlreadyAtMinCapacity", minimum=2, current=2),)) == (bottom.desired, bottom.not_scaled)
    part = look(AWS, 700, 2, target=a_target(1, 6))[0]
    assert (6, (NotScaled("AlreadyAtMaxCapacity", maximum=6, current=6),)) == (part.desired, part.not_scaled)


def test_to_zero() -> None:
    """With a minimum of 0 the last one goes when there is nothing to do, and not before."""
    asynchronous = a_target(0, 4)
    assert 0 == look(AWS, 0, 1, target=asynchronous)[0].desired
    assert 1 == look(AWS, 5, 1, target=asynchronous)[0].desired
    assert 0 == look(AWS, 500, 0, target=asynchronous)[0].desired  # nothing times anything: a step policy must wake it


# --- cooldowns --------------------------------------------------------------------------------------------------------


def test_what_was_added_counts_as_present() -> None:
    """While the two more start, the same metric asks for no more; a higher one only for the difference."""
    _, state = look(AWS, 105, 4)
    assert 6 == look(AWS, 105, 6, state, START + MINUTE)[0].desired
    assert 7 == look(AWS, 122, 6, state, START + MINUTE)[0].desired


def test_a_larger_scale_out_passes_the_cooldown() -> None:
    """Shared by the six that are ready for a minute, the load that asks for seven gets seven."""
    policy = tracking(7000, MINUTE, cooldown=300)
    state = look(policy, 10500, 4, now=START - 2 * MINUTE)[1]
    state = fulfilled(state, 4, 6, START - MINUTE)
    assert 6 == look(policy, [10500.0, 10500.0, 7000.1], 6, state)[0].desired
    assert 7 == look(policy, [10500.0, 10500.0, 7500.0], 6, state)[0].desired


def test_a_metric_that_workers_do_not_share_is_held_by_the_cooldown() -> None:
    """A latency or CPU that stays where it is does not double capacity with each period: while the cooldown runs it is
    compared with what there was before it."""
    policy = tracking(50, MINUTE, CPU, cooldown=300)
    state = fulfilled(look(policy, 90, 4, now=START)[1], 4, 8, START + 1)
    assert 8 == look(policy, 90, 8, state, START + 120)[0].desired
    assert 9 == look(policy, 110, 8, state, START + 120)[0].desired
    assert 15 == look(policy, 90, 8, state, START + 302)[0].desired


def test_a_scale_in_waits_for_the_cooldown_of_the_one_before() -> None:
    """From when that was fulfilled, not from when it was decided."""
    first, state = look(AWS, 10, 8)
    assert 4 == first.desired
    on_its_way, state = look(AWS, 10, 4, state, START + MINUTE)
    assert (4, ("", "a change is on its way")) == (on_its_way.desired, on_its_way.measured[-1])
    state = fulfilled(state, 8, 4, START + 90)
    waiting, state = look(AWS, 10, 4, state, START + 90 + 299)
    assert (4, ("", "the cooldown of scaling in runs for 1 s")) == (waiting.desired, waiting.measured[-1])
    assert 2 == look(AWS, 10, 4, state, START + 90 + 300)[0].desired


def test_a_scale_out_is_immediate_and_ends_the_cooldown_of_scaling_in() -> None:
    """Then a scale-in may follow without waiting for it."""
    state = fulfilled(look(AWS, 10, 8)[1], 8, 4, START + 1)
    more, state = look(AWS, [70.1, 70.1, 280.0], 4, state, START + 60)
    assert 16 == more.desired
    assert state.in_until < START


def test_a_change_that_was_not_made() -> None:
    """It holds nothing back, and there is no cooldown; one that was made in part is what was made."""
    _, state = look(AWS, 10, 8)
    assert 4 == look(AWS, 10, 8, state, START + 1)[0].desired
    assert 4 == look(AWS, 10, 8, deciding.dropped(state), START + 1)[0].desired
    state = fulfilled(state, 8, 6, START + 2)
    held, state = look(AWS, 10, 6, state, START + 3)
    assert (6, "the cooldown of scaling in runs for 299 s") == (held.desired, held.measured[-1][1])


def test_a_change_that_is_never_told_of() -> None:
    """After ten minutes nothing waits for it any more."""
    _, state = look(AWS, 10, 8)
    assert 4 == look(AWS, 10, 4, state, START + 599)[0].desired
    assert 2 == look(AWS, 10, 4, state, START + 601)[0].desired


def test_capacity_that_others_change() -> None:
    """A scheduled action's or somebody's change is the capacity that metrics are of, without a cooldown."""
    state = fulfilled(State(), 2, 8, START - 20 * MINUTE)
    assert 4 == look(AWS, 30, 8, state)[0].desired
    assert 12 == look(AWS, 105, 8, state)[0].desired


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_burst_soon_after_a_scale_in_makes_the_next_one_wait() -> None:
    """Fifteen periods of low load are enough, after one such mistake thirty from the burst on, then sixty."""
    policy, now, state, waits = tracking(6000), START, State(), []
    for _ in range(4):
        less, state = look(policy, 60, 4, state, now)
        assert 2 == less.desired
        state = fulfilled(state, 4, 2, now)
        burst = Pressure(RESOURCE, now + 60, 1.0, 400, 20, 20, 2)
        more, state = deciding.burst(a_target(), [policy], burst, 2, state, now + 60)
        assert 4 == more.desired
        began, state = now + 60, fulfilled(state, 2, 4, now + 60)
        now = began + 75
        while (again := look(policy, 60, 4, state, now))[0].desired == 4:
            assert (NotScaled("AutoScalingAnticipatedFlapping", current=4),) == again[0].not_scaled
            now += 5
        waits.append(now - began)
    assert [150, 300, 600, 600] == waits


def test_a_load_that_was_not_counted_must_be_gone() -> None:
    """Ten minutes after a scale-out by concurrency a tenth of what it was made for is little enough; then less is."""
    policy = tracking(100, stat=CONCURRENCY)
    state = fulfilled(look(policy, 500, 2)[1], 2, 10, START)
    soon, later = START + 300, START + 600
    assert 10 == look(policy, 20, 10, state, soon)[0].desired
    assert 5 == look(policy, 9, 10, state, soon)[0].desired
    assert 5 == look(policy, 20, 10, state, later)[0].desired


# --- several policies -------------------------------------------------------------------------------------------------


def together(*asked: tuple[TargetTracking, float], current: int = 6, target: Target | None = None) -> Decision:
    """A look with several policies, each with a metric of its own."""
    readings = {name: reading for policy, value in asked for name, reading in read(policy, value, START).items()}
    return decide(target or a_target(), [policy for policy, _ in asked], readings, current, State(), START)[0]


CALLS, LOAD = tracking(700, MINUTE, name="calls"), tracking(50, MINUTE, CPU, name="load")
ONLY_OUT = tracking(50, MINUTE, CPU, scale_in=False, name="only-out")


def test_any_policy_scales_out() -> None:
    """The one that asks for most, whatever the others want."""
    assert (12, "load") == ((one := together((CALLS, 100.0), (LOAD, 100.0))).desired, one.policy)
    assert (12, "load") == ((one := together((CALLS, 800.0), (LOAD, 100.0))).desired, one.policy)


def test_all_policies_scale_in() -> None:
    """The largest of what they ask for; one that rests, or does not know, holds the others."""
    assert (4, "load") == ((one := together((CALLS, 100.0), (LOAD, 30.0))).desired, one.policy)
    assert 6 == together((CALLS, 100.0), (LOAD, 48.0)).desired
    unknown = decide(a_target(), [CALLS, LOAD], read(CALLS, 100.0, START), 6, State(), START)[0]
    assert 6 == unknown.desired


def test_a_policy_that_may_not_scale_in_does_not_hold_others() -> None:
    """With DisableScaleIn only its scaling out counts."""
    assert 3 == together((CALLS, 100.0), (ONLY_OUT, 48.0)).desired
    assert 6 == together((ONLY_OUT, 1.0)).desired
    assert 12 == together((CALLS, 100.0), (ONLY_OUT, 100.0)).desired


# --- steps ------------------------------------------------------------------------------------------------------------

UP = (Step(0, 10, 1), Step(10, 20, 2), Step(20, None, 30))
DOWN = (Step(-10, 0, -10), Step(None, -10, -30))
BACKLOG = Stat(Metric("AWS/SageMaker", "ApproximateBacklogSize", (("EndpointName", "churn"),)), "Average")


def steps(kind: str = "ChangeInCapacity", chosen: tuple[Step, ...] = UP, **other: object) -> StepScaling:
    """A policy that an alarm at 60 names."""
    return replace(StepScaling("steps", "arn:steps", "ChangeInCapacity", chosen), **{"kind": kind, **other})  # type: ignore[arg-type]  # wider than each field


def watcher(name: str = "mine", period: float = MINUTE) -> Alarm:
    """The user's alarm: 60."""
    query = (Query("m1", BACKLOG),)
    return Alarm(name, query, period, 2, 2, 60.0, "GreaterThanOrEqualToThreshold", actions=("arn:steps",))


def stepped(
    policy: StepScaling,
    value: float | tuple[float | None, ...],
    current: int,
    state: State | None = None,
    now: float = START,
    others: Sequence[Policy] = (),
    alarm_state: AlarmState = "ALARM",
) -> tuple[Decision, State]:
    """A look while the alarm is in ALARM with this value."""
    values = value if isinstance(value, tuple) else (value, value)
    readings = {"mine": AlarmReading(alarm_state, "", values, now, now)}
    watchers = {"arn:steps": [watcher()]}
    return decide(a_target(0, 100), [policy, *others], readings, current, state or State(), now, watchers)


@pytest.mark.parametrize(
    ("beyond", "expected"),
    [(0, 1), (9.9, 1), (10, 2), (19, 2), (20, 30), (1e9, 30), (-0.1, -10), (-9.9, -10), (-10, -30), (-1e9, -30)],
)
def test_the_bounds_of_steps(beyond: float, expected: int) -> None:
    """Above the threshold the lower bound belongs to a step and the upper does not, below it the reverse."""
    found = stepping.chosen((*UP, *DOWN), beyond)
    assert found is not None
    assert expected == found.adjustment


def test_no_step() -> None:
    """A metric that no step is for."""
    assert stepping.chosen((Step(10, 20, 1),), 5) is None
    assert -10 == (stepping.chosen(DOWN, 0) or UP[0]).adjustment


@pytest.mark.parametrize(
    ("percent", "magnitude", "current", "expected"),
    [
        (30, 0, 10, 13),
        (12, 0, 10, 11),
        (19, 0, 10, 11),
        (4, 0, 10, 11),
        (-4, 0, 10, 9),
        (-19, 0, 10, 9),
        (-25, 0, 10, 8),
        (10, 3, 10, 13),
        (-10, 3, 10, 7),
        (-100, 0, 10, 0),
        (-200, 0, 10, 0),
        (0, 0, 10, 10),
        (100, 0, 0, 0),
    ],
)
def test_percents(percent: int, magnitude: int, current: int, expected: int) -> None:
    """Above 1 down, within 0 to 1 up, below -1 toward zero; at least the magnitude."""
    policy = steps("PercentChangeInCapacity", magnitude=magnitude)
    assert expected == stepping.changed(policy, Step(0, None, percent), current)


@pytest.mark.parametrize(
    ("kind", "current", "value", "expected"),
    [
        ("ChangeInCapacity", 0, 60, 1),
        ("ChangeInCapacity", 4, 71, 6),
        ("ExactCapacity", 4, 85, 30),
        ("ExactCapacity", 4, 65, 1),
        ("PercentChangeInCapacity", 10, 85, 13),
    ],
)
def test_kinds_of_steps(kind: str, current: int, value: float, expected: int) -> None:
    """Added, set, or in percent; also from nothing."""
    decision, _ = stepped(steps(kind), value, current)
    assert expected == decision.desired
    assert "monitor alarm mine in state ALARM triggered policy steps" == decision.cause


def test_steps_only_in_alarm() -> None:
    """Another state asks for nothing."""
    assert 4 == stepped(steps(), 99, 4, alarm_state="OK")[0].desired
    assert 4 == stepped(steps(), 99, 4, alarm_state="INSUFFICIENT_DATA")[0].desired


def test_the_aggregation_picks_the_step() -> None:
    """Of the evaluated datapoints; an alarm that went off without any is taken to be at its threshold."""
    found = [stepped(steps(aggregation=how), (65.0, 85.0), 4)[0].desired for how in ("Minimum", "Average", "Maximum")]
    assert [5, 6, 34] == found
    assert 5 == stepped(steps(), (None, None), 4)[0].desired


def test_a_step_is_taken_once_an_evaluation() -> None:
    """However often it is looked at; the alarm tells its action again with each of its periods."""
    policy = steps(cooldown=0)
    _, state = stepped(policy, 60, 4)
    readings = {"mine": AlarmReading("ALARM", "", (60.0, 60.0), START, START)}
    watchers = {"arn:steps": [watcher()]}
    again, state = decide(a_target(0, 100), [policy], readings, 5, fulfilled(state, 4, 5, START), START + 5, watchers)
    assert 5 == again.desired
    assert 6 == stepped(policy, 60, 5, state, START + MINUTE)[0].desired


def test_the_cooldown_of_steps() -> None:
    """2 were added, the alarm now asks for 2: nothing; for 30: 28 more; after the cooldown 2 again."""
    state = fulfilled(stepped(steps(), 71, 4)[1], 4, 6, START + 10)
    assert 6 == stepped(steps(), 71, 6, state, START + 60)[0].desired
    assert 34 == stepped(steps(), 85, 6, state, START + 120)[0].desired
    assert 8 == stepped(steps(), 71, 6, state, START + 360)[0].desired


def test_steps_down_wait_for_their_cooldown() -> None:
    """And go below by as much as they say."""
    down = steps(chosen=(Step(None, None, -2),))
    first, state = stepped(down, 99, 9)
    state = fulfilled(state, 9, 7, START + 1)
    assert 7 == first.desired
    assert 7 == stepped(down, 99, 7, state, START + 120)[0].desired
    assert 5 == stepped(down, 99, 7, state, START + 360)[0].desired


def test_steps_beside_target_tracking() -> None:
    """More: the larger of both. Less: only where target tracking agrees."""
    readings = {**read(CALLS, 800.0, START), "mine": AlarmReading("ALARM", "", (85.0, 85.0), START, START)}
    watchers = {"arn:steps": [watcher()]}
    both = decide(a_target(1, 100), [CALLS, steps()], readings, 4, State(), START, watchers)[0]
    assert (34, "steps") == (both.desired, both.policy)
    down = steps(chosen=(Step(None, None, -1),))
    resting = {**readings, **read(CALLS, 650.0, START)}
    assert 4 == decide(a_target(1, 100), [CALLS, down], resting, 4, State(), START, watchers)[0].desired
    low = {**readings, **read(CALLS, 100.0, START)}
    assert 3 == decide(a_target(1, 100), [CALLS, down], low, 4, State(), START, watchers)[0].desired


def test_two_alarms_of_a_step_policy() -> None:
    """The one that asks for most."""
    watchers = {"arn:steps": [watcher("mine"), watcher("other")]}
    readings = {
        "mine": AlarmReading("ALARM", "", (60.0, 60.0), START, START),
        "other": AlarmReading("ALARM", "", (75.0, 75.0), START, START),
    }
    assert 6 == decide(a_target(), [steps()], readings, 4, State(), START, watchers)[0].desired


def test_low_load_of_before_a_burst_takes_nothing_of_it_back() -> None:
    """A burst may come while the low alarm is in ALARM: less waits until it has seen a whole period since."""
    policy = tracking(6000)
    burst = Pressure(RESOURCE, START, 1.0, 400, 20, 20, 2)
    more, state = deciding.burst(a_target(), [policy], burst, 2, State(), START)
    state = fulfilled(state, 2, more.desired, START)
    early, state = look(policy, 60, more.desired, state, START + 3)
    assert (more.desired, ("", "capacity was added a moment ago")) == (early.desired, early.measured[-1])
