"""Statistics of columns, whole and in chunks."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.monitor.kinds import FRACTIONAL, INTEGRAL
from serving.monitor.kll import Sketch, buckets, weighted
from serving.monitor.profile import Categories, Profile

#: Whatever may be in a cell, numbers in every spelling above all.
CELLS = st.none() | st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.from_regex(INTEGRAL, fullmatch=True),
    st.from_regex(FRACTIONAL, fullmatch=True),
    st.text(alphabet="+-0123456789.eE naif", min_size=1),
    st.sampled_from([".5", "-.5", "5.", "+.5e3", "5.e3", "1e999", "9" * 400, "NaN", "-nan", "inf", "0x10", "1_0", "é"]),
)


def table(*cells: str | None, name: str = "x") -> pa.Table:
    """One column."""
    return pa.table({name: pa.array(cells, pa.string())})


def feature(*cells: str | None) -> dict[str, Any]:
    """The statistics of one column."""
    profile = Profile()
    profile.add(table(*cells))
    found: dict[str, Any] = profile.statistics()["features"][0]
    return found


def test_numbers() -> None:
    """As the reference writes them down; the deviation is the population's."""
    assert {
        "name": "x",
        "inferred_type": "Fractional",
        "numerical_statistics": {
            "common": {"num_present": 4, "num_missing": 1},
            "mean": 2.5,
            "sum": 10.0,
            "std_dev": pytest.approx(math.sqrt(1.25)),
            "min": 1.0,
            "max": 4.0,
            "distribution": {
                "kll": {
                    "buckets": [
                        {
                            "lower_bound": pytest.approx(1 + 0.3 * number),
                            "upper_bound": pytest.approx(1.3 + 0.3 * number),
                            "count": float(number in (0, 3, 6, 9)),
                        }
                        for number in range(10)
                    ],
                    "sketch": {"parameters": {"c": 0.64, "k": 2048.0}, "data": [[1.0, 2.0, 3.0, 4.0]]},
                }
            },
        },
    } == feature("4", "1", None, "3.0", "2")


def test_the_reference_s_first_bucket() -> None:
    """Day Mins, 0 to 350.8: the first bucket ends at 35.08."""
    first = buckets(weighted([[0.0, 350.8]]), 0.0, 350.8)[0]
    assert {"lower_bound": 0.0, "upper_bound": pytest.approx(35.08), "count": 1.0} == first


def test_text() -> None:
    """Categories, the most frequent first."""
    assert {
        "name": "x",
        "inferred_type": "String",
        "string_statistics": {
            "common": {"num_present": 4, "num_missing": 1},
            "distinct_count": 3,
            "distribution": {
                "categorical": {
                    "buckets": [{"value": "yes", "count": 2}, {"value": "1", "count": 1}, {"value": "no", "count": 1}]
                }
            },
        },
    } == feature("yes", "no", None, "yes", "1")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "+3", "- 4"], "Integral"),
        (["1", "2.5"], "Fractional"),
        (["1", "1e5"], "Fractional"),
        (["1.0"], "Fractional"),
        (["1", "inf"], "String"),
        (["1", ".5"], "String"),
        (["1", "true"], "String"),
        (["1", "nan", "NaN"], "Integral"),
        (["9" * 400], "Integral"),
        ([None, "nan"], "Unknown"),
    ],
)
def test_types_are_told_by_text(cells: list[str | None], expected: str) -> None:
    """By Deequ's expressions; ``nan`` is a missing value."""
    assert expected == feature(*cells)["inferred_type"]


def test_what_is_too_large_for_a_float() -> None:
    """Is counted, and no part of the statistics; statistics that grow too large stay numbers."""
    assert {"common": {"num_present": 1, "num_missing": 0}} == feature("9" * 400)["numerical_statistics"]
    large = feature("1e308", "1.5e308", "-1e308")["numerical_statistics"]
    assert all(math.isfinite(large[name]) for name in ("mean", "sum", "std_dev", "min", "max"))


#: ``[0-9]`` and ``\\Z``: Python's ``\\d`` and ``$`` take more than Java's and RE2's.
PATTERNS = [re.compile(one.replace(r"\d", "[0-9]").replace("$", r"\Z")) for one in (INTEGRAL, FRACTIONAL)]


@given(st.lists(CELLS, max_size=40) | st.lists(st.floats(allow_nan=False, allow_infinity=False).map(repr), min_size=1))
def test_types_by_the_expressions_themselves(cells: list[str | None]) -> None:
    """The fast way and the careful way are one: of all cells, and of each alone."""
    for some in (cells, *([cell] for cell in cells)):
        present = [cell for cell in some if cell is not None and not re.fullmatch("(?i)[-+]?nan", cell)]
        integral, fractional = (sum(1 for cell in present if one.match(cell)) for one in PATTERNS)
        profile = Profile()
        profile.add(table(*some))
        assert (integral, fractional, len(present) - integral - fractional) == profile.columns["x"].kinds
        numbers = [float(cell.replace(" ", "")) for cell in present if any(one.match(cell) for one in PATTERNS)]
        assert sum(map(math.isfinite, numbers)) == profile.columns["x"].moments.count


@settings(max_examples=40)
@given(st.lists(st.lists(CELLS, max_size=30), min_size=1, max_size=4))
def test_chunks_make_the_same_whole(chunks: list[list[str | None]]) -> None:
    """Tables one after the other, profiles merged, everything at once."""
    whole, parts, merged = Profile(), Profile(), Profile()
    whole.add(table(*[cell for chunk in chunks for cell in chunk]))
    for chunk in chunks:
        parts.add(table(*chunk))
        one = Profile()
        one.add(table(*chunk))
        merged.merge(one)
    expected = whole.statistics()
    for found in (parts.statistics(), merged.statistics()):
        assert _rounded(expected) == _rounded(found)


def _rounded(value: Any) -> Any:
    """Sums in another order differ in the last places; those of very large numbers may lose everything."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items() if key not in ("mean", "std_dev", "sum")} | {
            key: pytest.approx(value[key], rel=1e-6, abs=1e-6)
            for key in ("mean", "std_dev", "sum")
            if key in value and max(abs(value["min"]), abs(value["max"])) < 1e9
        }
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def test_a_column_that_only_some_tables_have() -> None:
    """Is missing in the rows of the others."""
    profile = Profile()
    profile.add(table("1", "2", name="a"))
    profile.add(table("3", name="b"))
    found = {one["name"]: one["numerical_statistics"]["common"] for one in profile.statistics()["features"]}
    expected = {"a": {"num_present": 2, "num_missing": 1}, "b": {"num_present": 1, "num_missing": 2}}
    assert (expected, 3) == (found, profile.rows)


def test_no_rows_and_no_columns() -> None:
    """An empty window has statistics too."""
    assert {"version": 0.0, "dataset": {"item_count": 0}, "features": []} == Profile().statistics()


# --- sketches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1000, 33_333, 250_000])
@pytest.mark.parametrize("kind", ["random", "sorted", "few"])
def test_a_sketch_knows_ranks_to_two_thousandths(kind: str, step: int) -> None:
    """Of 250,000 numbers in whatever order and chunks; its weights add up to their count."""
    values = np.random.default_rng(5).normal(size=250_000)
    values = {"random": values, "sorted": np.sort(values), "few": values.round(1)}[kind]
    sketch = Sketch()
    for at in range(0, len(values), step):
        sketch.add(values[at : at + step])
    found = sketch.distribution()
    assert (250_000.0, True) == (found.total, len(found.values) < 3 * 2048)
    places = np.quantile(values, np.linspace(0, 1, 201))
    real = np.searchsorted(np.sort(values), places, side="right") / len(values)
    shares = np.concatenate(([0.0], np.cumsum(found.weights)))[np.searchsorted(found.values, places, side="right")]
    assert np.abs(real - shares / found.total).max() < 2e-3


def test_merged_sketches_know_as_much() -> None:
    """Exact ones, and those of many."""
    values = np.random.default_rng(6).random(240_000)
    whole, small = Sketch(), Sketch()
    small.add(values[:20_000])
    for part in np.split(values[20_000:], 4):
        one = Sketch()
        one.add(part)
        whole.merge(one)
    whole.merge(small)
    found = whole.distribution()
    assert 240_000.0 == found.total
    assert np.abs(np.cumsum(found.weights) / found.total - found.values).max() < 5e-3


def test_a_sketch_s_file_is_the_sketch() -> None:
    """Level h stands for 2^h."""
    sketch = Sketch(exact=100, k=16)
    sketch.add(np.arange(1000.0))
    read, own = weighted(sketch.as_json()["data"]), sketch.distribution()
    assert own.values.tolist() == read.values.tolist() and own.weights.tolist() == read.weights.tolist()


def test_a_file_of_many_numbers_is_small() -> None:
    """Up to k of them are all in it; of more, a few thousand, which stand for as many."""
    sketch = Sketch()
    sketch.add(np.arange(2048.0))
    assert [np.arange(2048.0).tolist()] == sketch.as_json()["data"]
    sketch.add(np.arange(2048.0, 90_000.0))
    read = weighted(sketch.as_json()["data"])
    assert (90_000.0, 90_000, True) == (read.total, len(sketch.distribution().values), len(read.values) < 3 * 2048)


def test_many_categories_are_estimated() -> None:
    """Their number to some per cent, however they came; and none of them is kept."""
    one, other, few = Categories(most=1000), Categories(most=1000), Categories(most=1000)
    for at in range(0, 50_000, 900):
        one.add(pa.array([f"id-{number}" for number in range(at, at + 900)]), text=True)
    other.add(pa.array([f"id-{number}" for number in range(40_000, 60_000)]), text=True)
    few.add(pa.array(["id-1", "id-2"]), text=True)
    few.merge(other, text=True)
    few.merge(one, text=True)
    assert (None, None) == (one.counts, few.counts)
    assert pytest.approx(50_400, rel=0.1) == one.distinct
    assert pytest.approx(60_000, rel=0.1) == few.distinct
    assert ["distinct_count"] == list(few.as_json())
