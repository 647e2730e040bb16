"""The queue's contract, over every database: of all attempts at a work only the newest counts, and it ends once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.jobs.queue import Queue
from serving.jobs.work import Backlog, QueueSession, State, Work
from tests import memory
from tests.queues import DATABASES, LANE, Hands, backlog, names, new, one, opened, put, take, url_of

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

DAY = 86_400.0

# --- the fence ------------------------------------------------------------------------------------------------------

#: Everything an attempt can do to its work.
FENCED: dict[str, Callable[[QueueSession, Work], object]] = {
    "checkpoint": lambda session, work: session.checkpoint(work, {"Late": True}),
    "decide": lambda session, work: session.decide(work, {"Late": True}, b"late"),
    "done": lambda session, work: session.finish(work, "done", {"Late": True}, b"late", [new("late", lane="outbox")]),
    "failed": lambda session, work: session.finish(work, "failed", also=[new("late", lane="outbox")]),
    "retry": lambda session, work: session.retry(work, 5.0, died=True),
    "retry now": lambda session, work: session.retry(work, 0.0),
    "give back": lambda session, work: session.give_back(work),
}

#: What may have happened to work since an attempt took it.
OVERTAKEN: dict[str, Callable[[QueueSession, Work], object]] = {
    "rescued": lambda session, work: session.rescue([work.owner]),
    "leased again": lambda session, work: (session.rescue([work.owner]), session.lease(work.lane, "next", 1)),
    "leased again by the same": lambda session, work: (
        session.rescue([work.owner]),
        session.lease(work.lane, work.owner, 1),
    ),
    "waiting": lambda session, work: session.retry(work, 5.0),
    "given back": lambda session, work: session.give_back(work),
    "cancelled": lambda session, work: session.cancel(work.name, {}),
    "lane cancelled": lambda session, work: session.cancel_lane(work.lane, {}),
    "done": lambda session, work: session.finish(work, "done", {"First": True}, b"first"),
    "failed": lambda session, work: session.finish(work, "failed"),
    "decided, done": lambda session, work: (session.decide(work, {"First": True}), session.finish(work, "done")),
}


@pytest.mark.parametrize("since", OVERTAKEN)
@pytest.mark.parametrize("late", FENCED)
def test_a_late_attempt_changes_nothing(queue: Queue, late: str, since: str) -> None:
    """It is told so; what it would also have put is not there."""
    put(queue, new("a", payload=b"payload"))
    (work,) = take(queue)
    with queue.transaction() as session:
        OVERTAKEN[since](session, work)
    before, counted = one(queue, "a"), backlog(queue)
    with queue.transaction() as session:
        assert not FENCED[late](session, work)
    assert before == one(queue, "a")
    assert counted == backlog(queue)
    with queue.transaction() as session:
        assert session.get("late") is None
        assert "outbox" not in session.lanes()


@pytest.mark.parametrize("late", FENCED)
def test_an_attempt_at_forgotten_work_changes_nothing(queue: Queue, late: str) -> None:
    """Nor when other work has come since: numbers of rows are not given twice."""
    put(queue, new("a"))
    (work,) = take(queue)
    with queue.transaction() as session:
        assert 1 == session.forget(LANE)
    put(queue, new("b"))
    (other,) = take(queue)
    with queue.transaction() as session:
        assert not FENCED[late](session, work)
    assert other == one(queue, "b")


@pytest.mark.parametrize("late", ["checkpoint", "retry", "retry now", "give back"])
def test_what_is_decided_is_not_tried_again(queue: Queue, late: str) -> None:
    """Not even by the attempt that decided it."""
    put(queue, new("a"))
    (work,) = take(queue)
    with queue.transaction() as session:
        decided = session.decide(work, {"Status": 200}, b"answer")
        assert decided is not None
        assert not FENCED[late](session, decided)
        assert session.cancel("a", {}) == decided
        assert 0 == session.cancel_lane(LANE, {})
    assert decided == one(queue, "a")


def test_what_was_decided_first_counts(queue: Queue) -> None:
    """An owner that did not hear the answer may ask again, and hears what it decided."""
    put(queue, new("a"))
    (work,) = take(queue)
    with queue.transaction() as session:
        first = session.decide(work, {"Status": 200}, b"answer")
        assert first is not None
        assert ("decided", {"Status": 200}, b"answer", "me") == (first.state, first.outcome, first.answer, first.owner)
        assert first == session.decide(work, {"Status": 500}, b"other")
    assert first == one(queue, "a")


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["done", "failed"])
def test_work_finishes_once(queue: Queue, hands: Hands, state: State) -> None:
    """Its payload is dropped, the rest stays; what is put also is put in the same moment."""
    put(queue, new("a", payload=b"payload"))
    (work,) = take(queue)
    hands.wait(2.0)
    with queue.transaction() as session:
        assert session.finish(work, state, {"Status": 200}, b"answer", [new("n", lane="outbox")])
        assert "queued" == getattr(session.get("n"), "state", None)
        assert Backlog(0, 0, 0.0) == session.backlog(LANE)
        assert ["outbox"] == session.lanes()
    found = one(queue, "a")
    assert (state, {"Status": 200}, b"answer", b"", "", hands.wall) == (
        found.state,
        found.outcome,
        found.answer,
        found.payload,
        found.owner,
        found.finished,
    )


def test_what_was_decided_stays_when_it_is_finished(queue: Queue) -> None:
    """Unless there is something else to say; an empty answer is one."""
    put(queue, new("a"), new("b"))
    with queue.transaction() as session:
        for work in session.lease(LANE, "me", 2):
            session.decide(work, {"Status": 200}, b"answer")
            more: dict[str, Any] = {"outcome": {"Status": 0}, "answer": b""} if work.name == "b" else {}
            assert session.finish(work, "done", **more)
    assert ({"Status": 200}, b"answer") == (one(queue, "a").outcome, one(queue, "a").answer)
    assert ({"Status": 0}, b"") == (one(queue, "b").outcome, one(queue, "b").answer)


def test_work_finishes_in_no_other_state(queue: Queue) -> None:
    """That is a defect of the caller's."""
    put(queue, new("a"))
    (work,) = take(queue)
    with pytest.raises(ValueError, match="does not finish as queued"), queue.transaction() as session:
        session.finish(work, "queued")


def test_progress_is_kept_over_attempts(queue: Queue) -> None:
    """The next attempt goes on where this one was."""
    put(queue, new("a"))
    (work,) = take(queue)
    with queue.transaction() as session:
        assert session.checkpoint(work, {"Block": 7})
        session.rescue(["me"])
    assert [{"Block": 7}] == [work.progress for work in take(queue)]


def test_a_retry_waits_and_keeps_its_place(queue: Queue, hands: Hands) -> None:
    """It may have ended its worker; until its time has come others go first."""
    put(queue, new("a"), new("b"), new("c"))
    first, second = take(queue, 2)
    with queue.transaction() as session:
        assert session.retry(first, 10.0, died=True)
        assert session.retry(second, 0.0)
        assert Backlog(3, 0, 0.0) == session.backlog(LANE)
        assert 10.0 == session.ripen()
    hands.wait(9.0)
    with queue.transaction() as session:
        assert 1.0 == session.ripen()
    waiting = one(queue, "a")
    assert ("waiting", 1, "", 10.0) == (waiting.state, waiting.deaths, waiting.owner, waiting.due)
    hands.wait(1.0)
    with queue.transaction() as session:
        assert session.ripen() is None
    assert [("a", 2), ("b", 2), ("c", 1)] == [(work.name, work.attempt) for work in take(queue, 5)]


def test_work_may_be_put_for_later(queue: Queue, hands: Hands) -> None:
    """It starts after its pause."""
    put(queue, new("a", pause=5.0), new("b"))
    assert ["b"] == names(take(queue, 5))
    hands.wait(5.0)
    with queue.transaction() as session:
        session.ripen()
    assert ["a"] == names(take(queue, 5))


def test_work_is_given_back(queue: Queue) -> None:
    """In its old place; nobody died; its attempt stays counted."""
    put(queue, new("a"), new("b"))
    (work,) = take(queue)
    with queue.transaction() as session:
        assert session.give_back(work)
    assert [("a", 2, 0), ("b", 1, 0)] == [(work.name, work.attempt, work.deaths) for work in take(queue, 2)]


@pytest.mark.parametrize("state", ["queued", "waiting", "leased"])
def test_open_work_is_cancelled(queue: Queue, state: str) -> None:
    """Once: what is put also is put by the call that did it."""
    put(queue, new("a", payload=b"payload", pause=5.0 if state == "waiting" else 0.0))
    if state == "leased":
        take(queue)
    with queue.transaction() as session:
        work = session.cancel("a", {"Reason": "asked"}, [new("first", lane="outbox")])
        assert work is not None
        assert ("cancelled", {"Reason": "asked"}, b"", "") == (work.state, work.outcome, work.payload, work.owner)
        assert work == session.cancel("a", {"Reason": "again"}, [new("second", lane="outbox")])
        assert ["first"] == names(session.page("outbox"))
        assert Backlog(0, 0, 0.0) == session.backlog(LANE)
        assert session.cancel("nobody", {}) is None
    assert work == one(queue, "a")


def test_a_lane_is_cancelled(queue: Queue) -> None:
    """All that is open in it and not decided; other lanes go on."""
    put(queue, new("a", payload=b"a"), new("b"), new("c"), new("d", pause=5.0), new("x", lane="outbox"))
    first, second = take(queue, 2)
    with queue.transaction() as session:
        session.decide(second, {})
        session.put(new("e"))
        assert 4 == session.cancel_lane(LANE, {"Reason": "stopped"})
        assert 0 == session.cancel_lane(LANE, {})
        assert 0 == session.cancel_lane("nobody", {})
        assert (1, 1) == session.backlog(LANE)[:2]
        assert ["a", "c", "d", "e"] == names(session.page(LANE, ["cancelled"], newest_first=False))
        assert 1 == session.backlog("outbox").size
    found = one(queue, first.name)
    assert ({"Reason": "stopped"}, b"", "") == (found.outcome, found.payload, found.owner)


def test_a_lane_is_ended_in_slices(queue: Queue) -> None:
    """Of any size, whatever its works are doing; what is counted is right between two slices."""
    put(queue, *(new(f"{number}", pause=number % 2 * 5.0, payload=b"x") for number in range(7)))
    take(queue, 2)
    with queue.transaction() as session:
        assert [2, 2, 2, 1, 0] == [session.cancel_lane(LANE, {}, most=2) for _ in range(5)]
        session.put(new("late"))
        assert 1 == session.backlog(LANE).size
        assert [5, 3, 0] == [session.forget(LANE, most=5) for _ in range(3)]
        assert Backlog(0, 0, 0.0) == session.backlog(LANE)


def test_work_that_waited_too_long_expires(queue: Queue, hands: Hands) -> None:
    """Queued or waiting; those first whose time was over first."""
    put(queue, new("a", expires_in=30.0, payload=b"a"), new("b", expires_in=20.0, pause=25.0), new("c"))
    hands.wait(19.0)
    with queue.transaction() as session:
        assert [] == session.expired(5)
    hands.wait(11.0)
    with queue.transaction() as session:
        assert ["b"] == names(session.expired(1))
        second, first = session.expired(5)
        assert ("a", b"a", "b") == (first.name, first.payload, second.name)
        assert session.expire(first, {"Reason": "late"}, [new("n", lane="outbox")])
        assert not session.expire(first, {"Reason": "again"}, [new("m", lane="outbox")])
        assert ["n"] == names(session.page("outbox"))
        assert ["b"] == names(session.expired(5))
        assert (2, 0) == session.backlog(LANE)[:2]
    found = one(queue, "a")
    assert ("expired", {"Reason": "late"}, b"", hands.wall) == (
        found.state,
        found.outcome,
        found.payload,
        found.finished,
    )


def test_work_that_has_started_does_not_expire(queue: Queue, hands: Hands) -> None:
    """Not if it started since it was seen; not if it started and came back."""
    put(queue, new("a", expires_in=30.0))
    seen = one(queue, "a")
    (work,) = take(queue)
    hands.wait(31.0)
    with queue.transaction() as session:
        assert [] == session.expired(5)
        assert not session.expire(seen, {})
        session.give_back(work)
        assert not session.expire(seen, {})
        assert ["a"] == names(session.expired(5))


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_wall_clock_that_jumps_a_day_changes_nothing(queue: Queue, hands: Hands, jump: float) -> None:
    """Nothing expires, ripens, repeats, is pruned or grows old by it, nor stops doing so."""
    put(queue, new("a", expires_in=60.0), new("b", pause=60.0), new("c", repeat="r", priority=0), new("d", priority=0))
    done, *_ = take(queue, 2)
    with queue.transaction() as session:
        session.finish(done, "done")
    hands.wait(30.0)
    hands.wall += jump
    with queue.transaction() as session:
        assert [] == session.expired(9)
        assert 30.0 == session.ripen()
        assert session.put(new("e", repeat="r")).again
        assert 0 == session.prune(hands.wall - 60.0, 9)
        assert 30.0 == session.backlog(LANE).oldest_age
        assert ["a"] == names(session.lease(LANE, "you", 1))
        session.rescue(["you"])
    hands.wait(30.0)
    with queue.transaction() as session:
        assert ["a"] == names(session.expired(9))
        assert session.ripen() is None
        assert 1 == session.prune(hands.wall - 59.0, 9)
    hands.wait(840.0)
    with queue.transaction() as session:
        assert not session.put(new("e", repeat="r")).again


@pytest.mark.parametrize("jump", [0.0, DAY, -DAY])
@pytest.mark.parametrize("database", DATABASES)
def test_a_restart_keeps_the_time(
    request: pytest.FixtureRequest, tmp_path: Path, hands: Hands, database: str, jump: float
) -> None:
    """Within one run of the machine, whatever the wall clock shows."""
    url = url_of(request, database, tmp_path)
    with opened(url, hands) as queue:
        put(queue, new("a", expires_in=60.0), new("b", pause=60.0))
    hands.wait(40.0)
    hands.wall += jump
    with opened(url, hands) as queue, queue.transaction() as session:
        assert 40.0 == queue.now()
        assert [] == session.expired(9)
        assert 20.0 == session.ripen()


def test_a_restart_of_the_machine_keeps_the_time(tmp_path: Path, hands: Hands) -> None:
    """As well as the wall clock can tell; what was kept last is not long ago."""
    url = f"sqlite:///{tmp_path}/queue.db"
    with opened(url, hands) as queue:
        for _ in range(10):
            hands.wait(40.0)
            with queue.transaction() as session:
                session.beat("me")
        hands.wait(5.0)
        put(queue, new("a", expires_in=60.0))
        hands.wall -= DAY  # since the time was last kept: the machine goes off with it
    hands.restart(off=3.0)
    with opened(url, hands) as queue:
        assert 400.0 == queue.now()
        hands.wait(64.0)
        with queue.transaction() as session:
            assert [] == session.expired(9)
        hands.wait(1.0)
        with queue.transaction() as session:
            assert ["a"] == names(session.expired(9))
