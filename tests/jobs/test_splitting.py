"""How an object of a batch job is cut into requests (behaviour/04, "Cutting objects into requests")."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.codecs.recordio import MAGIC
from serving.errors import BadObject
from serving.jobs.crc32c import checksums, masked
from serving.jobs.splitting import Piece, bisect, decompressed, pieces, records, skip

MEGABYTE = 1 << 20
SINGLE, MULTI = "SingleRecord", "MultiRecord"


def crc(content: bytes) -> bytes:
    """As TFRecord stores it."""
    sums = checksums(content, np.array([0]), np.array([len(content)]))
    return struct.pack("<I", int(masked(sums)[0]))


def tfrecord(payload: bytes) -> bytes:
    """A frame with both of its checksums."""
    length = struct.pack("<Q", len(payload))
    return length + crc(length) + payload + crc(payload)


def recordio(payload: bytes) -> bytes:
    """A frame with its padding."""
    return MAGIC + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)


FRAMES = {"RecordIO": recordio, "TFRecord": tfrecord}
FRAMED = pytest.mark.parametrize("split", FRAMES)


class Dripping(io.RawIOBase):
    """A stream that gives less than it is asked for, and remembers how far it has been read."""

    def __init__(self, content: bytes, most: int = MEGABYTE) -> None:
        super().__init__()
        self._content, self._most, self.position = content, most, 0

    def read(self, size: int = -1) -> bytes:
        """At most ``most`` bytes."""
        read = self._content[self.position : self.position + min(size, self._most)]
        self.position += len(read)
        return read


def cut(
    content: bytes, split: str, strategy: str, most: int, start: int = 0, first: int = 0, usual: int = 0
) -> list[Piece]:
    """All pieces from byte ``start`` on."""
    stream = io.BytesIO(content[start:])
    return list(pieces(stream, split, strategy, most, start=start, first=first, usual_bytes=usual))


def bodies(content: bytes, split: str, strategy: str, most: int) -> list[bytes]:
    """What the pieces hold."""
    return [piece.body for piece in cut(content, split, strategy, most)]


# --- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\nb\n", [b"a", b"", b"b"]),
        (b"a\n\n", [b"a", b""]),
        (b"\n", [b""]),
        (b"\r\n\r\n", [b"", b""]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\0b\n\xff\n", [b"a\0b", b"\xff"]),
    ],
)
def test_lines(content: bytes, expected: list[bytes]) -> None:
    """A newline ends a record, CRLF is one newline, an inner blank line is a record and a final one is none; what a
    line holds is the model's business."""
    many = cut(content, "Line", MULTI, MEGABYTE)
    ones = cut(content, "Line", SINGLE, MEGABYTE)
    assert expected == [record for piece in many for record in records(piece, "Line")]
    assert expected == [record for piece in ones for record in records(piece, "Line")]
    assert len(expected) == sum(piece.count for piece in many) == len(ones)


def test_as_many_lines_as_fit() -> None:
    """A multi-record request is as full as whole records make it; their newlines count."""
    assert [b"aa\nbb\n", b"cc\n", b"dddddd"] == bodies(b"aa\nbb\ncc\ndddddd", "Line", MULTI, 6)
    assert [b"aa\n", b"bb\n", b"cc\n", b"dddddd"] == bodies(b"aa\nbb\ncc\ndddddd", "Line", SINGLE, 6)


def test_a_line_over_the_limit_is_alone_in_it() -> None:
    """It comes as an oversized piece without its bytes, and the next line is cut as ever."""
    long = b"x" * 20
    expected = [Piece(0, 2, 0, 1, b"a\n"), Piece(2, 23, 1, 1, b"", True), Piece(23, 27, 2, 2, b"b\nc\n")]
    assert expected == cut(b"a\n" + long + b"\nb\nc\n", "Line", MULTI, 8)
    assert [Piece(0, 20, 0, 1, b"", True)] == cut(long, "Line", SINGLE, 8)


def test_a_line_of_any_length_without_a_limit() -> None:
    """MaxPayloadInMB=0 leaves no record out."""
    content = b"x" * (7 * MEGABYTE) + b"\ny\n"
    assert 2 == sum(piece.count for piece in cut(content, "Line", MULTI, 0))
    assert content == b"".join(bodies(content, "Line", MULTI, 0))


def test_memory_is_bounded() -> None:
    """However long a line is, no more than a request and a chunk has been read when a piece is given out."""
    stream = Dripping(b"a\n" + b"x" * (8 * MEGABYTE) + b"\nb\n")
    cutting = pieces(stream, "Line", MULTI, 1000)  # type: ignore[arg-type]  # reading is all it needs
    assert b"a\n" == next(cutting).body
    assert stream.position <= 1001
    assert next(cutting).oversized
    assert b"b\n" == next(cutting).body


# --- whole objects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [3, 0])
def test_an_unsplit_object_is_one_record(most: int) -> None:
    """Whatever it holds; and nothing is left to do when that one is done."""
    assert [Piece(0, 3, 0, 1, b"a\nb")] == cut(b"a\nb", "None", MULTI, most)
    assert [] == cut(b"a\nb", "None", MULTI, most, start=3, first=1)


def test_an_unsplit_object_over_the_limit() -> None:
    """It cannot be sent, and is not read to its end to find that out."""
    stream = Dripping(b"x" * 5000)
    with pytest.raises(BadObject, match="more than 1000 bytes"):
        next(pieces(stream, "None", SINGLE, 1000))  # type: ignore[arg-type]  # reading is all it needs
    assert 1001 == stream.position


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_crc32c(content: bytes, expected: int) -> None:
    """The published values (RFC 3720, appendix B.4)."""
    assert expected == checksums(b"before" + content + b"behind", np.array([6]), np.array([len(content)]))[0]


def test_a_tfrecord_as_tensorflow_writes_it() -> None:
    """The event of its own version that a TensorBoard log begins with."""
    event = bytes.fromhex("090000c025dd75d5411a0d") + b"brain.Event:1"
    written = bytes.fromhex("1800000000000000a37f4b22") + event + bytes.fromhex("ecf3328d")
    assert written == tfrecord(event)
    assert [event] == bodies(written, "TFRecord", SINGLE, MEGABYTE)


@FRAMED
def test_frames_stay_in_requests_of_many_and_go_from_those_of_one(split: str) -> None:
    """Behaviour/04: padding and frame are removed with SingleRecord, kept with MultiRecord."""
    content = FRAMES[split](b"abcde") + FRAMES[split](b"") + FRAMES[split](b"fg")
    assert [b"abcde", b"", b"fg"] == bodies(content, split, SINGLE, MEGABYTE)
    assert [content] == bodies(content, split, MULTI, MEGABYTE)
    assert [b"abcde", b"", b"fg"] == records(cut(content, split, MULTI, MEGABYTE)[0], split)
    assert [b"abcde"] == records(cut(content, split, SINGLE, MEGABYTE)[0], split)


@FRAMED
def test_as_many_frames_as_fit(split: str) -> None:
    """With their frames, for those are sent."""
    frames = [FRAMES[split](payload) for payload in (b"abcd", b"efgh", b"ijkl")]
    size = len(frames[0])
    assert [frames[0] + frames[1], frames[2]] == bodies(b"".join(frames), split, MULTI, 2 * size + 1)


@FRAMED
@pytest.mark.parametrize("strategy", [SINGLE, MULTI])
def test_a_frame_over_the_limit_is_alone_in_it(split: str, strategy: str) -> None:
    """Its length says where the next one begins."""
    content = FRAMES[split](b"a") + FRAMES[split](b"x" * 500) + FRAMES[split](b"b")
    found = cut(content, split, strategy, 100)
    assert [False, True, False] == [piece.oversized for piece in found]
    assert [b"a"], [b"b"] == [records(found[0], split), records(found[2], split)]
    assert [0, 1, 2] == [piece.first for piece in found]
    assert len(content) == found[-1].end


@FRAMED
def test_a_frame_of_any_length_without_a_limit(split: str) -> None:
    """MaxPayloadInMB=0 leaves no record out."""
    payload = b"x" * (7 * MEGABYTE)
    content = FRAMES[split](b"a") + FRAMES[split](payload) + FRAMES[split](b"b")
    assert [b"a", payload, b"b"] == bodies(content, split, SINGLE, 0)
    assert content == b"".join(bodies(content, split, MULTI, 0))


@FRAMED
@pytest.mark.parametrize("strategy", [SINGLE, MULTI])
@pytest.mark.parametrize("cut_off", [1, 5, 13])
def test_a_frame_cut_short(split: str, strategy: str, cut_off: int) -> None:
    """What is whole before it is given out; then the object ends, with the record and the byte."""
    frame = FRAMES[split](b"abcdefgh")
    cutting = pieces(io.BytesIO(frame + frame[:-cut_off]), split, strategy, len(frame))
    assert 1 == next(cutting).count
    with pytest.raises(BadObject, match=rf"Record 2 \(byte {len(frame)}\) .* cut short"):
        next(cutting)


def test_not_recordio() -> None:
    """The magic number tells at once."""
    with pytest.raises(BadObject, match=r"Record 1 \(byte 0\) .* magic"):
        cut(b"1.5,2.5\n" * 10, "RecordIO", MULTI, MEGABYTE)
    with pytest.raises(BadObject, match="several parts"):
        cut(MAGIC + struct.pack("<I", 1 << 29 | 4) + b"abcd", "RecordIO", MULTI, MEGABYTE)


@pytest.mark.parametrize("strategy", [SINGLE, MULTI])
@pytest.mark.parametrize("at", [3, 9, 14, 18])
def test_a_damaged_tfrecord(strategy: str, at: int) -> None:
    """A flipped bit of the length, the payload or either checksum is found."""
    good, bad = tfrecord(b"abcd"), bytearray(tfrecord(b"efgh"))
    bad[at] ^= 4
    with pytest.raises(BadObject, match=rf"Record 2 \(byte {len(good)}\) .* checksum"):
        cut(good + bytes(bad) + good, "TFRecord", strategy, MEGABYTE)


def test_a_length_that_lies_asks_for_no_memory() -> None:
    """A frame that says it has 2 ** 60 bytes is one cut short."""
    length = struct.pack("<Q", 1 << 60)
    with pytest.raises(BadObject, match="cut short"):
        cut(length + crc(length) + b"abcd", "TFRecord", MULTI, 0)


# --- all of them ----------------------------------------------------------------------------------------------------

LINES = st.lists(st.sampled_from([b"", b"a", b"1,2", b"x\ry", b"long" * 5, b"\xff\0"]), max_size=12)


@st.composite
def line_objects(draw: st.DrawFn) -> tuple[str, bytes]:
    """Lines with either newline, and with or without a last one."""
    content = b"".join(line + draw(st.sampled_from([b"\n", b"\r\n"])) for line in draw(LINES))
    return "Line", content[:-1] if draw(st.booleans()) else content


@st.composite
def framed_objects(draw: st.DrawFn) -> tuple[str, bytes]:
    """Frames of payloads of any size."""
    split = draw(st.sampled_from(list(FRAMES)))
    return split, b"".join(map(FRAMES[split], draw(st.lists(st.binary(max_size=30), max_size=10))))


OBJECTS = st.one_of(line_objects(), framed_objects())


@given(OBJECTS, st.sampled_from([SINGLE, MULTI]), st.integers(1, 60), st.integers(0, 60), st.integers(1, 7))
@example(("Line", b"aaa\r\nb\r\n"), MULTI, 4, 0, 1)
@settings(max_examples=300, deadline=None)
def test_every_byte_and_record_is_in_one_piece(
    given_object: tuple[str, bytes], strategy: str, most: int, usual: int, drip: int
) -> None:
    """Pieces follow each other from the first byte to the last, hold what is there, and never more than fits; however
    little a read gives."""
    split, content = given_object
    at = record = 0
    stream = Dripping(content, drip)
    for piece in pieces(stream, split, strategy, most, usual_bytes=usual):  # type: ignore[arg-type]  # it can read
        assert (at, record) == (piece.start, piece.first)
        assert len(piece.body) <= (most if piece.count == 1 else min(most, usual or most))
        assert piece.oversized or piece.count == len(records(piece, split))
        if strategy == MULTI or split == "Line":
            assert piece.body == (b"" if piece.oversized else content[piece.start : piece.end])
        at, record = piece.end, piece.first + piece.count
    assert len(content) == at


@given(OBJECTS, st.sampled_from([SINGLE, MULTI]), st.integers(1, 60), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_job_that_resumes_makes_the_same_cuts(
    given_object: tuple[str, bytes], strategy: str, most: int, usual: int
) -> None:
    """From the end of any piece on, the rest is what it was."""
    split, content = given_object
    found = cut(content, split, strategy, most, usual=usual)
    for number, piece in enumerate(found, 1):
        assert found[number:] == cut(content, split, strategy, most, piece.end, piece.first + piece.count, usual)


def halves(piece: Piece, split: str) -> Iterator[Piece]:
    """A piece, bisected until each part is one record."""
    if piece.count == 1:
        yield piece
    else:
        for half in bisect(piece, split):
            yield from halves(half, split)


@given(OBJECTS)
@settings(max_examples=200, deadline=None)
def test_bisecting_ends_at_the_single_records(given_object: tuple[str, bytes]) -> None:
    """Each in its place, none twice."""
    split, content = given_object
    for piece in cut(content, split, MULTI, MEGABYTE):
        ones = list(halves(piece, split))
        assert records(piece, split) == [record for one in ones for record in records(one, split)]
        assert list(range(piece.first, piece.first + piece.count)) == [one.first for one in ones]
        assert content == b"".join(content[one.start : one.end] for one in ones)


def test_a_single_record_has_no_halves() -> None:
    """There is nothing left to find out about it."""
    with pytest.raises(ValueError, match="no halves"):
        bisect(Piece(0, 2, 0, 1, b"a\n"), "Line")


# --- gzip -----------------------------------------------------------------------------------------------------------


def unzipped(content: bytes, drip: int = MEGABYTE) -> BinaryIO:
    """A compressed object, read as what it holds."""
    return decompressed(Dripping(content, drip))  # type: ignore[arg-type]  # reading is all it needs


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_gzip_of_any_number_of_members(parts: list[bytes], drip: int, offset: int) -> None:
    """Reads as the parts, one after the other, zeros at the end included; from any offset."""
    stream = unzipped(b"".join(map(gzip.compress, parts)) + bytes(5), drip)
    skip(stream, offset)
    assert b"".join(parts)[offset:] == stream.read()


def test_lines_of_a_compressed_object() -> None:
    """Whose CRLF may lie across any border."""
    content = b"a,b\r\n" * 100_000
    found = list(pieces(unzipped(gzip.compress(content), 777), "Line", MULTI, 1000))
    assert content == b"".join(piece.body for piece in found)
    assert {200} == {piece.count for piece in found}


def test_a_bomb_is_read_as_slowly_as_it_is_asked() -> None:
    """A hundred megabytes of nothing cost what one request holds."""
    bomb = Dripping(gzip.compress(bytes(100 * MEGABYTE), 1), 1 << 14)
    with pytest.raises(BadObject, match="more than 1000 bytes"):
        next(pieces(decompressed(bomb), "None", SINGLE, 1000))  # type: ignore[arg-type]  # reading is all it needs
    assert 1 << 14 == bomb.position


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not gzip"),
        (b"a,b\n", "is not gzip"),
        (gzip.compress(b"abc" * 50, mtime=0)[:-3], "cut short"),
        (gzip.compress(b"abc" * 50, mtime=0)[:15], "cut short"),
        (gzip.compress(b"abc", mtime=0)[:-8] + bytes(8), "damaged"),
        (gzip.compress(b"abc", mtime=0) + b"more", "something else"),
    ],
)
def test_not_gzip(content: bytes, why: str) -> None:
    """Said with the reason, never as an end of the object."""
    with pytest.raises(BadObject, match=why):
        unzipped(content).read()
