"""Several hundred small models for the multi-model endpoint: one per (pretended) customer, each with its own data.

Every member is trained on its own bootstrap sample of the diabetes patients with its own random columns per tree, so
no two answer alike: a mix-up in a cache shows as a wrong number. All take the same row, so one request fits all.

SageMaker's multi-model container knows only ``.tar.gz``; ours also takes a bare file. Most members are bare ``.ubj``
files, as unpacking would dominate a cold call of a model that loads in a millisecond; the last ``PACKED`` keep
SageMaker's form, so that both paths are walked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import baselines, boosting, data
from models.cards import Card, csv_samples, json_body
from models.data import SEED, DataSet, Floats
from models.packaging import pack

MEMBERS = 500
PACKED = 10
SAMPLE_ROWS = 20


def zoo(into: Path) -> Card:
    """``model-000.ubj`` ... and the last few as ``.tar.gz``; the card's ``members.json`` has the answer of each."""
    table = data.diabetes()
    answers = _train_members(into, table)
    named, first = next(iter(answers.items()))
    errors = [baselines.rmse(answer, table.held_y) for answer in answers.values()]
    row = {name: answer[:1] for name, answer in answers.items()}
    return Card(
        name=into.name,
        title=f"{MEMBERS} models of diabetes progression (XGBoost)",
        artifact=into.name,
        framework="xgboost",
        data=table,
        score=baselines.against_mean(float(np.median(errors)), table),
        inputs="10 numbers in their original units, in the order of the columns; the member is chosen by TargetModel",
        outputs="one number a row: a measure of disease progression between 25 and 346",
        limits=(
            "The members differ by resampling one data set; no real customers stand behind them.",
            "The score is the median over the members.",
        ),
        samples=csv_samples(table.held_x[:SAMPLE_ROWS], {"predictions": first[:SAMPLE_ROWS]}),
        training="40 trees of depth 4 each.",
        target_model=named,
        facts={"members": MEMBERS, "rmse_best": min(errors), "rmse_worst": max(errors)},
        extra={"members.json": json_body(row)},
    )


def _train_members(into: Path, table: DataSet) -> dict[str, Floats]:
    """Train and write all members; their held-out answers by file name. A bootstrap sample is the same rows with drawn
    weights, so the rows are prepared once: 7 ms a member."""
    rows = boosting.matrix(table.train_x, table.train_y)
    count = len(table.train_y)
    answers = {}
    for number in range(MEMBERS):
        drawn = np.random.default_rng([SEED, number]).multinomial(count, np.full(count, 1 / count))
        rows.set_weight(drawn.astype(np.float32))
        member = boosting.train(
            rows, 40, objective="reg:squarederror", max_depth=4, eta=0.08, colsample_bytree=0.6, seed=SEED + number
        )
        answers[_write(into, number, boosting.saved(member))] = boosting.predict(member, table.held_x)
    return answers


def _write(into: Path, number: int, booster: bytes) -> str:
    """Write one member; the file name it got."""
    if number < MEMBERS - PACKED:
        name = f"model-{number:03d}.ubj"
        (into / name).write_bytes(booster)
    else:
        name = f"model-{number:03d}.tar.gz"
        pack(into / name, {"xgboost-model": booster})
    return name
