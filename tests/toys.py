"""Models small enough to be written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COLUMNS = 30
#: A row of CSV for the sum model, whose answer is 30.
ROW = ",".join(["1"] * COLUMNS)


def write_sum_model(path: Path, factor: float = 1.0) -> Path:
    """A model that answers the sum of its 30 columns, times a factor."""
    weights = numpy_helper.from_array(np.full((COLUMNS, 1), factor, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def write_script_model(folder: Path, code: str) -> Path:
    """A model that is code."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(code)
    return folder
