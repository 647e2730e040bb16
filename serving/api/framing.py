"""One request as it arrives on a connection, and the framing no server should accept.

``check`` refuses what two readers could read differently (RFC 9112, 6.3 and 11.2), what is too large, and what nobody
here understands. What is refused in this way ends its connection: where the next request begins is anybody's guess.
"""

from __future__ import annotations

import httptools
import orjson

from serving.api.invocations import Route
from serving.config import Settings

#: Chunk heads, their extensions and trailers may cost this much more than twice the largest body.
_CHUNK_SLACK = 64 * 1024
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization"})
#: A header's ": " and line end.
_HEADER_EXTRA = 4
_PHRASES = {
    200: "OK", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 406: "Not Acceptable",
    408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type", 424: "Failed Dependency",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}  # fmt: skip
_CODES = {403: "AccessDeniedException", 500: "InternalFailure", 503: "ServiceUnavailable"}


class Refused(Exception):
    """Stop reading this connection: status, sentence and, if the status does not say it, error code."""

    def __init__(self, status: int, sentence: str, code: str = "") -> None:
        super().__init__(status, sentence, code or _CODES.get(status, "ValidationError"))
        self.status = status
        self.sentence = sentence
        self.code = code or _CODES.get(status, "ValidationError")


class Message:
    """One request as it arrives; also what the ASGI side needs to be told if it had to wait for its turn."""

    __slots__ = (
        "body",
        "expects",
        "fields",
        "head_bytes",
        "headers",
        "keep_alive",
        "left",
        "method",
        "offers",
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
        self.head_bytes = 0
        self.body: list[bytes] = []
        self.size = 0
        self.left = 0
        self.keep_alive = True
        self.expects = False
        self.offers = False
        self.route: Route | None = None

    def add(self, name: bytes, value: bytes) -> None:
        """One header. Raises ``Refused`` when one that must be single comes again."""
        if self.method:
            return  # a trailer: none means anything here, and none may pass for a header (RFC 9110, 6.5.1)
        name = name.lower()
        self.head_bytes += len(name) + len(value) + _HEADER_EXTRA
        if name in self.fields and name in _SINGLE:
            raise Refused(400, f"The header {name.decode('latin-1')} is given twice.")
        self.fields[name] = value
        self.headers.append((name, value))

    def framing(self) -> bytes:
        """A head that says of the body only where it ends."""
        length = self.fields.get(b"content-length", b"0")
        how = b"Transfer-Encoding: chunked" if b"transfer-encoding" in self.fields else b"Content-Length: " + length
        return b"POST / HTTP/1.1\r\n" + how + b"\r\n\r\n"

    # The parser's questions that uvicorn's code asks, answered as they stood when this message was read.
    def get_http_version(self) -> str:
        """Such as ``1.1``."""
        return self.version

    def get_method(self) -> bytes:
        """Such as ``POST``."""
        return self.method

    def should_keep_alive(self) -> bool:
        """Whether another request may follow."""
        return self.keep_alive

    def should_upgrade(self) -> bool:
        """Never: RFC 9110, 7.8 lets a server ignore the offer."""
        return False


def check(message: Message, settings: Settings) -> None:
    """Refuse a complete head, or note how much body is to come. Raises ``Refused``."""
    fields, version = message.fields, message.version
    if message.head_bytes + len(message.url) > settings.max_header_bytes:
        raise Refused(431, "The request's head is too large.")
    if version != "1.1" and version != "1.0":
        raise Refused(505, "The only versions spoken here are HTTP/1.1 and HTTP/1.0.")
    if b"transfer-encoding" in fields:
        if b"content-length" in fields:
            raise Refused(400, "Content-Length and Transfer-Encoding together are ambiguous.")
        if fields[b"transfer-encoding"].strip().lower() != b"chunked" or version == "1.0":
            raise Refused(501, "The only transfer coding understood is chunked.")
    if b"host" not in fields and version == "1.1":
        raise Refused(400, "The Host header is missing.")
    encoded = b"content-encoding" in fields and fields[b"content-encoding"].lower() != b"identity"
    if encoded and message.url != b"/":  # control calls may be packed (``control_wires.py``)
        raise Refused(415, "Compressed bodies are not accepted.")
    if b"origin" in fields and message.method != b"GET":
        _check_origin(fields[b"origin"], fields.get(b"host", b""))
    length = fields.get(b"content-length")
    if length is not None:  # of digits alone, and not too many of them: the parser has seen to that
        message.left = int(length)
        if message.left > settings.max_body_bytes:
            raise too_large(settings)


def _check_origin(origin: bytes, host: bytes) -> None:
    """A browser says which page has made it send something; one of another site has no business here, least of all
    where the server listens on loopback and asks for no key. No other client sends the header."""
    if origin.partition(b"://")[2].lower() != host.lower():
        raise Refused(403, "A page of another site may not use this server.")


def check_target(url: bytes) -> None:
    """Refuse a request target in which there is no path to route. Raises ``Refused``."""
    try:
        path = httptools.parse_url(url).path
    except httptools.HttpParserInvalidURLError:
        path = None
    if not path or not path.isascii() or not path.startswith(b"/"):
        raise Refused(400, "The request target is not a path of this server.")


def check_partial(message: Message, received: int, settings: Settings) -> None:
    """Refuse a message of which ``received`` bytes, those of its first read not counted, are too many for what they
    say. Raises ``Refused``."""
    if not message.method:
        if received > settings.max_header_bytes:
            raise Refused(431, "The request's head is too large.")
    elif received > 2 * settings.max_body_bytes + _CHUNK_SLACK:
        raise Refused(400, "The request's chunks carry more framing than content.")


def too_large(settings: Settings) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(413, f"The body is larger than {settings.max_body_bytes} bytes.")


def refusal(refused: Refused, request_id: str, date: bytes) -> bytes:
    """The answer to what cannot be read on."""
    headers = [
        ("content-type", "application/json"),
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", refused.code),
    ]
    body = orjson.dumps({"__type": refused.code, "Message": refused.sentence})
    return answer(refused.status, date, headers, body, last=True)


def stream_head(date: bytes, headers: list[tuple[str, str]], last: bool) -> bytes:
    """The head of an answer of unknown length: ``chunk``s follow."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    end = "connection: close\r\n" if last else ""
    return (
        b"HTTP/1.1 200 OK\r\n" + date + f"{lines}{end}transfer-encoding: chunked\r\n\r\n".encode("latin-1", "replace")
    )


#: After the last chunk.
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A chunk of an answer; ``data`` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(status: int, date: bytes, headers: list[tuple[str, str]], body: bytes, last: bool) -> bytes:
    """A whole answer as bytes. ``date``: header lines common to all; ``last``: the connection ends with it. A 204 has
    no length (RFC 9110, 8.6)."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    first = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
    end = "connection: close\r\n" if last else ""
    length = "" if status == 204 else f"content-length: {len(body)}\r\n"
    return first + date + f"{lines}{end}{length}\r\n".encode("latin-1", "replace") + body
