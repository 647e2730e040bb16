"""Facts about capacity that follows the load: real servers, real workers, real calls, unmodified boto3."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import client, container, deploy, make_config, make_model, production, put_script, said, settled
from tests.server import Server, serve

INSTANCES = "sagemaker:variant:DesiredInstanceCount"
COPIES = "sagemaker:inference-component:DesiredCopyCount"
#: A model that takes its time over each call, alone.
BUSY = """
import time
def transform_fn(model, body, content_type, accept):
    time.sleep(0.02)  # the model's work
    return b"ok", "text/plain"
"""
#: A model that loads as the file {path} says: once there is one, and not at all while it says "no".
GATED = """
import os, time
def model_fn(folder):
    while not os.path.exists({path!r}):
        time.sleep(0.02)  # until the test lets it load
    if open({path!r}).read() == "no":
        raise RuntimeError("the model does not load")
    return 1
def transform_fn(model, body, content_type, accept):
    return b"ok", "text/plain"
"""
FAST = {"SERVING_SCALING_PERIOD_SECONDS": "0.2", "SERVING_MAX_BATCH_CALLS": "1", "SERVING_MOST_WORKERS": "3"}


class Scaling:
    """The variant of an endpoint as Application Auto Scaling has it."""

    def __init__(self, server: Server, endpoint: str) -> None:
        self.server = server
        self.sagemaker = client(server)
        self.api = client(server, "application-autoscaling")
        self.endpoint = endpoint
        self.key = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
            "ScalableDimension": INSTANCES,
        }

    def limits(self, low: int, high: int) -> None:
        """RegisterScalableTarget."""
        self.api.register_scalable_target(**self.key, MinCapacity=low, MaxCapacity=high)

    def track(self, calls: float) -> list[dict[str, Any]]:
        """Follow ``calls`` a minute for each instance; the policy's alarms."""
        metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        made: list[dict[str, Any]] = self.api.put_scaling_policy(
            **self.key,
            PolicyName="calls",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": calls,
                "PredefinedMetricSpecification": metric,
                "ScaleOutCooldown": 0,
                "ScaleInCooldown": 0,
            },
        )["Alarms"]
        return made

    def step(self, to: int) -> str:
        """A step policy that sets the capacity, with an alarm that is never in ALARM by itself: its name."""
        arn = self.api.put_scaling_policy(
            **self.key,
            PolicyName="step",
            PolicyType="StepScaling",
            StepScalingPolicyConfiguration={
                "AdjustmentType": "ExactCapacity",
                "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": to}],
                "Cooldown": 0,
            },
        )["PolicyARN"]
        client(self.server, "cloudwatch").put_metric_alarm(
            AlarmName=f"{self.endpoint}-alarm",
            Namespace="Own",
            MetricName="signal",
            Statistic="Maximum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            AlarmActions=[arn],
        )
        return f"{self.endpoint}-alarm"

    def ring(self, name: str) -> None:
        """Set an alarm to ALARM."""
        client(self.server, "cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")

    def state(self) -> tuple[str, int, int]:
        """The endpoint's status, and the variant's instances: those that answer and those there shall be."""
        described = self.sagemaker.describe_endpoint(EndpointName=self.endpoint)
        variant = described["ProductionVariants"][0]
        return described["EndpointStatus"], variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

    def reaches(self, count: int, seconds: float = 20.0) -> None:
        """Wait until there are so many instances, and shall be."""
        self.server.eventually(lambda: self.state() == ("InService", count, count), seconds)

    def activities(self) -> list[dict[str, Any]]:
        """The variant's scaling activities, newest first."""
        found: list[dict[str, Any]] = self.api.describe_scaling_activities(**self.key)["ScalingActivities"]
        return found

    def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """The activities when so many have ended."""
        self.server.eventually(lambda: sum("EndTime" in one for one in self.activities()) >= count)
        return self.activities()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with periods of 0.2 seconds, and room for three workers beyond the minimums."""
    with serve(tmp_path_factory.mktemp("autoscaling"), "--allow-code", environment=FAST) as started:
        yield started


@pytest.fixture(scope="module")
def busy(server: Server) -> str:
    """A model that takes 20 ms for each call."""
    return put_script(server, "busy", BUSY)


def scaled(server: Server, name: str, url: str) -> Scaling:
    """An endpoint of this model."""
    assert deploy(client(server), name, url)["EndpointStatus"] == "InService"
    return Scaling(server, name)


@contextmanager
def load(server: Server, endpoint: str, callers: int) -> Iterator[list[BaseException]]:
    """So many callers, each with one call after another, for the length of a ``with``; what has failed, in the end."""
    stop, failed = Event(), list[BaseException]()
    runtime = client(server, "sagemaker-runtime", max_pool_connections=callers)

    def call() -> None:
        while not stop.is_set():
            try:
                said(runtime, endpoint)
            except ClientError as error:
                failed.append(error)

    with ThreadPoolExecutor(callers) as callers_pool:
        running = [callers_pool.submit(call) for _ in range(callers)]
        try:
            yield failed
        finally:
            stop.set()
    for one in running:
        one.result()


def test_capacity_follows_the_load_and_no_call_fails(server: Server, busy: str) -> None:
    """The high alarm adds workers; when the calls end, capacity goes back to the minimum by the low alarm."""
    scaling = scaled(server, "follows", busy)
    scaling.limits(1, 2)
    scaling.track(calls=600.0)
    with load(server, "follows", callers=1) as failed:  # no call waits: only the alarm asks for more
        scaling.reaches(2)
    scaling.reaches(1, seconds=30.0)
    assert failed == []
    activities = scaling.ended(2)
    assert {"Successful"} == {one["StatusCode"] for one in activities}
    alarm = "monitor alarm TargetTracking-endpoint/follows/variant/AllTraffic-Alarm"
    assert activities[0]["Cause"].startswith(f"{alarm}Low-")
    assert activities[-1]["Cause"].startswith(f"{alarm}High-")
    assert "Setting desired instance count to 1." == activities[0]["Description"]
    assert (
        "Successfully set desired instance count to 1. Change successfully fulfilled by sagemaker."
        == activities[0]["StatusMessage"]
    )


def test_waiting_calls_need_no_alarm(server: Server, busy: str) -> None:
    """Calls that wait get workers within a second or so, though the policy's alarms have been deleted."""
    scaling = scaled(server, "burst", busy)
    scaling.limits(1, 2)
    cloudwatch = client(server, "cloudwatch")
    cloudwatch.delete_alarms(AlarmNames=[one["AlarmName"] for one in scaling.track(calls=600.0)])
    with load(server, "burst", callers=4) as failed:
        scaling.reaches(2)
    assert failed == []
    assert "waiting calls triggered policy calls" == scaling.ended()[0]["Cause"]
    logged = [json.loads(line) for line in (server.data_dir / "decisions.jsonl").read_text().splitlines()]
    assert (1, 2) in [
        (one["Current"], one["Desired"]) for one in logged if one["ResourceId"] == scaling.key["ResourceId"]
    ]
    scaling.limits(1, 1)  # the others need the room
    scaling.reaches(1)


def test_limits_are_enforced_at_once(server: Server, busy: str) -> None:
    """Raising Min and lowering Max change the capacity without any alarm; the changes are counted."""
    scaling = scaled(server, "limits", busy)
    scaling.limits(2, 3)
    scaling.reaches(2)
    scaling.limits(1, 1)
    scaling.reaches(1)
    causes = [one["Cause"] for one in scaling.ended(2)]
    assert ["maximum capacity was set to 1", "minimum capacity was set to 2"] == causes
    assert 2 == server.metric("sagemaker_scaling_activities_total", endpoint="limits", status="Successful")


def test_an_alarm_that_names_a_step_policy_sets_it_going(server: Server, busy: str) -> None:
    """What the policy says happens, once; activities tell the alarm and the policy."""
    scaling = scaled(server, "steps", busy)
    scaling.limits(1, 2)
    scaling.ring(scaling.step(to=2))
    scaling.reaches(2)
    assert "monitor alarm steps-alarm in state ALARM triggered policy step" == scaling.ended()[0]["Cause"]
    scaling.limits(1, 1)  # the others need the room
    scaling.reaches(1)


def test_a_machine_without_room_is_told(server: Server, busy: str) -> None:
    """More than the machine may run is an activity that is Unfulfilled, and as many workers as may be."""
    scaling = scaled(server, "room", busy)
    scaling.limits(1, 10)
    scaling.ring(scaling.step(to=9))
    scaling.reaches(4)
    activity = scaling.ended()[0]
    assert "Unfulfilled" == activity["StatusCode"]
    assert "Setting desired instance count to 9." == activity["Description"]
    assert "no room for more workers" in activity["StatusMessage"]
    scaling.limits(1, 1)  # the others need the room
    scaling.reaches(1)


def test_a_scheduled_action_sets_limits_and_capacity(server: Server, busy: str) -> None:
    """Its time comes: Min and Max are set, and the capacity follows; two activities say so."""
    scaling = scaled(server, "timed", busy)
    scaling.limits(1, 1)
    scaling.api.put_scheduled_action(
        **scaling.key,
        ScheduledActionName="morning",
        Schedule="at(2020-01-01T00:00:00)",
        Timezone="Europe/Berlin",
        ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 3},
    )
    scaling.api.put_scheduled_action(
        **scaling.key,
        ScheduledActionName="soon",
        Schedule="rate(1 day)",
        StartTime=time.time() + 1.0,
        ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 3},
    )
    scaling.reaches(2)
    causes = [one["Cause"] for one in scaling.ended(2)]
    assert ["minimum capacity was set to 2", "scheduled action name soon was triggered"] == causes


def test_workers_that_do_not_start_are_given_up(server: Server, tmp_path: Path) -> None:
    """The activity has Failed and says why; the capacity is what it was, and goes on answering."""
    gate = tmp_path / "gate"
    gate.write_text("yes")
    scaling = scaled(server, "broken", put_script(server, "broken", GATED.format(path=str(gate))))
    gate.write_text("no")
    scaling.limits(1, 2)
    scaling.ring(scaling.step(to=2))
    activity = scaling.ended()[0]
    assert "Failed" == activity["StatusCode"]
    assert activity["StatusMessage"].startswith("Failed to set desired instance count to 2. Reason: ")
    scaling.reaches(1)
    assert "ok" == said(client(server, "sagemaker-runtime"), "broken")


def test_a_newer_change_takes_over(server: Server, tmp_path: Path) -> None:
    """What is asked for while workers still load is done too; the older activity was overridden."""
    gate = tmp_path / "gate"
    gate.write_text("yes")
    scaling = scaled(server, "newer", put_script(server, "newer", GATED.format(path=str(gate))))
    gate.unlink()
    scaling.limits(2, 3)
    server.eventually(lambda: ("Updating", 1, 2) == scaling.state())
    scaling.limits(3, 3)
    server.eventually(lambda: ("Updating", 1, 3) == scaling.state())
    gate.write_text("yes")
    scaling.reaches(3)
    assert ["Successful", "Overridden"] == [one["StatusCode"] for one in scaling.ended(2)]


def test_an_update_on_its_way_holds_scaling_back(server: Server, busy: str, tmp_path: Path) -> None:
    """Limits that come during an update are enforced after it."""
    gate = tmp_path / "gate"
    scaling = scaled(server, "updated", busy)
    make_model(scaling.sagemaker, "gated", container(put_script(server, "gated", GATED.format(path=str(gate)))))
    make_config(scaling.sagemaker, "gated", production("gated"))
    scaling.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="gated")
    scaling.limits(2, 3)
    blocked = "Scaling is blocked while an update is on its way."
    server.eventually(lambda: [blocked] == [target["Blocked"] for target in targets(server, "updated")])
    assert ("Updating", 1, 1) == scaling.state()
    gate.write_text("yes")
    scaling.reaches(2)


def targets(server: Server, endpoint: str) -> list[dict[str, Any]]:
    """What scales of an endpoint, as people are shown it; a target that has just been registered comes soon."""
    with server.client() as http:
        answer = http.get(f"/endpoints/{endpoint}/scaling")
    found: list[dict[str, Any]] = json.loads(answer.content)["Targets"]
    return found


def test_copies_of_a_component_scale(server: Server, busy: str) -> None:
    """An inference component has copies in place of instances, and activities say so."""
    sagemaker, scaling = client(server), client(server, "application-autoscaling")
    holder = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    make_config(sagemaker, "holder", holder, ExecutionRoleArn="arn:aws:iam::123456789012:role/any")
    sagemaker.create_endpoint(EndpointName="holder", EndpointConfigName="holder")
    settled(sagemaker, "holder")
    needs = {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 1.0}
    sagemaker.create_inference_component(
        InferenceComponentName="held",
        EndpointName="holder",
        VariantName="AllTraffic",
        Specification={"Container": {"Image": "any", "ArtifactUrl": busy}, "ComputeResourceRequirements": needs},
        RuntimeConfig={"CopyCount": 1},
    )

    def copies() -> tuple[str, int]:
        described = sagemaker.describe_inference_component(InferenceComponentName="held")
        return described["InferenceComponentStatus"], described["RuntimeConfig"]["CurrentCopyCount"]

    server.eventually(lambda: ("InService", 1) == copies())
    key = {"ServiceNamespace": "sagemaker", "ResourceId": "inference-component/held", "ScalableDimension": COPIES}
    scaling.register_scalable_target(**key, MinCapacity=2, MaxCapacity=2)
    server.eventually(lambda: ("InService", 2) == copies())
    activity = scaling.describe_scaling_activities(**key)["ScalingActivities"][0]
    assert "Setting desired copy count to 2." == activity["Description"]


def test_provisioned_concurrency_scales(server: Server, busy: str) -> None:
    """A serverless variant keeps as many workers warm as its target says."""
    sagemaker = client(server)
    make_model(sagemaker, "warm", container(busy))
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 4, "ProvisionedConcurrency": 1}
    make_config(sagemaker, "warm", {"VariantName": "AllTraffic", "ModelName": "warm", "ServerlessConfig": serverless})
    sagemaker.create_endpoint(EndpointName="warm", EndpointConfigName="warm")
    settled(sagemaker, "warm")
    scaling = Scaling(server, "warm")
    scaling.key["ScalableDimension"] = "sagemaker:variant:DesiredProvisionedConcurrency"
    scaling.limits(2, 3)
    activity = scaling.ended()[0]
    assert ("Setting desired provisioned concurrency to 2.", "Successful") == (
        activity["Description"],
        activity["StatusCode"],
    )
    variant = sagemaker.describe_endpoint(EndpointName="warm")["ProductionVariants"][0]
    assert 2 == variant["CurrentServerlessConfig"]["ProvisionedConcurrency"]
    server.eventually(lambda: 2 == sum(one["State"] == "READY" for one in server.workers("warm")))


def test_a_deleted_endpoint_scales_no_more(server: Server, busy: str) -> None:
    """Its target goes with it; the name can be used again, and what scaled it before does not come back."""
    scaling = scaled(server, "gone", busy)
    scaling.limits(2, 2)
    scaling.reaches(2)
    scaling.ended()
    scaling.sagemaker.delete_endpoint(EndpointName="gone")
    assert (
        []
        == scaling.api.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[scaling.key["ResourceId"]])[
            "ScalableTargets"
        ]
    )
    server.eventually(lambda: "gone" not in server.endpoints())
    scaling.sagemaker.create_endpoint(EndpointName="gone", EndpointConfigName="gone")
    settled(scaling.sagemaker, "gone")
    assert ("InService", 1, 1) == scaling.state()


def test_a_change_is_carried_on_after_a_kill(tmp_path: Path) -> None:
    """The server is killed while a worker that scaling asked for still loads: the next server ends what was begun."""
    gate = tmp_path / "gate"
    gate.write_text("yes")
    with serve(tmp_path, "--allow-code", environment=FAST) as first:
        scaling = scaled(first, "killed", put_script(first, "killed", GATED.format(path=str(gate))))
        gate.unlink()
        scaling.limits(2, 2)
        first.eventually(lambda: scaling.state() == ("Updating", 1, 2))
        assert ["InProgress"] == [one["StatusCode"] for one in scaling.activities()]
        first.stop(signal.SIGKILL)
        gate.write_text("yes")
    with serve(tmp_path, "--allow-code", environment=FAST) as second:
        again = Scaling(second, "killed")
        again.reaches(2)
        activities = again.ended()
        assert [("Successful", "minimum capacity was set to 2")] == [
            (one["StatusCode"], one["Cause"]) for one in activities
        ]
