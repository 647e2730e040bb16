"""The store: what should exist, on disk before anyone is told so.

SQLite in the data folder, or PostgreSQL by URL where several machines share their state; the same statements on both.
This module costs nothing to import: the database library comes with ``Store.open``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from serving.errors import ServiceUnavailable
from serving.fleet.records import AlreadyThere, NotThere, Query, Record, Session, Stale

if TYPE_CHECKING:
    from serving.fleet.database import Database

__all__ = ["AlreadyThere", "NotThere", "Query", "Record", "Session", "Stale", "Store", "StoreThread", "in_states"]

#: A database that does not answer holds up a caller, and the end of the server, no longer than so many seconds.
_PATIENCE, _FAREWELL_SECONDS = 15.0, 5.0

_PAGE = 100

T = TypeVar("T")


def in_states(session: Session, kind: str, states: Iterable[str]) -> list[Record]:
    """Every record of a kind whose status is one of these, state by state, oldest first."""
    found: list[Record] = []
    for status in states:
        token, more = "", True
        while more:
            page, token = session.find(Query(kind, descending=False, limit=_PAGE, status=status, token=token))
            found += page
            more = bool(token)
    return found


class Store:
    """The state of one server. ``url``: ``sqlite:///PATH`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._database: Database | None = None

    def open(self) -> Store:
        """Connect, create the tables where there are none, look the file over. Raises ``ConfigError`` for a store that
        is damaged, newer than this program, in use by another server, or not to be reached."""
        from serving.fleet.database import Database

        self._database = Database(self._url)
        self._database.open()
        return self

    def close(self) -> None:
        """Let go of the database. Closing twice does no harm."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the store. Raises ``ServiceUnavailable`` when it cannot be read."""
        with self._opened().transaction(writes=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: durable at the end of the ``with``, undone by any exception. Raises ``ServiceUnavailable``
        when it could not be made durable; nothing has changed then."""
        with self._opened().transaction(writes=True) as session:
            yield session

    def _opened(self) -> Database:
        if self._database is None:
            raise ServiceUnavailable("The state store is closed.")
        return self._database


class _Asked(NamedTuple):
    transaction: Callable[[], AbstractContextManager[Session]]
    function: Callable[[Session], Any]
    answer: Future[Any]


class StoreThread:
    """The one thread that talks to the database, for asyncio code. What is asked is done in order, one after another;
    a caller who gave up before its turn is passed over. Raises ``ServiceUnavailable`` to one who has waited too long;
    what was being written then may be written yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    async def read(self, function: Callable[[Session], T]) -> T:
        """What ``function`` makes of the store as it is."""
        return await self._ask(self._store.read, function)

    async def write(self, function: Callable[[Session], T]) -> T:
        """What ``function`` answers, once everything it wrote is durable; if it raises, nothing is written."""
        return await self._ask(self._store.write, function)

    def close(self) -> None:
        """Do what has been asked, then end the thread; what a silent database holds up is given up. The store stays
        open."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._asked.put(None)
        if self._thread.ident is not None:
            self._thread.join(_FAREWELL_SECONDS)

    async def _ask(
        self, transaction: Callable[[], AbstractContextManager[Session]], function: Callable[[Session], T]
    ) -> T:
        answer: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise ServiceUnavailable("The server is shutting down.")
            if self._thread.ident is None:
                self._thread.start()
            self._asked.put(_Asked(transaction, function, answer))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), _PATIENCE)
        except TimeoutError:
            raise ServiceUnavailable("The state store does not answer.") from None

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            if asked.answer.set_running_or_notify_cancel():
                _answer(asked)


def _answer(asked: _Asked) -> None:
    try:
        with asked.transaction() as session:
            result = asked.function(session)
    except BaseException as error:  # it is the caller's, whatever it is: the thread goes on
        asked.answer.set_exception(error)
    else:
        asked.answer.set_result(result)
