"""Alarms, evaluated as their periods end: what was measured against what was promised.

::

    records ──► touched ones read again
    every period ──► values (Readings, metric maths) ──► alarming.evaluate ──► AlarmReading
                                                            ├──► those who listen, at once
                                                            └──► the store, when the state is another: in batches

Alarms only say what is: policies act on them (``fleet/autoscaling.py``), and so do guarded rollouts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from weakref import WeakValueDictionary

import orjson

from serving.errors import ServingError
from serving.fleet import alarm_records
from serving.fleet.alarm_records import ALARM
from serving.fleet.alarm_values import Values, Window
from serving.fleet.endpoints import retry_pause
from serving.fleet.scaling_records import alarm_of
from serving.fleet.store import Record, Session, Stale, StoreThread
from serving.scaling.alarming import evaluate, periods
from serving.scaling.values import ALARM as ALARM_STATE
from serving.scaling.values import NO_DATA, OK, Alarm, AlarmReading, Query, Readings
from serving.watch.metrics import Registry

#: Told of an endpoint, a variant of it ("" = any) and, in words, of an alarm that has come to another state.
Note = Callable[[str, str, str], None]

#: All records are read again so often, whoever forgot to say that one has changed or gone.
_REREAD_SECONDS = 60.0
_MOST_TOLD = 100
#: How the names of target tracking policies' alarms begin.
_TRACKING = "TargetTracking-"

log = logging.getLogger("serving.fleet")


@dataclass(slots=True)
class _Kept:
    """An alarm as it is evaluated. ``record``: its record's name; ``stamp``: when the state that its record holds was
    found, as far as it is known here; ``due``: epoch seconds; ``seen``: the values that ``reading`` comes of, None when
    it comes of none."""

    record: str
    alarm: Alarm
    window: Window
    reading: AlarmReading
    stamp: float
    due: float = 0.0
    seen: Values | None = None


class Alarms:
    """All alarms. Not for other threads, but for ``reading``, ``specs`` and ``all_readings``."""

    def __init__(
        self,
        thread: StoreThread,
        readings: Readings,
        clock: Callable[[], float] = time.time,
        on_evaluated: Callable[[], None] = lambda: None,
        registry: Registry | None = None,
        note: Note = lambda endpoint, variant, text: None,
    ) -> None:
        """``on_evaluated``: a round is over; told too when alarms have come, changed or gone. ``clock``: epoch
        seconds; ``registry`` gets the count of alarms by state; ``note`` keeps what people may see (``History.note``):
        what users' own alarms say of endpoints."""
        self._thread = thread
        self._readings = readings
        self._windows: WeakValueDictionary[tuple[tuple[Query, ...], float], Window] = WeakValueDictionary()
        self._clock = clock
        self._on_evaluated = on_evaluated
        self._registry = registry
        self._note = note
        self._kept: dict[str, _Kept] = {}
        self._touched: set[str] = set()
        self._reread = 0.0
        self._unwritten: dict[str, AlarmReading] = {}
        self._again, self._to_write = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to evaluate."""
        self._tasks = [asyncio.create_task(self._loop()), asyncio.create_task(self._write_forever())]

    def close(self) -> None:
        """Stop; a state that has not been written down will be found again."""
        for task in self._tasks:
            task.cancel()

    def touch(self, tags: Iterable[str]) -> None:
        """These alarms have come, changed, gone, or been set to a state (``alarm_records.tag``)."""
        self._touched.update(tag.partition("/")[2] for tag in tags)
        if self._touched:
            self._again.set()

    def reading(self, name: str) -> AlarmReading | None:
        """The alarm at its last evaluation; None when there is no such alarm."""
        kept = self._kept.get(name)
        return kept.reading if kept else None

    def specs(self) -> Mapping[str, Alarm]:
        """All alarms by name."""
        return {name: kept.alarm for name, kept in list(self._kept.items())}

    def all_readings(self) -> Mapping[str, AlarmReading]:
        """All of them at their last evaluation."""
        return {name: kept.reading for name, kept in list(self._kept.items())}

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        failures = 0
        while True:
            self._again.clear()
            try:
                pause, failures = await self.look(), 0
            except Exception as error:
                if not isinstance(error, ServingError):
                    log.exception("alarms could not be evaluated")
                pause = retry_pause(failures)
                failures += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), pause)

    async def look(self) -> float:
        """Do all there is to do now; the seconds until there is more. Raises ``ServiceUnavailable``."""
        changed = await self._read_again()
        evaluated = self._evaluate_due(self._clock())
        if changed or evaluated:
            self._on_evaluated()
            self._count()
        due = min((kept.due for kept in self._kept.values()), default=math.inf)
        return max(min(due, self._reread) - self._clock(), 0.0)

    def _count(self) -> None:
        if self._registry is not None:
            states = Counter(kept.reading.state for kept in self._kept.values())
            for state in (OK, ALARM_STATE, NO_DATA):
                self._registry.counter("sagemaker_alarms", state).set(float(states[state]))

    def _evaluate_due(self, now: float) -> int:
        """Evaluate those whose period has ended; how many there were."""
        kept_all = self._kept.items()
        due = [(name, kept) for name, kept in kept_all if not now < kept.due <= now + kept.alarm.period]
        for name, kept in due:
            alarm = kept.alarm
            end = math.floor(now / alarm.period) * alarm.period
            kept.due = end + alarm.period
            values = _values(alarm, kept.window, end)
            if values == kept.seen:
                was = kept.reading  # of the same values comes the same
                kept.reading = AlarmReading(was.state, was.reason, was.values, was.since, now, end)
            else:
                kept.seen = values
                self._come_to(name, kept, evaluate(alarm, values, kept.reading, now, end))
        return len(due)

    def _come_to(self, name: str, kept: _Kept, reading: AlarmReading) -> None:
        before, kept.reading = kept.reading, reading
        if reading.state == before.state:
            return
        self._unwritten[name] = reading
        self._to_write.set()
        self._tell(kept.alarm, before, reading)

    def _tell(self, alarm: Alarm, before: AlarmReading, reading: AlarmReading) -> None:
        """Those of target tracking policies come and go; what they lead to is told elsewhere."""
        if {before.state, reading.state} == {NO_DATA, OK} or alarm.name.startswith(_TRACKING):
            return
        named = [dict(query.stat.metric.dimensions) for query in alarm.queries if query.stat]
        places = {(one["EndpointName"], one.get("VariantName", "")) for one in named if "EndpointName" in one}
        for endpoint, variant in sorted(places):
            self._note(endpoint, variant, f"alarm {alarm.name}: {before.state} -> {reading.state}")

    # -- the store ------------------------------------------------------------------------------------------------

    async def _read_again(self) -> bool:
        """Take in what has changed in the store; did anything?"""
        now = self._clock()
        if not now < self._reread <= now + _REREAD_SECONDS:
            self._touched.clear()
            records = await self._thread.read(lambda session: session.every(ALARM))
            self._reread = now + _REREAD_SECONDS
            gone = {kept.record for kept in self._kept.values()} - {record.name for record in records}
            return self._take_in(records, gone)
        if not self._touched:
            return False
        names = list(self._touched)
        found = await self._thread.read(lambda session: [session.get(ALARM, name) for name in names])
        self._touched.difference_update(names)
        records = [record for record in found if record is not None]
        return self._take_in(records, set(names) - {record.name for record in records})

    def _take_in(self, records: Iterable[Record], gone: Collection[str]) -> bool:
        """Records as they are now, and the names of those that are no more."""
        for name in [name for name, kept in self._kept.items() if kept.record in gone]:
            del self._kept[name]
        changed = [self._take(record) for record in records]
        return bool(gone) or any(changed)

    def _take(self, record: Record) -> bool:
        name, stored = record.body["AlarmName"], alarm_records.stored_reading(record)
        kept = self._kept.get(name)
        try:
            alarm = alarm_of(record.body)
        except ServingError as error:
            log.warning("alarm %s is not evaluated: %s", name, error.message)
            self._kept.pop(name, None)
            return False
        if kept is None:
            self._kept[name] = _Kept(record.name, alarm, self._window(alarm), stored, stored.at)
            return True
        changed = kept.alarm != alarm
        if changed:
            kept.alarm, kept.window, kept.seen, kept.due = alarm, self._window(alarm), None, 0.0
        return self._adopt(name, kept, stored) or changed

    def _window(self, alarm: Alarm) -> Window:
        """One for all alarms that look at the same."""
        key = alarm.queries, alarm.period
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(self._readings, *key)
        return window

    def _adopt(self, name: str, kept: _Kept, stored: AlarmReading) -> bool:
        """SetAlarmState: it counts until the next evaluation says otherwise."""
        if stored.at == kept.stamp:
            return False
        kept.stamp = stored.at
        if stored.state == kept.reading.state:
            return False
        self._unwritten.pop(name, None)
        before, kept.reading, kept.seen = kept.reading, stored, None
        self._tell(kept.alarm, before, stored)
        return True

    async def _write_forever(self) -> None:
        failures = 0
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            try:
                await self.write()
                failures = 0
            except (ServingError, Stale) as error:
                log.warning("states of alarms could not be written: %s", error)
                self._to_write.set()
                await asyncio.sleep(retry_pause(failures))  # the store may come back
                failures += 1

    async def write(self) -> None:
        """Write down the states that alarms have come to, all at once. Raises ``ServiceUnavailable``, ``Stale``."""
        batch, self._unwritten = self._unwritten, {}
        specs = {name: self._kept[name].alarm for name in batch if name in self._kept}
        try:
            await self._thread.write(partial(_write, batch, specs))
        except (ServingError, Stale):
            self._unwritten = batch | self._unwritten
            raise
        for name, reading in batch.items():
            if name in self._kept:
                self._kept[name].stamp = reading.at


def _values(alarm: Alarm, window: Window, end: float) -> Values:
    """What was measured of late; nothing where that fails, which must not hold up the other alarms: told once."""
    try:
        values = window.of(periods(alarm), end)
    except Exception as error:
        if not window.failing:
            log.warning("alarm %s: %s", alarm.name, error, exc_info=not isinstance(error, ServingError))
        window.failing = True
        return (None,) * periods(alarm)
    window.failing = False
    return values


def _write(batch: Mapping[str, AlarmReading], specs: Mapping[str, Alarm], session: Session) -> None:
    for name, reading in batch.items():
        record = alarm_records.get(session, name)
        if record is None or name not in specs or alarm_records.stored_reading(record).at > reading.at:
            continue  # it has gone, or been set to another state since
        alarm_records.change_state(session, record, reading, _data(specs[name], reading))


def _data(alarm: Alarm, reading: AlarmReading) -> str:
    """StateReasonData, as CloudWatch writes it."""
    stat = alarm.queries[0].stat
    data = {
        "version": "1.0",
        "queryDate": datetime.fromtimestamp(reading.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
        "statistic": stat.statistic if stat else None,
        "period": alarm.period,
        "recentDatapoints": [value for value in reading.values[-_MOST_TOLD:] if value is not None],
        "threshold": alarm.threshold,
    }
    return orjson.dumps({name: value for name, value in data.items() if value is not None}).decode()
