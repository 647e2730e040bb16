"""Asynchronous inference through unmodified boto3 on a real server: endpoints made and changed, notices, metrics; and
what becomes of jobs when everything is killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from loadtests import chaos
from tests.cloud import ANSWERS, client, container, make_config, make_model, production, put_script, settled
from tests.later import ended
from tests.processes import processes
from tests.server import Server, serve

HOLD = """
    while b'hold' in body:
        time.sleep(0.01)  # the model waits, not the test
"""
HOLDS = "import time\n" + ANSWERS.replace("\n    return", f"{HOLD}    return", 1)


class Receiver:
    """A host that takes notifications: ``next()`` is the next one."""

    def __init__(self) -> None:
        told = self._told = queue.SimpleQueue[tuple[str, str, dict[str, Any]]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                told.put((self.path, self.headers["Idempotency-Key"], message))

            def log_message(self, format: str, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"

    def next(self) -> tuple[str, str, dict[str, Any]]:
        """Path, id and message of the next notification."""
        return self._told.get(timeout=30)

    def tests(self, many: int) -> set[str]:
        """The paths that so many test notices come to."""
        found = [self.next() for _ in range(many)]
        assert {"TestNotification"} == {message["eventName"] for _, _, message in found}
        return {path for path, _, _ in found}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One for all."""
    made = Receiver()
    with made.server:
        thread = threading.Thread(target=made.server.serve_forever)
        thread.start()
        yield made
        made.server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Server]:
    """An empty one that may send notifications there."""
    environment = {"SERVING_NOTIFY_HOSTS": receiver.host}
    with serve(tmp_path_factory.mktemp("server"), "--allow-code", environment=environment) as running:
        put_script(running, "holds", HOLDS.format(word="said"))
        make_model(client(running), "m", container("s3://models/holds"))
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def sagemaker(server: Server) -> Any:
    """Stock boto3."""
    return client(server)


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """Stock boto3."""
    return client(server, "sagemaker-runtime")


def make(sagemaker: Any, name: str, receiver: Receiver | None = None, count: int = 1) -> None:
    """An asynchronous endpoint."""
    output: dict[str, Any] = {"S3OutputPath": f"s3://answers/{name}", "S3FailurePath": f"s3://answers/{name}-failed"}
    if receiver is not None:
        output["NotificationConfig"] = {
            "SuccessTopic": f"http://{receiver.host}/good",
            "ErrorTopic": f"http://{receiver.host}/bad",
            "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
        }
    asynchronous = {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}
    make_config(sagemaker, name, production("m", count=count), AsyncInferenceConfig=asynchronous)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert "InService" == settled(sagemaker, name)["EndpointStatus"]


def stored(server: Server, url: str) -> bytes:
    """An object of the local store."""
    return (server.data_dir / "s3" / url.removeprefix("s3://")).read_bytes()


def test_a_stock_client_gets_its_answer(server: Server, sagemaker: Any, runtime: Any, receiver: Receiver) -> None:
    """Made, invoked, told and read with nothing but boto3; and test notices when it is made and changed."""
    make(sagemaker, "told", receiver)
    assert {"/good", "/bad"} == receiver.tests(2)
    (server.data_dir / "s3" / "inputs").mkdir()
    (server.data_dir / "s3" / "inputs" / "a").write_bytes(b"hello")
    taken = runtime.invoke_endpoint_async(
        EndpointName="told", InputLocation="s3://inputs/a", ContentType="application/x-words", InferenceId="mine"
    )
    assert (202, "mine") == (taken["ResponseMetadata"]["HTTPStatusCode"], taken["InferenceId"])
    path, id, message = receiver.next()
    assert ("/good", "Completed") == (path, message["invocationStatus"])
    assert id
    assert taken["OutputLocation"] == message["responseParameters"]["outputLocation"]
    assert {"contentType": "application/x-words", "endpointName": "told", "inputLocation": "s3://inputs/a"} == message[
        "requestParameters"
    ]
    assert "c2FpZDpoZWxsbw==" == message["responseBody"]["content"]
    assert b"said:hello" == stored(server, taken["OutputLocation"])
    desired = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="told", DesiredWeightsAndCapacities=desired)
    assert {"/good", "/bad"} == receiver.tests(2)
    settled(sagemaker, "told")


def test_capacity_may_come_later(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Scaled to zero it takes jobs, and says that they wait; scaled up it does them."""
    make(sagemaker, "zero")
    for count, wanted in ((0, 1.0), (1, 0.0)):
        desired = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="zero", DesiredWeightsAndCapacities=desired)
        if not count:
            settled(sagemaker, "zero")
            taken = runtime.invoke_endpoint_async(EndpointName="zero", InferenceId="i", Body=b"later")
        server.eventually(
            lambda wanted=wanted: server.metric("sagemaker_has_backlog_without_capacity", endpoint="zero") == wanted  # type: ignore[misc]  # a default argument
        )
        server.eventually(
            lambda wanted=wanted: server.metric("sagemaker_approximate_backlog_size", endpoint="zero") == wanted  # type: ignore[misc]  # a default argument
        )
    assert b"said:later" == stored(server, taken["OutputLocation"])


def test_a_deleted_endpoint_leaves_no_job_behind(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Not the one under way either, whose worker is not waited for; its metrics go with it."""
    make(sagemaker, "going")
    taken = [runtime.invoke_endpoint_async(EndpointName="going", Body=b"hold") for _ in range(3)]
    server.eventually(lambda: server.metric("sagemaker_approximate_backlog_size", endpoint="going") == 3.0)
    sagemaker.delete_endpoint(EndpointName="going")
    for one in taken:
        failed = server.data_dir / "s3" / one["FailureLocation"].removeprefix("s3://")
        server.eventually(failed.exists)
        assert b"was deleted" in failed.read_bytes()
    with pytest.raises(ClientError, match="Could not find endpoint"):
        for _ in iter(lambda: settled(sagemaker, "going"), None):
            server.eventually(lambda: True)
    page = httpx.get(f"{server.url}/metrics", timeout=30.0).text
    assert 'endpoint="going"' not in page


def test_an_input_that_is_cut_while_it_is_read_fails_alone(server: Server, sagemaker: Any, runtime: Any) -> None:
    """A writer that empties its file instead of replacing it costs its own job, and not those behind it."""
    make(sagemaker, "cut")
    path = server.data_dir / "s3" / "inputs" / "cut"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 16 * 2**20)
    [jobs], [worker] = processes(server, "serving.jobs_process"), server.workers("cut")
    os.kill(worker["Pid"], signal.SIGSTOP)
    try:
        taken = runtime.invoke_endpoint_async(EndpointName="cut", InputLocation="s3://inputs/cut")
        behind = runtime.invoke_endpoint_async(EndpointName="cut", Body=b"behind")
        server.eventually(lambda: str(path) in Path(f"/proc/{jobs}/maps").read_text())
        os.truncate(path, 10)
    finally:
        os.kill(worker["Pid"], signal.SIGCONT)
    server.eventually((server.data_dir / "s3" / behind["OutputLocation"].removeprefix("s3://")).exists)
    assert b"It was cut while it was being read." == stored(server, taken["FailureLocation"])
    assert 0.0 == server.metric("sagemaker_worker_deaths_total", endpoint="cut")


def test_a_configuration_must_not_have_answers_over_its_model(sagemaker: Any) -> None:
    """Said when it is made."""
    inside = {"OutputConfig": {"S3OutputPath": "s3://models/holds/out"}}
    with pytest.raises(ClientError, match="answers could overwrite the model"):
        make_config(sagemaker, "inside", production("m"), AsyncInferenceConfig=inside)


def test_a_call_by_another_port_of_entry_is_the_same_job(server: Server, sagemaker: Any) -> None:
    """The status that HTTP tells is that of the job boto3 would have made."""
    make(sagemaker, "http")
    with server.client() as http:
        answer = http.post("/endpoints/http/async-invocations", content=b"x", headers={"Idempotency-Key": "k"})
        again = http.post("/endpoints/http/async-invocations", content=b"x", headers={"Idempotency-Key": "k"})
        assert answer.headers["location"] == again.headers["location"]
        assert "Completed" == ended(http, answer.headers["location"])["Status"]


def test_every_job_has_one_end_however_often_everything_is_killed() -> None:
    """``python -m loadtests.chaos async-kill``, in small: jobs of every kind, one that ends its workers, a watcher that
    would see any part of an object, and a receiver of the notices."""
    options = chaos.parse(["async-kill", "--kills", "5", "--jobs", "60", "--period", "0.8", "--within", "60"])
    outcome = chaos.async_kill(options)
    assert () == outcome.faults
    assert 60 == outcome.facts["outputs"] + outcome.facts["failure objects"]
