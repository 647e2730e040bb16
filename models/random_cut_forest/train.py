"""Days on which New York's departures ran unlike other days, by a Random Cut Forest over the hours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import samples
from models.cards import Card, Sample, Score, Source, csv_body, json_body
from models.data import SEED
from models.packaging import onnx_bytes
from models.random_cut_forest.days import HOURS, LICENCE, NAME, ODD, SOURCE, Days, days
from models.random_cut_forest.forest import DEPTH, DISPLACEMENT, grow
from models.random_cut_forest.graph import graph
from models.recipes import Tell

AIM = 0.92
#: AWS advises a sample of about one over the share of odd points: one day in twenty was odd.
TREES, SAMPLE = 50, 32
HELD_OUT = 0.5
SAMPLE_ROWS = 20


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Grow the forest over half of the days, write ``model.onnx``, score the rest. ``effort``: share of the trees."""
    table = days()
    order = np.random.default_rng(SEED).permutation(len(table.left))
    held, learned = np.split(order, [round(HELD_OUT * len(order))])
    trees = max(1, round(effort * TREES))
    tell(0.2, f"growing {trees} trees over {SAMPLE} days each")
    forest = grow(table.left[learned], trees, SAMPLE, DEPTH, np.random.default_rng(SEED))
    (into / "model.onnx").write_bytes(onnx_bytes(graph(forest, into.name)))
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "randomcutforest", "Model": "model.onnx"}) + "\n")

    tell(0.6, "the same trees with the paper's own score")
    displacing = grow(table.left[learned], trees, SAMPLE, DISPLACEMENT, np.random.default_rng(SEED))
    rows, odd = table.left[held], table.odd[held]
    scores = forest.scores(rows)
    return Card(
        name=into.name,
        title="Random Cut Forest: odd days at New York's airports",
        artifact=into.name,
        framework="onnx",
        data=Source(NAME, SOURCE, LICENCE, len(learned), len(held), "days", HOURS),
        score=Score(
            metric="area under the ROC curve, for days with mass cancellations",
            value=_area(scores, odd),
            baseline="fewer flights than other days",
            baseline_value=_area(-rows.sum(axis=1), odd),
            aim=AIM if effort >= 1 else None,
        ),
        inputs="24 numbers: how many flights left in each hour of a day, from midnight",
        outputs="`score`, the higher the odder: an ordinary day has about 0.8, the oddest 2.8. As AWS advises, look at "
        "those more than three standard deviations above the mean",
        limits=(
            f"Judged by cancellations ({ODD:.0%} of a day's flights), which the forest is not told; holidays are odd "
            "too and count as false alarms.",
            f"One year, and few odd days: {int(odd.sum())} among the {len(odd)} held out.",
            "A forest as it was trained: points that are asked about do not join it.",
        ),
        samples=_samples(rows[:SAMPLE_ROWS], scores[:SAMPLE_ROWS]),
        training=f"{trees} trees over {SAMPLE} days each; the score is the expectation of one over the depth.",
        facts={
            "roc_auc_by_collusive_displacement": _area(displacing.scores(rows), odd),
            "roc_auc_of_isolation_forest": _area(_isolation(table.left[learned], rows), odd),
            "boxes": len(forest.boxes),
        },
        extra={"days.csv": csv_body(table.left), "days.json": json_body(_described(table, held))},
    )


def _area(scores: NDArray[Any], odd: NDArray[np.bool_]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(odd, scores))


def _isolation(learned: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """scikit-learn's relative of the forest, whose cuts do not go by the sides of the box."""
    from sklearn.ensemble import IsolationForest

    found = IsolationForest(n_estimators=TREES, max_samples=SAMPLE, random_state=SEED).fit(learned)
    scores: NDArray[np.float64] = -found.score_samples(rows)
    return scores


def _samples(rows: NDArray[np.float32], scores: NDArray[np.float32]) -> tuple[Sample, ...]:
    answers = [{"score": float(score)} for score in scores]
    return samples.of_rows(rows, answers, "scores", 1e-4)


def _described(table: Days, held: NDArray[np.int64]) -> dict[str, Any]:
    """For the picture: each day's date, what share of its flights was cancelled, and whether it was held out."""
    return {
        "dates": table.dates,
        "cancelled": table.cancelled.round(4),
        "held": np.isin(np.arange(len(table.dates)), held).tolist(),
    }
