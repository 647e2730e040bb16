"""Capture files, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.captures import parse, read
from serving.monitor.values import Complaints, Record, Window
from serving.objects import LocalObjects
from tests.monitor.records import MIDNIGHT, line, name, put, record, side, store

HOUR = 3600.0
WINDOW = Window(MIDNIGHT, MIDNIGHT + HOUR)

#: As AWS writes it (behaviour/05).
AWS = (
    b'{"captureData":{"endpointInput":{"observedContentType":"text/csv","mode":"INPUT","data":"5.1,3.5,1.4\\n",'
    b'"encoding":"CSV"},"endpointOutput":{"observedContentType":"text/csv; charset=utf-8","mode":"OUTPUT","data":'
    b'"0.0254","encoding":"CSV"}},"eventMetadata":{"eventId":"f04a8538-696c-4648-8064-8b680b2e3318","inferenceId":"7",'
    b'"inferenceTime":"2026-04-18T00:21:48Z"},"eventVersion":"0"}\n'
)

REASONS = (
    "a line is no capture record",
    "an eventId or inferenceId is no string",
    "an inferenceTime is not ISO 8601",
    "a captured body is not as records have them",
    "a label is no string",
)


def found(
    objects: LocalObjects,
    window: Window = WINDOW,
    staging: Path | None = None,
    variants: tuple[str, ...] = (),
    complaints: Complaints | None = None,
) -> list[Record]:
    """What ``read`` gives."""
    asked = complaints or Complaints()
    return list(read(objects, staging, "s3://captures/here", "tumours", window, asked, variants))


def test_a_record_as_aws_writes_it() -> None:
    """Both directions, the ids, the time."""
    read = parse(AWS, "AllTraffic")
    assert side("5.1,3.5,1.4\n") == read.input
    assert side("0.0254", "text/csv; charset=utf-8") == read.output
    assert ("f04a8538-696c-4648-8064-8b680b2e3318", "7", "7") == (read.event_id, read.inference_id, read.key)
    assert (MIDNIGHT + 21 * 60 + 48, "AllTraffic", None) == (read.time, read.variant, read.label)


def test_a_record_of_one_direction_with_its_label() -> None:
    """A direction that was not captured is none; a merged file's label is there."""
    merged = json.loads(AWS)
    del merged["captureData"]["endpointOutput"]
    merged["groundTruthData"] = {"data": "1", "encoding": "CSV"}
    read = parse(json.dumps(merged).encode())
    assert (None, "1") == (read.output, read.label)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("captureData", "text"),
        ("eventMetadata", {"eventId": 7, "inferenceTime": "2026-04-18T00:21:48Z"}),
        ("eventMetadata", {"eventId": "7"}),
        ("eventMetadata", {"eventId": "7", "inferenceTime": "yesterday"}),
        ("eventMetadata", {"eventId": "7", "inferenceTime": 5}),
        ("captureData", {"endpointInput": {"observedContentType": "text/csv", "data": "1", "encoding": "TEXT"}}),
        ("captureData", {"endpointInput": {"observedContentType": "text/csv", "data": 1, "encoding": "CSV"}}),
        ("captureData", {"endpointInput": 5}),
        ("groundTruthData", {"data": 5}),
    ],
)
def test_what_is_no_record_is_refused(place: str, value: object) -> None:
    """With a sentence that tells nothing of the line."""
    with pytest.raises(ValidationError) as refused:
        parse(json.dumps(json.loads(AWS) | {place: value}).encode())
    assert refused.value.message in REASONS


@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "captureData",
                            "endpointInput",
                            "data",
                            "encoding",
                            "eventMetadata",
                            "inferenceTime",
                            "eventId",
                        ]
                    ),
                    inner,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_junk_is_refused_and_nothing_else_happens(junk: bytes) -> None:
    """Whatever is in a file."""
    with pytest.raises(ValidationError):
        parse(junk)


def test_files_are_read_in_order_and_bad_lines_counted(tmp_path: Path) -> None:
    """Those of the window, by their names; a line that is none costs only itself."""
    objects, complaints = store(tmp_path), Complaints()
    second = put(objects, [line(record(side("2"), time=MIDNIGHT + 120)), b"{not JSON\n", b"\n"], MIDNIGHT + 120)
    put(objects, [line(record(side("1"), time=MIDNIGHT)), line(record(side("9"), time=MIDNIGHT - 1))])
    put(objects, [line(record(side("8"), time=MIDNIGHT + HOUR))], MIDNIGHT + HOUR)
    assert ["1", "2"] == [one.input.data for one in found(objects, complaints=complaints) if one.input]
    assert [("a line is not JSON", 1, second)] == complaints.all()


def test_only_files_that_may_hold_records_of_the_window_are_opened(tmp_path: Path) -> None:
    """A file of another hour is known by its name: nothing is said of its damage."""
    objects, complaints = store(tmp_path), Complaints()
    put(objects, [b"damage\n"], MIDNIGHT - 2 * HOUR)
    put(objects, [b"damage\n"], MIDNIGHT + 2 * HOUR)
    objects.put("s3://captures/here/tumours/AllTraffic/2026/99/99/00/00-00-000-x.jsonl", b"damage\n")
    objects.put("s3://captures/here/tumours/AllTraffic/notes.txt", b"damage\n")
    assert [] == found(objects, complaints=complaints)
    assert [] == complaints.all()


@pytest.mark.parametrize("end", [MIDNIGHT + HOUR, MIDNIGHT + 3650 * 24 * HOUR, float("inf")])
def test_only_of_the_variants_asked_for(tmp_path: Path, end: float) -> None:
    """However long the window is."""
    objects = store(tmp_path)
    for variant in ("a", "b", "ab"):
        put(objects, [line(record(side(variant)))], variant=variant)
    window = Window(MIDNIGHT - HOUR, end)
    assert ["a", "ab", "b"] == [one.variant for one in found(objects, window)]
    assert ["a", "b"] == [one.variant for one in found(objects, window, variants=("b", "a"))]


def test_a_file_that_is_being_written_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    """And once only when it has reached its destination meanwhile."""
    objects, staging = store(tmp_path), tmp_path / "capture"
    (first, second), file = (line(record(side(text))) for text in "12"), name(MIDNIGHT)
    path = staging / "front-1-2" / "captures" / "here" / "tumours" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(first + second[:-1])
    assert ["1"] == [one.input.data for one in found(objects, staging=staging) if one.input]
    objects.put(f"s3://captures/here/tumours/{file}", first + second)
    assert ["1"] == [one.input.data for one in found(objects, staging=staging) if one.input]
    path.unlink()
    assert ["1", "2"] == [one.input.data for one in found(objects, staging=staging) if one.input]


def test_long_lines_over_the_borders_of_what_is_read_at_once(tmp_path: Path) -> None:
    """A body of megabytes is one line; a last line needs no end."""
    objects = store(tmp_path)
    long = "5," * (3 << 19) + "5"
    put(objects, [line(record(side(long))), line(record(side("2")))[:-1]])
    assert [long, "2"] == [one.input.data for one in found(objects) if one.input]


def test_a_line_longer_than_any_record_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one endless line does not fill the memory."""
    monkeypatch.setattr("serving.monitor.captures._LONGEST_LINE", 1 << 20)
    objects, complaints = store(tmp_path), Complaints()
    put(objects, [b"x" * (5 << 20), b"\n", line(record(side("2")))])
    assert ["2"] == [one.input.data for one in found(objects, complaints=complaints) if one.input]
    assert [1] == [one.times for one in complaints.all()]
