"""The fast door: invocation routes answered inside uvicorn's HTTP protocol, everything else handed to ASGI.

A request to ``/invocations`` or ``/endpoints/{name}/invocations`` never becomes an ASGI scope, task or coroutine: its
parser callbacks fill one small object, ``Endpoint.invoke`` takes it, and the answer is one write (measured: a third of
raw ASGI's cost). Connections, keep-alive, shutdown and all other routes stay uvicorn's. The same routes exist in
``routes.py`` for other ASGI servers and pass the same tests.

Also here, for every request, because nothing below checks it: how long a client may take to send, how large head and
body may be, and framing that two readers could read differently (RFC 9112, 6.3). What is refused is answered and the
connection closed, after a moment of reading on so that the answer is not lost to a reset.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.api import failures, invocations
from serving.api.front import Front
from serving.errors import ServingError
from serving.types import Reply
from serving.workers.pool import Call

_KEEP_ALIVE_SECONDS = 75.0
_LINGER_SECONDS = 3.0
_MOST_PIPELINED = 8
#: Chunk heads and extensions may cost this much more than the body itself.
_CHUNK_SLACK = 64 * 1024
#: A head is learned when it has only headers that clients repeat from call to call.
_LEARNED = frozenset(
    b"accept accept-encoding accept-language connection content-length content-type host origin referer user-agent "
    b"x-amzn-sagemaker-target-model x-amzn-sagemaker-target-variant x-serving-timing".split()
)
_LONGEST_LEARNED = 2048
_MOST_LEARNED = 1024
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization"})
_PHRASES = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 406: "Not Acceptable", 408: "Request Timeout",
    413: "Content Too Large", 415: "Unsupported Media Type", 424: "Failed Dependency", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 507: "Insufficient Storage",
}  # fmt: skip

log = logging.getLogger("serving.front")


class _Refused(Exception):
    """Stop reading this connection: (status, sentence)."""


class _Message:
    """One request as it arrives; also what the ASGI side needs to be told if it had to wait for its turn."""

    __slots__ = (
        "body",
        "fields",
        "headers",
        "keep_alive",
        "method",
        "route",
        "size",
        "url",
        "version",
    )

    def __init__(self) -> None:
        self.url = b""
        self.method = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.keep_alive = True
        self.route: invocations.Route | None = None

    # The parser's questions that uvicorn's code asks, answered as they stood when this message was read.
    def get_http_version(self) -> str:
        return self.version

    def get_method(self) -> bytes:
        return self.method

    def should_keep_alive(self) -> bool:
        return self.keep_alive

    def should_upgrade(self) -> bool:
        return False


class FastProtocol(HttpToolsProtocol):
    """One client connection. ``bind`` gives the class its front."""

    front: ClassVar[Front]
    _routes: ClassVar[dict[bytes, invocations.Route | None]]
    _heads: ClassVar[dict[tuple[str, str], bytes]]
    _known: ClassVar[dict[bytes, tuple[invocations.Head, int]]]
    _date_line: ClassVar[tuple[Any, bytes]] = (None, b"")

    @classmethod
    def bind(cls, front: Front) -> type[FastProtocol]:
        """A class uvicorn can instantiate with its own three arguments."""
        return cast(
            "type[FastProtocol]",
            type("BoundProtocol", (cls,), {"front": front, "_routes": {}, "_heads": {}, "_known": {}}),
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._message: _Message | None = None
        self._to_asgi = False
        self._current: invocations.Head | None = None
        self._last: _Message | None = None
        self._on_answer = self._answered
        self._ticket: Call | None = None
        self._request_id = ""
        self._waiting: deque[_Message] = deque()
        self._head_bytes = 0
        self._raw_bytes = 0
        self._since = 0.0
        self._arriving = False
        self._write_paused_since = 0.0
        self._lingering_until = 0.0
        self._lingered = 0
        self._closing = False

    # -- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.front.settings.max_connections:
            self._refuse(503, "Too many connections are open. Please try again.")
        elif self._closing or self.front.draining:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: free its slot and let the worker off."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.cancel()
        self._waiting.clear()
        self._current = self._last = None
        del self._on_answer  # it holds this connection
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        end = data.find(b"\r\n\r\n") + 4
        between = self._current is None and self._message is None and not self._waiting and not self._busy
        if between and end > 3:
            known = self._known.get(data[:end])
            if known is not None and known[1] == len(data) - end and not self._lingering_until:
                self._since = self.front.clock
                self._serve(known[0], data[end:])
                return
        self._parse(data)
        if between and end > 3 and self._last is not None:
            self._learn(data[:end], len(data) - end)

    def _learn(self, head: bytes, size: int) -> None:
        """Remember what a head meant: the same bytes mean the same again, and need no parser (a third of the front's
        work). Heads that never repeat (signed ones) and those whose body does not end with the read are not learned."""
        message, self._last = self._last, None
        assert message is not None
        fields = message.fields
        if size != message.size or len(head) > _LONGEST_LEARNED or not _LEARNED.issuperset(fields):
            return
        if b"content-length" not in fields or self.front.keys is not None or message.route is None:
            return
        if len(self._known) >= _MOST_LEARNED:
            self._known.clear()
        try:
            self._known[head] = (invocations.read_head(message.route, fields, message.keep_alive), size)
        except ServingError:
            return  # it was refused, and will be again

    def _parse(self, data: bytes) -> None:
        if self._lingering_until:
            self._linger(len(data))
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._raw_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data, upgrade)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, _Refused):
                log.error("reading a request failed", exc_info=cause)
                self._refuse(500, "An internal failure occurred.")
                return
            self._refuse(*cause.args)
            return
        except httptools.HttpParserError:
            self._refuse(400, "The request is not valid HTTP.")
            return
        self._account(len(data))

    def _account(self, count: int) -> None:
        """Time and size limits for what has arrived only in part."""
        message = self._message
        if message is None:
            self._arriving = False
            return
        if not self._arriving:
            self._arriving, self._since = True, self.loop.time()
        if not message.method:
            self._head_bytes += count
            if self._head_bytes > self.front.settings.max_header_bytes:
                self._refuse(431, "The request's head is too large.")
        elif self._raw_bytes > 2 * self.front.settings.max_body_bytes + _CHUNK_SLACK:
            self._refuse(400, "The request's chunks carry more framing than content.")

    def _after_upgrade(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """A client offered another protocol (stock Java clients offer h2c). RFC 9110, 7.8: we may ignore that and
        answer in HTTP/1.1; the parser stops there, so a fresh one reads on."""
        rest = data[upgrade.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        if rest and not self._lingering_until:
            self._raw_bytes -= len(rest)
            self.data_received(rest)

    # -- the parser's callbacks -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._message = _Message()
        self._head_bytes = 0
        self._raw_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        assert self._message is not None
        self._message.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        message = self._message
        assert message is not None
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if name in message.fields and name in _SINGLE:
            raise _Refused(400, f"The header {name.decode('latin-1')} is given twice.")
        message.fields[name] = value
        message.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete: decide who answers."""
        message = self._message
        assert message is not None
        parser = self.parser
        message.method = parser.get_method()
        message.version = parser.get_http_version()
        message.keep_alive = parser.should_keep_alive() and message.version != "1.0"
        fields = message.fields
        if self._head_bytes + len(message.url) > self.front.settings.max_header_bytes:
            raise _Refused(431, "The request's head is too large.")
        self._check_framing(message, fields)
        if message.method == b"POST" and self.front.settings.fast_path:
            message.route = self._route(message.url)
        waiting = self._busy
        self._to_asgi = message.route is None and not waiting
        if b"expect" in fields:
            self._continue(message, waiting)
        if self._to_asgi:
            self._replay_head(message)

    def _check_framing(self, message: _Message, fields: dict[bytes, bytes]) -> None:
        if b"transfer-encoding" in fields:
            if b"content-length" in fields:
                raise _Refused(400, "Content-Length and Transfer-Encoding together are ambiguous.")
            if fields[b"transfer-encoding"].strip().lower() != b"chunked" or message.version == "1.0":
                raise _Refused(501, "The only transfer coding understood is chunked.")
        if b"host" not in fields and message.version != "1.0":
            raise _Refused(400, "The Host header is missing.")
        if b"content-encoding" in fields and fields[b"content-encoding"].lower() != b"identity":
            raise _Refused(415, "Compressed bodies are not accepted.")
        length = fields.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self.front.settings.max_body_bytes):
            self._too_large()

    def _too_large(self) -> None:
        limit = self.front.settings.max_body_bytes
        raise _Refused(413, f"The body is larger than {limit} bytes.")

    def _continue(self, message: _Message, waiting: bool) -> None:
        """The client waits for leave to send its body; uvicorn does this for its own."""
        if message.fields[b"expect"].lower() == b"100-continue" and not self._to_asgi and not waiting:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _route(self, url: bytes) -> invocations.Route | None:
        routes = self._routes
        if url in routes:
            return routes[url]
        if len(routes) > 1024:
            routes.clear()
        found = routes[url] = invocations.route(url, self.front.settings.default_endpoint)
        return found

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        message = self._message
        assert message is not None
        message.size += len(body)
        if message.size > self.front.settings.max_body_bytes:
            self._too_large()
        if self._to_asgi:
            self._with_parser(message, super().on_body, body)
        else:
            message.body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole: answer it, or let it wait for the one before it."""
        message = self._message
        assert message is not None
        self._message = None
        if self._to_asgi:
            self._with_parser(message, super().on_message_complete)
        elif self._busy or self._waiting:
            self._waiting.append(message)
            if len(self._waiting) >= _MOST_PIPELINED:
                self.flow.pause_reading()
        else:
            self._begin(message)

    # -- answering ------------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Is an answer on this connection still to come?"""
        return self._current is not None or (self.cycle is not None and not self.cycle.response_complete)

    def _begin(self, message: _Message) -> None:
        """A whole request, whose turn it is."""
        route, front = message.route, self.front
        if route is None:
            self._replay(message)
            return
        body = message.body[0] if len(message.body) == 1 else b"".join(message.body)
        head = invocations.Head(route, "", "", {}, False, message.keep_alive)
        try:
            if front.keys is not None:
                invocations.authorise(front, route, "POST", message.url, message.headers, body, time.time())
            head = invocations.read_head(route, message.fields, message.keep_alive)
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
            self._ticket = endpoint.invoke(invocation, self._on_answer)
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
        if isinstance(result, Reply):
            transport.write(self._reply(head, result))
        else:
            transport.write(self._failure(head, result, ticket))
        if not head.keep_alive or self._closing:
            transport.close()
            return
        self._since = self.front.clock
        if self._waiting:
            self._next()

    def _date(self) -> bytes:
        """The Date line; uvicorn renews the header once a second."""
        made, line = self._date_line
        headers = self.server_state.default_headers
        if made is not headers:
            line = b"".join(b"%b: %b\r\n" % header for header in headers)
            type(self)._date_line = (headers, line)
        return line

    def _reply(self, head: invocations.Head, reply: Reply) -> bytes:
        if reply.headers or head.timed or not head.keep_alive or self._closing:
            headers = invocations.reply_headers(reply, self._request_id, head.timed)
            return self._dressed(head, 200, headers, reply.body)
        kind = (reply.content_type, reply.variant)
        first = self._heads.get(kind)
        if first is None:
            if len(self._heads) > 1024:
                self._heads.clear()
            plain = invocations.reply_headers(reply, "", False)
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

    def _failure(self, head: invocations.Head, error: ServingError, ticket: Call | None) -> bytes:
        settings, route = self.front.settings, head.route
        status, headers, body = failures.dress(
            error, route.container, self._request_id, settings.account_id, route.endpoint, settings.region
        )
        if ticket is not None:
            headers.append(("x-Amzn-Invoked-Production-Variant", ticket.variant))
        return self._dressed(head, status, headers, body)

    def _dressed(self, head: invocations.Head, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
        keep = "" if head.keep_alive and not self._closing else "connection: close\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        first = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
        rest = f"{lines}{keep}content-length: {len(body)}\r\n\r\n".encode("latin-1", "replace")
        return first + self._date() + rest + body

    def _next(self) -> None:
        """The next request that waited on this connection."""
        if self._waiting and not self._busy and not self.transport.is_closing():
            message = self._waiting.popleft()
            if not self._waiting:
                self.flow.resume_reading()
            self._begin(message)

    # -- the ASGI side --------------------------------------------------------------------------------------------

    def _with_parser(self, message: _Message, call: Any, *args: Any) -> None:
        """Run uvicorn's own callback with the parser's answers as they stood for this message."""
        parser, self.parser = self.parser, cast("Any", message)
        try:
            call(*args)
        finally:
            self.parser = parser

    def _replay_head(self, message: _Message) -> None:
        super().on_message_begin()
        super().on_url(message.url)
        for name, value in message.headers:
            super().on_header(name, value)
        self._with_parser(message, super().on_headers_complete)

    def _replay(self, message: _Message) -> None:
        """A whole request that waited: give it to ASGI now."""
        self._replay_head(message)
        for chunk in message.body:
            self._with_parser(message, super().on_body, chunk)
        self._with_parser(message, super().on_message_complete)

    def on_response_complete(self) -> None:
        """ASGI has answered."""
        super().on_response_complete()
        self._since = self.front.clock
        if self._closing and not self._waiting:
            self.transport.close()
        else:
            self._next()

    # -- refusing, waiting, leaving -------------------------------------------------------------------------------

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer a connection that cannot be read on, then read and discard for a moment so that it sees the answer."""
        if self._lingering_until or self.transport.is_closing():
            return
        code = "ThrottlingException" if status == 503 else "ValidationException"
        body = b'{"__type":"%b","Message":"%b"}' % (code.encode(), sentence.encode())
        self.front.registry.counter("sagemaker_rejected_requests_total", code).add()
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\nx-amzn-ErrorType: {code}\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        if self._busy:  # an earlier request's answer must not be mistaken for this one's
            self.transport.close()
            return
        self._message = None
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._lingering_until = self.loop.time() + _LINGER_SECONDS

    def _linger(self, count: int) -> None:
        self._lingered += count
        if self._lingered > 16 * self.front.settings.max_body_bytes:
            self.transport.abort()

    def sweep(self, now: float) -> None:
        """Once a second: cut those who take too long to send, to read, or to go. ``now``: the loop's time."""
        limit = self.front.settings.receive_timeout_seconds
        if self.transport is None or self.transport.is_closing():
            return
        if self._lingering_until:
            if now > self._lingering_until:
                self.transport.abort()
        elif self._write_paused_since:
            if now - self._write_paused_since > limit:
                self.transport.abort()
        elif self._arriving:
            if now - self._since > limit:
                self._refuse(408, "The request did not arrive in time.")
        elif not self._busy and now - self._since > _KEEP_ALIVE_SECONDS:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client reads too slowly: stop reading from it, and note since when."""
        super().pause_writing()
        self._write_paused_since = self.loop.time()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._write_paused_since = 0.0
        self.flow.resume_reading()

    def eof_received(self) -> None:
        """The client has finished sending; asyncio closes the transport, which cancels what is in flight."""

    def shutdown(self) -> None:
        """Finish what was accepted, then close. An idle connection stays a moment longer: a request may already be in
        the socket's buffer, written before the listener closed."""
        self._closing = True
        if not self._busy:
            self.loop.call_later(0.2, self._close_if_idle)
        elif self._current is None:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if not self._busy and not self._arriving and not self.transport.is_closing():
            self.transport.close()
