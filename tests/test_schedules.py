"""When schedules run, over what, and what a downtime leaves: pure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.fleet import schedules
from serving.fleet.schedules import DAY, HOUR, Cron, Due

CRONS = st.builds(Cron, st.integers(0, 23), st.integers(1, 24))
TIMES = st.floats(0, 4e9)


def at(text: str) -> float:
    """Epoch seconds of an ISO time, UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("NOW", None),
        ("cron(0 * ? * * *)", Cron(0, 1)),
        ("cron(0 12 ? * * *)", Cron(12, 24)),
        ("cron(0 17/12 ? * * *)", Cron(17, 12)),
        ("cron(0 0/1 ? * * *)", Cron(0, 1)),
        ("cron(0 05/01 ? * * *)", Cron(5, 1)),
        ("cron(0 23/24 ? * * *)", Cron(23, 24)),
    ],
)
def test_expressions(expression: str, expected: Cron | None) -> None:
    """AWS's four forms."""
    assert expected == schedules.parse(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "now",
        "",
        "cron(5 * ? * * *)",
        "cron(0 24 ? * * *)",
        "cron(0 1/0 ? * * *)",
        "cron(0 1/25 ? * * *)",
        "cron(0 */2 ? * * *)",
        "cron(0 1-5 ? * * *)",
        "cron(0 1 ? * MON *)",
        "cron(0 1 ? * * *) ",
        "cron(0 \u0661 ? * * *)",
        "rate(1 hour)",
    ],
)
def test_what_is_no_expression(expression: str) -> None:
    """Refused, with the forms there are."""
    with pytest.raises(ValidationError, match="is none of NOW"):
        schedules.parse(expression)


@given(st.text(max_size=300))
def test_no_text_is_more_than_refused(text: str) -> None:
    """Whatever a client sends."""
    for parse in (schedules.parse, lambda one: schedules.parse_offset(one, "StartTimeOffset")):
        try:
            parse(text)
        except ValidationError as error:
            assert 0 < len(error.message) < 2000  # both outcomes are fine


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        (Cron(0, 1), "2020-02-20T05:00:00", "2020-02-20T06:00:00"),
        (Cron(0, 1), "2020-02-20T05:59:59", "2020-02-20T06:00:00"),
        (Cron(12, 24), "2020-02-20T12:00:00", "2020-02-21T12:00:00"),
        (Cron(17, 12), "2020-02-20T04:00:00", "2020-02-20T05:00:00"),
        (Cron(17, 12), "2020-02-20T05:00:00", "2020-02-20T17:00:00"),
    ],
)
def test_the_next_run(cron: Cron, after: str, expected: str) -> None:
    """Full hours, UTC; from 17 every 12 h is also at 5."""
    assert at(expected) == schedules.following(cron, at(after))


@given(CRONS, TIMES)
def test_runs_are_a_step_apart_and_cover_time(cron: Cron, now: float) -> None:
    """The windows of successive runs touch: nothing is looked at twice, nothing is left out."""
    last, following = schedules.latest(cron, now), schedules.following(cron, now)
    assert last <= now < following == last + cron.step
    assert 0 == last % HOUR
    assert schedules.window(cron, last, None, None)[1] == schedules.window(cron, following, None, None)[0]
    if 24 % cron.every == 0:
        assert cron.hour % cron.every == last / HOUR % 24 % cron.every


@given(CRONS, TIMES, st.floats(0, 100 * DAY))
def test_what_is_due(cron: Cron, since: float, waited: float) -> None:
    """The latest of the runs since, once; the others are counted."""
    now = since + waited
    found = schedules.due(cron, since, now)
    times = []
    time = schedules.following(cron, since)
    while time <= now:
        times.append(time)
        time += cron.step
    assert (Due(times[-1], len(times) - 1) if times else None) == found
    if found is not None:
        assert schedules.due(cron, found.time, now) is None


def test_a_step_that_does_not_divide_a_day_goes_on_over_midnight() -> None:
    """Every seven hours, always."""
    cron, time = Cron(0, 7), at("2026-01-01T00:00:00")
    for _ in range(10):
        following = schedules.following(cron, time)
        assert 0 < following - time <= 7 * HOUR
        time = following
    assert 7 * HOUR == schedules.following(cron, time) - time


def test_windows() -> None:
    """The step before the run; between two offsets where there are some (behaviour/06's own example)."""
    run = at("2020-02-20T05:00:00")
    assert (at("2020-02-19T05:00:00"), run) == schedules.window(Cron(5, 24), run, None, None)
    run = at("2020-01-09T13:00:00")
    offsets = [schedules.parse_offset(text, "x") for text in ("-P8D", "-P1D")]
    expected = (at("2020-01-01T13:00:00"), at("2020-01-08T13:00:00"))
    assert expected == schedules.window(Cron(0, 1), run, *offsets)
    assert (run - 3 * HOUR, run) == schedules.window(None, run, -3 * HOUR, 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-PT1H", -HOUR),
        ("-PT0H", 0.0),
        ("-P8D", -8 * DAY),
        ("-P1DT2H30M5S", -(DAY + 2 * HOUR + 1805)),
        ("P1W", 7 * DAY),
        ("+PT90M", 5400.0),
    ],
)
def test_offsets(text: str, expected: float) -> None:
    """ISO 8601 durations with a sign."""
    assert expected == schedules.parse_offset(text, "x")


@pytest.mark.parametrize(
    "text", ["P", "-P", "PT", "-P1DT", "P1Y", "P1M", "1H", "-PT1.5H", "-P9999D", "--PT1H", "-PT1H "]
)
def test_what_is_no_offset(text: str) -> None:
    """Years and months have no length; the member is named."""
    with pytest.raises(ValidationError, match="StartTimeOffset"):
        schedules.parse_offset(text, "StartTimeOffset")


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("-PT1H", None, "given together"),
        (None, "-PT1H", "given together"),
        ("-PT1H", "-PT2H", "must lie before"),
        ("-PT1H", "-PT1H", "must lie before"),
        ("-PT1H", "PT1H", "not in the future"),
        ("-P3D", "-P1D", "at most 24 hours apart"),
    ],
)
def test_pairs_of_offsets_that_are_no_stretch_of_the_past(start: str | None, end: str | None, words: str) -> None:
    """Refused by name."""
    with pytest.raises(ValidationError, match=words):
        schedules.check_offsets(start, end, ("Start", "End"), DAY)


def test_pairs_of_offsets() -> None:
    """None at all, or a stretch."""
    schedules.check_offsets(None, None, ("Start", "End"))
    schedules.check_offsets("-P8D", "-PT0H", ("Start", "End"))
