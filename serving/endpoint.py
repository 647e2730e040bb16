"""The hallway: every call, whoever makes it, goes through ``Endpoint.invoke``.

HTTP, boto3, and later async jobs, batch transform and shadow copies: they translate, call ``invoke``, and translate the
answer. Which variant, which worker, retries, limits and counting are decided behind it, once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable
from typing import Any

from serving.errors import ServingError, UnknownEndpoint, UnknownVariant, ValidationError
from serving.types import Invocation, Reply
from serving.variants import Split, sticky
from serving.watch.metrics import Registry
from serving.workers.channel import Address, Call, Done
from serving.workers.pool import SWEEP_SECONDS, Pool


class Endpoint:
    """One endpoint as a front sees it: its variants' pools and how calls are split over them."""

    def __init__(self, name: str, dice: Callable[[], float] = random.random) -> None:
        self.name = name
        self.pools: dict[str, Pool] = {}
        self._dice = dice
        self._names: list[str] = []
        self._weights: list[float] = []
        self._usable: list[Pool] = []
        self._usable_weights: list[float] = []
        self._split = Split(())

    def set_variants(self, pools: dict[str, Pool], weights: dict[str, float]) -> None:
        """Replace variants and weights; calls in flight stay where they are."""
        self.pools = pools
        self._names = list(pools)
        self._weights = [weights[name] for name in self._names]
        for pool in pools.values():
            pool.on_ready_change = self.renormalise
        self.renormalise()

    def renormalise(self) -> None:
        """A variant with weight but no worker leaves the draw, and the others share its part (``behaviour/02``)."""
        weighted = [
            (self.pools[name], weight) for name, weight in zip(self._names, self._weights, strict=True) if weight
        ]
        ready = [(pool, weight) for pool, weight in weighted if pool.ready] or weighted
        self._usable = [pool for pool, _ in ready]
        self._usable_weights = [weight for _, weight in ready]
        self._split = Split(self._usable_weights)

    def invoke(self, invocation: Invocation, done: Done) -> Call:
        """Accept a call and answer it later: ``done`` gets a ``Reply`` or a ``ServingError``, once. A refusal is raised
        here and now, and then ``done`` is never called."""
        usable = self._usable
        pool = usable[0] if len(usable) == 1 and not invocation.target_variant else self._pool(invocation)
        if pool.multi_model:
            if not invocation.target_model:
                raise ValidationError(f"Request {invocation.request_id} is missing a target model header.")
        elif invocation.target_model:
            raise ValidationError(
                f"Endpoint {self.name} is not a multi-model endpoint and does not support target model header."
            )
        return pool.submit(invocation, done)

    def _pool(self, invocation: Invocation) -> Pool:
        if invocation.target_variant:
            pool = self.pools.get(invocation.target_variant)
            if pool is None:
                raise UnknownVariant(f"Variant {invocation.target_variant} of endpoint {self.name} not found.")
            return pool
        usable = self._usable
        if not usable:
            raise ValidationError(f"All variants of endpoint {self.name} have weight 0; name one with TargetVariant.")
        if invocation.affinity_key:
            names = [pool.variant for pool in usable]
            return usable[sticky(invocation.affinity_key, names, self._usable_weights)]
        return usable[self._split.pick(self._dice())]


class Directory:
    """All endpoints of this front, kept as the control process's routing table says."""

    def __init__(
        self, registry: Registry, account_id: str, max_queue: int, on_stalled: Callable[[str], None] = lambda _: None
    ) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.table: dict[str, Any] = {"version": 0, "endpoints": []}
        self._account_id = account_id
        self._max_queue = max_queue
        self._on_stalled = on_stalled
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
            endpoint = self.endpoints.setdefault(row["name"], Endpoint(row["name"]))
            pools, weights = {}, {}
            for variant in row["variants"]:
                pools[variant["name"]] = self._pool(endpoint, row["name"], variant)
                weights[variant["name"]] = variant["weight"]
            for name, pool in endpoint.pools.items():
                if pools.get(name) is not pool:
                    self._leave(pool)
            endpoint.set_variants(pools, weights)
        for name in set(self.endpoints) - names:
            for pool in self.endpoints.pop(name).pools.values():
                self._leave(pool)

    def _leave(self, pool: Pool) -> None:
        pool.retire()
        self._leaving.append(pool)

    def _pool(self, endpoint: Endpoint, name: str, variant: dict[str, Any]) -> Pool:
        pool = endpoint.pools.get(variant["name"])
        if pool is None or pool.multi_model != variant["multi_model"]:
            pool = Pool(name, variant["name"], variant["multi_model"], self._max_queue, self._registry, self._ids)
        pool.routing = variant["routing"]
        pool.on_stalled = self._on_stalled
        quarantine = {int(model): until for model, until in variant["quarantine"].items()}
        pool.update(
            [Address(*worker) for worker in variant["workers"]], variant["expected"], variant["failure"], quarantine
        )
        return pool

    def abandon(self) -> None:
        """Control has gone, and the workers with it: nothing more can be answered, and nobody need wait to hear it."""
        for endpoint in self.endpoints.values():
            for pool in endpoint.pools.values():
                pool.retire()

    async def sweep_forever(self) -> None:
        """Deadlines and rates, four times a second."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)  # the sweep's clock
            now = time.monotonic()
            pools = [pool for endpoint in self.endpoints.values() for pool in endpoint.pools.values()]
            for pool in (*pools, *self._leaving):
                pool.sweep(now)
            self._leaving = [pool for pool in self._leaving if pool.pending]


async def answer(
    endpoint: Endpoint, invocation: Invocation, on_accepted: Callable[[Call], None] = lambda _: None
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
