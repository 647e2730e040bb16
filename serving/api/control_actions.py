"""The control APIs' operations: which action answers which. An operation that AWS has and these tables lack is refused
as unknown."""

from __future__ import annotations

from collections.abc import Mapping

from serving.api import (
    autoscaling_policies,
    autoscaling_schedules,
    autoscaling_targets,
    control_alerts,
    control_components,
    control_configs,
    control_endpoints,
    control_job_definitions,
    control_lists,
    control_models,
    control_monitoring,
    control_registry,
    control_tags,
    control_transforms,
)
from serving.api.cloudwatch_actions import CLOUDWATCH_ACTIONS
from serving.api.control_call import Action
from serving.api.services import AUTOSCALING, CLOUDWATCH, SAGEMAKER

ACTIONS: Mapping[str, Action] = {
    # models
    "CreateModel": control_models.create,
    "DescribeModel": control_models.describe,
    "ListModels": control_lists.page,
    "DeleteModel": control_models.delete,
    # endpoint configurations
    "CreateEndpointConfig": control_configs.create,
    "DescribeEndpointConfig": control_configs.describe,
    "ListEndpointConfigs": control_lists.page,
    "DeleteEndpointConfig": control_configs.delete,
    # endpoints
    "CreateEndpoint": control_endpoints.create,
    "DescribeEndpoint": control_endpoints.describe,
    "ListEndpoints": control_lists.page,
    "UpdateEndpoint": control_endpoints.update,
    "UpdateEndpointWeightsAndCapacities": control_endpoints.update_weights,
    "DeleteEndpoint": control_endpoints.delete,
    # inference components
    "CreateInferenceComponent": control_components.create,
    "DescribeInferenceComponent": control_components.describe,
    "ListInferenceComponents": control_lists.page,
    "UpdateInferenceComponent": control_components.update,
    "UpdateInferenceComponentRuntimeConfig": control_components.update_runtime,
    "DeleteInferenceComponent": control_components.delete,
    # transform jobs
    "CreateTransformJob": control_transforms.create,
    "DescribeTransformJob": control_transforms.describe,
    "ListTransformJobs": control_lists.page,
    "StopTransformJob": control_transforms.stop,
    # monitoring
    "CreateDataQualityJobDefinition": control_job_definitions.create,
    "DescribeDataQualityJobDefinition": control_job_definitions.describe,
    "ListDataQualityJobDefinitions": control_lists.page,
    "DeleteDataQualityJobDefinition": control_job_definitions.delete,
    "CreateModelQualityJobDefinition": control_job_definitions.create,
    "DescribeModelQualityJobDefinition": control_job_definitions.describe,
    "ListModelQualityJobDefinitions": control_lists.page,
    "DeleteModelQualityJobDefinition": control_job_definitions.delete,
    "CreateModelBiasJobDefinition": control_job_definitions.create,
    "DescribeModelBiasJobDefinition": control_job_definitions.describe,
    "ListModelBiasJobDefinitions": control_lists.page,
    "DeleteModelBiasJobDefinition": control_job_definitions.delete,
    "CreateModelExplainabilityJobDefinition": control_job_definitions.create,
    "DescribeModelExplainabilityJobDefinition": control_job_definitions.describe,
    "ListModelExplainabilityJobDefinitions": control_lists.page,
    "DeleteModelExplainabilityJobDefinition": control_job_definitions.delete,
    "CreateMonitoringSchedule": control_monitoring.create,
    "DescribeMonitoringSchedule": control_monitoring.describe,
    "ListMonitoringSchedules": control_alerts.list_schedules,
    "UpdateMonitoringSchedule": control_monitoring.update,
    "StartMonitoringSchedule": control_monitoring.start,
    "StopMonitoringSchedule": control_monitoring.stop,
    "DeleteMonitoringSchedule": control_monitoring.delete,
    "ListMonitoringExecutions": control_alerts.list_executions,
    "ListMonitoringAlerts": control_alerts.list_alerts,
    "UpdateMonitoringAlert": control_alerts.update_alert,
    "ListMonitoringAlertHistory": control_alerts.list_alert_history,
    # tags
    "AddTags": control_tags.add_tags,
    "ListTags": control_tags.list_tags,
    "DeleteTags": control_tags.delete_tags,
    # registry
    "CreateModelPackageGroup": control_registry.create_group,
    "DescribeModelPackageGroup": control_registry.describe_group,
    "ListModelPackageGroups": control_lists.page,
    "DeleteModelPackageGroup": control_registry.delete_group,
    "CreateModelPackage": control_registry.create_package,
    "DescribeModelPackage": control_registry.describe_package,
    "BatchDescribeModelPackage": control_registry.batch_describe,
    "ListModelPackages": control_lists.page,
    "UpdateModelPackage": control_registry.update_package,
    "DeleteModelPackage": control_registry.delete_package,
}

AUTOSCALING_ACTIONS: Mapping[str, Action] = {
    "RegisterScalableTarget": autoscaling_targets.register,
    "DescribeScalableTargets": autoscaling_targets.describe,
    "DeregisterScalableTarget": autoscaling_targets.deregister,
    "DescribeScalingActivities": autoscaling_targets.describe_activities,
    "PutScalingPolicy": autoscaling_policies.put,
    "DescribeScalingPolicies": autoscaling_policies.describe,
    "DeleteScalingPolicy": autoscaling_policies.delete,
    "PutScheduledAction": autoscaling_schedules.put,
    "DescribeScheduledActions": autoscaling_schedules.describe,
    "DeleteScheduledAction": autoscaling_schedules.delete,
    "TagResource": autoscaling_targets.tag,
    "UntagResource": autoscaling_targets.untag,
    "ListTagsForResource": autoscaling_targets.list_tags,
}

#: Service -> its operations.
OPERATIONS: Mapping[str, Mapping[str, Action]] = {
    SAGEMAKER: ACTIONS,
    AUTOSCALING: AUTOSCALING_ACTIONS,
    CLOUDWATCH: CLOUDWATCH_ACTIONS,
}
