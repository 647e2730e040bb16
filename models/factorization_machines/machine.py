"""A Factorization Machine: how it is fitted, what it says.

Rendle, "Factorization Machines", ICDM 2010. Each feature has a weight and a few factors; two features that meet in a
row add the product of their factors::

    raw(x) = bias + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j

The sum over pairs is, by his Lemma 3.1, half of the square of the sum less the sum of the squares, for each factor f::

    sum_{i<j} <v_i, v_j> x_i x_j  =  1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ]

so that a row costs as many steps as it has values, not as many as it has pairs; and so do the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto

Numbers = NDArray[np.float64]
#: A ``scipy.sparse`` matrix of rows, which ships no types.
Rows = Any

_OPSET, _IR = 17, 8
#: sum_i x_i (w_i - x_i sum_f v_if^2 / 2)  +  1/2 sum_f (sum_i v_if x_i)^2: one matrix product, the rest value by value.
#: Products with a vector in their place take three times as long in ONNX Runtime (65 instead of 26 us a row).
_GRAPH = """<ir_version: {ir}, opset_import: ["" : {opset}]>
factorization (float[rows, {columns}] features) => ({outputs}) {{
    own = Mul (features, half_squared_factors)
    weighted = Sub (weights, own)
    each = Mul (features, weighted)
    single = ReduceSum <keepdims = 0> (each, last)
    sums = MatMul (features, factors)
    squares = Mul (sums, sums)
    square_of_sums = ReduceSum <keepdims = 0> (squares, last)
    met = Mul (square_of_sums, half)
    both = Add (single, met)
    raw = Add (both, bias)
    {ending}
}}"""


class Trainable(NamedTuple):
    """What is fitted, or its gradient: ``weights`` [columns], ``factors`` [columns, factors]."""

    weights: Numbers
    factors: Numbers


@dataclass(frozen=True, slots=True)
class Machine:
    """A fitted machine. ``binary``: its score is the probability of class 1 (``binary_classifier``), otherwise the
    number itself (``regressor``)."""

    bias: float
    weights: Numbers
    factors: Numbers
    binary: bool = False

    def scores(self, rows: Rows) -> Numbers:
        """The score of each row [rows]."""
        raw: Numbers = self.bias + _raw(Trainable(self.weights, self.factors), rows, rows.multiply(rows).tocsr())
        return _sigmoid(raw) if self.binary else raw


class Effort(NamedTuple):
    """How long and how freely to fit. The two ridges: the penalty on squared weights and factors, in rows."""

    factors: int = 8
    steps: int = 100
    rate: float = 0.05
    weights_ridge: float = 4.0
    factors_ridge: float = 20.0


def fit(
    rows: Rows,
    target: Numbers,
    effort: Effort,
    dice: np.random.Generator,
    *,
    binary: bool = False,
    tell: Callable[[int], None] = lambda step: None,
) -> Machine:
    """Minimise squared error, or for ``binary`` targets of 0 and 1 logistic loss, plus the ridge, by Adam (Kingma and
    Ba 2015) over all rows at once: a step is four products with the sparse matrix. ``tell`` hears of each step."""
    squares = rows.multiply(rows).tocsr()
    turned, turned_squares = rows.T.tocsr(), squares.T.tocsr()
    mean = float(target.mean())
    bias = float(np.log(mean / (1 - mean))) if binary else mean
    found = Trainable(
        np.zeros(rows.shape[1]), dice.normal(0.0, 0.05 if effort.factors else 0.0, (rows.shape[1], effort.factors))
    )
    adams = (_Adam(found.weights, effort.rate), _Adam(found.factors, effort.rate))
    for step in range(1, effort.steps + 1):
        raw = bias + _raw(found, rows, squares)
        error = (_sigmoid(raw) if binary else raw) - target
        slope = gradient(found, rows, turned, turned_squares, error)
        adams[0].step(slope.weights + effort.weights_ridge * found.weights)
        adams[1].step(slope.factors + effort.factors_ridge * found.factors)
        tell(step)
    return Machine(bias, found.weights, found.factors, binary)


def gradient(found: Trainable, rows: Rows, turned: Rows, turned_squares: Rows, error: Numbers) -> Trainable:
    """The slope of half the squared error (or of the logistic loss: it is the same in ``error``, score less target).

    d raw / d v_if = x_i (sum_j v_jf x_j) - v_if x_i^2. ``turned``, ``turned_squares``: the rows and their squares,
    transposed."""
    sums = rows @ found.factors
    drift = (turned_squares @ error)[:, np.newaxis]
    return Trainable(turned @ error, turned @ (error[:, np.newaxis] * sums) - drift * found.factors)


def graph(machine: Machine, name: str) -> ModelProto:
    """``features`` float32 [rows, columns] -> ``score`` [rows], and ``predicted_label`` [rows] of a binary one."""
    from onnx import numpy_helper, parser

    outputs, ending = "float[rows] score", "score = Identity (raw)"
    if machine.binary:
        outputs += ", int64[rows] predicted_label"
        ending = (
            "score = Sigmoid (raw)\n    is_one = Greater (score, half)\n    predicted_label = Cast <to = 7> (is_one)"
        )
    text = _GRAPH.format(ir=_IR, opset=_OPSET, columns=len(machine.weights), outputs=outputs, ending=ending)
    model = parser.parse_model(text)
    model.graph.name = name
    tables = {
        "weights": machine.weights,
        "factors": machine.factors,
        "half_squared_factors": 0.5 * (machine.factors**2).sum(axis=1),
        "bias": np.array(machine.bias),
        "half": np.array(0.5),
    }
    initializers = [numpy_helper.from_array(array.astype(np.float32), key) for key, array in tables.items()]
    model.graph.initializer.extend([*initializers, numpy_helper.from_array(np.array([1]), "last")])
    return model


def _raw(found: Trainable, rows: Rows, squares: Rows) -> Numbers:
    """Without the bias. ``squares``: the rows' squared values."""
    sums = rows @ found.factors
    pairs = np.einsum("rf,rf->r", sums, sums) - squares @ np.einsum("cf,cf->c", found.factors, found.factors)
    raw: Numbers = rows @ found.weights + 0.5 * pairs
    return raw


def _sigmoid(raw: Numbers) -> Numbers:
    """Without overflow on either side."""
    sigmoid: Numbers = 0.5 * (1.0 + np.tanh(0.5 * raw))
    return sigmoid


class _Adam:
    """Steps on one array, in place."""

    def __init__(self, values: Numbers, rate: float) -> None:
        self._values, self._rate = values, rate
        self._mean, self._square = np.zeros_like(values), np.zeros_like(values)
        self._steps = 0

    def step(self, slope: Numbers) -> None:
        """One step down the slope."""
        self._steps += 1
        self._mean += 0.1 * (slope - self._mean)
        self._square += 0.01 * (slope * slope - self._square)
        length = np.sqrt(self._square / (1 - 0.99**self._steps)) + 1e-8
        self._values -= self._rate * (self._mean / (1 - 0.9**self._steps)) / length
