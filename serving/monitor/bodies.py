"""Rows of captured bodies: what a CSV, JSON or JSON Lines body of one call holds, row by row (``behaviour/10``).

Light: orjson and the standard library. All errors are ``ValidationError`` whose text says nothing of the body, so that
it can be a reason of ``Complaints``.
"""

from __future__ import annotations

import csv
import io
import math
import re
from typing import Any, Literal

import orjson

from serving.errors import ValidationError
from serving.monitor.values import Side

Form = Literal["CSV", "JSON", "JSON Lines"]

_WHOLE = re.compile(r"[+-]?\d{1,100}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_JSON_LINES = ("jsonlines", "jsonl", "ndjson", "x-ndjson", "json-lines")


def form(side: Side, text: str) -> Form:
    """How a body is written: by its content type; by the encoding it was captured in; else by how it begins."""
    kind = side.content_type.partition(";")[0].strip().lower().rpartition("/")[2]
    if kind in _JSON_LINES:
        return "JSON Lines"
    if kind == "csv":
        return "CSV"
    if kind == "json" or kind.endswith("+json") or side.encoding == "JSON":
        return "JSON"
    if side.encoding == "CSV":
        return "CSV"
    return "JSON" if text.lstrip()[:1] in ("{", "[") else "CSV"


def text_of(side: Side) -> str:
    """The body as text. Raises ``ValidationError`` for one that is none."""
    if side.encoding != "BASE64":
        return side.data
    try:
        text = side.body.decode()
    except UnicodeDecodeError:
        raise ValidationError("a body is not text") from None
    if "\0" in text:
        raise ValidationError("a body is not text")
    return text


def documents(text: str, lines: bool) -> list[Any]:
    """The JSON documents of a body: one, or one for each line that is not empty. A JSON body that is none as a whole
    may still be JSON Lines, as some containers name them ``application/json``. Raises ``ValidationError``."""
    pieces = [line for line in text.split("\n") if line.strip()] if lines else [text]
    try:
        return [orjson.loads(piece) for piece in pieces]
    except ValueError:
        if not lines and "\n" in text.strip():
            return documents(text, True)
        raise ValidationError("a body is not valid JSON") from None


def cells(text: str) -> list[list[str]]:
    """The rows of a CSV body without its empty lines, each cell without the space around it. Raises
    ``ValidationError``."""
    if '"' not in text and "\r" not in text:  # nearly every body: it needs no parser
        return [[cell.strip() for cell in line.split(",")] for line in text.split("\n") if line]
    try:
        rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in rows if row]
    except csv.Error:
        raise ValidationError("a body is not valid CSV") from None


def label_text(value: object) -> str | None:
    """A label in the one way in which predicted and true ones are compared: 1, 1.0, ``"1"`` and ``"1.0"`` are one
    label, so are true and ``"True"``. None for what is no label: nothing, a list, an object, no finite number."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text):
            return str(int(text))
        found = number(text)
        if found is None:
            return text.lower() if text.lower() in ("true", "false") else text or None
        value = found
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) else repr(value)


def number(value: object) -> float | None:
    """A finite number, of a JSON number or of a text that is one; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
