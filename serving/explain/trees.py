"""Tree SHAP against a baseline: the same values as Kernel SHAP over all coalitions, without asking the model. Pure.

A leaf of a tree is reached by a coalition exactly when it keeps the features whose way there only the record goes, and
none of those whose way only the baseline's row goes; that game's Shapley values are in closed form (Lundberg et al.,
"From local explanations to global understanding with explainable AI for trees", Nature Machine Intelligence 2, 2020:
interventional Tree SHAP). Leaves are independent of each other, so all are worked out at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.explain.records import Cell, value
from serving.runtimes.trees_to_onnx import Forest

#: How far the sum of float32 leaves may be from what the model answered, of the larger of 1 and itself. A log-odds read
#: off a float32 probability has few digits where that is near 0 or 1: there the model is asked.
_SAME = 1e-4


@dataclass(frozen=True, slots=True)
class Leaves:
    """Every leaf with its way from the root: float64 values [leaves], and of the steps [leaves, depth] the feature, the
    threshold, whether the way goes left and whether missing values do; ``slot``: the first step of the leaf that asks
    for the same feature; ``real``: there is such a step. ``transform``: what becomes of the sum of the leaves."""

    values: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    missing_left: np.ndarray
    slot: np.ndarray
    real: np.ndarray
    columns: int
    transform: str

    def reached(self, row: np.ndarray) -> np.ndarray:
        """Does a row (float32 [columns], NaN = missing) go a leaf's way, as far as each feature is concerned? bool
        [leaves, depth], at the slots."""
        cells = row[self.feature]
        goes_left = np.where(np.isnan(cells), self.missing_left, cells < self.threshold)
        wrong = self.real & (goes_left != self.left)
        leaves, depth = self.feature.shape
        places = (np.arange(leaves)[:, None] * depth + self.slot)[wrong]
        made: np.ndarray = np.bincount(places, minlength=leaves * depth).reshape(leaves, depth) == 0
        return made

    def margin(self, reached: np.ndarray) -> float:
        """The sum of the leaves that a row reaches."""
        return float(self.values[reached.all(1)].sum())


def leaves(forest: Forest, columns: int, transform: str) -> Leaves:
    """The leaves of a forest of one output."""
    starts = np.flatnonzero(forest.node == 0)
    ends = [*starts[1:].tolist(), len(forest.node)]
    ways: list[list[tuple[int, float, bool, bool]]] = []
    values: list[float] = []
    for start, end in zip(starts.tolist(), ends, strict=True):
        columns_of = (forest.feature, forest.value, forest.left, forest.right, forest.missing_left, forest.leaf)
        _walk([one[start:end].tolist() for one in columns_of], ways, values)
    depth = max(1, max(map(len, ways)))
    shape = (len(ways), depth)
    feature, threshold = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    left, missing_left, real = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    slot = np.tile(np.arange(depth), (len(ways), 1))
    for number, way in enumerate(ways):
        first: dict[int, int] = {}
        for at, (asked, limit, goes_left, missing) in enumerate(way):
            feature[number, at], threshold[number, at] = asked, limit
            left[number, at], missing_left[number, at], real[number, at] = goes_left, missing, True
            slot[number, at] = first.setdefault(asked, at)
    made = np.array(values, np.float64)
    return Leaves(made, feature, threshold, left, missing_left, slot, real, columns, transform)


def _walk(
    columns: Sequence[Sequence[float]], ways: list[list[tuple[int, float, bool, bool]]], values: list[float]
) -> None:
    """One tree's leaves, added to the lists."""
    feature, value, left, right, missing_left, leaf = columns
    stack: list[tuple[int, list[tuple[int, float, bool, bool]]]] = [(0, [])]
    while stack:
        node, way = stack.pop()
        if leaf[node]:
            ways.append(way)
            values.append(value[node])
            continue
        step = (int(feature[node]), value[node])
        missing = bool(missing_left[node])
        stack.append((int(left[node]), [*way, (*step, True, missing)]))
        stack.append((int(right[node]), [*way, (*step, False, missing)]))


def attributions(made: Leaves, row: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """What each feature of a row adds to the margin, on average over the rows of the baseline: float64 [columns].
    float32 rows, NaN = missing."""
    depth = made.feature.shape[1]
    shares = _shares(depth)
    ours, total = made.reached(row), np.zeros(made.columns)
    is_slot = made.real & (made.slot == np.arange(depth))
    for other in baseline:
        theirs = made.reached(other)
        kept, taken = is_slot & ours & ~theirs, is_slot & theirs & ~ours
        possible = (ours | theirs).all(1)
        keeps, takes = kept.sum(1), taken.sum(1)
        plus, minus = made.values * shares[keeps, takes], made.values * shares[takes, keeps]
        for mask, part in ((kept & possible[:, None], plus), (taken & possible[:, None], -minus)):
            leaf, step = np.nonzero(mask)
            total += np.bincount(made.feature[leaf, step], weights=part[leaf], minlength=made.columns)
    return total / len(baseline)


def _shares(depth: int) -> np.ndarray:
    """(u - 1)! v! / (u + v)!: the share of one of u players who must all be kept while v must all be left out. float64
    [u, v], 0 for u = 0."""
    made = np.zeros((depth + 1, depth + 1))
    for v in range(depth + 1):
        share = 1.0
        for u in range(1, depth + 1 - v):
            # 1 / (u * C(u + v, u)), from one u to the next
            share = 1.0 / (1 + v) if u == 1 else share * (u - 1) / (u + v)
            made[u, v] = share
    return made


# --- may it be used? ------------------------------------------------------------------------------------------------


def adds_up(made: Leaves, logit: bool, baseline: int) -> bool:
    """Is the sum of the leaves what is explained? The prediction of a regression is. So is the log-odds of a
    probability, where the baseline has a single row: of several, the mean is taken before the logarithm."""
    if logit:
        return made.transform == "sigmoid" and baseline == 1
    return made.transform == "identity"


def numbers(rows: Sequence[Sequence[Cell]]) -> np.ndarray | None:
    """Cells as the model reads them: float32, NaN = missing; None where one is no number."""
    meant = [[value(cell) for cell in row] for row in rows]
    try:
        return np.array([[np.nan if cell is None else cell for cell in row] for row in meant], np.float32)
    except (TypeError, ValueError):
        return None


def predicted(made: Leaves, rows: np.ndarray) -> float:
    """The mean margin of rows."""
    return sum(made.margin(made.reached(row)) for row in rows) / len(rows)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Are these the same prediction, but for rounding?"""
    return bool(np.allclose(one, other, rtol=_SAME, atol=_SAME))
