"""The operations of the CloudWatch API: which action answers which."""

from __future__ import annotations

from collections.abc import Mapping

from serving.api import cloudwatch_alarms, cloudwatch_data, cloudwatch_metrics, cloudwatch_tags
from serving.api.control_call import Action

CLOUDWATCH_ACTIONS: Mapping[str, Action] = {
    "PutMetricAlarm": cloudwatch_alarms.put,
    "DescribeAlarms": cloudwatch_alarms.describe,
    "DescribeAlarmsForMetric": cloudwatch_alarms.describe_for_metric,
    "DescribeAlarmHistory": cloudwatch_alarms.history,
    "DeleteAlarms": cloudwatch_alarms.delete,
    "SetAlarmState": cloudwatch_alarms.set_state,
    "EnableAlarmActions": cloudwatch_alarms.switch_actions(True),
    "DisableAlarmActions": cloudwatch_alarms.switch_actions(False),
    "GetMetricData": cloudwatch_data.get_data,
    "GetMetricStatistics": cloudwatch_metrics.get_statistics,
    "ListMetrics": cloudwatch_metrics.list_metrics,
    "PutMetricData": cloudwatch_metrics.put_data,
    "TagResource": cloudwatch_tags.tag,
    "UntagResource": cloudwatch_tags.untag,
    "ListTagsForResource": cloudwatch_tags.list_tags,
}
