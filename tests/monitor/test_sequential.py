"""A test that may be looked at any time: false alarms stay below alpha, true differences are found."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy
import pytest

from serving.monitor.sequential import (
    LEAST,
    Interval,
    Moments,
    above,
    difference,
    factor,
    fixed_size,
    moments,
    needed,
    of_rate,
)

Draw = Callable[[numpy.random.Generator, int], numpy.ndarray]


def rate(p: float) -> Draw:
    """Outcomes 0 and 1."""
    return lambda dice, n: (dice.random(n) < p).astype(float)


@cache
def widths(calls: int, alpha: float) -> numpy.ndarray:
    """``factor`` after each call."""
    return numpy.array([factor(float(one), alpha) for one in range(1, calls + 1)])


def looked_at(first: Draw, second: Draw, split: float, calls: int, seed: int, alpha: float = 0.05) -> int:
    """After how many calls a run ends, looked at after every one; 0 = it does not. The same as ``difference`` for each
    beginning of the run, all at once."""
    dice = numpy.random.default_rng(seed)
    arm = dice.random(calls) < split
    y = numpy.where(arm, second(dice, calls), first(dice, calls))
    low, high, t = numpy.minimum.accumulate(y), numpy.maximum.accumulate(y), numpy.arange(1, calls + 1)
    means, error, enough = [], numpy.zeros(calls), numpy.ones(calls, bool)
    for mine in (~arm, arm):
        n, total, squares = (numpy.cumsum(mine * one) for one in (numpy.ones(calls), y, y * y))
        with numpy.errstate(divide="ignore", invalid="ignore"):
            spread = squares + 2 * low**2 + 2 * high**2 - (total + 2 * low + 2 * high) ** 2 / (n + 4)
            error += numpy.maximum(spread, 0) / (n + 3) / n
            means.append(total / n)
        enough &= n >= LEAST
    width = widths(calls, alpha)
    with numpy.errstate(invalid="ignore"):
        found = enough & (numpy.abs(means[1] - means[0]) > numpy.sqrt(error) * width)
    return int(t[numpy.argmax(found)]) if found.any() else 0


def test_the_simulation_looks_as_the_test_does() -> None:
    """The run ends where ``difference`` first excludes 0."""
    end = looked_at(rate(0.5), rate(0.8), 0.5, 2000, 3)
    dice = numpy.random.default_rng(3)
    arm = dice.random(2000) < 0.5
    y = numpy.where(arm, rate(0.8)(dice, 2000), rate(0.5)(dice, 2000))

    def seen(calls: int) -> Interval:
        return difference(moments(y[:calls][~arm[:calls]]), moments(y[:calls][arm[:calls]]), 0.05)

    assert end
    assert seen(end).low > 0
    assert seen(end - 1).low <= 0


@pytest.mark.parametrize(
    ("draw", "split"),
    [(rate(0.5), 0.5), (rate(0.02), 0.1), (rate(0.97), 0.1), (lambda dice, n: dice.exponential(size=n), 0.5)],
    ids=["half", "rare-unbalanced", "frequent-unbalanced", "skewed"],
)
def test_equal_arms_are_told_apart_no_more_often_than_alpha(draw: Draw, split: float) -> None:
    """Two hundred runs of 4,000 calls, looked at after every call."""
    alarms = sum(looked_at(draw, draw, split, 4000, seed) > 0 for seed in range(200))
    assert alarms <= 0.05 * 200


def test_a_test_of_fixed_size_would_not_do() -> None:
    """Why all this: equals, looked at after every call with 1.96 standard errors, are told apart in most runs."""
    dice, alarms = numpy.random.default_rng(1), 0
    for _ in range(200):
        y = dice.normal(size=2000)
        n = numpy.arange(1, 2001)
        alarms += bool((numpy.abs(numpy.cumsum(y))[50:] > 1.96 * numpy.sqrt(n)[50:]).any())
    assert alarms > 0.3 * 200


def test_a_true_difference_is_found() -> None:
    """90 % against 95 %: every run ends, and in about twice to four times the calls of a test of fixed size."""
    ends = [looked_at(rate(0.90), rate(0.95), 0.5, 6000, seed) for seed in range(100)]
    assert all(ends)
    assert (
        fixed_size(0.09, 0.0475, 0.05, 0.05) < float(numpy.median(ends)) < 2 * 4 * fixed_size(0.09, 0.0475, 0.05, 0.05)
    )


def test_the_sizes_of_the_reference_are_met() -> None:
    """``behaviour/02``: 5 % to 6 % needs 8,155 in each arm, 5 % to 5.5 % 31,231, 20 % to 21 % 25,580."""

    def size(p: float, q: float) -> float:
        return fixed_size(p * (1 - p), q * (1 - q), q - p, 0.05)

    wanted = [8155, 31231, 25580]
    assert wanted == [pytest.approx(one, rel=1e-3) for one in (size(0.05, 0.06), size(0.05, 0.055), size(0.20, 0.21))]
    assert math.inf == fixed_size(1.0, 1.0, 0.0, 0.05)


def test_the_width_is_that_of_the_paper() -> None:
    """Of the conjugate mixture, by the formula as drconfseq has it (``std_conjmix_margin``)."""
    rho2 = (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 2000
    for t in (50, 2000, 10**6):
        margin = math.sqrt(2 * (t * rho2 + 1) * math.log(math.sqrt(t * rho2 + 1) / 0.05) / (t**2 * rho2))
        assert pytest.approx(margin) == factor(t, 0.05) / math.sqrt(t)
    assert 1.96 < factor(2000, 0.05) < factor(2000, 0.01)


def test_few_outcomes_say_nothing() -> None:
    """However far apart they are."""
    few = difference(of_rate(0, LEAST - 1), of_rate(1000, 1000), 0.05)
    assert Interval(1.0, -math.inf, math.inf) == few
    assert Interval(0.0) == difference(Moments(), Moments(), 0.05)


def test_outcomes_that_are_all_alike_have_a_width() -> None:
    """Fifty right answers of fifty are no proof of a difference to 98 of 100."""
    found = difference(of_rate(98, 100), of_rate(50, 50), 0.05)
    assert found.low < 0 < found.high


def test_one_arm_is_above_a_value() -> None:
    """5 % of 2,000 are more than 1 %; 1.1 % are not for certain."""
    assert above(of_rate(100, 2000), 0.01, 0.05)
    assert not above(of_rate(22, 2000), 0.01, 0.05)
    assert not above(Moments(), 0.01, 0.05)


def test_the_calls_still_needed_make_the_interval_as_narrow_as_the_effect() -> None:
    """At that many the half-width is the effect, and a smaller effect needs more."""
    calls = needed(1.0 / 500, 500, 0.1, 0.05)
    assert pytest.approx(0.1, rel=0.01) == math.sqrt(1.0 / calls) * factor(calls, 0.05)
    assert calls < needed(1.0 / 500, 500, 0.05, 0.05)
    assert math.inf == needed(1.0, 500, 0.0, 0.05) == needed(math.inf, 500, 0.1, 0.05) == needed(1.0, 0, 0.1, 0.05)


def test_moments_are_those_of_numpy() -> None:
    """Number, mean, variance, range."""
    values = numpy.random.default_rng(2).normal(5, 3, 500)
    found = moments(values)
    assert 500 == found.number
    assert pytest.approx(values.mean()) == found.mean
    assert pytest.approx(values.var(ddof=1)) == found.variance
    assert (values.min(), values.max()) == (found.low, found.high)


def test_a_rate_never_has_more_hits_than_calls() -> None:
    """Counters of several processes are not read at one moment."""
    assert (10, 1.0) == of_rate(12, 10)[:2]
    assert Moments() == of_rate(3, 0)
