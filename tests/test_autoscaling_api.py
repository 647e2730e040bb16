"""Facts about the Application Auto Scaling API: what may be registered, what is refused, what goes with what."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.api.autoscaling_steps import check_steps
from serving.api.control_call import Watched
from serving.config import Settings
from serving.errors import (
    InvalidNextToken,
    ObjectNotFound,
    ResourceNotFound,
    ServingError,
    TooManyTags,
    ValidationError,
)
from serving.fleet import activities, alarm_records, scaling_records
from serving.fleet.store import Record
from serving.scaling.values import (
    INSTANCES,
    Alarm,
    Metric,
    NotScaled,
    Resource,
    Stat,
    StepScaling,
    TargetTracking,
)
from tests.autoscaling import ASYNC, COMPONENT, PER_INSTANCE, SERVERLESS, STEPS, VARIANT, Scaling, endpoint, opened

RESOURCE = Resource("endpoint/E/variant/V", INSTANCES)
NO_TARGET = (
    "No scalable target registered for service namespace: sagemaker, resource ID: endpoint/E/variant/V, scalable "
    "dimension: sagemaker:variant:DesiredInstanceCount"
)


@pytest.fixture
def scaling(tmp_path: Path) -> Iterator[Scaling]:
    """On a world of endpoints that nothing scales yet."""
    with opened(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaling]:
    """A target that refused calls leave as it is."""
    with opened(tmp_path_factory.mktemp("shared")) as made:
        made.register()
        yield made


def stored_alarm(scaling: Scaling, name: str) -> Alarm:
    """The alarm of this name, as it is evaluated."""
    return scaling_records.alarm_of(scaling.of(lambda session: alarm_records.get(session, name)).body)


# --- targets ----------------------------------------------------------------------------------------------------------


def test_a_target_is_described_as_it_was_registered(scaling: Scaling) -> None:
    """With its ARN, a role, and nothing suspended; under the endpoint's own spelling."""
    arn = scaling.register(VARIANT | {"ResourceId": "endpoint/e/variant/v"}, 1, 4)
    (target,) = scaling("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"})["ScalableTargets"]
    assert arn.startswith("arn:aws:application-autoscaling:us-east-1:123456789012:scalable-target/")
    assert arn == target["ScalableTargetARN"]
    assert VARIANT.items() <= target.items()
    assert (1, 4) == (target["MinCapacity"], target["MaxCapacity"])
    assert target["RoleARN"].startswith("arn:aws:iam::123456789012:role/aws-service-role/sagemaker")
    assert {False} == set(target["SuspendedState"].values())


def test_registering_again_changes_only_what_is_given(scaling: Scaling) -> None:
    """Its ARN stays; flags that are not said stay too."""
    arn = scaling.register(low=1, high=4)
    scaling("RegisterScalableTarget", SuspendedState={"DynamicScalingInSuspended": True})
    scaling("RegisterScalableTarget", SuspendedState={"ScheduledScalingSuspended": True}, MaxCapacity=9)
    (target,) = scaling.of(scaling_records.targets)
    assert (1, 9, True, False, True) == (
        target.minimum,
        target.maximum,
        target.suspended_in,
        target.suspended_out,
        target.suspended_schedule,
    )
    assert arn == scaling("RegisterScalableTarget", MinCapacity=2)["ScalableTargetARN"]
    assert "cannot be less than minimum" in scaling.refusal("RegisterScalableTarget", MaxCapacity=1)


@pytest.mark.parametrize(
    ("key", "limits", "text"),
    [
        (VARIANT, {"MinCapacity": 1}, "MaxCapacity is required"),
        (VARIANT, {"MaxCapacity": 1}, "MinCapacity is required"),
        (VARIANT, {"MinCapacity": 5, "MaxCapacity": 4}, "Maximum capacity cannot be less than minimum capacity"),
        (VARIANT, {"MinCapacity": 0, "MaxCapacity": 4}, "Minimum capacity cannot be less than 1"),
        (COMPONENT, {"MinCapacity": -1, "MaxCapacity": 4}, "Minimum capacity cannot be less than 0"),
        (SERVERLESS, {"MinCapacity": 0, "MaxCapacity": 4}, "Minimum capacity cannot be less than 1"),
        (SERVERLESS, {"MinCapacity": 1, "MaxCapacity": 201}, "cannot be more than 200"),
        (VARIANT | {"ResourceId": "endpoint/x/variant/V"}, {}, "Endpoint does not exist"),
        (VARIANT | {"ResourceId": "endpoint/E/variant/x"}, {}, "no production variant"),
        (COMPONENT | {"ResourceId": "inference-component/x"}, {}, "Inference component does not exist"),
        (VARIANT | {"ResourceId": "endpoint/less/variant/V"}, {}, "is serverless"),
        (SERVERLESS | {"ResourceId": "endpoint/E/variant/V"}, {}, "not serverless"),
        (VARIANT | {"ResourceId": "endpoint/E"}, {}, "Unsupported service namespace"),
        (VARIANT | {"ResourceId": "endpoint//variant/V"}, {}, "Unsupported service namespace"),
        (VARIANT | {"ResourceId": "inference-component/C"}, {}, "Unsupported service namespace"),
        (VARIANT | {"ScalableDimension": "ecs:service:DesiredCount"}, {}, "Unsupported service namespace"),
        (VARIANT | {"ServiceNamespace": "ecs"}, {}, "Unsupported service namespace"),
        (VARIANT | {"ScalableDimension": "nonsense"}, {}, "enum value set"),
        (VARIANT, {"MinCapacity": 1, "MaxCapacity": 2**40}, "maxCapacity"),
    ],
)
def test_what_cannot_be_scaled_is_not_registered(
    scaling: Scaling, key: dict[str, Any], limits: dict[str, Any], text: str
) -> None:
    """400 ValidationException; there is no target then."""
    assert text in scaling.refusal("RegisterScalableTarget", key, **(limits or {"MinCapacity": 1, "MaxCapacity": 2}))
    assert [] == scaling.everything()


@pytest.mark.parametrize("key", [ASYNC, COMPONENT])
def test_queues_and_components_may_go_to_zero(scaling: Scaling, key: dict[str, Any]) -> None:
    """Real-time variants only where the operator says so."""
    scaling.register(key, 0, 2)
    assert [0] == [target.minimum for target in scaling.of(scaling_records.targets)]
    scaling.settings = Settings(scale_to_zero=True)
    scaling.register(VARIANT, 0, 2)
    assert [0, 0] == [target.minimum for target in scaling.of(scaling_records.targets)]


def test_an_endpoint_that_goes_cannot_be_scaled(scaling: Scaling) -> None:
    """Nor one that has failed."""
    with scaling.store.write() as session:
        for name, status in (("going", "Deleting"), ("broken", "Failed")):
            made = endpoint(name)
            session.add(Record("endpoint", name, made.body, 1.0, 1.0, status))
    for name in ("going", "broken"):
        key = VARIANT | {"ResourceId": f"endpoint/{name}/variant/V"}
        assert "does not exist" in scaling.refusal("RegisterScalableTarget", key, MinCapacity=1, MaxCapacity=2)


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        ({"VariantName": "W"}, 'updated to configuration "other", which has no variant V'),
        ({"InstanceType": "ml.c5.large"}, "which changes the instance type of variant V"),
    ],
)
def test_what_an_update_under_way_takes_away_cannot_be_scaled(
    scaling: Scaling, variant: dict[str, Any], text: str
) -> None:
    """A target would be left of what is no more; with an update that keeps the variant there is one."""
    for name, pending in (("leaving", endpoint("_", **variant)), ("staying", endpoint("_", InstanceType=""))):
        body = {**endpoint(name).body, "Pending": pending.body["Serving"] | {"EndpointConfigName": "other"}}
        with scaling.store.write() as session:
            session.add(Record("endpoint", name, body, 1.0, 1.0, "Updating"))
    leaving, staying = (VARIANT | {"ResourceId": f"endpoint/{name}/variant/V"} for name in ("leaving", "staying"))
    assert text in scaling.refusal("RegisterScalableTarget", leaving, MinCapacity=1, MaxCapacity=2)
    scaling.register(staying)


def test_deregistering_takes_everything_along(scaling: Scaling) -> None:
    """Policies, their alarms, scheduled actions; those of others stay. What has gone is told to those who scale."""
    for key in (VARIANT, ASYNC):
        scaling.register(key)
        scaling.track("p", key)
        action = {"ScheduledActionName": "n", "Schedule": "rate(5 minutes)"}
        scaling("PutScheduledAction", key, **action, ScalableTargetAction={"MinCapacity": 2})
    assert 10 == len(scaling.everything())
    assert {} == scaling("DeregisterScalableTarget")
    assert 5 == len(scaling.touched)
    assert 5 == len(scaling.everything())
    for operation in ("DeregisterScalableTarget", "PutScalingPolicy", "DeleteScalingPolicy", "DeleteScheduledAction"):
        more = {"PolicyName": "p"} if "Policy" in operation else {}
        more |= {"ScheduledActionName": "n"} if "Action" in operation else {}
        assert NO_TARGET == scaling.error(ObjectNotFound, operation, **more)


def test_what_scales_goes_with_what_is_scaled(scaling: Scaling) -> None:
    """An endpoint takes the targets of its variants along, an inference component its own; no name is mistaken."""
    with scaling.store.write() as session:
        session.add(endpoint("EE"))
    for key in (VARIANT, VARIANT | {"ResourceId": "endpoint/EE/variant/V"}, COMPONENT):
        scaling.register(key)
    scaling.track()
    with scaling.store.write() as session:
        gone, component = session.get("endpoint", "E"), session.get("inference-component", "C")
        assert gone is not None
        assert component is not None
        assert 4 == len(scaling_records.forget(session, gone, 1.0))
        assert 1 == len(scaling_records.forget(session, component, 1.0))
    assert ["endpoint/EE/variant/V"] == [record.parent for record in scaling.everything()]


def test_a_start_forgets_what_scales_nothing(scaling: Scaling) -> None:
    """An endpoint that was taken away while its targets stayed."""
    scaling.register()
    scaling.track()
    with scaling.store.write() as session:
        session.remove("endpoint", "E")
        scaling_records.tidy(session, 5.0, 1.0)
    assert [] == scaling.everything()


def test_policies_follow_the_servers_period(scaling: Scaling) -> None:
    """A server with another period has other alarms, under the same names, and other usual cooldowns."""
    scaling.register()
    scaling.track()
    (before,) = scaling.of(scaling_records.policies)[RESOURCE]
    with scaling.store.write() as session:
        scaling_records.tidy(session, 60.0, 1.0)
    (after,) = scaling.of(scaling_records.policies)[RESOURCE]
    assert (5.0 / 6, 25.0, 60.0, 300.0) == (
        before.high.period,
        before.out_cooldown,
        after.high.period,
        after.in_cooldown,
    )
    assert before.high.name == after.high.name
    assert after.high == stored_alarm(scaling, after.high.name)


# --- describing -------------------------------------------------------------------------------------------------------


def test_targets_are_told_page_by_page(scaling: Scaling) -> None:
    """Oldest first, no one twice; a token of another list is none."""
    with scaling.store.write() as session:
        session.add_all(endpoint(f"e{at}") for at in range(7))
    keys = [VARIANT | {"ResourceId": f"endpoint/e{at}/variant/V"} for at in range(7)]
    for key in keys:
        scaling.register(key)
    namespace, seen, token = {"ServiceNamespace": "sagemaker"}, list[str](), dict[str, str]()
    while True:
        answer = scaling("DescribeScalableTargets", namespace, MaxResults=3, **token)
        seen += [target["ResourceId"] for target in answer["ScalableTargets"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert [key["ResourceId"] for key in keys] == seen
    assert "NextToken" in scaling.error(InvalidNextToken, "DescribeScalingPolicies", namespace, **token)
    some = [keys[6]["ResourceId"], keys[2]["ResourceId"].upper()]
    answer = scaling("DescribeScalableTargets", namespace, ResourceIds=some, MaxResults=1)
    assert keys[2]["ResourceId"] == answer["ScalableTargets"][0]["ResourceId"]


@pytest.mark.parametrize(
    ("operation", "params", "text"),
    [
        ("DescribeScalableTargets", {"ScalableDimension": INSTANCES}, "ResourceIds must be given"),
        ("DescribeScalingPolicies", {"ScalableDimension": INSTANCES}, "ResourceId must be given"),
        ("DescribeScheduledActions", {"MaxResults": 0}, "from 1 to 50"),
        ("DescribeScalingActivities", {"MaxResults": 51}, "from 1 to 50"),
        ("DescribeScalableTargets", {"NextToken": "nonsense"}, "NextToken"),
        ("DescribeScalingActivities", {"ServiceNamespace": "ecs"}, "Unsupported service namespace"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(
    shared: Scaling, operation: str, params: dict[str, Any], text: str
) -> None:
    """400 ValidationException or InvalidNextTokenException."""
    assert text in shared.refusal(operation, {"ServiceNamespace": "sagemaker", **params})


def test_activities_are_told_newest_first(scaling: Scaling) -> None:
    """In AWS's words, with the key of what was scaled; those that came to nothing only when asked for."""
    scaling.register()
    with scaling.store.write() as session:
        first = activities.begin(
            session, RESOURCE, activities.Counts(1, 2, 2), "monitor alarm a in state ALARM triggered policy p", 10.0
        )
        activities.end(session, first.name, 12.0)
        activities.begin(
            session, RESOURCE, activities.Counts(2, 3, 3), "monitor alarm a in state ALARM triggered policy p", 20.0
        )
    told = scaling("DescribeScalingActivities", ScalableDimension=INSTANCES)["ScalingActivities"]
    assert ["InProgress", "Successful"] == [one["StatusCode"] for one in told]
    assert {"sagemaker"} == {one["ServiceNamespace"] for one in told}
    assert (
        "Successfully set desired instance count to 2. Change successfully fulfilled by sagemaker."
        == told[1]["StatusMessage"]
    )
    reasons = [activities.reason(NotScaled("AlreadyAtMaxCapacity", maximum=3, current=3))]
    idle = [{**told[0], "ActivityId": f"idle{at}", "StartTime": 15.0, "NotScaledReasons": reasons} for at in range(3)]
    scaling.watched = Watched(not_scaled=lambda: [*idle, {**idle[0], "ResourceId": "endpoint/other/variant/V"}])
    told = scaling("DescribeScalingActivities", IncludeNotScaledActivities=True)["ScalingActivities"]
    assert [20.0, 15.0, 15.0, 15.0, 10.0] == [one["StartTime"] for one in told]
    assert 2 == len(scaling("DescribeScalingActivities")["ScalingActivities"])
    few = scaling("DescribeScalingActivities", IncludeNotScaledActivities=True, MaxResults=2)
    assert [20.0, 15.0] == [one["StartTime"] for one in few["ScalingActivities"]]
    rest = scaling(
        "DescribeScalingActivities", IncludeNotScaledActivities=True, MaxResults=2, NextToken=few["NextToken"]
    )
    assert [10.0] == [one["StartTime"] for one in rest["ScalingActivities"]]


# --- target tracking --------------------------------------------------------------------------------------------------


def test_a_target_tracking_policy_comes_with_two_alarms(scaling: Scaling) -> None:
    """Above the target 3 periods of 3, below 0.9 of it 15 of 15; AWS's names."""
    scaling.register()
    answer = scaling.track()
    high, low = answer["Alarms"]
    assert high["AlarmName"].startswith("TargetTracking-endpoint/E/variant/V-AlarmHigh-")
    assert low["AlarmARN"] == f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{low['AlarmName']}"
    head, tail = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:", ":policyName/p"
    assert answer["PolicyARN"].startswith(head)
    assert answer["PolicyARN"].endswith(f":resource/sagemaker/endpoint/E/variant/V{tail}")
    above, below = (stored_alarm(scaling, one["AlarmName"]) for one in (high, low))
    assert (3, 3, 70.0, "GreaterThanThreshold") == (
        above.evaluations,
        above.datapoints,
        above.threshold,
        above.comparison,
    )
    assert (15, 15, 63.0, "LessThanThreshold") == (
        below.evaluations,
        below.datapoints,
        below.threshold,
        below.comparison,
    )
    assert (5.0 / 6, 5.0) == (above.period, below.period)
    dimensions = (("EndpointName", "E"), ("VariantName", "V"))
    assert Stat(Metric("AWS/SageMaker", "InvocationsPerInstance", dimensions), "Sum", True) == above.queries[0].stat
    assert (answer["PolicyARN"],) == above.actions


def test_a_high_resolution_metric_is_looked_at_more_often(scaling: Scaling) -> None:
    """A sixth of the period to scale out; scaling in is as slow as for others."""
    scaling.settings = Settings(scaling_period_seconds=60.0)
    scaling.register(COMPONENT)
    kind = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    scaling.track("p", COMPONENT, PredefinedMetricSpecification={"PredefinedMetricType": kind})
    ((policy,),) = scaling.of(scaling_records.policies).values()
    assert isinstance(policy, TargetTracking)
    assert policy.low is not None
    assert (10.0, 60.0) == (policy.high.period, policy.low.period)


def test_a_policy_put_again_is_changed_where_it_says(scaling: Scaling) -> None:
    """Same ARN and alarms; without scaling in there is no low alarm, and it comes back."""
    scaling.register()
    first = scaling.track(ScaleOutCooldown=7)
    again = scaling.track(TargetValue=50.0, DisableScaleIn=True)
    assert (first["PolicyARN"], first["Alarms"][:1]) == (again["PolicyARN"], again["Alarms"])
    ((policy,),) = scaling.of(scaling_records.policies).values()
    assert (50.0, None, 7.0) == (policy.value, policy.low, policy.out_cooldown)
    assert 1 == scaling.of(lambda session: session.count("alarm"))
    assert first["Alarms"] == scaling.track(DisableScaleIn=False)["Alarms"]
    assert 2 == scaling.of(lambda session: session.count("alarm"))


def test_metric_maths_reaches_the_alarms(scaling: Scaling) -> None:
    """Queries with the policy's period; one is the result."""
    scaling.register()
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "Invocations", "Dimensions": []}
    queries = [
        {"Id": "m1", "MetricStat": {"Metric": metric, "Stat": "Sum"}, "ReturnData": False},
        {"Id": "e1", "Expression": "m1 / 2"},
    ]
    custom = {"CustomizedMetricSpecification": {"Metrics": queries}, "TargetValue": 3.0}
    scaling(
        "PutScalingPolicy",
        PolicyName="m",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=custom,
    )
    ((policy,),) = scaling.of(scaling_records.policies).values()
    first, second = policy.high.queries
    assert ("Sum", True, False) == (first.stat.statistic, first.stat.per_minute, first.returned)
    assert ("m1 / 2", None, True) == (second.expression, second.stat, second.returned)
    assert 5.0 == policy.high.period


def _tracking(**config: Any) -> dict[str, Any]:
    return {"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": config}


_METRIC = {"MetricName": "m", "Namespace": "n", "Statistic": "Average"}
_QUERY = {"Id": "m1", "MetricStat": {"Metric": {"Namespace": "n", "MetricName": "m"}, "Stat": "Sum"}}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (_tracking(**PER_INSTANCE | {"TargetValue": 0}), "greater than 0"),
        (_tracking(**PER_INSTANCE | {"TargetValue": -5}), "greater than 0"),
        (_tracking(**PER_INSTANCE | {"TargetValue": 1e300}), "at most 2^360"),
        (_tracking(**PER_INSTANCE | {"TargetValue": "many"}), "targetValue"),
        (_tracking(**PER_INSTANCE, ScaleInCooldown=-1), "ScaleInCooldown cannot be negative"),
        (_tracking(TargetValue=1), "Either PredefinedMetricSpecification or"),
        (_tracking(**PER_INSTANCE, CustomizedMetricSpecification=_METRIC), "and not both"),
        (
            _tracking(
                TargetValue=1,
                PredefinedMetricSpecification={"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"},
            ),
            "not valid for scalable dimension",
        ),
        (
            _tracking(
                TargetValue=1, PredefinedMetricSpecification={"PredefinedMetricType": "ALBRequestCountPerTarget"}
            ),
            "not valid for scalable dimension",
        ),
        (
            _tracking(
                TargetValue=1,
                PredefinedMetricSpecification=PER_INSTANCE["PredefinedMetricSpecification"] | {"ResourceLabel": "l"},  # type: ignore[operator]  # a mapping
            ),
            "ResourceLabel cannot be given",
        ),
        (_tracking(TargetValue=1, CustomizedMetricSpecification={"MetricName": "m"}), "Namespace, Statistic"),
        (_tracking(TargetValue=1, CustomizedMetricSpecification=_METRIC | {"Metrics": [_QUERY]}), "not both"),
        (_tracking(TargetValue=1, CustomizedMetricSpecification={"Metrics": []}), "At least one"),
        (_tracking(TargetValue=1, CustomizedMetricSpecification={"Metrics": [_QUERY, _QUERY]}), "unique"),
        (
            _tracking(TargetValue=1, CustomizedMetricSpecification={"Metrics": [_QUERY, _QUERY | {"Id": "m2"}]}),
            "xactly one",
        ),
        (
            _tracking(TargetValue=1, CustomizedMetricSpecification={"Metrics": [_QUERY | {"Expression": "m1"}]}),
            "either a MetricStat or an Expression",
        ),
        (
            _tracking(TargetValue=1, CustomizedMetricSpecification={"Metrics": [{"Id": "e1", "Expression": "m1 +"}]}),
            "Metrics: ",
        ),
        (
            _tracking(
                TargetValue=1,
                CustomizedMetricSpecification={
                    "Metrics": [
                        {"Id": "m1", "MetricStat": {"Metric": {"Namespace": "n", "MetricName": "m"}, "Stat": "Most"}}
                    ]
                },
            ),
            "statistic 'Most'",
        ),
        ({"PolicyType": "StepScaling"}, "StepScalingPolicyConfiguration must be given"),
        (_tracking(**PER_INSTANCE) | {"PolicyType": "StepScaling"}, "StepScalingPolicyConfiguration must be given"),
        (_tracking(**PER_INSTANCE) | {"StepScalingPolicyConfiguration": STEPS}, "and no other"),
        ({"PolicyType": "PredictiveScaling"}, "not supported"),
        ({"PolicyType": "Other"}, "enum value set"),
        ({"PolicyName": "a\x07b", **_tracking(**PER_INSTANCE)}, "policyName"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(shared: Scaling, params: dict[str, Any], text: str) -> None:
    """400 ValidationException; there is no policy and no alarm then."""
    assert text in shared.refusal("PutScalingPolicy", **{"PolicyName": "p", **params})


def test_one_metric_is_tracked_once(scaling: Scaling) -> None:
    """Two policies of one metric could only contradict each other."""
    scaling.register()
    scaling.track("one")
    refused = scaling.refusal("PutScalingPolicy", PolicyName="two", **_tracking(**PER_INSTANCE | {"TargetValue": 9.0}))
    assert "Only one TargetTrackingScaling policy for a given metric specification is allowed." == refused
    assert "delete it" in scaling.refusal(
        "PutScalingPolicy", PolicyName="one", PolicyType="StepScaling", StepScalingPolicyConfiguration=STEPS
    )


def test_names_of_policies_mind_case(scaling: Scaling) -> None:
    """As AWS's do; and one is forgotten by its own name only."""
    scaling.register()
    scaling.track("p")
    scaling.step("P")
    found = scaling("DescribeScalingPolicies")["ScalingPolicies"]
    assert {"p", "P"} == {one["PolicyName"] for one in found}
    named = scaling("DescribeScalingPolicies", {"ServiceNamespace": "sagemaker"}, PolicyNames=["P"])
    assert ["StepScaling"] == [one["PolicyType"] for one in named["ScalingPolicies"]]
    scaling("DeleteScalingPolicy", PolicyName="p")
    assert [0] == [len(one["Alarms"]) for one in scaling("DescribeScalingPolicies")["ScalingPolicies"]]
    assert scaling.error(ObjectNotFound, "DeleteScalingPolicy", PolicyName="p").endswith("policy name: p")


# --- step scaling -----------------------------------------------------------------------------------------------------


def test_a_step_policy_shows_the_alarms_that_name_it(scaling: Scaling) -> None:
    """None is made for it."""
    scaling.register()
    arn = scaling.step(Cooldown=9)["PolicyARN"]
    assert [] == scaling("DescribeScalingPolicies")["ScalingPolicies"][0]["Alarms"]
    with scaling.store.write() as session:
        alarm_records.put(session, {"AlarmName": "mine", "AlarmActions": [arn]}, 1.0)
    (shown,) = scaling("DescribeScalingPolicies")["ScalingPolicies"]
    assert ["mine"] == [one["AlarmName"] for one in shown["Alarms"]]
    ((policy,),) = scaling.of(scaling_records.policies).values()
    assert isinstance(policy, StepScaling)
    assert (arn, 9.0, (0.0, None, 1)) == (policy.arn, policy.cooldown, policy.steps[0])


def _steps(*bounds: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    names = ("MetricIntervalLowerBound", "MetricIntervalUpperBound")
    return [
        {"ScalingAdjustment": 1, **{name: end for name, end in zip(names, ends, strict=True) if end is not None}}
        for ends in bounds
    ]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"StepAdjustments": _steps((0, None))}, "AdjustmentType must be specified"),
        ({"AdjustmentType": "ExactCapacity"}, "At least one StepAdjustment"),
        (STEPS | {"StepAdjustments": []}, "At least one StepAdjustment"),
        (STEPS | {"StepAdjustments": _steps((None, None))}, "must have a MetricIntervalLowerBound or"),
        (STEPS | {"StepAdjustments": _steps((5, 5))}, "must be less than"),
        (STEPS | {"StepAdjustments": _steps((0, 10), (5, None))}, "overlap"),
        (STEPS | {"StepAdjustments": _steps((0, 10), (15, None))}, "gap"),
        (STEPS | {"StepAdjustments": _steps((0, None), (10, None))}, "At most one"),
        (STEPS | {"StepAdjustments": _steps((0, 10))}, "unspecified upper bound"),
        (STEPS | {"StepAdjustments": _steps((-10, 0))}, "unspecified lower bound"),
        (STEPS | {"StepAdjustments": _steps(*((i, i + 1) for i in range(20)), (20, None))}, "At most 20"),
        (STEPS | {"MinAdjustmentMagnitude": 2}, "only for AdjustmentType PercentChangeInCapacity"),
        (STEPS | {"AdjustmentType": "PercentChangeInCapacity", "MinAdjustmentMagnitude": 0}, "at least 1"),
        (STEPS | {"Cooldown": -1}, "cannot be negative"),
        (
            {
                "AdjustmentType": "ExactCapacity",
                "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": -1}],
            },
            "cannot be negative",
        ),
    ],
)
def test_steps_that_make_no_sense_are_refused(shared: Scaling, config: dict[str, Any], text: str) -> None:
    """400 ValidationException; there is no policy then."""
    assert text in shared.refusal("PutScalingPolicy", PolicyName="s", StepScalingPolicyConfiguration=config)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True))
def test_steps_that_cover_everything_are_taken(cuts: list[int]) -> None:
    """Wherever they are cut, in whatever order they are told; without one of them there is a gap, or an end open."""
    ends: list[float | None] = [None, *map(float, sorted(cuts)), None]
    steps = _steps(*pairwise(ends))
    check_steps({"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps[::-1]})
    if len(steps) > 2:
        with pytest.raises(ValidationError):
            check_steps({"AdjustmentType": "ChangeInCapacity", "StepAdjustments": [steps[0], *steps[2:]]})


# --- scheduled actions ------------------------------------------------------------------------------------------------


def test_a_scheduled_action_is_told_as_it_was_put(scaling: Scaling) -> None:
    """Put again it changes what is said; times left out are removed."""
    scaling.register()
    at = {"ScheduledActionName": "morning", "Schedule": "cron(0 8 * * ? *)", "Timezone": "Europe/Berlin"}
    limits = {"ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 8}}
    scaling("PutScheduledAction", **at, **limits, StartTime=1e9, EndTime=2e9)
    (action,) = scaling("DescribeScheduledActions")["ScheduledActions"]
    assert (at | limits | VARIANT | {"StartTime": 1e9, "EndTime": 2e9}).items() <= action.items()
    assert action["ScheduledActionARN"].endswith(":scheduledActionName/morning")
    scaling("PutScheduledAction", ScheduledActionName="morning", ScalableTargetAction={"MinCapacity": 3})
    (kept,) = scaling.of(scaling_records.scheduled)
    assert ("cron(0 8 * * ? *)", "Europe/Berlin", None, None, 3, None) == kept[2:]
    named = scaling("DescribeScheduledActions", ScheduledActionNames=["evening"])
    assert [] == named["ScheduledActions"]
    scaling("DeleteScheduledAction", ScheduledActionName="morning")
    assert "morning" in scaling.error(ObjectNotFound, "DeleteScheduledAction", ScheduledActionName="morning")


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"Schedule": None}, "Schedule is required"),
        ({"Schedule": "cron(nonsense)"}, "six"),
        ({"Schedule": "cron(61 * * * ? *)"}, "61"),
        ({"Schedule": "every day"}, "every day"),
        ({"Schedule": "at(2026-02-30T00:00:00)"}, "no date"),
        ({"Schedule": "rate(0 minutes)"}, "rate(0 minutes)"),
        ({"Timezone": "Mars/Olympus"}, "time zone"),
        ({"StartTime": 2e9, "EndTime": 1e9}, "after its start time"),
        ({"ScalableTargetAction": None}, "ScalableTargetAction must have"),
        ({"ScalableTargetAction": {}}, "ScalableTargetAction must have"),
        ({"ScalableTargetAction": {"MinCapacity": 5, "MaxCapacity": 4}}, "cannot be less than minimum"),
        ({"ScalableTargetAction": {"MinCapacity": 0}}, "cannot be less than 1"),
        ({"ScheduledActionName": "a/b"}, "scheduledActionName"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(shared: Scaling, params: dict[str, Any], text: str) -> None:
    """400 ValidationException; there is no action then."""
    good = {"ScheduledActionName": "n", "Schedule": "rate(5 minutes)", "ScalableTargetAction": {"MinCapacity": 2}}
    whole = {name: value for name, value in (good | params).items() if value is not None}
    assert text in shared.refusal("PutScheduledAction", **whole)


# --- tags -------------------------------------------------------------------------------------------------------------


def test_a_target_has_tags(scaling: Scaling) -> None:
    """Those it was registered with, then others; 50 at most, none of AWS's own."""
    arn = scaling.register(Tags={"team": "blue"})
    scaling("TagResource", {}, ResourceARN=arn, Tags={"env": "test"})
    assert {"team": "blue", "env": "test"} == scaling("ListTagsForResource", {}, ResourceARN=arn)["Tags"]
    scaling("UntagResource", {}, ResourceARN=arn, TagKeys=["team", "other"])
    assert {"env": "test"} == scaling("ListTagsForResource", {}, ResourceARN=arn)["Tags"]
    many = {f"k{at}": "" for at in range(50)}
    assert "50 tags" in scaling.error(TooManyTags, "TagResource", {}, ResourceARN=arn, Tags=many)
    assert "reserved" in scaling.refusal("TagResource", {}, ResourceARN=arn, Tags={"aws:x": ""})
    assert "TagResource" in scaling.refusal("RegisterScalableTarget", Tags={"a": "b"})
    unknown = arn[:-1] + ("0" if arn[-1] != "0" else "1")
    assert "not found" in scaling.error(ResourceNotFound, "ListTagsForResource", {}, ResourceARN=unknown)


# --- whatever is sent -------------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    ["sagemaker", "ecs", INSTANCES, "endpoint/E/variant/V", "endpoint/", "", "p", "\0", "a" * 2000]
)
_VALUES = st.one_of(
    _WORDS, st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.lists(_WORDS, max_size=2)
)
_MEMBERS = st.sampled_from(
    [
        *(
            "ServiceNamespace",
            "ResourceId",
            "ScalableDimension",
            "MinCapacity",
            "MaxCapacity",
            "SuspendedState",
            "Tags",
        ),
        *("PolicyName", "PolicyType", "StepScalingPolicyConfiguration", "TargetTrackingScalingPolicyConfiguration"),
        *(
            "ScheduledActionName",
            "Schedule",
            "Timezone",
            "StartTime",
            "ScalableTargetAction",
            "NextToken",
            "MaxResults",
        ),
    ]
)


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    operation=st.sampled_from(
        ["RegisterScalableTarget", "PutScalingPolicy", "PutScheduledAction", "DescribeScalingPolicies"]
    ),
    spoilt=st.dictionaries(_MEMBERS, _VALUES, max_size=4),
)
def test_junk_is_the_callers_fault(shared: Scaling, operation: str, spoilt: dict[str, Any]) -> None:
    """Whatever stands wherever: an answer or an error of ours, never a defect."""
    requests: dict[str, dict[str, Any]] = {
        "RegisterScalableTarget": {"MinCapacity": 1, "MaxCapacity": 4},
        "PutScalingPolicy": {"PolicyName": "junk", "StepScalingPolicyConfiguration": STEPS},
        "PutScheduledAction": {
            "ScheduledActionName": "junk",
            "Schedule": "rate(5 minutes)",
            "ScalableTargetAction": {"MinCapacity": 2},
        },
        "DescribeScalingPolicies": {},
    }
    try:
        shared(operation, VARIANT | requests[operation] | spoilt)
    except ServingError as error:
        assert 500 > error.status
