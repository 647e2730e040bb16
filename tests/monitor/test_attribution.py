"""Feature-attribution drift: global scores, NDCG, violations, and attributions that say nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ValidationError
from serving.monitor.attribution import Config, attribution_run, ndcg, parse_config
from serving.monitor.results import Result
from serving.monitor.values import Complaints

HEADER = ["SAT", "GPA", "rank"]
#: Of the reference (``behaviour/06``).
BASELINE, LIVE = {"SAT": 0.70, "GPA": 0.50, "rank": 0.05}, {"SAT": 0.10, "GPA": 0.20, "rank": 0.70}

PLAIN = Config()


def run(values: Any, constraints: Any = None, config: Config = PLAIN) -> Result:
    """A run on [records, features] of one output, or three dimensions."""
    found = attribution_run(HEADER, values, [0.25], config, constraints, Complaints())
    json.dumps(found[:3], allow_nan=False)
    return found


def test_the_references_example_is_0_688() -> None:
    """0.7155 / 1.0405."""
    assert 0.688 == round(ndcg(BASELINE, LIVE) or 0.0, 3)


def test_drift_is_told_in_the_references_words() -> None:
    """And emitted by feature."""
    baseline = run([list(BASELINE.values())])
    found = run([list(LIVE.values())], baseline.constraints)
    (violation,) = found.violations["violations"]
    assert ("1.0", "label0", "shap") == (found.violations["version"], violation["label"], violation["metric_name"])
    assert "feature_attribution_drift_check" == violation["constraint_check_type"]
    assert violation["description"].startswith("Feature attribution drift 0.6876")
    assert violation["description"].endswith(" exceeds threshold 0.9")
    assert {"feature_SAT": 0.1, "feature_GPA": 0.2, "feature_rank": 0.7, "ExpectedValue": 0.25} == found.metrics
    assert [] == run([[0.6, 0.55, 0.1]], baseline.constraints).violations["violations"]


def test_global_scores_are_of_one_of_three_methods() -> None:
    """Of attributions 1 and -3: mean size, median, mean square."""
    values = [[1.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]
    scores = {
        name: run(values, config=Config(name)).metrics["feature_SAT"] for name in ("mean_abs", "median", "mean_sq")
    }
    assert {"mean_abs": 2.0, "median": -1.0, "mean_sq": 5.0} == scores


def test_each_output_is_compared_with_its_own() -> None:
    """By its name, where it has one; one the baseline lacks is complained about."""
    values = [[[0.7, 0.1], [0.5, 0.2], [0.05, 0.7]]]
    named = Config(labels=("no", "yes"))
    first = attribution_run(HEADER, values, [0.25, 0.5], named, None, Complaints())
    assert {"no", "yes"} == set(first.statistics["explanations"]["kernel_shap"])
    assert (0.7, 0.5) == (first.metrics["feature_SAT_no"], first.metrics["ExpectedValue_yes"])
    turned = [[list(reversed(one)) for one in record] for record in values]
    again = attribution_run(HEADER, turned, [0.25, 0.5], named, first.constraints, Complaints())
    assert ["no", "yes"] == [one["label"] for one in again.violations["violations"]]
    other = attribution_run(HEADER, values, [0.25, 0.5], Config(), first.constraints, Complaints())
    assert [("an output that the baseline does not have", 2, "label0")] == other.complaints


def test_attributions_that_say_nothing_are_counted() -> None:
    """Not finite, none at all, all zero, other features: told, never raised."""
    baseline = run([[0.7, 0.5, 0.05]]).constraints
    odd = run([[float("nan"), 1, 1], [3.0, 2.0, 1.0]], baseline)
    assert (3.0, ["an attribution is no finite number"]) == (
        odd.metrics["feature_SAT"],
        [o.reason for o in odd.complaints],
    )
    none = run(np.empty((0, 3, 1)), baseline)
    assert (None, {}, ["there is no explained record at all"]) == (
        none.constraints, none.metrics, [one.reason for one in none.complaints]
    )  # fmt: skip
    zero = run([[0.0, 0.0, 0.0]])
    assert ["the baseline's attributions are all 0"] == [
        o.reason for o in run([[1, 1, 1]], zero.constraints).complaints
    ]
    other = attribution_run(["a", "b"], [[1, 2]], [0.0], Config(), baseline, Complaints())
    assert ["the baseline has other features"] == [one.reason for one in other.complaints]


def test_what_is_no_configuration_is_an_error() -> None:
    """Of analysis_config.json, of the baseline, of the caller's arrays."""
    assert Config("median", ("a",)) == parse_config(
        {"methods": {"shap": {"agg_method": "median"}}, "label_headers": ["a"]}
    )
    assert Config() == parse_config({})
    for odd in (7, {"methods": {"shap": {"agg_method": "odd"}}}, {"methods": {"shap": 7}}, {"label_headers": 7}):
        with pytest.raises(ValidationError):
            parse_config(odd)
    for odd in ({"explanations": 7}, {"explanations": {"kernel_shap": {"label0": {}}}}):
        with pytest.raises(ValidationError):
            run([[1, 1, 1]], odd)
    with pytest.raises(ValidationError):
        run([[1, 1]])


_SCORES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.001, 1e6), min_size=1)


@settings(max_examples=50)
@given(_SCORES, _SCORES)
def test_ndcg_is_a_share_and_1_of_the_same_order(baseline: dict[str, float], live: dict[str, float]) -> None:
    """Whatever features either side has."""
    assert 0.0 < (ndcg(baseline, live) or 0.0) <= 1.0 + 1e-9
    assert 1.0 == pytest.approx(ndcg(baseline, {name: value * 2 for name, value in baseline.items()}))
