"""The database under the store: what is special about it beside other databases of ours (``serving/database.py``)."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import Connection

from serving import database
from serving.errors import ConfigError
from serving.fleet import tables
from serving.fleet.session import SqlSession, check_seal


def _check(connection: Connection, kept: Mapping[str, str]) -> None:
    """Every row is what was once written, in a file; PostgreSQL looks after its own pages."""
    if not re.fullmatch("[0-9a-f]{64}", kept.get("secret", "")):
        raise ConfigError("The state store is damaged: it does not tell its layout.")
    if connection.dialect.name == "sqlite":
        for row in connection.execute(tables.ALL):
            check_seal(row)


_LAYOUT = database.Layout(
    title="state store",
    metadata=tables.metadata,
    meta=tables.meta,
    schema=tables.SCHEMA,
    lock=0x53455256,
    log=logging.getLogger("serving.fleet"),
    check=_check,
    first=lambda: {"secret": secrets.token_hex(32)},  # seals the tokens of pages
    # every page, and every row against every index: 0.7 s for 100,000 models
    checkup="PRAGMA integrity_check(1)",
)


class Database:
    """A SQLite file or a PostgreSQL database that holds the tables of ``tables.py``."""

    def __init__(self, url: str) -> None:
        self._database = database.Database(url, _LAYOUT)
        self._secret = b""

    def open(self) -> None:
        """Connect, create what is not there, check what is. Raises ``ConfigError``."""
        self._secret = bytes.fromhex(self._database.open()["secret"])

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    @contextmanager
    def transaction(self, writes: bool) -> Iterator[SqlSession]:
        """A session; at its end what it wrote is durable, or ``ServiceUnavailable`` is raised and nothing written."""
        with self._database.transaction(writes) as connection:
            yield SqlSession(connection, self._secret)
