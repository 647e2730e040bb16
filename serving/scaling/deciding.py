"""Which capacity a scalable target gets: the policies' answers made one, within bounds, cooldowns and suspensions.

::

    outside Min..Max    brought within, at once
    any policy: more    the largest; never more than Max
    all policies: less  the largest of what they ask; not while a scale-in's cooldown runs or a change is on its way;
                        "all" are the target tracking ones that may scale in, and the steps that ask for less

A cooldown starts when its change is fulfilled. A scale-out's lets larger ones through, with what was added counted as
present (2 were added, the alarm now asks for 3: 1 more), and a scale-out ends the cooldown of a scale-in.

What is not done because it would soon be undone: ``tracking`` (chance) and ``remembering`` (mistakes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from serving.scaling import bursting, remembering, stepping, tracking
from serving.scaling.bursting import Pressure
from serving.scaling.remembering import State, dropped, fulfilled
from serving.scaling.tracking import Ask, Present
from serving.scaling.values import (
    ALARM,
    Alarm,
    AlarmReading,
    Decision,
    NotScaled,
    Policy,
    Step,
    StepScaling,
    Target,
    TargetTracking,
)

#: What others need of deciding, with what is told of its decisions (``remembering``).
__all__ = ["State", "burst", "decide", "dropped", "fulfilled", "wake"]

FLAPPING = "AutoScalingAnticipatedFlapping"
AT_MOST, AT_LEAST = "AlreadyAtMaxCapacity", "AlreadyAtMinCapacity"

NOBODY: Mapping[str, Sequence[Alarm]] = {}


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
    state = remembering.noticed(state, current, now)
    bounded = _bounded(target, current)
    if bounded is not None:
        return bounded, remembering.changed(state, bounded, 0.0, now)
    present = Present(current, state.history, remembering.base(state, now), target.minimum)
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
    state = remembering.regretted(remembering.noticed(state, current, now), math.inf, now)
    return decision, remembering.changed(state, decision, policy.out_cooldown, now)


def wake(target: Target, current: int, state: State, now: float) -> tuple[Decision, State]:
    """The first capacity for a call that found none; nothing changes where there is some, or may be none."""
    desired = bursting.wake(target)
    idle = Decision(target.resource, current, current)
    if desired is None or current >= desired:
        return idle, state
    decision = replace(idle, desired=desired, cause="a call waited for capacity")
    return decision, remembering.changed(remembering.noticed(state, current, now), decision, 0.0, now)


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
    return decision, remembering.changed(remembering.regretted(state, float(asked), now), decision, cooldown, now)


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
    if low is not None and not remembering.seen(state, low, readings[low.name]):
        return _held(idle, "capacity was added a moment ago"), state
    if low is not None and remembering.premature(state, voice.ask, low, now):
        return replace(idle, not_scaled=(NotScaled(FLAPPING, current=current),)), state
    decision = _triggered(idle, voice, desired)
    cooldown = voice.policy.in_cooldown if isinstance(voice.policy, TargetTracking) else voice.policy.cooldown
    state = remembering.scaled_in(state, float(desired), low, now)
    return decision, remembering.changed(state, decision, cooldown, now)


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
        desired = _after_step(policy, step, present)
        if best.desired is None or desired > best.desired:
            best = Ask(desired, alarm.name, words)
    return best, replace(state, acted=tuple(acted.items()))


def _after_step(policy: StepScaling, step: Step, present: Present) -> int:
    """The capacity after a step; a growing one counts from before the scale-out whose cooldown runs, and takes nothing
    back of what that gave."""
    if policy.kind == "ExactCapacity" or step.adjustment <= 0 or present.base is None:
        return stepping.changed(policy, step, present.current)
    return max(present.current, stepping.changed(policy, step, present.base))


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
