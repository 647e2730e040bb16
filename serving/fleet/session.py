"""A session of the store over a database connection: named statements in, records out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from serving.database import CANNOT_BE_KEPT
from serving.errors import InternalFailure, ValidationError
from serving.fleet import tables, tokens
from serving.fleet.records import MOST_TAGS, AlreadyThere, NotThere, Query, Record, Stale

_SEALED = ("kind", "name", "status", "parent", "facet", "created", "modified", "revision", "body")


class SqlSession:
    """``records.Session`` on one connection, within one transaction. ``secret`` seals page tokens."""

    def __init__(self, connection: Connection, secret: bytes) -> None:
        self._connection = connection
        self._secret = secret

    def get(self, kind: str, name: str) -> Record | None:
        """The record of this name, in whatever case."""
        row = self._connection.execute(tables.GET, _of(kind, name)).first()
        return _record(row) if row else None

    def add(self, record: Record) -> None:
        """Keep a new record. Raises ``AlreadyThere``."""
        if self._exists(record.kind, record.name):  # asked first: PostgreSQL gives up a transaction that fails
            raise AlreadyThere(record.name)
        self._connection.execute(tables.ADD, _row(record))

    def add_all(self, records: Iterable[Record]) -> None:
        """Keep many new records at once. Raises ``AlreadyThere``, after which the transaction is lost."""
        try:
            self._connection.execute(tables.ADD, [_row(record) for record in records])
        except IntegrityError as error:
            raise AlreadyThere("one of the records") from error

    def change(
        self,
        record: Record,
        *,
        now: float,
        body: Mapping[str, Any] | None = None,
        status: str | None = None,
        facet: str | None = None,
    ) -> Record:
        """The record with what is given replaced and ``modified`` = now. Raises ``Stale``."""
        changed = replace(
            record,
            modified=now,
            revision=record.revision + 1,
            body=record.body if body is None else body,
            status=record.status if status is None else status,
            facet=record.facet if facet is None else facet,
        )
        of = _of(record.kind, record.name) | {"of_revision": record.revision, "of_created": record.created}
        if self._connection.execute(tables.CHANGE, of | _row(changed)).rowcount != 1:
            raise Stale(record.name)
        return changed

    def remove(self, kind: str, name: str) -> bool:
        """Forget a record and its tags. False: there was none."""
        return self._connection.execute(tables.REMOVE, _of(kind, name)).rowcount == 1

    def find(self, query: Query) -> tuple[list[Record], str]:
        """A page and the token of the next ("" = no more)."""
        purpose = (query.kind, query.sort_by, query.descending)
        after = tokens.unseal(self._secret, purpose, query.token)
        statement = tables.page(query, after, self._connection.dialect.name)
        rows = self._connection.execute(statement).all()
        shown = rows[: query.limit]
        more = len(rows) > len(shown)
        token = tokens.seal(self._secret, purpose, tables.order_values(shown[-1], query.sort_by)) if more else ""
        return [_record(row) for row in shown], token

    def every(self, kind: str) -> list[Record]:
        """All of a kind, oldest first."""
        return [_record(row) for row in self._connection.execute(tables.EVERY, {"of_kind": kind})]

    def count(self, kind: str, parent: str = "") -> int:
        """How many there are of a kind, or of those with this parent."""
        if not parent:
            return self._connection.execute(tables.COUNT, {"of_kind": kind}).scalar_one()
        return self._connection.execute(
            tables.COUNT_CHILDREN, {"of_kind": kind, "of_parent": parent.lower()}
        ).scalar_one()

    def next_number(self, sequence: str) -> int:
        """1, 2, 3, ...: never the same again."""
        last = self._connection.execute(tables.NUMBER, {"of_name": sequence}).scalar()
        if last is None:
            self._connection.execute(tables.FIRST_NUMBER, {"name": sequence, "last": 1})
            return 1
        self._connection.execute(tables.NEXT_NUMBER, {"of_name": sequence, "last": last + 1})
        return int(last) + 1

    def tags(self, kind: str, name: str) -> list[tuple[str, str]]:
        """A resource's tags in the order they were first given."""
        return [(row.name, row.value) for row in self._connection.execute(tables.TAGS, _of(kind, name))]

    def put_tags(self, kind: str, name: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Add tags; the value of an equal key is overwritten where it stands."""
        if not self._exists(kind, name):
            raise NotThere(name)
        merged = dict(self.tags(kind, name)) | dict(pairs)
        if len(merged) > MOST_TAGS:
            raise ValidationError(f"A resource has at most {MOST_TAGS} tags; with these it would have {len(merged)}.")
        whose = {"kind": kind, "key": name.lower()}
        rows = [whose | {"place": at, "name": key, "value": merged[key]} for at, key in enumerate(merged)]
        self._connection.execute(tables.CLEAR_TAGS, _of(kind, name))
        if rows:
            self._connection.execute(tables.ADD_TAGS, rows)

    def drop_tags(self, kind: str, name: str, keys: Sequence[str]) -> None:
        """Remove the tags of these keys, those that are there."""
        self._connection.execute(tables.DROP_TAGS, _of(kind, name) | {"names": list(keys)})

    def _exists(self, kind: str, name: str) -> bool:
        return self._connection.execute(tables.EXISTS, _of(kind, name)).first() is not None


def _of(kind: str, name: str) -> dict[str, Any]:
    return {"of_kind": kind, "of_key": name.lower()}


def check_seal(row: Row[Any]) -> None:
    """Raises ``InternalFailure`` unless a row is what was once written. (A database notices a page that is torn, not a
    bit that has turned in a value.)"""
    if _seal(row._mapping) != row.seal:
        raise InternalFailure(f"The stored {row.kind} {row.name!r} is damaged.")


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:  # orjson's own is no other
        raise ValidationError(CANNOT_BE_KEPT) from error


def _seal(row: Mapping[Any, Any]) -> int:
    return zlib.crc32(_json([row[name] for name in _SEALED]))


def _row(record: Record) -> dict[str, Any]:
    row = {
        "kind": record.kind,
        "key": record.name.lower(),
        "name": record.name,
        "status": record.status,
        "parent": record.parent,
        "parent_key": record.parent.lower(),
        "facet": record.facet,
        "created": float(record.created),
        "modified": float(record.modified),
        "revision": record.revision,
        "body": _json(record.body).decode(),
    }
    return row | {"seal": _seal(row)}


def _record(row: Row[Any]) -> Record:
    check_seal(row)
    return Record(
        kind=row.kind,
        name=row.name,
        body=orjson.loads(row.body),
        created=row.created,
        modified=row.modified,
        status=row.status,
        parent=row.parent,
        facet=row.facet,
        revision=row.revision,
    )
