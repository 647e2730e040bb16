"""One asynchronous call from its lease to its end.

::

    lease ──► call ──► decide ──► publish ──► finish, with the notice
               │        what it came to is durable: from here on it is never run again, only published again
               └─ put off: nobody's fault, or another call's

A disk that is full and an object store that is away are waited for, as long as it takes, in every step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from serving.config import Settings
from serving.endpoint import Directory, answer
from serving.errors import ServingError
from serving.jobs import notices
from serving.jobs.async_calls import (
    MOST_STRIKES,
    SMALL,
    Again,
    Failed,
    Outcome,
    failure,
    final_state,
    given_up,
    outcome_of,
    strikes,
    verdict,
)
from serving.jobs.async_files import Files, answer_file
from serving.jobs.backlog import AsyncMetrics
from serving.jobs.patience import is_passing, pause_after
from serving.jobs.queue import QueueThread
from serving.jobs.work import NewWork, QueueSession, Work
from serving.types import Invocation, Reply
from serving.watch.trace_context import trace_of
from serving.workers.chain import Ticket

T = TypeVar("T")

#: Space may come back at any time: nobody waits longer than this for the next try.
_LONGEST_PAUSE = 2.0

log = logging.getLogger("serving.jobs")


class Ends:
    """Who waits for a job's end hears of it."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def tell(self, name: str) -> None:
        """The job of this name has ended."""
        for one in self._waiting.pop(name, ()):
            if not one.done():
                one.set_result(None)

    def expect(self, name: str) -> asyncio.Future[None]:
        """Done when the job of this name ends from now on. Whoever leaves says ``forget``."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(one)
        return one

    def forget(self, name: str, one: asyncio.Future[None]) -> None:
        """Nobody waits for this any more."""
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.discard(one)
            if not waiting:
                del self._waiting[name]

    def __len__(self) -> int:
        """Jobs that somebody waits for."""
        return len(self._waiting)


@dataclass(eq=False, slots=True)
class Means:
    """What the consumers of asynchronous calls work with. ``owner``: this process in the queue's eyes; ``on_notice``:
    there is something in the outbox."""

    queue: QueueThread
    files: Files
    directory: Directory
    settings: Settings
    metrics: AsyncMetrics
    owner: str
    on_notice: Callable[[], None] = lambda: None
    ends: Ends = field(default_factory=Ends)

    def variant_of(self, endpoint: str) -> str:
        """The variant that is named where none was drawn: the first."""
        rows = (row for row in self.directory.table["endpoints"] if row["name"] == endpoint)
        return next((str(one["name"]) for row in rows for one in row["variants"]), "")


async def until_done(what: str, act: Callable[[], Awaitable[T]]) -> T:
    """What ``act`` comes to, once disk, database and store let it. Raises what does not pass by itself."""
    failures = 0
    while True:
        try:
            return await act()
        except (ServingError, OSError) as error:
            if not is_passing(error):
                raise
            failures += 1
            if failures in (1, 10, 100, 1000):
                log.warning("%s has to wait: %s", what, error)
            await asyncio.sleep(min(pause_after(failures), _LONGEST_PAUSE))  # the pause before the next try


class Runs:
    """Runs leased works; stateless but for what it is given."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def run(self, work: Work, called: Callable[[], None], variant: str = "", refused: str = "") -> Again | None:
        """From lease to end. ``called``: the worker is free again, what remains is to publish. ``variant``: who is to
        answer, unless the caller has named one or it has gone. ``refused``: why this
        is not to be run at all. Returns when it is to be tried again, if it is."""
        if refused:
            result: Reply | Failed | Again = Failed(f"ClientError: {refused}", refused)
        else:
            result = given_up(work) or await self._call(work, variant)
        called()
        if isinstance(result, Again):
            await self._put_off(work, result)
            return result
        decided = await self._decide(work, result)
        if decided is not None:
            await self.publish(decided)
        return None

    async def _call(self, work: Work, variant: str) -> Reply | Failed | Again:
        accepted: list[Ticket] = []
        try:
            began = time.monotonic()
            async with self._means.files.input(work) as body:
                there = time.monotonic() - began
                reply = await self._invoke(work, body, variant, accepted.append)
        except ServingError as error:
            result = verdict(work, error, self._means.queue.now())
            if isinstance(result, Failed):
                names = {
                    "request_id": str(work.body.get("request_id") or work.name),
                    "trace_id": trace_of(str(work.body.get("traceparent", ""))),
                }
                log.info("asynchronous call %s (%s) failed: %s", work.name, work.label, error.message, extra=names)
                if accepted:
                    result = result._replace(variant=accepted[0].variant)
            return result
        if work.body.get("input"):
            self._means.metrics.downloaded(str(work.body["endpoint"]), reply.variant, there)
        return reply

    async def _invoke(self, work: Work, body: bytes, variant: str, on_accepted: Callable[[Ticket], None]) -> Reply:
        said = work.body
        endpoint = self._means.directory.get(str(said["endpoint"]))
        drawn = variant if endpoint.ready_workers().get(variant) else ""
        invocation = Invocation(
            endpoint.name,
            body,
            str(said.get("content_type", "")),
            str(said.get("accept", "")),
            str(said.get("request_id") or work.name),
            time.monotonic() + float(said["timeout"]),
            target_model=str(said.get("target_model", "")),
            target_variant=str(said.get("target_variant") or drawn),
            inference_id=str(said.get("inference_id", "")),
            custom_attributes=str(said.get("custom_attributes", "")),
            retries=MOST_STRIKES - 1,
            strikes=strikes(work),
            traceparent=str(said.get("traceparent", "")),
        )
        return await answer(endpoint, invocation, on_accepted)

    async def _put_off(self, work: Work, again: Again) -> None:
        """Queue it again. A pause that its lane keeps is not written down: after a restart nothing waits for it."""

        def put_off(session: QueueSession) -> None:
            if again.progress is not None:
                session.checkpoint(work, again.progress)
            session.retry(work, 0.0 if again.others_too else again.pause)

        await self._write(work, put_off)

    # -- decide ---------------------------------------------------------------------------------------------------

    async def _decide(self, work: Work, result: Reply | Failed) -> Work | None:
        """Keep what it came to, for good. None: it has been cancelled meanwhile."""
        if isinstance(result, Failed):
            outcome = failure(work, result, result.variant or self._means.variant_of(str(work.body["endpoint"])))
            row, content = outcome.row(), result.text.encode()[:SMALL]
        else:
            outcome = _success(work, result)
            row, content = outcome.row(), b"" if outcome.spooled else result.body
            if outcome.spooled:
                spool = self._means.files.spool
                await until_done(f"the answer of {work.name}", lambda: spool(outcome.spooled, result.body))
        decided = await self._write(work, lambda session: session.decide(work, row, content))
        if decided is None:
            await self._means.files.discard(outcome.spooled)
        return decided

    async def _write(self, work: Work, act: Callable[[QueueSession], T]) -> T:
        return await until_done(f"asynchronous call {work.name}", lambda: self._means.queue.do(act))

    # -- publish --------------------------------------------------------------------------------------------------

    async def publish(self, work: Work) -> None:
        """Put the object of decided work, and finish it with its notice. Any of this may have been done before."""
        means, outcome, content = self._means, outcome_of(work), work.answer
        if outcome.location:
            began = time.monotonic()
            what = f"the upload of {outcome.location}"
            try:
                await until_done(what, lambda: means.files.publish(outcome, content))
                means.metrics.uploaded(str(work.body["endpoint"]), outcome.variant, time.monotonic() - began)
            except ServingError as error:
                outcome, content = await self._refused(work, outcome, error)
        now = time.time()
        also = notices.of_result(work, outcome, None if outcome.spooled else content, means.settings.region, now)
        await self._finish(work, outcome, also)

    async def _refused(self, work: Work, outcome: Outcome, error: ServingError) -> tuple[Outcome, bytes]:
        """The store will not have the object: the job has failed, and its failure object says so if that is let in."""
        log.error("asynchronous call %s: %s cannot be written: %s", work.name, outcome.location, error.message)
        await self._means.files.discard(outcome.spooled)
        reason = f"The response could not be uploaded. {error.message}"
        failed = Failed(f"ClientError: {reason}", reason, "upload")
        refused, text = failure(work, failed, outcome.variant), reason.encode()
        if refused.location and refused.location != outcome.location:
            try:
                put = self._means.files.put
                await until_done(f"the upload of {refused.location}", lambda: put(refused.location, text, "text/plain"))
            except ServingError:
                refused = refused._replace(location="")
        return refused, text

    async def _finish(self, work: Work, outcome: Outcome, also: list[NewWork]) -> None:
        means, row = self._means, outcome.row() | {"spooled": ""}
        finished = await self._write(
            work, lambda session: session.finish(work, final_state(outcome), row, b"", also=also)
        )
        if finished:
            means.metrics.ended(work, outcome, time.time())
            if also:
                means.on_notice()
        means.ends.tell(work.name)
        await means.files.discard(str(work.body.get("spooled", "")))


def _success(work: Work, reply: Reply) -> Outcome:
    size, location = len(reply.body), str(work.body["output"])
    spooled = answer_file(work.name, work.attempt) if size > SMALL else ""
    return Outcome("Completed", "", location, reply.content_type, size, spooled, reply.variant)
