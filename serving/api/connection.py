"""One client connection over uvicorn's HTTP protocol: what arrives, in which order it is answered, and for how long.

uvicorn reads, hands requests to ASGI and writes; here is what nothing below checks: how long a client may take to send
or to read, how large head and body may be, framing that two readers could read differently (``framing.py``), how much
may wait on one connection. What is refused is answered, in its turn, and the connection closed, after a moment of
reading on so that the answer is not lost to a reset.

A subclass may ``_claim`` requests and answer them itself, without ASGI (``fast.py``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.api import auth, framing
from serving.api.framing import Message, Refused
from serving.api.front import Front
from serving.errors import ServingError

_KEEP_ALIVE_SECONDS = 75.0
_LINGER_SECONDS = 3.0
#: A signal to stop reaches us before what a client wrote just ahead of it.
_LAST_CALL_SECONDS = 0.2
#: From so many requests waiting for an earlier one's answer on, or from one with so large a body, nothing more is read.
_MOST_PIPELINED = 8
_LARGE_BODY = 64 * 1024
#: What the parser is given at a time, unless it is all body: bounds what it makes of one read.
_PIECE = 16 * 1024

log = logging.getLogger("serving.front")


class _Flow(FlowControl):
    """Reading stays paused while ``full``, whoever resumes it: uvicorn does so after each of its answers."""

    full = False

    def resume_reading(self) -> None:
        if not self.full and not self.write_paused:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One client connection. The class is given its front by ``FastProtocol.bind``."""

    front: ClassVar[Front]
    _date_line: ClassVar[tuple[Any, bytes]] = (None, b"")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._current: object | None = None
        self._message: Message | None = None
        self._to_asgi = False
        self._waiting: deque[Message] = deque()
        self._turning = False
        self._unread = b""
        self._raw_bytes = 0
        self._since = 0.0
        self._arriving = False
        self._write_paused_since = 0.0
        self._refusal: Refused | None = None
        self._lingering_until = 0.0
        self._lingered = 0
        self._closing = False

    # -- what a subclass may do -----------------------------------------------------------------------------------

    def _claim(self, message: Message) -> None:
        """A head is complete: set ``message.route`` if the request is to come to ``_begin`` and not to ASGI."""

    def _begin(self, message: Message) -> None:
        """A request that waited or was claimed is whole, and it is its turn. While a claimed one is unanswered,
        ``_current`` says so; after the answer, ``_next``."""
        self._replay(message)

    # -- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.flow = self._reading = _Flow(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.front.settings.max_connections:
            self.connections.discard(self)  # it must not keep others out while it lingers
            self.loop.call_later(_LINGER_SECONDS, transport.abort)
            self._refuse(Refused(503, "Too many connections are open. Please try again."))
        elif self._closing or self.front.draining:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._waiting.clear()
        self._unread = b""
        self._current = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._refusal is not None:
            self._linger(len(data))
            return
        at, end = 0, len(data)
        while at < end and self._refusal is None:
            if self._reading.full:
                self._unread = data[at:]
                break
            message = self._message
            piece = _PIECE if message is None else max(_PIECE, message.left)
            at += self._feed(data[at : at + piece])
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
            if not isinstance(cause, Refused):
                log.error("reading a request failed", exc_info=cause)
                cause = Refused(500, "An internal failure occurred.")
            self._refuse(cause)
        except httptools.HttpParserError:
            self._refuse(Refused(400, "The request is not valid HTTP."))
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
            self._refuse(refused)

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
        if self.front.keys is not None and (message.left > _LARGE_BODY or b"transfer-encoding" in message.fields):
            self._screen(message, self.front.keys)
        self._claim(message)
        if message.route is None:
            framing.check_target(message.url)
        self._to_asgi = message.route is None and not self._busy and not self._waiting
        if self._to_asgi:
            self._replay_head(message)
        elif b"expect" in message.fields and message.version != "1.0":
            message.expects = message.fields[b"expect"].lower() == b"100-continue"
            self._invite()

    def _screen(self, message: Message, keys: Mapping[str, auth.AccessKey]) -> None:
        """Strangers do not get to fill memory: who sends much is looked at before the body is. Raises ``Refused``."""
        try:
            auth.screen(message.headers, keys, time.time())
        except ServingError as error:
            raise Refused(error.status, error.message, error.code) from None

    def _invite(self) -> None:
        """The client waits for leave to send its body (RFC 9110, 10.1.1): it has it once all earlier answers are out.
        uvicorn does this for its own."""
        message = self._message
        if message is not None and message.expects and not self._busy and not self._waiting:
            message.expects = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        message = self._message
        assert message is not None
        message.size += len(body)
        message.left -= len(body)
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

    # -- order ----------------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Is an answer on this connection still to come?"""
        return self._current is not None or (self.cycle is not None and not self.cycle.response_complete)

    @property
    def _idle(self) -> bool:
        """Has nothing more been read from this connection? (``_unread`` is empty when nothing waits.)"""
        return not self._waiting and self._message is None and self._refusal is None

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
            self._part(self._refusal)
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

    def _refuse(self, refused: Refused) -> None:
        """This connection cannot be read on: say so once all that was read before has been answered."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = refused
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
            self._part(refused)

    def _part(self, refused: Refused) -> None:
        """Answer what was refused, as the last thing on this connection."""
        if self._lingering_until or self.transport.is_closing():
            return
        front = self.front
        front.registry.counter("sagemaker_rejected_requests_total", refused.code).add()
        self.transport.write(framing.refusal(refused, front.next_request_id(), self._date()))
        self._leave()

    def _leave(self) -> None:
        """Nothing more is said here; read and discard for a moment, so that the client sees what was."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._reading.full = False
        self._reading.resume_reading()
        self._lingering_until = self.loop.time() + _LINGER_SECONDS

    def _date(self) -> bytes:
        """The Date line; uvicorn renews the header once a second."""
        made, line = self._date_line
        headers = self.server_state.default_headers
        if made is not headers:
            line = b"".join(b"%b: %b\r\n" % header for header in headers)
            type(self)._date_line = (headers, line)
        return line

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
                self._refuse(Refused(408, "The request did not arrive in time."))
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
            self.loop.call_later(_LAST_CALL_SECONDS, self._close_if_idle)
        elif self._current is None and self._idle:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if not self._busy and not self._arriving and not self.transport.is_closing():
            self.transport.close()
