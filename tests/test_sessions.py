"""Stateful sessions: opened, used and closed by unmodified boto3, kept to one worker, refused when that cannot be."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import PredictionFailed, Throttled, ValidationError
from serving.runtimes.base import ScriptCall, ScriptModel, ScriptReply
from serving.workers import sessions
from serving.workers.sessions import Sessions
from tests import cloud
from tests.processes import is_alive, processes
from tests.server import Server, declare, serve, variant
from tests.toys import ROW, write_script_model, write_sum_model

#: Counts the calls of each session, and does what it is told.
COUNTS = """
import json, os, time

COUNTS = {}
SESSION = "X-Amzn-SageMaker-Session-Id"
CLOSED = "X-Amzn-SageMaker-Closed-Session-Id"

def transform_fn(model, body, content_type, accept, context):
    order = json.loads(body or b"{}")
    name = context.request_headers.get(SESSION, "")
    if name == "NEW_SESSION":
        opened = order.get("open", f"s-{len(COUNTS)}; Expires=2126-05-01T10:00:00Z")
        name = opened.partition(";")[0]
        COUNTS[name] = 0
        if opened:
            context.set_response_header(order.get("as", SESSION), opened)
    COUNTS[name] = COUNTS.get(name, 0) + 1
    if "close" in order:
        context.set_response_header(CLOSED, name)
    if "exit" in order:
        os._exit(1)
    said = json.dumps({"session": name, "calls": COUNTS[name], "pid": os.getpid()})
    return iter([said[:5], said[5:]]) if "stream" in order else said
"""


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two fronts; three workers that count, over two variants; one endpoint whose workers a test may kill."""
    folder = tmp_path_factory.mktemp("sessions")
    write_script_model(folder / "counts", COUNTS)
    write_sum_model(folder / "sum" / "model.onnx")
    models: dict[str, dict[str, str]] = {name: {"ModelDataUrl": str(folder / name)} for name in ("counts", "sum")}
    models["many"] = {"ModelDataUrl": str(folder), "Mode": "MultiModel"}
    endpoints = {
        "counts": [variant("counts", "a", count=2), variant("counts", "b")],
        "frail": [variant("counts", count=2)],
        "leaving": [variant("counts")],
        "sum": [variant("sum")],
        "many": [variant("many")],
    }
    path = declare(folder / "endpoints.yaml", endpoints, models)
    environment = {"SERVING_FAST_PATH": str(request.param == "fast"), "SERVING_FRONTS": "2"}
    with serve(folder, "--config", str(path), "--allow-code", environment=environment) as running:
        yield running
        client(running.url).close()
        assert "request failed" not in running.log


@cache
def client(url: str) -> Any:
    """Unmodified boto3."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=1),
    )


def ask(server: Server, session: str, endpoint: str = "counts", **order: Any) -> Any:
    """An answer of unmodified boto3, its body read."""
    options = {key: order.pop(key) for key in list(order) if key[0].isupper()}
    body = json.dumps(order)
    answer = client(server.url).invoke_endpoint(EndpointName=endpoint, SessionId=session, Body=body, **options)
    return {**answer, "Body": answer["Body"].read()}


def said(answer: Any) -> dict[str, Any]:
    """What the model said."""
    parsed: dict[str, Any] = json.loads(answer["Body"])
    return parsed


def opened(server: Server, endpoint: str = "counts", **order: Any) -> tuple[str, int]:
    """A new session's id, and the worker that holds it."""
    answer = ask(server, "NEW_SESSION", endpoint, **order)
    name, _, expiry = answer["NewSessionId"].partition("; ")
    assert "Expires=2126-05-01T10:00:00Z" == expiry
    return name, said(answer)["pid"]


def refusal(server: Server, session: str, endpoint: str = "counts", **order: Any) -> str:
    """The text of a refused session."""
    with pytest.raises(ClientError) as caught:
        ask(server, session, endpoint, **order)
    assert ("ValidationError", 400) == (
        caught.value.response["Error"]["Code"],
        caught.value.response["ResponseMetadata"]["HTTPStatusCode"],
    )
    text: str = caught.value.response["Error"]["Message"]
    return text


def test_a_session_stays_with_the_worker_that_opened_it(server: Server) -> None:
    """Over workers, variants, fronts and connections: each has its own count."""
    found = [opened(server) for _ in range(40)]
    assert 3 == len({pid for _, pid in found})
    assert 40 == len({name for name, _ in found})
    for turn in (2, 3):
        for name, pid in found:
            with httpx.Client(base_url=server.url) as fresh:
                headers = {"X-Amzn-SageMaker-Session-Id": name}
                answer = fresh.post("/endpoints/counts/invocations", content=b"{}", headers=headers).json()
            assert (pid, turn) == (answer["pid"], answer["calls"])


def test_the_model_sees_the_name_it_gave(server: Server) -> None:
    """What is added for the caller is for us."""
    name, _ = opened(server, open="mine-1; Expires=2126-05-01T10:00:00Z")
    assert name.startswith("mine-1-")
    assert "mine-1" == said(ask(server, name))["session"]


def test_either_header_of_the_container_opens(server: Server) -> None:
    """Guides use both."""
    name, pid = opened(server, **{"as": "X-Amzn-SageMaker-New-Session-Id"})
    assert pid == said(ask(server, name))["pid"]


def test_a_variant_may_be_named_with_its_session(server: Server) -> None:
    """Another variant does not know it."""
    name, pid = opened(server, TargetVariant="b")
    assert pid == said(ask(server, name, TargetVariant="b"))["pid"]
    assert "is not open" in refusal(server, name, TargetVariant="a")


def test_a_closed_session_is_refused(server: Server) -> None:
    """The caller hears of the closing under the session's own name."""
    name, _ = opened(server)
    assert name == ask(server, name, close=1)["ClosedSessionId"]
    assert "is not open" in refusal(server, name)


def test_an_expired_session_is_refused(server: Server) -> None:
    """By the model's own clock time."""
    answer = ask(server, "NEW_SESSION", open="old; Expires=2020-01-01T00:00:00Z")
    assert "is not open" in refusal(server, answer["NewSessionId"].partition(";")[0])


def test_a_model_that_opens_none_gives_none(server: Server) -> None:
    """It was free not to."""
    assert "NewSessionId" not in ask(server, "NEW_SESSION", open="")


@pytest.mark.parametrize(
    "opening",
    ["s", "s; Expires=tomorrow", "a b; Expires=2126-05-01T10:00:00Z", "s; Expires=2126-13-01T10:00:00Z", "x" * 300],
)
def test_a_session_that_is_none_is_the_models_failure(server: Server, opening: str) -> None:
    """The caller could do nothing with it."""
    with pytest.raises(ClientError) as caught:
        ask(server, "NEW_SESSION", open=opening)
    assert "ModelError" == caught.value.response["Error"]["Code"]
    assert "session" in caught.value.response["OriginalMessage"]


def test_a_session_nobody_opened_is_refused(server: Server) -> None:
    """Made up, of another's seal, of a worker that is none, of a model that remembers nothing."""
    name, _ = opened(server)
    inner, seal, worker = name.rsplit("-", 2)
    for wrong in ("session-1", f"{inner}-{seal}-9999", f"{inner}-{'0' * 12}-{worker}", f"other-{seal}-{worker}", "x"):
        assert "is not open" in refusal(server, wrong)
    assert "is not open" in refusal(server, name, "frail")
    arrays = server.workers("sum")[0]["WorkerId"]
    assert "is not open" in refusal(server, f"{inner}-{seal}-{arrays}", "sum")
    assert 2 == said(ask(server, name))["calls"]


def test_models_of_many_have_their_own_sessions(server: Server) -> None:
    """One's session is not another's."""
    name, _ = opened(server, "many", TargetModel="counts")
    assert 2 == said(ask(server, name, "many", TargetModel="counts"))["calls"]
    assert "is not open" in refusal(server, name, "many", TargetModel="sum/model.onnx")


def test_a_session_streams(server: Server) -> None:
    """And may be closed by a stream; it cannot be opened by one."""
    name, pid = opened(server)
    stream = client(server.url).invoke_endpoint_with_response_stream
    for order in ({"stream": 1}, {"stream": 1, "close": 1}):
        answer = stream(EndpointName="counts", SessionId=name, Body=json.dumps(order))
        parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
        assert 2 == len(parts)
        assert pid == json.loads(b"".join(parts))["pid"]
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert name == headers["x-amzn-sagemaker-closed-session-id"]
    with pytest.raises(ClientError, match="is not open"):
        stream(EndpointName="counts", SessionId=name, Body=b"{}")


def test_a_front_that_has_just_started_knows_every_session(server: Server) -> None:
    """It needs to be told nothing."""
    name, pid = opened(server)
    fronts = processes(server, "serving.front_process")
    for front in fronts:
        os.kill(front, signal.SIGKILL)
    server.eventually(lambda: not any(is_alive(front) for front in fronts))
    server.eventually(lambda: _answers(server))
    answer = ask(server, name)
    assert (pid, 2) == (said(answer)["pid"], said(answer)["calls"])
    assert "NewSessionId" not in answer


def _answers(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_dead_workers_sessions_are_refused(server: Server) -> None:
    """Not answered by another worker, nor by the one that replaces it; the sessions of others go on."""
    found = [opened(server, "frail") for _ in range(8)]
    victim = found[0][1]
    os.kill(victim, signal.SIGKILL)
    server.eventually(lambda: victim not in [one["Pid"] for one in server.workers("frail")])
    server.eventually(lambda: 2 == sum(one["State"] == "READY" for one in server.workers("frail")))
    for name, pid in found:
        if pid == victim:
            assert "is not open" in refusal(server, name, "frail")
        else:
            answer = said(ask(server, name, "frail"))
            assert (pid, 2) == (answer["pid"], answer["calls"])


def test_a_call_that_ends_its_worker_is_not_tried_on_another(server: Server) -> None:
    """Its state has gone."""
    name, pid = opened(server, "frail")
    with pytest.raises(ClientError) as caught:
        ask(server, name, "frail", exit=1)
    assert "ModelError" == caught.value.response["Error"]["Code"]
    assert "sessions" in caught.value.response["OriginalMessage"]
    server.eventually(lambda: pid not in [one["Pid"] for one in server.workers("frail")])
    server.eventually(lambda: 2 == sum(one["State"] == "READY" for one in server.workers("frail")))
    assert "is not open" in refusal(server, name, "frail")


def test_a_worker_that_leaves_ends_its_sessions(server: Server) -> None:
    """Scale-in is the end of what was remembered."""
    name, _ = opened(server, "leaving")
    sagemaker = boto3.client(
        "sagemaker", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    change = {"VariantName": "AllTraffic", "DesiredInstanceCount": 0}
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="leaving", DesiredWeightsAndCapacities=[change])
    server.eventually(lambda: [] == server.workers("leaving"))
    assert "is not open" in refusal(server, name, "leaving")
    sagemaker.close()


def test_a_session_of_a_pipeline_is_its_last_containers(tmp_path: Path) -> None:
    """Which alone sees it; whatever worker the container before it has."""
    with serve(tmp_path, "--allow-code") as running:
        sagemaker = cloud.client(running)
        stages = [cloud.container(cloud.put_script(running, name, code)) for name, code in PIPELINE.items()]
        cloud.make_model(sagemaker, "e", *stages, InferenceExecutionConfig={"Mode": "Serial"})
        cloud.make_config(sagemaker, "e", cloud.production("e", InitialInstanceCount=2))
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
        assert "InService" == cloud.settled(sagemaker, "e")["EndpointStatus"]
        found = [opened(running, "e") for _ in range(6)]
        assert 2 == len({pid for _, pid in found})
        for name, pid in found:
            answer = said(ask(running, name, "e"))
            assert (pid, 2) == (answer["pid"], answer["calls"])
        assert "is not open" in refusal(running, "s-1", "e")
        client(running.url).close()


def test_a_session_of_a_component_stays_with_its_copy(tmp_path: Path) -> None:
    """And it streams; another component of the endpoint does not know it."""
    with serve(tmp_path, "--allow-code") as running:
        sagemaker = cloud.client(running)
        role = "arn:aws:iam::123456789012:role/any"
        bare = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        cloud.make_config(sagemaker, "c", bare, ExecutionRoleArn=role)
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        cloud.settled(sagemaker, "e")
        needs = {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 1.0}
        for name in ("one", "other"):
            container = {"Image": "any", "ArtifactUrl": cloud.put_script(running, name, COUNTS)}
            sagemaker.create_inference_component(
                InferenceComponentName=name,
                EndpointName="e",
                VariantName="AllTraffic",
                Specification={"Container": container, "ComputeResourceRequirements": needs},
                RuntimeConfig={"CopyCount": 2},
            )
        for name in ("one", "other"):
            find = partial(sagemaker.describe_inference_component, InferenceComponentName=name)
            running.eventually(lambda find=find: "InService" == find()["InferenceComponentStatus"])
        session, pid = opened(running, "e", InferenceComponentName="one")
        for turn in (2, 3, 4):
            answer = said(ask(running, session, "e", InferenceComponentName="one"))
            assert (pid, turn) == (answer["pid"], answer["calls"])
        assert "is not open" in refusal(running, session, "e", InferenceComponentName="other")
        stream = client(running.url).invoke_endpoint_with_response_stream(
            EndpointName="e", InferenceComponentName="one", SessionId=session, Body=b'{"stream": 1}'
        )
        parts = [event["PayloadPart"]["Bytes"] for event in stream["Body"]]
        assert (2, pid) == (len(parts), json.loads(b"".join(parts))["pid"])
        client(running.url).close()


#: The first says so if it hears of a session.
PIPELINE = {
    "first": "def transform_fn(model, body, content_type, accept, context):\n"
    "    assert 'X-Amzn-SageMaker-Session-Id' not in context.request_headers\n"
    "    return body\n",
    "counts": COUNTS,
}


def test_a_session_id_that_is_none_is_refused(server: Server) -> None:
    """At most 256 letters, digits and inner hyphens."""
    for wrong in ("-a", "a b", "a_b", "new_session", "x" * 257):
        answer = httpx.post(
            f"{server.url}/endpoints/sum/invocations",
            content=ROW,
            headers={"Content-Type": "text/csv", "X-Amzn-SageMaker-Session-Id": wrong},
        )
        assert 400 == answer.status_code
        assert "X-Amzn-SageMaker-Session-Id must be" in answer.json()["Message"]


# --- the books of one worker ------------------------------------------------------------------------------------------


class Remembers(ScriptModel):
    """A model."""

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Nothing to say."""
        return ScriptReply(b"", "")


IDS = st.from_regex(r"\A[a-zA-Z0-9](-?[a-zA-Z0-9]){0,60}\Z")
NEW = "X-Amzn-SageMaker-New-Session-Id"
CLOSED = "X-Amzn-SageMaker-Closed-Session-Id"


@given(IDS)
def test_a_public_name_keeps_to_the_apis_form(inner: str) -> None:
    """Whatever the model's own is; and leads back to it, in its own worker only."""
    books, model = Sessions("0042"), Remembers()
    told = books.told(model, "NEW_SESSION", {NEW: f"{inner};Expires=2126-05-01T10:00:00.123Z"}, 0.0)[NEW]
    found = re.fullmatch(r"([a-zA-Z0-9](-*[a-zA-Z0-9])*); Expires=2126-05-01T10:00:00Z", told)
    assert found is not None
    assert "0042" == sessions.worker_of(found[1])
    assert inner == books.enter(model, found[1], 0.0)
    for other in (Sessions("0042"), books):
        with pytest.raises(ValidationError):
            other.enter(Remembers(), found[1], 0.0)


def test_sessions_of_one_model_are_bounded() -> None:
    """Expired ones make room; where there is none, no more are opened."""
    books, model = Sessions("1"), Remembers()

    def open_one(number: int, now: float, year: int) -> None:
        books.told(model, "NEW_SESSION", {NEW: f"s{number}; Expires={year}-01-01T00:00:00Z"}, now)

    for number in range(sessions.MOST):
        open_one(number, 0.0, 1971 if number == 7 else 2126)
    with pytest.raises(Throttled):
        open_one(sessions.MOST, 0.0, 2126)
    open_one(sessions.MOST, 2**25 * 2.0, 2126)
    with pytest.raises(Throttled):
        open_one(sessions.MOST + 1, 2**25 * 2.0, 2126)


@given(st.text(max_size=300))
def test_whatever_a_model_says_of_a_new_session_is_a_session_or_its_failure(value: str) -> None:
    """Nothing else gets out."""
    try:
        told = Sessions("1").told(Remembers(), "NEW_SESSION", {NEW: value}, 0.0)
    except PredictionFailed:
        return
    assert len(told[NEW]) <= 256


@given(st.text(max_size=300))
def test_whatever_a_model_says_of_a_closed_session_is_an_id_or_nothing(value: str) -> None:
    """It may close what was never open."""
    told = Sessions("1").told(Remembers(), "", {CLOSED: value}, 0.0)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", told.get(CLOSED, "nothing"))
