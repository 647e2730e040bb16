"""``text/csv``: one row per line, no header, no label.

Read: commas (or, for numbers, whichever of ``;``, tab, ``|`` and space the first row uses when it has no comma),
LF, CRLF or CR, blank lines, a final newline or none, quoted cells, a byte order mark, ``nan`` and ``inf`` in any
case. An empty cell is a missing value. A header is refused unless the type says ``header=present`` (RFC 4180).

``label_size`` may be 0 (AWS's spelling of "no label") or 1 (the only value the XGBoost container takes); neither
removes a column, and the width check finds the caller who left a label in.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import orjson

from serving.codecs.base import Decoded, InputSpec, TensorSpec
from serving.codecs.fit import (
    PACK_ERRORS,
    RowPlan,
    check_widths,
    decoded,
    from_rows,
    is_text,
    refuse_cell,
    row_plan,
    row_width,
)
from serving.errors import BadInput, UnsupportedContentType

_NAN = math.nan
#: As integers: ``in`` finds a byte by its number several times faster than by a bytes object of length 1.
_T, _F, _LF, _CR = b"tf\n\r"


def check(params: Mapping[str, str]) -> None:
    """Refuse parameters that would change what the columns mean. Raises ``UnsupportedContentType``."""
    if params.get("label_size", "0") not in ("0", "1"):
        raise UnsupportedContentType("text/csv takes no label_size but 0 or 1: send rows without a label")
    if params.get("header", "absent") not in ("absent", "present"):
        raise UnsupportedContentType("text/csv takes header=absent or header=present")


def pack(body: bytes, plan: RowPlan) -> bytes | None:
    """Rows of plain numbers and missing ones -> packed rows; None for anything else.

    A row of JSON numbers between brackets is a JSON array, and orjson reads floats several times faster than
    ``float`` does. What keeps that safe: a line break is never inside what is parsed; ``plan.pack`` refuses strings,
    nulls and nested lists, and counts the cells; ``true`` and ``false``, which it would take for 1 and 0, are the
    only JSON scalars left, and no number has a t or an f.
    """
    if _T in body or _F in body:
        return None
    text = body.rstrip(b"\r\n ")
    if _LF not in text and _CR not in text:
        try:
            return plan.pack(*orjson.loads(b"[" + text + b"]"))
        except PACK_ERRORS:
            return _pack_with_gaps(text, plan)
    if _CR in text:
        text = text.replace(b"\r\n", b"\n")
        if _CR in text:
            return None
    lines, row, loads = text.split(b"\n"), plan.pack, orjson.loads
    try:
        return b"".join([row(*loads(b"[" + line + b"]")) for line in lines])
    except PACK_ERRORS:
        return _pack_lines(lines, plan)


def _pack_lines(lines: list[bytes], plan: RowPlan) -> bytes | None:
    """Lines of which at least one is blank or has a gap. Missing values rarely come alone, so each line is read as
    if it had some: raising and catching costs more than that."""
    packed = []
    for line in lines:
        if line and not line.isspace():
            row = _pack_with_gaps(line, plan)
            if row is None:
                return None
            packed.append(row)
    return b"".join(packed) or None


def _pack_with_gaps(line: bytes, plan: RowPlan) -> bytes | None:
    """A row with empty and ``nan`` cells: both become JSON nulls. One that says ``null`` itself is no such row."""
    if plan.dtype.kind != "f" or b"l" in line or not line:
        return None
    filled = b"," + line.replace(b"nan", b"null").replace(b"NaN", b"null") + b","
    # Twice: a replacement does not see the comma that the one before it ended with.
    filled = filled.replace(b",,", b",null,").replace(b",,", b",null,")
    try:
        return plan.pack(*[_NAN if cell is None else cell for cell in orjson.loads(b"[" + filled[1:-1] + b"]")])
    except PACK_ERRORS:
        return None


def decode(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """Any CSV body. Raises ``BadInput`` naming the first row that does not fit."""
    if params.get("header") != "present" and (packed := _pack_first_width(body, spec)) is not None:
        return decoded(packed)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput("the CSV body is not UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    skip = int(params.get("header") == "present")
    delimiter = _delimiter(lines[0], spec) if lines else ","
    if '"' not in text and len(spec.tensors) == 1 and row_plan(spec) is not None:
        rows = [[_number(cell, row) for cell in line.split(delimiter)] for row, line in enumerate(lines[skip:], 1)]
    else:
        rows = _typed(_records(text, delimiter)[skip:], spec)
    return decoded(from_rows(rows, spec))


def _pack_first_width(body: bytes, spec: InputSpec) -> np.ndarray | None:
    """The short cut for a model of any number of features: the first row says how many."""
    tensor = spec.tensors[0]
    if tensor.shape != (None, None):
        return None
    width = body.partition(b"\n")[0].count(b",") + 1
    plan = row_plan(spec._replace(tensors=(tensor._replace(shape=(None, width)), *spec.tensors[1:])))
    packed = None if plan is None else pack(body, plan)
    return None if plan is None or packed is None else plan.array(packed)


def _delimiter(line: str, spec: InputSpec) -> str:
    """The XGBoost container sniffs too. Text cells may hold any of these, so only numbers are sniffed."""
    if "," in line or spec.columns == 1 or any(is_text(tensor) for tensor in spec.tensors):
        return ","
    return next((mark for mark in ";\t| " if mark in line.strip(" ")), ",")


def _records(text: str, delimiter: str) -> list[list[str]]:
    try:
        records = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise BadInput(f"the CSV body is malformed: {error}") from None
    return [record for record in records if record and (len(record) > 1 or not record[0].isspace())]


def _typed(records: list[list[str]], spec: InputSpec) -> list[list[object]]:
    """Text cells -> cells of the type that the tensor over that column takes."""
    if len(spec.tensors) == 1:
        read = _reader(spec.tensors[0])
        return [[read(cell, row) for cell in record] for row, record in enumerate(records, 1)]
    readers = [read for tensor in spec.tensors for read in [_reader(tensor)] * (row_width(tensor) or 0)]
    check_widths(records, len(readers))
    return [
        [read(cell, row) for read, cell in zip(readers, record, strict=True)] for row, record in enumerate(records, 1)
    ]


def _reader(tensor: TensorSpec) -> Callable[[str, int], object]:
    if is_text(tensor):
        return _text
    return _flag if tensor.dtype == "bool" else _number


def _text(cell: str, row: int) -> object:
    return cell


def _flag(cell: str, row: int) -> object:
    text = cell.strip().lower()
    return text == "true" if text in ("true", "false") else _number(cell, row)


def _number(cell: str, row: int) -> object:
    """A number, None for an empty cell. Python's own extras (``1_000``, other scripts' digits) are not CSV."""
    text = cell.strip()
    if not text:
        return None
    try:
        if "_" in text or not text.isascii():
            raise ValueError(text)
        if len(text) < 20 and text.lstrip("+-").isdigit():
            return int(text)
        value = float(text)
    except ValueError:
        hint = (
            ": send rows without a header, or say 'text/csv; header=present'"
            if row == 1 and any(map(str.isalpha, text))
            else ""
        )
        refuse_cell(cell, row, f"is not a number{hint}")
    if math.isinf(value) and "n" not in text.lower():
        refuse_cell(cell, row, "is out of range")
    return value
