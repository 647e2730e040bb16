"""A database of ours: how it is made, opened, looked over, and what its failures mean to callers.

The state store and the job queue are each such a database, SQLite or PostgreSQL; what they hold is a ``Layout``. One
connection serves each. On PostgreSQL it holds an advisory lock for as long as it lives, so that a second server on the
same database finds the door shut (on SQLite a lock on a file does that), and a connection that replaces a lost one
writes only once it has the lock again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, MetaData, Table, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from serving.errors import ConfigError, ServiceUnavailable, ServingError, ValidationError
from serving.wal import lacks_commits

#: Said of lone surrogates, of NUL where a database has none, of numbers beyond 64 bits.
CANNOT_BE_KEPT = "A value has characters, or a number of a size, that cannot be kept."
#: Seconds until a locked or silent database is given up.
_PATIENCE = 10
#: Said to every new connection. FULL: a commit is on the disk before it is answered. Nothing in the file is run.
_SQLITE = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = FULL",
    "PRAGMA trusted_schema = OFF",
    f"PRAGMA busy_timeout = {_PATIENCE * 1000}",
    "PRAGMA cache_size = -16000",
)
#: A server that was killed is told apart from one that runs: its lock goes as soon as its connection is found cut.
_POSTGRESQL = (
    f"SET statement_timeout = '{_PATIENCE}s'",
    "SET lock_timeout = '2s'",
    "SET synchronous_commit = on",
)
#: What libpq is told. A host that is gone is noticed, whatever was on its way (milliseconds; seconds).
_CONNECTION = {
    "connect_timeout": _PATIENCE,
    "tcp_user_timeout": _PATIENCE * 1000,
    "keepalives_idle": _PATIENCE // 2,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}


class InUse(ConfigError):
    """Another server has the lock of this database."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a database holds. ``title``: what callers know it by. ``meta``: the table of names and values that tells the
    layout's version, ``schema``. ``lock``: which advisory lock of a PostgreSQL database is its (the schema is the other
    half of the key). ``first``: names and values that a new one starts with. ``checkup``: the pragma that looks a
    SQLite file over. ``check``: looks at what is kept, given those names and values; raises ``ServingError``.
    ``pragmas``: more to say to a SQLite connection."""

    title: str
    metadata: MetaData
    meta: Table
    schema: int
    lock: int
    log: logging.Logger
    check: Callable[[Connection, Mapping[str, str]], None]
    first: Callable[[], Mapping[str, str]] = dict
    checkup: str = "PRAGMA integrity_check(1)"
    pragmas: tuple[str, ...] = ()


class Database:
    """A SQLite file or a PostgreSQL database that holds the tables of a layout."""

    def __init__(self, url: str, layout: Layout) -> None:
        self._url = _parse(url)
        self._layout = layout
        self._engine: Engine | None = None
        self._file: tuple[int, int] | None = None

    @property
    def path(self) -> Path | None:
        """The SQLite file; None on PostgreSQL."""
        return Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None

    def open(self) -> Mapping[str, str]:
        """Connect, create what is not there, check what is; returns the names and values of ``meta``. Raises
        ``ConfigError``."""
        layout = self._layout
        try:
            if self.path is not None:
                _create_file(self._url, self.path, layout)
            self._engine = _engine(self._url, layout)
            with _begin(self._engine, writes=self.path is None) as connection:
                kept = _look_over(connection, layout)
            self._file = self._identity()
        except (SQLAlchemyError, OSError, UnicodeDecodeError) as error:  # the last: of a damaged layout
            self.close()
            raise ConfigError(f"The {layout.title} cannot be used: {_reason(error)}.") from error
        except ServingError as error:
            self.close()
            raise ConfigError(error.message) from error
        return kept

    def close(self) -> None:
        """Close the connection."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def transaction(self, writes: bool) -> Iterator[Connection]:
        """At its end what was written is durable, or ``ServiceUnavailable`` is raised and nothing written."""
        title = self._layout.title
        if self._engine is None:
            raise ServiceUnavailable(f"The {title} is closed.")
        if writes and self._file != self._identity():  # what is written to a file without a name is lost
            raise ServiceUnavailable(f"The {title}'s file has been removed or replaced.")
        try:
            with _begin(self._engine, writes) as connection:
                yield connection
        except (DataError, UnicodeEncodeError) as error:
            raise ValidationError(CANNOT_BE_KEPT) from error
        except (IntegrityError, ProgrammingError):
            raise  # a defect of ours
        except SQLAlchemyError as error:
            raise ServiceUnavailable(f"The {title} is not available{self._told(error)}.") from error
        except InUse as error:  # the connection was lost, and another server has the lock
            raise ServiceUnavailable(error.message) from error

    def _told(self, error: SQLAlchemyError) -> str:
        """The reason as callers may hear it: PostgreSQL's names hosts, paths and users, which are the operator's."""
        if self.path is not None:
            return f": {_reason(error)}"
        self._layout.log.error("the %s: %s", self._layout.title, _reason(error))
        return ""

    def _identity(self) -> tuple[int, int] | None:
        """Which file has the name of ours. None: none, or there is no file."""
        try:
            found = self.path.stat() if self.path is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None


# --- connections ----------------------------------------------------------------------------------------------------


def _parse(url: str) -> URL:
    path = url.removeprefix("sqlite:///")
    if path != url and path:
        return URL.create("sqlite", database=path)  # a path is no URL: nothing in it is special
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("The database URL is not one.") from None
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigError("The database URL is neither sqlite:///PATH nor postgresql+psycopg://HOST/DATABASE.")
    return parsed.set(drivername="postgresql+psycopg")


def _engine(url: URL, layout: Layout) -> Engine:
    postgresql = url.get_backend_name() == "postgresql"
    more: Mapping[str, Any] = {"pool_pre_ping": True, "connect_args": _CONNECTION}
    try:
        engine = sqlalchemy.create_engine(  # a pool of one: others wait for their turn
            url,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=_PATIENCE,
            **(more if postgresql else {}),
        )
    except ModuleNotFoundError:
        raise ConfigError("PostgreSQL needs a driver: pip install 'serving[postgres]'.") from None
    greet = _greet_postgresql if postgresql else _greet_sqlite
    event.listen(engine, "connect", lambda connection, _: greet(connection, layout))
    if not postgresql:
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _greet_sqlite(connection: Any, layout: Layout) -> None:
    connection.isolation_level = None  # transactions begin when we say so, not when Python's driver guesses
    for statement in (*_SQLITE, *layout.pragmas):
        connection.execute(statement)


def _greet_postgresql(connection: Any, layout: Layout) -> None:
    import psycopg  # only those who use it have it

    for statement in _POSTGRESQL:
        connection.execute(statement)
    try:
        connection.execute("SELECT pg_advisory_lock(%s, hashtext(current_schema()))", (layout.lock,))
    except psycopg.errors.LockNotAvailable as error:
        raise InUse(f"The {layout.title} is in use by another server.") from error
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _begin(engine: Engine, writes: bool) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection = connection.execution_options(writes=writes)
        with connection.begin():
            yield connection


def _reason(error: BaseException) -> str:
    """What the database said, in one line without our statement."""
    said = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error)
    return said.strip().partition("\n")[0].rstrip(".") or type(error).__name__


# --- making and looking over ----------------------------------------------------------------------------------------


def _create_file(url: URL, path: Path, layout: Layout) -> None:
    """Make the SQLite file whole, then give it its name: an empty or half-made file is never one of ours."""
    journal = path.with_name(path.name + "-wal")
    if path.exists():
        if lacks_commits(journal):
            raise ConfigError(f"The {layout.title} is damaged: its journal {journal.name} is.")
        return
    if journal.exists():
        raise ConfigError(
            f"The {layout.title}'s file {path.name} is missing, but its journal {path.name}-wal is there."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        half.with_name(half.name + suffix).unlink(missing_ok=True)
    os.close(os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    engine = _engine(url.set(database=str(half)), layout)
    try:
        with _begin(engine, writes=True) as connection:
            _create_tables(connection, layout)
        with engine.connect() as connection:
            connection.connection.execute("PRAGMA journal_mode = WAL")  # kept in the file
    finally:
        engine.dispose()
    half.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _create_tables(connection: Connection, layout: Layout) -> None:
    layout.metadata.create_all(connection, checkfirst=False)
    values = {"schema": str(layout.schema), **layout.first()}
    if connection.dialect.name == "sqlite":
        values["declared"] = _declared(connection, layout)
    connection.execute(layout.meta.insert(), [{"name": name, "value": value} for name, value in values.items()])


def _declared(connection: Connection, layout: Layout) -> str:
    """A digest of how a SQLite file declares our tables and indexes: its own checks take a column's name as it is."""
    rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")
    ours = [tuple(row) for row in rows if row.tbl_name in layout.metadata.tables]
    return hashlib.sha256(repr(ours).encode()).hexdigest()


def _look_over(connection: Connection, layout: Layout) -> Mapping[str, str]:
    """The names and values of ``meta``, once the file is sound and its layout is ours."""
    sqlite, title = connection.dialect.name == "sqlite", layout.title
    if sqlite and (found := connection.exec_driver_sql(layout.checkup).scalar()) != "ok":
        raise ConfigError(f"The {title} is damaged: {str(found).strip().splitlines()[-1]}.")
    ours = set(layout.metadata.tables)
    there = set(inspect(connection).get_table_names()) & ours
    if not there and not sqlite:
        _create_tables(connection, layout)
        there = ours
    if missing := sorted(ours - there):
        raise ConfigError(f"The {title} is damaged or not ours: it has no table {missing[0]!r}.")
    kept: dict[str, str] = {row.name: row.value for row in connection.execute(layout.meta.select())}
    schema = kept.get("schema", "")
    if schema.isdecimal() and int(schema) > layout.schema:
        raise ConfigError(f"The {title} has layout {schema}, this program knows {layout.schema}: use a newer one.")
    if schema != str(layout.schema):
        raise ConfigError(f"The {title} is damaged: it does not tell its layout.")
    if sqlite and kept.get("declared", declared := _declared(connection, layout)) != declared:
        raise ConfigError(f"The {title} is damaged: its tables are not as they were declared.")
    layout.check(connection, kept)
    return kept
