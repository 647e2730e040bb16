"""What a captured call's record is: its line, its encodings, its place, whether it is one at all."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from serving.monitor.captures import parse
from serving.types import CaptureSpec, Invocation, Reply
from serving.watch import capture
from serving.watch.capture import Body, Encoder, Shelf

SPEC = CaptureSpec("s3://b/c", 100, True, True, ("text/csv", "text/x-*"), ("application/json", "Application/*"))
ID = "f04a8538-696c-4648-8064-8b680b2e3318"
WHEN = b"2026-04-18T00:21:48Z"
AT = 1776471708.903

bodies = some.one_of(
    some.binary(max_size=300), some.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))
)
types = some.sampled_from(["text/csv", "application/json", "TEXT/CSV; charset=utf-8", "image/png", "", "a;b", "ü"])


def invocation(body: bytes = b"", content_type: str = "text/csv", **more: str) -> Invocation:
    """A call."""
    return Invocation("e", body, content_type, "", ID, 0.0, **more)  # type: ignore[arg-type]  # texts all


def reply(body: bytes, content_type: str) -> Reply:
    """Its answer."""
    return Reply(body, content_type, "v", 0.001, (1, 2, 3, 4, 5, 6), True)


def test_a_record_is_the_references_byte_for_byte() -> None:
    """``behaviour/05``, on one line."""
    call = invocation(b"5.1,3.5,1.4\n", inference_id="7")
    written = Encoder(SPEC).both(call, reply(b"0.0254", "text/csv; charset=utf-8"), WHEN)
    assert (
        b'{"captureData":{"endpointInput":{"observedContentType":"text/csv","mode":"INPUT","data":"5.1,3.5,1.4\\n",'
        b'"encoding":"CSV"},"endpointOutput":{"observedContentType":"text/csv; charset=utf-8","mode":"OUTPUT",'
        b'"data":"0.0254","encoding":"CSV"}},"eventMetadata":{"eventId":"f04a8538-696c-4648-8064-8b680b2e3318",'
        b'"inferenceId":"7","inferenceTime":"2026-04-18T00:21:48Z"},"eventVersion":"0"}\n'
    ) == written


@given(bodies, types, bodies, types, some.text(max_size=20), some.text(max_size=20))
def test_any_call_is_read_back_as_it_was(
    asked: bytes, asked_type: str, said: bytes, said_type: str, id: str, custom: str
) -> None:
    """On one line, however it was written: at once, in parts, piece by piece."""
    encoder, call = Encoder(SPEC), invocation(asked, asked_type, inference_id=id, custom_attributes=custom)
    line = encoder.both(call, reply(said, said_type), WHEN)
    sides = (Body("INPUT", asked_type, asked), Body("OUTPUT", said_type, said))
    metadata = capture.metadata(call, WHEN)
    assert line == encoder.line(sides, metadata) == b"".join(encoder.pieces(sides, metadata))
    assert 1 == line.count(b"\n")
    record = parse(line)
    assert record.input is not None
    assert record.output is not None
    assert (asked_type, asked, said_type, said) == (
        record.input.content_type, record.input.body, record.output.content_type, record.output.body
    )  # fmt: skip
    assert (ID, id, [custom] if custom else None) == (
        record.event_id, record.inference_id, record.metadata.get("customAttributes")
    )  # fmt: skip


@given(some.integers(0, 4), some.sampled_from([b"\xff", b"ab", b'\xc3\xa4\n"', b"\0"]))
def test_a_large_body_is_the_same_piece_by_piece(pieces: int, unit: bytes) -> None:
    """Wherever a piece ends, in text and in Base64."""
    encoder, body = Encoder(SPEC), unit * (pieces * capture._PIECE // len(unit) + pieces)
    for content_type in ("text/csv", "image/png"):
        sides = [Body("INPUT", content_type, body)]
        assert encoder.line(sides, b"{}") == b"".join(encoder.pieces(sides, b"{}"))


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("text/csv", "CSV"),
        ("Text/CSV; charset=utf-8", "CSV"),
        (" text/csv ;header=present", "CSV"),
        ("application/json", "JSON"),
        ("application/jsonlines", "JSON"),
        ("text/plain", "BASE64"),
        ("text/csvx", "BASE64"),
        ("", "BASE64"),
    ],
)
def test_the_media_type_decides_the_encoding(content_type: str, encoding: str) -> None:
    """Without parameters, whatever the case; ``type/*`` in a list means all of that type."""
    assert encoding == capture.encoding_of(content_type, SPEC.csv, SPEC.json)


def test_without_lists_everything_is_base64() -> None:
    """And so is what is no UTF-8 although its type says text."""
    line = Encoder(CaptureSpec("s3://b", 100, True, False, (), ())).line([Body("INPUT", "text/csv", b"1,2")], b"{}")
    assert ("BASE64", b"1,2") == _side(line)
    line = Encoder(SPEC).line([Body("INPUT", "text/csv", b"\xe4,2")], b"{}")
    assert ("BASE64", b"\xe4,2") == _side(line)


def _side(line: bytes) -> tuple[str, bytes]:
    side = json.loads(line)["captureData"]["endpointInput"]
    return side["encoding"], base64.b64decode(side["data"])


def test_details_are_told_only_where_they_are_asked_for() -> None:
    """Target model, trace context and receipt, beside what AWS's records have."""
    call = invocation(target_model="a.tar.gz", traceparent="00-1-2-01")
    plain = capture.metadata(call, WHEN)
    assert {"eventId", "inferenceTime"} == set(json.loads(plain))
    detailed = json.loads(capture.with_details(plain, call, reply(b"", "")))
    assert ("a.tar.gz", "00-1-2-01") == (detailed["targetModel"], detailed["traceparent"])
    assert {"total": 1000, "queue": 1, "load": 2, "decode": 3, "predict": 4, "encode": 5, "batch": 6, "hit": True} == (
        detailed["timing"]
    )
    assert plain == capture.with_details(plain, invocation(), None)


@given(some.floats(0, 4e9), some.uuids(version=4))
def test_a_files_name_is_the_time_of_its_first_record(at: float, id: uuid.UUID) -> None:
    """``yyyy/mm/dd/hh/MM-SS-mmm-{uuid}.jsonl``, UTC, to the millisecond."""
    name = f"{Shelf('s3://b/c/', 'e', 'v', int(at // 3600)).folder}/{capture.file_name(at, str(id))}"
    found = re.fullmatch(r"b/c/e/v/(\d{4}/\d\d/\d\d/\d\d)/(\d\d-\d\d)-(\d{3})-([0-9a-f-]{36})\.jsonl", name)
    assert found is not None
    assert (time.strftime("%Y/%m/%d/%H %M-%S", time.gmtime(at)), int(at % 1 * 1000), str(id)) == (
        f"{found[1]} {found[2]}", int(found[3]), found[4]
    )  # fmt: skip


def test_files_that_are_being_written_are_found_by_their_destination(tmp_path: Path) -> None:
    """Those of all processes, of this endpoint and destination only, each with its variant."""
    names = [
        "front-1-aa/b/c/e/v/2026/04/18/00/21-48-903-x.jsonl",
        "jobs-2-bb/b/c/e/w/2026/04/18/01/00-00-000-y.jsonl",
        "front-1-aa/b/c/other/v/2026/04/18/00/21-48-903-x.jsonl",
        "front-1-aa/b/e/v/2026/04/18/00/21-48-903-x.jsonl",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [("v", tmp_path / names[0]), ("w", tmp_path / names[1])] == list(capture.staged(tmp_path, "s3://b/c", "e"))


@given(some.integers(0, 100), some.uuids())
def test_one_draw_decides_for_production_and_shadow_alike(percent: int, id: uuid.UUID) -> None:
    """``crc32(eventId) mod 100 < percent``."""
    assert (zlib.crc32(str(id).encode()) % 100 < percent) == capture.sampled(str(id), percent)
