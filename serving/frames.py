"""Frames between the processes of one server: questions and answers with bytes, over a unix socket.

A frame is two 32-bit little-endian lengths (of all that follows, and of the JSON in it), JSON, and bytes::

    question   {"id": 1, "what": "submit", "args": {…}} + payload        {"id": 1, "what": "left"}: nobody waits for it
    answer     {"id": 1, "value": …} + bytes                             {"id": 1, "error": NAME, "message": …}

The error of a model also says ``status`` (what its container would have answered) and ``container``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import orjson

from serving.errors import BY_NAME, ModelError, ServiceUnavailable, ServingError

HEAD = struct.Struct("<II")
_LONGEST = 2**28


def pack(fields: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """A question or an answer as it goes over the socket."""
    text = orjson.dumps(fields)
    return b"".join((HEAD.pack(len(text) + len(payload), len(text)), text, payload))


def lengths(head: bytes) -> tuple[int, int]:
    """Bytes that follow ``HEAD.size`` bytes, and how many of these are JSON. Raises ``ValueError`` for what is no
    frame."""
    whole, text = HEAD.unpack(head)
    if not text <= whole <= _LONGEST:
        raise ValueError("not a frame")
    return whole, text


def unpack(data: bytes, text: int) -> tuple[dict[str, Any], bytes]:
    """What followed the lengths, taken apart. Raises ``ValueError``."""
    return orjson.loads(data[:text]), data[text:]


def failure(error: ServingError) -> dict[str, Any]:
    """An error as an answer's fields."""
    told: dict[str, Any] = {"error": type(error).__name__, "message": error.message}
    if isinstance(error, ModelError):
        told |= {"status": error.original_status, "container": error.container}
    return told


def error_of(fields: Mapping[str, Any]) -> ServingError:
    """The error that an answer's fields tell of."""
    error = BY_NAME.get(fields["error"], ServiceUnavailable)(fields["message"])
    if isinstance(error, ModelError) and "status" in fields:
        error.original_status, error.container = fields["status"], fields["container"]
    return error
