"""Captured calls held against a baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.monitor import data_quality
from serving.monitor.constraints import Baseline, read
from serving.monitor.data_quality import Result, of_records, of_tables
from serving.monitor.values import Complaints, Record
from tests.monitor.records import json_side, record, side
from tests.monitor.test_profile import CELLS, table

RANDOM = np.random.default_rng(2026)


def learned(
    *cells: str | None, feature: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Baseline:
    """The baseline of one column, edited."""
    statistics, constraints = data_quality.baseline([table(*cells)])
    constraints["features"][0] |= feature or {}
    constraints["monitoring_config"] |= config or {}
    return read(json.dumps(constraints).encode(), json.dumps(statistics).encode())


def found(baseline: Baseline, *cells: str | None) -> list[tuple[str, str, str]]:
    """What one column violates."""
    result = of_tables([table(*cells)], baseline, Complaints())
    return [tuple(one.values()) for one in result.violations["violations"]]


def numbers(values: Iterable[float]) -> list[str]:
    """As text."""
    return [repr(float(value)) for value in values]


NORMAL = numbers(RANDOM.normal(size=2000))


# --- checks ---------------------------------------------------------------------------------------------------------


def test_data_like_the_baseline_violates_nothing() -> None:
    """Another sample of the same."""
    assert [] == found(learned(*NORMAL), *numbers(RANDOM.normal(size=1000)))
    assert [] == found(learned(*["yes"] * 90, *["no"] * 60), *["yes"] * 58, *["no"] * 42)


def test_data_types() -> None:
    """The reference's own words and digits."""
    text = (
        "Data type match requirement is not met. Expected data type: Integral, Expected match: 100.0%. "
        "Observed: Only 99.64592817400101% of data is Integral."
    )
    cells = [*(str(number % 50) for number in range(1970)), *["x"] * 7]
    violated = found(learned(*(str(number % 50) for number in range(1000))), *cells)
    assert [("x", "data_type_check", text)] == violated


@pytest.mark.parametrize(
    ("expected", "cell", "fires"),
    [
        ("Integral", "5.0", True),
        ("Fractional", "5", False),
        ("Fractional", "x", True),
        ("String", "5", False),
        ("Unknown", "x", False),
    ],
)
def test_which_values_are_of_a_type(expected: str, cell: str, fires: bool) -> None:
    """A whole number is fractional too, and anything is text."""
    baseline = learned("1", feature={"inferred_type": expected})
    assert fires == ("data_type_check" in [check for _, check, _ in found(baseline, cell)])


def test_a_type_s_threshold_is_the_share_that_has_to_match() -> None:
    """Fewer violate it."""
    baseline = learned("1", "2", config={"datatype_check_threshold": 0.5})
    assert [] == found(baseline, "1", "x")
    assert ["data_type_check"] == [check for _, check, _ in found(baseline, "1", "x", "y")]


def test_completeness() -> None:
    """Less than the baseline's is a violation."""
    text = "Value: 0.5 does not meet the constraint requirement! "
    assert [("x", "completeness_check", text)] == found(learned("1", "2", "3", None), "1", None)
    assert [] == found(learned("1", None), "1", None)


def test_values_outside_the_domains() -> None:
    """However many other values there are."""
    baseline = learned(*["yes"] * 10, *["no"] * 10)
    (violation,) = [one for one in found(baseline, *["yes"] * 10, *["no"] * 9, "maybe") if "drift" not in one[1]]
    assert ("x", "categorical_values_check") == violation[:2]
    assert "Only 95.0% of values are in the domains." in violation[2]
    many = found(baseline, "yes", *(f"id-{number}" for number in range(20_000)))
    assert ["categorical_values_check"] == [check for _, check, _ in many]


def test_numeric_drift() -> None:
    """The distance and its threshold are told."""
    ((name, check, text),) = found(learned(*NORMAL), *numbers(RANDOM.normal(1, size=500)))
    assert ("x", "baseline_drift_check") == (name, check)
    start, distance, threshold = text.replace(" exceeds threshold:", "").rsplit(" ", 2)
    assert ("Baseline drift distance:", True, "0.1") == (start, 0.2 < float(distance) < 0.4, threshold)


@pytest.mark.parametrize("method", ["LInfinity", "ChiSquared"])
def test_categorical_drift(method: str) -> None:
    """By either method."""
    rules = {"distribution_constraints": {"categorical_drift_method": method}}
    baseline = learned(*["yes"] * 500, *["no"] * 500, config=rules)
    assert [] == found(baseline, *["yes"] * 104, *["no"] * 96)
    ((_, check, text),) = found(baseline, *["yes"] * 180, *["no"] * 20)
    assert "baseline_drift_check" == check and "distance: " in text and "exceeds threshold: 0." in text


def test_comparison_can_be_switched_off() -> None:
    """For all, or for one feature; metrics too, and all checks."""
    drifted = numbers(RANDOM.normal(5, size=500))
    off = {"distribution_constraints": {"perform_comparison": "Disabled"}}
    assert [] == found(learned(*NORMAL, config=off), *drifted)
    assert [] == found(learned(*NORMAL, feature={"monitoringConfigOverrides": off}), *drifted)
    assert [] == found(learned(*NORMAL, config={"evaluate_constraints": "Disabled"}), *drifted, None)
    quiet = learned(*NORMAL, config={"emit_metrics": "Disabled"})
    assert [] == of_tables([table(*drifted)], quiet, Complaints()).metrics


def test_missing_and_extra_columns() -> None:
    """Counted as the reference has it, and named."""
    result = of_tables([table("1", name="a"), table("2", name="b")], learned("1"), Complaints())
    counts = "Number of columns in current dataset: 2, Number of columns in baseline constraints: 1"
    assert [
        {
            "feature_name": "Missing columns",
            "constraint_check_type": "missing_column_check",
            "description": f"There are missing columns in current dataset. {counts}. Missing: x",
        },
        {
            "feature_name": "Extra columns",
            "constraint_check_type": "extra_column_check",
            "description": f"There are extra columns in current dataset. {counts}. Extra: a, b",
        },
    ] == result.violations["violations"]


# --- captured calls -------------------------------------------------------------------------------------------------


def calls(rows: Sequence[Sequence[float]], answer: str = "0.5") -> list[Record]:
    """A call for each row."""
    return [record(side(",".join(map(str, row))), side(answer)) for row in rows]


def baseline_of(names: Sequence[str], rows: Sequence[Sequence[float]]) -> Baseline:
    """Of a training set with these columns."""
    parts = [data_quality.tables([record(side(",".join(map(str, row)))) for row in rows], Complaints(), names)]
    statistics, constraints = data_quality.baseline(table for part in parts for table in part)
    return read(json.dumps(constraints).encode(), json.dumps(statistics).encode())


ROWS = RANDOM.normal(size=(1000, 3)).round(4).tolist()


def drifted(result: Result) -> list[str]:
    """The features whose distribution has changed."""
    return [
        one["feature_name"]
        for one in result.violations["violations"]
        if one["constraint_check_type"] == "baseline_drift_check"
    ]


def test_the_drifted_column_is_named_by_the_baseline_s_header() -> None:
    """Captured CSV has no names: the baseline's are theirs, of the inputs if it is about features alone."""
    shifted = [[a, b + 1, c] for a, b, c in ROWS]
    baseline = baseline_of(["height", "width", "depth"], ROWS)
    result = of_records(calls(shifted), baseline, Complaints())
    assert (["width"], 1000) == (drifted(result), result.item_count)
    assert ["height", "width", "depth"] == [one["name"] for one in result.statistics["features"]]
    assert [] == of_records(calls(ROWS), baseline, Complaints()).violations["violations"]


def test_a_baseline_with_the_answers_is_about_both() -> None:
    """Outputs first, as the reference has it."""
    baseline = baseline_of(["score", "height", "width", "depth"], [[0.5, *row] for row in ROWS])
    assert [] == of_records(calls(ROWS), baseline, Complaints()).violations["violations"]


def test_calls_with_names_are_matched_by_name() -> None:
    """In any order, beside answers that the baseline knows nothing of."""
    baseline = baseline_of(["a", "b", "c"], ROWS)
    named = [
        record(json_side({"c": c, "a": a, "b": b}), json_side({"predictions": [{"score": 1}]})) for a, b, c in ROWS
    ]
    assert [] == of_records(named, baseline, Complaints()).violations["violations"]


def test_metrics() -> None:
    """Values of numbers, completeness of all, distance of what was compared."""
    baseline = learned("1", "2", "3", "4")
    result = of_tables([table("1", "2", None, "6")], baseline, Complaints())
    (drift,) = result.drifts.values()
    assert [
        ("feature_data_x", "x", 6.0, 1.0, 9.0, 3),
        ("feature_non_null_x", "x", 0.75, 0.75, 0.75, 1),
        ("feature_baseline_drift_x", "x", drift.distance, drift.distance, drift.distance, 1),
    ] == result.metrics
    assert 3.0 == result.metrics[0].average


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record(side("\x00"), side("0.5"))],
        [record(side("1,2,3"), side("0.5"))],
        [record(json_side({"instances": []}), None)],
        [record(side("a,b,c"), side("not a number"))] * 3,
        [record(side("nan,inf,1e999"), side("NaN"))] * 3,
        [record(side(",,"), side("0.5"))] * 3,
        [record(json_side({"größe": 10**300, "": "x", "名": "y"}), None)],
        [record(json_side([[1, 2, 3, 4, 5]]), None)],
    ],
)
@pytest.mark.parametrize("rows", [ROWS, [[7.0, 7.0, 7.0]] * 5, ROWS[:1]])
def test_whatever_was_captured_a_run_comes_to_its_end(records: list[Record], rows: list[list[float]]) -> None:
    """Empty windows, constant and empty columns, one row, text among numbers, other columns than the baseline's; and
    what comes out is JSON."""
    result = of_records(records, baseline_of(["a", "b", "c"], rows), Complaints())
    for part in (result.statistics, result.constraints, result.violations):
        json.dumps(part, allow_nan=False)


def test_an_empty_window_violates_nothing() -> None:
    """There is no data to be wrong."""
    result = of_records([], baseline_of(["a", "b", "c"], ROWS), Complaints())
    assert ([], [], 0) == (result.violations["violations"], result.metrics, result.item_count)


@settings(max_examples=40)
@given(st.lists(CELLS, min_size=1, max_size=30), st.lists(CELLS, max_size=30))
def test_any_column_can_be_held_against_any_other(before: list[str | None], after: list[str | None]) -> None:
    """And none violates its own baseline, but for what no baseline knows."""
    baseline = learned(*before)
    assert [] == found(baseline, *before)
    result = of_tables([table(*after)], baseline, Complaints())
    json.dumps([result.statistics, result.constraints, result.violations], allow_nan=False)


def test_without_a_baseline_there_are_statistics_alone() -> None:
    """Of both directions."""
    result = of_records(calls(ROWS[:5]), None, Complaints())
    assert ["_c0", "_c1", "_c2", "_c3"] == [one["name"] for one in result.statistics["features"]]
    assert ([], {}) == (result.violations["violations"], result.drifts)


def test_what_was_left_out_is_told() -> None:
    """Per reason."""
    odd = record(side("1"), side("0.5"), id="odd")
    result = of_records([*calls(ROWS), odd], baseline_of(["a", "b", "c"], ROWS), Complaints())
    assert [("a row has another width than most", 1, "odd")] == result.complaints
