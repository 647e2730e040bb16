"""Labels from the application that learns the right answers: ``POST /endpoints/{name}/ground-truth``, beyond SageMaker.

The body is SageMaker's ground-truth records (``behaviour/06``), or the short form ``{"InferenceId": "7", "Label": 1}``:
one a line, one JSON object, or a JSON array. Good records are kept, and durable before the answer; bad ones are
reported by their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from serving.api import invocations
from serving.api.async_routes import endpoint_route
from serving.api.front import Front
from serving.api.requests import body_of, headers_of, json_answer, target_of
from serving.errors import ValidationError
from serving.monitor.labels import label_line, parse_label

_MOST_ERRORS = 10
#: Bytes from which a body is read on a thread, to hold up no invocation.
_LARGE = 2**15


class Sorted(NamedTuple):
    """A body's records: the good ones as lines, how many these are, how many are bad, and the first of those, each with
    its place (from 1) and what is wrong."""

    lines: bytes
    accepted: int
    rejected: int
    errors: list[tuple[int, str]]


async def post_labels(front: Front, request: Request) -> Response:
    """POST /endpoints/{name}/ground-truth: 200 with counts as soon as at least one record is kept; 400 when none is
    good, 503 when the object store cannot have them now."""
    headers, body = headers_of(request), await body_of(front, request)
    route = endpoint_route(front, request)
    invocations.authorise(front, route, target_of(request), headers, body)
    name = front.directory.get(route.endpoint).name
    found = sort(body) if len(body) < _LARGE else await asyncio.to_thread(sort, body)
    front.registry.counter(_RECORDS, name, "rejected").add(found.rejected)
    if not found.accepted:
        raise ValidationError(_refusal(found))
    await front.collector.keep(name, found.lines)
    front.registry.counter(_RECORDS, name, "accepted").add(found.accepted)
    errors = [{"Line": place, "Message": message} for place, message in found.errors]
    return json_answer({"Accepted": found.accepted, "Rejected": found.rejected, "Errors": errors})


_RECORDS = "sagemaker_ground_truth_records_total"


def sort(body: bytes) -> Sorted:
    """Tell the good records of a body from the bad."""
    lines: list[bytes] = []
    errors: list[tuple[int, str]] = []
    rejected = 0
    for place, value in _records(body):
        try:
            if isinstance(value, ValidationError):
                raise value
            lines.append(label_line(*parse_label(value)))
        except ValidationError as error:
            rejected += 1
            if len(errors) < _MOST_ERRORS:
                errors.append((place, f"{error.message[0].upper()}{error.message[1:]}."))
    return Sorted(b"".join(lines), len(lines), rejected, errors)


def _records(body: bytes) -> Iterator[tuple[int, Any]]:
    """(place, parsed record, or what is wrong with it): items of an array, one object, or lines."""
    try:
        whole = orjson.loads(body)
    except ValueError:
        yield from _line_records(body)
        return
    yield from enumerate(whole if isinstance(whole, list) else [whole], start=1)


def _line_records(body: bytes) -> Iterator[tuple[int, Any]]:
    for place, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield place, orjson.loads(line)
        except ValueError:
            yield place, ValidationError("a line is not valid JSON")


def _refusal(found: Sorted) -> str:
    if not found.rejected:
        return "The body has no labels."
    place, message = found.errors[0]
    return f"None of the {found.rejected} records can be accepted. Record {place}: {message}"
