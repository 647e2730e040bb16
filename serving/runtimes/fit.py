"""Do decoded arrays fit a model? Checked here once, in words, before a native library sees a pointer."""

from __future__ import annotations

import numpy as np

from serving.codecs.base import InputSpec, TensorSpec
from serving.errors import BadInput

Inputs = np.ndarray | dict[str, np.ndarray]


def matrix(inputs: Inputs, spec: InputSpec) -> np.ndarray:
    """The one 2-d array that a model of rows and columns reads: C-contiguous, of the spec's dtype.

    Raises BadInput when the number of dimensions, the columns or the dtype do not fit.
    """
    if isinstance(inputs, dict):
        if len(inputs) != 1:
            raise BadInput(f"the model reads one input, the body holds {len(inputs)}")
        (inputs,) = inputs.values()
    expected = spec.tensors[0]
    columns = expected.shape[1]
    if inputs.ndim != 2:
        raise BadInput(f"the model reads rows of {_count(columns)}, the body has {inputs.ndim} dimensions")
    if columns is not None and inputs.shape[1] != columns:
        raise BadInput(f"the model reads {_count(columns)} in a row, the body has {inputs.shape[1]}")
    if inputs.dtype == expected.dtype and inputs.flags.c_contiguous:
        return inputs
    return np.ascontiguousarray(cast(inputs, expected))


def tensors(inputs: Inputs, spec: InputSpec) -> dict[str, np.ndarray]:
    """The arrays by input name, each of its spec's dtype and shape. Raises BadInput otherwise."""
    if not isinstance(inputs, dict):
        if len(spec.tensors) != 1:
            raise BadInput(f"the model reads {len(spec.tensors)} inputs by name: {_names(spec)}")
        inputs = {spec.tensors[0].name: inputs}
    missing = [tensor.name for tensor in spec.tensors if tensor.name not in inputs]
    if missing or len(inputs) != len(spec.tensors):
        raise BadInput(f"the model reads the inputs {_names(spec)}, the body holds {', '.join(sorted(inputs))}")
    return {tensor.name: _fitted(inputs[tensor.name], tensor) for tensor in spec.tensors}


def cast(values: np.ndarray, expected: TensorSpec) -> np.ndarray:
    """``values`` in the expected dtype (``"str"`` as an object array of text). Raises BadInput when that fails."""
    try:
        if expected.dtype == "str":
            return values if values.dtype == object else values.astype(np.str_).astype(object)
        return values.astype(expected.dtype, copy=False)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"the input {expected.name!r} holds values that are not {expected.dtype}") from None


def _fitted(values: np.ndarray, expected: TensorSpec) -> np.ndarray:
    if len(values.shape) != len(expected.shape) or any(
        want is not None and want != got for want, got in zip(expected.shape, values.shape, strict=True)
    ):
        got, wanted = _shape(values.shape), _shape(expected.shape)
        raise BadInput(f"the input {expected.name!r} has the shape {got}, the model reads {wanted}")
    return values if values.dtype == expected.dtype else cast(values, expected)


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _count(columns: int | None) -> str:
    return "numbers" if columns is None else f"{columns} features" if columns != 1 else "1 feature"


def _names(spec: InputSpec) -> str:
    return ", ".join(tensor.name for tensor in spec.tensors)
