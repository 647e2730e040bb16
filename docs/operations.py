"""The tables of the control APIs' operations: ``python -m docs.operations > docs/operations.md``.

Which operations there are is said by the server's own tables (``OPERATIONS``), what a request must have by AWS's
service models; only the last column is written here. A test compares the file with what this prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from serving.api import shapes
from serving.api.control_actions import OPERATIONS
from serving.api.control_api import load_schema
from serving.api.services import AUTOSCALING, CLOUDWATCH, SAGEMAKER, only_reads

HEAD = """# Operations of the control APIs

`POST /` with `X-Amz-Target: PREFIX.OPERATION`. Every member of AWS's model is accepted, checked and, where Describe has
it, returned; *needs* names those that a request cannot do without. *permission* is what a key must
have where keys are configured. An operation of AWS that is not here is answered by `UnknownOperationException`.

This file is what `python -m docs.operations` prints; a test compares the two."""

TABLE = """
## {name}

Prefix `{prefix}`, {wire}.

| operation | permission | needs | here |
|---|---|---|---|"""

#: Service -> its name, and how it is spoken to.
SERVICES: Mapping[str, tuple[str, str]] = {
    SAGEMAKER: ("SageMaker", "AWS JSON 1.1"),
    AUTOSCALING: ("Application Auto Scaling", "AWS JSON 1.1"),
    CLOUDWATCH: ("CloudWatch", "AWS JSON 1.0, or form-encoded with answers in XML"),
}

_KEPT_GUARDRAILS = "a DeploymentConfig is checked, kept and returned"
_SNAPSHOT = "endpoints that use it keep their snapshot"
_LABELS = "immutable; image, role, network and resources are labels"
_COPIES = "schedules that use it keep their copy"
_PAGES = "pages, sorting, filters and windows of time as in the model"

#: What AWS's own documentation would not tell.
_SAGEMAKER: Mapping[str, str] = {
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
    "UpdateEndpoint": "the new fleet beside the old, rolled back when it cannot come up; step by step where a "
    "DeploymentConfig says so",
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


_SCALING: Mapping[str, str] = {
    "RegisterScalableTarget": "variants (instances, or provisioned concurrency of a serverless one) and inference "
    "components (copies); MinCapacity 0 for asynchronous endpoints and components, for real-time variants with "
    "`SERVING_SCALE_TO_ZERO`",
    "DescribeScalableTargets": "",
    "DeregisterScalableTarget": "with its policies, their alarms and its scheduled actions; so does the deletion of "
    "the endpoint or component",
    "DescribeScalingActivities": "six weeks of them; those that came to nothing are in memory",
    "PutScalingPolicy": "target tracking and step scaling; a metric may be metric maths. Periods and cooldowns that "
    "are not said follow `SERVING_SCALING_PERIOD_SECONDS`",
    "DescribeScalingPolicies": "",
    "DeleteScalingPolicy": "a target tracking policy with its alarms",
    "PutScheduledAction": "at, rate and cron, in any time zone",
    "DescribeScheduledActions": "",
    "DeleteScheduledAction": "",
    "TagResource": "scalable targets, by their ARN",
    "UntagResource": "",
    "ListTagsForResource": "",
}

_WATCHING: Mapping[str, str] = {
    "PutMetricAlarm": "a metric or metric maths; a scaling policy's ARN as an action is what steps are taken by",
    "SetAlarmState": "until the next evaluation",
    "GetMetricData": "metrics and metric maths",
    "PutMetricData": "kept in memory",
    "ListMetrics": "what there is now",
}

NOTES: Mapping[str, Mapping[str, str]] = {SAGEMAKER: _SAGEMAKER, AUTOSCALING: _SCALING, CLOUDWATCH: _WATCHING}


def rows(prefix: str) -> Iterator[str]:
    """One line of Markdown for each operation of a service, in the order of its table."""
    schema = load_schema(prefix)
    for name in OPERATIONS[prefix]:
        node = schema.input(name)
        needs = [f"`{member}`" for member in sorted(node.required)] if isinstance(node, shapes.Structure) else []
        permission = "read" if only_reads(f"{prefix}.{name}") else "manage"
        yield f"| `{name}` | {permission} | {', '.join(needs)} | {NOTES[prefix].get(name, '')} |"


def page() -> str:
    """The whole file."""
    lines = [HEAD]
    for prefix, (name, wire) in SERVICES.items():
        lines += [TABLE.format(name=name, prefix=prefix, wire=wire), *rows(prefix)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(page(), end="")
