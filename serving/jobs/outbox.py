"""The outbox: notifications are rows of the queue's lane ``outbox`` until their receivers have them.

Delivered at least once, under one id (the work's name): the row ends only after the receiver took the message, so a
crash between the two repeats it. What was not taken is tried again after 1 s, 2 s, 4 s, … 5 minutes; after a day of
such pauses it is a dead letter: its row ends as ``failed``, with the reason, and that is logged.

One receiver holds up no others. Few sends at a time go to one; a receiver that is away is left alone for a while, and
what is for it waits in the queue; one that is slow may fill only a small part of the desk.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from serving.errors import ServingError
from serving.jobs.notices import LANE
from serving.jobs.notifier import Notifier, Undelivered, receiver_of
from serving.jobs.patience import patiently
from serving.jobs.queue import QueueThread
from serving.jobs.work import QueueSession, Work

__all__ = ["Notifier", "Undelivered", "deliver_forever"]

#: Sends at once, and to one receiver.
PARALLEL, PER_RECEIVER = 8, 2
#: Notifications in memory, and of one slow receiver.
HELD, HELD_PER_SLOW = 64, 8
#: Seconds between tries, and of pauses after which a notification is given up.
FIRST_PAUSE, LONGEST_PAUSE, GIVE_UP_AFTER = 1.0, 300.0, 86_400.0
#: Seconds without an answer that make a receiver slow; what is for it then waits so long elsewhere, at least.
SLOW_AFTER, SLOW_PAUSE = 1.0, 5.0
#: Seconds between looks into the queue when nobody tells, and that sends under way have left when we are to stop.
IDLE_SECONDS, GRACE_SECONDS = 1.0, 5.0

log = logging.getLogger("serving.outbox")


async def deliver_forever(
    queue: QueueThread,
    notifier: Notifier,
    owner: str,
    *,
    wake: asyncio.Event | None = None,
    given_up: Callable[[Work], None] = lambda work: None,
) -> None:
    """Deliver what is in the outbox until cancelled; what has not been sent by then is handed back.

    ``wake``: set it when something was put, to have it sent at once. ``given_up`` is told of every dead letter. The
    rescue of what earlier owners had leased, and this owner's own beats, are the caller's business."""
    await _Outbox(queue, notifier, owner, wake or asyncio.Event(), given_up).run()


# --- decisions ------------------------------------------------------------------------------------------------------


def pause_after(failures: int, dice: float) -> float:
    """Seconds until the next try after so many failures in a row; up to a fifth less by ``dice`` (0.0 to 1.0), so that
    many do not come back at once."""
    return min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE) * (1 - dice / 5)


class Verdict(NamedTuple):
    """What becomes of a notification. ``kept``: the outcome of one that has ended; the progress of one that is tried
    again ``later``: how often it was tried, and the seconds of all its pauses."""

    state: Literal["done", "failed", "later"]
    kept: Mapping[str, Any]
    pause: float = 0.0


def after_send(work: Work, failure: Undelivered | None, dice: float) -> Verdict:
    """It was tried; ``failure``: in vain."""
    tries, waited = _so_far(work)
    if failure is None:
        return Verdict("done", {"tries": tries + 1})
    if failure.permanent or waited >= GIVE_UP_AFTER:
        return Verdict("failed", {"tries": tries + 1, "reason": failure.reason})
    pause = pause_after(tries + 1, dice)
    return Verdict("later", {"tries": tries + 1, "waited": waited + pause, "reason": failure.reason}, pause)


def after_wait(work: Work, pause: float) -> Verdict:
    """It was not tried, as its receiver is away or has enough to do."""
    tries, waited = _so_far(work)
    reason = (work.progress or {}).get("reason", "The receiver was away.")
    if waited >= GIVE_UP_AFTER:
        return Verdict("failed", {"tries": tries, "reason": reason})
    return Verdict("later", {"tries": tries, "waited": waited + pause, "reason": reason}, pause)


def _so_far(work: Work) -> tuple[int, float]:
    progress = work.progress or {}
    return int(progress.get("tries", 0)), float(progress.get("waited", 0.0))


@dataclass
class Receiver:
    """What is known of one: what waits to be sent to it, how many sends are under way, since when it has not answered,
    how often in a row it was away, and until when it is left alone (seconds of a steady clock)."""

    waiting: deque[Work] = field(default_factory=deque)
    sending: int = 0
    silent_since: float = 0.0
    failures: int = 0
    left_alone: float = 0.0

    def is_slow(self, now: float) -> bool:
        """It makes us wait."""
        return self.sending > 0 and now - self.silent_since > SLOW_AFTER

    def elsewhere(self, now: float, dice: float) -> float:
        """Seconds that what is for it waits in the queue: not all for the same, the longer it has been away the more
        widely apart."""
        return max(self.left_alone - now, FIRST_PAUSE) + dice * max(pause_after(self.failures, 0.0), SLOW_PAUSE)


class Desk:
    """Who is next: first come first served, but nobody behind a receiver that is away or slow. ``now``: seconds of a
    steady clock; ``dice``: 0.0 to 1.0."""

    def __init__(self) -> None:
        self.held: dict[int, Work] = {}
        self._receivers: defaultdict[str, Receiver] = defaultdict(Receiver)
        self._sending = 0

    @property
    def room(self) -> int:
        """How many more could be taken in."""
        return max(HELD - len(self.held), 0)

    def take(self, work: Work, now: float, dice: float) -> float | None:
        """Take work in; or the seconds it is to wait in the queue instead."""
        receiver = self._receivers[_receiver(work)]
        if receiver.left_alone > now or (receiver.is_slow(now) and len(receiver.waiting) >= HELD_PER_SLOW):
            return receiver.elsewhere(now, dice)
        receiver.waiting.append(work)
        self.held[work.id] = work
        return None

    def next(self, now: float) -> Work | None:
        """What to send now. A receiver that was away gets one at a time until it has answered."""
        if self._sending >= PARALLEL:
            return None
        for receiver in self._receivers.values():
            if receiver.waiting and receiver.sending < (1 if receiver.failures else PER_RECEIVER):
                if not receiver.sending:
                    receiver.silent_since = now
                receiver.sending += 1
                self._sending += 1
                return receiver.waiting.popleft()
        return None

    def sent(self, work: Work, away: bool, now: float, dice: float) -> list[tuple[Work, float]]:
        """A send has ended; ``away``: nobody was there. Which others are to wait in the queue now, and how long."""
        name = _receiver(work)
        receiver = self._receivers.pop(name)
        self._receivers[name] = receiver  # at the end of the row
        receiver.sending -= 1
        self._sending -= 1
        receiver.silent_since = now
        receiver.failures = receiver.failures + 1 if away else 0
        receiver.left_alone = now + pause_after(receiver.failures, dice) if away else 0.0
        self._forget(now)
        return self._elsewhere(receiver, 0, now, dice) if away else []

    def crowd(self, now: float, dice: float) -> list[tuple[Work, float]]:
        """There is no room: what of slow receivers is to wait in the queue, and how long."""
        return [
            one
            for receiver in self._receivers.values()
            if receiver.is_slow(now)
            for one in self._elsewhere(receiver, HELD_PER_SLOW, now, dice)
        ]

    def drop(self, work: Work) -> None:
        """What becomes of it is on the disk."""
        self.held.pop(work.id, None)

    def _elsewhere(self, receiver: Receiver, keep: int, now: float, dice: float) -> list[tuple[Work, float]]:
        gone = [receiver.waiting.pop() for _ in range(len(receiver.waiting) - keep)]
        return [
            (work, receiver.elsewhere(now, (dice + number / len(gone)) % 1))
            for number, work in enumerate(reversed(gone))
        ]

    def _forget(self, now: float) -> None:
        """A receiver that nothing waits for, and that was not away lately, is as good as new."""
        for name, one in list(self._receivers.items()):
            if not one.sending and not one.waiting and one.left_alone <= now - (LONGEST_PAUSE if one.failures else 0):
                del self._receivers[name]


def _receiver(work: Work) -> str:
    return receiver_of(str(work.body.get("topic", "")))


# --- acts -----------------------------------------------------------------------------------------------------------


class _Outbox:
    """The loop beside the desk: lease, send, and keep what came of it."""

    def __init__(
        self,
        queue: QueueThread,
        notifier: Notifier,
        owner: str,
        wake: asyncio.Event,
        given_up: Callable[[Work], None],
    ) -> None:
        self._queue = queue
        self._notifier = notifier
        self._owner = owner
        self._wake = wake
        self._given_up = given_up
        self._desk = Desk()
        self._sends: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(PARALLEL, "outbox")
        self._unsure = False

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._wake.clear()
                pause = await self._look()
                while work := self._desk.next(time.monotonic()):
                    self._send(work)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):  # wait_for of Python 3.11 can lose our being cancelled
                        await self._wake.wait()
        finally:
            await self._stop()

    async def _look(self) -> float:
        """Take in what there is room for; seconds until there may be more."""
        if not self._desk.room:
            await self._put_off(self._desk.crowd(time.monotonic(), random.random()))
        if not self._desk.room:
            return IDLE_SECONDS
        try:
            works, due = await self._queue.do(self._lease)
        except ServingError as error:
            if not self._unsure:
                log.warning("the outbox cannot be read now: %s", error.message)
            self._unsure = True  # whether anything was leased is not known
            return IDLE_SECONDS
        self._unsure = False
        now = time.monotonic()
        taken = [(work, self._desk.take(work, now, random.random())) for work in works]
        later = [(work, pause) for work, pause in taken if pause is not None]
        await self._put_off(later)
        return 0.0 if later else min(IDLE_SECONDS, IDLE_SECONDS if due is None else due)

    def _lease(self, session: QueueSession) -> tuple[list[Work], float | None]:
        if self._unsure:
            for work in session.page(LANE, ("leased",), most=10_000):
                if work.owner == self._owner and work.id not in self._desk.held:
                    session.give_back(work)
        due = session.ripen()
        return session.lease(LANE, self._owner, self._desk.room), due

    def _send(self, work: Work) -> None:
        task = asyncio.create_task(self._deliver(work))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _deliver(self, work: Work) -> None:
        """Send one, and keep what came of it. Its receiver and the others go on meanwhile."""
        failure: Undelivered | None = None
        try:
            send = asyncio.get_running_loop().run_in_executor(
                self._threads, self._notifier.send, str(work.body["topic"]), work.body["message"], work.name
            )
            await send
        except Undelivered as error:
            failure = error
        except Exception:
            log.exception("notification %s", work.name)
            failure = Undelivered("An internal failure occurred.", permanent=False)
        away = failure is not None and failure.away
        others = self._desk.sent(work, away, time.monotonic(), random.random())
        self._wake.set()
        await self._keep([(work, after_send(work, failure, random.random()))])
        await self._put_off(others)

    async def _put_off(self, later: Sequence[tuple[Work, float]]) -> None:
        await self._keep([(work, after_wait(work, pause)) for work, pause in later])

    async def _keep(self, verdicts: Sequence[tuple[Work, Verdict]]) -> None:
        """Put what becomes of some on the disk, whenever that can be done."""
        if not verdicts:
            return
        kept = await patiently("the outbox", lambda: self._queue.do(lambda session: _write(session, verdicts)))
        for (work, verdict), is_ours in zip(verdicts, kept, strict=True):
            self._desk.drop(work)
            if is_ours and verdict.state == "failed":
                log.error("notification %s is given up: %s", work.name, verdict.kept["reason"])
                self._given_up(work)
        self._wake.set()

    async def _stop(self) -> None:
        if self._sends:
            await asyncio.wait(self._sends, timeout=GRACE_SECONDS)
        for task in self._sends:
            task.cancel()
        rest = list(self._desk.held.values())
        with suppress(ServingError):  # then they are rescued by whoever owns the queue next
            await self._queue.do(lambda session: [session.give_back(work) for work in rest])
        self._threads.shutdown(wait=False, cancel_futures=True)


def _write(session: QueueSession, verdicts: Sequence[tuple[Work, Verdict]]) -> list[bool]:
    """Whether each was still ours to decide."""
    return [_write_one(session, work, verdict) for work, verdict in verdicts]


def _write_one(session: QueueSession, work: Work, verdict: Verdict) -> bool:
    if verdict.state != "later":
        return session.finish(work, verdict.state, verdict.kept)
    return session.checkpoint(work, verdict.kept) and session.retry(work, verdict.pause)
