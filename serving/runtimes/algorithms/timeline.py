"""Times of a series of equal steps: how long a step is, when each one is, and where that lies in day, week and year."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from serving.errors import BadInput

_FREQUENCY = re.compile(r"([1-9][0-9]{0,5})?(M|W|D|H|min)")
#: What DeepAR's ``time_freq`` calls its units -> numpy's unit, and how many of it one is.
_UNITS = {"M": ("M", 1), "W": ("m", 10080), "D": ("m", 1440), "H": ("m", 60), "min": ("m", 1)}
#: What of a time a net may be told -> into how many parts that is cut, counted by ``_part``.
PARTS = {
    "minute_of_hour": 60,
    "minute_of_day": 1440,
    "hour_of_day": 24,
    "day_of_week": 7,
    "day_of_month": 31,
    "day_of_year": 366,
    "month_of_year": 12,
}
#: Each part becomes the sine and cosine of so many waves: once round, twice round.
WAVES = 2


class Frequency(NamedTuple):
    """A step's length: ``size`` of numpy's ``unit`` (``M`` months, ``m`` minutes)."""

    unit: str
    size: int


def frequency(text: str) -> Frequency | None:
    """DeepAR's ``time_freq``: ``M``, ``W``, ``D``, ``H`` or ``min``, a whole number before it; None for another."""
    found = _FREQUENCY.fullmatch(text)
    if found is None:
        return None
    unit, count = _UNITS[found[2]]
    return Frequency(unit, count * int(found[1] or 1))


def start(text: object, where: str) -> np.datetime64:
    """The time of a series' first value, ``YYYY-MM-DD HH:MM:SS``. Raises BadInput, beginning with ``where``."""
    try:
        if not isinstance(text, str):
            raise ValueError
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            raise ValueError
    except ValueError:
        raise BadInput(f"{where}: 'start' must be a time like '2009-11-01 00:00:00', without a time zone") from None
    return np.datetime64(found, "s")


def features(parts: Sequence[str], first: np.datetime64, step: Frequency, offset: int, steps: int) -> np.ndarray:
    """Waves of ``parts`` (of ``PARTS``) at the steps ``offset``, ``offset + 1`` ... after ``first``: float32
    [steps, 2 * WAVES * parts], per part the sine and cosine of the first wave, then of the next."""
    times = first.astype(f"datetime64[{step.unit}]") + np.arange(offset, offset + steps) * step.size
    columns = []
    for name in parts:
        angle = 2 * np.pi * _part(name, times) / PARTS[name]
        for wave in range(1, WAVES + 1):
            columns += [np.sin(wave * angle), np.cos(wave * angle)]
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.empty((steps, 0), np.float32)


def _part(name: str, times: np.ndarray) -> np.ndarray:
    """How many whole parts lie between the beginning of the hour, day, ... and each time."""
    minutes = times.astype("datetime64[m]").astype(np.int64)
    days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
    if name == "minute_of_hour":
        return np.asarray(minutes % 60)
    if name == "minute_of_day":
        return np.asarray(minutes % 1440)
    if name == "hour_of_day":
        return np.asarray(minutes // 60 % 24)
    if name == "day_of_week":
        return np.asarray((days.astype(np.int64) + 3) % 7)  # 1970 began on a Thursday; a week begins on Monday
    if name == "day_of_month":
        return np.asarray((days - months).astype(np.int64))
    if name == "day_of_year":
        return np.asarray((days - times.astype("datetime64[Y]")).astype(np.int64))
    return np.asarray(months.astype(np.int64) % 12)
