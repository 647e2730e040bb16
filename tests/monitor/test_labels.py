"""Ground truth: records in either form, files by hour, and the calls they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.captures import parse
from serving.monitor.labels import (
    label_line,
    label_rows,
    merge,
    merged_line,
    merged_url,
    parse_label,
    read_labels,
)
from serving.monitor.values import Complaints, Window
from tests.monitor.records import MIDNIGHT, record, side, store

ROOT = "s3://labels/tumours"
HOUR = 3600.0
EVER = Window(0.0, float("inf"))


def full(id: str, data: Any, encoding: str = "CSV") -> dict[str, Any]:
    """SageMaker's record."""
    return {"groundTruthData": {"data": data, "encoding": encoding}, "eventMetadata": {"eventId": id}}


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (full("a", "1"), ["1"]),
        (full("a", "1.0\n0\n"), ["1", "0"]),
        (full("a", "1,0,1"), ["1", "0", "1"]),
        (full("a", "[1, 0]", "JSON"), ["1", "0"]),
        (full("a", '"yes"', "JSON"), ["yes"]),
        (full("a", "MS4w", "BASE64"), ["1"]),
        ({"InferenceId": "a", "Label": 1}, ["1"]),
        ({"InferenceId": "a", "Label": True}, ["true"]),
        ({"InferenceId": "a", "Label": [1, "b"]}, ["1", "b"]),
        ({"InferenceId": "a", "Label": 'x, "y"'}, ['x, "y"']),
        ({"InferenceId": "a", "Label": "two\nlines"}, ["two\nlines"]),
    ],
    ids=str,
)
def test_records_of_either_form_are_read(value: dict[str, Any], rows: list[str]) -> None:
    """And written in SageMaker's, from which they are read the same."""
    id, text = parse_label(value)
    assert ("a", rows) == (id, label_rows(text))
    assert ("a", rows) == (id, label_rows(parse_label(json.loads(label_line(id, text)))[1]))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "no JSON object"),
        ({}, "lacks groundTruthData"),
        ({"InferenceId": "", "Label": 1}, "1 to 64 characters"),
        ({"InferenceId": "x" * 65, "Label": 1}, "1 to 64 characters"),
        ({"InferenceId": 7, "Label": 1}, "1 to 64 characters"),
        ({"InferenceId": "a", "Label": None}, "not a value"),
        ({"InferenceId": "a", "Label": {"b": 1}}, "not a value"),
        ({"InferenceId": "a", "Label": [[1]]}, "not a value"),
        ({"InferenceId": "a", "Label": []}, "not a value"),
        (full("a", 1), "not text"),
        (full("a", " "), "empty"),
        (full("a", "1", "XML"), "encoding"),
        (full("a", "{", "JSON"), "valid JSON"),
        (full("a", "!", "BASE64"), "Base64"),
        (full("a", "gA==", "BASE64"), "not text"),
    ],
    ids=str,
)
def test_records_that_are_none_say_why(value: Any, why: str) -> None:
    """In words that have nothing of the record in them."""
    with pytest.raises(ValidationError, match=why):
        parse_label(value)


_WORDS = st.none() | st.integers() | st.floats() | st.text()
_RECORDS = st.recursive(
    _WORDS,
    lambda one: (
        st.lists(one)
        | st.fixed_dictionaries({"groundTruthData": one, "eventMetadata": one})
        | st.fixed_dictionaries({"InferenceId": st.text(), "Label": one})
    ),
)


@given(_RECORDS)
def test_no_record_is_too_odd(value: Any) -> None:
    """It is a label or it is refused."""
    try:
        id, text = parse_label(value)
    except ValidationError:
        return
    assert json.loads(label_line(id, text))["eventMetadata"]["eventId"] == id
    assert label_rows(text)


def test_labels_are_read_by_the_hour_they_were_collected(tmp_path: Path) -> None:
    """Hours that the window touches; other files beneath the root are none of labels."""
    objects = store(tmp_path)
    for hour in range(4):
        objects.put(f"{ROOT}/2026/04/18/{hour:02d}/a.jsonl", label_line(str(hour), "1"))
    for name in ("2026/04/18/a.jsonl", "notes.jsonl", "2026/04/18/01/a.txt", "2026/13/18/01/a.jsonl"):
        objects.put(f"{ROOT}/{name}", label_line(name, "1"))
    complaints = Complaints()
    assert {"1", "2"} == set(read_labels(objects, ROOT, Window(MIDNIGHT + HOUR + 1, MIDNIGHT + 3 * HOUR), complaints))
    days = Window(MIDNIGHT - 72 * HOUR, MIDNIGHT + 2 * HOUR)
    assert {"0", "1"} == set(read_labels(objects, ROOT + "/", days, complaints))
    assert {"0", "1", "2", "3"} == set(read_labels(objects, ROOT, EVER, complaints))
    assert {} == read_labels(objects, "s3://nowhere/at-all", EVER, complaints)
    assert [] == complaints.all()


def test_of_two_labels_the_later_counts(tmp_path: Path) -> None:
    """By hour, by file, by line; and it is said which calls had two."""
    objects = store(tmp_path)
    objects.put(f"{ROOT}/2026/04/18/01/a.jsonl", label_line("x", "late") + label_line("x", "later"))
    objects.put(
        f"{ROOT}/2026/04/18/00/b.jsonl", label_line("x", "early") + label_line("y", "1") + label_line("y", "1.0")
    )
    complaints = Complaints()
    assert {"x": "later", "y": "1.0"} == read_labels(objects, ROOT, EVER, complaints)
    assert [("two labels for one id: the later counts", 2, "x"), ("the same label twice", 1, "y")] == complaints.all()


def test_bad_lines_are_counted_and_their_neighbours_read(tmp_path: Path) -> None:
    """Each by its place; a line too long for any label is skipped whole."""
    objects = store(tmp_path)
    long = b'{"InferenceId":"l","Label":"' + b"x" * 2**23 + b'"}\n'
    body = b"\n" + label_line("a", "1") + b"{\n" + long + label_line("b", "2") + b'{"InferenceId":"","Label":1}'
    objects.put(f"{ROOT}/2026/04/18/00/f.jsonl", body)
    complaints = Complaints()
    assert {"a": "1", "b": "2"} == read_labels(objects, ROOT, EVER, complaints)
    assert {"a line of labels is not valid JSON", "a line of labels is too long"} < {one[0] for one in complaints.all()}
    assert 3 == len(complaints.all())
    assert "f.jsonl:2" == next(one.example for one in complaints.all() if "valid JSON" in one.reason)


def test_captures_and_labels_meet_by_inference_id_or_event_id() -> None:
    """What has no partner is left out and counted."""
    named = record(id="e1")._replace(inference_id="i1")
    plain, lone = record(id="e2"), record(id="e3")
    complaints = Complaints()
    labels = {"i1": "1", "e1": "0", "e2": "0"}
    merged = list(merge([named, plain, lone], labels, complaints))
    assert [("e1", "1"), ("e2", "0")] == [(one.event_id, one.label) for one in merged]
    assert {("a capture without a label", 1, "e3"), ("a label without a capture", 1, "e1")} == set(complaints.all())


def test_a_shadow_answers_the_same_calls() -> None:
    """One label, two records."""
    one = record(id="e")
    assert 2 == len(list(merge([one, one._replace(variant="Shadow")], {"e": "1"}, Complaints())))


def test_merged_records_are_the_references() -> None:
    """The capture with its groundTruthData, readable as a capture; the file by variant and hour."""
    one = record(side("1,2\n"), side("0.9\n"), id="e")
    whole = one._replace(label="1", metadata={"eventId": "e", "inferenceTime": "2026-04-18T00:00:00Z"})
    line = json.loads(merged_line(whole))
    assert {"data": "1", "encoding": "CSV"} == line["groundTruthData"]
    assert "1,2\n" == line["captureData"]["endpointInput"]["data"]
    assert whole._replace(variant="") == parse(merged_line(whole))._replace(variant="")
    assert {"data": "[1,0]", "encoding": "JSON"} == json.loads(merged_line(whole._replace(label="[1,0]")))[
        "groundTruthData"
    ]
    expected = "s3://out/merge/tumours/AllTraffic/2026/04/18/00/part-00000-u.c000.jsonl"
    assert expected == merged_url("s3://out/", "tumours", whole, "u")
