"""The server's own policies in the simulator: how fast they follow, that they rest, and what a file of them may say."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from serving import simulation
from serving.cli import program
from serving.errors import ConfigError
from serving.scaling import charting, traces
from serving.scaling.charting import Chart, Panel, Series
from serving.scaling.following import Following
from serving.scaling.simulating import Load, Outcome, Setup, run
from serving.scaling.virtual import TICK

TRACES = Path(__file__).resolve().parent.parent / "loadtests" / "traces"
VARIANT, COMPONENT = "endpoint/e/variant/v", "inference-component/c"
CALLS = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
CONCURRENCY = {"PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"}
#: A worker that takes 100 ms a call does 600 a minute.
TARGET = {
    "PolicyName": "follow",
    "PolicyType": "TargetTrackingScaling",
    "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 420, "PredefinedMetricSpecification": CALLS},
}
STEPS = {
    "PolicyName": "steps",
    "PolicyType": "StepScaling",
    "StepScalingPolicyConfiguration": {
        "AdjustmentType": "ChangeInCapacity",
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 3}],
    },
}
BUSY = {
    "AlarmName": "busy",
    "Namespace": "AWS/SageMaker",
    "MetricName": "Invocations",
    "Statistic": "Sum",
    "Period": 10,
    "EvaluationPeriods": 1,
    "Threshold": 100,
    "ComparisonOperator": "GreaterThanThreshold",
    "AlarmActions": ["steps"],
}


def written(folder: Path, *policies: dict[str, Any], least: int = 1, most: int = 10, **more: Any) -> Path:
    """A file of these policies for one variant."""
    target = {"ResourceId": VARIANT, "MinCapacity": least, "MaxCapacity": most}
    path = folder / "policies.yaml"
    path.write_text(yaml.safe_dump({"ScalableTargets": [target], "ScalingPolicies": list(policies), **more}))
    return path


def drawn(*lines: str, service: float = 0.1) -> Load:
    """A trace's calls, each of one length."""
    trace = traces.drawn(traces.parse(lines), 1, seed=3)
    return Load(trace, np.full(len(trace.arrivals), service))


def followed(path: Path, load: Load, period: float = 5.0, bursts: bool = True) -> Outcome:
    """What the policies make of it."""
    found = simulation.document(path)
    way = Following("ours", simulation.rules(found, period), bursts=bursts)
    return run(load, Setup(*simulation.bounds(found)), way)


def first(found: Outcome, workers: int, since: float) -> float:
    """Seconds from ``since`` until so many were ready."""
    after = found.ready[round(since / TICK) :]
    return float(np.argmax(after >= workers)) * TICK if (after >= workers).any() else np.inf


# --- how fast ---------------------------------------------------------------------------------------------------------


def test_a_load_above_the_target_gets_its_workers_in_three_periods(tmp_path: Path) -> None:
    """In seconds, where AWS's periods take minutes of the same policy."""
    path, load = written(tmp_path, TARGET), drawn("0,5", "1200,12", "2400,12")
    assert 30 > first(followed(path, load), 2, since=1200)
    assert 120 < first(followed(path, load, period=60.0, bursts=False), 2, since=1200) < 400


def test_a_burst_does_not_wait_for_an_alarm(tmp_path: Path) -> None:
    """Three times the target: a second of it is enough."""
    path, load = written(tmp_path, TARGET), drawn("0,3", "1200,30", "1500,30")
    hurried, alarmed = (first(followed(path, load, bursts=bursts), 2, since=1200) for bursts in (True, False))
    assert 2.0 >= hurried < alarmed


def test_workers_go_within_two_minutes_of_the_load(tmp_path: Path) -> None:
    """Back to the minimum."""
    found = followed(written(tmp_path, TARGET), drawn("0,12", "600,0", "1200,0"))
    assert 2 == found.ready[round(600 / TICK)]
    assert 1 == found.ready[round(720 / TICK)]


@pytest.mark.parametrize("rate", [3.0, 6.9, 7.0, 13.5, 14.1, 21.0])
def test_a_constant_load_leaves_capacity_alone(tmp_path: Path, rate: float) -> None:
    """Of eleven times ten minutes, at the target's very edge too."""
    found = followed(written(tmp_path, TARGET), drawn(f"0,{rate}", f"3600,{rate}"))
    settled = found.ready[round(600 / TICK) :]
    assert 2 >= np.count_nonzero(np.diff(settled))


def test_the_first_call_waits_for_one_worker_to_start(tmp_path: Path) -> None:
    """A tick to be seen, and the start."""
    found = followed(written(tmp_path, TARGET, least=0), drawn("0,0", "60,0.02", "120,0.5", "600,0"))
    assert 0.1 <= found.waits[0] <= 0.1 + 2 * TICK
    assert 0 == found.ready[-1]


def test_concurrency_is_followed_too(tmp_path: Path) -> None:
    """Its periods are a sixth of the others'."""
    config = {"TargetValue": 2, "PredefinedMetricSpecification": CONCURRENCY}
    policy = {**TARGET, "TargetTrackingScalingPolicyConfiguration": config}
    found = followed(written(tmp_path, policy), drawn("0,2", "600,40", "1200,40"))
    assert 4 <= found.ready[round(610 / TICK)]


def test_metric_maths_is_followed_too(tmp_path: Path) -> None:
    """Calls a minute by what a worker takes, as an expression."""
    stat = {"Metric": {"Namespace": "AWS/SageMaker", "MetricName": "InvocationsPerInstance"}, "Stat": "Sum"}
    metrics = [
        {"Id": "m1", "MetricStat": stat, "ReturnData": False},
        {"Id": "busy", "Expression": "100 * m1 / 600", "ReturnData": True},
    ]
    policy = config(TargetValue=70, CustomizedMetricSpecification={"Metrics": metrics})
    found = followed(written(tmp_path, policy), drawn("0,5", "600,15", "1200,15"))
    assert 1 == found.ready[round(590 / TICK)]
    assert 2 <= found.ready[round(700 / TICK)]


def test_a_step_policy_follows_its_alarm(tmp_path: Path) -> None:
    """By the step of what was measured, once in its cooldown."""
    found = followed(written(tmp_path, STEPS, Alarms=[BUSY]), drawn("0,5", "600,20", "660,5", "1200,5"))
    assert 1 == found.ready[round(590 / TICK)]
    assert 4 == found.ready[round(640 / TICK)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 60), min_size=2, max_size=6), st.integers(0, 2), st.integers(2, 6))
def test_capacity_stays_within_its_bounds(
    tmp_path_factory: pytest.TempPathFactory, rates: list[float], least: int, most: int
) -> None:
    """Whatever comes."""
    load = drawn(*(f"{60 * place},{rate}" for place, rate in enumerate([1.0, *rates])))
    found = followed(written(tmp_path_factory.mktemp("bounds"), TARGET, least=least, most=most), load)
    assert least <= found.ready.min()
    assert most >= found.most


# --- what a file may say ----------------------------------------------------------------------------------------------


def config(**members: Any) -> dict[str, Any]:
    """The policy with other members in its configuration."""
    return {**TARGET, "TargetTrackingScalingPolicyConfiguration": members}


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (config(TargetValue=0, PredefinedMetricSpecification=CALLS), "must be above 0"),
        (config(TargetValue=5), "names no metric"),
        (config(PredefinedMetricSpecification=CALLS), "ScalingPolicies.0.: .*targetValue"),
        (config(TargetValue=5, PredefinedMetricSpecification={"PredefinedMetricType": "Weather"}), "Weather|enum"),
        (
            config(
                TargetValue=5, PredefinedMetricSpecification={"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}
            ),
            "is no metric of SageMaker's",
        ),
        ({**STEPS, "StepScalingPolicyConfiguration": {"AdjustmentType": "ChangeInCapacity"}}, "StepAdjustments"),
        ({**TARGET, "PolicyType": "PredictiveScaling"}, "cannot be simulated|can be simulated"),
    ],
)
def test_a_policy_that_the_api_would_refuse_is_refused(tmp_path: Path, policy: dict[str, Any], told: str) -> None:
    """With the place in the file, or the policy's name."""
    with pytest.raises(ConfigError, match=told):
        simulation.document(written(tmp_path, policy))


def test_a_metric_that_is_not_simulated_is_named(tmp_path: Path) -> None:
    """And those that are."""
    custom = {"MetricName": "Rain", "Namespace": "Weather", "Statistic": "Average"}
    path = written(tmp_path, config(TargetValue=5, CustomizedMetricSpecification=custom))
    with pytest.raises(ConfigError, match=r"Not simulated: Rain\. A simulation has .*InvocationsPerInstance"):
        simulation.rules(simulation.document(path), 5.0)


def test_of_several_targets_one_is_named(tmp_path: Path) -> None:
    """Each with the policies that are its own."""
    bounds = {"MinCapacity": 1, "MaxCapacity": 4}
    path = tmp_path / "two.json"
    targets = [{"ResourceId": name, **bounds} for name in (VARIANT, COMPONENT)]
    policies = [{**TARGET, "ResourceId": VARIANT}, {**STEPS, "ResourceId": COMPONENT}]
    path.write_text(json.dumps({"ScalableTargets": targets, "ScalingPolicies": policies}))
    with pytest.raises(ConfigError, match=f"2 scalable targets .* one of: {VARIANT}, {COMPONENT}"):
        simulation.document(path)
    found = simulation.document(path, COMPONENT)
    assert ["steps"] == [one["PolicyName"] for one in found.policies]
    assert "sagemaker:inference-component:DesiredCopyCount" == found.target["ScalableDimension"]


@pytest.mark.parametrize(("least", "most"), [(3, 2), (-1, 2), (0, 0)])
def test_bounds_that_are_none_are_refused(tmp_path: Path, least: int, most: int) -> None:
    """As by RegisterScalableTarget."""
    with pytest.raises(ConfigError):
        simulation.document(written(tmp_path, TARGET, least=least, most=most))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_compares_four_ways(tmp_path: Path) -> None:
    """On an hour of traffic, as JSON and as a chart of each way."""
    trace, chart = tmp_path / "hour.csv", tmp_path / "hour.svg"
    trace.write_text("time,rate\n0,2\n1200,15\n2400,2\n")
    options = ["--policy", str(written(tmp_path, TARGET)), "--chart", str(chart), "--json"]
    done = CliRunner().invoke(program, ["simulate", str(trace), *options])
    assert 0 == done.exit_code, done.output
    ways = {one["Name"]: one for one in json.loads(done.stdout)["Ways"]}
    assert ["ours, 5 s", "AWS's timing", "Kubernetes HPA", "Knative KPA"] == list(ways)
    assert ways["ours, 5 s"]["SlowCalls"] < ways["AWS's timing"]["SlowCalls"]
    texts = [one.text or "" for one in ElementTree.parse(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert 4 == sum("worker-hours" in text for text in texts)


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    """Of the trace as of the chart."""
    policy = str(written(tmp_path, TARGET))
    for arguments in (["nothing.csv"], [policy], [str(TRACES / "departures.csv"), "--distribution", "normal"]):
        done = CliRunner().invoke(program, ["simulate", *arguments, "--policy", policy])
        assert isinstance(done.exception, ConfigError), done.output


# --- charts -----------------------------------------------------------------------------------------------------------

CHART = Chart(
    "a <title> & more",
    600.0,
    [
        Panel(
            "load",
            "workers",
            [
                Series("needed", "area", "#888888", [0, 300], [1.0, 3.0]),
                Series("ready", "steps", "#1f6f8b", [0, 300], [2.0, 2.0]),
                Series("slow", "marks", "#cc2222", [301]),
            ],
        )
    ],
)


def test_an_svg_is_one_whatever_its_words_are(tmp_path: Path) -> None:
    """Well-formed, with the title as it was."""
    charting.save(CHART, tmp_path / "chart.svg")
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    assert "a <title> & more" in [one.text for one in root]


def test_a_png_is_one(tmp_path: Path) -> None:
    """By its first bytes."""
    pytest.importorskip("matplotlib")  # belongs to the extra "load"
    charting.save(CHART, tmp_path / "chart.png")
    assert b"\x89PNG" == (tmp_path / "chart.png").read_bytes()[:4]


@pytest.mark.parametrize("name", ["chart.pdf", "missing/chart.svg"])
def test_a_chart_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    """In words."""
    with pytest.raises(ConfigError):
        charting.save(CHART, tmp_path / name)


def test_a_terminal_shows_what_is_busy_what_is_spare_and_what_lacks() -> None:
    """From the top; the scale's end is named."""
    assert ["    4 │  !", "      │ ░!", "      │░█!", "    0 │██!"] == charting.capacity_lines(
        [1, 2, 4], [2, 3, 0], 4, 4
    )


@given(st.lists(st.floats(0, 1e12, allow_subnormal=False), max_size=5))
def test_an_axis_ends_at_a_round_number_above_all(values: list[float]) -> None:
    """And not far above."""
    limit = charting.ceiling(values)
    assert limit >= max(values, default=0)
    assert limit <= max(2.1 * max(values, default=0), 1)
