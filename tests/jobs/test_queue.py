"""The queue's contract, over every database: what is put is done in order, by one attempt, and can be found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as some

from serving.errors import ServiceUnavailable, ValidationError
from serving.jobs.queue import Queue
from serving.jobs.work import ENDED, OPEN, Backlog, NewWork, QueueSession, State, Work
from tests import memory
from tests.queues import DATABASES, LANE, Hands, backlog, names, new, one, opened, put, take, url_of

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

DAY = 86_400.0

# --- put ------------------------------------------------------------------------------------------------------------


def test_work_comes_back_as_it_was_put(queue: Queue, hands: Hands) -> None:
    """Every field, whatever JSON the body and whatever bytes the payload hold."""
    body = {"Text": "ä \U0001f600 'quoted' \"twice\"", "List": [1, 2.5, None, True, {"a": {}}], "Big": 2**53}
    given = NewWork("a", LANE, body, b"\0\xff bytes", label="theirs", priority=3, expires_in=60.0)
    hands.wait(5.0)
    (work,) = put(queue, given)
    assert (body, b"\0\xff bytes", "theirs", 3, "queued") == (
        work.body,
        work.payload,
        work.label,
        work.priority,
        work.state,
    )
    assert (5.0, 5.0, 65.0, hands.wall) == (work.queued, work.due, work.expires, work.created)
    assert (0, 0, "", None, None, b"") == (
        work.attempt,
        work.deaths,
        work.owner,
        work.progress,
        work.outcome,
        work.answer,
    )
    assert work == one(queue, "a")


def test_a_name_is_put_once(queue: Queue) -> None:
    """Putting it again changes nothing and tells what is there, in whatever state."""
    put(queue, new("a"))
    (leased,) = take(queue)
    with queue.transaction() as session:
        again = session.put(new("a", body={"Other": 1}, payload=b"other"))
    assert (leased, True) == again
    with queue.transaction() as session:
        session.finish(leased, "done")
        assert session.put(new("a")).work.state == "done"
        assert Backlog(0, 0, 0.0) == session.backlog(LANE)


def test_a_repeat_is_the_same_work_until_its_time_is_over(queue: Queue, hands: Hands) -> None:
    """Within 900 seconds, even when it has ended meanwhile; then it is new work."""
    put(queue, new("a", repeat="call-1"))
    with queue.transaction() as session:
        session.cancel("a", {})
    hands.wait(899.0)
    with queue.transaction() as session:
        work, again = session.put(new("b", repeat="call-1"))
        assert ("a", True) == (work.name, again)
        assert not session.put(new("c", repeat="call-2")).again
    hands.wait(2.0)
    with queue.transaction() as session:
        assert not session.put(new("b", repeat="call-1")).again
        assert session.put(new("d", repeat="call-1")).work.name == "b"


def test_no_repeat_is_no_repeat(queue: Queue) -> None:
    """Works without one are all different."""
    assert ["a", "b"] == names(put(queue, new("a"), new("b")))


def test_many_are_put_at_once(queue: Queue) -> None:
    """Those that are there already are not counted; order, payloads and lanes are kept."""
    put(queue, new("b"))
    many = [new("a"), new("b"), new("c", payload=b"3"), new("x", lane="outbox"), new("d")]
    with queue.transaction() as session:
        assert 4 == session.put_all(many)
        assert 0 == session.put_all(many)
        assert 0 == session.put_all([])
        assert (4, 1) == (session.backlog(LANE).size, session.backlog("outbox").size)
        assert ["b", "a", "c", "d"] == names(session.page(LANE, newest_first=False))
    assert b"3" == one(queue, "c").payload


def test_what_raises_has_changed_nothing(queue: Queue) -> None:
    """Nor what is counted."""
    put(queue, new("a"))
    with pytest.raises(KeyError), queue.transaction() as session:
        session.put(new("b"))
        session.lease(LANE, "me", 1)
        raise KeyError
    assert Backlog(1, 0, 0.0) == backlog(queue)
    assert "queued" == one(queue, "a").state


@pytest.mark.parametrize("body", [{"a": "\ud800"}, {"a": 2**64}, {"a": object()}])
def test_what_cannot_be_kept_is_refused(queue: Queue, body: dict[str, Any]) -> None:
    """A character or a number that JSON or the database does not have is the caller's mistake."""
    with pytest.raises(ValidationError, match="cannot be kept"), queue.transaction() as session:
        session.put(new("a", body=body))
    with pytest.raises(ValidationError, match="cannot be kept"), queue.transaction() as session:
        session.put(new("a", label="\ud800"))
    assert Backlog(0, 0, 0.0) == backlog(queue)


# --- lease ----------------------------------------------------------------------------------------------------------


def test_work_starts_in_order(queue: Queue) -> None:
    """Of priority, then of arrival; of this lane only; no more than asked for."""
    put(queue, new("a"), new("b", priority=9), new("c", priority=0), new("d"), new("x", lane="outbox"))
    assert ["c", "a"] == names(take(queue, 2))
    assert ["d", "b"] == names(take(queue, 5))
    assert [] == take(queue, 5)
    assert ["x"] == names(take(queue, 5, lane="outbox"))


def test_a_lease_counts_the_attempt(queue: Queue, hands: Hands) -> None:
    """It has an owner and the time it started, and brings the payload."""
    put(queue, new("a", payload=b"bytes"))
    hands.wait(3.0)
    (work,) = take(queue)
    assert ("leased", 1, "me", hands.wall, b"bytes") == (
        work.state,
        work.attempt,
        work.owner,
        work.started,
        work.payload,
    )
    assert work == one(queue, "a")


def test_work_whose_time_to_start_is_over_is_not_leased(queue: Queue, hands: Hands) -> None:
    """Even before it is expired; what came after it is."""
    put(queue, new("a", expires_in=60.0), new("b"))
    hands.wait(60.0)
    assert ["b"] == names(take(queue, 2))


def test_owners_are_those_who_hold_something(queue: Queue) -> None:
    """With their beats, leased or decided; a beat alone makes no owner."""
    put(queue, new("a"), new("b"))
    take(queue, owner="one")
    (work,) = take(queue, owner="two")
    with queue.transaction() as session:
        session.decide(work, {})
        session.beat("two")
        session.beat("two")
        session.beat("idle")
        assert {"one": 0, "two": 2} == session.owners()
        session.finish(work, "done")
        assert {"one": 0} == session.owners()


def test_what_an_owner_left_is_rescued(queue: Queue) -> None:
    """Leased work is queued again in its old place with one death more; decided work waits to be taken over."""
    put(queue, new("a", payload=b"a"), new("b"), new("c"), new("d"))
    first, second = take(queue, 2, owner="gone")
    (third,) = take(queue, owner="here")
    with queue.transaction() as session:
        session.beat("gone")
        session.decide(second, {"Status": 200}, b"answer")
        saved = session.rescue(["gone", "nobody"])
        assert [("a", "queued", 1, "", b"a"), ("b", "decided", 0, "", b"")] == [
            (work.name, work.state, work.deaths, work.owner, work.payload) for work in saved
        ]
        assert {"here": 0} == session.owners()
        assert (4, 2) == session.backlog(LANE)[:2]
        assert [] == session.rescue(["gone"])
        assert [] == session.rescue([])
    assert [("a", 2), ("d", 1)] == [(work.name, work.attempt) for work in take(queue, 2)]
    assert third == one(queue, "c")
    assert first.attempt == 1


def test_decided_work_is_taken_over_once(queue: Queue) -> None:
    """With what it came to; its attempt stays, and whoever publishes it may finish it."""
    put(queue, new("a"), new("b"))
    old, other = take(queue, 2, owner="gone")
    with queue.transaction() as session:
        session.decide(old, {"Status": 200}, b"answer")
        assert [] == session.decided(LANE, "me", 5)
        session.rescue(["gone"])
        (work,) = session.decided(LANE, "me", 5)
        assert ("me", 1, {"Status": 200}, b"answer") == (work.owner, work.attempt, work.outcome, work.answer)
        assert [] == session.decided(LANE, "me", 5)
        assert session.finish(old, "done", also=[new("first", lane="outbox")])
        assert not session.finish(work, "done", also=[new("second", lane="outbox")])
        assert ["first"] == names(session.page("outbox"))
    assert "queued" == one(queue, other.name).state


# --- questions ------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_none(queue: Queue) -> None:
    """No work, no lane, no backlog."""
    with queue.transaction() as session:
        assert session.get("nobody") is None
        assert session.labelled(LANE, "nobody") is None
        assert session.labelled(LANE, "") is None
        assert [] == session.page(LANE)
        assert [] == session.lanes()
        assert Backlog(0, 0, 0.0) == session.backlog(LANE)
        assert session.ripen() is None
        assert 0 == session.forget(LANE)
        assert 0 == session.prune(2e9, 10)


def test_a_label_finds_its_newest_work(queue: Queue) -> None:
    """In its lane."""
    put(queue, new("a", label="x"), new("b", label="x", payload=b"b"), new("c", label="x", lane="other"), new("d"))
    with queue.transaction() as session:
        found = session.labelled(LANE, "x")
        assert found is not None
        assert ("b", b"b") == (found.name, found.payload)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("states", [(), ("queued",), ("done", "leased", "cancelled")])
def test_pages_make_the_whole(queue: Queue, states: tuple[State, ...], newest_first: bool) -> None:
    """In order of arrival, each work once, without payloads."""
    put(queue, *(new(f"{number}", payload=b"x", priority=number % 3) for number in range(12)), new("x", lane="other"))
    with queue.transaction() as session:
        for work in session.lease(LANE, "me", 6)[:4]:
            session.finish(work, "done")
        session.cancel("7", {})
        everything = session.page(LANE, newest_first=False)
        assert [str(number) for number in range(12)] == names(everything)
        assert {b""} == {work.payload for work in everything}
        found: list[Work] = []
        while page := session.page(LANE, states, found[-1].id if found else 0, 5, newest_first):
            assert len(page) <= 5
            found += page
    wanted = [work for work in everything if not states or work.state in states]
    assert (wanted[::-1] if newest_first else wanted) == found


def test_a_position_counts_what_goes_before(queue: Queue) -> None:
    """In the order of leases; nothing goes before what has started."""
    put(queue, new("a"), new("b", priority=9), new("c", priority=0), new("d"), new("x", lane="other"))
    with queue.transaction() as session:
        order = {name: session.position(one) for name in "abcd" if (one := session.get(name))}
        assert {"c": 0, "a": 1, "d": 2, "b": 3} == order
        (leased,) = session.lease(LANE, "me", 1)
        assert 0 == session.position(leased)


def test_a_position_is_counted_to_ten_thousand(queue: Queue) -> None:
    """Nobody waits for more."""
    with queue.transaction() as session:
        session.put_all([new(f"{number}") for number in range(10_005)])
        last, nearer = session.page(LANE, most=6)[::5]
        assert 10_000 == session.position(last)
        assert 9_999 == session.position(nearer)


def test_a_backlog_tells_the_oldest(queue: Queue, hands: Hands) -> None:
    """Whatever its state, as long as it is open; also within a transaction that changes it."""
    put(queue, new("a"))
    hands.wait(4.0)
    put(queue, new("b"), new("x", lane="other"))
    (work,) = take(queue)
    hands.wait(3.0)
    assert Backlog(2, 1, 7.0) == backlog(queue)
    with queue.transaction() as session:
        session.decide(work, {})
        assert Backlog(2, 1, 7.0) == session.backlog(LANE)
        session.finish(work, "done")
        assert Backlog(1, 0, 3.0) == session.backlog(LANE)
        session.put(new("c"))
        assert Backlog(2, 0, 3.0) == session.backlog(LANE)
        assert [LANE, "other"] == session.lanes()


def test_a_lane_is_forgotten(queue: Queue) -> None:
    """Everything of it, open or ended, with payloads and answers; its names may be put again."""
    put(queue, new("a", payload=b"a"), new("b"), new("x", lane="other"))
    (work,) = take(queue)
    with queue.transaction() as session:
        session.finish(work, "done", answer=b"answer")
        session.put(new("c"))
        assert 3 == session.forget(LANE)
        assert ["other"] == session.lanes()
        assert [] == session.page(LANE)
        assert not session.put(new("a")).again
    assert (b"", b"") == (one(queue, "a").payload, one(queue, "a").answer)


def test_what_ended_long_ago_is_pruned(queue: Queue, hands: Hands) -> None:
    """Those first that ended first, no more than asked for; what is open stays, however old."""
    put(queue, *(new(name) for name in "abcdef"))
    for work in take(queue, 4):
        hands.wait(10.0)
        with queue.transaction() as session:
            session.finish(work, "done", answer=b"x")
    hands.wait(5.0)
    with queue.transaction() as session:
        assert 0 == session.prune(hands.wall - 100.0, 10)
        assert 1 == session.prune(hands.wall - 10.0, 1)
        assert ["b", "c", "d", "e", "f"] == names(session.page(LANE, newest_first=False))
        assert 2 == session.prune(hands.wall - 10.0, 10)
        assert ["d", "e", "f"] == names(session.page(LANE, newest_first=False))


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", DATABASES)
def test_everything_is_there_after_a_restart(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> None:
    """Leases and their owners too: whoever has the queue now may rescue them."""
    url = url_of(request, database, tmp_path)
    with opened(url) as queue:
        put(queue, new("a", payload=b"a"), new("b"))
        (leased,) = take(queue, owner="before")
    with opened(url) as queue:
        assert leased == one(queue, "a")
        with queue.transaction() as session:
            assert {"before": 0} == session.owners()
            assert (2, 1) == session.backlog(LANE)[:2]
            session.rescue(session.owners())
        assert ["a", "b"] == names(take(queue, 5))


def test_a_closed_queue_says_so(tmp_path: Path) -> None:
    """Before it is opened and after it is closed, which may be done twice."""
    queue = Queue(f"sqlite:///{tmp_path}/queue.db")
    with pytest.raises(ServiceUnavailable, match="The job queue is closed"), queue.transaction():
        pass
    queue.open().close()
    queue.close()
    with pytest.raises(ServiceUnavailable, match="The job queue is closed"):
        queue.now()


def test_no_question_reads_every_row(tmp_path: Path, hands: Hands) -> None:
    """Every statement of a session finds its rows by an index: a million may wait."""
    asked: list[tuple[str, Any]] = []
    with opened(f"sqlite:///{tmp_path}/queue.db", hands) as queue, queue.transaction() as session:
        connection = session._connection  # type: ignore[attr-defined]  # to hear what it is asked
        sqlalchemy.event.listen(connection, "before_cursor_execute", lambda *heard: asked.append((heard[2], heard[3])))
        ask_everything(session, hands)
        plans = {
            statement: [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            for statement, values in list(asked)
            if not isinstance(values, list)
        }
    assert 25 < len(plans)
    lane_counts = ("FROM work_lanes", "UPDATE work_meta")  # as many rows as there are lanes
    reads = {plan for plan, steps in plans.items() if any(step.startswith("SCAN work") for step in steps)}
    assert [] == [plan for plan in reads if not any(word in plan for word in lane_counts)]
    sorts = [plan for plan, steps in plans.items() if any("TEMP B-TREE FOR ORDER BY" in step for step in steps)]
    assert all("page_" in plan for plan in sorts)  # of the pages of the states, one is made


def ask_everything(session: QueueSession, hands: Hands) -> None:
    """Call every method of a session, so that each of its statements is said."""
    session.put_all([new(f"{number}", expires_in=60.0, label="l") for number in range(10)])
    session.put(new("p", repeat="r", payload=b"x"))
    session.put(new("p"))
    leased = session.lease(LANE, "me", 8)
    session.beat("me")
    session.checkpoint(leased[0], {})
    session.decide(leased[0], {}, b"a")
    session.decide(leased[0], {})
    session.finish(leased[0], "done", {}, b"b")
    session.retry(leased[1], 5.0)
    session.give_back(leased[2])
    session.decide(leased[3], {})
    session.rescue(list(session.owners()))
    session.decided(LANE, "you", 5)
    session.cancel("4", {})
    session.labelled(LANE, "l")
    session.page(LANE)
    session.page(LANE, ["done"], newest_first=False)
    session.lanes()
    session.backlog(LANE)
    for work in session.page(LANE, ["queued"]):
        session.position(work)
    hands.wait(61.0)
    for work in session.expired(2):
        session.expire(work, {})
    session.ripen()
    session.cancel_lane(LANE, {})
    session.prune(hands.wall, 1)
    session.forget(LANE)


@given(some.sets(some.sampled_from(sorted(OPEN | ENDED))))
def test_states_are_open_or_ended(states: set[State]) -> None:
    """Each is one of the two."""
    assert states == {state for state in states if (state in OPEN) != (state in ENDED)}


def test_the_queue_costs_nothing_to_import() -> None:
    """The database library comes with the first queue that is opened."""
    code = "import sys, serving.jobs.queue; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()
