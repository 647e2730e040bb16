"""When a monitoring schedule runs, and over which stretch of time: pure, with ``now`` passed in.

The grammar is AWS's (``behaviour/06``, ``api/05``)::

    NOW                        once; the stretch is said by two offsets, at most 24 h apart
    cron(0 * ? * * *)          every hour
    cron(0 12 ? * * *)         every day at 12 UTC
    cron(0 17/12 ? * * *)      from 17 UTC every 12 h; 1 to 24

Steps that do not divide a day go on over midnight (their grid begins at that hour of 1970-01-01), so that every run is
exactly a step after the one before it: each call is looked at once, by the run at the end of its step.

After a downtime the latest of the runs that were missed is made up for, and the others are counted: a window of last
week tells nobody anything in time, and a server that comes up must not begin with hundreds of runs.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from serving.errors import ValidationError

HOUR = 3600.0
DAY = 24 * HOUR
#: Without a ScheduleConfig (the Python SDK's default: daily).
USUAL = "cron(0 0 ? * * *)"

_CRON = re.compile(r"cron\(0 (?:(\*)|(\d{1,2})(?:/(\d{1,2}))?) \? \* \* \*\)", re.ASCII)
_OFFSET = re.compile(
    r"([-+]?)P(?:(\d{1,4})W)?(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,6})M)?(?:(\d{1,7})S)?)?", re.ASCII
)
_UNITS = (7 * DAY, DAY, HOUR, 60.0, 1.0)
_LONGEST_OFFSET = 366 * DAY


class Cron(NamedTuple):
    """Every ``every`` hours, at ``hour`` (UTC) among others."""

    hour: int
    every: int

    @property
    def step(self) -> float:
        """Seconds from one run to the next."""
        return self.every * HOUR


class Due(NamedTuple):
    """A run whose time has come. ``missed``: runs before it whose time came and went."""

    time: float
    missed: int


def parse(expression: str) -> Cron | None:
    """A ScheduleExpression; None is NOW. Raises ``ValidationError``."""
    if expression == "NOW":
        return None
    found = _CRON.fullmatch(expression)
    if found is not None:
        hour, every = int(found[2] or 0), 1 if found[1] else int(found[3] or 24)
        if hour <= 23 and 1 <= every <= 24:
            return Cron(hour, every)
    raise ValidationError(
        f"ScheduleExpression {expression[:256]!r} is none of NOW, cron(0 * ? * * *), cron(0 HOUR ? * * *) and "
        "cron(0 HOUR/STEP ? * * *), HOUR from 0 to 23, STEP from 1 to 24."
    )


def latest(cron: Cron, at: float) -> float:
    """The last time to run that is not after ``at``."""
    first = cron.hour * HOUR
    return first + math.floor((at - first) / cron.step) * cron.step


def following(cron: Cron, after: float) -> float:
    """The first time to run after ``after``."""
    return latest(cron, after) + cron.step


def due(cron: Cron, since: float, now: float) -> Due | None:
    """The run to make now, if any came up after ``since``: the latest."""
    time = latest(cron, now)
    if time <= since:
        return None
    return Due(time, round((time - following(cron, since)) / cron.step))


def parse_offset(text: str, member: str) -> float:
    """Seconds of an ISO 8601 duration such as ``-PT1H`` or ``-P8D`` (weeks, days, hours, minutes, seconds). Raises
    ``ValidationError``, which names the ``member``."""
    found = _OFFSET.fullmatch(text)
    parts = found.groups()[1:] if found else ()
    if found is None or not any(parts) or text.endswith("T"):
        raise ValidationError(f"{member} {text[:32]!r} is no ISO 8601 duration such as -PT1H or -P8D.")
    seconds = sum(int(part) * unit for part, unit in zip(parts, _UNITS, strict=True) if part)
    if seconds > _LONGEST_OFFSET:
        raise ValidationError(f"{member} {text!r} is longer than 366 days.")
    return -seconds if found[1] == "-" else seconds


def window(cron: Cron | None, time: float, start: float | None, end: float | None) -> tuple[float, float]:
    """The stretch [start, end) that the run at ``time`` looks at: between two offsets in seconds, or the step before
    it. Of a run that happens once, both offsets are given."""
    if start is None or end is None:
        assert cron is not None
        return time - cron.step, time
    return time + start, time + end


def check_offsets(start: str | None, end: str | None, names: tuple[str, str], most: float | None = None) -> None:
    """Refuse a pair of offsets that is no stretch of the past; ``most``: its longest, in seconds. Raises
    ``ValidationError``."""
    if start is None and end is None:
        return
    if start is None or end is None:
        raise ValidationError(f"{names[0]} and {names[1]} are given together or not at all.")
    begin, finish = parse_offset(start, names[0]), parse_offset(end, names[1])
    if begin >= finish or finish > 0:
        raise ValidationError(f"{names[0]} {start!r} must lie before {names[1]} {end!r}, and that not in the future.")
    if most is not None and finish - begin > most:
        raise ValidationError(f"{names[0]} and {names[1]} may be at most {most / HOUR:.0f} hours apart.")
