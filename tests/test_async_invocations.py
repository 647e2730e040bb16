"""InvokeEndpointAsync at the door: what its model does not allow is refused by name, the rest for want of a queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from serving.api import async_invocations
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


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"EndpointName": "sum", "InputLocation": "s3://b/k"}, "Endpoint sum is not asynchronous"),
        ({"EndpointName": "sum", "Body": b"1,2"}, "Endpoint sum is not asynchronous"),
        ({"EndpointName": "none", "InputLocation": "s3://b/k"}, "Endpoint none of account"),
        ({"EndpointName": "sum"}, "Exactly one of InputLocation and Body"),
    ],
    ids=["location", "body", "unknown", "neither"],
)
def test_boto3_is_told_why(server: Server, asked: dict[str, Any], text: str) -> None:
    """In one sentence."""
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ClientError, match=text) as caught:
        runtime.invoke_endpoint_async(**asked)
    assert "ValidationError" == caught.value.response["Error"]["Code"]
    runtime.close()


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


@given(st.dictionaries(st.sampled_from([*async_invocations.HEADERS, b"x-other"]), st.binary(max_size=60)), st.binary())
def test_whatever_is_asked_is_allowed_or_refused(headers: dict[bytes, bytes], body: bytes) -> None:
    """Nothing else is raised."""
    try:
        async_invocations.check(headers, body)
    except ValidationError as error:
        assert error.message.endswith(".")
