"""The two alarms of a target tracking policy, as PutMetricAlarm would make them (``behaviour/07``, target tracking).

Their periods follow the server's (``SERVING_SCALING_PERIOD_SECONDS``): 3 of 3 above the target, 15 of 15 below 0.9 of
it. High-resolution metrics come every sixth of a period; scaling in is as slow as for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.scaling.values import COPIES, INSTANCES, PROVISIONED, Resource

Body = Mapping[str, Any]

HIGH_PERIODS, LOW_PERIODS = 3, 15
#: The low alarm's threshold, of the target.
LOW_SHARE = 0.9
#: AWS: 10 s of 60.
_HIGH_RESOLUTION = 6


class Predefined(NamedTuple):
    """A metric that AWS has a word for."""

    dimension: str
    metric: str
    statistic: str
    high_resolution: bool = False


PREDEFINED: Mapping[str, Predefined] = {
    "SageMakerVariantInvocationsPerInstance": Predefined(INSTANCES, "InvocationsPerInstance", "Sum"),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": Predefined(
        INSTANCES, "ConcurrentRequestsPerModel", "Maximum", True
    ),
    "SageMakerVariantProvisionedConcurrencyUtilization": Predefined(
        PROVISIONED, "ServerlessProvisionedConcurrencyUtilization", "Maximum"
    ),
    "SageMakerInferenceComponentInvocationsPerCopy": Predefined(COPIES, "InvocationsPerCopy", "Sum"),
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": Predefined(
        COPIES, "ConcurrentRequestsPerCopy", "Maximum", True
    ),
}


def alarm_bodies(resource: Resource, policy: Body, period: float) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The high and the low alarm of a policy's record body (``scaling_records.py``); no low one with DisableScaleIn.
    ``period``: seconds."""
    config = policy["TargetTrackingScalingPolicyConfiguration"]
    kind = config.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
    fast = kind is not None and PREDEFINED[kind].high_resolution

    def alarm(which: str, comparison: str, threshold: float, periods: int, seconds: float) -> dict[str, Any]:
        return {
            "AlarmName": f"TargetTracking-{resource.id}-Alarm{which}-{policy['AlarmId'][which]}",
            "AlarmDescription": f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy['PolicyARN']}.",
            "ActionsEnabled": True,
            "AlarmActions": [policy["PolicyARN"]],
            **_measured(resource, config, _plain(seconds)),
            "EvaluationPeriods": periods,
            "DatapointsToAlarm": periods,
            "Threshold": threshold,
            "ComparisonOperator": comparison,
            "TreatMissingData": "missing",
            "Policy": {"PolicyARN": policy["PolicyARN"], **_key(resource), "PolicyName": policy["PolicyName"]},
            "PerMinute": True,
        }

    target = float(config["TargetValue"])
    high = alarm("High", "GreaterThanThreshold", target, HIGH_PERIODS, period / _HIGH_RESOLUTION if fast else period)
    if config.get("DisableScaleIn"):
        return high, None
    return high, alarm("Low", "LessThanThreshold", LOW_SHARE * target, LOW_PERIODS, period)


def _measured(resource: Resource, config: Body, period: float) -> dict[str, Any]:
    """What the alarms look at."""
    kind = config.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
    if kind is not None:
        predefined = PREDEFINED[kind]
        return {
            "Namespace": "AWS/SageMaker",
            "MetricName": predefined.metric,
            "Dimensions": _dimensions(resource),
            "Statistic": predefined.statistic,
            "Period": period,
        }
    custom = config["CustomizedMetricSpecification"]
    if "Metrics" in custom:
        return {"Metrics": [_query(one, period) for one in custom["Metrics"]], "Period": period}
    return {
        **{member: custom[member] for member in ("Namespace", "MetricName", "Statistic", "Unit") if member in custom},
        "Dimensions": custom.get("Dimensions", []),
        "Period": period,
    }


def _query(one: Body, period: float) -> dict[str, Any]:
    if "MetricStat" not in one:
        return {"ReturnData": True, **one, "Period": period}
    return {"ReturnData": True, **one, "MetricStat": {**one["MetricStat"], "Period": period}}


def _dimensions(resource: Resource) -> list[dict[str, str]]:
    """CloudWatch's of a resource."""
    parts = resource.id.split("/")
    if resource.dimension == COPIES:
        return [{"Name": "InferenceComponentName", "Value": parts[1]}]
    return [{"Name": "EndpointName", "Value": parts[1]}, {"Name": "VariantName", "Value": parts[3]}]


def _key(resource: Resource) -> dict[str, str]:
    return {"ResourceId": resource.id, "ScalableDimension": resource.dimension}


def _plain(seconds: float) -> float:
    """60, not 60.0: CloudWatch's periods are whole numbers."""
    return int(seconds) if seconds == int(seconds) else seconds
