"""``application/x-recordio-protobuf``: MXNet RecordIO frames, each a protobuf ``Record`` of AWS's ``aialgs.data``.

Frame: magic and payload length as little-endian uint32, payload, zeros up to a multiple of 4. ``Record``: map
``features`` = 1, map ``label`` = 2; a map entry has ``key`` = 1 and ``value`` = 2; ``Value`` holds one of
``float32_tensor`` = 2, ``float64_tensor`` = 3, ``int32_tensor`` = 7, ``bytes`` = 9; a tensor has ``values`` = 1,
``keys`` = 2 and ``shape`` = 3, packed or not. Other fields are skipped, as protobuf asks.

Read by hand: records that differ only in their values, which is nearly every body, are one strided view, a hundred
times faster than the protobuf runtime; and the server needs no protobuf package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from serving.codecs.base import Decoded, InputSpec, TensorSpec
from serving.codecs.fit import MAX_CELLS, RowPlan, cast, decoded, from_sparse, row_width
from serving.errors import BadInput

MAGIC = b"\x0a\x23\xd7\xce"
FEATURES, LABEL = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Field of ``Value`` -> dtype of its tensor.
_TENSORS: dict[int, np.dtype[np.generic]] = {2: np.dtype("<f4"), 3: np.dtype("<f8"), 7: np.dtype("<i4")}


class Tensor(NamedTuple):
    """A tensor of a record. ``keys`` empty = dense. ``span``: where the values lie in the body when they are one
    packed run of floats, else None."""

    values: np.ndarray
    keys: np.ndarray
    shape: tuple[int, ...]
    span: tuple[int, int] | None


def pack(body: bytes, plan: RowPlan) -> bytes | None:
    """Dense records of one size and of the model's dtype -> packed rows, else None."""
    try:
        start, end = next(_frames(body))
        tensor = _single(_features(body, start, end), None)
    except (BadInput, StopIteration):  # no frame at all
        return None
    if tensor is None or tensor.span is None or tensor.values.dtype != plan.dtype or len(tensor.keys):
        return None
    if len(tensor.values) != plan.width or tensor.shape not in ((), (plan.width,)):
        return None
    size = end + -end % 4
    first, last = tensor.span
    if len(body) == size:
        return body[first:last]
    if len(body) % size:
        return None
    records = np.frombuffer(body, np.uint8).reshape(-1, size)
    if (records[:, :first] != records[0, :first]).any() or (records[:, last:] != records[0, last:]).any():
        return None
    return records[:, first:last].tobytes()


def decode(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """Any RecordIO-protobuf body. A model with several inputs takes features by input name. Raises ``BadInput``."""
    records = [_features(body, start, end) for start, end in _frames(body)]
    if len(spec.tensors) == 1:
        tensor = spec.tensors[0]
        return decoded(_column([_named(record, tensor, n) for n, record in enumerate(records, 1)], spec))
    inputs = {}
    for tensor in spec.tensors:
        column = [record.get(tensor.name) for record in records]
        present = [value for value in column if value is not None]
        if len(present) < len(column):
            raise BadInput(f"a record has no feature {tensor.name!r}")
        inputs[tensor.name] = _column(present, InputSpec((tensor,), spec.fill))
    return decoded(inputs)


def read_records(body: bytes, field: int = FEATURES) -> list[dict[str, np.ndarray]]:
    """The records of a body, each its dense tensors by key, of the type and shape that the record says: for models that
    decode for themselves. ``field``: ``FEATURES`` of a request, ``LABEL`` of an answer. Raises ``BadInput``."""
    records = []
    for number, (start, end) in enumerate(_frames(body), 1):
        tensors = _features(body, start, end, field)
        records.append({key: _dense(tensor, f"record {number}: {key[:80]!r}") for key, tensor in tensors.items()})
    return records


def _dense(tensor: Tensor, where: str) -> np.ndarray:
    if len(tensor.keys):
        raise BadInput(f"{where} is sparse, where a dense tensor is needed")
    if not tensor.shape:
        return tensor.values
    if not len(tensor.values) or math.prod(tensor.shape) != len(tensor.values):
        raise BadInput(f"{where} has {len(tensor.values)} values, its shape says {math.prod(tensor.shape)}")
    return tensor.values.reshape(tensor.shape)


def _single(record: Mapping[str, Tensor], tensor: TensorSpec | None) -> Tensor | None:
    """The features of a model with one input: ``values``, the input's own name, or the only key there is."""
    if "values" in record:
        return record["values"]
    if tensor is not None and tensor.name in record:
        return record[tensor.name]
    return next(iter(record.values())) if len(record) == 1 else None


def _named(record: Mapping[str, Tensor], tensor: TensorSpec, number: int) -> Tensor:
    found = _single(record, tensor)
    if found is None:
        raise BadInput(f"record {number} has no feature 'values'")
    return found


def _column(tensors: Sequence[Tensor], spec: InputSpec) -> np.ndarray:
    # A sparse row of nothing but zeros has a shape, and neither keys nor values.
    if any(len(tensor.keys) or (tensor.shape and not len(tensor.values)) for tensor in tensors):
        return _sparse_rows(tensors, spec)
    wanted = spec.tensors[0]
    rows = [_dense_rows(tensor, number, wanted) for number, tensor in enumerate(tensors, 1)]
    width = row_width(wanted)
    expected = width if width is not None else rows[0].shape[1] if rows else 0
    for number, row in enumerate(rows, 1):
        if row.shape[1] != expected:
            raise BadInput(f"row {number} has {row.shape[1]} values, {expected} are expected")
    return cast(np.concatenate(rows), wanted, sample=False)


def _dense_rows(tensor: Tensor, number: int, wanted: TensorSpec) -> np.ndarray:
    """One record -> [rows, width]: one row, or those its ``[rows, width]`` shape counts."""
    width, size = row_width(wanted), len(tensor.values)
    if tensor.shape and math.prod(tensor.shape) != size:
        raise BadInput(f"row {number} has {size} values, its shape says {math.prod(tensor.shape)}")
    if len(tensor.shape) == 2 and size and size != width:
        return tensor.values.reshape(tensor.shape)
    return tensor.values.reshape(1, size)


def _sparse_rows(tensors: Sequence[Tensor], spec: InputSpec) -> np.ndarray:
    rows: list[tuple[list[int], list[object]]] = []
    width: int | None = None
    for number, tensor in enumerate(tensors, 1):
        count, columns = _sparse_shape(tensor, number)
        width = columns if width is None else width
        if columns != width:
            raise BadInput(f"row {number} has {columns} values, row 1 has {width}")
        if (len(rows) + count) * columns > MAX_CELLS:
            raise BadInput("the sparse rows are too many to expand")
        keys = tensor.keys.tolist() if len(tensor.keys) else list(range(len(tensor.values)))
        if len(keys) != len(tensor.values):
            raise BadInput(f"row {number} has {len(keys)} keys and {len(tensor.values)} values")
        rows.extend(_split(keys, tensor.values.tolist(), count, columns))
    return from_sparse(rows, width, spec)


def _sparse_shape(tensor: Tensor, number: int) -> tuple[int, int]:
    """(rows, columns) of one record: a 2-d shape counts rows too."""
    if len(tensor.keys) and not tensor.shape:
        raise BadInput(f"row {number} has keys but no shape")
    if len(tensor.shape) == 2:
        return tensor.shape[0], tensor.shape[1]
    return 1, math.prod(tensor.shape) if tensor.shape else len(tensor.values)


def _split(keys: list[int], values: list[object], count: int, columns: int) -> list[tuple[list[int], list[object]]]:
    """Cells by row: row = key div columns (behaviour of AWS's own readers where their comments differ)."""
    if count == 1 or not columns:
        return [(keys, values)]
    rows: list[tuple[list[int], list[object]]] = [([], []) for _ in range(count)]
    for key, value in zip(keys, values, strict=True):
        row, column = divmod(key, columns)
        if row >= count:
            raise BadInput(f"key {key} lies outside the shape [{count}, {columns}]")
        rows[row][0].append(column)
        rows[row][1].append(value)
    return rows


def _frames(body: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each payload."""
    at = 0
    while at < len(body):
        if body[at : at + 4] != MAGIC or at + 8 > len(body):
            raise BadInput(f"no RecordIO frame at byte {at}")
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        if length >> 29:
            raise BadInput("a RecordIO record in several parts")
        start, end = at + 8, at + 8 + length
        at = end + -length % 4
        if at > len(body):
            raise BadInput("the last RecordIO frame is cut short")
        yield start, end


def _features(body: bytes, start: int, end: int, map_field: int = FEATURES) -> dict[str, Tensor]:
    features: dict[str, Tensor] = {}
    for field, wire, first, last in _fields(body, start, end):
        if field == map_field and wire == _BYTES:
            key, value = "", None
            for part, kind, a, b in _fields(body, first, last):
                if part == 1 and kind == _BYTES:
                    key = body[a:b].decode("utf-8", "replace")
                elif part == 2 and kind == _BYTES:
                    value = _value(body, a, b)
            if value is not None:
                features[key] = value
    return features


def _value(body: bytes, start: int, end: int) -> Tensor | None:
    """The tensor of a value; None for raw bytes, which no model with arrays can read."""
    found = None
    for field, wire, first, last in _fields(body, start, end):
        if wire == _BYTES and field in _TENSORS:
            found = _tensor(body, first, last, _TENSORS[field])
    return found


def _tensor(body: bytes, start: int, end: int, dtype: np.dtype[np.generic]) -> Tensor:
    values: list[np.ndarray] = []
    numbers: dict[int, list[np.ndarray]] = {2: [], 3: []}
    span = None
    for field, wire, first, last in _fields(body, start, end):
        if field == 1:
            values.append(_run(body, first, last, wire, dtype))
            span = (first, last) if wire == _BYTES and dtype.kind == "f" else None
        elif field in numbers:
            if wire not in (_VARINT, _BYTES):
                raise BadInput("a record's keys and shape must be whole numbers")
            numbers[field].append(_varints(body, first, last))
    joined = values[0] if len(values) == 1 else np.concatenate(values) if values else np.empty(0, dtype)
    keys, shape = (np.concatenate(parts) if parts else np.empty(0, np.uint64) for parts in numbers.values())
    if len(shape) > 32:
        raise BadInput("a record's tensor has more than 32 axes")
    return Tensor(joined, keys, tuple(shape.tolist()), span if len(values) == 1 else None)


def _run(body: bytes, first: int, last: int, wire: int, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Values of one field occurrence: a packed run, or a single one."""
    if dtype.kind == "i" and wire in (_VARINT, _BYTES):
        # int32 travels as the varint of its 64-bit two's complement.
        return _varints(body, first, last).astype(np.int64).astype(dtype)
    if wire not in (_BYTES, _FIXED32 if dtype.itemsize == 4 else _FIXED64) or (last - first) % dtype.itemsize:
        raise BadInput("a record's tensor has values of another type than it says")
    return np.frombuffer(body, dtype, (last - first) // dtype.itemsize, first)


def _varints(body: bytes, first: int, last: int) -> np.ndarray:
    """All varints of a run, at once: seven bits a byte, low ones first, the top bit set on all bytes but the last."""
    run = np.frombuffer(body, np.uint8, last - first, first)
    ends = np.flatnonzero(run < 0x80)
    if not len(run):
        return np.empty(0, np.uint64)
    if not len(ends) or ends[-1] != len(run) - 1:
        raise BadInput("a number in a record is cut short")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise BadInput("a number in a record is longer than 64 bits")
    shifts = (np.arange(len(run)) - np.repeat(starts, lengths)) * 7
    bits = (run & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.asarray(np.add.reduceat(bits, starts))


def _fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start, end) of each field of a message; for a varint the span of its bytes."""
    while at < end:
        tag, at = _varint(body, at, end)
        wire = tag & 7
        if wire == _VARINT:
            start = at
            _, at = _varint(body, at, end)
        elif wire == _BYTES:
            length, start = _varint(body, at, end)
            at = start + length
        elif wire in (_FIXED32, _FIXED64):
            start, at = at, at + (4 if wire == _FIXED32 else 8)
        else:
            raise BadInput("a record has a field of an unknown kind")
        if at > end or not tag >> 3:
            raise BadInput("a record is cut short or damaged")
        yield tag >> 3, wire, start, at


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        result |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return result, at
    raise BadInput("a record is cut short or damaged")


def _length_delimited(field: int, content: bytes) -> bytes:
    return bytes((field << 3 | _BYTES,)) + _encode_varint(len(content)) + content


def _encode_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _tensor_entry(field: int, key: str, count: int) -> bytes:
    """All bytes of a map entry with a dense float32 tensor up to the values themselves."""
    size = 4 * count
    tensor = bytes((1 << 3 | _BYTES,)) + _encode_varint(size)
    value = bytes((2 << 3 | _BYTES,)) + _encode_varint(len(tensor) + size) + tensor
    entry = _length_delimited(1, key.encode()) + bytes((2 << 3 | _BYTES,)) + _encode_varint(len(value) + size) + value
    return bytes((field << 3 | _BYTES,)) + _encode_varint(len(entry) + size) + entry


def encode_rows(columns: Mapping[str, np.ndarray], field: int = LABEL) -> list[bytes]:
    """One frame per row; each column, [rows] or [rows, ...], becomes a float32 tensor under its key in ``label``
    (or in ``features``: a request)."""
    arrays = {key: np.ascontiguousarray(a.reshape(len(a), -1), np.dtype("<f4")) for key, a in columns.items()}
    entries = [(_tensor_entry(field, key, array.shape[1]), array) for key, array in arrays.items()]
    length = sum(len(head) + 4 * array.shape[1] for head, array in entries)
    frame, padding = MAGIC + length.to_bytes(4, "little"), bytes(-length % 4)
    rows = len(next(iter(arrays.values())))
    return [
        frame + b"".join([part for head, array in entries for part in (head, array[row].tobytes())]) + padding
        for row in range(rows)
    ]


def encode_record(
    features: Mapping[str, np.ndarray], label: Mapping[str, np.ndarray] | None = None, shapes: bool = True
) -> bytes:
    """One frame with one record: each array a dense tensor under its key, whole numbers as int32, others as float32.

    An array of several axes says its shape in the record, unless ``shapes`` is False. Raises ValueError for whole
    numbers outside int32.
    """
    entries = [(FEATURES, key, array) for key, array in features.items()]
    entries += [(LABEL, key, array) for key, array in (label or {}).items()]
    payload = b"".join([_entry(field, key, np.asarray(array), shapes) for field, key, array in entries])
    return MAGIC + len(payload).to_bytes(4, "little") + payload + bytes(-len(payload) % 4)


def _entry(field: int, key: str, array: np.ndarray, shapes: bool) -> bytes:
    if array.dtype.kind in "iub":
        if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise ValueError(f"{key!r} has values outside int32")
        kind, values = 7, _encode_varints(array.astype(np.int64).ravel().view(np.uint64))
    else:
        kind, values = 2, array.astype(np.dtype("<f4")).tobytes()
    tensor = _length_delimited(1, values)
    if shapes and array.ndim > 1:
        tensor += _length_delimited(3, _encode_varints(np.array(array.shape, np.uint64)))
    value = _length_delimited(2, _length_delimited(kind, tensor))
    return _length_delimited(field, _length_delimited(1, key.encode()) + value)


def _encode_varints(numbers: np.ndarray) -> bytes:
    """A packed run of uint64 [n]: seven bits a byte, low ones first, the top bit set on all bytes but the last."""
    places = np.arange(10, dtype=np.uint64)
    groups = (numbers[:, None] >> (places * np.uint64(7)) & np.uint64(0x7F)).astype(np.uint8)
    lengths = np.maximum(10 - (groups[:, ::-1] != 0).argmax(axis=1), 1)
    lengths[~groups.any(axis=1)] = 1
    groups[places < lengths[:, None] - 1] |= 0x80
    return bytes(groups[places < lengths[:, None]])
