"""The line between a front and the jobs process, both ends in this process: a real socket, and answers made here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.api import desk_link
from serving.api.desk import Answer, Desk
from serving.api.jobs_link import JobsLink
from serving.errors import ServiceUnavailable, Throttled, ValidationError


class Office:
    """A desk that answers with what is asked, and can be closed and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Mapping[str, Any]] = []
        self.came = asyncio.Semaphore(0)
        self.left = asyncio.Event()
        self.starts = itertools.count(1)
        self.started = 0
        self.desk: Desk | None = None

    async def _who_answers(self, what: str) -> Answer:
        if what == "refuse":
            raise ValidationError("No.")
        return {"echo": self._echo, "hang": self._hang, "break": self._break, "fail": self._fail}[what]

    async def _echo(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        self.asked.append(args)
        return args, payload[::-1]

    async def _hang(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        self.asked.append(args)
        self.came.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        return None, b""

    async def _break(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        """The first time this is asked, the process ends."""
        self.asked.append(args)
        if len(self.asked) == 1:
            await self.close()
            await asyncio.Event().wait()
        return "done", b""

    async def _fail(self, args: Mapping[str, Any], payload: bytes) -> tuple[Any, bytes]:
        raise RuntimeError("a defect")

    async def open(self) -> None:
        """As control would."""
        self.started = next(self.starts)
        self.desk = Desk(self._who_answers)
        await self.desk.start(self.path)

    async def close(self) -> None:
        """As if it were killed."""
        assert self.desk is not None
        self.desk.close()

    def link(self) -> JobsLink:
        """A front's line to it."""
        return JobsLink(self.path, self.open)


def run(body: Any) -> None:
    """In an event loop that is watched: nothing is left to happen after the test."""
    asyncio.run(asyncio.wait_for(body, 30))


def test_the_process_is_started_for_the_first_question(tmp_path: Path) -> None:
    """And for no other; bytes go both ways."""

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        assert ({"a": 1}, b"cba") == await link.ask("echo", {"a": 1}, b"abc")
        assert ({"b": 2}, b"") == await link.ask("echo", {"b": 2})
        assert 1 == office.started
        link.close()
        await office.close()

    run(body())


def test_many_questions_share_a_line(tmp_path: Path) -> None:
    """Each gets its own answer, in any order, while one takes its time."""

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        slow = asyncio.create_task(link.ask("hang", {}))
        asked = [link.ask("echo", {"number": number}, b"%d" % number) for number in range(500)]
        expected = [({"number": number}, (b"%d" % number)[::-1]) for number in range(500)]
        assert expected == await asyncio.gather(*asked)
        assert not slow.done()
        slow.cancel()
        link.close()
        await office.close()

    run(body())


def test_who_leaves_is_not_answered(tmp_path: Path) -> None:
    """The question is taken back, so that nothing is done for nobody."""

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        asking = asyncio.create_task(link.ask("hang", {}))
        await office.came.acquire()
        asking.cancel()
        await office.left.wait()
        assert ("still there", b"") == await link.ask("echo", "still there")  # type: ignore[arg-type]  # any JSON will do
        link.close()
        await office.close()

    run(body())


@pytest.mark.parametrize(("what", "error"), [("refuse", "ValidationError"), ("fail", "InternalFailure")])
def test_an_error_is_the_same_at_both_ends(tmp_path: Path, what: str, error: str) -> None:
    """By its name; a defect says nothing of itself."""

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        with pytest.raises(Exception, match=r"No\.|An internal failure occurred\.") as caught:
            await link.ask(what, {})
        assert error == type(caught.value).__name__
        link.close()
        await office.close()

    run(body())


def test_a_question_is_asked_again_when_the_process_ends(tmp_path: Path) -> None:
    """Word for word: whoever puts the same job into the queue twice has put it there once."""

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        assert ("done", b"") == await link.ask("break", {"id": "one"}, b"payload")
        assert [{"id": "one"}] * 2 == office.asked
        assert 2 == office.started
        link.close()
        await office.close()

    run(body())


def test_a_process_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and nothing was promised."""
    monkeypatch.setattr(desk_link, "_PATIENCE_SECONDS", 0.2)

    async def nobody() -> None:
        raise ServiceUnavailable("The process does not come up.")

    async def body() -> None:
        with pytest.raises(ServiceUnavailable, match="cannot be reached"):
            await JobsLink(tmp_path / "jobs.sock", nobody).ask("echo", {})

    run(body())


def test_a_process_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After what the question says it may take, and a while."""
    monkeypatch.setattr(desk_link, "_ANSWER_SECONDS", 0.1)

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await link.ask("hang", {}, wait=0.1)
        await office.left.wait()
        link.close()
        await office.close()

    run(body())


def test_what_is_on_its_way_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes; what has been answered makes room again."""
    monkeypatch.setattr(JobsLink, "most_asked", 2)
    monkeypatch.setattr(JobsLink, "most_bytes", 100)

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        with pytest.raises(Throttled):
            await link.ask("echo", {}, bytes(101))
        held = [asyncio.create_task(link.ask("hang", {})) for _ in range(2)]
        for _ in held:
            await office.came.acquire()
        with pytest.raises(Throttled):
            await link.ask("echo", {})
        held[0].cancel()
        await asyncio.wait(held[:1])
        assert ({}, bytes(100)) == await link.ask("echo", {}, bytes(100))
        held[1].cancel()
        link.close()
        await office.close()

    run(body())


@pytest.mark.parametrize(
    "junk", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(8), b"\x02\0\0\0\x01\0\0\0{}", b"\x05\0\0\0\x05\0\0\0[1,2]"]
)
def test_junk_ends_its_own_line_alone(tmp_path: Path, junk: bytes) -> None:
    """Others are answered."""

    async def body() -> None:
        office = Office(tmp_path / "jobs.sock")
        link = office.link()
        await link.ask("echo", {})
        reader, writer = await asyncio.open_unix_connection(str(office.path))
        writer.write(junk)
        writer.write_eof()
        assert b"" == await reader.read()
        writer.close()
        assert ({}, b"") == await link.ask("echo", {})
        link.close()
        await office.close()

    run(body())
