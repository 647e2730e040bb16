"""A refusal for clients that speak CBOR (Smithy RPC v2), in CBOR, so that they can read it: it is not offered here.

``POST /service/{service}/operation/{operation}``. AWS offers CloudWatch so besides JSON and the older form; unmodified
boto3 uses it of its own accord for neither.
"""

from __future__ import annotations

PATH = "/service/"
HEADERS = {"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}
STATUS = 404
CODE = "UnknownOperationException"
MESSAGE = "This server does not speak CBOR: use AWS JSON, or the query protocol."


def body() -> bytes:
    """``{"__type": …, "message": …}``: a map of two pairs, all texts (RFC 8949, 3)."""
    return b"\xa2" + b"".join(map(_text, ("__type", CODE, "message", MESSAGE)))


def _text(text: str) -> bytes:
    data = text.encode()
    head = bytes((0x60 + len(data),)) if len(data) < 24 else bytes((0x78, len(data)))
    return head + data
