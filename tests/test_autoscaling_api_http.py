"""Facts about scaling as people and clients have it: unmodified boto3, a declared file, the terminal, the console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from tests.autoscaling import PER_INSTANCE, STEPS
from tests.cloud import ANSWERS, client, make_config, settled
from tests.server import Server, script_model, serve
from tests.test_cli import serving

NAMESPACE = {"ServiceNamespace": "sagemaker"}
KEY = {
    **NAMESPACE,
    "ResourceId": "endpoint/e/variant/V",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
WHERE = {"ResourceId": "endpoint/e/variant/V"}
ALARM = {
    "AlarmName": "busy",
    "Namespace": "AWS/SageMaker",
    "MetricName": "Invocations",
    "Dimensions": [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "V"}],
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 1e6,
    "ComparisonOperator": "GreaterThanThreshold",
    "AlarmActions": ["up"],
}
DOCUMENT: dict[str, Any] = {
    "Models": [{"ModelName": "m", "PrimaryContainer": {"ModelDataUrl": "m"}}],
    "EndpointConfigs": [
        {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "V", "ModelName": "m"}]},
    ],
    "Endpoints": [{"EndpointName": "e", "EndpointConfigName": "c"}],
    "ScalableTargets": [{**WHERE, "MinCapacity": 1, "MaxCapacity": 3}],
    "ScalingPolicies": [
        {
            **WHERE,
            "PolicyName": "follow",
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": PER_INSTANCE | {"TargetValue": 1e6},
        },
        {**WHERE, "PolicyName": "up", "StepScalingPolicyConfiguration": STEPS},
    ],
    "ScheduledActions": [
        {
            **WHERE,
            "ScheduledActionName": "later",
            "Schedule": "at(2099-06-15T12:00:00)",
            "ScalableTargetAction": {"MinCapacity": 2},
        }
    ],
    "Alarms": [ALARM],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script model and a file that declares an endpoint of it, and how that scales."""
    place = tmp_path_factory.mktemp("declared")
    script_model(place / "m", ANSWERS.format(word="hello"))
    (place / "endpoints.yaml").write_text(yaml.safe_dump(DOCUMENT))
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server that has all that is declared. Nothing scales by itself in these tests: no call comes."""
    with serve(folder, "--allow-code", "--config", str(folder / "endpoints.yaml")) as started:
        yield started


@pytest.fixture(scope="module")
def scaling(server: Server) -> Any:
    """boto3's client."""
    return client(server, "application-autoscaling")


def test_what_is_declared_is_there(server: Server, scaling: Any) -> None:
    """Target, policies, action, alarm; the alarm's action is the ARN of the policy that it names."""
    (target,) = scaling.describe_scalable_targets(**NAMESPACE)["ScalableTargets"]
    policies = scaling.describe_scaling_policies(**KEY)["ScalingPolicies"]
    (action,) = scaling.describe_scheduled_actions(**NAMESPACE)["ScheduledActions"]
    assert (1, 3) == (target["MinCapacity"], target["MaxCapacity"])
    assert {"follow": 2, "up": 1} == {one["PolicyName"]: len(one["Alarms"]) for one in policies}
    assert "at(2099-06-15T12:00:00)" == action["Schedule"]
    (alarm,) = client(server, "cloudwatch").describe_alarms(AlarmNames=["busy"])["MetricAlarms"]
    assert [one["PolicyARN"] for one in policies if one["PolicyName"] == "up"] == alarm["AlarmActions"]


def test_a_policys_alarms_are_alarms_like_any_other(server: Server, scaling: Any) -> None:
    """CloudWatch's API shows them, under the names that the policy tells."""
    (policy,) = scaling.describe_scaling_policies(**NAMESPACE, PolicyNames=["follow"])["ScalingPolicies"]
    names = [one["AlarmName"] for one in policy["Alarms"]]
    found = client(server, "cloudwatch").describe_alarms(AlarmNamePrefix="TargetTracking-")["MetricAlarms"]
    assert sorted(names) == [one["AlarmName"] for one in found]
    assert [1e6, 9e5] == sorted((one["Threshold"] for one in found), reverse=True)


def test_what_has_not_changed_is_not_deployed_again(server: Server, folder: Path) -> None:
    """And what has changed is: one limit, one policy, one alarm."""
    unchanged = serving("deploy", str(folder / "endpoints.yaml"), "--url", server.url)
    assert "nothing differs" in unchanged.stderr.decode()
    changed = json.loads(json.dumps(DOCUMENT))
    changed["ScalableTargets"][0]["MaxCapacity"] = 4
    changed["Alarms"][0]["Threshold"] = 2e6
    (folder / "changed.yaml").write_text(yaml.safe_dump(changed))
    said = serving("deploy", str(folder / "changed.yaml"), "--url", server.url).stderr.decode()
    assert ["scalable target of endpoint/e/variant/V differs", "alarm busy differs"] == [
        line for line in said.splitlines() if "differs" in line
    ]


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("register_scalable_target", {**KEY, "ResourceId": "endpoint/x/variant/V"}, "ValidationException"),
        ("deregister_scalable_target", {**KEY, "ResourceId": "endpoint/x/variant/V"}, "ObjectNotFoundException"),
        ("delete_scaling_policy", {**KEY, "PolicyName": "none"}, "ObjectNotFoundException"),
        ("describe_scaling_policies", {**NAMESPACE, "NextToken": "x"}, "InvalidNextTokenException"),
        (
            "list_tags_for_resource",
            {"ResourceARN": "arn:aws:application-autoscaling:us-east-1:123456789012:scalable-target/none"},
            "ResourceNotFoundException",
        ),
        (
            "put_scheduled_action",
            {**KEY, "ScheduledActionName": "n", "Schedule": "cron(x)", "ScalableTargetAction": {"MinCapacity": 1}},
            "ValidationException",
        ),
    ],
)
def test_refusals_are_aws_own(scaling: Any, operation: str, params: dict[str, Any], code: str) -> None:
    """400, with the code that the service's model has, so that stock code can tell them apart."""
    with pytest.raises(ClientError) as caught:
        getattr(scaling, operation)(**params)
    assert code == caught.value.response["Error"]["Code"]
    assert 400 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_operation_of_another_service_is_unknown(server: Server) -> None:
    """Predictive scaling is not offered; a prefix that nobody has is none of ours."""
    with pytest.raises(ClientError) as caught:
        client(server, "application-autoscaling").get_predictive_scaling_forecast(
            **KEY, PolicyName="follow", StartTime=0, EndTime=1
        )
    assert "UnknownOperationException" == caught.value.response["Error"]["Code"]


def test_an_update_may_not_take_away_what_scales(server: Server) -> None:
    """Nor give it another instance type; when it is deregistered it may."""
    sagemaker = client(server)
    sagemaker.create_endpoint_config(
        EndpointConfigName="other",
        ProductionVariants=[
            {"VariantName": "W", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        ],
    )
    with pytest.raises(ClientError, match="has no variant V, which is a scalable target"):
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="other")
    assert "c" == settled(sagemaker, "e")["EndpointConfigName"]


def test_the_terminal_shows_how_it_scales(server: Server) -> None:
    """Its limits, its policies, what will happen; as JSON for programs."""
    shown = serving("scaling", "e", "--url", server.url).stdout.decode()
    assert "variant V: 1 of 1 workers ready, 1 to" in shown
    assert "policy follow:" in shown
    assert "scheduled later: min 2, at(2099-06-15T12:00:00), next 2099-06-15" in shown
    told = json.loads(serving("scaling", "e", "--json", "--url", server.url).stdout)
    assert ["endpoint/e/variant/V"] == [one["ResourceId"] for one in told["Targets"]]
    unknown = serving("scaling", "nope", "--url", server.url)
    assert 1 == unknown.returncode
    assert "nope" in unknown.stderr.decode()


def test_the_console_shows_how_it_scales(server: Server) -> None:
    """In a panel of the endpoint's page; its script gets the targets for the chart of loads."""
    with server.client() as browser:
        page = browser.get("/console/endpoints/e", headers={"accept": "text/html"}).text
        numbers = browser.get("/console", params={"endpoint": "e", "since": "0"}).json()
    assert 'data-chart="load"' in page
    for text in ("follow", "InvocationsPerInstance", "at(2099-06-15T12:00:00)", "Capacity and its limits"):
        assert text in page
    assert {"V": 1e6} == numbers["targets"]


def test_one_line_has_an_endpoint_scale(server: Server, scaling: Any) -> None:
    """A target and a policy; what makes no sense changes nothing; ``--off`` ends it. Then it may go, with the rest."""
    sagemaker = client(server)
    make_config(sagemaker, "d", {"VariantName": "V", "ModelName": "m", "InstanceType": "ml.m5.large",
                                 "InitialInstanceCount": 1})  # fmt: skip
    sagemaker.create_endpoint(EndpointName="d", EndpointConfigName="d")
    settled(sagemaker, "d")
    address = ("--url", server.url)
    assert 2 == serving("scale", "d", "--min", "1", "--max", "2", "--target", "0", *address).returncode
    assert "" != serving("scale", "d", "--min", "3", "--max", "2", *address).stderr.decode()
    assert 1 == len(scaling.describe_scalable_targets(**NAMESPACE)["ScalableTargets"])
    arguments = ("--min", "1", "--max", "2", "--target", "5", "--metric", "concurrency")
    assert 0 == serving("scale", "d", *arguments, *address).returncode
    resource = {**NAMESPACE, "ResourceId": "endpoint/d/variant/V"}
    (policy,) = scaling.describe_scaling_policies(**resource)["ScalingPolicies"]
    assert 5.0 == policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
    sagemaker.delete_endpoint(EndpointName="d")
    assert [] == scaling.describe_scaling_policies(**resource)["ScalingPolicies"]
    assert 1 == len(scaling.describe_scalable_targets(**NAMESPACE)["ScalableTargets"])
    assert 0 == serving("scale", "e", "--off", *address).returncode
    assert [] == scaling.describe_scalable_targets(**NAMESPACE)["ScalableTargets"]
