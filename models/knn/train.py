"""Exact nearest neighbours as a plain graph: one matrix product for all distances, the nearest five, their vote.

scikit-learn's own export of a neighbours model loops over the rows and takes milliseconds a request; |x - r|^2 =
|x|^2 - 2 x.r + |r|^2 makes one product of it. Ink is whole numbers to 16, so these sums are exact in float32.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import baselines, data, samples
from models.cards import Card, Sample, Source, tables
from models.data import DataSet, Floats
from models.packaging import onnx_bytes
from models.recipes import Tell

if TYPE_CHECKING:
    from onnx import ModelProto

AIM = 0.975
NEAREST = 5
SAMPLE_ROWS = 20
VERBOSE = "application/json; verbose=true"


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Keep three quarters of the digits, write ``model.onnx``, judge on the rest. ``effort``: share that is kept."""
    table = data.digits()
    rows = max(100, round(effort * len(table.train_x)))
    kept, labels = table.train_x[:rows], table.train_y[:rows].astype(np.int64)
    tell(0.1, f"keeping {rows} digits")
    (into / "model.onnx").write_bytes(onnx_bytes(graph_of(kept, labels, NEAREST, into.name)))
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "knn", "Model": "model.onnx"}) + "\n")

    tell(0.3, "judging held-out digits")
    predicted, answers = expected(kept, labels, table.held_x)
    score = baselines.against_centroids(predicted, table)
    held = table.held_x[:SAMPLE_ROWS]
    return Card(
        name=into.name,
        title=f"k-NN: a digit by its {NEAREST} nearest",
        artifact=into.name,
        framework="onnx",
        data=_source(table, rows),
        score=dataclasses.replace(score, aim=AIM if effort >= 1 else None),
        inputs="ink of 8 x 8 pixels, 0 to 16, row by row",
        outputs="`predicted_label`; with `verbose=true` also the `distances`, ascending, and their `labels`",
        limits=(
            "Centred, upright digits of 43 writers scaled to 8 x 8: other images need the same preparation.",
            "All training rows are in the model and compared with each request: the cost grows with both.",
        ),
        samples=(
            *samples.of_rows(held, [{"predicted_label": one["predicted_label"]} for one in answers]),
            Sample(
                "verbose",
                ".json",
                samples.JSON,
                samples.features(held[:3]),
                {"predictions": answers[:3]},
                accept=VERBOSE,
            ),
        ),
        training=f"The {NEAREST} nearest by Euclidean distance, one vote each; the smaller digit wins a tie.",
        extra=tables(table, "digit"),
    )


def expected(kept: Floats, labels: NDArray[np.int64], asked: Floats) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
    """What scikit-learn says: the digits, and each row's whole answer. Equal distances keep the order of training."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(NEAREST, algorithm="brute").fit(kept, labels)
    predicted: NDArray[np.int64] = model.predict(asked)
    distances, neighbours = model.kneighbors(asked)
    answers = []
    for label, far, near in zip(predicted, distances, neighbours, strict=True):
        order = np.lexsort((near, far))
        answers.append(
            {
                "predicted_label": float(label),
                "distances": far[order].tolist(),
                "labels": labels[near[order]].astype(np.float64).tolist(),
            }
        )
    return predicted, answers


def graph_of(kept: Floats, labels: NDArray[np.int64], nearest: int, name: str) -> ModelProto:
    """The graph: squared distances but for the request's own square, which changes no order; the ``nearest``; their
    votes; then the true distances of these few."""
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, NDArray[Any]] = {
        "minus_twice": np.ascontiguousarray(-2.0 * kept.T),
        "squares": (kept**2).sum(axis=1),
        "count": np.array([nearest], np.int64),
        "votes_of": np.eye(int(labels.max()) + 1, dtype=np.float32)[labels],
        "labels_of": labels.astype(np.float32),
        "middle": np.array([1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gemm", ["features", "minus_twice", "squares"], ["compared"]),
        node("TopK", ["compared", "count"], ["lowest", "neighbours"], largest=0, sorted=1),
        node("Gather", ["votes_of", "neighbours"], ["votes"]),
        node("ReduceSum", ["votes", "middle"], ["counted"], keepdims=0),
        node("ArgMax", ["counted"], ["winner"], axis=1, keepdims=0),
        node("Cast", ["winner"], ["predicted_label"], to=TensorProto.FLOAT),
        node("Gather", ["labels_of", "neighbours"], ["labels"]),
        node("ReduceSumSquare", ["features"], ["own_square"], axes=[1], keepdims=1),
        node("Add", ["lowest", "own_square"], ["summed"]),
        node("Relu", ["summed"], ["squared"]),  # rounding must not make a distance to itself negative
        node("Sqrt", ["squared"], ["distances"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [value("features", TensorProto.FLOAT, ["rows", kept.shape[1]])],
        [
            value("predicted_label", TensorProto.FLOAT, ["rows"]),
            value("distances", TensorProto.FLOAT, ["rows", nearest]),
            value("labels", TensorProto.FLOAT, ["rows", nearest]),
        ],
        [numpy_helper.from_array(content, key) for key, content in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _source(table: DataSet, rows: int) -> Source:
    return Source(
        table.name, table.source, table.licence, rows, len(table.held_x), "digits", table.columns, table.classes
    )
