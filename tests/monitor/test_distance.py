"""Distances between distributions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy  # ``scipy.stats`` comes when it is first used: two seconds
from hypothesis import given
from hypothesis import strategies as st

from serving.monitor.distance import Method, Steps, categorical, chi_squared, numeric
from serving.monitor.kll import Distribution, weighted

NUMBERS = st.lists(st.integers(-5, 5).map(float) | st.floats(-10, 10), min_size=1, max_size=50)
COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 60), max_size=8)


def sample(values: list[float]) -> Distribution:
    """All of them."""
    return weighted([values])


@given(NUMBERS, NUMBERS)
def test_simple_is_the_statistic_of_kolmogorov_and_smirnov(one: list[float], other: list[float]) -> None:
    """As scipy has it; its p-value, about which it warns, is not asked for."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        expected = scipy.stats.ks_2samp(one, other, method="asymp").statistic
    assert pytest.approx(expected) == numeric(sample(one), sample(other), "Simple")


@pytest.mark.parametrize(
    ("m", "method", "expected"), [(300, "Robust", 0.14), (50, "Robust", 0.0), (50, "Simple", 0.25)]
)
def test_the_reference_s_worked_numbers(m: int, method: Method, expected: float) -> None:
    """L = 0.25 and n = 2333."""
    baseline, current = weighted([[0.0, 1.0]]), weighted([[0.0, 1.0]])
    baseline = baseline._replace(weights=np.array([0.5, 0.5]) * 2333)
    current = current._replace(weights=np.array([0.25, 0.75]) * m)
    assert pytest.approx(expected, abs=5e-4) == numeric(baseline, current, method)
    shares = categorical({"a": 0.5 * 2333, "b": 0.5 * 2333}, {"a": 0.25 * m, "b": 0.75 * m}, method)
    assert pytest.approx(expected, abs=5e-4) == shares


@given(NUMBERS)
def test_of_buckets_only_their_bounds_are_compared(values: list[float]) -> None:
    """A dataset has no distance from its own buckets."""
    edges = np.linspace(min(values), max(values), 11)
    counts, _ = np.histogram(values, edges) if edges[0] < edges[-1] else (np.array([0] * 9 + [len(values)]), None)
    own = Steps(edges[1:-1], np.cumsum(counts)[:-1] / len(values), len(values))
    assert pytest.approx(0.0) == numeric(own, sample(values), "Simple")
    assert (1.0 if len(edges) else 0) == numeric(own, sample([max(values) + 100.0]), "Simple") or counts[-1]


@given(COUNTS, COUNTS)
def test_categories_by_brute_force(one: dict[str, int], other: dict[str, int]) -> None:
    """The largest difference of shares."""
    n, m = sum(one.values()), sum(other.values())
    expected = max(abs(one.get(key, 0) / n - other.get(key, 0) / m) for key in "abcdefgh") if n and m else None
    assert expected == categorical(one, other, "Simple")


@given(COUNTS, COUNTS)
def test_chi_squared_never_breaks(one: dict[str, int], other: dict[str, int]) -> None:
    """Whatever is merged: a p-value, or none where nothing is left to compare."""
    found = chi_squared(one, other)
    assert found is None or 0 <= found <= 1


def test_chi_squared_is_scipy_s_after_merging_rare_categories() -> None:
    """Categories expected less than five times become one."""
    baseline, current = {"a": 500, "b": 300, "c": 3, "d": 2}, {"a": 60, "b": 30, "e": 10}
    merged = np.array([[500.0, 60.0], [300.0, 30.0], [5.0, 10.0]])
    # The small sample is 100 of 905: "c", "d" and "e" are expected 1.7 times there, and join "b".
    joined = np.array([[500.0, 60.0], [305.0, 40.0]])
    assert pytest.approx(scipy.stats.chi2_contingency(joined, correction=False).pvalue) == chi_squared(
        baseline, current
    )
    assert scipy.stats.chi2_contingency(merged, correction=False).expected_freq.min() < 5


def test_chi_squared_tells_one_distribution_from_two() -> None:
    """As a test does."""
    alike = chi_squared({"a": 500, "b": 500}, {"a": 51, "b": 49})
    apart = chi_squared({"a": 500, "b": 500}, {"a": 90, "b": 10})
    assert alike is not None and apart is not None and alike > 0.5 and apart < 1e-6
    assert chi_squared({"a": 500}, {"a": 90}) is None
    assert chi_squared({}, {}) is None


def test_nothing_has_no_distance() -> None:
    """From anything."""
    assert numeric(sample([]), sample([1.0]), "Robust") is None
    assert numeric(sample([1.0]), sample([]), "Robust") is None
    assert categorical({}, {"a": 1}, "Robust") is None
