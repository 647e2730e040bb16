"""Calls that are answered later, over HTTP: by unmodified boto3, by hand, and by preference; through both doors."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.later import CALLS, FAILURE, OUTPUT, declared, ended, order, status, stored, submit
from tests.raw import Raw, gate, open_gate, request
from tests.server import Server, serve

LATER = {"Prefer": "respond-async"}
PLAIN = "/endpoints/plain/invocations"


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an asynchronous endpoint, which takes one call at a time, and a plain one."""
    folder = tmp_path_factory.mktemp("later")
    environment = {"SERVING_FAST_PATH": str(request.param == "fast"), "SERVING_LOG_LEVEL": "warning"}
    environment["SERVING_DEFAULT_ENDPOINT"] = "plain"
    with serve(folder, "--allow-code", "--config", declared(folder), environment=environment) as running:
        yield running
        assert "failed" not in running.log.replace("asynchronous call", "")
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with server.client(timeout=70.0) as made:
        yield made


def runtime(url: str, attempts: int = 1) -> Any:
    """boto3 as anybody configures it."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}),
    )


@contextmanager
def held(client: httpx.Client, path: Path) -> Iterator[str]:
    """The worker of ``later`` stands at a gate; the call's place is told. It goes on at the end."""
    with gate(path):
        location = submit(client, order(hold=str(path), say="held"))
        held_open = open_gate(path)
        try:
            yield location
        finally:
            os.close(held_open)
        ended(client, location)


# --- by boto3 ---------------------------------------------------------------------------------------------------------


def test_boto3_is_answered_later_with_everything_it_said(server: Server, client: httpx.Client) -> None:
    """Every parameter there is; the input is an object, and so is the answer."""
    object_path = server.data_dir / "s3" / "inputs" / "one.json"
    object_path.parent.mkdir(parents=True, exist_ok=True)
    object_path.write_bytes(order(name="one"))
    boto = runtime(server.url)
    answer = boto.invoke_endpoint_async(
        EndpointName="later",
        InputLocation="s3://inputs/one.json",
        ContentType="application/json",
        Accept="text/plain",
        CustomAttributes="trace=1",
        InferenceId="my-inference",
        RequestTTLSeconds=60,
        InvocationTimeoutSeconds=10,
        S3OutputPathExtension="today/first",
        Filename="answer.txt",
    )
    boto.close()
    assert 202 == answer["ResponseMetadata"]["HTTPStatusCode"]
    assert ("my-inference", f"{OUTPUT}/today/first/answer.txt") == (answer["InferenceId"], answer["OutputLocation"])
    assert answer["FailureLocation"].startswith(f"{FAILURE}/")
    call = ended(client, answer["ResponseMetadata"]["HTTPHeaders"]["location"])
    assert ("Completed", "my-inference", answer["OutputLocation"]) == (
        call["Status"], call["InferenceId"], call["OutputLocation"],
    )  # fmt: skip
    said = httpx.Response(200, content=stored(server, answer["OutputLocation"])).json()
    assert ("application/json", "text/plain") == (said["content_type"], said["accept"])
    assert "trace=1" in str(said)


def test_boto3_is_answered_with_ids_made_for_it(server: Server, client: httpx.Client) -> None:
    """An inline body, and nothing else said."""
    boto = runtime(server.url)
    answers = [boto.invoke_endpoint_async(EndpointName="later", Body=order(say=str(number))) for number in range(2)]
    boto.close()
    assert 2 == len({answer["InferenceId"] for answer in answers})
    for number, answer in enumerate(answers):
        ended(client, answer["ResponseMetadata"]["HTTPHeaders"]["location"])
        assert str(number).encode() == stored(server, answer["OutputLocation"])


def _whole(sock: socket.socket) -> bytes:
    """A request or an answer whose body is a JSON object."""
    data = b""
    while not data.endswith(b"}"):
        data += sock.recv(65_536)
    return data


@contextmanager
def losing(url: str, answers: int) -> Iterator[str]:
    """A line to the server that loses the first answers, as a network may."""
    there = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on() -> None:
            for number in range(answers + 1):
                caller, _ = listener.accept()
                with caller, socket.create_connection((there.hostname, there.port or 80)) as callee:
                    callee.sendall(_whole(caller))
                    answer = _whole(callee)
                    if number == answers:
                        caller.sendall(answer)

        thread = threading.Thread(target=pass_on)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(30)


def test_what_boto3_sends_again_is_one_call(server: Server, client: httpx.Client) -> None:
    """Its attempts carry one ``amz-sdk-invocation-id``; two answers are lost, and the third tells of the first."""
    before = len(client.get(CALLS).json()["AsyncInvocations"])
    with losing(server.url, 2) as url:
        boto = runtime(url, attempts=5)
        answer = boto.invoke_endpoint_async(EndpointName="later", Body=order(say="once"))
        boto.close()
    assert 2 == answer["ResponseMetadata"]["RetryAttempts"]
    ended(client, answer["ResponseMetadata"]["HTTPHeaders"]["location"])
    calls = client.get(CALLS).json()["AsyncInvocations"]
    assert (1, answer["InferenceId"]) == (len(calls) - before, calls[0]["InferenceId"])


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"EndpointName": "plain", "InputLocation": "s3://b/k"}, "Endpoint plain is not asynchronous"),
        ({"EndpointName": "plain", "Body": b"1,2"}, "Endpoint plain is not asynchronous"),
        ({"EndpointName": "none", "InputLocation": "s3://b/k"}, "Endpoint none of account"),
        ({"EndpointName": "later"}, "Exactly one of InputLocation and Body"),
        ({"EndpointName": "later", "InputLocation": "https://host/key"}, "InputLocation must be s3://"),
        ({"EndpointName": "later", "Body": b"1", "S3OutputPathExtension": "../../up"}, "output location"),
    ],
    ids=["location", "body", "unknown", "neither", "https", "up"],
)
def test_boto3_is_told_why(server: Server, asked: dict[str, Any], text: str) -> None:
    """In one sentence."""
    boto = runtime(server.url)
    with pytest.raises(ClientError, match=text) as caught:
        boto.invoke_endpoint_async(**asked)
    assert "ValidationError" == caught.value.response["Error"]["Code"]
    boto.close()


# --- idempotency ------------------------------------------------------------------------------------------------------


def test_an_idempotency_key_makes_one_call_of_many(client: httpx.Client) -> None:
    """Sent by eight at once: one place, one answer; of another key, another."""
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda _: submit(client, order(say="x"), Idempotency_Key="key one"), range(8)))
    assert 1 == len(places)
    assert submit(client, order(say="x"), Idempotency_Key="key two") not in places


def test_an_idempotency_key_is_for_one_request(client: httpx.Client) -> None:
    """With another body, or other words, it is refused: 409."""
    submit(client, order(say="x"), Idempotency_Key="key three")
    for body, headers in ((order(say="y"), {}), (order(say="x"), {"X-Serving-Priority": "0"})):
        answer = client.post(CALLS, content=body, headers={"Idempotency-Key": "key three", **headers})
        assert (409, "ConflictException") == (answer.status_code, answer.json()["__type"])


# --- looking ----------------------------------------------------------------------------------------------------------


def test_a_call_is_seen_on_its_way(client: httpx.Client, tmp_path: Path) -> None:
    """In progress; queued, with those before it; completed, with times that follow each other."""
    with held(client, tmp_path / "gate") as first:
        second, third = (submit(client, order(say=word)) for word in ("two", "three"))
        running = status(client, first)
        assert ("InProgress", 1, "later") == (running["Status"], running["Attempts"], running["EndpointName"])
        assert ["Queued", "Queued"] == [status(client, one)["Status"] for one in (second, third)]
        assert [0, 1] == [status(client, one)["QueuePosition"] for one in (second, third)]
        assert "InProgress" == status(client, first, 0.1)["Status"]
    done = ended(client, third)
    assert ("Completed", 5) == (done["Status"], done["Size"])
    assert done["CreationTime"] <= done["StartTime"] <= done["EndTime"]


def test_who_waits_hears_of_the_end(client: httpx.Client, tmp_path: Path) -> None:
    """Many at once, by either name of the call."""
    with ThreadPoolExecutor(9) as pool:
        with held(client, tmp_path / "gate"):
            location = submit(client, order(say="x"), X_Amzn_SageMaker_Inference_Id="named so")
            waiting = [pool.submit(ended, client, location) for _ in range(8)]
            waiting.append(pool.submit(ended, client, f"{CALLS}/named%20so"))
            assert not any(one.done() for one in waiting)
        assert {"Completed"} == {one.result()["Status"] for one in waiting}


def test_priorities_go_first(client: httpx.Client, tmp_path: Path) -> None:
    """0 before 5 before 9; among equals, the first."""
    marks = str(tmp_path / "marks")
    with held(client, tmp_path / "gate"):
        for name, priority in (("late", "9"), ("usual", ""), ("again", "5"), ("first", "0")):
            location = submit(client, order(mark=marks, name=name), X_Serving_Priority=priority)
            assert int(priority or "5") == status(client, location)["Priority"]
    for call in client.get(CALLS, params={"max": "4"}).json()["AsyncInvocations"]:
        ended(client, f"{CALLS}/{call['Id']}")
    assert ["first", "usual", "again", "late"] == Path(marks).read_text().split()


def test_calls_are_listed_in_pages(client: httpx.Client) -> None:
    """Newest first, each once, by status if one is named."""
    made = [submit(client, order(say="x")) for _ in range(5)]
    for location in made:
        ended(client, location)
    seen: list[str] = []
    token = ""
    while len(seen) < 5:
        page = client.get(CALLS, params={"max": "2", "token": token, "status": "Completed"}).json()
        assert {"Completed"} == {call["Status"] for call in page["AsyncInvocations"]}
        seen += [call["Id"] for call in page["AsyncInvocations"]]
        token = page["NextToken"]
    assert [location.rpartition("/")[2] for location in reversed(made)] == seen[:5]
    assert [] == client.get(CALLS, params={"status": "Expired"}).json()["AsyncInvocations"]


NOBODY = f"{CALLS}/00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", f"{CALLS}?max=0", 400),
        ("GET", f"{CALLS}?max=101", 400),
        ("GET", f"{CALLS}?max=x", 400),
        ("GET", f"{CALLS}?token=x", 400),
        ("GET", f"{CALLS}?token={'9' * 2000}", 400),
        ("GET", f"{CALLS}?status=Odd", 400),
        ("GET", f"{NOBODY}?wait=61", 400),
        ("GET", f"{NOBODY}?wait=-1", 400),
        ("GET", f"{NOBODY}?wait=nan", 400),
        ("GET", NOBODY, 404),
        ("DELETE", NOBODY, 404),
        ("GET", f"{NOBODY}/output", 404),
        ("GET", f"{CALLS}/{'x' * 65}", 404),
        ("GET", f"{CALLS}/%00", 404),
        ("GET", f"{CALLS}/%E2%82%AC", 404),
        ("GET", "/endpoints/a%20b/async-invocations", 400),
        ("GET", f"/endpoints/plain/async-invocations/{'0' * 36}", 404),
        ("PUT", CALLS, 404),
    ],
)
def test_what_is_not_there_is_said(client: httpx.Client, method: str, path: str, code: int) -> None:
    """In JSON, with its code."""
    answer = client.request(method, path)
    assert code == answer.status_code, answer.text
    assert answer.json()["__type"] == answer.headers["x-amzn-errortype"]


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_call_that_waits_can_be_cancelled(client: httpx.Client, tmp_path: Path) -> None:
    """It never runs, and whoever waits for it hears that; what has ended stays as it was."""
    marks = tmp_path / "marks"
    with ThreadPoolExecutor(1) as pool, held(client, tmp_path / "gate") as running:
        location = submit(client, order(mark=str(marks), name="never"))
        waiting = pool.submit(ended, client, location)
        assert "Cancelled" == client.delete(location).json()["Status"]
        assert "Cancelled" == waiting.result()["Status"]
        assert "Cancelled" == client.delete(location).json()["Status"]
    assert "Completed" == client.delete(running).json()["Status"]
    assert not marks.exists()
    answer = client.get(f"{location}/output")
    assert (409, "ConflictException") == (answer.status_code, answer.json()["__type"])


def test_a_call_that_runs_can_be_cancelled(client: httpx.Client, tmp_path: Path) -> None:
    """What its worker says later is nobody's."""
    with held(client, tmp_path / "gate") as running:
        assert "Cancelled" == client.delete(running).json()["Status"]
    assert "Cancelled" == status(client, running)["Status"]
    assert "Completed" == ended(client, submit(client, order(say="next")))["Status"]


# --- the answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2**20, 5_000_000])
def test_an_answer_comes_whole(client: httpx.Client, size: int) -> None:
    """However large, with the type the model gave it."""
    location = submit(client, order(size=size))
    ended(client, location)
    answer = client.get(f"{location}/output")
    assert (200, "text/plain") == (answer.status_code, answer.headers["content-type"])
    assert b"x" * size == answer.content


@pytest.mark.parametrize("kind", ["a/b\r\nX-Evil: 1", "\u20ac", "x" * 5000, ""])
def test_the_type_of_an_answer_stays_a_type(client: httpx.Client, kind: str) -> None:
    """Whatever the model says it is."""
    location = submit(client, order(type=kind, say="x"))
    ended(client, location)
    answer = client.get(f"{location}/output")
    assert (200, "x", None) == (answer.status_code, answer.text, answer.headers.get("x-evil"))


def test_there_is_no_answer_before_the_end(client: httpx.Client, tmp_path: Path) -> None:
    """404 until then."""
    with held(client, tmp_path / "gate") as running:
        assert 404 == client.get(f"{running}/output").status_code
    assert "held" == client.get(f"{running}/output").text


def test_a_failure_is_told_as_one(server: Server, client: httpx.Client) -> None:
    """424 with the model's words, which stand in the failure object too."""
    location = submit(client, b'{"raise": 500, "text": "it broke"}')
    call = ended(client, location)
    assert ("Failed", True) == (call["Status"], "server error (500)" in call["FailureReason"])
    assert b"it broke" in stored(server, call["FailureLocation"])
    answer = client.get(f"{location}/output")
    assert (424, "ModelError") == (answer.status_code, answer.json()["__type"])
    assert "it broke" in answer.json()["OriginalMessage"]


# --- by preference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/invocations", PLAIN, "/endpoints/later/invocations"])
def test_a_plain_call_may_be_answered_later(client: httpx.Client, path: str) -> None:
    """202 and where to look, whether the endpoint is asynchronous or not (RFC 7240)."""
    answer = client.post(path, content=order(say="later on"), headers=LATER)
    assert (202, "respond-async") == (answer.status_code, answer.headers["preference-applied"])
    location = answer.headers["location"]
    assert "Completed" == ended(client, location)["Status"]
    assert "later on" == client.get(f"{location}/output").text


def test_a_plain_call_that_is_done_in_time_is_answered_at_once(client: httpx.Client) -> None:
    """200 with the answer, as the model gave it; a failure as its error."""
    headers = {"Prefer": "wait=30, respond-async", "Content-Type": "a/b"}
    answer = client.post(PLAIN, content=order(say="at once"), headers=headers)
    assert (200, "at once") == (answer.status_code, answer.text)
    assert "respond-async, wait=30" == answer.headers["preference-applied"]
    failed = client.post(PLAIN, content=b'{"raise": 500, "text": "it broke"}', headers=headers)
    assert (424, "ModelError") == (failed.status_code, failed.json()["__type"])


def test_a_plain_call_that_takes_longer_is_answered_later(client: httpx.Client, tmp_path: Path) -> None:
    """202 after the time it was given."""
    with gate(tmp_path / "gate"):
        body = order(hold=str(tmp_path / "gate"), say="at last")
        answer = client.post(PLAIN, content=body, headers={"Prefer": "respond-async; x=y, wait=1"})
        os.close(open_gate(tmp_path / "gate"))
        assert (202, "respond-async, wait=1") == (answer.status_code, answer.headers["preference-applied"])
        ended(client, answer.headers["location"])
        assert "at last" == client.get(answer.headers["location"] + "/output").text


def test_a_body_over_the_inline_limit_is_kept_too(client: httpx.Client) -> None:
    """Up to the limit of a plain call."""
    body = order(say="large", padding="x" * 2_000_000)
    answer = client.post(PLAIN, content=body, headers=LATER)
    assert "Completed" == ended(client, answer.headers["location"])["Status"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "return=minimal"},
        {"Prefer": "wait=10"},
        {"Prefer": "respond-async=no"},
        {"Prefer": 'x="respond-async"'},
        {"Prefer": ",,;"},
        {**LATER, "X-Amzn-SageMaker-Session-Id": "NEW_SESSION"},
    ],
)
def test_a_preference_that_is_not_ours_is_ignored(client: httpx.Client, headers: dict[str, str]) -> None:
    """The answer comes at once, and claims nothing."""
    answer = client.post(PLAIN, content=order(say="now"), headers=headers)
    assert (200, "now") == (answer.status_code, answer.text)
    assert "preference-applied" not in answer.headers


def test_an_asynchronous_endpoint_answers_nothing_at_once(client: httpx.Client) -> None:
    """Without the preference it is refused, as on SageMaker."""
    answer = client.post("/endpoints/later/invocations", content=b"{}")
    assert (400, "ValidationError") == (answer.status_code, answer.json()["__type"])


@pytest.mark.parametrize("name", ["X-Serving-Priority", "X-Amzn-SageMaker-RequestTTLSeconds", "Idempotency-Key"])
def test_a_plain_call_says_how_it_is_kept(client: httpx.Client, name: str) -> None:
    """And is told when that cannot be."""
    answer = client.post(PLAIN, content=b"{}", headers={**LATER, name: "x" * 300})
    assert (400, True) == (answer.status_code, f"{name} must be" in answer.json()["Message"])


def test_calls_with_and_without_the_preference_share_a_connection(server: Server) -> None:
    """In order, and what one said is not taken for the other's."""
    with Raw(server.url) as raw:
        body = order(say="now")
        for _ in range(3):
            raw.send(request(PLAIN, body) + request(PLAIN, body, LATER) + request(PLAIN, body))
            assert [200, 202, 200] == [raw.answer().status for _ in range(3)]


def test_a_client_that_leaves_while_it_waits_costs_nobody_anything(server: Server, client: httpx.Client) -> None:
    """A hundred of them, of a call that does not end; others are served."""
    with ThreadPoolExecutor(1) as pool, gate(server.data_dir / "left") as path:
        location = submit(client, order(hold=str(path)))
        held_open = pool.submit(open_gate, path).result()
        for _ in range(100):
            with Raw(server.url) as raw:
                raw.send(request(f"{location}?wait=60", method="GET"))
        assert "InProgress" == status(client, location)["Status"]
        os.close(held_open)
        assert "Completed" == ended(client, location)["Status"]
