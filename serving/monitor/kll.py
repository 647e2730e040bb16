"""How a million numbers are distributed, in a few kilobytes: exact up to 100,000 of them, else a KLL sketch.

Karnin, Lang, Liberty 2016, "Optimal Quantile Approximation in Streams", as the Deequ library has it and SageMaker's
``statistics.json`` writes it down (``behaviour/06``): level h holds values that each stand for 2^h, level by level
from the top there is room for k, k c, k c^2, ... of them; a full level is sorted and every second value goes up.
Numbers come by the thousand, so a level takes them all before it is looked at: fewer, larger steps, and less error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

EXACT = 100_000
K, C = 2048, 0.64
#: The coin that decides which of two neighbours goes up: the same data gives the same sketch.
_SEED = 20160314


class Distribution(NamedTuple):
    """Values in order, each with how many it stands for."""

    values: Numbers
    weights: Numbers

    @property
    def total(self) -> float:
        """How many they stand for together."""
        return float(self.weights.sum())


class Sketch:
    """Ranks of finite numbers."""

    def __init__(self, exact: int = EXACT, k: int = K, c: float = C) -> None:
        self._exact, self._k, self._c = exact, k, c
        self._levels: list[Numbers] = [np.empty(0)]
        self._waiting: list[Numbers] = []
        self._coin = np.random.default_rng(_SEED)
        self.count = 0

    def add(self, values: Numbers) -> None:
        """More of them."""
        self.count += len(values)
        self._waiting.append(values)
        if self.count > self._exact:
            self._take_in()
            self._compress()

    def merge(self, other: Sketch) -> None:
        """Those of another sketch of the same parameters."""
        other._take_in()
        self.count += other.count
        self._levels += [np.empty(0)] * (len(other._levels) - len(self._levels))
        for height, level in enumerate(other._levels):
            self._put(height, level)
        if self.count > self._exact:
            self._take_in()
            self._compress()

    def _take_in(self) -> None:
        if self._waiting:
            self._levels[0] = np.sort(np.concatenate((self._levels[0], *self._waiting)))
            self._waiting.clear()

    def _put(self, height: int, values: Numbers) -> None:
        """More values, in order, for a level, which stays in order: a stable sort only merges what is sorted."""
        level = self._levels[height]
        self._levels[height] = np.sort(np.concatenate((level, values)), kind="stable") if len(level) else values

    def _compress(self) -> None:
        """Until every level has room again. A level of an odd number keeps one, so the weights add up to the count."""
        height = 0
        while height < len(self._levels):
            level = self._levels[height]
            if len(level) > self._room(height):
                if height + 1 == len(self._levels):
                    self._levels.append(np.empty(0))
                even = len(level) & ~1
                self._put(height + 1, level[int(self._coin.integers(2)) : even : 2].copy())
                self._levels[height] = level[even:].copy()
            height += 1

    def _room(self, height: int) -> int:
        return max(2, math.ceil(self._k * self._c ** (len(self._levels) - 1 - height)))

    def distribution(self) -> Distribution:
        """What it knows."""
        self._take_in()
        return weighted(self._levels)

    def as_json(self) -> dict[str, Any]:
        """``sketch`` of ``statistics.json``: of more than k numbers what a sketch keeps of them, even where all are
        known, as a file of every number is as large as the dataset."""
        self._take_in()
        written = self
        if 0 < self.count <= self._exact:
            written = Sketch(0, self._k, self._c)
            written.add(self._levels[0])
        data = [level.tolist() for level in written._levels]
        return {"parameters": {"c": self._c, "k": float(self._k)}, "data": data}


def weighted(levels: Iterable[Sequence[float] | Numbers]) -> Distribution:
    """The distribution of a sketch's levels: a value of level h stands for 2^h."""
    arrays = [np.asarray(level, dtype=np.float64) for level in levels]
    values = np.concatenate(arrays) if arrays else np.empty(0)
    weights = np.concatenate([np.full(len(array), 2.0**height) for height, array in enumerate(arrays)] or [np.empty(0)])
    order = np.argsort(values, kind="stable")
    return Distribution(values[order], weights[order])


def buckets(distribution: Distribution, lowest: float, highest: float, number: int = 10) -> list[dict[str, float]]:
    """Buckets of equal width between two bounds, each from its lower bound on and below its upper one, the last with
    it. The counts of a sketch are scaled to nothing: its weights add up to the count."""
    share = np.arange(number + 1) / number
    edges = lowest * (1 - share) + highest * share  # their difference may be more than a float can hold
    edges[-1] = highest
    places = np.searchsorted(edges[1:-1], distribution.values, side="right")
    counts = np.bincount(places, weights=distribution.weights, minlength=number)
    return [
        {"lower_bound": float(low), "upper_bound": float(high), "count": float(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
