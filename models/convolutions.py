"""torch's convolution nets as ONNX, written node by node: at once, in few bytes, the same each time.

An exporter takes longer than the training of a small net, and leaves traces of the machine in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

#: Old enough for every ONNX Runtime we allow.
OPSET, IR = 17, 9


class Graph:
    """A graph as it grows. Each method adds a layer to the value of a name, and returns the name of what comes out."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One operator of one output."""
        from onnx import helper

        name = f"{op.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """An array of the graph."""
        from onnx import numpy_helper

        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def whole(self, *numbers: int) -> str:
        """A list of int64: axes, shapes, ranges."""
        return self.constant(np.array(numbers, np.int64))

    def conv(self, seen: str, layer: Any, norm: Any = None) -> str:
        """A ``Conv2d``, with the ``BatchNorm2d`` behind it folded into its weights."""
        weights, bias = layer.weight.detach(), layer.bias.detach()
        if norm is not None:
            gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            weights = weights * gain[:, None, None, None]
            bias = (bias - norm.running_mean) * gain + norm.bias.detach()
        return self.add(
            "Conv",
            seen,
            self.constant(weights.numpy()),
            self.constant(bias.numpy()),
            kernel_shape=list(layer.kernel_size),
            pads=list(layer.padding) * 2,
            strides=list(layer.stride),
            dilations=list(layer.dilation),
        )

    def doubled(self, seen: str) -> str:
        """Each pixel as four."""
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", seen, "", scales, **how)

    def sequential(self, seen: str, layers: Any) -> str:
        """A ``Sequential`` of ``Conv2d``, ``BatchNorm2d``, ``ReLU``, ``MaxPool2d``, ``Flatten`` and ``Linear``."""
        chain = list(layers)
        for layer, after in zip(chain, [*chain[1:], None], strict=True):
            kind = type(layer).__name__
            if kind == "Conv2d":
                seen = self.conv(seen, layer, after if type(after).__name__ == "BatchNorm2d" else None)
            elif kind == "ReLU":
                seen = self.add("Relu", seen)
            elif kind == "MaxPool2d":
                size = [layer.kernel_size] * 2
                seen = self.add("MaxPool", seen, kernel_shape=size, strides=size)
            elif kind == "Flatten":
                seen = self.add("Flatten", seen)
            elif kind == "Linear":
                parts = (self.constant(part.detach().numpy()) for part in (layer.weight, layer.bias))
                seen = self.add("Gemm", seen, *parts, transB=1)
            elif kind not in ("BatchNorm2d", "Dropout", "Dropout2d"):
                raise ValueError(f"no operator for the layer {kind}")
        return seen

    def model(
        self, name: str, image: Sequence[int | str], output: str, answered: str, shape: Sequence[int | str]
    ) -> ModelProto:
        """The model that reads ``image``, float32 of the shape given, and answers the value ``output`` as ``answered``
        of ``shape``. Axes that are words may have any size."""
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [output], [answered], answered))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info(answered, TensorProto.FLOAT, shape)],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
