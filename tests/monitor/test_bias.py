"""Bias: Clarify's metrics of a table small enough to do by hand, drift from a baseline, and odd data."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.bias import INFINITE, Row, bias_of, bias_run
from serving.monitor.bias_config import Config, Facet, parse_config
from serving.monitor.bias_metrics import POST_TRAINING, PRE_TRAINING, Undefined, flip_test, interval, table_of
from serving.monitor.predictions import Attributes
from serving.monitor.results import Result
from serving.monitor.values import Complaints
from tests.monitor.records import json_side, record, side

CONFIG = Config("t", ("1",), (Facet("sex", ("f",)),), "dept")


def rows(counts: dict[tuple[str, str, str], int], dept: str = "x") -> list[Row]:
    """(facet, label, prediction) -> so many rows."""
    return [
        Row({"sex": facet, "dept": dept, "x": "1"}, label, said)
        for (facet, label, said), times in counts.items()
        for _ in range(times)
    ]


def bias(found: list[Row], config: Config = CONFIG, constraints: Any = None) -> Result:
    """The result, whose documents are valid JSON."""
    result = bias_of(found, config, constraints, Complaints())
    json.dumps([result.statistics, result.violations], allow_nan=False)
    return result


#: Of the advantaged (m): 4 TP, 1 FN, 1 FP, 4 TN. Of the disadvantaged (f): 1 TP, 2 FN, 1 FP, 1 TN.
TABLE = {
    ("m", "1", "1"): 4, ("m", "1", "0"): 1, ("m", "0", "1"): 1, ("m", "0", "0"): 4,
    ("f", "1", "1"): 1, ("f", "1", "0"): 2, ("f", "0", "1"): 1, ("f", "0", "0"): 1,
}  # fmt: skip


def test_metrics_are_clarifys() -> None:
    """Every one but the flip test, worked out by hand from the definitions."""
    qa, qd = 5 / 10, 3 / 5
    kl = qa * math.log(qa / qd) + (1 - qa) * math.log((1 - qa) / (1 - qd))
    middle = (qa + qd) / 2
    js = 0.5 * sum(
        p * math.log(p / m) for p, m in ((qa, middle), (1 - qa, 1 - middle), (qd, middle), (1 - qd, 1 - middle))
    )
    benefits = [0.0] * 3 + [1.0] * 10 + [2.0] * 2
    mean = sum(benefits) / 15
    expected = {
        "CI": (10 - 5) / 15, "DPL": qa - qd, "KL": kl, "JS": js, "LP": math.sqrt(0.02), "TVD": 0.1, "KS": 0.1,
        "CDDL": 2 / 7 - 3 / 8,
        "DPPL": 5 / 10 - 2 / 5, "DI": (2 / 5) / (5 / 10),
        "DCA": 5 / 5 - 3 / 2, "DCR": 2 / 3 - 5 / 5,
        "SD": 1 / 2 - 4 / 5, "RD": 4 / 5 - 1 / 3, "DAR": 4 / 5 - 1 / 2, "DRR": 1 / 3 - 4 / 5,
        "AD": 8 / 10 - 2 / 5, "TE": 2 / 1 - 1 / 1,
        "CDDPL": 3 / 8 - 2 / 7,
        "GE": sum((one / mean) ** 2 - 1 for one in benefits) / (2 * 15),
    }  # fmt: skip
    found = bias(rows(TABLE)).metrics
    assert {name: pytest.approx(value) for name, value in expected.items()} == {
        name: found[f"bias_metric_{name}"] for name in expected
    }
    assert {*PRE_TRAINING, *POST_TRAINING} == set(expected)


def test_conditional_disparity_is_weighted_by_group() -> None:
    """Berkeley's paradox in small: alike within each department, not over all."""
    easy = rows({("m", "1", "1"): 6, ("m", "0", "0"): 2, ("f", "1", "1"): 3, ("f", "0", "0"): 1}, "easy")
    hard = rows({("m", "1", "1"): 1, ("m", "0", "0"): 3, ("f", "1", "1"): 2, ("f", "0", "0"): 6}, "hard")
    found = bias(easy + hard).metrics
    assert 0.0 == pytest.approx(found["bias_metric_CDDL"])
    assert 0.0 == pytest.approx(found["bias_metric_CDDPL"])
    assert found["bias_metric_DPL"] > 0.1


def test_the_flip_test_asks_advantaged_neighbours() -> None:
    """Disadvantaged rows at 0 and 10, whose neighbours were rejected and accepted."""
    features = np.array([[0.0]] * 6 + [[10.0]] * 6 + [[0.1], [0.2], [9.9], [9.8]])
    facet = np.array([False] * 12 + [True] * 4)
    neighbours = [False] * 6 + [True] * 6
    assert 0.5 == flip_test(features, facet, np.array([*neighbours, True, True, True, True]))
    assert -0.25 == flip_test(features, facet, np.array([*neighbours, False, False, False, True]))
    with pytest.raises(Undefined, match="numbers"):
        flip_test(np.array([[math.nan]] * 16), facet, facet)


def test_the_document_is_an_analysis() -> None:
    """By stage and facet, each metric with its name in words; what has no value says why."""
    config = CONFIG._replace(group="")
    found = bias(rows(TABLE), config).statistics
    assert "1.0" == found["version"]
    before = found["pre_training_bias_metrics"]
    assert ("t", "1") == (before["label"], before["label_value_or_threshold"])
    (group,) = before["facets"]["sex"]
    assert "f" == group["value_or_threshold"]
    by_name = {one["name"]: one for one in group["metrics"]}
    assert "Class Imbalance (CI)" == by_name["CI"]["description"]
    assert (None, "Group variable is empty or not provided") == (by_name["CDDL"]["value"], by_name["CDDL"]["error"])
    after = found["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"]
    assert {*POST_TRAINING, "FT"} == {one["name"] for one in after}


def test_infinite_metrics_are_text_in_files_and_aws_number_in_metrics() -> None:
    """Nobody of the advantaged is accepted."""
    found = bias(rows({("m", "1", "0"): 2, ("m", "0", "0"): 2, ("f", "1", "1"): 1, ("f", "0", "0"): 1}))
    assert INFINITE == found.metrics["bias_metric_DI"]
    after = found.statistics["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"]
    assert "Infinity" == next(one["value"] for one in after if one["name"] == "DI")
    beside = bias(rows(TABLE), constraints=found.statistics).violations["violations"]
    assert "DI" not in {one["metric_name"] for one in beside}


def analysis(**values: Any) -> dict[str, Any]:
    """A baseline's document with these metrics."""
    metrics = [{"name": name, "value": value} for name, value in values.items()]
    return {"post_training_bias_metrics": {"facets": {"sex": [{"value_or_threshold": "f", "metrics": metrics}]}}}


def test_what_is_farther_from_0_than_the_baseline_violates() -> None:
    """The reference's rule and words: 0.2 to 0.1 is fine, 0.05 to 0.1 is not, nor on the other side of 0."""
    for fine in (0.2, -0.2, None):
        assert [] == bias(rows(TABLE), constraints=analysis(DPPL=fine)).violations["violations"]
    for near in (0.05, -0.05):
        found = bias(rows(TABLE), constraints=analysis(DPPL=near)).violations
        assert {
            "version": "1.0",
            "violations": [
                {
                    "facet": "sex",
                    "facet_value": "f",
                    "metric_name": "DPPL",
                    "constraint_check_type": "bias_drift_check",
                    "description": f"Value {0.5 - 0.4} does not meet the constraint requirement",
                }
            ],
        } == found


def test_a_baseline_meets_itself() -> None:
    """And a facet with one group meets the baseline's one group however its values are written."""
    baseline = bias(rows(TABLE)).constraints
    assert baseline is not None
    assert [] == bias(rows(TABLE), constraints=baseline).violations["violations"]
    written = json.loads(json.dumps(baseline).replace('"value_or_threshold": "f"', '"value_or_threshold": "(1, 9]"'))
    worse = {**TABLE, ("f", "1", "1"): 0, ("f", "1", "0"): 3}
    assert "DPPL" in {one["metric_name"] for one in bias(rows(worse), constraints=written).violations["violations"]}


def test_a_range_violates_when_the_interval_misses_it() -> None:
    """Few rows say little, many say it."""
    config = CONFIG._replace(ranges={"DPPL": (-0.05, 0.05)}, samples=200)
    many = rows({key: times * 400 for key, times in TABLE.items()})
    assert [] == bias(rows(TABLE), config).violations["violations"]
    assert ["DPPL"] == [one["metric_name"] for one in bias(many, config).violations["violations"]]
    assert [] == bias(many, config._replace(ranges={"DPPL": (0.0, 0.2)})).violations["violations"]


def test_the_bootstrap_interval_is_as_wide_as_theory_has_it() -> None:
    """Of a difference of two shares of 1000 rows each: z times the root of the sum of their variances."""
    cells = {(False, True): 300, (False, False): 700, (True, True): 600, (True, False): 400}
    columns = np.array([key for key, times in cells.items() for _ in range(times)])
    facet, label = columns[:, 0], columns[:, 1]
    table = table_of(facet, label, label, np.zeros(len(facet), int))
    low, high = interval(PRE_TRAINING["DPL"], table, 0.95, 4000, 0)
    assert (-0.3, 1.96 * math.sqrt((0.21 + 0.24) / 1000)) == pytest.approx(
        ((low + high) / 2, (high - low) / 2), rel=0.05
    )


def test_configurations_are_sagemakers() -> None:
    """Names, indices, one facet or a list; values in any form."""
    document = {
        "version": "1.0", "headers": ["sex", "age", "t"], "label": "t", "label_values_or_threshold": [1],
        "facet": [{"name_or_index": 1, "value_or_threshold": [40]}, {"name_or_index": "sex"}], "group_variable": 0,
    }  # fmt: skip
    expected = Config("t", ("1",), (Facet("age", ("40",)), Facet("sex", ())), "sex", ("sex", "age"))
    assert expected == parse_config(document)
    assert (Facet("0", ("1",)),) == parse_config(
        {"label_values_or_threshold": 1, "facet": {"name_or_index": 0, "value_or_threshold": 1.0}}
    ).facets


@pytest.mark.parametrize(
    "change",
    [
        {"facet": []}, {"facet": [7]}, {"facet": [{"name_or_index": -1}]}, {"headers": "a"}, {"headers": [1]},
        {"label_values_or_threshold": []}, {"label_values_or_threshold": [[1]]}, {"group_variable": 1.5},
        {"bias_drift": 7}, {"bias_drift": {"allowed_range": {"odd": [0, 1]}}},
        {"bias_drift": {"allowed_range": {"CI": [0]}}}, {"bias_drift": {"confidence": 1}},
        {"bias_drift": {"samples": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_are_none_are_errors(change: dict[str, Any]) -> None:
    """Before any data is looked at."""
    with pytest.raises(ValidationError):
        parse_config({"label_values_or_threshold": [1], "facet": [{"name_or_index": "a"}], **change})
    with pytest.raises(ValidationError):
        parse_config(None)


def test_a_threshold_is_meant_where_there_are_many_numbers() -> None:
    """Greater ages than 40 are the group; of two values it is the value itself."""
    config = Config("t", ("1",), (Facet("age", ("40",)),))
    ages = [Row({"age": str(age)}, "1", "1") for age in (20, 30, 40, 41, 60)]
    assert (3 - 2) / 5 == bias(ages, config).metrics["bias_metric_CI"]
    two = [Row({"age": age}, "1", "1") for age in ("40", "40", "40", "20")]
    assert (1 - 3) / 4 == bias(two, config).metrics["bias_metric_CI"]


def test_a_facet_without_values_is_looked_at_by_each() -> None:
    """One group for every value; metrics carry their names."""
    config = CONFIG._replace(facets=(Facet("sex", ()),))
    found = bias(rows(TABLE), config).metrics
    assert found["bias_metric_CI_sex_f"] == -found["bias_metric_CI_sex_m"]
    many = [Row({"sex": str(n)}, "1", "1") for n in range(200)]
    assert ["a facet with more than 100 values"] == [one.reason for one in bias(many, config).complaints]


def test_data_that_says_nothing_is_told() -> None:
    """No rows, no such facet, one group alone, no predictions, labels of other names."""
    assert ["there is no labelled prediction at all"] == [one.reason for one in bias([]).complaints]
    assert (None, {}) == (bias([]).constraints, bias([]).metrics)
    lost = bias([row._replace(features={}) for row in rows(TABLE)])
    assert ([("a row without a facet", 15, "sex")], {"bias_metric_GE"} & set(lost.metrics)) == (lost.complaints, set())
    alone = bias(rows({("f", "1", "1"): 3}))
    assert {"bias_metric_GE"} == set(alone.metrics)
    unpredicted = bias([row._replace(said=None) for row in rows(TABLE)])
    assert {f"bias_metric_{name}" for name in PRE_TRAINING} == set(unpredicted.metrics)
    other = bias([row._replace(said="other") for row in rows(TABLE)])
    assert ["no predicted label is one of the true labels"] == [one.reason for one in other.complaints]
    for odd in (7, {"post_training_bias_metrics": 7}, {"pre_training_bias_metrics": {"facets": {"a": [7]}}}):
        with pytest.raises(ValidationError):
            bias(rows(TABLE), constraints=odd)


def test_a_run_finds_facets_in_captured_requests() -> None:
    """Row by row, in CSV by the header and in JSON by name; requests that do not say are told."""
    config = Config("t", ("yes",), (Facet("sex", ("f",)),), header=("sex", "age"))
    calls = [
        record(side("f,30\nm,40\n"), side("0.9\n0.2\n"), id="a"),
        record(
            json_side({"instances": [{"sex": "m", "age": 3}]}), json_side({"predictions": [{"score": 0.8}]}), id="b"
        ),
        record(None, side("0.9\n"), id="c"),
    ]
    labels = {"a": "yes\nno", "b": "yes", "c": "yes"}
    merged: list[str] = []
    found = bias_run(
        calls, labels, Attributes(), config, None, Complaints(), lambda one: merged.append(one.event_id)
    )  # fmt: skip
    assert (3, ["a", "b", "c"]) == (found.item_count, merged)
    assert {"bias_metric_CI": 1 / 3, "bias_metric_DPL": -0.5, "bias_metric_AD": 0.0}.items() <= {
        name: pytest.approx(value) for name, value in found.metrics.items()
    }.items()
    assert [("a call without its request", 1, "c")] == found.complaints


_CELLS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30)
_SYMMETRIC = ("CI", "DPL", "DPPL", "DCA", "DCR", "SD", "RD", "DAR", "DRR", "AD", "TE")
_SHARES = ("CI", "DPL", "DPPL", "SD", "RD", "DAR", "DRR", "AD", "KS", "TVD", "CDDL", "CDDPL")


@settings(max_examples=100)
@given(_CELLS)
def test_metrics_have_their_ranges_and_symmetries(cells: list[tuple[bool, bool, bool]]) -> None:
    """Differences turn with the facets; shares lie within [-1, 1]; distances are not negative."""
    columns = np.array(cells)
    facet, label, said = columns.T
    table, turned = (table_of(one, label, said, np.zeros(len(label), int)) for one in (facet, ~facet))
    for name, metric in {**PRE_TRAINING, **POST_TRAINING}.items():
        try:
            value = metric.value(table)
        except Undefined:
            continue
        if name in _SYMMETRIC:
            assert value == pytest.approx(-metric.value(turned))
        if name in _SHARES:
            assert -1 - 1e-9 <= value <= 1 + 1e-9
        if name in ("KL", "JS", "LP", "TVD", "KS", "GE", "DI"):
            assert value >= -1e-12
