"""The tables of the queue and every statement it makes, each by name.

::

    work                                            work_content
    ├─ id          arrival: never given twice       ├─ work, kind   whose payload | answer ──► work, removed with it
    ├─ name        unique                           ├─ content      bytes
    ├─ lane, priority                               └─ seal         their CRC-32
    ├─ label       what its caller calls it
    ├─ repeat, repeat_until                         work_lanes      counts that each transaction keeps right
    ├─ state       see ``work.py``                  ├─ lane
    ├─ attempt, deaths                              ├─ size         open works
    ├─ owner       of the lease, or ""              └─ running      of these: leased or decided
    ├─ queued, due, expires, ended   queue's clock
    ├─ created, started, finished    epoch          work_owners     work_meta
    ├─ payload_size, answer_size                    ├─ owner        ├─ name    schema | clock
    ├─ body, progress, outcome       JSON           └─ beats        └─ value
    └─ seal        CRC-32 of what never changes

A million rows may wait: every question is one range of one index, and most indexes hold only the rows of the states
they are asked about. A partial index is used where the statement says its condition in the same words: the states are
written out in the statements, not passed to them. Large bytes lie apart, because a row is written anew with each change
of its state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Select,
    Subquery,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy import Column as column
from sqlalchemy.dialects import postgresql, sqlite

from serving.jobs.work import State

#: Version of this layout, kept in ``work_meta``. A queue with a higher one is a newer program's.
SCHEMA = 1

metadata = MetaData()

_ID = BigInteger().with_variant(Integer(), "sqlite")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _in(*states: State) -> str:
    return f"state IN ({', '.join(repr(state) for state in states)})"


_OPEN = _in("waiting", "queued", "leased", "decided")
_RUNNING = _in("leased", "decided")
_UNSTARTED = _in("queued", "waiting")
_QUEUED = "state = 'queued'"
_WAITING = "state = 'waiting'"


def _index(name: str, *columns: str, where: str) -> Index:
    """An index of the rows that fulfil a condition."""
    return Index(name, *columns, sqlite_where=literal_column(where), postgresql_where=literal_column(where))


work = Table(
    "work",
    metadata,
    column("id", _ID, primary_key=True),
    column("name", _TEXT, nullable=False, unique=True),
    column("lane", _TEXT, nullable=False),
    column("priority", Integer, nullable=False),
    column("label", _TEXT, nullable=False),
    column("repeat", _TEXT, nullable=False),
    column("repeat_until", Double, nullable=False),
    column("state", _TEXT, nullable=False),
    column("attempt", Integer, nullable=False),
    column("deaths", Integer, nullable=False),
    column("owner", _TEXT, nullable=False),
    column("queued", Double, nullable=False),
    column("due", Double, nullable=False),
    column("expires", Double),
    column("ended", Double),
    column("created", Double, nullable=False),
    column("started", Double),
    column("finished", Double),
    column("payload_size", BigInteger, nullable=False),
    column("answer_size", BigInteger, nullable=False),
    column("seal", BigInteger, nullable=False),
    column("body", Text, nullable=False),
    column("progress", Text),
    column("outcome", Text),
    CheckConstraint(f"{_OPEN} OR {_in('done', 'failed', 'cancelled', 'expired')}", name="a_state_there_is"),
    CheckConstraint(f"({_OPEN}) = (ended IS NULL)", name="only_ended_work_has_an_end"),
    CheckConstraint("state <> 'leased' OR owner <> ''", name="a_lease_has_an_owner"),
    CheckConstraint(f"owner = '' OR {_RUNNING}", name="only_running_work_has_an_owner"),
    CheckConstraint("deaths BETWEEN 0 AND attempt", name="an_attempt_dies_once"),
    _index("work_queue", "lane", "priority", "id", "expires", where=_QUEUED),
    _index("work_waiting", "due", where=_WAITING),
    _index("work_expiring", "expires", where=f"expires IS NOT NULL AND {_UNSTARTED}"),
    _index("work_running", "owner", "lane", "id", where=_RUNNING),
    _index("work_ended", "ended", where="ended IS NOT NULL"),
    _index("work_label", "label", "lane", "id", where="label <> ''"),
    _index("work_repeat", "repeat", "repeat_until", where="repeat <> ''"),
    Index("work_lane", "lane", "state", "id"),
    sqlite_autoincrement=True,  # the number of a row that was removed is no other's: it is half of the fence
)

content = Table(
    "work_content",
    metadata,
    column("work", _ID, ForeignKey("work.id", ondelete="CASCADE"), nullable=False),
    column("kind", _TEXT, nullable=False),
    column("content", LargeBinary, nullable=False),
    column("seal", BigInteger, nullable=False),
    PrimaryKeyConstraint("work", "kind"),
)

lanes = Table(
    "work_lanes",
    metadata,
    column("lane", _TEXT, primary_key=True),
    column("size", BigInteger, nullable=False),
    column("running", BigInteger, nullable=False),
)

owners = Table(
    "work_owners", metadata, column("owner", _TEXT, primary_key=True), column("beats", BigInteger, nullable=False)
)

meta = Table("work_meta", metadata, column("name", _TEXT, primary_key=True), column("value", _TEXT, nullable=False))

# --- statements -----------------------------------------------------------------------------------------------------

_w, _c, _l, _o = work.c, content.c, lanes.c, owners.c


def _is(condition: str) -> ColumnElement[Any]:
    return literal_column(f"({condition})")


def _either(make: Callable[[Any], Insert]) -> dict[str, Insert]:
    """A statement that each database has in its own dialect (its words are the same in both)."""
    return {"sqlite": make(sqlite.insert), "postgresql": make(postgresql.insert)}


#: A name that is there already changes nothing.
PUT = _either(lambda put: put(work).on_conflict_do_nothing(index_elements=["name"]).returning(_w.id))
REPEATED = (
    select(work)
    .where(_w.repeat == bindparam("of_repeat"), _w.repeat != literal_column("''"), _w.repeat_until > bindparam("now"))
    .limit(1)
)
GET = select(work).where(_w.name == bindparam("of_name"))
#: Its row is ours until the end of the transaction, on a database that others may use too.
GET_TO_CHANGE = GET.with_for_update()
LABELLED = (
    select(work)
    .where(_w.label == bindparam("of_label"), _w.label != literal_column("''"), _w.lane == bindparam("of_lane"))
    .order_by(_w.id.desc())
    .limit(1)
)

CONTENT = select(content).where(_c.work.in_(bindparam("works", expanding=True)))
ADD_CONTENT = insert(content)
DROP_CONTENT = delete(content).where(_c.work == bindparam("of_work"), _c.kind == bindparam("of_kind"))
#: The first of a lane, whatever others are taking left out. The choice is made apart (``MATERIALIZED`` by its lock):
#: PostgreSQL may run a limited subquery more than once, and would then lease more than it was asked for.
_NEXT = (
    select(_w.id)
    .where(_w.lane == bindparam("of_lane"), _is(_QUEUED), (_w.expires.is_(None)) | (_w.expires > bindparam("now")))
    .order_by(_w.priority, _w.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("next")
)
LEASE = (
    update(work)
    .where(_w.id.in_(select(_NEXT.c.id)))
    .values(state="leased", attempt=_w.attempt + 1, owner=bindparam("new_owner"), started=bindparam("new_started"))
    .returning(work)
)
_DECIDED = (
    select(_w.id)
    .where(_is(_RUNNING), _w.owner == literal_column("''"), _w.lane == bindparam("of_lane"))
    .order_by(_w.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("ownerless")
)
#: Running work without an owner is decided: a lease has one.
TAKE_OVER = update(work).where(_w.id.in_(select(_DECIDED.c.id))).values(owner=bindparam("new_owner")).returning(work)

#: The attempt that was given out, while its work is in one of these states.
_attempt = (_w.id == bindparam("of_id"), _w.attempt == bindparam("of_attempt"))
CHECKPOINT = update(work).where(*_attempt, _is(_in("leased"))).values(progress=bindparam("new_progress"))
DECIDE = (
    update(work)
    .where(*_attempt, _is(_in("leased")))
    .values(state="decided", outcome=bindparam("new_outcome"), answer_size=bindparam("new_answer_size"))
    .returning(work)
)
DECIDED_BY = select(work).where(*_attempt, _is(_in("decided")), _w.owner == bindparam("of_owner"))
#: ``payload_size`` stays, and is what tells whether there are bytes to drop.
_END = {"owner": "", "ended": bindparam("new_ended"), "finished": bindparam("new_finished")}
FINISH = (
    update(work)
    .where(*_attempt, _is(_RUNNING))
    .values(
        state=bindparam("new_state"),
        outcome=func.coalesce(bindparam("new_outcome", type_=Text), _w.outcome),
        **_END,
    )
    .returning(_w.payload_size)
)
SET_ANSWER_SIZE = update(work).where(_w.id == bindparam("of_id")).values(answer_size=bindparam("new_answer_size"))
RETRY = (
    update(work)
    .where(*_attempt, _is(_in("leased")))
    .values(state=bindparam("new_state"), owner="", due=bindparam("new_due"), deaths=_w.deaths + bindparam("died"))
)
EXPIRE = (
    update(work)
    .where(*_attempt, _is(_UNSTARTED))
    .values(state="expired", outcome=bindparam("new_outcome"), **_END)
    .returning(_w.payload_size)
)
CANCEL = (
    update(work)
    .where(_w.id == bindparam("of_id"))
    .values(state="cancelled", outcome=bindparam("new_outcome"), **_END)
    .returning(work)
)

#: A lane may have a million rows: what is done to all of them is done in slices, the oldest of one state at a time.
_OF_STATE = (_w.lane == bindparam("of_lane"), _w.state == bindparam("of_state"))
_SLICE = select(_w.id).where(*_OF_STATE).order_by(_w.id).limit(bindparam("most")).subquery("slice")
SLICE = select(func.count().label("size"), func.max(_SLICE.c.id).label("last")).select_from(_SLICE)
_sliced = (*_OF_STATE, _w.id <= bindparam("last"))
CANCEL_SLICE = update(work).where(*_sliced).values(state="cancelled", outcome=bindparam("new_outcome"), **_END)
DROP_SLICE_PAYLOADS = delete(content).where(
    _c.kind == literal_column("'payload'"), _c.work.in_(select(_w.id).where(*_sliced, _w.payload_size > 0))
)
FORGET_SLICE = delete(work).where(*_sliced)

_gone = _w.owner.in_(bindparam("gone", expanding=True))
REQUEUE = (
    update(work)
    .where(_is(_RUNNING), _w.state == "leased", _gone)
    .values(state="queued", owner="", deaths=_w.deaths + 1)
    .returning(work)
)
DISOWN = update(work).where(_is(_RUNNING), _w.state == "decided", _gone).values(owner="").returning(work)
OWNERS = (
    select(_w.owner, func.coalesce(_o.beats, 0).label("beats"))
    .join(owners, _o.owner == _w.owner, isouter=True)
    .where(_is(_RUNNING), _w.owner > literal_column("''"))
    .distinct()
)
BEAT = _either(
    lambda put: put(owners).on_conflict_do_update(index_elements=["owner"], set_={"beats": owners.c.beats + 1})
)
DROP_OWNERS = delete(owners).where(_o.owner.in_(bindparam("gone", expanding=True)))
DROP_ALL_OWNERS = delete(owners)

EXPIRED = (
    select(work)
    .where(_w.expires.is_not(None), _is(_UNSTARTED), _w.expires <= bindparam("now"))
    .order_by(_w.expires)
    .limit(bindparam("most"))
)
_RIPE = (
    select(_w.id)
    .where(_is(_WAITING), _w.due <= bindparam("now"))
    .order_by(_w.due)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("ripe")
)
RIPEN = update(work).where(_w.id.in_(select(_RIPE.c.id))).values(state="queued")
NEXT_DUE = select(func.min(_w.due)).where(_is(_WAITING))

_OLD = (
    select(_w.id)
    .where(_w.ended.is_not(None), _w.ended < bindparam("before"))
    .order_by(_w.ended)
    .limit(bindparam("most"))
)
PRUNE = delete(work).where(_w.id.in_(_OLD))

_BEFORE = (
    select(_w.id)
    .where(
        _w.lane == bindparam("of_lane"),
        _is(_QUEUED),
        tuple_(_w.priority, _w.id) < tuple_(bindparam("of_priority"), bindparam("of_id")),
    )
    .limit(bindparam("most"))
    .subquery("before")
)
POSITION = select(func.count()).select_from(_BEFORE)

LANES = select(lanes).where(_l.size > 0)
LANE = select(_l.size, _l.running).where(_l.lane == bindparam("of_lane"))
COUNT = _either(
    lambda put: (new := put(lanes)).on_conflict_do_update(
        index_elements=["lane"],
        set_={"size": lanes.c.size + new.excluded.size, "running": lanes.c.running + new.excluded.running},
    )
)
DROP_LANE = delete(lanes).where(_l.lane == bindparam("of_lane"))
#: What ``work_lanes`` has to say, told from the rows themselves.
RECOUNT = (
    select(_w.lane, _w.state, func.count().label("number"))
    .where(_w.state.in_(("waiting", "queued", "leased", "decided")))
    .group_by(_w.lane, _w.state)
)
DROP_ALL_LANES = delete(lanes)
ADD_LANES = insert(lanes)

#: Rows that are not what was kept. The functions are lent to a SQLite connection by ``database.py``.
DAMAGED_WORK = (
    select(_w.name)
    .where(
        or_(
            _w.seal != func.work_seal(_w.name, _w.lane, _w.priority, _w.label, _w.repeat, _w.body),
            and_(_w.progress.is_not(None), func.is_sound(_w.progress) == 0),
            and_(_w.outcome.is_not(None), func.is_sound(_w.outcome) == 0),
        )
    )
    .limit(1)
)
DAMAGED_CONTENT = select(_w.name).join(content, _c.work == _w.id).where(_c.seal != func.bytes_seal(_c.content)).limit(1)

#: Which rows each index of a SQLite file holds.
INDEXED = {
    "sqlite_autoindex_work_1": "1",
    "work_queue": _QUEUED,
    "work_waiting": _WAITING,
    "work_expiring": f"expires IS NOT NULL AND {_UNSTARTED}",
    "work_running": _RUNNING,
    "work_ended": "ended IS NOT NULL",
    "work_label": "label <> ''",
    "work_repeat": "repeat <> ''",
    "work_lane": "1",
}
_LANE_SUMS = "SELECT lane, state, count(*), sum(id)"
#: The rows in sums, told from the table in one go: by lane and state, then of each index the number of rows and ids.
TABLE_SUMS = text(
    f"{_LANE_SUMS}, {', '.join(f'total({rows}), total(id * ({rows}))' for rows in INDEXED.values())}"
    " FROM work NOT INDEXED GROUP BY lane, state"
)
#: The same told from the indexes.
INDEXED_LANE_SUMS = text(f"{_LANE_SUMS} FROM work INDEXED BY work_lane GROUP BY lane, state")
INDEX_SUMS = {
    index: text(f"SELECT total(1), total(id) FROM work INDEXED BY {index} WHERE {rows}")
    for index, rows in INDEXED.items()
}

SET_META = update(meta).where(meta.c.name == bindparam("of_name")).values(value=bindparam("new_value"))


def _first_of(state: State) -> Subquery:
    """When the oldest work of a state came."""
    of_state = (_w.lane == bindparam("of_lane"), _w.state == state)
    return select(_w.queued).where(*of_state).order_by(_w.id).limit(1).subquery(f"first_{state}")


#: One look at each open state's end of an index, however many rows there are.
OLDEST = select(
    func.min(
        union_all(*(select(_first_of(state).c.queued) for state in ("waiting", "queued", "leased", "decided")))
        .subquery("firsts")
        .c.queued
    )
)


@lru_cache
def page(states: tuple[State, ...], newest_first: bool) -> Select[Any]:
    """Works of a lane in these states beyond a row: a page of each state, of which the first rows of all are taken."""

    def of_state(state: State) -> Subquery:
        beyond = _w.id < bindparam("after") if newest_first else _w.id > bindparam("after")
        order = _w.id.desc() if newest_first else _w.id
        where = (_w.lane == bindparam("of_lane"), _w.state == state, beyond)
        return select(_w.id).where(*where).order_by(order).limit(bindparam("most")).subquery(f"page_{state}")

    ids = union_all(*(select(of_state(state).c.id) for state in states)).subquery("ids").c.id
    shown = select(ids).order_by(ids.desc() if newest_first else ids).limit(bindparam("most")).subquery("shown")
    rows = select(work).join(shown, _w.id == shown.c.id)
    return rows.order_by(_w.id.desc() if newest_first else _w.id)
