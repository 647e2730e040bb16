"""The calls of a transform job against an endpoint in memory, and the files and bytes an object has meanwhile."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.endpoint import Endpoint
from serving.errors import (
    BadInput,
    BadRecords,
    InvocationTimedOut,
    ModelError,
    PredictionFailed,
    ServiceUnavailable,
    ServingError,
)
from serving.jobs.parts import Part, PartLost
from serving.jobs.patience import patiently
from serving.jobs.splitting import Piece, bisect
from serving.jobs.transform_calls import Answered, Caller, Losses, ObjectFailed, Request
from serving.jobs.transform_object import Room, all_of
from serving.jobs.transform_plan import terms
from serving.types import Invocation, Reply
from tests.jobs.test_transform_plan import row


class Toy:
    """An endpoint in memory: answers with the body in capitals, unless ``refuse`` has an error for it."""

    def __init__(self, refuse: Callable[[bytes], ServingError | None]) -> None:
        self.ready = True
        self.bodies: list[bytes] = []
        self.running = self.most_running = 0
        self._refuse = refuse

    def invoke(self, invocation: Invocation, done: Callable[[Reply | ServingError], None]) -> Toy:
        """``Endpoint.invoke``."""
        self.bodies.append(invocation.body)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        error = self._refuse(invocation.body)

        def answer() -> None:
            self.running -= 1
            done(error or Reply(invocation.body.upper(), "text/csv", "AllTraffic", 0.0, (0,) * 6, True))

        asyncio.get_running_loop().call_soon(answer)
        return self

    def cancel(self) -> None:
        """A ticket's."""


async def hop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Without a thread."""
    return function(*arguments)


def caller(toy: Toy, prepare: Callable[[Piece], bytes] = lambda piece: piece.body, **members: Any) -> Caller:
    """Calls of a job to the toy."""
    given = {"ModelClientConfig": {"InvocationsMaxRetries": 0}, **members}
    return Caller(
        terms(row(**given)), lambda: cast(Endpoint, toy), prepare, partial(_halves, split="Line"), hop
    )  # fmt: skip


def _halves(piece: Piece, split: str) -> tuple[Piece, Piece]:
    return bisect(piece, split)


def piece(lines: list[bytes]) -> Piece:
    """Lines as they were read."""
    body = b"".join(line + b"\n" for line in lines)
    return Piece(0, len(body), 0, len(lines), body)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Until it is done."""
    return asyncio.run(asyncio.wait_for(work, 30))


@given(st.sets(st.integers(0, 60)), st.integers(1, 61))
def test_bad_records_stand_alone_and_all_others_are_answered_in_order(bad: set[int], count: int) -> None:
    """Whichever they are, and however many."""
    lines = [b"bad" if number in bad else b"x%d" % number for number in range(count)]
    toy = Toy(lambda body: BadInput("row 1: 'bad' is not a number") if b"bad" in body else None)
    whole, losses = piece(lines), Losses(0)
    answered = run(caller(toy).answered(Request(whole, whole.body), losses))
    wrong = [one.piece.first for one in answered if one.bad]
    assert sorted(number for number in bad if number < count) == wrong
    assert {"'bad' is not a number"} >= {one.bad for one in answered if one.bad}
    good = b"".join(one.answer for one in answered)
    assert b"".join(b"X%d\n" % number for number in range(count) if number not in bad) == good
    assert whole.body == b"".join(one.piece.body for one in answered)
    assert (count - len(wrong), len(wrong)) == (losses.good, losses.bad)


def test_one_bad_record_of_a_thousand_costs_few_calls() -> None:
    """Two for each halving."""
    toy = Toy(lambda body: BadInput("no") if b"bad" in body else None)
    whole = piece([b"x"] * 700 + [b"bad"] + [b"x"] * 323)
    run(caller(toy).answered(Request(whole, whole.body), Losses(0)))
    assert len(toy.bodies) <= 21


def test_an_object_of_nonsense_ends_the_search() -> None:
    """After a thousand bad records."""
    toy = Toy(lambda body: BadInput("no"))
    whole = piece([b"bad"] * 3000)
    with pytest.raises(ObjectFailed, match=r"1,001 of the 1,001 records"):
        run(caller(toy).answered(Request(whole, whole.body), Losses(0)))


def test_records_that_cannot_be_prepared_are_never_sent() -> None:
    """A filter that a record does not fit is the record's fault."""

    def prepare(one: Piece) -> bytes:
        if b"bad" in one.body:
            raise BadRecords("Record 2: there is no column 7.", 1)
        return one.body

    toy = Toy(lambda _: None)
    calls = caller(toy, prepare)
    first, bad, last = run(calls.answered(calls.request(piece([b"a", b"bad", b"c"])), Losses(0)))
    assert (b"A\n", "there is no column 7.", b"C\n") == (first.answer, bad.bad, last.answer)
    assert not any(b"bad" in body for body in toy.bodies)


def test_no_more_calls_run_than_the_job_allows() -> None:
    """MaxConcurrentTransforms for each of its two instances, however many pieces are ready."""
    toy = Toy(lambda _: None)
    calls = caller(toy, MaxConcurrentTransforms=3)

    async def all_at_once() -> None:
        one = piece([b"a"])
        await asyncio.gather(*(calls.answered(Request(one, one.body), Losses(0)) for _ in range(50)))

    run(all_at_once())
    assert 6 == toy.most_running


class Flaky(Toy):
    """Fails once, but for what is bad, which it always refuses."""

    def __init__(self, error: ServingError) -> None:
        super().__init__(self._failure)
        self._errors = [error]

    def _failure(self, body: bytes) -> ServingError | None:
        if b"bad" in body:
            return BadInput("no")
        return self._errors.pop() if self._errors else None


def test_a_failure_that_passes_makes_no_record_bad() -> None:
    """Whatever it is, and although a neighbour is bad, for which its request was divided."""
    whole = piece([b"a", b"bad"])
    calls = [
        caller(Flaky(error), ModelClientConfig={"InvocationsMaxRetries": 3})
        for error in (ModelError("busy", 429), InvocationTimedOut("late"), PredictionFailed("it raised"))
    ]

    async def all_at_once() -> list[list[Answered]]:
        return await asyncio.gather(*(one.answered(Request(whole, whole.body), Losses(0)) for one in calls))

    for first, second in run(all_at_once()):
        assert (b"A\n", "", "no") == (first.answer, first.bad, second.bad)


def test_of_many_failures_the_first_is_told_and_none_is_missed() -> None:
    """An event loop complains of each that nobody has looked at."""
    complaints: list[dict[str, Any]] = []

    async def fails(why: str) -> list[Answered]:
        raise ObjectFailed(why)

    async def several() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        tasks = [asyncio.create_task(fails(why)) for why in ("first", "second", "third")]
        await asyncio.wait(tasks)
        with pytest.raises(ObjectFailed, match="first"):
            all_of(tasks)
        tasks.clear()
        gc.collect()

    run(several())
    assert not complaints


def test_a_failure_is_not_retried_beyond_the_jobs_retries() -> None:
    """With none, the first is the last."""
    toy = Toy(lambda _: PredictionFailed("it raised"))
    one = piece([b"a"])
    (answered,) = run(caller(toy).answered(Request(one, one.body), Losses(0)))
    assert ("it raised", 1) == (answered.bad, len(toy.bodies))


# --- bytes and files --------------------------------------------------------------------------------------------------


def test_there_is_room_for_one_whatever_its_size() -> None:
    """It has it alone; others wait until it is given back."""

    async def facts() -> None:
        room = Room(100)
        assert 500 == await room.take(500, 600)
        assert 0 == room.take_now(1, 1)
        waiting = asyncio.create_task(room.take(10, 40))
        await asyncio.sleep(0)
        assert not waiting.done()
        await room.give_back(500)
        assert 40 == await waiting
        assert 60 == room.take_now(10, 1000)

    run(facts())


def test_a_part_is_cut_back_to_what_a_checkpoint_knows(tmp_path: Path) -> None:
    """What was written after it is written again."""
    path = tmp_path / "new" / "0.out"
    with Part(path) as part:
        assert 5 == part.write(0, [b"safe", b"!"])
        part.sync()
        part.write(5, [b"not safe"])
    with Part(path, 5) as part:
        assert 6 == part.write(5, [b"?"])
    assert b"safe!?" == path.read_bytes()
    with pytest.raises(PartLost):
        Part(path, 7)


def test_a_write_that_failed_half_way_leaves_nothing(tmp_path: Path) -> None:
    """The same write again is written over it, and what is longer is cut off at the end."""
    path = tmp_path / "0.out"
    with Part(path) as part:
        part.write(1, [b"half of a write"])
        part.write(0, [b"a", b"b"])
        assert b"ab" == part.finish(2).read_bytes()


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """And what does not pass is raised at once."""
    tries: list[int] = []

    async def act() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        if len(tries) == 2:
            raise ServiceUnavailable("The queue could not be written.")
        return "done"

    async def broken() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    assert "done" == run(patiently("A test", act))
    with pytest.raises(OSError, match="Read-only"):
        run(patiently("A test", broken))
