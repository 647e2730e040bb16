"""Capacity under a load that is drawn, for hours of a clock of its own: it follows, and it rests. Pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.loads import CONCURRENCY, Seen, World, a_target, tracking

HOUR, MINUTE = 3600.0, 60.0


def constant(calls: float, value: float, seed: int, hours: float, **other: float) -> World:
    """A load of so many calls a second, for hours."""
    world = World(tracking(value), lambda _: calls, seed=seed, tick=2.5)
    world = replace(world, **other)  # type: ignore[arg-type]  # all are numbers
    world.run(hours * HOUR)
    return world


def turns(changes: list[Seen]) -> int:
    """How often more was followed by less, or less by more."""
    ways = [change.after > change.before for change in changes]
    return sum(one != two for one, two in pairwise(ways))


@settings(max_examples=10, derandomize=True)  # chance has its say: the same draws each time
@given(st.floats(30, 6000), st.integers(0, 12), st.floats(0.1, 0.85), st.integers(0, 2**32))
@example(30.0, 1, 0.1, 0)
def test_nothing_changes_on_constant_load(value: float, workers: int, part: float, seed: int) -> None:
    """Where it is at home between two numbers of workers, noise moves nothing in four hours, once it has settled."""
    load = (workers + part) * value / MINUTE
    world = constant(load, value, seed, 4, current=workers + 1)
    assert 1 >= len(world.changes), world.changes
    assert 0 == turns(world.changes)


@settings(max_examples=8, derandomize=True)  # the same
@given(st.floats(10, 6000), st.floats(0.01, 12), st.integers(0, 2**32), st.integers(1, 20))
@example(70.0, 1.0, 1, 1)
@example(300.0, 1.95, 2, 1)
@example(10.0, 3.7, 0, 1)
def test_hardly_anything_changes_on_the_edge(value: float, workers: float, seed: int, current: int) -> None:
    """Just at the target noise may add a worker or take one, now and then; it does not go to and fro."""
    world = constant(workers * value / MINUTE, value, seed, 4, current=current)
    settled = [change for change in world.changes if change.at > 30 * MINUTE]
    assert len(settled) <= 4, world.changes
    assert turns(settled) <= 3, world.changes


@pytest.mark.parametrize("service", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("value", [5.0, 20.0])
@pytest.mark.parametrize("part", [0.5, 2.0])
def test_concurrency_changes_little_on_constant_load(service: float, value: float, part: float) -> None:
    """The most calls in flight of a second are noise through and through, for long calls that of minutes: one change in
    ten minutes at most, over an hour and a half."""
    policy = tracking(value, stat=CONCURRENCY)
    world = World(policy, lambda _: part * value / service, seed=7, tick=5 / 6, service=service)
    world.run(2 * HOUR)
    assert len([change for change in world.changes if change.at > 30 * MINUTE]) <= 9, world.changes


@settings(max_examples=15)
@given(
    st.floats(0.05, 30),
    st.floats(0, 30),
    st.floats(0, 30),
    st.integers(0, 4),
    st.integers(0, 12),
    st.integers(0, 2**32),
)
def test_never_outside_the_bounds(first: float, second: float, third: float, low: int, more: int, seed: int) -> None:
    """Whatever the load does."""
    target = a_target(low, low + more)
    loads = [first, second, third]
    world = World(tracking(60), lambda at: loads[int(at // 300) % 3], target, seed, current=low, tick=2.5)
    assert all(low <= count <= low + more for count in world.looks(1500))


@settings(max_examples=10, derandomize=True)  # the same
@given(st.floats(0.2, 9), st.floats(1.2, 4), st.integers(0, 2**32))
def test_more_load_never_has_less(workers: float, times: float, seed: int) -> None:
    """After ten minutes of it, up to the one that noise may add."""
    few, many = (constant(load * 3000 / MINUTE, 3000, seed, 1 / 6).current for load in (workers, workers * times))
    assert few <= many + 1


@pytest.mark.parametrize("value", [1200.0, 6000.0])
@pytest.mark.parametrize("workers", [2.4, 5.5, 9.5])
def test_a_load_that_comes_is_followed_at_once(value: float, workers: float) -> None:
    """Three periods after it began there is, but for one worker at most, all that it needs, and soon the last too."""
    world = World(tracking(value), lambda at: workers * value / MINUTE if at >= 10 * MINUTE else 0.0)
    world.run(12 * MINUTE)
    first = world.changes[0]
    assert 10 * MINUTE + 15 == first.at
    assert int(workers) <= first.after <= int(workers) + 2
    enough = next(change for change in world.changes if change.after > workers)
    assert enough.at <= 10 * MINUTE + 90


def test_a_load_that_goes_is_followed_within_two_minutes() -> None:
    """From six workers to one: fifteen periods without any load, then all at once."""
    world = World(tracking(600), lambda at: 53.0 if at < 10 * MINUTE else 0.0)
    world.run(13 * MINUTE)
    down = [change for change in world.changes if change.after < change.before]
    assert [(6, 1)] == [(change.before, change.after) for change in down][-1:]
    assert down[-1].at <= 11 * MINUTE + 20


def test_a_ramp_is_followed_upwards_and_downwards() -> None:
    """A load that grows for ten minutes and shrinks for ten never has to wait for long: capacity is never below what it
    needs by more than three periods before."""
    value = 3000.0

    def load(at: float) -> float:
        return 8 * (1 - abs(at - 600) / 600) * value / MINUTE if at < 1200 else 0.0

    world = World(tracking(value), load)
    world.run(1500)
    up = [change for change in world.changes if change.after > change.before]
    assert up[-1].after >= 8
    assert all(change.after * value / MINUTE >= load(change.at - 20) for change in up)
    assert 1 == world.current


def test_an_older_timing() -> None:
    """With AWS's minute as the period, the same load waits three minutes for more and fifteen for less."""
    world = World(tracking(600, MINUTE), lambda at: 57.0 if 10 * MINUTE <= at < 20 * MINUTE else 0.0, tick=5.0)
    world.run(HOUR)
    assert (13 * MINUTE, 1, 6) == world.changes[0]
    assert 35 * MINUTE == next(change.at for change in world.changes if change.after < change.before)


def test_a_long_rest_ends_when_the_load_is_gone() -> None:
    """Concurrency is not taken for gone while a tenth of it is there; when it is, nothing waits."""
    policy = tracking(5, stat=CONCURRENCY)

    def load(at: float) -> float:
        return 400.0 if at < 120 else 100.0 if at < 400 else 0.0

    world = World(policy, load, tick=5 / 6)
    world.run(700)
    down = [change.at for change in world.changes if change.after < change.before]
    assert 400 < down[0] <= 480
    assert 1 == world.current
