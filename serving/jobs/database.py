"""The database under the queue: what is special about it beside other databases of ours (``serving/database.py``).

One process has it. On SQLite the lock of a file beside it says so, which goes with its process, however it ends: a
process that replaces one that is just ending waits a little for it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson
from sqlalchemy import Connection

from serving import database
from serving.errors import ConfigError, ServiceUnavailable
from serving.jobs import tables
from serving.jobs.clock import Clock, Mark, QueueTime
from serving.jobs.session import SEALED, SqlQueueSession, is_sound, seal, seal_bytes

#: Seconds a new process waits for the old one's lock.
_PREDECESSOR = 10.0
#: Bytes of a file that SQLite checks whole, in a second or two.
_SMALL_FILE = 100_000_000
_FILE_SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
#: Seconds after which a transaction that writes anything also keeps the time.
_MARK_AFTER = 30.0


def _check(connection: Connection, kept: Mapping[str, str]) -> None:
    """Every row is what was once put and is found by every index, in a file; PostgreSQL looks after its own pages. The
    rows stay in the database: a million of them are looked at in seconds."""
    _mark(kept)
    if connection.dialect.name == "sqlite":
        _check_indexes(connection)
        _check_rows(connection)


def _check_indexes(connection: Connection) -> None:
    """SQLite's own check seeks each row in each index: of a long queue, most of a minute in indexes that are sorted by
    random names. There it is only asked whether each index has as many rows as it should, and the same ones."""
    if connection.exec_driver_sql(_FILE_SIZE).scalar_one() <= _SMALL_FILE:
        if (found := connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()) != "ok":
            raise ConfigError(f"The job queue is damaged: {found}.")
        return
    table = connection.execute(tables.TABLE_SUMS).all()
    lanes = {tuple(row) for row in connection.execute(tables.INDEXED_LANE_SUMS)}
    if lanes != {tuple(row[:4]) for row in table}:
        raise ConfigError("The job queue is damaged: the index work_lane does not hold the rows there are.")
    sums = [sum(column) for column in zip(*(row[4:] for row in table), strict=True)]
    for at, (index, statement) in enumerate(tables.INDEX_SUMS.items()):
        if table and tuple(connection.execute(statement).one()) != tuple(sums[2 * at : 2 * at + 2]):
            raise ConfigError(f"The job queue is damaged: the index {index} does not hold the rows there are.")


def _check_rows(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None  # a connection that is open has one
    driver.create_function("work_seal", len(SEALED), seal, deterministic=True)
    driver.create_function("is_sound", 1, is_sound, deterministic=True)
    driver.create_function("bytes_seal", 1, seal_bytes, deterministic=True)
    for statement in (tables.DAMAGED_WORK, tables.DAMAGED_CONTENT):
        if (found := connection.execute(statement).first()) is not None:
            raise ConfigError(f"The job queue is damaged: its work {found.name!r} is not what was kept.")


def _mark(kept: Mapping[str, str]) -> Mark | None:
    """The time as it was kept; None in a new queue. Raises ``ConfigError``."""
    text = kept.get("clock")
    if text == "":
        return None
    try:
        return Mark(**orjson.loads(text or ""))
    except (ValueError, TypeError):
        raise ConfigError("The job queue is damaged: it does not tell its time.") from None


_LAYOUT = database.Layout(
    title="job queue",
    metadata=tables.metadata,
    meta=tables.meta,
    schema=tables.SCHEMA,
    lock=0x4A4F4253,
    log=logging.getLogger("serving.jobs"),
    check=_check,
    checkup="PRAGMA quick_check(1)",  # the rest is done by ``_check``
    first=lambda: {"clock": ""},
    # a burst of large payloads leaves no large journal behind; names come in no order: more pages are at hand
    pragmas=("PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -32000"),
)


class QueueDatabase:
    """A SQLite file or a PostgreSQL database that holds the tables of ``tables.py``."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._database = database.Database(url, _LAYOUT)
        self._clock = clock
        self._time = QueueTime(clock, None)
        self._marked = 0.0
        self._lock = -1

    def open(self) -> None:
        """Connect, create what is not there, check what is; go on with the time. Raises ``ConfigError``."""
        if self._database.path is not None:
            self._lock = _lock(self._database.path)
        try:
            self._time = QueueTime(self._clock, _mark(self._database.open()))
            with self._database.transaction(writes=True) as connection:
                _recount(connection)
                connection.execute(tables.DROP_ALL_OWNERS)
                self._keep_time(connection)
        except ServiceUnavailable as error:  # a file that can be read, but not counted or written
            self.close()
            raise ConfigError(error.message) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, then let others in."""
        self._database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def now(self) -> float:
        """Seconds of the queue's clock."""
        return self._time.now()

    @contextmanager
    def transaction(self) -> Iterator[SqlQueueSession]:
        """A session; at its end what it wrote is durable, or ``ServiceUnavailable`` is raised and nothing written."""
        marks = False
        with self._database.transaction(writes=True) as connection:
            session = SqlQueueSession(connection, self._time)
            yield session
            if session.settle() and self.now() > self._marked + _MARK_AFTER:
                self._keep_time(connection)
                marks = True
        if marks:
            self._marked = self.now()

    def _keep_time(self, connection: Connection) -> None:
        mark = orjson.dumps(self._time.mark()._asdict()).decode()
        connection.execute(tables.SET_META, {"of_name": "clock", "new_value": mark})


def _recount(connection: Connection) -> None:
    """Lanes are counted from their rows, once at each start."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in connection.execute(tables.RECOUNT):
        counts[row.lane][0] += row.number
        counts[row.lane][1] += row.number if row.state in ("leased", "decided") else 0
    connection.execute(tables.DROP_ALL_LANES)
    if counts:
        rows = [{"lane": lane, "size": size, "running": running} for lane, (size, running) in counts.items()]
        connection.execute(tables.ADD_LANES, rows)


def _lock(path: Path) -> int:
    """The descriptor that holds the right to use a file. Raises ``ConfigError``. (A POSIX record lock: children do not
    inherit it. It belongs to the process: two queues of one process share it.)"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(path.name + ".lock")
        held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"The job queue cannot be used: {error.strerror}.") from None
    end = time.monotonic() + _PREDECESSOR
    while True:
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except OSError:
            if time.monotonic() > end:
                os.close(held)
                raise ConfigError("The job queue is in use by another process.") from None
            time.sleep(0.05)  # a lock with a time limit has no other way to be waited for
