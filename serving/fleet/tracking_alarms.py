"""The two alarms of a target tracking policy, as PutMetricAlarm would make them (``behaviour/07``, target tracking).

Their periods follow the server's (``SERVING_SCALING_PERIOD_SECONDS``): 3 of 3 above the target, 15 of 15 below 0.9 of
it. High-resolution metrics come every sixth of a period; scaling in is as slow as for the others. Where the period is
shorter than AWS's, every predefined metric comes that often: whoever chose it wants to be followed in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.scaling.values import COPIES, INSTANCES, MINUTE, PROVISIONED, Resource
from serving.watch import catalogue

Body = Mapping[str, Any]

HIGH_PERIODS, LOW_PERIODS = 3, 15
#: The low alarm's threshold, of the target.
LOW_SHARE = 0.9
#: AWS: 10 s of 60.
_HIGH_RESOLUTION = 6
#: The meters look twice in so many seconds at most (``watch/meters.py``): in less, calls that come steadily do not.
_SHORTEST = 0.1


#: AWS's words for the metrics of each dimension; what they are, ``watch/catalogue.py`` knows.
PREDEFINED: Mapping[str, str] = {
    "SageMakerVariantInvocationsPerInstance": INSTANCES,
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": INSTANCES,
    "SageMakerVariantProvisionedConcurrencyUtilization": PROVISIONED,
    "SageMakerInferenceComponentInvocationsPerCopy": COPIES,
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": COPIES,
}


def alarm_bodies(resource: Resource, policy: Body, period: float) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The high and the low alarm of a policy's record body (``scaling_records.py``); no low one with DisableScaleIn.
    ``period``: seconds."""
    config = policy["TargetTrackingScalingPolicyConfiguration"]
    predefined = _predefined(config)
    fast = predefined.endswith("HighResolution") or (bool(predefined) and period < MINUTE)

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
    often = min(period, max(period / _HIGH_RESOLUTION, _SHORTEST)) if fast else period
    high = alarm("High", "GreaterThanThreshold", target, HIGH_PERIODS, often)
    if config.get("DisableScaleIn"):
        return high, None
    return high, alarm("Low", "LessThanThreshold", LOW_SHARE * target, LOW_PERIODS, period)


def _measured(resource: Resource, config: Body, period: float) -> dict[str, Any]:
    """What the alarms look at."""
    kind = _predefined(config)
    if kind:
        stat = catalogue.predefined(kind, resource)
        return {
            "Namespace": stat.metric.namespace,
            "MetricName": stat.metric.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in stat.metric.dimensions],
            "Statistic": stat.statistic,
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


def _predefined(config: Body) -> str:
    return str(config.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType", ""))


def _key(resource: Resource) -> dict[str, str]:
    return {"ResourceId": resource.id, "ScalableDimension": resource.dimension}


def _plain(seconds: float) -> float:
    """60, not 60.0: CloudWatch's periods are whole numbers."""
    return int(seconds) if seconds == int(seconds) else seconds
