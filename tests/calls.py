"""A good request for every operation of the control API, as large as the model lets it be, and ways to spoil it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ARN = "arn:aws:sagemaker:us-east-1:123456789012"
ROLE = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole-20240101T000000"
VPC = {"SecurityGroupIds": ["sg-0a1b2c3d"], "Subnets": ["subnet-0a1b2c3d", "subnet-4e5f"]}
TAGS = [{"Key": "team", "Value": "Überblick & Co".replace("&", "+")}, {"Key": "sagemaker:project", "Value": ""}]
PAGE = {
    "MaxResults": 100,
    "SortBy": "Name",
    "SortOrder": "Ascending",
    "NameContains": "a-1",
    "CreationTimeAfter": 1_700_000_000.5,
    "CreationTimeBefore": 1_900_000_000.0,
}
CONTAINER = {
    "Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-xgboost:1.7-1",
    "ContainerHostname": "first",
    "Mode": "SingleModel",
    "ModelDataUrl": "s3://bucket/path/model.tar.gz",
    "Environment": {"SAGEMAKER_PROGRAM": "inference.py", "TEXT": "any\ntext é"},
    "ImageConfig": {"RepositoryAccessMode": "Platform"},
}
VARIANT = {
    "VariantName": "AllTraffic",
    "ModelName": "my-model",
    "InitialInstanceCount": 2,
    "InstanceType": "ml.m5.large",
    "InitialVariantWeight": 0.5,
    "VolumeSizeInGB": 30,
    "ContainerStartupHealthCheckTimeoutInSeconds": 600,
    "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    "EnableSSMAccess": False,
}
ROLLOUT = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "WaitIntervalInSeconds": 60,
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
        },
        "TerminationWaitInSeconds": 0,
        "MaximumExecutionTimeoutInSeconds": 600,
    },
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "too many errors"}]},
}
SPECIFICATION = {
    "ModelName": "my-model",
    "StartupParameters": {"ModelDataDownloadTimeoutInSeconds": 60},
    "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 0.25},
}
INFERENCE = {
    "Containers": [{"Image": "image:1", "ModelDataUrl": "s3://bucket/model.tar.gz", "Framework": "XGBOOST"}],
    "SupportedContentTypes": ["text/csv", "application/json"],
    "SupportedResponseMIMETypes": ["text/csv"],
    "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
    "SupportedTransformInstanceTypes": ["ml.m5.large"],
}

MONITORED = {
    "EndpointName": "my-endpoint",
    "LocalPath": "/opt/ml/processing/input",
    "S3InputMode": "File",
    "S3DataDistributionType": "FullyReplicated",
    "ProbabilityThresholdAttribute": 0.5,
    "StartTimeOffset": "-PT2H",
    "EndTimeOffset": "-PT1H",
}
REPORTS = {"MonitoringOutputs": [{"S3Output": {"S3Uri": "s3://bucket/reports", "LocalPath": "/opt/ml/output"}}]}
CLUSTER = {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 20}}
SCHEDULE = {
    "MonitoringScheduleName": "my-schedule",
    "MonitoringScheduleConfig": {
        "ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"},
        "MonitoringJobDefinition": {
            "BaselineConfig": {"ConstraintsResource": {"S3Uri": "s3://bucket/constraints.json"}},
            "MonitoringInputs": [{"EndpointInput": MONITORED}],
            "MonitoringOutputConfig": REPORTS,
            "MonitoringResources": CLUSTER,
            "MonitoringAppSpecification": {"ImageUri": "analyzer", "ContainerArguments": ["a"]},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "RoleArn": ROLE,
        },
        "MonitoringType": "DataQuality",
    },
}


def _definition(type: str) -> dict[str, dict[str, Any]]:
    """The requests about the job definitions of one type."""
    app: dict[str, Any] = {"ImageUri": "analyzer", "Environment": {"MODE": "monitor"}}
    truth = {"GroundTruthS3Input": {"S3Uri": "s3://bucket/labels"}} if type in ("ModelQuality", "ModelBias") else {}
    if type == "ModelQuality":
        app["ProblemType"] = "Regression"
    if type in ("ModelBias", "ModelExplainability"):
        app["ConfigUri"] = "s3://bucket/analysis_config.json"
    created = {
        "JobDefinitionName": "my-definition",
        f"{type}BaselineConfig": {"ConstraintsResource": {"S3Uri": "s3://bucket/constraints.json"}},
        f"{type}AppSpecification": app,
        f"{type}JobInput": {"EndpointInput": MONITORED, **truth},
        f"{type}JobOutputConfig": REPORTS,
        "JobResources": CLUSTER,
        "NetworkConfig": {"VpcConfig": VPC},
        "RoleArn": ROLE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "Tags": TAGS,
    }
    return {
        f"Create{type}JobDefinition": created,
        f"Describe{type}JobDefinition": {"JobDefinitionName": "my-definition"},
        f"List{type}JobDefinitions": {**PAGE, "EndpointName": "my-endpoint"},
        f"Delete{type}JobDefinition": {"JobDefinitionName": "my-definition"},
    }


#: Operation -> a request that AWS's model finds nothing wrong with.
GOOD: dict[str, dict[str, Any]] = {
    "CreateModel": {
        "ModelName": "my-model",
        "ExecutionRoleArn": ROLE,
        "Containers": [CONTAINER, {**CONTAINER, "ContainerHostname": "second"}],
        "InferenceExecutionConfig": {"Mode": "Serial"},
        "VpcConfig": VPC,
        "EnableNetworkIsolation": True,
        "Tags": TAGS,
    },
    "DescribeModel": {"ModelName": "my-model"},
    "ListModels": PAGE,
    "DeleteModel": {"ModelName": "my-model"},
    "CreateEndpointConfig": {
        "EndpointConfigName": "my-config",
        "ProductionVariants": [VARIANT],
        "ShadowProductionVariants": [{**VARIANT, "VariantName": "Shadow"}],
        "DataCaptureConfig": {
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://bucket/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        },
        "KmsKeyId": "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "Tags": TAGS,
    },
    "DescribeEndpointConfig": {"EndpointConfigName": "my-config"},
    "ListEndpointConfigs": PAGE,
    "DeleteEndpointConfig": {"EndpointConfigName": "my-config"},
    "CreateEndpoint": {
        "EndpointName": "my-endpoint",
        "EndpointConfigName": "my-config",
        "DeploymentConfig": ROLLOUT,
        "Tags": TAGS,
    },
    "DescribeEndpoint": {"EndpointName": "my-endpoint"},
    "ListEndpoints": {**PAGE, "StatusEquals": "InService", "LastModifiedTimeAfter": 0.0},
    "UpdateEndpoint": {
        "EndpointName": "my-endpoint",
        "EndpointConfigName": "my-config",
        "RetainAllVariantProperties": True,
        "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
        "DeploymentConfig": ROLLOUT,
        "RetainDeploymentConfig": False,
    },
    "UpdateEndpointWeightsAndCapacities": {
        "EndpointName": "my-endpoint",
        "DesiredWeightsAndCapacities": [
            {"VariantName": "AllTraffic", "DesiredWeight": 0.1, "DesiredInstanceCount": 0},
            {"VariantName": "Other", "ServerlessUpdateConfig": {"MaxConcurrency": 200}},
        ],
    },
    "DeleteEndpoint": {"EndpointName": "my-endpoint"},
    "CreateInferenceComponent": {
        "InferenceComponentName": "my-component",
        "EndpointName": "my-endpoint",
        "VariantName": "AllTraffic",
        "Specification": SPECIFICATION,
        "RuntimeConfig": {"CopyCount": 1},
        "Tags": TAGS,
    },
    "DescribeInferenceComponent": {"InferenceComponentName": "my-component"},
    "ListInferenceComponents": {**PAGE, "EndpointNameEquals": "my-endpoint", "VariantNameEquals": "AllTraffic"},
    "UpdateInferenceComponent": {
        "InferenceComponentName": "my-component",
        "Specification": SPECIFICATION,
        "DeploymentConfig": {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1},
                "WaitIntervalInSeconds": 0,
            }
        },
    },
    "UpdateInferenceComponentRuntimeConfig": {
        "InferenceComponentName": "my-component",
        "DesiredRuntimeConfig": {"CopyCount": 2},
    },
    "DeleteInferenceComponent": {"InferenceComponentName": "my-component"},
    **_definition("DataQuality"),
    **_definition("ModelQuality"),
    **_definition("ModelBias"),
    **_definition("ModelExplainability"),
    "CreateMonitoringSchedule": {**SCHEDULE, "Tags": TAGS},
    "UpdateMonitoringSchedule": SCHEDULE,
    **{
        f"{verb}MonitoringSchedule": {"MonitoringScheduleName": "my-schedule"}
        for verb in ("Describe", "Start", "Stop", "Delete")
    },
    "ListMonitoringSchedules": {**PAGE, "StatusEquals": "Scheduled", "MonitoringTypeEquals": "DataQuality"},
    "ListMonitoringExecutions": {
        **{name: value for name, value in PAGE.items() if name != "NameContains"},
        "SortBy": "ScheduledTime",
        "MonitoringScheduleName": "my-schedule",
        "ScheduledTimeAfter": 1_700_000_000.5,
    },
    "ListMonitoringAlerts": {"MonitoringScheduleName": "my-schedule", "MaxResults": 10},
    "UpdateMonitoringAlert": {
        "MonitoringScheduleName": "my-schedule",
        "MonitoringAlertName": "my-schedule",
        "DatapointsToAlert": 2,
        "EvaluationPeriod": 3,
    },
    "ListMonitoringAlertHistory": {"MonitoringScheduleName": "my-schedule", "StatusEquals": "InAlert"},
    "CreateTransformJob": {
        "TransformJobName": "my-job",
        "ModelName": "my-model",
        "MaxConcurrentTransforms": 16,
        "MaxPayloadInMB": 6,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 3600, "InvocationsMaxRetries": 0},
        "BatchStrategy": "SingleRecord",
        "Environment": {"MODE": "batch", "TEXT": "any\ntext é"},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in/"}},
            "ContentType": "text/csv",
            "CompressionType": "Gzip",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": "s3://bucket/out",
            "Accept": "text/csv",
            "AssembleWith": "Line",
            "KmsKeyId": "alias/key",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeKmsKeyId": "alias/key"},
        "DataProcessing": {"InputFilter": "$[1:]", "OutputFilter": "$[0,-1]", "JoinSource": "Input"},
        "DataCaptureConfig": {"DestinationS3Uri": "s3://bucket/capture", "GenerateInferenceId": True},
        "ExperimentConfig": {"ExperimentName": "my-experiment", "TrialName": "my-trial"},
        "Tags": TAGS,
    },
    "DescribeTransformJob": {"TransformJobName": "my-job"},
    "ListTransformJobs": {**PAGE, "SortBy": "Status", "StatusEquals": "InProgress", "LastModifiedTimeAfter": 0.0},
    "StopTransformJob": {"TransformJobName": "my-job"},
    "AddTags": {"ResourceArn": f"{ARN}:model/my-model", "Tags": TAGS},
    "ListTags": {"ResourceArn": f"{ARN}:model/my-model", "MaxResults": 50, "NextToken": "any"},
    "DeleteTags": {"ResourceArn": f"{ARN}:model/my-model", "TagKeys": ["team"]},
    "CreateModelPackageGroup": {
        "ModelPackageGroupName": "my-group",
        "ModelPackageGroupDescription": "Models of the team – all of them.",
        "Tags": TAGS,
    },
    "DescribeModelPackageGroup": {"ModelPackageGroupName": f"{ARN}:model-package-group/my-group"},
    "ListModelPackageGroups": PAGE,
    "DeleteModelPackageGroup": {"ModelPackageGroupName": "my-group"},
    "CreateModelPackage": {
        "ModelPackageGroupName": "my-group",
        "ModelPackageDescription": "A first try",
        "InferenceSpecification": INFERENCE,
        "ModelApprovalStatus": "PendingManualApproval",
        "CustomerMetadataProperties": {"git commit": "0a1b2c", "accuracy": "0.9"},
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://bucket/metrics.json"}}
        },
        "MetadataProperties": {"CommitId": "0a1b2c"},
        "ClientToken": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9",
    },
    "DescribeModelPackage": {"ModelPackageName": f"{ARN}:model-package/my-group/12"},
    "ListModelPackages": {**PAGE, "ModelPackageGroupName": "my-group", "ModelPackageType": "Both"},
    "UpdateModelPackage": {
        "ModelPackageArn": f"{ARN}:model-package/my-group/1",
        "ModelApprovalStatus": "Approved",
        "ApprovalDescription": "Looks good",
        "CustomerMetadataPropertiesToRemove": ["accuracy"],
    },
    "DeleteModelPackage": {"ModelPackageName": "my-group/1"},
    "BatchDescribeModelPackage": {"ModelPackageArnList": [f"{ARN}:model-package/my-group/1"]},
}

Where = tuple[str | int, ...]


def places(value: Any, at: Where = ()) -> Iterator[Where]:
    """The way to every value inside ``value``, itself first."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inner:
        yield from places(item, (*at, step))


def spoilt(request: dict[str, Any], at: Where, junk: Any) -> Any:
    """A copy of ``request`` with ``junk`` at one place."""
    if not at:
        return junk
    made = copy.deepcopy(request)
    inner: Any = made
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = junk
    return made


_TEXTS = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        ["", " ", "-", "a-", "a" * 64, "a" * 65_536, "-" * 65_536, "é" * 64, "\0", "a\n", "٣", "s3://", "-1"]
    ),
    st.sampled_from(["a" * 30_000 + "!", "s3://" + "a/" * 500 + "\n", "../..", "arn:aws:sagemaker:::", "NaN"]),
)
_NUMBERS = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([2**63, -(2**63), 10**300, -0.0])
)
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS)
#: JSON values that a request may hold, most of them in the wrong place.
JUNK = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def wild(draw: st.DrawFn) -> tuple[str, Any]:
    """An operation and a request for it, good but for up to three places."""
    operation = draw(st.sampled_from(sorted(GOOD)))
    request: Any = GOOD[operation]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(list(places(request))))
        junk = draw(JUNK)
        if isinstance(request, dict):
            request = spoilt(request, at, junk)
    return operation, request
