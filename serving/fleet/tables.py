"""The tables of the store and every statement it makes, each by name.

::

    resources                                       tags
    ├─ id          number of the row                ├─ kind, key   whose ──► resources, removed with it
    ├─ kind        model, endpoint, ...  ┐ unique   ├─ place       order in which it was first given
    ├─ key         name in lower case    ┘          ├─ name
    ├─ name        as it was given                  └─ value
    ├─ status, parent, parent_key, facet
    ├─ created, modified   epoch seconds            sequences            meta
    ├─ revision    counts changes                   ├─ name              ├─ name    schema | secret
    ├─ body        JSON                             └─ last              └─ value
    └─ seal        CRC-32 of the row

A list must not read 100,000 bodies to find ten: every order a list can have is an index that also holds what lists
filter by, so that only the rows of the page itself are fetched. Names sort by their bytes on every database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    Select,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy import Column as column

from serving.fleet.records import Query

#: Version of this layout, kept in ``meta``. A store with a higher one is a newer program's.
SCHEMA = 1

metadata = MetaData()

_ID = BigInteger().with_variant(Integer(), "sqlite")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _order(name: str, *columns: str) -> Index:
    """An order a list can have. SQLite's indexes hold the number of the row anyway."""
    return Index(name, "kind", *columns, postgresql_include=["id"])


resources = Table(
    "resources",
    metadata,
    column("id", _ID, primary_key=True),
    column("kind", _TEXT, nullable=False),
    column("key", _TEXT, nullable=False),
    column("name", _TEXT, nullable=False),
    column("status", _TEXT, nullable=False),
    column("parent", _TEXT, nullable=False),
    column("parent_key", _TEXT, nullable=False),
    column("facet", _TEXT, nullable=False),
    column("created", Double, nullable=False),
    column("modified", Double, nullable=False),
    column("revision", BigInteger, nullable=False),
    column("body", Text, nullable=False),
    column("seal", BigInteger, nullable=False),
    UniqueConstraint("kind", "key"),
    _order("resources_by_creation", "created", "name", "modified", "status", "parent_key", "facet"),
    _order("resources_by_name", "name", "created", "modified", "status", "parent_key", "facet"),
    _order("resources_by_status", "status", "name", "created", "modified", "parent_key", "facet"),
    Index("resources_by_parent", "kind", "parent_key"),
)

tags = Table(
    "tags",
    metadata,
    column("kind", _TEXT, nullable=False),
    column("key", _TEXT, nullable=False),
    column("place", Integer, nullable=False),
    column("name", _TEXT, nullable=False),
    column("value", _TEXT, nullable=False),
    PrimaryKeyConstraint("kind", "key", "name"),
    ForeignKeyConstraint(["kind", "key"], ["resources.kind", "resources.key"], ondelete="CASCADE"),
)

sequences = Table(
    "sequences", metadata, column("name", _TEXT, primary_key=True), column("last", BigInteger, nullable=False)
)

meta = Table("meta", metadata, column("name", _TEXT, primary_key=True), column("value", _TEXT, nullable=False))

# --- statements -----------------------------------------------------------------------------------------------------

_r = resources.c
_this = (_r.kind == bindparam("of_kind"), _r.key == bindparam("of_key"))

GET = select(resources).where(*_this)
EXISTS = select(_r.id).where(*_this)
ADD = insert(resources)
#: The times of creation tell a record from one of the same name that was removed and made again.
CHANGE = update(resources).where(*_this, _r.revision == bindparam("of_revision"), _r.created == bindparam("of_created"))
ALL = select(resources)
REMOVE = delete(resources).where(*_this)
EVERY = select(resources).where(_r.kind == bindparam("of_kind")).order_by(_r.created, _r.name)
COUNT = select(func.count()).select_from(resources).where(_r.kind == bindparam("of_kind"))
COUNT_CHILDREN = COUNT.where(_r.parent_key == bindparam("of_parent"))

_t = tags.c
_tags_of = (_t.kind == bindparam("of_kind"), _t.key == bindparam("of_key"))

TAGS = select(_t.name, _t.value).where(*_tags_of).order_by(_t.place)
ADD_TAGS = insert(tags)
CLEAR_TAGS = delete(tags).where(*_tags_of)
DROP_TAGS = CLEAR_TAGS.where(_t.name.in_(bindparam("names", expanding=True)))

NUMBER = select(sequences.c.last).where(sequences.c.name == bindparam("of_name"))
FIRST_NUMBER = insert(sequences)
NEXT_NUMBER = update(sequences).where(sequences.c.name == bindparam("of_name"))

#: What a list can be sorted by -> the columns of its order. The name makes every order strict.
ORDERS: dict[str, tuple[str, ...]] = {
    "Name": ("name",),
    "CreationTime": ("created", "name"),
    "Status": ("status", "name"),
}


def page(query: Query, after: Sequence[Any], dialect: str) -> Select[Any]:
    """One row more than the page of ``query`` that comes after the row whose order columns hold ``after`` (none: the
    first page)."""
    order = [_r[name] for name in ORDERS[query.sort_by]]
    where = [_r.kind == query.kind, *_filters(query, dialect)]
    if after:
        where.append(tuple_(*order) < tuple_(*after) if query.descending else tuple_(*order) > tuple_(*after))
    sorting = [one.desc() if query.descending else one.asc() for one in order]
    ids = select(_r.id).where(*where).order_by(*sorting).limit(query.limit + 1).subquery("page")
    return select(resources).join(ids, _r.id == ids.c.id).order_by(*sorting)


def _filters(query: Query, dialect: str) -> list[ColumnElement[bool]]:
    # LIKE minds no case on SQLite and has wildcards: both databases know a plain search by its own name.
    position = {"sqlite": func.instr, "postgresql": func.strpos}[dialect]
    conditions: tuple[tuple[object, Callable[[], ColumnElement[bool]]], ...] = (
        (query.name_contains, lambda: position(_r.name, query.name_contains) > 0),
        (query.created_after is not None, lambda: _r.created >= query.created_after),
        (query.created_before is not None, lambda: _r.created < query.created_before),
        (query.modified_after is not None, lambda: _r.modified >= query.modified_after),
        (query.modified_before is not None, lambda: _r.modified < query.modified_before),
        (query.status, lambda: _r.status == query.status),
        (query.parent, lambda: _r.parent_key == query.parent.lower()),
        (query.facet, lambda: _r.facet == query.facet),
        (query.has_parent is True, lambda: _r.parent_key != ""),
        (query.has_parent is False, lambda: _r.parent_key == ""),
    )
    return [condition() for wanted, condition in conditions if wanted]


def order_values(row: Row[Any], sort_by: str) -> list[Any]:
    """What ``page`` needs of a row to go on after it."""
    return [row._mapping[name] for name in ORDERS[sort_by]]
