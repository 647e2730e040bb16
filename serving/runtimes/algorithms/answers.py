"""Answers of the algorithms that read instances: how they are written, and how large one may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from serving.errors import BadInput

#: About 200 MB of JSON. A short word is four bytes of a request and a thousand of its answer.
MOST_NUMBERS = 1 << 24


def check_size(numbers: int) -> None:
    """Before so many numbers are worked out. Raises BadInput for more than an answer may hold."""
    if numbers > MOST_NUMBERS:
        raise BadInput(
            f"the answer would hold {numbers} numbers, and at most {MOST_NUMBERS} are answered: send fewer instances"
        )


def document(answer: Any) -> bytes:
    """JSON, with NumPy's arrays as lists of the shortest digits."""
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def lines(rows: Sequence[Any]) -> bytes:
    """The same, one answer a line."""
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    return b"".join([orjson.dumps(row, option=option) for row in rows])
