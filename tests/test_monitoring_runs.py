"""Monitoring schedules on a real server, by unmodified boto3: a window of captured calls becomes files, series and an
alert, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from serving.monitor.data_quality import baseline as suggested
from serving.monitor.tables import dataset
from serving.monitor.values import Complaints
from tests.calls import GOOD
from tests.cloud import client, container, make_config, make_model, production, put_script, settled
from tests.processes import is_alive, processes
from tests.server import Server, serve

ENVIRONMENT = {"SERVING_ALLOW_CODE": "true", "SERVING_CAPTURE_DETAILS": "true", "SERVING_LOG_LEVEL": "info"}
#: A model of two columns: the answer is whether the first is greater than 5.
SCRIPT = """
def transform_fn(model, body, content_type, accept):
    rows = [line.split(",") for line in body.split()]
    return "\\n".join("1" if float(row[0]) > 5 else "0" for row in rows), "text/csv"
"""
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
}
NOW = {"ScheduleExpression": "NOW", "DataAnalysisStartTime": "-PT1H", "DataAnalysisEndTime": "-PT0H"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a model ``m``, and an endpoint ``e`` that has answered 300 rows between 0 and 10."""
    with serve(tmp_path_factory.mktemp("monitoring"), environment=ENVIRONMENT) as running:
        sagemaker = client(running)
        make_model(sagemaker, "m", container(put_script(running, "m", SCRIPT)))
        make(sagemaker, "e")
        invoke(running, "e", rows(300))
        yield running
        assert "request failed" not in running.log
        assert "could not be looked after" not in running.log


@pytest.fixture(scope="module")
def sagemaker(server: Server) -> Any:
    """Stock boto3."""
    return client(server)


def make(sagemaker: Any, name: str, model: str = "m") -> None:
    """An endpoint whose calls are captured."""
    capture = {**CAPTURE, "DestinationS3Uri": f"s3://captures/{name}"}
    make_config(sagemaker, name, production(model), DataCaptureConfig=capture)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert "InService" == settled(sagemaker, name)["EndpointStatus"]


def rows(count: int, shift: float = 0.0) -> list[str]:
    """CSV rows of two columns, the second shifted."""
    dice = random.Random(7)
    return [f"{dice.uniform(0, 10):.3f},{dice.uniform(0, 10) + shift:.3f}" for _ in range(count)]


def invoke(server: Server, endpoint: str, lines: list[str], size: int = 20, **more: Any) -> None:
    """Calls of ``size`` rows each; returns when all of them can be read."""
    runtime, before = client(server, "sagemaker-runtime"), captured(server, endpoint)
    starts = range(0, len(lines), size)
    for at in starts:
        body = "\n".join(lines[at : at + size])
        given = {name: value.format(at) for name, value in more.items()}
        runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="text/csv", **given)["Body"].read()
    server.eventually(lambda: before + len(starts) == captured(server, endpoint))


def captured(server: Server, endpoint: str) -> int:
    """How many of its calls can be read."""
    with server.client() as http:
        return len(http.get(f"/endpoints/{endpoint}/captures").text.splitlines())


def baseline(server: Server, name: str, lines: list[str]) -> dict[str, Any]:
    """The URLs of a baseline of these rows, behind their answers."""
    table = "said,a,b\n" + "\n".join(f"{int(float(line.split(',')[0]) > 5)},{line}" for line in lines)
    statistics, constraints = suggested(dataset(BytesIO(table.encode()), "x.csv", Complaints()))
    folder = server.data_dir / "s3" / "baselines" / name
    folder.mkdir(parents=True)
    for file, document in (("statistics", statistics), ("constraints", constraints)):
        (folder / f"{file}.json").write_text(json.dumps(document))
    return {
        "ConstraintsResource": {"S3Uri": f"s3://baselines/{name}/constraints.json"},
        "StatisticsResource": {"S3Uri": f"s3://baselines/{name}/statistics.json"},
    }


def define(sagemaker: Any, name: str, endpoint: str, type: str = "DataQuality", **members: Any) -> None:
    """A job definition; ``Baseline`` and ``Input`` go into their structures."""
    body = GOOD[f"Create{type}JobDefinition"]
    given = {"EndpointInput": {"EndpointName": endpoint, "LocalPath": "/in"}, **members.pop("Input", {})}
    output = {"MonitoringOutputs": [{"S3Output": {"S3Uri": "s3://reports", "LocalPath": "/out"}}]}
    found = members.pop("Baseline", {})
    operation = {"DataQuality": "data_quality", "ModelQuality": "model_quality"}[type]
    call = getattr(sagemaker, f"create_{operation}_job_definition")
    call(
        **{
            **{key: value for key, value in body.items() if key not in ("Tags", f"{type}BaselineConfig")},
            "JobDefinitionName": name,
            f"{type}BaselineConfig": found,
            f"{type}JobInput": given,
            f"{type}JobOutputConfig": output,
            **members,
        }
    )


def schedule(sagemaker: Any, name: str, type: str = "DataQuality") -> None:
    """A schedule of the definition of its name, that runs once, now."""
    config = {"ScheduleConfig": NOW, "MonitoringJobDefinitionName": name, "MonitoringType": type}
    sagemaker.create_monitoring_schedule(MonitoringScheduleName=name, MonitoringScheduleConfig=config)


def ended(server: Server, sagemaker: Any, name: str, count: int = 1) -> dict[str, Any]:
    """The newest of so many executions of a schedule, once they have all ended."""
    found: list[dict[str, Any]] = []

    def done() -> bool:
        answer = sagemaker.list_monitoring_executions(MonitoringScheduleName=name)
        found[:] = answer["MonitoringExecutionSummaries"]
        return len(found) == count and all(
            one["MonitoringExecutionStatus"] not in ("Pending", "InProgress", "Stopping") for one in found
        )

    server.eventually(done, 60.0)
    return found[0]


def report(server: Server, endpoint: str, name: str, file: str) -> Any:
    """A file of a schedule's only run."""
    (path,) = (server.data_dir / "s3" / "reports" / endpoint / name).glob(f"*/*/*/*/{file}")
    return json.loads(path.read_text())


def monitor_process(server: Server) -> int:
    """The pid of the server's monitor process, as soon as there is one that knows whose it is."""

    def ready() -> list[int]:
        return [
            pid
            for pid in processes(server, "serving.monitor_process")
            if Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
        ]

    server.eventually(lambda: bool(ready()))
    return ready()[0]


# --- data quality -----------------------------------------------------------------------------------------------------


def test_data_as_the_baseline_is_completed_and_drifted_data_violates(server: Server, sagemaker: Any) -> None:
    """Files, summary, exit message, series and alert; the column that drifted is named. A schedule that is deleted
    takes its series along and leaves its history."""
    define(sagemaker, "same", "e", Baseline=baseline(server, "same", rows(300)))
    define(sagemaker, "other", "e", Baseline=baseline(server, "other", rows(300, shift=4.0)))
    for name, status in (("same", "Completed"), ("other", "CompletedWithViolations")):
        schedule(sagemaker, name)
        summary = ended(server, sagemaker, name)
        assert (status, name, "e", "DataQuality") == (
            summary["MonitoringExecutionStatus"], summary["MonitoringJobDefinitionName"], summary["EndpointName"],
            summary["MonitoringType"],
        )  # fmt: skip
        assert summary["ScheduledTime"] <= summary["CreationTime"] <= summary["LastModifiedTime"]
        assert 300 == report(server, "e", name, "statistics.json")["dataset"]["item_count"]
        assert report(server, "e", name, "constraints.json")["features"]
    assert [] == report(server, "e", "same", "constraint_violations.json")["violations"]
    (one,) = report(server, "e", "other", "constraint_violations.json")["violations"]
    assert ("b", "baseline_drift_check") == (one["feature_name"], one["constraint_check_type"])
    server.wait_for(r"monitoring execution other/\d+: CompletedWithViolations: .* with 1 violation\.$")
    described = sagemaker.describe_monitoring_schedule(MonitoringScheduleName="other")
    assert "Scheduled" == described["MonitoringScheduleStatus"]
    assert "CompletedWithViolations" == described["LastMonitoringExecutionSummary"]["MonitoringExecutionStatus"]
    (alert,) = sagemaker.list_monitoring_alerts(MonitoringScheduleName="other")["MonitoringAlertSummaries"]
    assert "InAlert" == alert["AlertStatus"]
    drift = {"endpoint": "e", "schedule": "other", "feature": "b"}
    server.eventually(lambda: server.metric("sagemaker_feature_baseline_drift", **drift) > 0.1)
    assert 1 == server.metric("sagemaker_monitoring_violations", endpoint="e", schedule="other")
    assert 1 <= server.metric("sagemaker_monitoring_executions_total", status="CompletedWithViolations")
    sagemaker.delete_monitoring_schedule(MonitoringScheduleName="other")
    server.eventually(lambda: 0 == server.metric("sagemaker_feature_baseline_drift", endpoint="e", schedule="other"))
    assert 0 == server.metric("sagemaker_monitoring_violations", endpoint="e", schedule="other")
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_monitoring_schedule(MonitoringScheduleName="other")
    assert "CompletedWithViolations" == ended(server, sagemaker, "other")["MonitoringExecutionStatus"]


# --- what comes to nothing --------------------------------------------------------------------------------------------


def test_an_execution_that_comes_to_nothing_says_why(server: Server, sagemaker: Any) -> None:
    """A window without calls; started again, an endpoint that has gone."""
    make(sagemaker, "quiet")
    define(sagemaker, "quiet", "quiet")
    schedule(sagemaker, "quiet")
    assert "Job inputs had no data" == ended(server, sagemaker, "quiet")["FailureReason"]
    sagemaker.delete_endpoint(EndpointName="quiet")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="quiet", WaiterConfig={"Delay": 1})
    sagemaker.stop_monitoring_schedule(MonitoringScheduleName="quiet")
    sagemaker.start_monitoring_schedule(MonitoringScheduleName="quiet")
    summary = ended(server, sagemaker, "quiet", 2)
    assert ("Failed", "Endpoint quiet does not exist any more, or captures nothing.") == (
        summary["MonitoringExecutionStatus"], summary["FailureReason"],
    )  # fmt: skip


def test_a_schedule_is_stopped_at_work(server: Server, sagemaker: Any) -> None:
    """Its process ends with it."""
    define(sagemaker, "stopped", "e")
    schedule(sagemaker, "stopped")
    pid = monitor_process(server)
    os.kill(pid, signal.SIGSTOP)
    sagemaker.stop_monitoring_schedule(MonitoringScheduleName="stopped")
    assert "Stopped" == ended(server, sagemaker, "stopped")["MonitoringExecutionStatus"]
    server.eventually(lambda: not is_alive(pid))


def test_a_monitor_process_that_is_killed_is_replaced(server: Server, sagemaker: Any) -> None:
    """The execution is done again, to the same files."""
    define(sagemaker, "killed", "e")
    schedule(sagemaker, "killed")
    os.kill(monitor_process(server), signal.SIGKILL)
    assert "Completed" == ended(server, sagemaker, "killed")["MonitoringExecutionStatus"]
    assert 300 == report(server, "e", "killed", "statistics.json")["dataset"]["item_count"]


def test_an_execution_survives_the_server(tmp_path: Path) -> None:
    """Killed in the middle of it; the next start does it again, once."""
    with serve(tmp_path, environment=ENVIRONMENT) as running:
        sagemaker = client(running)
        make_model(sagemaker, "m", container(put_script(running, "m", SCRIPT)))
        make(sagemaker, "e")
        invoke(running, "e", rows(40))
        define(sagemaker, "s", "e")
        schedule(sagemaker, "s")
        pid = monitor_process(running)
        os.kill(pid, signal.SIGSTOP)
        running.stop(signal.SIGKILL)
        running.eventually(lambda: not is_alive(pid))
    with serve(tmp_path, environment=ENVIRONMENT) as running:
        sagemaker = client(running)
        assert "Completed" == ended(running, sagemaker, "s")["MonitoringExecutionStatus"]
        assert 40 == report(running, "e", "s", "statistics.json")["dataset"]["item_count"]
        assert 0 == running.stop()


# --- labels, and many models ------------------------------------------------------------------------------------------


def test_model_quality_by_labels(server: Server, sagemaker: Any) -> None:
    """Merged by inference id; captures without a label are counted, and the merged ones kept."""
    make(sagemaker, "labelled")
    lines = rows(30)
    invoke(server, "labelled", lines, size=1, InferenceId="call-{}")
    said = [
        {
            "groundTruthData": {"data": str(int(float(line.split(",")[0]) > 5)), "encoding": "CSV"},
            "eventMetadata": {"eventId": f"call-{at}"},
            "eventVersion": "0",
        }
        for at, line in enumerate(lines[:20])
    ]
    folder = server.data_dir / "s3" / "labels" / datetime.now(UTC).strftime("%Y/%m/%d/%H")
    folder.mkdir(parents=True)
    (folder / "one.jsonl").write_text("\n".join(map(json.dumps, said)))
    app = {"ImageUri": "i", "ProblemType": "BinaryClassification"}
    truth = {"GroundTruthS3Input": {"S3Uri": "s3://labels"}}
    limits = server.data_dir / "s3" / "baselines" / "quality.json"
    limits.parent.mkdir(parents=True, exist_ok=True)
    wanted = {"accuracy": {"threshold": 0.9, "comparison_operator": "LessThanThreshold"}}
    limits.write_text(json.dumps({"version": 0.0, "binary_classification_constraints": wanted}))
    found = {"ConstraintsResource": {"S3Uri": "s3://baselines/quality.json"}}
    define(
        sagemaker, "quality", "labelled", "ModelQuality", Input=truth, ModelQualityAppSpecification=app, Baseline=found
    )
    schedule(sagemaker, "quality", "ModelQuality")
    assert "Completed" == ended(server, sagemaker, "quality")["MonitoringExecutionStatus"]
    metrics = report(server, "labelled", "quality", "statistics.json")["binary_classification_metrics"]
    assert 1.0 == metrics["accuracy"]["value"]
    assert {"a capture without a label": 10} == {
        one["reason"]: one["times"] for one in report(server, "labelled", "quality", "complaints.json")["complaints"]
    }
    merged = (server.data_dir / "s3" / "reports" / "merge" / "labelled" / "AllTraffic").rglob("*.jsonl")
    assert 20 == sum(len(path.read_text().splitlines()) for path in merged)
    labels = {"endpoint": "labelled", "schedule": "quality", "metric": "accuracy"}
    server.eventually(lambda: server.metric("sagemaker_monitoring_metric", **labels) == 1.0)


def test_models_of_one_endpoint_are_looked_at_one_by_one(server: Server, sagemaker: Any) -> None:
    """What they violate together is the run's."""
    for name in ("left", "right"):
        put_script(server, f"family/{name}", SCRIPT)
    make_model(sagemaker, "family", container("s3://models/family/", Mode="MultiModel"))
    make(sagemaker, "family", "family")
    invoke(server, "family", rows(300), TargetModel="left")
    invoke(server, "family", rows(300, shift=4.0), TargetModel="right")
    define(sagemaker, "family", "family", Baseline=baseline(server, "family", rows(300)))
    schedule(sagemaker, "family")
    assert "CompletedWithViolations" == ended(server, sagemaker, "family")["MonitoringExecutionStatus"]
    (one,) = report(server, "family", "family", "constraint_violations.json")["violations"]
    assert ("b", "right") == (one["feature_name"], one["target_model"])
    assert [] == report(server, "family", "family", "models/left/constraint_violations.json")["violations"]
