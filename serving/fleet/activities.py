"""Scaling activities: what was done about capacity, why, and how it ended, as records of the store.

The record (kind ``scaling-activity``; name: its ActivityId; parent: the ResourceId; facet: the ScalableDimension;
status: its StatusCode; created: its StartTime)::

    {"Description": "Setting desired instance count to 4.",
     "Cause": "monitor alarm A in state ALARM triggered policy P",
     "StatusMessage": "…", "EndTime": 1.0, "Before": 1, "Desired": 4, "Wanted": 6}

The last three are ours: the capacity there was, the one that was set, and what was asked of the machine, which may have
less. Those that
only say why nothing was done are not kept here (``decision_log.py``). (Application Auto Scaling API, ScalingActivity;
``api/06``.)
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from serving.fleet.records import Query, Record, Session
from serving.scaling.values import COPIES, INSTANCES, PROVISIONED, NotScaled, Resource

ACTIVITY = "scaling-activity"
OPEN = ("Pending", "InProgress")

#: Activities are kept so long (AWS's six weeks), and so many of one target, and of all.
_KEPT_SECONDS = 42 * 86_400.0
_MOST, _MOST_OF_ALL = 500, 20_000
_PAGE = 50

_NOUNS: Mapping[str, str] = {
    INSTANCES: "desired instance count",
    COPIES: "desired copy count",
    PROVISIONED: "desired provisioned concurrency",
}


def setting(resource: Resource, desired: int) -> str:
    """What is being set, as AWS says it: ``desired instance count to 4``."""
    return f"{_NOUNS[resource.dimension]} to {desired}"


class Counts(NamedTuple):
    """A capacity: what there was, what is set, what is wanted."""

    before: int
    desired: int
    wanted: int


def begin(session: Session, resource: Resource, counts: Counts, cause: str, now: float) -> Record:
    """A change of capacity that is on its way; those that were are overridden."""
    override(session, resource, now)
    what = setting(resource, counts.desired)
    body = {
        "Description": f"Setting {setting(resource, counts.wanted)}.",
        "Cause": cause,
        "StatusMessage": f"Successfully set {what}. Waiting for change to be fulfilled by sagemaker.",
        "Before": counts.before,
        "Desired": counts.desired,
        "Wanted": counts.wanted,
    }
    return _add(session, resource, body, "InProgress", now)


def note(session: Session, resource: Resource, body: Mapping[str, Any], status: str, now: float) -> Record:
    """Something that has ended as it began: ``body`` has its Description, Cause and StatusMessage."""
    return _add(session, resource, {**body, "EndTime": now}, status, now)


def unfulfilled(session: Session, resource: Resource, wanted: int, cause: str, shortage: str, now: float) -> Record:
    """The machine has no room for any of what was wanted."""
    what = setting(resource, wanted)
    message = f"Failed to set {what}. Change could not be fulfilled by sagemaker: {shortage}"
    body = {"Description": f"Setting {what}.", "Cause": cause, "StatusMessage": message}
    return note(session, resource, body, "Unfulfilled", now)


def reason(one: NotScaled) -> dict[str, Any]:
    """A NotScaledReason as the API has it."""
    values = {"MaxCapacity": one.maximum, "MinCapacity": one.minimum, "CurrentCapacity": one.current}
    return {"Code": one.code, **{name: value for name, value in values.items() if value is not None}}


def end(session: Session, name: str, now: float, failure: str = "", shortage: str = "") -> Record | None:
    """Close a change that was on its way: Successful, Failed because of ``failure``, or Unfulfilled where the machine
    had a ``shortage``. None: it has gone, or ended before."""
    record = session.get(ACTIVITY, name)
    if record is None or record.status not in OPEN:
        return None
    what = setting(Resource(record.parent, record.facet), record.body["Desired"])
    if failure:
        status, message = "Failed", f"Failed to set {what}. Reason: {failure}"
    elif record.body["Wanted"] > record.body["Desired"]:
        status = "Unfulfilled"
        message = f"Successfully set {what}. Change could not be fulfilled further by sagemaker: {shortage}"
    else:
        status = "Successful"
        message = f"Successfully set {what}. Change successfully fulfilled by sagemaker."
    return _close(session, record, status, message, now)


def override(session: Session, resource: Resource, now: float) -> None:
    """Whatever is on its way for this resource counts no longer: something else is asked for."""
    for status in OPEN:
        query = Query(ACTIVITY, parent=resource.id, facet=resource.dimension, status=status, limit=_PAGE)
        for record in session.find(query)[0]:
            what = setting(resource, record.body["Desired"])
            message = f"Successfully set {what}. Change was overridden by a newer one."
            _close(session, record, "Overridden", message, now)


def latest(session: Session, resource: Resource, count: int) -> list[Record]:
    """The newest activities of a resource, newest first."""
    return session.find(Query(ACTIVITY, parent=resource.id, facet=resource.dimension, limit=count))[0]


def told(record: Record) -> dict[str, Any]:
    """An activity in the API's words, but for its key; times are epoch seconds."""
    kept = {name: value for name, value in record.body.items() if name not in ("Before", "Desired", "Wanted")}
    return {"ActivityId": record.name, "StartTime": record.created, "StatusCode": record.status, **kept}


def _close(session: Session, record: Record, status: str, message: str, now: float) -> Record:
    body = {**record.body, "StatusMessage": message, "EndTime": now}
    return session.change(record, now=now, status=status, body=body)


def _add(session: Session, resource: Resource, body: Mapping[str, Any], status: str, now: float) -> Record:
    record = Record(ACTIVITY, str(uuid.uuid4()), body, now, now, status, resource.id, resource.dimension)
    session.add(record)
    _prune(session, Query(ACTIVITY, parent=resource.id, descending=False), _MOST)
    _prune(session, Query(ACTIVITY, descending=False), _MOST_OF_ALL)
    _prune(session, Query(ACTIVITY, descending=False, created_before=now - _KEPT_SECONDS))
    return record


def _prune(session: Session, query: Query, most: int = 0) -> None:
    """Forget the oldest that the query finds, beyond ``most``."""
    surplus = session.count(ACTIVITY, query.parent) - most if most else _PAGE
    if surplus > 0:
        for record in session.find(replace(query, limit=min(surplus, _PAGE)))[0]:
            session.remove(ACTIVITY, record.name)
