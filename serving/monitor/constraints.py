"""What data has to be like: ``constraints.json``, suggested from statistics or read from a file (``behaviour/06``).

Files may be edited by hand: keys nobody knows are left alone, what is missing has its default, and what cannot be
meant is refused with the place where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import orjson

from serving.errors import ValidationError
from serving.monitor.distance import CategoricalMethod, Method, Steps
from serving.monitor.kinds import Type
from serving.monitor.kll import Distribution, weighted

#: A column of text has domains when there are few values, each of them common (Deequ, ``CategoricalRangeRule``: at most
#: a tenth as many values as rows).
_MOST_DOMAINS, _ROWS_PER_VALUE = 100, 10
#: A value of the highest level stands for 2^63.
_MOST_LEVELS = 64
_METHODS: Mapping[str, Method] = {
    "simple": "Simple",
    "linf_simple": "Simple",
    "robust": "Robust",
    "linf_robust": "Robust",
}
_CATEGORICAL: Mapping[str, CategoricalMethod] = {"linfinity": "LInfinity", "chisquared": "ChiSquared"}

#: ``monitoring_config`` as a baseline has it.
MONITORING_CONFIG: Mapping[str, Any] = {
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
}


@dataclass(frozen=True, slots=True)
class Rules:
    """``monitoring_config``, of all features or of one. Thresholds of types and domains are the share that has to
    match; those of distances may not be exceeded."""

    evaluate: bool = True
    emit_metrics: bool = True
    type_match: float = 1.0
    domain_match: float = 1.0
    compare: bool = True
    distance: float = 0.1
    method: Method = "Robust"
    categorical_distance: float = 0.1
    categorical_method: CategoricalMethod = "LInfinity"


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a feature has to be like; None: nothing is said."""

    name: str
    type: Type
    completeness: float | None
    domains: frozenset[str] | None
    rules: Rules


@dataclass(frozen=True, slots=True)
class Known:
    """How a feature was distributed in the baseline, as far as its file tells."""

    type: Type
    numbers: Distribution | Steps | None = None
    categories: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What data is compared with. ``known``: by feature, empty without a ``statistics.json``."""

    constraints: tuple[Constraint, ...]
    rules: Rules
    known: Mapping[str, Known]

    @property
    def names(self) -> list[str]:
        """Of its features, in order."""
        return [one.name for one in self.constraints]


# --- suggested ------------------------------------------------------------------------------------------------------


def suggest(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """``constraints.json`` of a dataset that is as it should be."""
    features = [_suggested(feature) for feature in statistics["features"]]
    return {"version": 0.0, "features": features, "monitoring_config": _copied(MONITORING_CONFIG)}


def _copied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(one) if isinstance(one, Mapping) else one for key, one in config.items()}


def _suggested(feature: Mapping[str, Any]) -> dict[str, Any]:
    found: Mapping[str, Any] = feature.get("numerical_statistics") or feature["string_statistics"]
    present, missing = found["common"]["num_present"], found["common"]["num_missing"]
    suggested: dict[str, Any] = {
        "name": feature["name"],
        "inferred_type": feature["inferred_type"],
        "completeness": present / (present + missing) if present + missing else 1.0,
    }
    if "min" in found:
        suggested["num_constraints"] = {"is_non_negative": found["min"] >= 0}
    if "distribution" in found and "string_statistics" in feature:
        values = [bucket["value"] for bucket in found["distribution"]["categorical"]["buckets"]]
        if 0 < len(values) <= min(_MOST_DOMAINS, present // _ROWS_PER_VALUE):
            suggested["string_constraints"] = {"domains": values}
    return suggested | {"monitoringConfigOverrides": {}}


# --- read -----------------------------------------------------------------------------------------------------------


def read(constraints: bytes, statistics: bytes | None = None) -> Baseline:
    """A baseline of its files' contents. Raises ``ValidationError`` naming the place of what cannot be meant."""
    document = _document("constraints.json", constraints)
    rules = _rules(document.get("monitoring_config"), Rules())
    found = tuple(_constraint(feature, rules) for feature in document.get("features").items())
    _check_names("constraints.json", [one.name for one in found])
    return Baseline(found, rules, {} if statistics is None else _known(statistics))


def _check_names(file: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValidationError(f"{file}: features[{number}].name is the name of an earlier feature.")


@dataclass(frozen=True, slots=True)
class _Node:
    """A value of a document, and where it stands. What is asked of an absent one is absent, or the default."""

    place: str
    value: Any

    def refuse(self, wanted: str) -> ValidationError:
        file, _, place = self.place.partition(": ")
        return ValidationError(f"{file}: {place or 'the document'} has to be {wanted}.")

    def get(self, key: str) -> _Node:
        if self.value is None:
            return self
        if not isinstance(self.value, dict):
            raise self.refuse("an object")
        return _Node(f"{self.place}.{key}" if ": " in self.place else f"{self.place}: {key}", self.value.get(key))

    def items(self) -> list[_Node]:
        found = [] if self.value is None else self.value
        if not isinstance(found, list):
            raise self.refuse("a list")
        return [_Node(f"{self.place}[{number}]", value) for number, value in enumerate(found)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.refuse("a text")
        return self.value

    def number(self, default: float | None, highest: float = float("inf")) -> float | None:
        if self.value is None:
            return default
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not 0 <= self.value <= highest:
            raise self.refuse("a number from 0 to 1" if highest == 1 else "a number from 0 on")
        return float(self.value)

    def share(self, default: float) -> float:
        found = self.number(default, 1.0)
        return default if found is None else found

    def one_of(self, meanings: Mapping[str, Any], default: Any, wanted: str) -> Any:
        if self.value is None:
            return default
        key = self.value.lower() if isinstance(self.value, str) else ""
        if key not in meanings:
            raise self.refuse(wanted)
        return meanings[key]

    def enabled(self, default: bool) -> bool:
        found: bool = self.one_of({"enabled": True, "disabled": False}, default, "Enabled or Disabled")
        return found


def _document(file: str, content: bytes) -> _Node:
    try:
        value = orjson.loads(content)
    except ValueError:
        raise ValidationError(f"{file} is not JSON.") from None
    if not isinstance(value, dict):
        raise _Node(file, value).refuse("an object")
    return _Node(file, value)


def _rules(config: _Node, base: Rules) -> Rules:
    """``monitoring_config``, or a feature's overrides of it."""
    distribution = config.get("distribution_constraints")
    return replace(
        base,
        evaluate=config.get("evaluate_constraints").enabled(base.evaluate),
        emit_metrics=config.get("emit_metrics").enabled(base.emit_metrics),
        type_match=config.get("datatype_check_threshold").share(base.type_match),
        domain_match=config.get("domain_content_threshold").share(base.domain_match),
        compare=distribution.get("perform_comparison").enabled(base.compare),
        distance=distribution.get("comparison_threshold").share(base.distance),
        method=distribution.get("comparison_method").one_of(_METHODS, base.method, "Simple or Robust"),
        categorical_distance=distribution.get("categorical_comparison_threshold").share(base.categorical_distance),
        categorical_method=distribution.get("categorical_drift_method").one_of(
            _CATEGORICAL, base.categorical_method, "LInfinity or ChiSquared"
        ),
    )


def _type(node: _Node) -> Type:
    found: Type = node.one_of(
        {one.lower(): one for one in get_args(Type)}, "Unknown", "a type: " + ", ".join(get_args(Type))
    )
    return found


def _constraint(feature: _Node, rules: Rules) -> Constraint:
    domains = feature.get("string_constraints").get("domains")
    # The key is SageMaker's; whoever writes the others by hand writes this one likewise.
    overrides = feature.get("monitoringConfigOverrides")
    if overrides.value is None:
        overrides = feature.get("monitoring_config_overrides")
    return Constraint(
        feature.get("name").text(),
        _type(feature.get("inferred_type")),
        feature.get("completeness").number(None, 1.0),
        None if domains.value is None else frozenset(one.text() for one in domains.items()),
        _rules(overrides, rules),
    )


# --- statistics -----------------------------------------------------------------------------------------------------


def _known(content: bytes) -> dict[str, Known]:
    document = _document("statistics.json", content)
    features = document.get("features").items()
    names = [feature.get("name").text() for feature in features]
    _check_names("statistics.json", names)
    return {name: _known_feature(feature) for name, feature in zip(names, features, strict=True)}


def _known_feature(feature: _Node) -> Known:
    kll = feature.get("numerical_statistics").get("distribution").get("kll")
    categorical = feature.get("string_statistics").get("distribution").get("categorical").get("buckets")
    numbers = _sketched(kll.get("sketch").get("data")) or _stepped(kll.get("buckets"))
    categories = None if categorical.value is None else dict(map(_category, categorical.items()))
    return Known(_type(feature.get("inferred_type")), numbers, categories)


def _sketched(data: _Node) -> Distribution | None:
    levels = [[one.value for one in level.items()] for level in data.items()]
    if any(isinstance(one, bool) or not isinstance(one, int | float) for level in levels for one in level):
        raise data.refuse("lists of numbers")
    if len(levels) > _MOST_LEVELS:
        raise data.refuse(f"a list of at most {_MOST_LEVELS} lists")
    found = weighted(levels)
    return found if len(found.values) else None


def _stepped(buckets: _Node) -> Steps | None:
    found = [(_bound(one.get("upper_bound")), one.get("count").number(0.0) or 0.0) for one in buckets.items()]
    total = sum(count for _, count in found)
    if not total:
        return None
    edges = np.array([edge for edge, _ in found[:-1]])
    return Steps(edges, np.cumsum([count for _, count in found[:-1]]) / total, total)


def _bound(node: _Node) -> float:
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise node.refuse("a number")
    return float(node.value)


def _category(bucket: _Node) -> tuple[str, float]:
    return bucket.get("value").text(), bucket.get("count").number(0.0) or 0.0
