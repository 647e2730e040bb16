"""What SageMaker's XGBoost container makes of a booster's scores, by its environment (aws/sagemaker-xgboost-container,
``algorithm_mode/serve.py`` and ``serve_utils.py``).

``SAGEMAKER_BATCH``: in a batch transform job every answer is lines of text, whatever was asked for.
``SAGEMAKER_INFERENCE_OUTPUT``: a list of keys (``predicted_label,probabilities``); a row is then an object of these, in
every type, and in CSV a list is one quoted cell. A key that the objective has no value for is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from serving.codecs.base import Outputs
from serving.errors import LoadFailed
from serving.runtimes.base import TensorModel

BATCH, SELECTED = "SAGEMAKER_BATCH", "SAGEMAKER_INFERENCE_OUTPUT"
_LABELS = ("predicted_label", "labels")
_SCORES = ("raw_score", "raw_scores")
_PROBABILITIES = ("probability", "probabilities")
_CLASSES = (*_LABELS, *_PROBABILITIES, *_SCORES)
#: Objective -> the keys it has values for, in the container's order.
KEYS: dict[str, tuple[str, ...]] = {
    "reg:squarederror": ("predicted_score",),
    "reg:logistic": ("predicted_score",),
    "reg:gamma": ("predicted_score",),
    "reg:absoluteerror": ("predicted_score",),
    "reg:tweedie": ("predicted_score",),
    "binary:logistic": _CLASSES,
    "binary:logitraw": (*_LABELS, *_SCORES),
    "binary:hinge": (*_LABELS, *_SCORES),
    "multi:softmax": (*_LABELS, *_SCORES),
    "multi:softprob": _CLASSES,
}
#: Objectives whose scores are labels already, and those that decide by a threshold.
_ARE_LABELS = ("binary:hinge", "multi:softmax")
_THRESHOLDS = {"binary:logistic": 0.5, "binary:logitraw": 0.0}


class Objective(NamedTuple):
    """What a booster was trained for: its objective's name, and how many classes it tells apart (0: it does not)."""

    name: str
    classes: int


class SelectedOutput(TensorModel):
    """A booster whose answers are objects of chosen keys."""

    def __init__(self, model: TensorModel, objective: Objective, keys: tuple[str, ...]) -> None:
        """``keys``: in the order of the answer. Raises LoadFailed for an objective that the container does not know."""
        if objective.name not in KEYS:
            raise LoadFailed(f"{SELECTED} is not for the objective {objective.name!r}; it is for {', '.join(KEYS)}")
        self._model = model
        self._objective = objective
        self._keys = keys
        self.spec = model.spec
        self.layout = f"xgboost:{','.join(keys)}"
        self.default_accept = model.default_accept
        self.batchable = model.batchable
        self.max_batch_rows = model.max_batch_rows
        self.engine = model.engine

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """The chosen values of rows, by key. Raises what the model raises."""
        scores = self._model.predict(inputs)
        assert isinstance(scores, np.ndarray)  # a booster has one output
        return {key: value(key, scores, self._objective) for key in self._keys}

    def optimise(self) -> bool:
        """The booster's own."""
        changed = self._model.optimise()
        self.engine = self._model.engine
        return changed

    def set_threads(self, threads: int) -> None:
        """The booster's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the booster."""
        self._model.close()


def dressed(model: TensorModel, objective: Callable[[], Objective], environment: Mapping[str, str]) -> TensorModel:
    """The booster as the container would answer with it in this environment. ``objective`` is asked only where it
    matters: finding out takes a quarter of a load's time. Raises LoadFailed."""
    if SELECTED in environment:
        keys = tuple(dict.fromkeys(filter(None, environment[SELECTED].replace(" ", "").lower().split(","))))
        if not keys:
            raise LoadFailed(f"{SELECTED} names nothing; there are {', '.join((*_CLASSES, 'predicted_score'))}")
        return SelectedOutput(model, objective(), keys)
    if environment.get(BATCH):
        model.layout = "xgboost-batch"
    return model


def value(key: str, scores: np.ndarray, objective: Objective) -> np.ndarray:
    """One key's values of the booster's scores, float32 [rows] or [rows, classes]: [rows] or [rows, n]. NaN where the
    objective has none."""
    rows = len(scores)
    if key not in KEYS[objective.name]:
        return np.full(rows, np.nan, np.float32)
    if key == "predicted_label":
        return _predicted(scores, objective.name)
    if key == "labels":
        return np.tile(np.arange(objective.classes), (rows, 1))
    if key == "predicted_score":
        return scores
    if scores.ndim == 2:  # the only objective with a score for each class: its winner's, or all
        return scores if key in ("probabilities", "raw_scores") else scores.max(axis=1)
    return scores if key in ("probability", "raw_score") else np.stack([1 - scores, scores], axis=1)


def _predicted(scores: np.ndarray, objective: str) -> np.ndarray:
    if objective in _ARE_LABELS:
        return scores
    if objective in _THRESHOLDS:
        return (scores > _THRESHOLDS[objective]).astype(np.int64)
    return np.asarray(scores.argmax(axis=1))
