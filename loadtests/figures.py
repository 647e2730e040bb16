"""The arithmetic of the load tests: percentiles, Zipf draws, and whether a traffic split is what it should be. Pure."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import median
from typing import NamedTuple


def percentile(ordered: Sequence[float], q: float) -> float:
    """The nearest-rank percentile of values sorted upwards: the smallest one with at least ``q`` % at or below it.

    Raises ``ValueError`` for no values, or ``q`` outside 0..100.
    """
    if not ordered:
        raise ValueError("no values to take a percentile of")
    if not 0 <= q <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {q}")
    return ordered[max(1, math.ceil(len(ordered) * q / 100)) - 1]


def median_ratio(ours: Sequence[float], baseline: Sequence[float]) -> float:
    """Median of ``ours`` over median of ``baseline``. Taken in turns, both have met the same drift of the machine."""
    return median(ours) / median(baseline)


class Zipf:
    """Draws ranks 0..n-1, rank r with probability proportional to 1 / (r + 1)^s: few models hot, a long tail cold."""

    def __init__(self, n: int, s: float, rng: random.Random) -> None:
        if n < 1:
            raise ValueError("a Zipf law needs at least one rank")
        self._cumulative = list(accumulate(1 / math.pow(rank, s) for rank in range(1, n + 1)))
        self._rng = rng

    def draw(self) -> int:
        """One rank."""
        return min(bisect_right(self._cumulative, self._rng.random() * self._cumulative[-1]), len(self._cumulative) - 1)

    def share(self, rank: int) -> float:
        """The probability of ``rank``."""
        below = self._cumulative[rank - 1] if rank else 0.0
        return (self._cumulative[rank] - below) / self._cumulative[-1]


class Share(NamedTuple):
    """What one variant got of the traffic, beside what its weight promised."""

    variant: str
    calls: int
    expected: float
    sigma: float

    @property
    def deviation(self) -> float:
        """Distance from the promise in standard deviations; infinite where any call at all breaks the promise."""
        distance = abs(self.calls - self.expected)
        if distance == 0:
            return 0.0
        return distance / self.sigma if self.sigma else math.inf


def split_shares(counts: Mapping[str, int], weights: Mapping[str, float]) -> list[Share]:
    """Each variant's calls beside the binomial expectation ``n * w / sum(w)``; variants nobody promised get 0.

    Raises ``ValueError`` when the weights sum to nothing.
    """
    total, weight_sum = sum(counts.values()), sum(weights.values())
    if weight_sum <= 0:
        raise ValueError("the weights of a split must sum to more than 0")
    shares = []
    for variant in sorted({*counts, *weights}):
        p = weights.get(variant, 0.0) / weight_sum
        shares.append(Share(variant, counts.get(variant, 0), total * p, math.sqrt(total * p * (1 - p))))
    return shares


def split_faults(counts: Mapping[str, int], weights: Mapping[str, float], sigmas: float = 3.0) -> list[str]:
    """A sentence for every variant whose share is more than ``sigmas`` standard deviations off; none = a fair split.

    No traffic at all is a fault: nothing was shown.
    """
    if not sum(counts.values()):
        return ["no answer named a variant"]
    return [
        f"{share.variant} got {share.calls} calls where {share.expected:.0f} ± {sigmas * share.sigma:.0f} were promised"
        for share in split_shares(counts, weights)
        if share.deviation > sigmas
    ]


def parse_weights(text: str) -> dict[str, float]:
    """``"A=0.9,B=0.1"`` as a mapping. Raises ``ValueError`` for anything else."""
    weights = {}
    for part in text.split(","):
        name, mark, value = part.partition("=")
        if not mark or not name.strip():
            raise ValueError(f"{part!r} is not NAME=WEIGHT")
        weights[name.strip()] = float(value)
    return weights
