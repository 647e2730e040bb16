"""Tables of text: from CSV, thousands of bodies at once, and from rows that were read one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from serving.errors import ValidationError
from serving.monitor.rows import MOST_COLUMNS

#: Cells of a table that is put together in Python.
_MOST_CELLS = 2_000_000
#: A reader's block that fits into a processor's cache is the fastest by far.
BLOCK = 1 << 20


class Columns:
    """Rows of names and cells, gathered into a table; a row may lack columns that others have. ``seen``: the names of
    all tables of a stream so far: whoever puts ids into names does not fill the memory."""

    def __init__(self, seen: set[str]) -> None:
        self._seen = seen
        self._columns: dict[str, list[str | None]] = {}
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Time for another table."""
        return self.count * len(self._columns) > _MOST_CELLS

    def add(self, row: dict[str, str | None]) -> None:
        """One more row. Raises ``ValidationError`` for one with a new column too many."""
        fresh = row.keys() - self._seen
        if len(self._seen) + len(fresh) > MOST_COLUMNS:
            raise ValidationError("a row has columns that no other has, too many by now")
        self._seen |= fresh
        for name, value in row.items():
            column = self._columns.setdefault(name, [])
            if len(column) < self.count:
                column += [None] * (self.count - len(column))
            column.append(value)
        self.count += 1

    def table(self) -> pa.Table:
        """All rows."""
        for column in self._columns.values():
            column += [None] * (self.count - len(column))
        arrays = [pa.array(map(_encodable, column), pa.string()) for column in self._columns.values()]
        return pa.table(arrays, names=[_encodable(name) or "" for name in self._columns])


def _encodable(text: str | None) -> str | None:
    """Text that UTF-8 can hold: half a surrogate pair is a question mark."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def parse_csv(text: str, width: int, count: int) -> pa.Table | None:
    """CSV without a header, ``count`` rows of ``width`` cells -> a table; None for anything else, and for text that
    only a careful reader reads right."""
    names = [str(number) for number in range(width)]
    # A line has to fit into a block.
    block = BLOCK if count * BLOCK > 64 * len(text) else len(text) * 4 + 1
    read = csv.ReadOptions(use_threads=False, block_size=block, column_names=names)
    try:
        table = csv.read_csv(pa.py_buffer(text.encode()), read_options=read, convert_options=as_text(names))
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return None
    if table.num_rows != count or '", ' in text or ', "' in text:
        return None
    return trimmed(table) if " " in text or "\t" in text else table


def as_text(names: Sequence[str], valid: bool = True) -> csv.ConvertOptions:
    """Every column a string, every empty cell null. ``valid``: it is known to be UTF-8."""
    return csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
        check_utf8=not valid,
    )


def trimmed(table: pa.Table) -> pa.Table:
    """Cells without the space around them; what is nothing else is null."""
    columns = []
    for column in table.columns:
        text = pc.utf8_trim_whitespace(column)
        columns.append(pc.if_else(pc.equal(pc.binary_length(text), 0), pa.scalar(None, pa.string()), text))
    return pa.table(columns, names=table.column_names)
