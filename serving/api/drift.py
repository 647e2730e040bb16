"""Has an endpoint's data drifted? ``POST /endpoints/{name}/drift``, beyond SageMaker: a baseline's documents in, the
distance of every column and what is violated out. A monitor process finds out (``monitor/drifting.py``)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from serving.api import auth
from serving.api.front import Front
from serving.api.requests import body_of, json_answer
from serving.api.verdicts import endpoint_row, moment, query
from serving.errors import ValidationError

_KNOWN = ("since", "until", "variant", "target-model", "label", "documents")
_USUAL_SINCE = "24h"
_MOST_LEVELS = 32
#: What is asked of a time that is still running is asked to the minute, so that many who look get one answer.
_MINUTE = 60


async def drift(front: Front, request: Request) -> Response:
    """POST /endpoints/{name}/drift: ``{"constraints": DOCUMENT, "statistics": DOCUMENT}``, the second optional. Query:
    ``since``, ``until`` (a time, or how long ago; default: the last 24 hours), ``variant``, ``target-model``, ``label``
    (the baseline's column that requests do not have), ``documents`` (``true``: with statistics of what callers sent;
    needs ``manage``)."""
    row = endpoint_row(front, request.path_params["name"])
    asked = query(request, _KNOWN)
    if not row["capture"]:
        raise ValidationError(f"Endpoint {row['name']} captures nothing; its configuration has no DataCaptureConfig.")
    documents = _documents(await body_of(front, request))
    args = {
        "Endpoint": row["name"],
        "Destination": row["capture"]["destination"],
        "Variants": _variants(row, asked.get("variant", "")),
        "Window": _window(asked, time.time()),
        "Constraints": documents["constraints"],
        "Statistics": documents.get("statistics"),
        "Label": asked.get("label", ""),
        "TargetModel": asked.get("target-model", ""),
        "Documents": wants_documents(request),
    }
    return json_answer(await front.ask("monitor", {"task": "drift", "args": args}))


def permission(request: Request) -> auth.Action:
    """Statistics hold values that callers sent: they are for those who manage the server."""
    return "manage" if wants_documents(request) else "read"


def wants_documents(request: Request) -> bool:
    """Is anything but ``false`` said?"""
    return any(one != "false" for one in request.query_params.getlist("documents"))


def _documents(body: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError:
        raise ValidationError("The body is not valid JSON.") from None
    if not isinstance(found, dict) or not isinstance(found.get("constraints"), dict):
        raise ValidationError("The body is an object with constraints, the content of a constraints.json.")
    if not isinstance(found.get("statistics", {}), dict):
        raise ValidationError("statistics is the content of a statistics.json.")
    if _is_deep(found):
        raise ValidationError(f"The body is nested more than {_MOST_LEVELS} levels deep.")
    return found


def _is_deep(document: Any) -> bool:
    """Deeper than any baseline is, and than what it is passed on by can take."""
    level = [document]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _variants(row: Mapping[str, Any], wanted: str) -> list[str]:
    """The variant that is asked for, which may be a shadow; else those of production."""
    production = [str(one["name"]) for one in row["variants"]]
    if not wanted:
        return production
    if wanted not in (*production, *(one["name"] for one in row["shadows"])):
        raise ValidationError(f"Endpoint {row['name']} has no variant {wanted[:63]!r}.")
    return [wanted]


def _window(asked: Mapping[str, str], now: float) -> list[float]:
    start = moment(asked.get("since", _USUAL_SINCE), now)
    end = moment(asked["until"], now) if "until" in asked else math.ceil(now / _MINUTE) * _MINUTE
    if start >= end:
        raise ValidationError("since must be before until.")
    return [start, float(end)]
