"""scikit-learn pipelines exported to ONNX: plain data, no pickle, no scikit-learn where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models import baselines, data
from models.cards import Card, csv_samples
from models.data import SEED, DataSet
from models.packaging import onnx_bytes, onnx_run

if TYPE_CHECKING:
    from onnx import ModelProto

SAMPLE_ROWS = 20
# What every onnxruntime since 1.16 reads; newer ones gain a linear model nothing.
OPSETS = {"": 17, "ai.onnx.ml": 3}


def breast_cancer_linear_onnx(into: Path) -> Card:
    """Logistic regression on the task, split and columns of ``breast-cancer-xgboost``, answering alike: variant B."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = data.breast_cancer()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(table.train_x, table.train_y.astype(np.int64))
    model = onnx_bytes(_only_score(_exported(pipeline, table, into.name)))
    (into / "model.onnx").write_bytes(model)
    score = onnx_run(model, {"features": table.held_x})["score"]
    return Card(
        name=into.name,
        title="Breast tumour classifier (logistic regression)",
        artifact=into.name,
        framework="onnx",
        data=table,
        score=baselines.against_stump(score > 0.5, table),
        inputs="`features`, float32 [rows, 30]: 30 numbers, in the order of the columns",
        outputs="`score`, float32 [rows]: the probability that the tumour is benign (class 1)",
        limits=(
            "One hospital, 569 patients of around 1990: an example for a server, not for decisions about people.",
            "A missing value makes the score NaN; the XGBoost variant of the same task accepts one.",
        ),
        samples=csv_samples(table.held_x[:SAMPLE_ROWS], {"score": score[:SAMPLE_ROWS]}),
        training="Standardised columns, L2 penalty 1.",
    )


def digits_pipeline_onnx(into: Path) -> Card:
    """Principal components and logistic regression in one file; label and probabilities as plain tensors."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table = data.digits()
    components = PCA(n_components=40, svd_solver="full", random_state=SEED)
    pipeline = make_pipeline(components, LogisticRegression(C=0.005, max_iter=5000))
    pipeline.fit(table.train_x, table.train_y.astype(np.int64))
    model = onnx_bytes(_exported(pipeline, table, into.name))
    (into / "model.onnx").write_bytes(model)
    outputs = onnx_run(model, {"features": table.held_x})
    return Card(
        name=into.name,
        title="Handwritten digits (PCA and logistic regression)",
        artifact=into.name,
        framework="onnx",
        data=table,
        score=baselines.against_centroids(outputs["label"], table),
        inputs="`features`, float32 [rows, 64]: ink of 8 x 8 pixels, 0 to 16, row by row",
        outputs="`label`, int64 [rows], and `probabilities`, float32 [rows, 10]",
        limits=("Centred, upright digits of 43 writers scaled to 8 x 8: other images need the same preparation.",),
        samples=csv_samples(table.held_x[:SAMPLE_ROWS], {name: value[:SAMPLE_ROWS] for name, value in outputs.items()}),
        training="40 components.",
    )


def _exported(pipeline: Any, table: DataSet, name: str) -> ModelProto:
    """The pipeline as ONNX. ZipMap off: otherwise probabilities are a list of maps, which no tensor format carries. The
    name is given because the exporter invents a random one."""
    from skl2onnx import to_onnx  # type: ignore[import-untyped]  # ships no types
    from skl2onnx.common.data_types import FloatTensorType  # type: ignore[import-untyped]  # ships no types

    inputs = [("features", FloatTensorType([None, len(table.columns)]))]
    model: ModelProto = to_onnx(
        pipeline, initial_types=inputs, options={"zipmap": False}, target_opset=OPSETS, name=name
    )
    return model


def _only_score(model: ModelProto) -> ModelProto:
    """Replace the outputs ``label`` and ``probabilities`` by ``score``, the probability of class 1: what the XGBoost
    variant answers, so that a caller need not know which variant it met."""
    from onnx import TensorProto, helper, utils

    graph = model.graph
    graph.initializer.append(helper.make_tensor("class_one", TensorProto.INT64, [], [1]))
    graph.node.append(helper.make_node("Gather", ["probabilities", "class_one"], ["score"], name="score", axis=1))
    graph.output.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, [None]))
    # Extracting the sub-graph also drops the nodes that only the label needed.
    trimmed: ModelProto = utils.Extractor(model).extract_model(["features"], ["score"])
    return trimmed
