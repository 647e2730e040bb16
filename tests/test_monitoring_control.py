"""Job definitions, monitoring schedules, executions and alerts in the control API: what is refused, kept, told, listed.
On a real store, without a server (``test_monitoring_runs.py`` has one)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.api import control_monitoring
from serving.errors import ResourceInUse, ResourceLimitExceeded, ResourceNotFound, ValidationError
from serving.fleet import executions
from serving.fleet.executions import DEFINITIONS, EXECUTION, SCHEDULE
from serving.fleet.schedules import HOUR, Due
from serving.fleet.store import Record
from tests import memory
from tests.actions import ARN, Control, opened, without
from tests.calls import GOOD

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

NOW = {"ScheduleExpression": "NOW", "DataAnalysisStartTime": "-PT1H", "DataAnalysisEndTime": "-PT0H"}
CAPTURE = {"DestinationS3Uri": "s3://b/captured", "InitialSamplingPercentage": 100, "CaptureOptions": []}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A store with an endpoint ``e`` that captures, and one that does not."""
    with opened(tmp_path) as control:
        serving = {"Config": {"DataCaptureConfig": CAPTURE, "ProductionVariants": []}}
        control.add(
            Record("endpoint", "e", {"Serving": serving}, 1.0, 1.0, "InService"),
            Record("endpoint", "silent", {"Serving": {"Config": {}}}, 1.0, 1.0, "InService"),
        )
        yield control


def source(endpoint: str = "e", **members: Any) -> dict[str, Any]:
    """An EndpointInput."""
    return {"EndpointName": endpoint, "LocalPath": "/in", **members}


def definition(type: str = "DataQuality", name: str = "d", **members: Any) -> dict[str, Any]:
    """A Create…JobDefinition request; ``App``, ``Input``, ``Baseline`` and ``Output`` go into their structures."""
    made = without(GOOD[f"Create{type}JobDefinition"], "Tags")
    given = {"EndpointInput": source(), **members.pop("Input", {})}
    truth = made[f"{type}JobInput"].get("GroundTruthS3Input")
    if truth:
        given.setdefault("GroundTruthS3Input", truth)
    output = {"MonitoringOutputs": [{"S3Output": {"S3Uri": members.pop("Output", "s3://b/out"), "LocalPath": "/out"}}]}
    return {
        **made,
        "JobDefinitionName": name,
        f"{type}JobInput": {key: value for key, value in given.items() if value is not None},
        f"{type}AppSpecification": {**made[f"{type}AppSpecification"], **members.pop("App", {})},
        f"{type}BaselineConfig": {**made[f"{type}BaselineConfig"], **members.pop("Baseline", {})},
        f"{type}JobOutputConfig": output,
        **members,
    }


def schedule(name: str = "s", **members: Any) -> dict[str, Any]:
    """A CreateMonitoringSchedule request for the definition ``d``."""
    config = {"MonitoringJobDefinitionName": "d", "MonitoringType": "DataQuality", **members}
    config.setdefault("ScheduleConfig", {"ScheduleExpression": "cron(0 * ? * * *)"})
    kept = {member: value for member, value in config.items() if value is not None}
    return {"MonitoringScheduleName": name, "MonitoringScheduleConfig": kept}


def inline(**members: Any) -> dict[str, Any]:
    """A schedule's config with a definition in it."""
    body = GOOD["CreateMonitoringSchedule"]["MonitoringScheduleConfig"]["MonitoringJobDefinition"]
    made = {**body, "MonitoringInputs": [{"EndpointInput": source()}], **members}
    return {"MonitoringJobDefinitionName": None, "MonitoringType": None, "MonitoringJobDefinition": made}


@pytest.fixture
def scheduled(control: Control) -> Control:
    """There is a definition ``d`` and a schedule ``s``."""
    control("CreateDataQualityJobDefinition", **definition())
    control("CreateMonitoringSchedule", **schedule())
    return control


def run(control: Control, status: str, time: float = 3600.0, schedule: str = "s", **body: Any) -> str:
    """Add an execution as the driver does; its name."""
    with control.store.write() as session:
        record = session.get(SCHEDULE, schedule)
        assert record is not None
        made = executions.execution(record, Due(time, 0), session.next_number("executions"), control.now)
        session.add(made)
        session.change(made, now=control.now, status=status, body={**made.body, **body})
    control.now += 1
    return made.name


# --- job definitions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", DEFINITIONS)
def test_a_definition_is_described_as_it_was_sent(control: Control, type: str) -> None:
    """Of all four types; tags are ListTags' to tell; deleted, it is gone."""
    wanted, arn = definition(type, "D-1"), f"{ARN}{DEFINITIONS[type]}/D-1"
    tags = [{"Key": "a", "Value": "b"}]
    assert {"JobDefinitionArn": arn} == control(f"Create{type}JobDefinition", **wanted, Tags=tags)
    created = control.now
    described = control(f"Describe{type}JobDefinition", JobDefinitionName="d-1")
    assert {**wanted, "JobDefinitionArn": arn, "CreationTime": created} == described
    assert {"Tags": tags} == control("ListTags", ResourceArn=arn)
    error = control.error(ResourceInUse, f"Create{type}JobDefinition", **definition(type, "d-1"))
    assert "Job name must be unique within an AWS account and region" in error.message
    assert control(f"Delete{type}JobDefinition", JobDefinitionName="D-1") is None
    for verb in ("Describe", "Delete"):
        error = control.error(ResourceNotFound, f"{verb}{type}JobDefinition", JobDefinitionName="D-1")
        assert f'job definition "{arn}"' in error.message


def test_definitions_of_one_name_and_different_types_are_different(control: Control) -> None:
    """And are listed apart, by endpoint too."""
    for type in DEFINITIONS:
        control(f"Create{type}JobDefinition", **definition(type))
    batch = {"DataCapturedDestinationS3Uri": "s3://b/c", "DatasetFormat": {"Csv": {}}, "LocalPath": "/in"}
    given = {"EndpointInput": None, "BatchTransformInput": batch}
    control("CreateDataQualityJobDefinition", **definition(name="of-batch", Input=given))
    for type in DEFINITIONS:
        found = control(f"List{type}JobDefinitions", EndpointName="E")["JobDefinitionSummaries"]
        assert [("d", "e")] == [(one["MonitoringJobDefinitionName"], one["EndpointName"]) for one in found]
    assert 2 == len(control("ListDataQualityJobDefinitions")["JobDefinitionSummaries"])


@pytest.mark.parametrize(
    ("type", "members", "words"),
    [
        ("DataQuality", {"Input": {"EndpointInput": None}}, "either EndpointInput or BatchTransformInput"),
        ("ModelQuality", {"Input": {"GroundTruthS3Input": {}}}, "needs labels"),
        ("ModelBias", {"Input": {"GroundTruthS3Input": {"S3Uri": "s3://b//x"}}}, "S3Uri of the ground truth"),
        ("DataQuality", {"Output": "https://b/out"}, "S3Uri of the output, 'https://b/out', is no place"),
        ("DataQuality", {"Output": "s3://b/../out"}, "is no place"),
        ("ModelBias", {"App": {"ConfigUri": "s3://b/"}}, "ConfigUri, 's3://b/', is no place"),
        ("DataQuality", {"Baseline": {"StatisticsResource": {"S3Uri": "s3://b"}}}, "S3Uri of the statistics"),
        ("DataQuality", {"App": {"RecordPreprocessorSourceUri": "s3://b/x.py"}}, "RecordPreprocessorSourceUri is code"),
        ("ModelQuality", {"Input": {"EndpointInput": source(StartTimeOffset="-P8D")}}, "given together"),
        (
            "ModelQuality",
            {"Input": {"EndpointInput": source(StartTimeOffset="-P1D", EndTimeOffset="-P8D")}},
            "StartTimeOffset '-P1D' must lie before EndTimeOffset '-P8D'",
        ),
        ("DataQuality", {"JobDefinitionName": "a_b"}, "Value 'a_b' at 'jobDefinitionName'"),
    ],
)
def test_what_no_execution_could_do_is_refused(
    control: Control, type: str, members: dict[str, Any], words: str
) -> None:
    """At once, in a sentence that names the member."""
    assert words in control.refusal(f"Create{type}JobDefinition", **definition(type, **members))


def test_reports_never_lie_among_a_models_files(control: Control) -> None:
    """They would become part of it."""
    control.model()
    for output in ("s3://bucket/model.tar.gz", "s3://bucket/model.tar.gz/reports/"):
        words = control.refusal("CreateDataQualityJobDefinition", **definition(Output=output))
        assert "lies in the model store" in words
    control("CreateDataQualityJobDefinition", **definition(Output="s3://bucket/model.tar.gz-reports"))


# --- schedules --------------------------------------------------------------------------------------------------------


def test_a_schedule_is_described(scheduled: Control) -> None:
    """As it was sent, Scheduled at once, with its type and endpoint."""
    described = scheduled("DescribeMonitoringSchedule", MonitoringScheduleName="S")
    created = scheduled.now - 1
    assert {
        "MonitoringScheduleArn": f"{ARN}monitoring-schedule/s",
        "MonitoringScheduleName": "s",
        "MonitoringScheduleStatus": "Scheduled",
        "MonitoringType": "DataQuality",
        "EndpointName": "e",
        "CreationTime": created,
        "LastModifiedTime": created,
        "MonitoringScheduleConfig": schedule()["MonitoringScheduleConfig"],
    } == described


def test_a_definition_may_stand_in_the_schedule(control: Control) -> None:
    """Data quality only, as it has no place for labels."""
    control("CreateMonitoringSchedule", **schedule(**inline()))
    described = control("DescribeMonitoringSchedule", MonitoringScheduleName="s")
    assert ("DataQuality", "e") == (described["MonitoringType"], described["EndpointName"])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"MonitoringJobDefinitionName": None}, "has either MonitoringJobDefinitionName"),
        ({**inline(), "MonitoringJobDefinitionName": "d"}, "has either MonitoringJobDefinitionName"),
        ({"MonitoringType": None}, "needs MonitoringType beside it"),
        ({"MonitoringType": "ModelBias"}, 'Could not find model bias job definition "'),
        ({**inline(), "MonitoringType": "ModelQuality"}, "inline there is DataQuality only"),
        (inline(MonitoringInputs=[{"EndpointInput": source("none")}]), 'Could not find endpoint "'),
        (inline(MonitoringInputs=[{"EndpointInput": source("silent")}]), "silent has no DataCaptureConfig"),
        (inline(MonitoringInputs=[{}]), "either EndpointInput or BatchTransformInput"),
        ({"ScheduleConfig": {"ScheduleExpression": "rate(1 hour)"}}, "is none of NOW"),
        ({"ScheduleConfig": {"ScheduleExpression": "NOW"}}, "NOW needs DataAnalysisStartTime"),
        ({"ScheduleConfig": {**NOW, "ScheduleExpression": "cron(0 * ? * * *)"}}, "are for the ScheduleExpression NOW"),
        ({"ScheduleConfig": {**NOW, "DataAnalysisStartTime": "-PT25H"}}, "at most 24 hours apart"),
        ({"ScheduleConfig": {**NOW, "DataAnalysisStartTime": "yesterday"}}, "is no ISO 8601 duration"),
    ],
)
def test_what_a_schedule_may_not_be(control: Control, members: dict[str, Any], words: str) -> None:
    """Refused at once, in a sentence."""
    control("CreateDataQualityJobDefinition", **definition())
    assert words in control.refusal("CreateMonitoringSchedule", **schedule(**members))


def test_a_name_that_is_taken(scheduled: Control) -> None:
    """AWS's words."""
    error = scheduled.error(ResourceInUse, "CreateMonitoringSchedule", **schedule("S"))
    assert f"a job with this name already exists ({ARN}monitoring-schedule/S)" in error.message


@pytest.mark.parametrize("verb", ["Describe", "Start", "Stop", "Delete", "Update"])
def test_a_schedule_that_is_not_there(control: Control, verb: str) -> None:
    """A code of its own."""
    params = schedule("none") if verb == "Update" else {"MonitoringScheduleName": "none"}
    error = control.error(ResourceNotFound, f"{verb}MonitoringSchedule", **params)
    assert f'Could not find monitoring schedule "{ARN}monitoring-schedule/none".' == error.message


def test_there_are_only_so_many(scheduled: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of them costs time for ever."""
    monkeypatch.setattr(control_monitoring, "MOST_SCHEDULES", 1)
    scheduled.error(ResourceLimitExceeded, "CreateMonitoringSchedule", **schedule("t"))


def test_a_schedule_is_stopped_and_started(scheduled: Control) -> None:
    """With what is under way; nothing is made up for afterwards."""
    names = [run(scheduled, status) for status in ("InProgress", "Completed")]
    assert scheduled("StopMonitoringSchedule", MonitoringScheduleName="s") is None
    assert scheduled("StopMonitoringSchedule", MonitoringScheduleName="s") is None
    with scheduled.store.read() as session:
        assert ["Stopping", "Completed"] == [session.get(EXECUTION, name).status for name in names]  # type: ignore[union-attr]  # they are there
        stopped = session.get(SCHEDULE, "s")
    assert stopped is not None
    assert ("Stopped", None) == (stopped.status, executions.due(stopped, scheduled.now + 100 * HOUR))
    scheduled.now += 100 * HOUR
    assert scheduled("StartMonitoringSchedule", MonitoringScheduleName="s") is None
    with scheduled.store.read() as session:
        started = session.get(SCHEDULE, "s")
    assert started is not None and executions.due(started, scheduled.now) is None
    assert 0 == getattr(executions.due(started, scheduled.now + HOUR), "missed", None)


def test_now_runs_once_and_again_when_it_is_started_again(control: Control) -> None:
    """After its run there is nothing to do until it is stopped and started, or updated."""
    control("CreateDataQualityJobDefinition", **definition())
    control("CreateMonitoringSchedule", **schedule(ScheduleConfig=NOW))

    def kept() -> Record:
        with control.store.read() as session:
            record = session.get(SCHEDULE, "s")
        assert record is not None
        return record

    found = executions.due(kept(), control.now)
    assert found == Due(control.now, 0)
    assert (control.now - HOUR, control.now) == executions.window(
        kept().body["Config"], kept().body["Definition"], found.time
    )
    record = kept()
    with control.store.write() as session:
        session.change(record, now=control.now, body=executions.after_run(record, found))
    assert (None, None) == (executions.due(kept(), control.now + 1), executions.next_time(kept()))
    control("StopMonitoringSchedule", MonitoringScheduleName="s")
    control("StartMonitoringSchedule", MonitoringScheduleName="s")
    assert executions.due(kept(), control.now) == Due(control.now, 0)


def test_an_update_changes_all_of_it_but_its_history(scheduled: Control) -> None:
    """Its endpoint and type too; tags, alert, time of creation and status stay."""
    arn, tags = f"{ARN}monitoring-schedule/s", [{"Key": "a", "Value": "b"}]
    scheduled("AddTags", ResourceArn=arn, Tags=tags)
    scheduled("StopMonitoringSchedule", MonitoringScheduleName="s")
    before = scheduled("DescribeMonitoringSchedule", MonitoringScheduleName="s")
    scheduled("CreateModelQualityJobDefinition", **definition("ModelQuality", "q"))
    wanted = schedule("S", MonitoringJobDefinitionName="q", MonitoringType="ModelQuality")
    assert {"MonitoringScheduleArn": arn} == scheduled("UpdateMonitoringSchedule", **wanted)
    after = scheduled("DescribeMonitoringSchedule", MonitoringScheduleName="s")
    assert ("ModelQuality", "Stopped") == (after["MonitoringType"], after["MonitoringScheduleStatus"])
    assert before["CreationTime"] == after["CreationTime"] < after["LastModifiedTime"]
    assert {"Tags": tags} == scheduled("ListTags", ResourceArn=arn)
    found = scheduled("ListMonitoringSchedules", MonitoringTypeEquals="ModelQuality")
    assert ["s"] == [one["MonitoringScheduleName"] for one in found["MonitoringScheduleSummaries"]]


def test_a_schedule_keeps_its_copy_of_the_definition(scheduled: Control) -> None:
    """Which may be deleted under it."""
    scheduled("DeleteDataQualityJobDefinition", JobDefinitionName="d")
    assert "e" == scheduled("DescribeMonitoringSchedule", MonitoringScheduleName="s")["EndpointName"]
    words = scheduled.refusal("CreateMonitoringSchedule", **schedule("t"))
    assert "Could not find data quality job definition" in words


# --- lists and alerts -------------------------------------------------------------------------------------------------


def test_schedules_are_filtered_and_paged(scheduled: Control) -> None:
    """By endpoint, status, definition, type; the token is for this list in this order."""
    for name in ("t", "u"):
        scheduled("CreateMonitoringSchedule", **schedule(name, **(inline() if name == "u" else {})))
    scheduled("StopMonitoringSchedule", MonitoringScheduleName="t")

    def names(**params: Any) -> list[str]:
        found = scheduled("ListMonitoringSchedules", **params)["MonitoringScheduleSummaries"]
        return [one["MonitoringScheduleName"] for one in found]

    assert ["u", "t", "s"] == names() == names(EndpointName="E")
    assert ["t"] == names(StatusEquals="Stopped")
    assert ["t", "s"] == names(MonitoringJobDefinitionName="D")
    assert [] == names(MonitoringTypeEquals="ModelBias") == names(EndpointName="other")
    assert ["s", "u"] == names(SortBy="Status", SortOrder="Ascending")[:2]
    first = scheduled("ListMonitoringSchedules", MaxResults=2)
    assert ["s"] == names(NextToken=first["NextToken"])
    for params in ({"SortBy": "Name"}, {"SortOrder": "Ascending"}):
        words = scheduled.refusal("ListMonitoringSchedules", NextToken=first["NextToken"], **params)
        assert "NextToken" in words
    assert "NextToken" in scheduled.refusal("ListMonitoringExecutions", NextToken="made-up")


def test_executions_are_told_filtered_and_paged(scheduled: Control) -> None:
    """Also those of a schedule that has gone."""
    result = {"Violations": 2, "Records": 5, "Output": "s3://b/out/e/s"}
    run(scheduled, "CompletedWithViolations", 7200.0, Result=result, ExitMessage="m")
    created = scheduled.now - 1
    run(scheduled, "Failed", 3600.0, FailureReason="Job inputs had no data")
    expected = {
        "MonitoringScheduleName": "s",
        "ScheduledTime": 7200.0,
        "CreationTime": created,
        "LastModifiedTime": created,
        "MonitoringExecutionStatus": "CompletedWithViolations",
        "EndpointName": "e",
        "MonitoringJobDefinitionName": "d",
        "MonitoringType": "DataQuality",
    }
    queries: tuple[dict[str, Any], ...] = (
        {"StatusEquals": "CompletedWithViolations"},
        {"MonitoringScheduleName": "S", "ScheduledTimeAfter": 7200.0},
        {"SortBy": "ScheduledTime", "MaxResults": 1, "EndpointName": "e"},
        {"SortBy": "Status", "SortOrder": "Ascending", "MaxResults": 1, "MonitoringJobDefinitionName": "d"},
    )
    for params in queries:
        assert [expected] == scheduled("ListMonitoringExecutions", **params)["MonitoringExecutionSummaries"]
    last = scheduled("DescribeMonitoringSchedule", MonitoringScheduleName="s")["LastMonitoringExecutionSummary"]
    assert ("Failed", "Job inputs had no data") == (last["MonitoringExecutionStatus"], last["FailureReason"])
    scheduled("DeleteMonitoringSchedule", MonitoringScheduleName="s")
    scheduled.error(ResourceNotFound, "DescribeMonitoringSchedule", MonitoringScheduleName="s")
    found = scheduled("ListMonitoringExecutions", MonitoringScheduleName="s")
    assert 2 == len(found["MonitoringExecutionSummaries"])


def datapoint(control: Control, violated: bool) -> None:
    """As the driver writes it at the end of an execution."""
    with control.store.write() as session:
        record = session.get(SCHEDULE, "s")
        assert record is not None
        control.now += 1
        alert = executions.with_datapoint(record.body["Alert"], violated, control.now)
        session.change(record, now=control.now, body={**record.body, "Alert": alert})


def test_the_alert_of_a_schedule(scheduled: Control) -> None:
    """1 of 1 by default; every change is remembered."""

    def status() -> str:
        (one,) = scheduled("ListMonitoringAlerts", MonitoringScheduleName="s")["MonitoringAlertSummaries"]
        return str(one["AlertStatus"])

    assert "OK" == status()
    datapoint(scheduled, True)
    assert "InAlert" == status()
    datapoint(scheduled, False)
    assert "OK" == status()
    wanted: dict[str, Any] = {"MonitoringAlertName": "S", "DatapointsToAlert": 1, "EvaluationPeriod": 2}
    answer = scheduled("UpdateMonitoringAlert", MonitoringScheduleName="s", **wanted)
    assert {"MonitoringScheduleArn": f"{ARN}monitoring-schedule/s", "MonitoringAlertName": "s"} == answer
    assert "InAlert" == status()
    both: tuple[dict[str, Any], ...] = ({}, {"MonitoringScheduleName": "s", "MonitoringAlertName": "s"})
    for params in both:
        found = scheduled("ListMonitoringAlertHistory", **params)["MonitoringAlertHistory"]
        assert ["InAlert", "OK", "InAlert"] == [one["AlertStatus"] for one in found]
    found = scheduled("ListMonitoringAlertHistory", StatusEquals="OK")["MonitoringAlertHistory"]
    assert 1 == len(found)


def test_what_an_alert_may_not_be(scheduled: Control) -> None:
    """More datapoints than periods; another name; another schedule."""
    wanted: dict[str, Any]
    wanted = {"MonitoringScheduleName": "s", "MonitoringAlertName": "s", "DatapointsToAlert": 3, "EvaluationPeriod": 2}
    assert "must not be greater" in scheduled.refusal("UpdateMonitoringAlert", **wanted)
    good: dict[str, Any] = {**wanted, "DatapointsToAlert": 1}
    scheduled.error(ResourceNotFound, "UpdateMonitoringAlert", **{**good, "MonitoringAlertName": "other"})
    scheduled.error(ResourceNotFound, "UpdateMonitoringAlert", **{**good, "MonitoringScheduleName": "other"})
    scheduled.error(ResourceNotFound, "ListMonitoringAlerts", MonitoringScheduleName="other")
    scheduled.error(ValidationError, "ListMonitoringAlerts", MonitoringScheduleName="s", NextToken="x")


# --- what an execution says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "status", "message"),
    [
        (0, "Completed", "Completed: Job completed successfully with no violations."),
        (1, "CompletedWithViolations", "CompletedWithViolations: Job completed successfully with 1 violation."),
        (60, "CompletedWithViolations", "CompletedWithViolations: Job completed successfully with 60 violations."),
    ],
)
def test_exit_messages(count: int, status: str, message: str) -> None:
    """AWS's words (behaviour/06)."""
    record = Record(EXECUTION, "s/1", {}, 1.0, 1.0)
    found, body = executions.completed(record, {"Violations": count})
    assert (status, message) == (found, body["ExitMessage"])
    complaints = [{"Reason": "a body is no CSV", "Times": 3, "Example": "x"}]
    _, body = executions.completed(record, {"Violations": count, "Complaints": complaints})
    assert (
        f"{message} Not everything could be used (a body is no CSV: 3); complaints.json says more."
        == (body["ExitMessage"])
    )
