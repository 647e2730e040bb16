"""A request for a prediction, from HTTP's words into an ``Invocation`` and back. Used by both doors: the fast protocol
and the ASGI routes. Header names and limits: SageMaker Runtime, InvokeEndpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from serving.api import auth, eventstream
from serving.api.front import Front
from serving.errors import AccessDenied, ValidationError
from serving.types import Invocation, Reply, Timing
from serving.watch.trace_context import traceparent
from serving.workers.sessions import NEW_SESSION

_ENDPOINT = re.compile(rb"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_PATH = re.compile(rb"/endpoints/([^/?#]{1,256})/invocations(-response-stream)?(?:\?.*)?")

_NAME = re.compile(rb"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*")
_SESSION_ID = re.compile(rb"NEW_SESSION|" + _NAME.pattern)
_TEXT = re.compile(rb"[\x21-\x7e][\x20-\x7e]*")
#: Names of ours that may be other than ASCII.
_WIDE_TEXT = re.compile(rb"[\x21-\x7e\x80-\xff][\x20-\x7e\x80-\xff]*")
_CHARACTERS = {
    _NAME: "letters, digits and inner hyphens",
    _SESSION_ID: "letters, digits and inner hyphens, or NEW_SESSION",
    _TEXT: "printable characters",
    _WIDE_TEXT: "printable characters",
}


class Field(NamedTuple):
    """A request header that says something of the call: its name as people write it, the field of ``Invocation``, the
    longest value in bytes and what it may look like."""

    name: str
    field: str
    longest: int
    pattern: re.Pattern[bytes]

    def read(self, value: bytes) -> str:
        """The value. Raises ``ValidationError`` naming the header."""
        if len(value) > self.longest or not self.pattern.fullmatch(value):
            raise ValidationError(f"{self.name} must be at most {self.longest} {_CHARACTERS[self.pattern]}.")
        return value.decode("latin-1")


_AMZN = "X-Amzn-SageMaker-"
#: Every header of InvokeEndpoint and InvokeEndpointWithResponseStream beside the types, and one of ours; by its name in
#: lower case. What reaches the model as text of its own, and may come back as a header, is ASCII.
FIELDS: dict[bytes, Field] = {
    one.name.lower().encode(): one
    for one in (
        Field(_AMZN + "Target-Model", "target_model", 1024, _WIDE_TEXT),
        Field(_AMZN + "Target-Variant", "target_variant", 63, _NAME),
        Field(_AMZN + "Target-Container-Hostname", "target_container", 63, _NAME),
        Field(_AMZN + "Inference-Component", "component", 63, _NAME),
        Field(_AMZN + "Custom-Attributes", "custom_attributes", 1024, _TEXT),
        Field(_AMZN + "Inference-Id", "inference_id", 64, _TEXT),
        Field(_AMZN + "Session-Id", "session_id", 256, _SESSION_ID),
        Field(_AMZN + "Prefix-Aware-Id", "prefix_id", 64, _TEXT),
        Field(_AMZN + "Enable-Explanations", "explain", 64, _TEXT),
        Field("X-Serving-Affinity-Key", "affinity_key", 256, _WIDE_TEXT),
    )
}
_PREFIXES = (b"x-amzn-sagemaker-", b"x-serving-affinity")
TIMING = b"x-serving-timing"
#: W3C Trace Context, 3.2.
TRACEPARENT = b"traceparent"
VARIANT = "x-Amzn-Invoked-Production-Variant"
_SESSION, _NEW_SESSION_HEADER = "x-amzn-sagemaker-session-id", "X-Amzn-SageMaker-New-Session-Id"
_ACCEPT = b"x-amzn-sagemaker-accept"
#: What a model may set in its answer (container contract).
_SETTABLE = re.compile(r"x-amzn-sagemaker-[a-z-]+|x-serving-[a-z-]+", re.IGNORECASE)


class Route(NamedTuple):
    """Where a path leads: the endpoint, whether to answer as a container (``/invocations``) or the runtime API, and
    whether as a stream (``/invocations-response-stream``)."""

    endpoint: str
    container: bool
    streamed: bool = False


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
    return Route(endpoint_name(name), False, match[2] is not None)


def endpoint_name(name: bytes) -> str:
    """A name from a path; empty when it cannot be an endpoint's."""
    return name.decode() if _ENDPOINT.fullmatch(name) else ""


_NO_EXTRAS = tuple(Invocation._field_defaults.values())
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


def read_head(route: Route, headers: Mapping[bytes, bytes], keep_alive: bool = True, version: str = "1.1") -> Head:
    """What the headers of a request to ``route`` say. ``headers``: lower-case names. Raises ``ValidationError``."""
    extras: dict[str, str] = {}
    for name in headers:
        if name.startswith(_PREFIXES):
            _read(name, headers[name], extras)
    content_type = headers.get(b"content-type", b"")
    accept = headers.get(_ACCEPT if route.streamed else b"accept", b"")
    if len(content_type) > 1024 or len(accept) > 1024 or b"\0" in content_type or b"\0" in accept:
        raise ValidationError("Content-Type and Accept must be at most 1024 characters.")
    if extras:
        _settle(extras, route)
    if TRACEPARENT in headers:
        _trace(headers[TRACEPARENT], extras)
    if route.streamed and version == "1.0":  # there the end of an answer and a break look the same
        raise ValidationError("A stream needs HTTP/1.1.")
    kind, wanted = content_type.decode("latin-1"), accept.decode("latin-1")
    return Head(route, kind, wanted, extras, TIMING in headers, keep_alive)


def _trace(value: bytes, extras: dict[str, str]) -> None:
    """The caller's trace context; what is none is ignored."""
    context = traceparent(value)
    if context:
        extras["traceparent"] = context


def traced(head: Head, value: bytes) -> Head:
    """What the head of a request says that has a ``traceparent`` of this value, too."""
    extras = dict(head.extras)
    _trace(value, extras)
    return head._replace(extras=extras)


def _settle(extras: dict[str, str], route: Route) -> None:
    """What headers mean together."""
    prefix = extras.pop("prefix_id", "")
    if prefix:  # calls that begin alike are best answered where the first was
        extras.setdefault("affinity_key", prefix)
    if route.streamed and extras.get("session_id") == NEW_SESSION:
        raise ValidationError(
            "X-Amzn-SageMaker-Session-Id of a streamed call must name an open session: open one with InvokeEndpoint."
        )
    if route.streamed and "explain" in extras:
        raise ValidationError("A stream has no explanations; remove the enable explanations header.")


def build(front: Front, head: Head, body: bytes, request_id: str, now: float) -> Invocation:
    """The invocation of a request with this head and body. ``now``: monotonic seconds."""
    deadline = now + front.settings.invocation_timeout_seconds
    extras = head.extras
    if not extras and not head.route.streamed:
        first = (head.route.endpoint, body, head.content_type, head.accept, request_id, deadline)
        return _new(Invocation, first + _NO_EXTRAS)
    if "explain" in extras and front.directory.get(head.route.endpoint).explainer is None:
        raise ValidationError("The endpoint has no explainer; remove the enable explanations header.")
    target = extras.get("target_model")
    if target is not None:
        aliases = front.directory.table.get("aliases", {}).get(head.route.endpoint)
        if aliases and target in aliases:
            extras = {**extras, "target_model": aliases[target]}
    seconds = front.settings.stream_timeout_seconds if head.route.streamed else 0.0
    texts: Mapping[str, Any] = extras
    return Invocation(
        head.route.endpoint, body, head.content_type, head.accept, request_id, deadline, stream_seconds=seconds,
        **texts,
    )  # fmt: skip


def _read(name: bytes, value: bytes, into: dict[str, str]) -> None:
    field = FIELDS.get(name)
    if field is not None and value:
        into[field.field] = field.read(value)


def authorise(
    front: Front,
    route: Route,
    url: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    target: str | None = None,
    method: str = "POST",
) -> auth.Identity | None:
    """Where keys are configured: who sent this, and may they invoke that? Returns the caller. ``target``: the model,
    where the path and not a header names it. Raises ``AccessDenied`` or ``InvalidSignature``."""
    identity = identify(front, method, url, headers, body, time.time())
    if identity is None:
        return None
    if target is None:
        named = (value.decode("latin-1") for name, value in headers if name == b"x-amzn-sagemaker-target-model")
        target = next(named, "")
    aliases = front.directory.table.get("aliases", {}).get(route.endpoint, {})
    target = aliases.get(target, target)  # what is invoked, whatever it is called
    if not auth.permits(identity, "invoke", route.endpoint, target):
        raise AccessDenied(f"This key may not invoke endpoint {route.endpoint}.")
    return identity


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


def reply_status(reply: Reply, head: Head) -> int:
    """200; a container says 204 of an answer without content (RFC 9110, 15.3.5), the runtime API does not."""
    return 200 if reply.body or not head.route.container else 204


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


def stream_headers(reply: Reply, request_id: str, timed: bool) -> list[tuple[str, str]]:
    """The headers of an answer in parts (SageMaker Runtime, InvokeEndpointWithResponseStream): the type of the whole
    has a header of its own."""
    (_, content_type), *others = reply_headers(reply, request_id, timed, container=False)
    return [("content-type", eventstream.CONTENT_TYPE), ("X-Amzn-SageMaker-Content-Type", content_type), *others]


_UNCLEAN = re.compile(r"[^\x20-\x7e]")


def clean(value: str) -> str:
    """A header value a model made up: visible ASCII, at most 1,024 characters; no line break gets out."""
    return _UNCLEAN.sub("", value)[:1024]
