"""What alarms look at: a metric's, or an expression's, values of the latest periods.

Hundreds of alarms look at their metrics every few seconds, two at each of a target tracking policy's: what is over is
asked for once. Only what clients put themselves may still come in later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.scaling import maths
from serving.scaling.values import Query, Readings, Stat

#: Namespaces of what this server measures itself.
_OWN = ("AWS/", "/aws/", "Prometheus")

Values = tuple[float | None, ...]


@dataclass(slots=True)
class _Kept:
    """``values`` of the periods before ``end``, oldest first; None = no data."""

    end: float
    values: Values


class AlarmValues:
    """Values by the queries and the period that give them."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._kept: dict[tuple[tuple[Query, ...], float], _Kept] = {}

    def of(self, queries: tuple[Query, ...], period: float, length: int, end: float) -> Values:
        """The values of ``length`` periods of ``period`` seconds before ``end``, oldest first. Raises
        ``ValidationError`` for an expression that has none."""
        kept = self._kept.get((queries, period))
        if kept is None or len(kept.values) < length or end < kept.end or not _all_own(queries):
            kept = self._kept[queries, period] = _Kept(end, self._fetch(queries, period, length, end))
        elif kept.end < end:
            wanted = min(round((end - kept.end) / period) + _trailing(kept.values), len(kept.values))
            newest = self._fetch(queries, period, wanted, end)
            moved = round((end - kept.end) / period)
            kept.values = (*kept.values[moved : len(kept.values) + moved - wanted], *newest)
            kept.end = end
        return kept.values[-length:]

    def forget(self, before: float) -> None:
        """Nobody has looked at these since."""
        self._kept = {key: kept for key, kept in self._kept.items() if kept.end + 2 * key[1] >= before}

    def _fetch(self, queries: tuple[Query, ...], period: float, length: int, end: float) -> Values:
        start = end - length * period

        def series(stat: Stat) -> Sequence[tuple[float, float]]:
            return self._readings.series(stat, period, start, end)

        only = queries[0].stat if len(queries) == 1 else None
        times = [start + at * period for at in range(length)]
        found = series(only) if only else maths.evaluate(queries, series, times)
        by_period = {round((at - start) / period): value for at, value in found}
        return tuple(by_period.get(at) for at in range(length))


def _all_own(queries: tuple[Query, ...]) -> bool:
    return all(query.stat is None or query.stat.metric.namespace.startswith(_OWN) for query in queries)


def _trailing(values: Values) -> int:
    """How many of the newest are not known, perhaps not yet."""
    return next((at for at, value in enumerate(reversed(values)) if value is not None), len(values))
