"""The store under faults: killed writers, full disks, damaged files, a second server, a lost connection."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from serving.errors import ConfigError, ServiceUnavailable
from serving.fleet.store import Query, Record, Session, Store
from tests.postgres import NEEDED, Postgres, postgres
from tests.stores import DATABASES, opened, record, url_of

#: Writes families (a group, its two versions, three tags, one number) until it is killed; tells each that is safe.
WRITER = """
import sys
from itertools import count
from serving.fleet.store import Record, Store

store = Store(sys.argv[1]).open()
with store.read() as session:
    start = session.count("group")
for number in count(start):
    with store.write() as session:
        name = f"group-{session.next_number('groups')}"
        session.add(Record("group", name, {"Filler": "x" * 3000}, number, number))
        session.put_tags("group", name, [("a", name), ("b", name), ("c", name)])
        for version in ("1", "2"):
            session.add(Record("version", f"{name}/{version}", {"Of": name}, number, number, parent=name))
    print(name, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store may be, on each database in turn."""
    return url_of(request, request.param, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a SQLite store with some hundred records."""
    path = tmp_path / "state.db"
    with opened(f"sqlite:///{path}") as store, store.write() as session:
        session.add_all(records())
    return path


def records() -> list[Record]:
    """Different enough that any byte that turns can be told."""
    return [
        record(f"model-{n}", at=float(n), body={"Text": f"text {n} " * 20}, status="InService", parent=f"group-{n}")
        for n in range(100)
    ]


def refuses(url: str) -> str:
    """The one sentence with which a store is refused."""
    with pytest.raises(ConfigError) as caught:
        Store(url).open()
    assert "\n" not in caught.value.message
    return caught.value.message


# --- death ----------------------------------------------------------------------------------------------------------


def killed_after(url: str, families: int, pause: float) -> list[str]:
    """The names a writer had told when it was killed: ``pause`` seconds after it had told so many."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline().strip() for _ in range(families)]
        try:
            writer.wait(pause)
        except subprocess.TimeoutExpired:
            writer.kill()
        return told + writer.stdout.read().split()


def check_whole(session: Session, told: set[str]) -> None:
    """Every family that was told is there, and every one that is there is whole."""
    groups = {one.name for one in session.every("group")}
    assert told <= groups
    assert {f"{name}/{version}" for name in groups for version in "12"} == {o.name for o in session.every("version")}
    for name in groups:
        assert [("a", name), ("b", name), ("c", name)] == session.tags("group", name)
        assert 2 == session.count("version", name)
    assert groups == {f"group-{number}" for number in range(1, len(groups) + 1)}


def test_a_killed_writer_leaves_nothing_half_made(url: str) -> None:
    """kill -9 at random moments, again and again on one store: what was told is there, whole, and no number is lost."""
    dice = random.Random(3)
    told: set[str] = set()
    for _ in range(5):
        told |= set(killed_after(url, dice.randrange(1, 30), dice.uniform(0.0, 0.02)))
        with opened(url) as store, store.read() as session:
            check_whole(session, told)


def test_a_killed_creation_leaves_nothing(tmp_path: Path) -> None:
    """What a server left that died while it made its file is cleared away by the next."""
    for suffix in ("", "-journal", "-wal"):
        (tmp_path / f"state.db.new{suffix}").write_bytes(b"half a file")
    with opened(f"sqlite:///{tmp_path}/state.db") as store, store.read() as session:
        assert 0 == session.count("model")
    assert ["state.db"] == [path.name for path in tmp_path.iterdir()]


# --- a full disk ----------------------------------------------------------------------------------------------------

FULL = """
import os, resource, sys
from pathlib import Path
from serving.errors import ServiceUnavailable
from serving.fleet.store import Record, Store

def put(name, size):
    try:
        with store.write() as session:
            session.add(Record("model", name, {"Filler": "x" * size}, 1.0, 1.0))
            session.put_tags("model", name, [("a", "b")])
        return "kept"
    except ServiceUnavailable as error:
        return error.message

path = Path(sys.argv[1])
store = Store(f"sqlite:///{path}").open()
print(put("before", 1000))
wal = path.with_name(path.name + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 5000, resource.RLIM_INFINITY))
print(put("too much", 100_000))
with store.read() as session:
    print(*[one.name for one in session.every("model")], session.tags("model", "too much"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(put("after", 100_000))
store.close()
"""


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    """503 while it is full; reading goes on; with space again everything goes on by itself."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "state.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    before, full, there, after = done.stdout.splitlines()
    assert "kept" == before
    assert full.startswith("The state store is not available: ")
    assert "before []" == there
    assert "kept" == after
    with opened(f"sqlite:///{tmp_path}/state.db") as store, store.read() as session:
        assert ["after", "before"] == [one.name for one in session.every("model")]
        assert [] == session.tags("model", "too much")


def test_a_writer_elsewhere_holds_up_no_reader(file: Path) -> None:
    """What it has not committed is not seen; what it has is."""
    with opened(f"sqlite:///{file}") as store, closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM resources")
        with store.read() as session:
            assert 100 == session.count("model")
        other.execute("COMMIT")
        with store.read() as session:
            assert 0 == session.count("model")


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no database at all", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    """Also an empty one: a store is made whole, so an empty file has lost something. It is left as it is."""
    path = tmp_path / "state.db"
    path.write_bytes(content)
    assert "state store" in refuses(f"sqlite:///{path}")
    assert content == path.read_bytes()


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    """We add no tables to it."""
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    assert "The state store is damaged or not ours: it has no table 'meta'." == refuses(f"sqlite:///{path}")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_refused(file: Path, share: float) -> None:
    """Wherever, be it in its last page."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refuses(f"sqlite:///{file}")


def test_a_missing_file_with_a_journal_is_refused(file: Path) -> None:
    """What the journal belongs to is lost: no new store is made over it."""
    file.rename(file.with_name("state.db-wal"))
    assert refuses(f"sqlite:///{file}").endswith("file state.db is missing, but its journal state.db-wal is there.")


@settings(max_examples=60, deadline=None)
@example(place=0.0339119129, flip=128)  # in the text that says what the tables are
@given(place=some.floats(0, 1, exclude_max=True), flip=some.integers(1, 255))
def test_no_byte_turns_unnoticed(tmp_path_factory: pytest.TempPathFactory, place: float, flip: int) -> None:
    """One byte of the file is another: it is refused, or every record is still what it was."""
    path = tmp_path_factory.mktemp("turned") / "state.db"
    shutil.copy(_sound(tmp_path_factory), path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    path.write_bytes(content)
    try:
        store = Store(f"sqlite:///{path}").open()
    except ConfigError:
        return
    with store.read() as session:
        assert records() == session.every("model")
        assert records()[:90:-1] == session.find(Query("model", limit=9))[0]
        assert [*records()] == [session.get("model", one.name) for one in records()]
    store.close()


_sound_files: list[Path] = []


def _sound(factory: pytest.TempPathFactory) -> Path:
    if not _sound_files:
        path = factory.mktemp("sound") / "state.db"
        with opened(f"sqlite:///{path}") as store, store.write() as session:
            session.add_all(records())
        _sound_files.append(path)
    return _sound_files[0]


def test_a_newer_store_is_refused(url: str) -> None:
    """By an older program, which says what to do."""
    with opened(url) as store, store.write() as session:
        session._connection.exec_driver_sql("UPDATE meta SET value = '2' WHERE name = 'schema'")
    assert "The state store has layout 2, this program knows 1: use a newer one." == refuses(url)


def test_a_store_that_lost_its_layout_is_refused(url: str) -> None:
    """Nobody knows what it holds."""
    with opened(url) as store, store.write() as session:
        session._connection.exec_driver_sql("DELETE FROM meta WHERE name = 'schema'")
    assert "The state store is damaged: it does not tell its layout." == refuses(url)


def test_a_store_that_lost_a_table_is_refused(url: str) -> None:
    """Half of it is not made anew."""
    with opened(url) as store, store.write() as session:
        session._connection.exec_driver_sql("DROP TABLE sequences")
    assert "The state store is damaged or not ours: it has no table 'sequences'." == refuses(url)


# --- places ---------------------------------------------------------------------------------------------------------


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    """What would mean something in a URL is a character in a path; folders are made; nobody else may read it."""
    path = tmp_path / "50% of #1?mode=ro" / "state.db"
    with opened(f"sqlite:///{path}"):
        assert 0o600 == path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:secret@h/d", "The database URL is neither sqlite:///PATH nor postgresql+psycopg://HOST/DATABASE."),
        ("no url", "The database URL is not one."),
        ("sqlite:///", "The database URL is neither sqlite:///PATH nor postgresql+psycopg://HOST/DATABASE."),
        ("sqlite:////proc/none/state.db", "The state store cannot be used: No such file or directory."),
    ],
)
def test_a_place_that_cannot_be_is_refused(url: str, said: str) -> None:
    """Without a word of its password or its path."""
    assert said == refuses(url)


def test_a_database_that_does_not_answer_is_refused() -> None:
    """Without its password."""
    message = refuses("postgresql://me:secret@127.0.0.1:1/state")
    assert message.startswith("The state store cannot be used: ")
    assert "secret" not in message


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@NEEDED
def test_a_second_server_on_one_database_is_refused(server: Postgres) -> None:
    """Until the first has gone."""
    url = server.database()
    with opened(url):
        assert "The state store is in use by another server." == refuses(url)
    with opened(url) as store, store.read() as session:
        assert 0 == session.count("model")


@NEEDED
def test_two_databases_of_one_server_do_not_mind_each_other(server: Postgres) -> None:
    """Nor do two schemas of one database."""
    url, other = server.database(), server.database()
    with server.connect(url.partition("@/")[2].partition("?")[0]) as connection:
        connection.execute("CREATE SCHEMA apart")
    with opened(url) as first, opened(other), opened(f"{url}&options=-csearch_path%3Dapart") as third:
        with first.write() as session:
            session.add(record("mine"))
        with third.read() as session:
            assert 0 == session.count("model")


def cut(server: Postgres, url: str) -> None:
    """End every connection to a database, as a restart of its server would."""
    name = url.partition("@/")[2].partition("?")[0]
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


@NEEDED
def test_a_lost_connection_is_replaced(server: Postgres) -> None:
    """Between two transactions nobody notices; the new one has the lock."""
    url = server.database()
    with opened(url) as store:
        cut(server, url)
        with store.write() as session:
            session.add(record("a"))
        assert "in use" in refuses(url)


@NEEDED
def test_a_connection_lost_in_a_transaction_undoes_it(server: Postgres) -> None:
    """503, and nothing was written; the next goes through."""
    url = server.database()
    with opened(url) as store:
        with pytest.raises(ServiceUnavailable), store.write() as session:
            session.add(record("a"))
            cut(server, url)
            session.add(record("b"))
        with store.write() as session:
            assert 0 == session.count("model")
            session.add(record("c"))


@NEEDED
def test_a_server_that_lost_its_place_writes_no_more(server: Postgres) -> None:
    """Another took the lock while its connection was cut: 503 from then on."""
    url = server.database()
    first, second = Store(url).open(), Store(url)
    cut(server, url)
    second.open()
    with pytest.raises(ServiceUnavailable, match="in use by another server"), first.write() as session:
        session.add(record("a"))
    second.close()
    with first.write() as session:
        assert 0 == session.count("model")
    first.close()
