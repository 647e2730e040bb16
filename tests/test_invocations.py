"""A prediction over HTTP: every model of the gallery, every class of error in both dialects, unmodified boto3."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import httpx
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import errors
from serving.api import failures, invocations
from serving.types import Reply
from tests.gallery import artifacts, card, sample
from tests.raw import TOLD, Answer, Raw, gate, open_gate, request, told
from tests.server import Server, declare, serve, variant
from tests.toys import COLUMNS, write_script_model, write_sum_model

ACCOUNT = "123456789012"
#: Endpoint -> model of the gallery.
GALLERY = {
    "default": "breast-cancer-xgboost",
    "linear": "breast-cancer-linear-onnx",
    "diabetes": "diabetes-xgboost",
    "digits": "digits-pipeline-onnx",
    "zoo": "zoo",
    "wine": "wine-script",
    "convnet": "digits-convnet-onnx",
    "convnet-script": "digits-convnet-script",
}
MAX_QUEUE = 64


def _endpoints(folder: Path) -> Path:
    """The gallery; ``sum``; and a variant of ``default`` without weight that does what it is told."""
    folder_of = artifacts(*GALLERY.values())
    models: dict[str, Mapping[str, Any]] = {
        model: {"ModelDataUrl": str(folder_of / model)} for model in GALLERY.values()
    }
    models["diabetes-xgboost"] = {"ModelDataUrl": str(folder_of / "diabetes-xgboost" / "model.tar.gz")}
    models["zoo"] = {"ModelDataUrl": str(folder_of / "zoo"), "Mode": "MultiModel"}
    models["told"] = {"ModelDataUrl": str(write_script_model(folder / "told", TOLD))}
    models["sum"] = {"ModelDataUrl": str(write_sum_model(folder / "sum.onnx"))}
    endpoints: dict[str, list[Mapping[str, Any]]] = {name: [variant(model)] for name, model in GALLERY.items()}
    endpoints["default"] = [variant("breast-cancer-xgboost", "tumour"), variant("told", "told", weight=0.0)]
    endpoints |= {"told": [variant("told")], "doomed": [variant("told")], "sum": [variant("sum")]}
    return declare(folder / "endpoints.yaml", endpoints, models)


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, by either door. Whatever the tests send, its workers live on and nothing is logged as a defect."""
    folder = tmp_path_factory.mktemp("invocations")
    environment = {
        "SERVING_FAST_PATH": str(request.param == "fast"),
        "SERVING_MAX_QUEUE": str(MAX_QUEUE),
        "SERVING_LOG_LEVEL": "warning",
    }
    with serve(folder, "--config", str(_endpoints(folder)), "--allow-code", environment=environment) as running:
        before = {name: [one["Pid"] for one in running.workers(name)] for name in running.endpoints()}
        yield running
        after = {name: [one["Pid"] for one in running.workers(name)] for name in running.endpoints()}
        del before["doomed"], after["doomed"]
        assert before == after
        assert "request failed" not in running.log
        assert "reading a request failed" not in running.log


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of it."""
    with server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """Unmodified boto3."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}),
    )


ROW = sample("breast-cancer-xgboost").body
CSV = {"Content-Type": "text/csv"}


def good(path: str = "/invocations") -> bytes:
    """A request that is answered."""
    return request(path, ROW, CSV)


def is_good(answer: Answer) -> bool:
    """Whether it is that answer."""
    expected = sample("breast-cancer-xgboost").expected["predictions"][0]
    return answer.status == 200 and math.isclose(float(answer.body), expected, rel_tol=1e-4)


# --- answers --------------------------------------------------------------------------------------------------------


def outputs(reply: Any, expected: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A JSON reply by output, as the cards have it."""
    rows = reply["predictions"] if isinstance(reply, dict) else reply  # a script answers as it likes
    if not isinstance(rows[0], dict) or isinstance(next(iter(expected.values()))[0], dict):
        return {next(iter(expected)): rows}
    if len(expected) == 1:
        return {name: [next(iter(row.values())) for row in rows] for name in expected}
    return {name: [row[name] for row in rows] for name in expected}


def assert_close(expected: Any, found: Any, tolerance: float) -> None:
    """The same structure with the same numbers, but for the nesting of single values."""
    if isinstance(expected[0], dict):
        assert [row["label"] for row in expected] == [row["label"] for row in found]
        expected, found = ([row["distance"] for row in rows] for rows in (expected, found))
    np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("which", ["request", "batch"])
@pytest.mark.parametrize("endpoint", GALLERY)
def test_each_model_answers_its_samples_as_its_card_says(client: httpx.Client, endpoint: str, which: str) -> None:
    """The sample's bytes and type in, the expected numbers out, named variant and request id beside them."""
    taken, target = sample(GALLERY[endpoint], which), card(GALLERY[endpoint])["target_model"]
    headers = {"Content-Type": taken.content_type, "Accept": "application/json"}
    headers |= {"X-Amzn-SageMaker-Target-Model": target} if target else {}
    answer = client.post(f"/endpoints/{endpoint}/invocations", content=taken.body, headers=headers)
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert ("tumour" if endpoint == "default" else "AllTraffic") == answer.headers["x-amzn-invoked-production-variant"]
    found = outputs(answer.json(), taken.expected)
    assert taken.expected.keys() == found.keys()
    for name, values in taken.expected.items():
        assert_close(values, found[name], taken.tolerance)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/csv"),
        ("*/*", "text/csv"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/*", "application/json"),
        ("text/csv;q=0.1, application/json;q=0.9", "application/json"),
        ("image/png, application/jsonlines", "application/jsonlines"),
        ("application/json;q=0, */*", "text/csv"),
        ("application/x-npy", "application/x-npy"),
    ],
)
def test_the_answer_comes_in_the_type_that_is_accepted(client: httpx.Client, accept: str, content_type: str) -> None:
    """Quality values, wildcards and the model's own preference."""
    headers = CSV | ({"Accept": accept} if accept else {"Accept": ""})
    answer = client.post("/invocations", content=ROW, headers=headers)
    assert (200, content_type) == (answer.status_code, answer.headers["content-type"])


def test_every_answer_has_a_request_id_of_its_own(client: httpx.Client) -> None:
    """Good or bad, here or nowhere."""
    paths = ["/invocations", "/endpoints/none/invocations", "/nowhere", "/models", "/ping", "/"] * 3
    ids = [client.post(path, content=ROW, headers=CSV).headers["x-amzn-requestid"] for path in paths]
    assert len(paths) == len(set(ids))
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", one) for one in ids)


@pytest.mark.parametrize("path", ["/invocations", "/endpoints/default/invocations", "/endpoints/wine/invocations"])
def test_a_receipt_is_given_on_request(client: httpx.Client, path: str) -> None:
    """``X-Serving-Timing``: microseconds by step, calls in the batch, whether the model was in memory."""
    taken = sample("wine-script" if "wine" in path else "breast-cancer-xgboost")
    headers = {"Content-Type": taken.content_type}
    assert "x-serving-timing" not in client.post(path, content=taken.body, headers=headers).headers
    answer = client.post(path, content=taken.body, headers=headers | {"X-Serving-Timing": "1"})
    pairs = dict(pair.split("=") for pair in answer.headers["x-serving-timing"].split("; "))
    assert ["total", "queue", "load", "decode", "predict", "encode", "batch", "hit"] == list(pairs)
    spent = {name: int(value) for name, value in pairs.items()}
    assert (0, 1, 1) == (spent["load"], spent["batch"], spent["hit"])
    assert 0 < spent["predict"] <= spent["total"]


@pytest.mark.parametrize("accept", ["application/json", "application/jsonlines"])
def test_a_prediction_that_is_no_number_is_valid_json(client: httpx.Client, accept: str) -> None:
    """NaN and infinity have no spelling in JSON."""

    def no_constants(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    for cell in ("nan", "1e38"):
        body = ",".join([cell] * COLUMNS)
        answer = client.post("/endpoints/sum/invocations", content=body, headers=CSV | {"Accept": accept})
        assert 200 == answer.status_code
        parsed = json.loads(answer.content, parse_constant=no_constants)
        assert "null" in answer.text, parsed


def test_what_the_caller_says_reaches_the_model(client: httpx.Client) -> None:
    """A script sees content type, accept, custom attributes, inference and session id, as they were sent."""
    sent = {
        "Content-Type": "text/plain; charset=x",
        "Accept": "text/x, */*;q=0.1",
        "X-Amzn-SageMaker-Custom-Attributes": "trace=7; note=' = ,'",
        "X-Amzn-SageMaker-Inference-Id": "id-1",
        "X-Amzn-SageMaker-Session-Id": "NEW_SESSION",
    }
    seen = client.post("/endpoints/told/invocations", content=b"{}", headers=sent).json()
    assert sent == {name: seen[name] for name in sent}


# --- every class of error, in both dialects -------------------------------------------------------------------------


class Bad(NamedTuple):
    """A request to the default endpoint that is refused: ``status`` as a container, and if the model refused it, that
    as ``original``."""

    body: bytes
    headers: dict[str, str]
    status: int
    original: int | None
    text: str


def _told(status: int) -> Bad:
    order = json.dumps({"raise": status, "text": f"no, {status}"}).encode()
    container = status if 400 <= status < 500 or status == 507 else 424
    headers = {"Content-Type": "text/plain", "X-Amzn-SageMaker-Target-Variant": "told"}
    return Bad(order, headers, container, status, f"no, {status}")


def _field(name: str, value: str, text: str) -> Bad:
    return Bad(ROW, CSV | {name: value}, 400, None, text)


LONG = {name.decode(): field.longest for name, field in invocations.FIELDS.items()}
BAD: dict[str, Bad] = {
    "an empty body": Bad(b"", CSV, 400, 400, "empty"),
    "too few columns": Bad(b"1,2,3", CSV, 400, 400, "30"),
    "too many columns": Bad(b"1," * 30 + b"1", CSV, 400, 400, "30"),
    "a ragged body": Bad(ROW + ROW.strip() + b",1\n", CSV, 400, 400, ""),
    "text for numbers": Bad(ROW.replace(b".", b"x", 1), CSV, 400, 400, ""),
    "malformed JSON": Bad(b'{"instances": [[1,', {"Content-Type": "application/json"}, 400, 400, ""),
    "deep JSON": Bad(b"[" * 100_000, {"Content-Type": "application/json"}, 400, 400, ""),
    "JSON of no shape known": Bad(b'{"rows": 1}', {"Content-Type": "application/json"}, 400, 400, ""),
    "a cut npy": Bad(b"\x93NUMPY\x01\x00", {"Content-Type": "application/x-npy"}, 400, 400, ""),
    "a type the model does not read": Bad(ROW, {"Content-Type": "image/png"}, 415, 415, "image/png"),
    "a type that is none": Bad(ROW, {"Content-Type": "no type at all"}, 415, 415, ""),
    "a type the model does not write": Bad(ROW, CSV | {"Accept": "image/png"}, 406, 406, "image/png"),
    "an unknown variant": _field(
        "X-Amzn-SageMaker-Target-Variant", "none", "Variant none of endpoint default not found."
    ),
    "a target model": _field(
        "X-Amzn-SageMaker-Target-Model", "m", "is not a multi-model endpoint and does not support target model header."
    ),
    "an inference component": _field("X-Amzn-SageMaker-Inference-Component", "c", "Inference Component Name header is"),
    "a container": _field("X-Amzn-SageMaker-Target-Container-Hostname", "c", "container hostname"),
    "explanations": _field("X-Amzn-SageMaker-Enable-Explanations", "`true`", "explainer"),
    "a long content type": Bad(ROW, {"Content-Type": "a/" + "b" * 1024}, 400, None, "1024"),
    "a long accept": Bad(ROW, CSV | {"Accept": "a/" + "b" * 1024}, 400, None, "1024"),
    "attributes beyond ASCII": _field("X-Amzn-SageMaker-Custom-Attributes", "caf\xe9", "printable"),
    **{f"a long {name}": _field(name, "v" * (longest + 1), f"at most {longest}") for name, longest in LONG.items()},
    **{f"a model's {status}": _told(status) for status in (400, 404, 422, 429, 499, 500, 502, 507, 599)},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_refusal_in_the_container_dialect(server: Server, name: str) -> None:
    """The status that a container would answer, JSON, no host path; and the connection is good for the next call."""
    bad = BAD[name]
    with Raw(server.url) as raw:
        answer = raw.ask(request("/invocations", bad.body, bad.headers))
        assert bad.status == answer.status
        assert bad.text in answer.fields["Message"]
        assert ("ValidationError" if bad.original is None else "ModelError") == answer.headers["x-amzn-errortype"]
        assert (bad.original is not None) == ("x-amzn-invoked-production-variant" in answer.headers)
        _assert_clean(answer)
        assert is_good(raw.ask(good()))


@pytest.mark.parametrize("name", BAD)
def test_a_refusal_in_the_dialect_of_the_runtime_api(server: Server, name: str) -> None:
    """What the model refuses is a 424 with AWS's members; all else a 400 ValidationError."""
    bad, path = BAD[name], "/endpoints/default/invocations"
    with Raw(server.url) as raw:
        answer = raw.ask(request(path, bad.body, bad.headers))
        fields = answer.fields
        if bad.original is None:
            assert (400, "ValidationError") == (answer.status, answer.headers["x-amzn-errortype"])
            assert bad.text in fields["Message"]
        else:
            assert (424, "ModelError") == (answer.status, answer.headers["x-amzn-errortype"])
            assert bad.original == fields["OriginalStatusCode"]
            assert bad.text in fields["OriginalMessage"]
            side = "client" if 400 <= bad.original < 500 else "server"
            assert fields["Message"].startswith(f"Received {side} error ({bad.original}) from primary with message ")
            assert "log-group:/aws/sagemaker/Endpoints/default" in fields["LogStreamArn"]
            assert ("told" if "Target-Variant" in str(bad.headers) else "tumour") == answer.headers[
                "x-amzn-invoked-production-variant"
            ]
        _assert_clean(answer)
        assert is_good(raw.ask(good(path)))


def _assert_clean(answer: Answer) -> None:
    assert "application/json" == answer.headers["content-type"]
    assert "x-amzn-requestid" in answer.headers
    text = answer.body.decode()
    assert "Traceback" not in text
    assert str(Path(__file__).parents[1]) not in text
    assert "/tmp" not in text


UNKNOWN = {
    "an unknown endpoint": ("/endpoints/none/invocations", {}, f"Endpoint none of account {ACCOUNT} not found."),
    "no endpoint's name": ("/endpoints/a%20b/invocations", {}, "not found."),
    "a climbing endpoint": ("/endpoints/%2e%2e/invocations", {}, "not found."),
    "a nameless endpoint": ("/endpoints/%00/invocations", {}, "not found."),
    "no target model": ("/endpoints/zoo/invocations", {}, "is missing a target model header."),
    "an empty target model": ("/endpoints/zoo/invocations", {"X-Amzn-SageMaker-Target-Model": " "}, "is missing a"),
    **{
        f"target model {name[:30]!r}": (
            "/endpoints/zoo/invocations",
            {"X-Amzn-SageMaker-Target-Model": name},
            f"Failed to download model data (bucket: zoo, key: {name})"
            if name.startswith(("none", "%"))
            else "must be a relative path",
        )
        for name in (
            "none.ubj",
            "none/of/these.tar.gz",
            "../zoo/model-000.ubj",
            "/etc/passwd",
            "./model-000.ubj",
            "model-000.ubj/",
            "a//b",
            "..",
            "model-000.ubj\xa0",
            "%2e%2e/model-000.ubj",
            "x" * 1024,
        )
    },
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_does_not_exist_is_a_validation_error(server: Server, name: str) -> None:
    """Unknown names, and names that would lead elsewhere."""
    path, headers, text = UNKNOWN[name]
    with Raw(server.url) as raw:
        answer = raw.ask(request(path, ROW, CSV | headers))
        assert (400, "ValidationError") == (answer.status, answer.headers["x-amzn-errortype"])
        assert text in answer.fields["Message"]
        assert is_good(raw.ask(good()))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/invocations"),
        ("PUT", "/invocations"),
        ("POST", "/invocations/"),
        ("POST", "//invocations"),
        ("POST", "/%69nvocations"),
        ("POST", "/endpoints/default/invocations/"),
        ("POST", "/endpoints/default"),
        ("POST", "/endpoints//invocations"),
        ("POST", "/endpoints/default/async-invocations/"),
        ("POST", "/endpoints/default/invocations-response-stream/"),
        ("POST", "/endpoints/default/invocations-response-streams"),
        ("OPTIONS", "/invocations"),
        ("DELETE", "/"),
        ("POST", "/endpoints/a%2Fb/invocations"),
        ("POST", "/endpoints/..%2F..%2Fetc/invocations"),
        ("GET", "/../etc/passwd"),
        ("GET", "/docs"),
    ],
)
def test_what_is_no_operation_is_told_so(server: Server, method: str, path: str) -> None:
    """404 UnknownOperationException; no redirect to whatever the Host header says."""
    with Raw(server.url) as raw:
        answer = raw.ask(request(path, ROW, CSV | {"Host": "elsewhere"}, method=method))
        assert (404, "UnknownOperationException") == (answer.status, answer.headers["x-amzn-errortype"])
        assert "location" not in answer.headers
        assert is_good(raw.ask(good()))


@pytest.mark.parametrize("host", ["[", "a?b", "a/../b", "@", "\xff", "a b", ""])
def test_an_odd_host_changes_nothing(server: Server, host: str) -> None:
    """Which door and what is decided on the path as it was sent, never on one put together with the Host header."""
    data = good().replace(b"Host: localhost", b"Host: " + host.encode("latin-1"))
    with Raw(server.url) as raw:
        assert is_good(raw.ask(data))
        unknown = request("/endpoints/none/invocations").replace(b"localhost", host.encode("latin-1"))
        assert 400 == raw.ask(unknown).status
        assert 404 == raw.ask(request("/nowhere").replace(b"localhost", host.encode("latin-1"))).status


WEIGHTS = b'{"EndpointName": "%b", "DesiredWeightsAndCapacities": [%b]}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", WEIGHTS % (b"\xc3\xa9" * 3_000_000, b'{"VariantName": "v"}')),
        ("/", WEIGHTS % (b"default", b'{"VariantName": "%b"}' % (b"a" * 6_000_000))),
        ("/", WEIGHTS % (b"default", b"{}," * 50_000 + b"{}")),
        ("/models", b'{"model_name": "%b", "url": "u"}' % (b"\xc3\xa9" * 3_000_000)),
        ("/models", b'{"model_name": "m", "url": "%b"}' % (b"a" * 6_000_000)),
        ("/models?next_page_token=\xb2", b""),
        ("/models?next_page_token=" + "9" * 5000, b""),
    ],
    ids=["endpoint", "variant", "variants", "model", "url", "page", "long page"],
)  # fmt: skip
def test_names_too_long_for_any_use_are_refused(server: Server, path: str, body: bytes) -> None:
    """With few words, and the server is as it was."""
    target = {"X-Amz-Target": "SageMaker.UpdateEndpointWeightsAndCapacities"}
    with Raw(server.url) as raw:
        answer = raw.ask(request(path, body, target, method="POST" if body else "GET"))
        code = "ValidationException" if path == "/" else "ValidationError"  # the control API's word for it
        assert (400, code) == (answer.status, answer.headers["x-amzn-errortype"])
    with Raw(server.url) as raw:
        assert is_good(raw.ask(good()))


def test_a_model_that_ends_its_worker_is_a_model_error(server: Server) -> None:
    """After one retry; the other endpoints do not notice."""
    with Raw(server.url) as raw:
        answer = raw.ask(told("/endpoints/doomed/invocations", exit=True))
        assert (424, 500) == (answer.status, answer.fields["OriginalStatusCode"])
        assert "worker" in answer.fields["OriginalMessage"]
        assert is_good(raw.ask(good()))


def test_a_full_queue_is_refused_with_the_time_to_come_back(server: Server, tmp_path: Path) -> None:
    """429 ThrottlingException, ``Retry-After`` in seconds and ``x-amz-retry-after`` in milliseconds; other endpoints
    are open."""
    with gate(tmp_path / "gate") as path, ExitStack() as stack:
        stack.enter_context(Raw(server.url)).send(told(hold=str(path)))
        end = open_gate(path)
        for _ in range(MAX_QUEUE - 1):
            stack.enter_context(Raw(server.url)).send(told())
        server.eventually(lambda: MAX_QUEUE == server.metric("sagemaker_concurrent_requests", endpoint="told"))
        with Raw(server.url) as raw:
            answer = raw.ask(told(say="no"))
            assert (429, "ThrottlingException") == (answer.status, answer.headers["x-amzn-errortype"])
            assert int(answer.headers["retry-after"]) >= 1
            assert int(answer.headers["x-amz-retry-after"]) >= 1
            assert is_good(raw.ask(good()))
            stack.close()
            os.close(end)
            server.eventually(lambda: 0 == server.metric("sagemaker_concurrent_requests", endpoint="told"))
            assert b"yes" == raw.ask(told(say="yes")).body


# --- unmodified boto3 -----------------------------------------------------------------------------------------------


def test_boto3_gets_and_gives_every_member(runtime: Any) -> None:
    """All that InvokeEndpoint takes for an endpoint like ours, and all that it returns."""
    order = {
        "headers": {
            "X-Amzn-SageMaker-Custom-Attributes": "from the model",
            "X-Amzn-SageMaker-Session-Id": "s-1; Expires=2126-05-01T10:00:00Z",
            "X-Amzn-SageMaker-Closed-Session-Id": "s-0",
        }
    }
    answer = runtime.invoke_endpoint(
        EndpointName="default",
        Body=json.dumps(order),
        ContentType="text/plain",
        Accept="text/plain",
        CustomAttributes="from the caller",
        TargetVariant="told",
        InferenceId="i-1",
        SessionId="NEW_SESSION",
    )
    seen = json.loads(answer["Body"].read())
    assert "from the caller" == seen["X-Amzn-SageMaker-Custom-Attributes"]
    assert ("i-1", "NEW_SESSION") == (seen["X-Amzn-SageMaker-Inference-Id"], seen["X-Amzn-SageMaker-Session-Id"])
    assert ("text/plain", "text/plain") == (seen["content_type"], seen["accept"])
    assert ("text/plain", "told") == (answer["ContentType"], answer["InvokedProductionVariant"])
    assert "from the model" == answer["CustomAttributes"]
    assert re.fullmatch(r"s-1-[0-9a-f]{12}-\d+; Expires=2126-05-01T10:00:00Z", answer["NewSessionId"])
    assert re.fullmatch(r"s-0-[0-9a-f]{12}-\d+", answer["ClosedSessionId"])
    assert re.fullmatch(r"[0-9a-f-]{36}", answer["ResponseMetadata"]["RequestId"])


def test_boto3_calls_a_model_of_many(runtime: Any) -> None:
    """TargetModel."""
    taken = sample("zoo")
    answer = runtime.invoke_endpoint(
        EndpointName="zoo", TargetModel=card("zoo")["target_model"], ContentType=taken.content_type, Body=taken.body
    )
    assert math.isclose(taken.expected["predictions"][0], float(answer["Body"].read()), rel_tol=1e-4)


def test_boto3_sends_bodies_as_files(runtime: Any, tmp_path: Path) -> None:
    """A file object, which botocore streams."""
    (tmp_path / "row.csv").write_bytes(ROW)
    with (tmp_path / "row.csv").open("rb") as body:
        answer = runtime.invoke_endpoint(EndpointName="default", ContentType="text/csv", Body=body)
    assert "tumour" == answer["InvokedProductionVariant"]


@pytest.mark.parametrize(
    ("order", "status", "text"),
    [({"raise": 422, "text": "not so"}, 422, "not so"), ({"raise": 503, "text": "broken"}, 503, "broken")],
)
def test_boto3_reads_a_model_error(runtime: Any, order: dict[str, Any], status: int, text: str) -> None:
    """``OriginalStatusCode``, ``OriginalMessage`` and ``LogStreamArn``."""
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName="told", ContentType="text/plain", Body=json.dumps(order))
    response = caught.value.response
    assert 424 == response["ResponseMetadata"]["HTTPStatusCode"]
    assert status == response["OriginalStatusCode"]
    assert text in response["OriginalMessage"]
    assert text in response["Error"]["Message"]
    assert response["LogStreamArn"].startswith(f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"EndpointName": "none"}, f"Endpoint none of account {ACCOUNT} not found."),
        ({"EndpointName": "default", "TargetVariant": "none"}, "Variant none of endpoint default not found."),
        ({"EndpointName": "default", "TargetModel": "m"}, "does not support target model header"),
        ({"EndpointName": "default", "InferenceComponentName": "c"}, "Inference Component Name header is not allowed"),
        ({"EndpointName": "default", "EnableExplanations": "`true`"}, "explainer"),
        ({"EndpointName": "default", "TargetContainerHostname": "c"}, "containers"),
        ({"EndpointName": "zoo"}, "missing a target model header"),
        ({"EndpointName": "zoo", "TargetModel": "none"}, "Failed to download model data"),
    ],
)
def test_boto3_reads_a_validation_error(runtime: Any, asked: dict[str, str], text: str) -> None:
    """With AWS's words where they are known."""
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(Body=ROW, ContentType="text/csv", **asked)
    assert "ValidationError" == caught.value.response["Error"]["Code"]
    assert 400 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert text in caught.value.response["Error"]["Message"]


def test_boto3_is_told_that_its_body_is_too_large(runtime: Any) -> None:
    """It sends all of it before it listens."""
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="default", ContentType="text/csv", Body=bytes(7_000_000))
    assert 413 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert "ValidationError" == caught.value.response["Error"]["Code"]


# --- anything at all --------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=80),
    st.sampled_from(["*/*", "text/csv", "application/json", "a/b;c=\"d", "q=", ";;;", "../..", "NEW_SESSION", "told"]),
)  # fmt: skip
NAMES = st.sampled_from(["content-type", "accept", "x-serving-timing", "x-amzn-sagemaker-inference-component", *LONG])
BODIES = st.one_of(
    st.binary(max_size=300),
    st.text("0123456789.,-eE+nai\n\"' ", max_size=200).map(str.encode),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["instances", "data", "a"]), inner),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode()),
)
PATHS = st.sampled_from(["/invocations", *(f"/endpoints/{name}/invocations" for name in ("sum", "zoo", "told", "x"))])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS, st.dictionaries(NAMES, VALUES, max_size=4), BODIES)
def test_whatever_is_asked_gets_an_answer_or_a_clean_refusal(
    server: Server, path: str, headers: dict[str, str], body: bytes
) -> None:
    """Never a 5xx, always JSON when refused; the next call is answered on the same connection."""
    with Raw(server.url) as raw:
        answer = raw.ask(request(path, body, {name: value.strip() for name, value in headers.items()}))
        assert answer.status < 500
        if answer.status != 200:
            assert answer.fields["Message"]
            _assert_clean(answer)
        assert is_good(raw.ask(good()))


# --- the dress of every error (pure) ----------------------------------------------------------------------------------

RAISED = [
    *(kind("said") for kind in dict.fromkeys(errors.BY_NAME.values())),
    *(kind("said") for kind in (errors.UnknownEndpoint, errors.UnknownVariant, errors.AccessDenied)),
    *(kind("said") for kind in (errors.InvalidSignature, errors.UnknownOperation)),
    *(errors.ModelError("said", status) for status in (0, 400, 418, 499, 500, 507, 599)),
]


@pytest.mark.parametrize("container", [True, False], ids=["container", "runtime"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: f"{type(error).__name__}-{error.status}")
def test_every_error_has_its_dress(error: errors.ServingError, container: bool) -> None:
    """The table of ``failures``: status by dialect, code in header and body, the model's own status kept."""
    status, headers, body = failures.dress(error, container, "id", ACCOUNT, "e", "us-east-1")
    fields, named = json.loads(body), dict(headers)
    assert error.code == fields["__type"] == named["x-amzn-ErrorType"]
    assert "id" == named["x-amzn-RequestId"]
    if not isinstance(error, errors.ModelError):
        assert (error.status, "said") == (status, fields["Message"])
        return
    assert (error.original_status, "said") == (fields["OriginalStatusCode"], fields["OriginalMessage"])
    kept = 400 <= error.original_status < 500 or error.original_status == 507
    assert (error.original_status if container and kept else 424) == status


def test_what_is_not_an_error_of_ours_is_told_as_a_defect() -> None:
    """Its text stays in the log."""
    told_as = failures.as_serving_error(KeyError("/secret/path"), "id")
    assert isinstance(told_as, errors.InternalFailure)
    assert "secret" not in told_as.message


@given(st.text(max_size=50), st.text(max_size=2000))
def test_nothing_a_model_says_leaves_its_header(name: str, value: str) -> None:
    """No line break, no foreign header, at most 1,024 visible characters."""
    reply = Reply(b"", value, "v", 0.0, (0, 0, 0, 0, 0, 0), True, ((name, value), ("X-Amzn-SageMaker-A", value)))
    for found, text in invocations.reply_headers(reply, "id", True, False):
        assert re.fullmatch(r"[\x20-\x7e]{0,1024}", text)
        assert found.lower().startswith(("content-type", "x-amzn-", "x-serving-"))
