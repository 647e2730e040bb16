"""Guarded updates of a real server: canary, linear, rolling, all at once; bakes, alarms and the way back; kill -9."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from serving.fleet.store import Session
from tests.cloud import answers, client, container, make_config, make_model, production, put_script, said, settled
from tests.load import Load
from tests.processes import kill_all
from tests.server import Server, serve
from tests.stores import opened
from tests.test_cli import serving

FAILS = "def transform_fn(model, body, content_type, accept):\n    raise RuntimeError('bad')\n"
BROKEN = "raise RuntimeError('cannot be loaded')\n"
ENVIRONMENT = {"SERVING_SCALING_PERIOD_SECONDS": "0.2"}
HOUR = 3600


def percent(value: int) -> dict[str, Any]:
    """A size."""
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def blue_green(kind: str, wait: int = 0, termination: int = 0, alarm: str = "", **more: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **more}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination}
    return {"BlueGreenUpdatePolicy": policy} | watched(alarm)


def canary(wait: int = HOUR, alarm: str = "", size: int = 50) -> dict[str, Any]:
    """A DeploymentConfig."""
    return blue_green("CANARY", wait, alarm=alarm, CanarySize=percent(size))


def rolling(wait: int = 0, alarm: str = "", size: int = 50) -> dict[str, Any]:
    """A DeploymentConfig."""
    return {"RollingUpdatePolicy": {"MaximumBatchSize": percent(size), "WaitIntervalInSeconds": wait}} | watched(alarm)


def watched(alarm: str) -> dict[str, Any]:
    """Its alarms."""
    return {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]}} if alarm else {}


class Place:
    """A server with models, one of which fails and one of which cannot load, and configs of ``count`` of each."""

    def __init__(self, server: Server, count: int = 2) -> None:
        self.server = server
        self.made: list[str] = []
        self.sagemaker = client(server)
        self.runtime = client(server, "sagemaker-runtime")
        self.watch = client(server, "cloudwatch")
        make_model(self.sagemaker, "one", container(answers(server, "one")))
        make_model(self.sagemaker, "two", container(answers(server, "two")))
        make_model(self.sagemaker, "bad", container(put_script(server, "bad", FAILS)))
        make_model(self.sagemaker, "broken", container(put_script(server, "broken", BROKEN)))
        for name in ("one", "two", "bad", "broken"):
            make_config(self.sagemaker, name, production(name, count=count))

    def endpoint(self, name: str) -> str:
        """A new one, which serves ``one``."""
        self.made.append(name)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="one")
        assert "InService" == settled(self.sagemaker, name)["EndpointStatus"]
        return name

    def update(self, name: str, config: str, policy: dict[str, Any]) -> None:
        """UpdateEndpoint."""
        self.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config, DeploymentConfig=policy)

    def described(self, name: str) -> dict[str, Any]:
        """DescribeEndpoint."""
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return found

    def green(self, name: str) -> dict[str, Any]:
        """The first variant of what is pending; empty when nothing is."""
        pending = self.described(name).get("PendingDeploymentSummary", {})
        return dict(pending["ProductionVariants"][0]) if pending else {}

    def phase(self, name: str) -> str:
        """What is being done with it."""
        return str(self.green(name).get("VariantStatus", [{"Status": ""}])[0]["Status"])

    def baking(self, name: str) -> dict[str, Any]:
        """Wait for a bake; how green is described then."""
        self.server.eventually(lambda: self.phase(name) == "Baking")
        return self.green(name)

    def alarm(self, name: str, state: str = "OK") -> str:
        """An alarm over what nobody measures, in this state until it is set to another."""
        self.watch.put_metric_alarm(
            AlarmName=name,
            Namespace="Nobody",
            MetricName="measures",
            Statistic="Sum",
            Period=HOUR,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
        )
        self.set(name, state)
        return name

    def set(self, name: str, state: str) -> None:
        """SetAlarmState."""
        self.watch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=f"{name} says so")

    def load(self, name: str) -> Load:
        """Callers of an endpoint."""
        return Load(self.server.url, 4, b"x", path=f"/endpoints/{name}/invocations")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all."""
    with serve(tmp_path_factory.mktemp("rollouts"), "--allow-code", "--fronts", "2", environment=ENVIRONMENT) as server:
        yield Place(server)


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    """The server; endpoints that have settled go after the test."""
    before = len(running.made)
    yield running
    for name in running.made[before:]:
        if running.described(name)["EndpointStatus"] == "InService":
            running.sagemaker.delete_endpoint(EndpointName=name)


@pytest.fixture(scope="module")
def halfway(running: Place) -> str:
    """An endpoint whose canary bakes for an hour."""
    name = running.endpoint("halfway")
    running.update(name, "two", canary())
    running.baking(name)
    return name


def test_a_canary_answers_its_part_and_is_described(place: Place, halfway: str) -> None:
    """Old on top, new in PendingDeploymentSummary with its bake; both answer; each is measured by its config."""
    with place.load(halfway) as load:
        load.wait(100)
        metric = "sagemaker_deployment_invocations_total"
        counted = [place.server.metric(metric, endpoint=halfway, config=config) for config in ("one", "two")]
    assert [] == load.failures
    assert {b"one:x", b"two:x"} == {outcome.body for outcome in load.outcomes}
    assert min(counted) > 10
    assert 0.5 == place.server.endpoints()[halfway]["PendingDeploymentSummary"]["TrafficShare"]
    described, green = place.described(halfway), place.green(halfway)
    assert ("Updating", "one", "two") == (
        described["EndpointStatus"],
        described["EndpointConfigName"],
        described["PendingDeploymentSummary"]["EndpointConfigName"],
    )
    assert 2 == green["CurrentInstanceCount"] == described["ProductionVariants"][0]["CurrentInstanceCount"]
    assert (
        "Baking for 3600 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."
        == green["VariantStatus"][0]["StatusMessage"]
    )


def test_when_the_new_workers_die_the_old_ones_answer(place: Place, halfway: str) -> None:
    """Nobody hears of it; the new ones are started again."""
    (pending,) = place.server.endpoints()[halfway]["PendingDeploymentSummary"]["ProductionVariants"]
    with place.load(halfway) as load:
        load.wait(20)
        for worker in pending["Workers"]:
            os.kill(worker["Pid"], signal.SIGKILL)
        load.wait(100)
    assert [] == load.failures
    place.server.eventually(lambda: 2 == place.green(halfway)["CurrentInstanceCount"])


def test_nothing_else_changes_during_a_guarded_update(place: Place, halfway: str) -> None:
    """Neither weights nor counts, nor another update, nor is it deleted (``behaviour/08``: 400 ValidationError)."""
    weights = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}]
    for call in (
        lambda: place.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=halfway, DesiredWeightsAndCapacities=weights
        ),
        lambda: place.update(halfway, "one", canary()),
        lambda: place.sagemaker.delete_endpoint(EndpointName=halfway),
    ):
        with pytest.raises(ClientError, match="Cannot update in-progress") as refused:
            call()
        assert "ValidationException" == refused.value.response["Error"]["Code"]


def test_a_caller_with_an_affinity_key_stays_on_one_side(place: Place, halfway: str) -> None:
    """As long as the share stands."""
    with place.server.client() as http:

        def words(caller: str) -> set[str]:
            headers = {"Content-Type": "text/plain", "X-Serving-Affinity-Key": caller}
            path = f"/endpoints/{halfway}/invocations"
            return {http.post(path, content=b"x", headers=headers).text for _ in range(3)}

        seen = [words(f"caller {at}") for at in range(20)]
    assert {1} == {len(one) for one in seen}
    assert {"one:x", "two:x"} == set().union(*seen)


@pytest.mark.parametrize(
    "policy",
    [
        canary(wait=0),
        blue_green("LINEAR", LinearStepSize=percent(50)),
        blue_green("ALL_AT_ONCE"),
        rolling(),
    ],
    ids=["canary", "linear", "all at once", "rolling"],
)
def test_no_mode_fails_a_call(place: Place, policy: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Every answer is of one of both; those that began after the end are of the new, which has all its workers."""
    name = place.endpoint(f"mode-{request.node.callspec.id}".replace(" ", "-"))
    with place.load(name) as load:
        place.update(name, "two", policy)
        described = settled(place.sagemaker, name)
        assert b"two:x" == load.began_after_now().body
    assert [] == load.failures
    assert {b"one:x", b"two:x"} == {outcome.body for outcome in load.outcomes}
    assert ("InService", "two", policy) == tuple(
        described[member] for member in ("EndpointStatus", "EndpointConfigName", "LastDeploymentConfig")
    )
    assert "FailureReason" not in described
    assert 2 == described["ProductionVariants"][0]["CurrentInstanceCount"]
    place.server.eventually(lambda: not place.server.metric("sagemaker_deployment_invocations_total", endpoint=name))


def test_a_linear_update_waits_after_each_step(place: Place) -> None:
    """Half the capacity first; then the alarm ends it, else the test would take an hour."""
    alarm, name = place.alarm("enough"), place.endpoint("steps")
    place.update(name, "two", blue_green("LINEAR", HOUR, alarm=alarm, LinearStepSize=instances(1)))
    assert "linear capacity of 1 instance(s)" in place.baking(name)["VariantStatus"][0]["StatusMessage"]
    place.set(alarm, "ALARM")
    assert "one" == settled(place.sagemaker, name)["EndpointConfigName"]


def instances(value: int) -> dict[str, Any]:
    """A size."""
    return {"Type": "INSTANCE_COUNT", "Value": value}


def test_an_alarm_takes_a_canary_back_without_a_failed_call(place: Place) -> None:
    """InService with the old configuration and the reason; nothing of the new is left."""
    alarm, name = place.alarm("trips"), place.endpoint("back")
    with place.load(name) as load:
        place.update(name, "two", canary(alarm=alarm))
        place.baking(name)
        place.set(alarm, "ALARM")
        described = settled(place.sagemaker, name)
        assert {b"one:x"} == {load.began_after_now().body for _ in range(20)}
    assert [] == load.failures
    assert ("InService", "one") == (described["EndpointStatus"], described["EndpointConfigName"])
    assert 'in ALARM state is "trips" (trips says so)' in described["FailureReason"]
    assert "PendingDeploymentSummary" not in described
    assert 2 == len(place.server.workers(name))


def test_an_alarm_during_the_last_bake_takes_all_calls_back(place: Place) -> None:
    """TerminationWait is what the old fleet is kept for."""
    alarm, name = place.alarm("late"), place.endpoint("late")
    with place.load(name) as load:
        place.update(name, "two", blue_green("ALL_AT_ONCE", termination=HOUR, alarm=alarm))
        place.baking(name)
        assert {b"two:x"} == {load.began_after_now().body for _ in range(20)}
        place.set(alarm, "ALARM")
        assert "one" == settled(place.sagemaker, name)["EndpointConfigName"]
        assert b"one:x" == load.began_after_now().body
    assert [] == load.failures


def test_a_rolling_update_comes_back_to_its_old_size(place: Place) -> None:
    """Half of the old had gone; it starts again before the new goes."""
    alarm, name = place.alarm("rolls"), place.endpoint("rolls")
    make_config(place.sagemaker, "two-of-four", production("two", count=4))
    make_config(place.sagemaker, "one-of-four", production("one", count=4))
    place.update(name, "one-of-four", rolling())
    assert "InService" == settled(place.sagemaker, name)["EndpointStatus"]
    with place.load(name) as load:
        place.update(name, "two-of-four", rolling(wait=1, alarm=alarm))
        place.server.eventually(lambda: "full capacity" in str(place.green(name).get("VariantStatus")))
        assert 2 == place.described(name)["ProductionVariants"][0]["CurrentInstanceCount"]
        place.set(alarm, "ALARM")
        described = settled(place.sagemaker, name)
        assert b"one:x" == load.began_after_now().body
    assert [] == load.failures
    assert ("one-of-four", 4) == (
        described["EndpointConfigName"],
        described["ProductionVariants"][0]["CurrentInstanceCount"],
    )


def test_a_rollback_that_fails_leaves_both_serving_until_the_old_can_start(place: Place) -> None:
    """UpdateRollbackFailed; the artifact of the old has gone. When it is there again, the old comes back whole."""
    alarm, name = place.alarm("fails"), place.endpoint("fails")
    make_model(place.sagemaker, "moved", container(answers(place.server, "moved")))
    make_config(place.sagemaker, "moved", production("moved", count=2))
    place.update(name, "moved", blue_green("ALL_AT_ONCE"))
    assert "moved" == settled(place.sagemaker, name)["EndpointConfigName"]
    folder = place.server.data_dir / "s3" / "models" / "moved"
    with place.load(name) as load:
        place.update(name, "two", rolling(wait=1, alarm=alarm))
        place.server.eventually(lambda: "full capacity" in str(place.green(name).get("VariantStatus")))
        folder.rename(folder.with_name("elsewhere"))
        place.set(alarm, "ALARM")
        described = settled(place.sagemaker, name)
        assert ("UpdateRollbackFailed", "moved") == (described["EndpointStatus"], described["EndpointConfigName"])
        assert "The rollback failed: " in described["FailureReason"]
        load.wait(20)
        folder.with_name("elsewhere").rename(folder)
        again = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
        place.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=again)
        assert "InService" == settled(place.sagemaker, name)["EndpointStatus"]
        assert b"moved:x" == load.began_after_now().body
    assert [] == load.failures


def test_an_alarm_that_is_already_raised_lets_no_call_through(place: Place) -> None:
    """It is rolled back before anything is shifted (``behaviour/08``)."""
    alarm, name = place.alarm("already", "ALARM"), place.endpoint("already")
    with place.load(name) as load:
        place.update(name, "two", canary(alarm=alarm))
        described = settled(place.sagemaker, name)
        load.began_after_now()
    assert ("InService", "one") == (described["EndpointStatus"], described["EndpointConfigName"])
    assert "already says so" in described["FailureReason"]
    assert {b"one:x"} == {outcome.body for outcome in load.outcomes}


def test_a_fleet_that_cannot_load_gets_no_call(place: Place) -> None:
    """Rolled back, with the model's own words."""
    name = place.endpoint("broken")
    with place.load(name) as load:
        place.update(name, "broken", canary(wait=0))
        described = settled(place.sagemaker, name)
    assert [] == load.failures
    assert ("InService", "one") == (described["EndpointStatus"], described["EndpointConfigName"])
    assert "cannot be loaded" in described["FailureReason"]


def test_a_bad_model_is_taken_back_by_what_is_measured_of_it(place: Place) -> None:
    """Two periods of an alarm on the new config's own errors; nobody but the canary's callers saw one."""
    name = place.endpoint("measured")
    place.watch.put_metric_alarm(
        AlarmName="5xx of bad",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[
            {"Name": "EndpointName", "Value": name},
            {"Name": "VariantName", "Value": "AllTraffic"},
            {"Name": "EndpointConfigName", "Value": "bad"},
        ],
        Statistic="Average",
        Period=1,
        EvaluationPeriods=2,
        Threshold=0.5,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    with place.load(name) as load:
        place.update(name, "bad", canary(alarm="5xx of bad"))
        described = settled(place.sagemaker, name)
        assert b"one:x" == load.began_after_now().body
    assert "Threshold Crossed" in described["FailureReason"]
    assert {424} == {outcome.status for outcome in load.failures}
    assert len(load.failures) < 0.7 * len(load.outcomes)


def test_alarms_and_sizes_that_cannot_be_are_refused_at_once(place: Place) -> None:
    """And nothing has changed."""
    name = place.endpoint("refused")
    for policy, words in (
        (canary(alarm="no such alarm"), 'alarms that do not exist: "no such alarm"'),
        (canary() | {"AutoRollbackConfiguration": {"Alarms": [{}]}}, "must have an AlarmName"),
        (blue_green("CANARY", CanarySize=instances(2)), "from 1 to 50 percent"),
    ):
        with pytest.raises(ClientError, match=words):
            place.update(name, "two", policy)
    described = place.described(name)
    assert ("InService", "one", False) == (
        described["EndpointStatus"],
        described["EndpointConfigName"],
        "LastDeploymentConfig" in described,
    )


@pytest.mark.parametrize("raised", [False, True], ids=["on", "back"])
def test_copies_of_a_component_are_replaced_in_batches(place: Place, raised: bool) -> None:
    """RollingUpdatePolicy of UpdateInferenceComponent: no call fails, and an alarm brings the old copies back."""
    endpoint, name = f"parts-{raised}", f"part-{raised}"
    bare = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    make_config(place.sagemaker, endpoint, bare, ExecutionRoleArn="arn:aws:iam::123456789012:role/any")
    place.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    settled(place.sagemaker, endpoint)
    needs = {"MinMemoryRequiredInMb": 128}
    old, new = ({"ModelName": word, "ComputeResourceRequirements": needs} for word in ("one", "two"))
    place.sagemaker.create_inference_component(
        InferenceComponentName=name, EndpointName=endpoint, Specification=old, RuntimeConfig={"CopyCount": 2}
    )

    def described() -> dict[str, Any]:
        found: dict[str, Any] = place.sagemaker.describe_inference_component(InferenceComponentName=name)
        return found

    place.server.eventually(lambda: "InService" == described()["InferenceComponentStatus"])
    alarm = place.alarm(f"parts {raised}")
    policy = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1},
            "WaitIntervalInSeconds": HOUR if raised else 0,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
    }
    place.sagemaker.update_inference_component(InferenceComponentName=name, Specification=new, DeploymentConfig=policy)
    words: list[str] = []

    def said_to_part() -> str:
        words.append(said(place.runtime, endpoint, InferenceComponentName=name))
        return words[-1]

    if raised:
        place.server.eventually(lambda: "two:x" == said_to_part())
        place.set(alarm, "ALARM")
    place.server.eventually(lambda: bool(said_to_part()) and "InService" == described()["InferenceComponentStatus"])
    after = described()
    assert ("one:x" if raised else "two:x") == said_to_part()
    assert (raised, 2) == ("FailureReason" in after, after["RuntimeConfig"]["CurrentCopyCount"])
    assert set(words) <= {"one:x", "two:x"}


def test_the_terminal_rolls_out_and_tells_how_far_it_is(place: Place) -> None:
    """``serving deploy --canary``: what is being watched now, and what became of it."""
    name = place.endpoint("terminal")
    options = ("--canary", "50%", "--bake", "1", "--rollback-on", place.alarm("terminal"), "--url", place.server.url)
    done = serving("deploy", "s3://models/two", "--endpoint", name, *options)
    assert 0 == done.returncode, done.stderr
    assert b"(WaitIntervalInSeconds) with traffic enabled on" in done.stderr
    assert "two:x" == said(place.runtime, name)


def begin_earlier(server: Server, name: str, seconds: float) -> None:
    """The update of this endpoint, whose server is down, was asked for so many seconds before."""

    def change(session: Session) -> None:
        record = session.get("endpoint", name)
        assert record is not None
        pending = {**record.body["Pending"], "StartTime": record.body["Pending"]["StartTime"] - seconds}
        session.change(record, now=record.modified, body={**record.body, "Pending": pending})

    with opened(f"sqlite:///{server.data_dir.absolute() / 'serving.db'}") as store, store.write() as session:
        change(session)


def test_a_killed_server_goes_on_with_its_update(tmp_path: Path) -> None:
    """kill -9 in the middle of a bake: old and new share the calls again; an alarm still takes it back. A bake that
    ends is followed by the rest; an update that has no time left is rolled back."""
    with serve(tmp_path, "--allow-code", environment=ENVIRONMENT) as server:
        place = Place(server, count=1)
        alarm = place.alarm("after")
        for name in ("back", "on", "slow"):
            place.endpoint(name)
        slow = blue_green("CANARY", CanarySize=percent(50), termination=HOUR)
        slow["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = HOUR + 1
        place.update("slow", "two", slow)
        place.update("back", "two", canary(alarm=alarm))
        place.update("on", "two", canary(wait=1))
        place.baking("back")
        kill_all(server)
    begin_earlier(server, "slow", HOUR)
    with serve(tmp_path, "--allow-code", environment=ENVIRONMENT) as server:
        place.server, place.sagemaker, place.watch = server, client(server), client(server, "cloudwatch")
        place.baking("back")
        runtime = client(server, "sagemaker-runtime")
        assert {"one:x", "two:x"} == {said(runtime, "back") for _ in range(40)}
        assert "two" == settled(place.sagemaker, "on")["EndpointConfigName"]
        described = settled(place.sagemaker, "slow")
        assert ("one", True) == (
            described["EndpointConfigName"],
            "within MaximumExecutionTimeoutInSeconds (3601)" in described["FailureReason"],
        )
        place.set(alarm, "ALARM")
        described = settled(place.sagemaker, "back")
        assert ("one", "InService") == (described["EndpointConfigName"], described["EndpointStatus"])
        assert "after says so" in described["FailureReason"]
        assert {"one:x"} == {said(runtime, "back") for _ in range(10)}
