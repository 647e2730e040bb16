"""What alarms look at: a metric's, or an expression's, values of the latest periods.

Hundreds of alarms look at their metrics every second, some at the same: what is over is asked for once. Only what
clients put themselves may still come in later.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.scaling import maths
from serving.scaling.values import Query, Readings, Stat

#: Namespaces of what this server measures itself.
_OWN = ("AWS/", "/aws/", "Prometheus")

Values = tuple[float | None, ...]


class Window:
    """The latest values of some queries by periods of ``period`` seconds; for all alarms that look at them.
    ``failing``: the last who asked got none."""

    def __init__(self, readings: Readings, queries: tuple[Query, ...], period: float) -> None:
        self._readings = readings
        self._queries = queries
        self._period = period
        self._only = queries[0].stat if len(queries) == 1 else None
        self._own = all(one.stat is None or one.stat.metric.namespace.startswith(_OWN) for one in queries)
        self._end = 0.0
        self._values: Values = ()
        self.failing = False

    def of(self, length: int, end: float) -> Values:
        """The values of ``length`` periods before ``end``, oldest first; None = no data. Raises ``ValidationError`` for
        an expression that has none."""
        if len(self._values) < length or end < self._end or not self._own:
            self._values = self._fetch(length, end)
        elif end > self._end:
            moved = round((end - self._end) / self._period)
            wanted = min(moved + _trailing(self._values), len(self._values))
            newest = self._fetch(wanted, end)
            self._values = (*self._values[moved : len(self._values) + moved - wanted], *newest)
        self._end = end
        return self._values if len(self._values) == length else self._values[-length:]

    def _fetch(self, length: int, end: float) -> Values:
        period = self._period
        start = end - length * period
        if self._only is not None:
            found = self._readings.series(self._only, period, start, end)
        else:
            found = self._computed([start + at * period for at in range(length)], end)
        if length == 1:
            return (found[0][1] if found else None,)
        by_period = {round((at - start) / period): value for at, value in found}
        return tuple(by_period.get(at) for at in range(length))

    def _computed(self, times: Sequence[float], end: float) -> Sequence[tuple[float, float]]:
        def series(stat: Stat) -> Sequence[tuple[float, float]]:
            return self._readings.series(stat, self._period, times[0], end)

        return maths.evaluate(self._queries, series, times)


def _trailing(values: Values) -> int:
    """How many of the newest are not known, perhaps not yet."""
    return next((at for at, value in enumerate(reversed(values)) if value is not None), len(values))
