"""Facts about endpoints that clients create, update and delete while the server runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.cloud import (
    answers,
    client,
    container,
    deploy,
    make_config,
    make_model,
    production,
    put_script,
    said,
    settled,
)
from tests.conform import assert_conforms
from tests.load import Load
from tests.processes import children, is_alive
from tests.server import Server, serve

BROKEN = "raise RuntimeError('no weights')\n"
#: Loads for as long as a file is missing.
PATIENT = (
    "import pathlib, time\n"
    "while not pathlib.Path({gate!r}).exists():\n"
    "    time.sleep(0.01)\n"  # the model waits, not the test
    "def transform_fn(model, body, content_type, accept):\n"
    "    return b'patient:' + body, 'text/plain'\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An empty server, whose control calls answer at once."""
    with serve(tmp_path, "--allow-code", environment={"SERVING_SETTLE_SECONDS": "0"}) as started:
        yield started


@pytest.fixture
def sagemaker(server: Server) -> Any:
    """Its control plane."""
    return client(server)


@pytest.fixture
def runtime(server: Server) -> Any:
    """Its runtime."""
    return client(server, "sagemaker-runtime")


def refused(call: Any, **params: Any) -> str:
    """The message of the ValidationException that a call meets."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    assert "ValidationException" == caught.value.response["Error"]["Code"]
    return str(caught.value.response["Error"]["Message"])


def test_a_stock_script_creates_waits_invokes_and_deletes(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Both of boto3's endpoint waiters succeed, and after them there is nothing."""
    make_model(sagemaker, "m", container(answers(server, "one")))
    make_config(sagemaker, "c", production("m"))
    arn = sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")["EndpointArn"]
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"Delay": 1})
    assert "one:x" == said(runtime, "e")
    described = sagemaker.describe_endpoint(EndpointName="e")
    assert arn == described["EndpointArn"] == "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"
    assert "c" == described["EndpointConfigName"]
    (variant,) = described["ProductionVariants"]
    assert (1, 1, 1.0, 1.0) == tuple(
        variant[name] for name in ("CurrentInstanceCount", "DesiredInstanceCount", "CurrentWeight", "DesiredWeight")
    )
    sagemaker.delete_endpoint(EndpointName="e")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError, match="Endpoint e of account 123456789012 not found"):
        said(runtime, "e")
    assert {} == server.endpoints()


def test_a_control_call_may_wait_until_its_change_has_settled(tmp_path: Path) -> None:
    """So that a stock waiter, which polls every 30 seconds, succeeds at its first look."""
    with serve(tmp_path, "--allow-code") as server:
        sagemaker = client(server)
        deploy(sagemaker, "e", answers(server, "one"))
        make_model(sagemaker, "m2", container(answers(server, "two")))
        make_config(sagemaker, "c2", production("m2"))
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="c2")
        assert "InService" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]
        assert "two:x" == said(client(server, "sagemaker-runtime"), "e")
        sagemaker.delete_endpoint(EndpointName="e")
        assert "Could not find endpoint" in refused(sagemaker.describe_endpoint, EndpointName="e")


def test_a_model_that_cannot_load_fails_its_endpoint_with_the_reason(server: Server, sagemaker: Any) -> None:
    """Creating ends in Failed; only DeleteEndpoint works on it; the name is free again."""
    described = deploy(sagemaker, "e", put_script(server, "broken", BROKEN))
    assert "Failed" == described["EndpointStatus"]
    assert "no weights" in described["FailureReason"]
    assert "ProductionVariants" not in described
    assert "in status Failed" in refused(sagemaker.update_endpoint, EndpointName="e", EndpointConfigName="e")
    sagemaker.delete_endpoint(EndpointName="e")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="e", WaiterConfig={"Delay": 1})
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")


def test_an_artifact_that_is_missing_fails_its_endpoint(sagemaker: Any) -> None:
    """With the bucket and key that were looked for."""
    described = deploy(sagemaker, "e", "s3://nowhere/model.tar.gz")
    assert "Failed" == described["EndpointStatus"]
    assert "bucket: nowhere, key: model.tar.gz" in described["FailureReason"]


def test_an_image_without_model_data_cannot_run_here(sagemaker: Any) -> None:
    """The reason says what this server runs."""
    make_model(sagemaker, "m", {"Image": "some/image"})
    make_config(sagemaker, "c", production("m"))
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    described = settled(sagemaker, "e")
    assert "Failed" == described["EndpointStatus"]
    assert "runs artifacts, not container images" in described["FailureReason"]


def test_an_update_that_cannot_load_leaves_the_old_one_serving(server: Server, sagemaker: Any, runtime: Any) -> None:
    """It goes back to InService with the old configuration and the reason, and can be updated again."""
    deploy(sagemaker, "e", answers(server, "one"))
    make_model(sagemaker, "bad", container(put_script(server, "bad", BROKEN)))
    make_config(sagemaker, "bad", production("bad"))
    with Load(server.url, 2, b"x", path="/endpoints/e/invocations") as load:
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="bad")
        described = settled(sagemaker, "e")
    assert ("InService", "e") == (described["EndpointStatus"], described["EndpointConfigName"])
    assert "no weights" in described["FailureReason"]
    assert "PendingDeploymentSummary" not in described
    assert [] == load.failures
    make_model(sagemaker, "two", container(answers(server, "two")))
    make_config(sagemaker, "two", production("two"))
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="two")
    described = settled(sagemaker, "e")
    assert "FailureReason" not in described
    assert "two:x" == said(runtime, "e")


def test_updates_under_load_fail_no_call(server: Server, sagemaker: Any) -> None:
    """Every answer is wholly of one configuration; those that began after an update had settled are of the new."""
    deploy(sagemaker, "e", answers(server, "one"), count=2)
    make_model(sagemaker, "two", container(answers(server, "two")))
    make_config(sagemaker, "two", production("two", count=2))
    with Load(server.url, 4, b"x", path="/endpoints/e/invocations") as load:
        for config in ("two", "e", "two", "e", "two"):
            sagemaker.update_endpoint(EndpointName="e", EndpointConfigName=config)
            assert config == settled(sagemaker, "e")["EndpointConfigName"]
            word = load.began_after_now().body.partition(b":")[0]
            assert {"two": b"two", "e": b"one"}[config] == word
    assert [] == load.failures
    assert {b"one:", b"two:"} == {outcome.body[:4] for outcome in load.outcomes}


def test_an_endpoint_in_transition_takes_no_change(server: Server, sagemaker: Any, tmp_path: Path) -> None:
    """Neither update, nor weights, nor delete; Describe shows old and new; then the new one serves."""
    deploy(sagemaker, "e", answers(server, "one"))
    gate = tmp_path / "gate"
    make_model(sagemaker, "slow", container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
    make_config(sagemaker, "slow", production("slow"))
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="slow")
    expected = 'Cannot update in-progress endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e".'
    assert expected == refused(sagemaker.update_endpoint, EndpointName="e", EndpointConfigName="e")
    assert expected == refused(sagemaker.delete_endpoint, EndpointName="e")
    weights = [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}]
    assert expected == refused(
        sagemaker.update_endpoint_weights_and_capacities, EndpointName="e", DesiredWeightsAndCapacities=weights
    )
    described = sagemaker.describe_endpoint(EndpointName="e")
    assert ("Updating", "e") == (described["EndpointStatus"], described["EndpointConfigName"])
    assert "slow" == described["PendingDeploymentSummary"]["EndpointConfigName"]
    assert "one:x" == said(client(server, "sagemaker-runtime"), "e")
    gate.touch()
    assert "slow" == settled(sagemaker, "e")["EndpointConfigName"]


def test_configs_and_models_in_use_may_be_deleted(server: Server, sagemaker: Any, runtime: Any) -> None:
    """The endpoint keeps its snapshot, also over a restart of its worker."""
    deploy(sagemaker, "e", answers(server, "one"))
    sagemaker.delete_endpoint_config(EndpointConfigName="e")
    sagemaker.delete_model(ModelName="e")
    (worker,) = server.workers("e")
    os.kill(worker["Pid"], signal.SIGKILL)
    assert "one:x" == said(runtime, "e")


def test_weights_and_counts_change_live(server: Server, sagemaker: Any, runtime: Any) -> None:
    """A variant of weight 0 still answers to its name; counts start and drain workers."""
    for word in ("one", "two"):
        make_model(sagemaker, word, container(answers(server, word)))
    make_config(sagemaker, "c", production("one", name="blue"), production("two", name="green", weight=0.0))
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    settled(sagemaker, "e")
    assert "one:x" == said(runtime, "e")
    assert "two:x" == said(runtime, "e", TargetVariant="green")
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="e",
        DesiredWeightsAndCapacities=[
            {"VariantName": "blue", "DesiredWeight": 0.0},
            {"VariantName": "green", "DesiredWeight": 3.0, "DesiredInstanceCount": 3},
        ],
    )
    blue, green = settled(sagemaker, "e")["ProductionVariants"]
    assert (0.0, 1) == (blue["CurrentWeight"], blue["CurrentInstanceCount"])
    assert (3.0, 3) == (green["CurrentWeight"], green["CurrentInstanceCount"])
    assert "two:x" == said(runtime, "e")


@pytest.mark.parametrize(
    ("changes", "said_of_it"),
    [
        (
            [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}, {"VariantName": "nobody", "DesiredWeight": 1.0}],
            'The variant name(s) "nobody" is/are not present within endpoint configuration "e".',
        ),
        (
            [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}, {"VariantName": "AllTraffic", "DesiredWeight": 1.0}],
            'The variant name "AllTraffic" was non-unique within the request.',
        ),
    ],
)
def test_a_list_of_changes_is_taken_whole_or_not_at_all(
    server: Server, sagemaker: Any, changes: list[dict[str, Any]], said_of_it: str
) -> None:
    """One wrong item, and nothing has changed."""
    deploy(sagemaker, "e", answers(server, "one"))
    assert said_of_it == refused(
        sagemaker.update_endpoint_weights_and_capacities, EndpointName="e", DesiredWeightsAndCapacities=changes
    )
    (variant,) = sagemaker.describe_endpoint(EndpointName="e")["ProductionVariants"]
    assert 1.0 == variant["DesiredWeight"]


def test_a_million_instances_are_refused(server: Server, sagemaker: Any) -> None:
    """With AWS's error, before anything starts."""
    deploy(sagemaker, "e", answers(server, "one"))
    with pytest.raises(ClientError) as caught:
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="e",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 1_000_000}],
        )
    assert "ResourceLimitExceeded" == caught.value.response["Error"]["Code"]


def test_properties_are_retained_as_asked(server: Server, sagemaker: Any) -> None:
    """RetainAllVariantProperties keeps weight and count; what is excluded comes from the new configuration."""
    deploy(sagemaker, "e", answers(server, "one"))
    changes = [{"VariantName": "AllTraffic", "DesiredWeight": 5.0, "DesiredInstanceCount": 2}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=changes)
    settled(sagemaker, "e")
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="e", RetainAllVariantProperties=True)
    (variant,) = settled(sagemaker, "e")["ProductionVariants"]
    assert (5.0, 2) == (variant["CurrentWeight"], variant["CurrentInstanceCount"])
    sagemaker.update_endpoint(
        EndpointName="e",
        EndpointConfigName="e",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    (variant,) = settled(sagemaker, "e")["ProductionVariants"]
    assert (1.0, 2) == (variant["CurrentWeight"], variant["CurrentInstanceCount"])
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="e")
    (variant,) = settled(sagemaker, "e")["ProductionVariants"]
    assert (1.0, 1) == (variant["CurrentWeight"], variant["CurrentInstanceCount"])


def test_endpoints_come_back_after_kill_9(tmp_path: Path) -> None:
    """InService without anyone's help, with the weights and counts they had; no process of the old server is left."""
    with serve(tmp_path, "--allow-code") as server:
        sagemaker = client(server)
        deploy(sagemaker, "e", answers(server, "one"))
        changes = [{"VariantName": "AllTraffic", "DesiredWeight": 5.0, "DesiredInstanceCount": 2}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="e", DesiredWeightsAndCapacities=changes)
        settled(sagemaker, "e")
        before = children(server.process.pid)
        server.process.kill()
        server.process.wait()
    with serve(tmp_path, "--allow-code") as server:
        described = client(server).describe_endpoint(EndpointName="e")
        (variant,) = described["ProductionVariants"]
        assert ("InService", 5.0, 2) == (
            described["EndpointStatus"], variant["CurrentWeight"], variant["CurrentInstanceCount"]
        )  # fmt: skip
        assert "one:x" == said(client(server, "sagemaker-runtime"), "e")
        assert [] == [pid for pid in before if is_alive(pid)]


def test_an_endpoint_that_cannot_come_back_is_out_of_service_and_says_why(tmp_path: Path) -> None:
    """It keeps nobody else from starting, and serves again when the operator has put things right."""
    with serve(tmp_path, "--allow-code") as server:
        deploy(client(server), "e", answers(server, "one"))
    with serve(tmp_path) as server:
        described = client(server).describe_endpoint(EndpointName="e")
        assert "OutOfService" == described["EndpointStatus"]
        assert "code" in described["FailureReason"]
        with pytest.raises(ClientError) as caught:
            said(client(server, "sagemaker-runtime"), "e")
        assert "ServiceUnavailable" == caught.value.response["Error"]["Code"]
        assert "OutOfService" == server.endpoints()["e"]["EndpointStatus"]
    with serve(tmp_path, "--allow-code") as server:
        assert "one:x" == said(client(server, "sagemaker-runtime"), "e")


def test_an_update_cut_short_by_kill_9_is_finished_by_the_next_start(tmp_path: Path) -> None:
    """Nothing is half-made: what was promised is carried out."""
    gate = tmp_path / "gate"
    with serve(tmp_path, "--allow-code", environment={"SERVING_SETTLE_SECONDS": "0"}) as server:
        sagemaker = client(server)
        deploy(sagemaker, "e", answers(server, "one"))
        make_model(sagemaker, "slow", container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
        make_config(sagemaker, "slow", production("slow"))
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="slow")
        server.process.kill()
        server.process.wait()
    gate.touch()
    with serve(tmp_path, "--allow-code") as server:
        described = settled(client(server), "e")
        assert ("InService", "slow") == (described["EndpointStatus"], described["EndpointConfigName"])
        assert "PendingDeploymentSummary" not in described
        assert "patient:x" == said(client(server, "sagemaker-runtime"), "e")


def raw(server: Server, operation: str, **params: Any) -> Any:
    """An answer as it is on the wire, judged by botocore's own model."""
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    answer = httpx.post(server.url, json=params, headers=headers)
    assert 200 == answer.status_code, answer.text
    return assert_conforms(operation, answer.content)


def test_every_state_is_described_as_botocore_wants_it(server: Server, sagemaker: Any, tmp_path: Path) -> None:
    """Creating, InService with all that a configuration can say, Updating, Deleting-to-come, Failed."""
    gate = tmp_path / "gate"
    make_model(sagemaker, "slow", container(put_script(server, "slow", PATIENT.format(gate=str(gate)))))
    capture = {
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": "s3://b/captured",
        "KmsKeyId": "alias/any",  # the model requires it in answers; without one there is none to show
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    make_config(
        sagemaker,
        "full",
        production("slow", RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}),
        ShadowProductionVariants=[production("slow", name="shadow")],
        DataCaptureConfig=capture,
    )
    rollout = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
    }
    raw(server, "CreateEndpoint", EndpointName="e", EndpointConfigName="full", DeploymentConfig=rollout)
    creating = raw(server, "DescribeEndpoint", EndpointName="e")
    assert ("Creating", False) == (creating["EndpointStatus"], "ProductionVariants" in creating)
    assert "full" == creating["PendingDeploymentSummary"]["EndpointConfigName"]
    gate.touch()
    settled(sagemaker, "e")
    serving = raw(server, "DescribeEndpoint", EndpointName="e")
    assert rollout == serving["LastDeploymentConfig"]
    assert ("Started", 50) == tuple(
        serving["DataCaptureConfig"][one] for one in ("CaptureStatus", "CurrentSamplingPercentage")
    )
    assert ["shadow"] == [one["VariantName"] for one in serving["ShadowProductionVariants"]]
    assert "serving" == serving["ProductionVariants"][0]["DeployedImages"][0]["SpecifiedImage"]
    gate.unlink()
    raw(server, "UpdateEndpoint", EndpointName="e", EndpointConfigName="full")
    updating = raw(server, "DescribeEndpoint", EndpointName="e")
    (coming,) = updating["PendingDeploymentSummary"]["ProductionVariants"]
    assert ("Updating", ["Creating"]) == (
        updating["EndpointStatus"],
        [one["Status"] for one in coming["VariantStatus"]],
    )
    gate.touch()
    settled(sagemaker, "e")
    raw(server, "DeleteEndpoint", EndpointName="e")
    failed = deploy(sagemaker, "f", put_script(server, "broken", BROKEN))
    assert failed["EndpointStatus"] == raw(server, "DescribeEndpoint", EndpointName="f")["EndpointStatus"] == "Failed"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"Type": "CANARY", "WaitIntervalInSeconds": 0}, "requires CanarySize"),
        (
            {
                "Type": "CANARY",
                "WaitIntervalInSeconds": 0,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 60},
            },
            "from 1 to 50 percent",
        ),
        (
            {
                "Type": "LINEAR",
                "WaitIntervalInSeconds": 0,
                "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 5},
            },
            "from 10 to 50 percent",
        ),
        (
            {
                "Type": "ALL_AT_ONCE",
                "WaitIntervalInSeconds": 0,
                "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
            },
            "only for",
        ),
    ],
)
def test_a_deployment_config_that_contradicts_itself_is_refused(
    server: Server, sagemaker: Any, policy: dict[str, Any], words: str
) -> None:
    """And nothing has changed."""
    deploy(sagemaker, "e", answers(server, "one"))
    rollout = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": policy}}
    assert words in refused(
        sagemaker.update_endpoint, EndpointName="e", EndpointConfigName="e", DeploymentConfig=rollout
    )
    assert "InService" == sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]


def test_an_asynchronous_endpoint_takes_no_synchronous_call(server: Server, sagemaker: Any, runtime: Any) -> None:
    """AsyncInferenceConfig is kept, shown, and acted on that far."""
    make_model(sagemaker, "m", container(answers(server, "one")))
    wanted = {"OutputConfig": {"S3OutputPath": "s3://b/out"}}
    make_config(sagemaker, "c", production("m"), AsyncInferenceConfig=wanted)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert wanted == settled(sagemaker, "e")["AsyncInferenceConfig"]
    with pytest.raises(ClientError, match="asynchronous") as caught:
        said(runtime, "e")
    assert "ValidationError" == caught.value.response["Error"]["Code"]
