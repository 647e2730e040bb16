"""Artifacts of the built-in algorithms made by hand: each answers the worked example of its documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Affine(NamedTuple):
    """An output: rows x ``weights`` + ``bias``, [rows, len(bias)], cut to whole numbers where ``whole``. Weights of the
    columns that are not said are 0."""

    weights: Mapping[int, Sequence[float]]
    bias: Sequence[float]
    whole: bool = False


class Example(NamedTuple):
    """An algorithm's model and what it answers to ``rows``: ``answers`` of a row by field, in the order of the
    documentation."""

    rows: Sequence[Mapping[int, float]]
    width: int
    outputs: Mapping[str, Affine]
    answers: Sequence[Mapping[str, Any]]
    envelope: str = "predictions"

    @property
    def document(self) -> dict[str, Any]:
        """The whole JSON answer to all rows."""
        return {self.envelope: [dict(answer) for answer in self.answers]}

    def dense(self) -> list[list[float]]:
        """The rows with every value."""
        return [[row.get(column, 0.0) for column in range(self.width)] for row in self.rows]


_PAIR = ({0: 1.5, 1: 16.0}, {0: 3.0, 1: 8.0})

#: Algorithm -> its example; ``linear-learner-multiclass`` and such are further ones of an algorithm.
EXAMPLES: dict[str, Example] = {
    "linear-learner": Example(
        _PAIR,
        2,
        {"score": Affine({0: [0.1]}, [0.25]), "predicted_label": Affine({0: [1.0]}, [-1.5], whole=True)},
        [{"score": 0.4, "predicted_label": 0}, {"score": 0.55, "predicted_label": 1}],
    ),
    "linear-learner-multiclass": Example(
        _PAIR,
        2,
        {
            "score": Affine({0: [0.0, 0.0, 0.1, -0.1]}, [0.1, 0.2, 0.25, 0.45]),
            "predicted_label": Affine({1: [0.25]}, [-2.0], whole=True),
        },
        [
            {"score": [0.1, 0.2, 0.4, 0.3], "predicted_label": 2},
            {"score": [0.1, 0.2, 0.55, 0.15], "predicted_label": 0},
        ],
    ),
    "linear-learner-regression": Example(
        _PAIR, 2, {"score": Affine({0: [0.1]}, [0.25])}, [{"score": 0.4}, {"score": 0.55}]
    ),
    "factorization-machines": Example(
        ({26: 1.0, 182: 4.0}, {1999: 2.0}),
        2000,
        {
            "score": Affine({26: [0.2], 182: [0.05], 1999: [0.45]}, [0.0]),
            "predicted_label": Affine({1999: [0.5]}, [0.0], whole=True),
        },
        [{"score": 0.4, "predicted_label": 0}, {"score": 0.9, "predicted_label": 1}],
    ),
    "kmeans": Example(
        _PAIR,
        2,
        {"closest_cluster": Affine({0: [2.0]}, [-2.0], whole=True), "distance_to_cluster": Affine({0: [2.0]}, [0.0])},
        [
            {"closest_cluster": 1.0, "distance_to_cluster": 3.0},
            {"closest_cluster": 4.0, "distance_to_cluster": 6.0},
        ],
    ),
    "knn": Example(
        _PAIR,
        2,
        {
            "predicted_label": Affine({0: [2.0]}, [-3.0], whole=True),
            "distances": Affine({0: [2.0, 2.0, 2.0]}, [0.0, 1.0, 2.5]),
            "labels": Affine({0: [2.0, 0.0, 0.0]}, [-3.0, 0.0, 3.0], whole=True),
        },
        [
            {"predicted_label": 0.0, "distances": [3.0, 4.0, 5.5], "labels": [0.0, 0.0, 3.0]},
            {"predicted_label": 3.0, "distances": [6.0, 7.0, 8.5], "labels": [3.0, 0.0, 3.0]},
        ],
    ),
    "pca": Example(
        _PAIR,
        2,
        {"projection": Affine({0: [1.0, 0.0], 1: [0.0, 0.125]}, [-0.5, 0.0])},
        [{"projection": [1.0, 2.0]}, {"projection": [2.5, 1.0]}],
        "projections",
    ),
    "lda": Example(
        ({0: 2.0, 2: 1.0}, {1: 4.0}),
        3,
        {"topic_mixture": Affine({0: [0.1, 0.05, -0.15]}, [0.1, 0.1, 0.8])},
        [{"topic_mixture": [0.3, 0.2, 0.5]}, {"topic_mixture": [0.1, 0.1, 0.8]}],
    ),
    "ntm": Example(
        ({0: 2.0, 2: 1.0}, {1: 4.0}),
        3,
        {"topic_weights": Affine({0: [0.01, 0.05, 0.0], 1: [0.0, 0.0, 0.25]}, [0.0, 0.0, 0.0])},
        [{"topic_weights": [0.02, 0.1, 0.0]}, {"topic_weights": [0.0, 0.0, 1.0]}],
    ),
    "randomcutforest": Example(
        _PAIR, 2, {"score": Affine({0: [0.02]}, [-0.01])}, [{"score": 0.02}, {"score": 0.05}], "scores"
    ),
    "xgboost": Example(_PAIR, 2, {"score": Affine({1: [-0.0025]}, [0.47])}, [{"score": 0.43}, {"score": 0.45}]),
}


def graph(example: Example) -> onnx.ModelProto:
    """The example's model: one matrix product and sum for each output."""
    nodes, constants, results = [], [], []
    for name, output in example.outputs.items():
        kind = TensorProto.INT64 if output.whole else TensorProto.FLOAT
        weights = np.zeros((example.width, len(output.bias)), np.float32)
        for column, values in output.weights.items():
            weights[column] = values
        constants += [
            numpy_helper.from_array(weights, f"{name}.w"),
            numpy_helper.from_array(np.array(output.bias, np.float32), f"{name}.b"),
        ]
        nodes += [
            helper.make_node("MatMul", ["features", f"{name}.w"], [f"{name}.product"]),
            helper.make_node("Add", [f"{name}.product", f"{name}.b"], [f"{name}.sum"]),
            helper.make_node(
                "Cast", [f"{name}.sum"], [name], to=TensorProto.INT64 if output.whole else TensorProto.FLOAT
            ),
        ]
        kind = TensorProto.INT64 if output.whole else TensorProto.FLOAT
        results.append(helper.make_tensor_value_info(name, kind, ["rows", len(output.bias)]))
    rows = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", example.width])
    made = helper.make_graph(nodes, "example", [rows], results, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(folder: Path, example: Example, algorithm: str, **settings: Any) -> Path:
    """The example's artifact: ``algorithm.json`` and the model."""
    folder.mkdir(parents=True)
    (folder / "algorithm.json").write_text(json.dumps({"Algorithm": algorithm, **settings}))
    onnx.save(graph(example), folder / "model.onnx")
    return folder
