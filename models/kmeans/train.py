"""Ten clusters of handwritten digits, found in one pass over two streams of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import data, samples
from models.cards import Card, Sample, Score, Source, csv_body
from models.data import SEED, DataSet, Floats
from models.kmeans import stream
from models.packaging import onnx_bytes
from models.recipes import Tell

if TYPE_CHECKING:
    from onnx import ModelProto

K, EXTRA_CENTER_FACTOR = 10, 8
BATCH = 200
#: The mean squared distance may be this many times that of scikit-learn, which looks at all rows again and again.
SLACK = 1.03
SAMPLE_ROWS, SHOWN_ROWS = 20, 150
_OPSET, _IR = 17, 8
#: All differences rather than the product form, which would lose the digits of small distances.
_GRAPH = """<ir_version: {ir}, opset_import: ["" : {opset}]>
nearest (float[rows, {columns}] features) => (float[rows] closest_cluster, float[rows] distance_to_cluster) {{
    row = Unsqueeze (features, middle)
    difference = Sub (row, centres)
    squares = Mul (difference, difference)
    squared = ReduceSum <keepdims = 0> (squares, last)
    number = ArgMin <axis = 1, keepdims = 0> (squared)
    closest_cluster = Cast <to = 1> (number)
    least = ReduceMin <axes = [1], keepdims = 0> (squared)
    distance_to_cluster = Sqrt (least)
}}"""


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Two streams of digits in small batches, merged, then reduced. ``effort``: share of the rows."""
    table = data.digits()
    rows = table.train_x[: max(BATCH, round(effort * len(table.train_x)))].astype(np.float64)
    dice = np.random.default_rng(SEED)
    tell(0.1, f"two streams of {len(rows) // 2} digits")
    most = K * EXTRA_CENTER_FACTOR
    one, other = (stream.absorb(_batches(part), most, dice) for part in np.array_split(rows, 2))
    tell(0.4, f"reducing {most} centres to {K}")
    centres = stream.reduce(stream.merge(one, other, most, dice), K, dice).astype(np.float32)
    (into / "model.onnx").write_bytes(onnx_bytes(graph(centres, into.name)))
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "kmeans", "Model": "model.onnx"}) + "\n")

    tell(0.6, "judging held-out digits beside scikit-learn")
    full = _of_library(rows)
    number, squared = stream.nearest(table.held_x.astype(np.float64), centres.astype(np.float64))
    score = _score(table, squared, full, dice)
    answers = [
        {"closest_cluster": float(one), "distance_to_cluster": float(np.float32(np.sqrt(distance)))}
        for one, distance in zip(number[:SAMPLE_ROWS], squared, strict=False)
    ]
    return Card(
        name=into.name,
        title="K-Means: handwritten digits in ten clusters",
        artifact=into.name,
        framework="onnx",
        data=Source(
            table.name, table.source, table.licence, len(rows), len(number), "digits", table.columns, table.classes
        ),
        score=score if effort >= 1 else dataclasses.replace(score, aim=None),
        inputs="ink of 8 x 8 pixels, 0 to 16, row by row: 64 numbers",
        outputs="`closest_cluster`, the number of the nearest of ten centres, and `distance_to_cluster` (Euclidean)",
        limits=(
            "A cluster is no digit: nobody told the algorithm what they mean. 8 shares its own with 1.",
            "Every row belongs somewhere: only the distance tells that one is like none of them.",
        ),
        samples=_samples(table.held_x[:SAMPLE_ROWS], answers),
        training=f"One pass in batches of {BATCH}, {most} centres a stream, merged and reduced to {K}.",
        facts={
            "scikit_learn_mean_squared_distance": float(
                stream.nearest(table.held_x.astype(np.float64), full)[1].mean()
            ),
            "cluster_purity": _purity(number, table.held_y),
        },
        extra={
            "centres.csv": csv_body(centres),
            "shown.csv": csv_body(table.held_x[:SHOWN_ROWS]),
        },
    )


def graph(centres: Floats, name: str) -> ModelProto:
    """``features`` float32 [rows, columns] -> the number of the nearest of ``centres`` and the distance to it."""
    from onnx import numpy_helper, parser

    model = parser.parse_model(_GRAPH.format(ir=_IR, opset=_OPSET, columns=centres.shape[1]))
    model.graph.name = name
    tables: dict[str, NDArray[Any]] = {"centres": centres, "middle": np.array([1]), "last": np.array([2])}
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in tables.items())
    return model


def _batches(rows: stream.Numbers) -> list[stream.Numbers]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _of_library(rows: stream.Numbers) -> stream.Numbers:
    from sklearn.cluster import KMeans

    found: stream.Numbers = KMeans(K, n_init=10, random_state=SEED).fit(rows).cluster_centers_
    return found


def _score(table: DataSet, squared: stream.Numbers, full: stream.Numbers, dice: np.random.Generator) -> Score:
    """The mean squared distance on held-out digits, beside that from ten digits drawn as centres."""
    held = table.held_x.astype(np.float64)
    drawn = table.train_x[dice.choice(len(table.train_x), K, replace=False)].astype(np.float64)
    return Score(
        metric="mean squared distance to the centre",
        value=float(squared.mean()),
        baseline="ten digits drawn as centres",
        baseline_value=float(stream.nearest(held, drawn)[1].mean()),
        higher_is_better=False,
        aim=SLACK * float(stream.nearest(held, full)[1].mean()),
    )


def _purity(number: NDArray[np.intp], classes: Floats) -> float:
    """The share of digits that are of their cluster's most frequent class."""
    counts = np.zeros((K, 10), np.int64)
    np.add.at(counts, (number, classes.astype(np.int64)), 1)
    return float(counts.max(axis=1).sum() / len(number))


def _samples(rows: Floats, answers: list[dict[str, Any]]) -> tuple[Sample, ...]:
    """All request types, and the documented answer of one: ``4.0,21.5`` a line of CSV."""
    few = 3
    pairs = [list(answer.values()) for answer in answers[:few]]
    as_csv = Sample("csv", ".csv", samples.CSV, csv_body(rows[:few]), pairs, 1e-4, samples.CSV)
    return (*samples.of_rows(rows, answers, tolerance=1e-4), as_csv)
