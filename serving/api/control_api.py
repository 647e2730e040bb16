"""The control API's wire, in the control process: from the text a front passed on to an action and back.

``POST /`` with ``X-Amz-Target: SageMaker.<Operation>`` and a JSON object (AWS JSON 1.1). The request is checked against
AWS's model (``schema.py``), answered by one action (``control_actions.py``) inside one transaction, and shaped by the
model again. What a write changed in the world is the reconciler's work; the answer gives it a moment, so that a stock
waiter, whose first look comes at once and whose second after 30 s, finds things settled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import orjson

from serving.api import failures
from serving.api.control_actions import ACTIONS
from serving.api.control_call import ControlCall, Outcome
from serving.api.schema import Schema
from serving.config import Settings
from serving.errors import Conflict, Throttled, UnknownOperation, Unreadable
from serving.fleet.store import AlreadyThere, Session, Stale, StoreThread

PREFIX = "SageMaker"
#: Operations that change nothing: they need no more than the permission to read.
READERS = ("Describe", "List", "BatchDescribe")

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


def _load_schema() -> Schema:
    return Schema.load("sagemaker", ACTIONS)


class ControlApi:
    """All operations of the SageMaker control API. ``load`` reads AWS's model, on a thread of its own; calls wait for
    it. ``clock``: epoch seconds."""

    def __init__(
        self,
        settings: Settings,
        store: StoreThread,
        world: Reconciler,
        load: Callable[[], Schema] = _load_schema,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._world = world
        self._load = load
        self._clock = clock
        self._schema: asyncio.Future[Schema] | None = None
        self._calls = 0

    def start(self) -> None:
        """Begin to read AWS's model; the first call does so otherwise."""
        if self._schema is None:
            self._schema = asyncio.ensure_future(asyncio.to_thread(self._load))

    async def handle(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """One call from a front: ``target`` (the header), ``body`` (text), ``region``, ``request_id``. Returns
        ``status``, ``headers`` (pairs) and ``body`` (text). Raises nothing: errors come dressed."""
        request_id = args["request_id"]
        self._calls += 1
        try:
            if self._calls > _MOST_CALLS:
                raise Throttled("Rate exceeded")
            operation = await self._operation(args["target"])
            answer = await self._answer(operation, parse(args["body"]), args["region"], trusted=False)
            body = b"" if answer is None else orjson.dumps(answer)
        except Exception as error:
            return _reply(*failures.dress_control(failures.as_serving_error(error, request_id), request_id))
        finally:
            self._calls -= 1
        headers = [("content-type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", request_id)]
        return _reply(200, headers, body)

    async def call(self, operation: str, params: Mapping[str, Any], trusted: bool = True) -> dict[str, Any]:
        """The same without the wire: what the operator declares. Raises ``ServingError``."""
        return await self._answer(operation, dict(params), self._settings.region, trusted) or {}

    async def _ready(self) -> Schema:
        self.start()
        assert self._schema is not None
        return await asyncio.shield(self._schema)  # a caller who leaves does not end it for the others

    async def _operation(self, target: str) -> str:
        """The operation that the header asks for. Raises ``UnknownOperation``."""
        prefix, _, name = target.rpartition(".")
        if prefix == PREFIX and name in ACTIONS:
            return name
        if prefix == PREFIX and name in (await self._ready()).known:
            raise UnknownOperation(f"This server does not offer the operation {name}.")
        if not target:
            raise UnknownOperation("The X-Amz-Target header, which names the operation, is missing.")
        shown = "".join(one for one in target[:128] if one.isprintable())
        raise UnknownOperation(f"There is no operation {shown} here.")

    async def _answer(
        self, operation: str, raw: Mapping[str, Any], region: str, trusted: bool
    ) -> dict[str, Any] | None:
        schema = await self._ready()
        params = schema.check(operation, raw, trusted)
        action, settings = ACTIONS[operation], self._settings

        def act(session: Session) -> Outcome:
            now, world = self._clock(), self._world
            return action(
                ControlCall(operation, params, session, settings, region, now, world.live, trusted, world.progress)
            )

        outcome = await (self._read(act) if operation.startswith(READERS) else self._write(act))
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


def parse(body: str | bytes) -> dict[str, Any]:
    """A call's body; nothing at all counts as ``{}``. Of a member given twice the last counts. Raises
    ``Unreadable``."""
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        raise Unreadable("The request body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Unreadable("Start of list or value found where not expected: the request body must be a JSON object.")
    return value


def _reply(status: int, headers: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
    return {"status": status, "headers": headers, "body": body.decode()}
