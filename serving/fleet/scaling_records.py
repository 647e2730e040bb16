"""What scales, as records of the store, and as the values that policies are decided on.

Kinds ``scalable-target``, ``scaling-policy``, ``scheduled-action`` (parent: the ResourceId; facet: the
ScalableDimension); a name says which resource it is of, and for the latter two a digest of their own names, in which
case counts. Bodies are as their operations were given, and ours, each with "Origin": "api" | "declared"::

    target   {"ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity", "RoleARN", "SuspendedState": {…},
              "ScalableTargetARN"}
    policy   {"PolicyARN", "PolicyName", "PolicyType", "ResourceId", "ScalableDimension", "Period": 5.0,
              "StepScalingPolicyConfiguration" or "TargetTrackingScalingPolicyConfiguration" and
              "AlarmId": {"High": uuid, "Low": uuid}}
    action   {"ScheduledActionARN", "ScheduledActionName", "ResourceId", "ScalableDimension", "Schedule", "Timezone",
              "StartTime", "EndTime", "ScalableTargetAction": {…}}

A target tracking policy's alarms are ordinary alarms, written in the same transaction (``tracking_alarms.py``); those
of a step scaling policy are whoever's name its ARN as an action.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.fleet import alarm_records
from serving.fleet.endpoints import COMPONENT, ENDPOINT
from serving.fleet.records import Query as Found
from serving.fleet.records import Record, Session
from serving.fleet.tracking_alarms import alarm_bodies
from serving.scaling.values import (
    COPIES,
    Alarm,
    Metric,
    Policy,
    Query,
    Resource,
    Stat,
    Step,
    StepScaling,
    Target,
    TargetTracking,
)

Body = Mapping[str, Any]

TARGET, POLICY, ACTION = "scalable-target", "scaling-policy", "scheduled-action"

#: AWS's 300 s are five of its periods: a cooldown that is not said is so many of ours.
COOLDOWN_PERIODS = 5
_PAGE = 100


class Scheduled(NamedTuple):
    """A scheduled action. ``schedule`` and ``timezone`` as they were given; times in epoch seconds; None: not said."""

    resource: Resource
    name: str
    schedule: str
    timezone: str
    start: float | None
    end: float | None
    minimum: int | None
    maximum: int | None


# --- names ------------------------------------------------------------------------------------------------------------


def key(resource: Resource, name: str = "") -> str:
    """The name of a target's record, or of that of its policy or scheduled action of this name."""
    digest = f":{hashlib.sha256(name.encode()).hexdigest()[:16]}" if name else ""
    return f"{resource.id}:{resource.dimension}{digest}"


def tag(kind: str, resource: Resource, name: str = "") -> str:
    """How actions and drivers call such a record."""
    return tag_of(kind, key(resource, name))


def tag_of(kind: str, name: str) -> str:
    """The same, of a record's own name."""
    return f"{kind}/{name.lower()}"


def resource_of(body: Body) -> Resource:
    """What a record, or a request, is about."""
    return Resource(body["ResourceId"], body["ScalableDimension"])


def resource_record(session: Session, resource: Resource) -> Record | None:
    """The endpoint or inference component that is scaled; None when there is none of that name."""
    parts = resource.id.split("/")
    if resource.dimension == COPIES:
        return session.get(COMPONENT, parts[1]) if len(parts) == 2 and parts[0] == "inference-component" else None
    shape = len(parts) == 4 and parts[0] == "endpoint" and parts[2] == "variant"
    return session.get(ENDPOINT, parts[1]) if shape else None


# --- values -----------------------------------------------------------------------------------------------------------


def targets(session: Session) -> list[Target]:
    """All scalable targets, oldest first."""
    return [target_of(record.body) for record in session.every(TARGET)]


def target_of(body: Body) -> Target:
    """A target's record."""
    suspended = body.get("SuspendedState", {})
    return Target(
        resource_of(body),
        body["MinCapacity"],
        body["MaxCapacity"],
        suspended.get("DynamicScalingInSuspended", False),
        suspended.get("DynamicScalingOutSuspended", False),
        suspended.get("ScheduledScalingSuspended", False),
    )


def policies(session: Session) -> dict[Resource, list[Policy]]:
    """All scaling policies by what they scale, oldest first."""
    found: dict[Resource, list[Policy]] = {}
    for record in session.every(POLICY):
        found.setdefault(resource_of(record.body), []).append(policy_of(record.body))
    return found


def policy_of(body: Body) -> Policy:
    """A policy's record."""
    usual = COOLDOWN_PERIODS * body["Period"]
    if body["PolicyType"] == "StepScaling":
        return _step_scaling(body, usual)
    config = body["TargetTrackingScalingPolicyConfiguration"]
    high, low = alarm_bodies(resource_of(body), body, body["Period"])
    return TargetTracking(
        body["PolicyName"],
        float(config["TargetValue"]),
        alarm_of(high),
        alarm_of(low) if low else None,
        float(config.get("ScaleOutCooldown", usual)),
        float(config.get("ScaleInCooldown", usual)),
    )


def _step_scaling(body: Body, usual: float) -> StepScaling:
    config = body["StepScalingPolicyConfiguration"]
    steps = (
        Step(one.get("MetricIntervalLowerBound"), one.get("MetricIntervalUpperBound"), one["ScalingAdjustment"])
        for one in config["StepAdjustments"]
    )
    return StepScaling(
        body["PolicyName"],
        body["PolicyARN"],
        config["AdjustmentType"],
        tuple(steps),
        config.get("MinAdjustmentMagnitude", 0),
        float(config.get("Cooldown", usual)),
        config.get("MetricAggregationType", "Average"),
    )


def scheduled(session: Session) -> list[Scheduled]:
    """All scheduled actions, oldest first."""
    return [scheduled_of(record.body) for record in session.every(ACTION)]


def scheduled_of(body: Body) -> Scheduled:
    """A scheduled action's record."""
    limits = body["ScalableTargetAction"]
    return Scheduled(
        resource_of(body),
        body["ScheduledActionName"],
        body["Schedule"],
        body.get("Timezone", "UTC"),
        body.get("StartTime"),
        body.get("EndTime"),
        limits.get("MinCapacity"),
        limits.get("MaxCapacity"),
    )


def alarm_of(body: Body) -> Alarm:
    """An alarm, from PutMetricAlarm's members. Raises ``ValidationError`` for one that looks at nothing."""
    per_minute = bool(body.get("PerMinute"))
    if "Metrics" in body:
        queries = tuple(_query(one, per_minute) for one in body["Metrics"])
        periods = [one.get("MetricStat", {}).get("Period") or one.get("Period") or 0 for one in body["Metrics"]]
        period = body.get("Period") or max(periods, default=0)
    else:
        queries, period = (Query("m1", _stat(body, body, per_minute)),), body.get("Period", 0)
    if not queries or period <= 0:
        raise ValidationError("The alarm names no metric, or no period.")
    return Alarm(
        body["AlarmName"],
        queries,
        float(period),
        body["EvaluationPeriods"],
        body.get("DatapointsToAlarm", body["EvaluationPeriods"]),
        float(body["Threshold"]),
        body["ComparisonOperator"],
        body.get("TreatMissingData", "missing"),
        tuple(body.get("AlarmActions", ())) if body.get("ActionsEnabled", True) else (),
    )


def _query(one: Body, per_minute: bool) -> Query:
    stat = one.get("MetricStat")
    return Query(
        one["Id"],
        _stat(stat["Metric"], stat, per_minute) if stat else None,
        one.get("Expression", ""),
        one.get("ReturnData", True),
    )


def _stat(metric: Body, how: Body, per_minute: bool) -> Stat:
    """``metric`` has its namespace, name and dimensions, ``how`` the statistic."""
    statistic = how.get("Stat") or how.get("Statistic") or how.get("ExtendedStatistic") or "Average"
    pairs = sorted((one["Name"], one["Value"]) for one in metric.get("Dimensions", ()))
    named = Metric(metric.get("Namespace", ""), metric.get("MetricName", ""), tuple(pairs))
    return Stat(named, statistic, per_minute and statistic in ("Sum", "SampleCount"))


# --- changes ----------------------------------------------------------------------------------------------------------


def put_alarms(session: Session, policy: Body, now: float) -> list[str]:
    """Write a target tracking policy's alarms, and forget its low one where it has none any more; the tags of all."""
    high, low = alarm_bodies(resource_of(policy), policy, policy["Period"])
    wanted = [high, low] if low else [high]
    for body in wanted:
        alarm_records.put(session, body, now)
    names = {body["AlarmName"] for body in wanted}
    for name in alarm_names(policy):
        if name not in names:
            alarm_records.remove(session, name, now)
    return [alarm_records.tag(name) for name in alarm_names(policy)]


def alarm_names(policy: Body) -> list[str]:
    """Those that a target tracking policy's alarms have, or would have; none for step scaling."""
    return [f"TargetTracking-{policy['ResourceId']}-Alarm{w}-{id}" for w, id in policy.get("AlarmId", {}).items()]


def of_resource(session: Session, kind: str, resource: Resource) -> list[Record]:
    """All records of a kind that are a target's, newest first."""
    found: list[Record] = []
    token, more = "", True
    while more:
        page, token = session.find(Found(kind, parent=resource.id, facet=resource.dimension, limit=_PAGE, token=token))
        found += page
        more = bool(token)
    return found


def remove_policy(session: Session, record: Record, now: float) -> list[str]:
    """Forget a policy and its alarms; their tags."""
    session.remove(POLICY, record.name)
    names = alarm_names(record.body)
    for name in names:
        alarm_records.remove(session, name, now)
    return [tag_of(POLICY, record.name), *map(alarm_records.tag, names)]


def remove_target(session: Session, record: Record, now: float) -> list[str]:
    """Forget a target, its policies with their alarms, and its scheduled actions; the tags of all."""
    resource = resource_of(record.body)
    gone = [tag_of(TARGET, record.name)]
    for policy in of_resource(session, POLICY, resource):
        gone += remove_policy(session, policy, now)
    for action in of_resource(session, ACTION, resource):
        session.remove(ACTION, action.name)
        gone.append(tag_of(ACTION, action.name))
    session.remove(TARGET, record.name)
    return gone


def targets_of(session: Session, record: Record) -> list[Record]:
    """The targets that scale an endpoint's variants, or an inference component."""
    name = record.name.lower()
    start = f"inference-component/{name}:" if record.kind == COMPONENT else f"endpoint/{name}/"
    return [one for one in session.every(TARGET) if one.name.lower().startswith(start)]


def forget(session: Session, record: Record, now: float) -> tuple[str, ...]:
    """An endpoint or inference component goes: so does all that scales it. The tags of what is gone."""
    gone: list[str] = []
    for target in targets_of(session, record):
        gone += remove_target(session, target, now)
    return tuple(gone)


def tidy(session: Session, period: float, now: float) -> None:
    """At the start of a server: forget what scales something that is no more, and let policies follow the server's
    period, in seconds."""
    for record in session.every(TARGET):
        if not _is_there(session, resource_of(record.body)):
            remove_target(session, record, now)
    for record in session.every(POLICY):
        if record.body["Period"] != period:
            changed = session.change(record, now=now, body={**record.body, "Period": period})
            if "AlarmId" in changed.body:
                put_alarms(session, changed.body, now)


def _is_there(session: Session, resource: Resource) -> bool:
    """Has its endpoint the variant, now or soon? Is there the component?"""
    record = resource_record(session, resource)
    if record is None or resource.dimension == COPIES:
        return record is not None
    deployments = (record.body[name] for name in ("Serving", "Pending") if name in record.body)
    return any(resource.id.split("/")[3] in deployment["Variants"] for deployment in deployments)


def forget_undeclared(session: Session, declared: Collection[str], now: float) -> None:
    """What an operator once declared lives as long as it is declared. ``declared``: the records' names (``key``), in
    lower case."""
    for kind in (TARGET, POLICY, ACTION):
        for record in session.every(kind):
            if record.body.get("Origin") != "declared" or record.name.lower() in declared:
                continue
            if kind == TARGET:
                remove_target(session, record, now)
            elif kind == POLICY:
                remove_policy(session, record, now)
            else:
                session.remove(kind, record.name)
