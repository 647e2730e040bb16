"""Rows that must be all there: to most algorithms a missing value is not another number, and their sums and distances
would be none. A neighbour or cluster found by such a distance is a wrong answer that looks like a right one.
"""

from __future__ import annotations

import math

import numpy as np

from serving.codecs.base import Outputs
from serving.errors import BadInput, PredictionFailed

#: The algorithms that know what to do with a missing value.
MISSING_ALLOWED = frozenset({"xgboost"})
#: A row's squares must have a sum in float32, in which the models reckon distances.
_MOST = float(np.finfo(np.float32).max)


@np.errstate(over="ignore", invalid="ignore")  # as a decorator: half the cost of a block
def check(inputs: np.ndarray | dict[str, np.ndarray]) -> None:
    """Raises BadInput, naming the first row with a missing value, an infinity or numbers whose squares no float32
    holds. 1.4 us for a row of 64 numbers: one product tells, as NaN and infinities survive it."""
    for array in inputs.values() if isinstance(inputs, dict) else (inputs,):
        if array.dtype.kind != "f":
            continue
        flat = array.ravel()
        if not math.isfinite(flat.dot(flat)):
            _check_rows(array)


def check_known(inputs: np.ndarray | dict[str, np.ndarray]) -> None:
    """The same for a model that fills missing values itself: NaN passes, as if it were 0."""
    check({name: _filled(array) for name, array in inputs.items()} if isinstance(inputs, dict) else _filled(inputs))


@np.errstate(over="ignore", invalid="ignore")
def check_answer(outputs: Outputs) -> None:
    """Raises PredictionFailed for an answer with NaN or an infinity: JSON would make it a ``null`` that looks like an
    answer."""
    for name, array in outputs.items() if isinstance(outputs, dict) else (("answer", outputs),):
        if array.dtype.kind != "f":
            continue
        flat = array.ravel()
        if not math.isfinite(flat.dot(flat)) and not np.isfinite(flat).all():
            raise PredictionFailed(f"the model's {name} is no finite number")


def _filled(array: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(array), np.zeros_like(array), array) if array.dtype.kind == "f" else array


def _check_rows(array: np.ndarray) -> None:
    """The same row by row, in double precision: many great rows together may be too much for the short way."""
    rows = array.reshape(len(array), -1).astype(np.float64)
    for number, row in enumerate(rows, 1):
        if not np.isfinite(row).all():
            raise BadInput(f"row {number} has a missing value or an infinity: this model needs all of its numbers")
        if float(row.dot(row)) > _MOST:
            raise BadInput(f"row {number} holds numbers too large for the model")
