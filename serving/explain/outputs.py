"""A model's answers: records of its output, the scores to explain in them, and the names of its classes
(SageMaker API, ClarifyInferenceConfig: ProbabilityIndex, ProbabilityAttribute, LabelIndex, LabelAttribute). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from serving.errors import PredictionFailed, ValidationError
from serving.explain import expressions, records
from serving.explain.settings import Explainer

_WHAT = "The model's answer"
#: How much of a model's answer a message repeats.
_SHOWN = 80


def read(body: bytes, content_type: str) -> list[Any]:
    """The records of an answer: an array for each row of CSV, a value for each line of JSON Lines, or the members of a
    JSON array or of ``{"predictions": [...]}``. Raises ``ValidationError``."""
    kind = records.kind_of(content_type)
    try:
        text = body.decode("utf-8-sig")
        if kind == records.CSV:
            return [[_cell(cell) for cell in row] for row in records.table(text, _WHAT)]
        if kind == records.LINES:
            return [orjson.loads(line) for line in records.lines(text)]
        if content_type.partition(";")[0].strip().lower() == "application/json":
            return _members(orjson.loads(text))
    except (UnicodeDecodeError, ValueError):
        raise ValidationError(f"{_WHAT} is not valid {content_type[:_SHOWN]}.") from None
    raise ValidationError(
        f"{_WHAT} is {content_type[:_SHOWN]!r}; only {records.CSV} and {records.LINES} are explained."
    )


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get("predictions"), list):
        value = value["predictions"]
    return value if isinstance(value, list) else [value]


def _cell(cell: str) -> Any:
    """What a cell means: a number, a list (``[0.1,0.9]``, ``['cat','dog']``) or a text."""
    if cell.lstrip().startswith("["):
        for text in (cell, cell.replace("'", '"')):
            try:
                return orjson.loads(text)
            except ValueError:
                continue
    meant = records.value(cell)
    return cell if meant is None else meant


def scores(found: Sequence[Any], kind: str, made: Explainer) -> np.ndarray:
    """The scores of records: float64 [records, outputs]. ``kind``: of the answer they are from. Raises
    ``ValidationError`` where there is no number, ``PredictionFailed`` for one that is not finite."""
    rows = [_score(_chosen(record, kind, made)) for record in found]
    if len({len(row) for row in rows}) > 1:
        raise ValidationError(f"{_WHAT} has scores of several lengths.")
    made_of = np.array(rows, np.float64)
    if not np.isfinite(made_of).all():
        raise PredictionFailed("The model answered a number that is not finite, which cannot be explained.")
    return made_of


def _chosen(record: Any, kind: str, made: Explainer) -> Any:
    if kind == records.CSV:
        if made.probability_index is None:
            return record[0] if len(record) == 1 else record
        if made.probability_index >= len(record):
            raise ValidationError(
                f"{_WHAT} has {len(record)} columns, and ProbabilityIndex is {made.probability_index}."
            )
        return record[made.probability_index]
    if made.probability:
        return expressions.found(made.probability, record, "ProbabilityAttribute")
    return next(iter(record.values())) if isinstance(record, dict) and len(record) == 1 else record


def _score(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, int | float) for one in values):
        shown = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()[:_SHOWN]
        raise ValidationError(
            f"{_WHAT} has no score at {shown}: the explainer's InferenceConfig says where it is with ProbabilityIndex "
            "(CSV) or ProbabilityAttribute (JSON)."
        )
    return [math.nan if one is None else float(one) for one in values]


def label_headers(record: Any, kind: str, made: Explainer) -> list[str]:
    """The names of the classes, as the model's answer or else the explainer has them; empty: not known."""
    told: Any = None
    if kind == records.CSV and made.label_index is not None:
        told = record[made.label_index] if made.label_index < len(record) else None
    elif kind != records.CSV and made.label:
        told = expressions.found(made.label, record, "LabelAttribute")
    if told is None:
        return list(made.label_headers)
    return [str(one) for one in told] if isinstance(told, list) else [str(told)]
