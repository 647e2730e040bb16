"""The hallway: every call, whoever makes it, goes through ``Endpoint.invoke``.

HTTP, boto3, async jobs and batch transform: they translate, call ``invoke``, and translate the answer. Which variant,
which worker, who gets a copy, retries, limits and counting are decided behind it, once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from serving.errors import ServiceUnavailable, ServingError, UnknownEndpoint, UnknownVariant, ValidationError
from serving.shadows import Shadow, Shadows, share
from serving.types import FleetKey, Invocation, Reply
from serving.variants import Split, sticky
from serving.watch.metrics import Registry, holders
from serving.watch.observing import Observer
from serving.workers import sessions, sides
from serving.workers.admission import MOST_BYTES
from serving.workers.chain import Chain, Ticket
from serving.workers.channel import Address, Done
from serving.workers.elastic import Event
from serving.workers.places import ALONE, Places, Siblings
from serving.workers.pool import SWEEP_SECONDS, Pool
from serving.workers.serverless import ServerlessPool
from serving.workers.sides import Target, fleet_of, whole


class Invocable(Protocol):
    """An endpoint, or who does something with its answers."""

    def invoke(self, invocation: Invocation, done: Done) -> Ticket: ...  # noqa: D102


#: Calls at a time of a variant in the jobs process, and bytes of them: its consumers take no more from the queue than
#: may run, and large bodies are not in its memory.
_MOST_OF_QUEUES, _MOST_BYTES_OF_QUEUES = 2**20, 2**50


def _ignore() -> None:
    """Nobody wants to know: a pool that has left changes nothing for its endpoint."""


class Endpoint:
    """One endpoint as a front sees it: what may answer its calls, and how they are split."""

    def __init__(self, name: str, dice: Callable[[], float] = random.random, queue: bool = False) -> None:
        """``queue``: calls come from its queue, so that it answers them although it is asynchronous. ``concurrency``:
        how many at a time its configuration allows in one worker; 0 = it does not say. ``pools`` answer its calls,
        ``shadow_pools`` the copies of them. ``green_share``: of its calls, while a guarded update moves them over."""
        self.name = name
        self.on_ready_change: Callable[[], None] = _ignore
        self._queue = queue
        self.pools: dict[FleetKey, Pool] = {}
        self.shadow_pools: dict[FleetKey, Pool] = {}
        self.shadows: Shadows | None = None
        self.asynchronous = False
        self.holds_components = False
        self.concurrency = 0
        self.explainer: Mapping[str, Any] | None = None
        self.observers: tuple[Observer, ...] = ()
        self.reason = ""
        self.green_share = 0.0
        self._dice = dice
        self._targets: dict[str, Target] = {}
        self._weights: dict[str, float] = {}
        self._components: dict[str, Target] = {}
        self._usable: list[Target] = []
        self._usable_weights: list[float] = []
        self._split = Split(())

    @property
    def ready(self) -> bool:
        """Can it answer? One that holds only components, or is asked to have no worker, needs none."""
        if not self.pools:
            return self.holds_components
        return any(pool.ready or not pool.desired for pool in self.pools.values())

    @property
    def every_pool(self) -> tuple[Pool, ...]:
        """Those that answer its calls, and its shadow variants'."""
        return (*self.pools.values(), *self.shadow_pools.values())

    @property
    def deployment(self) -> list[int]:
        """Which deployment answers its calls now: another after each update that changes more than weights, and each
        time that a guarded one moves calls from one to the other (the last number: how many in a million)."""
        return [*sorted({key.generation for key in self.pools}), int(self.green_share * 1e6)]

    @property
    def workers(self) -> int:
        """How many workers answer its calls now; of a series of containers, how many complete ones."""
        return sum(len(target.ready) for target in self._usable)

    def ready_workers(self) -> dict[str, int]:
        """The same by variant, of those that are drawn."""
        return {target.variant: len(target.ready) for target in self._usable}

    def draw(self) -> str:
        """A variant by weight, as a call is given one that names none. There must be one (``ready_workers``)."""
        return self._usable[self._split.pick(self._dice())].variant

    @property
    def multi_model(self) -> bool:
        """Does every call have to name a model?"""
        return any(target.multi_model for target in self._targets.values())

    def set_targets(self, targets: dict[str, Target], weights: dict[str, float], components: dict[str, Target]) -> None:
        """Work by these variants, their weights, and these components from now on; calls in flight stay where they
        are."""
        self._targets, self._weights, self._components = targets, weights, components
        for pool in self.pools.values():
            pool.on_ready_change = self.renormalise
        self.renormalise()

    def renormalise(self) -> None:
        """A variant with weight but no worker leaves the draw, and the others share its part (``behaviour/02``)."""
        weighted = [(target, self._weights[name]) for name, target in self._targets.items() if self._weights[name]]
        ready = [(target, weight) for target, weight in weighted if target.ready] or weighted
        if self.asynchronous and not self._queue:
            ready = []  # its calls come from its queue, not from here
        self._usable = [target for target, _ in ready]
        self._usable_weights = [weight for _, weight in ready]
        self._split = Split(self._usable_weights)
        self.on_ready_change()

    def target(self, variant: str) -> Target | None:
        """Who answers for a variant."""
        return self._targets.get(variant)

    def successor(self, pool: Pool, before: Pool | Chain | None) -> Target | None:
        """Who answers now what ``pool`` of the target ``before`` would have. The calls of a series of containers begin
        again there as a whole: what one of its containers has made is for the next of the same series."""
        if pool.key.component:
            return self._components.get(pool.key.component)
        now = self._targets.get(pool.variant)
        if isinstance(before, Chain) and not before.direct:
            before.successor = now
            return None
        return now

    def invoke(self, invocation: Invocation, done: Done) -> Ticket:
        """Accept a call and answer it later: ``done`` gets a ``Reply`` or a ``ServingError``, once. A refusal is raised
        here and now, and then ``done`` is never called."""
        usable = self._usable
        named = (
            invocation.target_variant or invocation.component or invocation.target_container or invocation.session_id
        )
        target = usable[0] if len(usable) == 1 and not named else self._target(invocation)
        if target.multi_model:
            if not invocation.target_model:
                raise ValidationError(f"Request {invocation.request_id} is missing a target model header.")
        elif invocation.target_model:
            raise ValidationError(
                f"Endpoint {self.name} is not a multi-model endpoint and does not support target model header."
            )
        for observer in self.observers:
            done = observer.begin(invocation, target.variant, done)
        if self.shadows is not None:
            return self.shadows.submit(target, invocation, done, self.observers)
        return target.submit(invocation, done)

    def wake(self) -> None:
        """There is work for it, and perhaps nobody to do it."""
        for pool in self.pools.values():
            pool.wake()

    def _target(self, invocation: Invocation) -> Target:
        if self.asynchronous and not self._queue:
            raise ValidationError(f"Endpoint {self.name} is asynchronous: invoke it with InvokeEndpointAsync.")
        if self.holds_components or invocation.component:
            return self._component(invocation.component)
        target = self._variant(invocation)
        if invocation.target_container and not any(isinstance(one, Chain) for one in whole(target)):
            raise ValidationError(
                f"Endpoint {self.name} has no directly invocable containers; remove the target container hostname "
                "header."
            )
        return target

    def _component(self, name: str) -> Target:
        if not self.holds_components:
            raise ValidationError(
                "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy "
                "inference components. Please remove the Inference Component Name header and try again."
            )
        if not name:
            raise ValidationError(
                "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                "components. Please include the Inference Component Name header and try again."
            )
        pool = self._components.get(name)
        if pool is None:
            raise ValidationError(f"Inference Component {name} of endpoint {self.name} not found.")
        if isinstance(pool, Pool) and not (pool.desired or pool.ready or pool.hold):
            raise pool.no_capacity()
        return pool

    def _variant(self, invocation: Invocation) -> Target:
        if invocation.target_variant:
            target = self._targets.get(invocation.target_variant)
            if target is None:
                raise UnknownVariant(f"Variant {invocation.target_variant} of endpoint {self.name} not found.")
            return target
        if sessions.is_bound(invocation.session_id):
            return self._holder(invocation.session_id)
        usable = self._usable
        if not self._targets:
            raise ServiceUnavailable(f"Endpoint {self.name} is out of service: {self.reason}")
        if not usable:
            raise ValidationError(f"All variants of endpoint {self.name} have weight 0; name one with TargetVariant.")
        if invocation.affinity_key:
            names = [target.variant for target in usable]
            return usable[sticky(invocation.affinity_key, names, self._usable_weights)]
        return usable[self._split.pick(self._dice())]

    def _holder(self, session_id: str) -> Target:
        """The variant that a session was opened in. Raises ``ValidationError`` when there is none any more."""
        for target in self._targets.values():
            if target.holds(session_id):
                return target
        raise sessions.unknown(session_id)


class Directory:
    """All endpoints of this front, kept as the control process's routing table says."""

    def __init__(
        self,
        registry: Registry,
        account_id: str,
        max_queue: int,
        on_stalled: Callable[[str], None] = lambda _: None,
        queue: bool = False,
        observers: Callable[[Mapping[str, Any]], tuple[Observer, ...]] = lambda row: (),
        on_scaling: Callable[[Event], None] = lambda _: None,
        siblings: Siblings = ALONE,
    ) -> None:
        """``queue``: this is the jobs process's. Its endpoints take the calls of their queues, which keep the measure
        themselves, and no worker gets more of them at a time than another. ``observers``: who looks on at the calls of
        an endpoint, by its row of the table. ``on_scaling``: told where calls want workers;
        ``siblings``: this process among those that make calls."""
        self.endpoints: dict[str, Endpoint] = {}
        self.table: dict[str, Any] = {"version": 0, "endpoints": []}
        self._account_id = account_id
        self._max_queue = _MOST_OF_QUEUES if queue else max_queue
        self._queue = queue
        self._on_stalled = on_stalled
        self._on_scaling = on_scaling
        self._siblings = siblings
        self._observers = observers
        self._registry = registry
        # a worker must be able to tell the calls of several fronts apart
        self._ids = itertools.count(int.from_bytes(os.urandom(5), "little") << 20)
        self._leaving: list[Pool] = []

    def get(self, name: str) -> Endpoint:
        """The endpoint. Raises ``UnknownEndpoint`` in AWS's words."""
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            raise UnknownEndpoint(f"Endpoint {name} of account {self._account_id} not found.")
        return endpoint

    def apply(self, table: dict[str, Any]) -> None:
        """Work by a new routing table from now on (its form: ``fleet/table.py``)."""
        self.table = table
        names = set()
        for row in table["endpoints"]:
            names.add(row["name"])
            self._work_by(row, self.endpoints.setdefault(row["name"], Endpoint(row["name"], queue=self._queue)))
        for name in set(self.endpoints) - names:
            gone = self.endpoints.pop(name)
            if gone.shadows is not None:
                gone.shadows.set({})
            for pool in gone.every_pool:
                self._leave(pool, None)
        self._registry.keep(holders(table))

    def _work_by(self, row: dict[str, Any], endpoint: Endpoint) -> None:
        """Bring one endpoint to what its row says, in one step: a call is answered wholly by the old or the new."""
        before, endpoint.pools = endpoint.pools, {}
        answered = {pool.variant: endpoint.target(pool.variant) for pool in before.values()}
        endpoint.asynchronous, endpoint.holds_components = row["asynchronous"], row["holds_components"]
        endpoint.concurrency = (row.get("async") or {}).get("concurrency", 0)
        endpoint.reason, endpoint.explainer = row["reason"], row["explainer"]
        endpoint.observers = self._observers(row)
        fleets = {
            one["name"]: self._target(endpoint, one, endpoint.target(one["name"]), before, endpoint.pools)
            for one in row["variants"]
        }
        targets: dict[str, Target] = {**fleets}
        weights = {one["name"]: one["weight"] for one in row["variants"]}
        production, green = sum(weights.values()), row.get("green")
        endpoint.green_share = green["share"] if green else 0.0
        if green:
            coming = {
                one["name"]: self._target(endpoint, one, endpoint.target(one["name"]), before, endpoint.pools)
                for one in green["variants"]
            }
            targets, weights = sides.shared(row, fleets, coming, self._registry)
        components: dict[str, Target] = {
            one["key"][-1]: self._pool(one, before, endpoint.pools) for one in row["components"]
        }
        for one in row.get("green_components", ()):
            pool = self._pool(one["pool"], before, endpoint.pools)
            components[pool.key.component] = sides.beside(components.get(pool.key.component), pool, one["share"])
        endpoint.set_targets(targets, weights, components)
        self._shadow(row.get("shadows", ()), endpoint, production)
        for key, pool in before.items():
            if endpoint.pools.get(key) is not pool:
                self._leave(pool, endpoint.successor(pool, fleet_of(answered[pool.variant], pool)))

    def _shadow(self, rows: Iterable[dict[str, Any]], endpoint: Endpoint, production: float) -> None:
        """Bring its shadow variants to what their rows say. ``production``: the weight of the others together. Copies
        that no worker has begun when their workers leave are not for anybody else."""
        before, endpoint.shadow_pools = endpoint.shadow_pools, {}
        known = endpoint.shadows.by_name if endpoint.shadows is not None else {}
        shadows = {}
        for row in rows:
            name, old = row["name"], known.get(row["name"])
            target = self._target(endpoint, row, old.target if old else None, before, endpoint.shadow_pools)
            shadows[name] = shadow = old or Shadow(endpoint.name, name, target, self._registry)
            shadow.work_by(target, share(row["weight"], production))
        if shadows and endpoint.shadows is None:
            endpoint.shadows = Shadows(asyncio.get_running_loop())
        if endpoint.shadows is not None:
            endpoint.shadows.set(shadows)
        if not shadows:
            endpoint.shadows = None
        for key, pool in before.items():
            if endpoint.shadow_pools.get(key) is not pool:
                self._leave(pool, None)

    def _target(
        self,
        endpoint: Endpoint,
        variant: dict[str, Any],
        known: Target | None,
        before: dict[FleetKey, Pool],
        pools: dict[FleetKey, Pool],
    ) -> Pool | Chain:
        """What answers for a variant's row, ``known`` until now, and ``pools`` with those it is made of."""
        made = tuple(self._pool(one, before, pools) for one in variant["pools"])
        if len(made) == 1 and not made[0].part:
            return made[0]
        for one in whole(known):
            if isinstance(one, Chain) and one.stages == made:
                return one
        return Chain(endpoint.name, variant["name"], made, variant["direct"], self._registry)

    def _pool(self, row: dict[str, Any], before: dict[FleetKey, Pool], pools: dict[FleetKey, Pool]) -> Pool:
        key = FleetKey(*row["key"])
        pool = before.get(key)
        if pool is None:
            most_bytes = _MOST_BYTES_OF_QUEUES if self._queue else MOST_BYTES
            kind = ServerlessPool if row["most"] else Pool
            pool = kind(key, row["multi_model"], self._max_queue, self._registry, self._ids, most_bytes)
            if isinstance(pool, ServerlessPool):
                pool.places = Places(self._siblings, key.generation)
        pools[key] = pool
        if isinstance(pool, ServerlessPool):
            pool.most = row["most"]
        pool.routing, pool.desired = "LEAST_OUTSTANDING_REQUESTS" if self._queue else row["routing"], row["desired"]
        pool.elastic, pool.hold, pool.report = row["elastic"], row["hold"], row["report"]
        pool.fronts = self._siblings.fronts
        pool.on_stalled, pool.on_scaling = self._on_stalled, self._on_scaling
        quarantine = {int(model): until for model, until in row["quarantine"].items()}
        pool.update([Address(*worker) for worker in row["workers"]], row["expected"], row["failure"], quarantine)
        return pool

    def _leave(self, pool: Pool, successor: Target | None) -> None:
        pool.retire(successor)
        pool.on_ready_change = _ignore  # else it and its endpoint hold each other, and their metric cells, for long
        self._leaving.append(pool)

    def abandon(self) -> None:
        """Control has gone, and the workers with it: nothing more can be answered, and nobody need wait to hear it."""
        for endpoint in self.endpoints.values():
            for pool in endpoint.every_pool:
                pool.retire()

    async def sweep_forever(self) -> None:
        """Deadlines and rates, four times a second."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)  # the sweep's clock
            now = time.monotonic()
            pools = [pool for endpoint in self.endpoints.values() for pool in endpoint.every_pool]
            for pool in (*pools, *self._leaving):
                pool.sweep(now)
            for event in _hardest(pool.pressure(now) for pool in pools if pool.report):
                self._on_scaling(event)
            self._leaving = [pool for pool in self._leaving if pool.pending or pool.promised]


def _hardest(events: Iterable[Event | None]) -> list[Event]:
    """One for each variant and component: of several containers, the one that most calls wait for."""
    found: dict[tuple[str, str], Event] = {}
    for event in events:
        if event is not None:
            place = event.endpoint, event.name
            found[place] = max(found.get(place, event), event, key=lambda one: one.more["pending"] - one.more["ready"])
    return list(found.values())


async def answer(
    endpoint: Invocable, invocation: Invocation, on_accepted: Callable[[Ticket], None] = lambda _: None
) -> Reply:
    """``Endpoint.invoke`` for a caller that can await. Raises the ``ServingError``; leaving cancels the call.
    ``on_accepted`` hears of the call as soon as a variant has it."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def done(result: Reply | ServingError) -> None:
        if future.done():
            return
        if isinstance(result, ServingError):
            future.set_exception(result)
        else:
            future.set_result(result)

    ticket = endpoint.invoke(invocation, done)
    on_accepted(ticket)
    try:
        return await future
    except asyncio.CancelledError:
        ticket.cancel()
        raise
