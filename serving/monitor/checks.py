"""Data held against its baseline: every check type of ``behaviour/06``, and what each says when it is not met.

The texts are those that SageMaker's own are known to have; readers of ``constraint_violations.json`` look for parts of
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from serving.monitor import distance
from serving.monitor.constraints import Baseline, Constraint, Known
from serving.monitor.kinds import Kinds
from serving.monitor.profile import Column, Profile

CheckType = Literal[
    "data_type_check",
    "completeness_check",
    "baseline_drift_check",
    "missing_column_check",
    "extra_column_check",
    "categorical_values_check",
]

#: So many columns are named in a description.
_MOST_NAMED = 20


class Violation(NamedTuple):
    """An entry of ``constraint_violations.json``."""

    feature_name: str
    constraint_check_type: CheckType
    description: str


class Drift(NamedTuple):
    """How far a feature is from its baseline, and how far it may be."""

    distance: float
    threshold: float


def drifts(profile: Profile, baseline: Baseline) -> dict[str, Drift]:
    """Of every feature that has a distribution in both, and whose rules ask for it."""
    found = {}
    for one in baseline.constraints:
        known, column = baseline.known.get(one.name), profile.columns.get(one.name)
        if known is not None and column is not None and one.rules.compare:
            drift = _drift(one, known, column)
            if drift is not None:
                found[one.name] = drift
    return found


def _drift(one: Constraint, known: Known, column: Column) -> Drift | None:
    rules = one.rules
    if known.numbers is not None:
        far = distance.numeric(known.numbers, column.sketch.distribution(), rules.method)
        return None if far is None else Drift(far, rules.distance)
    counts = column.categories.counts
    if known.categories is None or counts is None:
        return None
    if rules.categorical_method == "ChiSquared":
        likely = distance.chi_squared(known.categories, counts)
        # The rarer such data would be without a drift, the larger the distance: it exceeds what p falls below.
        return None if likely is None else Drift(1.0 - likely, 1.0 - rules.categorical_distance)
    far = distance.categorical(known.categories, counts, rules.method)
    return None if far is None else Drift(far, rules.categorical_distance)


def violations(profile: Profile, baseline: Baseline, drifts: dict[str, Drift]) -> list[Violation]:
    """What is not as the baseline says: columns first, then by feature. Without rows nothing is said."""
    if not profile.rows:
        return []
    found = list(_columns(profile, baseline)) if baseline.rules.evaluate else []
    for one in baseline.constraints:
        column = profile.columns.get(one.name)
        if column is not None and one.rules.evaluate:
            found += _feature(one, column, profile.rows, drifts.get(one.name))
    return found


def _columns(profile: Profile, baseline: Baseline) -> Iterator[Violation]:
    here, there = list(profile.columns), baseline.names
    counts = (
        f"Number of columns in current dataset: {len(here)}, Number of columns in baseline constraints: {len(there)}"
    )
    kinds: tuple[tuple[CheckType, str, list[str]], ...] = (
        ("missing_column_check", "missing", [name for name in there if name not in profile.columns]),
        ("extra_column_check", "extra", [name for name in here if name not in set(there)]),
    )
    for check, kind, names in kinds:
        if names:
            told = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
            text = f"There are {kind} columns in current dataset. {counts}. {kind.capitalize()}: {told}"
            yield Violation(f"{kind.capitalize()} columns", check, text)


def _feature(one: Constraint, column: Column, rows: int, drift: Drift | None) -> Iterator[Violation]:
    present = column.kinds.present
    matching = _matching(one, column.kinds)
    if present and matching < one.rules.type_match:
        text = (
            f"Data type match requirement is not met. Expected data type: {one.type}, "
            f"Expected match: {one.rules.type_match * 100}%. "
            f"Observed: Only {matching * 100}% of data is {one.type}."
        )
        yield Violation(one.name, "data_type_check", text)
    if one.completeness is not None and present / rows < one.completeness:
        text = f"Value: {present / rows} does not meet the constraint requirement! "
        yield Violation(one.name, "completeness_check", text)
    if one.domains is not None and present and column.known / present < one.rules.domain_match:
        text = (
            f"Domain match requirement is not met. Expected match: {one.rules.domain_match * 100}%. "
            f"Observed: Only {column.known / present * 100}% of values are in the domains."
        )
        yield Violation(one.name, "categorical_values_check", text)
    if drift is not None and drift.distance > drift.threshold:
        text = f"Baseline drift distance: {drift.distance} exceeds threshold: {drift.threshold}"
        yield Violation(one.name, "baseline_drift_check", text)


def _matching(one: Constraint, kinds: Kinds) -> float:
    """The share of values of the type that is expected. A whole number is fractional too, and anything is text."""
    if not kinds.present or one.type in ("String", "Unknown"):
        return 1.0
    matching = kinds.integral + (kinds.fractional if one.type == "Fractional" else 0)
    return matching / kinds.present
