"""Facts about how many workers calls bring: those of serverless variants, and pressure as control hears of it. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet import resolve
from serving.fleet.on_demand import granted, used, wanted
from serving.fleet.pressures import Pressures
from serving.types import FleetKey, ServerlessSpec
from serving.workers.elastic import Gauge

IDLE = 10.0


def spec(most: int = 4, provisioned: int = 0) -> ServerlessSpec:
    """A serverless variant."""
    return ServerlessSpec(2**30, most, provisioned)


def test_a_worker_stays_while_calls_need_it_and_a_while_longer() -> None:
    """Each by itself: the second goes before the first when only one call at a time has come lately."""
    last = used((), 2, 0.0)
    last = used(last, 1, 8.0)
    assert [2, 1, 0] == [wanted(spec(), last, now, IDLE) for now in (9.9, 10.0, 18.0)]


def test_what_is_provisioned_stays_without_calls() -> None:
    """And is never more than there may be."""
    assert [0, 2, 4] == [wanted(spec(provisioned=count), (), 0.0, IDLE) for count in (0, 2, 9)]


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 12), st.floats(0.0, 20.0)), max_size=20),
)
def test_workers_are_never_more_than_allowed_nor_fewer_than_the_calls_need(
    most: int, events: list[tuple[int, float]]
) -> None:
    """Whatever the calls do."""
    now, last = 0.0, used((), 0, 0.0)
    for calls, pause in events:
        now += pause
        last = used(last, calls, now)
        assert min(calls, most) <= wanted(spec(most), last, now, IDLE) <= most


def keys(*names: str) -> list[FleetKey]:
    """Fleets by these names."""
    return [FleetKey(name, 1, "v") for name in names]


def test_variants_share_what_the_machine_has_in_turn() -> None:
    """A busy one leaves room for others, and each has its first worker whatever there is."""
    a, b, c = keys("a", "b", "c")
    assert {a: 4, b: 2} == granted({a: (0, 9), b: (0, 2)}, 6)
    assert {a: 1, b: 1, c: 0} == granted({a: (0, 3), b: (0, 3), c: (0, 0)}, 1)
    assert {a: 4, b: 2} == granted({a: (2, 9), b: (0, 3)}, 4)


@given(
    st.dictionaries(
        st.sampled_from(keys("a", "b", "c", "d")),
        st.tuples(st.integers(0, 5), st.integers(0, 9)).map(lambda pair: (pair[0], max(pair))),
    ),
    st.integers(0, 30),
)
def test_what_is_granted_is_wished_and_fits(wishes: dict[FleetKey, tuple[int, int]], room: int) -> None:
    """Between the least and the wish; beyond the least no more than there is room for, but for first workers."""
    counts = granted(wishes, room)
    assert all(least <= counts[key] <= wished for key, (least, wished) in wishes.items())
    extra = sum(counts[key] - least for key, (least, _) in wishes.items())
    assert extra <= max(room, sum(1 for least, wished in wishes.values() if wished > least == 0))


def test_pressure_is_told_once_calls_have_waited_for_a_while() -> None:
    """Of the time since when they wait; one moment without is a new beginning."""
    gauge = Gauge()
    pending = [0, 3, 4, 2, 6, 7, 1, 5, 5, 5, 5]
    told = [gauge.look(at * 0.25, at * 10.0, waiting, 1, 1) for at, waiting in enumerate(pending)]
    assert [4, 5, 10] == [at for at, one in enumerate(told) if one is not None]
    assert {"window": 0.75, "calls": 30, "pending_least": 2, "pending": 6, "ready": 1} == told[4]
    assert {"window": 0.75, "calls": 30, "pending_least": 5, "pending": 5, "ready": 1} == told[10]


def test_the_longer_calls_wait_the_surer_is_their_number_up_to_two_seconds() -> None:
    """What was long ago says nothing about now."""
    gauge = Gauge()
    told = [gauge.look(at * 0.25, at * 10.0, 3, 1, 1) for at in range(20)]
    assert [0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.0] == [one["window"] for one in told[3:10] if one is not None]


def test_a_front_has_its_share_of_the_workers() -> None:
    """One call at each of two fronts is two for one worker."""
    alone, shared = Gauge(), Gauge()
    told = [
        [gauge.look(at * 0.25, 0.0, 1, 1, fronts) for at in range(4)] for gauge, fronts in ((alone, 1), (shared, 2))
    ]
    assert [True, False] == [looks[-1] is None for looks in told]


def report(child: int, pending: int) -> dict[str, Any]:
    """What a front says."""
    return {
        "child": child, "endpoint": "e", "name": "v", "window": 1.0, "calls": 10 * pending, "pending_least": pending,
        "pending": pending, "ready": 1,
    }  # fmt: skip


def test_pressure_is_that_of_all_fronts_together() -> None:
    """Of those that have spoken of late and are still there."""
    pressures = Pressures()
    pressures.add(report(1, 2), 0.0)
    both = pressures.add(report(2, 3), 0.5)
    assert (5, 50, 5, 1) == tuple(both[name] for name in ("pending", "calls", "pending_least", "ready"))
    assert 3 == pressures.add(report(2, 3), 0.7)["pending"]
    pressures.gone(2)
    assert 2 == pressures.add(report(1, 2), 0.8)["pending"]


def test_fronts_that_have_looked_for_different_times_are_summed_by_their_pace() -> None:
    """10 calls in half a second at one, 10 in a second at the other, are 30 a second."""
    pressures = Pressures()
    pressures.add({**report(1, 1), "window": 0.5}, 0.0)
    assert 30 == pressures.add(report(2, 1), 0.0)["calls"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, {"MemorySizeInMB": 1024, "MaxConcurrency": 5, "ProvisionedConcurrency": 2}),
        ({"ProvisionedConcurrency": 4}, {"MemorySizeInMB": 1024, "MaxConcurrency": 5, "ProvisionedConcurrency": 4}),
        ({"ProvisionedConcurrency": 0}, {"MemorySizeInMB": 1024, "MaxConcurrency": 5}),
    ],
)
def test_a_serverless_variant_is_what_its_configuration_and_later_changes_say(
    changed: dict[str, int], found: dict[str, int]
) -> None:
    """Also where only what changed was written down; nothing provisioned is left out, as AWS knows no 0."""
    config = {"MemorySizeInMB": 1024, "MaxConcurrency": 5, "ProvisionedConcurrency": 2}
    variant = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": config}
    assert found == resolve.serverless(variant, {"Variants": {"v": {"Weight": 1.0, "Count": 1, "Serverless": changed}}})
