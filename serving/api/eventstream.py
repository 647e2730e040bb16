"""AWS's event stream: the frames in which InvokeEndpointWithResponseStream answers (``api/01``, event stream bytes).

::

    total length 4 │ headers length 4 │ CRC-32 of these 8 │ headers │ payload │ CRC-32 of all before

Integers are big-endian. A header: length of its name 1, name, type 1 (7 = text), length of its value 2, value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from zlib import crc32

import orjson

CONTENT_TYPE = "application/vnd.amazon.eventstream"
#: The longest payload that clients take.
MAX_PAYLOAD = 24 * 2**20

_TWO = struct.Struct(">II")
_ONE = struct.Struct(">I")
#: What a frame has beside headers and payload.
_FRAMING = 16
_TEXT = 7


def frame(headers: bytes, payload: bytes) -> bytes:
    """One frame. ``headers``: as ``encoded`` made them; ``payload``: at most ``MAX_PAYLOAD`` bytes."""
    sizes = _TWO.pack(_FRAMING + len(headers) + len(payload), len(headers))
    prelude = sizes + _ONE.pack(crc32(sizes))
    check = crc32(payload, crc32(headers, crc32(prelude)))
    return b"".join((prelude, headers, payload, _ONE.pack(check)))


def encoded(headers: Mapping[str, str]) -> bytes:
    """Headers of text. Names are at most 255 bytes, values 65,535."""
    return b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())


def _header(name: bytes, value: bytes) -> bytes:
    return b"%c%b%c%b%b" % (len(name), name, _TEXT, len(value).to_bytes(2, "big"), value)


_PART = encoded({":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"})


def payload_part(data: bytes) -> bytes:
    """A frame with part of the answer: the client's ``PayloadPart.Bytes``."""
    return frame(_PART, data)


def exception(name: str, message: str, code: str = "") -> bytes:
    """A frame that ends the stream with an exception of the operation's model; ``code``: its ``ErrorCode``."""
    headers = {":message-type": "exception", ":exception-type": name, ":content-type": "application/json"}
    return frame(encoded(headers), orjson.dumps({"Message": message} | ({"ErrorCode": code} if code else {})))
