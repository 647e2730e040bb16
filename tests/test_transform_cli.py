"""``serving transform`` and ``serving transforms``: the terminal's end of transform jobs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving import testing, transforming
from serving.api.control_transforms import check_job
from serving.errors import ConfigError
from serving.transforming import Wish, job_of
from tests.actions import schema
from tests.test_cli import CALM, ROOT, serving
from tests.toys import ROW, write_script_model, write_sum_model

NOW = datetime(2026, 11, 21, 9, 8, 7, 65_000, UTC)
#: Answers once there is the file that the body names.
GATE = """
import pathlib, time

def transform_fn(model, body, content_type, accept):
    path = pathlib.Path(bytes(body).decode().strip())
    path.with_suffix(".begun").touch()
    while not path.exists():
        time.sleep(0.005)
    return b"open", "text/plain"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.LocalServer]:
    """A server with the models ``sum`` and ``gate``, and two good rows and a bad one."""
    place = tmp_path_factory.mktemp("models")
    write_sum_model(place / "sum.onnx")
    write_script_model(place / "gate", GATE)
    with testing.server(settings={"allow_code": True}, set_environment=False) as running:
        running.put_object("s3://models/sum.onnx", place / "sum.onnx")
        running.put_object("s3://models/gate", place / "gate")
        running.put_object("s3://b/in/good.csv", f"{ROW}\n{ROW}\n")
        running.put_object("s3://b/bad/bad.csv", f"{ROW}\nnonsense\n{ROW}\n")
        sagemaker = running.client("sagemaker")
        for name, url in (("sum", "s3://models/sum.onnx"), ("gate", "s3://models/gate")):
            container = {"Image": "i", "ModelDataUrl": url}
            role = "arn:aws:iam::123456789012:role/any"
            sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
        yield running


def run(server: testing.LocalServer, *arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command prints on standard output and standard error."""
    done = serving(*arguments, "--url", server.url)
    assert status == done.returncode, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def told(server: testing.LocalServer, *arguments: str) -> Any:
    """What a command says with ``--json``."""
    return json.loads(run(server, *arguments, "--json")[0])


def output(server: testing.LocalServer, uri: str) -> str:
    """An object that a job has written."""
    return (server.folder / "s3" / uri.removeprefix("s3://")).read_text()


# --- on a server ------------------------------------------------------------------------------------------------------


def test_a_job_is_begun_and_followed_to_its_end(server: testing.LocalServer) -> None:
    """Nothing said but model, input and output: CSV is cut into lines, and told so by its name."""
    out, steps = run(server, "transform", "sum", "s3://b/in/good.csv", "s3://b/plain", "--name", "plain")
    assert "30.0\n30.0\n" == output(server, "s3://b/plain/good.csv.out")
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert ("plain", "Completed", "2 records", "1 of 1") == tuple(
        facts[name] for name in ("job", "status", "records", "objects")
    )
    assert "job plain\n" == steps
    assert "Completed" == told(server, "transforms", "plain")["TransformJobStatus"]


def test_filters_and_the_join(server: testing.LocalServer) -> None:
    """As the members of DataProcessing; the answer is JSON for another program."""
    server.put_object("s3://b/ids/x.csv", f"id1,{ROW}\nid2,{ROW}\n")
    filters = ("--input-filter", "$[1:]", "--join", "--output-filter", "$[0,-1]")
    found = told(server, "transform", "sum", "s3://b/ids/x.csv", "s3://b/joined", "--name", "joined", *filters)
    assert "id1,30.0\nid2,30.0\n" == output(server, "s3://b/joined/x.csv.out")
    assert {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"} == found["DataProcessing"]
    assert 2 == found["Progress"]["RecordsDone"]


def test_a_job_that_failed_says_why(server: testing.LocalServer) -> None:
    """Exit status 1; the records that were bad are named."""
    arguments = ("transform", "sum", "s3://b/bad/", "s3://b/failed", "--content-type", "text/csv", "--name", "failed")
    out, error = run(server, *arguments, status=1)
    assert "status       Failed\n" in out
    assert "job failed is Failed: 1 of 3 records failed" in error
    assert "bad records  s3://b/failed/failed-errors.jsonl\n" in out
    run(server, "transforms", "failed")
    run(server, "transforms", "failed", "--wait", status=1)
    listed = told(server, "transforms", "--status", "Failed")["TransformJobSummaries"]
    assert ["failed"] == [one["TransformJobName"] for one in listed]


def test_what_the_server_refuses(server: testing.LocalServer) -> None:
    """In its own words, and exit status 1."""
    _, error = run(server, "transform", "none", "s3://b/in/good.csv", "s3://b/out", status=1)
    assert 'Could not find model "arn:aws:sagemaker:us-east-1:123456789012:model/none".' in error
    _, error = run(server, "transforms", "none", status=1)
    assert "Could not find requested job with name" in error


def test_an_artifact_becomes_a_model_once(server: testing.LocalServer) -> None:
    """Named by its URL; a second job finds it."""
    arguments = ("transform", "s3://models/sum.onnx", "s3://b/in/", "s3://b/out", "--content-type", "text/csv")
    _, first = run(server, *arguments)
    _, second = run(server, *arguments)
    assert first.startswith("model sum-")
    assert second.startswith("job sum-")


def test_a_job_is_listed_and_stopped(server: testing.LocalServer, tmp_path: Path) -> None:
    """While its model is at work."""
    server.put_object("s3://b/gate/x", str(tmp_path / "never"))
    out, _ = run(server, "transform", "gate", "s3://b/gate/", "s3://b/stopped", "--name", "stopped", "--no-wait")
    assert "stopped\n" == out
    rows = [line.split("\t")[:2] for line in run(server, "transforms", "--max", "1")[0].splitlines()]
    assert [["JOB", "STATUS"], ["stopped", "InProgress"]] == rows
    _, error = run(server, "transforms", "stopped", "--stop", "--wait", status=1)
    assert "job stopped is Stopped" in error


def test_who_leaves_is_told_how_to_come_back(server: testing.LocalServer, tmp_path: Path) -> None:
    """Ctrl-C ends the command, not the job; on a terminal there is a bar."""
    gate = tmp_path / "gate"
    server.put_object("s3://b/left/x", str(gate))
    shown, inner = pty.openpty()
    arguments = ("transform", "gate", "s3://b/left/", "s3://b/left-out", "--name", "left", "--url", server.url)
    command = [sys.executable, "-m", "serving", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=inner, env=CALM | {"TERM": "xterm", "COLUMNS": "200"}) as process:
        os.close(inner)
        said = b""
        while b"0:00:0" not in said:  # the bar's own clock
            said += os.read(shown, 4096)
        process.send_signal(signal.SIGINT)
        said += read_all(shown)
        assert 130 == process.wait(60)
    assert b"job left goes on; follow it: serving transforms left --wait" in said
    gate.touch()
    assert "Completed" == told(server, "transforms", "left", "--wait")["TransformJobStatus"]


def read_all(terminal: int) -> bytes:
    """What is still said on it, to the end of the last who may say something."""
    said = b""
    try:
        while more := os.read(terminal, 4096):
            said += more
    except OSError:  # Linux says so when nobody has the other end any more
        pass
    os.close(terminal)
    return said


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "wish", "expected"),
    [
        ("s3://b/x.csv", {}, ("text/csv", None, "Line", "text/csv", "Line")),
        ("s3://b/x.csv.gz", {}, ("text/csv", "Gzip", "Line", "text/csv", "Line")),
        ("s3://b/x.jsonl", {"gzip": True}, ("application/jsonlines", "Gzip", "Line", "application/jsonlines", "Line")),
        ("s3://b/x.npy", {}, ("application/x-npy", None, None, None, None)),
        ("s3://b/images/", {"strategy": "single"}, (None, None, None, None, None)),
        ("s3://b/", {"content_type": "text/csv", "accept": "a/b"}, ("text/csv", None, "Line", "a/b", "Line")),
        ("s3://b/x.csv", {"split": "none", "assemble": "none"}, ("text/csv", None, "None", "text/csv", "None")),
        ("s3://b/", {"split": "recordio"}, (None, None, "RecordIO", None, None)),
    ],
)
def test_what_is_not_said_is_told_by_the_inputs_name(
    source: str, wish: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    """Media type, compression, splitting; and the server finds nothing wrong with it."""
    job = job_of(Wish("m", source, "s3://out/o", **wish), NOW)
    given, wanted = job["TransformInput"], job["TransformOutput"]
    assert expected == (
        *(given.get(name) for name in ("ContentType", "CompressionType", "SplitType")),
        *(wanted.get(name) for name in ("Accept", "AssembleWith")),
    )
    check_job(schema().check("CreateTransformJob", job))


def test_everything_can_be_said() -> None:
    """Each option is a member."""
    wish = Wish(
        "m", "s3://b/list", "s3://b/out", name="j", content_type="text/csv", strategy="SingleRecord", join=True,
        manifest=True, instances=3, payload=0, concurrent=2, env=["A=b", "C=d=e"], input_filter="$[1:]",
    )  # fmt: skip
    job = schema().check("CreateTransformJob", job_of(wish, NOW))
    assert {"A": "b", "C": "d=e"} == job["Environment"]
    assert ("j", "SingleRecord", 0, 2) == tuple(
        job[name] for name in ("TransformJobName", "BatchStrategy", "MaxPayloadInMB", "MaxConcurrentTransforms")
    )
    assert 3 == job["TransformResources"]["InstanceCount"]
    assert "ManifestFile" == job["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"]
    check_job(job)


@pytest.mark.parametrize("model", ["m", "a" * 63, "Model_1.onnx"])
def test_a_job_is_named_after_its_model_and_the_time(model: str) -> None:
    """As the SDK does; the name is one that the API takes."""
    name = job_of(Wish(model, "s3://b/x.csv", "s3://b/out"), NOW)["TransformJobName"]
    assert name.endswith("-2026-11-21-09-08-07-065")
    schema().check("DescribeTransformJob", {"TransformJobName": name})


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"source": "rows.csv"}, "INPUT must be an s3:// URL"),
        ({"output": "/tmp/out"}, "OUTPUT must be an s3:// URL"),
        ({"split": "lines"}, "--split 'lines' is not one of None, Line, RecordIO, TFRecord"),
        ({"env": ["A"]}, "--env 'A' is not of the form NAME=VALUE"),
    ],
)
def test_what_makes_no_sense_is_refused_here(wish: dict[str, Any], words: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(ConfigError, match=words):
        job_of(Wish(**{"model": "m", "source": "s3://b/x.csv", "output": "s3://b/out", **wish}), NOW)


PROGRESS = {
    "ObjectsTotal": 3,
    "ObjectsDone": 1,
    "ObjectsFailed": 1,
    "RecordsDone": 12_000,
    "RecordsFailed": 3,
    "BytesTotal": 100,
    "BytesDone": 40,
    "RecordsPerSecond": 1500.4,
    "SecondsLeft": 3725.0,
    "ErrorsLocation": "",
}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"TransformJobStatus": "InProgress"}, "starting its workers"),
        ({"TransformJobStatus": "InProgress", "TransformStartTime": 1.0}, "InProgress"),
        (
            {"TransformJobStatus": "InProgress", "Progress": PROGRESS},
            "12,000 records, 3 bad, 1,500/s, 1:02:05 left",
        ),
        (
            {"TransformJobStatus": "InProgress", "Progress": {**PROGRESS, "SecondsLeft": None}},
            "12,000 records, 3 bad, 1,500/s",
        ),
        ({"TransformJobStatus": "Completed", "Progress": PROGRESS}, "12,000 records, 3 bad"),
    ],
)
def test_how_far_a_job_is_in_a_few_words(job: dict[str, Any], expected: str) -> None:
    """Beside the bar."""
    assert expected == transforming.standing(job)
    assert ((40.0, 100.0) if "Progress" in job else (0.0, 0.0)) == transforming.done(job)
