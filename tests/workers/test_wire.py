"""Facts about frames: whatever way the bytes are cut, what was written is what is read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.workers import wire

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SECONDS = st.floats(allow_nan=False, allow_infinity=False)
REQUESTS = st.lists(
    st.builds(
        wire.Request,
        st.sampled_from([wire.REQUEST, wire.ALONE, wire.CONTROL, wire.CANCEL]),
        U64,
        SECONDS,
        SECONDS,
        st.binary(max_size=200),
        st.binary(max_size=3000),
    ),
    max_size=8,
)
ANSWERS = st.lists(
    st.builds(
        wire.Answer,
        st.sampled_from([wire.REPLY, wire.ERROR, wire.MOVED]),
        st.integers(0, 255),
        U64,
        *[U32] * 6,
        st.binary(max_size=200),
        st.binary(max_size=3000),
    ),
    max_size=8,
)


def request_bytes(frame: wire.Request) -> bytes:
    """A request as it is written."""
    return wire.pack_request(frame.kind, frame.id, frame.deadline, frame.sent, frame.meta, frame.body)


def answer_bytes(frame: wire.Answer) -> bytes:
    """An answer as it is written."""
    times = (frame.queue, frame.load, frame.decode, frame.predict, frame.encode)
    return wire.pack_answer(frame.kind, frame.flags, frame.id, times, frame.batch, frame.meta, frame.body)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes as they may arrive: cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]


def read(feed: Callable[[bytes, Callable[[Any], None]], None], arriving: list[bytes]) -> list[Any]:
    """Everything a reader makes of it."""
    taken: list[Any] = []
    for piece in arriving:
        feed(piece, taken.append)
    return taken


@given(REQUESTS, st.lists(st.integers(0), max_size=20))
def test_requests_come_out_as_they_went_in_however_they_are_cut(frames: list[wire.Request], cuts: list[int]) -> None:
    """The worker's reader, over any boundaries."""
    data = b"".join(map(request_bytes, frames))
    assert frames == read(wire.RequestReader().feed, pieces(data, cuts))


@given(REQUESTS, st.lists(st.integers(0, 2**20), max_size=12), st.integers(0, 3000))
def test_large_requests_come_out_as_they_went_in_however_they_are_cut(
    frames: list[wire.Request], cuts: list[int], large: int
) -> None:
    """Whatever counts as large: their bodies are gathered by themselves, among small ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_LARGE_FRAME", large)
        arriving = pieces(b"".join(map(request_bytes, frames)), cuts)
        assert frames == read(wire.RequestReader().feed, arriving)


@given(ANSWERS, st.lists(st.integers(0), max_size=20))
def test_answers_come_out_as_they_went_in_however_they_are_cut(frames: list[wire.Answer], cuts: list[int]) -> None:
    """The front's reader, over any boundaries."""
    data = b"".join(map(answer_bytes, frames))
    assert frames == read(wire.AnswerReader().feed, pieces(data, cuts))


@given(REQUESTS.filter(bool), ANSWERS.filter(bool))
def test_frames_arriving_byte_by_byte_are_whole(requests: list[wire.Request], answers: list[wire.Answer]) -> None:
    """The slowest sender there is."""
    data = request_bytes(requests[0])[:4000]
    assert requests[:1] == read(wire.RequestReader().feed, [data[at : at + 1] for at in range(len(data))])
    data = answer_bytes(answers[0])[:4000]
    assert answers[:1] == read(wire.AnswerReader().feed, [data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize("reader", [wire.RequestReader, wire.AnswerReader])
@pytest.mark.parametrize("size", [0, 1, 15, wire.MAX_FRAME + 1, 2**32 - 1])
def test_an_impossible_length_is_a_broken_frame(reader: type[Any], size: int) -> None:
    """Too short for a header, or longer than any frame: whether it comes at once or in drips."""
    data = struct.pack("<I", size) + bytes(200)
    with pytest.raises(wire.BrokenFrame):
        read(reader().feed, [data])
    with pytest.raises(wire.BrokenFrame):
        read(reader().feed, [data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize(
    ("reader", "frame"),
    [
        (wire.RequestReader, wire.pack_request(wire.REQUEST, 1, 0.0, 0.0, b"meta", b"")),
        (wire.AnswerReader, wire.pack_answer(wire.REPLY, 0, 1, (0, 0, 0, 0, 0), 0, b"meta", b"")),
    ],
)
def test_a_frame_shorter_than_its_meta_is_broken(reader: type[Any], frame: bytes) -> None:
    """The two lengths in a header contradict each other."""
    shorter = struct.pack("<I", len(frame) - 6) + frame[4:-2]
    with pytest.raises(wire.BrokenFrame):
        read(reader().feed, [shorter + bytes(100)])


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_a_broken_frame(data: bytes) -> None:
    """Nothing else comes of what a peer writes, nor is more taken out than was put in."""
    for reader in (wire.RequestReader(), wire.AnswerReader()):
        try:
            taken = read(reader.feed, [data])
        except wire.BrokenFrame:
            continue
        assert sum(len(one.meta) + len(one.body) for one in taken) <= len(data)


TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=50)


@given(TEXT, TEXT, TEXT, st.one_of(st.just(()), st.tuples(TEXT, TEXT, TEXT, TEXT)))
def test_meta_comes_out_as_it_went_in(content_type: str, accept: str, model: str, extras: tuple[str, ...]) -> None:
    """Header values as HTTP has them: Latin-1, without NUL."""
    packed = wire.pack_meta(content_type, accept, model, extras)
    assert wire.Meta(content_type, accept, model, extras) == wire.unpack_meta(packed)


@given(st.floats())
def test_microseconds_fit_their_field(seconds: float) -> None:
    """Any duration, even one that makes no sense."""
    assert 0 <= wire.micros(seconds) <= 2**32 - 1


def test_microseconds_are_whole_and_clamped() -> None:
    """Known values."""
    assert [0, 0, 1500, 2**32 - 1] == [wire.micros(one) for one in (-1.0, 0.0, 0.0015, 1e9)]
