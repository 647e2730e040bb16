"""Which variant is better, and what a shadow would have answered: ``GET /endpoints/{name}/verdict`` and
``…/shadow-report``, beyond SageMaker. A monitor process finds out (``monitor/verdict.py``, ``shadow_report.py``)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serving.api import auth
from serving.api.front import Front
from serving.api.requests import json_answer
from serving.errors import UnknownEndpoint, ValidationError

_AGO = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: What is asked of the last hours is asked to the minute, so that many who look get one answer.
_MINUTE = 60
_ATTRIBUTES = ("inference", "probability", "threshold")
_OF_VERDICT = ("metric", "baseline", "challenger", "since", "minimum-effect", "alpha", "better", *_ATTRIBUTES)
_OF_REPORT = ("shadow", "since", "kind", "examples", "bodies", *_ATTRIBUTES)

Row = Mapping[str, Any]


async def verdict(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}/verdict: every variant's numbers, and what to do. Query: ``metric``, ``baseline``,
    ``challenger`` (again for each), ``since``, ``minimum-effect``, ``alpha``, ``better``, and where in an answer the
    prediction stands: ``inference``, ``probability``, ``threshold``."""
    row = endpoint_row(front, request.path_params["name"])
    asked = query(request, _OF_VERDICT)
    production = {one["name"]: one["weight"] for one in row["variants"]}
    args = {
        "endpoint": row["name"],
        "variants": production | {one["name"]: 0.0 for one in row["shadows"]},
        "metric": asked.get("metric", "accuracy"),
        "baseline": asked.get("baseline", ""),
        "challengers": challengers(request.query_params.getlist("challenger"), production, asked.get("baseline", "")),
        **_common(row, asked),
        "effect": _number(asked, "minimum-effect"),
        "alpha": _number(asked, "alpha", 0.05),
        "better": asked.get("better", ""),
    }
    return json_answer(await front.ask("monitor", {"task": "verdict", "args": args}))


async def shadow_report(front: Front, request: Request) -> Response:
    """GET /endpoints/{name}/shadow-report: how often and how far a shadow's answers differ from production's. Query:
    ``shadow``, ``since``, ``kind``, ``examples`` (how many), ``bodies`` (``true``: with what callers sent; needs
    ``manage``), ``inference``, ``probability``, ``threshold``."""
    row = endpoint_row(front, request.path_params["name"])
    asked = query(request, _OF_REPORT)
    args = {
        "endpoint": row["name"],
        "production": [one["name"] for one in row["variants"]],
        "shadows": [one["name"] for one in row["shadows"]],
        "shadow": asked.get("shadow", ""),
        **_common(row, asked),
        "metrics": "since" not in asked,
        "kind": asked.get("kind", ""),
        "worst": int(_number(asked, "examples", 10) or 0),
        "bodies": _wants_bodies(request),
    }
    return json_answer(await front.ask("monitor", {"task": "shadow-report", "args": args}))


def report_permission(request: Request) -> auth.Action:
    """What callers sent is for those who manage the server."""
    return "manage" if _wants_bodies(request) else "read"


def _wants_bodies(request: Request) -> bool:
    return any(one != "false" for one in request.query_params.getlist("bodies"))


def challengers(named: Sequence[str], production: Mapping[str, float], baseline: str) -> list[str]:
    """Those that were named; else the other production variants; of a sole one, its shadows are (() = all)."""
    names = [name for one in named for name in one.split(",") if name]
    if names or len(production) < 2:
        return names
    first = baseline or max(production, key=production.__getitem__)
    return [name for name in production if name != first]


def moment(text: str, now: float) -> float:
    """Epoch seconds of ``since``: a time as ISO 8601 (UTC where it does not say), epoch seconds, or how long ago
    (``30m``, ``24h``, ``7d``). Raises ``ValidationError``."""
    ago = _AGO.fullmatch(text)
    if ago:
        return (now - int(ago[1]) * _SECONDS[ago[2]]) // _MINUTE * _MINUTE
    try:
        if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text, re.ASCII):
            return float(text)
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValidationError("since is a time (2026-11-21T09:30:00Z), or how long ago (30m, 24h, 7d).") from None


def endpoint_row(front: Front, name: str) -> Row:
    """An endpoint's row of the routing table. Raises ``UnknownEndpoint``."""
    for row in front.directory.table["endpoints"]:
        if row["name"] == name:
            found: Row = row
            return found
    raise UnknownEndpoint(f"Endpoint {name} of account {front.settings.account_id} not found.")


def query(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The query's values; empty ones are as good as none. Raises ``ValidationError`` for what nobody asked for."""
    for name in request.query_params:
        if name not in known:
            raise ValidationError(f"There is no {name[:50]!r} to ask by; there are {', '.join(known)}.")
    return {name: value for name, value in request.query_params.items() if value}


def _common(row: Row, asked: Mapping[str, str]) -> dict[str, Any]:
    """What both questions have. Unless they say otherwise they mean the calls since the endpoint was last deployed:
    those before it may be of other models."""
    attributes: dict[str, Any] = {name: asked[name] for name in ("inference", "probability") if name in asked}
    if "threshold" in asked:
        attributes["threshold"] = _number(asked, "threshold")
    return {
        "destination": row["capture"]["destination"] if row["capture"] else "",
        "since": moment(asked["since"], time.time()) if "since" in asked else math.floor(row["since"]),
        "attributes": attributes,
    }


def _number(asked: Mapping[str, str], name: str, default: float | None = None) -> float | None:
    if name not in asked:
        return default
    try:
        value = float(asked[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValidationError(f"{name} is a number.")
    return value
