"""Monitoring schedules: Create-, Describe-, Update-, Start-, Stop- and DeleteMonitoringSchedule.

An action only writes what should be; ``fleet/monitoring.py`` makes the runs. A schedule is Scheduled as soon as it is
there. To stop or delete it also stops the execution that is under way: nothing else could, as there are no processing
jobs here. What its executions were is kept, as AWS keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_job_definitions import check_definition, find_definition
from serving.api.control_tags import keep
from serving.errors import ResourceLimitExceeded, ResourceNotFound, ValidationError
from serving.fleet import executions, schedules
from serving.fleet.endpoints import ENDPOINT, tag
from serving.fleet.executions import EXECUTION, SCHEDULE
from serving.fleet.store import Query, Record, Session

Body = Mapping[str, Any]

#: Schedules of one server.
MOST_SCHEDULES = 1000
_ANALYSIS = ("DataAnalysisStartTime", "DataAnalysisEndTime")
_PAGE = 100


def create(call: ControlCall) -> Outcome:
    """CreateMonitoringSchedule: its first run is the first whose time is still to come; ``NOW`` is at once."""
    name = call.params["MonitoringScheduleName"]
    if call.session.get(SCHEDULE, name) is not None:
        raise call.already_exists(SCHEDULE, name)
    _check_count(call)
    body = {**_wanted(call), "Missed": 0, "Alert": executions.new_alert(call.now)}
    keep(call, _record(name, body, call.now))
    return _answer(call, name)


def _record(name: str, body: Body, now: float) -> Record:
    definition = body["Definition"]
    parent, facet = executions.endpoint_of(definition), definition["Type"]
    return Record(SCHEDULE, name, body, now, now, status="Scheduled", parent=parent, facet=facet)


def describe(call: ControlCall) -> Outcome:
    """DescribeMonitoringSchedule. Our extensions: NextExecutionTime, MissedExecutions, and of the last execution its
    ExitMessage, the number of violations and where its files lie (LastMonitoringExecution)."""
    record = find_schedule(call, call.params["MonitoringScheduleName"])
    last = last_execution(call.session, record.name)
    answer = {
        "MonitoringScheduleArn": call.arn(SCHEDULE, record.name),
        "MonitoringScheduleName": record.name,
        "MonitoringScheduleStatus": record.status,
        "MonitoringType": record.facet,
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "MonitoringScheduleConfig": record.body["Config"],
        "EndpointName": record.parent or None,
        "LastMonitoringExecutionSummary": executions.summary(last) if last else None,
    }
    extension: dict[str, Any] = {"MissedExecutions": record.body["Missed"]}
    following = executions.next_time(record)
    if following is not None:
        extension["NextExecutionTime"] = following
    if last is not None:
        extension["LastMonitoringExecution"] = details(last)
    return Outcome(answer, extension=extension)


def details(record: Record) -> dict[str, Any]:
    """What AWS's summary of an execution has no member for."""
    result = record.body.get("Result", {})
    found = {
        "ExitMessage": record.body.get("ExitMessage"),
        "Violations": result.get("Violations"),
        "Records": result.get("Records"),
        "S3OutputPath": result.get("Output"),
        "Window": record.body["Window"],
    }
    return {name: value for name, value in found.items() if value is not None}


def update(call: ControlCall) -> Outcome:
    """UpdateMonitoringSchedule: the whole configuration is another; what is under way goes on by the old one. A stopped
    schedule stays stopped."""
    old = find_schedule(call, call.params["MonitoringScheduleName"])
    body = {name: value for name, value in old.body.items() if name != "Ran"}
    made = _record(old.name, {**body, **_wanted(call)}, call.now)
    tags = call.session.tags(SCHEDULE, old.name)
    call.session.remove(SCHEDULE, old.name)  # its endpoint and type, which lists filter by, may be others
    call.session.add(_as_it_was(made, old))
    if tags:
        call.session.put_tags(SCHEDULE, old.name, tags)
    return _answer(call, old.name)


def _as_it_was(made: Record, old: Record) -> Record:
    return Record(
        SCHEDULE, old.name, made.body, old.created, made.modified, old.status, made.parent, made.facet, old.revision + 1
    )


def start(call: ControlCall) -> Outcome:
    """StartMonitoringSchedule: runs whose time comes from now on; ``NOW`` runs once more. One that is not stopped goes
    on as it is."""
    record = find_schedule(call, call.params["MonitoringScheduleName"])
    if record.status == "Stopped":
        body = {name: value for name, value in record.body.items() if name != "Ran"}
        call.session.change(record, now=call.now, status="Scheduled", body={**body, "Since": call.now})
    return Outcome({}, (tag(SCHEDULE, record.name),))


def stop(call: ControlCall) -> Outcome:
    """StopMonitoringSchedule: no more runs, and the one under way ends."""
    record = find_schedule(call, call.params["MonitoringScheduleName"])
    if record.status != "Stopped":
        call.session.change(record, now=call.now, status="Stopped")
    _stop_executions(call, record.name)
    return Outcome({}, (tag(SCHEDULE, record.name),))


def delete(call: ControlCall) -> Outcome:
    """DeleteMonitoringSchedule. The history of its executions stays."""
    record = find_schedule(call, call.params["MonitoringScheduleName"])
    _stop_executions(call, record.name)
    call.session.remove(SCHEDULE, record.name)
    return Outcome({}, (tag(SCHEDULE, record.name),))


def _answer(call: ControlCall, name: str) -> Outcome:
    return Outcome({"MonitoringScheduleArn": call.arn(SCHEDULE, name)}, (tag(SCHEDULE, name),))


def _stop_executions(call: ControlCall, schedule: str) -> None:
    for status in ("Pending", "InProgress"):
        records, _ = call.session.find(Query(EXECUTION, parent=schedule, status=status, limit=_PAGE))
        for record in records:
            call.session.change(record, now=call.now, status="Stopping")


# --- what is asked for ------------------------------------------------------------------------------------------------


def find_schedule(call: ControlCall, name: str) -> Record:
    """The schedule of this name. Raises ``ResourceNotFound``."""
    record = call.session.get(SCHEDULE, name)
    if record is None:
        raise call.could_not_find(SCHEDULE, name)
    return record


def last_execution(session: Session, schedule: str) -> Record | None:
    """The newest execution of a schedule."""
    records, _ = session.find(Query(EXECUTION, parent=schedule, limit=1))
    return records[0] if records else None


def _check_count(call: ControlCall) -> None:
    count = call.session.count(SCHEDULE)
    if count >= MOST_SCHEDULES:
        raise ResourceLimitExceeded(
            f"The account-level service limit 'monitoring schedules' is {MOST_SCHEDULES}, with current utilization of "
            f"{count} and a request delta of 1."
        )


def _wanted(call: ControlCall) -> dict[str, Any]:
    """Config, definition and start of a schedule, as the call asks for them. Raises ``ValidationError``."""
    config = call.params["MonitoringScheduleConfig"]
    definition = _definition(call, config)
    _check_times(config)
    _check_endpoint(call, executions.endpoint_of(definition))
    return {"Config": config, "Definition": definition, "Since": call.now}


def _definition(call: ControlCall, config: Body) -> dict[str, Any]:
    inline, name, type = (
        config.get(member) for member in ("MonitoringJobDefinition", "MonitoringJobDefinitionName", "MonitoringType")
    )
    if (inline is None) == (name is None):
        raise ValidationError(
            "MonitoringScheduleConfig has either MonitoringJobDefinitionName with MonitoringType, or "
            "MonitoringJobDefinition."
        )
    if name is not None:
        if type is None:
            raise ValidationError("MonitoringJobDefinitionName needs MonitoringType beside it.")
        try:
            return executions.of_job_definition(type, find_definition(call, type, name).body)
        except ResourceNotFound as error:  # which this operation does not have (SageMaker API)
            raise ValidationError(error.message) from None
    if type not in (None, "DataQuality"):
        raise ValidationError(
            f"MonitoringType {type} needs a job definition by name; inline there is DataQuality only."
        )
    assert inline is not None
    definition = executions.of_inline("DataQuality", inline)
    check_definition(call, inline["MonitoringAppSpecification"], definition)
    return definition


def _check_times(config: Body) -> None:
    cron = schedules.parse(executions.expression_of(config))
    given = [config.get("ScheduleConfig", {}).get(name) for name in _ANALYSIS]
    if cron is not None and any(given):
        raise ValidationError(f"{_ANALYSIS[0]} and {_ANALYSIS[1]} are for the ScheduleExpression NOW.")
    if cron is None and not all(given):
        raise ValidationError(f"The ScheduleExpression NOW needs {_ANALYSIS[0]} and {_ANALYSIS[1]}.")
    schedules.check_offsets(given[0], given[1], _ANALYSIS, schedules.DAY)


def _check_endpoint(call: ControlCall, name: str) -> None:
    """An endpoint that is not there, or captures nothing, would leave every run without data."""
    if not name:
        return
    record = call.session.get(ENDPOINT, name)
    if record is None:
        raise call.could_not_find(ENDPOINT, name)
    deployed = record.body.get("Pending") or record.body.get("Serving") or {}
    if "DataCaptureConfig" not in deployed.get("Config", {}):
        raise ValidationError(f"Endpoint {record.name} has no DataCaptureConfig: there is nothing to monitor.")
