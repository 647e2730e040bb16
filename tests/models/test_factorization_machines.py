"""Factorization Machines: the linear-time identity, its slope, what is fitted, and the graph that answers."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import sparse

from models.factorization_machines.machine import Effort, Machine, Trainable, fit, gradient, graph
from models.packaging import onnx_bytes, onnx_run

Numbers = NDArray[np.float64]
COLUMNS, FACTORS = 5, 3
VALUES = st.floats(-3, 3, width=32)
ROWS = arrays(np.float64, (4, COLUMNS), elements=st.one_of(st.just(0.0), VALUES))
WEIGHTS = arrays(np.float64, COLUMNS, elements=VALUES)
FACTORED = arrays(np.float64, (COLUMNS, FACTORS), elements=VALUES)
FEW = settings(max_examples=50)


def pairwise(machine: Machine, row: Numbers) -> float:
    """The definition: a product for each pair of columns."""
    pairs = combinations(range(len(row)), 2)
    met = sum(machine.factors[one] @ machine.factors[other] * row[one] * row[other] for one, other in pairs)
    return float(machine.bias + machine.weights @ row + met)


@FEW
@given(rows=ROWS, weights=WEIGHTS, factors=FACTORED)
def test_score_is_the_sum_over_all_pairs(rows: Numbers, weights: Numbers, factors: Numbers) -> None:
    """Rendle's Lemma 3.1: what is reckoned in linear time is the quadratic sum."""
    machine = Machine(0.5, weights, factors)
    expected = [pairwise(machine, row) for row in rows]
    np.testing.assert_allclose(machine.scores(sparse.csr_matrix(rows)), expected, atol=1e-9)


@FEW
@given(rows=ROWS, weights=WEIGHTS, factors=FACTORED)
def test_binary_score_is_the_logistic_of_the_sum(rows: Numbers, weights: Numbers, factors: Numbers) -> None:
    """However large the sum is."""
    raw = np.array([pairwise(Machine(0.5, weights, factors), row) for row in rows])
    expected = np.exp(-np.logaddexp(0, -raw))
    np.testing.assert_allclose(
        Machine(0.5, weights, factors, True).scores(sparse.csr_matrix(rows)), expected, atol=1e-9
    )


@pytest.mark.parametrize("binary", [False, True])
def test_gradient_is_the_slope_of_the_loss(binary: bool) -> None:
    """Against differences of the loss a little to each side, for every weight and factor."""
    dice = np.random.default_rng(3)
    rows = dice.normal(size=(7, COLUMNS)) * (dice.random((7, COLUMNS)) < 0.6)
    target = dice.integers(0, 2, 7).astype(np.float64)
    found = Trainable(dice.normal(size=COLUMNS), dice.normal(size=(COLUMNS, FACTORS)))
    matrix = sparse.csr_matrix(rows)

    def loss(weights: Numbers, factors: Numbers) -> float:
        raw = Machine(0.2, weights, factors).scores(matrix)
        return float(np.sum(np.logaddexp(0, raw) - target * raw if binary else 0.5 * (raw - target) ** 2))

    error = Machine(0.2, *found, binary).scores(matrix) - target
    slope = gradient(found, matrix, matrix.T.tocsr(), matrix.multiply(matrix).T.tocsr(), error)
    for part, values in enumerate(found):
        expected = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [array.copy() for array in found]
                moved[part][place] += step
                ends.append(loss(moved[0], moved[1]))
            expected[place] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(slope[part], expected, atol=1e-5)


def met(dice: np.random.Generator, people: int, films: int) -> tuple[sparse.csr_matrix, Numbers]:
    """All pairs of people and films in any order, and which of them agree: a matter of both and of neither alone."""
    person, film = np.divmod(dice.permutation(people * films), films)
    rows = np.zeros((people * films, people + films))
    rows[np.arange(len(rows)), person] = 1
    rows[np.arange(len(rows)), people + film] = 1
    return sparse.csr_matrix(rows), (person % 2 == film % 2).astype(np.float64)


def test_factors_learn_what_weights_cannot() -> None:
    """Whether two things go together shows in no single one of them: without factors half is guessed."""
    rows, target = met(np.random.default_rng(5), 20, 30)
    free = Effort(factors=2, steps=60, weights_ridge=0.1, factors_ridge=0.1)

    def error(effort: Effort) -> float:
        found = fit(rows[:450], target[:450], effort, np.random.default_rng(1))
        return float(np.sqrt(np.mean((found.scores(rows[450:]) - target[450:]) ** 2)))

    assert 0.1 > error(free)
    assert 0.4 < error(free._replace(factors=0))


def test_binary_machine_learns_probabilities() -> None:
    """The same pairs as classes: nearly all that were held out are on the right side of one half."""
    rows, target = met(np.random.default_rng(6), 20, 30)
    free = Effort(factors=2, steps=60, weights_ridge=0.1, factors_ridge=0.1)
    found = fit(rows[:450], target[:450], free, np.random.default_rng(1), binary=True)
    scores = found.scores(rows[450:])
    assert 0.95 < np.mean((scores > 0.5) == (target[450:] == 1))
    assert 0 < scores.min() <= scores.max() < 1


def test_every_step_is_told() -> None:
    """Who waits hears of each."""
    rows, target = met(np.random.default_rng(7), 2, 2)
    told: list[int] = []
    fit(rows, target, Effort(factors=1, steps=3), np.random.default_rng(1), tell=told.append)
    assert [1, 2, 3] == told


@FEW
@given(rows=ROWS, weights=WEIGHTS, factors=FACTORED, binary=st.booleans())
def test_graph_answers_as_the_machine(rows: Numbers, weights: Numbers, factors: Numbers, binary: bool) -> None:
    """In float32; a classifier's label says on which side of one half its score is."""
    machine = Machine(0.25, weights, factors, binary)
    answer = onnx_run(onnx_bytes(graph(machine, "machine")), {"features": rows.astype(np.float32)})
    np.testing.assert_allclose(answer["score"], machine.scores(sparse.csr_matrix(rows)), atol=1e-4, rtol=1e-4)
    assert binary == ("predicted_label" in answer)
    if binary:
        assert (answer["score"] > 0.5).astype(int).tolist() == answer["predicted_label"].tolist()
