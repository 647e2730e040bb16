"""Scheduled actions: PutScheduledAction, DescribeScheduledActions, DeleteScheduledAction."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from serving.api.autoscaling_checks import check_capacity, existing, registered, spelt
from serving.api.autoscaling_targets import page
from serving.api.control_call import ControlCall, Outcome
from serving.errors import ObjectNotFound, ResourceLimitExceeded, ValidationError
from serving.fleet import scaling_records
from serving.fleet.scaling_records import ACTION, resource_of
from serving.fleet.store import Record
from serving.scaling import timetable
from serving.scaling.values import NAMESPACE, Resource

#: Application Auto Scaling, quotas.
MOST_ACTIONS = 200


def put(call: ControlCall) -> Outcome:
    """PutScheduledAction: a new action, or what is given of one that is there; times left out are removed."""
    params, name = call.params, call.params["ScheduledActionName"]
    resource, least = existing(call, resource_of(registered(call).body))
    before = call.session.get(ACTION, scaling_records.key(resource, name))
    body = {**(before.body if before else _new(call, resource))}
    for member in ("StartTime", "EndTime"):
        body.pop(member, None)
    if "Schedule" in params:
        body.pop("Timezone", None)
    members = ("Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction")
    body |= {member: params[member] for member in members if member in params}
    _check(body, resource, least)
    if before is not None:
        call.session.change(before, now=call.now, body=body)
    else:
        key = scaling_records.key(resource, name)
        call.session.add(Record(ACTION, key, body, call.now, call.now, "", resource.id, resource.dimension))
    return Outcome({}, (scaling_records.tag(ACTION, resource, name),))


def _new(call: ControlCall, resource: Resource) -> dict[str, Any]:
    if len(scaling_records.of_resource(call.session, ACTION, resource)) >= MOST_ACTIONS:
        raise ResourceLimitExceeded(f"A scalable target has at most {MOST_ACTIONS} scheduled actions.")
    name, where = call.params["ScheduledActionName"], f"{call.region}:{call.settings.account_id}"
    return {
        "ScheduledActionARN": (
            f"arn:aws:autoscaling:{where}:scheduledAction:{uuid.uuid4()}:resource/{NAMESPACE}/{resource.id}"
            f":scheduledActionName/{name}"
        ),
        "ScheduledActionName": name,
        "ResourceId": resource.id,
        "ScalableDimension": resource.dimension,
        "Origin": "declared" if call.trusted else "api",
    }


def _check(body: Mapping[str, Any], resource: Resource, least: int) -> None:
    if "Schedule" not in body:
        raise ValidationError("Schedule is required for a new scheduled action")
    timetable.parse(body["Schedule"], body.get("Timezone", "UTC"), body.get("StartTime"), body.get("EndTime"))
    limits = body.get("ScalableTargetAction", {})
    if not limits:
        raise ValidationError("ScalableTargetAction must have MinCapacity, MaxCapacity or both")
    check_capacity(limits, resource, least)


def describe(call: ControlCall) -> Outcome:
    """DescribeScheduledActions."""
    names = call.params.get("ScheduledActionNames")
    return page(
        call,
        ACTION,
        "ScheduledActions",
        lambda record: not names or record.body["ScheduledActionName"] in names,
        lambda record: {**record.body, "ServiceNamespace": NAMESPACE, "CreationTime": record.created},
    )


def delete(call: ControlCall) -> Outcome:
    """DeleteScheduledAction."""
    resource, name = resource_of(registered(call).body), call.params["ScheduledActionName"]
    if not call.session.remove(ACTION, scaling_records.key(resource, name)):
        raise ObjectNotFound(f"No scheduled action found for {spelt(resource)}, scheduled action name: {name}")
    return Outcome({}, (scaling_records.tag(ACTION, resource, name),))
