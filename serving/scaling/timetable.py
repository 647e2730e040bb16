"""When a scheduled action runs: ``at``, ``rate`` and ``cron`` of Application Auto Scaling. Pure, ``after`` passed in.

The cron has six fields (EventBridge's grammar, which Application Auto Scaling's is)::

    minute  0-59             , - * /
    hour    0-23             , - * /
    day     1-31             , - * / ? L W      L the last, LW the last weekday, 15W the weekday nearest to the 15th
    month   1-12, JAN-DEC    , - * /
    weekday 1-7, SUN-SAT     , - * / ? L #      6L or FRIL the last Friday, 3#2 or TUE#2 the second Tuesday
    year    1970-2199        , - * /

One of day and weekday is ``?`` (or ``*`` where the other says which). Local times that a change of clocks skips are
skipped; those that it repeats are taken once, as EventBridge Scheduler has it, but for a cron of every hour, which
goes on.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from serving.errors import ValidationError

MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS, YEARS = (0, 59), (0, 23), (1, 31), (1, 12), (1, 7), (1970, 2199)
_MONTHS = {"JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"[3 * month - 3 : 3 * month]: month for month in range(1, 13)}
_WEEKDAYS = {"SUNMONTUEWEDTHUFRISAT"[3 * day - 3 : 3 * day]: day for day in range(1, 8)}
_UNITS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0}

_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)", re.ASCII)
_RATE = re.compile(r"rate\(\s*(\d{1,9})\s+(minute|hour|day)s?\s*\)", re.ASCII)
_CRON = re.compile(r"cron\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron, read: what each field allows. ``days`` and ``weekdays`` None = ``?``; each item of theirs is a test that
    ``_allows`` knows."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[str | int, ...] | None
    months: tuple[int, ...]
    weekdays: tuple[str | int, ...] | None
    years: tuple[int, ...]

    def dates(self, first: date) -> Iterator[date]:
        """The days that it runs on, from ``first`` on."""
        for year in self.years:
            if year < first.year:
                continue
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for day in range(1, calendar.monthrange(year, month)[1] + 1):
                    found = date(year, month, day)
                    if found >= first and self._allows(found):
                        yield found

    def _allows(self, day: date) -> bool:
        if self.days is not None:
            return any(_is_day(day, item) for item in self.days)
        return any(_is_weekday(day, item) for item in self.weekdays or ())


@dataclass(frozen=True, slots=True)
class Timetable:
    """When an action runs. One of ``at`` (once), ``every`` (seconds, from ``start`` on) and ``cron`` (in ``zone``)."""

    zone: tzinfo
    at: float | None = None
    every: float | None = None
    cron: Cron | None = None
    start: float | None = None
    end: float | None = None
    anchor: float = 0.0

    def next(self, after: float) -> float | None:
        """The first run after ``after``; None: there is no more. An action with a start time also runs then."""
        found = self._following(after) if self.start is None or after >= self.start else self.start
        return None if found is None or (self.end is not None and found > self.end) else found

    def _following(self, after: float) -> float | None:
        if self.at is not None:
            return self.at if self.at > after else None
        if self.every is not None:
            return max(self.anchor, self.anchor + (math.floor((after - self.anchor) / self.every) + 1) * self.every)
        assert self.cron is not None
        return _following(self.cron, self.zone, after)


def parse(
    schedule: str,
    timezone: str = "UTC",
    start: float | None = None,
    end: float | None = None,
    created: float = 0.0,
) -> Timetable:
    """A scheduled action's Schedule, Timezone, StartTime and EndTime. ``created``: from when a rate without a start
    counts. Raises ``ValidationError``."""
    zone = _zone(timezone)
    if start is not None and end is not None and end <= start:
        raise ValidationError("The end time of a scheduled action must be after its start time.")
    if (found := _AT.fullmatch(schedule)) is not None:
        return Timetable(zone, at=_moment(found[1], schedule, zone))
    if (found := _RATE.fullmatch(schedule)) is not None and int(found[1]) > 0:
        every = int(found[1]) * _UNITS[found[2]]
        return Timetable(zone, every=every, start=start, end=end, anchor=created if start is None else start)
    if schedule.isascii() and (found := _CRON.fullmatch(schedule)) is not None:
        return Timetable(zone, cron=_cron(schedule, tuple(found[1].split())), start=start, end=end)
    raise ValidationError(
        f"Schedule {schedule[:256]!r} is none of at(yyyy-mm-ddThh:mm:ss), rate(VALUE UNIT) with minutes, hours "
        "or days, and cron(MINUTES HOURS DAY_OF_MONTH MONTH DAY_OF_WEEK YEAR)."
    )


def _zone(name: str) -> tzinfo:
    if name in ("UTC", "Etc/UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValidationError(f"Timezone {name[:64]!r} is no time zone such as Etc/GMT+9 or Pacific/Tahiti.") from None


def _moment(text: str, schedule: str, zone: tzinfo) -> float:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()
    except (ValueError, OverflowError):
        raise ValidationError(f"Schedule {schedule!r} names no date and time.") from None


# --- cron -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _cron(schedule: str, fields: tuple[str, ...]) -> Cron:
    if len(fields) != 6:
        raise ValidationError(f"Schedule {schedule[:256]!r} has {len(fields)} fields; a cron has six.")
    minutes, hours, days, months, weekdays, years = (field.upper() for field in fields)
    days, weekdays = _which(schedule, days, weekdays)
    try:
        cron = Cron(
            _numbers(minutes, MINUTES),
            _numbers(hours, HOURS),
            None if days == "?" else _items(days, DAYS, {}, r"L|LW|\d{1,2}W"),
            _numbers(months, MONTHS, _MONTHS),
            None if weekdays == "?" else _items(weekdays, WEEKDAYS, _WEEKDAYS, r"L|([1-7]|[A-Z]{3})(L|#[1-5])"),
            _numbers(years, YEARS),
        )
    except ValueError as error:
        raise ValidationError(f"Schedule {schedule[:256]!r}: {error}") from None
    if next(cron.dates(date.min), None) is None:
        raise ValidationError(f"Schedule {schedule[:256]!r} names no day that ever comes.")
    return cron


def _which(schedule: str, days: str, weekdays: str) -> tuple[str, str]:
    """Day of the month and of the week, one of them ``?``."""
    if (days == "?") == (weekdays == "?"):
        if days == "*" != weekdays:
            return "?", weekdays
        if weekdays == "*" != days:
            return days, "?"
        raise ValidationError(
            f"Schedule {schedule[:256]!r}: one of the day of the month and the day of the week must be ?, "
            "the other says which."
        )
    return days, weekdays


def _numbers(field: str, bounds: tuple[int, int], names: dict[str, int] | None = None) -> tuple[int, ...]:
    """A field of lists, ranges and steps. Raises ``ValueError``, in words."""
    return tuple(sorted({number for part in field.split(",") for number in _part(part, bounds, names or {})}))


def _items(field: str, bounds: tuple[int, int], names: dict[str, int], special: str) -> tuple[str | int, ...]:
    """As ``_numbers``, with items that depend on the month (``special``, a pattern)."""
    found: list[str | int] = []
    for part in field.split(","):
        if re.fullmatch(special, part, re.ASCII) is None:
            found += _part(part, bounds, names)
            continue
        for name, number in names.items():
            part = part.replace(name, str(number))
        if re.search("[A-Z]{2}", part.replace("LW", "")) or (part.endswith("W") and not _nearest(part, bounds)):
            raise ValueError(f"{part!r} is no day.")
        found.append(part)
    return tuple(found)


def _nearest(part: str, bounds: tuple[int, int]) -> bool:
    return part == "LW" or bounds[0] <= int(part[:-1]) <= bounds[1]


def _part(part: str, bounds: tuple[int, int], names: dict[str, int]) -> list[int]:
    """``5``, ``MON-FRI``, ``0/15``, ``*/15``, ``10-20/2``. Days, months and hours may go round (``FRI-MON``)."""
    found = re.fullmatch(r"(\*|[0-9A-Z]+)(?:-([0-9A-Z]+))?(?:/(\d{1,4}))?", part, re.ASCII)
    if found is None or (found[1] == "*" and found[2] is not None):
        raise ValueError(f"{part[:32]!r} is not understood.")
    low, high = bounds
    first = low if found[1] == "*" else _number(found[1], bounds, names)
    last = _number(found[2], bounds, names) if found[2] is not None else first
    if found[2] is None and (found[1] == "*" or found[3] is not None):
        last = high
    step = 1 if found[3] is None else int(found[3])
    if step < 1:
        raise ValueError(f"{part[:32]!r} goes in steps of 0.")
    if last < first:
        if bounds == YEARS:
            raise ValueError(f"{part[:32]!r} ends before it begins.")
        last += high - low + 1
    return [low + (number - low) % (high - low + 1) for number in range(first, last + 1, step)]


def _number(text: str, bounds: tuple[int, int], names: dict[str, int]) -> int:
    number = names.get(text, int(text) if text.isdecimal() and len(text) <= 4 else -1)
    if not bounds[0] <= number <= bounds[1]:
        raise ValueError(f"{text[:32]!r} is not within {bounds[0]} to {bounds[1]}.")
    return number


def _is_day(day: date, item: str | int) -> bool:
    if isinstance(item, int):
        return day.day == item
    last = calendar.monthrange(day.year, day.month)[1]
    if item == "L":
        return day.day == last
    wanted = last if item == "LW" else int(item[:-1])
    return wanted <= last and day == _weekday_near(day.replace(day=wanted), last)


def _weekday_near(day: date, last: int) -> date:
    """The weekday nearest to ``day`` in its month."""
    if day.weekday() == 5:
        return day - timedelta(days=1) if day.day > 1 else day + timedelta(days=2)
    if day.weekday() == 6:
        return day + timedelta(days=1) if day.day < last else day - timedelta(days=2)
    return day


def _is_weekday(day: date, item: str | int) -> bool:
    number = day.isoweekday() % 7 + 1
    if isinstance(item, int):
        return number == item
    if item == "L":
        return number == 7
    if item.endswith("L"):
        return number == int(item[:-1]) and day.day + 7 > calendar.monthrange(day.year, day.month)[1]
    which, nth = item.split("#")
    return number == int(which) and (day.day - 1) // 7 + 1 == int(nth)


def _following(cron: Cron, zone: tzinfo, after: float) -> float | None:
    """The first run of a cron after ``after``."""
    try:
        today = datetime.fromtimestamp(after, zone).date()
        times = (at for day in cron.dates(today) for at in _day(cron, zone, day))
        return next((at for at in times if at > after), None)
    except (ValueError, OverflowError, OSError):
        return None  # beyond the years that there are


def _day(cron: Cron, zone: tzinfo, day: date) -> Iterable[float]:
    """The runs of a day, in order."""
    begin = datetime.combine(day, time.min, zone).timestamp()
    if datetime.combine(day + timedelta(days=1), time.min, zone).timestamp() - begin == _UNITS["day"]:
        return (begin + 3600 * hour + 60 * minute for hour in cron.hours for minute in cron.minutes)
    return sorted(at for hour in cron.hours for minute in cron.minutes for at in _times(cron, zone, day, hour, minute))


def _times(cron: Cron, zone: tzinfo, day: date, hour: int, minute: int) -> list[float]:
    """When a local time is: never, where clocks skip it; twice, where they repeat it and every hour is meant."""
    local = datetime.combine(day, time(hour, minute), zone)
    first, second = local.timestamp(), local.replace(fold=1).timestamp()
    if datetime.fromtimestamp(first, zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        return []
    return [first, second] if second > first and len(cron.hours) == 24 else [first]
