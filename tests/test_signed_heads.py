"""Heads that boto3 signs anew for every call: the fast door knows the rest of them again, and nothing else for it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.raw import Answer, Raw, request
from tests.server import Server, declare, serve, variant
from tests.toys import COLUMNS, write_sum_model

PATH = "/endpoints/default/invocations"
GOOD = "a-secret-of-many-letters"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``default`` sums its columns; no keys are configured."""
    folder = tmp_path_factory.mktemp("signed")
    write_sum_model(folder / "sum.onnx")
    file = declare(folder / "e.yaml", {"default": [variant("sum")]}, {"sum": {"ModelDataUrl": "sum.onnx"}})
    with serve(folder, "--config", str(file)) as running:
        yield running
        assert "Traceback" not in running.log


def signature(**changed: str) -> dict[str, str]:
    """The headers that boto3 makes for each call, in its order; one given as "" is left out."""
    return {
        "X-Amz-Date": "20261121T120000Z",
        "Authorization": f"AWS4-HMAC-SHA256 Credential=a/20261121/us-east-1/sagemaker/aws4_request, {uuid.uuid4().hex}",
        "amz-sdk-invocation-id": str(uuid.uuid4()),
        "amz-sdk-request": "attempt=1; max=3",
    } | changed


def signed(value: int, **headers: str) -> bytes:
    """A request for the sum of as many of ``value`` as there are columns."""
    row = ",".join([str(value)] * COLUMNS).encode()
    return request(PATH, row, {"Content-Type": "text/csv", **signature(), **headers})


def total(answer: Answer) -> float:
    """The sum it answers."""
    assert 200 == answer.status, answer.body
    return float(answer.fields["predictions"][0][0])


def test_a_head_signed_anew_is_answered_like_the_first(server: Server) -> None:
    """Each time with its own body, signature and retry."""
    with Raw(server.url) as client:
        for value in range(1, 9):
            answer = client.ask(signed(value, **{"amz-sdk-request": f"attempt={value}; max=9"}))
            assert COLUMNS * value == total(answer)


def test_what_is_not_signature_still_counts(server: Server) -> None:
    """Another Accept, type, variant or length after a head that is known is not taken for it."""
    with Raw(server.url) as client:
        assert [COLUMNS, COLUMNS] == [total(client.ask(signed(1))) for _ in range(2)]
        assert "text/csv" == client.ask(signed(1, Accept="text/csv")).headers["content-type"]
        assert 415 == client.ask(signed(1, **{"Content-Type": "image/png"})).fields["OriginalStatusCode"]
        assert 400 == client.ask(signed(1, **{"X-Amzn-SageMaker-Target-Variant": "nobody"})).status
        assert COLUMNS * 1000 == total(client.ask(signed(1000)))


@pytest.mark.parametrize("name", ["Authorization", "AUTHORIZATION"])
def test_a_second_authorization_is_refused_after_a_known_head(server: Server, name: str) -> None:
    """One inside the signature, one outside: two readers might take different ones."""
    twice = signed(1).replace(b"\r\nContent-Type", f"\r\n{name}: other\r\nContent-Type".encode())
    with Raw(server.url) as client:
        for _ in range(2):
            assert COLUMNS == total(client.ask(signed(1)))
        assert 400 == client.ask(twice).status
        assert b"" == client.rest()


@pytest.mark.parametrize("spoilt", ["a\x01b", "a\x00b", "a\rb", "a\nContent-Length: 3"])
def test_a_signature_with_a_break_in_it_is_read_by_the_parser(server: Server, spoilt: str) -> None:
    """It gets what it would have got on a fresh connection, known head or not."""
    bad = signed(1, Authorization=spoilt)
    with Raw(server.url) as fresh:
        expected = fresh.ask(bad).status
    with Raw(server.url) as client:
        for _ in range(2):
            assert COLUMNS == total(client.ask(signed(1)))
        assert expected == client.ask(bad).status


def test_other_orders_and_other_clients_are_answered_too(server: Server) -> None:
    """A session token, headers missing, in another order or in lower case: known or not, the answer is the same."""
    token = {"X-Amz-Date": "20261121T120000Z", "X-Amz-Security-Token": "token" * 20}
    backwards = dict(reversed(signature().items()))
    lower = {name.lower(): value for name, value in signature().items()}
    with Raw(server.url) as client:
        for headers in (token | signature(), signature(**{"amz-sdk-request": ""}), backwards, lower):
            for value in (1, 2, 1):
                row = ",".join([str(value)] * COLUMNS).encode()
                answer = client.ask(request(PATH, row, {"Content-Type": "text/csv", **headers}))
                assert COLUMNS * value == total(answer)


def test_a_signed_head_in_two_reads_is_answered(server: Server) -> None:
    """Cut in its signature, after one that is known."""
    whole = signed(3)
    at = whole.index(b"Signature" if b"Signature" in whole else b"amz-sdk-request")
    with Raw(server.url) as client:
        assert COLUMNS == total(client.ask(signed(1)))
        assert COLUMNS * 3 == total(client.send(whole[:at], whole[at:]).answer())


def test_with_keys_every_signature_is_checked(tmp_path: Path) -> None:
    """A good call is no pass for the next: the same head with another signature is refused."""
    write_sum_model(tmp_path / "sum.onnx")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([{"AccessKeyId": "me", "SecretAccessKey": GOOD, "Permissions": ["*"]}]))
    keys.chmod(0o600)
    environment = {"SERVING_ACCESS_KEYS": str(keys)}
    with serve(tmp_path, str(tmp_path / "sum.onnx"), environment=environment) as server:

        def invoke(secret: str) -> int:
            client = boto3.client(
                "sagemaker-runtime",
                endpoint_url=server.url,
                region_name="us-east-1",
                aws_access_key_id="me",
                aws_secret_access_key=secret,
            )
            row = ",".join(["1"] * COLUMNS)
            try:
                answer = client.invoke_endpoint(EndpointName="default", ContentType="text/csv", Body=row)
            except ClientError as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return int(answer["ResponseMetadata"]["HTTPStatusCode"])

        assert [200, 200, 403, 200] == [invoke(secret) for secret in (GOOD, GOOD, "wrong-of-sixteen-", GOOD)]
