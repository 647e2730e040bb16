"""Captured calls, and the objects of a dataset, as Arrow tables of text: what a profile is made of.

All columns are strings, null is a missing value: types are found out by text (``behaviour/06``). Names come from the
rows themselves (JSON objects), else from ``header``, else they are ``_c0``, ``_c1``, ... with a row's outputs before
its inputs. Of CSV, the usual form, thousands of bodies are read at once; where that does not come out right the half
of them is tried, and so on down to the bodies at fault, which are read one by one and complained about.
"""

from __future__ import annotations

import codecs
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, BinaryIO, Literal, TypeVar

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from serving.errors import BadObject, ValidationError
from serving.monitor.bodies import cells, form
from serving.monitor.columns import BLOCK, Columns, as_text, parse_csv, trimmed
from serving.monitor.rows import Row, of_document, rows, unique
from serving.monitor.values import Complaints, Record, Side

Sides = Literal["input", "output", "both"]
_Pick = Callable[[Record], Side | None]
_Part = TypeVar("_Part", pa.Table, pa.RecordBatch)

#: Characters of bodies that are read at once: what fits into a processor's cache is read twice as fast.
_MOST_TEXT = 1 << 20
#: Bodies that are no longer tried together.
_FEW = 32
#: Records that are taken from a stream in one step, if they are small.
_AT_ONCE = 500
_LONGEST_HEADER = 1 << 20
#: Bodies by which the usual width of a row is told.
_SAMPLE = 200


def tables(
    records: Iterable[Record],
    complaints: Complaints,
    header: Sequence[str] = (),
    side: Sides = "both",
    rows: int = 50_000,
) -> Iterator[pa.Table]:
    """The rows of captured calls, some ``rows`` in a table. ``side``: whose columns; with ``both``, the answers' and
    then the requests', if the first records have both. A record that does not fit - no text, no rows, ragged, other
    columns than most, another number of answers than of rows - is left out and complained about."""
    reader = _Reader(complaints, header, side)
    parts = (table for group in _groups(records, rows) for table in reader.tables(group))
    for _, alike in groupby(parts, key=lambda table: table.column_names):
        for group in _regrouped(alike, rows):
            yield pa.concat_tables(group)


def _groups(records: Iterable[Record], rows: int) -> Iterator[list[Record]]:
    """So many records at a time, or fewer that have much text. They are taken some at a time, the fewer the larger the
    last ones were."""
    records, group, size, some = iter(records), list[Record](), 0, 1
    while taken := list(islice(records, some)):
        group += taken
        more = sum([len(record[4][2]) if record[4] else 0 for record in taken])
        more += sum([len(record[5][2]) if record[5] else 0 for record in taken])
        size += more
        if len(group) >= rows or size > _MOST_TEXT:
            yield group
            group, size = [], 0
        some = max(1, min(_AT_ONCE, rows - len(group), _MOST_TEXT // 8 * len(taken) // (more + 1)))
    if group:
        yield group


@lru_cache(256)
def _plain(content_type: str, encoding: str) -> bool:
    """Is a body CSV without a header, in plain text?"""
    return (
        encoding == "CSV"
        and form(Side(content_type, encoding, ""), "") == "CSV"
        and "header" not in content_type.lower()
    )


class _Reader:
    """What is known of a stream of records: whose columns, and how many of them have no name of their own."""

    def __init__(self, complaints: Complaints, header: Sequence[str], side: Sides) -> None:
        self._complaints = complaints
        self._header = unique(list(header))
        self._asked = side
        self._pickers: list[_Pick] = []
        self._widths: list[int] = []
        self._seen: set[str] = set()

    def tables(self, group: list[Record]) -> Iterator[pa.Table]:
        """Of one group."""
        if not self._pickers:
            self._begin(group)
        if not all(_all_plain(list(map(pick, group))) for pick in self._pickers):
            whole = [record for record in group if self._has_all(record)]
            group = [record for record in whole if all(_all_plain([pick(record)]) for pick in self._pickers)]
            plain = set(map(id, group))
            yield from self._one_by_one([record for record in whole if id(record) not in plain])
        yield from self._together(group)

    def _begin(self, group: list[Record]) -> None:
        """The first records say which directions there are, and how wide most rows are."""
        known: dict[str, _Pick] = {"output": _output, "input": _input}
        wanted = [known[self._asked]] if self._asked in known else list(known.values())
        present = [pick for pick in wanted if any(pick(record) for record in group)]
        self._pickers = present or wanted
        self._widths = self._usual_widths(group[:_SAMPLE])

    def _usual_widths(self, records: Iterable[Record]) -> list[int]:
        """How many cells most rows without names have, in each direction; 0 when there are none such."""
        found: list[Counter[int]] = [Counter() for _ in self._pickers]
        for record in records:
            with suppress(ValidationError):
                for widths, part in zip(found, self._parts(record), strict=True):
                    widths.update(len(row) for row in part if isinstance(row, list))
        return [widths.most_common(1)[0][0] if widths else 0 for widths in found]

    def _has_all(self, record: Record) -> bool:
        for pick in self._pickers:
            if pick(record) is None:
                reason = "a call without its answer" if pick is _output else "a call without its input"
                self._complaints.add(reason, record.event_id)
                return False
        return True

    # --- many bodies at once ----------------------------------------------------------------------------------------

    def _together(self, records: list[Record]) -> Iterator[pa.Table]:
        """Tables of CSV bodies; halves of them where there is something wrong."""
        if not records:
            return
        table = self._parsed(records)
        if table is not None:
            yield table
        elif len(records) > _FEW:
            yield from self._together(records[: len(records) // 2])
            yield from self._together(records[len(records) // 2 :])
        else:
            yield from self._one_by_one(records)

    def _parsed(self, records: list[Record]) -> pa.Table | None:
        """The table of bodies that are all as most are; None when one is not."""
        columns: list[pa.ChunkedArray] = []
        counts: list[list[int]] = []
        for pick, width in zip(self._pickers, self._widths, strict=True):
            text, lines = _joined(list(map(_data, map(pick, records))))
            counts.append(lines)
            table = parse_csv(text, width, sum(lines) or len(records)) if width and counts[0] == lines else None
            if table is None:
                return None
            columns += table.columns
        return pa.table(columns, names=self._names(len(columns)))

    def _names(self, count: int, taken: Sequence[str] = ()) -> list[str]:
        """Of ``count`` columns without a name; the header's names may be taken by columns that have one."""
        free = [name for name in self._header if name not in taken]
        return free[:count] + [f"_c{number}" for number in range(len(free), count)]

    # --- one body after the other -----------------------------------------------------------------------------------

    def _one_by_one(self, records: list[Record]) -> Iterator[pa.Table]:
        columns = Columns(self._seen)
        for record in records:
            try:
                for row in self._rows(record):
                    columns.add(row)
            except ValidationError as error:
                self._complaints.add(error.message, record.event_id)
            if columns.is_full:
                yield columns.table()
                columns = Columns(self._seen)
        if columns.count:
            yield columns.table()

    def _rows(self, record: Record) -> list[dict[str, str | None]]:
        """The named rows of a record, its directions side by side. Raises ``ValidationError``."""
        parts = self._parts(record)
        for number, part in enumerate(parts):
            for row in part:
                self._check_width(number, row)
        return [self._named(row) for row in zip(*parts, strict=True)]

    def _parts(self, record: Record) -> list[list[Row]]:
        """The rows of each direction. Raises ``ValidationError``."""
        sides = [side for pick in self._pickers if (side := pick(record)) is not None]
        parts = [rows(side) for side in sides]
        if len(parts) == 2:
            parts[0] = _turned(parts[0], len(parts[1]))
        if len(parts) < len(self._pickers) or len(parts[0]) != len(parts[-1]):
            raise ValidationError("another number of answers than of rows")
        return parts

    def _check_width(self, number: int, row: Row) -> None:
        if isinstance(row, list):
            self._widths[number] = self._widths[number] or len(row)
            if len(row) != self._widths[number]:
                raise ValidationError("a row has another width than most")

    def _named(self, parts: tuple[Row, ...]) -> dict[str, str | None]:
        named: dict[str, str | None] = {}
        bare: list[str | None] = []
        for part in parts:
            if isinstance(part, list):
                bare += part
            else:
                named.update((name if name not in named else f"{name}_1", value) for name, value in part.items())
        if not bare:
            return named
        return dict(zip(self._names(len(bare), tuple(named)), bare, strict=True)) | named


_input, _output = itemgetter(4), itemgetter(5)
_kind: Callable[[Any], tuple[str, str]] = itemgetter(0, 1)
_data: Callable[[Any], str] = itemgetter(2)


def _all_plain(sides: Sequence[Side | None]) -> bool:
    """Are all of them there, and CSV?"""
    return all(sides) and all(_plain(*kind) for kind in set(map(_kind, sides)))


def _joined(bodies: list[str]) -> tuple[str, list[int]]:
    """Bodies as one text, and how many lines each has; none if all have one."""
    text = "\n".join(bodies)
    if text.count("\n") == len(bodies) - 1:
        return text, []
    bodies = [body.rstrip("\r\n") for body in bodies]
    lines = [body.count("\n") + 1 for body in bodies]
    return "\n".join(bodies), lines if any(one > 1 for one in lines) else []


def _turned(answers: list[Row], count: int) -> list[Row]:
    """Answers of several rows in one line are one for each (older XGBoost containers, ``behaviour/10``)."""
    first = answers[0]
    if count > 1 and len(answers) == 1 and isinstance(first, list) and len(first) == count:
        return [[one] for one in first]
    return answers


# --- a dataset ------------------------------------------------------------------------------------------------------


def dataset(
    stream: BinaryIO, kind: str, complaints: Complaints, header: bool = True, rows: int = 50_000
) -> Iterator[pa.Table]:
    """The rows of a dataset, as its columns are: what a baseline is made of. ``kind``: a content type, or a file's
    name, of CSV (with a ``header`` or without), JSON Lines (or one JSON document) or Parquet. A row of another width
    than the header is left out and complained about. Raises ``ValidationError`` for another kind, ``BadObject`` for
    content that is not of it."""
    plain = kind.partition(";")[0].strip().lower()
    found = next((read for marks, read in _DATASETS if plain.endswith(marks)), None)
    if found is None:
        raise ValidationError("A dataset is CSV, JSON Lines or Parquet: name it .csv, .jsonl or .parquet.")
    try:
        yield from found(stream, complaints, header, rows)
    except pa.ArrowException:
        raise BadObject("The dataset is damaged, or not of its kind.") from None


def _csv_dataset(stream: BinaryIO, complaints: Complaints, header: bool, rows: int) -> Iterator[pa.Table]:
    first, reader = _first_line(stream)
    if not first:
        return
    (cells_of_first,) = cells(first) or [[""]]
    names = unique(cells_of_first if header else [""] * len(cells_of_first))

    def odd(row: Any) -> str:
        complaints.add("a row has another width than most", "" if row.number is None else f"row {row.number}")
        return "skip"

    columns = [str(number) for number in range(len(names))]
    read = csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=columns, skip_rows=int(header))
    parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=odd)
    batches = csv.open_csv(pa.PythonFile(reader, "r"), read, parse, as_text(columns, valid=False))
    for group in _regrouped(batches, rows):
        yield trimmed(pa.Table.from_batches(group)).rename_columns(names)


def _first_line(stream: BinaryIO) -> tuple[str, BinaryIO]:
    """The first line of a text, and the text from its begin. Raises ``BadObject`` for what is none."""
    reader = io.BufferedReader(_Raw(stream), _LONGEST_HEADER)
    if reader.peek(3)[:3] == codecs.BOM_UTF8:
        reader.read(3)
    head = reader.peek(_LONGEST_HEADER)[:_LONGEST_HEADER]
    try:
        return head.replace(b"\r\n", b"\n").partition(b"\n")[0].decode(), reader
    except UnicodeDecodeError:
        raise BadObject("The dataset's first line is not UTF-8.") from None


class _Raw(io.RawIOBase):
    """Whatever can be read, as what ``io`` calls raw; it gives as much as is asked for while there is more."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer) and (data := self._stream.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


def _regrouped(parts: Iterable[_Part], rows: int) -> Iterator[list[_Part]]:
    """As many tables, or batches, together as have some ``rows``."""
    group: list[_Part] = []
    count = 0
    for part in parts:
        group.append(part)
        count += part.num_rows
        if count >= rows:
            yield group
            group, count = [], 0
    if group:
        yield group


def _json_dataset(stream: BinaryIO, complaints: Complaints, header: bool, rows: int) -> Iterator[pa.Table]:
    seen: set[str] = set()
    columns = Columns(seen)
    for number, line in enumerate(stream):
        if line.isspace():
            continue
        try:
            found = of_document(orjson.loads(line))
            for row in found:
                columns.add(row if isinstance(row, dict) else {f"_c{at}": one for at, one in enumerate(row)})
        except (ValueError, ValidationError):
            complaints.add("a line is not valid JSON, or no row", f"line {number + 1}")
        if columns.count >= rows or columns.is_full:
            yield columns.table()
            columns = Columns(seen)
    if columns.count:
        yield columns.table()


def _parquet_dataset(stream: BinaryIO, complaints: Complaints, header: bool, rows: int) -> Iterator[pa.Table]:
    with parquet.ParquetFile(pa.PythonFile(stream, "r"), pre_buffer=False, buffer_size=1 << 16) as file:
        schema = file.schema_arrow
        flat = [number for number, field in enumerate(schema) if not pa.types.is_nested(field.type)]
        for field in (one for one in schema if pa.types.is_nested(one.type)):
            complaints.add("a column has lists or objects for values", field.name)
        names = unique([schema.names[number] for number in flat])
        for batch in file.iter_batches(batch_size=rows, columns=[schema.names[number] for number in flat]):
            yield pa.table([_written(batch.column(number)) for number in range(len(flat))], names=names)


def _written(column: pa.Array) -> pa.Array:
    """Values as a CSV writer has them: a float keeps its point, as its type is told by it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pa.array([None if one is None else repr(one) for one in column.to_pylist()], pa.string())
    text = column.cast(pa.string())
    if not pa.types.is_floating(column.type):
        return text
    bare = pc.match_substring_regex(text, r"^-?\d+$")
    return pc.if_else(bare, pc.binary_join_element_wise(text, ".0", ""), text)


_DATASETS: tuple[tuple[tuple[str, ...], Callable[[BinaryIO, Complaints, bool, int], Iterator[pa.Table]]], ...] = (
    (("csv",), _csv_dataset),
    (("json", "jsonl", "jsonlines", "ndjson"), _json_dataset),
    (("parquet", ".pq"), _parquet_dataset),
)
