"""From loose cells to arrays that fit a model: the one place where shapes and dtypes are decided.

Every text form (CSV, JSON, libsvm) ends here. Nothing is reshaped in silence: a row has as many cells as the model
takes, or the caller is told which row has how many. Cells are packed with ``struct``, which is as fast as
``np.array`` on a list and, unlike it, refuses text, nested lists, overflow and a wrong count in the same pass.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, NoReturn

import numpy as np

from serving.codecs.base import Decoded, InputSpec, TensorSpec
from serving.errors import BadInput

#: ``struct`` codes by dtype. "=" (native order, standard sizes) is what makes ``f`` and ``e`` refuse overflow.
_CODES = {
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
}
#: Cells that a sparse form may expand to (256 MiB of float32): a few bytes of body must not ask for gigabytes.
MAX_CELLS = 1 << 26
#: numpy's own limit is 64; no model has so many axes.
_MAX_AXES = 32
#: JSON has no spelling for these; the strings are those that AWS's algorithms and protobuf's JSON form use.
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: All that ``RowPlan.pack`` and ``orjson.loads`` raise on what is not one row of plain numbers.
PACK_ERRORS = (struct.error, OverflowError, TypeError, ValueError)
_KINDS = {list: "a list", dict: "an object", type(None): "a missing value"}


class RowPlan(NamedTuple):
    """How one row of a single numeric input becomes bytes. ``pack`` takes exactly ``width`` numbers and raises
    ``struct.error``, ``OverflowError`` or ``TypeError`` for anything else; ``shape`` is the array's without the row
    axis; ``rows`` the fixed row count, None = any."""

    width: int
    shape: tuple[int, ...]
    rows: int | None
    dtype: np.dtype[np.generic]
    row_bytes: int
    pack: Callable[..., bytes]

    def array(self, packed: bytes | bytearray) -> np.ndarray:
        """Packed rows -> a writable array (torch warns about read-only ones)."""
        data = packed if type(packed) is bytearray else bytearray(packed)
        return np.ndarray((len(data) // self.row_bytes, *self.shape), self.dtype, data)


@lru_cache(maxsize=1024)
def row_plan(spec: InputSpec) -> RowPlan | None:
    """The plan of a model with one numeric input and a known number of cells per row, else None."""
    tensor = spec.tensors[0]
    width, code = row_width(tensor), _CODES.get(tensor.dtype)
    if len(spec.tensors) != 1 or not width or code is None:
        return None
    layout = struct.Struct(f"={width}{code}")
    shape = tuple(size for size in tensor.shape[1:] if size is not None)
    return RowPlan(width, shape, tensor.shape[0], np.dtype(tensor.dtype), layout.size, layout.pack)


def row_width(tensor: TensorSpec) -> int | None:
    """Cells per row, None where an axis is free or there is no row axis."""
    if not tensor.shape or None in tensor.shape[1:]:
        return None
    return math.prod(size for size in tensor.shape[1:] if size is not None)


def is_text(tensor: TensorSpec) -> bool:
    """Whether the tensor holds strings: ``"str"`` (numpy kind U) or ``"object"`` (Python strings)."""
    return tensor.dtype in ("str", "object")


def decoded(inputs: np.ndarray | dict[str, np.ndarray], configuration: dict[str, object] | None = None) -> Decoded:
    """Count the rows, refuse a body without any, and refuse inputs that disagree on their number."""
    arrays = inputs if isinstance(inputs, dict) else {"": inputs}
    counts = {name: array.shape[0] for name, array in arrays.items() if array.ndim}
    rows = next(iter(counts.values()), 1)
    if rows == 0:
        raise BadInput("the body holds no rows")
    for name, count in counts.items():
        if count != rows:
            raise BadInput(f"input {name!r} has {count} rows, {next(iter(counts))!r} has {rows}")
    return Decoded(inputs, rows, configuration or {})


def from_nested(values: object, tensor: TensorSpec, *, sample: bool = True, column: bool = False) -> np.ndarray:
    """Nested lists of JSON values -> an array of the tensor's shape and dtype; ``sample`` and ``column`` as in
    ``fit_shape``."""
    cells, found = _flatten(values, tensor)
    return from_cells(cells, tensor, fit_shape(found, tensor, sample=sample, column=column))


def _flatten(values: object, tensor: TensorSpec) -> tuple[list[object], tuple[int, ...]]:
    """All cells in order, and the shape of the nest. A loop, so that depth costs no stack."""
    if not isinstance(values, list):
        return [values], ()
    shape = [len(values)]
    while values and isinstance(values[0], list):
        if set(map(type, values)) != {list} or len(set(map(len, values))) != 1:
            _refuse_ragged(values, shape, tensor)
        shape.append(len(values[0]))
        if len(shape) > _MAX_AXES:
            raise BadInput(f"arrays are nested deeper than {_MAX_AXES} levels")
        values = list(chain.from_iterable(values))
    return values, tuple(shape)


def _refuse_ragged(values: list[object], shape: list[int], tensor: TensorSpec) -> NoReturn:
    sizes = [len(value) if isinstance(value, list) else None for value in values]
    wanted = row_width(tensor) if len(shape) == 1 and len(tensor.shape) == 2 else None
    expected = wanted if wanted is not None else sizes[0]
    bad = next(i for i, size in enumerate(sizes) if size != expected)
    row = bad // max(math.prod(shape[1:]), 1) + 1
    got = "a single value" if sizes[bad] is None else f"{sizes[bad]} values"
    raise BadInput(f"row {row} has {got} where {expected} are expected: rows must have equal lengths")


def fit_shape(
    found: tuple[int, ...], tensor: TensorSpec, *, sample: bool = True, column: bool = False
) -> tuple[int, ...]:
    """The shape that an array of shape ``found`` takes in the model, row axis first. Raises ``BadInput`` when there
    is none; every accepted reshape keeps the order of cells and is checked by count.

    Flat rows are accepted for a model of more axes. ``sample``: one row may come without its row axis. ``column``:
    a flat list of n values may be n rows of a model that takes one value per row.
    """
    shape = _candidate(found, tensor, sample, column)
    if shape is None:
        raise BadInput(_mismatch(found, tensor))
    fixed = tensor.shape[0] if tensor.shape else None
    if fixed is not None and shape[0] != fixed:
        raise BadInput(f"the model takes exactly {fixed} rows per call, got {shape[0]}")
    return shape


def _candidate(found: tuple[int, ...], tensor: TensorSpec, sample: bool, column: bool) -> tuple[int, ...] | None:
    if not tensor.shape:
        return () if found in ((), (1,)) else None
    wanted, width = tensor.shape[1:], row_width(tensor)
    if len(found) == len(tensor.shape) and _matches(found[1:], wanted):
        return found
    if sample and wanted and len(found) == len(wanted) and _matches(found, wanted):
        return (1, *found)
    if width is None:
        return None
    row = tuple(size for size in wanted if size is not None)
    if len(found) == 2 and found[1] == width:
        return (found[0], *row)
    if column and width == 1 and len(found) == 1:
        return (found[0], *row)
    if sample and (found == (width,) or (width == 1 and found == ())):
        return (1, *row)
    return None


def _matches(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(expected is None or size == expected for size, expected in zip(found, wanted, strict=True))


def _mismatch(found: tuple[int, ...], tensor: TensorSpec) -> str:
    if len(tensor.shape) == 2 and tensor.shape[1] is not None and len(found) == 2:
        return f"row 1 has {found[-1]} values, the model takes {tensor.shape[1]}"
    wanted = ", ".join("any" if size is None else str(size) for size in tensor.shape)
    return f"input {tensor.name!r} has shape [{', '.join(map(str, found))}], the model takes [{wanted}]"


def from_cells(cells: list[object], tensor: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    """Cells in row order -> an array. ``None`` and the words NaN, Infinity, -Infinity are values of a float tensor;
    a whole float is an integer. Anything else that does not fit raises ``BadInput`` naming the row."""
    if is_text(tensor):
        return _text_array(cells, tensor, shape)
    code = _CODES.get(tensor.dtype)
    if code is None:
        return _bool_array(cells, tensor, shape)
    pack = struct.Struct(f"={len(cells)}{code}").pack
    for attempt in (cells, [math.nan if cell is None else cell for cell in cells]):
        try:
            return np.ndarray(shape, tensor.dtype, bytearray(pack(*attempt)))
        except (struct.error, OverflowError):
            continue
    return np.ndarray(shape, tensor.dtype, bytearray(_pack_carefully(cells, tensor, code, shape)))


def _pack_carefully(cells: list[object], tensor: TensorSpec, code: str, shape: tuple[int, ...]) -> bytes:
    pack = struct.Struct(f"={code}").pack
    convert = _float_cell if code in "efd" else _int_cell
    packed = []
    for index, cell in enumerate(cells):
        try:
            packed.append(pack(convert(cell)))
        except (struct.error, OverflowError):
            refuse_cell(cell, row_of(index, shape), f"is out of range for {tensor.dtype}")
        except ValueError as error:
            refuse_cell(cell, row_of(index, shape), str(error))
    return b"".join(packed)


def _float_cell(cell: object) -> float:
    if cell is None:
        return math.nan
    if isinstance(cell, (int, float)):
        return cell
    if isinstance(cell, str) and cell in _WORDS:
        return _WORDS[cell]
    raise ValueError("is not a number")


def _int_cell(cell: object) -> int:
    if isinstance(cell, int):
        return cell
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    raise ValueError("is not a whole number, which is what the model takes")


def _bool_array(cells: list[object], tensor: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    if tensor.dtype != "bool":
        raise BadInput(f"a {tensor.dtype} input cannot be read from this content type")
    for index, cell in enumerate(cells):
        if not isinstance(cell, (int, float)) or cell not in (0, 1):
            refuse_cell(cell, row_of(index, shape), "is not true or false")
    return np.array(cells, dtype=bool).reshape(shape)


def _text_array(cells: list[object], tensor: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    longest = 1
    for index, cell in enumerate(cells):
        if not isinstance(cell, str):
            refuse_cell(cell, row_of(index, shape), "is not text, which is what the model takes")
        longest = max(longest, len(cell))
    try:
        "".join(cells).encode()  # type: ignore[arg-type]  # checked above
    except UnicodeEncodeError:
        raise BadInput("the body holds text that is no Unicode") from None
    # A "U" array gives every cell the room of the longest.
    if tensor.dtype == "str" and longest * len(cells) > MAX_CELLS:
        raise BadInput("the body's longest text times its number of cells is too large")
    return np.array(cells, dtype=tensor.dtype).reshape(shape)


def row_of(index: int, shape: tuple[int, ...]) -> int:
    """The row, counted from 1, of the cell at ``index``."""
    return index // max(math.prod(shape[1:]), 1) + 1


def refuse_cell(cell: object, row: int, why: str) -> NoReturn:
    """Raise ``BadInput`` for one cell; only the head of a long one is shown."""
    shown = _KINDS.get(type(cell)) or repr(cell[:40] if isinstance(cell, str) else cell)
    raise BadInput(f"row {row}: {shown} {why}")


def from_rows(rows: Sequence[list[object]], spec: InputSpec) -> np.ndarray | dict[str, np.ndarray]:
    """A table of cells -> the model's inputs. A model with several inputs takes them side by side, in its order."""
    if len(spec.tensors) == 1:
        return _from_table(rows, spec.tensors[0])
    widths = [row_width(tensor) for tensor in spec.tensors]
    if None in widths:
        raise BadInput("the model's inputs have free sizes: send JSON 'inputs' by name")
    check_widths(rows, sum(width for width in widths if width is not None))
    inputs, start = {}, 0
    for tensor, width in zip(spec.tensors, widths, strict=True):
        assert width is not None
        inputs[tensor.name] = _from_table([row[start : start + width] for row in rows], tensor)
        start += width
    return inputs


def _from_table(rows: Sequence[list[object]], tensor: TensorSpec) -> np.ndarray:
    check_widths(rows, row_width(tensor))
    shape = fit_shape((len(rows), len(rows[0]) if rows else 0), tensor, sample=False)
    return from_cells(list(chain.from_iterable(rows)), tensor, shape)


def check_widths(rows: Sequence[Sequence[object]], width: int | None) -> None:
    """Raise ``BadInput`` naming the first row whose length is not ``width`` (None = the first row's)."""
    expected = width if width is not None else len(rows[0]) if rows else 0
    for number, row in enumerate(rows, 1):
        if len(row) != expected:
            whose = "the model takes" if width is not None else "row 1 has"
            raise BadInput(f"row {number} has {len(row)} values, {whose} {expected}")


def from_sparse(rows: Sequence[tuple[Sequence[int], list[object]]], width: int | None, spec: InputSpec) -> np.ndarray:
    """Rows of (indexes, values) -> a dense array, absent cells at ``spec.fill``. ``width``: what the body says or
    implies, None = nothing; checked against the model before anything is allocated."""
    tensor = spec.tensors[0]
    known = row_width(tensor)
    if len(spec.tensors) != 1 or len(tensor.shape) != 2 or tensor.dtype not in _CODES:
        raise BadInput("sparse rows are for models with one numeric [rows, features] input")
    if known is not None and width is not None and width != known:
        raise BadInput(f"row 1 has {width} values, the model takes {known}")
    columns = known if known is not None else width or 0
    if columns * len(rows) > MAX_CELLS:
        raise BadInput(f"{len(rows)} sparse rows of {columns} values are too many to expand")
    if math.isnan(spec.fill) and np.dtype(tensor.dtype).kind != "f":
        raise BadInput("the model takes whole numbers, so no value may be left out")
    dense = np.full(fit_shape((len(rows), columns), tensor), spec.fill, dtype=tensor.dtype)
    for number, (indexes, values) in enumerate(rows):
        _check_indexes(indexes, len(values), columns, number + 1)
        if values:
            dense[number, list(indexes)] = from_cells(values, tensor, (1, len(values)))
    return dense


def _check_indexes(indexes: Sequence[int], values: int, columns: int, row: int) -> None:
    if len(indexes) != values:
        raise BadInput(f"row {row} has {len(indexes)} keys and {values} values")
    if len(set(indexes)) != values:
        raise BadInput(f"row {row} names a feature twice")
    for index in indexes:
        if not 0 <= index < columns:
            raise BadInput(f"row {row} names feature {index} of {columns} (the first is 0)")


def cast(array: np.ndarray, tensor: TensorSpec, *, sample: bool = True) -> np.ndarray:
    """A typed array (npy, protobuf) -> the tensor's dtype and shape, in memory of its own.

    Widening and exact narrowing only: a finite value may not become infinite, nor a fraction an integer. ``sample``
    as in ``fit_shape``.
    """
    shape = fit_shape(array.shape, tensor, sample=sample)
    if is_text(tensor):
        if array.dtype.kind != "U":
            raise BadInput(f"a {array.dtype.name} array where the model takes text")
        return _text_array(array.ravel().tolist(), tensor, shape)
    target = np.dtype(tensor.dtype)
    if array.dtype.kind not in "fiub" or target.kind not in "fiub":
        raise BadInput(f"a {array.dtype.name} array where the model takes {tensor.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target, order="C", copy=True)
    if not np.can_cast(array.dtype, target, "safe"):
        _check_cast(array, result)
    return result.reshape(shape)


def _check_cast(array: np.ndarray, result: np.ndarray) -> None:
    if result.dtype.kind == "f":
        bad = np.isinf(result) & np.isfinite(array)
    elif result.dtype.kind == "b":
        bad = (array != 0) & (array != 1)
    else:
        bad = _beyond(array, np.iinfo(result.dtype))
    if bad.any():
        row = row_of(int(np.argmax(bad)), array.shape)
        raise BadInput(f"row {row}: a value does not fit the model's {result.dtype.name} input")


def _beyond(array: np.ndarray, limits: np.iinfo[np.signedinteger]) -> np.ndarray:
    """Where a value is no integer of that dtype. What numpy's cast makes of those differs between machines."""
    if array.dtype.kind != "f":
        return (array < limits.min) | (array > limits.max)
    wide = array.astype(np.float64)
    # float(max) + 1 is exact for every width: for 64 bits max itself already rounds up to it.
    whole: np.ndarray = (wide >= limits.min) & (wide < float(limits.max) + 1) & (np.trunc(wide) == wide)
    return ~whole
