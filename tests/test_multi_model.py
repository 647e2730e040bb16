"""Many models behind one endpoint, on real servers: the cache, its promises, and the container's multi-model API."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from serving.workers.memory import SLACK
from tests.gallery import sample
from tests.raw import Raw, request
from tests.server import Server, declare, serve, variant
from tests.zoo import (
    BUDGET,
    CACHE,
    EVICTED,
    LOADED,
    answers,
    call,
    listed,
    number,
    resident,
    samples_of,
    unload_all,
    zoo,
)

# -- five hundred models, room for fifty ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The zoo, with room for a tenth of it."""
    environment = {"SERVING_MODEL_MEMORY": str(BUDGET)}
    with serve(tmp_path_factory.mktemp("crowded"), str(zoo()), environment=environment) as server:
        yield server


def test_every_member_answers_as_itself_within_the_budget(crowded: Server) -> None:
    """Callers come by Zipf's law and at least once to each: no answer is another's, memory stays bounded in the books
    and in fact, and after all is unloaded the worker is as large as when a hundred had come and gone."""
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
        empty, most = resident(worker["Pid"]), 0
        for name in visits[:100]:
            assert 200 == call(client, name).status_code
        unload_all(client)
        used = resident(worker["Pid"])
        for at, name in enumerate(visits):
            answer = call(client, name)
            assert 200 == answer.status_code
            assert expected[name] == pytest.approx(number(answer), rel=1e-5), name
            if at % 50 == 0:
                most = max(most, resident(worker["Pid"]))
                assert crowded.metric("sagemaker_model_memory_bytes") <= BUDGET
        assert most - empty <= BUDGET * 1.1 + SLACK
        assert 40 <= crowded.metric(LOADED) <= 80
        unload_all(client)
        crowded.eventually(lambda: resident(worker["Pid"]) <= 1.1 * used)
    assert worker["Pid"] == crowded.workers()[0]["Pid"]
    assert 0.0 == crowded.metric(LOADED) == crowded.metric("sagemaker_model_memory_bytes")


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
        assert answers()["model-042.ubj"] == pytest.approx(number(invoked), rel=1e-5)
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
        bodies = [json.dumps({"model_name": name, "url": "model-044.ubj"}).encode() for name in names]
        assert {200} == piped(crowded, [request("/models", body) for body in bodies])
        first = client.get("/models").json()
        assert (1000, "1000") == (len(first["models"]), first["nextPageToken"])
        assert names == listed(client)
        for token in ("²", "-1", "9" * 5000, "x"):
            assert 400 == client.get("/models", params={"next_page_token": token}).status_code
        assert {200} == piped(crowded, [request(f"/models/{name}", method="DELETE") for name in names])
        assert [] == listed(client)


def piped(server: Server, requests: list[bytes]) -> set[int]:
    """The statuses of all answers to these requests; a hundred at a time, on one connection."""
    statuses = set()
    with Raw(server.url) as raw:
        for at in range(0, len(requests), 100):
            batch = requests[at : at + 100]
            raw.send(b"".join(batch))
            statuses |= {raw.answer().status for _ in batch}
    return statuses


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
            assert answers()[name] == pytest.approx(number(call(client, name)), rel=1e-5)
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
            assert answers()[name] == pytest.approx(number(call(client, name)), rel=1e-5)
        server.eventually(lambda: samples_of(server, "sagemaker_model_unload_seconds") == 3)
        assert 3.0 == samples_of(server, "sagemaker_model_load_seconds")
        assert (0.0, []) == (server.metric(LOADED), listed(client))
        assert 0.0 == server.metric(CACHE, result="hit")
        with ThreadPoolExecutor(8) as pool:
            names = [f"model-{number % 5:03d}.ubj" for number in range(100)]
            replies = list(pool.map(lambda name: call(client, name), names))
        assert [answers()[name] for name in names] == pytest.approx([number(reply) for reply in replies], rel=1e-5)
        server.eventually(lambda: server.metric(LOADED) == 0)
