"""Numbers by the million, remembered in a few kilobytes: quantiles and correlation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

#: Quantiles are within 1 % of the value that holds the rank.
_ACCURACY = 0.01
_GAMMA = (1 + _ACCURACY) / (1 - _ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
#: What is smaller counts as 0; with the largest float that bounds the buckets to 50,000, in practice a few hundred.
_SMALLEST = 1e-300
_LARGEST_EXPONENT = 709.0


class Quantiles:
    """Quantiles of numbers from 0 on, each to 1 % of its value, however many there are: logarithmic buckets (Masson,
    Rim, Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees")."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._zeros = 0
        self._sum = 0.0
        self.count = 0
        self.largest = 0.0

    def add(self, value: float) -> None:
        """One more; finite, and not below 0."""
        self.count += 1
        self._sum += value
        if value > self.largest:
            self.largest = value
        if value < _SMALLEST:
            self._zeros += 1
        else:
            self._buckets[math.ceil(math.log(value) / _LOG_GAMMA)] += 1

    @property
    def mean(self) -> float | None:
        """None of none."""
        return self._sum / self.count if self.count else None

    def at(self, q: float) -> float | None:
        """The quantile ``q``, 0 to 1: of n numbers in order, number ceil(q n). None of none."""
        if not self.count:
            return None
        left = max(math.ceil(q * self.count), 1) - self._zeros
        if left <= 0:
            return 0.0
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                middle = bucket * _LOG_GAMMA + math.log(2 / (_GAMMA + 1))
                return min(math.exp(min(middle, _LARGEST_EXPONENT)), self.largest)
        return self.largest

    def as_json(self, quantiles: Sequence[float]) -> dict[str, Any]:
        """Count, mean, the quantiles as ``P50`` and so on, maximum."""
        named = {f"P{q * 100:g}".replace(".", "_"): self.at(q) for q in quantiles}
        return {"Count": self.count, "Mean": self.mean, **named, "Max": self.largest if self.count else None}


class Correlation:
    """Pearson's correlation of pairs, in one pass (Welford 1962, with its co-moment)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean_a = self._mean_b = 0.0
        self._aa = self._bb = self._ab = 0.0

    def add(self, a: float, b: float) -> None:
        """One more pair of finite numbers."""
        self._count += 1
        before, other = a - self._mean_a, b - self._mean_b
        self._mean_a += before / self._count
        self._mean_b += other / self._count
        self._aa += before * (a - self._mean_a)
        self._bb += other * (b - self._mean_b)
        self._ab += before * (b - self._mean_b)

    @property
    def value(self) -> float | None:
        """-1 to 1; None of fewer than two pairs, or where either number is always the same."""
        spread = math.sqrt(self._aa) * math.sqrt(self._bb)
        return max(-1.0, min(1.0, self._ab / spread)) if spread > 0 and math.isfinite(spread) else None
