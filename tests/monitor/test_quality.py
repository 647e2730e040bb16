"""Model quality: the reference's metrics of tiny tables, constraints, violations, and rows that say nothing."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.predictions import Attributes, Prediction
from serving.monitor.quality import PROBLEMS, Pair, model_quality_run, quality_of
from serving.monitor.results import Result
from serving.monitor.values import Complaints
from tests.monitor.records import record, side

BINARY, MANY, VALUES = "BinaryClassification", "MulticlassClassification", "Regression"


def quality(pairs: list[tuple[str, Prediction]], problem: str, constraints: Any = None) -> Result:
    """The result for (label, prediction) pairs; its documents are valid JSON."""
    found = quality_of([Pair(*one) for one in pairs], problem, constraints, Complaints())
    json.dumps([found.statistics, found.constraints, found.violations], allow_nan=False)
    return found


def section(found: Result) -> dict[str, Any]:
    """The metrics of statistics.json."""
    return next(value for key, value in found.statistics.items() if key.endswith("_metrics"))


def said(label: str, score: float | None = None) -> Prediction:
    """A predicted class."""
    return Prediction(label, score)


#: AWS's own example (Developer Guide, "Model Quality Metrics"): one true negative, two false positives, one hit.
EXAMPLE = [("0", said("1", 0.9)), ("0", said("1", 0.8)), ("0", said("0", 0.1)), ("1", said("1", 0.95))]


def test_binary_metrics_are_those_of_the_reference() -> None:
    """All of AWS's example."""
    found = section(quality(EXAMPLE, BINARY))
    assert {"0": {"0": 1, "1": 2}, "1": {"0": 0, "1": 1}} == found["confusion_matrix"]
    expected = {
        "recall": 1.0, "precision": 1 / 3, "accuracy": 0.5, "f0_5": 5 / 13, "f1": 0.5, "f2": 5 / 7,
        "true_positive_rate": 1.0, "true_negative_rate": 1 / 3, "false_positive_rate": 2 / 3,
        "false_negative_rate": 0.0, "auc": 1.0,
        "recall_best_constant_classifier": 1.0, "precision_best_constant_classifier": 0.25,
        "accuracy_best_constant_classifier": 0.25, "f0_5_best_constant_classifier": 5 / 17,
        "f1_best_constant_classifier": 0.4, "f2_best_constant_classifier": 0.625,
    }  # fmt: skip
    assert expected == {name: pytest.approx(found[name]["value"]) for name in expected}
    assert {"NaN"} == {found[name]["standard_deviation"] for name in expected}
    curve = found["receiver_operating_characteristic_curve"]
    assert ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0]) == (curve["false_positive_rates"], curve["true_positive_rates"])
    assert [0.0, 1.0] == found["precision_recall_curve"]["recalls"][:2]


def test_regression_metrics_are_those_of_the_reference() -> None:
    """Errors of 1, 0 and 2."""
    found = section(quality([("1", Prediction(None, 2.0)), ("2", said("2")), ("6", Prediction(None, 4.0))], VALUES))
    assert {"mae": 1.0, "mse": 5 / 3, "rmse": math.sqrt(5 / 3), "r2": 1 - 5 / 14} == {
        name: pytest.approx(one["value"]) for name, one in found.items()
    }


def test_multiclass_metrics_are_weighted_by_true_classes() -> None:
    """Two of a, one of b: a right once and taken for c once, b right."""
    found = section(quality([("a", said("a")), ("a", said("c")), ("b", said("b"))], MANY))
    assert {"a": 1, "b": 0, "c": 1} == found["confusion_matrix"]["a"]
    assert (2 / 3, 2 / 3) == (found["accuracy"]["value"], found["weighted_recall"]["value"])
    assert 1.0 == found["weighted_precision"]["value"]
    assert (2 * (2 / 3) + 1) / 3 == pytest.approx(found["weighted_f1"]["value"])
    assert 2 / 3 == found["accuracy_best_constant_classifier"]["value"]


def test_deviations_are_told_from_two_hundred_rows_on() -> None:
    """The same ones for the same rows; small beside the value."""
    dice = random.Random(1)
    rows = [(str(dice.randint(0, 1)), Prediction(None, dice.random())) for _ in range(200)]
    found = section(quality(rows, BINARY))
    assert 0.0 < found["auc"]["standard_deviation"] < 0.1
    assert found == section(quality(rows, BINARY))
    assert "NaN" == section(quality(rows[1:], BINARY))["auc"]["standard_deviation"]


def test_long_curves_are_thinned() -> None:
    """Documents stay small; the ends stay."""
    dice = random.Random(1)
    rows = [(str(dice.randint(0, 1)), Prediction(None, dice.random())) for _ in range(5000)]
    curve = section(quality(rows, BINARY))["receiver_operating_characteristic_curve"]["true_positive_rates"]
    assert (1000, 0.0, 1.0) == (len(curve), curve[0], curve[-1])


def test_a_baseline_suggests_constraints_that_it_meets() -> None:
    """Less of what should be much, more of what should be little."""
    baseline = quality(EXAMPLE, BINARY)
    assert baseline.constraints is not None
    limits = baseline.constraints["binary_classification_constraints"]
    assert {"threshold": pytest.approx(5 / 7), "comparison_operator": "LessThanThreshold"} == limits["f2"]
    assert "GreaterThanThreshold" == limits["false_positive_rate"]["comparison_operator"]
    assert not [name for name in limits if "constant" in name]
    assert {"violations": []} == quality(EXAMPLE, BINARY, baseline.constraints).violations


def test_violations_are_told_in_the_references_words() -> None:
    """Each metric beyond its threshold."""
    constraints = {
        "binary_classification_constraints": {
            "accuracy": {"threshold": 0.625, "comparison_operator": "LessThanThreshold"},
            "recall": {"threshold": "0.5", "comparison_operator": "LessThanThreshold"},
            "gone": {"threshold": 1, "comparison_operator": "GreaterThanThreshold"},
        }
    }
    assert [
        {
            "constraint_check_type": "LessThanThreshold",
            "metric_name": "accuracy",
            "description": "Metric accuracy with 0.5 was LessThanThreshold 0.625",
        }
    ] == quality(EXAMPLE, BINARY, constraints).violations["violations"]


@pytest.mark.parametrize(
    "limit",
    [7, {"f1": 7}, *({"f1": {"threshold": 1, "comparison_operator": one}} for one in ("Odd", ["Odd"], {}, None))],
)
def test_constraints_that_are_none_are_errors(limit: Any) -> None:
    """The configuration's, not the data's."""
    with pytest.raises(ValidationError):
        quality(EXAMPLE, BINARY, {"binary_classification_constraints": limit})
    with pytest.raises(ValidationError, match="ProblemType"):
        quality(EXAMPLE, "Odd")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_nothing_at_all_is_said_to_be_nothing(problem: str) -> None:
    """No metrics, no constraints, no violations, one complaint."""
    found = quality([], problem)
    assert ({}, None, [], {}) == (section(found), found.constraints, found.violations["violations"], found.metrics)
    assert ["there is no labelled prediction at all"] == [one.reason for one in found.complaints]


def test_one_class_has_no_curve_and_no_ratio_of_nothing() -> None:
    """What cannot be said is NaN as text, not emitted, and violates nothing."""
    constraints = quality(EXAMPLE, BINARY).constraints
    found = quality([("1", said("1", 0.9))] * 3, BINARY, constraints)
    assert "NaN" == section(found)["auc"]["value"] == section(found)["true_negative_rate"]["value"]
    assert "receiver_operating_characteristic_curve" not in section(found)
    assert "auc" not in found.metrics and 1.0 == found.metrics["recall"]
    assert [] == found.violations["violations"]


def test_constant_predictions_are_no_trouble() -> None:
    """AUC one half, precision 0 where nothing is positive, no coefficient of determination of one row."""
    found = section(quality([("1", said("0", 0.5)), ("0", said("0", 0.5))], BINARY))
    assert (0.5, 0.0) == (found["auc"]["value"], found["precision"]["value"])
    assert "NaN" == section(quality([("1", Prediction(None, 1.0))], VALUES))["r2"]["value"]


def test_numbers_and_names_of_two_classes_meet() -> None:
    """A model answers 1 or a probability where labels say yes; true and 1 are one."""
    for names in (("yes", "no"), ("true", "false"), ("good", "bad"), ("1", "0")):
        rows = [(names[0], Prediction(None, 0.9)), (names[1], said("0")), (names[0], said("1"))]
        assert 1.0 == section(quality(rows, BINARY))["accuracy"]["value"]


def test_rows_that_say_nothing_are_counted() -> None:
    """By reason and with the call's id; the others count."""
    rows = [Pair("x", Prediction(None, 1.0), "a"), Pair("1", said("x"), "b"), Pair("1", said("1"), "c")]
    found = quality_of(rows, VALUES, None, Complaints())
    assert 1 == found.item_count
    assert [
        ("a label of a regression is not a number", 1, "a"),
        ("a prediction of a regression is not a number", 1, "b"),
    ] == [tuple(one) for one in found.complaints]
    strange = quality([("a", said("0")), ("b", said("2"))], MANY)
    assert ["no predicted label is one of the true labels"] == [one.reason for one in strange.complaints]


def test_many_classes_make_no_huge_matrix() -> None:
    """Only the cells that are not empty."""
    found = section(quality([(f"text {n}", said(f"text {n}")) for n in range(2000)], MANY))
    assert {"text 7": 1} == found["confusion_matrix"]["text 7"]
    assert 1.0 == found["weighted_f1"]["value"]


def test_a_run_merges_captures_with_labels() -> None:
    """Merged records are handed on; unlabelled ones, odd answers and labels without a call are told."""
    calls = [record(output=side(data), id=id) for id, data in (("a", "0.9\n"), ("b", "?,?\n"), ("c", "0.2\n"))]
    merged: list[str] = []
    found = model_quality_run(
        calls, {"a": "1", "b": "1", "z": "0"}, Attributes(), BINARY, None, Complaints(),
        lambda one: merged.append(one.event_id),
    )  # fmt: skip
    assert (["a", "b"], 1, 1.0) == (merged, found.item_count, found.metrics["accuracy"])
    assert {
        "a capture without a label",
        "a label without a capture",
        "a prediction is neither a number nor a label",
    } == {one.reason for one in found.complaints}


_LABELS = st.sampled_from(["0", "1", "2", "yes", "no", "a"])
_PREDICTIONS = st.builds(Prediction, st.none() | _LABELS, st.none() | st.floats(-1e300, 1e300))


@settings(max_examples=60)
@given(st.lists(st.tuples(_LABELS, _PREDICTIONS), max_size=12), st.sampled_from(sorted(PROBLEMS)))
def test_every_metric_is_in_its_range(rows: list[tuple[str, Prediction]], problem: str) -> None:
    """Shares between 0 and 1, errors not negative, whatever was answered; documents are valid JSON."""
    for name, value in quality(rows, problem).metrics.items():
        assert value >= 0.0 or name == "r2"
        assert value <= 1.0 or problem == VALUES
