"""Which variants the calls of a queue go to: facts for any weights, rooms and numbers of calls."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from serving.jobs.draws import Draws

VARIANTS = st.sampled_from("abc")


@given(st.lists(st.tuples(st.dictionaries(VARIANTS, st.integers(-2, 4), min_size=1), st.integers(0, 9))), st.randoms())
def test_calls_go_as_they_are_drawn_and_nobody_has_too_many(
    steps: list[tuple[dict[str, int], int]], dice: object
) -> None:
    """Over any number of takes, with fewer calls than there is room for, and variants that come and go."""
    draws = Draws()
    drawn: list[str] = []
    used: list[str] = []
    for room, calls in steps:

        def draw(names: tuple[str, ...] = tuple(sorted(room))) -> str:
            drawn.append(dice.choice(names))  # type: ignore[attr-defined]  # a random.Random
            return drawn[-1]

        found = draws.take(room, draw)
        assert all(count <= max(0, room[name]) for name, count in Counter(found).items())
        used += found[:calls]
        draws.put_back(found[calls:])
    rest = iter(drawn)
    assert all(one in rest for one in used)  # in the order of the draws


def test_a_variant_whose_turn_it_is_is_waited_for() -> None:
    """The others have room, but not the right."""
    draws, turns = Draws(), iter("aab")
    assert ["a"] == draws.take({"a": 1, "b": 5}, lambda: next(turns))
    assert [] == draws.take({"a": 0, "b": 5}, lambda: next(turns))
    assert ["a", "b"] == draws.take({"a": 1, "b": 1}, lambda: next(turns))


def test_a_variant_that_has_gone_is_not_waited_for() -> None:
    """Its turn is the next one's."""
    draws, turns = Draws(), iter("ab")
    assert [] == draws.take({"a": 0, "b": 1}, lambda: next(turns))
    assert ["b"] == draws.take({"b": 1}, lambda: next(turns))
