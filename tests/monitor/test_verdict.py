"""The A/B verdict: what is decided, by tables of facts; and what is read to decide it, from files as servers write."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import scipy  # ``scipy.stats`` comes when it is first used: two seconds

from serving.errors import ValidationError
from serving.monitor import histograms
from serving.monitor.deciding import Action, Facts, Guards, decide, overall
from serving.monitor.outcomes import METRICS, Arm, areas, compared, find, placements
from serving.monitor.predictions import Attributes
from serving.monitor.sequential import Interval, between, difference
from serving.monitor.tasks import Means
from serving.monitor.values import Complaints, Record, Side
from serving.monitor.verdict import verdict
from serving.watch.metrics import LATENCY_BUCKETS, Registry
from tests.monitor.written import DESTINATION, NINE, capture, label, means, record

WAIT, KEEP, PROMOTE, ROLL_BACK = Action.WAIT, Action.KEEP, Action.PROMOTE, Action.ROLL_BACK


def facts(low: float, high: float, **more: Any) -> Facts:
    """B beside A by accuracy, the gain between ``low`` and ``high``."""
    gain = Interval((low + high) / 2 if math.isfinite(low) else 0.01, low, high)
    return Facts("A", "B", METRICS["accuracy"], (0.90, 0.92), gain, more.pop("more", 500.0), 0.05, **more)


# --- what is decided ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted", "words"),
    [
        (facts(0.01, 0.03), PROMOTE, "Promote B: B's accuracy is 0.92, A's 0.9; it is better by 0.01 to 0.03"),
        (facts(-0.03, -0.01), ROLL_BACK, "it is worse by 0.01 to 0.03"),
        (facts(-0.01, 0.03), WAIT, "that may be chance: about 500 more labelled calls tell"),
        (facts(-0.01, 0.03, effect=0.02), WAIT, "if the difference is 0.02"),
        (facts(-0.01, 0.01, effect=0.02), KEEP, "the gain is below 0.02, the least that counts"),
        (facts(0.001, 0.01, effect=0.02), KEEP, "Keep A"),
        (facts(0.001, 0.03, effect=0.02), PROMOTE, "Promote B"),
        (facts(-0.03, -0.01, effect=0.02), ROLL_BACK, "Roll back B"),
        (facts(-math.inf, math.inf), WAIT, "each needs 50 labelled calls at least"),
        (facts(0.0, 0.0, more=math.inf), WAIT, "no difference to speak of was seen so far"),
        (facts(-0.1, 0.1, more=2e6), WAIT, "say the smallest that counts (minimum effect)"),
        (facts(-0.1, 0.1, more=2e6, effect=0.001), WAIT, "about 2,000,000 more labelled calls"),
        (facts(-0.1, 0.1, more=math.inf, effect=1e-9), WAIT, "no number of labelled calls tells a difference of 1e-09"),
        (facts(0.01, 0.03, missing="nobody called"), WAIT, "Wait: nobody called."),
    ],
)
def test_the_metric_decides_as_far_as_it_is_certain(given: Facts, wanted: Action, words: str) -> None:
    """Keep, promote, roll back or wait, and why."""
    decision = decide(given)
    assert wanted == decision.action
    assert words in decision.sentence


@pytest.mark.parametrize(
    ("guards", "wanted", "words"),
    [
        (Guards(Interval(0.05, 0.03, 0.07), rates=(0.01, 0.06)), ROLL_BACK, "6.00% of its calls fail, 1.00% of A's"),
        (Guards(Interval(0.05, 0.01, 0.09)), PROMOTE, ""),  # not certain, or not by much
        (Guards(Interval(-0.05, -0.09, -0.01)), PROMOTE, ""),
        (Guards(slow=True, p99=(0.010, 0.050)), ROLL_BACK, "p99 latency of 50 ms is more than 2 times A's 10 ms"),
    ],
)
def test_guardrails_come_before_the_metric(guards: Guards, wanted: Action, words: str) -> None:
    """A challenger that fails or is slow goes, however accurate; also while there are no labels."""
    decision = decide(facts(0.01, 0.03, guards=guards))
    assert wanted == decision.action
    assert words in decision.sentence
    if wanted is ROLL_BACK:
        assert decide(facts(0, 0, guards=guards, missing="no label")).action is ROLL_BACK


def test_of_several_challengers_the_best_is_promoted() -> None:
    """Promote before wait before roll back before keep; of two to promote, the one that gains most."""

    def one(name: str, low: float, high: float, effect: float | None = None) -> Any:
        given = facts(low, high, effect=effect)._replace(challenger=name)
        return given, decide(given)

    better, best = one("B", 0.01, 0.03), one("C", 0.02, 0.06)
    unsure, worse, same = one("D", -0.01, 0.03), one("E", -0.03, -0.01), one("F", -0.01, 0.01, 0.02)
    assert "C" == overall([better, unsure, best, worse]).variant
    assert "D" == overall([worse, unsure, same]).variant
    assert "E" == overall([same, worse]).variant


# --- outcomes -------------------------------------------------------------------------------------------------------


def arm(metric: str, calls: list[tuple[str, str]], **attributes: Any) -> tuple[Arm, Complaints]:
    """The outcomes of calls, each (answer, label)."""
    complaints = Complaints()
    found = Arm(metric, Attributes(**attributes), complaints)
    for number, (answer, truth) in enumerate(calls):
        found.add(Record(f"e{number}", "", NINE, "A", None, Side("text/csv", "CSV", answer), {}, truth))
    return found, complaints


def test_accuracy_is_the_share_of_right_answers() -> None:
    """Of labels and of probabilities; of several rows a call has one outcome, their mean."""
    found, _ = arm("accuracy", [("1", "1"), ("0.2", "1"), ("0.7", "1"), ("1\n0\n1\n1", "1\n1\n1\n1")])
    assert (4, pytest.approx(2.75 / 4)) == found.moments[:2]
    lenient, _ = arm("accuracy", [("0.2", "1")], threshold=0.1)
    assert 1.0 == lenient.moments.mean


def test_an_outcome_without_measure_says_nothing() -> None:
    """Numbers whose squares are none would make everything unknown, for one mistaken label."""
    found, complaints = arm("business", [("1", "1e308"), ("1", "-1e308"), ("1", "3")])
    assert (1, 3.0) == found.moments[:2]
    assert [2] == [one.times for one in complaints.all()]


def test_rmse_is_the_root_of_the_mean_squared_error() -> None:
    """What is certain of the mean squared errors is as certain of their roots; a perfect model has one too."""
    first, _ = arm("rmse", [("3.5", "3"), ("5", "6.5")] * 50)
    second, _ = arm("rmse", [("4", "3"), ("5", "6.5")] * 50)
    perfect, _ = arm("rmse", [("3", "3"), ("5", "5")] * 50)
    pair = compared("rmse", first, second)
    assert (pytest.approx(math.sqrt(1.25)), pytest.approx(math.sqrt(1.625))) == (pair[0].value, pair[1].value)
    means = difference(first.moments, second.moments, 0.05)
    roots = between(*pair, 0.05)
    assert pytest.approx(means.low / means.difference) == roots.low / roots.difference
    assert between(*compared("rmse", first, perfect), 0.05).high < 0
    assert Interval(0.0, 0.0, 0.0) == between(*compared("rmse", perfect, perfect), 0.05)


def test_a_business_number_is_the_label_itself() -> None:
    """The answer is not looked at."""
    found, _ = arm("business", [("gibberish", "12.5"), ("", "0")])
    assert (2, 6.25) == found.moments[:2]


def test_auc_is_the_share_of_pairs_in_order() -> None:
    """As Mann and Whitney count them, ties included; its error is that of many draws."""
    dice = numpy.random.default_rng(4)
    truth = dice.random(2000) < 0.4
    scores = numpy.round(dice.normal(size=2000) + truth, 1)
    found, _ = arm("auc", [(repr(float(s)), str(int(t))) for s, t in zip(scores, truth, strict=True)])
    estimate = areas(found, found)[0]
    high, low = scores[truth], scores[~truth]
    assert pytest.approx(scipy.stats.mannwhitneyu(high, low).statistic / len(high) / len(low)) == estimate.value
    drawn = [placements(dice.choice(high, len(high)), dice.choice(low, len(low)))[0].mean() for _ in range(200)]
    assert pytest.approx(numpy.std(drawn), rel=0.2) == math.sqrt(estimate.error)


@pytest.mark.parametrize(
    ("metric", "answer", "truth"),
    [
        ("accuracy", "not,a\n1", "1"),
        ("accuracy", "1", "\n"),
        ("rmse", "cat", "2"),
        ("rmse", "1", "cat"),
        ("rmse", "1e300", "-1e300"),
        ("business", "1", "cat"),
        ("auc", "0.5", "7"),
        ("auc", "cat", "1"),
    ],
)
def test_what_says_nothing_is_a_complaint(metric: str, answer: str, truth: str) -> None:
    """No outcome, and no crash."""
    found, complaints = arm(metric, [(answer, truth)])
    assert (0, 0) == (found.moments.number, len(found.positive) + len(found.negative))
    assert complaints.all()


def test_metrics_are_known_by_name() -> None:
    """And only of a business number it can be said what is better."""
    assert -1 == find("business", "lower").sign
    for name, better in (("truth", ""), ("accuracy", "lower"), ("business", "blue")):
        with pytest.raises(ValidationError):
            find(name, better)


# --- histograms -----------------------------------------------------------------------------------------------------


def test_quantiles_are_interpolated_in_their_bucket() -> None:
    """As Prometheus does: of 100 values between 10 and 20 the median is 15."""
    assert 15.0 == histograms.quantile((10, 20, 30), [0, 100, 0, 0], 0.5)
    assert 30.0 == histograms.quantile((10, 20, 30), [0, 0, 0, 7], 0.5)
    assert histograms.quantile((10,), [0, 0], 0.5) is None
    assert histograms.quantile((10,), [], 0.5) is None


def test_moments_of_a_histogram_have_the_true_mean() -> None:
    """The variance is that of the buckets, which is no less than what was in them."""
    found = histograms.moments((1.0, 2.0), [10, 10, 0], 20.0)
    assert (20, 1.0) == found[:2]
    assert found.variance >= 0.25
    assert 0 == histograms.moments((1.0,), [0, 0], 0.0).number


def test_only_whole_buckets_are_beyond_a_limit() -> None:
    """A value in the limit's own bucket may lie below it."""
    assert (30, 10 / 30) == histograms.beyond((1, 2, 3), [10, 10, 0, 10], 2.5)[:2]
    assert 1.0 == histograms.beyond((1, 2), [0, 0, 5], 2)[1]


# --- the task -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path) -> Means:
    """Local buckets and the cells of a server that is not there."""
    return means(tmp_path, tmp_path / "metrics")


def written(tools: Means, rates: dict[str, float], calls: int = 800, seed: int = 3) -> None:
    """Captured and labelled calls of variants with these accuracies."""
    dice, labels = random.Random(seed), {}
    rows: dict[str, list[Any]] = {name: [] for name in rates}
    for number in range(calls * len(rates)):
        name = dice.choice(list(rates))
        truth = dice.random() < 0.5
        answer = truth if dice.random() < rates[name] else not truth
        timing = {"total": dice.randrange(1000, 3000)}
        rows[name].append(record(f"call-{number}", f"{0.8 * answer + 0.1}", at=NINE + number // 100, timing=timing))
        labels[f"call-{number}"] = str(int(truth))
    for name, records in rows.items():
        capture(tools, "e", name, records)
    label(tools, "e", labels)


def ask(tools: Means, variants: dict[str, float] | None = None, **more: Any) -> dict[str, Any]:
    """The verdict, as JSON could carry it."""
    asked = {"endpoint": "e", "variants": variants or {"A": 0.9, "B": 0.1}, "destination": DESTINATION, **more}
    found: dict[str, Any] = json.loads(json.dumps(verdict(asked, tools), allow_nan=False))
    return found


def test_a_better_challenger_is_promoted(tools: Means) -> None:
    """80 % against 90 %, from files alone."""
    written(tools, {"A": 0.8, "B": 0.9})
    found = ask(tools)
    assert ("Promote", "B", "A") == (found["Decision"], found["Variant"], found["Baseline"])
    a, b = found["Variants"]
    assert 1600 == a["LabelledCalls"] + b["LabelledCalls"] == a["CapturedCalls"] + b["CapturedCalls"]
    assert pytest.approx(0.9, abs=0.03) == b["Value"]
    assert pytest.approx(0.002, rel=0.1) == b["CapturedLatencySeconds"]["P50"]
    assert 0 < found["Challengers"][0]["GainLow"] < 0.1 < found["Challengers"][0]["GainHigh"] + 0.1
    assert found["Challengers"][0]["FixedSizeCallsPerVariant"] > 100
    assert "2026-11-21T09:00:00Z" == a["FirstCapture"]


def test_the_same_facts_decide_the_other_way_round(tools: Means) -> None:
    """With B as the baseline, A is rolled back."""
    written(tools, {"A": 0.8, "B": 0.9})
    assert "RollBack" == ask(tools, baseline="B")["Decision"]


def test_by_auc_as_well(tools: Means) -> None:
    """The better model puts more pairs in order."""
    written(tools, {"A": 0.8, "B": 0.92})
    assert "Promote" == ask(tools, metric="auc")["Decision"]


def test_equals_wait_and_are_kept_when_the_effect_is_said(tools: Means) -> None:
    """No difference is no reason to promote; one that would not count ends the test."""
    written(tools, {"A": 0.9, "B": 0.9}, calls=2000)
    assert "Wait" == ask(tools)["Decision"]
    assert "Keep" == ask(tools, effect=0.06)["Decision"]


def test_several_challengers_share_alpha(tools: Means) -> None:
    """Each is asked with half of it, and the best is named."""
    written(tools, {"A": 0.75, "B": 0.9, "C": 0.6})
    found = ask(tools, {"A": 1.0, "B": 0.5, "C": 0.5})
    assert {"B": "Promote", "C": "RollBack"} == {one["VariantName"]: one["Decision"] for one in found["Challengers"]}
    assert "97.5 % certain" in found["Sentence"]
    assert "Promote" == found["Decision"]
    alone = ask(tools, {"A": 1.0, "B": 0.5, "C": 0.5}, challengers=["B"])
    assert alone["Challengers"][0]["GainLow"] > found["Challengers"][0]["GainLow"]


def test_only_calls_since_then_count(tools: Means) -> None:
    """The first seconds are left out."""
    written(tools, {"A": 0.8, "B": 0.9}, calls=500)
    found = ask(tools, since=NINE + 5)
    assert 500 == sum(one["CapturedCalls"] for one in found["Variants"])


def test_without_labels_there_is_a_sentence(tools: Means) -> None:
    """What is missing, at each step of the way."""
    assert "captures none (DataCaptureConfig)" in ask(tools, destination="")["Sentence"]
    assert "no call of endpoint e was captured yet" in ask(tools)["Sentence"]
    capture(tools, "e", "A", [record("1")])
    assert "no captured call of A or B has a label yet" in ask(tools)["Sentence"]
    label(tools, "e", {"1": "1", "nobody": "1"})
    found = ask(tools)
    assert "no captured call of B has a label yet" in found["Sentence"]
    assert "a label without a capture" in [one["Reason"] for one in found["Complaints"]]
    capture(tools, "e", "B", [record("2", "what?!")])
    label(tools, "e", {"1": "1", "2": "1"})
    assert "each needs 50 labelled calls" in ask(tools)["Sentence"]
    assert "complaints say why" in ask(tools, metric="rmse")["Sentence"]


def test_an_area_needs_both_classes(tools: Means) -> None:
    """Calls that are all positive have none."""
    for name in ("A", "B"):
        capture(tools, "e", name, [record(f"{name}{number}", "0.7") for number in range(60)])
    label(tools, "e", {f"{name}{number}": "1" for name in ("A", "B") for number in range(60)})
    found = ask(tools, metric="auc")
    assert "A and B had no calls of both classes yet" in found["Sentence"]
    assert found["Variants"][0]["Value"] is None


def test_one_variant_is_nothing_to_compare(tools: Means) -> None:
    """Nor is none."""
    assert "only variant A" in ask(tools, {"A": 1.0})["Sentence"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"baseline": "Z"},
        {"challengers": ["Z"]},
        {"baseline": "A", "challengers": ["A"]},
        {"metric": "truth"},
        {"alpha": 0.0},
        {"alpha": 1e-300},
        {"alpha": 2.0},
        {"effect": -1.0},
        {"better": "lower"},
        {"attributes": {"inference": "a[["}},
    ],
    ids=str,
)
def test_questions_without_sense_are_refused(tools: Means, wrong: dict[str, Any]) -> None:
    """In one sentence."""
    with pytest.raises(ValidationError):
        ask(tools, **wrong)


def test_guardrails_read_the_metrics(tools: Means) -> None:
    """B fails one call of five, and nobody has labelled anything."""
    assert tools.metrics_folder is not None
    registry = Registry(tools.metrics_folder, "front")
    for name, errors in (("A", 10), ("B", 200)):
        registry.counter("sagemaker_invocations_total", "e", name).add(1000)
        registry.counter("sagemaker_invocation_model_errors_total", "e", name).add(errors)
    found = ask(tools)
    assert "RollBack" == found["Decision"]
    assert "20.00% of its calls fail, 1.00% of A's" in found["Sentence"]
    assert "RollBack" == ask(tools, metric="error-rate", destination="")["Decision"]
    registry.close()


def test_a_slow_challenger_is_rolled_back(tools: Means) -> None:
    """Its p99 is ten times the baseline's; a mean can be compared as well."""
    assert tools.metrics_folder is not None
    registry = Registry(tools.metrics_folder, "front")
    for name, slow in (("A", 0.004), ("B", 0.2)):
        latency = registry.histogram("sagemaker_model_latency_seconds", "e", name)
        for number in range(1000):
            latency.observe(slow if number % 20 == 0 else 0.003)
    found = ask(tools)
    assert "RollBack" == found["Decision"]
    assert "p99 latency" in found["Sentence"]
    by_name = {one["VariantName"]: one["ModelLatencySeconds"] for one in found["Variants"]}
    assert by_name["A"]["P99"] <= 0.005 < by_name["B"]["P99"]
    assert 0.005 in LATENCY_BUCKETS
    registry.close()


def test_equals_in_the_metrics_are_within_the_guardrails(tools: Means) -> None:
    """The same errors and latencies: nothing to act on."""
    assert tools.metrics_folder is not None
    registry = Registry(tools.metrics_folder, "front")
    for name in ("A", "B"):
        registry.counter("sagemaker_invocations_total", "e", name).add(1000)
        registry.counter("sagemaker_invocation_model_errors_total", "e", name).add(20)
        latency = registry.histogram("sagemaker_model_latency_seconds", "e", name)
        for number in range(1000):
            latency.observe(number / 1e5)
    assert ["Wait", "Wait"] == [ask(tools, metric=one, destination="")["Decision"] for one in ("error-rate", "latency")]
    registry.close()
