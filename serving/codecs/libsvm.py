"""``text/libsvm``: ``[label] index:value index:value ...`` per line; what a line leaves out is ``spec.fill``.

Indexes count from 0; if the smallest one of the body is 1 or more they all shift down by one, as the XGBoost
container does. So a body of 0-based rows that all lack feature 0 is misread, there and here: name it (``0:nan``).
A label, ``qid:n`` and a ``# comment`` are legal and ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from serving.codecs.base import Decoded, InputSpec
from serving.codecs.fit import decoded, from_sparse, row_width
from serving.errors import BadInput


def decode(body: bytes, params: Mapping[str, str], spec: InputSpec) -> Decoded:
    """Sparse rows for a model with one numeric [rows, features] input. Raises ``BadInput`` naming the row."""
    try:
        lines = body.decode("ascii").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError:
        raise BadInput("the libsvm body is not ASCII text") from None
    if b"_" in body:
        # Python reads 1_000 as a thousand; libsvm does not.
        raise BadInput("the libsvm body holds what is no number: '_'")
    rows: list[tuple[list[int], list[object]]] = []
    for line in lines:
        if tokens := line.partition("#")[0].split():
            rows.append(_row(tokens, len(rows) + 1))
    lowest = min((min(indexes) for indexes, _ in rows if indexes), default=0)
    if lowest > 0:
        rows = [([index - 1 for index in indexes], values) for indexes, values in rows]
    highest = max((max(indexes) for indexes, _ in rows if indexes), default=0)
    width = None if row_width(spec.tensors[0]) is not None else highest + 1
    return decoded(from_sparse(rows, width, spec))


def _row(tokens: list[str], row: int) -> tuple[list[int], list[object]]:
    if ":" not in tokens[0]:
        _number(tokens[0], row)
        tokens = tokens[1:]
    if tokens and tokens[0].startswith("qid:"):
        tokens = tokens[1:]
    indexes: list[int] = []
    values: list[object] = []
    for token in tokens:
        index, colon, value = token.partition(":")
        if not colon or not index.isdigit() or len(index) > 9:
            raise BadInput(f"row {row}: {token[:40]!r} is not index:value")
        indexes.append(int(index))
        values.append(_number(value, row))
    return indexes, values


def _number(text: str, row: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"row {row}: {text[:40]!r} is not a number") from None
    if math.isinf(value) and "n" not in text.lower():
        raise BadInput(f"row {row}: {text[:40]!r} is out of range")
    return value
