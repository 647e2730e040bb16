"""The state of an alarm: CloudWatch's tables, and what holds for any values. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scaling import alarming
from serving.scaling.alarming import evaluate
from serving.scaling.values import Alarm, AlarmReading, AlarmState, Comparison, MissingData, Query
from tests.loads import INVOCATIONS

TREATMENTS: tuple[MissingData, ...] = ("missing", "ignore", "breaching", "notBreaching")
ABBREVIATED: dict[str, AlarmState] = {"OK": "OK", "ALARM": "ALARM", "none": "INSUFFICIENT_DATA"}
VALUES = st.lists(st.none() | st.floats(0, 100), max_size=20)


def alarm(least: int = 3, of: int = 3, missing: MissingData = "missing") -> Alarm:
    """Above 70, ``least`` of ``of`` minutes."""
    query = (Query("m1", INVOCATIONS),)
    return Alarm("high", query, 60.0, of, least, 70.0, "GreaterThanThreshold", missing)


def points(text: str) -> list[float | None]:
    """``0`` is fine, ``X`` breaching, ``-`` no data."""
    return [{"0": 10.0, "X": 99.0, "-": None}[mark] for mark in text.split()]


def reading(state: AlarmState) -> AlarmReading:
    """A state that came at second 100."""
    return AlarmReading(state, "so it was", (), 100.0, 100.0)


# CloudWatch User Guide, "How alarm state is evaluated when data is missing", both tables; the last line of each, and
# what they say about premature transitions, is of its newer edition.
@pytest.mark.parametrize(
    ("least", "seen", "expected"),
    [
        (3, "0 - X - X", "OK OK OK OK"),
        (3, "0 - - - -", "OK OK OK OK"),
        (3, "- - - - 0", "OK OK OK OK"),
        (3, "- - - - -", "none as-is ALARM OK"),
        (3, "0 X X - X", "ALARM ALARM ALARM ALARM"),
        (3, "- - - - X", "none as-is ALARM OK"),
        (3, "X - - - -", "ALARM as-is ALARM OK"),
        (3, "- - X - -", "ALARM as-is ALARM OK"),
        (2, "0 - X - X", "ALARM ALARM ALARM ALARM"),
        (2, "0 0 X 0 X", "ALARM ALARM ALARM ALARM"),
        (2, "0 - X - -", "OK OK ALARM OK"),
        (2, "- - - - 0", "OK OK ALARM OK"),
        (2, "- - - - X", "none as-is ALARM OK"),
        (2, "- - - X -", "ALARM as-is ALARM OK"),
    ],
)
def test_missing_data(least: int, seen: str, expected: str) -> None:
    """Missing, ignore, breaching, notBreaching: as CloudWatch's tables say."""
    found = {
        state: [evaluate(alarm(least, 3, how), points(seen), reading(state), 600.0).state for how in TREATMENTS]
        for state in ABBREVIATED.values()
    }
    assert {
        state: [state if word == "as-is" else ABBREVIATED[word] for word in expected.split()] for state in found
    } == found


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("GreaterThanThreshold", "OK OK ALARM"),
        ("GreaterThanOrEqualToThreshold", "OK ALARM ALARM"),
        ("LessThanThreshold", "ALARM OK OK"),
        ("LessThanOrEqualToThreshold", "ALARM ALARM OK"),
    ],
)
def test_comparisons(comparison: Comparison, expected: str) -> None:
    """Below, at and above the threshold."""
    one = replace(alarm(1, 1), comparison=comparison)
    assert expected.split() == [evaluate(one, [value], None, 60.0).state for value in (69.0, 70.0, 71.0)]


def test_the_reading() -> None:
    """It holds the values that were used, its age, and the reason of the change while the state stays."""
    first = evaluate(alarm(), [99.0, None, 80.0, 81.0], None, 600.0)
    assert ("ALARM", (99.0, 80.0, 81.0), 600.0, 600.0) == (first.state, first.values, first.since, first.at)
    again = evaluate(alarm(), [80.0, 81.0, 82.0], first, 660.0)
    assert AlarmReading("ALARM", first.reason, (80.0, 81.0, 82.0), 600.0, 660.0) == again
    over = evaluate(alarm(), [None, 5.0], again, 720.0)
    assert ("OK", (None, None, 5.0), 720.0) == (over.state, over.values, over.since)


@pytest.mark.parametrize(
    ("seen", "missing", "expected"),
    [
        (
            "X X X",
            "missing",
            "Threshold Crossed: 3 out of the last 3 datapoints [99.0 (02/01/70 10:20:00), 99.0 (02/01/70 10:19:00), "
            "99.0 (02/01/70 10:18:00)] were greater than the threshold (70.0) (minimum 3 datapoints for "
            "INSUFFICIENT_DATA -> ALARM transition).",
        ),
        (
            "X X 0",
            "missing",
            "Threshold Crossed: 1 out of the last 3 datapoints [10.0 (02/01/70 10:20:00)] was not greater than the "
            "threshold (70.0) (minimum 1 datapoint for INSUFFICIENT_DATA -> OK transition).",
        ),
        (
            "- -",
            "breaching",
            "Threshold Crossed: no datapoints were received for 3 periods and 3 missing datapoints were treated as "
            "[Breaching].",
        ),
        (
            "-",
            "notBreaching",
            "Threshold Crossed: no datapoints were received for 3 periods and 3 missing datapoints were treated as "
            "[NonBreaching].",
        ),
    ],
)
def test_reasons(seen: str, missing: MissingData, expected: str) -> None:
    """CloudWatch's sentences, newest datapoint first."""
    at = 86_400.0 + 10 * 3600 + 21 * 60
    assert expected == evaluate(alarm(missing=missing), points(seen), None, at + 7.5).reason
    assert expected == evaluate(alarm(missing=missing), points(seen), None, at + 130.0, end=at).reason


def test_reasons_of_many_datapoints() -> None:
    """Only the latest five are told; when data stops coming, how many are lacking."""
    low = replace(alarm(15, 15), comparison="LessThanThreshold", threshold=63.0)
    long = evaluate(low, [1.0] * 15, None, 1200.0)
    assert long.reason.startswith(
        "Threshold Crossed: 15 out of the last 15 datapoints were less than the threshold (63.0)"
    )
    assert 5 == long.reason.count("1.0 (01/01/70")
    gone = evaluate(low, [], long, 9000.0)
    assert ("INSUFFICIENT_DATA", "Insufficient Data: 15 datapoints were unknown.") == (gone.state, gone.reason)


@given(VALUES, st.integers(1, 5), st.integers(0, 4), st.sampled_from(TREATMENTS))
def test_enough_data_is_judged_alone(values: list[float | None], least: int, more: int, missing: MissingData) -> None:
    """With as many values as there are evaluation periods, the treatment of missing ones does not matter: the latest
    of them decide."""
    of = least + more
    seen = [value for value in values[-(of + alarming.LOOK_BACK) :] if value is not None]
    if len(seen) >= of:
        expected = "ALARM" if sum(value > 70 for value in seen[-of:]) >= least else "OK"
        assert expected == evaluate(alarm(least, of, missing), values, None, 6000.0).state


@given(VALUES, st.integers(1, 5), st.integers(0, 4))
def test_what_counts_as_breaching_alarms_first(values: list[float | None], least: int, more: int) -> None:
    """Missing data that counts as fine never alarms where data that counts as missing does not, and that never where
    it counts as breaching does not."""
    states = {how: evaluate(alarm(least, least + more, how), values, None, 6000.0).state for how in TREATMENTS}
    order = [states["notBreaching"] == "ALARM", states["missing"] == "ALARM", states["breaching"] == "ALARM"]
    assert sorted(order) == order


@given(VALUES, st.integers(1, 5), st.integers(0, 4), st.sampled_from(TREATMENTS))
def test_no_number_is_no_data(values: list[float | None], least: int, more: int, missing: MissingData) -> None:
    """A value that is not a number is none."""
    one = alarm(least, least + more, missing)
    nan = [float("nan") if value is None else value for value in values]
    assert evaluate(one, values, None, 6000.0) == evaluate(one, nan, None, 6000.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.integers(0, 19), st.floats(0, 100))
def test_a_higher_value_never_ends_an_alarm(values: list[float], place: int, more: float) -> None:
    """Of an alarm on what is too high: monotone in each value."""
    raised = list(values)
    raised[place % len(values)] += more
    if evaluate(alarm(2, 3), list(values), None, 6000.0).state == "ALARM":
        assert "ALARM" == evaluate(alarm(2, 3), list(raised), None, 6000.0).state
