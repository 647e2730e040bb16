"""What to do about a challenger, and why, in a plain sentence. Pure: facts in, a decision out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from serving.monitor.outcomes import Metric
from serving.monitor.sequential import LEAST, Interval

#: A difference that takes more calls than that to be certain of is none, as far as one can see.
_VERY_MANY = 10**6


class Action(StrEnum):
    """What one can do. ``KEEP``: the baseline stays, the challenger is no better than it by what counts."""

    KEEP = "Keep"
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"
    WAIT = "Wait"


class Limits(NamedTuple):
    """What no metric makes up for: the challenger's error rate above the baseline's by more than ``errors`` (a share),
    its p99 latency above ``latency`` times the baseline's."""

    errors: float = 0.02
    latency: float = 2.0


class Guards(NamedTuple):
    """How far the challenger is within its limits. ``errors``: its error rate minus the baseline's, which lies in that
    interval for certain; ``slow``: certainly more than 1 % of its calls took longer than the limit; ``rates``, ``p99``:
    baseline's and challenger's, seconds."""

    errors: Interval = Interval(0.0)
    slow: bool = False
    rates: tuple[float, float] = (0.0, 0.0)
    p99: tuple[float, float] = (0.0, 0.0)


class Facts(NamedTuple):
    """What is known of a challenger beside its baseline. ``values``: of the metric, both; ``gain``: by how much the
    challenger is better, negative when worse; ``missing``: why there is no gain to speak of, else empty; ``effect``:
    the smallest gain that counts, None = not said; ``more``: calls still needed; ``alpha``: the share of wrong
    decisions."""

    baseline: str
    challenger: str
    metric: Metric
    values: tuple[float, float]
    gain: Interval
    more: float
    alpha: float
    effect: float | None = None
    missing: str = ""
    guards: Guards = Guards()
    limits: Limits = Limits()


class Decision(NamedTuple):
    """What to do with which variant, and why."""

    action: Action
    variant: str
    sentence: str


def decide(facts: Facts) -> Decision:
    """The guardrails first, whatever the metric says; then the metric, as far as it is certain."""
    guarded = _guarded(facts)
    if guarded:
        return guarded
    if facts.missing:
        return Decision(Action.WAIT, facts.challenger, f"Wait: {facts.missing}.")
    gain, effect = facts.gain, facts.effect or 0.0
    if gain.low > 0 and gain.high >= effect:
        return _said(Action.PROMOTE, f"Promote {facts.challenger}", facts, _certain(facts))
    if gain.high < 0:
        return _said(Action.ROLL_BACK, f"Roll back {facts.challenger}", facts, _certain(facts))
    if effect and gain.high < effect:
        reason = f"the gain is below {effect:g}, the least that counts ({_sure(facts)})"
        return _said(Action.KEEP, f"Keep {facts.baseline}", facts, reason)
    return _said(Action.WAIT, "Wait", facts, _uncertain(facts))


def _guarded(facts: Facts) -> Decision | None:
    guards, limits, one = facts.guards, facts.limits, facts.challenger
    if guards.errors.low > limits.errors:
        sentence = (
            f"Roll back {one}: {guards.rates[1]:.2%} of its calls fail, {guards.rates[0]:.2%} of {facts.baseline}'s "
            f"({_sure(facts)}), whatever the {facts.metric.words} says."
        )
        return Decision(Action.ROLL_BACK, one, sentence)
    if guards.slow:
        sentence = (
            f"Roll back {one}: its p99 latency of {guards.p99[1] * 1e3:.3g} ms is more than {limits.latency:g} times "
            f"{facts.baseline}'s {guards.p99[0] * 1e3:.3g} ms ({_sure(facts)}), whatever the {facts.metric.words} says."
        )
        return Decision(Action.ROLL_BACK, one, sentence)
    return None


def _said(action: Action, what: str, facts: Facts, reason: str) -> Decision:
    first, second = facts.values
    compared = (
        f"{facts.challenger}'s {facts.metric.words} is {second:.4g}, {facts.baseline}'s {first:.4g}"
        if math.isfinite(first) and math.isfinite(second)
        else f"there is no {facts.metric.words} of both yet"
    )
    return Decision(action, facts.challenger, f"{what}: {compared}; {reason}.")


def _certain(facts: Facts) -> str:
    low, high = sorted((abs(facts.gain.low), abs(facts.gain.high)))
    return f"it is {'better' if facts.gain.low > 0 else 'worse'} by {low:.3g} to {high:.3g} ({_sure(facts)})"


def _sure(facts: Facts) -> str:
    return f"{100 * (1 - facts.alpha):.4g} % certain at any time"


def _uncertain(facts: Facts) -> str:
    """How many more calls."""
    seen = f"{facts.effect:g}" if facts.effect else "what was seen so far"
    counted = "labelled calls" if facts.metric.labels else "calls"
    if not math.isfinite(facts.gain.low):
        return f"that says nothing yet: each needs {LEAST} {counted} at least"
    if facts.more > _VERY_MANY and not facts.effect:
        return "no difference to speak of was seen so far: wait, or say the smallest that counts (minimum effect)"
    if not math.isfinite(facts.more):
        return f"that may be chance, and no number of {counted} tells a difference of {seen}"
    return f"that may be chance: about {_round(facts.more):,} more {counted} tell, if the difference is {seen}"


def _round(number: float) -> int:
    """To two digits: it is an estimate."""
    digits = max(len(str(int(number))) - 2, 0)
    return int(math.ceil(number / 10**digits) * 10**digits)


#: Of several challengers' decisions the first of these is the endpoint's.
_ORDER = (Action.PROMOTE, Action.WAIT, Action.ROLL_BACK, Action.KEEP)


def overall(decisions: Sequence[tuple[Facts, Decision]]) -> Decision:
    """Of all challengers: promote the one that gains most; wait while one may still be better; else the worst news."""
    ranked = sorted(decisions, key=lambda one: (_ORDER.index(one[1].action), -one[0].gain.difference))
    return ranked[0][1]
