"""XGBoost on the two clinical tables: a classifier and a regressor."""

from __future__ import annotations

from pathlib import Path

from models import baselines, boosting, data
from models.cards import Card, csv_samples, tables
from models.packaging import pack

SAMPLE_ROWS = 20


def breast_cancer_xgboost(into: Path) -> Card:
    """A binary classifier as ``model.ubj``."""
    table = data.breast_cancer()
    rows = boosting.matrix(table.train_x, table.train_y, table.columns)
    booster = boosting.train(rows, 100, objective="binary:logistic", max_depth=3, eta=0.1, subsample=0.8)
    (into / "model.ubj").write_bytes(boosting.saved(booster))
    answers = boosting.predict(booster, table.held_x)
    return Card(
        name=into.name,
        title="Breast tumour classifier (XGBoost)",
        artifact=into.name,
        framework="xgboost",
        data=table,
        score=baselines.against_stump(answers > 0.5, table),
        inputs="30 numbers, in the order of the columns",
        outputs="one number a row: the probability that the tumour is benign (class 1)",
        limits=(
            "One hospital, 569 patients of around 1990: an example for a server, not for decisions about people.",
            "The probability is not calibrated.",
        ),
        samples=csv_samples(table.held_x[:SAMPLE_ROWS], {"predictions": answers[:SAMPLE_ROWS]}),
        training="100 trees of depth 3.",
        extra=tables(table, "benign"),
    )


def diabetes_xgboost(into: Path) -> Card:
    """A regressor as SageMaker's own XGBoost container leaves it: ``model.tar.gz`` with one file ``xgboost-model``."""
    table = data.diabetes()
    rows = boosting.matrix(table.train_x, table.train_y, table.columns)
    booster = boosting.train(rows, 60, objective="reg:squarederror", max_depth=3, eta=0.06, subsample=0.7)
    pack(into / "model.tar.gz", {"xgboost-model": boosting.saved(booster, "json")})
    answers = boosting.predict(booster, table.held_x)
    return Card(
        name=into.name,
        title="Diabetes progression after a year (XGBoost)",
        artifact=f"{into.name}/model.tar.gz",
        framework="xgboost",
        data=table,
        score=baselines.against_mean(baselines.rmse(answers, table.held_y), table),
        inputs="10 numbers in their original units (years, kg/m², mm Hg, mg/dl), in the order of the columns",
        outputs="one number a row: a measure of disease progression between 25 and 346",
        limits=(
            "442 patients: the error stays above two thirds of the spread of the target.",
            "An example for a server, not for decisions about people.",
        ),
        samples=csv_samples(table.held_x[:SAMPLE_ROWS], {"predictions": answers[:SAMPLE_ROWS]}),
        training="60 trees of depth 3; the booster inside is JSON under the legacy name without a suffix.",
    )
