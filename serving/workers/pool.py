"""The front's side of workers: a channel to each, calls in flight, retries, time limits, bounded queues.

A call's life::

    submit ──► placed on a channel ──► answered
       │            └─ worker lost ──► placed again (once, if it was running when the worker died; freely, if it waited)
       └──► parked while no worker is ready, but one is expected
    any of these ──► deadline ──► InvocationTimedOut        caller gone ──► cancelled

Everything here runs on the front's event loop; nothing blocks, nothing awaits.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from serving import errors
from serving.errors import InvocationTimedOut, ServiceUnavailable, ServingError, Throttled, WorkerDied
from serving.types import Invocation, Reply, RoutingStrategy
from serving.watch.metrics import Registry
from serving.workers import cells, placement, wire

SWEEP_SECONDS = 0.25
#: A worker whose interpreter has not turned for so long, with calls of other models waiting, is passed by.
_STALLED_SECONDS = 1.0
_MOST_METAS = 4096
_MOST_ORDERS = 20_000
_MOST_BYTES = 256 * 2**20
#: Fewer calls than this in flight need no admission sums.
_EASY = 64
#: Bodies above this count against ``_MOST_BYTES``.
_BIG = 64 * 1024
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)

log = logging.getLogger("serving.front")

#: Half the cost of calling a NamedTuple's own constructor.
_new = tuple.__new__

Done = Callable[["Reply | ServingError"], None]


class Address(NamedTuple):
    """A ready worker, as the routing table names it."""

    worker_id: str
    socket: str
    cell: str


class Call:
    """One accepted call until its answer."""

    __slots__ = ("channel", "done", "id", "invocation", "parked", "pool", "sent", "started", "strikes")

    def __init__(self, pool: Pool, id: int, invocation: Invocation, done: Done, started: float) -> None:
        self.pool = pool
        self.id = id
        self.invocation = invocation
        self.done: Done | None = done
        self.started = started
        self.sent = started
        self.strikes = 0
        self.channel: Channel | None = None
        self.parked = False

    @property
    def variant(self) -> str:
        """Who was chosen to answer."""
        return self.pool.variant

    def cancel(self) -> None:
        """The caller has left. Does nothing once the call is answered."""
        self.pool.cancel(self)


class Channel(asyncio.Protocol):
    """The connection to one worker. One write per loop tick however many calls are sent in it."""

    def __init__(self, pool: Pool, address: Address) -> None:
        self.address = address
        self.pending: dict[int, Call] = {}
        self.operations: dict[int, asyncio.Future[wire.Answer]] = {}
        self.retiring = False
        self.stalled = False
        self.lost = False
        self.read_at = 0.0
        self._pool = pool
        self._loop = pool.loop
        self._reader = wire.AnswerReader()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.cell = cells.Reader(Path(address.cell))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: calls may come."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, though not by inheritance
        self._pool.on_connected(self)

    def send(self, *frame: bytes) -> None:
        """Queue a frame, whole or in parts, for this tick's write."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += frame

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(out))

    @property
    def outstanding(self) -> int:
        """Calls in flight."""
        return len(self.pending)

    def data_received(self, data: bytes) -> None:
        """Answers: each goes to its caller; one broken caller must not cost the others theirs."""
        self.read_at = time.monotonic()
        try:
            self._reader.feed(data, self._take)
        except wire.BrokenFrame as error:
            log.error("worker %s sent a broken frame: %s", self.address.worker_id, error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, answer: wire.Answer) -> None:
        call = self.pending.pop(answer.id, None)
        if call is not None:
            self._pool.on_answer(self, call, answer)
            if self.retiring:
                self.close_if_idle()
            return
        waiting = self.operations.pop(answer.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def withdraw(self, call: Call) -> None:
        """The call is no longer this worker's: its answer, if it comes, is thrown away."""
        if self.pending.pop(call.id, None) is None:
            return
        if not self.lost:
            self.send(wire.pack_request(wire.CANCEL, call.id, 0.0, 0.0, b"", b""))
        if self.retiring:
            self._loop.call_soon(self.close_if_idle)

    def retire(self) -> None:
        """Take no new calls; close when the last is answered."""
        self.retiring = True
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close if nothing is in flight."""
        if not self.pending and not self.operations and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has gone: all its calls are placed again, or fail, now."""
        self.lost = True
        running = {busy.model for busy in self.cell.read()}
        self.cell.close()
        for waiting in self.operations.values():
            if not waiting.done():
                waiting.set_exception(ServiceUnavailable("the worker ended"))
        calls, self.pending = list(self.pending.values()), {}
        self._pool.on_lost(self, calls, running)


class VariantMetrics:
    """The cells one variant's calls are counted in."""

    def __init__(self, registry: Registry, endpoint: str, variant: str) -> None:
        labels = (endpoint, variant)
        self.invocations = registry.counter("sagemaker_invocations_total", *labels)
        self.errors_4xx = registry.counter("sagemaker_invocation_errors_total", *labels, "4xx")
        self.errors_5xx = registry.counter("sagemaker_invocation_errors_total", *labels, "5xx")
        self.model_errors = registry.counter("sagemaker_invocation_model_errors_total", *labels)
        self.retried = registry.counter("sagemaker_retried_invocations_total", *labels)
        self.model_latency = registry.histogram("sagemaker_model_latency_seconds", *labels)
        self.overhead = registry.histogram("sagemaker_overhead_latency_seconds", *labels)
        self.concurrent = registry.counter("sagemaker_concurrent_requests", *labels)
        self.load_wait = registry.histogram("sagemaker_model_loading_wait_seconds", *labels)

    def failed(self, error: ServingError) -> None:
        """Count an answer that was not 2xx."""
        if not isinstance(error, errors.RequestRefused):
            self.model_errors.add()
        status = error.original_status if isinstance(error, errors.ModelError) else error.status
        if 400 <= status < 500:
            self.errors_4xx.add()
        elif status >= 500:
            self.errors_5xx.add()


class Pool:
    """The workers of one variant, as this front sees them."""

    def __init__(
        self,
        endpoint: str,
        variant: str,
        multi_model: bool,
        max_queue: int,
        registry: Registry,
        ids: itertools.count[int],
    ) -> None:
        self.endpoint = endpoint
        self.variant = variant
        self.multi_model = multi_model
        self.routing: RoutingStrategy = "RANDOM"
        self.loop = asyncio.get_running_loop()
        self.ready: list[Channel] = []
        self.on_ready_change: Callable[[], None] = lambda: None
        self.on_stalled: Callable[[str], None] = lambda _: None
        self.pending = 0
        self._max_queue = max_queue
        self._ids = ids
        self._random = random.random
        self._metrics = VariantMetrics(registry, endpoint, variant)
        self._channels: dict[str, Channel] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._parked: deque[Call] = deque()
        self._expected = True
        self._failure = ""
        self._quarantine: Mapping[int, float] = {}
        self._metas: dict[tuple[str, str, str], bytes] = {}
        self._orders: dict[str, list[Channel]] = {}
        self._warm: dict[str, set[str]] = {}
        self._model_pending: dict[str, int] = {}
        self._bytes = 0
        self._completed = 0
        self._swept_at = time.monotonic()
        self._rate = 0.0

    # -- the routing table ----------------------------------------------------------------------------------------

    def update(self, workers: Iterable[Address], expected: bool, failure: str, quarantine: Mapping[int, float]) -> None:
        """What the control process says about this variant now."""
        addresses = {address.worker_id: address for address in workers}
        self._expected, self._failure, self._quarantine = expected, failure, quarantine
        for worker_id, channel in list(self._channels.items()):
            if worker_id not in addresses and not channel.retiring:
                self._leave(channel)
                channel.retire()
        for worker_id, address in addresses.items():
            if worker_id not in self._channels:
                self._connect(address)
        if not expected and not self.ready:
            self._fail_parked()

    def _connect(self, address: Address) -> None:
        channel = Channel(self, address)
        self._channels[address.worker_id] = channel

        async def connect() -> None:
            try:
                await self.loop.create_unix_connection(lambda: channel, address.socket)
            except OSError:
                self._channels.pop(address.worker_id, None)  # it died meanwhile: the next table says so

        task = self.loop.create_task(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def on_connected(self, channel: Channel) -> None:
        """A channel can carry calls: place those that waited for one."""
        if channel.retiring:
            channel.close_if_idle()
            return
        self.ready.append(channel)
        self._orders.clear()
        self.on_ready_change()
        parked, self._parked = self._parked, deque()
        for call in parked:
            call.parked = False
            self._place(call, time.monotonic())

    def _leave(self, channel: Channel) -> None:
        if channel in self.ready:
            self.ready.remove(channel)
            self._orders.clear()
            self.on_ready_change()

    def retire(self) -> None:
        """The variant is going: finish what is in flight, take nothing new."""
        self._expected = False
        for channel in list(self._channels.values()):
            self._leave(channel)
            channel.retire()

    @property
    def usable(self) -> bool:
        """Can a call sent here hope for an answer?"""
        return bool(self.ready) or self._expected

    # -- a call's life --------------------------------------------------------------------------------------------

    def submit(self, invocation: Invocation, done: Done) -> Call:
        """Accept a call; ``done`` hears its answer once, unless it is cancelled. Raises ``Throttled`` when the queue is
        full or too slow for the call's deadline, ``WorkerDied`` for a quarantined model, ``ServiceUnavailable``."""
        now = time.monotonic()
        if self.pending >= _EASY or self._bytes:
            self._admit(invocation, now)
        if self._quarantine:
            self._check_quarantine(invocation, now)
        call = Call(self, next(self._ids), invocation, done, now)
        self._metrics.invocations.add()
        self.pending += 1
        if len(invocation.body) > _BIG:
            self._bytes += len(invocation.body)
        if self.multi_model:
            model = invocation.target_model
            self._model_pending[model] = self._model_pending.get(model, 0) + 1
        self._place(call, now)
        return call

    def _admit(self, invocation: Invocation, now: float) -> None:
        wait = self.pending / self._rate if self._rate else 0.0
        full = self.pending >= self._max_queue or self._bytes + len(invocation.body) > _MOST_BYTES
        if self.multi_model and self.pending >= self._max_queue // 2:
            full |= self._model_pending.get(invocation.target_model, 0) >= self._max_queue // 2
        if full or wait > 0.8 * (invocation.deadline - now):
            raise Throttled(
                f"Variant {self.variant} of endpoint {self.endpoint} has {self.pending} calls waiting. Please retry.",
                retry_after=min(max(wait, 0.1), 5.0),
            )

    def _check_quarantine(self, invocation: Invocation, now: float) -> None:
        until = self._quarantine.get(cells.model_key(invocation.target_model), 0.0)
        if until > now:
            name = f"Model {invocation.target_model!r}" if invocation.target_model else "The model"
            raise WorkerDied(f"{name} keeps ending its worker and is refused for another {until - now:.0f} s.")

    def _place(self, call: Call, now: float) -> None:
        """Send a call to a worker, or park it, or fail it."""
        ready = self.ready
        if not ready:
            self._park(call)
            return
        invocation, id = call.invocation, call.id
        channel = call.channel = ready[0] if len(ready) == 1 else self._choose(ready, invocation)
        call.sent = now
        channel.pending[id] = call
        kind = (invocation.content_type, invocation.accept, invocation.target_model)
        meta = self._metas.get(kind) or self._packed(kind)
        if invocation.custom_attributes or invocation.inference_id or invocation.session_id:
            meta = _with_extras(kind, invocation)
        body = invocation.body
        channel.send(wire.request_head(wire.REQUEST, id, invocation.deadline, now, len(meta), len(body)), meta, body)

    def _choose(self, ready: list[Channel], invocation: Invocation) -> Channel:
        key = invocation.affinity_key or invocation.target_model
        if key:
            order = self._orders.get(key)
            if order is None:
                if len(self._orders) >= _MOST_ORDERS:
                    self._orders.clear()
                ids = [channel.address.worker_id for channel in ready]
                order = self._orders[key] = [ready[at] for at in placement.rendezvous(key, ids)]
            if not self.multi_model:
                return order[0]
            warm = self._warm.get(invocation.target_model, ())
            return placement.home_or_spill(order, lambda channel: channel.address.worker_id in warm)
        if self.routing == "LEAST_OUTSTANDING_REQUESTS":
            return placement.least_outstanding(ready, self._random)
        return ready[int(self._random() * len(ready))]

    def _packed(self, kind: tuple[str, str, str]) -> bytes:
        """The meta of (content type, accept, model), kept for the next call of its kind."""
        if len(self._metas) >= _MOST_METAS:
            self._metas.clear()
        meta = self._metas[kind] = wire.pack_meta(*kind)
        return meta

    def _park(self, call: Call) -> None:
        if not self._expected:
            self._finish(call, self._unavailable())
            return
        call.parked = True
        call.channel = None
        self._parked.append(call)

    def _unavailable(self) -> ServiceUnavailable:
        reason = f": {self._failure}" if self._failure else " has no worker."
        return ServiceUnavailable(f"Variant {self.variant} of endpoint {self.endpoint}{reason}")

    def _fail_parked(self) -> None:
        parked, self._parked = self._parked, deque()
        for call in parked:
            self._finish(call, self._unavailable())

    def on_answer(self, channel: Channel, call: Call, answer: wire.Answer) -> None:
        """A worker's answer has come."""
        now = channel.read_at
        metrics = self._metrics
        metrics.model_latency.observe(now - call.sent)
        if call.sent == call.started:
            metrics.overhead.none()
        else:
            metrics.overhead.observe(call.sent - call.started)
        if self.multi_model:
            self._note_warm(channel, call)
        if answer.load:
            metrics.load_wait.observe(answer.load / 1e6)
        if answer.kind == wire.ERROR:
            self._finish(call, _error(answer))
            return
        content_type, headers = _reply_head(answer.meta)
        spent, hit = answer[3:9], answer.flags == wire.HIT
        total = now - call.started
        self._finish(call, _new(Reply, (answer.body, content_type, self.variant, total, spent, hit, headers)))

    def _note_warm(self, channel: Channel, call: Call) -> None:
        if len(self.ready) < 2:
            return
        if len(self._warm) >= _MOST_ORDERS:
            self._warm.clear()
        self._warm.setdefault(call.invocation.target_model, set()).add(channel.address.worker_id)

    def on_lost(self, channel: Channel, calls: list[Call], running: set[int]) -> None:
        """A worker has gone with calls in flight. ``running``: keys of the models it was running or loading."""
        self._channels.pop(channel.address.worker_id, None)
        self._leave(channel)
        for call in calls:
            if cells.model_key(call.invocation.target_model) in running:
                call.strikes += 1
            if call.strikes > 1:
                self._finish(
                    call, WorkerDied("The worker ended while it ran this call, and again when it was retried.")
                )
            else:
                self._metrics.retried.add()
                self._place(call, time.monotonic())

    def cancel(self, call: Call) -> None:
        """The caller has left: its slot is free now, and the worker need not bother."""
        if call.done is None:
            return
        self._release(call)
        if call.parked:
            self._parked.remove(call)
        elif call.channel is not None:
            call.channel.withdraw(call)

    def _release(self, call: Call) -> None:
        call.done = None
        self.pending -= 1
        self._completed += 1
        if len(call.invocation.body) > _BIG:
            self._bytes -= len(call.invocation.body)
        if self.multi_model:
            model = call.invocation.target_model
            left = self._model_pending[model] - 1
            if left:
                self._model_pending[model] = left
            else:
                del self._model_pending[model]

    def _finish(self, call: Call, result: Reply | ServingError) -> None:
        done = call.done
        if done is None:
            return
        self._release(call)
        if isinstance(result, ServingError):
            self._metrics.failed(result)
        try:
            done(result)
        except Exception:
            log.exception("answering a caller failed")

    # -- time -----------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Four times a second: fail calls past their deadline; measure how fast calls are answered."""
        elapsed = now - self._swept_at
        if elapsed > 0 and self.pending:
            rate = self._completed / elapsed
            self._rate = rate if not self._rate else 0.7 * self._rate + 0.3 * rate
        elif not self.pending:
            self._rate = 0.0
        self._completed, self._swept_at = 0, now
        self._metrics.concurrent.set(self.pending)
        for channel in list(self._channels.values()):
            for call in [call for call in channel.pending.values() if call.invocation.deadline < now]:
                self._time_out(call)
            if self.multi_model and (channel.pending or channel.stalled):
                self._look_for_stall(channel, now)
        for call in [call for call in self._parked if call.invocation.deadline < now]:
            self._time_out(call)

    def _look_for_stall(self, channel: Channel, now: float) -> None:
        """One model may hold its worker's interpreter lock; the calls of others must not wait for it. They move to
        another worker (or wait for one, which control is asked to start); back it comes when it turns again."""
        oldest = next((call.sent for call in channel.pending.values()), now)
        turning = now - channel.cell.last_beat() < _STALLED_SECONDS
        if turning or now - oldest < _STALLED_SECONDS:
            if turning and channel.stalled and not channel.retiring:
                channel.stalled = False
                self.on_connected(channel)
            return
        if not channel.stalled:
            channel.stalled = True
            self._leave(channel)
            self.on_stalled(channel.address.worker_id)
        running = {busy.model for busy in channel.cell.read()}
        for call in list(channel.pending.values()):
            if cells.model_key(call.invocation.target_model) not in running:
                channel.withdraw(call)
                self._place(call, now)

    def _time_out(self, call: Call) -> None:
        done = call.done
        self.cancel(call)
        error = InvocationTimedOut(_TIMED_OUT)
        self._metrics.failed(error)
        if done is not None:
            done(error)

    # -- the multi-model API --------------------------------------------------------------------------------------

    async def operate(self, operation: str, model: str, patience: float) -> list[dict[str, Any]]:
        """Ask workers to ``list``, ``load`` or ``unload``: the model's home for ``load``, every worker otherwise.
        Raises the worker's error."""
        import json

        if not self.ready:
            raise self._unavailable()
        home = [self._choose(self.ready, Invocation("", b"", "", "", "", 0.0, target_model=model))]
        answers = []
        for channel in home if operation == "load" else list(self.ready):
            id = next(self._ids)
            waiting = channel.operations[id] = self.loop.create_future()
            channel.send(wire.pack_request(wire.CONTROL, id, 0.0, 0.0, operation.encode(), model.encode()))
            try:
                answer = await asyncio.wait_for(waiting, patience)
            except TimeoutError:
                raise errors.ModelNotReady(f"Model {model!r} is still loading. Please try again.") from None
            finally:
                channel.operations.pop(id, None)
            if answer.kind == wire.ERROR:
                raise _error(answer)
            answers.append(json.loads(answer.body))
        return answers


def _with_extras(kind: tuple[str, str, str], invocation: Invocation) -> bytes:
    """Meta with the headers that differ from call to call."""
    attributes, inference, session = invocation.custom_attributes, invocation.inference_id, invocation.session_id
    return wire.pack_meta(*kind, (attributes, inference, session, invocation.request_id))


def _error(answer: wire.Answer) -> ServingError:
    name, _, status = answer.meta.decode().partition("\0")
    kind = errors.BY_NAME.get(name, errors.InternalFailure)
    text = answer.body.decode("utf-8", "replace")
    return kind(text, int(status)) if issubclass(kind, errors.ModelError) else kind(text)


_heads: dict[bytes, tuple[str, tuple[tuple[str, str], ...]]] = {}


def _reply_head(meta: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Content type and model-set headers of a reply; the few that repeat are kept parsed."""
    known = _heads.get(meta)
    if known is not None:
        return known
    content_type, *lines = meta.decode("latin-1").split("\0")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    if not headers and len(_heads) < 1024:
        _heads[meta] = (content_type, headers)
    return content_type, headers
