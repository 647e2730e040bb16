"""Is one arm better than the other, asked as often as one likes while the answers come in?

A test of fixed size is right once: looked at after every call, a 5 % test finds a difference between equals in most
runs. Here the interval is an asymptotic confidence sequence, which holds the true difference at all times at once with
probability 1 - alpha; so one may look at any time and stop at any of them.

Method: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences" (Annals of Statistics 52, 2024; arXiv:2103.06476): Robbins' normal mixture with estimated variance, for the
randomised experiment without covariates. There the difference of means is a mean of influence values over all calls of
both arms, and the squared standard error of that is Welch's ``va/na + vb/nb``. Outcomes need a finite variance and no
bounds. The guarantee is asymptotic: nothing is said of fewer than ``LEAST`` outcomes in an arm, and the variance is
taken with two more outcomes at either end of what was seen in both (Agresti, Coull 1998, "Approximate is better than
'exact'": two successes, two failures), so that an arm whose few outcomes are all alike claims nothing. With that the
share of false alarms stayed below alpha in all simulations (tests/monitor/test_sequential.py has some), rates of 0.5 %
and splits of 2 % included; without it, some came to 6 %.

Why not a library: of confseq, the authors' own, no part does this, and it is built with a compiler and Boost; savvi is
for counts and needs cvxpy; ville has this sequence, but for a split that is known and never changes. The formula is
theirs: both ville and drconfseq were compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

#: Below so many outcomes in either arm an interval has no ends.
LEAST = 50
#: The sequence is narrowest, of all at this level, after so many calls of both arms. To be chosen before one looks.
NARROWEST = 2_000
#: Of a test of fixed size: how likely it finds the effect that it was made for (``behaviour/02``).
POWER = 0.8
#: More calls than that are "very many".
_MOST = 10**12


class Moments(NamedTuple):
    """Outcomes of one arm. ``squares``: the sum of squared deviations from the mean; ``low``, ``high``: the range."""

    number: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def plus(self, value: float) -> Moments:
        """With one more outcome (Welford 1962)."""
        number = self.number + 1
        mean = self.mean + (value - self.mean) / number
        squares = self.squares + (value - self.mean) * (value - mean)
        return Moments(number, mean, squares, min(self.low, value), max(self.high, value))

    @property
    def variance(self) -> float:
        """As estimated, 0 of fewer than two outcomes."""
        return self.squares / (self.number - 1) if self.number > 1 else 0.0


class Interval(NamedTuple):
    """A difference, second arm minus first, and what holds the true one at all times. Without ends while there are too
    few outcomes."""

    difference: float
    low: float = -math.inf
    high: float = math.inf


def moments(values: Iterable[float]) -> Moments:
    """Of some outcomes."""
    found = Moments()
    for value in values:
        found = found.plus(value)
    return found


def of_rate(hits: float, number: float) -> Moments:
    """Of ``number`` outcomes that are 0 or 1, ``hits`` of them 1."""
    calls = max(int(number), 0)
    ones = max(0, min(int(hits), calls))
    if not calls:
        return Moments()
    return Moments(calls, ones / calls, ones * (calls - ones) / calls, 0.0, 1.0)


class Estimate(NamedTuple):
    """What is known of one arm: the value, from how many outcomes, its squared standard error (infinite of too few)."""

    value: float
    number: int
    error: float


def estimated(arm: Moments, low: float, high: float) -> Estimate:
    """The mean of an arm whose outcomes lie in a range."""
    if arm.number < LEAST:
        return Estimate(arm.mean, arm.number, math.inf)
    added = arm.plus(low).plus(low).plus(high).plus(high)
    return Estimate(arm.mean, arm.number, added.squares / (added.number - 1) / arm.number)


def estimates(first: Moments, second: Moments) -> tuple[Estimate, Estimate]:
    """The means of two arms; their range is that of both."""
    low, high = min(first.low, second.low), max(first.high, second.high)
    return estimated(first, low, high), estimated(second, low, high)


def between(first: Estimate, second: Estimate, alpha: float) -> Interval:
    """``second`` minus ``first``."""
    error, number = first.error + second.error, first.number + second.number
    return around(second.value - first.value, error, number, alpha)


def difference(first: Moments, second: Moments, alpha: float) -> Interval:
    """Mean of ``second`` minus mean of ``first``."""
    return between(*estimates(first, second), alpha)


def above(arm: Moments, value: float, alpha: float) -> bool:
    """Whether the mean of one arm is above a value, for certain."""
    known = estimated(arm, arm.low, arm.high)
    return around(known.value - value, known.error, known.number, alpha).low > 0


def around(estimate: float, error: float, number: float, alpha: float) -> Interval:
    """An estimate with its squared standard error after ``number`` calls, with ends that hold at all times."""
    if not math.isfinite(error):
        return Interval(estimate)
    radius = math.sqrt(error) * factor(number, alpha)
    return Interval(estimate, estimate - radius, estimate + radius)


def factor(number: float, alpha: float) -> float:
    """By how many standard errors the ends lie off after ``number`` calls: the price of looking at any time (3.0 at
    ``NARROWEST``, for 5 %; one look costs 1.96)."""
    # Paper, equations 2.5 and 2.7: rho makes the sequence narrowest at NARROWEST.
    mixed = number * (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / NARROWEST + 1
    return math.sqrt(2 * mixed / (mixed - 1) * math.log(math.sqrt(mixed) / alpha))


# --- how many more ---------------------------------------------------------------------------------------------------


def needed(error: float, number: int, effect: float, alpha: float) -> float:
    """Calls in all, at this split and with this variance, until the ends lie no further off than ``effect``: then a
    true difference of that size is found about every other time, and soon after nearly always. Infinite for no effect.

    ``error``: the squared standard error after ``number`` calls."""
    if not effect > 0 or number <= 0 or not math.isfinite(error):
        return math.inf
    variance = error * number
    if variance == 0:
        return float(number)

    def wide(calls: float) -> bool:
        return math.sqrt(variance / calls) * factor(calls, alpha) > effect

    low, high = 1.0, float(max(number, 2))
    while wide(high):
        low, high = high, high * 2
        if high > _MOST:
            return math.inf
    while high - low > max(1.0, low / 1000):
        middle = (low + high) / 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return math.ceil(high)


def fixed_size(first: float, second: float, effect: float, alpha: float) -> float:
    """Outcomes in each arm that a test which looks once, two-sided, needs for an effect: (z + z')² (va + vb) / effect²,
    7.85 of them for 5 % and power 80 % (``behaviour/02``). The floor: looking at any time costs two to four times as
    many. ``first``, ``second``: the variances."""
    if effect <= 0:
        return math.inf
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(POWER)
    return math.ceil(z * z * (first + second) / (effect * effect))
