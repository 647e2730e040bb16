"""Capacity for calls that wait: decided in a second, without waiting for an alarm; it never takes any away.

A front reports a pool while more calls are pending than workers are ready. That becomes capacity only where a target
tracking policy's own metric is at least twice its target, where that is no chance, and where calls waited all through
the window: less than that is left to the policy's alarm (``behaviour/07``; the idea is Knative's panic window, which
also begins at 200 % of the target).

No burst is answered from a metric that the fronts do not see as it happens, such as CPU or a latency.
"""

from __future__ import annotations

from typing import NamedTuple

from serving.scaling import tracking
from serving.scaling.chance import at_least
from serving.scaling.values import MINUTE, Resource, Target, TargetTracking

#: From this many times the target on it is a burst.
BURST = 2.0
#: A count of calls above the target's rate is believed where it is rarer than this by chance.
RARE = 1e-6
#: Seconds after which a report tells nothing about now.
STALE = 1.0


class Pressure(NamedTuple):
    """Calls that wait, as the fronts saw them over the last ``window`` seconds before ``at``: ``calls`` that arrived,
    the fewest ``pending`` (waiting or running) at any reading and the latest, and the ``ready`` workers."""

    resource: Resource
    at: float
    window: float
    calls: int
    pending_least: int
    pending: int
    ready: int


def wanted(target: Target, policy: TargetTracking, pressure: Pressure, now: float) -> int | None:
    """The capacity that this burst needs by ``policy``, within the target's bounds; None: it is no burst."""
    if target.suspended_out or not 0 <= now - pressure.at <= STALE:
        return None
    if pressure.ready < 1 or pressure.window <= 0 or pressure.pending_least <= pressure.ready:
        return None
    demand = _demand(policy, pressure)
    if demand is None or demand < BURST * pressure.ready:
        return None
    needed = tracking.whole(demand)
    if tracking.counts_calls(policy.high):
        needed = tracking.plausible(pressure.calls, policy.value * pressure.window / MINUTE, pressure.ready, needed)
    capacity = max(target.minimum, min(needed, target.maximum))
    return capacity if capacity > pressure.ready else None


def wake(target: Target) -> int | None:
    """The capacity for a call that found none; None: this target may not have any."""
    if target.suspended_out or target.maximum < 1:
        return None
    return max(1, target.minimum)


def _demand(policy: TargetTracking, pressure: Pressure) -> float | None:
    """Workers at the target's rate that the calls keep busy; None: chance, or nothing that pressure tells."""
    if tracking.counts_calls(policy.high):
        usual = pressure.ready * policy.value * pressure.window / MINUTE
        if at_least(pressure.calls, usual) >= RARE:
            return None
        return pressure.calls / pressure.window * MINUTE / policy.value
    if tracking.counts_concurrency(policy.high):
        return pressure.pending_least / policy.value
    return None
