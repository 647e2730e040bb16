"""The journal: whole lines, bounded files, never in the way."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from serving.watch.journal import Journal


def lines(path: Path) -> list[dict[str, object]]:
    """The records in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_lines_of_json_in_order(tmp_path: Path) -> None:
    """Written at the flush, each on a line of its own whatever it holds."""
    journal = Journal(tmp_path / "events.jsonl")
    records: list[dict[str, object]] = [{"model": "a\nb\u2028", "bytes": 1}, {"model": "é", "bytes": 2}]
    for record in records:
        journal.add(record)
    assert not (tmp_path / "events.jsonl").exists()
    journal.flush()
    assert records == lines(tmp_path / "events.jsonl")


def test_a_new_server_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """The file outlives its writer."""
    for number in range(2):
        journal = Journal(tmp_path / "events.jsonl")
        journal.add({"number": number})
        journal.close()
    assert [{"number": 0}, {"number": 1}] == lines(tmp_path / "events.jsonl")


def test_the_files_stay_below_twice_the_limit(tmp_path: Path) -> None:
    """However long the server runs; the newest records are there."""
    journal = Journal(tmp_path / "events.jsonl", most_bytes=1000)
    for number in range(500):
        journal.add({"number": number})
        journal.flush()
    files = sorted(tmp_path.iterdir())
    assert ["events.jsonl", "events.jsonl.1"] == [file.name for file in files]
    assert all(file.stat().st_size < 1100 for file in files)
    kept = [record["number"] for file in reversed(files) for record in lines(file)]
    assert list(range(500))[-len(kept) :] == kept
    assert len(kept) > 40


def test_a_disk_that_refuses_costs_records_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Said once, and over as soon as there is room again."""
    folder = tmp_path / "data"
    journal = Journal(folder / "events.jsonl")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            journal.add({"number": number})
            journal.flush()
    assert 1 == len(caplog.records)
    folder.mkdir()
    journal.add({"number": 3})
    journal.flush()
    assert [{"number": 3}] == lines(folder / "events.jsonl")
