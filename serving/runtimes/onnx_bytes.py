"""Just enough of the ONNX file format to write one small graph, without the ``onnx`` package.

An ONNX file is one protobuf message, ``ModelProto``. The field numbers below are those of ``onnx/onnx-ml.proto`` (ONNX
IR specification): they are frozen, as protobuf demands. Only what ``trees_to_onnx`` needs is here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np

_FLOAT = 1  # TensorProto.DataType.FLOAT
_IR_VERSION = 8
_OPSETS = (("", 17), ("ai.onnx.ml", 3))

Attribute = int | str | np.ndarray | Sequence[str]


def varint(value: int) -> bytes:
    """A non-negative integer in protobuf's base-128 form, least significant group first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | bytes | str) -> bytes:
    """One field: an integer as a varint, bytes and text length-delimited."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def attribute(name: str, value: Attribute) -> bytes:
    """An ``AttributeProto`` of the type that ``value`` calls for: int, text, float32 array, integer array, texts."""
    head = field(1, name)
    if isinstance(value, int):
        return head + field(3, value) + field(20, 2)
    if isinstance(value, str):
        return head + field(4, value) + field(20, 3)
    if not isinstance(value, np.ndarray):
        return head + b"".join(field(9, text) for text in value) + field(20, 8)
    if value.dtype.kind == "f":
        return head + field(7, value.astype("<f4").tobytes()) + field(20, 6)
    return head + field(8, b"".join(map(varint, value.tolist()))) + field(20, 7)


def node(
    op: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    domain: str = "",
    attributes: dict[str, Attribute] | None = None,
) -> bytes:
    """A ``NodeProto``: one operator of the graph."""
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs]
    parts.append(field(4, op))
    parts += [field(5, attribute(name, value)) for name, value in (attributes or {}).items()]
    parts.append(field(7, domain))
    return b"".join(parts)


def tensor(name: str, values: Sequence[float]) -> bytes:
    """A one-dimensional float32 ``TensorProto`` initialiser."""
    raw = struct.pack(f"<{len(values)}f", *values)
    return field(1, len(values)) + field(2, _FLOAT) + field(8, name) + field(9, raw)


def _value_info(name: str, columns: int) -> bytes:
    shape = field(1, field(2, "rows")) + field(1, field(1, columns))
    return field(1, name) + field(2, field(1, field(1, _FLOAT) + field(2, shape)))


def model(
    nodes: Sequence[bytes], initializers: Sequence[bytes], inputs: tuple[str, int], outputs: tuple[str, int]
) -> bytes:
    """A ``ModelProto`` from one float32 input (name, columns) to one float32 output, any number of rows."""
    graph = b"".join(field(1, one) for one in nodes) + field(2, "trees")
    graph += b"".join(field(5, one) for one in initializers)
    graph += field(11, _value_info(*inputs)) + field(12, _value_info(*outputs))
    opsets = b"".join(field(8, field(1, domain) + field(2, version)) for domain, version in _OPSETS)
    return field(1, _IR_VERSION) + field(2, "serving") + field(7, graph) + opsets
