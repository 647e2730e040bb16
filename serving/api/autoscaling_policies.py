"""Scaling policies: PutScalingPolicy, DescribeScalingPolicies, DeleteScalingPolicy."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from serving.api.autoscaling_checks import registered, spelt
from serving.api.autoscaling_metrics import check_metric
from serving.api.autoscaling_steps import check_steps
from serving.api.autoscaling_targets import page
from serving.api.control_call import ControlCall, Outcome
from serving.errors import ObjectNotFound, ResourceLimitExceeded, ValidationError
from serving.fleet import scaling_records
from serving.fleet.alarm_records import ALARM
from serving.fleet.scaling_records import POLICY, resource_of
from serving.fleet.store import Record
from serving.scaling.values import NAMESPACE, Resource

Body = Mapping[str, Any]

#: Application Auto Scaling, quotas.
MOST_POLICIES = 50
_STEPS, _TRACKING = "StepScalingPolicyConfiguration", "TargetTrackingScalingPolicyConfiguration"
_MEMBER = {"StepScaling": _STEPS, "TargetTrackingScaling": _TRACKING}
_METRICS = ("PredefinedMetricSpecification", "CustomizedMetricSpecification")


def put(call: ControlCall) -> Outcome:
    """PutScalingPolicy: a new policy, or what is given of one that is there; a target tracking one with its alarms."""
    params, name = call.params, call.params["PolicyName"]
    resource = resource_of(registered(call).body)
    before = call.session.get(POLICY, scaling_records.key(resource, name))
    body = {**(before.body if before else _new(call, resource)), "Period": call.settings.scaling_period_seconds}
    kind = params.get("PolicyType", body["PolicyType"])
    if kind not in _MEMBER:
        raise ValidationError(f"Policy type {kind} is not supported for service namespace: {NAMESPACE}")
    if before is not None and kind != body["PolicyType"]:
        raise ValidationError(f"The type of policy {name} is {body['PolicyType']}; delete it to make it another")
    body["PolicyType"] = kind
    if [one for one in (*_MEMBER.values(), "PredictiveScalingPolicyConfiguration") if one in params] != [_MEMBER[kind]]:
        raise ValidationError(f"{_MEMBER[kind]} must be given, and no other, for policy type {kind}")
    config = _merged(body.get(_MEMBER[kind], {}), params[_MEMBER[kind]])
    if kind == "StepScaling":
        check_steps(config)
    else:
        check_metric(config, resource)
        _check_alone(call, resource, name, config)
        body.setdefault("AlarmId", {"High": str(uuid.uuid4()), "Low": str(uuid.uuid4())})
    body[_MEMBER[kind]] = config
    record = _kept(call, before, resource, body)
    alarms = scaling_records.put_alarms(call.session, body, call.now) if "AlarmId" in body else []
    everyone = call.session.every(ALARM) if kind == "StepScaling" else ()
    answer = {"PolicyARN": body["PolicyARN"], "Alarms": _alarms(call, record, everyone)}
    return Outcome(answer, (scaling_records.tag(POLICY, resource, name), *alarms))


def _new(call: ControlCall, resource: Resource) -> dict[str, Any]:
    if len(scaling_records.of_resource(call.session, POLICY, resource)) >= MOST_POLICIES:
        raise ResourceLimitExceeded(f"A scalable target has at most {MOST_POLICIES} scaling policies.")
    name, where = call.params["PolicyName"], f"{call.region}:{call.settings.account_id}"
    return {
        "PolicyARN": (
            f"arn:aws:autoscaling:{where}:scalingPolicy:{uuid.uuid4()}:resource/{NAMESPACE}/{resource.id}"
            f":policyName/{name}"
        ),
        "PolicyName": name,
        "PolicyType": call.params.get("PolicyType", "StepScaling"),
        "ResourceId": resource.id,
        "ScalableDimension": resource.dimension,
        "Origin": "declared" if call.trusted else "api",
    }


def _kept(call: ControlCall, before: Record | None, resource: Resource, body: Body) -> Record:
    if before is not None:
        return call.session.change(before, now=call.now, body=body)
    name = scaling_records.key(resource, body["PolicyName"])
    record = Record(POLICY, name, body, call.now, call.now, "", resource.id, resource.dimension)
    call.session.add(record)
    return record


def _merged(old: Body, new: Body) -> dict[str, Any]:
    """What an update does not say stays; a metric takes the other's place."""
    renewed = any(member in new for member in _METRICS)
    return {**{name: value for name, value in old.items() if not (renewed and name in _METRICS)}, **new}


def _check_alone(call: ControlCall, resource: Resource, name: str, config: Body) -> None:
    for other in scaling_records.of_resource(call.session, POLICY, resource):
        theirs = other.body.get(_TRACKING, {})
        same = any(member in config and config[member] == theirs.get(member) for member in _METRICS)
        if same and other.body["PolicyName"] != name:
            raise ValidationError("Only one TargetTrackingScaling policy for a given metric specification is allowed.")


def describe(call: ControlCall) -> Outcome:
    """DescribeScalingPolicies."""
    names, everyone = call.params.get("PolicyNames"), call.session.every(ALARM)
    return page(
        call,
        POLICY,
        "ScalingPolicies",
        lambda record: not names or record.body["PolicyName"] in names,
        lambda record: {
            **record.body,
            "ServiceNamespace": NAMESPACE,
            "CreationTime": record.created,
            "Alarms": _alarms(call, record, everyone),
        },
    )


def _alarms(call: ControlCall, policy: Record, everyone: Sequence[Record]) -> list[dict[str, str]]:
    """A target tracking policy's own; of a step scaling one those of ``everyone`` that name it as an action."""
    names = scaling_records.alarm_names(policy.body)
    arn = policy.body["PolicyARN"]
    if policy.body["PolicyType"] == "StepScaling":
        names = [one.body["AlarmName"] for one in everyone if arn in one.body.get("AlarmActions", ())]
    elif policy.body[_TRACKING].get("DisableScaleIn"):
        names = names[:1]
    where = f"{call.region}:{call.settings.account_id}"
    return [{"AlarmName": name, "AlarmARN": f"arn:aws:cloudwatch:{where}:alarm:{name}"} for name in names]


def delete(call: ControlCall) -> Outcome:
    """DeleteScalingPolicy: a target tracking one with its alarms."""
    resource, name = resource_of(registered(call).body), call.params["PolicyName"]
    record = call.session.get(POLICY, scaling_records.key(resource, name))
    if record is None:
        raise ObjectNotFound(f"No scaling policy found for {spelt(resource)}, policy name: {name}")
    return Outcome({}, tuple(scaling_records.remove_policy(call.session, record, call.now)))
