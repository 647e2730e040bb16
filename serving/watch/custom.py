"""Metrics that clients put in themselves (PutMetricData): kept by the second or the minute, as they were put."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.watch.aggregates import Aggregate
from serving.watch.readings import Metric

_MOST_METRICS, _MOST_SLOTS, _MOST_VALUES = 1000, 900, 150
_LARGEST = 2.0**360
_OLDEST, _NEWEST = 14 * 86400.0, 2 * 3600.0


class _Slot:
    """What was put in for one second, or one minute."""

    __slots__ = ("count", "least", "most", "sum", "values")

    def __init__(self) -> None:
        self.count, self.sum, self.least, self.most = 0.0, 0.0, float("inf"), float("-inf")
        self.values: dict[float, float] = {}


class _Datum(NamedTuple):
    metric: Metric
    slot: float
    samples: float
    sum: float
    least: float
    most: float
    values: tuple[tuple[float, float], ...]


class Custom:
    """The last three hours of them by the minute, and fifteen minutes of those of high resolution by the second. Beyond
    a thousand metrics, the one that was put in longest ago goes."""

    def __init__(self) -> None:
        self._slots: dict[Metric, dict[float, _Slot]] = {}

    def metrics(self) -> Iterable[Metric]:
        """Those there are."""
        return self._slots

    def put(self, namespace: str, data: Sequence[Mapping[str, Any]], now: float) -> None:
        """Take in PutMetricData's data. Raises ``ValidationError`` for what is none, and takes none of them then."""
        for datum in [_datum(namespace, one, now) for one in data]:
            slots = self._slots.pop(datum.metric, {})
            self._slots[datum.metric] = slots
            slot = slots.setdefault(datum.slot, _Slot())
            slot.count += datum.samples
            slot.sum += datum.sum
            slot.least, slot.most = min(slot.least, datum.least), max(slot.most, datum.most)
            for value, count in datum.values:
                if value in slot.values or len(slot.values) < _MOST_VALUES:
                    slot.values[value] = slot.values.get(value, 0.0) + count
            while len(slots) > _MOST_SLOTS:
                del slots[min(slots)]
        while len(self._slots) > _MOST_METRICS:
            del self._slots[next(iter(self._slots))]

    def aggregate(self, metric: Metric, start: float, end: float) -> Aggregate | None:
        """One period; None = nothing was put in for it."""
        slots = [slot for at, slot in self._slots.get(metric, {}).items() if start <= at < end]
        if not slots:
            return None
        count, total = sum(one.count for one in slots), sum(one.sum for one in slots)
        values: dict[float, float] = {}
        for one in slots:
            for value, times in one.values.items():
                values[value] = values.get(value, 0.0) + times
        told = sum(values.values()) == count
        least, most = min(one.least for one in slots), max(one.most for one in slots)
        return Aggregate(count, total, least, most, tuple(sorted(values.items())) if told else ())


def _datum(namespace: str, given: Mapping[str, Any], now: float) -> _Datum:
    """One of PutMetricData's, checked as CloudWatch documents it."""
    pairs = tuple(sorted((one["Name"], one["Value"]) for one in given.get("Dimensions", ())))
    metric = Metric(namespace, given["MetricName"], pairs)
    at = float(given.get("Timestamp", now))
    if not now - _OLDEST <= at <= now + _NEWEST:
        raise ValidationError("The parameter Timestamp must be within two weeks before and two hours after now.")
    width = 1.0 if given.get("StorageResolution") == 1 else 60.0
    slot = at // width * width
    if "StatisticValues" in given:
        stats = given["StatisticValues"]
        count, total = _finite(stats["SampleCount"]), _finite(stats["Sum"])
        return _Datum(metric, slot, count, total, _finite(stats["Minimum"]), _finite(stats["Maximum"]), ())
    values = [_finite(one) for one in given.get("Values", [given["Value"]] if "Value" in given else [])]
    counts = [_finite(one) for one in given.get("Counts", [1.0] * len(values))]
    if not values or len(values) != len(counts) or len(values) > _MOST_VALUES:
        raise ValidationError(
            "The parameters MetricData.member.1.Values and Counts must be of the same size, 1 to 150."
        )
    if any(one < 0 for one in counts):
        raise ValidationError("The parameter MetricData.member.1.Counts must not be negative.")
    pairs_of = tuple(zip(values, counts, strict=True))
    total = sum(value * count for value, count in pairs_of)
    return _Datum(metric, slot, sum(counts), total, min(values), max(values), pairs_of)


def _finite(value: Any) -> float:
    number = float(value)
    if not isfinite(number) or abs(number) > _LARGEST:
        raise ValidationError(f"The value {value} is not within -2^360 and 2^360.")
    return number
