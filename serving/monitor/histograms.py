"""What the buckets of a latency histogram tell (``watch/metrics.py``): quantiles, moments, the share above a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serving.monitor.sequential import Moments, of_rate


def quantile(bounds: Sequence[float], counts: Sequence[float], q: float) -> float | None:
    """The quantile ``q``, interpolated within its bucket as Prometheus' ``histogram_quantile`` does; the last bound for
    what lies above it; None of nothing. ``counts``: by bucket, the one above all bounds last."""
    total = sum(counts)
    if total <= 0:
        return None
    rank, below, lower = q * total, 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * max(rank - below, 0.0) / count
        below, lower = below + count, bound
    return bounds[-1]


def moments(bounds: Sequence[float], counts: Sequence[float], total: float) -> Moments:
    """Number, mean (exact: ``total`` is the sum) and squares. A bucket's values count as if they lay in the middle, and
    evenly across it, which adds a twelfth of its width squared."""
    number = int(sum(counts))
    if not number:
        return Moments()
    mean, squares, used = total / number, 0.0, []
    edges = (0.0, *bounds, bounds[-1] * 2)
    for lower, upper, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            squares += count * (((lower + upper) / 2 - mean) ** 2 + (upper - lower) ** 2 / 12)
            used += [lower, upper]
    return Moments(number, mean, squares, min(used), max(used))


def beyond(bounds: Sequence[float], counts: Sequence[float], limit: float) -> Moments:
    """Which values lie above ``limit`` for certain: those of the buckets that begin there or later, as outcomes 1."""
    edges = (0.0, *bounds)
    slow = sum(count for lower, count in zip(edges, counts, strict=False) if lower >= limit)
    return of_rate(slow, sum(counts)) if math.isfinite(limit) else Moments()
