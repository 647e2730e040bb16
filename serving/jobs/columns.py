"""Parquet as input of a batch job: its rows, written as the lines of CSV (without a header) or JSON Lines.

The object's name says that it is Parquet; the job's ContentType says how the model wants rows. pyarrow (extra
``parquet``) is imported when the first such object is opened. Memory is bounded by the row, not by the file: strings
stay in their dictionaries until the slice of rows that is being written.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import orjson

from serving.errors import BadObject, ValidationError
from serving.jobs.joining import CSV, JSON_LINES, media_type
from serving.jobs.splitting import Piece, pieces

Kind = Literal["text/csv", "application/jsonlines"]

_SUFFIXES = (".parquet", ".pq")
#: Bytes of text, or of columns, that are made at a time (one row may have more).
_SLICE = 4 << 20
_MOST_ROWS = 65_536
#: No number, date or time has a longer text.
_CELL = 64


def is_parquet(url: str, content_type: str) -> bool:
    """An object whose rows are to be sent as lines: a ``.parquet`` one in a job of CSV or JSON Lines (SplitType Line).
    With any other ContentType it is sent as the bytes it is."""
    return url.lower().endswith(_SUFFIXES) and media_type(content_type) in (CSV, JSON_LINES)


def parquet_pieces(
    path: Path,
    kind: Kind,
    most_bytes: int,
    start_row: int = 0,
    strategy: str = "MultiRecord",
    usual_bytes: int = 0,
) -> Iterator[Piece]:
    """Like ``splitting.pieces`` with SplitType Line, from row ``start_row`` on. ``start`` and ``end`` of a piece are
    numbers of rows. Raises ``ValidationError`` without pyarrow, ``BadObject`` for what is no Parquet file, is damaged,
    or has columns that a line cannot hold."""
    stream = io.BufferedReader(_Lines(_slices(path, kind, start_row)), 1 << 18)
    for piece in pieces(stream, "Line", strategy, most_bytes, first=start_row, usual_bytes=usual_bytes):
        yield piece._replace(start=piece.first, end=piece.first + piece.count)


class _Lines(io.RawIOBase):
    """A stream of what an iterator gives."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts, self._rest = parts, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _arrow() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise ValidationError("Parquet input needs pyarrow: install the extra serving[parquet].") from None
    return pyarrow, pyarrow.compute, pyarrow.parquet


@contextmanager
def _damage_told() -> Iterator[None]:
    """pyarrow's errors about the file's content, in a sentence; those of the disk as they are."""
    pa, _, _ = _arrow()
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadObject("The object is not Parquet, or is damaged.") from None


def _slices(path: Path, kind: Kind, start_row: int) -> Iterator[bytes]:
    """The lines, some at a time."""
    batches = _batches(path, kind, start_row)
    while True:
        with _damage_told():
            batch = next(batches, None)
            if batch is None:
                return
            parts = _written(batch, kind)
        yield from parts


def _batches(path: Path, kind: Kind, start_row: int) -> Iterator[Any]:
    pa, _, pq = _arrow()
    schema = pq.read_schema(path)
    _check(schema, kind)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    # Without pre_buffer and with a buffer, a row group is read page by page, not whole.
    with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False, buffer_size=1 << 16) as file:
        behind = start_row
        for group in range(file.metadata.num_row_groups):
            rows, size = file.metadata.row_group(group).num_rows, file.metadata.row_group(group).total_byte_size
            if behind >= rows:
                behind -= rows
                continue
            per_row = max(size // max(rows, 1), _CELL * len(schema) // 4, 1)
            at_once = max(1, min(_MOST_ROWS, _SLICE // per_row))
            for batch in file.iter_batches(batch_size=at_once, row_groups=[group]):
                if behind < batch.num_rows:
                    yield batch.slice(behind)
                behind = max(0, behind - batch.num_rows)


def _check(schema: Any, kind: Kind) -> None:
    """Every column has one plain value per row."""
    pa, _, _ = _arrow()
    if not len(schema):
        raise BadObject("The Parquet object has no columns.")
    for field in schema:
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not any(is_kind(plain) for is_kind in _plain_kinds(pa.types)):
            raise BadObject(f"Column {field.name!r} is of type {field.type}, which {kind} cannot hold in a row.")


def _plain_kinds(types: Any) -> tuple[Any, ...]:
    return (
        *(types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_null),
        *(types.is_string, types.is_large_string, types.is_date, types.is_time, types.is_timestamp),
    )


def _written(batch: Any, kind: Kind) -> Iterator[bytes]:
    """A batch's lines, no more rows at a time than have room in a slice however long their strings are."""
    pa, pc, _ = _arrow()
    longest = 1
    for column in batch.columns:
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        texts = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        longest += _CELL + ((pc.max(pc.binary_length(values)).as_py() or 0) if texts else 0)
    at_once = max(1, _SLICE // longest)
    for at in range(0, batch.num_rows, at_once):
        yield _text(batch.slice(at, at_once), kind)


def _text(batch: Any, kind: Kind) -> bytes:
    pa, pc, _ = _arrow()
    write = _csv_cell if kind == CSV else _json_value
    parts: list[Any] = []
    for number, (field, column) in enumerate(zip(batch.schema, batch.columns, strict=True)):
        if kind == CSV:
            parts.append("," if number else "")
        else:
            parts.append(f"{',' if number else '{'}{orjson.dumps(field.name).decode()}:")
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        parts.append(write(plain, field.name))
    parts += ["\n" if kind == CSV else "}\n", ""]
    rows = pc.binary_join_element_wise(*[_large(part) for part in parts])
    return b"".join(rows.cast(pa.large_binary()).to_pylist())


def _large(part: Any) -> Any:
    pa, _, _ = _arrow()
    return pa.scalar(part, pa.large_string()) if isinstance(part, str) else part.cast(pa.large_string())


def _csv_cell(column: Any, name: str) -> Any:
    """As text, in quotes only where it must be; null is an empty cell."""
    pa, pc, _ = _arrow()
    text = column.cast(pa.large_string())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        if pc.any(pc.match_substring_regex(text, r"[\r\n]")).as_py():
            raise BadObject(f"Column {name!r} has a text with a newline, which a line of CSV cannot hold.")
        escaped = pc.replace_substring(text, '"', '""')
        quoted = pc.binary_join_element_wise(*[_large(part) for part in ('"', escaped, '"', "")])
        text = pc.if_else(pc.match_substring_regex(text, r'[",]'), quoted, text)
    return pc.fill_null(text, "")


def _json_value(column: Any, name: str) -> Any:
    """As JSON: numbers and booleans bare, texts and times quoted; null, and what is no number, null."""
    pa, pc, _ = _arrow()
    text = column.cast(pa.large_string())
    types = pa.types
    if types.is_floating(column.type):
        text = pc.if_else(pc.is_finite(column), text, None)
    elif not any(is_kind(column.type) for is_kind in (types.is_boolean, types.is_integer, types.is_decimal)):
        quoted = [None if value is None else orjson.dumps(value).decode() for value in text.to_pylist()]
        text = pa.array(quoted, pa.large_string())
    return pc.fill_null(text, "null")
