"""A session of the queue over a database connection: named statements in, works out."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson
from sqlalchemy import Connection, Row

from serving.database import CANNOT_BE_KEPT
from serving.errors import InternalFailure, ValidationError
from serving.jobs import tables
from serving.jobs.clock import QueueTime
from serving.jobs.work import ENDED, OPEN, RUNNING, SLICE, Backlog, NewWork, Put, State, Work

#: Rows that one statement takes at most, and works that ``position`` counts.
_MOST, _FURTHEST = 10_000, 10_000
#: In their order: the parameters of a statement, and of ``page``'s cache.
_STATES: tuple[State, ...] = ("waiting", "queued", "leased", "decided", "done", "failed", "cancelled", "expired")
_FIRST_ROW, _LAST_ROW = 0, 2**63 - 1


class SqlQueueSession:
    """``work.QueueSession`` on one connection, within one transaction. ``settle`` is its last act."""

    def __init__(self, connection: Connection, time: QueueTime) -> None:
        self._connection = connection
        self._time = time
        self._dialect = connection.dialect.name
        self._wrote = False
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    # --- into the queue ---------------------------------------------------------------------------------------------

    def put(self, new: NewWork) -> Put:
        """Put work into the queue, once per name and per ``repeat``."""
        if new.repeat:
            known = {"of_repeat": new.repeat, "now": self._time.now()}
            if there := self._one(tables.REPEATED, **known):
                return Put(there, again=True)
        return self._put_once(new)

    def _put_once(self, new: NewWork) -> Put:
        row = self._row(new)
        number = self._connection.execute(tables.PUT[self._dialect], row).scalar()
        if number is None:
            taken = self.get(new.name)
            assert taken is not None  # its name is
            return Put(taken, again=True)
        self._add_content(number, "payload", new.payload)
        self._count(new.lane, 1, 0)
        return Put(_new_work(number, new, row), again=False)

    def put_all(self, new: Sequence[NewWork]) -> int:
        """Put many at once; returns how many were not there yet. ``repeat`` is not looked at."""
        return sum(self._put_many(lane, list(works)) for lane, works in groupby(new, key=lambda one: one.lane))

    def _put_many(self, lane: str, new: list[NewWork]) -> int:
        if any(one.payload for one in new):  # a payload is kept by the number of its row
            return sum(not self._put_once(one).again for one in new)
        added = 0
        for start in range(0, len(new), _MOST):
            rows = [self._row(one) for one in new[start : start + _MOST]]
            added += len(self._connection.execute(tables.PUT[self._dialect], rows).all())
        self._count(lane, added, 0)
        return added

    # --- attempts ---------------------------------------------------------------------------------------------------

    def lease(self, lane: str, owner: str, most: int) -> list[Work]:
        """Take up to ``most`` queued works of a lane, in order of (priority, arrival), whose time to start is not over;
        they are ``leased`` now and theirs is the next attempt. On PostgreSQL rows that others are taking are skipped.
        """
        time = {"now": self._time.now(), "new_started": self._time.wall()}
        asked = {"of_lane": lane, "most": most, "new_owner": owner, **time}
        rows = self._connection.execute(tables.LEASE, asked).all()
        self._count(lane, 0, len(rows))
        return self._whole(sorted(rows, key=lambda row: (row.priority, row.id)))

    def decided(self, lane: str, owner: str, most: int) -> list[Work]:
        """Take over decided work that no living owner is publishing."""
        rows = self._connection.execute(tables.TAKE_OVER, {"of_lane": lane, "most": most, "new_owner": owner}).all()
        return self._whole(sorted(rows, key=lambda row: int(row.id)))

    def beat(self, owner: str) -> None:
        """The owner of leases lives."""
        self._connection.execute(tables.BEAT[self._dialect], {"owner": owner, "beats": 1})
        self._wrote = True

    def rescue(self, owners: Iterable[str]) -> list[Work]:
        """These owners are gone: what they had leased is queued again in its old place, with one death more; what they
        had decided waits to be taken over. Returns the works as they are now."""
        gone = {"gone": list(owners)}
        leased = self._connection.execute(tables.REQUEUE, gone).all()
        for row in leased:
            self._count(row.lane, 0, -1)
        decided = self._connection.execute(tables.DISOWN, gone).all()
        self._connection.execute(tables.DROP_OWNERS, gone)
        return self._whole(sorted([*leased, *decided], key=lambda row: int(row.id)))

    def owners(self) -> dict[str, int]:
        """Everyone who holds leases or decided work, and the count of their beats."""
        return {row.owner: row.beats for row in self._connection.execute(tables.OWNERS)}

    def checkpoint(self, work: Work, progress: Mapping[str, Any]) -> bool:
        """Keep how far this attempt got. False: the attempt is no longer the newest."""
        return self._changes(tables.CHECKPOINT, work, new_progress=_sealed(progress))

    def decide(self, work: Work, outcome: Mapping[str, Any], answer: bytes = b"") -> Work | None:
        """What this attempt came to, for good; it has still to be published. None: not the newest attempt. Asked again
        by the owner (who may not have heard the answer), it tells what was decided first."""
        kept = _fence(work) | {"new_outcome": _sealed(outcome), "new_answer_size": len(answer)}
        row = self._connection.execute(tables.DECIDE, kept).first()
        if row is None:
            return self._one(tables.DECIDED_BY, **_fence(work), of_owner=work.owner)
        self._add_content(work.id, "answer", answer)
        return self._whole([row])[0]

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
        if state not in ("done", "failed"):
            raise ValueError(f"work does not finish as {state}")
        kept = None if outcome is None else _sealed(outcome)
        if not self._ends(tables.FINISH, work, new_state=state, new_outcome=kept):
            return False
        if answer is not None:
            self._connection.execute(tables.DROP_CONTENT, {"of_work": work.id, "of_kind": "answer"})
            self._add_content(work.id, "answer", answer)
            self._connection.execute(tables.SET_ANSWER_SIZE, {"of_id": work.id, "new_answer_size": len(answer)})
        self._count(work.lane, -1, -1)
        self._put_also(also)
        return True

    def retry(self, work: Work, pause: float, died: bool = False) -> bool:
        """Try again after ``pause`` seconds, in its old place. ``died``: it may have ended its worker."""
        state = "waiting" if pause > 0 else "queued"
        done = self._changes(tables.RETRY, work, new_state=state, new_due=self._time.now() + pause, died=int(died))
        return done and self._count(work.lane, 0, -1)

    def give_back(self, work: Work) -> bool:
        """Queue leased work again as if it had not been leased (its attempt stays counted): we are stopping."""
        done = self._changes(tables.RETRY, work, new_state="queued", new_due=work.due, died=0)
        return done and self._count(work.lane, 0, -1)

    # --- ends -------------------------------------------------------------------------------------------------------

    def cancel(self, name: str, outcome: Mapping[str, Any], also: Sequence[NewWork] = ()) -> Work | None:
        """Cancel open work that is not decided. The work as it is now; None: there is none of this name. ``also`` is
        put only when it was cancelled by this call."""
        row = self._connection.execute(tables.GET_TO_CHANGE, {"of_name": name}).first()
        if row is None:
            return None
        if row.state in OPEN and row.state != "decided":
            asked = {"of_id": row.id, "new_outcome": _sealed(outcome), **self._end()}
            self._count(row.lane, -1, -int(row.state == "leased"))
            row = self._connection.execute(tables.CANCEL, asked).one()
            self._drop_payload(row.id, row.payload_size)
            self._put_also(also)
        return self._whole([row])[0]

    def cancel_lane(self, lane: str, outcome: Mapping[str, Any], most: int = SLICE) -> int:
        """Cancel up to ``most`` works of a lane that are open and not decided; how many that was. Call it until that is
        0: a lane may have a million, and nobody else should wait for all of them."""
        ending = {"new_outcome": _sealed(outcome), **self._end()}

        def cancel(of: dict[str, Any]) -> None:
            self._connection.execute(tables.DROP_SLICE_PAYLOADS, of)
            self._connection.execute(tables.CANCEL_SLICE, of | ending)

        return self._slices(lane, ("waiting", "queued", "leased"), most, cancel)

    def expired(self, most: int) -> list[Work]:
        """Queued and waiting works whose time to start is over, still as they were (see ``expire``)."""
        rows = self._connection.execute(tables.EXPIRED, {"now": self._time.now(), "most": most}).all()
        return self._whole(rows)

    def expire(self, work: Work, outcome: Mapping[str, Any], also: Sequence[NewWork] = ()) -> bool:
        """End unstarted work as ``expired``. False: it has started or ended meanwhile."""
        if not self._ends(tables.EXPIRE, work, new_outcome=_sealed(outcome)):
            return False
        self._count(work.lane, -1, 0)
        self._put_also(also)
        return True

    def ripen(self) -> float | None:
        """Queue what has waited long enough. Seconds until the next has (0.0: there is more to queue at once); None:
        nothing waits."""
        self._connection.execute(tables.RIPEN, {"now": self._time.now(), "most": _MOST})
        due = self._connection.execute(tables.NEXT_DUE).scalar()
        return None if due is None else max(0.0, due - self._time.now())

    def forget(self, lane: str, most: int = SLICE) -> int:
        """Remove up to ``most`` works of a lane; how many that was. Call it until that is 0."""
        removed = self._slices(lane, _STATES, most, lambda of: self._connection.execute(tables.FORGET_SLICE, of))
        if removed < most:  # nothing is left: nor what counted it
            self._connection.execute(tables.DROP_LANE, {"of_lane": lane})
            self._counts.pop(lane, None)
        return removed

    def _slices(self, lane: str, states: Iterable[State], most: int, end: Callable[[dict[str, Any]], object]) -> int:
        """End works of a lane, state by state; how many that was."""
        done = 0
        for state in states:
            of = {"of_lane": lane, "of_state": state}
            size, last = self._connection.execute(tables.SLICE, of | {"most": most - done}).one()
            if size:
                end(of | {"last": last})
                self._count(lane, -size if state in OPEN else 0, -size if state in RUNNING else 0)
                done += size
        return done

    def prune(self, older_than: float, most: int) -> int:
        """Remove up to ``most`` works that ended before (epoch seconds). How long ago that is counts, not what the wall
        clock showed when they ended."""
        before = self._time.now() - (self._time.wall() - older_than)
        removed: int = self._connection.execute(tables.PRUNE, {"before": before, "most": most}).rowcount
        return removed

    # --- questions --------------------------------------------------------------------------------------------------

    def get(self, name: str) -> Work | None:
        """The work of this name."""
        return self._one(tables.GET, of_name=name)

    def labelled(self, lane: str, label: str) -> Work | None:
        """The newest work of a lane that its caller calls so."""
        return self._one(tables.LABELLED, of_lane=lane, of_label=label)

    def page(
        self, lane: str, states: Iterable[State] = (), after: int = 0, most: int = 100, newest_first: bool = True
    ) -> list[Work]:
        """Works of a lane in order of arrival, beyond the row ``after`` (0 = from the start). Without payloads and
        answers."""
        wanted = frozenset(states) or OPEN | ENDED
        statement = tables.page(tuple(state for state in _STATES if state in wanted), newest_first)
        start = _LAST_ROW if newest_first else _FIRST_ROW
        rows = self._connection.execute(statement, {"of_lane": lane, "after": after or start, "most": most})
        return [_work(row) for row in rows]

    def position(self, work: Work) -> int:
        """How many queued works of its lane go before it; counted up to 10,000. 0 once it has started."""
        if work.state not in ("queued", "waiting"):
            return 0
        asked = {"of_lane": work.lane, "of_priority": work.priority, "of_id": work.id, "most": _FURTHEST}
        return int(self._connection.execute(tables.POSITION, asked).scalar_one())

    def backlog(self, lane: str) -> Backlog:
        """What is open in a lane, told from one index."""
        self._write_counts()
        row = self._connection.execute(tables.LANE, {"of_lane": lane}).first()
        if row is None or not row.size:
            return Backlog(0, 0, 0.0)
        oldest = self._connection.execute(tables.OLDEST, {"of_lane": lane}).scalar_one()
        return Backlog(row.size, row.running, max(0.0, self._time.now() - oldest))

    def lanes(self) -> list[str]:
        """Lanes with open work."""
        self._write_counts()
        return sorted(row.lane for row in self._connection.execute(tables.LANES))

    # --- the transaction --------------------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Write what the session owes: the counts of the lanes it changed. Whether it changed any."""
        self._write_counts()
        return self._wrote

    def _write_counts(self) -> None:
        changes = [
            {"lane": lane, "size": size, "running": running}
            for lane, (size, running) in sorted(self._counts.items())
            if size or running
        ]
        if changes:
            self._connection.execute(tables.COUNT[self._dialect], changes)
            self._wrote = True
        self._counts.clear()

    def _count(self, lane: str, size: int, running: int) -> bool:
        counts = self._counts[lane]
        counts[0] += size
        counts[1] += running
        return True

    def _changes(self, statement: Any, work: Work, **values: Any) -> bool:
        """Whether a fenced statement took effect."""
        return self._connection.execute(statement, _fence(work) | values).rowcount == 1

    def _ends(self, statement: Any, work: Work, **values: Any) -> bool:
        """Whether a fenced statement ended the work; its payload is gone then."""
        row = self._connection.execute(statement, _fence(work) | values | self._end()).first()
        if row is not None:
            self._drop_payload(work.id, row.payload_size)
        return row is not None

    def _put_also(self, also: Sequence[NewWork]) -> None:
        for one in also:
            self.put(one)

    def _end(self) -> dict[str, float]:
        return {"new_ended": self._time.now(), "new_finished": self._time.wall()}

    # --- rows -------------------------------------------------------------------------------------------------------

    def _row(self, new: NewWork) -> dict[str, Any]:
        now = self._time.now()
        row = {
            "name": new.name,
            "lane": new.lane,
            "priority": new.priority,
            "label": new.label,
            "repeat": new.repeat,
            "repeat_until": now + new.repeat_seconds if new.repeat else now,
            "state": "waiting" if new.pause > 0 else "queued",
            "attempt": 0,
            "deaths": 0,
            "owner": "",
            "queued": now,
            "due": now + max(0.0, new.pause),
            "expires": now + new.expires_in if new.expires_in > 0 else None,
            "created": self._time.wall(),
            "payload_size": len(new.payload),
            "answer_size": 0,
            "body": _json(new.body),
        }
        sealed: Any = [row[name] for name in SEALED]
        return row | {"seal": seal(*sealed)}

    def _add_content(self, number: int, kind: str, content: bytes) -> None:
        if content:
            row = {"work": number, "kind": kind, "content": content, "seal": seal_bytes(content)}
            self._connection.execute(tables.ADD_CONTENT, row)

    def _drop_payload(self, number: int, size: int) -> None:
        if size:
            self._connection.execute(tables.DROP_CONTENT, {"of_work": number, "of_kind": "payload"})

    def _one(self, statement: Any, **values: Any) -> Work | None:
        row = self._connection.execute(statement, values).first()
        return self._whole([row])[0] if row is not None else None

    def _whole(self, rows: Sequence[Row[Any]]) -> list[Work]:
        """Works with their payloads and answers."""
        heavy = [row.id for row in rows if row.payload_size or row.answer_size]
        contents = dict(self._contents(heavy)) if heavy else {}
        return [
            _work(row, contents.get((row.id, "payload"), b""), contents.get((row.id, "answer"), b"")) for row in rows
        ]

    def _contents(self, numbers: list[int]) -> Iterator[tuple[tuple[int, str], bytes]]:
        for row in self._connection.execute(tables.CONTENT, {"works": numbers}):
            if seal_bytes(row.content) != row.seal:
                raise InternalFailure(f"The {row.kind} of queued work {row.work} is damaged.")
            yield (row.work, row.kind), row.content


# --- values and rows ------------------------------------------------------------------------------------------------

#: What of a row never changes, and is sealed. (A database notices a page that is torn, not a bit that has turned.)
SEALED = ("name", "lane", "priority", "label", "repeat", "body")


def seal(name: str, lane: str, priority: int, label: str, repeat: str, body: str) -> int:
    """The CRC-32 of what never changes of a work."""
    return zlib.crc32("\0".join((name, lane, str(priority), label, repeat, body)).encode())


def seal_bytes(content: bytes) -> int:
    """The CRC-32 of a payload or an answer."""
    return zlib.crc32(content)


def is_sound(text: str) -> bool:
    """Whether a progress or an outcome is what was kept: JSON behind its CRC-32 in eight digits."""
    return text[:8] == f"{zlib.crc32(text[8:].encode()):08x}"


def _sealed(value: Mapping[str, Any]) -> str:
    text = _json(value)
    return f"{zlib.crc32(text.encode()):08x}{text}"


def _unsealed(row: Row[Any], text: str | None) -> Any:
    if text is None:
        return None
    if not is_sound(text):
        raise _damaged(row)
    return orjson.loads(text[8:])


def _damaged(row: Row[Any]) -> InternalFailure:
    return InternalFailure(f"The queued work {row.name!r} is damaged.")


def _fence(work: Work) -> dict[str, int]:
    return {"of_id": work.id, "of_attempt": work.attempt}


def _json(value: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:  # orjson's own is no other
        raise ValidationError(CANNOT_BE_KEPT) from error


def _new_work(number: int, new: NewWork, row: Mapping[str, Any]) -> Work:
    return Work(
        id=number,
        name=new.name,
        lane=new.lane,
        state=row["state"],
        priority=new.priority,
        label=new.label,
        body=new.body,
        payload=new.payload,
        attempt=0,
        deaths=0,
        owner="",
        progress=None,
        outcome=None,
        answer=b"",
        queued=row["queued"],
        due=row["due"],
        expires=row["expires"] or 0.0,
        created=row["created"],
        started=None,
        finished=None,
    )


def _work(row: Row[Any], payload: bytes = b"", answer: bytes = b"") -> Work:
    if seal(row.name, row.lane, row.priority, row.label, row.repeat, row.body) != row.seal:
        raise _damaged(row)
    return Work(
        id=row.id,
        name=row.name,
        lane=row.lane,
        state=row.state,
        priority=row.priority,
        label=row.label,
        body=orjson.loads(row.body),
        payload=payload,
        attempt=row.attempt,
        deaths=row.deaths,
        owner=row.owner,
        progress=_unsealed(row, row.progress),
        outcome=_unsealed(row, row.outcome),
        answer=answer,
        queued=row.queued,
        due=row.due,
        expires=row.expires or 0.0,
        created=row.created,
        started=row.started,
        finished=row.finished,
    )
