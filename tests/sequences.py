"""Artifacts of Seq2Seq and DeepAR made by hand, whose answers can be told without a net."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: The spread of every step that ``deepar`` forecasts, of a series whose scale is 1.
SPREAD = 0.125
#: ``seq2seq`` knows these letters, after the special tokens.
VOCABULARY = {token: number for number, token in enumerate(("<pad>", "<unk>", "<s>", "</s>", "a", "b", "c"))}


def _save(
    path: Path,
    nodes: Sequence[tuple[Any, ...]],
    inputs: Mapping[str, tuple[str, Sequence[Any]]],
    outputs: Mapping[str, Sequence[Any]],
    constants: Mapping[str, Any],
) -> None:
    """A graph of (operator, inputs, outputs, attributes) tuples."""
    from onnx import TensorProto, helper, numpy_helper

    def described(name: str, kind: str, shape: Sequence[Any]) -> Any:
        return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)

    made = [helper.make_node(kind, ins, outs, **(more[0] if more else {})) for kind, ins, outs, *more in nodes]
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        made,
        path.stem,
        [described(name, *one) for name, one in inputs.items()],
        [described(name, "FLOAT", shape) for name, shape in outputs.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def deepar(folder: Path, column: int = 0, spread: float = SPREAD, grouped: bool = True, **settings: Any) -> Path:
    """A forecaster of three steps from two, that expects the ``column``-th feature of a step to be its value: the value
    before (0), the one before that (1), whether these are known (2, 3), the dynamic feature (4). ``grouped`` False:
    without ``cat``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, cat = ["rows", "steps"], {"cat": ("INT64", ["rows", 2])} if grouped else {}
    _save(
        folder / "model.onnx",
        [
            ("Gather", ["features", "column"], ["location"], {"axis": 2}),
            ("Mul", ["location", "zero"], ["nothing"]),
            ("Add", ["nothing", "wide"], ["spread"]),
            ("Identity", ["hidden"], ["next_hidden"]),
        ],
        {"features": ("FLOAT", [*rows, 5]), "hidden": ("FLOAT", ["rows", 1]), **cat},
        {"location": rows, "spread": rows, "next_hidden": ["rows", 1]},
        {"column": column, "zero": np.float32(0), "wide": np.float32(spread)},
    )
    declared = {
        "Algorithm": "forecasting-deepar",
        "TimeFreq": "H",
        "ContextLength": 2,
        "PredictionLength": 3,
        "Lags": [1, 2],
        "DynamicFeatures": 1,
        "Cardinality": [2, 3] if grouped else [],
        "Scales": [10, 20] if grouped else [30],
    }
    (folder / "algorithm.json").write_text(json.dumps({**declared, **settings}))
    return folder


def seq2seq(folder: Path, following: np.ndarray | None = None, **settings: Any) -> Path:
    """A translator that says what it reads, looking at one token at a time; or, with ``following`` [before, after] of
    probabilities, one that says what follows by what it said last, whatever it reads."""
    folder.mkdir(parents=True, exist_ok=True)
    count, rows, length = len(VOCABULARY), ["rows"], ["rows", "length"]
    _save(
        folder / "encoder.onnx",
        [
            ("Gather", ["one_hot", "source"], ["memory"]),
            ("Unsqueeze", ["lengths", "last"], ["upright"]),
            ("Cast", ["upright"], ["numbers"], {"to": 1}),
            ("Mul", ["numbers", "zero"], ["state"]),
        ],
        {"source": ("INT64", length), "lengths": ("INT64", rows)},
        {"memory": [*length, count], "state": ["rows", 1]},
        {"one_hot": np.eye(count, dtype=np.float32), "last": [1], "zero": np.float32(0)},
    )
    looking: list[tuple[Any, ...]] = [
        ("Shape", ["memory"], ["longest"], {"start": 1, "end": 2}),
        ("Squeeze", ["longest"], ["end"]),
        ("Range", ["none", "end", "one"], ["places"]),
        ("Cast", ["state"], ["place"], {"to": 7}),
        ("Equal", ["places", "place"], ["here"]),
        ("Unsqueeze", ["lengths", "last"], ["ends"]),
        ("Less", ["places", "ends"], ["within"]),
        ("And", ["here", "within"], ["seen"]),
        ("Cast", ["seen"], ["attention"], {"to": 1}),
        ("Add", ["state", "step"], ["next_state"]),
    ]
    copying: list[tuple[Any, ...]] = [
        ("Unsqueeze", ["attention", "last"], ["shares"]),
        ("MatMul", ["shares", "memory"], ["contexts"]),
        ("Squeeze", ["contexts", "last"], ["context"]),
        ("Mul", ["context", "sure"], ["sum"]),
        ("Add", ["sum", "over"], ["logits"]),
        ("LogSoftmax", ["logits"], ["log_probability"], {"axis": 1}),
    ]
    with np.errstate(divide="ignore"):
        table = np.log((following if following is not None else np.eye(count)).astype(np.float32))
    _save(
        folder / "decoder.onnx",
        looking + (copying if following is None else [("Gather", ["table", "token"], ["log_probability"])]),
        {
            "token": ("INT64", rows),
            "state": ("FLOAT", ["rows", 1]),
            "memory": ("FLOAT", [*length, count]),
            "lengths": ("INT64", rows),
        },
        {"log_probability": ["rows", count], "next_state": ["rows", 1], "attention": length},
        {
            "none": 0,
            "one": 1,
            "last": [1],
            "step": np.float32(1),
            "sure": np.float32(50),
            "over": np.eye(count, dtype=np.float32)[VOCABULARY["</s>"]] * 20,
            "table": table,
        },
    )
    for name in ("vocab.src.json", "vocab.trg.json"):
        (folder / name).write_text(json.dumps(VOCABULARY))
    (folder / "algorithm.json").write_text(json.dumps({"Algorithm": "seq2seq", **settings}))
    return folder
