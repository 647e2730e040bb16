"""The queue's thread: all that wait are served by one flush of the disk, and nobody by another's mistake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ServiceUnavailable
from serving.jobs import queue as module
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.work import QueueSession
from tests import memory
from tests.postgres import Postgres, postgres
from tests.queues import DATABASES, LANE, names, new, opened, url_of

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


@pytest.fixture(params=DATABASES)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    """An empty queue, on each database in turn."""
    with opened(url_of(request, request.param, tmp_path)) as queue:
        yield queue


class Gate:
    """Holds the thread in a function, so that what is asked meanwhile waits together."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def pass_through(self, session: QueueSession) -> None:
        """Say that the thread is here; wait."""
        self.entered.set()
        self.opened.wait(30)


async def behind_a_gate(thread: QueueThread, *functions: Any) -> list[Any]:
    """What functions come to that were all asked while the thread was busy."""
    gate = Gate()
    first = asyncio.ensure_future(thread.do(gate.pass_through))
    await asyncio.to_thread(gate.entered.wait, 30)
    rest = [asyncio.ensure_future(thread.do(function)) for function in functions]
    await asyncio.sleep(0)  # each has asked
    gate.opened.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


def putting(name: str) -> Any:
    """A function that puts a work and tells the transaction it was in."""

    def function(session: Any) -> tuple[str, int]:
        session.put(new(name))
        return name, id(session)

    return function


def raising(name: str) -> Any:
    """A function that puts a work and raises."""

    def function(session: QueueSession) -> None:
        session.put(new(name))
        raise KeyError(name)

    return function


def open_names(queue: Queue) -> list[str]:
    """What is there."""
    with queue.transaction() as session:
        return names(session.page(LANE, newest_first=False))


def test_those_who_wait_are_served_together(queue: Queue) -> None:
    """In one transaction, in the order they asked; each hears its own answer."""
    thread = QueueThread(queue)
    answers = asyncio.run(behind_a_gate(thread, *(putting(name) for name in "abcdef")))
    thread.close()
    assert list("abcdef") == [name for name, _ in answers] == open_names(queue)
    assert 1 == len({session for _, session in answers})


@pytest.mark.parametrize("wrong", ["a", "c", "f", "ab", "ace", "abcdef"])
def test_only_who_raises_fails(queue: Queue, wrong: str) -> None:
    """It is told so and has changed nothing; the others are served, in order."""
    thread = QueueThread(queue)
    functions = [raising(name) if name in wrong else putting(name) for name in "abcdef"]
    answers = asyncio.run(behind_a_gate(thread, *functions))
    thread.close()
    assert [name in wrong for name in "abcdef"] == [isinstance(answer, KeyError) for answer in answers]
    assert [name for name in "abcdef" if name not in wrong] == open_names(queue)


def test_what_the_database_refuses_is_one_callers_mistake(queue: Queue) -> None:
    """A value that cannot be kept costs its neighbours nothing."""
    thread = QueueThread(queue)
    wrong: Any = lambda session: session.put(new("b", label="\ud800"))  # noqa: E731  as the others
    answers = asyncio.run(behind_a_gate(thread, putting("a"), wrong, putting("c")))
    thread.close()
    assert ["a", "c"] == open_names(queue)
    assert "A value has characters, or a number of a size, that cannot be kept." == str(answers[1])


def test_who_gave_up_is_passed_over(queue: Queue) -> None:
    """Its turn had not come: nothing of it is written."""

    async def give_up(thread: QueueThread) -> None:
        gate = Gate()
        first = asyncio.ensure_future(thread.do(gate.pass_through))
        await asyncio.to_thread(gate.entered.wait, 30)
        impatient = asyncio.ensure_future(thread.do(putting("a")))
        patient = asyncio.ensure_future(thread.do(putting("b")))
        await asyncio.sleep(0)  # both have asked
        impatient.cancel()
        gate.opened.set()
        await asyncio.gather(first, patient)

    thread = QueueThread(queue)
    asyncio.run(give_up(thread))
    thread.close()
    assert ["b"] == open_names(queue)


def test_patience_ends(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that does not answer holds nobody up for long; later it answers again."""
    monkeypatch.setattr(module, "_PATIENCE", 0.2)

    async def wait(thread: QueueThread) -> None:
        gate = Gate()
        first = asyncio.ensure_future(thread.do(gate.pass_through))
        await asyncio.to_thread(gate.entered.wait, 30)
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await thread.do(putting("a"))
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await first
        gate.opened.set()
        monkeypatch.setattr(module, "_PATIENCE", 30.0)
        await thread.do(putting("b"))

    thread = QueueThread(queue)
    asyncio.run(wait(thread))
    thread.close()
    assert ["b"] == open_names(queue)


def test_what_was_asked_is_done_before_it_ends(queue: Queue) -> None:
    """Then nothing more is taken; ending it twice does no harm, nor ending one that never ran."""

    async def end(thread: QueueThread) -> list[Any]:
        gate = Gate()
        asked = [asyncio.ensure_future(thread.do(gate.pass_through))]
        await asyncio.to_thread(gate.entered.wait, 30)
        asked.append(asyncio.ensure_future(thread.do(putting("a"))))
        await asyncio.sleep(0)  # it has asked
        closing = asyncio.get_running_loop().run_in_executor(None, thread.close)
        while not thread._closed:  # noqa: ASYNC110  a thread closes it
            await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable, match="shutting down"):
            await thread.do(putting("b"))
        gate.opened.set()
        await closing
        return await asyncio.gather(*asked)

    thread = QueueThread(queue)
    asyncio.run(end(thread))
    thread.close()
    QueueThread(queue).close()
    assert ["a"] == open_names(queue)


def test_two_loops_may_share_it(queue: Queue) -> None:
    """Each hears its own answers; one that is gone is no harm."""
    thread = QueueThread(queue)

    async def leave() -> None:
        asyncio.ensure_future(thread.do(putting("gone")))  # noqa: RUF006  nobody will wait for it
        await asyncio.sleep(0)

    others = [threading.Thread(target=asyncio.run, args=(thread.do(putting(f"{number}")),)) for number in range(8)]
    asyncio.run(leave())
    for other in others:
        other.start()
    for other in others:
        other.join(30)
    asyncio.run(thread.do(putting("last")))
    thread.close()
    assert {*"01234567", "last"} <= set(open_names(queue))


def test_a_closed_queue_is_said_to_each(tmp_path: Path) -> None:
    """The thread lives on, and works once it is open."""

    async def ask_three(thread: QueueThread) -> list[Any]:
        return await asyncio.gather(*(thread.do(putting(name)) for name in "abc"), return_exceptions=True)

    queue = Queue(f"sqlite:///{tmp_path}/queue.db")
    with closing(QueueThread(queue)) as thread:
        assert ["The job queue is closed."] * 3 == [str(answer) for answer in asyncio.run(ask_three(thread))]
        queue.open()
        asyncio.run(thread.do(putting("a")))
        assert 0.0 <= thread.now()
    assert ["a"] == open_names(queue)
    queue.close()
