"""A server that cannot start says why in one sentence and ends at once, whatever it had already begun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import NEEDED, Postgres, postgres
from tests.server import serve
from tests.stores import opened


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


def last_words(tmp_path: Path, **environment: str) -> str:
    """What a server says that must not start. It ends by itself, and leaves nobody behind to be killed."""
    with serve(tmp_path, wait=False, environment=environment) as refused:
        assert 2 == refused.process.wait(60)
        refused.close()
        assert "Traceback" not in refused.log
        assert "did not drain" not in refused.log
        return refused.lines[-1]


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    """It is left for somebody to look at."""
    file = tmp_path / "data" / "serving.db"
    file.parent.mkdir()
    file.write_bytes(b"no database")
    assert "Error: The state store cannot be used: file is not a database." == last_words(tmp_path)
    assert b"no database" == file.read_bytes()


@NEEDED
def test_a_second_server_on_one_database_is_refused(tmp_path: Path, server: Postgres) -> None:
    """By the time it knows, its fronts stand already."""
    url = server.database()
    with opened(url):
        assert "Error: The state store is in use by another server." == last_words(tmp_path, SERVING_DATABASE_URL=url)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            [{"AccessKeyId": "me", "SecretAccessKey": "short", "Permissions": ["*"]}],
            "keys.json[0].SecretAccessKey must be",
        ),
        ({"not": "a list"}, "keys.json"),
    ],
)
def test_keys_that_are_none_are_refused(tmp_path: Path, content: object, said: str) -> None:
    """Before anything is started."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(content))
    keys.chmod(0o600)
    assert said in last_words(tmp_path, SERVING_ACCESS_KEYS=str(keys))
