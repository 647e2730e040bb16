"""The jobs process: there when it is needed, replaced when it ends, and what was accepted outlives it."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.later import CALLS, declared, ended, order, status, submit
from tests.processes import is_alive, processes
from tests.raw import gate, open_gate
from tests.server import Server, serve

PLAIN = "/endpoints/plain/invocations"


def jobs_of(server: Server) -> list[int]:
    """Its jobs processes."""
    return processes(server, "serving.jobs_process")


def every_call(client: httpx.Client) -> list[dict[str, str]]:
    """All calls of ``later`` that the queue knows."""
    found: list[dict[str, str]] = []
    token = ""
    while True:
        page = client.get(CALLS, params={"token": token}).json()
        found += page["AsyncInvocations"]
        token = page["NextToken"]
        if not token:
            return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One with an asynchronous endpoint, two fronts, and room for many calls."""
    environment = {"SERVING_FRONTS": "2", "SERVING_LOG_LEVEL": "warning"}
    arguments = ("--allow-code", "--config", declared(tmp_path, concurrency=16))
    with serve(tmp_path, *arguments, environment=environment) as running:
        yield running
        assert "Traceback" not in running.log


def test_what_was_accepted_outlives_the_process(server: Server) -> None:
    """Killed three times under load, and a front as well: every 202 has its one call, every call its end."""
    accepted: list[str] = []
    unanswered: list[int] = []
    over = threading.Event()

    def send(number: int) -> None:
        with server.client() as client:
            while not over.is_set():
                try:
                    answer = client.post(CALLS, content=order(say="x"))
                except httpx.TransportError:
                    unanswered.append(number)  # its front has been killed: nothing was promised
                    continue
                if answer.status_code == 202:
                    accepted.append(answer.headers["location"].rpartition("/")[2])
                else:
                    assert 503 == answer.status_code, answer.text
                    unanswered.append(number)

    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, number) for number in range(4)]
        for marker in ("serving.jobs_process", "serving.jobs_process", "serving.front_process", "serving.jobs_process"):
            many = len(accepted)
            server.eventually(lambda many=many: len(accepted) > many + 20)  # type: ignore[misc]  # a default argument
            victim = processes(server, marker)[0]
            os.kill(victim, signal.SIGKILL)
            server.eventually(lambda gone=victim: not is_alive(gone))  # type: ignore[misc]  # a default argument
        many = len(accepted)
        server.eventually(lambda: len(accepted) > many + 20)
        over.set()
        for one in sending:
            one.result()
    with server.client(timeout=70.0) as client:
        assert len(accepted) == len(set(accepted))
        for id in accepted:
            assert "Completed" == ended(client, f"{CALLS}/{id}")["Status"]
        there = {call["Id"] for call in every_call(client)}
        assert set(accepted) <= there
        assert len(there) <= len(accepted) + len(unanswered)
    assert 1 == len(jobs_of(server))


def test_it_comes_with_the_first_call_that_needs_it(tmp_path: Path) -> None:
    """Nobody pays for it before."""
    declared(tmp_path)
    with serve(tmp_path, "--allow-code", str(tmp_path / "told")) as server, server.client() as client:
        assert [] == jobs_of(server)
        answer = client.post("/invocations", content=order(say="x"), headers={"Prefer": "respond-async"})
        assert "Completed" == ended(client, answer.headers["location"])["Status"]
        assert 1 == len(jobs_of(server))


def test_the_next_start_goes_on(tmp_path: Path) -> None:
    """Told to stop with one call running and others waiting: all are there, and are brought to their end."""
    config = declared(tmp_path)
    with gate(tmp_path / "gate"):
        with serve(tmp_path, "--allow-code", "--config", config, environment={"SERVING_DRAIN_SECONDS": "1"}) as server:
            with server.client() as client, ThreadPoolExecutor(1) as pool:
                made = [submit(client, order(hold=str(tmp_path / "gate"), say="held"))]
                held = os.open(tmp_path / "gate", os.O_RDWR)
                made += [submit(client, order(say="x")) for _ in range(5)]
                waiting = pool.submit(client.get, made[-1], params={"wait": "60"})
                server.eventually(lambda: status(client, made[0])["Status"] == "InProgress")
                server.process.send_signal(signal.SIGTERM)
                assert "Queued" == waiting.result().json()["Status"]
            assert 0 == server.stop()
            os.close(held)
        with serve(tmp_path, "--allow-code", "--config", config) as server, server.client(timeout=70.0) as client:
            os.close(open_gate(tmp_path / "gate"))
            assert ["Completed"] * 6 == [ended(client, location)["Status"] for location in made]


def test_who_wants_to_know_is_told(tmp_path: Path) -> None:
    """A notification for each call, to the host that the operator allows."""
    told: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            told.put((message["eventName"], message.get("inferenceId", "")))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        serving = threading.Thread(target=receiver.serve_forever, daemon=True)
        serving.start()
        address = f"127.0.0.1:{receiver.server_port}"
        topics = {"SuccessTopic": f"http://{address}/done", "ErrorTopic": f"http://{address}/failed"}
        config = declared(tmp_path, NotificationConfig=topics)
        environment = {"SERVING_NOTIFY_HOSTS": address}
        with serve(tmp_path, "--allow-code", "--config", config, environment=environment) as server:
            with server.client() as client:
                submit(client, order(say="x"), X_Amzn_SageMaker_Inference_Id="good")
                submit(client, b'{"raise": 500, "text": "no"}', X_Amzn_SageMaker_Inference_Id="bad")
            found = {told.get(timeout=30) for _ in range(4)}
        receiver.shutdown()
        serving.join(10)
    assert {("TestNotification", ""), ("InferenceResult", "good"), ("InferenceResult", "bad")} == found


def test_a_queue_that_cannot_be_opened_costs_only_calls_for_later(tmp_path: Path) -> None:
    """503 for those, and a line in the log; the rest is served, and once it can be opened everything is."""
    config = declared(tmp_path)
    file = tmp_path / "data" / "queue.db"
    file.parent.mkdir()
    file.write_bytes(b"no database " * 1000)
    with serve(tmp_path, "--allow-code", "--config", config) as server, server.client() as client:
        server.wait_for("the queue cannot be opened")
        for answer in (
            client.post(CALLS, content=b"{}"),
            client.post(PLAIN, content=b"{}", headers={"Prefer": "respond-async"}),
            client.get(CALLS),
        ):
            assert (503, "ServiceUnavailable") == (answer.status_code, answer.json()["__type"])
            assert str(tmp_path) not in answer.text
        assert "now" == client.post(PLAIN, content=order(say="now")).text
        file.unlink()
        server.wait_for("the queue is open")
        assert "Completed" == ended(client, submit(client, order(say="x")))["Status"]


def test_workers_stay_until_the_jobs_process_sends_them_nothing_more(server: Server) -> None:
    """An endpoint that is changed under calls from its queue fails none of them."""
    from tests.cloud import client as control
    from tests.cloud import settled

    over = threading.Event()
    made: list[str] = []

    def send() -> None:
        with server.client() as client:
            while not over.is_set():
                made.append(submit(client, order(say="x")))

    sagemaker = control(server)
    with ThreadPoolExecutor(2) as pool:
        sending = [pool.submit(send) for _ in range(2)]
        for _ in range(2):
            many = len(made)
            server.eventually(lambda many=many: len(made) > many + 10)  # type: ignore[misc]  # a default argument
            sagemaker.update_endpoint(EndpointName="later", EndpointConfigName="later")
            assert "InService" == settled(sagemaker, "later")["EndpointStatus"]
        over.set()
        for one in sending:
            one.result()
    with server.client(timeout=70.0) as client:
        calls = [ended(client, location) for location in made]
    assert {("Completed", 1)} == {(call["Status"], call["Attempts"]) for call in calls}
