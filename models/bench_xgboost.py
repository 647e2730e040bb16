"""The model of the bench table: 100 trees that really are six levels deep, on 30 columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import baselines, boosting, data
from models.cards import Card, csv_samples
from models.data import SEED, DataSet, Floats

ROWS = 30_000
FEATURE_NOISE = 0.5  # standard deviations
FLIPPED = 0.2  # share of labels
TREES, DEPTH = 100, 6
SAMPLE_ROWS = 100


def bench_xgboost(into: Path) -> Card:
    """The cost of a tree model is its depth and size, so the training rows are blown up until every tree is deep."""
    table = data.breast_cancer()
    rows = boosting.matrix(*_blown_up(table))
    booster = boosting.train(
        rows, TREES, objective="binary:logistic", max_depth=DEPTH, eta=0.1, min_child_weight=0, reg_lambda=0.1
    )
    (into / "model.ubj").write_bytes(boosting.saved(booster))
    answers = boosting.predict(booster, table.held_x)
    leaves = [tree.count("leaf=") for tree in booster.get_dump()]
    return Card(
        name=into.name,
        title=f"Bench model: {TREES} trees of depth {DEPTH} (XGBoost)",
        artifact=into.name,
        framework="xgboost",
        data=table,
        score=baselines.against_stump(answers > 0.5, table),
        inputs="30 numbers, in the order of the columns",
        outputs="one number a row: the probability that the tumour is benign (class 1)",
        limits=("Made for measuring a server. For the task itself, breast-cancer-xgboost is smaller and better.",),
        samples=csv_samples(table.held_x[:SAMPLE_ROWS], {"predictions": answers[:SAMPLE_ROWS]}),
        training=f"{ROWS} rows drawn from the training rows with noise on every column and {FLIPPED:.0%} of the labels "
        "flipped, for otherwise the trees stay small; the held-out rows are untouched.",
        facts={"trees": TREES, "depth": DEPTH, "leaves_fewest": min(leaves), "leaves_mean": float(np.mean(leaves))},
    )


def _blown_up(table: DataSet) -> tuple[Floats, Floats]:
    dice = np.random.default_rng(SEED)
    drawn = dice.integers(len(table.train_x), size=ROWS)
    noise = dice.normal(size=(ROWS, len(table.columns))) * table.train_x.std(axis=0) * FEATURE_NOISE
    flipped = dice.random(ROWS) < FLIPPED
    labels = np.where(flipped, 1 - table.train_y[drawn], table.train_y[drawn])
    return (table.train_x[drawn] + noise).astype(np.float32), labels.astype(np.float32)
