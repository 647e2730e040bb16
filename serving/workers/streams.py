"""A worker's streamed answers: a script's generator, pulled on a thread of its own, its parts sent as far as the front
has given credit for them.

A stream holds its model only while it makes a part: it takes its turns in the model's line like any call, and stands
aside while its caller reads. So neither the worker's memory nor its other calls know whether a caller reads slowly.

::

    begin ──► in line ──turn──► makes a part ──► sends it ──credit left──► in line (or goes on, if nobody else waits)
                 ▲                  │                └──none──► aside ──credit, or the caller left──► in line
                 │                  └── end, failure, caller left: answered; thread and model are free
                 └───────────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from typing import Protocol

from serving.errors import ServingError, Throttled
from serving.runtimes.base import Chunks, ScriptModel
from serving.workers import answers, pipeline, wire
from serving.workers.batcher import Call, Line, Lines
from serving.workers.cells import RUNNING, Cell
from serving.workers.connection import Connection
from serving.workers.model_cache import Entry
from serving.workers.sessions import Sessions

#: Streams a worker holds open at once, a thread each; and how many of them may be in their models at the same time.
_MOST = 128
_MOST_RUNNING = 12
_BROKEN = 70

log = logging.getLogger("serving.worker")


class Host(Protocol):
    """What streams need of their worker."""

    lock: threading.Lock
    lines: Lines
    cell: Cell

    def take_slot(self) -> int: ...  # noqa: D102
    def free_slot(self, slot: int) -> None: ...  # noqa: D102
    def wake(self) -> None: ...  # noqa: D102
    def check_descriptors(self) -> None: ...  # noqa: D102
    def send(self, connection: Connection, frame: bytes) -> None: ...  # noqa: D102
    def flush(self) -> None: ...  # noqa: D102
    def finish(self, entry: Entry, batch: list[Call], frames: list[answers.Framed]) -> None: ...  # noqa: D102


class Stream:
    """One answer in parts. ``chunks`` is there once the model has begun it; ``left`` is what the caller has no credit
    for yet; ``aside``: it waits for credit; ``line``: it has its model's turn; ``session``: as the model calls it."""

    __slots__ = (
        "aside",
        "call",
        "chunks",
        "credit",
        "entry",
        "left",
        "line",
        "meta",
        "predict",
        "session",
        "step",
        "turn",
    )

    def __init__(self, call: Call) -> None:
        self.call = call
        self.chunks: Chunks | None = None
        self.session = ""
        self.credit = wire.STREAM_WINDOW
        self.left = memoryview(b"")
        self.aside = False
        self.meta: bytes | None = None
        self.predict = 0.0

    def begin(self, entry: Entry) -> None:
        """It has chunks, and needs turns."""
        call = self.call
        self.entry = entry
        self.line: Line | None = None
        self.turn = threading.Semaphore(0)
        self.step = Call(call.channel, call.id, math.inf, 0.0, 0.0, call.meta, b"", True)
        self.step.stream = self

    def part(self) -> bytes:
        """The next part's frame; it takes up credit."""
        piece, self.left = self.left[: wire.MAX_PART], self.left[wire.MAX_PART :]
        self.credit -= wire.cost(len(piece))
        times = (0, 0, 0, 0, 0)
        meta, self.meta = self.meta, b""
        if meta:  # the first: it tells how it came about
            call = self.call
            queue = time.monotonic() - call.sent - call.load - self.predict
            times = (wire.micros(queue), wire.micros(call.load), 0, wire.micros(self.predict), 0)
        return wire.pack_answer(wire.PART, self.call.hit, self.call.id, times, 1, meta or b"", piece)


class Streams:
    """All streams of one worker. What is marked so is called with the worker's lock held."""

    def __init__(self, host: Host, sessions: Sessions) -> None:
        self._host = host
        self._sessions = sessions
        self._open = 0
        self._running = threading.Semaphore(_MOST_RUNNING)

    # -- with the lock held ---------------------------------------------------------------------------------------

    def begin(self, entry: Entry, call: Call) -> ServingError | None:
        """A model has begun to answer in parts: they are made from now on, in the model's turns. Returns why not when
        there are too many already. With the lock held."""
        stream: Stream = call.stream
        if self._open >= _MOST:
            return Throttled(f"This worker holds {_MOST} open streams. Please retry.")
        stream.begin(entry)
        try:
            threading.Thread(target=self._live, args=(stream,), name="stream", daemon=True).start()
        except (RuntimeError, MemoryError):
            return Throttled("This worker cannot hold another stream. Please retry.")
        self._open += 1
        self._line_up(stream)
        return None

    def take_turn(self, line: Line, step: Call) -> None:
        """It is this stream's turn: the line is its own until it says otherwise. With the lock held."""
        step.stream.line = line
        step.stream.turn.release()

    def credit(self, call: Call | None, size: int) -> None:
        """The caller can take so much more. With the lock held."""
        if call is None or call.stream is None:
            return
        stream: Stream = call.stream
        stream.credit += size
        if stream.aside:
            self._send(stream)
            if self._may_go_on(stream):
                self._line_up(stream)

    def cancel(self, call: Call) -> None:
        """The caller has left (the call says so): a stream that has begun needs a last turn, to clean up. With the lock
        held."""
        stream: Stream | None = call.stream
        if stream is not None and stream.aside:
            self._line_up(stream)

    def _line_up(self, stream: Stream) -> None:
        stream.aside = False
        lines = self._host.lines
        line = lines.add(stream.step)
        if not line.busy:
            lines.offer(line)
            self._host.wake()

    def _send(self, stream: Stream) -> None:
        while stream.left and stream.credit > 0:
            self._host.send(stream.call.channel, stream.part())

    def _may_go_on(self, stream: Stream) -> bool:
        return not stream.left and stream.credit > 0

    # -- on the stream's thread -----------------------------------------------------------------------------------

    def _live(self, stream: Stream) -> None:
        try:
            while not self._took_turn(stream):
                pass
        except BaseException:
            try:
                log.exception("the worker cannot go on")
            finally:
                os._exit(_BROKEN)

    def _took_turn(self, stream: Stream) -> bool:
        """Wait for a turn, make parts while nobody else wants the model. True when the stream has ended."""
        stream.turn.acquire()
        while True:
            last = self._make(stream)
            with self._host.lock:
                if last is not None:
                    self._end(stream, last)
                    return True
                if stream.call.cancelled:
                    continue  # once more, to clean up
                self._send(stream)
                if not self._goes_on(stream):
                    return False

    def _goes_on(self, stream: Stream) -> bool:
        """Give the model back where others wait for it, or where there is no credit. With the lock held."""
        line, may = stream.line, self._may_go_on(stream)
        assert line is not None
        if may and not line.calls:
            return True
        self._give_back(stream)
        if may:
            self._line_up(stream)
        else:
            stream.aside = True
        return False

    def _give_back(self, stream: Stream) -> None:
        line, stream.line = stream.line, None
        assert line is not None
        if line.calls and line.calls[0].stream is not None and line.calls[0].stream.chunks is not None:
            self.take_turn(line, self._host.lines.first(line))  # from stream to stream: the leader need not know
            return
        self._host.lines.done(line)
        self._host.wake()

    def _make(self, stream: Stream) -> bytes | None:
        """One step of the model: None when it has made a chunk, else the frame that ends the stream."""
        host, call, entry = self._host, stream.call, stream.entry
        with self._running:
            with host.lock:
                slot = host.take_slot()
            began = time.monotonic()
            host.cell.set(slot, RUNNING, entry.key, began, call.id, proven=entry.uses > 0)
            made = self._step(stream, began)
            host.check_descriptors()
            host.cell.clear(slot)
            with host.lock:
                host.free_slot(slot)
        return made

    def _step(self, stream: Stream, began: float) -> bytes | None:
        call, chunks = stream.call, stream.chunks
        assert chunks is not None
        try:
            if call.cancelled:
                chunks.close()
                return b""
            chunk = next(chunks, b"")
            if stream.meta is None:
                stream.meta = self._meta(stream, chunks)
                stream.predict = time.monotonic() - began
            if chunk:
                stream.left = memoryview(chunk)
                return None
        except BaseException as error:  # a SystemExit must not end the worker in silence
            log.exception("a model failed while it streamed")
            failure = pipeline.failure(error)
        else:
            return wire.pack_answer(wire.REPLY, call.hit, call.id, (0, 0, 0, 0, 0), 1, stream.meta, b"")
        chunks.close()
        return answers.error_frame(call.id, failure, call.hit)

    def _meta(self, stream: Stream, chunks: Chunks) -> bytes:
        model, headers = stream.entry.model, chunks.headers
        if isinstance(model, ScriptModel):
            headers = self._sessions.told(model, stream.session, headers, time.time())
        return answers.reply_meta(chunks.content_type, headers)

    def _end(self, stream: Stream, last: bytes) -> None:
        """Its thread, its place and its model are free. With the lock held."""
        self._open -= 1
        call = stream.call
        stream.chunks = call.stream = stream.step.stream = None
        self._host.finish(stream.entry, [call], [(call, last)])
        self._host.flush()
        self._give_back(stream)
