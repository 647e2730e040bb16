"""Who waits for what: cold models and their callers, models in use, models that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import Server, body_json, script_model, serve
from tests.zoo import CACHE, TARGET, ask, listed, resident, samples_of, zoo

#: A model that says when it loads and runs, and does either only when a file is there.
GATED = """
import os, time, threading
from pathlib import Path
GATES = Path({gates!r})
NAME = {name!r}
def wait_for(what):
    with (GATES / f"{{NAME}}.{{what}}s").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    while not (GATES / f"{{NAME}}.{{what}}").exists():
        threading.Event().wait(0.005)
def model_fn(model_dir):
    wait_for("load")
    if {broken!r}:
        raise RuntimeError("it is broken")
    return bytearray(os.urandom(1000) * {kilobytes})
def input_fn(body, content_type): return body
def predict_fn(data, model):
    wait_for("run")
    return data
def output_fn(answer, accept): return NAME, "text/plain"
"""


class Gates:
    """Gated models in a folder, and the gates."""

    def __init__(self, top: Path) -> None:
        self.models, self._gates = top / "models", top / "gates"
        self.models.mkdir()
        self._gates.mkdir()
        for name in ("spare", "other"):  # a folder that holds one model alone would be that model
            self.add(name, "load", "run")

    def add(self, name: str, *open_gates: str, broken: bool = False, kilobytes: int = 1) -> None:
        """A model whose ``load`` and ``run`` gates are shut but for these."""
        source = GATED.format(gates=str(self._gates), name=name, broken=broken, kilobytes=kilobytes)
        script_model(self.models / name, source)
        for gate in open_gates:
            self.open(name, gate)

    def open(self, name: str, gate: str) -> None:
        """Let through whoever waits there."""
        (self._gates / f"{name}.{gate}").touch()

    def shut(self, name: str, gate: str) -> None:
        """Hold up whoever comes next."""
        (self._gates / f"{name}.{gate}").unlink()

    def tries(self, name: str, gate: str) -> int:
        """How many have come to the gate."""
        file = self._gates / f"{name}.{gate}s"
        return len(file.read_text().split()) if file.exists() else 0


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    """An empty folder."""
    return Gates(tmp_path)


def gated_server(gates: Gates, tmp_path: Path, *arguments: str, **environment: str) -> Any:
    """A server of these models; they are code."""
    settings = {f"SERVING_{name}": value for name, value in environment.items()}
    return serve(tmp_path, str(gates.models), "--allow-code", *arguments, environment=settings)


async def herd(server: Server, model: str, callers: int, when_all_wait: Callable[[], None]) -> list[httpx.Response]:
    """Many callers of one model at once; ``when_all_wait`` is called when the server holds them all."""
    limits = httpx.Limits(max_connections=callers)
    headers = {"Content-Type": "text/plain", TARGET: model}
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        calls = [
            asyncio.create_task(client.post("/endpoints/default/invocations", content=b"x", headers=headers))
            for _ in range(callers)
        ]

        def all_there() -> bool:
            return server.metric("sagemaker_concurrent_requests") >= callers

        await asyncio.to_thread(server.eventually, all_there, 30.0)
        when_all_wait()
        return list(await asyncio.gather(*calls))


@pytest.mark.parametrize("workers", [1, 3])
def test_two_hundred_callers_of_a_cold_model_share_one_load(gates: Gates, tmp_path: Path, workers: int) -> None:
    """All wait, all succeed, however many workers there are; meanwhile warm models answer."""
    gates.add("cold", "run")
    gates.add("warm", "load", "run")
    with gated_server(gates, tmp_path, "--workers", str(workers)) as server, server.client() as client:
        assert 200 == ask(client, "warm").status_code

        def warm_models_answer() -> None:
            assert 200 == ask(client, "warm").status_code
            gates.open("cold", "load")

        replies = asyncio.run(herd(server, "cold", 200, warm_models_answer))
        assert {(200, "cold")} == {(reply.status_code, reply.text) for reply in replies}
        assert 1 == gates.tries("cold", "load")
        assert 1 + gates.tries("warm", "load") == samples_of(server, "sagemaker_model_load_seconds")
        assert 200 + gates.tries("warm", "load") == server.metric(CACHE, result="miss")


def test_all_who_wait_for_a_load_get_its_error(gates: Gates, tmp_path: Path) -> None:
    """One try, one sentence for everybody; the next try comes after the window."""
    gates.add("broken", broken=True)
    with gated_server(gates, tmp_path) as server, server.client() as client:
        replies = asyncio.run(herd(server, "broken", 50, lambda: gates.open("broken", "load")))
        assert {424} == {reply.status_code for reply in replies}
        assert 1 == len({body_json(reply)["OriginalMessage"] for reply in replies})
        assert "it is broken" in replies[0].text
        assert 1 == gates.tries("broken", "load")
        server.eventually(lambda: ask(client, "broken").status_code == 424 and gates.tries("broken", "load") == 2)


def test_a_model_that_cannot_be_loaded_in_time_is_not_ready(gates: Gates, tmp_path: Path) -> None:
    """429 ModelNotReadyException when the caller's time is up; the load goes on and the next caller finds it done."""
    gates.add("slow", "run")
    environment = {"INVOCATION_TIMEOUT_SECONDS": "1"}
    with gated_server(gates, tmp_path, **environment) as server, server.client() as client:
        refused = ask(client, "slow")
        assert (429, "ModelNotReadyException") == (refused.status_code, refused.headers["x-amzn-ErrorType"])
        gates.open("slow", "load")
        server.eventually(lambda: ask(client, "slow").status_code == 200)
        assert 1 == gates.tries("slow", "load")


def test_when_every_model_is_in_use_a_new_one_waits_and_is_not_ready(gates: Gates, tmp_path: Path) -> None:
    """Nothing in use is evicted: the caller waits for his time, then hears 429; when there is room he is served. A
    model whose size is known only when it is loaded does not stay either."""
    for name in ("one", "two"):
        gates.add(name, "load", "run", kilobytes=30_000)
    environment = {"MODEL_MEMORY": "50MB", "INVOCATION_TIMEOUT_SECONDS": "2"}
    with gated_server(gates, tmp_path, **environment) as server, server.client() as client:
        (worker,) = server.workers()
        assert 200 == ask(client, "one").status_code
        small = resident(worker["Pid"])
        gates.shut("one", "run")
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(ask, client, "one")
            server.eventually(lambda: gates.tries("one", "run") == 2)
            refused = ask(client, "two")
            assert (429, "ModelNotReadyException") == (refused.status_code, refused.headers["x-amzn-ErrorType"])
            assert ["one"] == listed(client)
            assert resident(worker["Pid"]) - small < 20_000_000
            gates.open("one", "run")
            assert busy.result().status_code in (200, 424)  # its own time may have been up
        server.eventually(lambda: ask(client, "two").status_code == 200)
        assert ["two"] == listed(client)


def test_a_model_larger_than_the_budget_is_out_of_memory(gates: Gates, tmp_path: Path) -> None:
    """507, by its file or by what it turns out to take; the others stay, and the worker too."""
    gates.add("large", "load", "run", kilobytes=30_000)
    gates.add("small", "load", "run")
    for name in ("file.ubj", "another.ubj"):
        (gates.models / name).write_bytes((zoo() / "model-001.ubj").read_bytes() + bytes(20_000_000))
    with gated_server(gates, tmp_path, MODEL_MEMORY="10MB") as server, server.client() as client:
        pid = server.workers()[0]["Pid"]
        assert 200 == ask(client, "small").status_code
        for name in ("large", "file.ubj"):
            refused = ask(client, name)
            assert (424, 507) == (refused.status_code, body_json(refused)["OriginalStatusCode"]), name
            assert 507 == client.post("/models", json={"model_name": "n", "url": name}).status_code
        assert 200 == ask(client, "small").status_code
        assert pid == server.workers()[0]["Pid"]


def test_an_unload_waits_for_the_batch_in_it(gates: Gates, tmp_path: Path) -> None:
    """DELETE answers when the memory is free: after the call that was running has had its answer."""
    gates.add("busy", "load")
    with gated_server(gates, tmp_path) as server, server.client() as client, ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, client, "busy")
        server.eventually(lambda: gates.tries("busy", "run") == 1)
        leaving = pool.submit(client.delete, "/models/busy")
        assert 404 == client.get("/models/other").status_code  # a round trip to the worker, behind the DELETE's
        assert not leaving.done()
        gates.open("busy", "run")
        assert 200 == running.result().status_code
        assert 200 == leaving.result().status_code
        assert [] == listed(client)
