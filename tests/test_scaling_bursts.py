"""Capacity for calls that wait, the first worker, and what the machine gives of it. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scaling import bursting, deciding
from serving.scaling.bursting import Pressure
from serving.scaling.chance import at_least, at_most
from serving.scaling.deciding import State
from serving.scaling.machine import Wish, grant
from serving.scaling.values import INSTANCES, Resource, Target
from tests.loads import CONCURRENCY, RESOURCE, START, a_target, tracking

CALLS = tracking(600)  # ten calls a second for each worker
FLYING = tracking(4, stat=CONCURRENCY)
GIB = 2**30


def pressure(calls: int = 100, least: int = 5, pending: int = 30, ready: int = 1) -> Pressure:
    """A second in which calls waited."""
    return Pressure(RESOURCE, START, 1.0, calls, least, pending, ready)


# --- bursts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (pressure(calls=100), 7),
        (pressure(calls=45), 3),
        (pressure(calls=1000), 20),
        (pressure(calls=19), None),  # not twice the target
        (pressure(calls=21), None),  # twice, but one second in a thousand is like that
        (pressure(calls=100, least=1), None),  # calls did not wait all the time
        (pressure(calls=100, ready=0), None),  # waking is another matter
        (pressure(calls=100, ready=6), None),
        (pressure(calls=100, least=9, ready=4), 7),
    ],
)
def test_a_burst_of_calls(seen: Pressure, expected: int | None) -> None:
    """At least twice the target, which is no chance, while calls wait: as many workers as make it none."""
    assert expected == bursting.wanted(a_target(), CALLS, seen, START)


@pytest.mark.parametrize(
    ("least", "ready", "expected"), [(80, 1, 20), (30, 1, 8), (8, 1, 2), (7, 1, None), (30, 4, None), (32, 4, 8)]
)
def test_a_burst_of_calls_in_flight(least: int, ready: int, expected: int | None) -> None:
    """At least twice the target at each reading of the window."""
    assert expected == bursting.wanted(a_target(), FLYING, pressure(0, least, 500, ready), START)


def test_a_slower_target_is_never_chance_of_few_calls() -> None:
    """Of 70 calls a minute, three in a second are nothing; twenty are."""
    slow = tracking(70)
    assert bursting.wanted(a_target(), slow, pressure(calls=3), START) is None
    assert 7 == bursting.wanted(a_target(), slow, pressure(calls=20), START)


def test_no_burst() -> None:
    """Not while scaling out is suspended, not from an old report, not by a metric that fronts do not see."""
    assert bursting.wanted(a_target(suspended_out=True), CALLS, pressure(), START) is None
    assert bursting.wanted(a_target(), CALLS, pressure(), START + 1.1) is None
    cpu = FLYING.high.queries[0]._replace(stat=CONCURRENCY._replace(metric=CONCURRENCY.metric._replace(name="CPU")))
    other = replace(FLYING, high=replace(FLYING.high, queries=(cpu,)))
    assert bursting.wanted(a_target(), other, pressure(), START) is None


def test_the_decision_about_a_burst() -> None:
    """It says why, counts as a scale-out that is on its way, and asks for more only when there is more."""
    decision, state = deciding.burst(a_target(), [CALLS], pressure(), 1, State(), START)
    assert (7, "waiting calls triggered policy follow") == (decision.desired, decision.cause)
    assert (("follow", "100 calls in 1 s, 30 pending for 1 ready"),) == decision.measured
    again, state = deciding.burst(a_target(), [CALLS], pressure(), 10, state, START + 0.25)
    assert 10 == again.desired
    more, _ = deciding.burst(a_target(), [CALLS], pressure(calls=150), 10, state, START + 0.5)
    assert 11 == more.desired


def test_the_policy_that_asks_for_most_answers_a_burst() -> None:
    """Of several."""
    decision, _ = deciding.burst(a_target(), [CALLS, FLYING], pressure(least=60), 1, State(), START)
    assert (15, "follow") == (decision.desired, decision.policy)
    assert 1 == deciding.burst(a_target(), [], pressure(), 1, State(), START)[0].desired


@given(
    st.builds(
        Pressure,
        st.just(RESOURCE),
        st.just(START),
        st.floats(0, 2),
        st.integers(0, 10**6),
        st.integers(0, 10**5),
        st.integers(0, 10**5),
        st.integers(0, 30),
    ),
    st.integers(0, 30),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_burst_never_takes_away_and_keeps_to_the_bounds(seen: Pressure, current: int, low: int, more: int) -> None:
    """Whatever is reported."""
    target = Target(RESOURCE, low, low + more)
    for policy in (CALLS, FLYING):
        decision, _ = deciding.burst(target, [policy], seen, current, State(), START)
        assert decision.desired == current or current < decision.desired <= target.maximum


def test_waking() -> None:
    """The minimum, at least one; none where there may be none, or scaling out is suspended."""
    assert [1, 3, None, None] == [
        bursting.wake(one)
        for one in (a_target(0, 4), a_target(3, 4), a_target(0, 0), a_target(0, 4, suspended_out=True))
    ]
    decision, state = deciding.wake(a_target(0, 4), 0, State(), START)
    assert (1, "a call waited for capacity") == (decision.desired, decision.cause)
    assert 1 == deciding.wake(a_target(0, 4), 1, state, START)[0].desired


# --- chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "mean", "exact"),
    [(10, 2.0, 4.65e-5), (30, 10.0, 2.51e-7), (150, 100.0, 1.88e-6), (5300, 5000.0, 1.354e-5), (3, 0.1, 1.546e-4)],
)
def test_tails_above(count: int, mean: float, exact: float) -> None:
    """Never below the exact ones (scipy), and little above."""
    assert exact * 0.99 <= at_least(count, mean) <= 1.3 * exact


@pytest.mark.parametrize(("count", "mean", "exact"), [(0, 10.0, 4.54e-5), (3, 20.0, 3.2e-6), (55, 100.0, 6.35e-7)])
def test_tails_below(count: int, mean: float, exact: float) -> None:
    """The same of few calls."""
    assert exact * 0.99 <= at_most(count, mean) <= 1.3 * exact


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_tails_are_chances(count: float, mean: float, more: float) -> None:
    """Between 0 and 1, and rarer the farther off."""
    assert 0 <= at_least(count + more, mean) <= at_least(count, mean) * (1 + 1e-6) <= 1 + 1e-6
    assert 0 <= at_most(count, mean + more) <= at_most(count, mean) * (1 + 1e-6) <= 1 + 1e-6


# --- the machine ------------------------------------------------------------------------------------------------------


def wish(name: str, current: int, desired: int, minimum: int = 1, each: int = GIB) -> Wish:
    """Of a variant of this name."""
    return Wish(Resource(f"endpoint/{name}/variant/blue", INSTANCES), current, desired, minimum, each)


def given_out(wishes: list[Wish], cores: int = 2, free: int = 100 * GIB, most: int = 0) -> dict[str, int]:
    """What each gets, by its endpoint's name."""
    found = grant(wishes, cores, free, most)
    return {one.resource.id.split("/")[1]: found[one.resource] for one in wishes}


def test_enough_for_all() -> None:
    """Everybody gets what is desired, less included."""
    assert {"a": 4, "b": 1, "c": 0} == given_out([wish("a", 1, 4), wish("b", 3, 1), wish("c", 1, 0, 0)])


def test_cores_are_shared_fairly() -> None:
    """Four for each core beyond the minimums: who wants little gets it, the others share the rest."""
    assert {"a": 2, "b": 5, "c": 4} == given_out([wish("a", 1, 2), wish("b", 1, 50), wish("c", 1, 9)])
    assert {"a": 3, "b": 2} == given_out([wish("a", 1, 9), wish("b", 1, 9)], most=3)


def test_nobody_loses_a_worker_to_another() -> None:
    """Who came first keeps what runs, and gets no more while others have less beyond their minimum."""
    assert {"a": 8, "b": 2} == given_out([wish("a", 8, 20), wish("b", 1, 20)])
    assert {"a": 9, "b": 1} == given_out([wish("a", 9, 20), wish("b", 1, 20)])


def test_a_minimum_is_a_promise() -> None:
    """It is given whatever there is, and counts against nobody."""
    assert {"a": 6, "b": 1} == given_out([wish("a", 0, 9, 6), wish("b", 1, 9)], free=0)
    assert {"a": 6, "b": 5} == given_out([wish("a", 6, 6, 6), wish("b", 1, 5, 1)], cores=1)


def test_memory_is_shared() -> None:
    """A worker that does not fit is not started; a smaller one of another may be."""
    assert {"a": 3, "b": 2} == given_out([wish("a", 1, 9), wish("b", 1, 9)], free=3 * GIB)
    assert {"a": 1, "b": 5} == given_out([wish("a", 1, 9, each=8 * GIB), wish("b", 1, 9)], free=4 * GIB)


WISHES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=6
)


@given(WISHES, st.integers(1, 4), st.integers(0, 20), st.integers(0, 10))
def test_what_is_granted(drawn: list[tuple[int, int, int, int]], cores: int, free: int, most: int) -> None:
    """Never more than desired, never less than runs or is promised; within memory and the bound beyond what was there
    before; and nobody has to envy one with more beyond its minimum, unless its own workers are too large."""
    wishes = [wish(str(at), current, desired, low, each) for at, (current, desired, low, each) in enumerate(drawn)]
    found = grant(wishes, cores, free, most)
    new = {one.resource: found[one.resource] - min(one.desired, max(one.current, one.minimum)) for one in wishes}
    for one in wishes:
        assert min(one.desired, max(one.current, one.minimum)) <= found[one.resource] <= one.desired
    promised = sum(max(0, min(one.desired, one.minimum) - one.current) * one.bytes_per_worker for one in wishes)
    assert sum(new[one.resource] * one.bytes_per_worker for one in wishes) <= max(0, free - promised)
    held = sum(max(0, min(one.current, one.desired) - one.minimum) for one in wishes)
    assert sum(new.values()) <= max(0, (most or 4 * cores) - held)
    for poor in wishes:
        for rich in wishes:
            if found[poor.resource] < poor.desired and new[rich.resource] and not poor.bytes_per_worker:
                assert found[rich.resource] - rich.minimum <= found[poor.resource] - poor.minimum + 1
