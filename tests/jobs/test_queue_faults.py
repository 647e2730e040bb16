"""The queue under faults: killed workers, full disks, failed flushes, damaged files, a second process, a lost one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.errors import ConfigError, ServiceUnavailable
from serving.jobs import database
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.work import QueueSession, Work
from tests import memory
from tests.postgres import NEEDED, Postgres, postgres
from tests.queues import DATABASES, LANE, new, opened, url_of


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a SQLite queue with works in several states."""
    path = tmp_path / "queue.db"
    fill(path)
    return path


def fill(path: Path) -> None:
    """Put some hundred works, and bring some of them to an end."""
    with opened(f"sqlite:///{path}") as queue, queue.transaction() as session:
        session.put_all([new(f"{number}", label=f"label {number}") for number in range(100)])
        for number in range(20):
            session.put(new(f"heavy {number}", payload=bytes([number]) * 3000, repeat=f"r{number}"))
        for work in session.lease(LANE, "me", 10):
            session.finish(work, "done", {"Status": 200}, b"answer" * 100)


def refuses(url: str) -> str:
    """The one sentence with which a queue is refused."""
    with pytest.raises(ConfigError) as caught:
        Queue(url).open()
    assert "\n" not in caught.value.message
    return caught.value.message


# --- death ----------------------------------------------------------------------------------------------------------

#: For each line it reads it lets a child work on the queue, at random, until that is killed. The child tells each thing
#: that is durable: what, which work, and what it came to.
WORKERS = """
import json, os, random, sys
from serving.jobs.queue import Queue
from serving.jobs.work import NewWork
import serving.jobs.database

def tell(*what):
    os.write(1, (json.dumps(what) + "\\n").encode())

def new(name, lane="lane"):
    return NewWork(name, lane, {"Name": name}, payload=name.encode() * 50, repeat=name, expires_in=3600.0)

def step(queue, dice, me, number):
    with queue.transaction() as session:
        works = session.lease("lane", me, dice.randrange(1, 4)) + session.decided("lane", me, 2)
    tell("taken", [(work.name, work.attempt) for work in works])
    fresh = [new(f"{me}-{number}-{at}") for at in range(dice.randrange(4))]
    with queue.transaction() as session:
        for work in fresh:
            session.put(work)
    tell("put", [work.name for work in fresh])
    for work in works:
        act = dice.choice(["finish", "decide", "decide", "retry", "back", "keep", "cancel"])
        if work.state == "decided" or act == "finish":
            note = new(f"note {work.name}", "outbox")
            with queue.transaction() as session:
                session.finish(work, "done", None if work.outcome else {"By": me}, also=[note])
            tell("done", work.name)
        elif act == "decide":
            with queue.transaction() as session:
                session.decide(work, {"By": me}, me.encode())
            tell("decided", work.name, me)
        elif act == "retry":
            with queue.transaction() as session:
                session.retry(work, dice.choice([0.0, 0.001]), died=True)
        elif act == "back":
            with queue.transaction() as session:
                session.give_back(work)
        elif act == "cancel":
            with queue.transaction() as session:
                session.cancel(work.name, {"By": me})
            tell("cancelled", work.name)
    with queue.transaction() as session:
        session.ripen()
        session.beat(me)

def work(url, seed):
    queue, dice, number = Queue(url).open(), random.Random(seed), 0
    with queue.transaction() as session:
        session.rescue(session.owners())
    while True:
        step(queue, dice, f"owner{seed}", number)
        number += 1

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            work(sys.argv[1], int(line))
        finally:
            os._exit(1)
    tell("child", child)
    tell("ended", os.waitpid(child, 0)[1])
"""


def killed_again_and_again(url: str, times: int) -> Iterator[list[list[Any]]]:
    """What each worker had told when it was killed, at a random moment."""
    dice = random.Random(5)
    command = [sys.executable, "-c", WORKERS, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as workers:
        assert workers.stdin is not None
        assert workers.stdout is not None
        for seed in range(times):
            print(seed, file=workers.stdin, flush=True)
            word, child = json.loads(workers.stdout.readline())
            assert "child" == word
            told = [json.loads(workers.stdout.readline()) for _ in range(dice.randrange(1, 60))]
            os.kill(child, signal.SIGKILL)
            while "ended" != (heard := json.loads(workers.stdout.readline()))[0]:
                told.append(heard)
            assert ["ended", signal.SIGKILL] == heard
            yield told
        workers.stdin.close()


class Told:
    """What is known to be durable."""

    def __init__(self) -> None:
        self.put: set[str] = set()
        self.ended: dict[str, str] = {}
        self.decided: dict[str, str] = {}
        self.attempts: dict[str, int] = {}

    def hear(self, told: list[list[Any]]) -> None:
        """Take in what one worker told."""
        for word, what, *more in told:
            if word == "put":
                self.put |= set(what)
            elif word == "taken":
                self.attempts |= dict(what)
            elif word == "decided":
                self.decided[what] = more[0]
            else:
                self.ended[what] = word

    def check(self, session: QueueSession) -> None:
        """All of it is there; every work is in a state that can be, with all that belongs to it."""
        works = {work.name: session.get(work.name) or work for work in session.page("lane", most=100_000)}
        notes = {work.name for work in session.page("outbox", most=100_000)}
        assert self.put <= set(works)
        assert self.ended == {name: works[name].state for name in self.ended}
        for name, by in self.decided.items():
            assert works[name].state in ("decided", "done")
            assert ({"By": by}, by.encode()) == (works[name].outcome, works[name].answer)
        assert all(attempt <= works[name].attempt for name, attempt in self.attempts.items())
        assert {f"note {name}" for name, work in works.items() if work.state == "done"} == notes
        for work in works.values():
            check_possible(work)
        open_works = [work for work in works.values() if work.finished is None]
        running = [work for work in open_works if work.state in ("leased", "decided")]
        assert (len(open_works), len(running)) == session.backlog("lane")[:2]
        assert {work.owner for work in running} - {""} == set(session.owners())


def check_possible(work: Work) -> None:
    """It has what its state says."""
    assert ("leased" == work.state) <= bool(work.owner)
    assert bool(work.owner) <= (work.state in ("leased", "decided"))
    assert (work.state in ("decided", "done", "cancelled")) == (work.outcome is not None)
    assert (work.finished is None) == (work.payload == work.name.encode() * 50)
    assert 0 <= work.deaths <= work.attempt


@pytest.mark.parametrize(("database", "times"), [("sqlite", 25), pytest.param("postgresql", 6, marks=NEEDED)])
def test_a_killed_process_leaves_nothing_half_done(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, times: int
) -> None:
    """kill -9 at random moments, again and again on one queue: what was told is there, once, and all of it."""
    url, told = url_of(request, database, tmp_path), Told()
    for heard in killed_again_and_again(url, times):
        told.hear(heard)
        if database == "sqlite":
            check_counts(tmp_path / "queue.db")
        with opened(url) as queue, queue.transaction() as session:
            told.check(session)
    assert all((told.put, told.ended, told.decided))


def check_counts(path: Path) -> None:
    """What is counted beside the rows was right in the moment of death."""
    counted = "SELECT lane, size, running FROM work_lanes WHERE size > 0 ORDER BY lane"
    rows = """SELECT lane, count(*), sum(state IN ('leased', 'decided')) FROM work
        WHERE state IN ('waiting', 'queued', 'leased', 'decided') GROUP BY lane ORDER BY lane"""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(rows).fetchall() == connection.execute(counted).fetchall()


# --- disks ----------------------------------------------------------------------------------------------------------

FULL = """
import asyncio, resource, sys
from pathlib import Path
from serving.errors import ServiceUnavailable
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.work import NewWork

async def put(name, size):
    work = NewWork(name, "lane", {}, payload=b"x" * size)
    try:
        return (await thread.do(lambda session: session.put(work))).work.state
    except ServiceUnavailable as error:
        return error.message

async def main():
    print(await put("before", 1000))
    wal = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 5000, resource.RLIM_INFINITY))
    print(*await asyncio.gather(*(put(f"too much {number}", 100_000) for number in range(8))), sep="|")
    print(await thread.do(lambda session: [session.backlog("lane").size, *session.lanes()]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(*await asyncio.gather(*(put(f"after {number}", 100_000) for number in range(8))))

path = Path(sys.argv[1])
queue = Queue(f"sqlite:///{path}").open()
thread = QueueThread(queue)
asyncio.run(main())
thread.close()
queue.close()
"""


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    """503 to all who put while it is full; questions are answered; with space again everything goes on by itself."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "queue.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    before, full, there, after = done.stdout.splitlines()
    assert "queued" == before
    assert [True] * 8 == [said.startswith("The job queue is not available: ") for said in full.split("|")]
    assert "[1, 'lane']" == there
    assert "queued " * 8 == after + " "
    with opened(f"sqlite:///{tmp_path}/queue.db") as queue, queue.transaction() as session:
        assert 9 == session.backlog("lane").size
        assert session.get("too much 0") is None


#: From one moment on the kernel refuses to flush: fsync and fdatasync answer EIO (seccomp, by system call number).
UNFLUSHED = """
import ctypes, os, platform, struct, sys
from serving.errors import ServiceUnavailable
from serving.jobs.queue import Queue
from serving.jobs.work import NewWork

def put(name):
    try:
        with queue.transaction() as session:
            return session.put(NewWork(name, "lane", {})).work.state
    except ServiceUnavailable as error:
        return error.message

def break_flushes():
    calls = {"x86_64": (74, 75), "aarch64": (82, 83)}[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    rules = [(load, 0, 0, 0), (equal, 2, 0, calls[0]), (equal, 1, 0, calls[1]),
             (answer, 0, 0, 0x7FFF0000), (answer, 0, 0, 0x00050005)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(program)))
    kernel = ctypes.CDLL(None, use_errno=True)
    assert 0 == kernel.prctl(38, 1, 0, 0, 0), os.strerror(ctypes.get_errno())
    assert 0 == kernel.prctl(22, 2, filter, 0, 0), os.strerror(ctypes.get_errno())

queue = Queue(f"sqlite:///{sys.argv[1]}").open()
print(put("before"))
break_flushes()
print(put("unflushed"))
print(put("again"))
sys.stdout.flush()
os._exit(0)
"""


def test_a_failed_flush_is_never_success(tmp_path: Path) -> None:
    """Nor the second time, when a kernel would say that nothing is left to flush."""
    command = [sys.executable, "-c", UNFLUSHED, str(tmp_path / "queue.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ["queued", *["The job queue is not available: disk I/O error."] * 2] == done.stdout.splitlines()
    with opened(f"sqlite:///{tmp_path}/queue.db") as queue, queue.transaction() as session:
        assert session.get("before") is not None
        assert session.backlog("lane").size == len(session.page("lane"))


def test_a_file_that_was_removed_takes_nothing_more(file: Path) -> None:
    """What is written to a file without a name is lost."""
    with opened(f"sqlite:///{file}") as queue:
        file.rename(file.with_name("elsewhere"))
        with pytest.raises(ServiceUnavailable, match="removed or replaced"), queue.transaction():
            pass
        file.with_name("elsewhere").rename(file)
        with queue.transaction() as session:
            assert 110 == session.backlog(LANE).size


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no database at all", b"\0" * 8192])
def test_a_file_that_is_no_queue_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is left as it is."""
    path = tmp_path / "queue.db"
    path.write_bytes(content)
    assert "job queue" in refuses(f"sqlite:///{path}")
    assert content == path.read_bytes()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_refused(file: Path, share: float) -> None:
    """Wherever: no job is silently missing."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refuses(f"sqlite:///{file}")


@pytest.mark.parametrize("what", [b"label 77", b'{"Name":"88"}', b"200}", b"answeranswer", b"\x05\x05\x05", b"queued"])
def test_a_value_that_turned_is_refused(file: Path, what: bytes) -> None:
    """What was put, what it came to, the bytes of either, its state: the sentence says which work it is."""
    content = file.read_bytes()
    place = content.rindex(what)
    file.write_bytes(content[: place + 2] + bytes([content[place + 2] ^ 1]) + content[place + 3 :])
    assert refuses(f"sqlite:///{file}").startswith("The job queue is damaged: ")


def test_a_long_queue_is_refused_whose_index_lost_a_row(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is too large to seek every row in every index, the sums of both are compared."""
    monkeypatch.setattr(database, "_SMALL_FILE", 0)
    with opened(f"sqlite:///{file}") as queue, queue.transaction() as session:
        assert 110 == session.backlog(LANE).size
    content = file.read_bytes()
    place = content.rindex(b"fraudqueued")  # only the index has the state behind the lane
    file.write_bytes(content[:place] + b"g" + content[place + 1 :])
    said = refuses(f"sqlite:///{file}")
    assert "The job queue is damaged: the index work_lane does not hold the rows there are." == said


def test_a_long_queue_without_works_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to add up."""
    monkeypatch.setattr(database, "_SMALL_FILE", 0)
    for _ in range(2):
        with opened(f"sqlite:///{tmp_path}/queue.db") as queue, queue.transaction() as session:
            assert [] == session.lanes()


def test_a_column_whose_name_turned_is_refused(file: Path) -> None:
    """SQLite takes any name for a name: its own checks find nothing amiss."""
    content = file.read_bytes()
    place = content.index(b"running ", content.index(b"CREATE TABLE work_lanes"))
    file.write_bytes(content[:place] + b"s" + content[place + 1 :])
    assert "The job queue is damaged: its tables are not as they were declared." == refuses(f"sqlite:///{file}")


@settings(max_examples=60, deadline=None)
@given(place=some.floats(0, 1, exclude_max=True), flip=some.integers(1, 255))
def test_no_byte_turns_unnoticed(tmp_path_factory: pytest.TempPathFactory, place: float, flip: int) -> None:
    """One byte of the file is another: it is refused, or every work is there, what was put and what it came to."""
    sound = sound_file(tmp_path_factory)
    with tempfile.TemporaryDirectory(dir=memory.place()) as folder:
        path = Path(folder) / "queue.db"
        content = bytearray(sound.read_bytes())
        content[int(place * len(content))] ^= flip
        path.write_bytes(content)
        with suppress(ConfigError), opened(f"sqlite:///{path}") as queue:  # refused, or:
            assert what_is_sound(sound) == what_was_put(queue)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a killed process leaves it: ten commits are in the journal."""
    folder = tmp_path_factory.mktemp("left")
    with opened(f"sqlite:///{folder}/first.db") as queue:
        for number in range(10):
            with queue.transaction() as session:
                session.put(new(f"{number}"))
        for suffix in ("", "-wal"):
            shutil.copy(folder / f"first.db{suffix}", folder / f"queue.db{suffix}")
    return folder


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.7])
def test_a_journal_with_a_bit_turned_is_refused(left: Path, tmp_path: Path, share: float) -> None:
    """Or SQLite would end its reading there, and the commits behind it were silently missing."""
    for name in ("queue.db", "queue.db-wal"):
        shutil.copy(left / name, tmp_path / name)
    journal = bytearray((tmp_path / "queue.db-wal").read_bytes())
    journal[int(share * len(journal)) + 10] ^= 1
    (tmp_path / "queue.db-wal").write_bytes(journal)
    for _ in range(2):
        said = refuses(f"sqlite:///{tmp_path}/queue.db")
        assert "The job queue is damaged: its journal queue.db-wal is." == said


@pytest.mark.parametrize("torn", [0, 1, 5000])
def test_a_journal_whose_end_is_torn_is_a_power_cut_s(left: Path, tmp_path: Path, torn: int) -> None:
    """What was not finished then is not there; all before it is."""
    for name in ("queue.db", "queue.db-wal"):
        shutil.copy(left / name, tmp_path / name)
    os.truncate(tmp_path / "queue.db-wal", (left / "queue.db-wal").stat().st_size - torn)
    with opened(f"sqlite:///{tmp_path}/queue.db") as queue, queue.transaction() as session:
        assert (9 if torn else 10) == session.backlog(LANE).size


def sound_file(factory: pytest.TempPathFactory) -> Path:
    """A queue's file, made once."""
    path = factory.getbasetemp() / "sound.db"
    if not path.exists():
        fill(path)
    return path


@cache
def what_is_sound(sound: Path) -> list[tuple[Any, ...]]:
    """What was put into the sound file, read once."""
    with opened(f"sqlite:///{sound}") as queue:
        return what_was_put(queue)


def what_was_put(queue: Queue) -> list[tuple[Any, ...]]:
    """Of every work all but its times and counts."""
    with queue.transaction() as session:
        works = [session.get(work.name) or work for work in session.page(LANE, most=1000)]
    return [
        (one.name, one.state, one.priority, one.label, one.body, one.payload, one.owner, one.outcome, one.answer)
        for one in works
    ]


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE work_meta SET value = '2' WHERE name = 'schema'",
            "The job queue has layout 2, this program knows 1: use a newer one.",
        ),
        ("DELETE FROM work_meta WHERE name = 'clock'", "The job queue is damaged: it does not tell its time."),
        (
            "UPDATE work_meta SET value = '{\"a\":1}' WHERE name = 'clock'",
            "The job queue is damaged: it does not tell its time.",
        ),
        ("DROP TABLE work_lanes", "The job queue is damaged or not ours: it has no table 'work_lanes'."),
    ],
)
def test_a_queue_that_is_not_as_we_left_it_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, statement: str, said: str
) -> None:
    """A newer program's, or one that lost a part."""
    url = url_of(request, database, tmp_path)
    with opened(url) as queue, queue.transaction() as session:
        session._connection.exec_driver_sql(statement)  # type: ignore[attr-defined]  # nobody does this to us
    assert said == refuses(url)


# --- others ---------------------------------------------------------------------------------------------------------

SECOND = """
import sys
from serving.errors import ConfigError
from serving.jobs import database
from serving.jobs.queue import Queue

print("tries", flush=True)
database._PREDECESSOR = float(sys.argv[2])
try:
    Queue(f"sqlite:///{sys.argv[1]}").open().close()
    print("opened")
except ConfigError as error:
    print(error.message)
"""


@contextmanager
def second(file: Path, patience: float) -> Iterator[Any]:
    """Another process that tries to open a queue; it says so, then what came of it."""
    command = [sys.executable, "-c", SECOND, str(file), str(patience)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert "tries\n" == other.stdout.readline()
        yield other.stdout


def test_a_second_process_is_refused(file: Path) -> None:
    """As long as the first has the queue."""
    with opened(f"sqlite:///{file}"), second(file, 0.0) as said:
        assert "The job queue is in use by another process.\n" == said.readline()
    with second(file, 0.0) as said:
        assert "opened\n" == said.readline()


def test_a_successor_waits_for_its_predecessor(file: Path) -> None:
    """One that is just ending is not in its way for long."""
    queue = Queue(f"sqlite:///{file}").open()
    with second(file, 30.0) as said:
        queue.close()
        assert "opened\n" == said.readline()
    assert 0 < database._PREDECESSOR


@NEEDED
def test_a_second_server_on_one_database_is_refused(server: Postgres) -> None:
    """Until the first has gone."""
    url = server.database()
    with opened(url):
        assert "The job queue is in use by another server." == refuses(url)
    with opened(url):
        pass


def cut(server: Postgres, url: str) -> None:
    """End every connection to a database, as a restart of its server would."""
    name = url.partition("@/")[2].partition("?")[0]
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


@NEEDED
def test_a_connection_lost_in_a_transaction_undoes_it(server: Postgres) -> None:
    """503 to all who were in it; the next goes through by itself."""
    url = server.database()

    async def lose(thread: QueueThread) -> list[Any]:
        def lost(session: QueueSession) -> None:
            session.put(new("a"))
            cut(server, url)
            session.put(new("b"))

        return await asyncio.gather(thread.do(lost), return_exceptions=True)

    with opened(url) as queue, closing(QueueThread(queue)) as thread:
        (error,) = asyncio.run(lose(thread))
        assert "The job queue is not available." == str(error)
        assert [] == asyncio.run(thread.do(lambda session: session.page(LANE)))
        assert not asyncio.run(thread.do(lambda session: session.put(new("c")))).again


@NEEDED
def test_a_database_that_is_away_is_said_and_comes_back() -> None:
    """503 while it does not run; then everything goes on by itself, and nothing is lost."""
    with postgres() as server:
        url = server.database()
        with opened(url) as queue, closing(QueueThread(queue)) as thread:
            asyncio.run(thread.do(lambda session: session.put(new("a"))))
            with server.away(), pytest.raises(ServiceUnavailable):
                asyncio.run(thread.do(lambda session: session.put(new("b"))))
            assert ["a"] == [work.name for work in asyncio.run(thread.do(lambda session: session.page(LANE)))]
