"""A worker: one process that holds models and answers frames. It may die at any instruction.

One thread *leads*: it waits on the sockets, forms batches and runs them itself, so a fast model costs no hand-over.
When a batch takes longer than ``_SLOW`` seconds, or is known to, another thread is promoted to lead and the slow one
goes on as the private runner of that model (Go's scheduler does the same with blocked system calls). So a slow or
hanging model holds up nobody but itself, and nobody pays for that while models are fast. Loads run on threads of their
own.

The state lock is held while books change, never while a model loads, decodes, predicts or encodes.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

from serving import errors
from serving.errors import ServingError
from serving.runtimes.base import TensorModel
from serving.watch.logs import configure as configure_logs
from serving.watch.metrics import Registry
from serving.workers import answers, memory, wire
from serving.workers.batcher import Call, Line, Lines
from serving.workers.cells import RUNNING, SLOTS, Cell
from serving.workers.connection import Connection
from serving.workers.control import ControlLine
from serving.workers.loader import Loader
from serving.workers.model_cache import FAILED, READY, Entry, ModelCache
from serving.workers.operations import Operations
from serving.workers.plan import WorkerPlan
from serving.workers.sessions import Sessions
from serving.workers.streams import Stream, Streams
from serving.workers.upkeep import Upkeep

#: Python's own 5 ms is how long a thread that loads or improves a model may keep the one that answers waiting, each
#: time the latter comes back from native code.
_SWITCH_SECONDS = 0.0005
_READ = 256 * 1024
#: A batch longer than this gives up the lead. Two ticks of the watch thread.
_SLOW = 0.02
_TICK = 0.01
#: How long a batch should take at most, when calls wait: half of what costs the lead.
_BATCH_SECONDS = 0.01
#: How long answers may wait for those of the batches after them.
_BURST_SECONDS = 0.0002
_IDLE_TICK = 0.1
#: A call that waits for a load hears so much before its time is up that it is still loading.
_EXCUSE_SECONDS = 0.25
#: Threads that may run slow batches at once, beside the leader. When all of them and the leader are busy for
#: ``_STUCK`` seconds, the worker stops its heart-beat: calls of other models go elsewhere.
_MOST_RUNNERS = 24
_STUCK = 1.0
_MOST_METAS = 4096
_BROKEN = 70

log = logging.getLogger("serving.worker")


class Worker:
    """The process. Build, then ``serve`` (returns when drained)."""

    def __init__(self, plan: WorkerPlan, control: socket.socket) -> None:
        self.plan = plan
        self._control = ControlLine(control)
        self.tell = self._control.tell
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self.lines = Lines()
        self.cache = ModelCache(plan.budget if plan.multi_model else math.inf, plan.keep)
        self.cell = Cell(plan.cell)
        self._upkeep = Upkeep(plan, self.cache, self.tell)
        self._metas: dict[bytes, wire.Meta] = {}
        self._slots = list(range(SLOTS - 1, -1, -1))
        self._token = 0
        self._busy_since = 0.0
        self._unsent: dict[Connection, list[bytes]] = {}
        self._runners = 0
        self._draining = False
        self._stopped = threading.Event()
        self._connections: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._metrics(Registry(plan.metrics, f"worker-{plan.worker_id}"))
        self.loader = Loader(self)
        self._sessions = Sessions(plan.worker_id)
        self._streams = Streams(self, self._sessions)
        load, release = self.loader.submit, self.loader.release
        self._operations = Operations(self.cache, self.send, load, lambda entry: release([entry], asked=True))

    @property
    def baseline(self) -> memory.Held:
        """What it held without a model; libraries that came with a first one count to it."""
        return self._upkeep.baseline

    @baseline.setter
    def baseline(self, held: memory.Held) -> None:
        self._upkeep.baseline = held

    def _metrics(self, registry: Registry) -> None:
        labels = (self.plan.endpoint, self.plan.variant)
        self.registry = registry
        self._hits = registry.counter("sagemaker_model_cache_requests_total", *labels, "hit")
        self._misses = registry.counter("sagemaker_model_cache_requests_total", *labels, "miss")
        self._batch = registry.histogram("sagemaker_batch_calls", *labels)
        self._loaded = registry.counter("sagemaker_loaded_models", *labels)
        self._bytes = registry.counter("sagemaker_model_memory_bytes", *labels)

    # -- life ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Listen, tell the supervisor, answer until drained. A single model is loaded before readiness is told."""
        self._listener.bind(str(self.plan.socket))
        self._listener.listen(64)
        self._listener.setblocking(False)
        for fd in (self._listener.fileno(), self._control.fileno(), self._wake_fd):
            self._epoll.register(fd, select.EPOLLIN)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        if self.plan.multi_model:
            self.tell({"ev": "ready"})
        else:
            with self.lock:
                entry, _ = self.cache.want("", time.monotonic())
            self.loader.submit(entry)
        self._lead(0)
        self._stopped.wait()

    def _lead(self, token: int) -> None:
        """Lead; and end the worker if that fails: better a new one than one that nobody leads."""
        try:
            with self.lock:
                slot = self.take_slot()
            self._turn(slot, token)
            with self.lock:
                self.free_slot(slot)
        except BaseException:
            try:
                log.exception("the worker cannot go on")
            finally:
                os._exit(_BROKEN)

    def _turn(self, slot: int, token: int) -> None:
        """Wait, read, batch, run, answer; until promoted away or stopped. Quick batches of several models that are
        ready together are run in one burst: the sockets are looked at, and written to, once for all of them."""
        lock, more, look, burst = self.lock, True, True, 0.0  # the leader before may have left lines that are ready
        while not self._stopped.is_set():
            events = self._epoll.poll(0 if more else -1) if look else ()
            with lock:
                for fd, event in events:
                    self._on_event(fd, event)
                line = self.lines.next()
                taken = self._begin(line) if line is not None else None
                more = self.lines.ready
                if line is None or taken is None:
                    look = True
                    self.flush()
                    continue
                now = time.monotonic()
                burst = now if look else burst
                if not self._is_quick(*taken):
                    self.flush()
                if not self._hand_over(*taken):
                    self._busy_since = now
            frames = self._answers(*taken, slot)
            with lock:
                self.finish(*taken, frames)
                if self._token == token:
                    self._busy_since = 0.0
                    self.lines.done(line)
                    more = self.lines.ready
                    look = not more or time.monotonic() - burst > _BURST_SECONDS
                    if look:
                        self.flush()
                    continue
                self.flush()
            self._run_dry(line, slot)
            return

    def _is_quick(self, entry: Entry, batch: list[Call]) -> bool:
        """May answers that are ready wait for this batch?"""
        cost = entry.pace.cost
        return cost > 0.0 and cost * len(batch) < _BURST_SECONDS

    def flush(self) -> None:
        """Write what a burst has answered. With the lock held."""
        if self._unsent:
            for connection, frames in self._unsent.items():
                connection.send(frames, self._wait_writable)
            self._unsent.clear()

    def _hand_over(self, entry: Entry, batch: list[Call]) -> bool:
        """Give the lead away before a batch that is known to be slow, where there are other models to serve."""
        return entry.pace.cost * len(batch) > _SLOW and self.plan.multi_model and self._promote()

    def _promote(self) -> bool:
        """Give the lead to a new thread. With the lock held. False when there are enough, or the system has none."""
        if self._runners >= _MOST_RUNNERS:
            return False
        try:
            threading.Thread(target=self._lead, args=(self._token + 1,), name="lead", daemon=True).start()
        except (RuntimeError, MemoryError):
            return False
        self._token += 1
        self._runners += 1
        self._busy_since = 0.0
        return True

    def _run_dry(self, line: Line, slot: int) -> None:
        """Without the lead: go on as this line's own runner until nothing waits for it."""
        while True:
            with self.lock:
                taken = self._begin(line)
                if taken is None:
                    self._runners -= 1
                    self.wake()
                    return
            frames = self._answers(*taken, slot)
            with self.lock:
                self.finish(*taken, frames)
                self.flush()

    def _watch(self) -> None:
        """Promote a new leader when the old one is stuck in a batch; look after memory once a second."""
        next_look = 0.0
        self.cell.beat(time.monotonic())
        while not self._stopped.wait(_TICK if self._busy_since else _IDLE_TICK):
            since, now = self._busy_since, time.monotonic()
            if since and now - since > _SLOW:
                with self.lock:
                    if self._busy_since == since:
                        self._promote()
            if not (self._busy_since and now - self._busy_since > _STUCK):
                self.cell.beat(now)
            with suppress(MemoryError):
                self._excuse_late(now)
                if now >= next_look:
                    next_look = now + 1.0
                    self._look_around()

    def _look_around(self) -> None:
        self.loader.tidy()
        self._upkeep.look()
        self._control.flush()

    def _excuse_late(self, now: float) -> None:
        """Calls whose time ends while their model loads are told to come back; the load goes on (``behaviour/01``)."""
        with self.lock:
            for name in self.cache.loading():
                for call in self.lines.late(name, now + _EXCUSE_SECONDS):
                    self._refuse(call, errors.ModelNotReady(f"Model {name!r} is still loading. Please try again."))

    def take_slot(self) -> int:
        """A cell slot for the calling thread. With the lock held."""
        return self._slots.pop()

    def free_slot(self, slot: int) -> None:
        """The thread's slot is free again. With the lock held."""
        self._slots.append(slot)

    def wake(self) -> None:
        """Make the leader look at its books."""
        os.eventfd_write(self._wake_fd, 1)

    # -- frames in ----------------------------------------------------------------------------------------------

    def _on_event(self, fd: int, event: int) -> None:
        connection = self._connections.get(fd)
        if connection is not None:
            if event & select.EPOLLOUT and connection.flush():
                self._epoll.modify(fd, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                self._read(connection)
        elif fd == self._listener.fileno():
            self._accept()
        elif fd == self._wake_fd:
            os.eventfd_read(self._wake_fd)
        else:
            for order in self._control.orders():
                self._obey(order)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self._connections[sock.fileno()] = Connection(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _wait_writable(self, connection: Connection) -> None:
        self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _read(self, connection: Connection) -> None:
        """Take everything that has arrived: what is read together is batched together."""
        arrived = time.monotonic()

        def take(request: wire.Request) -> None:
            if request.kind == wire.REQUEST:
                self._admit(connection, request, arrived)
            else:
                self._take(connection, request, arrived)

        while True:
            try:
                data = connection.sock.recv(_READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(connection)
                return
            try:
                connection.reader.feed(data, take)
            except wire.BrokenFrame as error:
                log.error("a front sent a broken frame: %s", error)
                self._close(connection)
                return
            if len(data) < _READ:
                return

    def _close(self, connection: Connection) -> None:
        connection.closed = True
        fd = connection.sock.fileno()
        self._connections.pop(fd, None)
        self._epoll.unregister(fd)
        connection.sock.close()
        for call in connection.calls.values():
            call.cancelled = True
            self._streams.cancel(call)
        self._maybe_stop()

    def _take(self, connection: Connection, request: wire.Request, arrived: float) -> None:
        if request.kind == wire.CANCEL:
            call = connection.calls.get(request.id)
            if call is not None:
                call.cancelled = True
                if self.lines.drop(call):
                    del connection.calls[request.id]
                self._streams.cancel(call)
        elif request.kind == wire.CREDIT:
            self._streams.credit(connection.calls.get(request.id), int(request.deadline))
        elif request.kind in (wire.ALONE, wire.STREAM):
            self._admit(connection, request, arrived, alone=True)
        elif request.kind == wire.CONTROL:
            self._operations.do(connection, request)

    def _unpacked(self, packed: bytes) -> wire.Meta:
        meta = wire.unpack_meta(packed)
        if not meta.extras:  # extras differ from call to call: not worth keeping
            if len(self._metas) >= _MOST_METAS:
                self._metas.clear()
            self._metas[packed] = meta
        return meta

    def _admit(self, connection: Connection, request: wire.Request, arrived: float, alone: bool = False) -> None:
        kind, id, deadline, sent, packed, body = request
        meta = self._metas.get(packed) or self._unpacked(packed)
        call = connection.calls[id] = Call(connection, id, deadline, sent, arrived, meta, body, alone)
        if kind == wire.STREAM:
            call.stream = Stream(call)
        entry, start = self.cache.want(meta.model, arrived)
        if entry.state == READY:
            self.lines.offer(self.lines.add(call))
        elif entry.state == FAILED and entry.error is not None:
            self._refuse(call, entry.error)
        else:
            call.hit = False
            self.lines.add(call)
            if start:
                self.loader.submit(entry)

    # -- batches ------------------------------------------------------------------------------------------------

    def _begin(self, line: Line) -> tuple[Entry, list[Call]] | None:
        """Form the line's next batch and pin its model. None when nothing is to be done for it now, or a stream has
        its turn; then the line has been put in order."""
        entry = self.cache.get(line.model)
        if entry is None or entry.state != READY:
            # Evicted between offer and turn: its calls wait for a new load.
            line.busy = False
            if line.calls:
                self._reload(line.model)
            else:
                self.lines.done(line)
            return None
        most = self._worth_batching(entry)
        batch = self.lines.take(line, time.monotonic(), most, self.plan.max_batch_bytes)
        if not batch:
            self.lines.done(line)
            return None
        if batch[0].stream is not None and batch[0].stream.chunks is not None:
            self._streams.take_turn(line, batch[0])
            return None
        self.cache.pin(entry)
        return entry, batch

    def _worth_batching(self, entry: Entry) -> int:
        """Calls to predict together."""
        model = entry.model
        if not isinstance(model, TensorModel) or not model.batchable:
            return 1
        return entry.pace.most(self.plan.max_batch_calls, _BATCH_SECONDS)

    def _reload(self, name: str) -> None:
        line = self.lines.line(name)
        for call in line.calls if line is not None else ():
            call.hit = False
        entry, start = self.cache.want(name, time.monotonic())
        if start:
            self.loader.submit(entry)
        elif entry.state == FAILED and entry.error is not None:
            for call in self.lines.take_all(name):
                self._refuse(call, entry.error)

    def _answers(self, entry: Entry, batch: list[Call], slot: int) -> list[answers.Framed]:
        """Run the model over a batch: a frame for each call."""
        began, model = time.monotonic(), entry.model
        alone = batch[0].id if batch[0].alone else 0
        limit = max(call.deadline - call.sent for call in batch) if self.plan.own_limits else 0.0
        self.cell.set(slot, RUNNING, entry.key, began, alone, proven=entry.uses > 0, limit=limit)
        assert model is not None
        frames = answers.of(model, batch, began, self._sessions, self._upkeep.is_spoiled)
        if not isinstance(model, TensorModel):
            self.check_descriptors()
        self.cell.clear(slot)
        if frames[0][1]:
            entry.pace.note(len(batch), time.monotonic() - began)
        return frames

    def check_descriptors(self) -> None:
        """A script may have closed what is not its own. While the cell still says whose fault it is: end here."""
        try:
            os.fstat(self._control.fileno())
            os.fstat(self._epoll.fileno())
        except (OSError, ValueError):
            os._exit(_BROKEN)

    def finish(self, entry: Entry, batch: list[Call], frames: list[answers.Framed]) -> None:
        """Collect the answers for the next flush and put the model back in order. With the lock held."""
        if batch[0].stream is not None:
            answered = self._streamed(entry, batch[0], frames)
            if answered is None:
                return  # its parts are to come, and this again at its end
            frames = answered
        hits, at = 0, 0
        while at < len(frames):  # runs of one front's calls, mostly a single run
            connection = frames[at][0].channel
            out = self._unsent.setdefault(connection, [])
            while at < len(frames) and (call := frames[at][0]).channel is connection:
                hits += call.hit
                if connection.calls.pop(call.id, None) is not None and not call.cancelled:
                    out.append(frames[at][1])
                at += 1
        self._hits.add(hits)
        if hits < len(batch):
            self._misses.add(len(batch) - hits)
        self._batch.observe(len(batch))
        if self.cache.unpin(entry, len(batch)):
            self.loader.release([entry])
        if not entry.improved or not self.cache.fits(0):
            self.loader.consider(entry)
        if self.plan.multi_model:
            self.room.notify_all()
        if self._draining:
            self._maybe_stop()

    def _streamed(self, entry: Entry, call: Call, frames: list[answers.Framed]) -> list[answers.Framed] | None:
        """A call whose answer may come in parts: None when it does, else the answer."""
        if frames[0][1] or call.cancelled:
            return frames
        refusal = self._streams.begin(entry, call)
        return [(call, answers.error_frame(call.id, refusal, call.hit))] if refusal is not None else None

    def _refuse(self, call: Call, error: ServingError) -> None:
        call.channel.calls.pop(call.id, None)
        if not call.cancelled:
            self.send(call.channel, answers.error_frame(call.id, error, call.hit))

    def send(self, connection: Connection, frame: bytes) -> None:
        """Write a frame at once. With the lock held."""
        connection.send((frame,), self._wait_writable)

    # -- what the loader reports (called with the lock held) ------------------------------------------------------

    def on_loaded(self, entry: Entry, seconds: float) -> None:
        """A model has become READY: serve those who waited."""
        self.book()
        line = self.lines.line(entry.name)
        if line is not None:
            for call in line.calls:
                call.load = time.monotonic() - call.arrived
            self.lines.offer(line)
        self._operations.loaded(entry)
        if not self.plan.multi_model:
            engine = getattr(entry.model, "engine", "")
            self.tell({"ev": "ready", "bytes": entry.bytes, "engine": engine, "seconds": seconds})
        self.wake()

    def on_load_failed(self, entry: Entry, error: ServingError) -> None:
        """A load has failed: everybody who waited gets the error."""
        self.book()
        for call in self.lines.take_all(entry.name):
            self._refuse(call, error)
        self._operations.failed(entry, error)
        if not self.plan.multi_model:
            self.tell({"ev": "failed", "error": type(error).__name__, "message": error.message})
        self.wake()

    def book(self) -> None:
        """Bring the gauges up to date."""
        self._loaded.set(self.cache.count)
        self._bytes.set(self.cache.used)

    def on_closed(self, entry: Entry) -> None:
        """A model's memory is free."""
        self._operations.closed(entry)

    # -- orders of the supervisor ---------------------------------------------------------------------------------

    def _obey(self, order: dict[str, object]) -> None:
        if order["op"] == "drain":
            self._draining = True
            self._maybe_stop()
        elif order["op"] == "threads":
            self.loader.set_threads(int(str(order["threads"])))
        elif order["op"] == "budget":
            self.loader.set_budget(float(str(order["bytes"])) if self.plan.multi_model else math.inf)

    def _maybe_stop(self) -> None:
        """Drained: told to go, no front is connected and nothing runs."""
        if self._draining and not self._connections:
            self._stopped.set()
            self.wake()


def run(plan: WorkerPlan) -> None:
    """A forked process's whole life as a worker."""
    for number in (signal.SIGINT, signal.SIGTERM):  # may reach every process of ours; the supervisor decides who goes
        signal.signal(number, signal.SIG_IGN)
    configure_logs(plan.log_format, plan.log_level)
    os.dup2(2, 1)  # what models print belongs to the log
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a TextIOWrapper
    memory.cap(plan.memory_cap)
    os.nice(plan.nice)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.connect(str(plan.control))
    sys.setswitchinterval(_SWITCH_SECONDS)
    worker = Worker(plan, control)
    worker.cell.keep_last_words()
    worker.tell({"ev": "hello", "worker": plan.worker_id, "pid": os.getpid()})
    worker.serve()
