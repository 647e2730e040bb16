"""Facts about how scaling is told to people: lines of a terminal, a panel of a page, a file of what should be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from serving import elastic
from serving.api.console import capacity
from serving.client import Server
from serving.config import Settings
from serving.deploying import scaled
from serving.errors import ConfigError
from serving.fleet import scaling_records
from serving.fleet.store import Session
from serving.scaling.values import Resource
from serving.sections import ALARMS, POLICIES, TARGETS
from tests.autoscaling import PER_INSTANCE, VARIANT, opened

NOW = datetime(2026, 11, 21, 12, 0, 0).timestamp()
RESOURCE = Resource(VARIANT["ResourceId"], VARIANT["ScalableDimension"])
HOSTILE = "<img src=x onerror=alert(1)>"


def view(**more: Any) -> dict[str, Any]:
    """What control tells of an endpoint with one target."""
    decision = {
        "Time": NOW - 60,
        "Current": 1,
        "Desired": 2,
        "Cause": "monitor alarm a in state ALARM triggered policy p",
        "Policy": "p",
        "Measured": {"p": "99 of 70 (high ALARM, low OK)"},
        "NotScaledReasons": ["AlreadyAtMaxCapacity"],
        "Outcome": "",
    }
    quiet = {**decision, "Time": NOW - 30, "Current": 2, "NotScaledReasons": [], "Policy": "", "Cause": ""}
    target = {
        "ResourceId": "endpoint/e/variant/V",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "Name": "V",
        "MinCapacity": 1,
        "MaxCapacity": 4,
        "SuspendedState": {"DynamicScalingInSuspended": True, "ScheduledScalingSuspended": False},
        "DesiredCapacity": 3,
        "CurrentCapacity": 2,
        "Blocked": "",
        "CooldownLeft": {"Out": 12.3, "In": 0.0},
        "Policies": [{"PolicyName": "p", "Metric": "InvocationsPerInstance", "TargetValue": 70.0}],
        "ScheduledActions": [
            {"ScheduledActionName": "n", "Schedule": "rate(1 day)", "MinCapacity": None, "MaxCapacity": 2, "Next": NOW}
        ],
        "Latest": quiet,
        "Decisions": [quiet, decision],
        "Activities": [
            {"StartTime": NOW - 86_400 * 2, "StatusCode": "Failed", "Description": "Setting.", "StatusMessage": "No."}
        ],
        **more,
    }
    return {"EndpointName": "e", "PeriodSeconds": 5.0, "Time": NOW, "Targets": [target]}


def test_a_person_is_told_what_matters() -> None:
    """Capacity as a bar, what holds it back, what was measured and decided; nothing of looks that came to nothing."""
    assert [
        "endpoint e, evaluated every 5 s",
        "",
        "variant V: 2 of 3 workers ready, 1 to 4 allowed  [##+.]",
        "  suspended: DynamicScalingIn",
        "  cooldown: out 12 s",
        "  policy p: 99 of 70 (high ALARM, low OK)",
        "  scheduled n: max 2, rate(1 day), next 12:00:00",
        "  decided:",
        "    11:59:00  1 -> 2; p: 99 of 70 (high ALARM, low OK); AlreadyAtMaxCapacity",
        "  done:",
        "    2026-11-19 12:00  Failed      No.",
    ] == elastic.lines(view())


def test_a_target_of_which_little_is_known_is_told_too() -> None:
    """Before the first look, without workers, more than a bar can show, blocked."""
    told = elastic.lines(
        view(Latest=None, Decisions=[], Activities=[], DesiredCapacity=None, MaxCapacity=500, Blocked="It is Updating.")
    )
    assert "variant V: 2 of 0 workers ready, 1 to 500 allowed  " == told[2]
    assert "  blocked: It is Updating." == told[3]
    assert "  policy p: nothing measured yet" in told
    assert "nothing scales it" in elastic.lines({**view(), "Targets": []})[1]


def test_a_panel_tells_the_same_and_no_name_becomes_markup() -> None:
    """The target of a load is for its chart."""
    panel = capacity.scaling(view(Name=HOSTILE, Blocked=HOSTILE))
    assert "<img" not in panel
    for text in (
        "InvocationsPerInstance",
        "99 of 70 (high ALARM, low OK)",
        "1 → 2",
        "AlreadyAtMaxCapacity",
        "rate(1 day)",
    ):
        assert text in panel
    assert "Nothing scales this endpoint" in capacity.scaling({})
    assert {"V": 70.0} == capacity.targets(view())
    assert {} == capacity.targets(view(Policies=[{"PolicyName": "s"}]))


class Recorded(Server):
    """A server of which only the calls are seen. ``described``: DescribeEndpoint's answer."""

    def __init__(self, **described: Any) -> None:
        super().__init__("http://127.0.0.1:1", Settings())
        self.described = described
        self.calls: list[tuple[str, Mapping[str, Any]]] = []

    def call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Noted."""
        self.calls.append((operation.rpartition(".")[2], params))
        return self.described


def test_the_only_variant_need_not_be_named() -> None:
    """Several must; a serverless one has another dimension, and a component needs no endpoint."""
    one = Recorded(ProductionVariants=[{"VariantName": "V"}])
    elastic.scale(one, "e", elastic.Wish(minimum=1, maximum=2, target=70.0))
    assert ["DescribeEndpoint", "RegisterScalableTarget", "PutScalingPolicy"] == [name for name, _ in one.calls]
    assert VARIANT | {"ResourceId": "endpoint/e/variant/V", "MinCapacity": 1, "MaxCapacity": 2} == one.calls[1][1]
    assert PER_INSTANCE == one.calls[2][1]["TargetTrackingScalingPolicyConfiguration"]
    many = Recorded(ProductionVariants=[{"VariantName": "V"}, {"VariantName": "W", "CurrentServerlessConfig": {}}])
    with pytest.raises(ConfigError, match="V, W: name one"):
        elastic.scale(many, "e", elastic.Wish(minimum=1))
    assert "endpoint/e/variant/W is no scalable target any more" == elastic.leave(many, "e", elastic.Wish(variant="W"))
    assert "sagemaker:variant:DesiredProvisionedConcurrency" == many.calls[-1][1]["ScalableDimension"]
    component = Recorded()
    elastic.scale(component, "e", elastic.Wish(component="C", minimum=0, maximum=2))
    assert [("RegisterScalableTarget", "inference-component/C")] == [
        (name, params["ResourceId"]) for name, params in component.calls
    ]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (elastic.Wish(target=0.0), "greater than 0"),
        (elastic.Wish(target=float("nan")), "greater than 0"),
        (elastic.Wish(target=float("inf")), "greater than 0"),
        (elastic.Wish(target=1.0, metric="load"), "there is invocations, concurrency"),
        (elastic.Wish(variant="X"), "name one"),
    ],
)
def test_a_wish_that_makes_no_sense_registers_nothing(wish: elastic.Wish, text: str) -> None:
    """It is found before the first call that changes something."""
    server = Recorded(ProductionVariants=[{"VariantName": "V"}])
    with pytest.raises(ConfigError, match=text):
        elastic.scale(server, "e", wish)
    assert ["DescribeEndpoint"] == [name for name, _ in server.calls]


def test_only_what_differs_is_put_again() -> None:
    """What the server adds is no difference; tags are for what is new; an action that names a policy is its ARN."""
    target = {**VARIANT, "MinCapacity": 1, "MaxCapacity": 2}
    tagged = {**target, "Tags": {"team": "blue"}}
    policy = {**VARIANT, "PolicyName": "p", "StepScalingPolicyConfiguration": {"Cooldown": 5}}
    alarm = {"AlarmName": "a", "AlarmActions": ["p", "arn:other"]}
    there: dict[str, Any] = {
        "DescribeScalableTargets": {"ScalableTargets": [{**target, "MaxCapacity": 3, "RoleARN": "r"}]},
        "DescribeScalingPolicies": {"ScalingPolicies": [{**policy, "PolicyARN": "arn:p", "Alarms": []}]},
        "DescribeAlarms": {},
    }
    called: list[tuple[str, Mapping[str, Any]]] = []

    async def call(operation: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        called.append((operation.rpartition(".")[2], params))
        answer: Mapping[str, Any] = there.get(operation.rpartition(".")[2], {})
        return answer

    said: list[str] = []
    asyncio.run(scaled([(TARGETS, tagged), (POLICIES, policy), (ALARMS, alarm)], call, said.append))
    assert ["scalable target of endpoint/E/variant/V differs", "alarm a is new"] == said
    assert [
        ("RegisterScalableTarget", target),
        ("PutMetricAlarm", {"AlarmName": "a", "AlarmActions": ["arn:p", "arn:other"]}),
    ] == [one for one in called if not one[0].startswith("Describe")]


def test_what_was_declared_goes_when_it_is_not_any_more(tmp_path: Path) -> None:
    """A policy alone, an action, or the target with all; what came through the API stays."""
    with opened(tmp_path) as scaling:
        scaling.register()
        for name in ("p", "q"):
            scaling.step(name)

        def declare(session: Session, name: str) -> None:
            record = session.get("scaling-policy", scaling_records.key(RESOURCE, name))
            assert record is not None
            session.change(record, now=1.0, body={**record.body, "Origin": "declared"})

        with scaling.store.write() as session:
            declare(session, "p")
            scaling_records.forget_undeclared(session, (), 2.0)
        assert ["q"] == [one.name for many in scaling.of(scaling_records.policies).values() for one in many]
        assert 1 == len(scaling.of(scaling_records.targets))
