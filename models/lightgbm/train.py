"""How many minutes does a flight lose, or make up, between gate and gate? A ``model.txt`` as LightGBM saves it.

Carrier, origin and destination are categories to it: a split takes any set of them, where XGBoost's model of the same
flights can only cut their numbers into ranges.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models import baselines, flights
from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED
from models.flights import Doubles
from models.recipes import Tell
from models.samples import CSV, JSON, LINES

AIM = 17.0
ROUNDS = 150
SAMPLE_ROWS = 20
_FEW = 3
_TREES = {
    "objective": "regression",
    "num_leaves": 31,
    "learning_rate": 0.1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": SEED,
    "verbosity": -1,
}


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Train on three days of four, write ``model.txt``, judge on the fourth. ``effort``: share of rows and trees."""
    import lightgbm

    tell(0.0, "reading flights")
    data = flights.load(effort)
    rounds = max(5, round(ROUNDS * effort))
    tell(0.4, f"growing {rounds} trees on {len(data.train_x)} flights")
    delay = flights.COLUMNS.index("delay")
    lost = data.train_minutes - data.train_x[:, delay]
    rows = lightgbm.Dataset(
        data.train_x,
        lost,
        feature_name=list(flights.COLUMNS),
        categorical_feature=[flights.COLUMNS.index(name) for name in flights.CODED],
    )
    booster = lightgbm.train(_TREES, rows, rounds)
    (into / "model.txt").write_text(booster.model_to_string())

    tell(0.9, "judging held-out days")
    truth = data.held_minutes - data.held_x[:, delay]
    answers = np.asarray(booster.predict(data.held_x))
    return Card(
        name=into.name,
        title="LightGBM: minutes lost on the way",
        artifact=into.name,
        framework="lightgbm",
        data=Source(
            flights.NAME,
            flights.SOURCE,
            flights.LICENCE,
            len(data.train_x),
            len(truth),
            "flights",
            flights.COLUMNS,
        ),
        score=Score(
            "rmse in minutes",
            baselines.rmse(answers, truth),
            "always the mean",
            baselines.rmse(np.full(len(truth), lost.mean()), truth),
            higher_is_better=False,
            aim=AIM if effort >= 1 else None,
        ),
        inputs=flights.INPUTS,
        outputs="a number a row: minutes late at arrival less minutes late at departure, below 0 where time is made up",
        limits=(
            "Three airports in one year: other years have other timetables, and cancelled flights are left out.",
            "Most of what happens in the air is not known at the gate: the model explains a seventh of the variance.",
            "LightGBM is answered as any other model, a bare number a row; SageMaker's own has no format in our table.",
        ),
        samples=_samples(data.held_x[:SAMPLE_ROWS], answers),
        training=f"{rounds} trees of 31 leaves; carrier, origin and destination as categories.",
        extra={
            "held.csv": flights.held_csv(data),
            "codes.json": json.dumps(data.codes).encode(),
        },
    )


def _samples(rows: Doubles, answers: Doubles) -> tuple[Sample, ...]:
    """Every type that holds rows; CSV's empty cells are the weather that is not known."""
    few, found = rows[:_FEW], answers[: len(rows)].tolist()
    cells = [[None if np.isnan(cell) else cell for cell in row] for row in few]
    document = json_body({"instances": cells})
    return (
        Sample("request", ".csv", CSV, flights.csv(rows[:1]), {"predictions": found[:1]}, accept=JSON),
        Sample("batch", ".csv", CSV, flights.csv(rows), [[one] for one in found], accept=CSV),
        Sample("instances", ".json", JSON, document, {"predictions": found[:_FEW]}, accept=JSON),
        Sample("lines", ".csv", CSV, flights.csv(few), found[:_FEW], accept=LINES),
    )
