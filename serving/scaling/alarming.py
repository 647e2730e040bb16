"""The state of an alarm, as CloudWatch evaluates it: M of N, and what a period without data counts as.

CloudWatch looks back over a few periods more than it needs (5 for N = 3), and uses the latest N that have data. Only
where there are fewer than N does ``TreatMissingData`` come in, for as few periods as possible (CloudWatch User Guide,
"How alarm state is evaluated when data is missing"; 0 fine, X breaching, - no data, oldest first)::

    M = N = 3  missing  ignore  breaching  notBreaching     M = 2, N = 3  missing  ignore  breaching  notBreaching
    0 - X - X  OK       OK      OK         OK               0 - X - X     ALARM    ALARM   ALARM      ALARM
    - - - - 0  OK       OK      OK         OK               0 - X - -     OK       OK      ALARM      OK
    - - - - -  no data  as is   ALARM      OK               - - - - 0     OK       OK      ALARM      OK
    - - - - X  no data  as is   ALARM      OK               - - - - X     no data  as is   ALARM      OK
    - - X - -  ALARM    as is   ALARM      OK               - - - X -     ALARM    as is   ALARM      OK

No data: INSUFFICIENT_DATA. The last line: all that is known is breaching, and the oldest of it is M periods old.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from serving.scaling.values import ALARM, NO_DATA, OK, Alarm, AlarmReading, AlarmState, Comparison

#: Periods that are looked at beyond N.
LOOK_BACK = 2
#: Datapoints that a reason tells one by one.
_TOLD = 5

_BREACHES: dict[Comparison, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_WORDS: dict[Comparison, str] = {
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "GreaterThanThreshold": "greater than",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}


def periods(alarm: Alarm) -> int:
    """How many of the latest periods ``evaluate`` wants to see."""
    return alarm.evaluations + LOOK_BACK


def breaching(alarm: Alarm, values: Sequence[float]) -> list[bool]:
    """Which datapoints are on the wrong side of the threshold?"""
    breaches, threshold = _BREACHES[alarm.comparison], alarm.threshold
    return [breaches(value, threshold) for value in values]


def evaluate(
    alarm: Alarm,
    values: Sequence[float | None],
    before: AlarmReading | None,
    now: float,
    end: float | None = None,
) -> AlarmReading:
    """``values``: of the latest whole periods before ``end`` (None = at ``now``), oldest first, None (or NaN) = no
    data; ``periods(alarm)`` of them are looked at. The reading's own values are the N that were used; its reason stays
    that of the change."""
    seen = [value if value == value else None for value in values[-periods(alarm) :]]
    known = [value for value in seen if value is not None][-alarm.evaluations :]
    state = _state(alarm, seen, known)
    if state is None:
        state = NO_DATA if before is None else before.state
    used = (None,) * (alarm.evaluations - len(known)) + tuple(known)
    if before is not None and before.state == state:
        return AlarmReading(state, before.reason, used, before.since, now, end)
    was: AlarmState = NO_DATA if before is None else before.state
    last = math.floor(now / alarm.period) * alarm.period if end is None else end
    return AlarmReading(state, _reason(alarm, seen, was, state, last), used, now, now, end)


def _state(alarm: Alarm, seen: Sequence[float | None], known: Sequence[float]) -> AlarmState | None:
    """None: stays as it is."""
    wrong = sum(breaching(alarm, known))
    lacking = alarm.evaluations - len(known)
    if wrong >= alarm.datapoints:
        return ALARM
    if lacking == 0 or alarm.missing == "notBreaching":
        return OK
    if alarm.missing == "breaching":
        return ALARM if wrong + lacking >= alarm.datapoints else OK
    if wrong < len(known):
        return OK
    if alarm.missing == "ignore":
        return None
    oldest = next((len(seen) - index for index, value in enumerate(seen) if value is not None), 0)
    return ALARM if oldest >= alarm.datapoints else NO_DATA


def _reason(alarm: Alarm, seen: Sequence[float | None], was: AlarmState, state: AlarmState, end: float) -> str:
    """CloudWatch's sentence about a change of state."""
    begin = end - len(seen) * alarm.period
    known = [(value, begin + index * alarm.period) for index, value in enumerate(seen) if value is not None]
    known = known[-alarm.evaluations :]
    lacking = alarm.evaluations - len(known)
    if state == NO_DATA:
        return f"Insufficient Data: {lacking} {_datapoints(lacking)} {_were(lacking)} unknown."
    if not known:
        treated = "Breaching" if state == ALARM else "NonBreaching"
        return (
            f"Threshold Crossed: no datapoints were received for {lacking} {'period' if lacking == 1 else 'periods'} "
            f"and {lacking} missing {_datapoints(lacking)} {_were(lacking)} treated as [{treated}]."
        )
    crossed = state == ALARM
    wrong = breaching(alarm, [value for value, _ in known])
    told = [point for point, one in zip(known, wrong, strict=True) if one == crossed]
    points = ", ".join(_point(*point) for point in reversed(told[-_TOLD:]))
    few = len(told) <= _TOLD
    which = f"[{points}] " if few else ""
    latest = "" if few else f". The most recent datapoints which crossed the threshold: [{points}]"
    least = alarm.datapoints if crossed else alarm.evaluations - alarm.datapoints + 1
    return (
        f"Threshold Crossed: {len(told)} out of the last {alarm.evaluations} datapoints {which}"
        f"{_were(len(told))} {'' if crossed else 'not '}{_WORDS[alarm.comparison]} the threshold "
        f"({float(alarm.threshold)!r}){latest} "
        f"(minimum {least} {_datapoints(least)} for {was} -> {state} transition)."
    )


def _point(value: float, at: float) -> str:
    return f"{float(value)!r} ({datetime.fromtimestamp(at, UTC):%d/%m/%y %H:%M:%S})"


def _datapoints(count: int) -> str:
    return "datapoint" if count == 1 else "datapoints"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
