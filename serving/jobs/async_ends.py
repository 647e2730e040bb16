"""Ends of jobs that were never run to one: expired, cancelled.

Such a job ends in its row at once; its failure object and its notice follow. What is still to be done is a work of its
own, put in the same transaction (lane ``endings``), so that it is done whatever happens, and only then.
"""

from __future__ import annotations

import asyncio
import logging

from serving.errors import ServingError
from serving.jobs import notices
from serving.jobs.async_calls import PREFIX, Failed, Outcome, failure
from serving.jobs.async_runs import Means, until_done
from serving.jobs.work import NewWork, QueueSession, Work

LANE = "endings"
_MOST = 64
#: Of the works whose time is over, so many are ended in one transaction.
MOST_EXPIRED = 500
#: After the queue could not be asked, or a defect of ours.
_PAUSE_SECONDS, _LONG_PAUSE_SECONDS = 1.0, 30.0

log = logging.getLogger("serving.jobs")


def cancelled(work: Work, variant: str) -> Outcome:
    """The outcome of a job that its caller does not want any more."""
    reason = "The request was cancelled."
    return failure(work, Failed(f"ClientError: {reason}", reason, ""), variant, "Cancelled")


def expired(work: Work, variant: str) -> Outcome:
    """The outcome of a job that waited too long."""
    reason = f"The request expired: it waited for more than {work.body['ttl']} s (RequestTTLSeconds)."
    return failure(work, Failed(f"ClientError: {reason}", reason, "expired"), variant, "Expired")


def ending(work: Work, outcome: Outcome, region: str, now: float) -> NewWork:
    """What is left to be done for a job that ended so. ``now``: epoch seconds."""
    text = outcome.reason.removeprefix("ClientError: ")
    told = notices.of_result(work, outcome, text.encode(), region, now)
    body = {
        "location": outcome.location,
        "text": text,
        "notices": [{"name": one.name, "body": dict(one.body)} for one in told],
        "spooled": str(work.body.get("spooled", "")),
    }
    return NewWork(f"ending-{work.name}", LANE, body)


def end_expired(session: QueueSession, means: Means, now: float) -> list[tuple[Work, Outcome]]:
    """End the calls that have waited too long. ``now``: epoch seconds. Returns them, and what they came to."""
    ended = []
    for work in session.expired(MOST_EXPIRED):
        if work.lane.startswith(PREFIX):
            outcome = expired(work, means.variant_of(str(work.body["endpoint"])))
            if session.expire(work, outcome.row(), [ending(work, outcome, means.settings.region, now)]):
                ended.append((work, outcome))
    return ended


class EndingConsumer:
    """Does what is left to be done."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsure = False

    def start(self) -> None:
        """Begin with what predecessors left."""
        self._wanted.set()
        self._task = asyncio.create_task(self._forever())

    def wake(self) -> None:
        """There is something to do."""
        self._wanted.set()

    async def rest(self) -> None:
        """Start nothing more. What is under way is done again by a successor."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def close(self) -> None:
        """The end."""
        if self._task is not None:
            self._task.cancel()

    async def _forever(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._work_off()
            except Exception as error:
                known = isinstance(error, ServingError)
                log.warning("ends of asynchronous calls have to wait: %s", error, exc_info=not known)
                self._unsure = True
                asyncio.get_running_loop().call_later(_PAUSE_SECONDS if known else _LONG_PAUSE_SECONDS, self.wake)

    async def _work_off(self) -> None:
        while works := await self._means.queue.do(self._lease):
            self._unsure = False
            failures = await asyncio.gather(*map(self._end, works), return_exceptions=True)
            for lost in failures:
                if isinstance(lost, BaseException):
                    raise lost

    def _lease(self, session: QueueSession) -> list[Work]:
        owner = self._means.owner
        if self._unsure:  # nothing of ours is under way: what is leased was lost between the queue and us
            for work in session.page(LANE, ["leased"], 0, _MOST, newest_first=False):
                if work.owner == owner:
                    session.give_back(work)
        return session.lease(LANE, owner, _MOST)

    async def _end(self, work: Work) -> None:
        body, means = work.body, self._means
        if body["location"]:
            what = f"the upload of {body['location']}"
            text = str(body["text"]).encode()
            try:
                await until_done(what, lambda: means.files.put(str(body["location"]), text, "text/plain"))
            except ServingError as error:
                log.error("%s cannot be written: %s", body["location"], error.message)
        also = [NewWork(one["name"], notices.LANE, one["body"]) for one in body["notices"]]
        await until_done(what=work.name, act=lambda: means.queue.do(lambda s: s.finish(work, "done", also=also)))
        if also:
            means.on_notice()
        await means.files.discard(str(body["spooled"]))
