"""The calls of a transform job: bounded in number, retried as the job says, and divided when some of their records are
bad, until the bad ones stand alone.

::

    request refused (4xx, 5xx to the end, its workers ended) ──► one record? ──► it is bad
                                                                  several ──► halves, each on its own
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from serving.endpoint import Endpoint, answer
from serving.errors import BadRecords, ServingError, WorkerDied
from serving.jobs.splitting import Piece
from serving.jobs.transform_plan import (
    NOT_READY_SECONDS,
    Terms,
    after_failure,
    is_nonsense,
    retries_of_part,
    seconds_for,
)
from serving.types import Invocation

#: How often to look whether a worker is ready without having been told.
_LOOK_SECONDS = 1.0
#: A call that ends its worker is tried so often on others before its records are looked at one by one ...
_PIECE_RETRIES = 2
#: ... and its parts no more: one death is proof.
_PART_RETRIES = 0
#: The only row of a request, or a record by its number, which are told beside the reason.
_WHICH = re.compile(r"^(?:row 1\b|Record \d+):? ?")


#: Calls a function that blocks on a thread, with these arguments.
Hop = Callable[..., Awaitable[Any]]


class ObjectFailed(Exception):
    """An input object gets no output; ``str`` says why, in one sentence."""


class JobFailed(Exception):
    """The whole job cannot go on; ``str`` says why, in one sentence."""


class Request(NamedTuple):
    """A piece of an object and the body to send for it, or why there is none."""

    piece: Piece
    body: bytes
    trouble: str = ""


class Answered(NamedTuple):
    """A piece and the model's answer; without one (``bad``), the only record of the piece and why it failed."""

    piece: Piece
    answer: bytes
    bad: str = ""


class Losses:
    """Records of one object that were answered so far, that failed, and of these that ended workers."""

    def __init__(self, most_bad: int, good: int = 0, bad: int = 0) -> None:
        """``good``, ``bad``: by the checkpoint that the object goes on from."""
        self.good = good
        self.bad = bad
        self.deadly = 0
        self._most_bad = most_bad

    def add(self, reason: str, is_deadly: bool) -> None:
        """One more. Raises ``ObjectFailed`` when it is one too many."""
        self.bad += 1
        self.deadly += is_deadly
        tried = self.good + self.bad
        if is_nonsense(self.bad, tried, self.deadly, self._most_bad):
            raise ObjectFailed(f"{self.bad:,} of the {tried:,} records tried so far failed; the last: {reason}")


class Caller:
    """The calls of one job to its own workers."""

    def __init__(
        self,
        terms: Terms,
        endpoint: Callable[[], Endpoint],
        prepare: Callable[[Piece], bytes],
        divide: Callable[[Piece], Sequence[Piece]],
        hop: Hop,
    ) -> None:
        """``endpoint``: the job's, as the routing table has it now; raises ``UnknownEndpoint``. ``prepare``: a piece's
        body (``Shape.request``); ``divide``: a piece's halves; ``hop``: to the job's threads."""
        self._terms = terms
        self._endpoint = endpoint
        self._prepare = prepare
        self._divide = divide
        self._hop = hop
        self._news = asyncio.Event()
        self._gate = asyncio.Semaphore(terms.concurrency)
        self._running = 0

    async def answered(self, request: Request, losses: Losses) -> list[Answered]:
        """The answers to a request, in the order of its records. Raises ``ObjectFailed``, ``JobFailed``."""
        return await self._answered(request, losses)

    async def _answered(self, request: Request, losses: Losses, is_part: bool = False) -> list[Answered]:
        if request.trouble:
            return await self.apart(request.piece, request.trouble, losses)
        try:
            answer = await self._ask(request, losses, is_part)
        except _Refused as refused:
            return await self.apart(request.piece, str(refused), losses, refused.is_deadly)
        losses.good += request.piece.count
        return [Answered(request.piece, answer)]

    async def apart(self, piece: Piece, reason: str, losses: Losses, is_deadly: bool = False) -> list[Answered]:
        """The halves of a piece that is bad somewhere, each answered on its own; a single record is bad itself."""
        if piece.count <= 1:
            losses.add(reason, is_deadly)
            return [Answered(piece, b"", _WHICH.sub("", reason) or "It failed.")]
        found: list[Answered] = []
        for half in self._divide(piece):
            found += await self._answered(await self._hop(self.request, half), losses, is_part=True)
        return found

    def request(self, piece: Piece) -> Request:
        """What to send for a piece. Blocks, long for a large one."""
        if piece.oversized:
            return Request(piece, b"", f"It has more than {self._terms.most_bytes:,} bytes, the most of a request.")
        try:
            return Request(piece, self._prepare(piece))
        except BadRecords as error:
            return Request(piece, b"", error.message)

    async def _ask(self, request: Request, losses: Losses, is_part: bool) -> bytes:
        """One request's answer, with its retries. Raises ``_Refused`` when there are bad records in it."""
        failures, waited, retries = 0, 0.0, self._terms.retries
        while True:
            began = time.monotonic()
            try:
                return await self._call(request, _PART_RETRIES if is_part else _PIECE_RETRIES)
            except ServingError as error:
                if is_part:
                    retries = retries_of_part(error, self._terms.retries, request.piece.count, losses.bad)
                step = after_failure(error, failures, retries, waited)
                if step.what == "split":
                    raise _Refused(error) from None
                if step.what == "object":
                    raise ObjectFailed(error.message) from None
                if step.what == "job":
                    raise JobFailed(error.message) from None
                await asyncio.sleep(step.pause)  # the pause before the next try
                failures += step.what == "again"
                waited += (time.monotonic() - began) if step.what == "wait" else 0.0

    async def _call(self, request: Request, deaths: int) -> bytes:
        async with self._gate:
            endpoint = await self._when_ready()
            terms, piece = self._terms, request.piece
            invocation = Invocation(
                terms.endpoint,
                request.body,
                terms.content_type,
                terms.accept,
                f"{terms.job}/{piece.first}",
                time.monotonic() + seconds_for(terms, self._running),
                retries=deaths,
            )
            self._running += 1
            try:
                return (await answer(endpoint, invocation)).body
            finally:
                self._running -= 1

    async def _when_ready(self) -> Endpoint:
        """The endpoint, once a worker is ready: a call's time should not run out before it can begin. When none comes
        it is called all the same, and says why."""
        limit = time.monotonic() + NOT_READY_SECONDS
        while not (endpoint := self._endpoint()).ready and time.monotonic() < limit:
            self._news.clear()
            endpoint.on_ready_change = self._news.set
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_SECONDS)
        return endpoint


class _Refused(Exception):
    """A request with something bad in it."""

    def __init__(self, error: ServingError) -> None:
        super().__init__(error.message)
        self.is_deadly = isinstance(error, WorkerDied)
