"""Every wire format that can hold a float table: how to write one, so that one suite tests all readers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import orjson

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.recordio import FEATURES, encode_rows

Write = Callable[[np.ndarray], bytes]


class Family(NamedTuple):
    """A content type and a writer of float32 tables for it. ``framed``: every strict prefix of a one-row body is
    damaged, and shows it."""

    name: str
    content_type: str
    write: Write
    framed: bool = True


def spec(columns: int | None = 3, dtype: str = "float32", fill: float = float("nan")) -> InputSpec:
    """A model with one [rows, columns] input."""
    return InputSpec((TensorSpec("input", dtype, (None, columns)),), fill)


def image_spec(*shape: int) -> InputSpec:
    """A model with one float32 input of more axes."""
    return InputSpec((TensorSpec("image", "float32", (None, *shape)),), 0.0)


def named_spec() -> InputSpec:
    """A model with a number and a text by name."""
    return InputSpec((TensorSpec("age", "int64", (None, 1)), TensorSpec("job", "str", (None, 1))), 0.0)


def csv(table: np.ndarray) -> bytes:
    """Lines of shortest spellings; NaN is an empty cell."""
    return b"".join(b",".join(b"" if cell != cell else b"%a" % cell for cell in row) + b"\n" for row in table.tolist())


def npy(table: np.ndarray) -> bytes:
    """What numpy.save writes."""
    out = io.BytesIO()
    np.save(out, table)
    return out.getvalue()


def npz(table: np.ndarray) -> bytes:
    """What numpy.savez writes."""
    out = io.BytesIO()
    np.savez(out, table)
    return out.getvalue()


def libsvm(table: np.ndarray) -> bytes:
    """All cells, indexes from 0."""
    return b"".join(
        b" ".join([b"1", *(b"%d:%a" % (index, cell) for index, cell in enumerate(row))]) + b"\n"
        for row in table.tolist()
    )


def recordio(table: np.ndarray) -> bytes:
    """Dense float32 records."""
    return b"".join(encode_rows({"values": table}, FEATURES))


def _json(key: str | None, wrap: Callable[[list[float]], object] = lambda row: row) -> Write:
    def write(table: np.ndarray) -> bytes:
        rows = [wrap([None if cell != cell else cell for cell in row]) for row in table.tolist()]
        return orjson.dumps(rows if key is None else {key: rows})

    return write


def _lines(table: np.ndarray) -> bytes:
    return b"".join(orjson.dumps({"features": [None if c != c else c for c in row]}) + b"\n" for row in table.tolist())


def _split(table: np.ndarray) -> bytes:
    columns = [f"c{index}" for index in range(table.shape[1])]
    return orjson.dumps({"dataframe_split": {"columns": columns, "data": orjson.loads(_json(None)(table))}})


FAMILIES = [
    Family("csv", "text/csv", csv, framed=False),
    Family("csv by its bare name", "csv", csv, framed=False),
    Family("csv CRLF", "text/csv; label_size=0", lambda table: csv(table).replace(b"\n", b"\r\n"), framed=False),
    Family("bare array", "application/json", _json(None)),
    Family("instances", "application/json; charset=utf-8", _json("instances")),
    Family("features", "application/json", _json("instances", lambda row: {"features": row})),
    Family("values", "application/json", _json("instances", lambda row: {"data": {"features": {"values": row}}})),
    Family("inputs", "application/json", _json("inputs")),
    Family("dataframe_split", "application/json", _split),
    Family(
        "dataframe_records",
        "application/json",
        _json("dataframe_records", lambda row: dict(zip("abc", row, strict=True))),
    ),
    Family("json lines", "application/jsonlines", _lines),
    Family("npy", "application/x-npy", npy),
    Family("npz", "application/x-npz", npz),
    Family("recordio", "application/x-recordio-protobuf", recordio),
    Family("libsvm", "text/libsvm", libsvm, framed=False),
    Family("raw", "application/octet-stream", lambda table: table.astype("<f4").tobytes()),
]
