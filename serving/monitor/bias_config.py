"""Which groups and outcomes a bias monitor looks at.

The configuration is SageMaker's (Developer Guide, "Configure Parameters to Monitor Bias Drift"): ``label``,
``label_values_or_threshold``, ``facet`` (``name_or_index``, ``value_or_threshold``), ``group_variable``, ``headers``.
One value of a column of more than two different numbers is a threshold: greater ones are meant. Ours is
``bias_drift``, which asks for another rule than the baseline's::

    {"bias_drift": {"allowed_range": {"DPPL": [-0.1, 0.1]}, "confidence": 0.95, "samples": 1000}}

A metric named there violates when its bootstrap interval and the range have nothing in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.monitor.bias_metrics import POST_TRAINING, PRE_TRAINING
from serving.monitor.bodies import label_text, number


class Facet(NamedTuple):
    """A column, and the values (or the one threshold) of the sensitive group; none = each value is a group."""

    name: str
    values: tuple[str, ...]


class Config(NamedTuple):
    """A bias configuration. ``values``: the labels, or the one threshold, of a positive outcome; ``group``: the column
    of the group variable; ``ranges``, ``confidence``, ``samples``: the other rule."""

    label: str
    values: tuple[str, ...]
    facets: tuple[Facet, ...]
    group: str = ""
    header: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = {}
    confidence: float = 0.95
    samples: int = 1000


def parse_config(document: Any) -> Config:
    """The configuration of an analysis_config.json, parsed. Raises ``ValidationError``."""
    if not isinstance(document, dict):
        raise ValidationError("A bias configuration is a JSON object.")
    named = document.get("facet")
    facets = [named] if isinstance(named, dict) else named
    if not isinstance(facets, list) or not facets or not all(isinstance(one, dict) for one in facets):
        raise ValidationError("A bias configuration has a facet: a list of name_or_index and value_or_threshold.")
    header = document.get("headers") or []
    if not isinstance(header, list) or not all(isinstance(one, str) for one in header):
        raise ValidationError("headers is a list of column names.")
    values = _texts(document.get("label_values_or_threshold"), "label_values_or_threshold")
    if not values:
        raise ValidationError("A bias configuration has label_values_or_threshold: the labels of a positive outcome.")
    label = _column(document.get("label", ""), header, "label")
    inputs = tuple(name for name in header if name != label)
    found = tuple(
        Facet(
            _column(one.get("name_or_index"), inputs, "name_or_index"),
            _texts(one.get("value_or_threshold"), "value_or_threshold"),
        )
        for one in facets
    )
    group = document.get("group_variable", "")
    return Config(
        label, values, found, _column(group, inputs, "group_variable") if group != "" else "", inputs,
        **_rule(document.get("bias_drift", {})),
    )  # fmt: skip


def _column(value: Any, header: Sequence[str], what: str) -> str:
    """A column's name, of its name or index."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return header[value] if value < len(header) else str(value)
    if not isinstance(value, str) or (not value and what != "label"):
        raise ValidationError(f"{what} is a column's name or index.")
    return value


def _texts(value: Any, what: str) -> tuple[str, ...]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    texts = [label_text(one) for one in values]
    if None in texts:
        raise ValidationError(f"{what} is a list of values, or a threshold.")
    return tuple(one for one in texts if one is not None)


def _rule(document: Any) -> dict[str, Any]:
    ranges = document.get("allowed_range", {}) if isinstance(document, dict) else None
    if not isinstance(ranges, dict):
        raise ValidationError("bias_drift is an object with an allowed_range for metrics.")
    found = {}
    for name, one in ranges.items():
        ends = [number(end) for end in one] if isinstance(one, list) else []
        if name not in {**PRE_TRAINING, **POST_TRAINING} or len(ends) != 2 or ends[0] is None or ends[1] is None:
            raise ValidationError("allowed_range has a [low, high] for names of bias metrics (but FT).")
        found[name] = (ends[0], ends[1])
    confidence, samples = number(document.get("confidence", 0.95)), document.get("samples", 1000)
    if confidence is None or not 0 < confidence < 1 or not isinstance(samples, int) or not 10 <= samples <= 100_000:
        raise ValidationError("bias_drift's confidence lies between 0 and 1, and samples between 10 and 100000.")
    return {"ranges": found, "confidence": confidence, "samples": samples}
