"""Data capture as a process's event loop sees it: which calls, and their records, made as the answers leave.

A record costs the loop some microseconds: an answered call is noted, and the lines of a few dozen are made in one go,
from parts that are kept (a third less, between other work, than making each at once; made by a thread they cost the
process no less; both measured in turns). They are joined to chunks, which go to the writer's thread
(``capture_writer.py``) when they are long enough or half a second old: at most that is lost with the process. Large
bodies go there as they are, and become text piece by piece, so that none keeps the loop from answering others.

Captured is what a variant was given and what it answered, once for each call (``behaviour/05``): of a series of
containers, the first one's request and the last one's answer; of a streamed answer, all of it when it has ended; of a
failed call, the request, and the answer if the container gave one. ``inferenceTime`` is when the answer was there, so
that a file's first record is its earliest, and an hour that is over gets no more. A call that no variant took (429,
503) and one whose caller left are no records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from time import time
from typing import Any, Protocol

from serving.config import Settings
from serving.errors import InvocationTimedOut, ModelError, ServingError, WorkerDied
from serving.objects import open_objects
from serving.types import CaptureSpec, Invocation, Reply
from serving.watch import capture
from serving.watch.capture import Body, Clock, Encoder, Shelf, sampled
from serving.watch.capture_publishing import Publisher
from serving.watch.capture_staging import Staging
from serving.watch.capture_writer import CaptureWriter, Chunk
from serving.watch.metrics import Registry, Snapshot, holders
from serving.watch.observing import Done, Observer

#: Chunks are given to the writer when they are so long, or so old.
_CHUNK = 64 * 1024
_FLUSH_SECONDS = 0.4
#: Records are made so many at a time, which takes the loop about a tenth of a millisecond.
_TOGETHER = 64
#: A process that ends gives its files so long to reach their destination; a later one takes up the others.
CLOSING_SECONDS = 5.0
#: A call with more than this is made a record by the writer, piece by piece.
_LARGE = 64 * 1024
_FAILURE_TYPE = "text/plain; charset=utf-8"

_STOPPED = "sagemaker_data_capture_stopped"
_RECORDS = "sagemaker_data_capture_records_total"
_DROPPED = "sagemaker_data_capture_dropped_total"

log = logging.getLogger("serving.capture")


class Tappable(Protocol):
    """The rest of a streamed answer, for one who only looks on (``workers/parts.py``)."""

    def tap(self, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        """``take`` each part that comes, then ``end``, however it does."""


class Sink:
    """The records of one variant on their way to the writer."""

    def __init__(
        self, destination: str, names: tuple[str, str, str], encoder: Encoder, writer: CaptureWriter, registry: Registry
    ) -> None:
        """``names``: endpoint, variant, and what the variant is called in metrics."""
        self._destination = destination
        self._endpoint, self._variant, label = names
        self._encoder = encoder
        self._writer = writer
        self._clock = Clock()
        self._calls: list[tuple[float, Invocation, Reply]] = []
        self._weight = 0
        self._lines = bytearray()
        self._count = 0
        self._first = 0.0
        self._hour = (0.0, 0.0)
        self._timer: asyncio.TimerHandle | None = None
        self._records = registry.counter(_RECORDS, self._endpoint, label)
        self._failed = registry.counter(_DROPPED, self._endpoint, label, "error")
        self.stopped = registry.counter(_DROPPED, self._endpoint, label, "stopped")
        self.overload = registry.counter(_DROPPED, self._endpoint, label, "overload")
        self.too_large = registry.counter(_DROPPED, self._endpoint, label, "too_large")

    def written(self, records: int) -> None:
        """See ``Tally``."""
        self._records.add(records)

    def lost(self, records: int) -> None:
        """See ``Tally``."""
        self._failed.add(records)

    def note(self, at: float, invocation: Invocation, reply: Reply, size: int) -> None:
        """A call that was answered at ``at``, epoch seconds, with bodies of so many bytes. Its record is made with
        those of others: one alone, between other work, takes twice the time."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._on_time)
        self._calls.append((at, invocation, reply))
        self._weight += size
        if len(self._calls) >= _TOGETHER or self._weight >= _CHUNK:
            self._make()

    def _make(self) -> None:
        """Make the records of the calls that were noted."""
        calls, self._calls, self._weight = self._calls, [], 0
        both, text = self._encoder.both, self._clock.text
        for at, invocation, reply in calls:
            try:
                self._put(at, both(invocation, reply, text(at)))
            except Exception:
                log.exception("a call could not be captured", extra={"request_id": invocation.request_id})

    def add(self, at: float, bodies: Sequence[Body], metadata: Callable[[bytes], bytes], size: int) -> None:
        """A record that is not like most: of these directions. ``metadata`` makes its ``eventMetadata`` of its
        ``inferenceTime``."""
        self._make()
        made = metadata(self._clock.text(at))
        if size > _LARGE:
            self._give(Chunk(self._shelf(at), at, self._encoder.pieces(bodies, made), 1, size, self))
        else:
            self._put(at, self._encoder.line(bodies, made))

    def _put(self, at: float, line: bytes) -> None:
        start, end = self._hour
        if not start <= at < end:
            self._pass_on()
            hour = at // 3600 * 3600
            self._hour = hour, hour + 3600
        if not self._lines:
            self._first = at
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._on_time)
        self._lines += line
        self._count += 1
        if len(self._lines) >= _CHUNK:
            self._pass_on()

    def _on_time(self) -> None:
        self._timer = None
        self.flush()

    def flush(self, last: bool = False) -> None:
        """Give what is there to the writer. ``last``: the file may be finished."""
        self._make()
        self._pass_on(last)

    def _pass_on(self, last: bool = False) -> None:
        lines, count = self._lines, self._count
        if lines or last:
            self._lines, self._count = bytearray(), 0
            self._give(Chunk(self._shelf(self._first), self._first, (lines,), count, len(lines), self, last))

    def _give(self, chunk: Chunk) -> None:
        """What there is no room for is dropped: the newest."""
        if not self._writer.room(chunk.size):
            self.overload.add(chunk.records)
            chunk = chunk._replace(pieces=(), records=0, size=0)
        if chunk.records or chunk.last:
            self._writer.give(chunk)

    def _shelf(self, at: float) -> Shelf:
        return Shelf(self._destination, self._endpoint, self._variant, int(at // 3600))


class Capture:
    """Looks on at the calls of one endpoint."""

    def __init__(self, endpoint: str, spec: CaptureSpec, writer: CaptureWriter, registry: Registry, details: bool):
        """``details``: records say more than AWS's do (``SERVING_CAPTURE_DETAILS``)."""
        self.endpoint = endpoint
        self.spec = spec
        self._percent = spec.percent
        self._writer = writer
        self._registry = registry
        self._details = details
        self._is_plain = spec.input and spec.output and not details
        self._encoder = Encoder(spec)
        self._sinks: dict[str, Sink] = {}

    def begin(self, invocation: Invocation, variant: str, done: Done) -> Done:
        """See ``Observer``."""
        percent = self._percent
        if percent < 100 and not sampled(invocation.request_id, percent):
            return done
        label = invocation.component or variant
        sink = self._sinks.get(label) or self._open(variant, label)
        if self._writer.stopped:
            sink.stopped.add()
            return done

        def answered(result: Reply | ServingError) -> None:
            done(result)
            try:
                if self._is_plain and type(result) is Reply and result.rest is None:
                    size = len(invocation.body) + len(result.body)
                    if size <= _LARGE:
                        sink.note(time(), invocation, result, size)
                        return
                self._answered(sink, invocation, result)
            except Exception:
                log.exception("a call could not be captured", extra={"request_id": invocation.request_id})

        return answered

    def _open(self, variant: str, label: str) -> Sink:
        names = (self.endpoint, variant, label)
        made = Sink(self.spec.destination, names, self._encoder, self._writer, self._registry)
        self._sinks[label] = made
        return made

    def _answered(self, sink: Sink, invocation: Invocation, result: Reply | ServingError) -> None:
        if isinstance(result, ServingError):
            self._record(sink, invocation, _own_words(result), None)
        elif result.rest is None:
            self._record(sink, invocation, Body("OUTPUT", result.content_type, result.body), result)
        else:
            self._follow(sink, invocation, result)

    def _follow(self, sink: Sink, invocation: Invocation, reply: Reply) -> None:
        """A streamed answer is captured when it has ended."""
        held = len(invocation.body)
        self._writer.hold(held)
        body = _Streamed(self._writer, reply.body)

        def end() -> None:
            self._writer.hold(-held)
            whole = body.end()
            if body.overflow:
                (sink.too_large if body.size > capture.MOST_BYTES else sink.overload).add()
            answer = None if whole is None else Body("OUTPUT", reply.content_type, whole)
            self._record(sink, invocation, answer, reply)

        rest: Any = reply.rest
        tap: Tappable = rest
        tap.tap(body.take, end)

    def _record(self, sink: Sink, invocation: Invocation, answer: Body | None, reply: Reply | None) -> None:
        spec, bodies, size = self.spec, [], 0
        asked = Body("INPUT", invocation.content_type, invocation.body) if spec.input else None
        for body in (asked, answer if spec.output else None):
            if body is None:
                continue
            if len(body.data) > capture.MOST_BYTES:
                sink.too_large.add()
                continue
            bodies.append(body)
            size += len(body.data)
        if not bodies:
            return

        def metadata(when: bytes) -> bytes:
            made = capture.metadata(invocation, when)
            return capture.with_details(made, invocation, reply) if self._details else made

        sink.add(time(), bodies, metadata, size)

    def keep(self, labels: Collection[str]) -> None:
        """Let go of variants (and components) that are no more."""
        for label in [label for label in self._sinks if label not in labels]:
            self._sinks.pop(label).flush(last=True)

    def flush(self, last: bool = False) -> None:
        """Give the writer all there is."""
        for sink in self._sinks.values():
            sink.flush(last)


class _Streamed:
    """The body of a streamed answer as it comes. ``overflow``: it is too large, or there was no room for it."""

    def __init__(self, writer: CaptureWriter, first: bytes) -> None:
        self._writer = writer
        self._parts: list[bytes] = []
        self._held = 0
        self.size = 0
        self.overflow = False
        self.take(first)

    def take(self, part: bytes) -> None:
        self.size += len(part)
        if self.overflow:
            return
        if self.size > capture.MOST_BYTES or not self._writer.room(len(part)):
            self.overflow = True
            self._let_go()
            return
        self._held += len(part)
        self._writer.hold(len(part))
        self._parts.append(part)

    def end(self) -> bytes | None:
        """The whole; None when it was too much."""
        whole = None if self.overflow else b"".join(self._parts)
        self._let_go()
        return whole

    def _let_go(self) -> None:
        self._writer.hold(-self._held)
        self._held = 0
        self._parts.clear()


def _own_words(error: ServingError) -> Body | None:
    """What a container answered instead of a prediction; None when it answered nothing."""
    if not isinstance(error, ModelError) or isinstance(error, WorkerDied | InvocationTimedOut):
        return None
    return Body("OUTPUT", _FAILURE_TYPE, error.message.encode())


class Captures:
    """All of a process: who looks on at which endpoint, kept from one routing table to the next."""

    def __init__(self, writer: CaptureWriter, registry: Registry, details: bool) -> None:
        """``writer`` is started and closed by this."""
        self._writer = writer
        self._registry = registry
        self._details = details
        self._all: dict[str, Capture] = {}

    def start(self) -> None:
        """From now on calls are written down. On the event loop."""
        loop = asyncio.get_running_loop()

        def changed(stopped: bool) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._tell, stopped)

        self._writer.on_change = changed
        self._writer.start()

    def observers(self, row: Mapping[str, Any]) -> tuple[Observer, ...]:
        """Who looks on at the calls of an endpoint, by its row of the table (``fleet/table.py``)."""
        wanted, name = row.get("capture"), row["name"]
        spec = _spec(wanted) if wanted else None
        before = self._all.get(name)
        if before is not None and before.spec != spec:
            before.flush(last=True)
            del self._all[name]
            self._registry.counter(_STOPPED, name).set(0.0)
        if spec is None:
            return ()
        self._writer.want()
        if name not in self._all:
            self._all[name] = Capture(name, spec, self._writer, self._registry, self._details)
        self._registry.counter(_STOPPED, name).set(float(self._writer.stopped))
        return (self._all[name],) if spec.percent else ()

    def keep(self, table: Mapping[str, Any]) -> None:
        """Let go of endpoints and variants that a table has not, as the metrics do."""
        there: dict[str, set[str]] = {}
        for endpoint, *labels in holders(table):
            there.setdefault(endpoint, set()).update(labels)
        for name, one in list(self._all.items()):
            one.keep(there.get(name, ()))
            if name not in there:
                del self._all[name]

    def _tell(self, stopped: bool) -> None:
        for name in self._all:
            self._registry.counter(_STOPPED, name).set(float(stopped))

    async def close(self, seconds: float = CLOSING_SECONDS) -> bool:
        """Bring all there is to its destination; returns whether that could be done within this time. What could not
        is taken up by a later process."""
        for one in self._all.values():
            one.flush(last=True)
        return await asyncio.to_thread(self._writer.close, seconds)


def open_captures(settings: Settings, registry: Registry, role: str) -> Captures:
    """A process's, as the settings say; nothing is touched before ``start``."""
    root = settings.data_dir / "capture"
    staging = Staging(root, role)
    publisher = Publisher(staging, lambda: open_objects(settings))
    disks = [root, settings.data_dir / "s3"] if settings.s3 == "local" else [root]
    writer = CaptureWriter(staging, publisher, disks, settings.capture_disk_percent)
    return Captures(writer, registry, settings.capture_details)


def _spec(wanted: Mapping[str, Any]) -> CaptureSpec:
    """What a row says, as values that can be compared."""
    return CaptureSpec(**{**wanted, "csv": tuple(wanted["csv"]), "json": tuple(wanted["json"])})


def is_stopped(taken: Snapshot, endpoint: str) -> bool:
    """Has a process stopped capturing the calls of this endpoint, by what all have counted?"""
    return taken.get((_STOPPED, (endpoint,)), [0.0])[0] > 0
