"""Facts about which worker gets a call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from serving.workers.placement import SPILL, home_or_spill, least_outstanding, rendezvous

WORKERS = [f"{number:04d}" for number in range(10)]
IDS = st.lists(st.text("0123456789", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


@dataclass
class Worker:
    """A worker with calls in flight."""

    name: str
    outstanding: int = 0


def order(key: str, workers: list[str]) -> list[str]:
    """The workers as this key prefers them."""
    return [workers[at] for at in rendezvous(key, workers)]


@given(st.text(), IDS)
def test_a_key_prefers_every_worker_once_and_always_the_same_way(key: str, workers: list[str]) -> None:
    """Whatever order they are listed in."""
    assert sorted(workers) == sorted(order(key, workers))
    assert order(key, workers) == order(key, sorted(workers))


@given(st.text(), IDS.filter(lambda ids: len(ids) > 1), st.integers(0))
def test_a_worker_that_goes_moves_only_its_own_keys(key: str, workers: list[str], which: int) -> None:
    """All others keep their preferences: so a worker that comes takes only what it now wins."""
    gone = workers[which % len(workers)]
    assert [one for one in order(key, workers) if one != gone] == order(key, [one for one in workers if one != gone])


def test_keys_are_spread_evenly() -> None:
    """Ten thousand keys over ten workers: each is home to its part."""
    homes = Counter(order(f"model-{number}", WORKERS)[0] for number in range(10_000))
    assert set(WORKERS) == set(homes)
    assert 850 < min(homes.values()) <= max(homes.values()) < 1150


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_the_least_busy_worker_is_chosen_and_ties_by_dice(calls: list[int], u: float) -> None:
    """Never one with more calls in flight than another."""
    workers = [Worker(str(at), outstanding) for at, outstanding in enumerate(calls)]
    assert min(calls) == least_outstanding(workers, lambda: u).outstanding


def test_ties_are_broken_over_all_that_tie() -> None:
    """The dice reach each of them."""
    workers = [Worker("a", 1), Worker("b", 2), Worker("c", 1), Worker("d", 1)]
    assert ["a", "c", "d"] == [least_outstanding(workers, lambda u=u: u).name for u in (0.0, 0.34, 0.99)]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_a_cold_model_never_leaves_home(calls: list[int]) -> None:
    """However busy home is: its callers wait for one load."""
    workers = [Worker(str(at), outstanding) for at, outstanding in enumerate(calls)]
    assert workers[0] is home_or_spill(workers, lambda _: False)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_a_hot_model_spills_only_to_a_worker_that_is_much_less_busy(calls: list[int]) -> None:
    """To the first in its order that has at least ``SPILL`` calls fewer; else it stays."""
    workers = [Worker(str(at), outstanding) for at, outstanding in enumerate(calls)]
    chosen = home_or_spill(workers, lambda _: True)
    better = [one for one in workers[1:] if one.outstanding + SPILL <= calls[0]]
    assert (better or workers)[0] is chosen
