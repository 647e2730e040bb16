"""A model of several containers, as a front sees it: an inference pipeline, or containers called one by one.

Serial (SageMaker API, CreateModel, InferenceExecutionConfig): the body and content type of each answer are the next
container's request; the client's Accept goes to the last; the first failure ends the chain, and names its container.
Direct: only the container that TargetContainerHostname names is called. Each container has workers of its own, so that
one that ends takes no other with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from serving.errors import ServiceUnavailable, ServingError, ValidationError
from serving.types import Invocation, Reply
from serving.watch.metrics import Registry
from serving.workers import sessions
from serving.workers.channel import Channel, Done
from serving.workers.pool import Pool
from serving.workers.tally import VariantMetrics


class Ticket(Protocol):
    """An accepted call."""

    @property
    def variant(self) -> str: ...  # noqa: D102
    def cancel(self) -> None: ...  # noqa: D102


class Answers(Protocol):
    """What takes calls."""

    def submit(self, invocation: Invocation, done: Done) -> Ticket: ...  # noqa: D102


class Chain:
    """The containers of one variant, with what ``Endpoint`` needs of a ``Pool``."""

    def __init__(self, endpoint: str, variant: str, stages: Sequence[Pool], direct: bool, registry: Registry) -> None:
        self.endpoint = endpoint
        self.variant = variant
        self.stages = tuple(stages)
        self.direct = direct
        self.multi_model = any(stage.multi_model for stage in stages)
        self.successor: Answers | None = None
        self.metrics = VariantMetrics(registry, endpoint, variant)

    @property
    def ready(self) -> list[Channel]:
        """The workers of the container that has the fewest; a variant called directly can answer with any."""
        choose = max if self.direct else min
        return choose((stage.ready for stage in self.stages), key=len)

    def holds(self, session_id: str) -> bool:
        """Is it a worker of these that a session names?"""
        return any(stage.holds(session_id) for stage in self.stages)

    def submit(self, invocation: Invocation, done: Done) -> Ticket:
        """Accept a call, as ``Pool.submit`` does. Of a series, the last container opens sessions, and a session is
        for the container that opened it."""
        if self.direct:
            return self._named(invocation.target_container).submit(invocation, done)
        if invocation.target_container:
            raise ValidationError(
                f"Endpoint {self.endpoint} runs its containers in series; remove the target container hostname header."
            )
        self.metrics.invocations.add()
        return _Run(self, invocation, done)

    def _named(self, hostname: str) -> Pool:
        if not hostname:
            raise ValidationError(
                f"Endpoint {self.endpoint} invokes its containers directly; name one with TargetContainerHostname."
            )
        for stage in self.stages:
            if stage.part == hostname:
                return stage
        raise ValidationError(f"Container hostname {hostname} of endpoint {self.endpoint} not found.")


class _Run:
    """One call on its way through the containers."""

    __slots__ = ("_at", "_chain", "_done", "_invocation", "_moved", "_spent", "_started", "_ticket", "_total")

    def __init__(self, chain: Chain, invocation: Invocation, done: Done) -> None:
        self._chain = chain
        self._invocation = invocation
        self._done = done
        self._at = 0
        self._moved = False
        self._total = 0.0
        self._spent = [0] * 6
        self._started = time.monotonic()
        for stage in chain.stages[1:]:
            stage.promise(1)
        try:
            ticket = self._submit(invocation.body, invocation.content_type)
        except ServingError:
            self._leave()
            raise
        if not self._moved:
            self._ticket = ticket

    @property
    def variant(self) -> str:
        return self._chain.variant

    def cancel(self) -> None:
        self._ticket.cancel()
        self._leave()

    def _leave(self) -> None:
        """It will not come to the containers ahead."""
        ahead, self._at = self._chain.stages[self._at + 1 :], len(self._chain.stages) - 1
        for stage in ahead:
            stage.promise(-1)

    def _submit(self, body: bytes, content_type: str) -> Ticket:
        stage, first = self._chain.stages[self._at], self._invocation
        last = self._at == len(self._chain.stages) - 1
        session_id = first.session_id
        theirs = stage.holds(session_id) if sessions.is_bound(session_id) else last
        return stage.submit(
            first._replace(
                body=body,
                content_type=content_type,
                accept=first.accept if last else "",
                session_id=session_id if theirs else "",
                stream_seconds=first.stream_seconds if last else 0.0,
                target_model=first.target_model if stage.multi_model else "",
            ),
            self._answered,
        )

    def _answered(self, result: Reply | ServingError) -> None:
        if isinstance(result, ServingError):
            if self._is_orphan(result):
                self._begin_again()
            else:
                self._fail(result)
            return
        self._total += result.total
        self._spent = [one + other for one, other in zip(self._spent, result.spent, strict=True)]
        if self._at == len(self._chain.stages) - 1:
            self._chain.metrics.model_latency.observe(time.monotonic() - self._started)
            *times, _ = self._spent
            self._done(result._replace(total=self._total, spent=(*times, result.spent[-1])))
            return
        self._at += 1
        stage = self._chain.stages[self._at]
        try:
            ticket = self._submit(result.body, result.content_type)
        except ServingError as error:
            self._fail(error)
        else:
            self._ticket = self._ticket if self._moved else ticket
        finally:
            stage.promise(-1)

    def _is_orphan(self, error: ServingError) -> bool:
        """Has this deployment gone, and the worker that was to answer died?"""
        return self._chain.successor is not None and isinstance(error, ServiceUnavailable)

    def _begin_again(self) -> None:
        """With those who answer now: what one deployment's container has made is for its own next one only."""
        self._leave()
        self._moved, successor = True, self._chain.successor
        assert successor is not None  # it is an orphan
        try:
            self._ticket = successor.submit(self._invocation, self._done)
        except ServingError as refusal:
            self._fail(refusal)

    def _fail(self, error: ServingError) -> None:
        self._leave()
        self._chain.metrics.failed(error)
        self._done(error)
