"""A few bytes of shared memory per worker that outlive it: which model was running, since when, on which thread.

When a worker dies or goes silent, its supervisor and the fronts read here whose fault it was, without asking the
worker. One slot per worker thread, so a write needs no lock. Behind the slots there is room for last words: which
thread crashed, and where, by the interpreter's fault handler; or which one ended the process by a call of Python's.
"""

from __future__ import annotations

import faulthandler
import hashlib
import mmap
import os
import re
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

IDLE, LOADING, RUNNING = 0, 1, 2
SLOTS = 64
_SLOT = struct.Struct("<QdQQ?3xdI")
_STATE_AT = _SLOT.size - struct.calcsize("<I")
_BEAT_AT = _SLOT.size * SLOTS
_BEAT = struct.Struct("<d")
_SIZE = _BEAT_AT + _BEAT.size
_LONGEST_WORDS = 16 * 1024
_CRASHED = re.compile(r"^Current thread 0x([0-9a-f]+)", re.MULTILINE)


class Busy(NamedTuple):
    """What one thread of a worker is doing: ``LOADING`` or ``RUNNING``, which model, since when (monotonic seconds),
    for which call (its id if it runs alone, else 0), on which thread; ``proven``: the model has answered calls before;
    ``limit``: how many seconds its callers give it, if that differs from call to call (else 0)."""

    state: int
    model: int
    since: float
    call: int = 0
    thread: int = 0
    proven: bool = False
    limit: float = 0.0


class Reading(NamedTuple):
    """A cell as it stands: threads at work, when the interpreter last turned (monotonic seconds; 0.0: there is no
    telling) and, after a native crash, the fault handler's words."""

    busy: list[Busy]
    beat: float = 0.0
    last_words: str = ""


def model_key(name: str) -> int:
    """A model's 64-bit name in a cell; never 0. The same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


def culprit(reading: Reading) -> Busy | None:
    """What a worker's end is held against: what ran on the thread that its last words name, or the only thing that ran.
    None when nobody can tell."""
    found = _CRASHED.search(reading.last_words)
    if found is not None:
        thread = int(found[1], 16)
        for one in reading.busy:
            if one.thread == thread:
                return one
    return reading.busy[0] if len(reading.busy) == 1 else None


def suspect(reading: Reading) -> Busy | None:
    """The most likely culprit where somebody must be: rather a load or a model's first call than one that has gone well
    before; and of these what began last, as what ends a process or takes the interpreter lock for good mostly does so
    soon. None when nothing ran."""
    return culprit(reading) or max(reading.busy, key=lambda one: (not one.proven, one.since), default=None)


class Cell:
    """The worker's own side: it writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("w+b") as file:
            file.truncate(_SIZE)
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def keep_last_words(self) -> None:
        """From now on a native crash (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) is noted in the cell, and so are the
        two calls by which Python code ends its process with no trace."""
        words = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        faulthandler.enable(words)
        really_exit, really_kill = os._exit, os.kill

        def say(what: str) -> None:
            with suppress(OSError):
                os.write(words, f"Current thread 0x{threading.get_ident():016x} called {what}\n".encode())

        def noted_exit(status: int) -> NoReturn:
            say(f"os._exit({status})")
            really_exit(status)

        def noted_kill(pid: int, number: int, /) -> None:
            if pid == os.getpid():
                say(f"os.kill({pid}, {number})")
            really_kill(pid, number)

        # Replaced where scripts will look: nothing else can tell which of several models ended their process.
        os._exit, os.kill = noted_exit, noted_kill

    def set(
        self, slot: int, state: int, model: int, since: float, call: int = 0, proven: bool = False, limit: float = 0.0
    ) -> None:
        """Say that the calling thread, which holds ``slot``, begins something."""
        thread = threading.get_ident()
        _SLOT.pack_into(self._memory, slot * _SLOT.size, model, since, call, thread, proven, limit, state)

    def beat(self, now: float) -> None:
        """Say that this process's interpreter still turns: a thread of its own calls this several times a second, and
        cannot while a model holds the interpreter lock."""
        _BEAT.pack_into(self._memory, _BEAT_AT, now)

    def clear(self, slot: int) -> None:
        """Say that thread ``slot`` has finished."""
        _SLOT.pack_into(self._memory, slot * _SLOT.size, 0, 0.0, 0, 0, False, 0.0, IDLE)


class Reader:
    """Another process's side: it reads, also after the worker and its file have gone."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def last_beat(self) -> float:
        """``Reading.beat`` alone."""
        data = os.pread(self._fd, _BEAT.size, _BEAT_AT) if self._fd >= 0 else b""
        return float(_BEAT.unpack(data)[0]) if len(data) == _BEAT.size else 0.0

    def is_busy(self) -> bool:
        """Does any of the worker's threads load or run a model? 3 microseconds."""
        return self._fd >= 0 and any(os.pread(self._fd, _BEAT_AT, 0)[_STATE_AT :: _SLOT.size])

    def read(self) -> Reading:
        """What the worker's threads are doing, or were doing when it died. Empty when there is no telling."""
        return _decode(os.pread(self._fd, _SIZE + _LONGEST_WORDS, 0)) if self._fd >= 0 else Reading([])

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: Path) -> Reading:
    """``Reader.read`` of a path, once."""
    try:
        return _decode(path.read_bytes()[: _SIZE + _LONGEST_WORDS])
    except OSError:
        return Reading([])


def overdue(
    busy: Iterable[Busy], now: float, longest_run: float, longest_load: float, grace: float = 0.0
) -> list[Busy]:
    """Batches and loads past their time, or by more than ``grace`` past what their own callers give them. A worker that
    merely is busy, its interpreter lock held for minutes by honest batches one after another, has none: every batch has
    its own start."""

    def limit(one: Busy) -> float:
        usual = longest_run if one.state == RUNNING else longest_load
        return min(usual, one.limit + grace) if one.limit else usual

    return [one for one in busy if now - one.since > limit(one)]


def _decode(data: bytes) -> Reading:
    if len(data) < _SIZE:
        return Reading([])
    busy = []
    if any(data[_STATE_AT : _BEAT_AT : _SLOT.size]):
        slots = (_SLOT.unpack_from(data, at) for at in range(0, _BEAT_AT, _SLOT.size))
        busy = [Busy(state, *rest) for *rest, state in slots if state in (LOADING, RUNNING)]
    (beat,) = _BEAT.unpack_from(data, _BEAT_AT)
    return Reading(busy, beat, data[_SIZE:].decode("utf-8", "replace"))
