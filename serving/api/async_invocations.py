"""A call that is answered later, from HTTP's words into what the jobs process keeps.

Two ways in: InvokeEndpointAsync, checked as the service's model says, and ``Prefer: respond-async`` (RFC 7240) on a
plain invocation. Header names and limits: SageMaker Runtime API, InvokeEndpointAsync. Ours: ``X-Serving-Priority``
(0 goes first, 9 last), and ``Idempotency-Key``: what is sent again with the same key within 15 minutes is the same
call. AWS's own clients number their attempts (``amz-sdk-invocation-id``), which does as well.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from serving.api.invocations import FIELDS, TRACEPARENT, Head
from serving.errors import ValidationError
from serving.watch.trace_context import traceparent

#: The largest body that may be sent inline, in bytes; larger ones come by InputLocation.
MAX_BODY = 128_000
#: Defaults and limits of RequestTTLSeconds and InvocationTimeoutSeconds.
USUAL_TTL, USUAL_TIMEOUT = 21_600, 900
USUAL_PRIORITY = 5
#: A long poll, or a ``wait`` preference, lasts so many seconds at most.
LONGEST_WAIT = 60.0

_AMZN = "X-Amzn-SageMaker-"
_INPUT = b"x-amzn-sagemaker-inputlocation"


class Header(NamedTuple):
    """A header of the operation: its name as people write it, what a value may be, and that in words."""

    name: str
    allows: Callable[[bytes], bool]
    rule: str


def _text(most: int, pattern: str = r"[\x00-\x7f]+") -> Callable[[bytes], bool]:
    compiled = re.compile(pattern.encode())
    return lambda value: len(value) <= most and compiled.fullmatch(value) is not None


def _whole(least: int, most: int) -> Callable[[bytes], bool]:
    return lambda value: re.fullmatch(rb"[0-9]{1,9}", value) is not None and least <= int(value) <= most


_TTL = Header(_AMZN + "RequestTTLSeconds", _whole(60, USUAL_TTL), f"a whole number from 60 to {USUAL_TTL}")
_TIMEOUT = Header(_AMZN + "InvocationTimeoutSeconds", _whole(1, 3600), "a whole number from 1 to 3600")
_PRIORITY = Header("X-Serving-Priority", _text(1, "[0-9]"), "one digit, 0 = first, 9 = last")
_KEYS = (
    Header("Idempotency-Key", _text(255, r"[\x20-\x7e]+"), "at most 255 printable characters"),
    Header("amz-sdk-invocation-id", _text(255, r"[\x20-\x7e]+"), "at most 255 printable characters"),
)


def _by_name(*headers: Header) -> dict[bytes, Header]:
    return {one.name.lower().encode(): one for one in headers}


#: What says how a call is kept, whichever way it came.
_KEEPING = _by_name(_TTL, _TIMEOUT, _PRIORITY, *_KEYS)
#: Every header of InvokeEndpointAsync but those it shares with InvokeEndpoint, and ours.
HEADERS = _KEEPING | _by_name(
    Header(_AMZN + "Content-Type", _text(1024), "at most 1024 ASCII characters"),
    Header(_AMZN + "Accept", _text(1024), "at most 1024 ASCII characters"),
    Header(
        _AMZN + "InputLocation",
        _text(1024, r"(?:https|s3)://[^/]+/?.*"),
        "an https:// or s3:// URL of at most 1024 characters",
    ),
    Header(
        _AMZN + "S3OutputPathExtension",
        _text(512, r"(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+"),
        "a path of at most 512 letters, digits and !_.*'()/-",
    ),
    Header(
        _AMZN + "Filename",
        _text(32, r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_.]*"),
        "a file name of at most 32 letters, digits and -_ with one dot",
    ),
)
#: What the operation shares with InvokeEndpoint; of a target it says nothing, and may be told one all the same.
_SHARED = {
    one.field: name
    for name, one in FIELDS.items()
    if one.field in ("custom_attributes", "inference_id", "target_model", "target_variant")
}


def check(headers: Mapping[bytes, bytes], body: bytes) -> None:
    """Refuse an InvokeEndpointAsync request that the service's model does not allow. ``headers``: lower-case names.
    Raises ``ValidationError`` naming the member at fault."""
    _check(HEADERS, headers)
    for name in _SHARED.values():
        if headers.get(name):
            FIELDS[name].read(headers[name])
    if len(body) > MAX_BODY:
        raise ValidationError(f"The body of an asynchronous call must be at most {MAX_BODY} bytes; use InputLocation.")
    if bool(headers.get(_INPUT)) == bool(body):
        raise ValidationError("Exactly one of InputLocation and Body is required.")


def _check(allowed: Mapping[bytes, Header], headers: Mapping[bytes, bytes]) -> None:
    for name, header in allowed.items():
        value = headers.get(name, b"")
        if value and not header.allows(value):
            raise ValidationError(f"{header.name} must be {header.rule}.")


# --- what is kept ---------------------------------------------------------------------------------------------------


class Sender(NamedTuple):
    """Who sent it, and when: the key that signed it (empty = none is needed), our request id, epoch seconds."""

    key_id: str
    request_id: str
    received: float


def submission(endpoint: str, headers: Mapping[bytes, bytes], body: bytes, sender: Sender) -> dict[str, Any]:
    """What the jobs process is told of an InvokeEndpointAsync request (``jobs.async_inference.AsyncDoor.submit``).
    Raises ``ValidationError``."""
    check(headers, body)

    def said(name: str) -> str:
        return _as_text(headers.get((_AMZN + name).lower().encode(), b""))

    asked = {
        "endpoint": endpoint,
        "input": said("InputLocation"),
        "content_type": said("Content-Type"),
        "accept": said("Accept"),
        "extension": said("S3OutputPathExtension"),
        "filename": said("Filename"),
        "plain": False,
    }
    shared = {field: headers.get(name, b"").decode("latin-1") for field, name in _SHARED.items()}
    return _kept(asked | shared, headers, body, sender)


def owners_of(url: str, places: Iterable[tuple[str, str]]) -> list[str]:
    """Whose answers lie where ``url`` does: of the endpoints and the prefixes of theirs, those with the longest prefix
    that it is beneath. Nobody's: none."""
    around = [(len(prefix.rstrip("/")), name) for name, prefix in places if url.startswith(prefix.rstrip("/") + "/")]
    nearest = max(around, default=(0, ""))[0]
    return [name for length, name in around if length == nearest]


def _as_text(value: bytes) -> str:
    """What a header says: an object's name is UTF-8 on its way here as it is in the store, by boto3 too."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def deferred(head: Head, headers: Mapping[bytes, bytes], body: bytes, sender: Sender) -> dict[str, Any]:
    """The same of a plain invocation that is to be answered later. Raises ``ValidationError``."""
    _check(_KEEPING, headers)
    asked = {
        "endpoint": head.route.endpoint,
        "input": "",
        "content_type": head.content_type,
        "accept": head.accept,
        "extension": "",
        "filename": "",
        "plain": True,
    }
    return _kept(asked | {field: head.extras.get(field, "") for field in _SHARED}, headers, body, sender)


def may_be_deferred(head: Head) -> bool:
    """Can this plain invocation be answered later? Not one of a session, whose worker may be gone by then, nor one
    that says more of whom to ask than is kept; they are answered at once (RFC 7240: a preference may be ignored)."""
    return not head.route.streamed and set(head.extras) <= {*_SHARED, "traceparent"}


def _kept(asked: dict[str, Any], headers: Mapping[bytes, bytes], body: bytes, sender: Sender) -> dict[str, Any]:
    def number(header: Header, usual: int) -> int:
        return int(headers.get(header.name.lower().encode()) or usual)

    asked |= {
        "ttl": number(_TTL, USUAL_TTL),
        "timeout": number(_TIMEOUT, USUAL_TIMEOUT),
        "priority": number(_PRIORITY, USUAL_PRIORITY),
    }
    repeat, fingerprint = _repeat(asked["endpoint"], headers, sender), ""
    if repeat:
        fingerprint = hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS) + b"\n" + body).hexdigest()
    context = traceparent(headers.get(TRACEPARENT, b""))
    return asked | {
        "id": str(uuid.uuid4()),
        "inference_id": asked["inference_id"] or str(uuid.uuid4()),
        "repeat": repeat,
        "fingerprint": fingerprint,
        "request_id": sender.request_id,
        "received": sender.received,
        **({"traceparent": context} if context else {}),
    }


def _repeat(endpoint: str, headers: Mapping[bytes, bytes], sender: Sender) -> str:
    """What tells this call from all others; the same when it is sent again (``reliability.md`` promise 5). Empty:
    nothing does."""
    given = (headers.get(one.name.lower().encode(), b"") for one in _KEYS)
    key = next((value for value in given if value), b"")
    return f"{sender.key_id or '-'}|{endpoint}|{key.decode('latin-1')}" if key else ""


# --- preferences ----------------------------------------------------------------------------------------------------


class Preference(NamedTuple):
    """To be answered later; but at once if that is possible within ``wait`` seconds."""

    wait: float
    applied: str


_PARTS = re.compile(r'(?:[^,"]|"[^"]*"?)+')
_PREFERENCE = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9a-z-]+)\s*(?:=\s*("[^"]*"|[^\s;,"]*)\s*)?(?:;.*)?', re.IGNORECASE)


def preference(headers: Iterable[tuple[bytes, bytes]]) -> Preference | None:
    """What the ``Prefer`` headers of a request ask of us (RFC 7240); None: nothing. What is not understood is nobody's
    fault, and ignored."""
    wanted: dict[str, str] = {}
    for name, value in headers:
        for part in _PARTS.findall(value.decode("latin-1")) if name == b"prefer" else ():
            match = _PREFERENCE.fullmatch(part)
            if match is not None:
                wanted.setdefault(match[1].lower(), (match[2] or "").strip('"'))
    if wanted.get("respond-async") != "":
        return None
    wait = wanted.get("wait", "")
    if not re.fullmatch(r"[0-9]{1,9}", wait):
        return Preference(0.0, "respond-async")
    seconds = min(float(wait), LONGEST_WAIT)
    return Preference(seconds, f"respond-async, wait={seconds:.0f}")
