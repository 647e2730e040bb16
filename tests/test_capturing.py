"""Data capture on real servers, through unmodified boto3: what is written down of every kind of call, and what becomes
of it when endpoints change, processes are killed, disks fill up."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from serving.cli import program
from tests.cloud import client, container, make_config, make_model, production, put_script, settled
from tests.processes import processes
from tests.server import Server, serve

#: Says what it was sent, in parts where that is asked for; some things it cannot do.
SAYS = """
def transform_fn(model, body, content_type, accept):
    body = body.encode() if isinstance(body, str) else body
    if body == b"bad":
        raise ValueError("not this one")
    if body == b"parts":
        return iter([b"one,", b"two,", b"three"])
    return b"{word}:" + body, "text/csv"
"""
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
}
#: What else fills this machine's disk is none of these tests' affair.
ROOM = {"SERVING_CAPTURE_DISK_PERCENT": "100"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all, with a model."""
    with serve(tmp_path_factory.mktemp("server"), "--allow-code", environment=ROOM) as running:
        for word in ("one", "two"):
            make_model(client(running), word, container(put_script(running, word, SAYS.format(word=word))))
        yield running
        assert "Traceback" not in running.log
        assert "could not be captured" not in running.log


@pytest.fixture(scope="module")
def sagemaker(server: Server) -> Any:
    """Stock boto3."""
    return client(server)


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """Stock boto3."""
    return client(server, "sagemaker-runtime")


def captured(name: str, **more: Any) -> dict[str, Any]:
    """A DataCaptureConfig with a destination of its own."""
    return {**CAPTURE, "DestinationS3Uri": f"s3://captures/{name}", **more}


def make(sagemaker: Any, name: str, model: str = "one", more: Any = None, **capture: Any) -> dict[str, Any]:
    """An endpoint whose calls are captured."""
    config = {"DataCaptureConfig": captured(name, **capture), **(more or {})}
    make_config(sagemaker, name, production(model), **config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    described = settled(sagemaker, name)
    assert "InService" == described["EndpointStatus"], described
    return described


def records(server: Server, name: str, many: int, query: str = "") -> list[dict[str, Any]]:
    """The records of an endpoint, once there are so many; there are never more."""
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        answer = httpx.get(f"{server.url}/endpoints/{name}/captures{query}")
        assert 200 == answer.status_code, answer.text
        found[:] = [json.loads(line) for line in answer.text.splitlines()]
        assert len(found) <= many
        return len(found) == many

    server.eventually(are_there)
    return found


def published(server: Server, name: str) -> list[Path]:
    """The files at an endpoint's destination."""
    return sorted((server.data_dir / "s3" / "captures" / name).rglob("*.jsonl"))


def sides(record: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Type, encoding and data by direction."""
    return {
        key: (side["observedContentType"], side["encoding"], side["data"])
        for key, side in record["captureData"].items()
    }


def say(runtime: Any, endpoint: str, body: bytes = b"1,2", **more: Any) -> Any:
    """One call; its request id."""
    answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="text/csv", **more)
    answer["Body"].read()
    return answer["ResponseMetadata"]["RequestId"]


def test_a_call_is_written_down_as_sagemaker_does(server: Server, sagemaker: Any, runtime: Any) -> None:
    """What came and what went, under the request's own id; Describe says that it is being done."""
    summary = make(sagemaker, "plain")["DataCaptureConfig"]
    assert (True, "Started", 100, "s3://captures/plain") == (
        summary["EnableCapture"], summary["CaptureStatus"], summary["CurrentSamplingPercentage"],
        summary["DestinationS3Uri"],
    )  # fmt: skip
    before = int(time.time())
    id = say(runtime, "plain", InferenceId="7", CustomAttributes="color=red")
    (record,) = records(server, "plain", 1)
    assert before <= _seconds(record["eventMetadata"].pop("inferenceTime")) <= time.time()
    assert {"eventId": id, "inferenceId": "7", "customAttributes": ["color=red"]} == record["eventMetadata"]
    assert ("0", "AllTraffic") == (record["eventVersion"], record["variant"])
    assert {
        "endpointInput": ("text/csv", "CSV", "1,2"),
        "endpointOutput": ("text/csv", "CSV", "one:1,2"),
    } == sides(record)
    assert 1 == server.metric("sagemaker_data_capture_records_total", endpoint="plain", variant="AllTraffic")


def _seconds(text: str) -> float:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone


def test_of_a_failed_call_the_request_and_the_containers_words_are_kept(
    server: Server, sagemaker: Any, runtime: Any
) -> None:
    """And of one that no model was asked, nothing."""
    make(sagemaker, "failing")
    with pytest.raises(ClientError):
        say(runtime, "failing", b"bad")
    with pytest.raises(ClientError):
        say(runtime, "failing", TargetVariant="none")
    (record,) = records(server, "failing", 1)
    asked, said = sides(record)["endpointInput"], sides(record)["endpointOutput"]
    assert ("text/csv", "CSV", "bad") == asked
    assert ("text/plain; charset=utf-8", "BASE64") == said[:2]
    assert b"not this one" in base64.b64decode(said[2])


def test_a_streamed_answer_is_captured_whole_when_it_has_ended(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Its reader gets it part by part as ever."""
    make(sagemaker, "streamed")
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="streamed", Body=b"parts", ContentType="text/csv", Accept="text/csv"
    )
    assert b"one,two,three" == b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
    (record,) = records(server, "streamed", 1)
    assert ["parts", "one,two,three"] == [data for _, _, data in sides(record).values()]


def test_a_multi_model_endpoint_is_captured_whatever_the_model(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Without the model's name, as AWS's records have none."""
    make_model(sagemaker, "many", container("s3://models/", Mode="MultiModel"))
    make(sagemaker, "many", "many")
    ids = [say(runtime, "many", TargetModel=model) for model in ("one", "two")]
    found = {one["eventMetadata"]["eventId"]: one for one in records(server, "many", 2)}
    assert ["one:1,2", "two:1,2"] == [sides(found[id])["endpointOutput"][2] for id in ids]
    assert {"eventId", "inferenceTime"} == set(found[ids[0]]["eventMetadata"])


def test_a_series_of_containers_is_captured_once(server: Server, sagemaker: Any, runtime: Any) -> None:
    """The first one's request and the last one's answer."""
    urls = [f"s3://models/{word}" for word in ("one", "two")]
    make_model(sagemaker, "series", *map(container, urls))
    make(sagemaker, "series", "series")
    say(runtime, "series")
    (record,) = records(server, "series", 1)
    assert ["1,2", "two:one:1,2"] == [data for _, _, data in sides(record).values()]


def test_a_shadows_answer_to_the_same_call_is_captured_beside_productions(
    server: Server, sagemaker: Any, runtime: Any
) -> None:
    """Under its own variant, with the same ids, so that the two can be compared."""
    make(sagemaker, "shadowed", more={"ShadowProductionVariants": [production("two", name="shadow")]})
    id = say(runtime, "shadowed", InferenceId="7")
    found = {one["variant"]: one for one in records(server, "shadowed", 2)}
    assert {"AllTraffic": "one:1,2", "shadow": "two:1,2"} == {
        name: sides(one)["endpointOutput"][2] for name, one in found.items()
    }
    assert [(id, "7")] * 2 == [
        (one["eventMetadata"]["eventId"], one["eventMetadata"]["inferenceId"]) for one in found.values()
    ]
    assert 1 == len(records(server, "shadowed", 1, "?variant=shadow"))


def test_an_asynchronous_call_is_captured_when_it_is_answered(server: Server, sagemaker: Any, runtime: Any) -> None:
    """By the process that answers it, in the same form."""
    output = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://answers/later"}}}
    make(sagemaker, "later", more=output)
    (server.data_dir / "s3" / "inputs").mkdir()
    (server.data_dir / "s3" / "inputs" / "a").write_bytes(b"3,4")
    runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation="s3://inputs/a", ContentType="text/csv", InferenceId="mine"
    )
    (record,) = records(server, "later", 1)
    assert ("mine", ["3,4", "one:3,4"]) == (
        record["eventMetadata"]["inferenceId"],
        [data for _, _, data in sides(record).values()],
    )


def test_a_share_of_the_calls_is_sampled_by_their_ids(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Exactly those whose id says so, in the directions that were asked for."""
    make(sagemaker, "sampled", InitialSamplingPercentage=30, CaptureOptions=[{"CaptureMode": "Input"}])
    with server.client() as http:
        ids = [
            http.post("/endpoints/sampled/invocations", content=b"1").headers["x-amzn-requestid"] for _ in range(300)
        ]
    expected = {id for id in ids if zlib.crc32(id.encode()) % 100 < 30}
    assert 50 < len(expected) < 130
    found = records(server, "sampled", len(expected))
    assert expected == {one["eventMetadata"]["eventId"] for one in found}
    assert {"endpointInput"} == set().union(*(one["captureData"] for one in found))


def test_a_new_configuration_takes_its_capture_along(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Unless the variants' properties are retained, which that is one of (but for where it is excluded). What was
    captured before is at its destination as soon as that is over; what is turned off is Stopped."""
    make(sagemaker, "changing")
    make_config(sagemaker, "elsewhere", production("one"), DataCaptureConfig=captured("elsewhere"))
    make_config(sagemaker, "off", production("one"), DataCaptureConfig=captured("off", EnableCapture=False))
    say(runtime, "changing")
    update(sagemaker, "elsewhere", RetainAllVariantProperties=True)
    assert (
        "s3://captures/changing" == update(sagemaker, "elsewhere", RetainAllVariantProperties=True)["DestinationS3Uri"]
    )
    say(runtime, "changing")
    records(server, "changing", 2)
    assert [] == published(server, "changing")
    excluded = [{"VariantPropertyType": "DataCaptureConfig"}]
    said = update(sagemaker, "elsewhere", RetainAllVariantProperties=True, ExcludeRetainedVariantProperties=excluded)
    assert "s3://captures/elsewhere" == said["DestinationS3Uri"]
    server.eventually(lambda: 2 == sum(path.read_bytes().count(b"\n") for path in published(server, "changing")))
    say(runtime, "changing")
    records(server, "changing", 1)
    assert ("Stopped", False) == tuple(update(sagemaker, "off")[one] for one in ("CaptureStatus", "EnableCapture"))
    server.eventually(lambda: 1 == len(published(server, "elsewhere")))
    assert 400 == httpx.get(f"{server.url}/endpoints/changing/captures").status_code


def update(sagemaker: Any, config: str, **more: Any) -> dict[str, Any]:
    """UpdateEndpoint of ``changing``; returns what is said of its capture then."""
    sagemaker.update_endpoint(EndpointName="changing", EndpointConfigName=config, **more)
    found: dict[str, Any] = settled(sagemaker, "changing")["DataCaptureConfig"]
    return found


def test_what_a_deleted_endpoint_captured_is_kept(server: Server, sagemaker: Any, runtime: Any, tmp_path: Path) -> None:
    """At its destination, where the commands find it by that."""
    make(sagemaker, "deleted")
    ids = [say(runtime, "deleted", InferenceId=str(number)) for number in range(3)]
    records(server, "deleted", 3)
    sagemaker.delete_endpoint(EndpointName="deleted")
    server.eventually(lambda: 1 == len(published(server, "deleted")))
    options = ("deleted", "--url", server.url, "--destination", "s3://captures/deleted")
    server.eventually(lambda: 400 == httpx.get(f"{server.url}/endpoints/deleted/captures").status_code)
    shown = CliRunner().invoke(program, ["capture", "tail", *options, "-n", "1"])
    assert (0, ids[2]) == (shown.exit_code, json.loads(shown.stdout)["eventMetadata"]["eventId"])
    for name in ("all.jsonl", "all.parquet"):
        assert (
            0
            == CliRunner().invoke(program, ["capture", "export", *options, "--output", str(tmp_path / name)]).exit_code
        )
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert ids == [json.loads(line)["eventMetadata"]["eventId"] for line in lines]
    table = parquet.read_table(tmp_path / "all.parquet")
    assert (ids, ["0", "1", "2"]) == (table["event_id"].to_pylist(), table["inference_id"].to_pylist())
    assert (["1,2"] * 3, ["AllTraffic"] * 3) == (table["input"].to_pylist(), table["variant"].to_pylist())


def test_captures_can_be_followed(server: Server, sagemaker: Any, runtime: Any) -> None:
    """The newest first, then each as it comes."""
    make(sagemaker, "followed")
    say(runtime, "followed", InferenceId="before")
    records(server, "followed", 1)
    url = f"{server.url}/endpoints/followed/captures?limit=1&follow=true"
    with httpx.stream("GET", url, timeout=30) as answer:
        lines = (json.loads(line) for line in answer.iter_lines() if line)
        assert "before" == next(lines)["eventMetadata"]["inferenceId"]
        say(runtime, "followed", InferenceId="after")
        assert "after" == next(lines)["eventMetadata"]["inferenceId"]


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=x", "since=then", "until=then", "colour=red", "destination=https://a/b", "limit=99999"]
)
def test_a_question_nobody_can_answer_is_refused(server: Server, query: str) -> None:
    """Before anything is read."""
    answer = httpx.get(f"{server.url}/endpoints/any/captures?{query}")
    assert (400, "ValidationError") == (answer.status_code, answer.json()["__type"])


def test_captures_are_not_for_a_page_that_came_by_another_name(server: Server) -> None:
    """Whoever owns a name can point it here (DNS rebinding); where there are no keys nothing else would stop his page
    from reading what callers sent."""
    for path in ("captures", "shadow-report?bodies=true"):
        for host, status in (("elsewhere.example:80", 403), ("localhost:80", 400)):
            assert status == httpx.get(f"{server.url}/endpoints/none/{path}", headers={"Host": host}).status_code


def test_a_destination_that_is_no_prefix_is_refused(sagemaker: Any) -> None:
    """When the configuration is made."""
    with pytest.raises(ClientError, match="DestinationS3Uri of DataCaptureConfig must be s3://bucket/prefix"):
        make_config(sagemaker, "bad", production("one"), DataCaptureConfig=captured("x", DestinationS3Uri="s3://a//b"))


def test_a_destination_among_a_models_files_is_refused(sagemaker: Any) -> None:
    """Captures are no part of a model, nor models that callers could name."""
    for place in ("s3://models/one", "s3://models/one/code/"):
        with pytest.raises(ClientError, match="lies in the data of model one"):
            make_config(sagemaker, "inside", production("one"), DataCaptureConfig=captured("x", DestinationS3Uri=place))


# --- trouble --------------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_capture_and_nothing_else(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Calls are answered; records are dropped and counted; Describe, the metrics and the log say so, the log once."""
    make(sagemaker, "crowded")
    say(runtime, "crowded")
    records(server, "crowded", 1)
    (front,) = processes(server, "front_process")
    before = resource.prlimit(front, resource.RLIMIT_FSIZE)
    resource.prlimit(front, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        say(runtime, "crowded")
        server.wait_for("capturing calls has stopped")
    finally:
        resource.prlimit(front, resource.RLIMIT_FSIZE, before)
    assert "Stopped" == sagemaker.describe_endpoint(EndpointName="crowded")["DataCaptureConfig"]["CaptureStatus"]
    assert 1 == server.metric("sagemaker_data_capture_stopped", endpoint="crowded")
    for _ in range(3):
        say(runtime, "crowded")
    assert 3 == server.metric("sagemaker_data_capture_dropped_total", endpoint="crowded", reason="stopped")
    assert 1 == server.log.count("capturing calls has stopped")
    server.eventually(lambda: 1 == len(published(server, "crowded")))


def test_a_killed_front_loses_no_more_than_the_last_second(tmp_path: Path) -> None:
    """Under load. The rest is published by its successor, whole lines only; and what there is at SIGTERM, before the
    server ends, so that nothing is left behind."""
    answered: list[tuple[float, str]] = []
    stop = threading.Event()
    with serve(tmp_path, "--allow-code", environment=ROOM) as server:
        make_model(client(server), "one", container(put_script(server, "one", SAYS.format(word="one"))))
        make(client(server), "e")

        def call() -> None:
            with server.client() as http:
                while not stop.is_set():
                    try:
                        answer = http.post("/endpoints/e/invocations", content=b"1,2")
                    except httpx.HTTPError:
                        continue
                    answered.append((time.monotonic(), answer.headers["x-amzn-requestid"]))

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        began = time.monotonic()
        server.eventually(lambda: time.monotonic() - began > 1.6)
        (front,) = processes(server, "front_process")
        killed_at = time.monotonic()
        os.kill(front, signal.SIGKILL)
        server.eventually(lambda: answered[-1][0] > killed_at + 1.0)
        stop.set()
        for caller in callers:
            caller.join()
        server.wait_for("captured calls of a process that has ended are published")
        assert 0 == server.stop()
    lines = b"".join(path.read_bytes() for path in published(server, "e")).splitlines()
    found = [json.loads(line)["eventMetadata"]["eventId"] for line in lines]
    assert len(set(found)) == len(found)
    before = {id for at, id in answered if at < killed_at - 1.0}
    after = {id for at, id in answered if at > killed_at + 0.5}
    assert before
    assert after
    assert set() == (before | after) - set(found)
    assert [] == list((server.data_dir / "capture").iterdir())
