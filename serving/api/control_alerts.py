"""What monitoring has found: ListMonitoringSchedules, -Executions, -Alerts and -AlertHistory, UpdateMonitoringAlert.

These lists filter and sort by more than the store has columns for (ScheduledTime, the job definition's name); a server
has at most a thousand schedules and a hundred executions of each, so they are filtered here. The rules are those of all
lists (``control_lists``): filter, sort, then cut pages; After is inclusive, Before exclusive.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_monitoring import details, find_schedule
from serving.errors import ResourceNotFound, ValidationError
from serving.fleet import executions
from serving.fleet.executions import EXECUTION, SCHEDULE
from serving.fleet.store import Query, Record

_PAGE = 100


class _Row(NamedTuple):
    """One thing that is listed: what it sorts and filters by, and how it is shown. ``extra``: what AWS's model has no
    member for."""

    name: str
    created: float
    modified: float
    status: str
    shown: Mapping[str, Any]
    scheduled: float = 0.0
    definition: str = ""
    type: str = ""
    endpoint: str = ""
    extra: Mapping[str, Any] | None = None


def list_schedules(call: ControlCall) -> Outcome:
    """ListMonitoringSchedules."""
    rows = [_schedule(call, record) for record in call.session.every(SCHEDULE)]
    page, token = _page(call, rows)
    return _outcome("MonitoringScheduleSummaries", page, token)


def _schedule(call: ControlCall, record: Record) -> _Row:
    definition = record.body["Definition"]["Name"]
    shown = {
        "MonitoringScheduleName": record.name,
        "MonitoringScheduleArn": call.arn(SCHEDULE, record.name),
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "MonitoringScheduleStatus": record.status,
        "EndpointName": record.parent or None,
        "MonitoringJobDefinitionName": definition or None,
        "MonitoringType": record.facet,
    }
    return _Row(
        record.name,
        record.created,
        record.modified,
        record.status,
        shown,
        definition=definition,
        type=record.facet,
        endpoint=record.parent,
    )


def list_executions(call: ControlCall) -> Outcome:
    """ListMonitoringExecutions. Our extension ``Details`` has one entry beside each summary: ExitMessage, Violations,
    Records, S3OutputPath, Window."""
    schedule = call.params.get("MonitoringScheduleName")
    records = call.session.every(EXECUTION) if schedule is None else of_schedule(call, schedule)
    page, token = _page(call, [_execution(record) for record in records])
    outcome = _outcome("MonitoringExecutionSummaries", page, token)
    return outcome._replace(extension={"Details": [row.extra for row in page]})


def of_schedule(call: ControlCall, name: str) -> list[Record]:
    """The executions of a schedule, which may have gone."""
    found: list[Record] = []
    token, more = "", True
    while more:
        page, token = call.session.find(Query(EXECUTION, parent=name, limit=_PAGE, token=token))
        found += page
        more = bool(token)
    return found


def _execution(record: Record) -> _Row:
    return _Row(
        record.name,
        record.created,
        record.modified,
        record.status,
        executions.summary(record),
        scheduled=record.body["ScheduledTime"],
        definition=record.body["Definition"]["Name"],
        type=record.facet,
        endpoint=record.body["EndpointName"],
        extra=details(record),
    )


def list_alerts(call: ControlCall) -> Outcome:
    """ListMonitoringAlerts: a schedule has one alert, of its own name."""
    record = find_schedule(call, call.params["MonitoringScheduleName"])
    if call.params.get("NextToken"):
        raise _foreign_token()
    alert = record.body["Alert"]
    shown = {
        "MonitoringAlertName": record.name,
        "AlertStatus": alert["Status"],
        **{name: alert[name] for name in _ALERT},
        "Actions": {"ModelDashboardIndicator": {"Enabled": True}},
    }
    return Outcome({"MonitoringAlertSummaries": [shown]})


_ALERT = ("CreationTime", "LastModifiedTime", "DatapointsToAlert", "EvaluationPeriod")


def update_alert(call: ControlCall) -> Outcome:
    """UpdateMonitoringAlert: what is known is looked at anew by the new numbers."""
    record = find_schedule(call, call.params["MonitoringScheduleName"])
    if call.params["MonitoringAlertName"].lower() != record.name.lower():
        raise ResourceNotFound(f"Schedule {record.name} has no alert of this name; its one alert has its own name.")
    wanted = {name: call.params[name] for name in ("DatapointsToAlert", "EvaluationPeriod")}
    if wanted["DatapointsToAlert"] > wanted["EvaluationPeriod"]:
        raise ValidationError("DatapointsToAlert must not be greater than EvaluationPeriod.")
    alert = {**record.body["Alert"], **wanted, "LastModifiedTime": call.now}
    body = {**record.body, "Alert": executions.evaluated(alert, call.now)}
    call.session.change(record, now=call.now, body=body)
    return Outcome({"MonitoringScheduleArn": call.arn(SCHEDULE, record.name), "MonitoringAlertName": record.name})


def list_alert_history(call: ControlCall) -> Outcome:
    """ListMonitoringAlertHistory: of one schedule, or of all."""
    named = call.params.get("MonitoringScheduleName")
    records = call.session.every(SCHEDULE) if named is None else [find_schedule(call, named)]
    alert = call.params.get("MonitoringAlertName", "").lower()
    rows = [row for record in records if alert in ("", record.name.lower()) for row in _changes(record)]
    page, token = _page(call, rows)
    return _outcome("MonitoringAlertHistory", page, token)


def _changes(record: Record) -> Iterable[_Row]:
    names = {"MonitoringScheduleName": record.name, "MonitoringAlertName": record.name}
    for at, one in enumerate(record.body["Alert"]["History"]):
        time = one["CreationTime"]
        yield _Row(f"{record.name}/{at:04}", time, time, one["AlertStatus"], {**names, **one})


# --- pages ------------------------------------------------------------------------------------------------------------

_KEYS: Mapping[str, Callable[[_Row], tuple[Any, ...]]] = {
    "Name": lambda row: (row.name,),
    "CreationTime": lambda row: (row.created, row.name),
    "ScheduledTime": lambda row: (row.scheduled, row.name),
    "Status": lambda row: (row.status, row.name),
}
#: Member of the request -> does a row pass?
_FILTERS: Mapping[str, Callable[[_Row, Any], bool]] = {
    "NameContains": lambda row, value: value in row.name,
    "CreationTimeAfter": lambda row, value: row.created >= value,
    "CreationTimeBefore": lambda row, value: row.created < value,
    "LastModifiedTimeAfter": lambda row, value: row.modified >= value,
    "LastModifiedTimeBefore": lambda row, value: row.modified < value,
    "ScheduledTimeAfter": lambda row, value: row.scheduled >= value,
    "ScheduledTimeBefore": lambda row, value: row.scheduled < value,
    "StatusEquals": lambda row, value: row.status == value,
    "EndpointName": lambda row, value: row.endpoint.lower() == value.lower(),
    "MonitoringJobDefinitionName": lambda row, value: row.definition.lower() == value.lower(),
    "MonitoringTypeEquals": lambda row, value: row.type == value,
}


def _outcome(member: str, page: list[_Row], token: str) -> Outcome:
    answer: dict[str, Any] = {member: [row.shown for row in page]}
    return Outcome({**answer, "NextToken": token} if token else answer)


def _page(call: ControlCall, rows: list[_Row]) -> tuple[list[_Row], str]:
    """The rows of the page that the request asks for, and the token of the next."""
    params = call.params
    by, descending = params.get("SortBy", "CreationTime"), params.get("SortOrder", "Descending") == "Descending"
    purpose, key = [call.operation, by, descending], _KEYS[by]
    wanted = {name: test for name, test in _FILTERS.items() if name in params}
    found = [row for row in rows if all(test(row, params[name]) for name, test in wanted.items())]
    found.sort(key=key, reverse=descending)
    after = _unsealed(purpose, params.get("NextToken", ""))
    if after is not None:
        found = [row for row in found if (key(row) < after if descending else key(row) > after)]
    limit = params.get("MaxResults", 10)
    token = _sealed(purpose, key(found[limit - 1])) if len(found) > limit else ""
    return found[:limit], token


def _sealed(purpose: list[Any], place: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([purpose, place])).decode()


def _unsealed(purpose: list[Any], token: str) -> tuple[Any, ...] | None:
    """Where a token leads to. Raises ``ValidationError`` for one that this list cannot have given."""
    if not token:
        return None
    try:
        found, place = orjson.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, ValueError, TypeError):
        raise _foreign_token() from None
    kinds = [str] if purpose[1] == "Name" else [str, str] if purpose[1] == "Status" else [float, str]
    if found != purpose or not isinstance(place, list) or kinds != [type(one) for one in place]:
        raise _foreign_token()
    return tuple(place)


def _foreign_token() -> ValidationError:
    return ValidationError("The NextToken is not one that this list gave.")
