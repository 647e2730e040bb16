"""``constraints.json`` and ``statistics.json``: suggested, edited by hand, and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.errors import ValidationError
from serving.monitor.constraints import Rules, read, suggest
from serving.monitor.distance import Steps
from serving.monitor.kll import Distribution
from serving.monitor.profile import Profile
from tests.monitor.test_profile import table


def suggested(*cells: str | None) -> dict[str, Any]:
    """The constraints of one column."""
    profile = Profile()
    profile.add(table(*cells))
    found: dict[str, Any] = suggest(profile.statistics())["features"][0]
    return found


def baseline(feature: dict[str, Any] | None = None, **rest: Any) -> bytes:
    """A file of one feature."""
    return json.dumps({"features": [{"name": "x", "inferred_type": "Integral", **(feature or {})}], **rest}).encode()


def test_constraints_of_numbers() -> None:
    """Type, completeness, sign."""
    expected = {"name": "x", "inferred_type": "Fractional", "completeness": 0.75, "monitoringConfigOverrides": {}}
    assert expected | {"num_constraints": {"is_non_negative": True}} == suggested("1.5", "0", None, "2")
    assert expected | {"num_constraints": {"is_non_negative": False}} == suggested("1.5", "-1", None, "2")


def test_text_has_domains_where_few_values_come_often() -> None:
    """A tenth as many values as rows, at most."""
    assert {"domains": ["yes", "no"]} == suggested(*["yes"] * 12, *["no"] * 8)["string_constraints"]
    assert "string_constraints" not in suggested(*["yes"] * 12, *["no"] * 7)
    assert "string_constraints" not in suggested("Ann", "Bob", "Cid")


def test_the_config_of_a_baseline() -> None:
    """As the reference has it."""
    assert {
        "evaluate_constraints": "Enabled",
        "emit_metrics": "Enabled",
        "datatype_check_threshold": 1.0,
        "domain_content_threshold": 1.0,
        "distribution_constraints": {
            "perform_comparison": "Enabled",
            "comparison_threshold": 0.1,
            "comparison_method": "Robust",
            "categorical_comparison_threshold": 0.1,
            "categorical_drift_method": "LInfinity",
        },
    } == suggest(Profile().statistics())["monitoring_config"]


def test_what_is_suggested_can_be_read() -> None:
    """And means the defaults."""
    profile = Profile()
    profile.add(table("yes", "no", *["yes"] * 20))
    statistics = profile.statistics()
    found = read(json.dumps(suggest(statistics)).encode(), json.dumps(statistics).encode())
    (one,) = found.constraints
    assert ("x", "String", 1.0, frozenset({"yes", "no"})) == (one.name, one.type, one.completeness, one.domains)
    assert Rules() == one.rules == found.rules
    assert {"yes": 21.0, "no": 1.0} == found.known["x"].categories


@pytest.mark.parametrize("key", ["monitoringConfigOverrides", "monitoring_config_overrides"])
def test_a_feature_s_overrides(key: str) -> None:
    """Replace what the file says for all, which replaces the defaults; both spellings of methods."""
    config = {
        "datatype_check_threshold": 0.5,
        "distribution_constraints": {"comparison_method": "linf_simple", "comparison_threshold": 0.3},
    }
    own = {"emit_metrics": "Disabled", "distribution_constraints": {"categorical_drift_method": "ChiSquared"}}
    found = read(baseline({key: own}, monitoring_config=config))
    assert Rules(type_match=0.5, method="Simple", distance=0.3) == found.rules
    expected = Rules(type_match=0.5, method="Simple", distance=0.3, emit_metrics=False, categorical_method="ChiSquared")
    assert expected == found.constraints[0].rules


def test_keys_that_nobody_knows_are_left_alone() -> None:
    """And absent ones have their defaults."""
    found = read(b'{"version": 9, "mine": 1, "features": [{"name": "x", "note": []}]}')
    assert ("Unknown", None, None) == (
        found.constraints[0].type,
        found.constraints[0].completeness,
        found.constraints[0].domains,
    )
    assert [] == read(b"{}").names


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"{", "constraints.json is not JSON."),
        (b"[]", "constraints.json: the document has to be an object."),
        (b'{"features": {}}', "constraints.json: features has to be a list."),
        (b'{"features": [5]}', "constraints.json: features[0] has to be an object."),
        (b'{"features": [{}]}', "constraints.json: features[0].name has to be a text."),
        (baseline({"completeness": 2}), "constraints.json: features[0].completeness has to be a number from 0 to 1."),
        (baseline({"completeness": "1"}), "constraints.json: features[0].completeness has to be a number from 0 to 1."),
        (baseline({"string_constraints": {"domains": "a"}}),
         "constraints.json: features[0].string_constraints.domains has to be a list."),
        (baseline({"string_constraints": {"domains": [1]}}),
         "constraints.json: features[0].string_constraints.domains[0] has to be a text."),
        (baseline({"inferred_type": "Float"}),
         "constraints.json: features[0].inferred_type has to be a type: Integral, Fractional, String, Unknown."),
        (baseline(monitoring_config={"evaluate_constraints": "yes"}),
         "constraints.json: monitoring_config.evaluate_constraints has to be Enabled or Disabled."),
        (baseline(monitoring_config={"distribution_constraints": {"comparison_method": 5}}),
         "constraints.json: monitoring_config.distribution_constraints.comparison_method has to be Simple or Robust."),
        (b'{"features": [{"name": "x"}, {"name": "x"}]}',
         "constraints.json: features[1].name is the name of an earlier feature."),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_place(content: bytes, place: str) -> None:
    """In a sentence."""
    with pytest.raises(ValidationError) as refused:
        read(content)
    assert place == refused.value.message


def known(**statistics: Any) -> Any:
    """What is known of a feature with such statistics."""
    content = json.dumps({"features": [{"name": "x", "inferred_type": "Fractional", **statistics}]}).encode()
    return read(baseline(), content).known["x"].numbers


def test_a_distribution_is_its_sketch_or_else_its_buckets() -> None:
    """Or none, where neither is there."""
    buckets = [{"lower_bound": at, "upper_bound": at + 1, "count": at + 1} for at in range(3)]
    sketch = {"data": [[1.0, 0.5], [3]]}
    found = known(numerical_statistics={"distribution": {"kll": {"buckets": buckets, "sketch": sketch}}})
    assert isinstance(found, Distribution) and 4.0 == found.total and [0.5, 1.0, 3.0] == found.values.tolist()
    found = known(numerical_statistics={"distribution": {"kll": {"buckets": buckets}}})
    assert isinstance(found, Steps) and 6.0 == found.total
    assert ([1.0, 2.0], [pytest.approx(1 / 6), 0.5]) == (found.edges.tolist(), found.shares.tolist())
    assert known(numerical_statistics={"mean": 5}) is None


@pytest.mark.parametrize(
    "kll",
    [
        {"sketch": {"data": [["a"]]}},
        {"sketch": {"data": 5}},
        {"sketch": {"data": [[]] * 2000}},
        {"buckets": [{"upper_bound": None, "count": 1}]},
        {"buckets": [{"upper_bound": 1, "count": -1}]},
    ],
)
def test_a_distribution_that_is_none_is_refused(kll: dict[str, Any]) -> None:
    """With its place."""
    with pytest.raises(ValidationError, match=r"^statistics.json: features\[0\].numerical_statistics.distribution.kll"):
        known(numerical_statistics={"distribution": {"kll": kll}})
