"""Stores for tests: on every database there is, in their own files and databases, with toy records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.fleet.store import Query, Record, Store
from tests.postgres import NEEDED, Postgres

DATABASES = ["sqlite", pytest.param("postgresql", marks=NEEDED)]


def url_of(request: pytest.FixtureRequest, database: str, folder: Path) -> str:
    """The URL of a new, empty store. The ``postgresql`` fixture is started only by those who need it."""
    if database == "sqlite":
        return f"sqlite:///{folder}/state.db"
    server: Postgres = request.getfixturevalue("server")
    return server.database()


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """An open store."""
    store = Store(url).open()
    try:
        yield store
    finally:
        store.close()


def record(name: str, kind: str = "model", at: float = 1.0, **more: Any) -> Record:
    """A record made and last changed at ``at``."""
    return Record(**{"kind": kind, "name": name, "body": {"Name": name}, "created": at, "modified": at, **more})


def walk(store: Store, query: Query) -> list[str]:
    """The names on all pages of a list, one transaction a page."""
    names: list[str] = []
    while True:
        with store.read() as session:
            page, token = session.find(query)
        assert len(page) <= query.limit
        names += [one.name for one in page]
        if not token:
            return names
        query = replace(query, token=token)
