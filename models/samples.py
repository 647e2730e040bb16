"""Samples for the algorithms that read rows of numbers, in each of SageMaker's request types.

The bodies are written here and not by the server's own encoders: who reads and who writes must not share a mistake.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.cards import Sample, csv_body, json_body
from models.data import Floats

JSON, LINES, CSV, RECORDIO = (
    "application/json",
    "application/jsonlines",
    "text/csv",
    "application/x-recordio-protobuf",
)
_FEW = 3


def of_rows(
    rows: Floats,
    answers: Sequence[dict[str, Any]],
    envelope: str = "predictions",
    tolerance: float = 1e-5,
    types: Sequence[str] = (CSV, JSON, LINES, RECORDIO),
) -> tuple[Sample, ...]:
    """``request`` (one row of JSON), ``batch`` (all of ``rows`` as CSV, or as JSON Lines where there is no CSV) and a
    few rows in each further type and spelling, with their part of ``answers``, the object of each row."""

    def sample(name: str, suffix: str, content_type: str, body: bytes, count: int, accept: str = JSON) -> Sample:
        part = list(answers[:count])
        return Sample(
            name, suffix, content_type, body, part if accept == LINES else {envelope: part}, tolerance, accept
        )

    few, everything = rows[:_FEW], len(rows)
    batch = (
        sample("batch", ".csv", CSV, csv_body(rows), everything)
        if CSV in types
        else sample("batch", ".jsonl", LINES, lines(rows), everything, LINES)
    )
    found = [sample("request", ".json", JSON, features(rows[:1]), 1), batch]
    found.append(sample("nested", ".json", JSON, nested(few), len(few)))
    found.append(sample("sparse", ".json", JSON, sparse(few), len(few)))
    if LINES in types and CSV in types:
        found.append(sample("lines", ".jsonl", LINES, lines(few), len(few), LINES))
    if RECORDIO in types:
        found.append(sample("recordio", ".rec", RECORDIO, recordio(few), len(few)))
    return tuple(found)


def features(rows: Floats) -> bytes:
    """``{"instances": [{"features": [...]}]}``."""
    return json_body({"instances": [{"features": row} for row in rows]})


def nested(rows: Floats) -> bytes:
    """``{"instances": [{"data": {"features": {"values": [...]}}}]}``."""
    return json_body({"instances": [{"data": {"features": {"values": row}}} for row in rows]})


def sparse(rows: Floats) -> bytes:
    """As ``nested``, only the cells that are not zero, with their positions in ``keys``."""
    return json_body({"instances": [{"data": {"features": _cells(row)}} for row in rows]})


def lines(rows: Floats) -> bytes:
    """JSON Lines: an instance of ``features`` a line."""
    return b"".join(json_body({"features": row}) for row in rows)


def recordio(rows: Floats) -> bytes:
    """RecordIO-protobuf: a record a row, its features a dense float32 tensor under ``values``."""
    return b"".join(_frame(row) for row in rows)


def _cells(row: Floats) -> dict[str, Any]:
    keys = np.flatnonzero(row)
    return {"keys": keys, "shape": [len(row)], "values": row[keys]}


def _frame(row: Floats) -> bytes:
    """Magic, length, ``Record{features: {"values": Value{float32_tensor: {values: row}}}}``, zeros up to four bytes."""
    tensor = _field(1, row.astype("<f4").tobytes())
    entry = _field(1, b"values") + _field(2, _field(2, tensor))
    record = _field(1, entry)
    return struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4)


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes: tag, length as a varint, content."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((number << 3 | 2,)) + bytes((*length, size)) + content
