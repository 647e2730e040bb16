"""Traffic, written down: the arrivals of calls as a simulator replays them.

Two forms of CSV, with or without a heading; lines that begin with ``#`` are comments::

    time                     time,rate               time,calls
    2026-11-21T06:00:00.120  0,0.2                   06:00,3
    2026-11-21T06:00:00.480  300,4.5                 06:05,61
    an arrival in each line  calls a second from     calls between this time
                             this time to the next   and the next

Times are seconds (of any beginning), ISO 8601, or ``HH:MM[:SS]``, and never go back. The last row of rates lasts as
long as the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from serving.errors import ValidationError

#: What a trace may come to: more takes minutes and says no more.
MOST_CALLS = 5_000_000
_MOST_DAYS = 366
#: Names of a second column that holds calls per row, where any other holds calls a second.
_COUNTS = frozenset({"calls", "count", "counts", "requests", "invocations", "arrivals"})
_DAY_SECONDS = 86_400.0


class Trace(NamedTuple):
    """Arrivals in seconds from the beginning, ascending, and how long it all lasts."""

    arrivals: np.ndarray
    seconds: float

    @property
    def rate(self) -> float:
        """Calls a second, on the average."""
        return len(self.arrivals) / self.seconds


class Rates(NamedTuple):
    """``rates[i]`` calls a second from ``times[i]`` to ``times[i + 1]``: one time more than rates."""

    times: np.ndarray
    rates: np.ndarray


def parse(lines: Iterable[str]) -> Trace | Rates:
    """What a CSV file says. Raises ``ValidationError`` with the number of the line that is no trace."""
    rows: list[tuple[float, ...]] = []
    heading: list[str] = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip().strip('"') for cell in line.strip().split(",")]
        if cells == [""] or cells[0].startswith("#"):
            continue
        if not rows and not heading and not _is_time(cells[0]):
            heading = cells
            continue
        rows.append(_row(cells, rows, number))
    if not rows:
        raise ValidationError("The trace has no rows.")
    if rows[-1][0] - rows[0][0] > _MOST_DAYS * _DAY_SECONDS:
        raise ValidationError(f"The trace lasts longer than {_MOST_DAYS} days.")
    if len(rows[0]) == 1:
        return _arrivals([row[0] for row in rows])
    return _rates(rows, len(heading) > 1 and heading[1].lower() in _COUNTS)


def _row(cells: Sequence[str], before: Sequence[tuple[float, ...]], number: int) -> tuple[float, ...]:
    """A row's numbers, held against the rows before it."""
    try:
        row = (_time(cells[0]), *map(float, cells[1:]))
    except ValueError:
        raise ValidationError(f"Line {number} of the trace is no time, or a time and a number.") from None
    if len(row) > 2 or (before and len(row) != len(before[0])):
        raise ValidationError(f"Line {number} of the trace has {len(row)} columns; a trace has one or two, throughout.")
    if not np.isfinite(row).all() or row[-1] < 0:
        raise ValidationError(f"Line {number} of the trace has a number that is negative or none.")
    if before and (row[0] < before[-1][0] or (len(row) == 2 and row[0] == before[-1][0])):
        raise ValidationError(f"Line {number} of the trace is earlier than the line before it.")
    return row


def _is_time(cell: str) -> bool:
    try:
        _time(cell)
    except ValueError:
        return False
    return True


def _time(cell: str) -> float:
    """Seconds; ``ValueError`` for what is no time."""
    try:
        return float(cell)
    except ValueError:
        pass
    if len(cell) <= 8 and cell.count(":") in (1, 2):
        hours, minutes, seconds = (*map(float, cell.split(":")), 0.0)[:3]
        return hours * 3600 + minutes * 60 + seconds
    return datetime.fromisoformat(cell).timestamp()


def _arrivals(times: Sequence[float]) -> Trace:
    found = np.asarray(times) - times[0]
    return Trace(found, float(max(found[-1], 1.0)))


def _rates(rows: Sequence[tuple[float, ...]], counted: bool) -> Rates:
    if len(rows) < 2:
        raise ValidationError("A trace of rates needs two rows, or how long the first lasts is not said.")
    starts, values = np.asarray(rows).T
    times = np.append(starts, starts[-1] + (starts[-1] - starts[-2])) - starts[0]
    return Rates(times, values / np.diff(times) if counted else values)


def drawn(found: Trace | Rates, scale: float, seed: int) -> Trace:
    """The arrivals of a trace with ``scale`` times the traffic. Those of rates are a Poisson process'; of arrivals,
    each is left out or repeated in its own second, so that their bursts stay. Raises ``ValidationError`` where none
    come, or too many."""
    dice = np.random.default_rng(seed)
    if isinstance(found, Rates):
        expected = found.rates * np.diff(found.times) * scale
        _check(expected.sum())
        counts = dice.poisson(expected)
        starts, lengths = np.repeat(found.times[:-1], counts), np.repeat(np.diff(found.times), counts)
        arrivals = np.sort(starts + dice.random(len(starts)) * lengths)
        trace = Trace(arrivals, float(found.times[-1]))
    elif scale == 1:
        trace = found
    else:
        _check(len(found.arrivals) * scale)
        copies = int(scale) + (dice.random(len(found.arrivals)) < scale % 1)
        arrivals = np.repeat(found.arrivals, copies)
        again = np.append(False, np.diff(arrivals) == 0) if len(arrivals) else np.zeros(0, bool)
        arrivals = np.sort(arrivals + again * dice.random(len(arrivals)))
        trace = Trace(arrivals[arrivals <= found.seconds], found.seconds)
    _check(len(trace.arrivals))
    return trace


def _check(calls: float) -> None:
    if calls > MOST_CALLS:
        raise ValidationError(f"The trace comes to {calls:,.0f} calls; {MOST_CALLS:,} is the most. Scale it down.")
    if not calls:
        raise ValidationError("No call comes in this trace.")


def days(count: float) -> str:
    """A length of time for people: ``1.0 days``, ``2.5 h``, ``90 s``."""
    if count >= _DAY_SECONDS:
        return f"{count / _DAY_SECONDS:.1f} days"
    return f"{count / 3600:.1f} h" if count >= 3600 else f"{count:.0f} s"
