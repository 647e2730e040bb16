"""The CloudWatch API by unmodified boto3: alarms on what this server measures, and the metrics themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import cloud
from tests.server import Server, serve

DIMENSIONS = [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "AllTraffic"}]
METRIC = {"Namespace": "AWS/SageMaker", "MetricName": "Invocations", "Dimensions": DIMENSIONS}
RULE = {"EvaluationPeriods": 1, "Threshold": 0.5, "ComparisonOperator": "GreaterThanThreshold"}
ALARM = {**METRIC, **RULE, "Statistic": "Sum", "Period": 1}
QUIET = {**ALARM, "Threshold": 1e9}
POLICY = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:x"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an endpoint ``e``, quick to look."""
    folder = tmp_path_factory.mktemp("cloudwatch")
    with serve(folder, "--allow-code", environment={"SERVING_SCALING_PERIOD_SECONDS": "0.5"}) as server:
        cloud.deploy(cloud.client(server), "e", cloud.answers(server, "hi"))
        yield server


@pytest.fixture
def watch(server: Server) -> Iterator[Any]:
    """CloudWatch, with no alarm left of other tests."""
    client = cloud.client(server, "cloudwatch")
    yield client
    names = [one["AlarmName"] for one in client.describe_alarms(MaxRecords=100)["MetricAlarms"]]
    if names:
        client.delete_alarms(AlarmNames=names)


def state(watch: Any, name: str) -> str:
    """An alarm's StateValue."""
    found: str = watch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]
    return found


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    """The code of a refusal."""
    code: str = error.value.response["Error"]["Code"]
    return code


# --- alarms -----------------------------------------------------------------------------------------------------------


def test_an_alarm_comes_back_as_it_was_put(watch: Any) -> None:
    """Every member, and its own: ARN, state, times."""
    given = {
        **ALARM,
        "AlarmName": "every member: <ä>",
        "AlarmDescription": "too much",
        "ActionsEnabled": False,
        "OKActions": ["arn:aws:sns:us-east-1:123456789012:ok"],
        "AlarmActions": [POLICY],
        "InsufficientDataActions": [],
        "Unit": "Count",
        "DatapointsToAlarm": 1,
        "TreatMissingData": "ignore",
    }
    watch.put_metric_alarm(**given)
    watch.get_waiter("alarm_exists").wait(AlarmNames=[given["AlarmName"]])
    (found,) = watch.describe_alarms(AlarmNames=[given["AlarmName"]])["MetricAlarms"]
    assert given == {name: found[name] for name in given}
    assert f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{given['AlarmName']}" == found["AlarmArn"]
    assert {"StateReason", "StateUpdatedTimestamp", "AlarmConfigurationUpdatedTimestamp"} <= set(found)


def test_an_alarm_follows_what_is_measured(server: Server, watch: Any) -> None:
    """It goes off when calls come, is OK again when they end, and history knows."""
    runtime = cloud.client(server, "sagemaker-runtime")
    watch.put_metric_alarm(AlarmName="calls", **ALARM)
    server.eventually(lambda: state(watch, "calls") == "OK")
    server.eventually(lambda: bool(cloud.said(runtime, "e")) and state(watch, "calls") == "ALARM")
    server.eventually(lambda: state(watch, "calls") == "OK")
    items = watch.describe_alarm_history(AlarmName="calls", HistoryItemType="StateUpdate")["AlarmHistoryItems"]
    assert ["Alarm updated from ALARM to OK", "Alarm updated from OK to ALARM"] == [
        item["HistorySummary"] for item in items[:2]
    ]
    assert "OK" == json.loads(items[0]["HistoryData"])["newState"]["stateValue"]
    assert items[0]["Timestamp"] >= items[1]["Timestamp"]


def test_an_alarm_may_be_on_an_expression(server: Server, watch: Any) -> None:
    """Calls twice over: above three when two come in a second."""
    runtime = cloud.client(server, "sagemaker-runtime")
    queries = [
        {"Id": "calls", "MetricStat": {"Metric": METRIC, "Period": 1, "Stat": "Sum"}, "ReturnData": False},
        {"Id": "twice", "Expression": "calls * 2"},
    ]
    watch.put_metric_alarm(AlarmName="twice", Metrics=queries, **{**RULE, "Threshold": 3.0})
    server.eventually(lambda: state(watch, "twice") == "OK")

    def busy() -> bool:
        return all(cloud.said(runtime, "e") for _ in range(3)) and state(watch, "twice") == "ALARM"

    server.eventually(busy)


def test_an_alarm_on_a_metric_that_is_not_there_knows_nothing(server: Server, watch: Any) -> None:
    """It is taken, as AWS takes it, and stays without data; or as TreatMissingData says."""
    watch.put_metric_alarm(AlarmName="none", **{**ALARM, "MetricName": "NoSuchThing"})
    watch.put_metric_alarm(AlarmName="bad", **{**ALARM, "MetricName": "NoSuchThing"}, TreatMissingData="breaching")
    server.eventually(lambda: state(watch, "bad") == "ALARM")
    assert "INSUFFICIENT_DATA" == state(watch, "none")


def test_a_state_can_be_set(watch: Any) -> None:
    """At once, with its reason; it stays where nothing is measured and missing data is ignored."""
    watch.put_metric_alarm(AlarmName="set", **{**ALARM, "MetricName": "NoSuchThing"}, TreatMissingData="ignore")
    watch.set_alarm_state(AlarmName="set", StateValue="ALARM", StateReason="a drill", StateReasonData='{"a": 1}')
    (found,) = watch.describe_alarms(AlarmNames=["set"])["MetricAlarms"]
    assert ("ALARM", "a drill", '{"a": 1}') == (found["StateValue"], found["StateReason"], found["StateReasonData"])
    with pytest.raises(watch.exceptions.InvalidFormatFault):
        watch.set_alarm_state(AlarmName="set", StateValue="OK", StateReason="x", StateReasonData="{")
    with pytest.raises(watch.exceptions.ResourceNotFound):
        watch.set_alarm_state(AlarmName="Set", StateValue="OK", StateReason="names mind case")


def test_alarms_are_found_by_what_they_are(watch: Any) -> None:
    """By name, prefix, state, action and metric; in pages, by name."""
    for name in ("b-2", "a-1", "b-1", "B-1"):
        watch.put_metric_alarm(AlarmName=name, **QUIET, AlarmActions=[POLICY] if name == "b-1" else [])
    watch.put_metric_alarm(AlarmName="other", **{**ALARM, "MetricName": "NoSuchThing"}, TreatMissingData="ignore")
    watch.set_alarm_state(AlarmName="other", StateValue="ALARM", StateReason="x")

    def names(**filters: Any) -> list[str]:
        pages = watch.get_paginator("describe_alarms").paginate(PaginationConfig={"PageSize": 2}, **filters)
        return [one["AlarmName"] for page in pages for one in page["MetricAlarms"]]

    assert ["B-1", "a-1", "b-1", "b-2", "other"] == names()
    assert ["b-1", "b-2"] == names(AlarmNamePrefix="b-")
    assert ["a-1", "b-2"] == names(AlarmNames=["b-2", "none", "a-1", "a-1"])
    assert ["other"] == names(StateValue="ALARM")
    assert ["b-1"] == names(ActionPrefix="arn:aws:autoscaling")
    assert [] == names(AlarmTypes=["CompositeAlarm"])
    with pytest.raises(watch.exceptions.InvalidNextToken):
        watch.describe_alarms(NextToken="made up")
    on_metric = watch.describe_alarms_for_metric(**{**METRIC, "Dimensions": DIMENSIONS[::-1]})["MetricAlarms"]
    assert {"B-1", "a-1", "b-1", "b-2"} == {one["AlarmName"] for one in on_metric}


def test_all_that_are_named_are_deleted_or_none(watch: Any) -> None:
    """One wrong name leaves all alone."""
    for name in ("one", "two"):
        watch.put_metric_alarm(AlarmName=name, **ALARM)
    with pytest.raises(watch.exceptions.ResourceNotFound):
        watch.delete_alarms(AlarmNames=["one", "none", "two"])
    assert 2 == len(watch.describe_alarms()["MetricAlarms"])
    watch.delete_alarms(AlarmNames=["one", "two", "one"])
    assert [] == watch.describe_alarms()["MetricAlarms"]
    deleted = watch.describe_alarm_history(AlarmName="one", MaxRecords=1)["AlarmHistoryItems"]
    assert ['Alarm "one" deleted'] == [item["HistorySummary"] for item in deleted]


def test_actions_can_be_switched(watch: Any) -> None:
    """Off and on again; names of no alarm are passed over."""
    watch.put_metric_alarm(AlarmName="switched", **ALARM)
    watch.disable_alarm_actions(AlarmNames=["switched", "none"])
    assert not watch.describe_alarms()["MetricAlarms"][0]["ActionsEnabled"]
    watch.enable_alarm_actions(AlarmNames=["switched"])
    assert watch.describe_alarms()["MetricAlarms"][0]["ActionsEnabled"]


def test_an_alarm_has_tags(watch: Any) -> None:
    """Given when it is made, added and removed later."""
    watch.put_metric_alarm(AlarmName="tagged", **ALARM, Tags=[{"Key": "team", "Value": "a"}])
    arn = watch.describe_alarms()["MetricAlarms"][0]["AlarmArn"]
    watch.tag_resource(ResourceARN=arn, Tags=[{"Key": "stage", "Value": "b"}])
    watch.untag_resource(ResourceARN=arn, TagKeys=["team"])
    assert [{"Key": "stage", "Value": "b"}] == watch.list_tags_for_resource(ResourceARN=arn)["Tags"]
    with pytest.raises(ClientError) as error:
        watch.list_tags_for_resource(ResourceARN=arn + "x")
    assert "ResourceNotFound" == refused(error)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"EvaluationPeriods": None}, "MissingParameter", "EvaluationPeriods is required"),
        ({"Threshold": None}, "MissingParameter", "Threshold is required"),
        ({"ComparisonOperator": "Above"}, "ValidationError", "enum value set"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "ValidationError", "Anomaly detection"),
        ({"Threshold": float("nan")}, "ValidationError", "threshold"),
        ({"MetricName": None}, "MissingParameter", "MetricName is required"),
        ({"Statistic": None}, "InvalidParameterCombination", "ExtendedStatistic"),
        ({"ExtendedStatistic": "p99"}, "InvalidParameterCombination", "Exactly one"),
        ({"Statistic": None, "ExtendedStatistic": "tm99"}, "InvalidParameterValue", "percentiles such as p99"),
        ({"Period": 7}, "InvalidParameterValue", "multiple of 60"),
        ({"Period": 3600, "EvaluationPeriods": 4}, "ValidationError", "three hours"),
        ({"DatapointsToAlarm": 2}, "ValidationError", "less than or equal to EvaluationPeriods"),
        ({"TreatMissingData": "Breaching"}, "ValidationError", "notBreaching"),
        ({"AlarmActions": ["scale"]}, "ValidationError", "Invalid arn syntax"),
        ({"Dimensions": DIMENSIONS[:1] * 2}, "InvalidParameterValue", "twice"),
        ({"Metrics": [{"Id": "a", "Expression": "1"}]}, "InvalidParameterCombination", "together with Metrics"),
        ({"EvaluationInterval": 60}, "ValidationError", "not offered"),
    ],
)
def test_an_alarm_that_means_nothing_is_refused(watch: Any, change: dict[str, Any], code: str, text: str) -> None:
    """With AWS's code and in words; nothing is kept."""
    given = {name: value for name, value in {**ALARM, **change}.items() if value is not None}
    with pytest.raises(ClientError, match=text) as error:
        watch.put_metric_alarm(AlarmName="bad", **given)
    assert code == refused(error)
    assert [] == watch.describe_alarms()["MetricAlarms"]


STAT = {"Metric": METRIC, "Period": 1, "Stat": "Sum"}


@pytest.mark.parametrize(
    ("queries", "text"),
    [
        ([{"Id": "a", "MetricStat": STAT}, {"Id": "b", "MetricStat": STAT}], "Exactly one"),
        ([{"Id": "A", "MetricStat": STAT}], "lower-case letter"),
        ([{"Id": "a", "MetricStat": STAT, "Expression": "1"}], "either a MetricStat or an Expression"),
        ([{"Id": "a", "MetricStat": STAT, "ReturnData": False}, {"Id": "a", "Expression": "1"}], "unique"),
        (
            [{"Id": "a", "MetricStat": STAT, "ReturnData": False}, {"Id": "b", "Expression": "a +"}],
            "cannot be read|ends",
        ),
        ([{"Id": "a", "MetricStat": STAT, "ReturnData": False}, {"Id": "b", "Expression": "c"}], "not among"),
        ([{"Id": "a", "MetricStat": STAT, "ReturnData": False}, {"Id": "b", "Expression": "[a, a]"}], "list"),
        ([{"Id": "b", "Expression": "1"}], "period"),
    ],
)
def test_an_expression_that_means_nothing_is_refused(watch: Any, queries: list[dict[str, Any]], text: str) -> None:
    """When the alarm is put, not when it is evaluated."""
    with pytest.raises(ClientError, match=text) as error:
        watch.put_metric_alarm(AlarmName="bad", Metrics=queries, **RULE)
    assert "ValidationError" == refused(error)


def test_an_alarm_that_would_take_long_to_evaluate_is_refused(watch: Any) -> None:
    """Each of its periods would hold up every other alarm."""
    queries = [
        {"Id": "a", "MetricStat": STAT, "ReturnData": False},
        {"Id": "b", "Expression": " + ".join(["FILL(a, 0)"] * 40)},
    ]
    with pytest.raises(ClientError, match="20000 points"):
        watch.put_metric_alarm(AlarmName="bad", Metrics=queries, **{**RULE, "EvaluationPeriods": 3600})
    with pytest.raises(ClientError, match="three hours"):
        watch.put_metric_alarm(AlarmName="bad", Metrics=queries, **{**RULE, "EvaluationPeriods": 2**31 - 1})
    assert [] == watch.describe_alarms(AlarmNames=["bad"])["MetricAlarms"]


# --- metrics ----------------------------------------------------------------------------------------------------------


def span(seconds: float = 600.0) -> dict[str, datetime]:
    """The last so many seconds."""
    now = datetime.now(UTC)
    return {"StartTime": now - timedelta(seconds=seconds), "EndTime": now + timedelta(seconds=60)}


def test_calls_are_counted_by_the_second(server: Server, watch: Any) -> None:
    """All that were made, in the seconds that are over; under several statistics."""
    runtime, before = cloud.client(server, "sagemaker-runtime"), total(watch)
    for _ in range(5):
        cloud.said(runtime, "e")
    server.eventually(lambda: total(watch) == before + 5)
    told = watch.get_metric_statistics(**METRIC, **span(), Period=1, Statistics=["Sum", "SampleCount", "Maximum"])
    assert "Invocations" == told["Label"]
    busy = [point for point in told["Datapoints"] if point["Sum"]]
    assert {1.0} == {point["Maximum"] for point in busy}
    assert all(point["Sum"] == point["SampleCount"] for point in told["Datapoints"])
    latency = {**METRIC, "MetricName": "ModelLatency", **span(), "Period": 1, "ExtendedStatistics": ["p50", "p99.9"]}
    slow = watch.get_metric_statistics(**latency)["Datapoints"]
    assert {"Microseconds"} == {point["Unit"] for point in slow}
    assert all(0 < point["ExtendedStatistics"]["p50"] <= point["ExtendedStatistics"]["p99.9"] for point in slow)
    assert [] == watch.get_metric_statistics(**latency, Unit="Bytes")["Datapoints"]


def total(watch: Any) -> float:
    """All calls that have been counted."""
    points = watch.get_metric_statistics(**METRIC, **span(), Period=1, Statistics=["Sum"])["Datapoints"]
    return float(sum(point["Sum"] for point in points))


def test_several_metrics_and_expressions_come_in_pages(server: Server, watch: Any) -> None:
    """GetMetricData: newest first, page after page the same datapoints as at once."""
    server.eventually(lambda: len(points(watch, MaxDatapoints=100_800)[0]["Values"]) >= 3)
    end = datetime.now(UTC).replace(microsecond=0)
    window = {"StartTime": end - timedelta(seconds=3), "EndTime": end}
    whole = points(watch, **window)
    assert ["calls", "more"] == [one["Id"] for one in whole]
    assert ["Invocations", "and one"] == [one["Label"] for one in whole]
    assert [value + 1 for value in whole[0]["Values"]] == whole[1]["Values"]
    assert sorted(whole[0]["Timestamps"], reverse=True) == whole[0]["Timestamps"]
    joined: dict[str, list[float]] = {"calls": [], "more": []}
    for page in watch.get_paginator("get_metric_data").paginate(**window, MetricDataQueries=QUERIES, MaxDatapoints=2):
        for one in page["MetricDataResults"]:
            joined[one["Id"]] += one["Values"]
    assert {one["Id"]: one["Values"] for one in whole} == joined


QUERIES = [
    {"Id": "calls", "MetricStat": STAT},
    {"Id": "hidden", "Expression": "calls + 1", "ReturnData": False},
    {"Id": "more", "Expression": "hidden", "Label": "and one"},
]


def points(watch: Any, **more: Any) -> list[dict[str, Any]]:
    """The results of ``QUERIES``."""
    found: list[dict[str, Any]] = watch.get_metric_data(**{**span(), **more}, MetricDataQueries=QUERIES)[
        "MetricDataResults"
    ]
    return found


def test_metrics_are_listed(watch: Any) -> None:
    """By namespace, name and dimensions; our own families too."""
    named = watch.list_metrics(Namespace="AWS/SageMaker", MetricName="Invocations")["Metrics"]
    assert [METRIC] == named
    by_dimension = watch.list_metrics(Dimensions=[{"Name": "EndpointName", "Value": "e"}])["Metrics"]
    assert {"AWS/SageMaker", "/aws/sagemaker/Endpoints"} <= {one["Namespace"] for one in by_dimension}
    assert [] == watch.list_metrics(Dimensions=[{"Name": "EndpointName", "Value": "none"}])["Metrics"]
    ours = watch.list_metrics(Namespace="Prometheus", Dimensions=[{"Name": "endpoint"}])["Metrics"]
    assert "sagemaker_workers" in {one["MetricName"] for one in ours}


def test_what_clients_measure_can_be_put_and_alarmed_on(server: Server, watch: Any) -> None:
    """Enough of it at once that boto3 packs it."""
    now = datetime.now(UTC)
    data = [
        {"MetricName": "m", "Dimensions": [{"Name": "which", "Value": "x" * 100}], "Value": float(at), "Timestamp": now}
        for at in range(200)
    ]
    watch.put_metric_data(Namespace="Mine", MetricData=data)
    assert 1 == len(watch.list_metrics(Namespace="Mine")["Metrics"])
    about = {"Namespace": "Mine", "MetricName": "n"}
    put = {"MetricName": "n", "StorageResolution": 1}
    watch.put_metric_alarm(AlarmName="mine", **about, **RULE, Statistic="Maximum", Period=1)

    def heard() -> bool:
        watch.put_metric_data(Namespace="Mine", MetricData=[{**put, "Values": [1.0, 2.0], "Counts": [1, 3]}])
        return state(watch, "mine") == "ALARM"

    server.eventually(heard)


@pytest.mark.parametrize(
    ("namespace", "datum", "code"),
    [
        ("AWS/SageMaker", {"Value": 1.0}, "InvalidParameterValue"),
        ("Mine", {}, "MissingParameter"),
        ("Mine", {"Value": 1.0, "Values": [1.0]}, "InvalidParameterCombination"),
        ("Mine", {"Values": [1.0], "Counts": [1.0, 2.0]}, "InvalidParameterValue"),
        ("Mine", {"Value": 1.0, "Counts": [1.0]}, "InvalidParameterCombination"),
        ("Mine", {"Value": 2.0**361}, "InvalidParameterValue"),
        ("Mine", {"Value": float("inf")}, "ValidationError"),
        ("Mine", {"Value": 1.0, "Timestamp": 1.0}, "InvalidParameterValue"),
        ("Mine", {"Value": 1.0, "StorageResolution": 2}, "InvalidParameterValue"),
        (
            "Mine",
            {"StatisticValues": {"SampleCount": 1, "Sum": 1, "Minimum": 2, "Maximum": 1}},
            "InvalidParameterValue",
        ),
    ],
)
def test_what_is_no_datum_is_refused(watch: Any, namespace: str, datum: dict[str, Any], code: str) -> None:
    """And nothing that came with it is kept."""
    good = {"MetricName": "beside", "Value": 1.0}
    with pytest.raises(ClientError) as error:
        watch.put_metric_data(Namespace=namespace, MetricData=[good, {"MetricName": "m", **datum}])
    assert code == refused(error)
    assert [] == watch.list_metrics(MetricName="beside")["Metrics"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"EndTime": 0}, "InvalidParameterCombination"),
        ({"Period": 45}, "InvalidParameterValue"),
        ({"StartTime": 0}, "InvalidParameterCombination"),
        ({"Statistics": None}, "MissingParameter"),
        ({"ExtendedStatistics": ["p101"]}, "InvalidParameterValue"),
    ],
)
def test_statistics_that_cannot_be_are_refused(watch: Any, change: dict[str, Any], code: str) -> None:
    """Backwards, of odd periods, of too many."""
    asked = {**METRIC, **span(), "Period": 60, "Statistics": ["Sum"], **change}
    with pytest.raises(ClientError) as error:
        watch.get_metric_statistics(**{name: value for name, value in asked.items() if value is not None})
    assert code == refused(error)
