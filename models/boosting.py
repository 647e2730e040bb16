"""XGBoost, the same way everywhere: one thread, a fixed seed, so the same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.data import SEED, Floats

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix

COMMON: Mapping[str, Any] = {"nthread": 1, "seed": SEED, "tree_method": "hist", "verbosity": 0}


def matrix(x: Floats, y: Floats, columns: tuple[str, ...] = ()) -> DMatrix:
    """Training rows. With ``columns`` the artifact carries the feature names, as one trained from a table does."""
    import xgboost

    return xgboost.DMatrix(x, label=y, feature_names=list(columns) or None, nthread=1)


def train(rows: DMatrix, rounds: int, **params: Any) -> Booster:
    """``rounds`` trees on ``rows``."""
    import xgboost

    return xgboost.train({**COMMON, **params}, rows, num_boost_round=rounds)


def predict(booster: Booster, x: Floats) -> Floats:
    """float32 ``[rows]``: probability of class 1, or the estimated target."""
    answer: Floats = booster.inplace_predict(x)
    return answer


def saved(booster: Booster, form: str = "ubj") -> bytes:
    """The artifact's bytes, ``ubj`` or ``json``."""
    return bytes(booster.save_raw(form))
