"""Facts about calls that are held while there is no worker for them, as a front's pool has it. No server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ModelNotReady, Quarantined, ServiceUnavailable, ServingError, Throttled, ValidationError
from serving.types import FleetKey, Invocation
from serving.watch.metrics import Registry
from serving.workers.cells import model_key
from serving.workers.elastic import Event
from serving.workers.places import Places, Siblings, forget, free
from serving.workers.pool import Pool
from serving.workers.serverless import ServerlessPool

HOLD = 30.0
COMPONENT = FleetKey("e", 1, "v", "", "c")


class Held:
    """A pool without workers, what it has told control, and what its calls were told."""

    def __init__(
        self, registry: Registry, key: FleetKey = COMPONENT, kind: type[Pool] = Pool, hold: float = HOLD
    ) -> None:
        self.events: list[Event] = []
        self.answers: list[Any] = []
        self.pool = kind(key, False, 1024, registry, itertools.count(1))
        self.pool.on_scaling = self.events.append
        self.set(0, hold, expected=kind is ServerlessPool)
        self.now = time.monotonic()

    def set(self, desired: int, hold: float, expected: bool, failure: str = "") -> None:
        """What the routing table says now."""
        self.pool.desired, self.pool.hold, self.pool.elastic = desired, hold, hold > 0
        self.pool.update([], expected, failure, {})

    def call(self, seconds: float = 60.0) -> Any:
        """Submit one."""
        invocation = Invocation("e", b"x", "text/csv", "", "r", time.monotonic() + seconds)
        return self.pool.submit(invocation, self.answers.append)

    def sweep(self, after: float) -> None:
        """So many seconds have passed."""
        self.pool.sweep(self.now + after)


Fact = Callable[[Registry], Coroutine[Any, Any, None]]


def held(fact: Fact) -> Callable[[Path], None]:
    """A test that runs on a loop."""

    def test(tmp_path: Path) -> None:
        registry = Registry(tmp_path / "metrics", "front")
        try:
            asyncio.run(fact(registry))
        finally:
            registry.close()

    test.__doc__ = fact.__doc__
    return test


@held
async def test_control_is_asked_for_a_worker_until_there_is_to_be_one(registry: Registry) -> None:
    """Once for many calls, and again now and then; no more when one is on its way."""
    one = Held(registry)
    one.call()
    one.call()
    assert [("wake", "e", "c")] == [event[:3] for event in one.events]
    one.sweep(1.0)
    assert 2 == len(one.events)
    one.set(1, HOLD, expected=True)
    one.sweep(2.0)
    assert (2, []) == (len(one.events), one.answers)


@held
async def test_a_call_is_held_so_long_and_then_refused_in_awss_words(registry: Registry) -> None:
    """Also when a worker is on its way by then."""
    one = Held(registry)
    one.call()
    one.sweep(HOLD - 1)
    assert [] == one.answers
    one.set(1, HOLD, expected=True)
    one.sweep(HOLD + 1)
    assert ["has no capacity"] == [str(error)[20:35] for error in one.answers]
    assert (ValidationError, 0) == (type(one.answers[0]), one.pool.pending)


@held
async def test_a_calls_own_time_limit_ends_the_wait(registry: Registry) -> None:
    """As it would end its run."""
    one = Held(registry)
    one.call(seconds=5.0)
    one.sweep(6.0)
    assert ["ModelError"] == [error.code for error in one.answers]


@held
async def test_calls_are_let_go_when_nothing_scales_any_more(registry: Registry) -> None:
    """A variant's as its calls without a worker always are."""
    one = Held(registry, FleetKey("e", 1, "v"))
    one.call()
    one.set(0, 0.0, expected=False)
    assert [ServiceUnavailable] == [type(error) for error in one.answers]


@held
async def test_a_caller_who_leaves_is_not_answered(registry: Registry) -> None:
    """And control is not asked for a worker on its behalf any more."""
    one = Held(registry)
    one.call().cancel()
    one.sweep(1.0)
    one.sweep(HOLD + 1)
    assert (1, [], 0) == (len(one.events), one.answers, one.pool.pending)


@held
async def test_what_cannot_start_holds_nobody(registry: Registry) -> None:
    """Whoever waited is told why."""
    one = Held(registry, FleetKey("e", 1, "v"))
    one.call()
    one.set(1, HOLD, expected=False, failure="no weights")
    assert ["no weights"] == [str(error)[-10:] for error in one.answers]


def serverless(registry: Registry, hold: float = HOLD) -> Held:
    """A serverless variant that may have two calls at a time."""
    one = Held(registry, FleetKey("e", 7, "v"), ServerlessPool, hold)
    assert isinstance(one.pool, ServerlessPool)
    one.pool.most = 2
    return one


@held
async def test_control_hears_how_many_calls_a_serverless_variant_has(registry: Registry) -> None:
    """At once when there are more, with the next sweep when there are fewer; one too many counts for nothing."""
    one = serverless(registry)
    calls = [one.call(), one.call()]
    with pytest.raises(Throttled):
        one.call()
    await asyncio.sleep(0)  # the end of this tick
    assert [("demand", {"generation": 7, "pending": 2})] == [(event.kind, event.more) for event in one.events]
    for call in calls:
        call.cancel()
    one.sweep(0.25)
    one.sweep(0.5)
    assert [2, 0] == [event.more["pending"] for event in one.events]


def test_calls_at_a_time_are_counted_over_all_processes(tmp_path: Path) -> None:
    """A place that one has another cannot have; those of one that has ended are free again."""
    one, other = (Places(Siblings(number, 2, tmp_path), 7) for number in (1, 2))
    assert [True, True, False] == [places.take(2) for places in (one, other, one)]
    other.give()
    assert [True, False] == [places.take(2) for places in (one, other)]
    free(tmp_path, 7, 1)
    assert [True, True, False] == [other.take(2) for _ in range(3)]
    forget(tmp_path, 7)
    free(tmp_path, 7, 1)
    assert [] == list(tmp_path.iterdir())


@held
async def test_every_end_of_a_call_gives_its_place_back(registry: Registry) -> None:
    """Also a refusal behind the first look."""
    one = serverless(registry)
    one.call().cancel()
    with pytest.raises(Quarantined):
        one.pool.update([], True, "", {model_key(""): time.monotonic() + 60})
        one.call()
    one.pool.update([], True, "", {})
    one.call()
    one.sweep(HOLD + 1)
    assert [ModelNotReady] == [type(error) for error in one.answers]
    one.call()
    one.call()
    with pytest.raises(Throttled):
        one.call()


@held
async def test_a_serverless_call_that_gets_no_worker_in_time_is_told_to_come_again(registry: Registry) -> None:
    """Its own time limit is for its run, which has not begun."""
    one = serverless(registry)
    one.call(seconds=5.0)
    one.sweep(HOLD - 1)
    assert [] == one.answers
    one.sweep(HOLD + 1)
    assert [("ModelNotReadyException", 429)] == [(error.code, error.status) for error in one.answers]


@held
async def test_a_serverless_call_is_not_held_where_nobody_is(registry: Registry) -> None:
    """It is refused at once, and brings a worker for the next."""
    one = serverless(registry, hold=0.0)
    one.call()
    assert [ModelNotReady] == [type(error) for error in one.answers]
    await asyncio.sleep(0)  # the end of this tick
    assert [1] == [event.more["pending"] for event in one.events]
    assert isinstance(one.answers[0], ServingError)
