"""Which capacity a scalable target gets: the policies' answers made one, within bounds, cooldowns and suspensions.

::

    outside Min..Max    brought within, at once
    any policy: more    the largest; never more than Max
    all policies: less  the largest of what they ask; not while a scale-in's cooldown runs or a change is on its way;
                        "all" are the target tracking ones that may scale in, and the steps that ask for less

A cooldown starts when its change is fulfilled. A scale-out's lets larger ones through, with what was added counted as
present (2 were added, the alarm now asks for 3: 1 more), and a scale-out ends the cooldown of a scale-in.

Against flapping, beyond ``tracking``'s, where it is not known what is chance:

- a scale-in that had to be taken back within ten minutes was a mistake, and the next one waits for twice the time of
  low load, up to ten minutes;
- a scale-out is not taken back for ten minutes, unless the load is gone (a tenth of what it was made for): AWS's own
  fifteen minutes of low load are as long, but do not end when a load does. A metric of counted calls need not wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from serving.scaling import bursting, stepping, tracking
from serving.scaling.bursting import Pressure
from serving.scaling.tracking import Ask, Capacity, Present
from serving.scaling.values import (
    ALARM,
    Alarm,
    AlarmReading,
    Decision,
    NotScaled,
    Policy,
    StepScaling,
    Target,
    TargetTracking,
)

#: Seconds in which a scale-out says that the scale-in before it was a mistake; also the longest low load waited for.
REGRET = 600.0
#: Times that the wait for low load is doubled at most, and the bound of both in times of the low alarm's own.
_DOUBLINGS = 3
#: The load is gone where it is below this part of what the last scale-out was made for.
GONE = 0.1
#: Seconds after which a change that was never told fulfilled holds nothing back any more.
GIVEN_UP = 600.0
#: Seconds of capacity that are remembered, for the periods that alarms evaluate.
_MEMORY = 3600.0

FLAPPING = "AutoScalingAnticipatedFlapping"
AT_MOST, AT_LEAST = "AlreadyAtMaxCapacity", "AlreadyAtMinCapacity"
AT_DESIRED = "AlreadyAtDesiredCapacity"

NOBODY: Mapping[str, Sequence[Alarm]] = {}


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
    ``acted``: step alarm -> the evaluation that was last acted upon; ``doubled``: how often the time of low load was
    doubled."""

    history: tuple[Capacity, ...] = ()
    change: Change | None = None
    out_until: float = -math.inf
    out_base: int = 0
    in_until: float = -math.inf
    acted: tuple[tuple[str, float], ...] = ()
    last_in: ScaledIn | None = None
    last_out: ScaledOut | None = None
    doubled: int = 0


class _Voice(NamedTuple):
    """A policy's answer. ``needed``: must it agree to less?"""

    policy: Policy
    ask: Ask
    needed: bool


def decide(
    target: Target,
    policies: Sequence[Policy],
    readings: Mapping[str, AlarmReading],
    current: int,
    state: State,
    now: float,
    watchers: Mapping[str, Sequence[Alarm]] = NOBODY,
) -> tuple[Decision, State]:
    """One look at a target. ``readings``: alarm name -> its last evaluation, of target tracking's alarms and of the
    ``watchers``: ARN of a step policy -> the alarms that name it as an action (those whose actions are enabled).
    ``current``: the capacity that is recorded, ready or not. What is decided is taken for done unless ``current`` says
    otherwise at the next look; tell ``fulfilled`` when it is served."""
    state = _noticed(state, current, now)
    bounded = _bounded(target, current)
    if bounded is not None:
        return bounded, _changed(state, bounded, 0.0, now)
    present = Present(current, state.history, _base(state, now))
    voices = []
    for policy in policies:
        if isinstance(policy, TargetTracking):
            voices.append(_Voice(policy, tracking.ask(policy, readings, present), policy.low is not None))
        else:
            asked, state = _stepped(policy, watchers.get(policy.arn, ()), readings, present, state)
            voices.append(_Voice(policy, asked, asked.desired is not None and asked.desired < current))
    measured = tuple((voice.policy.name, voice.ask.words) for voice in voices)
    idle = Decision(target.resource, current, current, measured=measured)
    more = [voice for voice in voices if voice.ask.desired is not None and voice.ask.desired > current]
    if more:
        return _out(target, max(more, key=_desired), idle, state, now)
    needed = [voice for voice in voices if voice.needed]
    if needed and any(voice.ask.flapping for voice in needed):
        return replace(idle, not_scaled=(NotScaled(FLAPPING, current=current),)), state
    if needed and all(voice.ask.desired is not None and voice.ask.desired < current for voice in needed):
        return _in(target, max(needed, key=_desired), idle, readings, state, now)
    return _kept(target, policies, readings, idle), state


def burst(
    target: Target, policies: Sequence[Policy], pressure: Pressure, current: int, state: State, now: float
) -> tuple[Decision, State]:
    """More capacity for calls that wait, by the target tracking policy that asks for most (``bursting.wanted``); else
    nothing changes."""
    found = [
        (desired, policy)
        for policy in policies
        if isinstance(policy, TargetTracking)
        and (desired := bursting.wanted(target, policy, pressure, now)) is not None
        and desired > current
    ]
    idle = Decision(target.resource, current, current)
    if not found:
        return idle, state
    desired, policy = max(found, key=lambda each: each[0])
    words = f"{pressure.calls} calls in {pressure.window:g} s, {pressure.pending} pending for {pressure.ready} ready"
    decision = replace(
        idle,
        desired=desired,
        cause=f"waiting calls triggered policy {policy.name}",
        policy=policy.name,
        measured=((policy.name, words),),
    )
    state = _regretted(_noticed(state, current, now), math.inf, now)
    return decision, _changed(state, decision, policy.out_cooldown, now)


def wake(target: Target, current: int, state: State, now: float) -> tuple[Decision, State]:
    """The first capacity for a call that found none; nothing changes where there is some, or may be none."""
    desired = bursting.wake(target)
    idle = Decision(target.resource, current, current)
    if desired is None or current >= desired:
        return idle, state
    decision = replace(idle, desired=desired, cause="a call waited for capacity")
    return decision, _changed(_noticed(state, current, now), decision, 0.0, now)


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


# --- more, less -------------------------------------------------------------------------------------------------------


def _out(target: Target, voice: _Voice, idle: Decision, state: State, now: float) -> tuple[Decision, State]:
    asked = _desired(voice)
    if target.suspended_out:
        return _held(idle, "scaling out is suspended"), state
    desired = min(asked, target.maximum)
    kept = (NotScaled(AT_MOST, maximum=target.maximum, current=desired),) if asked > desired else ()
    if desired <= idle.current:
        return replace(idle, not_scaled=kept), state
    decision = replace(_triggered(idle, voice, desired), not_scaled=kept)
    cooldown = voice.policy.out_cooldown if isinstance(voice.policy, TargetTracking) else voice.policy.cooldown
    return decision, _changed(_regretted(state, float(asked), now), decision, cooldown, now)


def _in(
    target: Target, voice: _Voice, idle: Decision, readings: Mapping[str, AlarmReading], state: State, now: float
) -> tuple[Decision, State]:
    current = idle.current
    desired = max(_desired(voice), target.minimum)
    if target.suspended_in:
        return _held(idle, "scaling in is suspended"), state
    if desired >= current:
        return replace(idle, not_scaled=(NotScaled(AT_LEAST, minimum=target.minimum, current=current),)), state
    if state.change is not None:
        return _held(idle, "a change is on its way"), state
    if now < state.in_until:
        return _held(idle, f"the cooldown of scaling in runs for {state.in_until - now:.0f} s"), state
    low = voice.policy.low if isinstance(voice.policy, TargetTracking) else None
    if low is not None and (
        now - readings[low.name].since < _extra(low, state.doubled) or _too_soon(state, voice.ask, low, now)
    ):
        return replace(idle, not_scaled=(NotScaled(FLAPPING, current=current),)), state
    decision = _triggered(idle, voice, desired)
    cooldown = voice.policy.in_cooldown if isinstance(voice.policy, TargetTracking) else voice.policy.cooldown
    state = replace(
        state, last_in=ScaledIn(float(desired), now + (REGRET if low is None else _longest(low) * 2.0**state.doubled))
    )
    return decision, _changed(state, decision, cooldown, now)


def _kept(target: Target, policies: Sequence[Policy], readings: Mapping[str, AlarmReading], idle: Decision) -> Decision:
    """Nothing changes: because there is no less?"""
    lows = [policy.low.name for policy in policies if isinstance(policy, TargetTracking) and policy.low is not None]
    low = any(name in readings and readings[name].state == ALARM for name in lows)
    if not low or idle.current != target.minimum:
        return idle
    return replace(idle, not_scaled=(NotScaled(AT_LEAST, minimum=target.minimum, current=idle.current),))


def _stepped(
    policy: StepScaling,
    alarms: Sequence[Alarm],
    readings: Mapping[str, AlarmReading],
    present: Present,
    state: State,
) -> tuple[Ask, State]:
    """What a step policy asks for: once for each evaluation of an alarm, as an alarm goes on telling its actions while
    it is in ALARM; of several alarms the one that asks for most."""
    best = Ask(None)
    acted = dict(state.acted)
    for alarm in alarms:
        reading = readings.get(alarm.name)
        if reading is None:
            continue
        value = stepping.measured(policy, alarm, reading)
        words = f"{value:.4g} of {alarm.threshold:g} ({reading.state})"
        step = stepping.chosen(policy.steps, value - alarm.threshold) if reading.state == ALARM else None
        evaluation = reading.at // alarm.period
        if step is None or acted.get(alarm.name) == evaluation:
            best = best if best.words else best._replace(words=words)
            continue
        acted[alarm.name] = evaluation
        grows = step.adjustment > 0 and present.base is not None
        desired = stepping.changed(
            policy, step, present.base if grows and present.base is not None else present.current
        )
        if grows and desired <= present.current:
            desired = present.current
        if best.desired is None or desired > best.desired:
            best = Ask(desired, alarm.name, words)
    return best, replace(state, acted=tuple(acted.items()))


# --- what is remembered -----------------------------------------------------------------------------------------------


def _noticed(state: State, current: int, now: float) -> State:
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


def _changed(state: State, decision: Decision, cooldown: float, now: float) -> State:
    """A decision is on its way."""
    before, after = decision.current, decision.desired
    base = _base(state, now)
    history = state.history or (Capacity(-math.inf, before),)
    if after < before:
        return replace(state, history=history, change=Change(now, before, after, cooldown, before))
    change = Change(now, before, after, cooldown, before if base is None else base)
    last = ScaledOut(now, float(after))
    return replace(state, history=history, change=change, in_until=-math.inf, last_out=last)


def _cooling(state: State, change: Change, now: float) -> State:
    """The change is made: its cooldown begins."""
    if change.after > change.before:
        return replace(state, change=None, out_until=now + change.cooldown, out_base=change.base)
    return replace(state, change=None, in_until=now + change.cooldown)


def _base(state: State, now: float) -> int | None:
    """The capacity before the scale-out that is on its way or whose cooldown runs; None: there is none."""
    change = state.change
    if change is not None and change.after > change.before:
        return change.base
    return state.out_base if now < state.out_until else None


def _regretted(state: State, asked: float, now: float) -> State:
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


def _too_soon(state: State, less: Ask, low: Alarm, now: float) -> bool:
    """Was the last scale-out a moment ago, for a load that is still there, as far as can be told?"""
    last = state.last_out
    if last is None or less.load is None or now - last.at >= _longest(low) * 2.0**state.doubled:
        return False
    return less.load > GONE * last.load


def _extra(low: Alarm, doubled: int) -> float:
    """Seconds that the low alarm must have been in ALARM before less is given."""
    own = low.period * low.evaluations
    return min(own * 2.0**doubled, max(own, REGRET)) - own


def _longest(low: Alarm) -> float:
    return min(REGRET, low.period * low.evaluations * 2.0**_DOUBLINGS)


def _recent(history: tuple[Capacity, ...], now: float) -> tuple[Capacity, ...]:
    """Without what no alarm looks at any more; the last one before that stays."""
    first = max((index for index, each in enumerate(history) if each.since <= now - _MEMORY), default=0)
    return history[first:]


# --- words ------------------------------------------------------------------------------------------------------------


def _bounded(target: Target, current: int) -> Decision | None:
    """The decision that brings ``current`` within the target's bounds; None: it is."""
    if current < target.minimum:
        cause = f"minimum capacity was set to {target.minimum}"
        return Decision(target.resource, current, target.minimum, cause)
    if current > target.maximum:
        cause = f"maximum capacity was set to {target.maximum}"
        return Decision(target.resource, current, target.maximum, cause)
    return None


def _triggered(idle: Decision, voice: _Voice, desired: int) -> Decision:
    cause = f"monitor alarm {voice.ask.alarm} in state ALARM triggered policy {voice.policy.name}"
    return replace(idle, desired=desired, cause=cause, policy=voice.policy.name)


def _held(idle: Decision, why: str) -> Decision:
    """Nothing changes, for a reason that AWS has no code for."""
    return replace(idle, measured=(*idle.measured, ("", why)))


def _desired(voice: _Voice) -> int:
    assert voice.ask.desired is not None
    return voice.ask.desired
