"""What may be chance in a count of calls: bounds of the Poisson tails, in closed form.

A second's or a period's calls are few, and a policy that takes their noise for load moves capacity for nothing.
"""

from __future__ import annotations

import math


def _likelihood(count: float, mean: float) -> float:
    """The Poisson probability of just ``count``, continued between whole numbers."""
    return math.exp(min(0.0, count * math.log(mean) - mean - math.lgamma(count + 1)))


def at_least(count: float, mean: float) -> float:
    """A bound from above of the chance that ``count`` calls or more come where ``mean`` are expected.

    Each further term is at most mean / (count + 1) of the one before: the tail is below a geometric series."""
    if count <= mean:
        return 1.0
    if mean <= 0:
        return 0.0
    return min(1.0, _likelihood(count, mean) * (count + 1) / (count + 1 - mean))


def at_most(count: float, mean: float) -> float:
    """A bound from above of the chance that ``count`` calls or fewer come where ``mean`` are expected."""
    if count >= mean:
        return 1.0
    if count < 0:
        return 0.0
    return min(1.0, _likelihood(count, mean) * mean / (mean - count))
