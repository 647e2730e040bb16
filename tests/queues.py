"""Queues for tests: on every database there is, with hands of a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from serving.jobs.clock import Clock
from serving.jobs.queue import Queue
from serving.jobs.work import Backlog, NewWork, Work
from tests.postgres import NEEDED, Postgres

DATABASES = ["sqlite", pytest.param("postgresql", marks=NEEDED)]
LANE = "async/fraud"
_SCHEMAS = count(1)


class Hands:
    """A machine's clocks, moved by hand: how long it runs, what its wall clock shows, which start this is."""

    def __init__(self) -> None:
        self.steady = 1000.0
        self.wall = 1_700_000_000.0
        self.boot = "first"

    def clock(self) -> Clock:
        """The clock whose hands these are."""
        return Clock(lambda: self.steady, lambda: self.wall, lambda: self.boot)

    def wait(self, seconds: float) -> None:
        """Time passes, on both."""
        self.steady += seconds
        self.wall += seconds

    def restart(self, off: float = 0.0) -> None:
        """The machine was off for so many seconds, and has run for ten again."""
        self.boot += "+"
        self.wall += off + 10
        self.steady = 10.0


def url_of(request: pytest.FixtureRequest, database: str, folder: Path) -> str:
    """The URL of a new, empty queue. The ``server`` fixture is started only by those who need it."""
    if database == "sqlite":
        return f"sqlite:///{folder}/queue.db"
    return schema_of(request.getfixturevalue("server"))


def schema_of(server: Postgres) -> str:
    """The URL of a new, empty schema: hundreds of tests need one each, and a database of its own costs far more."""
    url, name = _database(server), f"queue{next(_SCHEMAS)}"
    with server.connect(url.partition("@/")[2].partition("?")[0]) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # a name of ours: nothing to quote
    return f"{url}&options=-csearch_path%3D{name}"


@cache
def _database(server: Postgres) -> str:
    return server.database()


@contextmanager
def opened(url: str, hands: Hands | None = None) -> Iterator[Queue]:
    """An open queue; without hands it has the machine's clock."""
    queue = Queue(url, hands.clock() if hands else None).open()
    try:
        yield queue
    finally:
        queue.close()


def new(name: str, lane: str = LANE, **more: Any) -> NewWork:
    """Work to be put."""
    return NewWork(**{"name": name, "lane": lane, "body": {"Name": name}, **more})


def names(works: list[Work]) -> list[str]:
    """What works are called, in their order."""
    return [work.name for work in works]


def put(queue: Queue, *works: NewWork) -> list[Work]:
    """Put works, in one transaction."""
    with queue.transaction() as session:
        return [session.put(work).work for work in works]


def take(queue: Queue, most: int = 1, owner: str = "me", lane: str = LANE) -> list[Work]:
    """Lease works."""
    with queue.transaction() as session:
        return session.lease(lane, owner, most)


def one(queue: Queue, name: str) -> Work:
    """A work that is there, as it is now."""
    with queue.transaction() as session:
        found = session.get(name)
    assert found is not None
    return found


def backlog(queue: Queue, lane: str = LANE) -> Backlog:
    """What is open in a lane."""
    with queue.transaction() as session:
        return session.backlog(lane)
