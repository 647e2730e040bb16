"""What a model predicted, row by row, out of the captured answers of any container.

Where the prediction stands in an answer is said as SageMaker's EndpointInput says it (API, ``EndpointInput``:
InferenceAttribute, ProbabilityAttribute, ProbabilityThresholdAttribute): for CSV a column by index or by its name in
the header, for JSON and JSON Lines a JMESPath. Where nothing is said, the answers of the built-in algorithms
(``behaviour/10``), bare numbers, and CSV of one score or of the classes' probabilities are understood.

An answer that cannot be read is a complaint, never an error: only an attribute that is no JMESPath is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NamedTuple

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from serving.errors import ValidationError
from serving.monitor.bodies import cells, documents, form, label_text, number, text_of
from serving.monitor.labels import label_rows
from serving.monitor.values import Complaints, Record, Side

#: Probability above which a lone score counts as the positive class, where no threshold is given (SageMaker Clarify,
#: ``probability_threshold``).
THRESHOLD = 0.5

#: A class's number, and what probabilities that were rounded may lack of 1.
_WHOLE = re.compile(r"\d+", re.ASCII)
_ROUNDING = 0.02
#: Keys of the built-in algorithms' answers, and of widespread containers.
_LABEL_KEYS = ("predicted_label", "label", "closest_cluster")
_SCORE_KEYS = ("probabilities", "scores", "probability", "prob", "score", "predicted_score", "prediction")
#: Parts of a JMESPath that make a list, one item for each row.
_PROJECTIONS = {"projection", "value_projection", "filter_projection"}


class Attributes(NamedTuple):
    """Where things stand in the captured bodies (API, ``EndpointInput``). ``inference``, ``probability``: the label
    and the probability in an answer; ``threshold``: the probability above which an answer is positive; ``features``:
    the features in a request; ``exclude``: those of them that are left out. Empty = not said."""

    inference: str = ""
    probability: str = ""
    threshold: float | None = None
    features: str = ""
    exclude: str = ""


class Prediction(NamedTuple):
    """The answer for one row. ``label``: the class, as ``label_text`` writes it, None where there is only a score;
    ``score``: a regression's value, or the probability of the positive class (of two) or of the label (of more);
    ``scores``: of all classes, where the answer has them. All empty: the answer could not be read."""

    label: str | None = None
    score: float | None = None
    scores: tuple[float, ...] = ()


def decided(prediction: Prediction, threshold: float | None = None) -> str | None:
    """The class of a prediction: its label; where it is a lone score, ``1`` above the threshold (0.5) and ``0``
    elsewhere; None where there is neither."""
    if prediction.label is not None or prediction.score is None:
        return prediction.label
    return "1" if prediction.score > (THRESHOLD if threshold is None else threshold) else "0"


def check(attributes: Attributes) -> None:
    """Raises ``ValidationError`` for an attribute that is neither a column nor a JMESPath."""
    for one in (attributes.inference, attributes.probability, attributes.features, attributes.exclude):
        if one and not one.isdigit():
            _compiled(one)


def predictions(side: Side, attributes: Attributes, complaints: Complaints, example: str = "") -> list[Prediction]:
    """A prediction for each row of an answer; an empty one, and a complaint, for a row that cannot be read; none for a
    body that cannot. ``example``: what the complaint names, an event id."""
    try:
        found = _predictions(side, attributes)
    except ValidationError as error:
        complaints.add(error.message, example)
        return []
    unread = sum(1 for one in found if one.label is None and one.score is None)
    if unread:
        complaints.add("a prediction is neither a number nor a label", example, unread)
    return found


def _predictions(side: Side, attributes: Attributes) -> list[Prediction]:
    text = text_of(side)
    written = form(side, text)
    named = bool(attributes.inference or attributes.probability)
    if written == "CSV":
        rows = cells(text)
        pairs: list[tuple[Any, Any]]
        pairs = _columns(rows, attributes) if named else [(_cells_value(row), None) for row in rows]
    else:
        pairs = []
        for document in documents(text, written == "JSON Lines"):
            pairs += _paths(document, attributes) if named else [(value, None) for value in _answers(document)]
    return [joined(label, probability, attributes) for label, probability in pairs]


class Labelled(NamedTuple):
    """A row with its true label, as ``label_text`` writes it, what was predicted for it, and which of its record it
    is."""

    label: str
    prediction: Prediction
    record: Record
    row: int = 0


def labelled(records: Iterable[Record], attributes: Attributes, complaints: Complaints) -> Iterator[Labelled]:
    """The rows of merged records (``labels.merge``): labels and predictions of one call belong together by their
    order. Of a call with another number of labels than of predictions no row counts, nor does a row that lacks either;
    each is a complaint."""
    for record in records:
        if record.output is None or record.label is None:
            complaints.add("a record without " + ("a label" if record.output else "an answer"), record.event_id)
            continue
        found = predictions(record.output, attributes, complaints, record.event_id)
        truths = label_rows(record.label)
        if found and len(truths) != len(found):
            complaints.add("another number of labels than of predictions", record.event_id)
            continue
        for row, (truth, prediction) in enumerate(zip(truths, found, strict=False)):
            if truth is None:
                complaints.add("a label is empty", record.event_id)
            elif prediction.label is not None or prediction.score is not None:
                yield Labelled(truth, prediction, record, row)


# --- where a row's prediction stands --------------------------------------------------------------------------------


def _columns(rows: list[list[str]], attributes: Attributes) -> list[tuple[Any, Any]]:
    """(label, probability) of CSV rows by the columns that the attributes name."""
    names = [one for one in (attributes.inference, attributes.probability) if one]
    header = [] if all(name.isdigit() for name in names) or not rows else rows[0]
    if header and not all(name.isdigit() or name in header for name in names):
        raise ValidationError("a body has no column of the attribute's name")
    places = [
        None if not name else int(name) if name.isdigit() else header.index(name)
        for name in (attributes.inference, attributes.probability)
    ]
    return [(_cell(row, places[0]), _cell(row, places[1])) for row in (rows[1:] if header else rows)]


def _cell(row: list[str], place: int | None) -> Any:
    if place is None or place >= len(row):
        return None
    return _list_in(row[place])


def _list_in(cell: str) -> Any:
    """A cell, or the list that is written in it (XGBoost's container: ``"[0.1, 0.9]"``)."""
    if not cell.startswith("["):
        return cell
    try:
        return orjson.loads(cell)
    except ValueError:
        return cell


def _cells_value(row: list[str]) -> Any:
    """A row of CSV as JSON would have it: one value, the classes' probabilities, or a label and these (ours are side by
    side, XGBoost's container writes a list into a cell)."""
    values = [_list_in(cell) for cell in row]
    if len(values) == 1:
        return values[0]
    lists = [one for one in values if isinstance(one, list)]
    if not lists:
        return {"label": row[0], "probabilities": row[1:]} if _is_labelled(row) else values
    alone = [one for one in values if not isinstance(one, list)]
    return {"label": alone[0], "probabilities": lists[0]} if alone else lists[0]


def _is_labelled(row: list[str]) -> bool:
    """Is a row a label and the classes' probabilities? A label is a word or a whole number, which no probability
    between others is; those after it make up 1."""
    first, rest = row[0], [number(cell) for cell in row[1:]]
    if len(rest) < 2 or None in rest or all(_WHOLE.fullmatch(cell) for cell in row):
        return False
    total = sum(one for one in rest if one is not None)
    return number(first) is None or (_WHOLE.fullmatch(first) is not None and abs(total - 1.0) < _ROUNDING)


def _answers(document: Any) -> list[Any]:
    """The rows of a JSON answer, as the built-in algorithms write it; a list is a list of rows."""
    if isinstance(document, dict):
        for key in ("predictions", "scores"):
            inner = document.get(key)
            if isinstance(inner, list) and (key == "predictions" or all(isinstance(one, dict) for one in inner)):
                return inner
        return [document]
    return document if isinstance(document, list) else [document]


def _paths(document: Any, attributes: Attributes) -> list[tuple[Any, Any]]:
    """(label, probability) of the rows of a JSON document by JMESPath."""
    labels = _found(document, attributes.inference, lists=True)
    probabilities = _found(document, attributes.probability, lists=len(labels) > 1)
    return list(zip_longest(labels, probabilities))


def _found(document: Any, path: str, lists: bool) -> list[Any]:
    """A row's value for each thing the path finds. What a projection finds is a list of rows; another list is one of
    rows (``lists``), or of one row's classes if it holds numbers alone."""
    if not path:
        return []
    value = found_at(document, path)
    if not isinstance(value, list):
        return [value]
    of_classes = not lists and not _projects(_compiled(path).parsed) and all(number(one) is not None for one in value)
    return [value] if of_classes else value


def found_at(document: Any, path: str) -> Any:
    """What a JMESPath finds in a JSON document; None where it finds nothing. Raises ``ValidationError`` for a path that
    is none."""
    expression = _compiled(path)
    try:
        return expression.search(document)
    except (JMESPathError, RecursionError):
        return None


@lru_cache(256)
def _compiled(path: str) -> Any:
    try:
        return jmespath.compile(path)
    except (JMESPathError, RecursionError):
        raise ValidationError("An attribute is no valid JMESPath.") from None


def _projects(node: Any) -> bool:
    return node["type"] in _PROJECTIONS or any(_projects(one) for one in node["children"] if isinstance(one, dict))


# --- what it says ---------------------------------------------------------------------------------------------------


def joined(label: Any, probability: Any, attributes: Attributes) -> Prediction:
    """The prediction of a row's label and probability, as they stand in a CSV cell or a JSON value; None for either
    that there is none. A threshold decides where no label was asked for."""
    said = _read(label) if label is not None else Prediction()
    if probability is not None:
        likely = _read(probability)
        said = Prediction(said.label or (likely.label if likely.scores else None), likely.score, likely.scores)
    if attributes.threshold is None or said.score is None or len(said.scores) > 2:
        return said
    if attributes.inference and said.label is not None:
        return said
    return said._replace(label="1" if said.score > attributes.threshold else "0")


def _read(value: Any) -> Prediction:
    """The prediction in one value: a number, a label, the classes' scores, or an object that has some of these."""
    if isinstance(value, dict):
        return _read_object(value)
    if isinstance(value, list):
        return _read_scores(value)
    score = number(value)
    if score is None:
        return Prediction(label_text(value) if isinstance(value, str | bool) and not _is_nan(value) else None)
    return Prediction(label_text(score) if score == int(score) else None, score)


def _is_nan(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity", "null", "none")


def _read_scores(values: list[Any]) -> Prediction:
    """Scores of the classes 0, 1, ...: the label is the first with the highest. A list of one number is that number;
    one of objects is of named classes, the most probable counts (Hugging Face's pipelines)."""
    if len(values) == 1 and not isinstance(values[0], list | dict):
        return _read(values[0])
    if values and all(isinstance(one, dict) for one in values):
        likely = max(values, key=lambda one: number(one.get("score")) or 0.0)
        return Prediction(label_text(likely.get("label")), number(likely.get("score")))
    scores = tuple(one for one in map(number, values) if one is not None)
    if not scores or len(scores) < len(values):
        return Prediction()
    best = scores.index(max(scores))
    return Prediction(str(best), scores[1] if len(scores) == 2 else scores[best], scores)


def _read_object(value: dict[str, Any]) -> Prediction:
    label = next((value[key] for key in _LABEL_KEYS if key in value), None)
    score = next((value[key] for key in _SCORE_KEYS if value.get(key) not in (None, "NaN")), None)
    if isinstance(label, list):  # BlazingText: the k best labels and their probabilities, the best first
        first = score[0] if isinstance(score, list) and score else None
        return Prediction(label_text(label[0]) if label else None, number(first))
    read = Prediction() if score is None or isinstance(score, dict) else _read(score)
    if label is None:
        return read
    return Prediction(label_text(label), read.score, read.scores)
