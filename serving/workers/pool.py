"""The front's side of workers: a channel to each, calls in flight, retries, time limits, bounded queues.

A call's life::

    submit ──► placed on a channel ──► answered
       │            ├─ worker lost ──► placed again: freely, if it waited; once and alone, if it may have been running
       │            └─ worker stands still, held by another model ──► placed again
       └──► parked while no worker is ready, but one is expected
    any of these ──► deadline ──► InvocationTimedOut        caller gone ──► cancelled

Everything here runs on the front's event loop; nothing blocks, nothing awaits.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from serving import errors
from serving.errors import (
    InvocationTimedOut,
    Quarantined,
    ServiceUnavailable,
    ServingError,
    Throttled,
    ValidationError,
)
from serving.types import FleetKey, Invocation, Reply, RoutingStrategy
from serving.watch.metrics import Registry
from serving.watch.slow import SlowCall
from serving.workers import cells, placement, sessions, wire
from serving.workers.admission import MOST_BYTES, Admission
from serving.workers.calls import error_of, is_settled, may_have_run, orphaned, reply_head, with_extras
from serving.workers.channel import Address, Call, Channel, Done
from serving.workers.elastic import Event, Gauge, Waiting, event
from serving.workers.parts import Parts
from serving.workers.tally import VariantMetrics

SWEEP_SECONDS = 0.25
#: A worker whose interpreter has not turned for so long, with calls of other models waiting, is passed by.
_STALLED_SECONDS = 1.0
_RECONNECT_SECONDS = 0.1
_MOST_METAS = 4096
_MOST_ORDERS = 20_000
#: Bodies above this count for admission.
_BIG = 64 * 1024
#: What AWS says of a container that did not answer in time (``api/01``, errors).
TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container {}. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)
#: What AWS says of a component that is asked to have no copy (``behaviour/11``).
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
    "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)

log = logging.getLogger("serving.front")

#: Half the cost of calling a NamedTuple's own constructor.
_new = tuple.__new__


class Submits(Protocol):
    """Whatever takes calls."""

    def submit(self, invocation: Invocation, done: Done) -> object: ...  # noqa: D102


class Pool:
    """Workers that are alike, as this front sees them: those of one container of a variant (``part`` = its host name,
    empty for the only one), or of an inference component."""

    def __init__(
        self,
        key: FleetKey,
        multi_model: bool,
        max_queue: int,
        registry: Registry,
        ids: itertools.count[int],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.key = key
        self.endpoint = key.endpoint
        self.variant = key.variant
        self.part = key.part
        self.multi_model = multi_model
        self.routing: RoutingStrategy = "RANDOM"
        self.desired = 1
        self.elastic = False
        self.hold = 0.0
        self.report = False
        self.fronts = 1
        self.loop = asyncio.get_running_loop()
        self.ready: list[Channel] = []
        self.on_ready_change: Callable[[], None] = lambda: None
        self.on_stalled: Callable[[str], None] = lambda _: None
        self.on_scaling: Callable[[Event], None] = lambda _: None
        self._admission = Admission(max_queue, multi_model, most_bytes)
        self._ids = ids
        self._random = random.random
        self._metrics = VariantMetrics(registry, *key.labels)
        self._slow = registry.slow
        self._addresses: dict[str, Address] = {}
        self._channels: dict[str, Channel] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._parked: deque[Call] = deque()
        self._expected = True
        self._failure = ""
        self._successor: Submits | None = None
        self._retired = False
        self.promised = 0
        self._quarantine: Mapping[int, float] = {}
        self._metas: dict[tuple[str, str, str], bytes] = {}
        self._orders: dict[str, list[Channel]] = {}
        self._warm: dict[str, set[str]] = {}
        self._held: dict[str, Channel] = {}
        self._waiting = Waiting()
        self._gauge = Gauge()

    @property
    def pending(self) -> int:
        """Calls accepted and not yet answered."""
        return self._admission.pending

    # -- the routing table ----------------------------------------------------------------------------------------

    def update(self, workers: Iterable[Address], expected: bool, failure: str, quarantine: Mapping[int, float]) -> None:
        """What the control process says about this variant now."""
        self._addresses = addresses = {address.worker_id: address for address in workers}
        self._expected, self._failure, self._quarantine = expected, failure, quarantine
        for worker_id, channel in list(self._channels.items()):
            if worker_id not in addresses and not channel.retiring:
                self._leave(channel)
                channel.retire()
        for worker_id, address in addresses.items():
            if worker_id not in self._channels:
                self._connect(address)
        failed = bool(failure and self._waiting)  # the worker that held calls have brought cannot load its model
        if not self.ready and (failed or not (expected or self._holds)):
            self._fail_parked()
        self._look_again()

    def _connect(self, address: Address) -> None:
        channel = Channel(self, address)
        self._channels[address.worker_id] = channel

        async def connect() -> None:
            try:
                await self.loop.create_unix_connection(lambda: channel, address.socket)
            except OSError:
                channel.cell.close()
                self._channels.pop(address.worker_id, None)
                self._connect_later(address.worker_id)

        task = self.loop.create_task(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _connect_later(self, worker_id: str) -> None:
        """A worker that is still in the table after a moment has not ended: only its connection has."""

        def connect() -> None:
            address = self._addresses.get(worker_id)
            if address is not None and worker_id not in self._channels:
                self._connect(address)

        self.loop.call_later(_RECONNECT_SECONDS, connect)

    def on_connected(self, channel: Channel) -> None:
        """A channel can carry calls: place those that waited for one."""
        if channel.retiring:
            channel.close_if_idle()
            return
        self.ready.append(channel)
        self._orders.clear()
        self.on_ready_change()
        now, parked = time.monotonic(), self._parked
        self._parked = deque()
        for call in parked:
            call.parked = False
            if call in self._waiting:
                self._waited(call, now)
            self._place(call, now)

    def _waited(self, call: Call, now: float) -> None:
        """It has a worker after all."""
        self._waiting.remove(call)
        self._metrics.set_up(now - call.started)

    def _leave(self, channel: Channel) -> None:
        if channel in self.ready:
            self.ready.remove(channel)
            self._orders.clear()
            self.on_ready_change()

    def retire(self, successor: Submits | None = None) -> None:
        """These workers are going: finish what is in flight, take nothing new. Calls that no worker has begun, or whose
        worker ends now, are the ``successor``'s."""
        self._expected, self._addresses, self._successor, self._retired = False, {}, successor, True
        self._let_go()
        self._fail_parked()

    def promise(self, calls: int) -> None:
        """So many more calls (below 0: fewer) are on their way here through other containers: until they have come, the
        workers stay, retired or not."""
        self.promised += calls
        self._let_go()

    def _let_go(self) -> None:
        if self._retired and not self.promised:
            for channel in list(self._channels.values()):
                self._leave(channel)
                channel.retire()

    # -- a call's life --------------------------------------------------------------------------------------------

    def submit(self, invocation: Invocation, done: Done) -> Call:
        """Accept a call; ``done`` hears its answer once, unless it is cancelled. Raises ``Throttled`` when the queue is
        full or too slow for the call's deadline, ``WorkerDied`` for a quarantined model, ``ServiceUnavailable``."""
        now = time.monotonic()
        admission, model = self._admission, invocation.target_model
        if admission.pending >= admission.few or admission.bytes:
            wait = admission.refusal(model, len(invocation.body), invocation.deadline - now)
            if wait is not None:
                raise Throttled(self._full(), retry_after=wait)
        if self._quarantine and (refusal := self._quarantined(invocation, now)):
            raise refusal
        size = len(invocation.body)
        flow = admission.enter(model, size if size > _BIG else 0)
        call = Call(self, flow, next(self._ids), invocation, done, now)
        self._metrics.invocations.add()
        self._place(call, now)
        return call

    def _full(self) -> str:
        return f"Variant {self.variant} of endpoint {self.endpoint} has {self.pending} calls waiting. Please retry."

    def _quarantined(self, invocation: Invocation, now: float) -> Quarantined | None:
        until = self._quarantine.get(cells.model_key(invocation.target_model), 0.0)
        if until <= now:
            return None
        name = f"Model {invocation.target_model!r}" if invocation.target_model else "The model"
        refusal = f"{name} keeps ending its worker and is refused for another {until - now:.0f} s."
        return Quarantined(refusal, retry_after=until - now)

    def _place(self, call: Call, now: float) -> None:
        """Send a call to a worker, or park it, or fail it."""
        ready, invocation = self.ready, call.invocation
        if self._held or call.alone or not ready or invocation.session_id:
            channel = self._place_oddly(call, now)
            if channel is None:
                return
        else:
            channel = ready[0] if len(ready) == 1 else self._choose(ready, invocation)
        self._send(call, channel, now)

    def _send(self, call: Call, channel: Channel, now: float) -> None:
        invocation, id = call.invocation, call.id
        call.channel = channel
        call.sent = now
        channel.pending[id] = call
        kind = (invocation.content_type, invocation.accept, invocation.target_model)
        meta = self._metas.get(kind) or self._packed(kind)
        if invocation.custom_attributes or invocation.inference_id or invocation.session_id:
            meta = with_extras(kind, invocation)
        body = invocation.body
        frame = wire.STREAM if invocation.stream_seconds else wire.ALONE if call.alone else wire.REQUEST
        channel.send(wire.request_head(frame, id, invocation.deadline, now, len(meta), len(body)), meta, body)

    def _place_oddly(self, call: Call, now: float) -> Channel | None:
        """Where a call goes that has a session, or when something has gone wrong: None when it has been parked or
        answered."""
        refusal = self._quarantined(call.invocation, now) if self._quarantine else None
        if refusal is not None:
            self._finish(call, refusal)
            return None
        if sessions.is_bound(call.invocation.session_id):
            return self._bound(call)
        held = self._held.get(call.invocation.target_model)
        if held is not None:
            return held  # it stands still because of this model: let it not hold up another worker
        ready = [channel for channel in self.ready if channel is not call.avoid]
        if not ready:
            self._park(call)
            return None
        return self._choose(ready, call.invocation) if len(ready) > 1 else ready[0]

    def holds(self, session_id: str) -> bool:
        """Is it a worker of these that a session names?"""
        return sessions.worker_of(session_id) in self._addresses

    def _bound(self, call: Call) -> Channel | None:
        """The worker that holds the call's session: no other will do."""
        session_id = call.invocation.session_id
        if not self.holds(session_id):
            self._finish(call, sessions.unknown(session_id))
            return None
        channel = self._channels.get(sessions.worker_of(session_id))
        if channel is None or not (channel in self.ready or channel.stalled):
            self._park(call)  # until its connection is made
            return None
        return channel

    def _look_again(self) -> None:
        """Sessions whose worker has gone need not wait for it."""
        for call in [call for call in self._parked if sessions.is_bound(call.invocation.session_id)]:
            self._parked.remove(call)
            call.parked = False
            self._place(call, time.monotonic())

    def _choose(self, ready: list[Channel], invocation: Invocation) -> Channel:
        key = invocation.affinity_key or invocation.target_model
        if key:
            order = self._orders.get(key)
            if order is None or len(order) != len(ready):
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
        if not self._expected and not self._holds:
            self._hand_over(call)
            return
        call.parked = True
        call.channel = None
        self._parked.append(call)
        if not self._expected:
            self._ask_for_workers(call)

    @property
    def _holds(self) -> bool:
        """May calls wait although there is to be no worker now? They bring one."""
        return self.hold > 0 and not self.desired and not self._failure and not self._retired

    def _ask_for_workers(self, call: Call) -> None:
        now = time.monotonic()
        self._waiting.add(call, self.hold, now)
        if self._waiting.is_time_to_wake(now):
            self.wake()

    def wake(self) -> None:
        """There is work: have control start a worker, if this scales and is to have none now."""
        if self.elastic and not self.desired:
            self.on_scaling(event("wake", self.key))

    def no_capacity(self) -> ServingError:
        """What a call is told where there is to be no worker, and none is on its way."""
        if not self.key.component or self._failure:
            return self._unavailable()
        self._metrics.no_capacity()
        return ValidationError(NO_CAPACITY)

    def _unavailable(self) -> ServiceUnavailable:
        reason = f": {self._failure}" if self._failure else " has no worker."
        return ServiceUnavailable(f"Variant {self.variant} of endpoint {self.endpoint}{reason}")

    def _fail_parked(self) -> None:
        parked, self._parked = self._parked, deque()
        for call in parked:
            self._hand_over(call)

    def _hand_over(self, call: Call) -> None:
        """There will be no worker here for this call."""
        done, successor = call.done, self._successor
        if done is None or successor is None:
            self._finish(call, self._unavailable() if self.desired or self._retired else self.no_capacity())
            return
        self._release(call)
        try:
            successor.submit(call.invocation._replace(strikes=call.strikes), done)
        except ServingError as error:
            done(error)

    def on_answer(self, channel: Channel, call: Call, answer: wire.Answer) -> None:
        """A worker's answer has come."""
        if answer.kind == wire.PART:
            self._on_part(channel, call, answer)
            return
        now = channel.read_at
        metrics = self._metrics
        metrics.model_latency.observe(now - call.sent)
        if call.sent == call.started:
            metrics.overhead.none()
        else:
            metrics.overhead.observe(call.sent - call.started)
        metrics.queue.observe(answer.queue / 1e6)
        if self.multi_model:
            self._note_warm(channel, call)
        if answer.load:
            metrics.load_wait.observe(answer.load / 1e6)
        if answer.kind != wire.REPLY:
            self._refused(channel, call, answer, now)
            return
        content_type, headers = reply_head(answer.meta)
        spent, hit = answer[3:9], answer.flags == wire.HIT
        total = now - call.started
        if total > self._slow.threshold:
            self._slow.note(self._noted(call, total, 200, "", spent, hit))
        self._finish(call, _new(Reply, (answer.body, content_type, self.variant, total, spent, hit, headers, None)))

    def _on_part(self, channel: Channel, call: Call, answer: wire.Answer) -> None:
        """Part of a streamed answer: with the first the call is answered, in so far as nobody tries it again."""
        channel.pending[call.id] = call
        if call.parts is not None:
            call.parts.add(answer.body)
            return
        now, metrics, done, size = channel.read_at, self._metrics, call.done, len(call.invocation.body)
        assert done is not None  # it was pending
        metrics.first_part.observe(now - call.sent)
        metrics.overhead.observe(call.sent - call.started)
        metrics.queue.observe(answer.queue / 1e6)
        if answer.load:
            metrics.load_wait.observe(answer.load / 1e6)
        if self.multi_model:
            self._note_warm(channel, call)
        call.flow = self._admission.begun(call.flow, size if size > _BIG else 0)
        call.parts = parts = Parts(channel, call, len(answer.body), now)
        call.done = parts.ended
        content_type, headers = reply_head(answer.meta)
        total, hit = now - call.started, answer.flags == wire.HIT
        self._tell(done, Reply(answer.body, content_type, self.variant, total, answer[3:9], hit, headers, parts))

    def _refused(self, channel: Channel, call: Call, answer: wire.Answer, now: float) -> None:
        if answer.kind == wire.MOVED and not call.alone and not sessions.is_bound(call.invocation.session_id):
            call.alone, call.avoid = True, channel
            self._metrics.retried.add()
            self._place(call, now)
        else:
            self._finish(call, error_of(answer))

    def _note_warm(self, channel: Channel, call: Call) -> None:
        if len(self.ready) < 2:
            return
        if len(self._warm) >= _MOST_ORDERS:
            self._warm.clear()
        self._warm.setdefault(call.invocation.target_model, set()).add(channel.address.worker_id)

    def on_lost(self, channel: Channel, calls: list[Call], reading: cells.Reading) -> None:
        """A worker has gone with calls in flight. ``reading``: its cell as it left it."""
        self._channels.pop(channel.address.worker_id, None)
        self._leave(channel)
        self._release_held(channel)
        if not channel.retiring:
            self._connect_later(channel.address.worker_id)
        suspect, now = cells.suspect(reading), time.monotonic()
        for call in calls:
            if suspect is not None and may_have_run(call, suspect):
                call.strikes += 1
                call.alone = True
            error = orphaned(call)
            if error is not None:
                self._finish(call, error)
            else:
                self._metrics.retried.add()
                self._place(call, now)

    def cancel(self, call: Call) -> None:
        """The caller has left: its slot is free now, and the worker need not bother."""
        if call.done is not None:
            self._withdraw(call)
            self._release(call)

    def _withdraw(self, call: Call) -> None:
        if call.parked:
            self._parked.remove(call)
        elif call.channel is not None:
            call.channel.withdraw(call)

    def _release(self, call: Call) -> None:
        call.done = None
        size = len(call.invocation.body)
        self._admission.leave(call.flow, size if size > _BIG else 0)

    def _finish(self, call: Call, result: Reply | ServingError) -> None:
        done = call.done
        if done is None:
            return
        self._release(call)
        if isinstance(result, ServingError):
            result.strikes = call.strikes
            if self.part and isinstance(result, errors.ModelError):
                result.container = self.part
            self._metrics.failed(result)
            if call.parts is not None:
                self._metrics.broken.add()
            self._slow.failed(self._noted(call, time.monotonic() - call.started, result.status, result.code))
        self._tell(done, result)

    def _noted(
        self, call: Call, total: float, status: int, code: str, spent: tuple[int, ...] = (), hit: bool = True
    ) -> SlowCall:
        """A call as it is kept to be looked at."""
        asked = call.invocation
        named = (*self.key.labels, asked.target_model, asked.request_id)
        return SlowCall(self._slow.now(), *named, total, status, code, spent, hit)

    def _tell(self, done: Done, result: Reply | ServingError) -> None:
        try:
            done(result)
        except Exception:
            log.exception("answering a caller failed")

    # -- time -----------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Four times a second: fail calls past their deadline; measure how fast calls are answered."""
        self._admission.sweep(now)
        self._metrics.concurrent.set(self.pending)
        for channel in list(self._channels.values()):
            for call in [call for call in channel.pending.values() if call.deadline < now]:
                self._time_out(call)
            if channel.pending or channel.stalled:
                self._look_for_stall(channel, now)
        for call in [call for call in self._parked if call.deadline < now]:
            self._time_out(call)
        if self._waiting:
            for call in self._waiting.over(now):
                self._withdraw(call)
                self._finish(call, self.no_capacity())
            if self._waiting and self._holds and self._waiting.is_time_to_wake(now):
                self.wake()

    def pressure(self, now: float) -> Event | None:
        """After each sweep, of a pool that is to ``report``: how hard calls press on it, while they do."""
        found = self._gauge.look(now, self._metrics.invocations.value, self.pending, len(self.ready), self.fronts)
        return event("pressure", self.key, **found) if found else None

    def _time_out(self, call: Call) -> None:
        self._withdraw(call)
        self._finish(call, InvocationTimedOut(TIMED_OUT.format(self.part or "primary")))

    def _look_for_stall(self, channel: Channel, now: float) -> None:
        """One model may hold its worker's interpreter lock, or the whole process may be stopped; the calls of others
        must not wait for it. They move to another worker (or wait for one, which control is asked to start); the calls
        of the model itself stay. When the worker turns again it is used again."""
        beat = channel.cell.last_beat()
        if not beat or now - beat < _STALLED_SECONDS:
            if channel.stalled:
                self._on_turning(channel)
            return
        oldest = next((call.sent for call in channel.pending.values()), now)
        suspect = cells.suspect(channel.cell.read())
        if now - oldest < _STALLED_SECONDS or (suspect is not None and not self.multi_model):
            return  # an only model's calls wait for nobody but itself: its time limit decides
        if not channel.stalled:
            channel.stalled = True
            self._leave(channel)
            self.on_stalled(channel.address.worker_id)
        for call in [call for call in channel.pending.values() if not is_settled(call)]:
            model = call.invocation.target_model
            if suspect is not None and cells.model_key(model) == suspect.model:
                self._held[model] = channel
            else:
                channel.withdraw(call)
                self._place(call, now)

    def _on_turning(self, channel: Channel) -> None:
        channel.stalled = False
        self._release_held(channel)
        if not channel.retiring:
            self.on_connected(channel)

    def _release_held(self, channel: Channel) -> None:
        for model in [model for model, held in self._held.items() if held is channel]:
            del self._held[model]

    # -- the multi-model API --------------------------------------------------------------------------------------

    async def operate(self, operation: str, model: str, patience: float) -> list[dict[str, Any]]:
        """Ask workers to ``list``, ``load`` or ``unload``, or for the ``file`` of a model: the model's home for
        ``load``, every worker otherwise. Raises the worker's error."""
        if not self.ready:
            raise self._unavailable()
        home = [self._choose(self.ready, Invocation("", b"", "", "", "", 0.0, target_model=model))]
        answers = []
        for channel in home if operation == "load" else list(self.ready):
            if channel.lost:
                continue
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
                raise error_of(answer)
            answers.append(json.loads(answer.body))
        return answers
