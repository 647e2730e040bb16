"""How far two models' answers to the same calls lie apart: agreement, confusion, error quantiles, the worst examples.

One pass over pairs of answers, in bounded memory: numbers go into sketches, labels into a table of limited size, and
only the worst pairs are kept with their inputs. What the answers are (labels, numbers, or any other body) is seen from
them, or said by whoever asks: lone numbers that all lie between 0 and 1 are taken for probabilities. Rows of a body are
compared one by one; bodies of unequal shape are counted instead.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from serving.errors import ValidationError
from serving.monitor.bodies import label_text, number
from serving.monitor.predictions import Attributes, Prediction, decided, predictions
from serving.monitor.sketches import Correlation, Quantiles
from serving.monitor.values import Complaints, Side

Kind = Literal["classification", "regression", "text"]
KINDS: tuple[Kind, ...] = ("classification", "regression", "text")

#: Pairs of labels counted by name; whatever comes beyond goes by ``OTHER``.
_MOST_LABELS = 1000
_LONGEST_LABEL = 100
#: Of more pairs than that whole numbers are values, and words are text, not classes.
_MOST_CLASSES = 300
OTHER = "(other)"
#: Of a body that is shown as an example, so many characters are.
_LONGEST_SHOWN = 4000
#: Numbers agree when their relative error is no more than that: float32 holds seven digits.
TOLERANCE = 1e-6
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


class Pair(NamedTuple):
    """Two answers to one call; ``key`` (``Record.key``) and ``input`` are what the examples are shown with."""

    first: Side
    second: Side
    key: str = ""
    input: Side | None = None


class Example(NamedTuple):
    """Two answers, or one row of them, that differ: by ``difference`` (see ``Difference.examples``)."""

    key: str
    row: int
    difference: float
    first: str
    second: str
    input: Side | None

    def as_json(self, bodies: bool) -> dict[str, Any]:
        """``bodies``: with what callers sent (the inference id too, otherwise empty) and models said."""
        key = self.key if bodies else ""
        told: dict[str, Any] = {"Key": key, "Row": self.row, "Difference": finite(self.difference)}
        if not bodies:
            return told
        shown = {"First": self.first[:_LONGEST_SHOWN], "Second": self.second[:_LONGEST_SHOWN]}
        if self.input is not None:
            shown["Input"] = self.input.data[:_LONGEST_SHOWN]
            shown["InputContentType"] = self.input.content_type
            shown["InputEncoding"] = self.input.encoding
        return told | shown


@dataclass(frozen=True, slots=True)
class Labels:
    """Rows with a label on both sides. ``confusion``: (first, second) -> rows; ``distance``: between the two scores of
    such rows, or half the sum of absolute differences (total variation) where each class has one."""

    rows: int
    agreed: int
    confusion: dict[tuple[str, str], int]
    distance: Quantiles


@dataclass(frozen=True, slots=True)
class Numbers:
    """Rows with a number on both sides. ``absolute``: |b - a|; ``relative``: |b - a| / max(|a|, |b|), 0 to 2, which
    zero does not break; ``not_finite``: rows of which one number is none, and the other is not the same."""

    rows: int
    agreed: int
    not_finite: int
    absolute: Quantiles
    relative: Quantiles
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What ``compare`` has found. ``pairs``: all of them; ``identical``: those whose bodies are the same, byte by byte;
    ``unequal``: those with another number of rows, or labels here and numbers there; ``unreadable``: those whose
    answers are no predictions; both count as disagreement. ``examples``: the largest differences first; the
    difference is that of scores, plus 1 where labels differ (classification), the absolute error (regression), 1
    (text, and bodies that cannot be compared)."""

    kind: Kind
    pairs: int
    identical: int
    unequal: int
    unreadable: int
    labels: Labels
    numbers: Numbers
    examples: tuple[Example, ...]

    @property
    def agreement(self) -> float | None:
        """The share of rows (of bodies, for text) that agree: same label, same number within the tolerance, same
        bytes. None when there was nothing to compare."""
        if self.kind == "text":
            return self.identical / self.pairs if self.pairs else None
        of = self.labels if self.kind == "classification" else self.numbers
        rows = of.rows + self.unequal + self.unreadable
        return of.agreed / rows if rows else None

    def as_json(self, bodies: bool = False) -> dict[str, Any]:
        """``bodies``: with the ids, inputs and answers of the examples, which not everybody may see."""
        told: dict[str, Any] = {
            "Kind": self.kind,
            "Pairs": self.pairs,
            "Agreement": self.agreement,
            "IdenticalPairs": self.identical,
            "UnequalPairs": self.unequal,
            "UnreadablePairs": self.unreadable,
        }
        if self.labels.rows and self.kind == "classification":
            told["Classification"] = _labels_json(self.labels, bodies)
        if self.numbers.rows:
            told["Regression"] = _numbers_json(self.numbers)
        return told | {"Examples": [one.as_json(bodies) for one in self.examples]}


def _labels_json(labels: Labels, bodies: bool) -> dict[str, Any]:
    """Without ``bodies`` a text of one row alone has no name: it may be no class, but what one caller was told."""
    rows: Counter[str] = Counter()
    for names, times in labels.confusion.items():
        for name in set(names):
            rows[name] += times
    shown = {name: name if bodies or times > 1 or number(name) is not None else OTHER for name, times in rows.items()}
    confusion: Counter[tuple[str, str]] = Counter()
    for (a, b), times in labels.confusion.items():
        confusion[shown[a], shown[b]] += times
    ranked = sorted(confusion.items(), key=lambda one: (-one[1], one[0]))
    return {
        "Rows": labels.rows,
        "AgreedRows": labels.agreed,
        "Confusion": [{"First": a, "Second": b, "Rows": n} for (a, b), n in ranked],
        "ScoreDistance": labels.distance.as_json(_QUANTILES),
    }


def _numbers_json(numbers: Numbers) -> dict[str, Any]:
    return {
        "Rows": numbers.rows,
        "AgreedRows": numbers.agreed,
        "NotFiniteRows": numbers.not_finite,
        "AbsoluteError": numbers.absolute.as_json(_QUANTILES),
        "RelativeError": numbers.relative.as_json(_QUANTILES),
        "Correlation": numbers.correlation,
    }


def finite(value: float) -> float | None:
    """What JSON can hold of a number."""
    return value if math.isfinite(value) else None


class Comparison:
    """Pairs of answers as they come: ``add`` each, then ask for the ``result``. ``kind`` empty: seen from the answers.
    ``attributes``: where in them label and score are (SageMaker's EndpointInput); ``worst``: examples to keep."""

    def __init__(
        self,
        kind: Kind | Literal[""] = "",
        attributes: Attributes | None = None,
        worst: int = 10,
        complaints: Complaints | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Raises ``ValidationError`` for a kind that is none."""
        if kind and kind not in KINDS:
            raise ValidationError(f"The kind of a comparison is one of {', '.join(KINDS)}.")
        self._kind = kind
        self._attributes = Attributes() if attributes is None else attributes
        self._complaints = Complaints() if complaints is None else complaints
        self._tolerance = tolerance
        self._worst = _Worst(worst)
        self._pairs = self._identical = self._unequal = self._unreadable = 0
        self._agreed_labels = self._labelled = self._agreed_numbers = self._numbered = self._not_finite = 0
        self._definite = 0
        self._lone = _Lone()
        self._confusion: Counter[tuple[str, str]] = Counter()
        self._distance, self._absolute, self._relative = Quantiles(), Quantiles(), Quantiles()
        self._correlation = Correlation()

    def add(self, pair: Pair) -> None:
        """One more. What cannot be compared is counted, never raised."""
        self._pairs += 1
        same = pair.first.data == pair.second.data and pair.first.encoding == pair.second.encoding
        self._identical += same
        if self._kind == "text":
            self._differ(pair, same)
            return
        try:
            first = predictions(pair.first, self._attributes, self._complaints, pair.key)
            second = first if same else predictions(pair.second, self._attributes, self._complaints, pair.key)
        except ValidationError as error:
            self._complaints.add(error.message, pair.key)
            first = second = []
        if not first and not second:
            self._unreadable += 1
            self._differ(pair, same)
        elif len(first) != len(second):
            self._unequal += 1
            self._differ(pair, same)
        else:
            self._add_rows(pair, first, second)

    def _differ(self, pair: Pair, same: bool) -> None:
        if not same:
            self._worst.add(pair, 0, 1.0, pair.first.data, pair.second.data)

    def _add_rows(self, pair: Pair, first: list[Prediction], second: list[Prediction]) -> None:
        for row, (a, b) in enumerate(zip(first, second, strict=True)):
            difference = self._add_row(a, b)
            if difference is None:
                self._unequal += 1
                difference = 1.0
            if difference > self._tolerance:
                self._worst.add(pair, row, difference, _text(a), _text(b))

    def _add_row(self, a: Prediction, b: Prediction) -> float | None:
        """The difference of two rows; None when one has a number or label that the other has not. Lone numbers are
        both: whether they are classes, probabilities or values shows at the end."""
        lone = alone(a) and alone(b)
        if lone:
            self._lone.add(a, b)
        by_number = by_label = None
        if a.score is not None and b.score is not None and (lone or self._kind == "regression"):
            by_number = self._add_numbers(a.score, b.score)
        first, second = (decided(one, self._attributes.threshold) for one in (a, b))
        if first is not None and second is not None and self._kind != "regression":
            by_label = self._add_labels(a, b, first, second)
            self._definite += not lone
        return by_number if self._lone.values or by_label is None else by_label

    def _add_labels(self, a: Prediction, b: Prediction, first: str, second: str) -> float:
        """The difference of two labelled rows."""
        agreed = first == second
        self._labelled += 1
        self._agreed_labels += agreed
        names = (first[:_LONGEST_LABEL], second[:_LONGEST_LABEL])
        known = names in self._confusion or len(self._confusion) < _MOST_LABELS
        self._confusion[names if known else (OTHER, OTHER)] += 1
        distance = score_distance(a, b)
        if distance is not None:
            self._distance.add(distance)
        return (0.0 if agreed else 1.0) + (distance or 0.0)

    def _add_numbers(self, a: float, b: float) -> float:
        """The difference of two rows that are numbers."""
        self._numbered += 1
        if a == b or (math.isnan(a) and math.isnan(b)):
            self._agreed_numbers += 1
            absolute = relative = 0.0
        elif not math.isfinite(b - a):
            self._not_finite += 1
            return math.inf
        else:
            absolute = abs(b - a)
            relative = absolute / max(abs(a), abs(b))
            self._agreed_numbers += relative <= self._tolerance
        self._absolute.add(absolute)
        self._relative.add(relative)
        if math.isfinite(a):
            self._correlation.add(a, b)
        return absolute

    def result(self) -> Difference:
        """What there is so far."""
        labels = Labels(self._labelled, self._agreed_labels, dict(self._confusion), self._distance)
        numbers = Numbers(
            self._numbered,
            self._agreed_numbers,
            self._not_finite,
            self._absolute,
            self._relative,
            self._correlation.value,
        )
        counts = (self._pairs, self._identical, self._unequal, self._unreadable)
        return Difference(self._kind or self._seen(), *counts, labels, numbers, self._worst.all())

    def _seen(self) -> Kind:
        """By what most answers are."""
        if self._unreadable > max(self._labelled, self._numbered) or not (self._labelled or self._numbered):
            return "text"
        many = len(self._confusion) > _MOST_CLASSES
        if self._definite >= self._numbered:
            return "text" if many else "classification"
        return "regression" if many or self._lone.values else "classification"


def compare(
    pairs: Iterable[Pair | tuple[Side, Side]],
    kind: Kind | Literal[""] = "",
    attributes: Attributes | None = None,
    worst: int = 10,
    complaints: Complaints | None = None,
    tolerance: float = TOLERANCE,
) -> Difference:
    """Compare all pairs (see ``Comparison``)."""
    comparison = Comparison(kind, attributes, worst, complaints, tolerance)
    for pair in pairs:
        comparison.add(Pair(*pair))
    return comparison.result()


def alone(one: Prediction) -> bool:
    """Whether a row is a number and nothing else."""
    return one.score is not None and not one.scores and one.label in (None, label_text(one.score))


class _Lone:
    """What rows that are lone numbers may be: whole ones are classes, those from 0 to 1 probabilities. ``values``: they
    are neither."""

    def __init__(self) -> None:
        self._whole = self._likely = True

    def add(self, a: Prediction, b: Prediction) -> None:
        for one in (a, b):
            self._whole &= one.label is not None
            self._likely &= one.score is not None and 0 <= one.score <= 1

    @property
    def values(self) -> bool:
        return not (self._whole or self._likely)


def score_distance(a: Prediction, b: Prediction) -> float | None:
    """Total variation of two rows' class probabilities, else the distance of their scores; None without either."""
    if a.scores and len(a.scores) == len(b.scores):
        distance = sum(abs(x - y) for x, y in zip(a.scores, b.scores, strict=True)) / 2
    elif a.score is not None and b.score is not None:
        distance = abs(a.score - b.score)
    else:
        return None
    return distance if math.isfinite(distance) else None


def _text(one: Prediction) -> str:
    """A row's prediction for a person."""
    parts = [] if one.label is None else [one.label]
    if one.scores and len(one.scores) <= 20:
        parts.append(" ".join(f"{score:.6g}" for score in one.scores))
    elif one.score is not None:
        parts.append(f"{one.score:.9g}")
    return "  ".join(parts)


class _Worst:
    """The pairs that differ most, no more than ``most``; of equal ones the first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen = 0
        self._heap: list[tuple[float, int, Example]] = []

    def add(self, pair: Pair, row: int, difference: float, first: str, second: str) -> None:
        if not self._most:
            return
        self._seen += 1
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (difference, -self._seen, _example(pair, row, difference, first, second)))
        elif difference > self._heap[0][0]:
            heapq.heapreplace(self._heap, (difference, -self._seen, _example(pair, row, difference, first, second)))

    def all(self) -> tuple[Example, ...]:
        return tuple(one[2] for one in sorted(self._heap, key=lambda one: one[:2], reverse=True))


def _example(pair: Pair, row: int, difference: float, first: str, second: str) -> Example:
    """Cut to what will be shown: bodies may have megabytes."""
    shown = pair.input and pair.input._replace(data=pair.input.data[:_LONGEST_SHOWN])
    return Example(pair.key, row, difference, first[:_LONGEST_SHOWN], second[:_LONGEST_SHOWN], shown)
