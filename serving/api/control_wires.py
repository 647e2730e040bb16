"""The two forms in which control calls come: AWS JSON with ``X-Amz-Target``, and the older form with XML answers.

Fronts read off a call what it asks for and whether it may; the rest of it is read in the control process.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from serving.api import failures, query_wire, shapes
from serving.api.services import SERVICES, service
from serving.errors import ServingError, Unreadable, ValidationError

#: A control call's body in bytes, as it came and unpacked (the largest legitimate one, a model card in a package, has
#: 200 kB; PutMetricData may have 1 MB), and its target.
_LARGEST, _LONGEST_TARGET = 2**20, 256

Headers = list[tuple[str, str]]


class Sent(NamedTuple):
    """A control call. ``target``: the service's prefix, a dot, the operation; ``form``: ``text`` is one, not JSON."""

    target: str
    text: str
    form: bool


def is_form(headers: Mapping[str, str]) -> bool:
    """Does a request with these headers (names in any case) speak the older form?"""
    return "x-amz-target" not in headers and query_wire.is_form(headers.get("content-type", ""))


def read(headers: Mapping[str, str], body: bytes) -> Sent:
    """What a front makes of a request to ``POST /``. Raises ``ValidationError``, ``Unreadable``."""
    if len(body) > _LARGEST:
        raise ValidationError(f"The body of a control call may have {_LARGEST} bytes at most.")
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding == "gzip":
        body = _unpacked(body)
    elif encoding not in ("", "identity"):
        raise ValidationError(f"The Content-Encoding {encoding[:64]!r} is not offered: gzip is.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Unreadable("The request body is not valid UTF-8.") from None
    form = is_form(headers)
    return Sent(_form_target(text) if form else target(headers), text, form)


def _unpacked(body: bytes) -> bytes:
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = unpacking.decompress(body, _LARGEST + 1)
    except zlib.error:
        raise Unreadable("The request body is not valid gzip.") from None
    if len(text) > _LARGEST:
        raise ValidationError(f"The body of a control call may have {_LARGEST} bytes at most, unpacked too.")
    if not unpacking.eof or unpacking.unused_data:
        raise Unreadable("The request body is not valid gzip.")
    return text


def target(headers: Mapping[str, str]) -> str:
    """The X-Amz-Target header."""
    return headers.get("x-amz-target", "")[:_LONGEST_TARGET]


def _form_target(text: str) -> str:
    """What the header would have been; only the operation where no service has this version."""
    action, version = query_wire.named(text)
    prefix = next((name for name, one in SERVICES.items() if one.version and one.version == version), "")
    return f"{prefix}.{action}" if action else ""


def params(sent: Sent, node: shapes.Node) -> dict[str, Any]:
    """The parameters of a call whose operation takes ``node``. Raises ``Unreadable``."""
    return query_wire.params(sent.text, node) if sent.form else parse(sent.text)


def parse(body: str | bytes) -> dict[str, Any]:
    """A JSON body; nothing at all counts as ``{}``. Of a member given twice the last counts. Raises ``Unreadable``."""
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        raise Unreadable("The request body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Unreadable("Start of list or value found where not expected: the request body must be a JSON object.")
    return value


def answered(
    sent: Sent, node: shapes.Node | None, answer: Mapping[str, Any] | None, request_id: str
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an answer. ``node``: what the operation gives, if anything."""
    one, operation = service(sent.target), sent.target.rpartition(".")[2]
    if sent.form:
        body = query_wire.answer(operation, one.namespace, node, answer, request_id)
        return 200, [("content-type", query_wire.ANSWER_TYPE), ("x-amzn-RequestId", request_id)], body
    body = b"" if answer is None else orjson.dumps(answer)
    return 200, [("content-type", one.dress.content_type), ("x-amzn-RequestId", request_id)], body


def refused(error: ServingError, target: str, form: bool, request_id: str) -> tuple[int, Headers, bytes]:
    """The same of an error."""
    one = service(target)
    status, headers, body = failures.dress_control(error, request_id, one.dress)
    if not form:
        return status, headers, body
    told = dict(headers) | {"content-type": query_wire.ANSWER_TYPE}
    return (
        status,
        list(told.items()),
        query_wire.failure(
            one.namespace, one.dress.code(error), orjson.loads(body)["message"], status < 500, request_id
        ),
    )
