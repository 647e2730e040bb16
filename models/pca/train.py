"""The ten directions in which digits differ most: 64 pixels become 10 numbers, and most of the picture survives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import data, samples
from models.cards import Card, Score, Source, npy_body, tables
from models.data import SEED, Floats
from models.packaging import onnx_bytes
from models.recipes import Tell

if TYPE_CHECKING:
    from onnx import ModelProto

AIM = 0.72
COMPONENTS = 10
SAMPLE_ROWS = 20


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Fit on three quarters of the digits, write ``model.onnx``, judge on the rest. ``effort``: share of the digits."""
    from sklearn.decomposition import PCA

    table = data.digits()
    rows = max(100, round(effort * len(table.train_x)))
    tell(0.1, f"fitting {rows} digits")
    model = PCA(n_components=COMPONENTS, svd_solver="full", random_state=SEED).fit(table.train_x[:rows])
    mean, components = model.mean_.astype(np.float32), model.components_.astype(np.float32)
    (into / "model.onnx").write_bytes(onnx_bytes(graph_of(mean, components, into.name)))
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "pca", "Model": "model.onnx"}) + "\n")

    tell(0.8, "judging held-out digits")
    projected = model.transform(table.held_x)
    kept = _kept(table.held_x, model.inverse_transform(projected))
    widest = np.argsort(-table.train_x.var(axis=0))[:COMPONENTS]
    pixels = np.tile(table.train_x.mean(axis=0), (len(table.held_x), 1))
    pixels[:, widest] = table.held_x[:, widest]
    answers = [{"projection": row.tolist()} for row in projected[:SAMPLE_ROWS]]
    return Card(
        name=into.name,
        title=f"PCA: a digit in {COMPONENTS} numbers",
        artifact=into.name,
        framework="onnx",
        data=Source(
            table.name, table.source, table.licence, rows, len(table.held_x), "digits", table.columns, table.classes
        ),
        score=Score(
            "variance kept",
            kept,
            f"the {COMPONENTS} pixels that vary most",
            _kept(table.held_x, pixels),
            aim=AIM if effort >= 1 else None,
        ),
        inputs="ink of 8 x 8 pixels, 0 to 16, row by row",
        outputs=f"`projection`, {COMPONENTS} numbers: the place along each direction, the widest direction first",
        limits=(
            "Centred, upright digits of 43 writers scaled to 8 x 8: other images need the same preparation.",
            "A direction's sign is a convention: another library may answer the same numbers negated.",
        ),
        samples=samples.of_rows(table.held_x[:SAMPLE_ROWS], answers, "projections", tolerance=1e-4),
        training="Mean taken off, no scaling; singular value decomposition of all rows.",
        extra={**tables(table, "digit"), "mean.npy": npy_body(mean), "components.npy": npy_body(components)},
    )


def _kept(rows: Floats, rebuilt: NDArray[np.floating[Any]]) -> float:
    """Share of the rows' variance that their rebuilt form has: 1 is all of it."""
    lost, whole = ((rows - rebuilt) ** 2).sum(), ((rows - rows.mean(axis=0)) ** 2).sum()
    return float(1 - lost / whole)


def graph_of(mean: Floats, components: Floats, name: str) -> ModelProto:
    """``(features - mean) . components``."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "directions"], ["projection"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [value("features", TensorProto.FLOAT, ["rows", len(mean)])],
        [value("projection", TensorProto.FLOAT, ["rows", len(components)])],
        [
            numpy_helper.from_array(mean, "mean"),
            numpy_helper.from_array(np.ascontiguousarray(components.T), "directions"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
