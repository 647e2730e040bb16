"""Control's side of monitor processes: tasks over what was written down, each in a process of its own.

There are two lanes, each with one process at a time: what people ask through a front must not wait for a schedule's
run of an hour. Equal questions are one process, whose answer serves as long again as it took to find; a line that is
too long is refused. A process ends with its answer, at its time limit, when nobody wants the answer, when it holds too
much memory, and with the server.

Memory is bounded by what a process really holds, looked at while it works: limits on address space (``RLIMIT_AS``)
refuse the large reservations of numpy, Arrow and every thread's stack, which cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from serving.config import Settings, usable_memory
from serving.errors import BY_NAME, InternalFailure, ServiceUnavailable, Throttled
from serving.link import plain

#: What a front asks may take so long; a front waits less (``link.py``), and finds the answer when it asks again.
_QUESTION_SECONDS, _WAIT_SECONDS = 300.0, 25.0
#: Within these an answer is fresh as long as it took to find: who asks a cheap question again has new calls in mind,
#: who had to be sent away from a dear one finds its answer.
_LEAST_FRESH, _MOST_FRESH = 0.5, 60.0
#: Different questions at a time, the one at work included; above it: ThrottlingException.
_MOST_QUESTIONS = 8
_LONGEST_ANSWER = 16 * 2**20
#: The memory of one process is looked at so often.
_LOOK_SECONDS = 0.25
_LEAST_MEMORY, _MOST_MEMORY = 2**30, 4 * 2**30
_COMMAND = (sys.executable, "-m", "serving.monitor_process")


class _Kept(NamedTuple):
    """A question: the task that answers it, and until when its answer is fresh (never, while it is at work)."""

    task: asyncio.Task[Any]
    until: float


class Monitors:
    """All monitor processes of a server."""

    def __init__(self, settings: Settings, run_dir: Path, command: Sequence[str] = _COMMAND) -> None:
        """``command``: what is started for each task."""
        self._plan = {"settings": plain(settings), "run_dir": str(run_dir)}
        self._command = command
        self._memory = min(max(usable_memory() // 4, _LEAST_MEMORY), _MOST_MEMORY)
        self._questions: dict[str, _Kept] = {}
        self._asking = asyncio.Lock()
        self._running = asyncio.Lock()
        self._runs: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def ask(self, question: Mapping[str, Any]) -> Any:
        """A front's question, ``{"task", "args"}``: its answer, perhaps another's of a few seconds ago. Raises the
        task's ``ServingError``; ``Throttled``; ``ServiceUnavailable`` when it takes longer than a front can wait: it
        goes on, and who asks again finds the answer."""
        key = json.dumps([question["task"], question["args"]], sort_keys=True)
        self._forget(time.monotonic())
        kept = self._questions.get(key)
        if kept is None:
            kept = self._questions[key] = self._begin(key, question)
        try:
            return await asyncio.wait_for(asyncio.shield(kept.task), _WAIT_SECONDS)
        except TimeoutError:
            raise ServiceUnavailable("This is still being computed; ask again.") from None
        except asyncio.CancelledError:
            if kept.task.cancelled():
                raise ServiceUnavailable("The server is shutting down.") from None
            raise

    def _forget(self, now: float) -> None:
        self._questions = {key: kept for key, kept in self._questions.items() if kept.until > now}

    def _begin(self, key: str, question: Mapping[str, Any]) -> _Kept:
        if sum(not kept.task.done() for kept in self._questions.values()) >= _MOST_QUESTIONS:
            raise Throttled("Too many questions about captures at a time; ask again in a few seconds.", 5.0)
        work = self._in(self._asking, question["task"], question["args"], _QUESTION_SECONDS)
        task = asyncio.create_task(work)
        begun = time.monotonic()
        task.add_done_callback(lambda done: self._answered(key, done, begun))
        return _Kept(task, float("inf"))

    def _answered(self, key: str, task: asyncio.Task[Any], begun: float) -> None:
        """Good answers are kept for a while, failures for those who wait alone."""
        failed = task.cancelled() or task.exception() is not None
        if failed:
            self._questions.pop(key, None)
        else:
            now = time.monotonic()
            self._questions[key] = _Kept(task, now + min(max(now - begun, _LEAST_FRESH), _MOST_FRESH))

    async def run(self, task: str, args: Mapping[str, Any], seconds: float) -> Any:
        """Do a task on behalf of the server itself, when those before it are done; its process is ended ``seconds``
        after it began, and when this is cancelled. Raises the task's ``ServingError``, ``ServiceUnavailable`` when its
        process was ended."""
        return await self._in(self._running, task, args, seconds)

    async def _in(self, lane: asyncio.Lock, task: str, args: Mapping[str, Any], seconds: float) -> Any:
        here = asyncio.current_task()
        assert here is not None
        self._runs.add(here)
        try:
            async with lane:
                if self._closed:
                    raise ServiceUnavailable("The server is shutting down.")
                return _value(task, await self._process(task, args, seconds))
        finally:
            self._runs.discard(here)

    async def _process(self, task: str, args: Mapping[str, Any], seconds: float) -> bytes:
        """What the process of a task has printed. Raises ``ServiceUnavailable`` when it had to be ended, or ended."""
        plan = json.dumps({**self._plan, "task": task, "args": args}).encode() + b"\n"
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_LONGEST_ANSWER,
            )
        except OSError as error:
            raise ServiceUnavailable(f"No monitor process can be started: {error.strerror}.") from None
        watching = asyncio.create_task(self._watch(process))
        try:
            async with asyncio.timeout(seconds):
                answer = await _exchange(process, plan)
                status = await process.wait()
        except TimeoutError:
            raise ServiceUnavailable(f"The monitor process took longer than {seconds:.0f} s and was ended.") from None
        finally:
            watching.cancel()
            await _end(process)
        if not answer.endswith(b"\n"):
            raise ServiceUnavailable(_why(watching, status))
        return answer

    async def _watch(self, process: asyncio.subprocess.Process) -> str:
        """End a process that holds too much memory; why it did so."""
        while True:
            held = _resident(process.pid)
            if held > self._memory:
                break
            await asyncio.sleep(_LOOK_SECONDS)  # between two looks at its memory
        process.kill()
        return f"The monitor process held {held >> 20} MiB of memory and was ended; {self._memory >> 20} are allowed."

    async def close(self) -> None:
        """End them all; nothing is begun any more."""
        self._closed = True
        for task in self._runs:
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)


async def _exchange(process: asyncio.subprocess.Process, plan: bytes) -> bytes:
    """The plan in, the one line out. Its input stays open: the end of it is the end of the process."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(ConnectionError):  # it has ended already: its status says how
        process.stdin.write(plan)
        await process.stdin.drain()
    try:
        return await process.stdout.readline()
    except ValueError:  # longer than the limit
        process.kill()
        raise InternalFailure("The answer of the monitor process is too long.") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
    if process.stdin is not None:
        process.stdin.close()


def _why(watching: asyncio.Task[str], status: int) -> str:
    if watching.done() and not watching.cancelled():
        return watching.result()
    if status == -signal.SIGKILL:
        return "The monitor process was killed before it had answered; perhaps there was not enough memory."
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"The monitor process {how} before it had answered."


def _resident(pid: int) -> int:
    """Bytes of a process in memory; 0 when it has gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _value(task: str, answer: bytes) -> Any:
    told: dict[str, Any] = json.loads(answer)
    if "error" in told:
        raise BY_NAME.get(told["error"], InternalFailure)(told["message"])
    return told["value"]
