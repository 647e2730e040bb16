"""The store beside a plain dict: whatever is done to both, they hold and list the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from serving.errors import ValidationError
from serving.fleet.store import AlreadyThere, NotThere, Query, Record, Stale, Store
from tests import memory
from tests.postgres import Postgres, postgres
from tests.stores import DATABASES, opened, record, url_of, walk

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

NAMES = some.text(alphabet="aAbB%_-", min_size=1, max_size=3)
PARTS = some.text(alphabet="aAb%_", min_size=0, max_size=2)
TIMES = some.sampled_from([0.1, 1.0, 1.5, 2.0])
MAYBE_TIMES = some.none() | TIMES
WORDS = some.sampled_from(["", "One", "Two"])
TAGS = some.lists(some.tuples(some.sampled_from("abAB"), WORDS), max_size=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


class Undone(Exception):
    """Thrown to undo a transaction."""


class StoreBesideDict(RuleBasedStateMachine):
    """Each run has kinds and sequences of its own, so that one store serves them all."""

    store: Store
    runs = count()

    def __init__(self) -> None:
        super().__init__()
        self.kind = f"kind-{next(self.runs)}"
        self.records: dict[str, Record] = {}
        self.seen: list[Record] = []
        self.tags: dict[str, dict[str, str]] = {}
        self.number = 0

    @rule(name=NAMES, at=TIMES, parent=PARTS, status=WORDS, facet=WORDS)
    def add(self, name: str, at: float, parent: str, status: str, facet: str) -> None:
        """A new record, or a name that is taken."""
        new = record(name, kind=self.kind, at=at, parent=parent, status=status, facet=facet)
        if name.lower() in self.records:
            with pytest.raises(AlreadyThere), self.store.write() as session:
                session.add(new)
            return
        with self.store.write() as session:
            session.add(new)
        self.records[name.lower()] = new
        self.tags[name.lower()] = {}
        self.seen.append(new)

    @precondition(lambda self: self.seen)
    @rule(data=some.data(), at=TIMES, status=some.none() | WORDS, body=some.none() | some.just({"B": [1]}))
    def change(self, data: some.DataObject, at: float, status: str | None, body: dict[str, object] | None) -> None:
        """Something that was once seen: fresh, changed since, or gone."""
        old = data.draw(some.sampled_from(self.seen))
        if self.records.get(old.name.lower()) != old:
            with pytest.raises(Stale), self.store.write() as session:
                session.change(old, now=at, status=status, body=body)
            return
        given = {name: value for name, value in (("status", status), ("body", body)) if value is not None}
        expected = replace(old, modified=at, revision=old.revision + 1, **given)
        with self.store.write() as session:
            assert expected == session.change(old, now=at, status=status, body=body)
        self.records[old.name.lower()] = expected
        self.seen.append(expected)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        """There or not. What is gone may not come back under the same times: a clock does not stand still."""
        with self.store.write() as session:
            assert (name.lower() in self.records) == session.remove(self.kind, name)
        if self.records.pop(name.lower(), None):
            del self.tags[name.lower()]
            self.seen = [one for one in self.seen if one.name.lower() != name.lower()]

    @rule(name=NAMES, pairs=TAGS)
    def put_tags(self, name: str, pairs: list[tuple[str, str]]) -> None:
        """On what is there."""
        if name.lower() not in self.records:
            with pytest.raises(NotThere), self.store.write() as session:
                session.put_tags(self.kind, name, pairs)
            return
        with self.store.write() as session:
            session.put_tags(self.kind, name, pairs)
        self.tags[name.lower()] |= dict(pairs)

    @rule(name=NAMES, keys=some.lists(some.sampled_from("abAB")))
    def drop_tags(self, name: str, keys: list[str]) -> None:
        """Those that are there."""
        with self.store.write() as session:
            session.drop_tags(self.kind, name, keys)
        for key in keys:
            self.tags.get(name.lower(), {}).pop(key, None)

    @rule()
    def next_number(self) -> None:
        """One more."""
        self.number += 1
        with self.store.write() as session:
            assert self.number == session.next_number(self.kind)

    @rule(name=NAMES)
    def change_of_mind(self, name: str) -> None:
        """Everything at once, and then not."""
        with pytest.raises(Undone), self.store.write() as session:
            for one in session.every(self.kind):
                session.remove(self.kind, one.name)
            session.add(record(name, kind=self.kind))
            session.put_tags(self.kind, name, [("undone", "")])
            session.next_number(self.kind)
            raise Undone

    @rule()
    def open_again(self) -> None:
        """Nothing is only in memory."""
        self.store.close()
        self.store.open()

    @rule(
        sort_by=some.sampled_from(["Name", "CreationTime", "Status"]),
        descending=some.booleans(),
        limit=some.integers(1, 5),
        contains=PARTS,
        windows=some.tuples(*[MAYBE_TIMES] * 4),
        words=some.tuples(WORDS, PARTS, WORDS, some.sampled_from([None, True, False])),
    )
    def find(self, sort_by: str, descending: bool, limit: int, contains: str, windows: tuple, words: tuple) -> None:
        """Every page of any list."""
        query = Query(self.kind, sort_by, descending, limit, "", contains, *windows, *words)
        assert expected_names(query, list(self.records.values())) == walk(self.store, query)

    @rule(name=NAMES)
    def foreign_token(self, name: str) -> None:
        """A name is no token."""
        with pytest.raises(ValidationError), self.store.read() as session:
            session.find(Query(self.kind, token=name))

    @invariant()
    def the_same(self) -> None:
        """All records and tags, one by one and together."""
        with self.store.read() as session:
            for key, expected in self.records.items():
                assert expected == session.get(self.kind, key.upper())
                assert list(self.tags[key].items()) == session.tags(self.kind, key)
            ordered = sorted(self.records.values(), key=lambda one: (one.created, one.name))
            assert ordered == session.every(self.kind)
            assert len(ordered) == session.count(self.kind)


def expected_names(query: Query, records: list[Record]) -> list[str]:
    """What a list is, in plain words: filter, sort."""

    def within(value: float, after: float | None, before: float | None) -> bool:
        return (after is None or value >= after) and (before is None or value < before)

    kept = [
        one
        for one in records
        if query.name_contains in one.name
        and within(one.created, query.created_after, query.created_before)
        and within(one.modified, query.modified_after, query.modified_before)
        and query.status in ("", one.status)
        and query.parent.lower() in ("", one.parent.lower())
        and query.facet in ("", one.facet)
        and query.has_parent in (None, one.parent != "")
    ]
    orders = {
        "Name": lambda one: one.name,
        "CreationTime": lambda one: (one.created, one.name),
        "Status": lambda one: (one.status, one.name),
    }
    return [one.name for one in sorted(kept, key=orders[query.sort_by], reverse=query.descending)]


@pytest.mark.parametrize("database", DATABASES)
def test_it_is_a_dict_that_lasts(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> None:
    """Hypothesis does what it likes to both."""
    with opened(url_of(request, database, tmp_path)) as store:
        machine = type("Machine", (StoreBesideDict,), {"store": store})
        run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))
