"""The database under the store: how it is made, opened, looked over, and what its failures mean to callers.

One connection serves the server. On PostgreSQL it holds an advisory lock for as long as it lives, so that a second
server on the same database finds the door shut (on SQLite the lock of the data folder does that), and a connection that
replaces a lost one writes only once it has the lock again.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from serving.errors import ConfigError, ServiceUnavailable, ServingError, ValidationError
from serving.fleet import tables
from serving.fleet.session import CANNOT_BE_KEPT, SqlSession, check_seal

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
#: Every page, and every row against every index: 0.7 s for 100,000 models.
_CHECK = "PRAGMA integrity_check(1)"
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
#: Which lock of the database is ours (its schema is the other half of the key).
_LOCK = 0x53455256

log = logging.getLogger("serving.fleet")


class InUse(ConfigError):
    """Another server has the lock of this database."""


class Database:
    """A SQLite file or a PostgreSQL database that holds the tables of ``tables.py``."""

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._engine: Engine | None = None
        self._secret = b""
        self._file: tuple[int, int] | None = None

    def open(self) -> None:
        """Connect, create what is not there, check what is. Raises ``ConfigError``."""
        try:
            if self._url.get_backend_name() == "sqlite":
                _create_file(self._url)
            self._engine = _engine(self._url)
            with _begin(self._engine, writes=self._url.get_backend_name() == "postgresql") as connection:
                self._secret = _look_over(connection)
            self._file = _identity(self._url)
        except (SQLAlchemyError, OSError, UnicodeDecodeError) as error:  # the last: of a damaged layout
            self.close()
            raise ConfigError(f"The state store cannot be used: {_reason(error)}.") from error
        except ServingError as error:
            self.close()
            raise ConfigError(error.message) from error

    def close(self) -> None:
        """Close the connection."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def transaction(self, writes: bool) -> Iterator[SqlSession]:
        """A session; at its end what it wrote is durable, or ``ServiceUnavailable`` is raised and nothing written."""
        if self._engine is None:
            raise ServiceUnavailable("The state store is closed.")
        if writes and self._file != _identity(self._url):  # what is written to a file without a name is lost
            raise ServiceUnavailable("The state store's file has been removed or replaced.")
        try:
            with _begin(self._engine, writes) as connection:
                yield SqlSession(connection, self._secret)
        except (DataError, UnicodeEncodeError) as error:
            raise ValidationError(CANNOT_BE_KEPT) from error
        except (IntegrityError, ProgrammingError):
            raise  # a defect of ours
        except SQLAlchemyError as error:
            raise ServiceUnavailable(f"The state store is not available{self._told(error)}.") from error
        except InUse as error:  # the connection was lost, and another server has the lock
            raise ServiceUnavailable(error.message) from error

    def _told(self, error: SQLAlchemyError) -> str:
        """The reason as callers may hear it: PostgreSQL's names hosts, paths and users, which are the operator's."""
        if self._url.get_backend_name() == "sqlite":
            return f": {_reason(error)}"
        log.error("the state store: %s", _reason(error))
        return ""


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


def _engine(url: URL) -> Engine:
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
    event.listen(engine, "connect", _greet_postgresql if postgresql else _greet_sqlite)
    if not postgresql:
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _greet_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin when we say so, not when Python's driver guesses
    for statement in _SQLITE:
        connection.execute(statement)


def _greet_postgresql(connection: Any, _: object) -> None:
    import psycopg  # only those who use it have it

    for statement in _POSTGRESQL:
        connection.execute(statement)
    try:
        connection.execute("SELECT pg_advisory_lock(%s, hashtext(current_schema()))", (_LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise InUse("The state store is in use by another server.") from error
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


def _identity(url: URL) -> tuple[int, int] | None:
    """Which file has the name of ours. None: none, or there is no file."""
    try:
        found = Path(url.database or "").stat() if url.get_backend_name() == "sqlite" else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def _reason(error: BaseException) -> str:
    """What the database said, in one line without our statement."""
    said = str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error)
    return said.strip().partition("\n")[0].rstrip(".") or type(error).__name__


# --- making and looking over ----------------------------------------------------------------------------------------


def _create_file(url: URL) -> None:
    """Make the SQLite file whole, then give it its name: an empty or half-made file is never one of ours."""
    path = Path(url.database or "")
    if path.exists():
        return
    if path.with_name(path.name + "-wal").exists():
        raise ConfigError(f"The state store's file {path.name} is missing, but its journal {path.name}-wal is there.")
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        half.with_name(half.name + suffix).unlink(missing_ok=True)
    os.close(os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    engine = _engine(url.set(database=str(half)))
    try:
        with _begin(engine, writes=True) as connection:
            _create_tables(connection)
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


def _create_tables(connection: Connection) -> None:
    tables.metadata.create_all(connection, checkfirst=False)
    values = {"schema": str(tables.SCHEMA), "secret": secrets.token_hex(32)}
    connection.execute(tables.ADD_META, [{"name": name, "value": value} for name, value in values.items()])


def _look_over(connection: Connection) -> bytes:
    """The store's secret, once its file is sound and its layout is ours."""
    sqlite = connection.dialect.name == "sqlite"
    if sqlite and (found := connection.exec_driver_sql(_CHECK).scalar()) != "ok":
        raise ConfigError(f"The state store is damaged: {str(found).strip().splitlines()[-1]}.")
    there = set(inspect(connection).get_table_names()) & set(tables.metadata.tables)
    if not there and not sqlite:
        _create_tables(connection)
        there = set(tables.metadata.tables)
    if missing := sorted(set(tables.metadata.tables) - there):
        raise ConfigError(f"The state store is damaged or not ours: it has no table {missing[0]!r}.")
    kept = {row.name: row.value for row in connection.execute(tables.META)}
    schema = kept.get("schema", "")
    if schema.isdecimal() and int(schema) > tables.SCHEMA:
        raise ConfigError(f"The state store has layout {schema}, this program knows {tables.SCHEMA}: use a newer one.")
    secret = kept.get("secret", "")
    if schema != str(tables.SCHEMA) or not re.fullmatch("[0-9a-f]{64}", secret):
        raise ConfigError("The state store is damaged: it does not tell its layout.")
    if sqlite:
        for row in connection.execute(tables.ALL):
            check_seal(row)
    return bytes.fromhex(secret)
