"""Frames between a front and a worker: one length, one fixed header, bytes. No pickle, no tensors.

::

    REQUEST   length kind flags meta_len id deadline sent │ meta │ body
    ALONE     as REQUEST; a call whose first worker ended: predicted with no other, so that it can only hurt itself
    STREAM    as REQUEST; the answer may come in parts, as far as there is credit for them
    CANCEL    length kind flags 0        id 0        0
    CREDIT    length kind flags 0        id bytes    0    so much more may be sent of a streamed answer
    CONTROL   length kind flags meta_len id 0        0    │ operation │ json
    REPLY     length kind flags meta_len id queue load decode predict encode batch │ meta │ body
    ERROR     as REPLY, meta = error name, original status; body = the sentence for the caller
    MOVED     as ERROR; the worker is spoiled and will be replaced: better place the call elsewhere, once
    PART      as REPLY, one part of several: the first has the meta, REPLY (empty) or ERROR comes after the last

``length`` counts the bytes after itself. ``meta`` is a run of NUL-separated ASCII fields that repeats from call to call
(content type, accept, model), so both sides keep it parsed in a dictionary. Times are ``time.monotonic()`` seconds,
which all processes of one machine share; receipts are whole microseconds.
Joining all frames of one loop tick into one write, and treating all frames of one read as one batch, is what makes the
hop cost 5 µs and not 50.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import NamedTuple

REQUEST, CANCEL, CONTROL, REPLY, ERROR, ALONE, MOVED, STREAM, CREDIT, PART = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
#: Reply flag: the model was in memory when the call arrived.
HIT = 1

#: The body of a frame from this size on is gathered by itself.
_LARGE_FRAME = 2**20

_LENGTH = struct.Struct("<I")
_IN = struct.Struct("<IBBHQdd")
_OUT = struct.Struct("<IBBHQIIIIII")
IN_HEADER = _IN.size
OUT_HEADER = _OUT.size
#: A frame over this is a broken peer, not a big body (bodies are bounded by ``max_body_bytes`` long before).
MAX_FRAME = 2**31 - 1
#: The longest answer a model may give: a front holds it in memory until its caller has read it.
MAX_REPLY = 256 * 2**20
MAX_META = 2**16 - 1
#: Credit a streamed answer begins with, and the longest part of one, in bytes. A part may overdraw the credit, so that
#: never more than the two together wait on the way of one stream.
STREAM_WINDOW = 256 * 1024
MAX_PART = 256 * 1024
#: What a part costs beside its bytes, so that many small ones are bounded too.
_PART_COST = 256
_U32 = 2**32 - 1
_MOST_SECONDS = _U32 / 1e6
#: Half the cost of calling a NamedTuple's own constructor.
_new = tuple.__new__


class BrokenFrame(Exception):
    """The peer wrote something that is no frame. The channel is closed and its calls are placed again."""


class Request(NamedTuple):
    """A frame a worker reads. ``meta`` stays packed: the worker knows most of them already."""

    kind: int
    id: int
    deadline: float
    sent: float
    meta: bytes
    body: bytes


class Answer(NamedTuple):
    """A frame a front reads: a reply or an error, with its receipt."""

    kind: int
    flags: int
    id: int
    queue: int
    load: int
    decode: int
    predict: int
    encode: int
    batch: int
    meta: bytes
    body: bytes


def pack_request(kind: int, id: int, deadline: float, sent: float, meta: bytes, body: bytes) -> bytes:
    """Header, meta and body as one frame."""
    return request_head(kind, id, deadline, sent, len(meta), len(body)) + meta + body


def request_head(kind: int, id: int, deadline: float, sent: float, meta_len: int, body_len: int) -> bytes:
    """The header of a frame whose meta and body follow it in the same write."""
    return _IN.pack(IN_HEADER - 4 + meta_len + body_len, kind, 0, meta_len, id, deadline, sent)


def pack_answer(
    kind: int,
    flags: int,
    id: int,
    times: tuple[int, int, int, int, int],
    batch: int,
    meta: bytes,
    body: bytes | memoryview,
) -> bytes:
    """A reply frame; ``times`` are queue, load, decode, predict, encode in µs (0 to 2^32-1)."""
    queue, load, decode, predict, encode = times
    size = OUT_HEADER - 4 + len(meta) + len(body)
    head = _OUT.pack(size, kind, flags, len(meta), id, queue, load, decode, predict, encode, batch)
    return head + meta + body


def cost(part: int) -> int:
    """The credit that a part of so many bytes takes up."""
    return part + _PART_COST


def pack_credit(id: int, size: int) -> bytes:
    """Leave to send ``size`` more of a streamed answer."""
    return request_head(CREDIT, id, float(size), 0.0, 0, 0)


def micros(seconds: float) -> int:
    """Seconds as a frame's whole microseconds, clamped to what the field holds."""
    return int(seconds * 1e6) if 0.0 < seconds < _MOST_SECONDS else 0 if seconds <= 0 else _U32


class _Splitter:
    """Cuts a byte stream into frames. Whole frames in one read are cut straight from it; a frame that spans reads is
    gathered in parts and joined once."""

    __slots__ = ("_have", "_header", "_need", "_parts")

    def __init__(self, header: int) -> None:
        self._header = header
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    def blocks(self, data: bytes) -> bytes | None:
        """Add ``data``; return bytes that begin with a whole frame, or None while one is still incomplete."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return None
            data = b"".join(self._parts)
            self._parts = []
        return data

    def keep(self, data: bytes, at: int) -> None:
        """Keep the incomplete tail from ``at`` on for the next read."""
        tail = data[at:]
        self._parts = [tail]
        self._have = len(tail)
        whole = self.size(tail, 0) if len(tail) >= 4 else 4
        self._need = whole if len(tail) >= self._header else self._header

    def size(self, data: bytes, at: int) -> int:
        """Whole size of the frame that begins at ``at``."""
        size: int = _LENGTH.unpack_from(data, at)[0]
        if not self._header - 4 <= size <= MAX_FRAME:
            raise BrokenFrame(f"a frame of {size} bytes")
        return size + 4


class _Large(NamedTuple):
    """A request whose large body is still coming in: what its head said, the body so far, and how long it will be. The
    buffer hands its bytes over as they are, so that a gigabyte is there once and no copy of it holds up the
    interpreter."""

    head: tuple[int, int, float, float, bytes]
    body: io.BytesIO
    size: int


class RequestReader(_Splitter):
    """The worker's side: bytes in, requests out."""

    __slots__ = ("_large",)

    def __init__(self) -> None:
        super().__init__(IN_HEADER)
        self._large: _Large | None = None

    def _fill(self, large: _Large, data: bytes, take: Callable[[Request], None]) -> bytes:
        """Add to a large body; returns what comes after it."""
        left = large.size - large.body.tell()
        large.body.write(memoryview(data)[:left])
        if len(data) >= left:
            self._large = None
            take(_new(Request, (*large.head, large.body.getvalue())))
        return data[left:]

    def _keep_large(self, data: bytes, at: int) -> None:
        """``keep``, of a frame with a large body."""
        _, kind, _, meta_len, id, deadline, sent = _IN.unpack_from(data, at)
        body_at = at + IN_HEADER + meta_len
        size = self.size(data, at) - IN_HEADER - meta_len
        if size < 0:
            raise BrokenFrame("a frame shorter than its meta")
        if body_at > len(data):
            self.keep(data, at)
            self._need = body_at - at
            return
        self._large = _Large((kind, id, deadline, sent, data[at + IN_HEADER : body_at]), io.BytesIO(), size)
        self._large.body.write(memoryview(data)[body_at:])

    def feed(self, data: bytes, take: Callable[[Request], None]) -> None:
        """Call ``take`` for each request completed by ``data``. Raises ``BrokenFrame``."""
        if self._large is not None:
            data = self._fill(self._large, data, take)
            if not data:
                return
        whole = self.blocks(data)
        if whole is None:
            return
        at, end = 0, len(whole)
        while end - at >= IN_HEADER:
            size, kind, _, meta_len, id, deadline, sent = _IN.unpack_from(whole, at)
            if not IN_HEADER - 4 <= size <= MAX_FRAME:
                raise BrokenFrame(f"a frame of {size} bytes")
            after = at + 4 + size
            if after > end:
                break
            body_at = at + IN_HEADER + meta_len
            if body_at > after:
                raise BrokenFrame("a frame shorter than its meta")
            take(_new(Request, (kind, id, deadline, sent, whole[at + IN_HEADER : body_at], whole[body_at:after])))
            at = after
        if end - at >= IN_HEADER and self.size(whole, at) > _LARGE_FRAME:
            self._keep_large(whole, at)
        elif at < end:
            self.keep(whole, at)


class AnswerReader(_Splitter):
    """The front's side: bytes in, answers out."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(OUT_HEADER)

    def feed(self, data: bytes, take: Callable[[Answer], None]) -> None:
        """Call ``take`` for each answer completed by ``data``. Raises ``BrokenFrame``."""
        whole = self.blocks(data)
        if whole is None:
            return
        at, end = 0, len(whole)
        while end - at >= OUT_HEADER:
            fields = _OUT.unpack_from(whole, at)
            size = fields[0]
            if not OUT_HEADER - 4 <= size <= MAX_FRAME:
                raise BrokenFrame(f"a frame of {size} bytes")
            after = at + 4 + size
            if after > end:
                break
            body_at = at + OUT_HEADER + fields[3]
            if body_at > after:
                raise BrokenFrame("a frame shorter than its meta")
            meta, body = whole[at + OUT_HEADER : body_at], whole[body_at:after]
            take(_new(Answer, (fields[1], fields[2], *fields[4:], meta, body)))
            at = after
        if at < end:
            self.keep(whole, at)


class Meta(NamedTuple):
    """What a request frame says about its body. The first four fields repeat between calls."""

    content_type: str
    accept: str
    model: str
    extras: tuple[str, ...] = ()

    @property
    def session_id(self) -> str:
        """The caller's session, or nothing."""
        return self.extras[2] if len(self.extras) > 2 else ""


def pack_meta(content_type: str, accept: str, model: str, extras: tuple[str, ...] = ()) -> bytes:
    """Meta as bytes. ``extras``: custom attributes, inference id, session id, request id; only when there are any."""
    return "\0".join((content_type, accept, model, *extras)).encode("latin-1", "replace")


def unpack_meta(meta: bytes) -> Meta:
    """The reverse of ``pack_meta``."""
    fields = meta.decode("latin-1").split("\0")
    return Meta(fields[0], fields[1], fields[2], tuple(fields[3:]))
