"""Calls of endpoints with an explainer: the model is called like by anybody, and its answer goes out with what the
explain process makes of it (SageMaker Runtime, InvokeEndpoint, EnableExplanations; ``behaviour/06``).

Where explanations are switched off (`` `false` ``) nobody else is asked: the answer is only put into the form that all
answers of such an endpoint have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from serving.api import failures
from serving.api.front import Front
from serving.endpoint import Endpoint, Invocable
from serving.errors import InvocationTimedOut, ServiceUnavailable, ServingError, ValidationError
from serving.explain import form
from serving.types import Invocation, Reply
from serving.workers.chain import Ticket
from serving.workers.pool import TIMED_OUT

Done = Callable[[Reply | ServingError], None]

#: What explains no record, whatever the model answers.
OFF = "`false`"
#: What explains all, where nothing is said.
_ON = "`true`"
_JSON = "application/json"
#: A call whose endpoint is updated while it is explained is made again, as the answer is to be of one model: so often,
#: each time so many seconds later.
_MOST_REPEATS, _PAUSE_SECONDS = 5, 0.1


def answering(front: Front, endpoint: Endpoint, invocation: Invocation) -> Invocable:
    """Who answers a call: the endpoint, with its explainer where it has one. A stream has no explanations."""
    if endpoint.explainer is None or invocation.stream_seconds:
        return endpoint
    return Explained(front, endpoint, endpoint.explainer)


class Explained:
    """An endpoint whose answers are explained."""

    def __init__(self, front: Front, endpoint: Endpoint, config: Mapping[str, Any]) -> None:
        self._front = front
        self._endpoint = endpoint
        self._config = config

    def invoke(self, invocation: Invocation, done: Done) -> Ticket:
        """As ``Endpoint.invoke``. Raises ``ValidationError`` too for types and expressions that cannot be explained."""
        enable = invocation.explain or self._config.get("EnableExplanations", _ON)
        if enable != OFF:
            _check(invocation, enable)
        call = _Call(self._front, invocation, self._config, enable, done)
        return call.begin(self._endpoint)


class _Call:
    """One call: the ticket its caller holds."""

    def __init__(
        self, front: Front, invocation: Invocation, config: Mapping[str, Any], enable: str, done: Done
    ) -> None:
        self._front = front
        self._invocation = invocation
        self._config = config
        self._enable = enable
        self._done = done
        self._ticket: Ticket | None = None
        self._explaining: asyncio.Task[None] | None = None
        self._deployment: list[int] = []
        self._repeats = 0

    @property
    def variant(self) -> str:
        """Who has the call."""
        return self._ticket.variant if self._ticket is not None else ""

    def begin(self, endpoint: Endpoint) -> _Call:
        self._deployment = endpoint.deployment
        self._ticket = endpoint.invoke(self._invocation, self._predicted)
        return self

    def cancel(self) -> None:
        """The caller has left."""
        if self._ticket is not None:
            self._ticket.cancel()
        if self._explaining is not None:
            self._explaining.cancel()

    def _predicted(self, result: Reply | ServingError) -> None:
        if isinstance(result, ServingError):
            self._done(result)
        elif self._enable == OFF:
            self._done(self._unexplained(result))
        else:
            self._explaining = asyncio.get_running_loop().create_task(self._explain(result))

    def _unexplained(self, reply: Reply) -> Reply | ServingError:
        labels = self._config.get("InferenceConfig", {}).get("LabelHeaders", ())
        try:
            return reply._replace(body=form.answer(reply.body, reply.content_type, {}, labels), content_type=_JSON)
        except ValidationError as error:
            return error

    async def _explain(self, reply: Reply) -> None:
        try:
            told: Reply | ServingError | None = await self._explained(reply)
            if told is None:
                await self._again()
                return
        except Exception as error:
            told = failures.as_serving_error(error, self._invocation.request_id)
        self._done(told)

    async def _again(self) -> None:
        """Its endpoint has been updated: the call as a whole is the new deployment's. Raises ``ServingError``."""
        self._repeats += 1
        if self._repeats > _MOST_REPEATS:
            raise ServiceUnavailable("The endpoint was updated while this call was explained; please try again.")
        await asyncio.sleep(_PAUSE_SECONDS)  # the new table comes to every process at about the same time
        endpoint = self._front.directory.get(self._invocation.endpoint)
        if endpoint.explainer is None:
            self._ticket = endpoint.invoke(self._invocation, self._done)
            return
        self._config = endpoint.explainer
        self._enable = self._invocation.explain or self._config.get("EnableExplanations", _ON)
        self.begin(endpoint)

    async def _explained(self, reply: Reply) -> Reply | None:
        """The answer with explanations; None when it is another deployment's meanwhile."""
        call, began = self._invocation, time.monotonic()
        left = call.deadline - began
        args = {
            "endpoint": call.endpoint,
            "variant": reply.variant,
            "target_model": call.target_model,
            "container": call.target_container,
            "component": call.component,
            "custom_attributes": call.custom_attributes,
            "content_type": call.content_type,
            "accept": call.accept,
            "request_id": call.request_id,
            "answered": reply.content_type,
            "explain": self._enable,
            "config": self._config,
            "size": len(call.body),
            "seconds": left,
            "deployment": self._deployment,
            "table": self._front.directory.table["version"],
        }
        try:
            async with asyncio.timeout(left):
                changed, body = await self._front.explainer.ask("explain", args, call.body + reply.body, wait=left)
        except TimeoutError:
            raise InvocationTimedOut(TIMED_OUT.format("primary")) from None
        if changed:
            return None
        return reply._replace(body=body, content_type=_JSON, total=reply.total + time.monotonic() - began)


def _check(invocation: Invocation, enable: str) -> None:
    """Raises ``ValidationError`` for a call that cannot be explained, before anybody works on it."""
    from serving.explain import expressions, records  # only fronts with explainers need these

    for name, value in (("ContentType", invocation.content_type), ("Accept", invocation.accept)):
        if not value or value == "*/*":
            raise ValidationError(f"{name} is required to explain a call: {records.CSV} or {records.LINES}.")
        if not records.kind_of(value) and not (name == "Accept" and value == _JSON):
            raise ValidationError(f"{name} of a call that is explained must be {records.CSV} or {records.LINES}.")
    expressions.enabling(enable)
