"""Scalable targets: RegisterScalableTarget, DescribeScalableTargets, DeregisterScalableTarget; their tags; their
activities."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from serving.api.autoscaling_checks import check_capacity, check_namespace, existing, key, page_size, registered
from serving.api.control_call import ControlCall, Outcome
from serving.errors import ResourceLimitExceeded, ResourceNotFound, TooManyTags, ValidationError
from serving.fleet import activities, scaling_records
from serving.fleet.activities import ACTIVITY
from serving.fleet.records import MOST_TAGS
from serving.fleet.scaling_records import TARGET
from serving.fleet.store import Query, Record
from serving.scaling.values import NAMESPACE, Resource

Body = Mapping[str, Any]

#: Application Auto Scaling, quotas: scalable targets of SageMaker.
MOST_TARGETS = 500
_ROLE = (
    "arn:aws:iam::{account}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)
_FLAGS = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


def register(call: ControlCall) -> Outcome:
    """RegisterScalableTarget: a new target, or what is given of one that is there."""
    params = call.params
    resource, least = existing(call, key(call))
    before = call.session.get(TARGET, scaling_records.key(resource))
    given = {name: params[name] for name in ("MinCapacity", "MaxCapacity", "RoleARN") if name in params}
    body = {**(before.body if before else _new(call, resource)), **given}
    body["SuspendedState"] = {**body["SuspendedState"], **params.get("SuspendedState", {})}
    check_capacity(body, resource, least)
    if before is not None:
        if params.get("Tags"):
            raise ValidationError("Tags cannot be given for a scalable target that is registered: use TagResource")
        record = call.session.change(before, now=call.now, body=body)
    else:
        record = Record(
            TARGET, scaling_records.key(resource), body, call.now, call.now, "", resource.id, resource.dimension
        )
        call.session.add(record)
        _put_tags(call, record, params.get("Tags", {}))
    return Outcome({"ScalableTargetARN": body["ScalableTargetARN"]}, (scaling_records.tag(TARGET, resource),))


def _new(call: ControlCall, resource: Resource) -> dict[str, Any]:
    for name in ("MinCapacity", "MaxCapacity"):
        if name not in call.params:
            raise ValidationError(f"{name} is required to register a new scalable target")
    if call.session.count(TARGET) >= MOST_TARGETS:
        raise ResourceLimitExceeded(f"There are {MOST_TARGETS} scalable targets, which is as many as there may be.")
    account = call.settings.account_id
    return {
        "ResourceId": resource.id,
        "ScalableDimension": resource.dimension,
        "RoleARN": _ROLE.format(account=account),
        "SuspendedState": dict.fromkeys(_FLAGS, False),
        "ScalableTargetARN": f"arn:aws:application-autoscaling:{call.region}:{account}:scalable-target/{uuid.uuid4()}",
        "Origin": "declared" if call.trusted else "api",
    }


def describe(call: ControlCall) -> Outcome:
    """DescribeScalableTargets."""
    params = call.params
    ids = {one.lower() for one in params.get("ResourceIds", ())}
    if "ScalableDimension" in params and not ids:
        raise ValidationError("ResourceIds must be given together with ScalableDimension")

    def wanted(record: Record) -> bool:
        return not ids or record.parent.lower() in ids

    return page(call, TARGET, "ScalableTargets", wanted, _shown)


def _shown(record: Record) -> Body:
    return {**record.body, "ServiceNamespace": NAMESPACE, "CreationTime": record.created}


def deregister(call: ControlCall) -> Outcome:
    """DeregisterScalableTarget: with its policies, their alarms, and its scheduled actions."""
    gone = scaling_records.remove_target(call.session, registered(call), call.now)
    return Outcome({}, tuple(gone))


def describe_activities(call: ControlCall) -> Outcome:
    """DescribeScalingActivities, newest first. Those that came to nothing are not kept for long: when they are asked
    for, the newest of them are on the first page, among the others."""
    outcome = page(call, ACTIVITY, "ScalingActivities", _any, _activity, descending=True)
    params, most = call.params, page_size(call.params)
    if not params.get("IncludeNotScaledActivities") or "NextToken" in params:
        return outcome
    where = {name: params[name].lower() for name in ("ResourceId", "ScalableDimension") if name in params}
    idle = [
        one for one in call.watched.not_scaled() if all(one[name].lower() == value for name, value in where.items())
    ]
    room = max(most - len(outcome.answer["ScalingActivities"]), most // 2)
    shown = page(call, ACTIVITY, "ScalingActivities", _any, _activity, True, len(idle[:room]))
    told = [*shown.answer["ScalingActivities"], *idle[:room]]
    return Outcome({**shown.answer, "ScalingActivities": sorted(told, key=_begun, reverse=True)})


def _any(record: Record) -> bool:
    return True


def _begun(activity: Body) -> float:
    return float(activity["StartTime"])


def _activity(record: Record) -> Body:
    where = {"ResourceId": record.parent, "ScalableDimension": record.facet}
    return {"ServiceNamespace": NAMESPACE, **where, **activities.told(record)}


# --- pages ------------------------------------------------------------------------------------------------------------


def page(
    call: ControlCall,
    kind: str,
    member: str,
    wanted: Callable[[Record], bool],
    shown: Callable[[Record], Body],
    descending: bool = False,
    taken: int = 0,
) -> Outcome:
    """A page of a Describe* call, of the ResourceId and ScalableDimension it names. A page with a token has something
    on it. ``taken``: places on it that are for others."""
    params = call.params
    check_namespace(params)
    if "ScalableDimension" in params and "ResourceId" not in params and "ResourceIds" not in params:
        raise ValidationError("ResourceId must be given together with ScalableDimension")
    token, records = params.get("NextToken", ""), []
    while True:
        query = Query(
            kind,
            descending=descending,
            limit=max(1, page_size(params) - taken),
            token=token,
            parent=params.get("ResourceId", ""),
            facet=params.get("ScalableDimension", ""),
        )
        found, token = call.session.find(query)
        records = [record for record in found if wanted(record)]
        if records or not token:
            break
    answer: dict[str, Any] = {member: [shown(record) for record in records]}
    return Outcome({**answer, "NextToken": token} if token else answer)


# --- tags -------------------------------------------------------------------------------------------------------------


def tag(call: ControlCall) -> Outcome:
    """TagResource: a scalable target."""
    _put_tags(call, _by_arn(call), call.params["Tags"])
    return Outcome({})


def untag(call: ControlCall) -> Outcome:
    """UntagResource: keys that are not there are no error."""
    record = _by_arn(call)
    call.session.drop_tags(TARGET, record.name, call.params["TagKeys"])
    return Outcome({})


def list_tags(call: ControlCall) -> Outcome:
    """ListTagsForResource."""
    return Outcome({"Tags": dict(call.session.tags(TARGET, _by_arn(call).name))})


def _by_arn(call: ControlCall) -> Record:
    arn = call.params["ResourceARN"]
    for record in call.session.every(TARGET):
        if record.body["ScalableTargetARN"] == arn:
            return record
    raise ResourceNotFound(f"Resource not found: {arn}")


def _put_tags(call: ControlCall, record: Record, tags: Mapping[str, str]) -> None:
    if not tags:
        return
    for name in tags:
        if name.lower().startswith("aws:"):
            raise ValidationError(f'Tag key "{name}" is refused: the prefix aws: is reserved.')
    if len(dict(call.session.tags(TARGET, record.name)) | dict(tags)) > MOST_TAGS:
        raise TooManyTags(f"A resource has at most {MOST_TAGS} tags.")
    call.session.put_tags(TARGET, record.name, list(tags.items()))
