"""Stars that people gave films, foretold by a Factorization Machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from models import samples
from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED
from models.factorization_machines.machine import Effort, Machine, fit, graph
from models.factorization_machines.ratings import LICENCE, NAME, SOURCE, Ratings, ratings
from models.packaging import onnx_bytes
from models.recipes import Tell

AIM = 0.86
HELD_OUT = 0.2
#: Chosen on a tenth of the ratings to learn from: any ridge from 14 to 28 does.
FULL = Effort()
#: What the baseline is: the same machine without factors, only a weight a person, a film, a genre, five years.
NO_FACTORS = Effort(factors=0, steps=60)
SAMPLE_ROWS = 20
SHOWN_FILMS, SHOWN_RATINGS = 300, 400
SHOWN_PERSON = (100, 300)  # ratings: enough to be known by, and no collector


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Fit on four fifths of the ratings, write ``model.onnx``, judge on the rest. ``effort``: share of the steps."""
    table = ratings()
    dice = np.random.default_rng(SEED)
    order = dice.permutation(len(table.stars))
    held, learned = np.split(order, [round(HELD_OUT * len(order))])
    full = FULL._replace(steps=max(1, round(effort * FULL.steps)))

    def told(step: int) -> None:
        if step % 10 == 0:
            tell(0.1 + 0.7 * step / full.steps, f"step {step} of {full.steps}")

    rows, stars = table.rows[learned], table.stars[learned]
    machine = fit(rows, stars, full, dice, tell=told)
    (into / "model.onnx").write_bytes(onnx_bytes(graph(machine, into.name)))
    (into / "algorithm.json").write_text(
        json.dumps({"Algorithm": "factorization-machines", "Model": "model.onnx"}) + "\n"
    )

    tell(0.85, "the model without factors, to compare with")
    plain = fit(rows, stars, NO_FACTORS, dice)
    asked, truth = table.rows[held], table.stars[held]
    scores = machine.scores(asked)
    return Card(
        name=into.name,
        title="Factorization Machines: films rated by people",
        artifact=into.name,
        framework="onnx",
        data=Source(NAME, SOURCE, LICENCE, len(learned), len(held), "ratings"),
        score=Score(
            metric="root mean squared error in stars",
            value=_rmse(scores, truth),
            baseline="a weight a person and a film, no factors",
            baseline_value=_rmse(plain.scores(asked), truth),
            higher_is_better=False,
            aim=AIM if effort >= 1 else None,
        ),
        inputs=f"sparse, {table.rows.shape[1]} columns: {table.people} people, {table.films} films (a one each), "
        f"{table.genres} genres (equal shares of one), {table.periods} periods of five years (a one)",
        outputs="`score`, the stars to expect; a little below 0.5 or above 5 happens",
        limits=(
            "671 people of 1995 to 2016: who is none of them has no column, and gets what people on the whole think.",
            "Ratings are not visits: nobody rates at random, and films that nobody rated are judged by their kind.",
            "The terms of MovieLens allow research, not commercial use.",
        ),
        samples=_samples(asked[:SAMPLE_ROWS], scores[:SAMPLE_ROWS]),
        training=f"{full.factors} factors a column, {full.steps} steps over all ratings.",
        facts={"root_mean_squared_error_of_the_mean": _rmse(np.full(len(truth), stars.mean()), truth)},
        extra={
            "films.json": json_body(_films(table, machine)),
            "held.json": json_body({"instances": _instances(asked[:SHOWN_RATINGS])}),
            "held.stars.json": json_body(truth[:SHOWN_RATINGS]),
        },
    )


def _rmse(scores: Any, truth: Any) -> float:
    return float(np.sqrt(np.mean((scores - truth) ** 2)))


def _instances(rows: Any) -> list[dict[str, Any]]:
    """``{"data": {"features": {"keys", "shape", "values"}}}`` of each sparse row, the shortest digits of float32."""
    return [
        {"data": {"features": {"keys": row.indices, "shape": [row.shape[1]], "values": row.data.astype(np.float32)}}}
        for row in (rows[number].sorted_indices() for number in range(rows.shape[0]))
    ]


def _samples(rows: Any, scores: Any) -> tuple[Sample, ...]:
    """Sparse JSON, sparse JSON Lines, and one dense record, as long as it is."""
    instances = _instances(rows)
    answers = [{"score": float(score)} for score in scores]
    lines = b"".join(json_body(instance) for instance in instances)
    record = samples.recordio(rows[:1].toarray().astype(np.float32))
    first = {"predictions": answers[:1]}
    return (
        Sample("request", ".json", samples.JSON, json_body({"instances": instances[:1]}), first, 1e-4, samples.JSON),
        Sample("batch", ".jsonl", samples.LINES, lines, answers, 1e-4, samples.LINES),
        Sample("recordio", ".rec", samples.RECORDIO, record, first, 1e-4, samples.JSON),
    )


def _films(table: Ratings, machine: Machine) -> dict[str, Any]:
    """For the picture: the most rated films, each asked for the person of the strongest tastes."""
    often = np.argsort(-np.bincount(table.film), kind="stable")[:SHOWN_FILMS]
    given = np.asarray(table.rows[:, : table.people].sum(axis=0)).ravel()
    known = (SHOWN_PERSON[0] <= given) & (given <= SHOWN_PERSON[1])
    person = int((np.linalg.norm(machine.factors[: table.people], axis=1) * known).argmax())
    first = {film: number for number, film in reversed(list(enumerate(table.film)))}
    rows = table.rows[[first[film] for film in often]].tolil()
    rows[:, : table.people] = 0
    rows[:, person] = 1
    means = np.bincount(table.film, table.stars) / np.bincount(table.film)
    return {
        "titles": [table.titles[film] for film in often],
        "means": means[often].round(3),
        "instances": _instances(rows.tocsr()),
    }
