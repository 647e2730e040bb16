"""Records to explain, and the synthetic ones made of them: read from a body, and written as the model reads them. Pure.

A record is a list of cells. A cell of CSV is the text that stood there, and one of JSON Lines the value: both go to the
model as they came, so that nothing is lost on the way."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from serving.errors import ValidationError
from serving.explain import expressions

#: Any JSON value; text of CSV.
Cell = Any

CSV, LINES = "text/csv", "application/jsonlines"
#: Whole numbers of fewer characters fit 64 bits, as JSON is written here.
_DIGITS = 19
#: Media types that mean the same.
_KINDS = {
    CSV: CSV,
    LINES: LINES,
    "application/x-jsonlines": LINES,
    "application/x-ndjson": LINES,
}


class Records(NamedTuple):
    """What a body holds: rows of cells, the line above them (CSV with ``header=present``), and its names."""

    kind: str
    rows: list[list[Cell]]
    header: str = ""
    names: tuple[str, ...] = ()


def kind_of(content_type: str) -> str:
    """``text/csv`` or ``application/jsonlines``, empty for any other."""
    return _KINDS.get(content_type.partition(";")[0].strip().lower(), "")


def read(body: bytes, content_type: str, features: str, what: str) -> Records:
    """The records of a body; ``features``: FeaturesAttribute; ``what`` begins the message. All have the same width.
    Raises ``ValidationError``."""
    kind = kind_of(content_type)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError(f"{what} is not UTF-8.") from None
    if kind == CSV:
        made = _csv(text, "header=present" in content_type.replace(" ", "").lower(), what)
    elif kind == LINES:
        rows = [_features(line, features, what, number) for number, line in enumerate(lines(text), 1)]
        made = Records(kind, rows)
    else:
        raise ValidationError(f"{what} must be {CSV} or {LINES}.")
    _check_widths(made.rows, what)
    return made


def lines(text: str) -> list[str]:
    """Those with something on them."""
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def table(text: str, what: str) -> list[list[str]]:
    """The rows of a CSV text. Raises ``ValidationError``."""
    try:
        return [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise ValidationError(f"{what} is malformed CSV: {error}.") from None


def _csv(text: str, headed: bool, what: str) -> Records:
    rows: list[list[Cell]] = list(table(text, what))
    if not headed:
        return Records(CSV, rows)
    if not rows:
        raise ValidationError(f"{what} has no header.")
    return Records(CSV, rows[1:], ",".join(map(csv_cell, rows[0])) + "\n", tuple(rows[0]))


def _features(line: str, features: str, what: str, number: int) -> list[Cell]:
    try:
        value = orjson.loads(line)
    except ValueError:
        raise ValidationError(f"{what}: line {number} is not JSON.") from None
    if not isinstance(value, list) and features:
        value = expressions.found(features, value, "FeaturesAttribute")
    if not isinstance(value, list):
        where = f"FeaturesAttribute {features!r}" if features else "the line itself (there is no FeaturesAttribute)"
        raise ValidationError(f"{what}: line {number} has no list of features at {where}.")
    return value


def _check_widths(rows: Sequence[Sequence[Cell]], what: str) -> None:
    if not rows:
        raise ValidationError(f"{what} holds no record.")
    for number, row in enumerate(rows, 1):
        if not row or len(row) != len(rows[0]):
            raise ValidationError(f"{what}: record {number} has {len(row)} features, record 1 has {len(rows[0])}.")


def value(cell: Cell) -> Cell:
    """What a cell of CSV means: a number, None for an empty one, or its text; a JSON value is itself."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    try:
        number = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return cell if text else None
    if number is None or not math.isfinite(number):
        return cell
    return int(text) if len(text) < _DIGITS and text.lstrip("+-").isdigit() else number


def csv_cell(cell: Cell) -> str:
    """A cell as CSV."""
    text = "" if cell is None else cell if isinstance(cell, str) else orjson.dumps(cell).decode()
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text


def json_cell(cell: Cell) -> str:
    """A cell as JSON."""
    return orjson.dumps(cell).decode()


class Form(NamedTuple):
    """How records are written: each cell, and what stands before and after them in a line; ``header``: above all."""

    cell: Callable[[Cell], str]
    before: str = ""
    after: str = "\n"
    header: str = ""


def form_of(read: Records, template: str, mark: str) -> Form:
    """As the records came. ``template`` holds ``mark`` where the list of features goes (JSON Lines)."""
    if read.kind == CSV:
        return Form(csv_cell, header=read.header)
    before, _, after = template.partition(mark)
    return Form(json_cell, before + "[", "]" + after + "\n")


def alike(rows: Sequence[Sequence[Cell]], kind: str) -> list[list[Cell]]:
    """Baseline rows as cells that can stand beside a body's: CSV's texts mean numbers where JSON is wanted."""
    return [[value(cell) for cell in row] for row in rows] if kind == LINES else [list(row) for row in rows]


def batches(lines: Iterator[str], most_records: int, most_bytes: int) -> Iterator[list[str]]:
    """Lines in lists of at most so many, and so many bytes; one line at least."""
    parts: list[str] = []
    size = 0
    for line in lines:
        length = len(line) if line.isascii() else len(line.encode())
        if parts and (len(parts) >= most_records or size + length > most_bytes):
            yield parts
            parts, size = [], 0
        parts.append(line)
        size += length
    if parts:
        yield parts
