"""Which trace a call belongs to: the W3C trace context it came with, or one made of its request id.

What is malformed is ignored, as the standard wants it (W3C Trace Context, 3.2.2). Light: every front imports this,
whether anything is traced (``tracing.py``) or not.
"""

from __future__ import annotations

import hashlib
import logging
import re

#: version "-" trace-id "-" parent-id "-" flags; of a version above 00 more may follow, which we do not understand.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_LENGTH = 55


def traceparent(value: bytes) -> str:
    """A ``traceparent`` header's value as version 00; empty when it is none."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (len(value) > _LENGTH and value.startswith(b"00")):
        return ""
    return "00" + value[2:_LENGTH].decode()


def trace_of(context: str) -> str:
    """The trace id in a (checked) traceparent; of none, none."""
    return context[3:35]


def trace_id(context: str, request_id: str) -> str:
    """The id, 32 hex digits, of the trace of a call with this (checked) traceparent, or with none."""
    return trace_of(context) or f"{own_ids(request_id)[0]:032x}"


def own_ids(request_id: str) -> tuple[int, int]:
    """Trace id and span id of a call that came without: the same for the same request id, and evenly spread in every
    bit, as samplers count on it (our request ids only count upwards)."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=24).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1


class TraceIds(logging.Filter):
    """Gives log lines that name a request the trace id that its spans have."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        request_id = getattr(record, "request_id", "")
        if request_id and not getattr(record, "trace_id", ""):
            record.trace_id = trace_id("", request_id)
        return True
