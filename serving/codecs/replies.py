"""Predictions -> bodies. One pass turns a stacked prediction into the text of its rows; each call then gets its own
rows in its own envelope, so a batch of sixty-four costs little more than one.

Floats are written in the shortest form that reads back as the same float32 or float64. Replies are always valid
JSON: NaN and both infinities are ``null`` there; CSV writes ``nan``, ``inf`` and ``-inf``. Every line of CSV and
JSON Lines ends with a newline, the last one too.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import orjson

from serving.codecs.layouts import Layout
from serving.codecs.recordio import encode_rows
from serving.errors import NotAcceptable, PredictionFailed

Arrays = Mapping[str, np.ndarray]
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def json_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """``{"predictions":[row, ...]}``, with the layout's envelope."""
    head, tail = b'{"%b":[' % layout.envelope.encode(), b"]}"
    if len(counts) == 1 and not objects:
        (array,) = arrays.values()
        if array.dtype.kind in "fiub":
            return [b'{"%b":%b}' % (layout.envelope.encode(), orjson.dumps(array, option=_NUMPY))]
    rows = _json_rows(arrays, objects)
    if _single(rows, counts):
        return [head + row + tail for row in rows]
    return [head + b",".join(part) + tail for part in _parts(rows, counts)]


def line_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """One row of the JSON document per line."""
    return _lines(_json_rows(arrays, objects), counts)


def csv_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """One line per row, the columns of all outputs side by side."""
    columns = [(_quoted_rows if layout.quoted and array.ndim > 1 else _csv_rows)(array) for array in arrays.values()]
    rows = columns[0] if len(columns) == 1 else [b",".join(cells) for cells in zip(*columns, strict=True)]
    return _lines(rows, counts)


def recordio_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """One record per row, its results float32 tensors in ``label``."""
    if any(array.dtype.kind not in "fiub" for array in arrays.values()):
        raise NotAcceptable("the model answers with text, which application/x-recordio-protobuf does not hold")
    return [b"".join(part) for part in _parts(encode_rows(arrays), counts)]


def npy_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """The single output as a numpy file."""
    return [_npy(part) for part in _slices(_only(arrays, "application/x-npy"), counts)]


def npz_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """All outputs by name; a nameless one is called ``predictions``."""
    named = arrays if objects else {"predictions": next(iter(arrays.values()))}
    split = {name: _slices(array, counts) for name, array in named.items()}
    return [_npz({name: parts[call] for name, parts in split.items()}) for call in range(len(counts))]


def raw_bodies(arrays: Arrays, objects: bool, layout: Layout, counts: Sequence[int]) -> list[bytes]:
    """The little-endian values of the single output."""
    array = _only(arrays, "application/octet-stream")
    if array.dtype.kind not in "fiub":
        raise NotAcceptable("the model answers with text, which application/octet-stream does not hold")
    return [part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes() for part in _slices(array, counts)]


#: Media type -> how bodies are written.
WRITERS: dict[str, Callable[[Arrays, bool, Layout, Sequence[int]], list[bytes]]] = {
    "application/json": json_bodies,
    "application/jsonlines": line_bodies,
    "application/x-ndjson": line_bodies,
    "text/csv": csv_bodies,
    "application/x-npy": npy_bodies,
    "application/x-npz": npz_bodies,
    "application/x-recordio-protobuf": recordio_bodies,
    "application/octet-stream": raw_bodies,
}


def _parts(rows: list[bytes], counts: Sequence[int]) -> Iterator[list[bytes]]:
    start = 0
    for count in counts:
        yield rows[start : start + count]
        start += count


def _single(rows: list[bytes], counts: Sequence[int]) -> bool:
    """Whether each call has just one row, the common batch."""
    return len(rows) == len(counts) and min(counts) == 1


def _slices(array: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    return np.split(array, np.cumsum(counts)[:-1])


def _lines(rows: list[bytes], counts: Sequence[int]) -> list[bytes]:
    if _single(rows, counts):
        return [row + b"\n" for row in rows]
    return [b"\n".join([*part, b""]) for part in _parts(rows, counts)]


def _only(arrays: Arrays, media_type: str) -> np.ndarray:
    if len(arrays) > 1:
        raise NotAcceptable(f"the model answers with several outputs, {media_type} holds one: accept application/x-npz")
    return next(iter(arrays.values()))


def _json_rows(arrays: Arrays, objects: bool) -> list[bytes]:
    if not objects:
        return _row_texts(next(iter(arrays.values())))
    keys = [orjson.dumps(name) + b":" for name in arrays]
    columns = [_row_texts(array) for array in arrays.values()]
    if len(columns) == 1:
        head = b"{" + keys[0]
        return [head + text + b"}" for text in columns[0]]
    heads = [b"{" + keys[0], *(b"," + key for key in keys[1:])]
    return [
        b"".join([piece for pair in zip(heads, texts, strict=True) for piece in pair]) + b"}"
        for texts in zip(*columns, strict=True)
    ]


def _row_texts(array: np.ndarray) -> list[bytes]:
    """The JSON text of each row, from one call of orjson for all of them."""
    if not len(array):
        return []
    if array.dtype.kind not in "fiub":
        return [_dump(row) for row in array.tolist()]
    if array.ndim == 1:
        return orjson.dumps(array, option=_NUMPY)[1:-1].split(b",")
    if array.ndim == 2 and array.shape[1]:
        return [b"[%b]" % text for text in orjson.dumps(array, option=_NUMPY)[2:-2].split(b"],[")]
    return [orjson.dumps(row, option=_NUMPY) for row in array]


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=_plain, option=_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        raise PredictionFailed("the model answered with values that JSON cannot hold") from None


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _csv_rows(array: np.ndarray) -> list[bytes]:
    """The cells of each row, joined by commas."""
    table = array.reshape(len(array), -1)
    if array.dtype.kind not in "fiub":
        return [b",".join([_csv_cell(cell) for cell in row]) for row in table.tolist()]
    if not table.size:
        return [b""] * len(table)
    text = orjson.dumps(table, option=_NUMPY)
    if b"null" not in text:
        return text[2:-2].split(b"],[")
    cells = orjson.dumps(table.ravel(), option=_NUMPY)[1:-1].split(b",")
    for index in np.flatnonzero(~np.isfinite(table.ravel())):
        cells[index] = b"%a" % float(table.flat[index])
    width = table.shape[1]
    return [b",".join(cells[start : start + width]) for start in range(0, len(cells), width)]


def _quoted_rows(array: np.ndarray) -> list[bytes]:
    """Each row as one cell, as Python writes a list: ``"[0.1, 0.9]"``."""
    return [b'"[%b]"' % row.replace(b",", b", ") for row in _csv_rows(array)]


def _csv_cell(value: object) -> bytes:
    if not isinstance(value, (str, bytes)):
        return _dump(value)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if any(mark in text for mark in ',"\n\r'):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode("utf-8", "replace")


@lru_cache(maxsize=256)
def _npy_header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


def _npy(array: np.ndarray) -> bytes:
    if array.dtype.kind == "O":
        # Objects would be pickled; the only ones a model answers with are strings.
        array = np.array([str(value) for value in array.ravel().tolist()], dtype=np.str_).reshape(array.shape)
    return _npy_header(array.dtype, array.shape) + array.tobytes()


def _npz(arrays: Arrays) -> bytes:
    out = io.BytesIO()
    # Not np.savez: it takes names as keywords, and one of them may be its own parameter's.
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", _npy(array))
    return out.getvalue()
