"""The control APIs' wire, in the control process: from the text a front passed on to an action and back.

``POST /`` with ``X-Amz-Target: SageMaker.<Operation>`` and a JSON object (AWS JSON); other services of AWS have other
targets (``services.py``). The request is checked against AWS's model (``schema.py``), answered by one action
(``control_actions.py``) inside one transaction, and shaped by the model again. What a write changed in the world is
the reconciler's work; the answer gives it a moment, so that a stock waiter, whose first look comes at once and whose
second after 30 s, finds things settled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from serving.api import control_wires, failures
from serving.api.control_actions import OPERATIONS
from serving.api.control_call import UNWATCHED, ControlCall, Outcome, Watched
from serving.api.control_wires import Sent
from serving.api.schema import Schema
from serving.api.services import SAGEMAKER, SERVICES, only_reads
from serving.config import Settings
from serving.errors import Conflict, Throttled, UnknownOperation
from serving.fleet.store import AlreadyThere, Session, Stale, StoreThread

#: Others may write between our reading and writing: the action is run again on what they wrote.
_TRIES = 5
#: Changes that one reading call waits for: a job's workers have come, its work is done, they have gone.
_MOST_NEWS = 4
#: All of them together, whatever the settings say: a front waits 30 s for our answer.
_LONGEST_NEWS_SECONDS = 20.0
#: Calls in progress at once; above it: ThrottlingException.
_MOST_CALLS = 512


class Reconciler(Protocol):
    """What the control API needs of those who make the world as it should be (``fleet/driving.py``)."""

    def live(self, name: str) -> Mapping[str, Any] | None:
        """What runs of an endpoint now. Asked on the store's thread."""
        ...

    def touch(self, tags: Iterable[str]) -> None:
        """The desired state of these has changed."""
        ...

    async def settled(self, tags: Iterable[str], seconds: float) -> None:
        """Return when they are as they should be, or have failed, or the time is over. Jobs are not waited for."""
        ...

    def progress(self, name: str) -> Mapping[str, Any] | None:
        """How far a running transform job is. Asked on the store's thread."""
        ...

    async def news(self, tag: str, revision: int, seconds: float) -> None:
        """Return when a job's record has changed beyond this revision, or the time is over."""
        ...


def load_schema(prefix: str) -> Schema:
    """AWS's model of a service, as far as it is offered."""
    return Schema.load(SERVICES[prefix].model, OPERATIONS[prefix])


class ControlApi:
    """All operations of the control APIs. ``load`` reads AWS's model of a service, on a thread of its own; its calls
    wait for it. ``clock``: epoch seconds; ``watched``: what is measured and decided here."""

    def __init__(
        self,
        settings: Settings,
        store: StoreThread,
        world: Reconciler,
        load: Callable[[str], Schema] = load_schema,
        clock: Callable[[], float] = time.time,
        watched: Watched = UNWATCHED,
    ) -> None:
        self._settings = settings
        self._store = store
        self._world = world
        self._load = load
        self._clock = clock
        self._watched = watched
        self._schemas: dict[str, asyncio.Future[Schema]] = {}
        self._calls = 0

    def start(self) -> None:
        """Begin to read AWS's models; the first call of a service does so otherwise."""
        for prefix in SERVICES:
            self._begin(prefix)

    async def handle(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """One call from a front: ``target`` (the header), ``body`` (text), ``form`` (it is one), ``region``,
        ``request_id``. Returns ``status``, ``headers`` (pairs) and ``body``. Raises nothing: errors come dressed."""
        request_id, sent = args["request_id"], Sent(args["target"], args["body"], args.get("form", False))
        self._calls += 1
        try:
            if self._calls > _MOST_CALLS:
                raise Throttled("Rate exceeded")
            target = await self._checked(sent.target)
            prefix, _, operation = target.rpartition(".")
            schema = await self._schema(prefix)
            params = control_wires.params(sent, schema.input(operation))
            answer = await self._answer(target, params, args["region"], trusted=False)
            return _reply(*control_wires.answered(sent, schema.output(operation), answer, request_id))
        except Exception as error:
            known = failures.as_serving_error(error, request_id)
            return _reply(*control_wires.refused(known, sent.target, sent.form, request_id))
        finally:
            self._calls -= 1

    async def call(self, operation: str, params: Mapping[str, Any], trusted: bool = True) -> dict[str, Any]:
        """The same without the wire: what the operator declares. An operation of another service than SageMaker stands
        behind its prefix and a dot. Raises ``ServingError``."""
        target = operation if "." in operation else f"{SAGEMAKER}.{operation}"
        return await self._answer(target, dict(params), self._settings.region, trusted) or {}

    def _begin(self, prefix: str) -> asyncio.Future[Schema]:
        if prefix not in self._schemas:
            self._schemas[prefix] = asyncio.ensure_future(asyncio.to_thread(self._load, prefix))
        return self._schemas[prefix]

    async def _schema(self, prefix: str) -> Schema:
        return await asyncio.shield(self._begin(prefix))  # a caller who leaves does not end it for the others

    async def _checked(self, target: str) -> str:
        """The header, if it names an operation of ours. Raises ``UnknownOperation``."""
        prefix, _, name = target.rpartition(".")
        if name in OPERATIONS.get(prefix, ()):
            return target
        if prefix in SERVICES and name in (await self._schema(prefix)).known:
            raise UnknownOperation(f"This server does not offer the operation {name}.")
        if not target:
            raise UnknownOperation("The X-Amz-Target header, which names the operation, is missing.")
        shown = "".join(one for one in target[:128] if one.isprintable())
        raise UnknownOperation(f"There is no operation {shown} here.")

    async def _answer(self, target: str, raw: Mapping[str, Any], region: str, trusted: bool) -> dict[str, Any] | None:
        prefix, _, operation = target.rpartition(".")
        schema = await self._schema(prefix)
        params = schema.check(operation, raw, trusted)
        action, settings = OPERATIONS[prefix][operation], self._settings

        def act(session: Session) -> Outcome:
            now, world = self._clock(), self._world
            return action(
                ControlCall(
                    operation,
                    params,
                    session,
                    settings,
                    region,
                    now,
                    world.live,
                    trusted,
                    world.progress,
                    self._watched,
                )
            )

        outcome = await (self._read(act) if only_reads(target) else self._write(act))
        if outcome.touched:
            self._world.touch(outcome.touched)
            await self._world.settled(outcome.touched, settings.settle_seconds)
        shaped = schema.shape(operation, outcome.answer)
        return {**shaped, **outcome.extension} if shaped and outcome.extension else shaped

    async def _read(self, act: Callable[[Session], Outcome]) -> Outcome:
        """What ``act`` reads; something that is about to change is given a moment to."""
        outcome, end = await self._store.read(act), time.monotonic() + _LONGEST_NEWS_SECONDS
        for _ in range(_MOST_NEWS):
            seconds = min(outcome.awaited.seconds, end - time.monotonic()) if outcome.awaited else 0.0
            if outcome.awaited is None or seconds <= 0:
                break
            await self._world.news(outcome.awaited.tag, outcome.awaited.revision, seconds)
            outcome = await self._store.read(act)
        return outcome

    async def _write(self, act: Callable[[Session], Outcome]) -> Outcome:
        for _ in range(_TRIES):
            try:
                return await self._store.write(act)
            except (Stale, AlreadyThere):  # somebody else's transaction came in between
                continue
        raise Conflict("The resource is being changed by others; try again.")


def _reply(status: int, headers: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
    return {"status": status, "headers": headers, "body": body.decode()}
