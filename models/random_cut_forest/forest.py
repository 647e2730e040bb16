"""A Random Cut Forest, and the exact score of a point.

Guha, Mishra, Roy and Schrijvers, "Robust Random Cut Forest Based Anomaly Detection on Streams", ICML 2016. A tree of
random cuts over a sample: a box around the points, a column drawn in proportion to the box's sides, a cut drawn evenly
on that side, and so on on both sides, until a box holds one point::

    +-----------+      a new point x outside of the box, by e in all columns together, makes the box larger; the first
    | .  |   .  |      cut then falls between x and the box with the chance  e / (e + sides of the box)  and parts x
    |----+ .    |   x  from everything in it. Otherwise the cut is the one that is there already (their Theorem 1), and
    | .  |    . |      the same question is asked of the child that x falls into.
    +-----------+

So the distribution of the trees that also hold x is known without building one, and a score is its expectation:
the sum, over the boxes on x's way down, of the chance to be parted there times what that parting is worth. What it is
worth depends on the box alone, so it is worked out when the tree is built (``Worth``), and all walks are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.data import Floats

Whole = NDArray[np.int64]
#: Added to a box's sides, so that a point on a leaf's point has the chance 0 to be parted, and not 0 / 0. What is as
#: near as this counts as the same point.
NEAR = np.float32(1e-30)


class Place(NamedTuple):
    """A box in its tree. ``points``: how many it holds; ``depth``: 0 at the root; ``total``: the tree's points;
    ``disturbed``: the largest collusive displacement among the ancestors if one more point went through them."""

    points: int
    depth: int
    total: int
    disturbed: float


class Worth(NamedTuple):
    """What a score counts: for a point parted from all of a box, and for one that falls onto a leaf's point."""

    parted: Callable[[Place], float]
    joined: Callable[[Place], float]


#: Collusive displacement, the paper's score: by how much deeper all others sit because of x and its companions, divided
#: by how many those are, for the companions that make most of it. Parted from a box, x alone displaces all in it.
DISPLACEMENT = Worth(lambda place: max(float(place.points), place.disturbed), lambda place: place.disturbed)
#: What AWS describes and its open library computes: one over the depth at which x would end, in units of a balanced
#: tree's depth; a point already there is damped by its share of the tree.
DEPTH = Worth(
    lambda place: np.log2(place.total + 1) / (place.depth + 1),
    lambda place: (
        np.log2(place.total + 1) * (1 - place.points / (2 * place.total)) / (place.depth + np.log2(place.points + 1))
    ),
)


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees as one table of boxes, a row a box; row 0 is where a walk rests after its leaf, and is worth nothing.

    ``boxes``: float32 ``[boxes, 2 * columns]``, lower bounds and negated upper ones, so that a point leaves a box by
    ``max(boxes - [x, -x], 0)``; ``sides``: their sum; ``column``, ``cut``: x goes to ``left`` where
    ``x[column] <= cut``, else to ``right``; ``parted``, ``joined``: what ``Worth`` says; ``roots``: one row a tree;
    ``height``: boxes on the longest way down.
    """

    boxes: Floats
    sides: Floats
    column: Whole
    cut: Floats
    left: Whole
    right: Whole
    parted: Floats
    joined: Floats
    roots: Whole
    height: int

    def scores(self, rows: Floats) -> NDArray[np.float32]:
        """The expected score of each of ``rows`` [rows, columns], float32: the higher the odder."""
        point = np.concatenate([rows, -rows], axis=1)[:, np.newaxis]
        box = np.repeat(self.roots[np.newaxis], len(rows), axis=0)
        here = np.ones(box.shape, np.float32)  # the chance that x was not parted further up
        total = np.zeros(box.shape, np.float32)
        for _ in range(self.height):
            outside = np.maximum(self.boxes[box] - point, 0).sum(axis=2)
            chance = outside / (outside + self.sides[box] + NEAR)
            stays = here * (1 - chance)
            total += here * chance * self.parted[box] + stays * self.joined[box]
            here = stays
            goes_left = np.take_along_axis(rows, self.column[box], axis=1) <= self.cut[box]
            box = np.where(goes_left, self.left[box], self.right[box])
        scores: NDArray[np.float32] = total.mean(axis=1)
        return scores


def grow(rows: Floats, trees: int, sample: int, worth: Worth, dice: np.random.Generator) -> Forest:
    """``trees`` trees, each over ``sample`` of ``rows`` drawn without putting back (all of them where there are
    fewer)."""
    table = _Table(rows.shape[1], worth)
    sample = min(sample, len(rows))
    roots = [table.tree(rows[dice.choice(len(rows), sample, replace=False)], dice) for _ in range(trees)]
    return table.forest(roots)


class _Table:
    """The rows of a forest while its trees are grown."""

    def __init__(self, columns: int, worth: Worth) -> None:
        self._worth = worth
        self._boxes = [np.zeros(2 * columns, np.float32)]
        self._cuts: list[tuple[int, float, int, int]] = [(0, 0.0, 0, 0)]
        self._worths = [(0.0, 0.0)]
        self._height = 0

    def tree(self, points: Floats, dice: np.random.Generator) -> int:
        """Cut ``points`` until each is alone, or among equals. The row of the root."""
        root = len(self._boxes)
        waiting = [(points, Place(len(points), 0, len(points), 0.0), root, 0)]
        while waiting:
            here, place, parent, side = waiting.pop()
            row = self._add(here, place)
            if place.depth:
                column, cut, *children = self._cuts[parent]
                children[side] = row
                self._cuts[parent] = (column, cut, children[0], children[1])
            found = _cut(here, dice)
            if found is None:
                continue
            column, cut = found
            self._cuts[row] = (column, cut, 0, 0)
            to_left = here[:, column] <= cut
            parts = (here[to_left], here[~to_left])
            for number, (part, other) in enumerate((parts, parts[::-1])):
                disturbed = max(place.disturbed, len(other) / (len(part) + 1))
                waiting.append((part, Place(len(part), place.depth + 1, place.total, disturbed), row, number))
        return root

    def forest(self, roots: list[int]) -> Forest:
        """Everything grown so far."""
        boxes = np.stack(self._boxes)
        column, cut, left, right = (np.array(values) for values in zip(*self._cuts, strict=True))
        parted, joined = (np.array(values, np.float32) for values in zip(*self._worths, strict=True))
        sides = -boxes.reshape(len(boxes), 2, -1).astype(np.float64).sum(axis=(1, 2))
        return Forest(
            boxes,
            sides.astype(np.float32),
            column.astype(np.int64),
            cut.astype(np.float32),
            left.astype(np.int64),
            right.astype(np.int64),
            parted,
            joined,
            np.array(roots, np.int64),
            self._height,
        )

    def _add(self, points: Floats, place: Place) -> int:
        lower, upper = points.min(axis=0), points.max(axis=0)
        self._boxes.append(np.concatenate([lower, -upper]))
        self._cuts.append((0, 0.0, 0, 0))
        alone = bool((lower == upper).all())
        self._worths.append((self._worth.parted(place), self._worth.joined(place) if alone else 0.0))
        self._height = max(self._height, place.depth + 1)
        return len(self._boxes) - 1


def _cut(points: Floats, dice: np.random.Generator) -> tuple[int, float] | None:
    """A random cut: one throw on all sides laid end to end gives the column and the place. None for equal points."""
    lower, upper = points.min(axis=0), points.max(axis=0)
    sides = (upper - lower).astype(np.float64)
    ends = np.cumsum(sides)
    if not ends[-1]:
        return None
    throw = dice.uniform(0.0, ends[-1])
    column = min(int(np.searchsorted(ends, throw, side="right")), int(np.flatnonzero(sides)[-1]))
    cut = np.float32(upper[column] - (ends[column] - throw))
    # float32 may round the cut onto the upper bound, which would leave nothing on its right.
    return column, float(min(max(cut, lower[column]), np.nextafter(upper[column], lower[column])))
