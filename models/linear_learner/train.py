"""Logistic regression on measurements of tumours, as SageMaker's Linear Learner answers a binary classifier."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import baselines, data, samples
from models.cards import Card, Source, tables
from models.data import Floats
from models.packaging import onnx_bytes
from models.recipes import Tell

if TYPE_CHECKING:
    from onnx import ModelProto

AIM = 0.96
SAMPLE_ROWS = 20


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Fit on three quarters of the tumours, write ``model.onnx``, judge on the rest. ``effort``: share of the rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    table = data.breast_cancer()
    rows = max(60, round(effort * len(table.train_x)))
    tell(0.1, f"fitting {rows} rows")
    scaler = StandardScaler().fit(table.train_x[:rows].astype(np.float64))
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(table.train_x[:rows]), table.train_y[:rows].astype(np.int64))
    weights = (model.coef_ / scaler.scale_).astype(np.float32)
    graph = graph_of(scaler.mean_.astype(np.float32), weights, float(model.intercept_[0]), into.name)
    (into / "model.onnx").write_bytes(onnx_bytes(graph))
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "linear-learner", "Model": "model.onnx"}) + "\n")

    tell(0.9, "judging held-out rows")
    score = model.predict_proba(scaler.transform(table.held_x))[:, 1]
    answers = [{"score": float(one), "predicted_label": int(one > 0.5)} for one in score]
    importance = dict(zip(table.columns, model.coef_[0].round(6).tolist(), strict=True))
    return Card(
        name=into.name,
        title="Linear Learner: benign or malignant",
        artifact=into.name,
        framework="onnx",
        data=Source(
            table.name, table.source, table.licence, rows, len(table.held_x), "tumours", table.columns, table.classes
        ),
        score=dataclasses.replace(baselines.against_stump(score > 0.5, table), aim=AIM if effort >= 1 else None),
        inputs="30 measurements of cell nuclei, in the order of the columns",
        outputs="`score`, the probability that the tumour is benign; `predicted_label`, 1 above one half",
        limits=(
            "One hospital, 569 patients of around 1990: an example for a server, not for decisions about people.",
            "A row with a missing value is refused: the sum of its columns would be no number.",
        ),
        samples=samples.of_rows(table.held_x[:SAMPLE_ROWS], answers[:SAMPLE_ROWS]),
        training="Standardised columns, L2 penalty 1; standardisation is a part of the graph.",
        extra={**tables(table, "benign"), "weights.json": json.dumps(importance).encode()},
    )


def graph_of(mean: Floats, weights: Floats, bias: float, name: str) -> ModelProto:
    """``sigmoid((features - mean) . weights + bias)`` and whether that is above one half. The mean is taken off before
    the product: columns of thousands times small weights would lose digits in float32."""
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, NDArray[Any]] = {
        "mean": mean,
        "weights": weights.reshape(-1, 1),
        "bias": np.array([bias], np.float32),
        "half": np.array(0.5, np.float32),
        "flat": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Gemm", ["centred", "weights", "bias"], ["margins"]),
        helper.make_node("Reshape", ["margins", "flat"], ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["score"]),
        helper.make_node("Greater", ["score", "half"], ["above"]),
        helper.make_node("Cast", ["above"], ["predicted_label"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", len(mean)])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"]),
            helper.make_tensor_value_info("predicted_label", TensorProto.INT64, ["rows"]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
