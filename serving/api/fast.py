"""The fast door: invocation routes answered inside uvicorn's HTTP protocol, everything else handed to ASGI.

A request to ``/invocations``, ``/endpoints/{name}/invocations`` or its stream never becomes an ASGI scope, task or
coroutine: its parser callbacks fill one small object, ``Endpoint.invoke`` takes it, and the answer is one write
(measured: a third of raw ASGI's cost). A head that has been seen before needs no parser either. Connections, order,
limits and all other routes are ``connection.py``'s and uvicorn's. The same routes exist in ``routes.py`` for other ASGI
servers and pass the same tests.
"""

from __future__ import annotations

import re
import time
from typing import Any, ClassVar, cast

from serving.api import explaining, failures, framing, invocations, streams
from serving.api.connection import Connection
from serving.api.framing import Message
from serving.api.front import Front
from serving.errors import ServiceUnavailable, ServingError
from serving.types import Reply
from serving.watch.trace_context import trace_of
from serving.workers.chain import Ticket

#: A head is learned when it has only headers that clients repeat from call to call.
_LEARNED = frozenset(
    b"accept accept-encoding accept-language connection content-length content-type host origin referer user-agent "
    b"x-amzn-sagemaker-target-model x-amzn-sagemaker-target-variant x-serving-timing".split()
)
#: What boto3 makes anew for each call, in its one order. Where no keys are configured it means nothing.
_SIGNATURE = re.compile(
    rb"\r\nX-Amz-Date: [!-~]+(?:\r\nX-Amz-Security-Token: [!-~]+)?\r\nAuthorization: [ -~]+"
    rb"\r\namz-sdk-invocation-id: [!-~]+\r\namz-sdk-request: [ -~]+(?=\r\n)"
)
_LEARNED_SIGNED = _LEARNED.union(
    b"x-amz-date x-amz-security-token authorization amz-sdk-invocation-id amz-sdk-request".split()
)
#: A trace context is made anew for each call, and means nothing beside itself.
_TRACE, _TRACE_LINE = b"raceparent: ", re.compile(rb"\r\n[Tt]raceparent: ([!-~]{1,256})(?=\r\n)")
_LONGEST_LEARNED = 2048
_MOST_LEARNED = 1024
#: A stream that is still open when the server ends is told so, so long before.
_FAREWELL_SECONDS = 2.0

#: What is learned: a head, or what stands before and after boto3's signature in it.
_Key = bytes | tuple[bytes, bytes]


def _without_signature(head: bytes) -> _Key:
    """What of a head comes again with the next call. A header of a signature's that stands elsewhere too is part of the
    rest, and was refused with it."""
    signature = _SIGNATURE.search(head)
    return head if signature is None else (head[: signature.start()], head[signature.end() :])


def _without_trace(head: bytes) -> tuple[bytes, bytes]:
    """A head without its only ``traceparent``, and the value of that; as it is when it has none, or several."""
    at = head.find(_TRACE)
    line = _TRACE_LINE.match(head, at - 3) if at >= 0 else None
    if line is None or head.find(_TRACE, line.end()) >= 0:
        return head, b""
    return head[: line.start()] + head[line.end() :], line[1]


class FastProtocol(Connection):
    """One client connection. ``bind`` gives the class its front."""

    _current: invocations.Head | None
    _routes: ClassVar[dict[bytes, invocations.Route | None]]
    _heads: ClassVar[dict[tuple[str, str], bytes]]
    _known: ClassVar[dict[_Key, tuple[invocations.Head, int]]]

    @classmethod
    def bind(cls, front: Front) -> type[FastProtocol]:
        """A class uvicorn can instantiate with its own three arguments."""
        return cast(
            "type[FastProtocol]",
            type("BoundProtocol", (cls,), {"front": front, "_routes": {}, "_heads": {}, "_known": {}}),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._last: Message | None = None
        self._on_answer = self._answered
        self._stream: streams.Outgoing | None = None
        self._cut_at = 0.0
        self._ticket: Ticket | None = None
        self._request_id = ""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: free its slot and let the worker off."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.cancel()
        self._last = self._stream = None
        del self._on_answer  # it holds this connection
        super().connection_lost(exc)

    # -- asking ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        end = data.find(b"\r\n\r\n") + 4
        between = self._current is None and self._message is None and not self._waiting and not self._busy
        key: _Key = data[:end]
        trace = b""
        if between and end > 3:
            known = self._known.get(key)
            if known is None and end <= _LONGEST_LEARNED:
                head, trace = _without_trace(data[:end])
                key = _without_signature(head)
                known = self._known.get(key)
            if known is not None and known[1] == len(data) - end and self._refusal is None:
                self._since = self.front.clock
                self._serve(invocations.traced(known[0], trace) if trace else known[0], data[end:])
                return
        self._last = None  # a request that waited leaves its own here: this head does not mean that
        self._parse(data)
        if between and end > 3 and self._last is not None:
            self._learn(key, end, len(data) - end, bool(trace))

    def _learn(self, key: _Key, length: int, size: int, traced: bool) -> None:
        """Remember what a head meant: the same bytes mean the same again, and need no parser (a third of the front's
        work). Heads that never repeat, but for boto3's signature and a trace context, are not learned, nor those whose
        body does not end with the read. ``traced``: ``key`` is without its trace context."""
        message, self._last = self._last, None
        assert message is not None
        fields = message.fields
        if traced:
            fields = {name: value for name, value in fields.items() if name != invocations.TRACEPARENT}
        repeated = _LEARNED if isinstance(key, bytes) else _LEARNED_SIGNED
        if size != message.size or length > _LONGEST_LEARNED or not repeated.issuperset(fields):
            return
        if b"content-length" not in fields or self.front.keys is not None or message.route is None:
            return
        if message.route.streamed:
            return
        if len(self._known) >= _MOST_LEARNED:
            self._known.clear()
        try:
            self._known[key] = (invocations.read_head(message.route, fields, message.keep_alive), size)
        except ServingError:
            return  # it was refused, and will be again

    def _claim(self, message: Message) -> None:
        if message.method == b"POST" and self.front.settings.fast_path and b"prefer" not in message.fields:
            message.route = self._route(message.url)  # who would rather be answered later goes the other way

    def _route(self, url: bytes) -> invocations.Route | None:
        routes = self._routes
        if url in routes:
            return routes[url]
        found = invocations.route(url, self.front.settings.default_endpoint)
        if len(url) <= _LONGEST_LEARNED:
            if len(routes) >= _MOST_LEARNED:
                routes.clear()
            routes[url] = found
        return found

    # -- answering ------------------------------------------------------------------------------------------------

    def _begin(self, message: Message) -> None:
        route, front = message.route, self.front
        if route is None:
            super()._begin(message)
            return
        body = message.body[0] if len(message.body) == 1 else b"".join(message.body)
        head = invocations.Head(route, "", "", {}, False, message.keep_alive)
        try:
            if front.keys is not None:
                invocations.authorise(front, route, message.url, message.headers, body)
            head = invocations.read_head(route, message.fields, message.keep_alive, message.version)
        except Exception as error:
            self._current, self._request_id = head, front.next_request_id()
            self._reject(error)
        else:
            self._last = message
            self._serve(head, body)

    def _serve(self, head: invocations.Head, body: bytes) -> None:
        """An invocation: hand it to the hallway."""
        front = self.front
        self._current = head
        self._request_id = request_id = front.next_request_id()
        try:
            endpoint = front.directory.get(head.route.endpoint)
            invocation = invocations.build(front, head, body, request_id, time.monotonic())
            if endpoint.explainer is None:
                ticket = endpoint.invoke(invocation, self._on_begun if head.route.streamed else self._on_answer)
            else:
                answering = explaining.answering(front, endpoint, invocation)
                ticket = answering.invoke(invocation, self._on_begun if head.route.streamed else self._on_answer)
            if self._current is head:  # else it was answered at once, and another's turn may have come
                self._ticket = ticket
        except Exception as error:
            self._reject(error)

    def _reject(self, error: Exception) -> None:
        """The current request never reaches a variant."""
        refused = failures.as_serving_error(error, self._request_id)
        self.front.registry.counter("sagemaker_rejected_requests_total", refused.code).add()
        self._answered(refused)

    def _answered(self, result: Reply | ServingError) -> None:
        """The answer has come: one write, then the next request of this connection, if any."""
        head, ticket = self._current, self._ticket
        assert head is not None
        self._current = self._ticket = None
        transport = self.transport
        if transport.is_closing():
            return
        last = not head.keep_alive or (self._closing and self._idle)
        if isinstance(result, Reply):
            transport.write(self._reply(head, result, last))
        else:
            transport.write(self._failure(head, result, ticket, last))
        self._go_on(last)

    def _go_on(self, last: bool) -> None:
        """An answer is out."""
        self._since = self.front.clock
        if last:
            self.transport.close()
        elif self._waiting or self._refusal is not None or self._message is not None:
            self._next()

    def _reply(self, head: invocations.Head, reply: Reply, last: bool) -> bytes:
        if reply.headers or head.timed or last or not reply.body:
            headers = invocations.reply_headers(reply, self._request_id, head.timed, head.route.container)
            return framing.answer(invocations.reply_status(reply, head), self._date(), headers, reply.body, last)
        kind = (reply.content_type, reply.variant)
        first = self._heads.get(kind)
        if first is None:
            if len(self._heads) > 1024:
                self._heads.clear()
            plain = invocations.reply_headers(reply, "", False, True)
            lines = [f"{name}: {value}\r\n" for name, value in plain if name != "x-amzn-RequestId"]
            first = self._heads[kind] = ("HTTP/1.1 200 OK\r\n" + "".join(lines)).encode("latin-1")
        request_id, body = self._request_id.encode(), reply.body
        return b"%b%bx-amzn-RequestId: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            first,
            self._date(),
            request_id,
            len(body),
            body,
        )

    def _failure(self, head: invocations.Head, error: ServingError, ticket: Ticket | None, last: bool) -> bytes:
        settings, route = self.front.settings, head.route
        status, headers, body = failures.dress(
            error, route.container, self._request_id, settings.account_id, route.endpoint, settings.region,
            trace_of(head.extras.get("traceparent", "")),
        )  # fmt: skip
        if ticket is not None:
            headers.append((invocations.VARIANT, ticket.variant))
        return framing.answer(status, self._date(), headers, body, last)

    # -- answering in parts ---------------------------------------------------------------------------------------

    def _on_begun(self, result: Reply | ServingError) -> None:
        """The first part of a stream has come, or all of it, or what there is instead: from here on errors are part of
        the stream."""
        head, transport = self._current, self.transport
        assert head is not None
        if not isinstance(result, Reply):
            self._answered(result)
            return
        first, rest = streams.split(result)
        if transport.is_closing():
            rest.cancel()
            return
        headers = invocations.stream_headers(result, self._request_id, head.timed)
        transport.write(framing.stream_head(self._date(), headers, not head.keep_alive))
        self._stream = streams.Outgoing(rest, first, self._write_chunk, self._stream_over)
        if self._write_paused_since:
            self._stream.pause()
        self._stream.start()
        self._cut_in_time()

    def _write_chunk(self, frame: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(framing.chunk(frame))

    def _stream_over(self) -> None:
        head = self._current
        if head is None:
            return  # the client has left
        self._current = self._ticket = self._stream = None
        if not self.transport.is_closing():
            self.transport.write(framing.LAST_CHUNK)
            self._go_on(not head.keep_alive or (self._closing and self._idle))

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        super().pause_writing()
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._stream is not None:
            self._stream.resume()

    def shutdown(self) -> None:
        """Finish what was accepted; a stream, as far as there is time."""
        super().shutdown()
        self._cut_at = self.loop.time() + self.front.settings.drain_seconds - _FAREWELL_SECONDS
        self._cut_in_time()

    def _cut_in_time(self) -> None:
        if self._closing and self._stream is not None:
            self.loop.call_at(self._cut_at, self._cut, self._stream)

    def _cut(self, stream: streams.Outgoing) -> None:
        if stream is self._stream:
            stream.cut(ServiceUnavailable("The server is shutting down."))
