"""Bias drift: how differently a model treats groups, compared with its baseline (``behaviour/06``; metrics:
``bias_metrics.py``; which columns and values: ``bias_config.py``).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.errors import ValidationError
from serving.monitor.bias_config import Config, Facet
from serving.monitor.bias_metrics import (
    FLIP_TEST,
    POST_TRAINING,
    PRE_TRAINING,
    Metric,
    Undefined,
    flip_test,
    interval,
    table_of,
)
from serving.monitor.bodies import label_text, number
from serving.monitor.features import Features, features
from serving.monitor.labels import Labels, merge
from serving.monitor.predictions import Attributes, Prediction, decided, labelled
from serving.monitor.quality import aligned
from serving.monitor.results import Document, Result
from serving.monitor.values import Complaints, Record

#: What an infinite metric is sent as (Developer Guide, "CloudWatch Metrics for Bias Drift Analysis").
INFINITE = 2.348543e108
#: Values of a facet that are each looked at as a group, where the configuration names none.
MOST_VALUES = 100
#: Rows whose features are kept for the flip test, the first ones.
MOST_NUMBERS = 50_000
_CHECK = "bias_drift_check"
_STAGES = ("pre_training_bias_metrics", "post_training_bias_metrics")


class Row(NamedTuple):
    """What is known of one row: features, true label, predicted one. ``said`` None: there is no prediction."""

    features: Features
    label: str
    said: str | None


# --- a run ----------------------------------------------------------------------------------------------------------


def bias_run(
    records: Iterable[Record],
    labels: Labels,
    attributes: Attributes,
    config: Config,
    constraints: Document | None,
    complaints: Complaints,
    merged: Callable[[Record], None] = lambda record: None,
    seed: int = 0,
) -> Result:
    """One execution: captures of a window, their labels, the baseline's analysis. ``merged``: what to do with each
    merged record. Raises ``ValidationError`` for constraints that are none."""

    def kept() -> Iterator[Record]:
        for record in merge(records, labels, complaints):
            merged(record)
            yield record

    return bias_of(captured(kept(), attributes, config, complaints), config, constraints, complaints, seed)


def bias_of(
    rows: Iterable[Row], config: Config, constraints: Document | None, complaints: Complaints, seed: int = 0
) -> Result:
    """The bias in rows, of captures or of a baseline's data set. Both documents are the analysis; as ``constraints`` it
    is what later runs are compared with."""
    if constraints is not None and not isinstance(constraints, dict):
        raise ValidationError("The constraints of a bias monitor are no JSON object.")
    columns = _columns(rows, config)
    if not columns.truth:
        complaints.add("there is no labelled prediction at all", "")
    groups = _groups(columns, config, complaints) if columns.truth else []
    analysis, intervals = _analysis(groups, config, seed)
    found = [*_drifted(analysis, constraints or {}, config), *_out_of_range(intervals, config)]
    violations = {"version": "1.0", "violations": found}
    rows_there = len(columns.truth)
    suggestion = analysis if rows_there else None
    return Result(analysis, suggestion, violations, _metrics(analysis), complaints.all(), rows_there)


def captured(
    records: Iterable[Record], attributes: Attributes, config: Config, complaints: Complaints
) -> Iterator[Row]:
    """The rows of merged captures. A call whose request does not say the features of each of its predictions is
    complained about."""
    seen: tuple[Record | None, list[Features]] = None, []
    for one in labelled(records, attributes, complaints):
        if one.record is not seen[0]:
            seen = one.record, _features(one.record, attributes, config, complaints)
        if one.row < len(seen[1]):
            yield Row(seen[1][one.row], one.label, said_of(one.prediction, attributes.threshold, config))


def said_of(prediction: Prediction, threshold: float | None, config: Config) -> str | None:
    """The predicted label, in the form of the true ones: a number where these are told apart by a threshold."""
    value = number(config.values[0]) if len(config.values) == 1 else None
    if value not in (None, 0.0, 1.0) and prediction.score is not None and prediction.label is None:
        return repr(prediction.score)
    return decided(prediction, threshold)


def _features(record: Record, attributes: Attributes, config: Config, complaints: Complaints) -> list[Features]:
    try:
        if record.input is None:
            raise ValidationError("a call without its request")
        return features(record.input, attributes, config.header)
    except ValidationError as error:
        complaints.add(error.message, record.event_id)
        return []


# --- columns --------------------------------------------------------------------------------------------------------


class _Columns(NamedTuple):
    """Rows by column. ``said`` None: some have no prediction; ``numbers``: features of the first rows, by ``names``,
    NaN where one is no number."""

    truth: list[str]
    said: list[str] | None
    facets: dict[str, list[str | None]]
    group: list[str | None]
    names: list[str]
    numbers: Any


def _columns(rows: Iterable[Row], config: Config) -> _Columns:
    """Each text is kept once, however many rows have it."""
    shared: dict[str | None, str | None] = {}
    truth: list[Any] = []
    said: list[Any] = []
    group: list[str | None] = []
    facets: dict[str, list[str | None]] = {one.name: [] for one in config.facets}
    names: list[str] = []
    numbers = array("d")
    for row in rows:
        names = names or list(row.features)
        truth.append(shared.setdefault(row.label, row.label))
        said.append(shared.setdefault(row.said, row.said))
        for name, column in [*facets.items(), (config.group, group)]:
            text = label_text(row.features.get(name))
            column.append(shared.setdefault(text, text))
        if len(truth) <= MOST_NUMBERS:
            found = (number(row.features.get(name)) for name in names)
            numbers.extend(math.nan if one is None else one for one in found)
    matrix = np.frombuffer(numbers).reshape(-1, len(names)) if names else np.empty((0, 0))
    return _Columns(truth, None if None in said else said, facets, group, names, matrix)


# --- groups ---------------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """A facet's group. ``numbers``: the other features of the first rows; ``member``, ``said``: whether these are in
    the group and whether their prediction is positive; ``predicted``: there are predictions."""

    facet: str
    values: str
    table: Any
    numbers: Any
    member: Any
    said: Any
    predicted: bool


def _groups(columns: _Columns, config: Config, complaints: Complaints) -> list[_Group]:
    truth, by_threshold = columns.truth, _continuous(columns.truth, config.values)
    said = truth if columns.said is None else aligned(truth, columns.said)
    if not by_threshold and not set(truth) & set(said):
        complaints.add("no predicted label is one of the true labels", "", len(truth))
    label, guess = (_members(column, config.values, by_threshold) for column in (truth, said))
    group = _numbered(columns.group)
    found = []
    for facet in config.facets:
        column = columns.facets[facet.name]
        known = np.array([one is not None for one in column], bool)
        if not known.all():
            complaints.add("a row without a facet", facet.name, int((~known).sum()))
        there = [one for one in column if one is not None]
        others = [place for place, name in enumerate(columns.names) if name != facet.name]
        numbers = columns.numbers[known[: len(columns.numbers)]][:, others]
        for values in [facet.values] if facet.values else _each(there, facet, complaints):
            member = _members(there, values, bool(facet.values) and _continuous(there, values))
            table = table_of(member, label[known], guess[known], group[known])
            first = slice(len(numbers))
            found.append(
                _Group(
                    facet.name, ",".join(values), table, numbers, member[first], guess[known][first],
                    columns.said is not None,
                )
            )  # fmt: skip
    return found


def _each(column: list[str], facet: Facet, complaints: Complaints) -> list[tuple[str, ...]]:
    """A group for every value there is, of a column of few."""
    values = sorted(set(column))
    if len(values) > MOST_VALUES:
        complaints.add(f"a facet with more than {MOST_VALUES} values", facet.name)
        return []
    return [(one,) for one in values]


def _continuous(column: Sequence[str], values: Sequence[str]) -> bool:
    """Is the one value a threshold? It is where there are more than two different numbers, and nothing else."""
    if len(values) != 1 or number(values[0]) is None:
        return False
    different = set(column)
    return len(different) > 2 and all(number(one) is not None for one in different)


def _members(column: Sequence[str], values: Sequence[str], by_threshold: bool) -> Any:
    if not by_threshold:
        wanted = set(values)
        return np.array([one in wanted for one in column], bool)
    numbers = [number(one) for one in column]
    return np.array([math.nan if one is None else one for one in numbers], float) > float(values[0])


def _numbered(column: list[str | None]) -> Any:
    """Numbers of the groups, those without one among themselves."""
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in column], int)


# --- documents ------------------------------------------------------------------------------------------------------

#: (facet, its values, metric) -> the bootstrap interval.
_Intervals = dict[tuple[str, str, str], tuple[float, float]]


def _analysis(groups: list[_Group], config: Config, seed: int) -> tuple[Document, _Intervals]:
    """The document, and the intervals of the metrics that have a range."""
    intervals: _Intervals = {}
    document: Document = {"version": "1.0"}
    for stage, metrics in zip(_STAGES, (PRE_TRAINING, POST_TRAINING), strict=True):
        facets: dict[str, list[Document]] = {}
        after = stage == _STAGES[1]
        for group in groups:
            if after and not group.predicted:
                continue
            told = [_told(name, metric, group, config) for name, metric in metrics.items()]
            if after:
                told.append(_flipped(group, seed))
            facets.setdefault(group.facet, []).append({"value_or_threshold": group.values, "metrics": told})
            for name in config.ranges.keys() & metrics.keys():
                found = _interval(metrics[name], group, config, seed)
                if found is not None:
                    intervals[group.facet, group.values, name] = found
        document[stage] = {
            "label": config.label, "label_value_or_threshold": ",".join(config.values), "facets": facets,
        }  # fmt: skip
    return document, intervals


def _told(name: str, metric: Metric, group: _Group, config: Config) -> Document:
    """A metric of a group: its value, or why it has none."""
    try:
        if metric.grouped and not config.group:
            raise Undefined("Group variable is empty or not provided")
        value = metric.value(group.table)
    except Undefined as error:
        return {"name": name, "description": metric.description, "value": None, "error": str(error)}
    return {"name": name, "description": metric.description, "value": _text(value)}


def _flipped(group: _Group, seed: int) -> Document:
    try:
        value = flip_test(group.numbers, group.member, group.said, seed)
    except Undefined as error:
        return {"name": "FT", "description": FLIP_TEST, "value": None, "error": str(error)}
    return {"name": "FT", "description": FLIP_TEST, "value": _text(value)}


def _interval(metric: Metric, group: _Group, config: Config, seed: int) -> tuple[float, float] | None:
    try:
        if metric.grouped and not config.group:
            return None
        return interval(metric, group.table, config.confidence, config.samples, seed)
    except Undefined:
        return None


def _text(value: float) -> float | str:
    """A value as JSON has it; Clarify writes Infinity as text."""
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _value(value: Any) -> float | None:
    """And back."""
    if value in ("Infinity", "-Infinity"):
        return math.copysign(math.inf, -1 if value.startswith("-") else 1)
    return number(value)


def _entries(document: Document) -> Iterator[tuple[str, str, str, str, float]]:
    """(stage, facet, its values, metric, value) of an analysis, for every metric that has one. Raises
    ``ValidationError`` for a document that is none."""
    try:
        for stage in _STAGES:
            for facet, groups in (document.get(stage) or {}).get("facets", {}).items():
                for group in groups:
                    for metric in group["metrics"]:
                        value = _value(metric.get("value"))
                        if value is not None:
                            yield stage, facet, str(group["value_or_threshold"]), str(metric["name"]), value
    except (AttributeError, KeyError, TypeError):
        raise ValidationError("The constraints of a bias monitor do not have the form of an analysis.") from None


# --- violations and metrics -----------------------------------------------------------------------------------------


def _drifted(analysis: Document, constraints: Document, config: Config) -> list[Document]:
    """Metrics that are farther from 0 than the baseline's. A facet with one group is compared with the baseline's one
    group, as Clarify writes thresholds as intervals that end with the data's greatest value."""
    limits: dict[tuple[str, str, str], dict[str, float]] = {}
    for stage, facet, values, name, value in _entries(constraints):
        limits.setdefault((stage, facet, name), {})[values] = value
    found = []
    for stage, facet, values, name, value in _entries(analysis):
        known = limits.get((stage, facet, name), {})
        limit = known.get(values, next(iter(known.values())) if len(known) == 1 and _alone(facet, config) else None)
        if limit is not None and abs(value) > abs(limit) and name not in config.ranges:
            found.append(_violation(facet, values, name, value))
    return found


def _alone(facet: str, config: Config) -> bool:
    return any(one.values for one in config.facets if one.name == facet)


def _out_of_range(intervals: _Intervals, config: Config) -> list[Document]:
    found = []
    for (facet, values, name), (low, high) in intervals.items():
        least, most = config.ranges[name]
        if high < least or low > most:
            found.append(_violation(facet, values, name, (low + high) / 2))
    return found


def _violation(facet: str, values: str, name: str, value: float) -> Document:
    return {
        "facet": facet,
        "facet_value": values,
        "metric_name": name,
        "constraint_check_type": _CHECK,
        "description": f"Value {value} does not meet the constraint requirement",
    }


def _metrics(analysis: Document) -> dict[str, float]:
    """``bias_metric_{NAME}``; where there are several groups, with ``_{facet}_{values}`` behind it. Infinite values are
    sent as AWS sends them."""
    entries = list(_entries(analysis))
    several = len({(facet, values) for _, facet, values, _, _ in entries}) > 1
    return {
        f"bias_metric_{name}" + (f"_{facet}_{values}" if several else ""): (
            value if math.isfinite(value) else math.copysign(INFINITE, value)
        )
        for _, facet, values, name, value in entries
    }
