"""Alarms and what has happened to them, as records of the store.

An alarm (kind ``alarm``; status: its StateValue) is kept as PutMetricAlarm was given, with the state it came to::

    {"AlarmName": "high", "MetricName": …, "Period": 60, …, "AlarmConfigurationUpdatedTimestamp": 1.0,
     "StateReason": "…", "StateReasonData": "{…}", "StateUpdatedTimestamp": 1.0, "StateTransitionedTimestamp": 1.0}

Those of a target tracking policy carry ``Policy`` and ``PerMinute`` besides (``fleet/scaling_records.py``). Names of
alarms mind case, those of records do not: a record is named by its alarm's digest, and so is its tag,
``alarm/DIGEST``. A history item (kind ``alarm-history``; parent: its alarm's digest; status: its HistoryItemType) holds
HistorySummary and HistoryData, and outlives its alarm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from serving.fleet.records import Query, Record, Session
from serving.scaling.values import NO_DATA, AlarmReading

ALARM, HISTORY = "alarm", "alarm-history"

#: History items of one alarm, and of all.
MOST_ITEMS, MOST_OF_ALL = 100, 20_000
_NEW_REASON = "Unchecked: Initial alarm creation"
#: What AWS's model allows of a history item's texts.
_LONGEST_SUMMARY, _LONGEST_DATA = 255, 4095
#: So many are written before all are counted again.
_SURPLUS = 100
#: StateReasonData that a history item repeats: two of them fit.
_LONGEST_TOLD = 1000
#: What PutMetricAlarm leaves as it is.
_STATE = ("StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp")


def key(name: str) -> str:
    """The name of an alarm's record."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def tag(name: str) -> str:
    """How actions and drivers call an alarm's record."""
    return f"{ALARM}/{key(name)}"


def get(session: Session, name: str) -> Record | None:
    """The alarm of this name."""
    return session.get(ALARM, key(name))


def put(session: Session, body: Mapping[str, Any], now: float) -> Record:
    """Keep an alarm as PutMetricAlarm says: a new one, or all but the state of one that is there. Raises ``Stale``."""
    name = body["AlarmName"]
    kept = {**body, "AlarmConfigurationUpdatedTimestamp": now}
    before = get(session, name)
    if before is None:
        kept |= {"StateReason": _NEW_REASON, "StateUpdatedTimestamp": now, "StateTransitionedTimestamp": now}
        record = Record(ALARM, key(name), kept, now, now, status=NO_DATA)
        session.add(record)
    else:
        kept |= {member: before.body[member] for member in _STATE if member in before.body}
        record = session.change(before, now=now, body=kept)
    _configured(session, record, "updated" if before else "created", now)
    return record


def remove(session: Session, name: str, now: float) -> bool:
    """Forget an alarm, not its history. False: there was none."""
    record = get(session, name)
    if record is None:
        return False
    session.remove(ALARM, record.name)
    _configured(session, record, "deleted", now)
    return True


def change_state(session: Session, record: Record, reading: AlarmReading, data: str = "") -> Record:
    """The alarm in the state of ``reading``, and a history item if it is another. ``data``: JSON about it. Raises
    ``Stale``."""
    changed = reading.state != record.status
    body = {**record.body, "StateReason": reading.reason, "StateUpdatedTimestamp": reading.at}
    body.pop("StateReasonData", None)
    if data:
        body["StateReasonData"] = data
    if changed:
        body["StateTransitionedTimestamp"] = reading.since
        summary = f"Alarm updated from {record.status} to {reading.state}"
        what = {"version": "1.0", "oldState": _said(record.status, record.body), "newState": _said(reading.state, body)}
        _note(session, record, "StateUpdate", summary, what, reading.at)
    return session.change(record, now=record.modified, body=body, status=reading.state)


def stored_reading(record: Record) -> AlarmReading:
    """The state that an alarm was left in."""
    body = record.body
    since = body.get("StateTransitionedTimestamp", record.created)
    at = body.get("StateUpdatedTimestamp", record.created)
    return AlarmReading(record.status or NO_DATA, body.get("StateReason", _NEW_REASON), (), since, at)  # type: ignore[arg-type]  # one of three words


def _said(state: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A state as history tells it."""
    told: dict[str, Any] = {"stateValue": state, "stateReason": body.get("StateReason", "")}
    if 0 < len(body.get("StateReasonData", "")) <= _LONGEST_TOLD:
        told["stateReasonData"] = body["StateReasonData"]
    return told


def _configured(session: Session, record: Record, verb: str, now: float) -> None:
    what = {"version": "1.0", "type": verb.removesuffix("d").capitalize()}
    _note(session, record, "ConfigurationUpdate", f'Alarm "{record.body["AlarmName"]}" {verb}', what, now)


def _note(session: Session, record: Record, kind: str, summary: str, data: Mapping[str, Any], now: float) -> None:
    """Write a history item, and forget the oldest of too many."""
    body = {
        "AlarmName": record.body["AlarmName"],
        "HistorySummary": summary[:_LONGEST_SUMMARY],
        "HistoryData": orjson.dumps(data).decode()[:_LONGEST_DATA],
    }
    number = session.next_number(HISTORY)
    session.add(Record(HISTORY, f"{number:012}", body, now, now, status=kind, parent=record.name))
    _trim(session, Query(HISTORY, descending=False, parent=record.name), MOST_ITEMS)
    if number % _SURPLUS == 0:
        _trim(session, Query(HISTORY, descending=False), MOST_OF_ALL)


def _trim(session: Session, query: Query, most: int) -> None:
    surplus = session.count(HISTORY, query.parent) - most
    if surplus > 0:
        oldest, _ = session.find(replace(query, limit=min(surplus, _SURPLUS)))
        for one in oldest:
            session.remove(HISTORY, one.name)
