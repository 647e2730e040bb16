"""The durable queue itself, without a server around it: submissions, claims among a million, opening, idleness."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.figures import percentile
from loadtests.report import Figure
from loadtests.workloads.base import Bench, per_second
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.work import NewWork, QueueSession

MANY, FEWER = 1_000_000, 100_000
_CALLERS = 16
_CLAIMS = 1_000
_BATCH = 50_000
_LANE = "async/bench"
#: What an idle consumer asks of the queue, and how often in a second.
_IDLE_ROUNDS = 1


@contextmanager
def _data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        yield Path(folder)


def _work(number: int) -> NewWork:
    """A submission as an asynchronous call puts it."""
    name = str(uuid.uuid4())
    body = {
        "endpoint": "bench",
        "input": f"s3://bucket/in/{number}.csv",
        "output": f"s3://bucket/out/{name}.out",
        "content_type": "text/csv",
        "timeout": 900,
        "ttl": 21_600,
        "request_id": name,
    }
    return NewWork(name, _LANE, body, label=name, repeat=name, expires_in=21_600.0)


def queue(bench: Bench) -> list[Figure]:
    """Group commit beside single commits of the bare library; then everything that is asked of a long queue."""
    rows = MANY if bench.seconds > 1 else FEWER
    with _data() as data:
        submissions = _submissions(bench, data)
        return [submissions, *_long_queue(bench, data / "long.db", rows)]


# --- submissions ----------------------------------------------------------------------------------------------------


def _submissions(bench: Bench, data: Path) -> Figure:
    ours, bare, cpu = [], [], []
    with closing(Queue(f"sqlite:///{data}/queue.db").open()) as opened, closing(QueueThread(opened)) as thread:
        for number in range(bench.rounds):
            began = time.process_time()
            done, seconds = asyncio.run(_submit(thread, bench.seconds))
            cpu.append((time.process_time() - began) / done * 1e6)
            ours.append(done / seconds)
            bare.append(_bare_commits(data / "bare.db", bench.seconds))
            bench.say(f"  round {number + 1}: {ours[-1]:,.0f} submissions/s; bare commits {bare[-1]:,.0f}/s")
    value = median(ours)
    return Figure("queue: durable submissions", f"{_CALLERS} callers, group commit", per_second(value),
                  f"{median(bare):,.0f} single commits/s", value, 1_000.0, ">=", "/s",
                  note=f"full sync; {median(cpu):,.0f} µs of CPU each")  # fmt: skip


async def _submit(thread: QueueThread, seconds: float) -> tuple[int, float]:
    """Submissions that were durable, and how long it took."""
    began = time.perf_counter()

    async def caller() -> int:
        done = 0
        while time.perf_counter() < began + seconds:
            work = _work(done)
            await thread.do(lambda session, work=work: session.put(work))
            done += 1
        return done

    done = sum(await asyncio.gather(*(caller() for _ in range(_CALLERS))))
    return done, time.perf_counter() - began


def _bare_commits(path: Path, seconds: float) -> float:
    """Rows a second of the bare library, each committed alone with full sync."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE work (id INTEGER PRIMARY KEY, name TEXT UNIQUE, body TEXT)")
        began, done = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            connection.execute("INSERT INTO work (name, body) VALUES (?, ?)", (str(uuid.uuid4()), "x" * 300))
            done += 1
        return done / (time.perf_counter() - began)


# --- a long queue ---------------------------------------------------------------------------------------------------


def _long_queue(bench: Bench, path: Path, rows: int) -> list[Figure]:
    built = _build(path, rows)
    bench.say(f"  {rows:,} works put in {built:.0f} s, {path.stat().st_size / 1e6:,.0f} MB")
    began = time.perf_counter()
    with closing(Queue(f"sqlite:///{path}").open()) as opened:
        opening = time.perf_counter() - began
        claims = _timed(opened, lambda session: session.lease(_LANE, "bench", 1), _CLAIMS)
        questions = {name: _timed(opened, ask, 50) for name, ask in _questions(opened).items()}
        idle = _idle_cost(opened)
    for name, times in questions.items():
        bench.say(f"  {name}: {median(times):.2f} ms, at most {max(times):.2f}")
    slowest = max(questions, key=lambda name: median(questions[name]))
    worst, claim = median(questions[slowest]), percentile(sorted(claims), 99)
    title = f"queue: {rows:,} waiting"
    return [
        Figure(title, "claim, p99", f"{claim:.2f} ms", "-", claim, 20.0, "<=", "ms",
               note=f"p50 {median(claims):.2f} ms, at most {max(claims):.2f} ms, flush included"),
        Figure(title, "any other question, p50 of the slowest", f"{worst:.2f} ms", "-", worst, 20.0, "<=", "ms",
               note=f"{slowest}; any of {len(questions)} kinds at most {max(map(max, questions.values())):.1f} ms"),
        Figure(title, "opening, every row looked at", f"{opening:.1f} s", "-", opening, 10.0, "<=", "s"),
        Figure(title, "idle consumer", f"{idle:.2f} % of a core", "-", idle, 1.0, "<=", "%",
               note=f"beat, ripen, expired and an empty lease, {_IDLE_ROUNDS} a second"),
    ]  # fmt: skip


def _build(path: Path, rows: int) -> float:
    """Put them; the seconds it took."""
    began = time.perf_counter()
    with closing(Queue(f"sqlite:///{path}").open()) as opened:
        for start in range(0, rows, _BATCH):
            with opened.transaction() as session:
                session.put_all([_work(number) for number in range(start, min(start + _BATCH, rows))])
    return time.perf_counter() - began


def _timed(opened: Queue, ask: Callable[[QueueSession], Any], times: int) -> list[float]:
    """Milliseconds of each transaction."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        with opened.transaction() as session:
            ask(session)
        found.append((time.perf_counter() - began) * 1e3)
    return found


def _questions(opened: Queue) -> dict[str, Callable[[QueueSession], Any]]:
    with opened.transaction() as session:
        (last,) = session.page(_LANE, most=1)
        middle = last.id // 2
    return {
        "backlog": lambda session: session.backlog(_LANE),
        "lanes": lambda session: session.lanes(),
        "owners": lambda session: session.owners(),
        "position of the last": lambda session: session.position(last),
        "get": lambda session: session.get(last.name),
        "by label": lambda session: session.labelled(_LANE, last.label),
        "newest page": lambda session: session.page(_LANE),
        "page in the middle": lambda session: session.page(_LANE, after=middle, newest_first=False),
        "page of leased": lambda session: session.page(_LANE, ["leased", "done"]),
        "expired": lambda session: session.expired(100),
        "ripen": lambda session: session.ripen(),
        "put": lambda session: session.put(_work(0)),
        "finish": lambda session: [
            session.finish(work, "done", {"Status": 200}) for work in session.lease(_LANE, "bench", 1)
        ],
        "prune": lambda session: session.prune(time.time(), 1),
    }


def _idle_cost(opened: Queue) -> float:
    """Per cent of a core that an idle consumer's questions cost."""

    def ask(session: QueueSession) -> None:
        session.beat("bench")
        session.ripen()
        session.expired(100)
        session.lease("async/idle", "bench", 1)

    began, rounds = time.process_time(), 200
    _timed(opened, ask, rounds)
    return (time.process_time() - began) / rounds * _IDLE_ROUNDS * 100
