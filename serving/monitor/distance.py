"""How far apart two distributions of a column are (``behaviour/06``, "Drift distance").

Numbers: the largest difference of the two cumulative distributions anywhere (the Kolmogorov-Smirnov statistic). Simple
is that; Robust takes off what two samples of one distribution would differ by, as the Deequ library does:
``max(0, d - 1.8 sqrt((n + m) / (n m)))``. Categories: the largest difference of a value's shares, Simple and Robust
likewise, or a chi-squared test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from serving.monitor.kll import Distribution, Numbers

Method = Literal["Simple", "Robust"]
CategoricalMethod = Literal["LInfinity", "ChiSquared"]

#: Deequ, ``Distance.selectMetrics``: at this many standard widths two samples of one distribution hardly ever differ.
_ROBUST = 1.8
#: Smallest expected count of a category in a chi-squared test, of more than two and of two (Cochran 1954, as in Deequ).
_EXPECTED, _EXPECTED_OF_TWO = 5.0, 10.0


class Steps(NamedTuple):
    """A distribution of which only buckets are known: the share of values below each inner edge, and how many values
    there are."""

    edges: Numbers
    shares: Numbers
    total: float


def numeric(baseline: Distribution | Steps, current: Distribution, method: Method) -> float | None:
    """Distance of two samples of numbers, 0 to 1; None if either is empty."""
    if not baseline.total or not current.total:
        return None
    furthest = _at_edges(baseline, current) if isinstance(baseline, Steps) else _anywhere(baseline, current)
    return _corrected(furthest, baseline.total, current.total, method)


def _corrected(distance: float, n: float, m: float, method: Method) -> float:
    return distance if method == "Simple" else max(0.0, distance - _ROBUST * math.sqrt((n + m) / (n * m)))


def _anywhere(one: Distribution, other: Distribution) -> float:
    places = np.concatenate((one.values, other.values))
    return float(np.abs(_share_up_to(one, places, "right") - _share_up_to(other, places, "right")).max())


def _at_edges(baseline: Steps, current: Distribution) -> float:
    if not len(baseline.edges):
        return 0.0
    return float(np.abs(baseline.shares - _share_up_to(current, baseline.edges, "left")).max())


def _share_up_to(sample: Distribution, places: Numbers, side: Literal["left", "right"]) -> Numbers:
    """The share of values up to each place, and at it (``right``) or only below it (``left``)."""
    cumulated = np.concatenate(([0.0], np.cumsum(sample.weights)))
    found: Numbers = cumulated[np.searchsorted(sample.values, places, side=side)] / cumulated[-1]
    return found


def categorical(baseline: Mapping[str, float], current: Mapping[str, float], method: Method) -> float | None:
    """The largest difference of a category's shares, 0 to 1; None if either is empty."""
    n, m = sum(baseline.values()), sum(current.values())
    if not n or not m:
        return None
    furthest = max(abs(baseline.get(one, 0) / n - current.get(one, 0) / m) for one in {*baseline, *current})
    return _corrected(furthest, n, m, method)


def chi_squared(baseline: Mapping[str, float], current: Mapping[str, float]) -> float | None:
    """The p-value of the hypothesis that both samples are of one distribution (Pearson's test of homogeneity). The
    rarest categories are merged until each is expected often enough in both samples; None when fewer than two remain.
    """
    from scipy.stats import chi2_contingency

    names = sorted({*baseline, *current}, key=lambda one: (baseline.get(one, 0) + current.get(one, 0), one))
    table = [[float(baseline.get(one, 0)), float(current.get(one, 0))] for one in names]
    merged = _merged(table, min(sum(column) for column in zip(*table, strict=True)) if table else 0.0)
    if len(merged) < 2:
        return None
    return float(chi2_contingency(np.array(merged), correction=False).pvalue)


def _merged(table: list[list[float]], smaller: float) -> list[list[float]]:
    """Categories, the rarest first, merged. ``smaller``: the size of the smaller sample; a category is expected there
    as often as its share of both says."""
    total = sum(map(sum, table))

    def enough(row: list[float], least: float) -> bool:
        return smaller > 0 and sum(row) * smaller / total >= least

    while len(table) > 1 and not enough(table[0], _EXPECTED if len(table) > 2 else _EXPECTED_OF_TWO):
        rarest, second, *rest = table
        table = sorted([[one + two for one, two in zip(rarest, second, strict=True)], *rest], key=sum)
    return table
