"""The rows of a captured body, each with its cells: CSV, and the request and answer shapes of ``codecs/json.py`` and
``codecs/layouts.py``. One body at a time, in plain Python; ``tables.py`` reads many at once where it can.

A row is a list of cells without names, or an object flattened to names: ``{"a": {"b": 1}, "c": [2, 3]}`` has the
columns ``a.b``, ``c.0`` and ``c.1``. A cell is text as it stood there; None is a missing value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.errors import ValidationError
from serving.monitor.bodies import cells, documents, form, text_of
from serving.monitor.values import Side

Row = list[str | None] | dict[str, str | None]

#: No row has more columns: an image is no row of features.
MOST_COLUMNS = 4096
#: Keys whose list holds the rows.
_ENVELOPES = ("instances", "predictions", "scores", "projections", "dataframe_records", "inputs", "outputs")


def rows(side: Side) -> list[Row]:
    """The rows of one direction. Raises ``ValidationError`` for a body that has none; its text tells nothing of the
    body."""
    text = text_of(side)
    written = form(side, text)
    found: list[Row]
    if written == "CSV":
        found = _csv(text, "header=present" in side.content_type.lower().replace(" ", ""))
    else:
        found = [row for document in documents(text, written == "JSON Lines") for row in of_document(document)]
    if not found:
        raise ValidationError("a body has no rows")
    if max(map(len, found)) > MOST_COLUMNS:
        raise ValidationError("a row has too many columns")
    return found


def _csv(text: str, header: bool) -> list[Row]:
    found = cells(text.removeprefix("\ufeff"))
    bare: list[list[str | None]] = [[cell or None for cell in row] for row in found]
    if not header:
        return list(bare)
    names = unique([name or "" for name in bare[0]]) if bare else []
    if any(len(row) != len(names) for row in bare):
        raise ValidationError("a row has another width than its header")
    return [dict(zip(names, row, strict=True)) for row in bare[1:]]


# --- JSON -----------------------------------------------------------------------------------------------------------


def of_document(document: Any) -> list[Row]:
    """The rows of a JSON document. A flat list is one row. Raises ``ValidationError``."""
    if isinstance(document, Mapping):
        return _of_object(document)
    if isinstance(document, list) and any(isinstance(one, list | dict) for one in document):
        return [_row(one) for one in document]
    return [_row(document)]


def _of_object(document: Mapping[str, Any]) -> list[Row]:
    split = document.get("dataframe_split", document)
    if isinstance(split, dict) and isinstance(split.get("columns"), list) and isinstance(split.get("data"), list):
        return _of_split(split["columns"], split["data"])
    for key in _ENVELOPES:
        inner = document.get(key)
        if isinstance(inner, list):
            tensors = inner and all(isinstance(one, dict) and "name" in one and "data" in one for one in inner)
            return _of_columns({str(one["name"]): one["data"] for one in inner}) if tensors else list(map(_row, inner))
        if isinstance(inner, dict) and len(document) == 1:
            return _of_columns(inner)
    return [_row(document)]


def _of_split(columns: list[Any], data: list[Any]) -> list[Row]:
    names = unique([str(name) for name in columns])
    found: list[Row] = []
    for row in data:
        if not isinstance(row, list) or len(row) != len(names):
            raise ValidationError("a row has another width than its header")
        found.append(flat(dict(zip(names, row, strict=True))))
    return found


def _of_columns(columns: Mapping[str, Any]) -> list[Row]:
    """``{input name: array}``: the arrays' items are the rows (Open Inference Protocol, TensorFlow Serving)."""
    lengths = {len(value) if isinstance(value, list) else -1 for value in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise ValidationError("a body's columns have different lengths")
    return [flat(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _row(value: Any) -> Row:
    """One instance or prediction: a list, an object, an algorithm's ``features``, a bare value."""
    if isinstance(value, dict):
        features = _features(value)
        return flat(value) if features is None else _cells(features)
    return _cells(value if isinstance(value, list) else [value])


def _features(value: Mapping[str, Any]) -> list[Any] | None:
    """The list in ``{"features": [...]}`` or ``{"data": {"features": {"values": [...]}}}``; None for other objects."""
    inner = value.get("data") if "features" not in value else value
    features = inner.get("features") if isinstance(inner, dict) else None
    if isinstance(features, dict) and "values" in features:
        if "keys" in features:
            raise ValidationError("a sparse row has no columns")
        features = features["values"]
    return features if isinstance(features, list) else None


def _cells(values: list[Any]) -> list[str | None]:
    found: list[str | None] = []
    for value in values:
        if isinstance(value, list):
            found += _cells(value)
        elif isinstance(value, dict):
            raise ValidationError("a row is a list of objects")
        else:
            found.append(cell(value))
    return found


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str | None]:
    """An object's cells by name."""
    found: dict[str, str | None] = {}
    for key, one in value.items():
        if isinstance(one, list):
            one = {str(number): inner for number, inner in enumerate(one)}
        if isinstance(one, dict):
            found.update(flat(one, f"{prefix}{key}."))
        else:
            found[prefix + key] = cell(one)
    return found


def cell(value: Any) -> str | None:
    """A JSON value as text."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else repr(value)


# --- names ----------------------------------------------------------------------------------------------------------


def unique(names: list[str]) -> list[str]:
    """Names of columns, none empty and none twice: ``a``, ``a``, empty become ``a``, ``a_1``, ``_c2``."""
    taken: set[str] = set()
    found = []
    for number, name in enumerate(names):
        wanted = plain = name.strip() or f"_c{number}"
        again = 0
        while wanted in taken:
            again += 1
            wanted = f"{plain}_{again}"
        taken.add(wanted)
        found.append(wanted)
    return found
