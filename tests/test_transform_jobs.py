"""Transform jobs as an unmodified boto3 sees them, on a running server: their workers, their end, kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import client, container, make_model, put_script
from tests.server import Server, serve

ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
#: A first look waits this long for the end of a job, so that a slow machine does not fail us.
SETTLE = {"SERVING_SETTLE_SECONDS": "15"}

#: ``wait PATH``: says in ``PATH.begun`` that it waits, answers once there is such a file; ``env``: its environment;
#: anything else: that, after MARK.
ECHO = """
import json, pathlib, time

def transform_fn(model, body, content_type, accept, context):
    word, _, rest = bytes(body).decode().strip().partition(" ")
    if word == "wait":
        pathlib.Path(rest + ".begun").touch()
    while word == "wait" and not pathlib.Path(rest).exists():
        time.sleep(0.005)
    if word == "env":
        return json.dumps(dict(context.environment)).encode(), "application/json"
    return MARK + bytes(body), "text/plain"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all: each test uses names of its own."""
    with serve(tmp_path_factory.mktemp("server"), "--allow-code", environment=SETTLE) as server:
        yield server


@pytest.fixture(scope="module")
def sagemaker(server: Server) -> Any:
    """A stock client, with a model ``echo``."""
    made = client(server)
    make_model(made, "echo", container(echo(server)))
    return made


def echo(server: Server, mark: str = "") -> str:
    """A model that answers ``mark`` and the body."""
    return put_script(server, f"echo{mark}", f"MARK = {mark.encode()!r}\n{ECHO}")


def put(server: Server, uri: str, text: str) -> None:
    """An object."""
    path = server.data_dir / "s3" / uri.removeprefix("s3://")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def outputs(server: Server, name: str) -> dict[str, str]:
    """What a job has written, by name."""
    folder = server.data_dir / "s3" / "b" / name / "out"
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def begin(server: Server, sagemaker: Any, name: str, *texts: str, model: str = "echo", **members: Any) -> None:
    """A job over objects with these texts."""
    for at, text in enumerate(texts):
        put(server, f"s3://b/{name}/in/{at}", text)
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://b/{name}/in/"}
    body = {
        "TransformInput": {"DataSource": {"S3DataSource": source}, "ContentType": "text/plain"},
        "TransformOutput": {"S3OutputPath": f"s3://b/{name}/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **members,
    }
    sagemaker.create_transform_job(TransformJobName=name, ModelName=model, **body)


def end(sagemaker: Any, name: str) -> dict[str, Any]:
    """The job's description once it has ended, however it did."""
    while True:
        found: dict[str, Any] = sagemaker.describe_transform_job(TransformJobName=name)
        if found["TransformJobStatus"] not in ("InProgress", "Stopping"):
            return found


def status(sagemaker: Any, name: str) -> str:
    """As the list has it, which waits for nothing."""
    (found,) = sagemaker.list_transform_jobs(NameContains=name)["TransformJobSummaries"]
    return str(found["TransformJobStatus"])


def workers(server: Server, name: str, state: str = "READY") -> float:
    """How many a job has."""
    return server.metric("sagemaker_workers", endpoint=f"transform-job/{name}", state=state)


def test_a_short_job_is_done_at_a_waiters_first_look(server: Server, sagemaker: Any) -> None:
    """The stock waiter looks again only after 60 s. Times are in order, the output is there, progress is told."""
    begin(server, sagemaker, "short", "one", "two")
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName="short", WaiterConfig={"MaxAttempts": 1})
    found = sagemaker.describe_transform_job(TransformJobName="SHORT")
    assert ("Completed", "short", f"{ARN}transform-job/short", "echo") == (
        found["TransformJobStatus"],
        found["TransformJobName"],
        found["TransformJobArn"],
        found["ModelName"],
    )
    assert found["CreationTime"] <= found["TransformStartTime"] <= found["TransformEndTime"]
    assert {"0.out": "one", "1.out": "two"} == outputs(server, "short")
    asked = {"X-Amz-Target": "SageMaker.DescribeTransformJob"}
    with server.client(headers=asked) as plain:
        told = json.loads(plain.post("/", content=b'{"TransformJobName": "short"}').content)
    assert (2, 2, 0) == tuple(told["Progress"][name] for name in ("ObjectsTotal", "ObjectsDone", "ObjectsFailed"))


def test_a_job_has_workers_of_its_own_which_go_with_it(server: Server, sagemaker: Any, tmp_path: Path) -> None:
    """As many as its instances, whatever becomes of the model meanwhile."""
    make_model(sagemaker, "brief", container(echo(server, "brief:")))
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2}
    begin(server, sagemaker, "owned", f"wait {tmp_path / 'go'}", "x", model="brief", TransformResources=resources)
    server.eventually(lambda: workers(server, "owned") == 2)
    sagemaker.delete_model(ModelName="brief")
    (tmp_path / "go").touch()
    assert "Completed" == end(sagemaker, "owned")["TransformJobStatus"]
    assert "brief:x" == outputs(server, "owned")["1.out"]
    server.eventually(lambda: workers(server, "owned") + workers(server, "owned", "DRAINING") == 0)
    assert "transform-job/owned" not in server.endpoints()


def test_the_model_sees_the_jobs_environment(server: Server, sagemaker: Any) -> None:
    """Its own variables, those of the job over them, and those of a batch."""
    make_model(sagemaker, "env", container(echo(server, "env:"), Environment={"MY_A": "model", "MY_B": "model"}))
    given = {"MY_B": "job"}
    begin(server, sagemaker, "seen", "env", model="env", Environment=given, MaxPayloadInMB=2)
    assert "Completed" == end(sagemaker, "seen")["TransformJobStatus"]
    seen = json.loads(outputs(server, "seen")["0.out"])
    expected = {"MY_A": "model", "MY_B": "job", "SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2"}
    assert expected == seen


def test_a_pipeline_transforms_too(server: Server, sagemaker: Any) -> None:
    """Each container's answer is the next one's body."""
    make_model(sagemaker, "pipe", container(echo(server, "a:")), container(echo(server, "b:")))
    begin(server, sagemaker, "piped", "x", model="pipe")
    assert "Completed" == end(sagemaker, "piped")["TransformJobStatus"]
    assert {"0.out": "b:a:x"} == outputs(server, "piped")


def test_a_job_whose_model_cannot_be_used_fails_with_the_reason(server: Server, sagemaker: Any) -> None:
    """It is nowhere, or does not load; nothing is left running, nothing is written."""
    broken = put_script(server, "broken", "raise RuntimeError('no such table')")
    for name, url, words in (
        ("nowhere", "s3://models/nowhere", "Failed to download model data (bucket: models, key: nowhere)"),
        ("broken", broken, "no such table"),
    ):
        make_model(sagemaker, name, container(url))
        begin(server, sagemaker, name, "x", model=name)
        found = end(sagemaker, name)
        assert ("Failed", True) == (found["TransformJobStatus"], words in found["FailureReason"]), found
        assert not any(one.endswith(".out") for one in outputs(server, name))
        server.eventually(lambda name=name: workers(server, name, "STARTING") == 0)  # type: ignore[misc]  # a default argument
    (listed,) = sagemaker.list_transform_jobs(StatusEquals="Failed", NameContains="broken")["TransformJobSummaries"]
    assert "no such table" in listed["FailureReason"]


def test_a_job_is_stopped_at_work(server: Server, sagemaker: Any, tmp_path: Path) -> None:
    """Although its model does not answer; it leaves no output. Once it has ended it cannot be stopped."""
    begin(server, sagemaker, "stopped", "x", f"wait {tmp_path / 'never'}")
    server.eventually((tmp_path / "never.begun").exists)
    sagemaker.stop_transform_job(TransformJobName="stopped")
    sagemaker.stop_transform_job(TransformJobName="stopped")
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName="stopped", WaiterConfig={"MaxAttempts": 1})
    found = sagemaker.describe_transform_job(TransformJobName="stopped")
    assert ("Stopped", False) == (found["TransformJobStatus"], "FailureReason" in found)
    assert {} == outputs(server, "stopped")
    with pytest.raises(ClientError, match="the transform job is in status Stopped") as caught:
        sagemaker.stop_transform_job(TransformJobName="stopped")
    assert "ValidationException" == caught.value.response["Error"]["Code"]


def test_a_jobs_name_is_taken_for_ever(server: Server, sagemaker: Any) -> None:
    """ResourceInUse, which AWS's model has for jobs."""
    begin(server, sagemaker, "taken", "x")
    with pytest.raises(sagemaker.exceptions.ResourceInUse, match="Job name must be unique within an AWS account"):
        begin(server, sagemaker, "Taken", "x")
    assert "Completed" == end(sagemaker, "taken")["TransformJobStatus"]


def test_jobs_go_on_after_kill_9(tmp_path: Path) -> None:
    """One that had just been made, one at work, one being stopped, one whose model does not load: each comes to its own
    end after the restart, with workers of its own again."""
    with serve(tmp_path, "--allow-code", environment=SETTLE) as server:
        sagemaker = client(server)
        make_model(sagemaker, "echo", container(echo(server)))
        make_model(sagemaker, "broken", container(put_script(server, "broken", "raise RuntimeError('no such table')")))
        for name in ("working", "stopping"):
            begin(server, sagemaker, name, "x", f"wait {tmp_path / name}")
        server.eventually(lambda: all((tmp_path / f"{name}.begun").exists() for name in ("working", "stopping")))
        begin(server, sagemaker, "broken", "x", model="broken")
        begin(server, sagemaker, "made", "x")
        sagemaker.stop_transform_job(TransformJobName="stopping")
        server.process.kill()
        server.process.wait()
    with serve(tmp_path, "--allow-code", environment=SETTLE) as server:
        sagemaker = client(server)
        assert "InProgress" == status(sagemaker, "working")
        server.eventually(lambda: workers(server, "working") == 1)
        (tmp_path / "working").touch()
        expected = {"working": "Completed", "stopping": "Stopped", "broken": "Failed", "made": "Completed"}
        assert expected == {name: end(sagemaker, name)["TransformJobStatus"] for name in expected}
        assert ["x", "x"] == [outputs(server, name)["0.out"] for name in ("working", "made")]
        assert {} == outputs(server, "stopping")
        server.eventually(lambda: sum(workers(server, name) for name in expected) == 0)
