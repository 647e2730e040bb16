"""The table of the control API's operations: ``python -m docs.operations > docs/operations.md``.

Which operations there are is said by the server's own table (``ACTIONS``), what a request must have by AWS's service
model; only the last column is written here. A test compares the file with what this prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from serving.api import shapes
from serving.api.control_actions import ACTIONS
from serving.api.control_api import READERS
from serving.api.schema import Schema

HEAD = """# Operations of the control API

`POST /` with `X-Amz-Target: SageMaker.OPERATION`, AWS JSON 1.1. Every member of AWS's model is accepted, checked and,
where Describe has it, returned; *needs* names those that a request cannot do without. *permission* is what a key must
have where keys are configured. An operation of AWS that is not here is answered by `UnknownOperationException`.

This file is what `python -m docs.operations` prints; a test compares the two.

| operation | permission | needs | here |
|---|---|---|---|"""

_KEPT_GUARDRAILS = "a DeploymentConfig is checked, kept and returned; the switch is always whole"
_SNAPSHOT = "endpoints that use it keep their snapshot"
_LABELS = "immutable; image, role, network and resources are labels"
_COPIES = "schedules that use it keep their copy"
_PAGES = "pages, sorting, filters and windows of time as in the model"

#: What AWS's own documentation would not tell.
NOTES: Mapping[str, str] = {
    "CreateModel": "Image, role and VPC are labels: the artifact is what runs. 1-15 containers, one may be MultiModel",
    "DescribeModel": "the request as it was sent",
    "ListModels": _PAGES,
    "DeleteModel": _SNAPSHOT,
    "CreateEndpointConfig": "instance types are labels: an instance is a worker process for each container",
    "DescribeEndpointConfig": "the request as it was sent",
    "ListEndpointConfigs": _PAGES,
    "DeleteEndpointConfig": _SNAPSHOT,
    "CreateEndpoint": f"copies the config and its models; {_KEPT_GUARDRAILS}",
    "DescribeEndpoint": "what runs at this moment; while an update comes up, PendingDeploymentSummary",
    "ListEndpoints": _PAGES,
    "UpdateEndpoint": f"the new fleet beside the old, rolled back when it cannot come up; {_KEPT_GUARDRAILS}",
    "UpdateEndpointWeightsAndCapacities": "in place, all or nothing; variants left out stay",
    "DeleteEndpoint": "accepted calls are finished first; components must have gone",
    "CreateInferenceComponent": "a copy is a worker process; compute requirements are labels; no adapters",
    "DescribeInferenceComponent": "CurrentCopyCount is what answers at this moment",
    "ListInferenceComponents": _PAGES,
    "UpdateInferenceComponent": "a new specification comes up beside the old one; a count alone changes in place",
    "UpdateInferenceComponentRuntimeConfig": "0 to 1,000 copies",
    "DeleteInferenceComponent": "accepted calls are finished first",
    "CreateTransformJob": "copies the model; its own workers, one process an instance, gone after the job; instance "
    "types and keys are labels. Outputs that would be read as inputs are refused",
    "DescribeTransformJob": "with `Progress`: objects, records, bytes, rate, seconds left. Of a job that has changed "
    "within `SERVING_SETTLE_SECONDS` the answer waits that long for its end, so that a waiter's first look finds it",
    "ListTransformJobs": _PAGES,
    "StopTransformJob": "a stopped job leaves no output",
    "CreateDataQualityJobDefinition": f"data quality against a baseline's statistics and constraints; {_LABELS}",
    "DescribeDataQualityJobDefinition": "the request as it was sent",
    "ListDataQualityJobDefinitions": _PAGES,
    "DeleteDataQualityJobDefinition": _COPIES,
    "CreateModelQualityJobDefinition": f"predictions against labels; {_LABELS}",
    "DescribeModelQualityJobDefinition": "the request as it was sent",
    "ListModelQualityJobDefinitions": _PAGES,
    "DeleteModelQualityJobDefinition": _COPIES,
    "CreateModelBiasJobDefinition": f"bias of predictions and labels; {_LABELS}",
    "DescribeModelBiasJobDefinition": "the request as it was sent",
    "ListModelBiasJobDefinitions": _PAGES,
    "DeleteModelBiasJobDefinition": _COPIES,
    "CreateModelExplainabilityJobDefinition": f"drift of feature attributions; {_LABELS}",
    "DescribeModelExplainabilityJobDefinition": "the request as it was sent",
    "ListModelExplainabilityJobDefinitions": _PAGES,
    "DeleteModelExplainabilityJobDefinition": _COPIES,
    "CreateMonitoringSchedule": "runs in this server, one execution at a time. A run that was missed while the server "
    "was down is made up for once, the latest; `NOW` runs once; without a ScheduleConfig daily at 0 UTC",
    "DescribeMonitoringSchedule": "with `NextExecutionTime`, `MissedExecutions` and of the `LastMonitoringExecution` "
    "ExitMessage, Violations, Records, S3OutputPath, Window",
    "ListMonitoringSchedules": _PAGES,
    "UpdateMonitoringSchedule": "what is under way goes on by the old configuration",
    "StartMonitoringSchedule": "runs whose time comes from now on; `NOW` runs once more",
    "StopMonitoringSchedule": "the execution under way is stopped too",
    "DeleteMonitoringSchedule": "the history of its executions stays",
    "ListMonitoringExecutions": f"{_PAGES}; with `Details`, an entry beside each summary. The newest 100 of a schedule "
    "are kept; there are no processing jobs, so no ProcessingJobArn",
    "ListMonitoringAlerts": "a schedule has one alert, of its own name",
    "UpdateMonitoringAlert": "1 of 1 when it is new; evaluated anew at once",
    "ListMonitoringAlertHistory": "its last 100 changes",
    "AddTags": "on every resource here, by its ARN; 50 at most; a key given again gets the new value",
    "ListTags": "in the order in which they came",
    "DeleteTags": "",
    "CreateModelPackageGroup": "",
    "DescribeModelPackageGroup": "CreatedBy is the account: there are no users",
    "ListModelPackageGroups": _PAGES,
    "DeleteModelPackageGroup": "an empty one",
    "CreateModelPackage": "Completed at once, nothing is validated in the background; repeatable by ClientToken",
    "DescribeModelPackage": "by name, group/version or ARN",
    "BatchDescribeModelPackage": "what is wrong with one ARN stands beside the others' answers",
    "ListModelPackages": _PAGES,
    "UpdateModelPackage": "approval, description, metadata, specifications",
    "DeleteModelPackage": "a version's number does not come back",
}


def rows() -> Iterator[str]:
    """One line of Markdown for each operation, in the order of the table."""
    schema = Schema.load(offered=ACTIONS)
    for name in ACTIONS:
        node = schema.input(name)
        needs = [f"`{member}`" for member in sorted(node.required)] if isinstance(node, shapes.Structure) else []
        permission = "read" if name.startswith(READERS) else "manage"
        yield f"| `{name}` | {permission} | {', '.join(needs)} | {NOTES[name]} |"


def page() -> str:
    """The whole file."""
    return "\n".join([HEAD, *rows(), ""])


if __name__ == "__main__":
    print(page(), end="")
