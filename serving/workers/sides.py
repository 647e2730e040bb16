"""A variant during a guarded update, as a front sees it: two fleets, blue and green, that share its calls.

A call's side is drawn by a lot of its own: by its affinity key if it has one, so that a caller stays on one side while
the share stands and moves over once when it grows; else by its request id, so that all that is done for one call is
done by one side. A session is its worker's. Where green has no worker that answers, blue does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from serving import errors
from serving.errors import ServingError
from serving.types import Invocation, Reply
from serving.watch.metrics import Registry
from serving.workers import sessions
from serving.workers.chain import Chain, Ticket
from serving.workers.channel import Channel, Done
from serving.workers.pool import Pool


def lot(key: str) -> float:
    """Uniform in [0, 1): always the same for the same key. Not the one that shadows draw by."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6, person=b"sides").digest()
    return int.from_bytes(digest) / 2.0**48


def blended(
    blue: Mapping[str, float], green: Mapping[str, float], share: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Weights of the variants of both sides, when green gets ``share`` of the calls and each side splits its own by its
    own weights; and green's share of each variant's calls."""
    parts = [(blue, 1.0 - share, sum(blue.values())), (green, share, sum(green.values()))]
    weights, shares = {}, {}
    for name in {**blue, **green}:
        one, other = (side.get(name, 0.0) / total * part if total else 0.0 for side, part, total in parts)
        weights[name] = one + other
        shares[name] = other / (one + other) if one + other else share
    return weights, shares


class Side:
    """One of the two: who answers."""

    def __init__(self, target: Pool | Chain) -> None:
        self.target = target

    def submit(self, invocation: Invocation, done: Done) -> Ticket:
        """Accept a call, as ``Pool.submit`` does."""
        return self.target.submit(invocation, done)


class CountedSide(Side):
    """One whose calls are counted, by the endpoint config it runs by."""

    def __init__(self, target: Pool | Chain, config: str, registry: Registry) -> None:
        super().__init__(target)
        labels = (target.endpoint, target.variant, config)
        self._invocations = registry.counter("sagemaker_deployment_invocations_total", *labels)
        self._errors = {
            one: registry.counter("sagemaker_deployment_invocation_errors_total", *labels, one)
            for one in ("4xx", "5xx", "model")
        }
        self._latency = registry.histogram("sagemaker_deployment_model_latency_seconds", *labels)

    def submit(self, invocation: Invocation, done: Done) -> Ticket:
        """Accept a call, as ``Pool.submit`` does."""

        def counted(result: Reply | ServingError) -> None:
            if isinstance(result, Reply):
                self._latency.observe(sum(result.spent[:5]) / 1e6)
            else:
                self._failed(result)
            done(result)

        ticket = self.target.submit(invocation, counted)
        self._invocations.add()
        return ticket

    def _failed(self, error: ServingError) -> None:
        if not isinstance(error, errors.RequestRefused):
            self._errors["model"].add()
        status = error.original_status if isinstance(error, errors.ModelError) else error.status
        if 400 <= status < 600:
            self._errors[f"{status // 100}xx"].add()


class Sides:
    """Both, with what ``Endpoint`` needs of a ``Pool``. ``share``: the part of the variant's calls that is green's; a
    side that has no such variant is None, but not both are."""

    def __init__(self, variant: str, blue: Side | None, green: Side | None, share: float) -> None:
        self.variant = variant
        self.share = share
        self._green = green
        self._both = tuple(side for side in (blue, green) if side is not None)

    @property
    def targets(self) -> Iterator[Pool | Chain]:
        """Those that answer."""
        return (side.target for side in self._both)

    @property
    def ready(self) -> list[Channel]:
        """The workers of both; at a share of 0 green has none yet."""
        counted = (side for side in self._both if self.share or side is not self._green)
        return [channel for side in counted for channel in side.target.ready]

    @property
    def multi_model(self) -> bool:
        """Does a call have to name a model?"""
        return self._both[0].target.multi_model

    def holds(self, session_id: str) -> bool:
        """Is it a worker of these that a session names?"""
        return any(target.holds(session_id) for target in self.targets)

    def submit(self, invocation: Invocation, done: Done) -> Ticket:
        """Accept a call, as ``Pool.submit`` does."""
        return self.side(invocation).submit(invocation, done)

    def side(self, invocation: Invocation) -> Side:
        """Whose call it is."""
        fit = [side for side in self._both if side.target.multi_model == bool(invocation.target_model)] or self._both
        if sessions.is_bound(invocation.session_id):
            return next((side for side in fit if side.target.holds(invocation.session_id)), fit[0])
        if len(fit) == 1:
            return fit[0]
        blue, green = fit
        if lot(invocation.affinity_key or invocation.request_id) < self.share:
            return green if green.target.ready or not blue.target.ready else blue
        return blue if blue.target.ready or not (self.share and green.target.ready) else green


Target = Pool | Chain | Sides


def whole(target: Target | None) -> tuple[Pool | Chain, ...]:
    """The fleets that a target is made of."""
    if target is None:
        return ()
    return tuple(target.targets) if isinstance(target, Sides) else (target,)


def fleet_of(target: Target | None, pool: Pool) -> Pool | Chain | None:
    """The one that a pool is, or is a container of."""
    return next((one for one in whole(target) if one is pool or (isinstance(one, Chain) and pool in one.stages)), None)


def shared(
    row: Mapping[str, Any], blue: Mapping[str, Pool | Chain], green: Mapping[str, Pool | Chain], registry: Registry
) -> tuple[dict[str, Target], dict[str, float]]:
    """Variants and their weights during an endpoint's guarded update, by its row of the table (``fleet/table.py``)."""
    coming = row["green"]
    old = {name: CountedSide(one, row["config"], registry) for name, one in blue.items()}
    new = {name: CountedSide(one, coming["config"], registry) for name, one in green.items()}
    old_weights, new_weights = ({one["name"]: one["weight"] for one in side["variants"]} for side in (row, coming))
    weights, shares = blended(old_weights, new_weights, coming["share"])
    return {name: Sides(name, old.get(name), new.get(name), shares[name]) for name in weights}, weights


def beside(blue: Target | None, green: Pool, share: float) -> Sides:
    """An inference component during its guarded update."""
    old = [Side(one) for one in whole(blue)]
    return Sides(green.variant, old[0] if old else None, Side(green), share)
