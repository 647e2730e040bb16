"""Cutting an input object of a batch job into what is sent at once (behaviour/04, "Cutting objects into requests").

The object is read once, from front to back, and never more of it than the most a request may hold and a chunk. A cut
depends on nothing but the record it starts at: a job that resumes at the end of any piece makes the same cuts.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from serving.errors import BadObject
from serving.jobs.framing import FRAMINGS, Framing

_CHUNK = 1 << 18
#: The most asked of a stream at once: what a record says of its own length costs nothing until it is there.
_READ = 1 << 22
_GZIP = b"\x1f\x8b"
#: How much goes into one request of several records when the job sets no limit (MaxPayloadInMB=0).
USUAL_BYTES = 6 << 20


class Piece(NamedTuple):
    """Whole records of one object, in its order: what one request is made of.

    ``start`` and ``end``: their range of bytes in the (decompressed) object; ``first``: the index of the first, from 0;
    ``body``: the bytes as read, without frame and padding when it was cut as a single record of a binary format.
    ``oversized``: one record over the limit, which cannot be sent; its body is empty.
    """

    start: int
    end: int
    first: int
    count: int  # type: ignore[assignment]  # tuple.count, which nobody asks of a piece
    body: bytes
    oversized: bool = False


def pieces(
    stream: BinaryIO,
    split: str,
    strategy: str,
    most_bytes: int,
    *,
    start: int = 0,
    first: int = 0,
    usual_bytes: int = 0,
) -> Iterator[Piece]:
    """Cut an object into requests: one record each (``SingleRecord``), or as many whole ones as ``most_bytes`` hold
    (``MultiRecord``).

    ``split``: TransformInput's SplitType. ``most_bytes`` counts newlines, and frames where they are sent; 0 = a record
    may have any size. ``usual_bytes``: what several records may have together, when that is to be less. ``stream``
    stands at byte ``start`` of the object, where the record of index ``first`` begins. Raises ``BadObject`` where the
    object is not what ``split`` says; an unsplit object over the limit is one, a record over it comes as an oversized
    piece of its own, and the rest goes on.
    """
    reader = _Reader(stream, start)
    single = strategy == "SingleRecord"
    usual = min(most_bytes or USUAL_BYTES, usual_bytes or most_bytes or USUAL_BYTES)
    if split == "Line":
        return _lines(reader, single, most_bytes, usual, first)
    if split in FRAMINGS:
        return _frames(reader, FRAMINGS[split], single, most_bytes, usual, first)
    return _whole(reader, most_bytes, first)


def records(piece: Piece, split: str) -> list[bytes]:
    """The single records of a piece, as they are sent one by one: without newline, frame or padding."""
    if split == "Line":
        return lines(piece.body)
    if split in FRAMINGS and len(piece.body) == piece.end - piece.start:
        framing = FRAMINGS[split]
        lead = framing.lead
        return [piece.body[at + lead : at + lead + length] for at, length in _spans(framing, piece.body)]
    return [piece.body]


def bisect(piece: Piece, split: str) -> tuple[Piece, Piece]:
    """The halves of a piece of several records, each as if it had been cut like that: to find the one that is bad.
    Raises ``ValueError`` for a single record."""
    if piece.count < 2:
        raise ValueError("a single record has no halves")
    body = piece.body
    if split == "Line":
        middle = body.find(b"\n", len(body) // 2, -1) + 1 or body.rfind(b"\n", 0, len(body) // 2) + 1
        count = body.count(b"\n", 0, middle)
    else:
        spans = _spans(FRAMINGS[split], body)
        count = len(spans) // 2
        middle = spans[count][0]
    cut = piece.start + (middle if len(body) == piece.end - piece.start else count)  # rows of Parquet are no bytes
    return (
        Piece(piece.start, cut, piece.first, count, body[:middle]),
        Piece(cut, piece.end, piece.first + count, piece.count - count, body[middle:]),
    )


def lines(body: bytes) -> list[bytes]:
    """Lines without their newlines: ``\\r\\n`` is one too, an empty line counts unless it is the last."""
    found = body.split(b"\n")
    if not found[-1]:
        found.pop()
    if b"\r" in body:
        return [line[:-1] if line.endswith(b"\r") else line for line in found]
    return found


def decompressed(stream: BinaryIO) -> BinaryIO:
    """Read a gzip stream (CompressionType=Gzip), of any number of members, as what it holds. Reading raises
    ``BadObject`` when it is no gzip, damaged or cut short."""
    return io.BufferedReader(_Gunzip(stream), _CHUNK)


def skip(stream: BinaryIO, count: int) -> None:
    """Move on by ``count`` bytes of a stream that cannot seek: to where a job resumes in a compressed object."""
    while count > 0 and (read := stream.read(min(count, _CHUNK))):
        count -= len(read)


class _Reader:
    """A stream, and what has been read ahead of ``at``, the offset in the object up to which it has been used."""

    def __init__(self, stream: BinaryIO, at: int) -> None:
        self._stream, self._ahead, self.at = stream, b"", at

    def ahead(self, size: int) -> bytes:
        """At least ``size`` bytes from ``at`` on; fewer only when the object ends before."""
        missing = size - len(self._ahead)
        parts = [self._ahead]
        while missing > 0 and (read := self._stream.read(min(missing, _READ))):
            parts.append(read)
            missing -= len(read)
        if len(parts) > 1:
            self._ahead = b"".join(parts)
        return self._ahead

    def use(self, count: int) -> bytes:
        """The next ``count`` bytes, which have been looked at."""
        used, self._ahead = self._ahead[:count], self._ahead[count:]
        self.at += len(used)
        return used

    def drop(self, count: int) -> int:
        """Pass over ``count`` bytes; how many there were."""
        dropped = 0
        while dropped < count and self.ahead(min(_CHUNK, count - dropped)):
            dropped += len(self.use(count - dropped))
        return dropped

    def drop_line(self) -> None:
        """Pass over everything up to and with the next newline."""
        while ahead := self.ahead(_CHUNK):
            end = ahead.find(b"\n") + 1
            self.use(end or len(ahead))
            if end:
                return


def _whole(reader: _Reader, most: int, first: int) -> Iterator[Piece]:
    """The object as its only record, unless it has been dealt with already."""
    if first:
        return
    body = reader.ahead(most + 1 if most else sys.maxsize)
    if most and len(body) > most:
        raise BadObject(f"The object has more than {most} bytes, which is the limit for a request, and is not split.")
    yield Piece(reader.at, reader.at + len(body), 0, 1, body)


# --- lines ----------------------------------------------------------------------------------------------------------


def _lines(reader: _Reader, single: bool, most: int, usual: int, first: int) -> Iterator[Piece]:
    while True:
        start, (end, whole) = reader.at, _line_end(reader, most, usual)
        if not end:
            return
        if not whole:
            reader.drop_line()
            yield Piece(start, reader.at, first, 1, b"", oversized=True)
            first += 1
            continue
        body = reader.use(end)
        if single:
            for line in io.BytesIO(body):
                yield Piece(start, start + len(line), first, 1, line)
                start, first = start + len(line), first + 1
            continue
        count = body.count(b"\n") + (not body.endswith(b"\n"))
        yield Piece(start, start + len(body), first, count, body)
        first += count


def _line_end(reader: _Reader, most: int, usual: int) -> tuple[int, bool]:
    """Where the last line ends within ``usual``, or else the first; False with it when that has more than ``most``."""
    ahead = reader.ahead(usual + 1)  # one more tells whether the object ends here
    if len(ahead) <= usual:
        return len(ahead), True
    if end := ahead.rfind(b"\n", 0, usual) + 1:
        return end, True
    size = usual
    while size != most:
        size = min(2 * size, most) if most else 2 * size
        ahead = reader.ahead(size + 1)
        if end := ahead.find(b"\n", 0, size) + 1:
            return end, True
        if len(ahead) <= size:
            return len(ahead), True
    return size, False


# --- frames ---------------------------------------------------------------------------------------------------------


def _frames(reader: _Reader, framing: Framing, single: bool, most: int, batch: int, first: int) -> Iterator[Piece]:
    while ahead := reader.ahead(max(batch, _CHUNK) if single else batch):
        start = reader.at
        spans = _spans(framing, ahead, len(ahead) if single else batch, most if single else 0)
        if not spans:
            yield _large(reader, framing, single, most, first)
            first += 1
            continue
        if (bad := framing.damaged(ahead, spans)) is not None:
            raise _no_frame(first + bad, start + spans[bad][0], "its checksum does not match")
        last, length = spans[-1]
        end = last + framing.size(length)
        if single:
            for n, (at, length) in enumerate(spans):
                body = ahead[at + framing.lead : at + framing.lead + length]
                yield Piece(start + at, start + at + framing.size(length), first + n, 1, body)
            reader.use(end)
        else:
            yield Piece(start, start + end, first, len(spans), reader.use(end))
        first += len(spans)


def _spans(framing: Framing, buffer: bytes, room: int | None = None, most: int = 0) -> list[tuple[int, int]]:
    """(start, payload length) of the whole frames from the front of a buffer on that end within ``room`` bytes, up to
    one whose payload has more than ``most``, or that is none."""
    spans, at = [], 0
    room = len(buffer) if room is None else min(room, len(buffer))
    while at + framing.lead <= room:
        try:
            length = framing.length(buffer, at)
        except ValueError:
            break  # comes up again when it is the first in the buffer
        end = at + framing.size(length)
        if end > room or (most and length > most):
            break
        spans.append((at, length))
        at = end
    return spans


def _large(reader: _Reader, framing: Framing, single: bool, most: int, first: int) -> Piece:
    """The one frame at the front that is no frame, cut short, over the limit, or longer than is usually read."""
    start = reader.at
    head = reader.ahead(framing.lead)
    if len(head) < framing.lead:
        raise _no_frame(first, start, "it is cut short")
    try:
        length = framing.length(head, 0)
    except ValueError as error:
        raise _no_frame(first, start, str(error)) from None
    size = framing.size(length)
    if most and (length if single else size) > most:
        if reader.drop(size) < size:
            raise _no_frame(first, start, "it is cut short")
        return Piece(start, start + size, first, 1, b"", oversized=True)
    if len(reader.ahead(size)) < size:
        raise _no_frame(first, start, "it is cut short")
    frame = reader.use(size)
    if framing.damaged(frame, [(0, length)]) is not None:
        raise _no_frame(first, start, "its checksum does not match")
    return Piece(start, start + size, first, 1, frame[framing.lead : framing.lead + length] if single else frame)


def _no_frame(record: int, at: int, why: str) -> BadObject:
    return BadObject(f"Record {record + 1} (byte {at}) is no frame of the kind that SplitType says: {why}.")


# --- gzip -----------------------------------------------------------------------------------------------------------


class _Gunzip(io.RawIOBase):
    """What a gzip stream holds. Output is asked for in bounded steps, so that no ratio makes it large."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._rest = b""
        self._member: zlib._Decompress | None = None
        self._members = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        read = self._read(len(view))
        view[: len(read)] = read
        return len(read)

    def _read(self, most: int) -> bytes:
        """At most so many bytes, at least one unless this is the end."""
        while True:
            member = self._member or self._next_member()
            if member is None:
                return b""
            self._rest = self._rest or self._stream.read(_CHUNK)
            ended = not self._rest
            try:
                read = member.decompress(self._rest, most)
            except zlib.error:
                raise BadObject("The object's gzip stream is damaged.") from None
            self._rest = member.unused_data if member.eof else member.unconsumed_tail
            self._member = None if member.eof else member
            if read:
                return read
            if ended and self._member:
                raise BadObject("The object's gzip stream is cut short.")

    def _next_member(self) -> zlib._Decompress | None:
        """None at the end; zeros may follow a member (RFC 1952 has none, ``tar`` and tapes write them)."""
        padding = b"\0" if self._members else b""
        self._rest = self._rest.lstrip(padding)
        while len(self._rest) < len(_GZIP) and (read := self._stream.read(_CHUNK)):
            self._rest = (self._rest + read).lstrip(padding)
        if not self._rest and self._members:
            return None
        if not self._rest.startswith(_GZIP):
            what = "goes on after its gzip stream with something else" if self._members else "is not gzip"
            raise BadObject(f"The object {what}, though the job says CompressionType=Gzip.")
        self._members += 1
        self._member = zlib.decompressobj(wbits=31)
        return self._member
