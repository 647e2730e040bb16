"""A few bytes of shared memory per worker that outlive it: which model was running, since when, on which thread.

When a worker dies or goes silent, its supervisor and the fronts read here whose fault it was, without asking the
worker. One slot per worker thread, so a write needs no lock.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

IDLE, LOADING, RUNNING = 0, 1, 2
SLOTS = 64
_SLOT = struct.Struct("<QdI4x")
_BEAT_AT = _SLOT.size * SLOTS
_BEAT = struct.Struct("<d")
_SIZE = _BEAT_AT + _BEAT.size


class Busy(NamedTuple):
    """What one thread of a worker is doing: ``LOADING`` or ``RUNNING``, which model, since (monotonic seconds)."""

    state: int
    model: int
    since: float


def model_key(name: str) -> int:
    """A model's 64-bit name in a cell; never 0. The same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


class Cell:
    """The worker's own side: it writes."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(_SIZE)
            self._memory = mmap.mmap(file.fileno(), _SIZE)

    def set(self, slot: int, state: int, model: int, since: float) -> None:
        """Say that thread ``slot`` begins something."""
        _SLOT.pack_into(self._memory, slot * _SLOT.size, model, since, state)

    def beat(self, now: float) -> None:
        """Say that this process's interpreter still turns: a thread of its own calls this several times a second, and
        cannot while a model holds the interpreter lock."""
        _BEAT.pack_into(self._memory, _BEAT_AT, now)

    def clear(self, slot: int) -> None:
        """Say that thread ``slot`` has finished."""
        _SLOT.pack_into(self._memory, slot * _SLOT.size, 0, 0.0, IDLE)


class Reader:
    """Another process's side: it reads, also after the worker and its file have gone."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def last_beat(self) -> float:
        """When the worker's interpreter last turned (monotonic seconds); 0 when there is no telling."""
        data = os.pread(self._fd, _BEAT.size, _BEAT_AT) if self._fd >= 0 else b""
        return float(_BEAT.unpack(data)[0]) if len(data) == _BEAT.size else 0.0

    def read(self) -> list[Busy]:
        """What the worker's threads are doing, or were doing when it died. Empty when there is no telling."""
        return _decode(os.pread(self._fd, _SIZE, 0)) if self._fd >= 0 else []

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: Path) -> list[Busy]:
    """``Reader.read`` of a path, once."""
    try:
        return _decode(path.read_bytes())
    except OSError:
        return []


def _decode(data: bytes) -> list[Busy]:
    if len(data) != _SIZE:
        return []
    slots = (_SLOT.unpack_from(data, at) for at in range(0, _BEAT_AT, _SLOT.size))
    return [Busy(state, model, since) for model, since, state in slots if state in (LOADING, RUNNING)]
