"""A guarded update as a terminal asks for it: pure."""

from __future__ import annotations

from typing import Any

import pytest

from serving import guardrails
from serving.api.control_deployments import check_deployment_config
from serving.errors import ConfigError

PERCENT = {"Type": "CAPACITY_PERCENT", "Value": 10}
ALARMS = {"Alarms": [{"AlarmName": "5xx"}]}


@pytest.mark.parametrize(
    ("sizes", "alarms", "wanted"),
    [
        ({"canary": "10%"}, (), {"Type": "CANARY", "CanarySize": PERCENT}),
        ({"linear": "10%"}, ("5xx",), {"Type": "LINEAR", "LinearStepSize": PERCENT}),
        ({"canary": "2"}, (), {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 2}}),
        ({}, ("5xx",), {"Type": "ALL_AT_ONCE"}),
    ],
)
def test_options_are_a_deployment_config(
    sizes: dict[str, str], alarms: tuple[str, ...], wanted: dict[str, Any]
) -> None:
    """One that the API takes."""
    made = guardrails.deployment_config(sizes, 60, alarms)
    assert made is not None
    check_deployment_config(made)
    policy = made["BlueGreenUpdatePolicy"]
    assert ({**wanted, "WaitIntervalInSeconds": 60}, 60) == (
        policy["TrafficRoutingConfiguration"],
        policy["TerminationWaitInSeconds"],
    )
    assert (ALARMS if alarms else None) == made.get("AutoRollbackConfiguration")


def test_rolling_is_a_policy_of_its_own() -> None:
    """Of batches."""
    made = guardrails.deployment_config({"rolling": "10%"}, 5, ())
    assert {"RollingUpdatePolicy": {"MaximumBatchSize": PERCENT, "WaitIntervalInSeconds": 5}} == made


def test_without_options_an_update_is_not_guarded() -> None:
    """A bake alone says nothing."""
    assert guardrails.deployment_config({"canary": None}, 60, ()) is None


@pytest.mark.parametrize(
    "sizes",
    [{"canary": "10%", "linear": "10%"}, {"canary": "0"}, {"rolling": "half"}, {"linear": "-1%"}, {"canary": ""}],
)
def test_options_that_say_nothing_or_too_much_are_refused(sizes: dict[str, str]) -> None:
    """One size, above 0."""
    with pytest.raises(ConfigError):
        guardrails.deployment_config(sizes, 60, ())


def test_how_far_an_update_is_is_what_its_variants_say() -> None:
    """The message, or else the state; nothing when nothing is pending."""
    status = {"Status": "Baking", "StatusMessage": "Baking for 60 seconds."}
    pending = {"EndpointConfigName": "two", "ProductionVariants": [{"VariantStatus": [status]}]}
    assert "two: Baking for 60 seconds." == guardrails.progress({"PendingDeploymentSummary": pending})
    assert "" == guardrails.progress({})
