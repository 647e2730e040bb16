"""Data quality: a baseline of a dataset, and captured calls held against it (``behaviour/06``). Pure of files.

A run reads and parses in one thread and counts in another: the first is Python's, the second Arrow's and numpy's.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, TypeVar

import pyarrow as pa

from serving.monitor.checks import Drift, drifts, violations
from serving.monitor.constraints import Baseline, suggest
from serving.monitor.profile import Column, Profile
from serving.monitor.tables import Sides, tables
from serving.monitor.values import Complaint, Complaints, Record

_T = TypeVar("_T")
#: Calls by which it is told which directions a baseline is about.
_SAMPLE = 200
#: After so long a thread that waits for the interpreter gets it.
_SWITCH_SECONDS = 0.0005


class Metric(NamedTuple):
    """A metric that a run emits (``behaviour/06``, "Metrics emitted"). ``name``: ``feature_data_{feature}``,
    ``feature_non_null_{feature}`` or ``feature_baseline_drift_{feature}``."""

    name: str
    feature: str
    maximum: float
    minimum: float
    total: float
    samples: float

    @property
    def average(self) -> float:
        """Of the samples."""
        return self.total / self.samples


class Result(NamedTuple):
    """What a run found: ``statistics.json``, ``constraints.json`` as this data would suggest them,
    ``constraint_violations.json``, metrics, each feature's drift, what records were left out for, and how many rows
    counted."""

    statistics: dict[str, Any]
    constraints: dict[str, Any]
    violations: dict[str, Any]
    metrics: list[Metric]
    drifts: dict[str, Drift]
    complaints: list[Complaint]
    item_count: int


def baseline(parts: Iterable[pa.Table]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``statistics.json`` and ``constraints.json`` of a dataset's tables."""
    statistics = _profiled(parts, Profile()).statistics()
    return statistics, suggest(statistics)


def of_records(
    records: Iterable[Record],
    baseline: Baseline | None,
    complaints: Complaints,
    side: Literal["auto", "input", "output", "both"] = "auto",
    header: Sequence[str] = (),
) -> Result:
    """Captured calls against a baseline. ``side``: whose columns it is about; with ``auto`` those that fit its own
    best, so a baseline of features alone is held against the inputs. Columns without a name are named by ``header``,
    or are the baseline's, in order."""
    names = list(header) or (baseline.names if baseline is not None else [])
    records = iter(records)
    sample = list(islice(records, _SAMPLE))
    chosen = _fitting(sample, names) if side == "auto" else side
    return of_tables(tables(chain(sample, records), complaints, names, chosen), baseline, complaints)


def of_tables(parts: Iterable[pa.Table], baseline: Baseline | None, complaints: Complaints) -> Result:
    """A dataset against a baseline; without one there are statistics alone."""
    constraints = baseline.constraints if baseline is not None else ()
    domains = {one.name: one.domains for one in constraints if one.domains is not None}
    profile = _profiled(parts, Profile(domains))
    statistics = profile.statistics()
    found = drifts(profile, baseline) if baseline is not None else {}
    told = violations(profile, baseline, found) if baseline is not None else []
    return Result(
        statistics,
        suggest(statistics),
        {"violations": [one._asdict() for one in told]},
        list(_metrics(profile, baseline, found)),
        found,
        complaints.all(),
        profile.rows,
    )


def _fitting(sample: list[Record], names: Sequence[str]) -> Sides:
    """The directions whose columns are most like these names; both, if there is nothing to choose by."""

    def strangers(side: Sides) -> int:
        here = {name for table in tables(sample, Complaints(), names, side) for name in table.column_names}
        return len(here ^ set(names)) if here else len(names) + 1

    sides: tuple[Sides, ...] = ("both", "input", "output")
    return min(sides, key=strangers) if names else "both"


def _profiled(parts: Iterable[pa.Table], profile: Profile) -> Profile:
    with _at_full_speed():
        for table in _ahead(parts):
            profile.add(table)
    return profile


@contextmanager
def _at_full_speed() -> Iterator[None]:
    """The interpreter, for two busy threads and many small values. Records hold no rings, but looking for some among so
    many takes half of a run's time; and every call of numpy would wait 5 ms for the reading thread to make room."""
    collects, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


def _ahead(items: Iterable[_T]) -> Iterator[_T]:
    """The same items; the next is made on another thread while one is in use."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, iterator, None)
            yield item


# --- metrics --------------------------------------------------------------------------------------------------------


def _metrics(profile: Profile, baseline: Baseline | None, found: dict[str, Drift]) -> Iterator[Metric]:
    """Of every feature, unless its rules say otherwise."""
    rules = {one.name: one.rules for one in baseline.constraints} if baseline is not None else {}
    for name, column in profile.columns.items():
        rule = rules.get(name, baseline.rules if baseline is not None else None)
        if profile.rows and (rule is None or rule.emit_metrics):
            yield from _of_feature(name, column, profile.rows, found.get(name))


def _of_feature(name: str, column: Column, rows: int, drift: Drift | None) -> Iterator[Metric]:
    if column.moments.count and not column.kinds.text:
        moments = column.moments.as_json()
        bounds = moments["max"], moments["min"], moments["sum"]
        yield Metric(f"feature_data_{name}", name, *bounds, column.moments.count)
    yield _single(f"feature_non_null_{name}", name, column.kinds.present / rows)
    if drift is not None:
        yield _single(f"feature_baseline_drift_{name}", name, drift.distance)


def _single(name: str, feature: str, value: float) -> Metric:
    return Metric(name, feature, value, value, value, 1)
