"""Captured calls as a table: what cannot be a value of its column is none, and ends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as parquet
import pytest

from serving.monitor import exporting
from tests.monitor.written import record


def line(key: str, variant: Any = "A", **more: Any) -> bytes:
    """A record's line as commands get it."""
    return orjson.dumps({**record(key, **more), "variant": variant})


def test_records_that_were_edited_by_hand_are_rows_too(tmp_path: Path) -> None:
    """Of what is not as the server writes it nothing is said; what is no record is left out."""
    odd: list[dict[str, Any]] = [
        {"timing": [1]},
        {"timing": {"total": 1.5, "predict": 2.0**70}},
        {"timing": {"total": True, "predict": -1}},
        {"targetModel": 5, "traceparent": {}},
        {"customAttributes": "a"},
        {"variant": 7},
    ]
    lines = [line(f"{number}", **one) for number, one in enumerate(odd)]
    good = line("good", timing={"total": 9, "predict": 8}, customAttributes=["a", 1], targetModel="m")
    assert 7 == exporting.to_parquet([*lines, good, b"[]", b'"x"', b'{"a":1', b"{}"], tmp_path / "x.parquet")
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    columns = ("target_model", "custom_attributes", "traceparent", "total_microseconds", "predict_microseconds")
    assert {(None, None, None, None, None)} == {tuple(one[name] for name in columns) for one in rows[:6]}
    assert ("m", ["a"], None, 9, 8) == tuple(rows[6][name] for name in columns)
    assert ["A"] * 5 + ["", "A"] == [one["variant"] for one in rows]


def test_large_bodies_are_written_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, memory holds so many bytes of them."""
    monkeypatch.setattr(exporting, "_BYTES", 2000)
    assert 10 == exporting.to_parquet([line(f"{n}", output="x" * 1000) for n in range(10)], tmp_path / "x.parquet")
    assert 5 == parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups
