"""A shadow beside production: joined in bounded memory, compared, timed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import scipy  # ``scipy.stats`` comes when it is first used: two seconds

from serving.errors import ValidationError
from serving.monitor import joining
from serving.monitor.joining import Joined
from serving.monitor.shadow_report import shadow_report
from serving.monitor.tasks import Means
from serving.monitor.values import Complaints, Record
from serving.watch.metrics import Registry
from tests.monitor.written import DESTINATION, NINE, capture, means, record


@pytest.fixture
def tools(tmp_path: Path) -> Means:
    """Local buckets and the cells of a server that is not there."""
    return means(tmp_path, tmp_path / "metrics")


def ask(tools: Means, **more: Any) -> dict[str, Any]:
    """The report, as JSON could carry it."""
    asked = {"endpoint": "e", "production": ["A"], "shadows": ["S"], "destination": DESTINATION, **more}
    found: dict[str, Any] = json.loads(json.dumps(shadow_report(asked, tools), allow_nan=False))
    return found


def timed(seconds: float) -> dict[str, int]:
    """A receipt."""
    return {"total": round(seconds * 1e6)}


def test_answers_are_joined_and_compared(tools: Means) -> None:
    """Forty calls, a quarter of which the shadow got and saw otherwise once."""
    answers = ["1" if number % 2 else "0" for number in range(40)]
    capture(tools, "e", "A", [record(f"{n}", one, input=f"row {n}", at=NINE + n) for n, one in enumerate(answers)])
    capture(tools, "e", "S", [record(f"{n}", "1", at=NINE + n) for n in (1, 3, 4, 5, 7, 9, 11, 13, 15, 17)])
    found = ask(tools)
    assert (40, 10, 30, 0) == (
        found["ProductionCaptures"],
        found["ShadowCaptures"],
        found["UnmatchedProductionCaptures"],
        found["UnmatchedShadowCaptures"],
    )
    assert ("classification", 10, 0.9) == (found["Kind"], found["Pairs"], found["Agreement"])
    assert {"First": "0", "Second": "1", "Rows": 1} in found["Classification"]["Confusion"]
    assert "the same class in 90.00% of 10 calls; there are no times of both yet" in found["Sentence"]


def test_inputs_are_shown_only_when_asked_for(tools: Means) -> None:
    """The worst example, with and without what the caller sent."""
    capture(tools, "e", "A", [record("7", "1", input="secret")])
    capture(tools, "e", "S", [record("7", "0")])
    assert "secret" not in json.dumps(ask(tools))
    assert "secret" == ask(tools, bodies=True)["Examples"][0]["Input"]
    assert [] == ask(tools, worst=0)["Examples"]


def test_several_production_variants_share_a_shadow(tools: Means) -> None:
    """A call was answered by one of them; calls without an inference id join by their event id."""
    capture(tools, "e", "A", [record("1", "2.5", inference=False)])
    capture(tools, "e", "B", [record("2", "3.5", inference=False)])
    capture(tools, "e", "S", [record("1", "2.5", inference=False), record("2", "4.5", inference=False)])
    found = ask(tools, production=["A", "B"])
    assert (2, 0.5, "regression") == (found["Pairs"], found["Agreement"], found["Kind"])
    assert "differ by 0 in the median" in found["Sentence"]


def test_unanswered_calls_are_counted(tools: Means) -> None:
    """By whom."""
    capture(tools, "e", "A", [record("1", None), record("2"), record("3", None)])
    capture(tools, "e", "S", [record("1"), record("2", None), record("3", None)])
    reasons = {one["Reason"] for one in ask(tools)["Complaints"]}
    assert {f"a call without an answer of {who}" for who in ("production", "the shadow", "both")} == reasons


def test_latency_of_captures_is_a_paired_t_interval(tools: Means) -> None:
    """As scipy has it."""
    dice = numpy.random.default_rng(1)
    first = dice.uniform(0.001, 0.010, 50).round(6)
    second = (first + dice.normal(0.002, 0.001, 50)).round(6)
    capture(tools, "e", "A", [record(f"{n}", timing=timed(one)) for n, one in enumerate(first)])
    capture(tools, "e", "S", [record(f"{n}", timing=timed(one)) for n, one in enumerate(second)])
    found = ask(tools)
    wanted = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    latency = found["Latency"]
    assert pytest.approx((wanted.low, wanted.high)) == (latency["MeanDifferenceLow"], latency["MeanDifferenceHigh"])
    assert ("captures", 50) == (latency["Source"], latency["Pairs"])
    assert "slower in the mean (95% certain)" in found["Sentence"]


def test_latency_of_all_calls_comes_from_the_metrics(tools: Means) -> None:
    """By the moments of the pairs; of calls since some time only captures tell."""
    assert tools.metrics_folder is not None
    registry = Registry(tools.metrics_folder, "front")
    first, second = [0.010, 0.012, 0.011, 0.013], [0.008, 0.011, 0.009, 0.010]
    labels = ("e", "S", "A")
    registry.counter("sagemaker_shadow_pairs_total", *labels).add(4)
    registry.counter("sagemaker_shadow_pair_seconds_total", *labels, "production").add(sum(first))
    registry.counter("sagemaker_shadow_pair_seconds_total", *labels, "shadow").add(sum(second))
    squares = sum((b - a) ** 2 for a, b in zip(first, second, strict=True))
    registry.counter("sagemaker_shadow_pair_squared_difference_total", *labels).add(squares)
    found = ask(tools)
    wanted = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    latency = found["Latency"]
    assert pytest.approx((wanted.low, wanted.high)) == (latency["MeanDifferenceLow"], latency["MeanDifferenceHigh"])
    assert "metrics" == latency["Source"]
    assert "ms faster in the mean" in found["Sentence"]
    assert ask(tools, since=NINE, metrics=False)["Latency"] is None
    registry.close()


def test_nothing_captured_is_a_sentence(tools: Means) -> None:
    """Whether capture is off, or nothing has come yet."""
    assert "captures nothing (DataCaptureConfig)" in ask(tools, destination="")["Sentence"]
    assert "No call that production and S both answered was captured yet" in ask(tools)["Sentence"]


def test_the_shadow_has_to_be_known(tools: Means) -> None:
    """By name, where there are several."""
    for wrong in ({"shadows": []}, {"shadow": "Z"}, {"shadows": ["S", "T"]}, {"kind": "poetry"}):
        with pytest.raises(ValidationError):
            ask(tools, **wrong)
    assert "T" == ask(tools, shadows=["S", "T"], shadow="T")["ShadowVariant"]


# --- the join -------------------------------------------------------------------------------------------------------


def row(key: str, at: float, variant: str = "A") -> Record:
    """A record of nothing but its time."""
    return Record(f"event-{key}", key, at, variant, None, None, {})


def test_files_that_overlap_are_joined(tools: Means) -> None:
    """Two fronts' files of one minute, each in its own order."""
    dice = random.Random(2)
    times = {f"{n}": NINE + n % 60 for n in range(400)}
    for variant in ("A", "S"):
        for front in range(2):
            mine = sorted(key for key in times if int(key) % 2 == front)
            dice.shuffle(mine)
            mine.sort(key=times.__getitem__)
            capture(tools, "e", variant, [record(key, at=times[key]) for key in mine], f"00-00-00{front}-{front}.jsonl")
    assert 400 == ask(tools)["Pairs"]


def test_what_waits_is_forgotten_in_time() -> None:
    """A sampled shadow: production's other calls do not pile up for a day."""
    most = 0

    def production() -> Iterator[Record]:
        for second in range(20_000):
            yield row(f"{second}", float(second))

    def shadow() -> Iterator[Record]:
        nonlocal most
        for second in range(0, 20_000, 10):
            most = max(most, sum(len(one) for one in joined._waiting.values()))
            yield row(f"{second}", float(second), "S")

    joined = Joined([production()], shadow(), Complaints())
    assert 2000 == sum(1 for _ in joined)
    assert most < 1000
    assert {False: 18_000, True: 0} == joined.unmatched


def test_what_waits_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of a million calls: the oldest are forgotten, and that is told."""
    monkeypatch.setattr(joining, "_MOST_WAITING", 100 * joining._RECORD)
    complaints = Complaints()
    joined = Joined([(row(f"{n}", 1.0) for n in range(500))], (row(f"{n}", 2.0, "S") for n in range(500)), complaints)
    assert sum(1 for _ in joined) < 500
    assert "too many waited" in complaints.all()[0].reason


def test_calls_of_one_inference_id_are_not_mixed_up() -> None:
    """Inference ids are the caller's, and may be the same for all calls of a user."""
    calls = [row(f"{number}", 1.0)._replace(inference_id="user") for number in range(9)]
    complaints = Complaints()
    joined = Joined([calls], reversed(calls), complaints)
    assert 9 == sum(both.production == both.shadow for both in joined)
    assert [] == complaints.all()


def test_a_call_that_was_answered_twice_is_told_of() -> None:
    """Queued calls are answered once at least."""
    complaints = Complaints()
    production = [row("1", 1.0), row("1", 1.0), row("2", 2.0)]
    joined = Joined([production], [row("2", 6.0, "S"), row("1", 6.0, "S")], complaints)
    assert 2 == len(list(joined))
    assert ["a call was captured twice: the later counts"] == [one.reason for one in complaints.all()]
    assert {False: 1, True: 0} == joined.unmatched
