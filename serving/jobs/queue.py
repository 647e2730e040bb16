"""The durable queue: what was put is on the disk before anyone is told so.

SQLite in a file of its own, or PostgreSQL by URL; the same statements on both. Values and promises: ``work.py``. This
module costs nothing to import: the database library comes with ``Queue.open``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from serving.errors import ServiceUnavailable
from serving.jobs.clock import Clock
from serving.jobs.work import QueueSession

if TYPE_CHECKING:
    from serving.jobs.database import QueueDatabase

#: A database that does not answer holds up a caller, and the end of the process, no longer than so many seconds.
_PATIENCE, _FAREWELL_SECONDS = 15.0, 5.0
#: Functions in one transaction at most: the first of them waits for the last.
_MOST_TOGETHER = 256

T = TypeVar("T")


class Queue:
    """The queue of one server. ``url``: ``sqlite:///PATH`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.
    ``clock``: where time is read."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._url = url
        self._clock = clock or Clock()
        self._database: QueueDatabase | None = None

    def open(self) -> Queue:
        """Connect, create the tables where there are none, look the file over. Raises ``ConfigError`` for a queue that
        is damaged, newer than this program, in use by another process, or not to be reached."""
        from serving.jobs.database import QueueDatabase

        database = QueueDatabase(self._url, self._clock)
        database.open()
        self._database = database
        return self

    def close(self) -> None:
        """Let go of the database. Closing twice does no harm."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def now(self) -> float:
        """Seconds of the queue's clock, in which ``Work.queued``, ``due`` and ``expires`` are told. Raises
        ``ServiceUnavailable`` while the queue is closed."""
        return self._opened().now()

    @contextmanager
    def transaction(self) -> Iterator[QueueSession]:
        """One transaction: durable at the end of the ``with``, undone by any exception. Raises ``ServiceUnavailable``
        when it could not be made durable; nothing has changed then."""
        with self._opened().transaction() as session:
            yield session

    def _opened(self) -> QueueDatabase:
        if self._database is None:
            raise ServiceUnavailable("The job queue is closed.")
        return self._database


class _Asked(NamedTuple):
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    function: Callable[[QueueSession], Any]


class _Answer(NamedTuple):
    asked: _Asked
    value: Any = None
    error: BaseException | None = None


class QueueThread:
    """The one thread that talks to the database, for asyncio code. All that wait for it are done in one transaction, in
    order, so that one flush of the disk serves them all; a caller who gave up before its turn is passed over. Raises
    ``ServiceUnavailable`` to one who has waited too long; what was being written then may be written yet."""

    def __init__(self, queue_: Queue) -> None:
        self._queue = queue_
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def now(self) -> float:
        """Seconds of the queue's clock."""
        return self._queue.now()

    async def do(self, function: Callable[[QueueSession], T]) -> T:
        """What ``function`` answers, once everything it wrote is durable; if it raises, nothing is written. It may be
        run more than once, when another's failure undid the transaction they shared: it is to have no other effects.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._closing:
            if self._closed:
                raise ServiceUnavailable("The server is shutting down.")
            if self._thread.ident is None:
                self._thread.start()
            self._asked.put(_Asked(loop, answer, function))
        patience = loop.call_later(_PATIENCE, _give_up, answer)
        try:
            return await answer
        finally:
            patience.cancel()

    def close(self) -> None:
        """Do what has been asked, then end the thread; what a silent database holds up is given up. The queue stays
        open."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._asked.put(None)
        if self._thread.ident is not None:
            self._thread.join(_FAREWELL_SECONDS)

    def _run(self) -> None:
        more = True
        while more:
            group, more = self._wait()
            for answers in _run_together(self._queue, group):
                _send(answers)

    def _wait(self) -> tuple[list[_Asked], bool]:
        """Everything that waits, at least one; whether more may come."""
        group: list[_Asked] = []
        while len(group) < _MOST_TOGETHER:
            try:
                asked = self._asked.get(block=not group)
            except queue.Empty:
                break
            if asked is None:
                return group, False
            group.append(asked)
        return group, True


def _run_together(queue_: Queue, group: Sequence[_Asked]) -> Iterator[list[_Answer]]:
    """Run functions in one transaction, and tell what each came to. When one raises, what came before it is run
    together, then it alone, then what comes after it together: only it fails."""
    parts = deque([group])
    while parts:
        part = [asked for asked in parts.popleft() if not asked.answer.done()]
        values: list[Any] = []
        try:
            if part:
                with queue_.transaction() as session:
                    for asked in part:
                        values.append(asked.function(session))  # noqa: PERF401  how far it came matters below
        except BaseException as error:  # it is the callers', whatever it is: the thread goes on
            raiser = len(values)
            if len(part) > 1 and raiser < len(part):
                parts.extendleft((part[raiser + 1 :], part[raiser : raiser + 1], part[:raiser]))
            else:  # nothing was kept, for any of them
                yield [_Answer(asked, error=error) for asked in part]
        else:
            yield [_Answer(asked, value) for asked, value in zip(part, values, strict=True)]


def _send(answers: list[_Answer]) -> None:
    """Wake those who asked, with one call per event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Answer]] = defaultdict(list)
    for answer in answers:
        by_loop[answer.asked.loop].append(answer)
    for loop, theirs in by_loop.items():
        with suppress(RuntimeError):  # a loop that has been closed: nobody waits
            loop.call_soon_threadsafe(_deliver, theirs)


def _deliver(answers: list[_Answer]) -> None:
    for (_, future, _), value, error in answers:
        if future.done():  # it gave up meanwhile
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def _give_up(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(ServiceUnavailable("The job queue does not answer."))
