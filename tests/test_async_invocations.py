"""Calls that are answered later, at the door: what is refused, what is kept, what is one call and what are two."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api import async_invocations
from serving.api.async_invocations import Sender, preference, submission
from serving.errors import ValidationError
from tests.raw import Raw, request
from tests.server import Server, declare, serve, variant
from tests.toys import write_sum_model

PATH = "/endpoints/sum/async-invocations"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model."""
    folder = tmp_path_factory.mktemp("async")
    write_sum_model(folder / "sum" / "model.onnx")
    path = declare(folder / "e.yaml", {"sum": [variant("sum")]}, {"sum": {"ModelDataUrl": str(folder / "sum")}})
    with serve(folder, "--config", str(path)) as running:
        yield running
        assert "request failed" not in running.log


GOOD = {
    "Content-Type": "text/csv",
    "Accept": "*/*",
    "InputLocation": "https://host/key",
    "S3OutputPathExtension": "a/b",
    "Filename": "a.b",
    "RequestTTLSeconds": "21600",
    "InvocationTimeoutSeconds": "1",
    "Custom-Attributes": "a=b",
    "Inference-Id": "i",
    "Target-Model": "m",
    "Target-Variant": "v",
}
BAD = [
    ("Content-Type", "x" * 1025),
    ("Accept", "caf\xe9"),
    ("InputLocation", "ftp://host/key"),
    ("InputLocation", "s3://" + "b" * 1024),
    ("S3OutputPathExtension", "s3:a"),
    ("S3OutputPathExtension", "a b"),
    ("S3OutputPathExtension", "a" * 513),
    ("Filename", "a.b.c"),
    ("Filename", ".a"),
    ("Filename", "a" * 33),
    ("RequestTTLSeconds", "59"),
    ("RequestTTLSeconds", "21601"),
    ("RequestTTLSeconds", "1e3"),
    ("InvocationTimeoutSeconds", "0"),
    ("InvocationTimeoutSeconds", "3601"),
    ("Custom-Attributes", "a" * 1025),
    ("Inference-Id", "i" * 65),
    ("Target-Variant", "not one"),
]


@pytest.mark.parametrize(("name", "value"), [("", ""), *BAD])
def test_a_header_against_its_rule_is_refused_by_name(server: Server, name: str, value: str) -> None:
    """All others are good; and so is the connection afterwards."""
    headers = {f"X-Amzn-SageMaker-{one}": text for one, text in {**GOOD, **({name: value} if name else {})}.items()}
    with Raw(server.url) as raw:
        for _ in range(2):
            answer = raw.ask(request(PATH, headers=headers))
            assert (400, "ValidationError") == (answer.status, answer.headers["x-amzn-errortype"])
            expected = f"X-Amzn-SageMaker-{name} must be" if name else "is not asynchronous"
            assert expected in answer.fields["Message"]


def test_a_body_that_is_too_long_is_refused(server: Server) -> None:
    """Inline, 128,000 bytes."""
    with Raw(server.url) as raw:
        assert "128000" in raw.ask(request(PATH, bytes(128_001))).fields["Message"]
        assert "not asynchronous" in raw.ask(request(PATH, bytes(128_000))).fields["Message"]


@pytest.mark.parametrize("name", ["X-Serving-Priority", "Idempotency-Key", "amz-sdk-invocation-id"])
def test_our_own_headers_have_rules_too(server: Server, name: str) -> None:
    """And are named when they are broken."""
    with Raw(server.url) as raw:
        answer = raw.ask(request(PATH, b"x", headers={name: "x" * 256}))
        assert (400, True) == (answer.status, f"{name} must be" in answer.fields["Message"])


@given(st.dictionaries(st.sampled_from([*async_invocations.HEADERS, b"x-other"]), st.binary(max_size=60)), st.binary())
def test_whatever_is_asked_is_allowed_or_refused(headers: dict[bytes, bytes], body: bytes) -> None:
    """Nothing else is raised, and what is allowed is JSON."""
    try:
        orjson.dumps(submission("e", headers, body, SENDER))
    except ValidationError as error:
        assert error.message.endswith(".")


# --- what is kept -----------------------------------------------------------------------------------------------------

SENDER = Sender("", "request", 1_000.0)


def test_what_is_not_said_has_its_default() -> None:
    """SageMaker's; priority 5; ids are made."""
    kept = submission("e", {}, b"body", SENDER)
    assert 2 == len({str(uuid.UUID(kept.pop("id"))), str(uuid.UUID(kept.pop("inference_id")))})
    expected: dict[str, Any] = dict.fromkeys(
        ("input", "content_type", "accept", "custom_attributes", "target_model", "target_variant", "extension",
         "filename", "repeat", "fingerprint"), "",
    )  # fmt: skip
    expected |= {"endpoint": "e", "ttl": 21_600, "timeout": 900, "priority": 5, "plain": False}
    assert expected | {"request_id": "request", "received": 1_000.0} == kept


@pytest.mark.parametrize(
    ("sent", "meant"), [("ä€.csv".encode(), "ä€.csv"), (b"\xe4.csv", "ä.csv"), (b"\xff\xfe", "ÿþ")]
)
def test_an_object_s_name_is_read_as_it_was_written(sent: bytes, meant: str) -> None:
    """UTF-8, as boto3 and S3 have it; otherwise byte for byte, as older clients have it."""
    kept = submission("e", {b"x-amzn-sagemaker-inputlocation": b"s3://b/" + sent}, b"", SENDER)
    assert f"s3://b/{meant}" == kept["input"]


@pytest.mark.parametrize(
    ("url", "owners"),
    [
        ("s3://b/out/1.out", ["one"]),
        ("s3://b/out/two/1.out", ["two"]),
        ("s3://b/shared/1.out", ["one", "two"]),
        ("s3://b/out", []),
        ("s3://b/outer/1.out", []),
        ("s3://b/1.out", []),
    ],
)
def test_the_nearest_prefix_tells_whose_an_object_is(url: str, owners: list[str]) -> None:
    """Beneath it, not beside it."""
    places = [("one", "s3://b/out"), ("two", "s3://b/out/two/"), ("one", "s3://b/shared"), ("two", "s3://b/shared/")]
    assert owners == async_invocations.owners_of(url, places)


def test_what_is_said_is_kept() -> None:
    """Every header, by its meaning."""
    headers = {f"x-amzn-sagemaker-{name.lower()}".encode(): text.encode() for name, text in GOOD.items()}
    kept = submission("e", headers | {b"x-serving-priority": b"0"}, b"", SENDER)
    said = {
        "content_type": "text/csv", "accept": "*/*", "input": "https://host/key", "extension": "a/b",
        "filename": "a.b", "ttl": 21_600, "timeout": 1, "custom_attributes": "a=b", "inference_id": "i",
        "target_model": "m", "target_variant": "v", "priority": 0,
    }  # fmt: skip
    assert said == {name: kept[name] for name in said}


def test_the_same_key_of_another_caller_is_another_call() -> None:
    """Nor of another endpoint; the plain header goes before that of AWS's clients."""
    aws, ours = {b"amz-sdk-invocation-id": b"a"}, {b"idempotency-key": b"k"}
    repeats = [
        submission("e", aws, b"x", SENDER)["repeat"],
        submission("e", ours, b"x", SENDER)["repeat"],
        submission("e", aws | ours, b"x", SENDER._replace(key_id="KEY"))["repeat"],
        submission("f", ours, b"x", SENDER)["repeat"],
    ]
    assert ["-|e|a", "-|e|k", "KEY|e|k", "-|f|k"] == repeats


@pytest.mark.parametrize(
    ("headers", "body", "alike"),
    [
        ({}, b"x", True),
        ({b"x-amz-date": b"now", b"authorization": b"other", b"amz-sdk-request": b"attempt=2"}, b"x", True),
        ({}, b"y", False),
        ({b"x-serving-priority": b"1"}, b"x", False),
        ({b"x-amzn-sagemaker-accept": b"text/csv"}, b"x", False),
        ({b"x-amzn-sagemaker-inference-id": b"mine"}, b"x", False),
    ],
)
def test_a_fingerprint_is_of_what_was_asked(headers: dict[bytes, bytes], body: bytes, alike: bool) -> None:
    """Not of when and how."""
    key = {b"idempotency-key": b"k"}
    first = submission("e", key, b"x", SENDER)
    again = submission("e", key | headers, body, SENDER._replace(request_id="other", received=2_000.0))
    assert alike == (first["fingerprint"] == again["fingerprint"])


# --- preferences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ([b"respond-async"], (0.0, "respond-async")),
        ([b"Respond-Async"], (0.0, "respond-async")),
        ([b"respond-async, wait=5"], (5.0, "respond-async, wait=5")),
        ([b"wait=5", b"respond-async"], (5.0, "respond-async, wait=5")),
        ([b"respond-async;a=b,wait = 7"], (7.0, "respond-async, wait=7")),
        ([b'respond-async="", wait="5"'], (5.0, "respond-async, wait=5")),
        ([b"wait=5, wait=9, respond-async"], (5.0, "respond-async, wait=5")),
        ([b"respond-async, wait=86400"], (60.0, "respond-async, wait=60")),
        ([b"respond-async, wait=-1"], (0.0, "respond-async")),
        ([b"respond-async, wait=soon"], (0.0, "respond-async")),
        ([b"respond-async=no, respond-async"], None),
        ([b"wait=5"], None),
        ([b'said="a, respond-async, b"'], None),
        ([b'said="a, b", respond-async'], (0.0, "respond-async")),
        ([b"return=minimal"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_a_preference_is_read_as_the_rfc_says(prefer: list[bytes], expected: tuple[float, str] | None) -> None:
    """RFC 7240: names in any case, parameters passed over, the first of two, and none of ours is nobody's fault."""
    headers = [(b"accept", b"respond-async"), *((b"prefer", value) for value in prefer)]
    assert expected == preference(headers)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_no_preference_is_an_error(values: list[bytes]) -> None:
    """Whatever it is."""
    preference([(b"prefer", value) for value in values])
