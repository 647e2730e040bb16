"""Monitor processes as control starts them: answers, shared questions, and every way in which one can end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import monitor_process, monitors
from serving.config import Settings
from serving.errors import ServiceUnavailable, Throttled, ValidationError
from serving.link import plain
from serving.monitor import tasks
from serving.monitors import Monitors
from tests.processes import is_alive

#: A monitor process of a few lines: its task is a statement of Python, which can ``say`` an answer.
TOY = """
import json, os, signal, sys
def say(told):
    print(json.dumps(told), flush=True)
plan = json.loads(sys.stdin.readline())
with open("PLACE", "a") as file:
    file.write(f"{os.getpid()}\\n")
args = plan["args"]
exec(plan["task"])
"""
WAITS = "sys.stdin.read()"  # until nobody wants it any more


@pytest.fixture
def toys(tmp_path: Path) -> Callable[[], Monitors]:
    """Makes monitors whose processes are toys; each writes its pid into ``pids``."""
    source = TOY.replace("PLACE", str(tmp_path / "pids"))
    return lambda: Monitors(Settings(data_dir=tmp_path), tmp_path, (sys.executable, "-S", "-c", source))


def pids(tmp_path: Path) -> list[int]:
    """Of all toys so far."""
    path = tmp_path / "pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def eventually(fact: Callable[[], bool]) -> None:
    """Return when ``fact`` holds."""
    end, pause = time.monotonic() + 20, threading.Event()
    while not fact():
        assert time.monotonic() < end
        pause.wait(0.01)


async def started(tmp_path: Path, count: int = 1) -> list[int]:
    """The pids of toys, once there are so many."""
    await asyncio.to_thread(eventually, lambda: len(pids(tmp_path)) >= count)
    return pids(tmp_path)


def gone(pid: int) -> bool:
    """Has it ended, and been waited for?"""
    return not Path(f"/proc/{pid}").exists()


def question(task: str, **args: Any) -> dict[str, Any]:
    """As a front asks it."""
    return {"task": task, "args": args}


def test_a_process_answers_what_its_task_returns_or_raises(tmp_path: Path) -> None:
    """The real one: a task that is not there is refused in words."""
    made = Monitors(Settings(data_dir=tmp_path), tmp_path)
    with pytest.raises(ValidationError, match="unknown task 'nothing'"):
        asyncio.run(made.ask(question("nothing")))


def full(args: Any, means: Any) -> Any:
    """A task whose disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("tests.test_monitors:full", "The monitor process cannot go on: No space left on device."),
        ("no_such_library:f", "The server lacks the library no_such_library for this: pip install 'serving[monitor]'."),
    ],
)
def test_what_may_pass_is_no_internal_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    """A full disk, a library that is not there: one sentence, and a schedule's run is tried again."""
    monkeypatch.setattr(tasks, "TASKS", {"x": place})
    plan = {"task": "x", "args": {}, "settings": plain(Settings(data_dir=tmp_path)), "run_dir": str(tmp_path)}
    assert {"error": "ServiceUnavailable", "message": words} == monitor_process.answer(plan)


def test_a_process_ends_with_its_input(tmp_path: Path) -> None:
    """Nobody can want its answer then; it says nothing at all."""
    plan = {"task": "x", "args": {}, "settings": plain(Settings(data_dir=tmp_path)), "run_dir": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "serving.monitor_process"], input=json.dumps(plan).encode(), capture_output=True
    )
    assert (1, b"") == (done.returncode, done.stdout)


def test_equal_questions_are_one_process(tmp_path: Path, toys: Callable[[], Monitors]) -> None:
    """Asked together, and a moment later; another question is another process."""

    async def ask() -> list[Any]:
        made = toys()
        same = question("say({'value': args['of'] + 1})", of=1)
        together = await asyncio.gather(made.ask(same), made.ask(same))
        return [*together, await made.ask(same), await made.ask(question("say({'value': 9})"))]

    assert [2, 2, 2, 9] == asyncio.run(ask())
    assert 2 == len(pids(tmp_path))


def test_a_failure_is_not_kept(tmp_path: Path, toys: Callable[[], Monitors]) -> None:
    """Those who waited hear of it; who asks again may be luckier."""

    async def ask() -> None:
        made = toys()
        for _ in range(2):
            with pytest.raises(ValidationError, match=r"^no$"):
                await made.ask(question("say({'error': 'ValidationError', 'message': 'no'})"))

    asyncio.run(ask())
    assert 2 == len(pids(tmp_path))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal 11 before it had answered"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed before it had answered; perhaps there was not enough"),
        ("sys.exit(3)", "ended with status 3 before it had answered"),
        ("os.write(1, b'half'); sys.exit(0)", "ended with status 0 before it had answered"),
    ],
)
def test_a_process_that_ends_early_is_an_error_in_words(toys: Callable[[], Monitors], task: str, words: str) -> None:
    """Never a hang, and the next is not disturbed."""

    async def ask() -> Any:
        made = toys()
        with pytest.raises(ServiceUnavailable, match=words):
            await made.run(task, {}, 30.0)
        return await made.run("say({'value': 1})", {}, 30.0)

    assert 1 == asyncio.run(ask())


def test_a_process_ends_at_its_time_limit(tmp_path: Path, toys: Callable[[], Monitors]) -> None:
    """Killed, and waited for."""
    with pytest.raises(ServiceUnavailable, match="took longer than 1 s and was ended"):
        asyncio.run(toys().run(WAITS, {}, 1.0))
    assert [True] == [gone(pid) for pid in pids(tmp_path)]


def test_a_process_that_holds_too_much_memory_is_ended(
    toys: Callable[[], Monitors], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the machine has none left."""
    monkeypatch.setattr(monitors, "_LEAST_MEMORY", 2**26)
    monkeypatch.setattr(monitors, "_MOST_MEMORY", 2**26)
    with pytest.raises(ServiceUnavailable, match=r"MiB of memory and was ended; 64 are allowed\.$"):
        asyncio.run(toys().run(f"held = b'x' * 2**27; {WAITS}", {}, 30.0))


def test_a_run_that_nobody_wants_any_more_ends(tmp_path: Path, toys: Callable[[], Monitors]) -> None:
    """A stopped execution works no longer."""

    async def stop() -> int:
        run = asyncio.create_task(toys().run(WAITS, {}, 30.0))
        (pid,) = await started(tmp_path)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        return pid

    assert gone(asyncio.run(stop()))


def test_questions_wait_in_a_short_line_and_not_for_runs(tmp_path: Path, toys: Callable[[], Monitors]) -> None:
    """One process a lane; one question too many is refused; the end of the server ends them all."""

    async def crowd() -> list[int]:
        made = toys()
        run = asyncio.create_task(made.run(WAITS, {}, 30.0))
        asked = [asyncio.create_task(made.ask(question(WAITS, number=number))) for number in range(8)]
        found = await started(tmp_path, 2)
        with pytest.raises(Throttled):
            await made.ask(question(WAITS, number=8))
        await made.close()
        for task in asked:
            with pytest.raises(ServiceUnavailable):
                await task
        with pytest.raises(asyncio.CancelledError):
            await run
        return found

    assert [True, True] == [gone(pid) for pid in asyncio.run(crowd())]


def test_a_process_dies_with_whoever_started_it(tmp_path: Path) -> None:
    """However that ends: here by kill -9, while the process is stopped and cannot see the end of its input."""
    script = f"""
import asyncio, os, signal
from pathlib import Path
from serving.config import Settings
from serving.monitors import Monitors
async def go():
    process = await asyncio.create_subprocess_exec(
        {sys.executable!r}, "-m", "serving.monitor_process", stdin=asyncio.subprocess.PIPE)
    while not Path(f"/proc/{{process.pid}}/oom_score_adj").read_text().startswith("1000"):
        await asyncio.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(go())
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert -signal.SIGKILL == done.returncode
    pid = int(done.stdout)
    eventually(lambda: not is_alive(pid))
