"""Kernel SHAP: from what a model predicts for coalitions to what each player added. Pure.

The weighted linear regression of Lundberg, Lee (NeurIPS 2017), theorem 2, with the constraint that all parts add up to
the prediction less the baseline's, put in by elimination. Why not the ``shap`` package: it asks the model from a
blocking callback, its import takes 2 s and 240 MB, and it draws from the process's one random state. Tests hold the two
against each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from serving.errors import PredictionFailed
from serving.explain.coalitions import Coalitions

#: How near to 0 and 1 a probability may be, where its log-odds are taken.
_EDGE = 2.0**-52

Link = Callable[[np.ndarray], np.ndarray]


def identity(predictions: np.ndarray) -> np.ndarray:
    """Predictions as they are."""
    return predictions


def logit(predictions: np.ndarray) -> np.ndarray:
    """Their log-odds. Raises ``PredictionFailed`` for what is no probability."""
    if not np.all((predictions >= 0.0) & (predictions <= 1.0)):
        worst = predictions.flat[int(np.argmax(np.abs(predictions - 0.5)))]
        raise PredictionFailed(f"UseLogit needs probabilities from 0 to 1; the model answered {float(worst):g}.")
    inside = np.clip(predictions, _EDGE, 1.0 - _EDGE)
    odds: np.ndarray = np.log(inside) - np.log1p(-inside)
    return odds


def attributions(
    known: Coalitions | None, answers: np.ndarray, prediction: np.ndarray, base: np.ndarray, link: Link, players: int
) -> np.ndarray:
    """What each player added: float64 [players, outputs], whose sum over the players is link(prediction) - link(base).

    ``answers``: [n, outputs], the mean prediction over the baseline for each coalition; ``known`` None: there are none,
    as of a single player. ``prediction``, ``base``: [outputs]."""
    start = link(base)
    total = link(prediction) - start
    if known is None or players < 2:
        return np.repeat(total[None], players, axis=0)
    masks = known.masks.astype(np.float64)
    last = masks[:, -1:]
    design, gains = masks[:, :-1] - last, link(answers) - start - last * total
    weighted = design.T * known.weights
    try:
        first = np.linalg.solve(weighted @ design, weighted @ gains)
    except np.linalg.LinAlgError:  # fewer coalitions than players: the smallest of all solutions
        root = np.sqrt(known.weights)[:, None]
        first = np.linalg.lstsq(design * root, gains * root, rcond=None)[0]
    return np.concatenate([first, total[None] - first.sum(0, keepdims=True)])
