"""People and films as vectors of one space, learned from the stars that the ones gave the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED
from models.factorization_machines.ratings import LICENCE, NAME, SOURCE, Ratings, ratings
from models.object2vec.net import Net, graph, learn
from models.packaging import onnx_bytes
from models.recipes import Tell

AIM = 0.875
HELD_OUT = 0.2
EPOCHS = 6
#: How many ratings a person's or a film's mean is worth before it is believed, in the baseline.
DAMPING = 5.0
SAMPLE_PAIRS, SHOWN_FILMS, SHOWN_RATINGS = 20, 250, 2000
PADDING = -1


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Fit on four fifths of the ratings, write ``model.onnx``, judge on the rest. ``effort``: share of the epochs."""
    import torch

    torch.set_num_threads(1)
    table = ratings()
    person, film = tokens(table)
    order = np.random.default_rng(SEED).permutation(len(table.stars))
    held, learned = np.split(order, [round(HELD_OUT * len(order))])
    vocabularies = (table.people, table.rows.shape[1] - table.people)
    epochs = max(1, round(effort * EPOCHS))
    net = Net.random(vocabularies, float(table.stars[learned].mean()), SEED)
    for epoch in learn(net, person[learned], film[learned], table.stars[learned], epochs, SEED):
        tell(0.1 + 0.8 * epoch / epochs, f"epoch {epoch} of {epochs}")
    (into / "model.onnx").write_bytes(onnx_bytes(graph(net, into.name)))
    declared = {
        "Algorithm": "object2vec",
        "Model": "model.onnx",
        "Enc0VocabSize": vocabularies[0],
        "Enc1VocabSize": vocabularies[1],
    }
    (into / "algorithm.json").write_text(json.dumps(declared) + "\n")

    tell(0.95, "judging held-out ratings")
    truth = table.stars[held]
    return Card(
        name=into.name,
        title="Object2Vec: films and people as vectors",
        artifact=into.name,
        framework="onnx",
        data=Source(NAME, SOURCE, LICENCE, len(learned), len(held), "ratings"),
        score=Score(
            metric="root mean squared error in stars",
            value=_rmse(net.scores(person[held], film[held])[:, 0], truth),
            baseline="means of film and person",
            baseline_value=_rmse(_off_the_mean(table, learned)[held], truth),
            higher_is_better=False,
            aim=AIM if effort >= 1 else None,
        ),
        inputs=f"`in0`: a person, 0 to {vocabularies[0] - 1}; `in1`: a film, 0 to {table.films - 1}, then its genres "
        f"from {table.films} and its five years from {table.films + table.genres}; one of the two for its embeddings",
        outputs=f"`scores`, the stars to expect; or `embeddings`, {net.dimensions} numbers",
        limits=(
            "671 people of 1995 to 2016: there is nobody else in it.",
            "Genres and years tell of a film that few have rated; of a person there is nothing but ratings.",
            "The terms of MovieLens allow research, not commercial use.",
        ),
        samples=_samples(net, person[held][:SAMPLE_PAIRS], film[held][:SAMPLE_PAIRS]),
        training=f"Means of {net.dimensions} numbers a token, compared by a net of one layer; {epochs} epochs.",
        facts={"root_mean_squared_error_of_the_mean": _rmse(np.full(len(truth), table.stars[learned].mean()), truth)},
        extra={"films.json": json_body(_films(table, film))},
    )


def tokens(table: Ratings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64 [ratings, 1] of the person, and [ratings, longest] of the film, its genres and its five years, -1 after
    their end: the columns of the sparse rows."""
    rows = table.rows.sorted_indices()
    sizes = np.diff(rows.indptr)
    width = int(sizes.max())
    there = np.arange(width) < sizes[:, None]
    columns = np.full((len(sizes), width), PADDING, np.int64)
    columns[there] = rows.indices
    films = np.where(there, columns - table.people, PADDING)
    return columns[:, :1], films[:, 1:]


def _off_the_mean(table: Ratings, learned: NDArray[np.int64]) -> NDArray[np.float64]:
    """For every rating the mean of those learned from, and what its film and its person lie off it, damped."""
    person = tokens(table)[0][:, 0]
    mean = table.stars[learned].mean()
    rest = table.stars - mean
    for group in (table.film, person):
        total = np.bincount(group[learned], rest[learned], group.max() + 1)
        count = np.bincount(group[learned], minlength=group.max() + 1)
        rest = rest - (total / (count + DAMPING))[group]
    return np.asarray(table.stars - rest)


def _rmse(scores: NDArray[Any], truth: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((scores - truth) ** 2)))


def _samples(net: Net, person: NDArray[np.int64], film: NDArray[np.int64]) -> tuple[Sample, ...]:
    kind, lines = "application/json", "application/jsonlines"
    pairs = [{"in0": one.tolist(), "in1": _filled(other)} for one, other in zip(person, film, strict=True)]
    scores = [{"scores": row} for row in net.scores(person, film)]
    people = [{"embeddings": row} for row in net.embeddings(0, person[:3])]
    cut = [{"embeddings": row} for row in net.embeddings(1, film[:3, :2])]
    return (
        Sample("request", ".json", kind, _instances(pairs[:1]), {"predictions": scores[:1]}, 1e-4, kind),
        Sample("batch", ".jsonl", lines, b"".join(map(json_body, pairs)), scores, 1e-4, lines),
        Sample("people", ".json", kind, _instances(_only("in0", pairs[:3])), {"predictions": people}, accept=kind),
        Sample(
            "films",
            ".jsonl",
            f"{lines}; infer_max_seqlens=1,2",
            b"".join(map(json_body, _only("in1", pairs[:3]))),
            cut,
            accept=lines,
        ),
    )


def _filled(row: NDArray[np.int64]) -> list[int]:
    return [token for token in row.tolist() if token != PADDING]


def _only(side: str, pairs: list[dict[str, list[int]]]) -> list[dict[str, list[int]]]:
    return [{side: pair[side]} for pair in pairs]


def _instances(rows: list[dict[str, list[int]]]) -> bytes:
    return json_body({"instances": rows})


def _films(table: Ratings, film: NDArray[np.int64]) -> dict[str, Any]:
    """For the picture: the most rated films, what they are asked by, and from which token on these are genres."""
    first = {number: row for row, number in reversed(list(enumerate(table.film)))}
    rows = [first[number] for number in np.argsort(-np.bincount(table.film), kind="stable")[:SHOWN_FILMS]]
    return {
        "genres_from": table.films,
        "titles": [table.titles[table.film[row]] for row in rows],
        "instances": [{"in1": _filled(film[row])} for row in rows],
    }
