"""What is remembered of a target between two looks at it: its cooldowns, the capacity it had, and what was a mistake.

::

    decided ──► on its way ──► fulfilled: the cooldown begins, and the metrics are shared by so many

Against flapping, where it is not known what is chance:

- a scale-in that had to be taken back within ten minutes was a mistake, and the next one comes no sooner after that
  than twice the time in which the low alarm looks back, after another four times, up to ten minutes;
- a scale-out is not taken back for ten minutes (after such a mistake for twenty, and so on), unless the load is gone: a
  tenth of what it was made for. AWS's own fifteen minutes of low load are as long, but do not end when a load does. A
  metric of counted calls need not wait: ``tracking`` tells its load from chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from serving.scaling.tracking import Ask, Capacity
from serving.scaling.values import Alarm, AlarmReading, Decision

#: Seconds in which a scale-out says that the scale-in before it was a mistake; also the longest wait after mistakes.
REGRET = 600.0
#: Times that the wait after mistakes is doubled at most: up to eight times that in which the low alarm looks back.
_DOUBLINGS = 3
#: The load is gone where it is below this part of what the last scale-out was made for.
GONE = 0.1
#: Seconds after which a change that was never told fulfilled holds nothing back any more.
GIVEN_UP = 600.0
#: Seconds of capacity that are remembered, for the periods that alarms evaluate.
_MEMORY = 3600.0


class Change(NamedTuple):
    """A change that was decided at ``at`` and is not fulfilled. ``base``: the capacity before the first scale-out of
    the cooldown that it belongs to."""

    at: float
    before: int
    after: int
    cooldown: float
    base: int


class ScaledIn(NamedTuple):
    """The last scale-in. ``load``: what it was meant for, in workers; ``until``: a scale-out before then, for not much
    more than that, says it was a mistake."""

    load: float
    until: float


class ScaledOut(NamedTuple):
    """The last scale-out, and what it was made for, in workers."""

    at: float
    load: float


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of a target between two looks at it. ``history``: capacity that was ready, oldest first;
    ``acted``: step alarm -> the evaluation that was last acted upon; ``doubled``: mistakes in a row, as many as
    count."""

    history: tuple[Capacity, ...] = ()
    change: Change | None = None
    out_until: float = -math.inf
    out_base: int = 0
    in_until: float = -math.inf
    acted: tuple[tuple[str, float], ...] = ()
    last_in: ScaledIn | None = None
    last_out: ScaledOut | None = None
    doubled: int = 0


def fulfilled(state: State, before: int, after: int, now: float) -> State:
    """The capacity ``after`` is served from ``now`` on, ``before`` was until then: by a decision, whose cooldown
    starts, or by anything else that changes capacity."""
    history = state.history or (Capacity(-math.inf, before),)
    state = replace(state, history=_recent((*history, Capacity(now, after)), now))
    change = state.change
    return state if change is None or change.after != after else _cooling(state, change, now)


def dropped(state: State) -> State:
    """What was decided does not come: nothing waits for it."""
    return replace(state, change=None)


def noticed(state: State, current: int, now: float) -> State:
    """Compare what is remembered with what there is: a change that was not made, only in part, or by somebody else."""
    change = state.change
    served = state.history[-1].workers if state.history else current
    if change is None:
        if served == current:
            return state
        return replace(state, history=_recent((*state.history, Capacity(now, current)), now))
    if current == change.before or now - change.at > GIVEN_UP:
        return dropped(state)
    if current != change.after:
        change = change._replace(after=current)
        if served == current:
            return _cooling(state, change, state.history[-1].since)
    return replace(state, change=change)


def changed(state: State, decision: Decision, cooldown: float, now: float) -> State:
    """A decision is on its way."""
    before, after = decision.current, decision.desired
    state = replace(state, history=state.history or (Capacity(-math.inf, before),))
    if after < before:
        return replace(state, change=Change(now, before, after, cooldown, before))
    first = base(state, now)
    change = Change(now, before, after, cooldown, before if first is None else first)
    return replace(state, change=change, in_until=-math.inf, last_out=ScaledOut(now, float(after)))


def _cooling(state: State, change: Change, now: float) -> State:
    """The change is made: its cooldown begins."""
    if change.after > change.before:
        return replace(state, change=None, out_until=now + change.cooldown, out_base=change.base)
    return replace(state, change=None, in_until=now + change.cooldown)


def base(state: State, now: float) -> int | None:
    """The capacity before the scale-out that is on its way or whose cooldown runs; None: there is none."""
    change = state.change
    if change is not None and change.after > change.before:
        return change.base
    return state.out_base if now < state.out_until else None


def regretted(state: State, asked: float, now: float) -> State:
    """More capacity is asked for, soon after some was taken away: was that a mistake? Load that went away and came back
    is none; a burst (``asked`` = infinity) always is."""
    last = state.last_in
    if last is None:
        return state
    if now > last.until:
        return replace(state, last_in=None, doubled=max(0, state.doubled - 1))
    if math.isfinite(asked) and asked > 2 * max(1.0, last.load):
        return state
    return replace(state, last_in=None, doubled=min(_DOUBLINGS, state.doubled + 1))


def seen(state: State, low: Alarm, reading: AlarmReading) -> bool:
    """Has the ``low`` alarm seen a whole period since the last scale-out? Before, its low load is that of another time:
    a burst may come while it is in ALARM."""
    end = math.floor(reading.at / low.period) * low.period if reading.end is None else reading.end
    return state.last_out is None or end - low.period >= state.last_out.at


def premature(state: State, less: Ask, low: Alarm, now: float) -> bool:
    """Is it too soon to give ``less``, as the ``low`` alarm asks? After mistakes the last scale-out must be longer ago;
    and if it was a moment ago the load that it was made for must be gone."""
    own, last = low.period * low.evaluations, state.last_out
    if last is None:
        return False
    if state.doubled and now - last.at < min(own * 2.0**state.doubled, max(own, REGRET)):
        return True
    return less.load is not None and less.load > GONE * last.load and now - last.at < _regret(state, low)


def scaled_in(state: State, load: float, low: Alarm | None, now: float) -> State:
    """Less is given, for a ``load`` in workers."""
    return replace(state, last_in=ScaledIn(load, now + _regret(state, low)))


def _regret(state: State, low: Alarm | None) -> float:
    """Seconds in which a change may turn out to be a mistake, by the time in which the alarm sees anything."""
    own = REGRET if low is None else min(REGRET, low.period * low.evaluations * 2.0**_DOUBLINGS)
    return own * 2.0**state.doubled


def _recent(history: tuple[Capacity, ...], now: float) -> tuple[Capacity, ...]:
    """Without what no alarm looks at any more; the last one before that stays."""
    first = max((index for index, each in enumerate(history) if each.since <= now - _MEMORY), default=0)
    return history[first:]
