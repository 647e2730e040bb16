"""Facts about a worker's side of a front's channel."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.workers.connection import Connection


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and the front's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours), theirs


def drain(connection: Connection, front: socket.socket, left_over: bool) -> bytes:
    """Everything that arrives while the connection is flushed to its end."""
    received, front_is_dry = b"", False
    front.setblocking(False)
    while left_over or not front_is_dry:
        try:
            received += front.recv(1 << 20)
            front_is_dry = False
        except BlockingIOError:
            front_is_dry = True
        left_over = left_over and not connection.flush()
    return received


@given(st.lists(st.lists(st.integers(0, 300_000), max_size=3), max_size=8))
def test_frames_arrive_in_order_however_slowly_the_front_reads(sends: list[list[int]]) -> None:
    """What a full socket does not take waits, with all that comes after it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection, waits = Connection(ours), []
        frames = [[bytes([at % 251]) * size for size in sizes] for at, sizes in enumerate(sends)]
        for batch in frames:
            connection.send(batch, waits.append)
        assert b"".join(b"".join(batch) for batch in frames) == drain(connection, theirs, bool(waits))


def test_a_front_that_has_gone_costs_nothing(ends: tuple[Connection, socket.socket]) -> None:
    """Neither an error nor memory: the read side sees the end."""
    connection, front = ends
    waits: list[Connection] = []
    connection.send([bytes(10**7)], waits.append)
    assert [connection] == waits
    front.close()
    assert connection.flush()
    connection.send([b"more"], waits.append)
    assert [connection] == waits


def test_nothing_is_sent_on_a_closed_connection(ends: tuple[Connection, socket.socket]) -> None:
    """Its calls were cancelled; answers that come late are nobody's."""
    connection, front = ends
    connection.closed = True
    connection.send([b"late"], lambda _: None)
    front.setblocking(False)
    with pytest.raises(BlockingIOError):
        front.recv(1)
