"""Parquet objects as lines of CSV and JSON Lines."""

from __future__ import annotations

import datetime
import decimal
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.errors import BadObject
from serving.jobs.columns import Kind, is_parquet, parquet_pieces
from serving.jobs.splitting import Piece, bisect

CSV: Kind = "text/csv"
LINES: Kind = "application/jsonlines"
MEGABYTE = 1 << 20
BOTH = pytest.mark.parametrize("kind", [CSV, LINES])


def written(folder: Path, columns: dict[str, Any], **settings: Any) -> Path:
    """A Parquet file of these columns."""
    path = folder / "rows.parquet"
    pq.write_table(pa.table(columns), path, **settings)
    return path


def text(path: Path, kind: Kind) -> str:
    """All of its lines."""
    return b"".join(piece.body for piece in parquet_pieces(path, kind, MEGABYTE)).decode()


def test_rows(tmp_path: Path) -> None:
    """No header, quotes only where they must be, no value as an empty cell or null; numbers as short as they can be
    read back, decimals with all their digits."""
    path = written(
        tmp_path,
        {
            "id": ["a", "b,c", 'q"x', None],
            "float": pa.array([0.1, None, float("nan"), 1e20], pa.float32()),
            "int": [1, -2, 3, None],
            "flag": [True, False, None, True],
            "price": [decimal.Decimal("1.50"), None, decimal.Decimal("-0.10"), decimal.Decimal("12345678901234567.89")],
            "day": [datetime.date(2026, 8, 30)] * 4,
            "kind": pa.array(["x", "ü", "x", None]).dictionary_encode(),
            "none": pa.nulls(4),
        },
    )
    assert [
        "a,0.1,1,true,1.50,2026-08-30,x,",
        '"b,c",,-2,false,,2026-08-30,ü,',
        '"q""x",nan,3,,-0.10,2026-08-30,x,',
        ",1e+20,,true,12345678901234567.89,2026-08-30,,",
        "",
    ] == text(path, CSV).split("\n")
    lines = text(path, LINES).split("\n")
    assert (
        '{"id":"b,c","float":null,"int":-2,"flag":false,"price":null,"day":"2026-08-30","kind":"ü","none":null}'
        == lines[1]
    )
    assert '"price":12345678901234567.89' in lines[3]
    assert [0.1, None, None, 1e20] == [json.loads(line)["float"] for line in lines[:4]]


def test_a_newline_in_a_text(tmp_path: Path) -> None:
    """JSON has an escape for it; a line of CSV cannot hold one."""
    path = written(tmp_path, {"note": ["a\nb"]})
    assert '{"note":"a\\nb"}\n' == text(path, LINES)
    with pytest.raises(BadObject, match="'note' has a text with a newline"):
        text(path, CSV)


@BOTH
def test_any_piece_is_where_a_job_can_resume(tmp_path: Path, kind: Kind) -> None:
    """Pieces count rows, over row groups of any size, and follow each other."""
    path = written(tmp_path, {"row": range(1000), "text": [f"t{row % 7}" for row in range(1000)]}, row_group_size=300)
    found = list(parquet_pieces(path, kind, 2000))
    assert 3 < len(found)
    assert 1000 == sum(piece.count for piece in found) == found[-1].end
    for number, piece in enumerate(found, 1):
        assert (piece.first, piece.first + piece.count) == (piece.start, piece.end)
        assert found[number:] == list(parquet_pieces(path, kind, 2000, piece.end))


def test_one_row_at_a_time(tmp_path: Path) -> None:
    """SingleRecord; a row over the limit is alone in it; halves of a piece count rows too."""
    path = written(tmp_path, {"text": ["a", "b" * 50, "c"]})
    assert [
        Piece(0, 1, 0, 1, b"a\n"),
        Piece(1, 2, 1, 1, b"", True),
        Piece(2, 3, 2, 1, b"c\n"),
    ] == list(parquet_pieces(path, CSV, 20, strategy="SingleRecord"))
    whole = next(parquet_pieces(path, CSV, MEGABYTE))
    left, right = bisect(whole, "Line")
    assert (0, 3) == (left.start, right.end)
    assert left.end == right.start == right.first


@BOTH
def test_no_rows(tmp_path: Path, kind: Kind) -> None:
    """No pieces."""
    assert [] == list(parquet_pieces(written(tmp_path, {"a": pa.array([], pa.int64())}), kind, MEGABYTE))


@pytest.mark.parametrize(
    ("column", "type_"), [([[1.0, 2.0]], "list"), ([{"a": 1}], "struct"), ([b"\x00"], "binary")], ids=str
)
@BOTH
def test_columns_that_a_line_cannot_hold(tmp_path: Path, kind: Kind, column: Any, type_: str) -> None:
    """Named, with their type."""
    with pytest.raises(BadObject, match=f"'features' is of type {type_}"):
        text(written(tmp_path, {"id": [1], "features": column}), kind)


@pytest.mark.parametrize("damage", [b"", b"a,b\n" * 100, b"PAR1" + bytes(100) + b"PAR1"])
def test_not_parquet(tmp_path: Path, damage: bytes) -> None:
    """Said in a sentence."""
    path = tmp_path / "x.parquet"
    path.write_bytes(damage)
    with pytest.raises(BadObject, match="not Parquet, or is damaged"):
        text(path, CSV)


def test_a_damaged_page(tmp_path: Path) -> None:
    """Is found when it is reached."""
    path = written(tmp_path, {"a": [f"{n}" for n in range(5000)]}, compression="snappy")
    content = bytearray(path.read_bytes())
    content[100:2000] = b"\xff" * 1900
    path.write_bytes(content)
    with pytest.raises(BadObject, match="not Parquet, or is damaged"):
        text(path, CSV)


def test_a_small_file_of_large_rows_takes_no_more_memory_than_a_slice(tmp_path: Path) -> None:
    """A dictionary of one long text, referred to by every row, is written out row by row."""
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * MEGABYTE])
    path = written(tmp_path, {"a": rows}, store_schema=False)
    assert path.stat().st_size < MEGABYTE
    before = pa.total_allocated_bytes()
    cutting = parquet_pieces(path, LINES, 4 * MEGABYTE)
    assert [3, 3, 3] == [next(cutting).count for _ in range(3)]
    assert pa.total_allocated_bytes() - before < 100 * MEGABYTE
    cutting.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.parametrize(
    ("url", "content_type", "expected"),
    [
        ("s3://b/x.parquet", "text/csv", True),
        ("s3://b/x.PARQUET", "Text/CSV; charset=utf-8", True),
        ("s3://b/x.pq", "application/x-ndjson", True),
        ("s3://b/x.parquet", "application/octet-stream", False),
        ("s3://b/x.parquet", "", False),
        ("s3://b/x.csv", "text/csv", False),
    ],
)
def test_what_is_read_as_columns(url: str, content_type: str, expected: bool) -> None:
    """The name says that it is Parquet, ContentType that its rows are wanted."""
    assert expected is is_parquet(url, content_type)


def test_without_pyarrow(tmp_path: Path) -> None:
    """It is imported when it is needed; the extra that has it is named."""
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from serving.errors import ValidationError\n"
        "from serving.jobs.columns import parquet_pieces\n"
        "try: next(parquet_pieces(Path('x'), 'text/csv', 1))\n"
        "except ValidationError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Parquet input needs pyarrow: install the extra serving[parquet].\n" == done.stdout
