"""The convolution net of the bench table: about 5 ms a picture on one thread, without torch.

The convolutions are random, as drawn; only the last layer is trained, by logistic regression on what they see. Random
filters are honest features (Jarrett and others, ICCV 2009), and the arithmetic a server pays for is that of any net
of this shape.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import baselines, data
from models.cards import Card, Sample, npy_body
from models.data import SEED, DataSet, Floats
from models.packaging import onnx_bytes, onnx_run

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

# (channels out, stride) of each 3 x 3 convolution: 290 million multiplications a picture.
CONVOLUTIONS = ((48, 1), (64, 1), (80, 2), (80, 1), (128, 2), (128, 1))
TRAINED_ON, MEASURED_ON = 400, 160
SIDE, POOLED = 64, 4
FEATURES = CONVOLUTIONS[-1][0] * POOLED * POOLED


def bench_convnet(into: Path) -> Card:
    """Draw the filters, train the last layer on what they see in enlarged digits, write the whole as ONNX."""
    table = data.digits()
    shown = _pictures(table.train_x[:TRAINED_ON])
    features = _answers(_net().SerializeToString(), shown)["features"]
    head = _trained_head(features, table.train_y[:TRAINED_ON])
    model = onnx_bytes(_net(head))
    (into / "model.onnx").write_bytes(model)
    used = replace(
        table,
        columns=(),
        train_x=table.train_x[:TRAINED_ON],
        train_y=table.train_y[:TRAINED_ON],
        held_x=table.held_x[:MEASURED_ON],
        held_y=table.held_y[:MEASURED_ON],
    )
    return _card(into.name, used, _answers(model, _pictures(used.held_x))["probabilities"])


def _answers(model: bytes, pictures: Floats) -> dict[str, NDArray[np.float32]]:
    """What ``model`` says of ``pictures``, a few at a time: all at once their activations would fill gigabytes."""
    parts = [onnx_run(model, {"image": part}) for part in np.array_split(pictures, len(pictures) // 20)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pictures(rows: Floats) -> Floats:
    """Digits as colour pictures: float32 ``[N, 3, 64, 64]`` in 0..1, each in one tint drawn from its own ink."""
    ink = np.kron(rows.reshape(-1, 1, 8, 8) / 16, np.ones((1, 1, SIDE // 8, SIDE // 8)))
    tints = np.stack([np.random.default_rng([SEED, int(row.sum())]).uniform(0.5, 1, 3) for row in rows])
    return (ink * tints[:, :, None, None]).astype(np.float32)


def _trained_head(features: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Weight ``[FEATURES, 10]`` and bias ``[10]`` of a logistic regression, its standardising folded in."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    model = LogisticRegression(C=0.01, max_iter=2000).fit((features - mean) / spread, labels.astype(np.int64))
    weight = model.coef_.T / spread[:, None]
    return weight.astype(np.float32), (model.intercept_ - mean @ weight).astype(np.float32)


def _net(head: tuple[Floats, Floats] | None = None) -> ModelProto:
    """``image`` -> ``features`` (before training) or, with ``head``, ``probabilities``."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = _convolutions()
    output, width = "features", FEATURES
    if head:
        weights += [numpy_helper.from_array(array, name) for array, name in zip(head, ("head", "bias"), strict=True)]
        nodes.append(helper.make_node("Gemm", ["features", "head", "bias"], ["logits"], name="dense"))
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1))
        output, width = "probabilities", 10
    graph = helper.make_graph(
        nodes,
        "bench-convnet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _convolutions() -> tuple[list[NodeProto], list[TensorProto]]:
    """The random layers: He-scaled normal filters, rectified, averaged over a 4 x 4 grid and flattened."""
    from onnx import helper, numpy_helper

    dice = np.random.default_rng(SEED)
    nodes, weights = [], []
    seen, channels, side = "image", 3, SIDE
    for layer, (width, stride) in enumerate(CONVOLUTIONS):
        filters = dice.normal(size=(width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        weights.append(numpy_helper.from_array(filters.astype(np.float32), f"filters{layer}"))
        shape: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
        nodes.append(helper.make_node("Conv", [seen, f"filters{layer}"], [f"seen{layer}"], f"conv{layer}", **shape))
        nodes.append(helper.make_node("Relu", [f"seen{layer}"], [f"rectified{layer}"], f"relu{layer}"))
        seen, channels, side = f"rectified{layer}", width, side // stride
    window = [side // POOLED, side // POOLED]
    nodes.append(helper.make_node("AveragePool", [seen], ["grid"], "pool", kernel_shape=window, strides=window))
    nodes.append(helper.make_node("Flatten", ["grid"], ["features"], "flatten"))
    return nodes, weights


def _card(name: str, table: DataSet, answers: NDArray[np.float32]) -> Card:
    pictures = _pictures(table.held_x[:8])
    return Card(
        name=name,
        title="Bench model: a convolution net of about 5 ms (ONNX)",
        artifact=name,
        framework="onnx",
        data=table,
        score=baselines.against_centroids(answers.argmax(axis=1), table),
        inputs="`image`, float32 [N, 3, 64, 64] in 0..1, 49,152 bytes a picture: a digit enlarged eight times, tinted",
        outputs="`probabilities`, float32 [N, 10]",
        limits=(
            "The convolutions are random; only the last layer is trained. Made for measuring a server.",
            "5 ms is what one core of a 2024 server takes; measure in ratios.",
        ),
        samples=(
            Sample("request", ".npy", "application/x-npy", npy_body(pictures[:1]), {"probabilities": answers[:1]}),
            Sample("batch", ".npy", "application/x-npy", npy_body(pictures), {"probabilities": answers[:8]}),
        ),
        training="Six random convolutions, one trained layer.",
        facts={"multiplications": _multiplications()},
    )


def _multiplications() -> int:
    total, channels, side = 0, 3, SIDE
    for width, stride in CONVOLUTIONS:
        side //= stride
        total, channels = total + 9 * channels * width * side * side, width
    return total
