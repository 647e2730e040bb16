"""Traces: what is a trace, what it comes to, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import scaling_day
from serving.errors import ValidationError
from serving.scaling import traces
from serving.scaling.traces import Rates, Trace

DEPARTURES = Path(__file__).resolve().parent.parent / "loadtests" / "traces" / "departures.csv"


def test_a_line_with_one_time_is_an_arrival() -> None:
    """Counted from the first, whatever the clock began at."""
    found = traces.parse(["time", "1700000000.5", "1700000001", "1700000001", "1700000060.5"])
    assert isinstance(found, Trace)
    assert [0.0, 0.5, 0.5, 60.0] == found.arrivals.tolist()
    assert 60.0 == found.seconds


@pytest.mark.parametrize(
    "lines",
    [
        ["2026-11-21T06:00:00Z", "2026-11-21T06:00:30Z"],
        ["# as people write it", "", "06:00", "06:00:30"],
        ['"0"', '"30"'],
    ],
)
def test_times_are_written_as_people_write_them(lines: list[str]) -> None:
    """Seconds, ISO 8601, a time of day."""
    found = traces.parse(lines)
    assert isinstance(found, Trace)
    assert [0.0, 30.0] == found.arrivals.tolist()


def test_rates_last_until_the_next_row_and_the_last_as_long_as_the_one_before() -> None:
    """Ten minutes of which are two calls a second, and five none."""
    found = traces.parse(["time,rate", "0,2", "600,0", "900,1"])
    assert isinstance(found, Rates)
    assert [0, 600, 900, 1200] == found.times.tolist()
    assert [2, 0, 1] == found.rates.tolist()


def test_a_column_of_calls_is_counts() -> None:
    """Its heading says so."""
    found = traces.parse(["time,calls", "00:00,30", "00:01,60"])
    assert isinstance(found, Rates)
    assert [0.5, 1.0] == found.rates.tolist()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "no rows"),
        (["time,rate"], "no rows"),
        (["0", "1", "soon"], "Line 3"),
        (["0,1", "5,-2"], "Line 2"),
        (["0,1", "5,nan"], "Line 2"),
        (["5", "4"], "Line 2 of the trace is earlier"),
        (["0,1", "0,2"], "Line 2 of the trace is earlier"),
        (["0,1", "5"], "one or two"),
        (["0,1,2", "1,1,2"], "one or two"),
        (["0,1"], "two rows"),
        (["0", "1e308"], "366 days"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(lines: list[str], told: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValidationError, match=told):
        traces.parse(lines)


@given(st.lists(st.text(alphabet="0123456789.,:-#einfT \n", max_size=20), max_size=6))
def test_any_text_is_a_trace_or_refused(lines: list[str]) -> None:
    """Never another error, and never times that go back."""
    try:
        found = traces.parse(lines)
    except ValidationError:
        return
    times = found.arrivals if isinstance(found, Trace) else found.times
    assert np.isfinite(times).all()
    assert (np.diff(times) >= 0).all()


def test_arrivals_drawn_of_rates_are_as_many_as_they_say() -> None:
    """Within four standard deviations, ascending, and the same for the same seed."""
    found = traces.parse(["0,5", "1000,0", "2000,20", "3000,0"])
    drawn = traces.drawn(found, 2, seed=7)
    assert 50_000 == pytest.approx(len(drawn.arrivals), abs=4 * 50_000**0.5)
    assert 10_000 == pytest.approx((drawn.arrivals < 1000).sum(), abs=400)
    assert 0 == ((drawn.arrivals >= 1000) & (drawn.arrivals < 2000)).sum()
    assert (np.diff(drawn.arrivals) >= 0).all()
    assert traces.drawn(found, 2, seed=7).arrivals.tolist() == drawn.arrivals.tolist()


@pytest.mark.parametrize(("scale", "expected"), [(1, 3000), (3, 9000), (0.5, 1500)])
def test_written_arrivals_are_repeated_or_left_out(scale: float, expected: int) -> None:
    """In the second in which they came."""
    found = traces.parse([str(second) for second in range(3000)])
    drawn = traces.drawn(found, scale, seed=1)
    assert expected == pytest.approx(len(drawn.arrivals), abs=120)
    assert found.seconds >= drawn.arrivals[-1]


@pytest.mark.parametrize(("scale", "told"), [(1e-9, "No call"), (1e9, "is the most")])
def test_too_little_and_too_much_are_refused(scale: float, told: str) -> None:
    """Before any memory is asked for."""
    with pytest.raises(ValidationError, match=told):
        traces.drawn(traces.parse(["0,1", "60,1"]), scale, seed=1)


def test_the_day_that_comes_along_is_the_one_it_says_it_is() -> None:
    """1,001 departures, none between one and four at night, most in the hour from 17:00."""
    found = traces.parse(DEPARTURES.read_text().splitlines())
    assert isinstance(found, Rates)
    counts = np.rint(found.rates * np.diff(found.times)).astype(int)
    assert (86_400, 1001) == (found.times[-1], counts.sum())
    by_hour = counts.reshape(24, -1).sum(axis=1)
    assert 0 == by_hour[1:4].sum()
    assert by_hour.max() > 60


def test_departures_are_counted_by_the_minute_in_which_they_were() -> None:
    """Cancelled ones and other days are left out; midnight is the day's last minute."""
    rows = [
        {"year": "2013", "month": "12", "day": day, "dep_time": at}
        for day, at in [("2", "5"), ("2", "1759.0"), ("2", "2400"), ("2", ""), ("2", "NA"), ("3", "5")]
    ]
    found = scaling_day.counted(rows, "2013-12-02")
    assert {0: 1, 71: 1, 95: 1} == found
    again = traces.parse(scaling_day.trace(found, "2013-12-02").splitlines())
    assert isinstance(again, Rates)
    assert 3 == pytest.approx((again.rates * np.diff(again.times)).sum())
