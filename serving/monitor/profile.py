"""What a dataset is like, column by column: ``statistics.json`` (``behaviour/06``).

Columns are text and their types are told by text (``kinds.py``). A profile takes tables one after the other and keeps
kilobytes of each column; two profiles can be merged. What the reference leaves open: ``std_dev`` is the population's,
as the Deequ library has it; of more than ``MOST_CATEGORIES`` different values there are no categories, and
``distinct_count`` is an estimate to some per cent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.monitor.kinds import Kinds, told_apart
from serving.monitor.kll import Numbers, Sketch, buckets

MOST_CATEGORIES = 10_000
_LARGEST = float(np.finfo(np.float64).max)


# --- one column -----------------------------------------------------------------------------------------------------


class Moments:
    """Mean and spread of numbers, in chunks (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.spread = self.sum = 0.0
        self.lowest, self.highest = math.inf, -math.inf

    def add(self, values: Numbers) -> None:
        """More of them."""
        if len(values):
            with np.errstate(over="ignore", invalid="ignore"):
                mean = float(values.mean())
                spread = float(np.square(values - mean).sum())
                self._join(len(values), mean, spread, float(values.sum()))
            self.lowest, self.highest = min(self.lowest, float(values.min())), max(self.highest, float(values.max()))

    def merge(self, other: Moments) -> None:
        """Those of others."""
        if other.count:
            self._join(other.count, other.mean, other.spread, other.sum)
            self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)

    def _join(self, count: int, mean: float, spread: float, total: float) -> None:
        both, apart = self.count + count, mean - self.mean
        self.spread += spread + apart * apart * (self.count * count / both)
        self.mean += apart * (count / both)
        self.count, self.sum = both, self.sum + total

    def as_json(self) -> dict[str, float]:
        """Mean, sum, deviation of the population, and bounds; what is too large for a float is the largest."""
        deviation = math.sqrt(self.spread / self.count) if self.spread >= 0 else math.inf
        found = {"mean": self.mean, "sum": self.sum, "std_dev": deviation, "min": self.lowest, "max": self.highest}
        return {name: _finite(value) for name, value in found.items()}


def _finite(value: float) -> float:
    return max(-_LARGEST, min(_LARGEST, value)) if not math.isnan(value) else _LARGEST


class Categories:
    """How often each value of a column is there, while there are few; of more, how many there are: an estimate, and
    one of text alone. A column that is numbers, many different ones, at first and text later is thought to have fewer
    values than it has."""

    def __init__(self, most: int = MOST_CATEGORIES) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()
        self._smallest: NDArray[np.uint64] | None = None

    @property
    def counts(self) -> Counter[str] | None:
        """None when there are too many."""
        return self._counts if self._smallest is None else None

    def add(self, values: pa.Array, text: bool) -> None:
        """More values, none of them null. ``text``: they are not all numbers, so somebody will ask how many."""
        if self._smallest is not None:
            if text:
                self._hash(values.unique().to_pylist())
            return
        found = values.value_counts()
        names = found.field("values")
        if len(found) <= self._most:
            self._take(dict(zip(names.to_pylist(), found.field("counts").to_pylist(), strict=True)), text)
        else:
            self._overflow(names.to_pylist() if text else [], text)

    def merge(self, other: Categories, text: bool) -> None:
        """Those of others."""
        if other._smallest is not None:
            self._overflow([], text)
            self._keep(other._smallest)
        elif self._smallest is None:
            self._take(other._counts, text)
        elif text:
            self._hash(list(other._counts))

    def _take(self, counts: Mapping[str, int], text: bool) -> None:
        self._counts.update(counts)
        if len(self._counts) > self._most:
            self._overflow([], text)

    def _overflow(self, more: list[str], text: bool) -> None:
        if self._smallest is None:
            self._smallest = np.empty(0, np.uint64)
            if text:
                self._hash([*self._counts, *more])
            self._counts.clear()

    def _hash(self, texts: list[str]) -> None:
        """The smallest hashes of all values are kept (Bar-Yossef and others 2002, "Counting Distinct Elements in a Data
        Stream"). A CRC alone is too regular and is mixed (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom
        Number Generators")."""
        crc = np.fromiter((crc32(text.encode()) for text in texts), np.uint64, len(texts))
        mixed = (crc + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        self._keep(mixed ^ (mixed >> np.uint64(31)))

    def _keep(self, hashes: NDArray[np.uint64]) -> None:
        assert self._smallest is not None
        self._smallest = np.unique(np.concatenate((self._smallest, hashes)))[: self._most]

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        if self._smallest is None:
            return len(self._counts)
        if len(self._smallest) < self._most:
            return len(self._smallest)
        return round((self._most - 1) / (float(self._smallest[-1]) / 2.0**64))

    def as_json(self) -> dict[str, Any]:
        """``string_statistics`` without ``common``: the most frequent first."""
        if self.counts is None:
            return {"distinct_count": self.distinct}
        ranked = sorted(self.counts.items(), key=lambda one: (-one[1], one[0]))
        found = [{"value": value, "count": count} for value, count in ranked]
        return {"distinct_count": self.distinct, "distribution": {"categorical": {"buckets": found}}}


class Column:
    """One column: types, numbers, categories. A column that turns out to be text late keeps all three. ``domain``:
    values that are to be expected, as one who checks them wants to know how many others there are: ``known`` are among
    them."""

    def __init__(self, domain: Collection[str] | None = None) -> None:
        self._domain = None if domain is None else pa.array(sorted(domain), pa.string())
        self.known = 0
        self.kinds = Kinds()
        self.moments, self.sketch, self.categories = Moments(), Sketch(), Categories()

    def add(self, values: pa.Array) -> None:
        """More values, texts and nulls."""
        values = values.drop_null() if values.null_count else values
        if not len(values):
            return
        found = told_apart(values)
        self.kinds = self.kinds.plus(found.kinds)
        self.moments.add(found.numbers)
        self.sketch.add(found.numbers)
        self.categories.add(found.present, bool(self.kinds.text))
        if self._domain is not None:
            self.known += pc.sum(pc.is_in(found.present, value_set=self._domain)).as_py() or 0

    def merge(self, other: Column) -> None:
        """Those of another chunk."""
        self.known += other.known
        self.kinds = self.kinds.plus(other.kinds)
        self.moments.merge(other.moments)
        self.sketch.merge(other.sketch)
        self.categories.merge(other.categories, bool(self.kinds.text))

    def as_json(self, name: str, rows: int) -> dict[str, Any]:
        """A feature of ``statistics.json``. ``rows``: of the dataset."""
        kind = self.kinds.type
        common = {"common": {"num_present": self.kinds.present, "num_missing": rows - self.kinds.present}}
        feature: dict[str, Any] = {"name": name, "inferred_type": kind}
        if kind in ("String", "Unknown"):
            return {**feature, "string_statistics": {**common, **self.categories.as_json()}}
        if not self.moments.count:  # every number is too large for a float
            return {**feature, "numerical_statistics": common}
        found = buckets(self.sketch.distribution(), self.moments.lowest, self.moments.highest)
        kll = {"kll": {"buckets": found, "sketch": self.sketch.as_json()}}
        return {**feature, "numerical_statistics": {**common, **self.moments.as_json(), "distribution": kll}}


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    found = values.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


# --- a dataset ------------------------------------------------------------------------------------------------------


class Profile:
    """All columns of a dataset. A column that only some tables have is missing in the others' rows. ``domains``: the
    values to be expected of columns, where it is known."""

    def __init__(self, domains: Mapping[str, Collection[str]] | None = None) -> None:
        self._domains = domains or {}
        self.rows = 0
        self.columns: dict[str, Column] = {}

    def add(self, table: pa.Table) -> None:
        """A table of texts more."""
        self.rows += table.num_rows
        for name, values in zip(table.column_names, table.columns, strict=True):
            if name not in self.columns:
                self.columns[name] = Column(self._domains.get(name))
            self.columns[name].add(_one_array(values))

    def merge(self, other: Profile) -> None:
        """Another part of the dataset."""
        self.rows += other.rows
        for name, column in other.columns.items():
            if name not in self.columns:
                self.columns[name] = Column(self._domains.get(name))
            self.columns[name].merge(column)

    def statistics(self) -> dict[str, Any]:
        """``statistics.json``."""
        features = [column.as_json(name, self.rows) for name, column in self.columns.items()]
        return {"version": 0.0, "dataset": {"item_count": self.rows}, "features": features}
