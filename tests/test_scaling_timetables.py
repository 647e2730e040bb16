"""When scheduled actions run: pure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.scaling.timetable import parse

TIMES = st.floats(0, 7e9)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]


def at(text: str) -> float:
    """Epoch seconds of an ISO time; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def runs(schedule: str, zone: str, after: str, count: int) -> list[str]:
    """The next runs, as ISO times in UTC."""
    table, now, found = parse(schedule, zone), at(after), []
    for _ in range(count):
        following = table.next(now)
        if following is None:
            break
        found.append(datetime.fromtimestamp(now := following, UTC).strftime("%Y-%m-%dT%H:%M"))
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cron(30 6 ? * MON *)", ["2026-03-02T06:30", "2026-03-09T06:30"]),
        ("cron(30 6 * * 2 *)", ["2026-03-02T06:30", "2026-03-09T06:30"]),
        ("cron(0 12 * * ? *)", ["2026-02-28T12:00", "2026-03-01T12:00"]),
        ("cron(0/15 8-9 ? * MON-FRI *)", ["2026-03-02T08:00", "2026-03-02T08:15"]),
        ("cron(10,50 */12 1 * ? *)", ["2026-03-01T00:10", "2026-03-01T00:50"]),
        ("cron(0 0 L * ? *)", ["2026-03-31T00:00", "2026-04-30T00:00"]),
        ("cron(0 0 LW * ? *)", ["2026-03-31T00:00", "2026-04-30T00:00"]),
        ("cron(0 0 LW 5 ? *)", ["2026-05-29T00:00", "2027-05-31T00:00"]),
        ("cron(0 0 1W * ? *)", ["2026-03-02T00:00", "2026-04-01T00:00"]),
        ("cron(0 0 1W 8 ? *)", ["2026-08-03T00:00", "2027-08-02T00:00"]),
        ("cron(0 0 31W * ? *)", ["2026-03-31T00:00", "2026-05-29T00:00"]),
        ("cron(0 0 ? * 6L *)", ["2026-03-27T00:00", "2026-04-24T00:00"]),
        ("cron(0 0 ? * fril *)", ["2026-03-27T00:00", "2026-04-24T00:00"]),
        ("cron(0 0 ? * L *)", ["2026-03-07T00:00", "2026-03-14T00:00"]),
        ("cron(0 0 ? * 3#2 *)", ["2026-03-10T00:00", "2026-04-14T00:00"]),
        ("cron(0 0 ? * SUN#5 *)", ["2026-03-29T00:00", "2026-05-31T00:00"]),
        ("cron(0 0 ? * FRI-MON *)", ["2026-03-01T00:00", "2026-03-02T00:00"]),
        ("cron(0 0 29 FEB ? *)", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("cron(0 0 1 1 ? 2027,2030)", ["2027-01-01T00:00", "2030-01-01T00:00"]),
        ("cron(0 0 1 1 ? 2025)", []),
        ("at(2026-03-04T05:06:07)", ["2026-03-04T05:06"]),
        ("at(2026-02-28T00:30:00)", []),
        ("rate(12 hours)", ["2026-02-28T12:00", "2026-03-01T00:00"]),
        ("rate(1 day)", ["2026-03-01T00:00", "2026-03-02T00:00"]),
    ],
)
def test_runs(schedule: str, expected: list[str]) -> None:
    """The next two runs after a night of February (2026-02-28 is a Saturday)."""
    assert expected == runs(schedule, "UTC", "2026-02-28T00:30", 2)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "cron()",
        "cron(* * * * *)",
        "cron(0 0 * * * *)",
        "cron(0 0 ? * ? *)",
        "cron(0 0 1 * MON *)",
        "cron(60 0 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 0 0 * ? *)",
        "cron(0 0 32 * ? *)",
        "cron(0 0 1 13 ? *)",
        "cron(0 0 ? * 8 *)",
        "cron(0 0 ? * MO *)",
        "cron(0 0 ? * XYZL *)",
        "cron(0 0 ? * MON#6 *)",
        "cron(0 0 40W * ? *)",
        "cron(0 0 30 FEB ? *)",
        "cron(0 0 1 1 ? 1969)",
        "cron(0 0 1 1 ? 2030-2027)",
        "cron(0/0 0 * * ? *)",
        "cron(/5 0 * * ? *)",
        "cron(0, 0 * * ? *)",
        "cron(*-5 0 * * ? *)",
        "cron(\u0661 0 * * ? *)",
        "cron(0 0 * * ? *) ",
        "rate(0 minutes)",
        "rate(5 seconds)",
        "rate(-1 day)",
        "rate(1.5 days)",
        "at(2026-02-30T00:00:00)",
        "at(2026-01-01T25:00:00)",
        "at(2026-01-01)",
        "at(2026-01-01T00:00:00Z)",
        "every day",
    ],
)
def test_nonsense(schedule: str) -> None:
    """Refused: no schedule is kept that never runs, or that is not what it seems."""
    with pytest.raises(ValidationError):
        parse(schedule)


@given(st.one_of(st.text(max_size=60), st.text("0123456789*/,-?LW#MON() ", max_size=24).map("cron({})".format)))
def test_any_schedule(schedule: str) -> None:
    """Anything is a timetable or refused."""
    try:
        table = parse(schedule)
    except ValidationError:
        return
    following = table.next(1e9)
    assert following is None or following > 1e9


@pytest.mark.parametrize("zone", ["", "Mars/Base", "../UTC", "/etc/passwd", "a" * 5000, "Europe", "\0", "\u00fc"])
def test_unknown_time_zones(zone: str) -> None:
    """Refused, by their name."""
    with pytest.raises(ValidationError, match="is no time zone"):
        parse("rate(1 day)", zone)


def test_local_time() -> None:
    """A cron and an ``at`` are of their time zone, in summer and in winter."""
    noon = runs("cron(0 12 * * ? *)", "Europe/Berlin", "2026-03-27T12:00", 3)
    assert ["2026-03-28T11:00", "2026-03-29T10:00", "2026-03-30T10:00"] == noon
    assert at("2026-07-01T12:00:00+02:00") == parse("at(2026-07-01T12:00:00)", "Europe/Berlin").next(0)


def test_clocks_go_forward() -> None:
    """A time that clocks skip is skipped that day; others of the day are not."""
    assert ["2026-03-28T01:30", "2026-03-30T00:30"] == runs(
        "cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-28T00:00", 2
    )
    assert ["2026-03-29T00:30", "2026-03-29T01:30"] == runs(
        "cron(30 1,2,3 * * ? *)", "Europe/Berlin", "2026-03-29T00:00", 2
    )


def test_clocks_go_back() -> None:
    """A time that clocks repeat is taken once; a cron of every hour goes on every hour."""
    once = runs("cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-24T12:00", 2)
    assert ["2026-10-25T00:30", "2026-10-26T01:30"] == once
    hourly = runs("cron(30 * * * ? *)", "Europe/Berlin", "2026-10-24T23:45", 3)
    assert ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"] == hourly


def test_start_and_end() -> None:
    """The start is a run itself, and the first one; after the end there is none."""
    first, last = at("2026-03-01T08:20"), at("2026-03-02T13:00")
    table = parse("cron(0 12 * * ? *)", "UTC", first, last)
    assert first == table.next(0)
    assert [at("2026-03-01T12:00"), at("2026-03-02T12:00"), None] == [
        table.next(now) for now in (first, at("2026-03-01T12:00"), at("2026-03-02T12:00"))
    ]
    with pytest.raises(ValidationError, match="after its start"):
        parse("rate(1 day)", "UTC", last, first)


def test_a_rate_counts_from_its_beginning() -> None:
    """From the start time, or from when the action was made: not from midnight."""
    assert 1000.0 + 3 * 300 == parse("rate(5 minutes)", created=1000.0).next(1700.0)
    assert 1000.0 + 300 == parse("rate(5 minutes)", start=1000.0, created=7.0).next(1000.0)


@pytest.mark.parametrize("zone", ZONES)
@given(after=TIMES, minute=st.integers(0, 59), hour=st.integers(0, 23))
def test_a_daily_cron_runs_at_its_time(zone: str, after: float, minute: int, hour: int) -> None:
    """The next run is later than now, at that local time, and at most two days off (clocks may skip one)."""
    following = parse(f"cron({minute} {hour} * * ? *)", zone).next(after)
    assume(following is not None)
    assert following is not None
    local = datetime.fromtimestamp(following, parse("rate(1 day)", zone).zone)
    assert (hour, minute, 0) == (local.hour, local.minute, local.second)
    assert 0 < following - after <= 50 * 3600


@pytest.mark.parametrize("zone", ZONES)
@given(after=TIMES, later=st.floats(0, 2e8))
def test_no_run_is_passed_over(zone: str, after: float, later: float) -> None:
    """The next run seen from later is never an earlier one, and the same until it has come."""
    table = parse("cron(0/7 3-5,22 ? * 2-4 *)", zone)
    first, second = table.next(after), table.next(after + later)
    assume(first is not None and second is not None)
    assert first is not None
    assert second is not None
    assert second >= first if after + later >= first else second == first
