"""What a DeploymentConfig may say (SageMaker API, DeploymentConfig, BlueGreenUpdatePolicy, RollingUpdatePolicy;
``behaviour/08``). Its members are checked by AWS's model; here is what they mean together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.control_call import ControlCall
from serving.errors import ValidationError
from serving.fleet import alarm_records

Body = Mapping[str, Any]

#: Type of traffic routing -> the size it needs, and the least and most percent of the capacity that may be.
_SIZES: Mapping[str, tuple[str, int, int]] = {"CANARY": ("CanarySize", 1, 50), "LINEAR": ("LinearStepSize", 10, 50)}


def check_deployment_config(config: Body) -> None:
    """Raises ``ValidationError`` naming the member."""
    policies = [name for name in ("BlueGreenUpdatePolicy", "RollingUpdatePolicy") if name in config]
    if len(policies) > 1:
        raise ValidationError("DeploymentConfig must not have both BlueGreenUpdatePolicy and RollingUpdatePolicy.")
    if "BlueGreenUpdatePolicy" in config:
        _check_blue_green(config["BlueGreenUpdatePolicy"])
    if "RollingUpdatePolicy" in config:
        _check_rolling(config["RollingUpdatePolicy"])


def check_alarms(call: ControlCall, config: Body) -> None:
    """Every alarm that may roll an update back is there. Raises ``ValidationError``."""
    names = [one.get("AlarmName", "") for one in config.get("AutoRollbackConfiguration", {}).get("Alarms", ())]
    if not all(names):
        raise ValidationError("Each of the Alarms of AutoRollbackConfiguration must have an AlarmName.")
    missing = [name for name in names if alarm_records.get(call.session, name) is None]
    if missing:
        quoted = ", ".join(f'"{name}"' for name in missing)
        raise ValidationError(f"AutoRollbackConfiguration names CloudWatch alarms that do not exist: {quoted}.")


def _check_blue_green(policy: Body) -> None:
    routing = policy["TrafficRoutingConfiguration"]
    for kind, (member, least, most) in _SIZES.items():
        if routing["Type"] == kind:
            if member not in routing:
                raise ValidationError(f"TrafficRoutingConfiguration of type {kind} requires {member}.")
            _check_percent(member, routing[member], least, most)
        elif member in routing:
            raise ValidationError(f"{member} is only for TrafficRoutingConfiguration of type {kind}.")
    waits = routing["WaitIntervalInSeconds"] + policy.get("TerminationWaitInSeconds", 0)
    _check_time(policy, waits)


def _check_rolling(policy: Body) -> None:
    _check_percent("MaximumBatchSize", policy["MaximumBatchSize"], 5, 50)
    if "RollbackMaximumBatchSize" in policy:
        _check_percent("RollbackMaximumBatchSize", policy["RollbackMaximumBatchSize"], 5, 100)
    _check_time(policy, policy["WaitIntervalInSeconds"])


def _check_percent(member: str, size: Body, least: int, most: int) -> None:
    if size["Type"] == "CAPACITY_PERCENT" and not least <= size["Value"] <= most:
        raise ValidationError(f"{member} must be from {least} to {most} percent of the capacity, not {size['Value']}.")


def _check_time(policy: Body, waits: int) -> None:
    limit = policy.get("MaximumExecutionTimeoutInSeconds")
    if limit is not None and limit <= waits:
        raise ValidationError(
            f"MaximumExecutionTimeoutInSeconds must be greater than the sum of the waits, {waits} seconds."
        )
