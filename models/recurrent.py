"""torch's recurrent nets as ONNX: the ``GRU`` operator does the loop, so a graph takes sequences of any length.

Written with ``onnx.helper``: an exporter unrolls loops, and its file and time grow with the horizon.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

#: The first opset whose operators are all that these graphs use; old enough for every ONNX Runtime we allow.
OPSET, IR = 17, 9


def gru(layer: Any, prefix: str) -> dict[str, np.ndarray]:
    """The weights of a ``torch.nn.GRU`` of one layer as the operator wants them: ``{prefix}_w`` [directions, 3 units,
    inputs], ``{prefix}_r`` [directions, 3 units, units], ``{prefix}_b`` [directions, 6 units].

    torch keeps its gates in the order reset, update, new; ONNX wants update, reset, new (operator GRU, with
    ``linear_before_reset`` = 1 for torch's formula)."""
    ends = ("", "_reverse") if layer.bidirectional else ("",)

    def stacked(kind: str, end: str) -> np.ndarray:
        reset, update, new = np.split(getattr(layer, f"{kind}_l0{end}").detach().numpy(), 3)
        return np.concatenate([update, reset, new])

    return {
        f"{prefix}_w": np.stack([stacked("weight_ih", end) for end in ends]),
        f"{prefix}_r": np.stack([stacked("weight_hh", end) for end in ends]),
        f"{prefix}_b": np.stack([np.concatenate([stacked("bias_ih", end), stacked("bias_hh", end)]) for end in ends]),
    }


def graph(
    name: str,
    nodes: Iterable[NodeProto],
    inputs: Iterable[ValueInfoProto],
    outputs: Iterable[ValueInfoProto],
    weights: dict[str, np.ndarray],
) -> ModelProto:
    """A model of these nodes and weights (float32 or int64, by name)."""
    from onnx import helper, numpy_helper

    tensors: list[TensorProto] = [
        numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in weights.items()
    ]
    whole = helper.make_graph(list(nodes), name, list(inputs), list(outputs), tensors)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def tensor(name: str, shape: list[str | int], kind: str = "FLOAT") -> ValueInfoProto:
    """An input or output; axes that are words may have any size."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)
