"""The form of every answer of an endpoint with an explainer (``behaviour/06``: always ``application/json``). Pure, and
light enough for a front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from serving.errors import ValidationError

VERSION = "1.0"


def answer(
    prediction: bytes, content_type: str, explanations: dict[str, Any], label_headers: Sequence[str] = ()
) -> bytes:
    """The JSON body around a model's answer. ``explanations`` empty: no record was explained. Raises
    ``ValidationError`` for a prediction that is no text."""
    try:
        data = prediction.decode()
    except UnicodeDecodeError:
        raise ValidationError(
            "The model's answer is not text, and an endpoint with an explainer answers in JSON; ask for text/csv or "
            "application/jsonlines with Accept."
        ) from None
    told: dict[str, Any] = {"version": VERSION, "predictions": {"content_type": content_type, "data": data}}
    if label_headers:
        told["label_headers"] = list(label_headers)
    return orjson.dumps(told | {"explanations": explanations})
