"""Who may do what, over the wire: SigV4 by unmodified boto3, HTTP Basic, and every spelling of a path."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import httpx
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from starlette.routing import compile_path

from serving.api import auth, routes
from serving.client import Server as OwnClient
from serving.config import Settings
from tests.raw import Raw, request
from tests.server import Server, declare, serve, variant
from tests.toys import COLUMNS, ROW, write_sum_model

#: Key -> its permissions.
KEYS = {
    "admin": ["*"],
    "caller": ["invoke"],
    "alpha": ["invoke:alpha"],
    "team-a": ["invoke:many/a/*"],
    "reader": ["read"],
    "manager": ["manage"],
    "scraper": ["metrics"],
}
BODY = ROW.encode()
ANSWER = json.dumps({"predictions": [[float(COLUMNS)]]}, separators=(",", ":"))
TARGET = "X-Amzn-SageMaker-Target-Model"


def secret(key: str) -> str:
    """The secret of a key."""
    return f"{key}-secret-{key}-secret"


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that others could reach, by either door: ``alpha`` and ``beta``, and ``many`` models as the default."""
    folder = tmp_path_factory.mktemp("auth")
    write_sum_model(folder / "sum.onnx")
    for name in ("a/one", "a/two", "b/one"):
        write_sum_model(folder / "many" / f"{name}.onnx")
    models: dict[str, Mapping[str, Any]] = {
        "sum": {"ModelDataUrl": "sum.onnx"},
        "many": {"ModelDataUrl": "many/", "Mode": "MultiModel"},
    }
    endpoints = {"alpha": [variant("sum")], "beta": [variant("sum")], "many": [variant("many")]}
    keys = [{"AccessKeyId": key, "SecretAccessKey": secret(key), "Permissions": may} for key, may in KEYS.items()]
    (folder / "keys.json").write_text(json.dumps(keys))
    environment = {
        "SERVING_FAST_PATH": str(request.param == "fast"),
        "SERVING_ACCESS_KEYS": str(folder / "keys.json"),
        "SERVING_DEFAULT_ENDPOINT": "many",
        "SERVING_LOG_LEVEL": "warning",
    }
    config = str(declare(folder / "e.yaml", endpoints, models))
    with serve(folder, "--config", config, "--host", "0.0.0.0", environment=environment) as running:
        yield running
        assert "request failed" not in running.log
        assert not [key for key in KEYS if secret(key) in running.log]


def api_key(key: str) -> dict[str, str]:
    """The header of a plain HTTP client."""
    return {"X-Api-Key": f"{key}:{secret(key)}"}


def bearer(key: str) -> dict[str, str]:
    """The same where Authorization is easier to set."""
    return {"Authorization": f"Bearer {key}:{secret(key)}"}


def basic(key: str) -> dict[str, str]:
    """The header curl sends for ``--user``."""
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:{secret(key)}".encode()).decode()}


def client(service: str, server: Server, key: str = "", key_secret: str = "") -> Any:
    """boto3 as anybody configures it; without a key it does not sign."""
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id=key or "none",
        aws_secret_access_key=key_secret or secret(key),
        config=Config(retries={"total_max_attempts": 1}, **({} if key else {"signature_version": UNSIGNED})),
    )


def invoke(server: Server, key: str, endpoint: str = "alpha", model: str = "") -> str:
    """The answer to a signed call, or its error's code."""
    asked = {"TargetModel": model} if model else {}
    try:
        answer = client("sagemaker-runtime", server, key).invoke_endpoint(
            EndpointName=endpoint, Body=BODY, ContentType="text/csv", Accept="application/json", **asked
        )
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return str(answer["Body"].read().decode())


# --- boto3 ------------------------------------------------------------------------------------------------------------


def test_boto3_with_the_right_key_is_answered(server: Server) -> None:
    """Unmodified; any region, as the server is in none."""
    assert ANSWER == invoke(server, "caller")


@pytest.mark.parametrize(
    ("key", "key_secret", "code"),
    [
        ("caller", "wrong-secret-wrong-secret", "InvalidSignatureException"),
        ("nobody", "wrong-secret-wrong-secret", "AccessDeniedException"),
        ("", "", "AccessDeniedException"),
    ],
    ids=["wrong secret", "unknown key", "unsigned"],
)
def test_boto3_without_it_is_refused(server: Server, key: str, key_secret: str, code: str) -> None:
    """403 with AWS's code, for a call and for a control operation."""
    for service, operation, asked in (
        ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "alpha", "Body": BODY}),
        (
            "sagemaker",
            "update_endpoint_weights_and_capacities",
            {
                "EndpointName": "alpha",
                "DesiredWeightsAndCapacities": [{"VariantName": "AllTraffic", "DesiredWeight": 1}],
            },
        ),
    ):
        with pytest.raises(ClientError) as caught:
            getattr(client(service, server, key, key_secret), operation)(**asked)
        assert code == caught.value.response["Error"]["Code"]
        assert 403 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert caught.value.response["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize(
    ("key", "endpoint", "model", "allowed"),
    [
        ("admin", "beta", "", True),
        ("caller", "beta", "", True),
        ("caller", "many", "b/one.onnx", True),
        ("alpha", "alpha", "", True),
        ("alpha", "beta", "", False),
        ("alpha", "many", "a/one.onnx", False),
        ("team-a", "many", "a/one.onnx", True),
        ("team-a", "many", "a/two.onnx", True),
        ("team-a", "many", "b/one.onnx", False),
        ("team-a", "many", "a/../b/one.onnx", False),
        ("team-a", "alpha", "", False),
        ("reader", "alpha", "", False),
        ("manager", "alpha", "", False),
        ("scraper", "alpha", "", False),
    ],
)
def test_a_key_invokes_what_it_may(server: Server, key: str, endpoint: str, model: str, allowed: bool) -> None:
    """By endpoint, and by model of a multi-model endpoint."""
    assert (ANSWER if allowed else "AccessDeniedException") == invoke(server, key, endpoint, model)


def test_a_control_operation_that_changes_needs_manage(server: Server) -> None:
    """And nothing else will do."""
    for key in KEYS:
        changes = [{"VariantName": "AllTraffic", "DesiredWeight": 1.0}]
        asked = {"EndpointName": "beta", "DesiredWeightsAndCapacities": changes}
        control = client("sagemaker", server, key)
        if key in ("admin", "manager"):
            answer = control.update_endpoint_weights_and_capacities(**asked)
            assert "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/beta" == answer["EndpointArn"]
            continue
        with pytest.raises(ClientError, match="AccessDeniedException"):
            control.update_endpoint_weights_and_capacities(**asked)


READING = {
    "list_endpoints": {},
    "describe_endpoint": {"EndpointName": "beta"},
    "list_models": {"MaxResults": 1},
    "batch_describe_model_package": {
        "ModelPackageArnList": ["arn:aws:sagemaker:eu-west-1:123456789012:model-package/g/1"]
    },
}


@pytest.mark.parametrize("operation", READING)
def test_a_control_operation_that_looks_needs_read(server: Server, operation: str) -> None:
    """Describe, List and BatchDescribe; to manage is another permission."""
    for key in KEYS:
        control = client("sagemaker", server, key)
        if key in ("admin", "reader"):
            assert 200 == getattr(control, operation)(**READING[operation])["ResponseMetadata"]["HTTPStatusCode"]
            continue
        with pytest.raises(ClientError) as caught:
            getattr(control, operation)(**READING[operation])
        assert "AccessDeniedException" == caught.value.response["Error"]["Code"]
        assert 403 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    "target",
    [
        "",
        "SageMaker.",
        "SageMaker.DeleteEndpoint",
        "DescribeEndpoint.DeleteEndpoint",
        "AnyScaleFrontendService.PutScalingPolicy",
        "SageMaker.GetMetricData",
    ],
)
def test_a_reader_gets_no_further_by_the_name_of_an_operation(server: Server, target: str) -> None:
    """What is not plainly a look needs to manage."""
    with server.client() as asking:
        answer = asking.post("/", content=b"{}", headers={**basic("reader"), "X-Amz-Target": target})
    assert (403, "AccessDeniedException") == (answer.status_code, answer.json()["__type"])


@pytest.mark.parametrize(("action", "status"), [("DescribeAlarms", 200), ("GetMetricData", 400), ("DeleteAlarms", 403)])
def test_who_may_look_may_in_the_older_form_too(server: Server, action: str, status: int) -> None:
    """The operation is read off the body there: looking needs no more than ``read``."""
    headers = {**basic("reader"), "content-type": "application/x-www-form-urlencoded"}
    with server.client() as asking:
        answer = asking.post("/", content=f"Action={action}&Version=2010-08-01", headers=headers)
    assert status == answer.status_code
    assert ("AccessDenied" in answer.text) == (status == 403)


# --- Basic, and every other route -------------------------------------------------------------------------------------

ROUTES = {
    ("GET", "/ping"): "",
    ("GET", "/healthz"): "",
    ("GET", "/readyz"): "",
    ("GET", "/metrics"): "metrics",
    ("GET", "/"): "read",
    ("GET", "/console"): "read",
    ("GET", "/console/endpoints/alpha"): "read",
    ("GET", "/console/endpoints/alpha/calls"): "invoke",
    ("GET", "/console/endpoints/alpha/verdict"): "read",
    ("GET", "/console/endpoints/alpha/shadow-report"): "read",
    ("GET", "/console/static/console.js"): "",
    ("GET", "/endpoints"): "read",
    ("GET", "/endpoints/alpha"): "read",
    ("GET", "/models"): "read",
    ("GET", "/models/a%2Fone.onnx"): "read",
    ("GET", "/execution-parameters"): "read",
    ("POST", "/models"): "manage",
    ("DELETE", "/models/a%2Fnone.onnx"): "manage",
    ("POST", "/"): "manage",
    ("POST", "/invocations"): "invoke",
    ("POST", "/endpoints/alpha/invocations"): "invoke",
    ("POST", "/endpoints/alpha/invocations-response-stream"): "invoke",
    ("POST", "/endpoints/alpha/async-invocations"): "invoke",
    ("GET", "/endpoints/alpha/async-invocations"): "invoke",
    ("GET", f"/endpoints/alpha/async-invocations/{uuid.UUID(int=1)}"): "invoke",
    ("DELETE", f"/endpoints/alpha/async-invocations/{uuid.UUID(int=1)}"): "invoke",
    ("GET", f"/endpoints/alpha/async-invocations/{uuid.UUID(int=1)}/output"): "invoke",
    ("POST", "/endpoints/alpha/ground-truth"): "invoke",
    ("GET", "/endpoints/alpha/captures"): "manage",
    ("GET", "/endpoints/alpha/verdict"): "read",
    ("GET", "/endpoints/alpha/scaling"): "read",
    ("POST", "/endpoints/alpha/drift"): "read",
    ("POST", "/endpoints/alpha/drift?documents=true"): "manage",
    ("GET", "/endpoints/alpha/shadow-report"): "read",
    ("GET", "/endpoints/alpha/shadow-report?bodies=true"): "manage",
    ("POST", "/models/a%2Fnone.onnx/invoke"): "invoke",
}


def test_no_route_is_forgotten() -> None:
    """Each in the server's own table stands in the one above, so that its permission is asked for here."""
    for method, pattern, _, _ in routes.ROUTES:
        matcher = compile_path(pattern)[0]
        assert [path for asked, path in ROUTES if asked == method and matcher.fullmatch(unquote(path))], pattern


@pytest.mark.parametrize("shown", [basic, bearer, api_key])
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=" ".join)
def test_every_route_asks_for_its_permission(
    server: Server, method: str, path: str, shown: Callable[[str], dict[str, str]]
) -> None:
    """Health is open; everything else is closed to strangers and to keys for something else, however shown."""
    needed = ROUTES[method, path]
    with server.client() as asking:
        for key in ("", *KEYS):
            answer = asking.request(method, path, content=b"{}", headers=shown(key) if key else {})
            may = not needed or bool(key and {"*", needed} & set(KEYS[key]))
            if "invoke" != needed or key not in ("alpha", "team-a"):  # whose names decide, as told above
                assert may == (answer.status_code != 403), (key, answer.text)
            if answer.status_code == 403:
                assert "AccessDeniedException" == answer.headers["x-amzn-errortype"]
                assert answer.headers["x-amzn-requestid"]


def test_our_own_client_signs_what_it_asks_by(server: Server, tmp_path: Path) -> None:
    """A path with a query, also one whose values need encoding."""
    key = {"AccessKeyId": "reader", "SecretAccessKey": secret("reader"), "Permissions": KEYS["reader"]}
    (tmp_path / "keys.json").write_text(json.dumps([key]))
    asking = OwnClient(server.url, Settings(access_keys=tmp_path / "keys.json"))
    for query in ("metric=latency", "challenger=a%2Fb&metric=latency", "since=2026-11-21T09%3A00%3A00%2B00%3A00"):
        answer = asking.send("GET", f"/endpoints/alpha/verdict?{query}", "read")
        assert answer.status in (200, 400), answer.complaint


@pytest.mark.parametrize(
    ("method", "path"), [route for route in ROUTES if "async-invocations" in route[1]], ids=" ".join
)
def test_calls_for_later_are_for_those_who_may_invoke_their_endpoint(server: Server, method: str, path: str) -> None:
    """To send, to look, to cancel and to fetch; of another endpoint, nothing, nor by a key for its models."""
    elsewhere = path.replace("alpha", "beta")
    with server.client() as asking:
        for key, there, may in (("alpha", path, True), ("alpha", elsewhere, False), ("team-a", path, False)):
            answer = asking.request(method, there, content=b"{}", headers=basic(key))
            assert may == (answer.status_code != 403), answer.text


def test_answers_are_no_input_for_those_who_may_not_invoke_their_endpoint(server: Server) -> None:
    """Or a key for one endpoint would read what another was asked."""
    with server.client() as asking:
        for endpoint, may in (("alpha", True), ("beta", False)):
            url = f"s3://sagemaker-us-east-1-123456789012/async/{endpoint}/1.out"
            headers = {**basic("alpha"), "X-Amzn-SageMaker-InputLocation": url}
            answer = asking.post("/endpoints/alpha/async-invocations", headers=headers)
            assert (400 if may else 403) == answer.status_code, answer.text


def test_labels_are_no_input_for_those_who_may_not_manage(server: Server) -> None:
    """A key that may send labels for an endpoint may not have others' read by its model."""
    with server.client() as asking:
        for key, may in (("alpha", False), ("caller", False), ("admin", True)):
            headers = {**basic(key), "X-Amzn-SageMaker-InputLocation": "s3://ground-truth/alpha/2026/04/18/00/a.jsonl"}
            answer = asking.post("/endpoints/alpha/async-invocations", headers=headers)
            assert (400 if may else 403) == answer.status_code, answer.text
            sent = asking.post("/endpoints/alpha/ground-truth", content=b"{}", headers=basic(key))
            assert 400 == sent.status_code, sent.text
            elsewhere = asking.post("/endpoints/beta/ground-truth", content=b"{}", headers=basic(key))
            assert (403 if key == "alpha" else 400) == elsewhere.status_code, elsewhere.text


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic YWRtaW4=",
        "Basic YWRtaW46",
        "Bearer admin",
        "Bearer admin:admin-secret-admin-secre",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=admin",
    ],
)
def test_credentials_that_prove_nothing_are_refused(server: Server, authorization: str) -> None:
    """403 and JSON, on either kind of route; the connection is good for the next call."""
    with Raw(server.url) as raw:
        for path in ("/endpoints/alpha/invocations", "/models"):
            answer = raw.ask(request(path, BODY, {"Authorization": authorization}))
            assert 403 == answer.status
            assert answer.fields["__type"] in ("AccessDeniedException", "InvalidSignatureException")
        assert ANSWER == raw.ask(_call("/endpoints/alpha/invocations", "alpha")).body.decode()


def test_a_good_call_opens_no_door_for_the_next(server: Server) -> None:
    """The same bytes but for the credentials, on the same connection and on others."""
    path = "/endpoints/alpha/invocations"
    with Raw(server.url) as raw:
        for _ in range(3):
            assert ANSWER == raw.ask(_call(path, "alpha")).body.decode()
            assert 403 == raw.ask(request(path, BODY, {"Content-Type": "text/csv"})).status
            assert 403 == raw.ask(_call(path, "team-a")).status
            raw.send(_call(path, "alpha") + request(path, BODY, {"Content-Type": "text/csv"}))
            assert [200, 403] == [raw.answer().status, raw.answer().status]


@pytest.mark.parametrize("path", ["/endpoints/alpha/invocations", "/models"])
@pytest.mark.parametrize(
    "body", [{"Content-Length": "6000000"}, {"Transfer-Encoding": "chunked", "Content-Length": ""}]
)
def test_a_stranger_does_not_get_to_send_much(server: Server, path: str, body: dict[str, str]) -> None:
    """403 before the body is sent, asked for or not; those who show a key are asked to go on."""
    expecting = body | {"Expect": "100-continue"}
    for headers, code in (
        (body, "AccessDeniedException"),
        (expecting, "AccessDeniedException"),
        (body | {"Authorization": "AWS4-HMAC-SHA256 Credential=admin"}, "InvalidSignatureException"),
    ):
        with Raw(server.url) as raw:
            answer = raw.ask(request(path, headers=headers))
            assert (403, code) == (answer.status, answer.headers["x-amzn-errortype"])
            assert b"" == raw.rest()
    with Raw(server.url) as raw:
        assert 100 == raw.ask(request(path, headers=expecting | basic("admin"))).status


def _call(path: str, key: str, headers: Mapping[str, str] | None = None, host: str = "localhost") -> bytes:
    credentials = basic(key) if key else {}
    extra = {"Content-Type": "text/csv", "Accept": "application/json", "Host": host}
    return request(path, BODY, credentials | extra | (headers or {}))


@pytest.mark.parametrize("shown", [bearer, api_key])
def test_an_api_key_invokes_what_its_key_may(server: Server, shown: Callable[[str], dict[str, str]]) -> None:
    """By endpoint and by model, on the same connection; not together with another kind of credentials."""

    def status(path: str, headers: Mapping[str, str]) -> int:
        return raw.ask(request(path, BODY, {"Content-Type": "text/csv", **headers})).status

    with Raw(server.url) as raw:
        assert 200 == status("/endpoints/alpha/invocations", shown("alpha"))
        assert 403 == status("/endpoints/beta/invocations", shown("alpha"))
        assert 200 == status("/invocations", shown("team-a") | {TARGET: "a/one.onnx"})
        assert 403 == status("/invocations", shown("team-a") | {TARGET: "b/one.onnx"})
        assert 403 == status("/endpoints/alpha/invocations", {"X-Api-Key": f"alpha:{secret('beta')}"})
        assert 403 == status("/endpoints/alpha/invocations", basic("alpha") | api_key("alpha"))


# --- signatures -------------------------------------------------------------------------------------------------------


def _signed(
    server: Server, key: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    host = urlsplit(server.url).netloc
    pairs = [(b"host", host.encode()), *((name.lower().encode(), v.encode()) for name, v in (headers or {}).items())]
    path, _, query = path.partition("?")
    asked = auth.Request("POST", path, query, pairs, body)
    now = datetime.now(UTC).timestamp()
    made = auth.sign(asked, auth.AccessKey(key, secret(key), ()), "us-east-1", now)
    return {"Host": host, **(headers or {}), **{name.decode(): value.decode() for name, value in made}}


def test_a_signature_is_good_for_its_request_alone(server: Server) -> None:
    """Not for another body, path, query or model, nor with a header added or taken away."""
    path, headers = "/endpoints/many/invocations", {TARGET: "a/one.onnx", "Content-Type": "text/csv"}
    signed = _signed(server, "caller", path, BODY, headers)

    def status(path: str, body: bytes, headers: Mapping[str, str]) -> int:
        with Raw(server.url) as raw:
            return raw.ask(request(path, body, headers)).status

    assert 200 == status(path, BODY, signed)
    assert 403 == status(path, BODY.replace(b"1", b"2", 1), signed)
    assert 403 == status("/invocations", BODY, signed)
    assert 403 == status(f"{path}?a=b", BODY, signed)
    assert 403 == status("/endpoints/m%61ny/invocations", BODY, signed)
    assert 403 == status(path, BODY, signed | {TARGET: "b/one.onnx"})
    assert 403 == status(path, BODY, signed | {"X-Amzn-SageMaker-Target-Variant": "AllTraffic"})
    assert 403 == status(path, BODY, signed | {"Host": "elsewhere"})
    assert 403 == status(path, BODY, {name: value for name, value in signed.items() if name != TARGET})


def test_a_model_named_in_the_path_is_invoked_with_a_signature(server: Server) -> None:
    """POST /models/{name}/invoke: what is signed is what was sent."""
    with server.client() as admin:
        admin.auth = ("admin", secret("admin"))
        admin.post("/models", json={"model_name": "a/one.onnx", "url": "a/one.onnx"})
    path = "/models/a%2Fone.onnx/invoke"
    with Raw(server.url) as raw:
        for key, status in (("caller", 200), ("team-a", 200), ("alpha", 403), ("reader", 403)):
            signed = _signed(server, key, path, BODY, {"Content-Type": "text/csv", "Accept": "application/json"})
            assert status == raw.ask(request(path, BODY, signed)).status


# --- spellings --------------------------------------------------------------------------------------------------------

BETA = [
    "/endpoints/beta/invocations",
    "//endpoints/beta/invocations",
    "/endpoints//beta/invocations",
    "/endpoints/beta//invocations",
    "/endpoints/beta/invocations/",
    "/./endpoints/beta/invocations",
    "/endpoints/./beta/invocations",
    "/endpoints/alpha/../beta/invocations",
    "/endpoints/alpha/invocations/../../beta/invocations",
    "/endpoints/alpha%2f..%2fbeta/invocations",
    "/endpoints/alpha/%2e%2e/beta/invocations",
    "/endpoints/%62eta/invocations",
    "/endpoints/%62%65%74%61/invocations",
    "/endpoints/%2562eta/invocations",
    "/%65ndpoints/beta/invocations",
    "/endpoints/beta/%69nvocations",
    "/endpoints%2fbeta%2finvocations",
    "/endpoints/beta%2finvocations",
    "/endpoints/beta/invocations?/endpoints/alpha/invocations",
    "/endpoints/beta/invocations?name=alpha",
    "/endpoints/beta/invocations#/endpoints/alpha/invocations",
    "/endpoints/beta/invocations;name=alpha",
    "/endpoints/beta%00/invocations",
    "/endpoints/beta%20/invocations",
    "/endpoints/alpha%0abeta/invocations",
    "/endpoints/BETA/invocations",
    "/Endpoints/beta/Invocations",
    "http://localhost/endpoints/beta/invocations",
    "http://alpha/endpoints/beta/invocations",
    "http://localhost//endpoints/beta/invocations",
    "/endpoints/alpha/invocations/endpoints/beta/invocations",
]
TRICKS: list[dict[str, str]] = [
    {},
    {"Host": "localhost/endpoints/alpha/invocations?"},
    {"Host": "alpha"},
    {"X-Original-URL": "/endpoints/alpha/invocations", "X-Rewrite-URL": "/endpoints/alpha/invocations"},
    {"X-Forwarded-Prefix": "/endpoints/alpha", "X-Forwarded-Host": "alpha", "Forwarded": "host=alpha"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"},
]  # fmt: skip


@pytest.mark.parametrize("path", BETA)
def test_no_spelling_of_a_path_gets_around_a_permission(server: Server, path: str) -> None:
    """Whatever leads one who may do all to ``beta`` is denied to one who may invoke ``alpha`` alone, and to nobody."""
    for trick in TRICKS:
        found: dict[str, int] = {}
        for key in ("admin", "alpha", ""):
            with Raw(server.url) as raw:
                found[key] = raw.ask(_call(path, key, trick)).status
        assert 200 not in (found["alpha"], found[""])
        assert found["admin"] in (200, 400, 404)
        if found["admin"] == 200:
            assert (403, 403) == (found["alpha"], found[""])


MODELS = [
    "b/one.onnx",
    "./b/one.onnx",
    "/b/one.onnx",
    "b//one.onnx",
    "a/../b/one.onnx",
    "a//../b/one.onnx",
    "a/one.onnx/../../b/one.onnx",
    "a\\..\\b/one.onnx",
    "a/..",
    "A/one.onnx",
]


@pytest.mark.parametrize("model", MODELS)
def test_no_spelling_of_a_model_gets_around_a_permission(server: Server, model: str) -> None:
    """Nor does naming two, in either order, or naming it in the path."""
    path = "/endpoints/many/invocations"
    header = f"{TARGET}: {model}\r\n".encode()
    doubled = _call(path, "team-a", {TARGET: "a/one.onnx"})
    with Raw(server.url) as raw:
        assert 200 == raw.ask(_call(path, "team-a", {TARGET: "a/one.onnx"})).status
        assert 403 == raw.ask(_call(path, "team-a", {TARGET: model})).status
        assert 403 == raw.ask(_call("/invocations", "team-a", {TARGET: model})).status
        assert 403 == raw.ask(doubled.replace(b"Host:", header + b"Host:")).status
        assert 403 == raw.ask(doubled.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n", 1)).status
        assert raw.ask(_call(f"/models/{model}/invoke", "team-a", {TARGET: "a/one.onnx"})).status in (403, 404)
        quoted = model.replace("/", "%2F")
        assert 403 == raw.ask(_call(f"/models/{quoted}/invoke", "team-a", {TARGET: "a/one.onnx"})).status


READ = [
    "/endpoints",
    "//endpoints",
    "/endpoints/",
    "/%65ndpoints",
    "/./endpoints",
    "/ping/../endpoints",
    "/ping%2f..%2fendpoints",
    "/endpoints?/ping",
    "/endpoints;/ping",
    "/endpoints#/ping",
    "http://localhost/endpoints",
    "http://localhost/ping/../endpoints",
    "/metrics",
    "/%6detrics",
    "/metrics/",
    "/healthz/../metrics",
    "/endpoints/alpha",
    "/endpoints/%61lpha",
    "/models",
    "/models/a%2Fone.onnx",
    "/execution-parameters",
]


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("host", ["localhost", "localhost/ping?", "localhost/ping#"])
def test_nothing_is_read_without_a_key(server: Server, path: str, host: str) -> None:
    """However it is spelled, and whatever the Host header says."""
    with Raw(server.url) as raw:
        assert raw.ask(request(path, headers={"Host": host}, method="GET")).status in (400, 403, 404)


# --- start ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_others_can_reach_is_refused_without_keys(tmp_path: Path, host: str) -> None:
    """At once, with the setting to use named."""
    command = [sys.executable, "-m", "serving", "up", "--host", host, "--port", "0", "--data-dir", str(tmp_path)]
    calm = {name: value for name, value in os.environ.items() if not name.startswith("SERVING_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=calm, check=False)
    assert 2 == done.returncode
    assert "SERVING_ACCESS_KEYS" in done.stderr
    assert not list(tmp_path.iterdir())


def test_curl_is_answered(server: Server) -> None:
    """``--user KEY:SECRET``, as httpx spells it."""
    url = f"{server.url}/endpoints/alpha/invocations"
    answer = httpx.post(url, content=BODY, headers={"Content-Type": "text/csv"}, auth=("alpha", secret("alpha")))
    assert 200 == answer.status_code
