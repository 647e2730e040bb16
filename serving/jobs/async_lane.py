"""One endpoint's queue of asynchronous calls: works are taken from it as its workers have room for them.

Nothing polls. A lane is woken by a new job, by a worker that is ready, by a call that is over, and when the pause of
one that was put off has passed; a slow sweep would wake it too.

    places = ready workers x MaxConcurrentInvocationsPerInstance - calls under way      (for each variant)

Without a worker nothing is leased: the jobs wait, and ``HasBacklogWithoutCapacity`` says so. Jobs of an endpoint that
has been deleted come to their end with that reason; calls under way there are called off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from serving.errors import ServingError
from serving.jobs.async_calls import Again, lane_of
from serving.jobs.async_runs import Means, Runs
from serving.jobs.draws import Draws
from serving.jobs.work import QueueSession, Work

#: Calls at a time in one worker of an endpoint that is not configured for asynchronous calls.
_USUAL_CONCURRENCY = 4
#: Jobs of a deleted endpoint that are ended at a time, and answers that are published at a time beside the calls.
_AT_ONCE = 64
#: What the loop's clock and the queue's may differ by over a pause.
_CLOCKS_APART = 0.02
_LONGEST_CLOSED_SECONDS = 5.0
#: After the queue could not be asked, or a defect of ours.
_PAUSE_SECONDS, _LONG_PAUSE_SECONDS = 1.0, 30.0
_PAGE = 500

log = logging.getLogger("serving.jobs")


class _Call(NamedTuple):
    """A call under way; ``variant`` "" = whichever was drawn."""

    work: Work
    task: asyncio.Task[None]
    variant: str


class Lane:
    """The queue of one endpoint, and its calls under way."""

    def __init__(self, endpoint: str, means: Means, runs: Runs) -> None:
        self.endpoint = endpoint
        self.name = lane_of(endpoint)
        self.changed = True
        self._means = means
        self._runs = runs
        self._calling: dict[str, _Call] = {}
        self._under_way: set[str] = set()
        self._draws = Draws()
        self._publishing: set[asyncio.Task[None]] = set()
        self._doomed_to = 0
        self._closed_until = 0.0
        self._empty = False
        self._unsure = False
        self._resting = False
        self._wanted = asyncio.Event()
        self._feeding = asyncio.create_task(self._feed())

    @property
    def busy(self) -> bool:
        """Is anything under way?"""
        return bool(self._calling or self._publishing)

    def wake(self) -> None:
        """There may be something to take, or a worker for it."""
        self._empty = False
        self._wanted.set()

    def wake_later(self, seconds: float) -> None:
        """The pause of a work will have passed by then."""
        asyncio.get_running_loop().call_later(seconds + _CLOCKS_APART, self.wake)

    # -- taking ---------------------------------------------------------------------------------------------------

    def places(self) -> list[str]:
        """A variant for each work that may be taken now; "" = whichever is drawn."""
        directory = self._means.directory
        if self._resting or not directory.table["version"] or len(self._publishing) >= _AT_ONCE:
            return []
        endpoint = directory.endpoints.get(self.endpoint)
        if endpoint is None:
            return [""] * (_AT_ONCE - len(self._calling))
        if time.monotonic() < self._closed_until:
            return []
        each = endpoint.concurrency or _USUAL_CONCURRENCY
        workers = endpoint.ready_workers()
        if len(workers) == 1:
            return [""] * (sum(workers.values()) * each - len(self._calling))
        taken = Counter(call.variant for call in self._calling.values())
        room = {variant: count * each - taken[variant] for variant, count in workers.items()}
        return self._draws.take(room, endpoint.draw)

    async def _feed(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while not self._empty and (places := self.places()):
                    await self._take(places)
            except Exception as error:
                known = isinstance(error, ServingError)
                log.warning("the queue of endpoint %s cannot be read: %s", self.endpoint, error, exc_info=not known)
                self._unsure = True
                self.wake_later(_PAUSE_SECONDS if known else _LONG_PAUSE_SECONDS)

    async def _take(self, places: Sequence[str]) -> None:
        self._empty = True  # unless somebody wakes us from here on
        works: list[Work] = []
        try:
            works = await self._means.queue.do(partial(self._lease, len(places), frozenset(self._under_way)))
        finally:
            if places[0]:
                self._draws.put_back(places[len(works) :])
        self._unsure = False
        for work, variant in zip(works, places, strict=False):
            self._begin(work, variant)
        if len(works) == len(places):
            self._empty = False

    def _lease(self, most: int, known: frozenset[str], session: QueueSession) -> list[Work]:
        if self._unsure:  # a lease whose answer did not come in time may have been written
            for work in session.page(self.name, ["leased"], 0, _PAGE, newest_first=False):
                if work.owner == self._means.owner and work.name not in known:
                    session.give_back(work)
        session.ripen()
        return session.lease(self.name, self._means.owner, most)

    def _begin(self, work: Work, variant: str) -> None:
        self._under_way.add(work.name)
        task = asyncio.create_task(self._run(work, variant))
        self._calling[work.name] = _Call(work, task, variant)

    async def _run(self, work: Work, variant: str) -> None:
        self.changed = True

        def called() -> None:
            found = self._calling.pop(work.name, None)
            if found is not None:
                self._publish(found.task)

        try:
            again = await self._runs.run(work, called, variant, self._refusal(work))
            if again is not None:
                self._on_put_off(again)
        except asyncio.CancelledError:
            return  # its caller, or its endpoint, has gone: whoever cancelled it sees to the rest
        except Exception:
            log.exception("asynchronous call %s could not be brought to its end", work.name)
            await self._put_off(work)
        finally:
            self._calling.pop(work.name, None)
            self._under_way.discard(work.name)
            self.changed = True
            self._wanted.set()

    def _on_put_off(self, again: Again) -> None:
        """Where others would fare alike the whole lane pauses, but looks now and then whether that has changed."""
        pause = again.pause
        if again.others_too:
            pause = min(pause, _LONGEST_CLOSED_SECONDS)
            self._closed_until = max(self._closed_until, time.monotonic() + pause)
        self.wake_later(pause)

    async def _put_off(self, work: Work) -> None:
        try:
            await self._means.queue.do(lambda session: session.retry(work, _LONG_PAUSE_SECONDS))
            self.wake_later(_LONG_PAUSE_SECONDS)
        except ServingError:
            log.error("asynchronous call %s stays as it is until the next start", work.name)

    def _refusal(self, work: Work) -> str:
        """Why a work is not to be run at all."""
        gone = self.endpoint not in self._means.directory.endpoints or work.id <= self._doomed_to
        return f"Endpoint {self.endpoint} was deleted before the request was processed." if gone else ""

    # -- publishing what was decided ------------------------------------------------------------------------------

    def _publish(self, task: asyncio.Task[None]) -> None:
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)
        self._wanted.set()

    async def take_over(self) -> None:
        """Publish what a predecessor had decided."""
        works = await self._means.queue.do(lambda session: session.decided(self.name, self._means.owner, _AT_ONCE))
        for work in works:
            self._publish(asyncio.create_task(self._republish(work)))
        if len(works) == _AT_ONCE:
            await asyncio.wait(self._publishing, return_when=asyncio.FIRST_COMPLETED)
            await self.take_over()

    async def _republish(self, work: Work) -> None:
        try:
            await self._runs.publish(work)
        except Exception:
            log.exception("asynchronous call %s stays as it is until the next start", work.name)
        finally:
            self.changed = True

    # -- ends -----------------------------------------------------------------------------------------------------

    def call_off(self, name: str) -> None:
        """A job has been cancelled: its call is too, if it is under way."""
        found = self._calling.get(name)
        if found is not None:
            found.task.cancel()
        self.changed = True

    async def doom(self) -> None:
        """The endpoint has been deleted: what it was sent until now comes to its end."""
        newest = await self._means.queue.do(lambda session: session.page(self.name, (), 0, 1))
        self._doomed_to = newest[0].id if newest else 0
        under_way = [self._calling.pop(name) for name in list(self._calling)]
        for call in under_way:
            call.task.cancel()
        await _over([call.task for call in under_way])
        for call in under_way:
            self._begin(call.work, "")

    async def rest(self, seconds: float) -> None:
        """Take nothing more; let what is under way finish, and hand back what has not within ``seconds``."""
        self._resting = True
        end = time.monotonic() + seconds
        calls = [call.task for call in self._calling.values()]
        if calls or self._publishing:
            await asyncio.wait([*calls, *self._publishing], timeout=max(0.0, end - time.monotonic()))
        left = [self._calling.pop(name) for name in list(self._calling)]
        under_way = [*(call.task for call in left), *self._publishing]
        for task in under_way:
            task.cancel()
        await _over(under_way)
        if left:
            works = [call.work for call in left]
            await self._means.queue.do(lambda session: [session.give_back(work) for work in works])

    def close(self) -> None:
        """Take nothing more."""
        self._feeding.cancel()


async def _over(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
