"""The features in captured requests, by name: facets, the group variable, and what the flip test compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.errors import ValidationError
from serving.monitor.bodies import documents, form, text_of
from serving.monitor.predictions import Attributes, found_at
from serving.monitor.rows import Row, cell, rows
from serving.monitor.values import Side

Features = dict[str, str | None]


def features(side: Side, attributes: Attributes, header: Sequence[str] = ()) -> list[Features]:
    """The features of each row of a request. Columns without names of their own have those of the header, else their
    indices, ``"0"``, ``"1"``. Raises ``ValidationError``, whose text tells nothing of the body."""
    written = form(side, text_of(side))
    found = _selected(side, attributes.features) if attributes.features and written != "CSV" else rows(side)
    excluded = {one.strip() for one in attributes.exclude.split(",")} - {""}
    return [_named(row, header, excluded) for row in found]


def _selected(side: Side, path: str) -> list[Row]:
    """Rows by a JMESPath: a list of values is one row, a list of lists several."""
    text = text_of(side)
    found: list[Any] = []
    for document in documents(text, form(side, text) == "JSON Lines"):
        value = found_at(document, path)
        if not isinstance(value, list):
            raise ValidationError("a request has no features where they should be")
        found += value if any(isinstance(one, list) for one in value) else [value]
    if not all(isinstance(row, list) for row in found):
        raise ValidationError("a request has no features where they should be")
    return [[None if isinstance(one, list | dict) else cell(one) for one in row] for row in found]


def _named(row: Row, header: Sequence[str], excluded: set[str]) -> Features:
    pairs = row.items() if isinstance(row, dict) else enumerate(row)
    found = {}
    for place, (key, value) in enumerate(pairs):
        name = key if isinstance(key, str) else header[place] if len(header) == len(row) else str(place)
        if name not in excluded and str(place) not in excluded:
            found[name] = value
    return found
