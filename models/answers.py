"""Answers of built-in algorithms beside those that a card expects: numbers within a tolerance, the rest exactly."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np

LINES = "application/jsonlines"


def read(body: bytes, media_type: str) -> Any:
    """An answer as cards write it down: a document, a list of the lines' values, or an image's bytes."""
    kind = media_type.partition(";")[0].strip()
    if kind.startswith("image/"):
        return body
    text = body.decode()
    if kind == LINES:
        return [json.loads(line) for line in text.splitlines()]
    if kind == "text/csv":
        return [[float(cell) for cell in line.split(",")] for line in text.splitlines()]
    return json.loads(text)


def differences(expected: Any, actual: Any, tolerance: float, where: str = "answer") -> list[str]:
    """A sentence for each place where the two differ; none when they are the same. Of images, the share of pixels that
    differ must be within the tolerance."""
    if isinstance(expected, bytes):
        return _pixels(expected, actual, tolerance, where)
    if isinstance(expected, dict) and isinstance(actual, dict):
        if list(expected) != list(actual):
            return [f"{where} has {list(actual)} where {list(expected)} were expected"]
        parts = [(f"{where}.{key}", expected[key], actual[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return [f"{where} has {len(actual)} items where {len(expected)} were expected"]
        parts = [(f"{where}[{at}]", one, other) for at, (one, other) in enumerate(zip(expected, actual, strict=True))]
    elif _is_number(expected) and _is_number(actual):
        same = abs(expected - actual) <= tolerance or (math.isnan(expected) and math.isnan(actual))
        return [] if same else [f"{where} is {actual} where {expected} was expected"]
    else:
        same = type(expected) is type(actual) and expected == actual
        return [] if same else [f"{where} is {actual!r} where {expected!r} was expected"]
    return [found for name, one, other in parts for found in differences(one, other, tolerance, name)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pixels(expected: bytes, actual: Any, tolerance: float, where: str) -> list[str]:
    from PIL import Image

    one, other = (Image.open(io.BytesIO(image)) for image in (expected, actual))
    if (one.size, one.mode) != (other.size, other.mode):
        return [f"{where} is an image {other.size} {other.mode} where {one.size} {one.mode} was expected"]
    share = float(np.mean(np.asarray(one) != np.asarray(other)))
    return [] if share <= tolerance else [f"{where}: {share:.2%} of the pixels differ"]
