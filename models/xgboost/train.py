"""Will a flight that leaves its gate now arrive a quarter of an hour late?

A ``model.tar.gz`` with one file ``xgboost-model``, as SageMaker's XGBoost container leaves it: nothing else is needed
to serve it in that one's dress.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from models import boosting, flights
from models.cards import Card, Sample, Score, Source
from models.data import Floats
from models.packaging import pack
from models.recipes import Tell
from models.samples import CSV, JSON, LINES, RECORDIO, recordio

AIM = 0.908
ROUNDS = 100
SAMPLE_ROWS = 20
_FEW = 3


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on three days of four, write ``model.tar.gz``, judge on the fourth. ``effort``: share of rows and trees."""
    from sklearn.metrics import roc_auc_score

    tell(0.0, "reading flights")
    data = flights.load(effort)
    rounds = max(5, round(ROUNDS * effort))
    tell(0.4, f"growing {rounds} trees on {len(data.train_x)} flights")
    late = (data.train_minutes >= flights.LATE).astype(np.float32)
    rows = boosting.matrix(data.train_x.astype(np.float32), late, flights.COLUMNS)
    booster = boosting.train(
        rows, rounds, objective="binary:logistic", max_depth=6, eta=0.1, subsample=0.8, colsample_bytree=0.7
    )
    pack(into / "model.tar.gz", {"xgboost-model": boosting.saved(booster)})

    tell(0.9, "judging held-out days")
    held = data.held_x.astype(np.float32)
    answers = boosting.predict(booster, held)
    truth = data.held_minutes >= flights.LATE
    return Card(
        name=into.name,
        title="XGBoost: flights that will arrive late",
        artifact=f"{into.name}/model.tar.gz",
        framework="xgboost",
        data=Source(
            flights.NAME,
            flights.SOURCE,
            flights.LICENCE,
            len(data.train_x),
            len(held),
            "flights",
            flights.COLUMNS,
            ("in time", "late"),
        ),
        score=Score(
            "area under the ROC curve",
            float(roc_auc_score(truth, answers)),
            "the delay at departure alone",
            float(roc_auc_score(truth, data.held_x[:, flights.COLUMNS.index("delay")])),
            aim=AIM if effort >= 1 else None,
        ),
        inputs=flights.INPUTS,
        outputs=f"`score`, the probability that the flight arrives {flights.LATE} minutes late or later",
        limits=(
            "Three airports in one year: other years have other timetables, and cancelled flights are left out.",
            "Carriers and airports are numbers in the order of their names, which trees can only cut into ranges.",
        ),
        samples=_samples(held, answers),
        training=f"{rounds} trees of depth 6.",
        extra={
            "held.csv": flights.held_csv(data),
            "codes.json": json.dumps(data.codes).encode(),
            "gain.json": _gain(booster),
        },
    )


def _samples(rows: Floats, answers: Floats) -> tuple[Sample, ...]:
    """XGBoost's own request types. A row with empty cells is one whose weather is not known."""
    few, objects = rows[:_FEW], [{"score": float(one)} for one in answers[:SAMPLE_ROWS]]
    missing = np.flatnonzero(np.isnan(rows).any(axis=1))[:_FEW]
    column = [[float(one)] for one in answers]
    document = {"predictions": objects}
    return (
        Sample("request", ".csv", CSV, flights.csv(rows[:1]), column[:1], accept=CSV),
        Sample("batch", ".csv", CSV, flights.csv(rows[:SAMPLE_ROWS]), document, accept=JSON),
        Sample("missing", ".csv", CSV, flights.csv(rows[missing]), [column[row] for row in missing], accept=CSV),
        Sample(
            "libsvm", ".libsvm", "text/libsvm", _libsvm(rows[missing]), [column[row] for row in missing], accept=CSV
        ),
        Sample("recordio", ".rec", RECORDIO, recordio(few), {"predictions": objects[:_FEW]}, accept=JSON),
        Sample("lines", ".csv", CSV, flights.csv(few), objects[:_FEW], accept=LINES),
    )


def _libsvm(rows: Floats) -> bytes:
    """``column:value`` of all cells that are there: XGBoost takes the others for missing, not for zero."""
    lines = (" ".join(f"{at}:{row[at]}" for at in np.flatnonzero(~np.isnan(row))) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def _gain(booster: Any) -> bytes:
    """How much each column's splits gained in all, for the picture."""
    return json.dumps(booster.get_score(importance_type="total_gain")).encode()
