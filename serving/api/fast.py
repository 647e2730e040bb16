"""The fast door: invocation routes answered inside uvicorn's HTTP protocol, everything else handed to ASGI.

A request to ``/invocations`` or ``/endpoints/{name}/invocations`` never becomes an ASGI scope, task or coroutine: its
parser callbacks fill one small object, ``Endpoint.invoke`` takes it, and the answer is one write (measured: a third of
raw ASGI's cost). Connections, keep-alive, shutdown and all other routes stay uvicorn's. The same routes exist in
``routes.py`` for other ASGI servers and pass the same tests.

Also here, for every request, because nothing below checks it: how long a client may take to send, how large head and
body may be, and framing that two readers could read differently (``framing.py``). What is refused is answered, in its
turn, and the connection closed, after a moment of reading on so that the answer is not lost to a reset.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.api import failures, framing, invocations
from serving.api.framing import Message, Refused
from serving.api.front import Front
from serving.errors import ServingError
from serving.types import Reply
from serving.workers.channel import Call

_KEEP_ALIVE_SECONDS = 75.0
_LINGER_SECONDS = 3.0
#: From so many requests waiting for an earlier one's answer on, or from one with so large a body, nothing more is read.
_MOST_PIPELINED = 8
_LARGE_BODY = 64 * 1024
#: What the parser is given at a time: bounds what it makes of one read, and how far over a limit a request gets.
_PIECE = 16 * 1024
#: A head is learned when it has only headers that clients repeat from call to call.
_LEARNED = frozenset(
    b"accept accept-encoding accept-language connection content-length content-type host origin referer user-agent "
    b"x-amzn-sagemaker-target-model x-amzn-sagemaker-target-variant x-serving-timing".split()
)
_LONGEST_LEARNED = 2048
_MOST_LEARNED = 1024

log = logging.getLogger("serving.front")


class _Flow(FlowControl):
    """Reading stays paused while ``full``, whoever resumes it: uvicorn does so after each of its answers."""

    full = False

    def resume_reading(self) -> None:
        if not self.full and not self.write_paused:
            super().resume_reading()


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
        self._message: Message | None = None
        self._to_asgi = False
        self._current: invocations.Head | None = None
        self._last: Message | None = None
        self._on_answer = self._answered
        self._ticket: Call | None = None
        self._request_id = ""
        self._waiting: deque[Message] = deque()
        self._turning = False
        self._unread = b""
        self._raw_bytes = 0
        self._since = 0.0
        self._arriving = False
        self._write_paused_since = 0.0
        self._refusal: tuple[int, str] | None = None
        self._lingering_until = 0.0
        self._lingered = 0
        self._closing = False

    # -- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.flow = self._reading = _Flow(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.front.settings.max_connections:
            self.connections.discard(self)  # it must not keep others out while it lingers
            self.loop.call_later(_LINGER_SECONDS, transport.abort)
            self._refuse(503, "Too many connections are open. Please try again.")
        elif self._closing or self.front.draining:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left: free its slot and let the worker off."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.cancel()
        self._waiting.clear()
        self._unread = b""
        self._current = self._last = None
        del self._on_answer  # it holds this connection
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        end = data.find(b"\r\n\r\n") + 4
        between = self._current is None and self._message is None and not self._waiting and not self._busy
        if between and end > 3:
            known = self._known.get(data[:end])
            if known is not None and known[1] == len(data) - end and self._refusal is None:
                self._since = self.front.clock
                self._serve(known[0], data[end:])
                return
        self._last = None  # a request that waited leaves its own here: this head does not mean that
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
        if self._refusal is not None:
            self._linger(len(data))
            return
        at, end = 0, len(data)
        while at < end and self._refusal is None:
            if self._reading.full:
                self._unread = data[at:]
                break
            at += self._feed(data[at : at + _PIECE])
            self._account()

    def _feed(self, data: bytes) -> int:
        """Let the parser read. Returns how many bytes it took: it stops where a client offers another protocol."""
        self._raw_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._pass_over()
            taken: int = upgrade.args[0]
            return taken
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, Refused):
                self._refuse(*cause.args)
            else:
                log.error("reading a request failed", exc_info=cause)
                self._refuse(500, "An internal failure occurred.")
        except httptools.HttpParserError:
            self._refuse(400, "The request is not valid HTTP.")
        return len(data)

    def _pass_over(self) -> None:
        """The client has offered another protocol, as stock Java clients offer h2c with every request; we may ignore
        that (RFC 9110, 7.8), but the parser takes the body for the other protocol's. A fresh one reads on, told how
        the body is framed."""
        message = self._message
        assert message is not None
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(message.framing())

    def _account(self) -> None:
        """Time and size limits for what has arrived only in part."""
        message = self._message
        if message is None:
            self._arriving = False
            return
        if not self._arriving:
            self._arriving, self._since = True, self.loop.time()
        try:
            framing.check_partial(message, self._raw_bytes, self.front.settings)
        except Refused as refused:
            self._refuse(*refused.args)

    # -- the parser's callbacks -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.transport.is_closing():
            raise Refused(400, "The connection was to end with the request before.")
        if self._message is not None:
            return  # the same, after an offer passed over
        self._message = Message()
        self._to_asgi = False
        self._raw_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        message = self._message
        assert message is not None
        if not message.method:
            message.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        assert self._message is not None
        self._message.add(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: decide who answers."""
        message = self._message
        assert message is not None
        if message.method:
            return
        parser, settings = self.parser, self.front.settings
        message.method = parser.get_method()
        message.version = parser.get_http_version()
        message.offers = parser.should_upgrade()
        message.keep_alive = parser.should_keep_alive() and message.version != "1.0"
        framing.check(message, settings)
        if message.method == b"POST" and settings.fast_path:
            message.route = self._route(message.url)
        if message.route is None:
            framing.check_target(message.url)
        self._to_asgi = message.route is None and not self._busy and not self._waiting
        if self._to_asgi:
            self._replay_head(message)
        elif b"expect" in message.fields and message.version != "1.0":
            message.expects = message.fields[b"expect"].lower() == b"100-continue"
            self._invite()

    def _invite(self) -> None:
        """The client waits for leave to send its body (RFC 9110, 10.1.1): it has it once all earlier answers are out.
        uvicorn does this for its own."""
        message = self._message
        if message is not None and message.expects and not self._busy and not self._waiting:
            message.expects = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        message = self._message
        assert message is not None
        message.size += len(body)
        if message.size > self.front.settings.max_body_bytes:
            raise framing.too_large(self.front.settings)
        if self._to_asgi:
            self._with_parser(message, super().on_body, body)
        else:
            message.body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole: answer it, or let it wait for the one before it."""
        message = self._message
        assert message is not None
        if message.offers:
            message.offers = False
            return  # only for the other protocol: ``_pass_over``
        self._message = None
        if self._to_asgi:
            self._with_parser(message, super().on_message_complete)
        elif self._busy or self._waiting:
            self._wait(message)
        else:
            self._begin(message)

    def _wait(self, message: Message) -> None:
        waiting = self._waiting
        waiting.append(message)
        if len(waiting) >= _MOST_PIPELINED or message.size > _LARGE_BODY:
            self._reading.full = True
            self._reading.pause_reading()

    # -- answering ------------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Is an answer on this connection still to come?"""
        return self._current is not None or (self.cycle is not None and not self.cycle.response_complete)

    def _begin(self, message: Message) -> None:
        """A whole request, whose turn it is."""
        route, front = message.route, self.front
        if route is None:
            self._replay(message)
            return
        body = message.body[0] if len(message.body) == 1 else b"".join(message.body)
        head = invocations.Head(route, "", "", {}, False, message.keep_alive)
        try:
            if front.keys is not None:
                invocations.authorise(front, route, message.url, message.headers, body)
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
            ticket = endpoint.invoke(invocation, self._on_answer)
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
        self._since = self.front.clock
        if last:
            transport.close()
        elif self._waiting or self._refusal is not None or self._message is not None:
            self._next()

    @property
    def _idle(self) -> bool:
        """Has nothing more been read from this connection? (``_unread`` is empty when nothing waits.)"""
        return not self._waiting and self._message is None and self._refusal is None

    def _date(self) -> bytes:
        """The Date line; uvicorn renews the header once a second."""
        made, line = self._date_line
        headers = self.server_state.default_headers
        if made is not headers:
            line = b"".join(b"%b: %b\r\n" % header for header in headers)
            type(self)._date_line = (headers, line)
        return line

    def _reply(self, head: invocations.Head, reply: Reply, last: bool) -> bytes:
        if reply.headers or head.timed or last:
            headers = invocations.reply_headers(reply, self._request_id, head.timed, head.route.container)
            return framing.answer(200, self._date(), headers, reply.body, last)
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

    def _failure(self, head: invocations.Head, error: ServingError, ticket: Call | None, last: bool) -> bytes:
        settings, route = self.front.settings, head.route
        status, headers, body = failures.dress(
            error, route.container, self._request_id, settings.account_id, route.endpoint, settings.region
        )
        if ticket is not None:
            headers.append((invocations.VARIANT, ticket.variant))
        return framing.answer(status, self._date(), headers, body, last)

    def _next(self) -> None:
        """The requests that waited on this connection, each in its turn; then whatever waited for them."""
        if self._turning:
            return  # answered at once: the loop below goes on
        self._turning = True
        try:
            while self._waiting and not self._busy and not self._write_paused_since and not self.transport.is_closing():
                self._begin(self._waiting.popleft())
                if not self._waiting:
                    self._read_on()
        finally:
            self._turning = False
        if self._waiting or self._busy:
            return
        if self._refusal is not None:
            self._part(*self._refusal)
        else:
            self._invite()

    def _read_on(self) -> None:
        """Nothing waits any more: there is room for the rest of the last read, then for the next."""
        self._reading.full = False
        unread, self._unread = self._unread, b""
        if unread:
            self._parse(unread)
        self._reading.resume_reading()

    # -- the ASGI side --------------------------------------------------------------------------------------------

    def _with_parser(self, message: Message, call: Any, *args: Any) -> None:
        """Run uvicorn's own callback with the parser's answers as they stood for this message."""
        parser, self.parser = self.parser, cast("Any", message)
        try:
            call(*args)
        finally:
            self.parser = parser

    def _replay_head(self, message: Message) -> None:
        super().on_message_begin()
        super().on_url(message.url)
        for name, value in message.headers:
            super().on_header(name, value)
        self.expect_100_continue &= message.version != "1.0" and message is self._message
        self._with_parser(message, super().on_headers_complete)

    def _replay(self, message: Message) -> None:
        """A whole request that waited: give it to ASGI now."""
        self._replay_head(message)
        for chunk in message.body:
            self._with_parser(message, super().on_body, chunk)
        self._with_parser(message, super().on_message_complete)

    def on_response_complete(self) -> None:
        """ASGI has answered."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # ours is in ``sweep``: this one would not see later calls
        self._since = self.front.clock
        if self._closing and self._idle:
            self.transport.close()
        else:
            self._next()

    def _forget_cycle(self) -> None:
        """Its request will never be whole: ASGI is told that the client has left, and the answer is ours to give."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.cycle = cast("Any", None)

    # -- refusing, waiting, leaving -------------------------------------------------------------------------------

    def _refuse(self, status: int, sentence: str) -> None:
        """This connection cannot be read on: say so once all that was read before has been answered."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = (status, sentence)
        message, self._message = self._message, None
        if message is not None and self._to_asgi:
            if self.cycle.response_complete:
                self._leave()
                return
            if self.cycle.response_started:
                self.transport.close()
                return
            self._forget_cycle()
        if not self._busy and not self._waiting:
            self._part(status, sentence)

    def _part(self, status: int, sentence: str) -> None:
        """Answer what was refused, as the last thing on this connection."""
        if self._lingering_until or self.transport.is_closing():
            return
        front = self.front
        front.registry.counter("sagemaker_rejected_requests_total", framing.code_of(status)).add()
        headers, body = framing.refusal(status, sentence, front.next_request_id())
        self.transport.write(framing.answer(status, self._date(), headers, body, last=True))
        self._leave()

    def _leave(self) -> None:
        """Nothing more is said here; read and discard for a moment, so that the client sees what was."""
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
        if self.transport.is_closing():
            if now - self._since > limit:  # its last answer is not being read
                self.transport.abort()
        elif self._lingering_until:
            if now > self._lingering_until:
                self.transport.abort()
        elif self._write_paused_since:
            if now - self._write_paused_since > limit:
                self.transport.abort()
        elif self._arriving:
            if now - self._since > limit and not self.flow.read_paused:
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
        if self._waiting or self._refusal is not None:
            self._next()

    def eof_received(self) -> None:
        """The client has finished sending; asyncio closes the transport, which cancels what is in flight."""

    def shutdown(self) -> None:
        """Finish what was accepted, then close. An idle connection stays a moment longer: a request may already be in
        the socket's buffer, written before the listener closed."""
        self._closing = True
        if not self._busy:
            self.loop.call_later(0.2, self._close_if_idle)
        elif self._current is None and self._idle:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if not self._busy and not self._arriving and not self.transport.is_closing():
            self.transport.close()
