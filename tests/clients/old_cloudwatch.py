"""What code written for an older boto3 does with alarms and metrics: run by the interpreter of ``boto3-old``, which
sends forms and reads XML. Nothing here knows of another server than AWS: it is found by the environment.

Prints what it was answered as JSON.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import boto3

NAME = 'old: <"ä" & co>'


def main() -> None:
    """An alarm and a metric of its own, from one end to the other."""
    watch, now = boto3.client("cloudwatch"), datetime.now(UTC)
    dimensions = [{"Name": "which", "Value": "a/b"}]
    watch.put_metric_data(
        Namespace="Old",
        MetricData=[{"MetricName": "m", "Dimensions": dimensions, "Values": [1.5, 2.5], "Counts": [1, 3]}],
    )
    queries = [
        {
            "Id": "m",
            "MetricStat": {
                "Metric": {"Namespace": "Old", "MetricName": "m", "Dimensions": dimensions},
                "Period": 60,
                "Stat": "Maximum",
            },
            "ReturnData": False,
        },
        {"Id": "twice", "Expression": "m * 2"},
    ]
    rule = {"EvaluationPeriods": 1, "Threshold": 0.5, "ComparisonOperator": "GreaterThanThreshold"}
    watch.put_metric_alarm(
        AlarmName=NAME, Metrics=queries, **rule, AlarmActions=[], ActionsEnabled=False, TreatMissingData="ignore"
    )
    watch.set_alarm_state(AlarmName=NAME, StateValue="ALARM", StateReason="said so")
    (alarm,) = watch.describe_alarms(AlarmNames=[NAME])["MetricAlarms"]
    items = watch.describe_alarm_history(AlarmName=NAME)["AlarmHistoryItems"]
    listed = watch.list_metrics(Namespace="Old")["Metrics"]
    read = watch.get_metric_statistics(
        Namespace="Old",
        MetricName="m",
        Dimensions=dimensions,
        StartTime=now - timedelta(minutes=2),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Sum"],
    )
    watch.delete_alarms(AlarmNames=[NAME])
    try:
        watch.set_alarm_state(AlarmName=NAME, StateValue="OK", StateReason="x")
        refusal = ""
    except watch.exceptions.ResourceNotFound as error:
        refusal = error.response["Error"]["Code"]
    told = [alarm["AlarmName"], alarm["StateValue"], alarm["ActionsEnabled"], alarm["Metrics"] == queries]
    print(
        json.dumps(
            {
                "version": boto3.__version__,
                "alarm": told,
                "history": [item["HistorySummary"] for item in items],
                "listed": listed == [{"Namespace": "Old", "MetricName": "m", "Dimensions": dimensions}],
                "label": read["Label"],
                "refusal": refusal,
            }
        )
    )


if __name__ == "__main__":
    main()
