"""One period of a metric, and its statistics as CloudWatch names them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan
from typing import NamedTuple

from serving.errors import ValidationError

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")


class Aggregate(NamedTuple):
    """``samples`` values: their sum, least and most. ``points``: (value, how often), by value, where they are known; of
    a histogram (``continuous``) the upper ends of its buckets."""

    samples: float
    sum: float
    least: float
    most: float
    points: tuple[tuple[float, float], ...] = ()
    continuous: bool = False

    def value(self, statistic: str) -> float:
        """A statistic of it; ``nan`` for one that cannot be told. Raises ``ValidationError`` for an unknown one."""
        if statistic == "Sum":
            return self.sum
        if statistic == "Average":
            return self.sum / self.samples if self.samples else 0.0
        if statistic == "Maximum":
            return self.most
        if statistic == "Minimum":
            return self.least
        if statistic == "SampleCount":
            return self.samples
        found = _PERCENTILE.fullmatch(statistic)
        if found is None:
            raise ValidationError(f"The statistic {statistic} is not supported.")
        return self._percentile(float(found[1]) / 100)

    def _percentile(self, share: float) -> float:
        """Within a histogram's bucket values are taken to lie evenly."""
        if not self.points or not self.samples:
            return nan
        wanted, so_far, below = share * self.samples, 0.0, self.least
        for value, count in self.points:
            if so_far + count >= wanted and count:
                if not self.continuous:
                    return value
                return below + (value - below) * max(0.0, wanted - so_far) / count
            so_far, below = so_far + count, value
        return self.most


def of_buckets(bounds: Sequence[float], cells: Sequence[float], scale: float) -> Aggregate | None:
    """What a histogram's cells (``metrics.Histogram``) have grown by; None = by nothing. Least and most are the ends of
    the buckets that they fell into, as near the mean as they can be."""
    count = sum(cells[:-1])
    if not count:
        return None
    total = cells[-1]
    filled = [at for at, one in enumerate(cells[:-1]) if one]
    lowest, highest = filled[0], filled[-1]
    mean = total / count
    least = min(mean, bounds[lowest - 1] if lowest else 0.0)
    most = max(mean, bounds[highest] if highest < len(bounds) else bounds[-1])
    if lowest == highest and count == 1:
        least = most = mean
    points = tuple(
        (scale * min(most, bounds[at] if at < len(bounds) else most), cells[at]) for at in range(highest + 1)
    )
    return Aggregate(count, total * scale, least * scale, most * scale, points[lowest:], True)
