"""Monitoring schedules and their executions as records: what follows from them, pure.

A job definition of any of the four types, or one written into a schedule, becomes one form (``DEFINITION``), copied
into the schedule when it is created or updated: job definitions may be deleted while schedules use them::

    {"Type": "DataQuality", "Name": "d", "Endpoint": {EndpointInput} | "Batch": {BatchTransformInput},
     "GroundTruth": URL, "Constraints": URL, "Statistics": URL, "Config": URL, "ProblemType": …, "Output": URL,
     "Seconds": 3600}

The body of a schedule (parent: its endpoint; facet: its type)::

    {"Config": {MonitoringScheduleConfig}, "Definition": DEFINITION, "Since": 1.0, "Missed": 0,
     "Alert": {"DatapointsToAlert": 1, "EvaluationPeriod": 1, "Status": "OK", "CreationTime": 1.0,
               "LastModifiedTime": 1.0, "Datapoints": [false, true], "History": [{"CreationTime", "AlertStatus"}]}}

``Since``: runs whose time is later are still to be made. The body of an execution (parent: its schedule)::

    {"ScheduledTime": 1.0, "Window": [0.0, 1.0], "EndpointName": "e", "Definition": DEFINITION, "Attempts": 1,
     "Missed": 0, "FailureReason": "…", "ExitMessage": "…", "Result": RESULT}

(``RESULT``: ``monitor/runs.py``.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.fleet import schedules
from serving.fleet.records import Record

Body = Mapping[str, Any]

SCHEDULE = "monitoring-schedule"
EXECUTION = "monitoring-execution"
#: MonitoringType -> the kind of its job definitions.
DEFINITIONS: Mapping[str, str] = {
    "DataQuality": "data-quality-job-definition",
    "ModelQuality": "model-quality-job-definition",
    "ModelBias": "model-bias-job-definition",
    "ModelExplainability": "model-explainability-job-definition",
}
#: An execution that has not ended, and one whose end is a datapoint of its schedule's alert.
OPEN = ("Pending", "InProgress", "Stopping")
FINISHED = ("Completed", "CompletedWithViolations")

#: MaxRuntimeInSeconds, when nothing is said.
_USUAL_SECONDS = 3600
#: Datapoints and changes that an alert remembers.
_MOST_DATAPOINTS = _MOST_HISTORY = 100
_LONGEST_REASON = 1024


# --- definitions ------------------------------------------------------------------------------------------------------


def of_job_definition(type: str, body: Body) -> dict[str, Any]:
    """The form of a Create…JobDefinition request of this type."""
    job_input = body[f"{type}JobInput"]
    return _definition(
        type,
        body["JobDefinitionName"],
        job_input,
        body.get(f"{type}BaselineConfig", {}),
        body[f"{type}AppSpecification"],
        body[f"{type}JobOutputConfig"],
        body.get("StoppingCondition", {}),
    )


def of_inline(type: str, body: Body) -> dict[str, Any]:
    """The form of a MonitoringJobDefinition that stands in a schedule."""
    return _definition(
        type,
        "",
        body["MonitoringInputs"][0],
        body.get("BaselineConfig", {}),
        body["MonitoringAppSpecification"],
        body["MonitoringOutputConfig"],
        body.get("StoppingCondition", {}),
    )


def _definition(
    type: str, name: str, job_input: Body, baseline: Body, app: Body, output: Body, stopping: Body
) -> dict[str, Any]:
    made = {
        "Type": type,
        "Name": name,
        "Endpoint": job_input.get("EndpointInput"),
        "Batch": job_input.get("BatchTransformInput"),
        "GroundTruth": job_input.get("GroundTruthS3Input", {}).get("S3Uri"),
        "Constraints": baseline.get("ConstraintsResource", {}).get("S3Uri"),
        "Statistics": baseline.get("StatisticsResource", {}).get("S3Uri"),
        "Config": app.get("ConfigUri"),
        "ProblemType": app.get("ProblemType"),
        "Output": output["MonitoringOutputs"][0]["S3Output"]["S3Uri"],
        "Seconds": stopping.get("MaxRuntimeInSeconds", _USUAL_SECONDS),
    }
    return {member: value for member, value in made.items() if value is not None}


def endpoint_of(definition: Body) -> str:
    """The endpoint it looks at; empty for what batch jobs captured."""
    return str(definition.get("Endpoint", {}).get("EndpointName", ""))


def input_of(definition: Body) -> Body:
    """Its EndpointInput or BatchTransformInput."""
    found: Body = definition.get("Endpoint") or definition["Batch"]
    return found


# --- when and over what -----------------------------------------------------------------------------------------------


def expression_of(config: Body) -> str:
    """A schedule's expression; without a ScheduleConfig it is daily."""
    return str(config.get("ScheduleConfig", {}).get("ScheduleExpression", schedules.USUAL))


def due(record: Record, now: float) -> schedules.Due | None:
    """The run that a schedule should make now: one that happens once, when it has not since it was asked for."""
    if record.status != "Scheduled":
        return None
    cron, since = schedules.parse(expression_of(record.body["Config"])), float(record.body["Since"])
    if cron is not None:
        return schedules.due(cron, since, now)
    return None if record.body.get("Ran") else schedules.Due(since, 0)


def is_ahead(record: Record, now: float) -> bool:
    """Was the clock put back since the schedule last ran, or was made? A step of less than an hour is none: no run
    shall be made again for it."""
    return record.status == "Scheduled" and float(record.body["Since"]) > now + schedules.HOUR


def next_time(record: Record) -> float | None:
    """When a schedule wants to run next; None = not before something is asked of it."""
    if record.status != "Scheduled":
        return None
    cron, since = schedules.parse(expression_of(record.body["Config"])), float(record.body["Since"])
    if cron is None:
        return None if record.body.get("Ran") else since
    return schedules.following(cron, since)


def window(config: Body, definition: Body, time: float) -> tuple[float, float]:
    """The stretch of captures that the run at ``time`` looks at: DataAnalysisStartTime and -EndTime of one that happens
    once, else the input's StartTimeOffset and EndTimeOffset, else the step before it."""
    cron = schedules.parse(expression_of(config))
    if cron is None:
        given, names = config["ScheduleConfig"], ("DataAnalysisStartTime", "DataAnalysisEndTime")
    else:
        given, names = input_of(definition), ("StartTimeOffset", "EndTimeOffset")
    start, end = (schedules.parse_offset(given[name], name) if name in given else None for name in names)
    return schedules.window(cron, time, start, end)


# --- executions -------------------------------------------------------------------------------------------------------


def execution(schedule: Record, found: schedules.Due, number: int, now: float) -> Record:
    """A new execution of a schedule."""
    definition = schedule.body["Definition"]
    body = {
        "ScheduledTime": found.time,
        "Window": list(window(schedule.body["Config"], definition, found.time)),
        "EndpointName": schedule.parent,
        "Definition": definition,
        "Attempts": 0,
        "Missed": found.missed,
    }
    return Record(
        EXECUTION, f"{schedule.name}/{number}", body, now, now, "Pending", parent=schedule.name, facet=schedule.facet
    )


def after_run(schedule: Record, found: schedules.Due) -> dict[str, Any]:
    """The body of a schedule whose run has become an execution."""
    return {**schedule.body, "Since": found.time, "Missed": schedule.body.get("Missed", 0) + found.missed, "Ran": True}


def completed(record: Record, result: Body) -> tuple[str, dict[str, Any]]:
    """Status and body of an execution whose task has answered (exit messages: ``behaviour/06``)."""
    count = int(result["Violations"])
    status = "CompletedWithViolations" if count else "Completed"
    message = f"{status}: Job completed successfully with {count or 'no'} violation{'' if count == 1 else 's'}."
    if result.get("Complaints"):
        said = "; ".join(f"{one['Reason']}: {one['Times']}" for one in result["Complaints"][:5])
        message += f" Not everything could be used ({said}); complaints.json says more."
    return status, {**record.body, "ExitMessage": message[:_LONGEST_REASON], "Result": dict(result)}


def failed(record: Record, reason: str) -> tuple[str, dict[str, Any]]:
    """Status and body of one that came to nothing."""
    return "Failed", {**record.body, "FailureReason": reason[:_LONGEST_REASON]}


def summary(record: Record) -> dict[str, Any]:
    """MonitoringExecutionSummary. There is no ProcessingJobArn, as there are no processing jobs here."""
    body = record.body
    made = {
        "MonitoringScheduleName": record.parent,
        "ScheduledTime": body["ScheduledTime"],
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "MonitoringExecutionStatus": record.status,
        "EndpointName": body["EndpointName"],
        "FailureReason": body.get("FailureReason"),
        "MonitoringJobDefinitionName": body["Definition"]["Name"],
        "MonitoringType": record.facet,
    }
    return {member: value for member, value in made.items() if value not in (None, "")}


# --- alerts -----------------------------------------------------------------------------------------------------------


def new_alert(now: float) -> dict[str, Any]:
    """The one alert of a schedule: the last execution violated something."""
    times = {"CreationTime": now, "LastModifiedTime": now}
    return {"DatapointsToAlert": 1, "EvaluationPeriod": 1, "Status": "OK", **times, "Datapoints": [], "History": []}


def evaluated(alert: Body, now: float) -> dict[str, Any]:
    """An alert by its datapoints: is it, of the last EvaluationPeriod executions, in DatapointsToAlert?"""
    points: Sequence[bool] = alert["Datapoints"][-alert["EvaluationPeriod"] :]
    status = "InAlert" if sum(points) >= alert["DatapointsToAlert"] else "OK"
    if status == alert["Status"]:
        return dict(alert)
    history = [*alert["History"], {"CreationTime": now, "AlertStatus": status}][-_MOST_HISTORY:]
    return {**alert, "Status": status, "LastModifiedTime": now, "History": history}


def with_datapoint(alert: Body, violated: bool, now: float) -> dict[str, Any]:
    """An alert after another finished execution."""
    return evaluated({**alert, "Datapoints": [*alert["Datapoints"], violated][-_MOST_DATAPOINTS:]}, now)
