"""A small Object2Vec model: the means of tokens' vectors, and their product as the score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

#: Vectors of two numbers, for seven tokens on one side and nine on the other.
TABLES = tuple(np.random.default_rng(seed).normal(size=(size, 2)).astype(np.float32) for seed, size in ((1, 7), (2, 9)))
_SIDE = """    there{0} = GreaterOrEqual (in{0}, zero)
    mask{0} = Cast <to = 1> (there{0})
    marks{0} = Unsqueeze (mask{0}, end)
    token{0} = Max (in{0}, zero)
    vectors{0} = Gather (table{0}, token{0})
    kept{0} = Mul (vectors{0}, marks{0})
    total{0} = ReduceSum <keepdims = 0> (kept{0}, middle)
    tokens{0} = ReduceSum <keepdims = 1> (mask{0}, middle)
    count{0} = Max (tokens{0}, one)
    embeddings{0} = Div (total{0}, count{0})
"""
_GRAPH = f"""<ir_version: 8, opset_import: ["" : 17]>
pairs (int64[rows, tokens0] in0, int64[rows, tokens1] in1)
    => (float[rows, 1] scores, float[rows, 2] embeddings0, float[rows, 2] embeddings1) {{
{_SIDE.format(0)}{_SIDE.format(1)}    product = Mul (embeddings0, embeddings1)
    scores = ReduceSum <keepdims = 1> (product, middle)
}}"""


def embedding(side: int, tokens: list[int]) -> NDArray[np.float32]:
    """What the model makes of a list."""
    return np.asarray(TABLES[side][tokens].mean(axis=0))


def score(first: list[int], second: list[int]) -> float:
    """What it makes of a pair."""
    return float(embedding(0, first) @ embedding(1, second))


def write(folder: Path, **settings: Any) -> Path:
    """The artifact. ``settings`` change its declaration."""
    model = parser.parse_model(_GRAPH)
    constants: dict[str, NDArray[Any]] = {
        "table0": TABLES[0],
        "table1": TABLES[1],
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.float32),
        "middle": np.array([1], np.int64),
        "end": np.array([2], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    declared = {"Algorithm": "object2vec", "Enc0VocabSize": 7, "Enc1VocabSize": 9, **settings}
    (folder / "algorithm.json").write_text(json.dumps(declared))
    return folder
