"""Many models behind one endpoint, on real servers: the cache, its promises, and the container's multi-model API."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.workers.memory import SLACK
from tests.gallery import artifacts, sample
from tests.server import Server, body_json, declare, script_model, serve, variant

TARGET = "X-Amzn-SageMaker-Target-Model"
BUDGET = 4_000_000  # about fifty of the five hundred
LOADED = "sagemaker_loaded_models"
CACHE = "sagemaker_model_cache_requests_total"
EVICTED = "sagemaker_model_evictions_total"


def zoo() -> Path:
    """The folder of five hundred members."""
    return artifacts("zoo") / "zoo"


def answers() -> dict[str, float]:
    """What each member says to the one row."""
    text = (artifacts("zoo") / "cards" / "zoo" / "members.json").read_text()
    return {name: row[0] for name, row in json.loads(text).items()}


def call(client: httpx.Client, model: str, **headers: str) -> httpx.Response:
    """The one row to a model of the endpoint 'default'."""
    asked = {"Content-Type": "text/csv", TARGET: model, **headers}
    return client.post("/endpoints/default/invocations", content=sample("zoo").body, headers=asked)


def ask(client: httpx.Client, model: str, endpoint: str = "default") -> httpx.Response:
    """A text to a script model."""
    return client.post(
        f"/endpoints/{endpoint}/invocations", content=b"x", headers={"Content-Type": "text/plain", TARGET: model}
    )


def listed(client: httpx.Client) -> list[str]:
    """GET /models, all pages."""
    names: list[str] = []
    token: str | None = None
    while True:
        page = client.get("/models", params={"next_page_token": token} if token else {}).json()
        names += [model["modelName"] for model in page["models"]]
        token = page.get("nextPageToken")
        if token is None:
            return names


def unload_all(client: httpx.Client) -> None:
    """DELETE every model in memory."""
    for name in listed(client):
        assert 200 == client.delete(f"/models/{quote(name)}").status_code


def resident(pid: int) -> int:
    """Bytes of a process in physical memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def samples_of(server: Server, histogram: str) -> float:
    """How many values a histogram has seen."""
    return server.metric(f"{histogram}_count")


def archive(path: Path, members: dict[str, bytes], *links: tuple[str, str]) -> Path:
    """A ``.tar.gz`` of files by name, and of symbolic links (name, where to)."""
    with tarfile.open(path, "w:gz") as file:
        for name, to in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, to
            file.addfile(link)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


# -- five hundred models, room for fifty ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The zoo, with room for a tenth of it."""
    environment = {"SERVING_MODEL_MEMORY": str(BUDGET)}
    with serve(tmp_path_factory.mktemp("crowded"), str(zoo()), environment=environment) as server:
        yield server


def test_every_member_answers_as_itself_within_the_budget(crowded: Server) -> None:
    """Callers come by Zipf's law and at least once to each: no answer is another's, memory stays bounded in the books
    and in fact, what is evicted is written down, and after all is unloaded the worker is as large as at its start."""
    expected = answers()
    members = sorted(expected)
    dice = random.Random(5)
    weights = [1 / (rank + 1) ** 1.1 for rank in range(len(members))]
    visits = members + dice.choices(members, weights, k=1000)
    dice.shuffle(visits)
    (worker,) = crowded.workers()
    with crowded.client() as client:
        assert 200 == call(client, members[0]).status_code
        assert 200 == client.delete(f"/models/{members[0]}").status_code
        start, most = resident(worker["Pid"]), 0
        for at, name in enumerate(visits):
            answer = call(client, name)
            assert 200 == answer.status_code
            assert expected[name] == pytest.approx(_number(answer), rel=1e-5), name
            if at % 50 == 0:
                most = max(most, resident(worker["Pid"]))
                assert crowded.metric("sagemaker_model_memory_bytes") <= BUDGET
        assert most - start <= BUDGET * 1.1 + SLACK
        assert 40 <= crowded.metric(LOADED) <= 80
        unload_all(client)
        crowded.eventually(lambda: resident(worker["Pid"]) <= 1.1 * start)
    assert worker["Pid"] == crowded.workers()[0]["Pid"]
    assert 0.0 == crowded.metric(LOADED) == crowded.metric("sagemaker_model_memory_bytes")


def _number(answer: httpx.Response) -> float:
    return float(answer.text)


def test_evictions_are_journaled(crowded: Server) -> None:
    """What went, why, how many bytes it took and what bringing it back will cost."""
    with crowded.client() as client:
        for name in sorted(answers())[:100]:
            assert 200 == call(client, name).status_code
    journal = crowded.data_dir / "evictions.jsonl"
    evicted = crowded.metric(EVICTED)
    crowded.eventually(lambda: len(journal.read_text().splitlines()) == evicted)
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(records) >= 40
    for record in records:
        assert record["model"] in answers()
        assert ("default", "AllTraffic") == (record["endpoint"], record["variant"])
        assert record["why"] in ("room for another model", "over the memory budget")
        assert 10_000 < record["bytes"] < BUDGET
        assert 0 < record["reload_seconds"] < 60
        assert record["uses"] >= 1


def test_hits_misses_and_times_are_counted(crowded: Server) -> None:
    """One hit or miss a call; a load, an unload and a wait each have their time; the gauge counts what is listed."""
    with crowded.client() as client:
        unload_all(client)
        names = ("hit", "miss")
        counted = {name: crowded.metric(CACHE, result=name) for name in names}
        times = ("load", "unload", "loading_wait")
        before = {name: samples_of(crowded, f"sagemaker_model_{name}_seconds") for name in times}
        for name in ["model-001.ubj", "model-002.ubj", "model-001.ubj", "model-001.ubj"]:
            assert 200 == call(client, name).status_code
        assert sorted(["model-001.ubj", "model-002.ubj"]) == listed(client)
        assert 2.0 == crowded.metric(LOADED)
        assert 200 == client.delete("/models/model-002.ubj").status_code
        after = {name: samples_of(crowded, f"sagemaker_model_{name}_seconds") - before[name] for name in times}
        assert {"load": 2, "unload": 1, "loading_wait": 2} == after
        assert {"hit": 2, "miss": 2} == {name: crowded.metric(CACHE, result=name) - counted[name] for name in names}
        assert 1.0 == crowded.metric(LOADED)


def test_the_receipt_says_whether_the_model_was_there(crowded: Server) -> None:
    """``hit`` and the time the call waited for its load."""
    with crowded.client() as client:
        client.delete("/models/model-007.ubj")
        cold, warm = (call(client, "model-007.ubj", **{"X-Serving-Timing": "1"}) for _ in range(2))
    assert "hit=0" in cold.headers["X-Serving-Timing"]
    assert "load=0;" not in cold.headers["X-Serving-Timing"]
    assert "load=0;" in warm.headers["X-Serving-Timing"]
    assert "hit=1" in warm.headers["X-Serving-Timing"]


def test_boto3_names_its_model(crowded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """TargetModel through an unmodified client, and its error classes."""
    boto3 = pytest.importorskip("boto3")
    for name, value in (("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")):
        monkeypatch.setenv(name, value)
    client = boto3.client("sagemaker-runtime", endpoint_url=crowded.url, region_name="us-east-1")
    request = {"EndpointName": "default", "ContentType": "text/csv", "Body": sample("zoo").body}
    for name in ("model-123.ubj", "model-495.tar.gz"):
        reply = client.invoke_endpoint(**request, TargetModel=name)
        assert answers()[name] == pytest.approx(float(reply["Body"].read()), rel=1e-5)
        assert "AllTraffic" == reply["InvokedProductionVariant"]
    with pytest.raises(client.exceptions.ClientError, match="Failed to download model data") as refused:
        client.invoke_endpoint(**request, TargetModel="nothing.ubj")
    assert "ValidationError" == refused.value.response["Error"]["Code"]
    with pytest.raises(client.exceptions.ClientError, match="missing a target model header"):
        client.invoke_endpoint(**request)
    client.close()


# -- the container's API ----------------------------------------------------------------------------------------------


def test_the_container_api_loads_lists_invokes_and_unloads(crowded: Server) -> None:
    """POST, GET, invoke and DELETE of a model by a name the platform chose; 404 and 409 as the platform reads them."""
    with crowded.client() as client:
        unload_all(client)
        asked = {"model_name": "0a1b/2c", "url": "model-042.ubj"}
        path, headers = f"/models/{quote('0a1b/2c')}", {"Content-Type": "text/csv"}
        assert 404 == client.get(path).status_code
        assert 404 == client.post(f"{path}/invoke", content=sample("zoo").body, headers=headers).status_code
        assert 404 == client.delete(path).status_code
        assert 200 == client.post("/models", json=asked).status_code
        assert 409 == client.post("/models", json=asked).status_code
        assert {"modelName": "0a1b/2c", "modelUrl": "model-042.ubj"} == client.get(path).json()
        invoked = client.post(f"{path}/invoke", content=sample("zoo").body, headers=headers)
        assert answers()["model-042.ubj"] == pytest.approx(_number(invoked), rel=1e-5)
        assert ["0a1b/2c"] == listed(client)
        assert 200 == client.delete(path).status_code
        assert 404 == client.delete(path).status_code
        assert [] == listed(client)
        assert 0.0 == crowded.metric(LOADED)


def test_a_model_with_two_names_stays_until_both_are_gone(crowded: Server) -> None:
    """Each name is the platform's own; the artifact in memory is one."""
    with crowded.client() as client:
        unload_all(client)
        for name in ("one", "two"):
            assert 200 == client.post("/models", json={"model_name": name, "url": "model-043.ubj"}).status_code
        assert (["one", "two"], 1.0) == (listed(client), crowded.metric(LOADED))
        assert 200 == client.delete("/models/one").status_code
        assert (["two"], 1.0) == (listed(client), crowded.metric(LOADED))
        assert 404 == client.get("/models/one").status_code
        assert 200 == client.delete("/models/two").status_code
        assert 0.0 == crowded.metric(LOADED)


def test_the_list_comes_in_pages(crowded: Server) -> None:
    """A thousand a page; a token that is not ours is a 400."""
    with crowded.client() as client:
        unload_all(client)
        names = [f"n{number:04d}" for number in range(1003)]
        for name in names:
            assert 200 == client.post("/models", json={"model_name": name, "url": "model-044.ubj"}).status_code
        first = client.get("/models").json()
        assert (1000, "1000") == (len(first["models"]), first["nextPageToken"])
        assert names == listed(client)
        for token in ("²", "-1", "9" * 5000, "x"):
            assert 400 == client.get("/models", params={"next_page_token": token}).status_code
        unload_all(client)
        assert [] == listed(client)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"model_name": "a"}', b'{"model_name": 3, "url": "x"}', b'{"model_name": "\\n", "url": "x"}'],
)
def test_a_load_that_asks_for_nothing_is_a_400(crowded: Server, body: bytes) -> None:
    """Neither a name without an artifact nor the other way round."""
    with crowded.client() as client:
        assert 400 == client.post("/models", content=body).status_code


@pytest.mark.parametrize("url", ["nothing.ubj", "../cards/zoo/card.json", "/etc/passwd", "file:///etc/passwd", "."])
def test_a_load_of_what_is_not_under_the_prefix_is_a_404(crowded: Server, url: str) -> None:
    """And the name means nothing afterwards."""
    with crowded.client() as client:
        refused = client.post("/models", json={"model_name": "a name", "url": url})
        assert 404 == refused.status_code
        assert str(zoo()) not in refused.text
        assert 404 == client.get("/models/a%20name").status_code


def test_an_absolute_path_under_the_prefix_is_the_prefix_way_to_say_it(crowded: Server) -> None:
    """The platform hands the container full paths."""
    with crowded.client() as client:
        client.delete("/models/model-045.ubj")
        asked = {"model_name": "full", "url": f"{zoo()}/model-045.ubj"}
        assert 200 == client.post("/models", json=asked).status_code
        assert 200 == client.delete("/models/full").status_code


# -- what lies in the folder ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A folder with good and bad neighbours, and a server that may not run code."""
    top = tmp_path_factory.mktemp("yard")
    models = top / "models"
    (models / "inner").mkdir(parents=True)
    good = (zoo() / "model-001.ubj").read_bytes()
    for place in ("good.ubj", ".hidden.ubj", "inner/deep.ubj", "../secret.ubj"):
        (models / place).write_bytes(good)
    (models / "inner" / ".git").mkdir()
    (models / "inner" / ".git" / "model.ubj").write_bytes(good)
    (models / "out.ubj").symlink_to(top / "secret.ubj")
    (models / "outdir").symlink_to(top)
    (models / "ring").symlink_to("ring")
    (models / "cut.ubj").write_bytes(good[:20_000])
    archive(models / "packed.tar.gz", {"xgboost-model": good})
    archive(models / "climbs.tar.gz", {"../../escaped": b"x", "xgboost-model": good})
    archive(models / "absolute.tar.gz", {str(top / "escaped"): b"x", "xgboost-model": good})
    archive(models / "links.tar.gz", {"away/escaped": b"x", "xgboost-model": good}, ("away", str(top)))
    archive(models / "linked.tar.gz", {}, ("xgboost-model", str(top / "secret.ubj")))
    (models / "cut.tar.gz").write_bytes((models / "packed.tar.gz").read_bytes()[:5000])
    script_model(models / "script", "def model_fn(model_dir): return 1\n")
    os.mkfifo(models / "pipe.ubj")
    with serve(top, str(models), environment={"SERVING_MODEL_MEMORY": "4MB"}) as server:
        yield server, models


@pytest.mark.parametrize("name", ["good.ubj", "inner/deep.ubj", "packed.tar.gz", "packed"])
def test_a_relative_path_names_a_model(yard: tuple[Server, Path], name: str) -> None:
    """With the folder it lies in, and an archive with or without its ending."""
    with yard[0].client() as client:
        answer = call(client, name)
    assert 200 == answer.status_code
    assert answers()["model-001.ubj"] == pytest.approx(_number(answer), rel=1e-5)


OUTSIDE = [
    "../secret.ubj", "inner/../../secret.ubj", "inner/../good.ubj", "./good.ubj", "/good.ubj", "good.ubj/",
    "inner//deep.ubj", "..%2fsecret.ubj", "%2e%2e/secret.ubj", "..\\secret.ubj", "....//secret.ubj", "out.ubj",
    "outdir/secret.ubj", "ring", ".hidden.ubj", "inner/.git/model.ubj", "inner/.git", ".", "..", "/", "~/good.ubj",
    "good.ubj\x00", "pipe.ubj", "file:///etc/passwd", "s3://bucket/key", "a" * 1024, "a" * 5000, "x/" * 400 + "y",
    "good.ubj ", "GOOD.UBJ", "\u202egood.ubj", "ｇood.ubj", "nothing.ubj", "/etc/passwd", "good.ubj\r\nX-Y: z",
]  # fmt: skip


def send_raw(server: Server, target: bytes) -> int:
    """One invocation with this TargetModel on the wire, byte for byte; the status of the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    body = sample("zoo").body
    head = (
        b"POST /endpoints/default/invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nConnection: close\r\n"
        b"Content-Length: %d\r\nX-Amzn-SageMaker-Target-Model: %s\r\n\r\n" % (len(body), target)
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head + body)
        answer = b""
        while b"\r\n" not in answer:
            data = connection.recv(65536)
            if not data:
                break
            answer += data
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name)[:30])
def test_names_that_lead_elsewhere_are_refused_at_every_door(yard: tuple[Server, Path], name: str) -> None:
    """Traversal, absolute and encoded paths, links out, hidden files, special files, control characters, length: a 4xx,
    although a good model lies where each of them points."""
    server, _ = yard
    if "\n" not in name:  # there it is another header, and the name before it is a good one
        assert 400 <= send_raw(server, name.encode()) < 500 or name.strip() == "good.ubj"
    with server.client() as client:
        assert 404 == client.post("/models", json={"model_name": "n", "url": name}).status_code or len(name) > 4096
        path = quote(name, safe="").replace(".", "%2E")  # a client would tidy dots away
        assert client.get(f"/models/{path}").status_code in (400, 404)
        headers = {"Content-Type": "text/csv"}
        assert client.post(f"/models/{path}/invoke", content=b"1", headers=headers).status_code in (400, 404)
        assert 200 == call(client, "good.ubj").status_code


FRAGMENTS = [
    "..",
    ".",
    "/",
    "//",
    "secret.ubj",
    "good.ubj",
    "inner",
    "%2e",
    "%2f",
    "\\",
    "\0",
    "\x7f",
    "~",
    " ",
    "é",
    "outdir",
]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_at_all_reaches_outside(yard: tuple[Server, Path], parts: list[str]) -> None:
    """Whatever is sent, the answer is a 4xx, unless it is the name of one of the good models."""
    name = "".join(parts).encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")
    status = send_raw(yard[0], name)
    if name.strip(b" \t") in (b"good.ubj", b"inner", b"inner/deep.ubj", b"packed", b"packed.tar.gz"):
        assert 200 == status
    else:
        assert 400 <= status < 500


@pytest.mark.parametrize(
    "name", ["climbs.tar.gz", "absolute.tar.gz", "links.tar.gz", "linked.tar.gz", "cut.tar.gz", "cut.ubj"]
)
def test_hostile_and_damaged_artifacts_fail_to_load(yard: tuple[Server, Path], name: str) -> None:
    """424 ModelError, no path of this machine in the text, nothing written outside, and the next call works."""
    server, models = yard
    with server.client() as client:
        refused = call(client, name)
        assert 424 == refused.status_code
        # XGBoost reads a cut file's lengths from beyond its end, and may find that so much memory is not there
        assert body_json(refused)["OriginalStatusCode"] in (500, 507)
        assert str(models.parent) not in refused.text
        assert not list(models.parent.rglob("escaped"))
        assert 200 == call(client, "good.ubj").status_code


def test_code_is_refused_by_name_format_and_setting(yard: tuple[Server, Path]) -> None:
    """The operator can act on the message."""
    with yard[0].client() as client:
        refused = ask(client, "script")
    assert 424 == refused.status_code
    said = body_json(refused)
    assert 403 == said["OriginalStatusCode"]
    assert all(word in said["OriginalMessage"] for word in ("inference.py", "script", "SERVING_ALLOW_CODE"))


def test_a_new_artifact_is_callable_at_once(yard: tuple[Server, Path]) -> None:
    """Although the same name was asked for a moment before; once deleted, it serves until it is unloaded."""
    server, models = yard
    with server.client() as client:
        refused = call(client, "late.ubj")
        assert (400, "ValidationError") == (refused.status_code, refused.headers["x-amzn-ErrorType"])
        assert "Failed to download model data (bucket: models, key: late.ubj)" in body_json(refused)["Message"]
        shutil.copyfile(models / "good.ubj", models / ".late")
        (models / ".late").rename(models / "late.ubj")
        assert 200 == call(client, "late.ubj").status_code
        (models / "late.ubj").unlink()
        assert 200 == call(client, "late.ubj").status_code
        assert 200 == client.delete("/models/late.ubj").status_code
        assert 400 == call(client, "late.ubj").status_code


def test_a_failing_load_is_tried_once_per_window(yard: tuple[Server, Path]) -> None:
    """Callers in between get the same error at once; when the artifact is mended it is soon callable."""
    server, models = yard
    good = (models / "packed.tar.gz").read_bytes()
    (models / "mended.tar.gz").write_bytes(good[:3000])
    before = server.metric("sagemaker_model_load_failures_total")
    with server.client() as client:
        said = {call(client, "mended").text for _ in range(20)}
        failures = server.metric("sagemaker_model_load_failures_total") - before
        assert 1 <= failures <= 2  # a window of a second may end in between
        assert 1 == len(said)
        (models / "mended.tar.gz").write_bytes(good)
        server.eventually(lambda: call(client, "mended").status_code == 200)


# -- models that wait on a gate ---------------------------------------------------------------------------------------

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


# -- disk -------------------------------------------------------------------------------------------------------------


def test_archives_are_unpacked_once_into_a_bounded_space(tmp_path: Path) -> None:
    """A model that left memory is loaded from its folder again; the folders together stay within the limit."""
    members = [name for name in answers() if name.endswith(".tar.gz")]
    environment = {"SERVING_ARTIFACT_DISK": "220000", "SERVING_MODEL_MEMORY": "4MB"}
    with serve(tmp_path, str(zoo()), environment=environment) as server, server.client() as client:

        def unpacked() -> dict[int, int]:
            files = (server.data_dir / "artifacts").rglob("xgboost-model")
            return {(status := file.stat()).st_ino: status.st_size for file in files}

        assert 200 == call(client, members[0]).status_code
        first = unpacked()
        assert 200 == client.delete(f"/models/{members[0]}").status_code
        assert 200 == call(client, members[0]).status_code
        assert first == unpacked()
        for name in members:
            assert answers()[name] == pytest.approx(_number(call(client, name)), rel=1e-5)
            assert sum(unpacked().values()) <= 220_000
        assert len(members) == server.metric(LOADED)
        assert samples_of(server, "sagemaker_model_download_seconds") >= len(members)


# -- without a cache --------------------------------------------------------------------------------------------------


def test_with_the_cache_disabled_a_model_leaves_after_each_use(tmp_path: Path) -> None:
    """ModelCacheSetting Disabled: every call loads, nothing stays, and every answer is right."""
    container = {
        "ModelDataUrl": str(zoo()),
        "Mode": "MultiModel",
        "MultiModelConfig": {"ModelCacheSetting": "Disabled"},
    }
    config = declare(tmp_path / "endpoints.yaml", {"default": [variant("zoo")]}, {"zoo": container})
    with serve(tmp_path, "--config", str(config)) as server, server.client() as client:
        for name in ["model-001.ubj", "model-001.ubj", "model-495.tar.gz"]:
            assert answers()[name] == pytest.approx(_number(call(client, name)), rel=1e-5)
        server.eventually(lambda: samples_of(server, "sagemaker_model_unload_seconds") == 3)
        assert 3.0 == samples_of(server, "sagemaker_model_load_seconds")
        assert (0.0, []) == (server.metric(LOADED), listed(client))
        assert 0.0 == server.metric(CACHE, result="hit")
        with ThreadPoolExecutor(8) as pool:
            names = [f"model-{number % 5:03d}.ubj" for number in range(100)]
            replies = list(pool.map(lambda name: call(client, name), names))
        assert [answers()[name] for name in names] == pytest.approx([_number(reply) for reply in replies], rel=1e-5)
        server.eventually(lambda: server.metric(LOADED) == 0)
