"""What labelled calls say of a model, as outcomes that arms can be compared by (``sequential.py``).

An outcome is one call's, the mean of its rows where it has several, since rows of one call are no independent draws.
Accuracy, a business number (the label itself), latency, error rate are means; RMSE is the root of one;
AUC is a mean of placements (DeLong, DeLong, Clarke-Pearson 1988, "Comparing the areas under two or more correlated
receiver operating characteristic curves"), here of rows.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.monitor.bodies import number
from serving.monitor.labels import label_rows
from serving.monitor.predictions import Attributes, Prediction, decided, predictions
from serving.monitor.sequential import LEAST, Estimate, Moments, estimates
from serving.monitor.values import Complaints, Record

#: No outcome is so large; the sum of their squares is a number.
_BEYOND = 1e100
#: Scores kept of one arm for its AUC: 16 MB.
_MOST_SCORES = 2_000_000


class Metric(NamedTuple):
    """What variants are compared by. ``sign``: 1 where more is better; ``labels``: from labelled captures, otherwise
    from the metrics of the server."""

    words: str
    sign: int
    labels: bool


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("accuracy", 1, True),
    "auc": Metric("AUC", 1, True),
    "rmse": Metric("RMSE", -1, True),
    "business": Metric("mean label", 1, True),
    "error-rate": Metric("error rate", -1, False),
    "latency": Metric("mean latency in seconds", -1, False),
}


class Arm:
    """The outcomes of one variant by a metric that needs labels."""

    def __init__(self, metric: str, attributes: Attributes, complaints: Complaints) -> None:
        self._metric = metric
        self._attributes = attributes
        self._complaints = complaints
        self.labelled = 0
        self.moments = Moments()
        self.positive, self.negative = array("d"), array("d")

    def add(self, record: Record) -> None:
        """A labelled record; one that says nothing is a complaint."""
        self.labelled += 1
        labels = _labels(record.label or "")
        if self._metric == "business":
            self._mean([number(label) for label in labels], record)
            return
        if record.output is None:
            self._complaints.add("a labelled capture without its output", record.key)
            return
        rows = predictions(record.output, self._attributes, self._complaints, record.key)
        if len(rows) != len(labels):
            if rows:
                self._complaints.add("a label with another number of rows than its answer", record.key)
            return
        self._rows(list(zip(rows, labels, strict=True)), record)

    def _rows(self, rows: list[tuple[Prediction, str | None]], record: Record) -> None:
        if self._metric == "auc":
            self._scores(rows, record)
        elif self._metric == "rmse":
            self._mean([_squared_error(one, label) for one, label in rows], record)
        else:
            self._mean([self._right(one, label) for one, label in rows], record)

    def _mean(self, outcomes: list[float | None], record: Record) -> None:
        """Of a call's rows; those that have none are left out."""
        known = [one for one in outcomes if one is not None and abs(one) < _BEYOND]
        if len(known) < len(outcomes):
            self._complaints.add(
                f"a label or answer that says nothing of the {METRICS[self._metric].words}", record.key
            )
        if known:
            self.moments = self.moments.plus(sum(known) / len(known))

    def _right(self, one: Prediction, label: str | None) -> float | None:
        said = decided(one, self._attributes.threshold)
        return None if said is None or label is None else float(said == label)

    def _scores(self, rows: list[tuple[Prediction, str | None]], record: Record) -> None:
        for one, label in rows:
            truth = {"1": self.positive, "true": self.positive, "0": self.negative, "false": self.negative}
            kept = truth.get(label or "")
            if one.score is None or kept is None:
                self._complaints.add("a label that is not 0 or 1, or an answer without a score", record.key)
            elif len(self.positive) + len(self.negative) >= _MOST_SCORES:
                self._complaints.add(f"a score beyond {_MOST_SCORES:,}", record.key)
            else:
                kept.append(one.score)


@lru_cache(maxsize=4096)
def _labels(text: str) -> tuple[str | None, ...]:
    """The labels of a call's rows. Few texts come again and again."""
    return tuple(label_rows(text))


def _squared_error(one: Prediction, label: str | None) -> float | None:
    truth = number(label)
    if truth is None or one.score is None:
        return None
    return (one.score - truth) * (one.score - truth)  # ** raises where this is infinite


def compared(metric: str, first: Arm, second: Arm) -> tuple[Estimate, Estimate]:
    """The two arms by their metric."""
    if metric == "auc":
        return areas(first, second)
    found = estimates(first.moments, second.moments)
    return rooted(*found) if metric == "rmse" else found


def rooted(first: Estimate, second: Estimate) -> tuple[Estimate, Estimate]:
    """The roots of two means. Their difference is that of the means divided by the sum of the roots, and so are the
    standard errors: what is certain of the mean squared errors is as certain of the roots, also of one that is 0."""
    roots = (math.sqrt(first.value), math.sqrt(second.value))
    scale = sum(roots) ** 2
    found = []
    for root, mean in zip(roots, (first, second), strict=True):
        found.append(Estimate(root, mean.number, mean.error / scale if scale else mean.error))
    return found[0], found[1]


def areas(first: Arm, second: Arm) -> tuple[Estimate, Estimate]:
    """The areas under two arms' ROC curves. As with other outcomes (``sequential.py``) two placements at either end of
    what was seen in both arms are added before the variance is taken."""
    placed = [placements(one.positive, one.negative) for one in (first, second)]
    ends = []
    for values in zip(*placed, strict=True):
        seen = [end for one in values if len(one) for end in (float(one.min()), float(one.max()))]
        ends.append((min(seen), max(seen)) if seen else (0.0, 1.0))
    found = []
    for arm, both in zip((first, second), placed, strict=True):
        number = len(arm.positive) + len(arm.negative)
        value = float(both[0].mean()) if len(both[0]) else math.nan
        error = sum(_placement_error(values, end) for values, end in zip(both, ends, strict=True))
        found.append(Estimate(value, number, error))
    return found[0], found[1]


def placements(positive: Any, negative: Any) -> tuple[Any, Any]:
    """How far up among the other class each positive's, and how far down each negative's score stands, 0 to 1, ties
    halfway: the mean of either is the area. Empty unless there are both classes."""
    import numpy

    high, low = numpy.sort(numpy.asarray(positive)), numpy.sort(numpy.asarray(negative))
    if not len(high) or not len(low):
        return numpy.empty(0), numpy.empty(0)
    above = (numpy.searchsorted(low, high, "left") + numpy.searchsorted(low, high, "right")) / (2 * len(low))
    below = 1 - (numpy.searchsorted(high, low, "left") + numpy.searchsorted(high, low, "right")) / (2 * len(high))
    return above, below


def _placement_error(values: Any, ends: tuple[float, float]) -> float:
    """The squared standard error of the mean of one class's placements; infinite of too few."""
    import numpy

    if len(values) < LEAST // 2:
        return math.inf
    return float(numpy.concatenate([values, ends, ends]).var(ddof=1)) / len(values)


def find(name: str, better: str = "") -> Metric:
    """The metric of this name. ``better``: ``higher`` or ``lower``, where a business number is not as it usually is.
    Raises ``ValidationError``."""
    if name not in METRICS:
        raise ValidationError(f"There is no metric {name!r}; there are {', '.join(METRICS)}.")
    if better not in ("", "higher", "lower"):
        raise ValidationError("What is better is higher or lower.")
    metric = METRICS[name]
    if better and name != "business":
        raise ValidationError("Only of the business number it can be said whether higher or lower is better.")
    return metric._replace(sign={"": metric.sign, "higher": 1, "lower": -1}[better])
