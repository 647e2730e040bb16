"""What is known of one scalable target: its limits and policies, its capacity as recorded, what has been remembered."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from serving.fleet import capacity, scaling_records
from serving.fleet.endpoints import COMPONENT, tag
from serving.fleet.records import Record, Session
from serving.scaling import bursting
from serving.scaling.remembering import State
from serving.scaling.values import ALARM, Alarm, AlarmReading, Policy, Resource, StepScaling, Target, TargetTracking

#: Kinds of records whose change is a change here.
KINDS = frozenset({scaling_records.TARGET, scaling_records.POLICY, scaling_records.ACTION})


@dataclass(slots=True)
class Scaled:
    """A target. ``endpoint``, ``name``: as the routing table and metrics call it; ``tag``: of the record that holds its
    capacity; ``count``: that capacity, None = none that could be scaled; ``refusal``: why it cannot be set now.
    ``acting``: it is being changed at this moment. ``failures``: changes in a row that have failed; after them no more
    is asked for until ``held_until`` (``time.monotonic``)."""

    target: Target
    policies: tuple[Policy, ...]
    endpoint: str
    name: str
    tag: str
    count: int | None
    refusal: str
    state: State = field(default_factory=State)
    acting: bool = False
    held_until: float = 0.0
    failures: int = 0
    _looked: list[object] | None = None

    def following(self, before: Scaled | None) -> Scaled:
        """This, newly read, with what ``before`` remembers: itself, so that nobody holds on to an older one."""
        if before is None:
            return self
        before.target, before.policies = self.target, self.policies
        before.endpoint, before.name, before.tag = self.endpoint, self.name, self.tag
        before.count, before.refusal = self.count, self.refusal
        return before

    @property
    def step_arns(self) -> list[str]:
        """The ARNs of its step scaling policies."""
        return [policy.arn for policy in self.policies if isinstance(policy, StepScaling)]

    def rests(self, readings: Mapping[str, AlarmReading], watchers: Mapping[str, Sequence[Alarm]]) -> bool:
        """Would another look (``deciding.decide``) come to the same as the last one? So it is with most targets most of
        the time: no alarm asks for anything that could be given, and the alarms' states, limits, policies and capacity
        are what they were. The next look counts as taken."""
        before, self._looked = self._looked, None
        target = self.target
        if self.count is None or self.state.change is not None or not target.minimum <= self.count <= target.maximum:
            return False
        states: list[object] = [self.count, target, self.policies]
        for policy in self.policies:
            if isinstance(policy, TargetTracking):
                more, less = [policy.high], [policy.low] if policy.low is not None else []
            else:
                more, less = list(watchers.get(policy.arn, ())), []
            if _any_in_alarm(more, readings) or (self.count > target.minimum and _any_in_alarm(less, readings)):
                return False
            seen = [(alarm.name, readings.get(alarm.name)) for alarm in (*more, *less)]
            states.append([(name, reading and reading.state) for name, reading in seen])
        self._looked = states
        return before == states

    def is_held(self) -> bool:
        """Is no more asked for, as it has failed of late?"""
        return time.monotonic() < self.held_until

    def elastic(self, hold: float) -> dict[str, Any]:
        """What fronts do for it (``Autoscaling.elastic``). ``hold``: seconds that calls wait where there is nothing."""
        tracked = any(isinstance(policy, TargetTracking) for policy in self.policies)
        return {
            "hold": hold if bursting.wake(self.target) is not None else 0.0,
            "report": tracked and not self.target.suspended_out,
        }


def _any_in_alarm(alarms: Sequence[Alarm], readings: Mapping[str, AlarmReading]) -> bool:
    found = (readings.get(alarm.name) for alarm in alarms)
    return any(reading is not None and reading.state == ALARM for reading in found)


def shifted(state: State, seconds: float) -> State:
    """What is remembered, by a clock that has been set forward by so many seconds: cooldowns last as long as ever."""
    change, last_in, last_out = state.change, state.last_in, state.last_out
    return replace(
        state,
        history=tuple(one._replace(since=one.since + seconds) for one in state.history),
        change=change and change._replace(at=change.at + seconds),
        out_until=state.out_until + seconds,
        in_until=state.in_until + seconds,
        last_in=last_in and last_in._replace(until=last_in.until + seconds),
        last_out=last_out and last_out._replace(at=last_out.at + seconds),
    )


def read(session: Session) -> list[Scaled]:
    """All targets of what exists, oldest first."""
    policies = scaling_records.policies(session)
    known: dict[capacity.Place, Record | None] = {}
    found = []
    for target in scaling_records.targets(session):
        where = capacity.place(target.resource)._replace(variant="")
        if where not in known:
            known[where] = session.get(where.kind, where.name)
        record = known[where]
        if record is not None and record.status != "Deleting":
            found.append(_scaled(target, tuple(policies.get(target.resource, ())), record))
    return found


def _scaled(target: Target, policies: tuple[Policy, ...], record: Record) -> Scaled:
    resource: Resource = target.resource
    component = record.kind == COMPONENT
    return Scaled(
        target,
        policies,
        endpoint=record.parent if component else record.name,
        name=record.name if component else capacity.place(resource).variant,
        tag=tag(record.kind, record.name),
        count=capacity.count(record, resource),
        refusal=capacity.refusal(record, resource),
    )
