"""A Random Cut Forest: its walk against a plain recursion, its score against trees that really hold the point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.packaging import onnx_bytes, onnx_run
from models.random_cut_forest.forest import DEPTH, DISPLACEMENT, Forest, Place, Worth, grow
from models.random_cut_forest.graph import graph

Floats = NDArray[np.float32]
WHOLE = st.integers(-5, 5).map(float)
POINTS = st.integers(1, 12).flatmap(lambda rows: arrays(np.float32, (rows, 3), elements=WHOLE))
#: Thousandths: no two points are nearer than that, or they are the same.
ASKED = arrays(np.float32, (5, 3), elements=st.integers(-20_000, 20_000).map(lambda value: value / 1000))
TREES = 600
FEW = settings(max_examples=40)
WORTHS = pytest.mark.parametrize("worth", [DEPTH, DISPLACEMENT], ids=["depth", "displacement"])


def walked(forest: Forest, box: int, point: Floats) -> float:
    """The definition: parted here, with the box's chance; else the same question in the child."""
    lower, negated = np.split(forest.boxes[box].astype(float), 2)
    upper = -negated
    outside = float(np.sum(np.maximum(lower - point, 0) + np.maximum(point - upper, 0)))
    sides = float(np.sum(upper - lower))
    chance = outside / (outside + sides) if outside else 0.0
    found = chance * forest.parted[box]
    if sides == 0:
        return float(found + (1 - chance) * forest.joined[box])
    child = forest.left if point[forest.column[box]] <= forest.cut[box] else forest.right
    return float(found + (1 - chance) * walked(forest, int(child[box]), point))


@WORTHS
@FEW
@given(points=POINTS, asked=ASKED, seed=st.integers(0, 999))
def test_scores_are_those_of_a_plain_recursion(worth: Worth, points: Floats, asked: Floats, seed: int) -> None:
    """All trees and rows at once give what one walk after the other gives; points of the trees among them."""
    forest = grow(points, 3, 8, worth, np.random.default_rng(seed))
    rows = np.concatenate([asked, points])
    expected = [np.mean([walked(forest, int(root), row) for root in forest.roots]) for row in rows]
    np.testing.assert_allclose(forest.scores(rows), expected, rtol=1e-5, atol=1e-6)


@FEW
@given(points=POINTS, asked=ASKED, seed=st.integers(0, 999))
def test_graph_answers_as_the_forest(points: Floats, asked: Floats, seed: int) -> None:
    """Which is what is served."""
    forest = grow(points, 3, 8, DEPTH, np.random.default_rng(seed))
    rows = np.concatenate([asked, points])
    answer = onnx_run(onnx_bytes(graph(forest, "forest")), {"features": rows})
    np.testing.assert_allclose(answer["score"], forest.scores(rows), rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Found:
    """A point in a tree that was grown with it: at which depth it is a leaf, and its collusive displacement."""

    depth: int
    displacement: float


def grown_with(points: Floats, dice: np.random.Generator) -> Found:
    """Cut ``points`` until the first of them is alone. The paper's definitions, not the forest's code: the column in
    proportion to the box's sides, the cut evenly on it; of each box on the way, the points in the other half (which
    would all sit one higher without it) over the points that go along."""
    depth, displacement = 0, 0.0
    while len(points) > 1:
        lower, upper = points.min(axis=0), points.max(axis=0)
        sides = (upper - lower) / np.sum(upper - lower)
        column = dice.choice(len(sides), p=sides / sides.sum())
        low = points[:, column] <= dice.uniform(lower[column], upper[column])
        along = low == low[0]
        displacement = max(displacement, float(np.sum(~along) / np.sum(along)))
        points, depth = points[along], depth + 1
    return Found(depth, displacement)


@pytest.fixture(scope="module", params=[1.0, 4.0], ids=["near", "far"])
def truth(request: pytest.FixtureRequest) -> tuple[Floats, Floats, list[Found]]:
    """Fifteen points, another one, and what becomes of it in trees that are grown with it."""
    dice = np.random.default_rng(17)
    points = dice.normal(size=(15, 3)).astype(np.float32)
    point = np.full((1, 3), request.param, np.float32)
    together = np.concatenate([point, points]).astype(float)
    return points, point, [grown_with(together, dice) for _ in range(TREES)]


@pytest.mark.parametrize(
    ("worth", "of"),
    [
        (DEPTH, lambda found: math.log2(16) / found.depth),
        (DISPLACEMENT, lambda found: found.displacement),
    ],
    ids=["depth", "displacement"],
)
def test_score_is_the_mean_over_trees_that_hold_the_point(
    truth: tuple[Floats, Floats, list[Found]], worth: Worth, of: object
) -> None:
    """Theorem 1 of the paper: trees without the point know the distribution of the trees with it. Two independent
    samples of trees agree within four standard errors."""
    points, point, found = truth
    assert callable(of)
    expected = np.array([of(one) for one in found])
    forest = grow(points, TREES // 2, 15, worth, np.random.default_rng(23))
    error = 4 * float(expected.std()) * math.sqrt(1 / TREES + 2 / TREES)
    assert pytest.approx(expected.mean(), abs=error) == float(forest.scores(point)[0])


def test_long_sides_are_cut_more_often() -> None:
    """In proportion to their length: three to one here, and evenly along the side."""
    corners = np.array([[0, 0], [3, 1]], np.float32)
    forest = grow(corners, 1500, 2, DEPTH, np.random.default_rng(29))
    on_first = forest.column[forest.roots] == 0
    assert pytest.approx(0.75, abs=0.04) == on_first.mean()
    cuts = forest.cut[forest.roots][on_first]
    assert pytest.approx([0.75, 1.5, 2.25], abs=0.15) == np.quantile(cuts, [0.25, 0.5, 0.75])


@FEW
@given(points=POINTS, seed=st.integers(0, 999))
def test_leaves_hold_each_point_once(points: Floats, seed: int) -> None:
    """Equal points share a leaf; whatever is cut, none is lost."""
    forest = grow(points, 1, len(points), DISPLACEMENT, np.random.default_rng(seed))
    leaves = np.flatnonzero(forest.left[1:] == 0) + 1
    assert np.unique(points, axis=0).tolist() == np.unique(forest.boxes[leaves][:, :3], axis=0).tolist()
    assert len(np.unique(points, axis=0)) == len(leaves)


def test_worths_are_those_of_their_formulas() -> None:
    """A root of 15 parted from the point; a leaf of two points at depth 3 in a tree of 15."""
    root, leaf = Place(15, 0, 15, 0.0), Place(2, 3, 15, 2.5)
    assert (4.0, 15.0) == (DEPTH.parted(root), DISPLACEMENT.parted(root))
    assert pytest.approx(4 * (1 - 2 / 30) / (3 + math.log2(3))) == DEPTH.joined(leaf)
    assert (2.5, 2.5) == (DISPLACEMENT.parted(leaf), DISPLACEMENT.joined(leaf))


@WORTHS
def test_farther_is_odder(worth: Worth) -> None:
    """Along a line out of the cloud scores do not fall, up to that of a point parted from everything at once."""
    dice = np.random.default_rng(31)
    forest = grow(dice.normal(size=(64, 3)).astype(np.float32), 30, 32, worth, dice)
    line = np.outer([0, 4, 8, 1e3, 1e15], np.ones(3)).astype(np.float32)
    scores = forest.scores(line)
    assert sorted(scores.tolist()) == scores.tolist()
    most = worth.parted(Place(32, 0, 32, 0.0))
    assert pytest.approx(most, rel=1e-5) == float(scores[-1])


def test_same_dice_grow_the_same_forest() -> None:
    """A seed is the whole difference."""
    points = np.random.default_rng(37).normal(size=(40, 2)).astype(np.float32)
    one, same, other = (grow(points, 4, 16, DEPTH, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.cut.tolist() == same.cut.tolist()
    assert one.cut.tolist() != other.cut.tolist()
