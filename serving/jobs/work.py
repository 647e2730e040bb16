"""One unit of work that answers later, and what the queue promises about it. No database is known here.

Asynchronous calls, the input objects of a transform job and notifications are all rows of one table, told apart by
their *lane*: ``async/ENDPOINT``, ``transform/JOB``, ``outbox``.

::

                 put                     lease                    decide                    finish
    (nothing) ────────► queued ─────────────────────► leased ────────────────► decided ────────────────► done
                        ▲ │  ▲                        │ │ │                  (the answer is durable;     failed
           ripen: its   │ │  │ rescue: the owner is   │ │ │ finish            publishing it may be
           time comes   │ │  └─── gone; give_back ────┘ │ └───────────────►   repeated, never redone)
                     waiting ◄──────── retry ───────────┘
                        │ │
                        │ └── expire: too long in the queue ──► expired
                        └──── cancel (also of leased work) ───► cancelled

``lease`` counts the attempt; the attempt is the fence: ``checkpoint``, ``decide``, ``finish``, ``retry`` and
``give_back`` of an attempt that is no longer the newest, or whose work was cancelled, do nothing and say so. Once work
is ``decided`` what it came to cannot change any more, whoever publishes it.

Times named ``due``, ``expires`` and ``queued`` are seconds of the queue's own clock, which wall-clock jumps do not move
(``jobs/clock.py``); ``created``, ``started`` and ``finished`` are epoch seconds, for people to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

State = Literal["waiting", "queued", "leased", "decided", "done", "failed", "cancelled", "expired"]
OPEN: frozenset[State] = frozenset({"waiting", "queued", "leased", "decided"})
RUNNING: frozenset[State] = frozenset({"leased", "decided"})
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled", "expired"})

#: Lower goes first; within a priority, first come first served.
FIRST_PRIORITY, USUAL_PRIORITY, LAST_PRIORITY = 0, 5, 9


#: Works of a lane that one transaction ends at most, so that nobody else waits long for theirs.
SLICE = 10_000


@dataclass(frozen=True, slots=True)
class NewWork:
    """Work to be put into the queue. ``name`` is unique for ever: putting it again changes nothing. ``label``: what its
    caller calls it (InferenceId), not unique. ``repeat``: two puts with the same non-empty one, within
    ``repeat_seconds``, are one. ``pause``: seconds until it may start; ``expires_in``: seconds it may wait to start, or
    0 = for ever. ``body``: JSON values; ``payload``: bytes that are dropped when the work has ended."""

    name: str
    lane: str
    body: Mapping[str, Any]
    payload: bytes = b""
    label: str = ""
    priority: int = USUAL_PRIORITY
    pause: float = 0.0
    expires_in: float = 0.0
    repeat: str = ""
    repeat_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Work:
    """A row of the queue as it was read. ``attempt``: how often it was leased, and the fence of the newest lease.
    ``deaths``: attempts that ended with their owner or worker. ``progress``: what ``checkpoint`` kept. ``outcome`` and
    ``answer``: what ``decide`` or ``finish`` kept."""

    id: int
    name: str
    lane: str
    state: State
    priority: int
    label: str
    body: Mapping[str, Any] = field(hash=False)
    payload: bytes
    attempt: int
    deaths: int
    owner: str
    progress: Mapping[str, Any] | None = field(hash=False)
    outcome: Mapping[str, Any] | None = field(hash=False)
    answer: bytes
    queued: float
    due: float
    expires: float
    created: float
    started: float | None
    finished: float | None


class Put(NamedTuple):
    """``work`` is in the queue: newly, or (``again``) it was there before under this name or ``repeat``."""

    work: Work
    again: bool


class Backlog(NamedTuple):
    """Open work of a lane: how many in all, how many of them leased or decided, and how many seconds the oldest has
    been there (0.0 = none is)."""

    size: int
    running: int
    oldest_age: float


class QueueSession(Protocol):
    """One transaction of the queue; what raises in it has changed nothing."""

    def put(self, new: NewWork) -> Put:
        """Put work into the queue, once per name and per ``repeat``."""

    def put_all(self, new: Sequence[NewWork]) -> int:
        """Put many at once; returns how many were not there yet. ``repeat`` is not looked at."""

    def lease(self, lane: str, owner: str, most: int) -> list[Work]:
        """Take up to ``most`` queued works of a lane, in order of (priority, arrival); they are ``leased`` now and
        theirs is the next attempt. On PostgreSQL rows that others are taking are skipped."""

    def decided(self, lane: str, owner: str, most: int) -> list[Work]:
        """Take over decided work that no living owner is publishing."""

    def beat(self, owner: str) -> None:
        """The owner of leases lives."""

    def rescue(self, owners: Iterable[str]) -> list[Work]:
        """These owners are gone: what they had leased is queued again in its old place, with one death more; what they
        had decided waits to be taken over. Returns the works as they are now."""

    def owners(self) -> dict[str, int]:
        """Everyone who holds leases or decided work, and the count of their beats."""

    def checkpoint(self, work: Work, progress: Mapping[str, Any]) -> bool:
        """Keep how far this attempt got. False: the attempt is no longer the newest."""

    def decide(self, work: Work, outcome: Mapping[str, Any], answer: bytes = b"") -> Work | None:
        """What this attempt came to, for good; it has still to be published. None: not the newest attempt."""

    def finish(
        self,
        work: Work,
        state: State,
        outcome: Mapping[str, Any] | None = None,
        answer: bytes | None = None,
        also: Sequence[NewWork] = (),
    ) -> bool:
        """Leased or decided work has ended as ``done`` or ``failed``; ``also`` is put in the same transaction. What is
        None stays as it was. False: not the newest attempt, or ended already; then ``also`` is not put."""

    def retry(self, work: Work, pause: float, died: bool = False) -> bool:
        """Try again after ``pause`` seconds, in its old place. ``died``: it may have ended its worker."""

    def give_back(self, work: Work) -> bool:
        """Queue leased work again as if it had not been leased (its attempt stays counted): we are stopping."""

    def cancel(self, name: str, outcome: Mapping[str, Any], also: Sequence[NewWork] = ()) -> Work | None:
        """Cancel open work that is not decided. The work as it is now; None: there is none of this name. ``also`` is
        put only when it was cancelled by this call."""

    def cancel_lane(self, lane: str, outcome: Mapping[str, Any], most: int = SLICE) -> int:
        """Cancel up to ``most`` works of a lane that are open and not decided; how many that was. Call it until that is
        0: a lane may have a million, and nobody else should wait for all of them."""

    def expired(self, most: int) -> list[Work]:
        """Queued and waiting works whose time to start is over, still as they were (see ``expire``)."""

    def expire(self, work: Work, outcome: Mapping[str, Any], also: Sequence[NewWork] = ()) -> bool:
        """End unstarted work as ``expired``. False: it has started or ended meanwhile."""

    def ripen(self) -> float | None:
        """Queue what has waited long enough. Seconds until the next has; None: nothing waits."""

    def get(self, name: str) -> Work | None:
        """The work of this name."""

    def labelled(self, lane: str, label: str) -> Work | None:
        """The newest work of a lane that its caller calls so."""

    def page(
        self, lane: str, states: Iterable[State] = (), after: int = 0, most: int = 100, newest_first: bool = True
    ) -> list[Work]:
        """Works of a lane in order of arrival, beyond the row ``after`` (0 = from the start). Without payloads and
        answers."""

    def position(self, work: Work) -> int:
        """How many queued works of its lane go before it; counted up to 10,000."""

    def backlog(self, lane: str) -> Backlog:
        """What is open in a lane, told from one index."""

    def lanes(self) -> list[str]:
        """Lanes with open work."""

    def forget(self, lane: str, most: int = SLICE) -> int:
        """Remove up to ``most`` works of a lane; how many that was. Call it until that is 0."""

    def prune(self, older_than: float, most: int) -> int:
        """Remove up to ``most`` works that ended before (epoch seconds)."""
