"""What real clients call in order, with the newest boto3: the example that visitors see, and Terraform's calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from serving import testing
from tests.toys import ROW, write_sum_model

ROOT = Path(__file__).resolve().parent.parent
ROLE = "arn:aws:iam::123456789012:role/any"
QUICK = {"Delay": 1, "MaxAttempts": 60}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.LocalServer]:
    """A fresh server with two artifacts in a bucket."""
    folder = tmp_path_factory.mktemp("models")
    with testing.server(set_environment=False) as running:
        for name, factor in (("sum", 1.0), ("twice", 2.0)):
            running.put_object(f"s3://models/{name}/model.onnx", write_sum_model(folder / f"{name}.onnx", factor))
        yield running


def test_the_quickstart_is_a_stock_boto3_script(server: testing.LocalServer) -> None:
    """Create model, config, endpoint; wait, call, update, change weights, delete: told by its transcript."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/boto3_quickstart.py"), "s3://models/sum/", "s3://models/twice/"],
        env={**os.environ, **server.environment},
        input=ROW,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "" == done.stderr
    arn = "created arn:aws:sagemaker:us-east-1:123456789012:"
    assert [
        *(f"{arn}model/blue", f"{arn}model/green", f"{arn}endpoint/quickstart", "in service", "blue answers ['30.0']"),
        *("updated to two variants", "{'blue': (0.0, 1), 'green': (1.0, 2)}", "green answers ['60.0']", "deleted"),
    ] == re.findall(r"^ *[\d.]+ s  (.*)$", done.stdout, re.MULTILINE)


def stable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what belongs to the call."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


class Terraform:
    """The calls of its AWS provider for the three resources, each read back with its tags as a refresh does."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def read(self, resource: str, name: str) -> dict[str, Any]:
        """Describe and ListTags, as each refresh does."""
        snake = {"Model": "model", "EndpointConfig": "endpoint_config", "Endpoint": "endpoint"}[resource]
        answer = getattr(self.client, f"describe_{snake}")(**{f"{resource}Name": name})
        tags = self.client.list_tags(ResourceArn=answer[f"{resource}Arn"])["Tags"]
        return {**stable(answer), "Tags": {tag["Key"]: tag["Value"] for tag in tags}}

    def is_gone(self, call: Callable[..., Any], words: str, **params: str) -> bool:
        """What it takes for gone: a ValidationException that says it could not be found."""
        with pytest.raises(ClientError) as caught:
            call(**params)
        error = caught.value.response["Error"]
        return error["Code"] == "ValidationException" and words in error["Message"]


DEPLOYMENT = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
        "TerminationWaitInSeconds": 0,
    }
}


def test_terraforms_calls_converge(server: testing.LocalServer) -> None:
    """Apply, refresh twice without a difference, change tags and config, destroy; what was sent is what is read."""
    client = server.client("sagemaker")
    terraform = Terraform(client)
    tags = [{"Key": "by", "Value": "terraform"}, {"Key": "stage", "Value": "test"}]
    container = {"Image": "any:1", "ModelDataUrl": "s3://models/sum/", "Mode": "SingleModel", "Environment": {"A": "1"}}
    client.create_model(ModelName="tf", ExecutionRoleArn=ROLE, PrimaryContainer=container, Tags=tags)
    variant = {"VariantName": "v", "ModelName": "tf", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    for name, weight in (("tf-1", 1.0), ("tf-2", 0.5)):
        weighted = {**variant, "InitialVariantWeight": weight}
        client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[weighted], Tags=tags)
    client.create_endpoint(EndpointName="tf", EndpointConfigName="tf-1", Tags=tags)
    client.get_waiter("endpoint_in_service").wait(EndpointName="tf", WaiterConfig=QUICK)

    model = terraform.read("Model", "tf")
    assert (container, ROLE, {"by": "terraform", "stage": "test"}) == (
        model["PrimaryContainer"],
        model["ExecutionRoleArn"],
        model["Tags"],
    )
    assert [{**variant, "InitialVariantWeight": 1.0}] == terraform.read("EndpointConfig", "tf-1")["ProductionVariants"]
    resources = [("Model", "tf"), ("EndpointConfig", "tf-1"), ("Endpoint", "tf")]
    assert [terraform.read(*one) for one in resources] == [terraform.read(*one) for one in resources]

    arn = terraform.read("Endpoint", "tf")["EndpointArn"]
    client.delete_tags(ResourceArn=arn, TagKeys=["stage"])
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "by", "Value": "hand"}])
    client.update_endpoint(EndpointName="tf", EndpointConfigName="tf-2", DeploymentConfig=DEPLOYMENT)
    client.get_waiter("endpoint_in_service").wait(EndpointName="tf", WaiterConfig=QUICK)
    endpoint = terraform.read("Endpoint", "tf")
    assert ("tf-2", DEPLOYMENT, {"by": "hand"}) == (
        endpoint["EndpointConfigName"],
        endpoint["LastDeploymentConfig"],
        endpoint["Tags"],
    )

    client.delete_endpoint(EndpointName="tf")
    client.get_waiter("endpoint_deleted").wait(EndpointName="tf", WaiterConfig=QUICK)
    for name in ("tf-1", "tf-2"):
        client.delete_endpoint_config(EndpointConfigName=name)
    client.delete_model(ModelName="tf")
    assert terraform.is_gone(client.delete_endpoint, "Could not find endpoint", EndpointName="tf")
    config = {"EndpointConfigName": "tf-1"}
    assert terraform.is_gone(client.delete_endpoint_config, "Could not find endpoint configuration", **config)
    assert terraform.is_gone(client.delete_model, "Could not find model", ModelName="tf")
