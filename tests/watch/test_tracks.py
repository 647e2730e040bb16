"""Series over time: what they were, as long as it is kept; and that little is."""

from __future__ import annotations

import math
from array import array
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.watch.tracks import Buckets, Grid, Level, Total

GRID = Grid(period=5.0, recent=12.5)
#: Looks at a series: seconds since the one before, what it has grown by or is.
LOOKS = st.lists(st.tuples(st.sampled_from([0.25, 0.5, 1.0, 7.25, 90.0]), st.integers(0, 9)), min_size=1, max_size=700)


def times_of(looks: list[tuple[float, int]]) -> list[float]:
    """When each look was."""
    return list(accumulate((seconds for seconds, _ in looks), initial=0.0))[1:]


@given(LOOKS)
def test_a_total_has_grown_by_what_was_added(looks: list[tuple[float, int]]) -> None:
    """In the last periods to the second, in older minutes too."""
    track, total, points = Total(), 0.0, []
    for time, (_, added) in zip(times_of(looks), looks, strict=True):
        total += added
        points.append((time, float(added)))
        track.put(time, total, GRID)
    now = points[-1][0]
    for width, oldest in ((5.0, 125.0), (10.0, 600.0), (60.0, GRID.kept)):
        last = math.floor(now / width) * width
        for at in range(12):
            end = last - at * width
            if end - width >= max(0.0, now - oldest):
                expected = sum(added for time, added in points if end - width < time <= end)
                assert expected == track.grown(end - width, end)


@given(LOOKS)
def test_a_level_has_the_mean_and_the_ends_of_what_it_was(looks: list[tuple[float, int]]) -> None:
    """Of the last periods, looked at again and again."""
    track, points = Level(), []
    for time, (_, value) in zip(times_of(looks), looks, strict=True):
        points.append((time, float(value)))
        track.put(time, float(value), GRID)
    now = points[-1][0]
    end = math.floor(now / 5.0) * 5.0
    for _ in range(20):
        start = end - 5.0
        if start < points[0][0]:
            break
        before = [value for time, value in points if time <= start][-1:]
        inside = [(time, value) for time, value in points if start < time < end]
        steps = [(start, before[0]), *inside, (end, 0.0)]
        mean = sum(value * (then - time) for (time, value), (then, _) in pairwise(steps)) / 5.0
        found = track.spread(start, end, 0.25)
        assert found is not None
        assert mean == pytest.approx(found.mean)
        seen = [value for _, value in inside]
        assert min([*seen, *before]) <= found.least <= min(seen or before)
        assert max(seen or before) <= found.most <= max([*seen, *before])
        end = start


def test_a_level_that_fell_before_a_period_is_not_its_most() -> None:
    """A look at its beginning found it fallen already."""
    track = Level()
    for time, value in ((1.0, 9.0), (5.2, 0.0)):
        track.put(time, value, GRID)
    found = track.spread(5.0, 10.0, 0.25)
    assert found is not None
    assert (0.0, 0.0) == (found.least, found.most)


def test_a_level_that_is_none_for_a_while_has_the_mean_of_the_rest() -> None:
    """And nothing where it never was any."""
    track = Level()
    for time, value in ((0.0, 4.0), (5.0, math.nan), (15.0, 6.0)):
        track.put(time, value, GRID)
    assert (4.0, 4.0, 4.0) == track.spread(0.0, 10.0, 0.25)
    assert track.spread(5.0, 15.0, 0.25) is None
    assert (6.0, 6.0, 6.0) == track.spread(10.0, 20.0, 0.25)


def test_a_total_that_went_back_began_anew() -> None:
    """What was lost is not taken away."""
    track = Total()
    for time, value in ((1.0, 10.0), (6.0, 3.0)):
        track.put(time, value, GRID)
    assert 3.0 == track.grown(5.0, 10.0)


def test_a_histogram_has_what_was_added_to_each_cell() -> None:
    """Also from its first entry, and when it began anew."""
    track = Buckets()
    for time, cells in ((1.0, [1.0, 0.0, 0.5]), (6.0, [1.0, 2.0, 4.5]), (11.0, [0.0, 1.0, 2.0])):
        track.put(time, array("d", cells).tobytes(), GRID)
    assert [1.0, 0.0, 0.5] == track.grown(0.0, 5.0)
    assert [0.0, 2.0, 4.0] == track.grown(5.0, 10.0)
    assert [0.0, 1.0, 2.0] == track.grown(10.0, 15.0)
    assert () == track.grown(15.0, 20.0)


@pytest.mark.parametrize("period", [0.2, 7.0, 90.0])
def test_a_day_of_change_is_kept_in_little(period: float) -> None:
    """However long it changes at every look."""
    grid = Grid(period, min(max(2.5 * period, 10.0), 300.0))
    total, level, buckets = Total(), Level(), Buckets()
    for at in range(13_000):
        total.put(float(at), float(at), grid)
        level.put(float(at), float(at % 7), grid)
        buckets.put(float(at), array("d", [float(at)] * 20).tobytes(), grid)
    assert total.bytes < 25_000
    assert level.bytes < 70_000
    assert buckets.bytes < 250_000
    assert 60.0 == total.grown(12_900.0, 12_960.0) == total.grown(6_000.0, 6_060.0)
