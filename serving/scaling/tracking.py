"""What a target tracking policy asks for: load measured in workers at their target.

::

    demand of a period = metric per worker x workers that were ready in it / target      (4 workers at 105 of 70: 6.0)
    AlarmHigh          -> ceil(demand of the latest period)
    AlarmLow           -> ceil(mean demand of the evaluated periods), at most half of what is there goes at a time;
                          all of it where there was no load at all

For a metric that is told per worker this is AWS's accepted formula, ceil(current x metric / target), with two of its
gaps closed: workers that are being added count as present but not yet as sharing the load, and a period that saw two
capacities is read the careful way round. A metric that is not told per worker (CPU, a latency, the user's own) says
nothing about a load that more workers share: while a cooldown runs, it is compared with the capacity before it.

Chance. A period of a few seconds holds few calls. A policy acts on a count of calls only where the count is hardly
chance: out, if what was evaluated could not come from workers at their target; in, if fewer workers
would still be below theirs. Capacity that keeps to this has a dead zone as wide as the noise, and rests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serving.scaling.chance import at_least, at_most
from serving.scaling.values import ALARM, MINUTE, NO_DATA, Alarm, AlarmReading, TargetTracking

#: What is rarer than this is not taken for chance. It is looked at every period: 1e-3 would move capacity on constant
#: load several times in an hour.
CHANCE = 1e-4
#: More than any target's maximum can be.
_MOST = 1e9
#: Metrics whose value falls as workers are added.
_SHARED = ("PerInstance", "PerCopy", "PerModel")


class Capacity(NamedTuple):
    """From ``since`` on ``workers`` served."""

    since: float
    workers: int


class Ask(NamedTuple):
    """What a policy asks for: a capacity, None = none other than there is. ``alarm``: whose state said so; ``words``:
    what was seen; ``flapping``: less would do on the mean, but would soon be too little. ``load``: the mean demand that
    less is asked for; None: it was counted, and is no chance."""

    desired: int | None
    alarm: str = ""
    words: str = ""
    flapping: bool = False
    load: float | None = None


class Present(NamedTuple):
    """``current``: what there is, as desired; ``history``: what was ready since when, oldest first; ``base``: what
    there was before the scale-out whose cooldown still runs, None = none runs; ``least``: below this nothing goes."""

    current: int
    history: Sequence[Capacity] = ()
    base: int | None = None
    least: int = 0


def whole(demand: float) -> int:
    """Workers for a demand: rounded up, but not for what is only rounding itself; a number, whatever was measured."""
    return math.ceil(min(demand * (1 - 1e-9), _MOST)) if demand > 0 else 0


def counts_calls(alarm: Alarm) -> bool:
    """Is its metric a sum of calls a minute for each worker, so that chance can be told from load?"""
    stat = alarm.queries[0].stat
    return len(alarm.queries) == 1 and stat is not None and stat.per_minute and stat.statistic == "Sum"


def counts_concurrency(alarm: Alarm) -> bool:
    """Is its metric the calls in flight for each worker?"""
    stat = alarm.queries[0].stat
    return len(alarm.queries) == 1 and stat is not None and stat.metric.name.startswith("ConcurrentRequestsPer")


def shared(alarm: Alarm) -> bool:
    """Is its metric told for each worker, so that it falls as workers are added?"""
    stat = alarm.queries[0].stat
    return len(alarm.queries) == 1 and stat is not None and stat.metric.name.endswith(_SHARED)


def ready(history: Sequence[Capacity], start: float, end: float, usual: int) -> list[int]:
    """The capacities that served in [start, end); ``usual``: where nothing is known."""
    if not history:
        return [usual]
    found: list[int] = []
    until = math.inf
    for since, workers in reversed(history):
        if since < end and until > start:
            found.append(workers)
        if since <= start:
            break
        until = since
    return found or [history[0].workers]


def ask(policy: TargetTracking, readings: Mapping[str, AlarmReading], present: Present) -> Ask:
    """What the policy wants of ``present``, by its alarms' ``readings``: more, less (with its low alarm in ALARM), or
    nothing. Without a reading nothing is known."""
    high = readings.get(policy.high.name)
    low = readings.get(policy.low.name) if policy.low is not None else None
    words = _words(policy, high, low)
    if high is not None and high.state == ALARM:
        desired = _more(policy, high, low, present)
        return Ask(desired, policy.high.name if desired is not None else "", words)
    if policy.low is not None and low is not None and low.state == ALARM and present.current > present.least:
        return _less(policy, policy.low, low, present)._replace(words=words)
    return Ask(None, words=words)


def demands(alarm: Alarm, reading: AlarmReading, target: float, present: Present, careful: bool) -> list[float]:
    """The demand of each evaluated period that has data, oldest first. ``careful``: of a period that saw two capacities
    the larger one is taken, so that too little is not taken for enough; otherwise the smaller."""
    last = math.floor(reading.at / alarm.period) * alarm.period if reading.end is None else reading.end
    choose = max if careful else min
    found = []
    for back, value in enumerate(reversed(reading.values)):
        if value is None:
            continue
        start = last - (back + 1) * alarm.period
        if present.base is not None and not shared(alarm):
            workers = present.base
        else:
            workers = choose(ready(present.history, start, start + alarm.period, present.current))
        found.append(value * workers / target)
    return found[::-1]


def _more(policy: TargetTracking, high: AlarmReading, low: AlarmReading | None, present: Present) -> int | None:
    found = demands(policy.high, high, policy.value, present, careful=False)
    if not found:
        return None
    desired = whole(found[-1])
    if counts_calls(policy.high) and policy.low is not None:
        desired = _believed(policy, policy.low, found, low, present)
    return desired if desired > present.current else None


def _believed(
    policy: TargetTracking, alarm: Alarm, found: Sequence[float], low: AlarmReading | None, present: Present
) -> int:
    """The capacity that counted calls speak for. The demand is the mean of the longest stretch (the low ``alarm``'s,
    the evaluated periods, the latest), but for a shorter one that is off it by more than chance; one of those that
    agree has more calls than what is there would have by chance. Where periods are shorter than AWS's, no more is asked
    for than what makes the calls of that stretch no surprise: the next will tell. A policy that never scales in cannot
    flap, nor asks."""
    each = _calls(policy, policy.high)
    windows = [(found, each), (found[-1:], each)]
    if low is not None and counts_calls(alarm):
        windows.insert(0, (demands(alarm, low, policy.value, present, careful=False), _calls(policy, alarm)))
    demand, believed, seen, usual = 0.0, False, 0.0, 0.0
    for window, calls in windows:
        total, length = sum(window) * calls, len(window) * calls
        above = at_least(total, length * present.current) < CHANCE
        if min(at_least(total, length * demand), at_most(total, length * demand)) < CHANCE:
            demand, believed, seen, usual = sum(window) / len(window), above, total, length
        believed = believed or above
    if not believed:
        return present.current
    most = max(whole(demand), present.current + 1)
    return most if policy.high.period >= MINUTE else plausible(seen, usual, present.current, most)


def plausible(calls: float, each: float, current: int, most: int) -> int:
    """The least capacity above ``current`` for which so many ``calls`` would be no surprise, ``each`` worker at its
    target having so many; at most ``most``, but for one more than ``current``."""
    low, high = current + 1, max(most, current + 1)
    while low < high:
        middle = (low + high) // 2
        if at_least(calls, each * middle) >= CHANCE:
            high = middle
        else:
            low = middle + 1
    return low


def _less(policy: TargetTracking, alarm: Alarm, low: AlarmReading, present: Present) -> Ask:
    found = demands(alarm, low, policy.value, present, careful=True)
    current = present.current
    if not found or current < 1:
        return Ask(None)
    if not any(found):  # nothing that could come back in part: no step on the way is of use
        return Ask(0, alarm.name)
    desired = max(whole(sum(found) / len(found)), current - max(1, current // 2))
    if desired >= current:
        return Ask(None)
    for fewer in range(desired, current):
        if _enough(policy, alarm, found, fewer):
            return Ask(fewer, alarm.name, load=None if counts_calls(alarm) else sum(found) / len(found))
    return Ask(None, flapping=True)


def _enough(policy: TargetTracking, alarm: Alarm, found: Sequence[float], workers: int) -> bool:
    """Would so many workers have stayed at or below their target, and was that no chance?"""
    if not counts_calls(alarm):
        return max(found) <= workers
    each = _calls(policy, alarm)
    return at_most(sum(found) * each, workers * len(found) * each) < CHANCE


def _calls(policy: TargetTracking, alarm: Alarm) -> float:
    """Calls that one worker at its target has in one of the alarm's periods."""
    return policy.value * alarm.period / MINUTE


def _words(policy: TargetTracking, high: AlarmReading | None, low: AlarmReading | None) -> str:
    value = None if high is None else next((value for value in reversed(high.values) if value is not None), None)
    measured = "no data" if value is None else f"{value:.4g}"
    states = f"high {NO_DATA if high is None else high.state}"
    if policy.low is not None:
        states += f", low {NO_DATA if low is None else low.state}"
    return f"{measured} of {policy.value:g} ({states})"
