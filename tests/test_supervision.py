"""Facts about processes that die, hang, come and go under load, with real servers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests import gallery
from tests.load import Load, call
from tests.processes import children, is_alive, processes
from tests.server import Server, declare, script_model, serve, variant

ECHO = "def transform_fn(model, body, content_type, accept):\n    return body, 'text/plain'\n"
SLOW = (
    "import time\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    time.sleep(float(body))\n"  # as slow as its caller asks
    "    return body, 'text/plain'\n"
)
STUCK = "import re\ndef transform_fn(model, body, content_type, accept):\n    re.match(r'(a+)+$', 'a' * 40 + 'b')\n"
CRASHER = (
    "import ctypes\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    if body == b'crash':\n"
    "        ctypes.string_at(0)\n"
    "    return body, 'text/plain'\n"
)


def worker_pids(server: Server) -> set[int]:
    """Workers that take calls."""
    return {one["Pid"] for one in server.workers() if one["State"] == "READY"}


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """A script model that answers with what it was sent."""
    return script_model(tmp_path / "echo", ECHO)


@pytest.fixture
def echoing(tmp_path: Path, echo: Path) -> Iterator[Server]:
    """A server of the echo model with two workers."""
    with serve(tmp_path, str(echo), "--allow-code", "--workers", "2") as server:
        yield server


# -- workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_killing_workers_under_load_fails_no_call(tmp_path: Path, workers: int) -> None:
    """kill -9 of a worker, again and again: every call is answered, by a worker that died or by another."""
    artifact = gallery.artifacts("breast-cancer-xgboost") / "breast-cancer-xgboost"
    sample = gallery.sample("breast-cancer-xgboost")
    with (
        serve(tmp_path, str(artifact), "--workers", str(workers)) as server,
        Load(server.url, 8, sample.body, content_type=sample.content_type) as load,
    ):
        for _ in range(4):
            load.wait(200)
            victim = min(worker_pids(server))
            os.kill(victim, signal.SIGKILL)
            server.eventually(
                lambda gone=victim: gone not in worker_pids(server) and len(worker_pids(server)) == workers
            )
        load.wait(200)
        load.stop()
        assert [] == load.failures
        assert 4 == server.metric("sagemaker_worker_deaths_total")
        assert 1 <= server.metric("sagemaker_retried_invocations_total")


def test_a_call_that_kills_two_workers_is_a_model_error_and_costs_no_other_call(tmp_path: Path) -> None:
    """The call is tried once more, alone; its second death is its answer, and its neighbours' calls are answered."""
    artifact = script_model(tmp_path / "crasher", CRASHER)
    with (
        serve(tmp_path, str(artifact), "--allow-code", "--workers", "2") as server,
        Load(server.url, 8, b"fine") as load,
    ):
        load.wait(50)
        outcome = call(server.url, b"crash")
        load.wait(200)
        load.stop()
        assert 424 == outcome.status
        assert b'"OriginalStatusCode":500' in outcome.body
        assert b"again when it was retried" in outcome.body
        assert [] == load.failures
        assert 2 == server.metric("sagemaker_worker_deaths_total")
        server.wait_for("Fatal Python error: Segmentation fault")


def test_a_model_that_keeps_crashing_its_workers_is_refused_for_a_while(tmp_path: Path) -> None:
    """After three deaths within a minute the model is quarantined: calls are refused, workers live."""
    artifact = script_model(tmp_path / "crasher", CRASHER)
    with serve(tmp_path, str(artifact), "--allow-code") as server:
        server.eventually(lambda: b"keeps ending its worker" in call(server.url, b"crash").body)
        assert 1 == server.metric("sagemaker_quarantined_models")  # for five seconds: what follows has to be quick
        deaths = server.metric("sagemaker_worker_deaths_total")
        refused = [call(server.url, b"fine") for _ in range(5)]
        assert {424} == {one.status for one in refused}
        assert 3 == deaths == server.metric("sagemaker_worker_deaths_total")
        server.eventually(lambda: 200 == call(server.url, b"fine").status)


def test_resizing_under_load_fails_no_call(tmp_path: Path, echo: Path) -> None:
    """UpdateEndpointWeightsAndCapacities by boto3, up and down: every call is answered; workers not wanted end."""
    config = declare(tmp_path / "one.yaml", {"default": [variant("echo")]}, {"echo": {"ModelDataUrl": str(echo)}})
    with serve(tmp_path, "--config", str(config), "--allow-code") as server, Load(server.url, 8, b"hello") as load:
        client = boto3.client(
            "sagemaker", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id="x",
            aws_secret_access_key="y", config=Config(retries={"max_attempts": 0}),
        )  # fmt: skip
        for count in (3, 1, 2, 1):
            before = {one["Pid"] for one in server.workers()}
            client.update_endpoint_weights_and_capacities(
                EndpointName="default",
                DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": count}],
            )
            server.eventually(lambda count=count: len(server.workers()) == len(worker_pids(server)) == count)
            gone = before - worker_pids(server)
            server.eventually(lambda gone=gone: not any(is_alive(pid) for pid in gone))
            load.wait(100)
        client.close()
        load.stop()
        assert [] == load.failures
        assert 0 == server.metric("sagemaker_worker_deaths_total")


def test_a_worker_whose_artifact_has_vanished_is_given_up_and_the_server_says_so(tmp_path: Path, echo: Path) -> None:
    """Starts that fail back off and end; calls and /ping answer 503 with the reason, management goes on."""
    with serve(tmp_path, str(echo), "--allow-code") as server:
        (echo / "code" / "inference.py").unlink()
        os.kill(worker_pids(server).pop(), signal.SIGKILL)
        server.wait_for("giving up", 60)
        with server.client() as client:
            answer = client.post("/invocations", content=b"x")
            assert 503 == answer.status_code
            ping = client.get("/ping")
            assert 503 == ping.status_code
            reason = server.endpoints()["default"]["FailureReason"]
            assert reason
            assert reason == ping.text
            assert str(tmp_path) not in ping.text + answer.text
            assert "OutOfService" == server.endpoints()["default"]["EndpointStatus"]
            assert 200 == client.get("/healthz").status_code


# -- other processes -------------------------------------------------------------------------------------------------


def test_a_killed_front_is_replaced_and_the_port_stays_open(echoing: Server) -> None:
    """kill -9 of the process that answers HTTP: connections wait in the backlog for the next one."""
    front = processes(echoing, "serving.front_process")[0]
    os.kill(front, signal.SIGKILL)
    assert 200 == call(echoing.url, b"hello").status
    assert front not in processes(echoing, "serving.front_process")
    assert 2 == len(worker_pids(echoing))


def test_a_killed_forkserver_is_replaced_with_its_workers(echoing: Server) -> None:
    """kill -9 of the process workers are forked from: its workers end with it, calls wait for the new ones."""
    before, forkserver = worker_pids(echoing), processes(echoing, "serving.workers.forkserver")[0]
    with Load(echoing.url, 4, b"hello") as load:
        load.wait(20)
        os.kill(forkserver, signal.SIGKILL)
        echoing.eventually(lambda: len(worker_pids(echoing) - before) == 2)
        load.wait(20)
        load.stop()
        assert [] == load.failures
    assert not any(is_alive(pid) for pid in before)


def test_a_stopped_worker_is_passed_by(echoing: Server) -> None:
    """SIGSTOP of a worker: its waiting calls are answered by another, which has been started to stand in for it."""
    stopped = min(worker_pids(echoing))
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert {200} == {call(echoing.url, b"hello").status for _ in range(8)}
        echoing.eventually(lambda: len(worker_pids(echoing)) == 3)
    finally:
        os.kill(stopped, signal.SIGCONT)
    echoing.eventually(lambda: len(echoing.workers()) == 2)
    assert stopped in worker_pids(echoing)


@pytest.mark.parametrize("source", [SLOW, STUCK], ids=["sleeping", "holding the interpreter lock"])
def test_when_control_is_killed_everything_ends(tmp_path: Path, source: str) -> None:
    """kill -9 of the control process, with a model at work: fronts, forkservers and workers end by themselves, and who
    waits for an answer is told."""
    artifact = script_model(tmp_path / "busy", source)
    with serve(tmp_path, str(artifact), "--allow-code", "--fronts", "2") as server, Load(server.url, 1, b"30") as load:
        server.eventually(lambda: server.metric("sagemaker_invocations_total") >= 1)
        family = children(server.process.pid)
        assert 4 <= len(family)
        killed = time.monotonic()
        server.process.kill()
        server.eventually(lambda: not any(is_alive(pid) for pid in family), 10)
        load.stop()
        # Whoever connects while the last front goes may be reset by the kernel (0), whatever that front would say.
        assert {503} == {one.status for one in load.outcomes if one.began < killed}
        assert {one.status for one in load.outcomes} <= {503, 0}


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fronts", [1, 2])
def test_sigterm_under_load_answers_every_call(tmp_path: Path, echo: Path, fronts: int) -> None:
    """Every call over kept-alive connections is answered until nobody listens; status 0, no process left."""
    arguments = (str(echo), "--allow-code", "--fronts", str(fronts))
    with serve(tmp_path, *arguments) as server, Load(server.url, 16, b"hello") as load:
        load.wait(300)
        family = children(server.process.pid)
        assert 0 == server.stop()
        load.stop()
        # A connection that the kernel completes between a listener's last accept and its close is reset by Linux.
        assert [] == [one for one in load.failures if one.status or not one.fresh]
        assert not any(is_alive(pid) for pid in family)


def test_sigterm_waits_for_a_slow_answer(tmp_path: Path) -> None:
    """A call that runs when SIGTERM comes is answered before the server ends."""
    artifact = script_model(tmp_path / "slow", SLOW)
    with serve(tmp_path, str(artifact), "--allow-code") as server, Load(server.url, 1, b"2") as load:
        server.eventually(lambda: server.metric("sagemaker_invocations_total") >= 1)
        assert 0 == server.stop()
        load.stop()
        assert [200] == [one.status for one in load.outcomes]
        assert b"2" == load.outcomes[0].body


def test_what_a_model_started_ends_with_its_worker(tmp_path: Path) -> None:
    """Processes that a model has started do not outlive its worker."""
    source = (
        "import subprocess\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    return str(subprocess.Popen(['sleep', '600']).pid), 'text/plain'\n"
    )
    with serve(tmp_path, str(script_model(tmp_path / "spawning", source)), "--allow-code") as server:
        started = int(call(server.url).body)
        assert is_alive(started)
        os.kill(worker_pids(server).pop(), signal.SIGKILL)
        server.eventually(lambda: not is_alive(started))


# -- the start -------------------------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_data_folder_is_refused(tmp_path: Path, echo: Path) -> None:
    """One server per data folder; the refusal names the process that has it."""
    with serve(tmp_path, str(echo), "--allow-code") as first:
        with serve(tmp_path, str(echo), "--allow-code", wait=False) as second:
            said = second.wait_for("Error: .*")
            assert str(first.process.pid) in said[0]
            assert 0 != second.process.wait(10)
        assert 200 == call(first.url, b"hello").status


def test_a_port_in_use_is_refused(tmp_path: Path, echo: Path) -> None:
    """The address is named; the exit status is not 0."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with serve(tmp_path, str(echo), "--allow-code", "--port", port, wait=False) as server:
            server.wait_for(f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use")
            assert 0 != server.process.wait(10)


def test_a_damaged_model_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    """No traceback, no waiting: what is wrong, and an exit status."""
    whole = next((gallery.artifacts("bench-xgboost") / "bench-xgboost").iterdir())
    damaged = tmp_path / whole.name
    damaged.write_bytes(whole.read_bytes()[:-5000])
    with serve(tmp_path, str(damaged), wait=False, environment={"SERVING_LOG_LEVEL": "error"}) as server:
        said = server.wait_for("Error: .*default/AllTraffic.*")[0]
        assert 0 != server.process.wait(20)
    assert "could not be loaded" in said
    assert str(tmp_path) not in said
    assert "Traceback" not in server.log


def test_a_script_that_fails_ends_the_start_with_what_it_said(tmp_path: Path) -> None:
    """Its own trace is in the log; the last line says what is wrong."""
    broken = script_model(tmp_path / "broken", "def model_fn(folder):\n    raise ValueError('no such weights')\n")
    with serve(tmp_path, str(broken), "--allow-code", wait=False) as server:
        server.wait_for("Error: .*model_fn raised ValueError: no such weights")
        assert 0 != server.process.wait(20)
