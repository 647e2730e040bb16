"""What others test their code with: a real server for the length of a ``with`` or of a test."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from serving import testing
from serving.errors import ConfigError, ServiceUnavailable, ValidationError
from tests.toys import ROW, write_script_model, write_sum_model

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def running() -> Iterator[testing.LocalServer]:
    """A server without endpoints."""
    with testing.server(set_environment=False) as server:
        yield server


def create(server: testing.LocalServer, name: str, url: str) -> None:
    """Model, config and endpoint of one name, in service."""
    sagemaker = server.client("sagemaker")
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn="arn:aws:iam::123456789012:role/any",
        PrimaryContainer={"Image": "any", "ModelDataUrl": url},
    )
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def test_a_model_is_deployed_and_called(running: testing.LocalServer, tmp_path: Path) -> None:
    """As on SageMaker: an artifact in a bucket, three calls, a waiter, an answer."""
    url = running.put_object("s3://models/sum/model.onnx", write_sum_model(tmp_path / "sum.onnx"))
    create(running, "sum", url)
    answer = running.client().invoke_endpoint(EndpointName="sum", ContentType="text/csv", Accept="text/csv", Body=ROW)
    assert 30.0 == float(answer["Body"].read())


def test_clients_of_ones_own_find_it_and_it_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """By AWS's variables, which are afterwards as they were."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL_SAGEMAKER", raising=False)
    before = dict(os.environ)
    with testing.server(settings={"region": "us-west-2"}) as server:
        assert {**before, **server.environment} == dict(os.environ)
        assert server.url == boto3.client("sagemaker").meta.endpoint_url
        assert server.url == boto3.client("sagemaker-runtime").meta.endpoint_url
        assert [] == boto3.client("sagemaker").list_endpoints()["Endpoints"]
        folder = server.folder
    assert before == dict(os.environ)
    assert not folder.exists()


def test_what_is_declared_is_served(tmp_path: Path) -> None:
    """A path to a model, one that is code if that is wished."""
    model = write_script_model(
        tmp_path / "m", "def model_fn(d): return 7\ndef transform_fn(m, b, t, a): return str(m), 'text/plain'"
    )
    with testing.server(models=model, allow_code=True, set_environment=False) as server:
        assert b"7" == server.client().invoke_endpoint(EndpointName="default", Body=b"")["Body"].read()


@pytest.mark.parametrize("kind", ["bytes", "text", "file", "folder"])
def test_artifacts_are_put_into_buckets(running: testing.LocalServer, tmp_path: Path, kind: str) -> None:
    """Whatever form they have."""
    (tmp_path / "f").write_text("x")
    content = {"bytes": b"x", "text": "x", "file": tmp_path / "f", "folder": tmp_path}[kind]
    uri = f"s3://bucket-{kind}/some/key"
    assert uri == running.put_object(uri, content)
    place = running.folder / "s3" / f"bucket-{kind}" / "some" / "key"
    assert "x" == (place / "f" if kind == "folder" else place).read_text()


@pytest.mark.parametrize("uri", ["https://b/k", "s3://", "s3:///k", "s3://b/../../k", "s3://../k"])
def test_no_artifact_leaves_the_store(running: testing.LocalServer, uri: str) -> None:
    """A URI that is none is refused."""
    with pytest.raises((ConfigError, ValidationError)):
        running.put_object(uri, b"x")


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are the error's."""
    with pytest.raises(ServiceUnavailable, match="no model this server knows"), testing.server(models=tmp_path):
        pass


def test_a_setting_that_is_none_is_refused() -> None:
    """With what was meant."""
    with pytest.raises(ConfigError, match="did you mean 'file_roots'"), testing.server(settings={"file_root": ()}):
        pass


def test_a_killed_test_run_leaves_no_server(tmp_path: Path) -> None:
    """However its starter ends, the server ends too."""
    script = tmp_path / "starter.py"
    script.write_text(
        "import signal\nfrom serving import testing\n"
        "with testing.server() as s:\n    print(s._process.pid, flush=True)\n    signal.pause()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as starter:
        assert starter.stdout is not None
        server = os.pidfd_open(int(starter.stdout.readline()))
        starter.send_signal(signal.SIGKILL)
    ended, _, _ = select.select([server], [], [], 60)
    os.close(server)
    assert ended


SUITE = """
import boto3, os, pytest

@pytest.fixture(scope="session")
def serving_server_options():
    return {"settings": {"region": "eu-central-1"}}

def test_one(serving_server):
    assert serving_server.url == boto3.client("sagemaker").meta.endpoint_url
    os.environ["FIRST"] = serving_server.url

def test_without():
    assert "AWS_ENDPOINT_URL_SAGEMAKER" not in os.environ

def test_two(serving_server):
    assert "eu-central-1" == boto3.client("sagemaker-runtime").meta.region_name
    assert os.environ["FIRST"] == serving_server.url
"""


def test_the_fixture_is_there_for_every_project(tmp_path: Path) -> None:
    """One server for the run; the environment is set while a test that asks for it lasts."""
    (tmp_path / "test_mine.py").write_text(SUITE)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SERVING_", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_mine.py"],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_client_needs_boto3() -> None:
    """Who has none is told so, and may go on with HTTP."""
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from serving.testing import LocalServer\nfrom pathlib import Path\n"
        "try: LocalServer([], {}, Path(), 'r').client()\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "A client needs boto3: pip install boto3.\n" == done.stdout
