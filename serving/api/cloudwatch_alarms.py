"""Alarms of the CloudWatch API: made, shown, set, forgotten. They are evaluated in ``fleet/alarms.py``."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from serving.api.cloudwatch_checks import check_alarm, dimensions
from serving.api.control_call import ControlCall, Outcome
from serving.errors import (
    InvalidFormat,
    InvalidParameterCombination,
    ResourceLimitExceeded,
    ResourceNotFound,
)
from serving.fleet import alarm_records, tokens
from serving.fleet.alarm_records import ALARM, HISTORY
from serving.fleet.store import Query, Record
from serving.scaling.values import AlarmReading

#: CloudWatch's own limit per region.
MOST_ALARMS = 5_000
#: On a page, when nothing is said.
_PAGE, _HISTORY_PAGE = 50, 100
#: Lists that CloudWatch shows whether or not anything is in them.
_LISTS = ("OKActions", "AlarmActions", "InsufficientDataActions")
#: Seals page tokens, which are good until the server ends.
_SECRET = secrets.token_bytes(32)
#: What belongs to a target tracking policy and stays, whoever puts its alarm anew.
_OWNERS = ("Policy", "PerMinute")


def put(call: ControlCall) -> Outcome:
    """PutMetricAlarm: a new alarm, or the whole configuration of one that is there."""
    params = dict(call.params)
    tags = params.pop("Tags", [])
    check_alarm(params)
    name = params["AlarmName"]
    before = alarm_records.get(call.session, name)
    if before is None and call.session.count(ALARM) >= MOST_ALARMS:
        raise ResourceLimitExceeded(f"There are {MOST_ALARMS} alarms already, which is as many as there may be.")
    kept = {member: before.body[member] for member in _OWNERS if before and member in before.body}
    record = alarm_records.put(call.session, params | kept, call.now)
    if before is None and tags:
        call.session.put_tags(ALARM, record.name, [(tag["Key"], tag["Value"]) for tag in tags])
    return Outcome({}, touched=(alarm_records.tag(name),))


def describe(call: ControlCall) -> Outcome:
    """DescribeAlarms: those that match, by name, in pages. There are no composite alarms here."""
    params = call.params
    if "AlarmNames" in params and "AlarmNamePrefix" in params:
        raise InvalidParameterCombination("AlarmNames and AlarmNamePrefix cannot be used together.")
    found = sorted(_matching(call), key=lambda record: str(record.body["AlarmName"]))
    purpose = [params.get(name) for name in ("AlarmNames", "AlarmNamePrefix", "StateValue", "ActionPrefix")]
    after = tokens.unseal(_SECRET, purpose, params.get("NextToken", ""))
    if after:
        found = [record for record in found if record.body["AlarmName"] > after[0]]
    page = found[: params.get("MaxRecords", _PAGE)]
    answer: dict[str, Any] = {"MetricAlarms": [shown(call, record) for record in page], "CompositeAlarms": []}
    if len(found) > len(page):
        answer["NextToken"] = tokens.seal(_SECRET, purpose, [page[-1].body["AlarmName"]])
    return Outcome(answer)


def _matching(call: ControlCall) -> Iterable[Record]:
    params = call.params
    if "MetricAlarm" not in params.get("AlarmTypes", ["MetricAlarm"]):
        return []
    if "ChildrenOfAlarmName" in params or "ParentsOfAlarmName" in params:
        return []  # only composite alarms have any
    if "AlarmNames" in params:
        named = (alarm_records.get(call.session, name) for name in dict.fromkeys(params["AlarmNames"]))
        records = [record for record in named if record is not None]
    else:
        records = call.session.every(ALARM)
    prefix, actions, state = params.get("AlarmNamePrefix", ""), params.get("ActionPrefix"), params.get("StateValue")
    return [
        record
        for record in records
        if record.body["AlarmName"].startswith(prefix)
        and state in (None, record.status)
        and (actions is None or any(arn.startswith(actions) for arn in record.body.get("AlarmActions", [])))
    ]


def describe_for_metric(call: ControlCall) -> Outcome:
    """DescribeAlarmsForMetric: the alarms on exactly this metric."""
    wanted = call.params
    same = ("MetricName", "Namespace")
    if_said = ("Statistic", "ExtendedStatistic", "Period", "Unit")
    found = [
        shown(call, record)
        for record in call.session.every(ALARM)
        if all(record.body.get(name) == wanted[name] for name in same)
        and all(record.body.get(name) == wanted[name] for name in if_said if name in wanted)
        and dimensions(record.body) == dimensions(wanted)
    ]
    return Outcome({"MetricAlarms": found})


def shown(call: ControlCall, record: Record) -> dict[str, Any]:
    """An alarm as CloudWatch describes it."""
    body = record.body
    told = {
        **{name: [] for name in (*_LISTS, "Dimensions")},
        "ActionsEnabled": True,
        **body,
        "AlarmArn": alarm_arn(call, body["AlarmName"]),
        "StateValue": alarm_records.stored_reading(record).state,
    }
    if isinstance(told.get("Period"), float):  # a policy's periods may be shorter than CloudWatch's can be
        told["Period"] = math.ceil(told["Period"])
    return told


def alarm_arn(call: ControlCall, name: str) -> str:
    """The alarm's ARN."""
    return f"arn:aws:cloudwatch:{call.region}:{call.settings.account_id}:alarm:{name}"


def history(call: ControlCall) -> Outcome:
    """DescribeAlarmHistory: what happened to one alarm or to all, newest first unless asked otherwise."""
    params = call.params
    if "MetricAlarm" not in params.get("AlarmTypes", ["MetricAlarm"]):
        return Outcome({"AlarmHistoryItems": []})
    query = Query(
        HISTORY,
        descending=params.get("ScanBy") != "TimestampAscending",
        limit=params.get("MaxRecords", _HISTORY_PAGE),
        token=params.get("NextToken", ""),
        created_after=params.get("StartDate"),
        created_before=params.get("EndDate"),
        status=params.get("HistoryItemType", ""),
        parent=alarm_records.key(params["AlarmName"]) if "AlarmName" in params else "",
    )
    records, token = call.session.find(query)
    items = [
        {**record.body, "Timestamp": record.created, "HistoryItemType": record.status, "AlarmType": "MetricAlarm"}
        for record in records
    ]
    return Outcome({"AlarmHistoryItems": items, **({"NextToken": token} if token else {})})


def delete(call: ControlCall) -> Outcome:
    """DeleteAlarms: all that are named, or none."""
    names = list(dict.fromkeys(call.params["AlarmNames"]))
    for name in names:
        if not alarm_records.remove(call.session, name, call.now):
            raise _unknown(name)
    return Outcome({}, touched=tuple(alarm_records.tag(name) for name in names))


def set_state(call: ControlCall) -> Outcome:
    """SetAlarmState: the alarm is in this state until its next evaluation finds another."""
    params = call.params
    data = params.get("StateReasonData", "")
    if data and not _is_json(data):
        raise InvalidFormat("StateReasonData is not valid JSON.")
    record = alarm_records.get(call.session, params["AlarmName"])
    if record is None:
        raise _unknown(params["AlarmName"])
    before = alarm_records.stored_reading(record)
    since = before.since if before.state == params["StateValue"] else call.now
    reading = AlarmReading(params["StateValue"], params["StateReason"], (), since, call.now)
    alarm_records.change_state(call.session, record, reading, data)
    return Outcome({}, touched=(alarm_records.tag(params["AlarmName"]),))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def switch_actions(enabled: bool) -> Callable[[ControlCall], Outcome]:
    """EnableAlarmActions, DisableAlarmActions. Names of no alarm are passed over, as CloudWatch does."""

    def action(call: ControlCall) -> Outcome:
        named = (alarm_records.get(call.session, name) for name in dict.fromkeys(call.params["AlarmNames"]))
        changing = [one for one in named if one is not None and one.body.get("ActionsEnabled", True) != enabled]
        for record in changing:
            alarm_records.put(call.session, {**record.body, "ActionsEnabled": enabled}, call.now)
        return Outcome({}, touched=tuple(alarm_records.tag(record.body["AlarmName"]) for record in changing))

    return action


def _unknown(name: str) -> ResourceNotFound:
    return ResourceNotFound(f"Unknown alarm: {name}.")
