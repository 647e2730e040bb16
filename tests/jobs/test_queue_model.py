"""The queue beside a plain list: whatever is done to both, they hold, order and count the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from serving.jobs.queue import Queue
from serving.jobs.work import NewWork, Work
from tests import memory
from tests.postgres import Postgres, postgres
from tests.queues import DATABASES, Hands, names, opened, url_of

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

LANES = some.sampled_from(["one", "two"])
NAMES = some.sampled_from("abcdefgh")
OWNERS = some.sampled_from(["me", "you"])
SOME = some.integers(1, 3)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


class Undone(Exception):
    """Thrown to undo a transaction."""


@dataclass
class Row:
    """What the plain list knows of a work."""

    name: str
    lane: str
    priority: int
    queued: float
    due: float
    expires: float
    state: str
    attempt: int = 0
    deaths: int = 0
    owner: str = ""
    outcome: str | None = None
    ended: float = field(default=0.0)


class QueueBesideList(RuleBasedStateMachine):
    """Each run has lanes and names of its own, so that one queue serves them all."""

    queue: Queue
    hands: Hands
    runs = count()

    def __init__(self) -> None:
        super().__init__()
        self.run = next(self.runs)
        self.rows: list[Row] = []
        self.given: list[Work] = []  # every attempt that was ever given out

    def own(self, name: str) -> str:
        """A lane, a name or an owner of this run."""
        return f"{self.run} {name}"

    def rows_of(self, lane: str, *states: str) -> list[Row]:
        """In order of arrival."""
        return [row for row in self.rows if row.lane == self.own(lane) and (not states or row.state in states)]

    def row(self, name: str) -> Row | None:
        """By its full name."""
        return next((row for row in self.rows if row.name == name), None)

    def end(self, row: Row, state: str, outcome: str | None) -> None:
        """A work has ended."""
        row.state, row.owner, row.ended = state, "", self.queue.now()
        row.outcome = row.outcome if outcome is None else outcome

    def current(self, work: Work, *states: str) -> Row | None:
        """The row, if the attempt is its newest and its state one of these."""
        row = self.row(work.name)
        return row if row and row.attempt == work.attempt and row.state in states else None

    @rule(lane=LANES, name=NAMES, priority=SOME, pause=some.sampled_from([0.0, 5.0]), expires=some.sampled_from([0, 9]))
    def put(self, lane: str, name: str, priority: int, pause: float, expires: float) -> None:
        """Once per name."""
        there, now = self.row(self.own(name)), self.queue.now()
        new = NewWork(self.own(name), self.own(lane), {}, b"x", "", priority, pause, expires)
        with self.queue.transaction() as session:
            assert (there is not None) == session.put(new).again
        if not there:
            state = "waiting" if pause else "queued"
            until = now + expires if expires else 0.0
            self.rows.append(Row(new.name, new.lane, priority, now, now + pause, until, state))

    @rule(lane=LANES, owner=OWNERS, most=SOME)
    def lease(self, lane: str, owner: str, most: int) -> None:
        """In order of priority and arrival; nothing whose time is over."""
        ready = [row for row in self.rows_of(lane, "queued") if not row.expires or row.expires > self.queue.now()]
        expected = sorted(ready, key=lambda row: row.priority)[:most]
        with self.queue.transaction() as session:
            works = session.lease(self.own(lane), self.own(owner), most)
        assert [row.name for row in expected] == names(works)
        for row in expected:
            row.state, row.owner, row.attempt = "leased", self.own(owner), row.attempt + 1
        self.given += works

    @rule(lane=LANES, owner=OWNERS, most=SOME)
    def take_over(self, lane: str, owner: str, most: int) -> None:
        """What is decided and nobody's."""
        expected = [row for row in self.rows_of(lane, "decided") if not row.owner][:most]
        with self.queue.transaction() as session:
            works = session.decided(self.own(lane), self.own(owner), most)
        assert [row.name for row in expected] == names(works)
        for row in expected:
            row.owner = self.own(owner)
        self.given += works

    @rule(owner=OWNERS)
    def rescue(self, owner: str) -> None:
        """An owner is gone."""
        left = [row for row in self.rows if row.owner == self.own(owner)]
        with self.queue.transaction() as session:
            assert [row.name for row in left] == names(session.rescue([self.own(owner)]))
        for row in left:
            row.owner, row.deaths = "", row.deaths + (row.state == "leased")
            row.state = "queued" if row.state == "leased" else row.state

    @rule(data=some.data(), act=some.sampled_from(["decide", "finish", "retry", "retry now", "give back"]))
    def attempt(self, data: some.DataObject, act: str) -> None:
        """Any attempt there ever was does something: only the newest can."""
        if not self.given:
            return
        work = data.draw(some.sampled_from(self.given))
        row = self.current(work, "leased", *(["decided"] if act == "finish" else []))
        same = self.current(work, "decided")
        again = act == "decide" and same is not None and same.owner == work.owner
        with self.queue.transaction() as session:
            done: object = {
                "decide": lambda: session.decide(work, {"": work.owner}),
                "finish": lambda: session.finish(work, "done"),
                "retry": lambda: session.retry(work, 5.0, died=True),
                "retry now": lambda: session.retry(work, 0.0),
                "give back": lambda: session.give_back(work),
            }[act]()
        assert (row is not None or again) == bool(done)
        if row is None:
            return
        if act == "decide":
            row.state, row.outcome = "decided", work.owner
        elif act == "finish":
            self.end(row, "done", None)
        else:
            row.state, row.owner = ("waiting" if act == "retry" else "queued"), ""
            row.deaths += act == "retry"
            row.due = row.due if act == "give back" else self.queue.now() + (5.0 if act == "retry" else 0.0)

    @rule(name=NAMES)
    def cancel(self, name: str) -> None:
        """One work."""
        row = self.row(self.own(name))
        with self.queue.transaction() as session:
            work = session.cancel(self.own(name), {"": "cancel"})
        if row and row.state in ("waiting", "queued", "leased"):
            self.end(row, "cancelled", "cancel")
        assert (row and row.state) == (work and work.state)

    @rule(lane=LANES)
    def cancel_lane(self, lane: str) -> None:
        """All that is not decided."""
        rows = self.rows_of(lane, "waiting", "queued", "leased")
        with self.queue.transaction() as session:
            assert len(rows) == session.cancel_lane(self.own(lane), {"": "lane"})
        for row in rows:
            self.end(row, "cancelled", "lane")

    @rule(most=SOME)
    def expire(self, most: int) -> None:
        """What waited too long."""
        with self.queue.transaction() as session:
            works = [work for work in session.expired(1000) if work.name.startswith(f"{self.run} ")][:most]
            assert all(session.expire(work, {"": "late"}) for work in works)
        late = [
            row
            for row in sorted(self.rows, key=lambda row: row.expires)
            if row.expires and row.expires <= self.queue.now() and row.state in ("queued", "waiting")
        ]
        assert len(late[:most]) == len(works)
        for work in works:
            row = self.row(work.name)
            assert row in late
            self.end(row, "expired", "late")

    @rule(seconds=some.sampled_from([0.0, 1.0, 5.0]), jump=some.sampled_from([0.0, 86_400.0, -86_400.0]))
    def ripen(self, seconds: float, jump: float) -> None:
        """Time passes, whatever the wall clock shows."""
        self.hands.wait(seconds)
        self.hands.wall += jump
        with self.queue.transaction() as session:
            session.ripen()
        for row in self.rows:
            if row.state == "waiting" and row.due <= self.queue.now():
                row.state = "queued"

    @rule(lane=LANES)
    def forget(self, lane: str) -> None:
        """A lane is gone; what was given out of it is late for ever."""
        rows = self.rows_of(lane)
        with self.queue.transaction() as session:
            assert len(rows) == session.forget(self.own(lane))
        self.rows = [row for row in self.rows if row not in rows]

    @rule(lane=LANES, name=NAMES)
    def undo(self, lane: str, name: str) -> None:
        """What is undone has not been."""
        with pytest.raises(Undone), self.queue.transaction() as session:
            session.put(NewWork(self.own(name), self.own(lane), {}))
            session.lease(self.own(lane), self.own("me"), 5)
            session.cancel_lane(self.own(lane), {})
            session.forget(self.own("two"))
            raise Undone

    @invariant()
    def they_hold_the_same(self) -> None:
        """Every row, every count, every order."""
        with self.queue.transaction() as session:
            for lane in ("one", "two"):
                rows = self.rows_of(lane)
                shown = [
                    Row(one.name, one.lane, one.priority, one.queued, one.due, one.expires, one.state, one.attempt,
                        one.deaths, one.owner, (one.outcome or {"": None})[""])
                    for one in session.page(self.own(lane), newest_first=False, most=100)
                ]  # fmt: skip
                for row, seen in zip(rows, shown, strict=True):
                    seen.ended = row.ended
                    assert row == seen
                is_open = self.rows_of(lane, "waiting", "queued", "leased", "decided")
                oldest = min((row.queued for row in is_open), default=self.queue.now())
                running = len(self.rows_of(lane, "leased", "decided"))
                assert (len(is_open), running, self.queue.now() - oldest) == session.backlog(self.own(lane))
                assert (self.own(lane) in session.lanes()) == bool(is_open)
            owners = {row.owner for row in self.rows if row.owner}
            assert owners == {owner for owner in session.owners() if owner.startswith(f"{self.run} ")}


@pytest.mark.parametrize("database", DATABASES)
def test_the_queue_behaves_as_a_list(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> None:
    """Whatever is done to it, in any order."""
    hands, examples = Hands(), {"sqlite": 25, "postgresql": 5}[database]
    with opened(url_of(request, database, tmp_path), hands) as queue:
        machine = type("Machine", (QueueBesideList,), {"queue": queue, "hands": hands})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None)
        )
