"""Clients that people have: old ones, SDKs, the AWS command line. Unmodified, each in an environment of its own; all
they are told is where AWS is, by AWS's own variables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from serving import testing
from tests.environments import python
from tests.toys import ROW, write_sum_model

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent.parent / "examples" / "boto3_quickstart.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.LocalServer]:
    """A server with two archives in a bucket: a model that sums its row, and one that answers twice the sum."""
    folder = tmp_path_factory.mktemp("artifacts")
    with testing.server(set_environment=False) as running:
        for name, factor in (("sum", 1.0), ("twice", 2.0)):
            model = write_sum_model(folder / f"{name}.onnx", factor)
            with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(model, "model.onnx")
            running.put_object(f"s3://models/family/{name}.tar.gz", folder / f"{name}.tar.gz")
        yield running


ARN = "arn:aws:sagemaker:us-east-1:123456789012"
SUM, TWICE, FAMILY = "s3://models/family/sum.tar.gz", "s3://models/family/twice.tar.gz", "s3://models/family/"


def run(server: testing.LocalServer, *command: str, home: Path, stdin: str = "") -> str:
    """What a client prints. Nothing of this machine's AWS setup is seen, and every service's address is the server's:
    nothing leaves the machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SERVING_", "PYTHON"))}
    aws = {**server.environment, "AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        command,
        cwd=home,
        env={**kept, **aws, "HOME": str(home)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}\n{server.log[-2000:]}"
    return done.stdout


def told(output: str) -> Mapping[str, Any]:
    """The JSON in a script's last line."""
    found: Mapping[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def test_sagemaker_sdk_v2(server: testing.LocalServer, tmp_path: Path) -> None:
    """Model.deploy, predict, update_endpoint, a predictor from a name, MultiDataModel, a model of the
    registry, deletes in its own order."""
    output = run(server, str(python("sagemaker-v2")), str(HERE / "sdk_v2.py"), SUM, TWICE, FAMILY, home=tmp_path)
    once, twice = {"predictions": [[30.0]]}, {"predictions": [[60.0]]}
    assert {
        "predicted": once,
        "updated": twice,
        "instances": 2,
        "found again": twice,
        "name taken": "Cannot create already existing endpoint configuration",
        "targets": [once, twice],
        "registered": "PendingManualApproval",
        "deployed": "Approved",
        "from the registry": once,
        "left": {"Endpoints": 0, "EndpointConfigs": 1, "Models": 2},
    } == told(output)


def test_sagemaker_sdk_v3_core(server: testing.LocalServer, tmp_path: Path) -> None:
    """By its typed resources, which check every answer's members: endpoints, and an inference component with its
    copies."""
    output = run(server, str(python("sagemaker-core")), str(HERE / "sdk_core.py"), SUM, TWICE, home=tmp_path)
    assert {
        "status": "InService",
        "predicted": {"predictions": [[30.0]]},
        "updated": {"predictions": [[60.0]]},
        "listed": ["core"],
        "component": {"predictions": [[60.0]]},
        "copies": 2,
        "left": [],
    } == told(output)


def test_aws_cli_v1(server: testing.LocalServer, tmp_path: Path) -> None:
    """The commands of SageMaker's own tutorials."""
    (tmp_path / "row.csv").write_text(ROW)
    script = ["bash", str(HERE / "aws_cli.sh"), str(python("awscli-v1")), SUM, TWICE]
    gone = f'Could not find endpoint "{ARN}:endpoint/cli".'
    assert [
        f"{ARN}:endpoint/cli",
        "text/csv\tv",
        "30.0",
        "0.5\t2",
        "60.0",
        "cli-first",
        "made-by\tcli",
        "",
        f"An error occurred (ValidationException) when calling the DescribeEndpoint operation: {gone}",
        "exit status 255",
    ] == run(server, *script, home=tmp_path).splitlines()


def test_an_old_boto3(server: testing.LocalServer, tmp_path: Path) -> None:
    """1.34, with its legacy retries: the example that every visitor sees."""
    output = run(server, str(python("boto3-old")), str(QUICKSTART), SUM, TWICE, home=tmp_path, stdin=ROW)
    assert ["blue answers ['30.0']", "green answers ['60.0']"] == re.findall(r"\w+ answers .*", output)


def test_an_old_boto3_on_cloudwatch(server: testing.LocalServer, tmp_path: Path) -> None:
    """1.34 sends forms and reads XML: alarms, their history, metrics, refusals."""
    answered = json.loads(run(server, str(python("boto3-old")), str(HERE / "old_cloudwatch.py"), home=tmp_path))
    assert {
        "version": "1.34.162",
        "alarm": ['old: <"ä" & co>', "ALARM", False, True],
        "history": ["Alarm updated from INSUFFICIENT_DATA to ALARM", 'Alarm "old: <"ä" & co>" created'],
        "listed": True,
        "label": "m",
        "refusal": "ResourceNotFound",
    } == answered
