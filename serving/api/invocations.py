"""A request for a prediction, from HTTP's words into an ``Invocation`` and back. Used by both doors: the fast protocol
and the ASGI routes. Header names and limits: SageMaker Runtime, InvokeEndpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from serving.api import auth
from serving.api.front import Front
from serving.errors import AccessDenied, ValidationError
from serving.types import Invocation, Reply, Timing

_ENDPOINT = re.compile(rb"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_PATH = re.compile(rb"/endpoints/([^/?#]{1,256})/invocations(?:\?.*)?")

#: Request header -> (field of Invocation, longest value in bytes).
FIELDS: dict[bytes, tuple[str, int]] = {
    b"x-amzn-sagemaker-target-model": ("target_model", 1024),
    b"x-amzn-sagemaker-target-variant": ("target_variant", 63),
    b"x-amzn-sagemaker-custom-attributes": ("custom_attributes", 1024),
    b"x-amzn-sagemaker-inference-id": ("inference_id", 64),
    b"x-amzn-sagemaker-session-id": ("session_id", 256),
    b"x-serving-affinity-key": ("affinity_key", 256),
}
#: Headers of features an endpoint must be created for; none of ours is yet, and silence would be a wrong answer.
_REFUSED: dict[bytes, str] = {
    b"x-amzn-sagemaker-inference-component": (
        "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference "
        "components. Please remove the Inference Component Name header and try again."
    ),
    b"x-amzn-sagemaker-target-container-hostname": (
        "The endpoint has no directly invocable containers; remove the target container hostname header."
    ),
    b"x-amzn-sagemaker-enable-explanations": "The endpoint has no explainer; remove the enable explanations header.",
}
_PREFIXES = (b"x-amzn-sagemaker-", b"x-serving-affinity")
TIMING = b"x-serving-timing"
VARIANT = "x-Amzn-Invoked-Production-Variant"
#: The session id of a call that asks the model to open a session: it names none, so nothing sticks to it.
_NEW_SESSION = "NEW_SESSION"
_SESSION, _NEW_SESSION_HEADER = "x-amzn-sagemaker-session-id", "X-Amzn-SageMaker-New-Session-Id"
_PRINTABLE = re.compile(rb"[\x21-\x7e\x80-\xff][\x20-\x7e\x80-\xff]*")
#: What goes on to the model as text of its own, and may come back as a header (``reliability.md``, headers).
_ASCII = frozenset({b"x-amzn-sagemaker-custom-attributes", b"x-amzn-sagemaker-session-id"})
#: What a model may set in its answer (container contract).
_SETTABLE = re.compile(r"x-amzn-sagemaker-[a-z-]+|x-serving-[a-z-]+", re.IGNORECASE)


class Route(NamedTuple):
    """Where a path leads: the endpoint, and whether to answer as a container (``/invocations``) or the runtime API."""

    endpoint: str
    container: bool


def route(url: bytes, default_endpoint: str) -> Route | None:
    """The invocation route of a raw request target, or None. A name that cannot be an endpoint's keeps its route: the
    answer is then that there is no such endpoint; but one that holds a slash is another path."""
    if url == b"/invocations" or url.startswith(b"/invocations?"):
        return Route(default_endpoint, True)
    match = _PATH.fullmatch(url)
    if match is None:
        return None
    name = unquote_to_bytes(match[1])
    if b"/" in name:
        return None
    return Route(name.decode() if _ENDPOINT.fullmatch(name) else "", False)


_NO_EXTRAS = ("",) * (len(Invocation._fields) - 6)
#: Half the cost of calling a NamedTuple's own constructor.
_new = tuple.__new__


class Head(NamedTuple):
    """All that an invocation request's head says; the same for every request with the same head."""

    route: Route
    content_type: str
    accept: str
    extras: Mapping[str, str]
    timed: bool
    keep_alive: bool = True


def read_head(route: Route, headers: Mapping[bytes, bytes], keep_alive: bool = True) -> Head:
    """What the headers of a request to ``route`` say. ``headers``: lower-case names. Raises ``ValidationError``."""
    extras: dict[str, str] = {}
    for name in headers:
        if name.startswith(_PREFIXES):
            _read(name, headers[name], extras)
    content_type = headers.get(b"content-type", b"")
    accept = headers.get(b"accept", b"")
    if len(content_type) > 1024 or len(accept) > 1024 or b"\0" in content_type or b"\0" in accept:
        raise ValidationError("Content-Type and Accept must be at most 1024 characters.")
    session = extras.get("session_id", "")
    if session and session != _NEW_SESSION:
        extras.setdefault("affinity_key", session)
    kind, wanted = content_type.decode("latin-1"), accept.decode("latin-1")
    return Head(route, kind, wanted, extras, TIMING in headers, keep_alive)


def build(front: Front, head: Head, body: bytes, request_id: str, now: float) -> Invocation:
    """The invocation of a request with this head and body. ``now``: monotonic seconds."""
    deadline = now + front.settings.invocation_timeout_seconds
    extras = head.extras
    if not extras:
        first = (head.route.endpoint, body, head.content_type, head.accept, request_id, deadline)
        return _new(Invocation, first + _NO_EXTRAS)
    target = extras.get("target_model")
    if target is not None:
        aliases = front.directory.table.get("aliases", {}).get(head.route.endpoint)
        if aliases and target in aliases:
            extras = {**extras, "target_model": aliases[target]}
    return Invocation(head.route.endpoint, body, head.content_type, head.accept, request_id, deadline, **extras)


def _read(name: bytes, value: bytes, into: dict[str, str]) -> None:
    if name in _REFUSED:
        raise ValidationError(_REFUSED[name])
    field = FIELDS.get(name)
    if field is None or not value:
        return
    if len(value) > field[1] or not _PRINTABLE.fullmatch(value) or (name in _ASCII and not value.isascii()):
        raise ValidationError(f"{name.decode()} must be at most {field[1]} printable characters.")
    into[field[0]] = value.decode("latin-1")


def authorise(
    front: Front,
    route: Route,
    url: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    target: str | None = None,
) -> None:
    """Where keys are configured: who sent this POST, and may they invoke that? ``target``: the model, where the path
    and not a header names it. Raises ``AccessDenied`` or ``InvalidSignature``."""
    identity = identify(front, "POST", url, headers, body, time.time())
    if identity is None:
        return
    if target is None:
        named = (value.decode("latin-1") for name, value in headers if name == b"x-amzn-sagemaker-target-model")
        target = next(named, "")
    aliases = front.directory.table.get("aliases", {}).get(route.endpoint, {})
    target = aliases.get(target, target)  # what is invoked, whatever it is called
    if not auth.permits(identity, "invoke", route.endpoint, target):
        raise AccessDenied(f"This key may not invoke endpoint {route.endpoint}.")


def identify(
    front: Front, method: str, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes, now: float
) -> auth.Identity | None:
    """The caller; None where no keys are configured."""
    if front.keys is None:
        return None
    path, _, query = url.decode("latin-1").partition("?")
    return auth.authenticate(auth.Request(method, path, query, headers, body), front.keys, now)


def receipt(timing: Timing) -> str:
    """The value of ``X-Serving-Timing``: microseconds per step, calls in the batch, whether the model was in memory."""
    return (
        f"total={timing.total}; queue={timing.queue}; load={timing.load}; decode={timing.decode}; "
        f"predict={timing.predict}; encode={timing.encode}; batch={timing.batch}; hit={int(timing.hit)}"
    )


def reply_headers(reply: Reply, request_id: str, timed: bool, container: bool) -> list[tuple[str, str]]:
    """The headers of an answer, but for its length. What a container calls the session id is for the runtime API's
    callers that of a session it has just opened (``behaviour/02``, sticky sessions)."""
    headers = [
        ("content-type", clean(reply.content_type) or "application/octet-stream"),
        ("x-amzn-RequestId", request_id),
        (VARIANT, reply.variant),
    ]
    if timed:
        headers.append(("X-Serving-Timing", receipt(reply.timing)))
    for name, value in reply.headers:
        if _SETTABLE.fullmatch(name):
            renamed = not container and name.lower() == _SESSION
            headers.append((_NEW_SESSION_HEADER if renamed else name, clean(value)))
    return headers


_UNCLEAN = re.compile(r"[^\x20-\x7e]")


def clean(value: str) -> str:
    """A header value a model made up: visible ASCII, at most 1,024 characters; no line break gets out."""
    return _UNCLEAN.sub("", value)[:1024]
