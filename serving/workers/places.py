"""Calls at a time of a serverless variant, counted over all processes that make calls.

Each process counts its own calls in a slot of shared memory, and adds up what the others have in theirs; so nobody
needs a lock, or a question to another. Two that take the last place at the same moment may both be refused it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import NamedTuple

_SLOTS = 256
_BYTES = 8


class Siblings(NamedTuple):
    """This process among those that make calls: its ``number``, how many ``fronts`` share the calls of clients, and the
    ``folder`` in which they count together (None: it is alone)."""

    number: int = 0
    fronts: int = 1
    folder: Path | None = None


#: There are no others.
ALONE = Siblings()


class Places:
    """The places that the calls of one variant have."""

    def __init__(self, siblings: Siblings, generation: int) -> None:
        """``generation``: of the variant's deployment, which no other has."""
        self._slot = siblings.number % _SLOTS
        if siblings.folder is None:
            memory: mmap.mmap | bytearray = bytearray(_SLOTS * _BYTES)
        else:
            file = os.open(_path(siblings.folder, generation), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(file, _SLOTS * _BYTES)
                memory = mmap.mmap(file, _SLOTS * _BYTES)
            finally:
                os.close(file)
        self._taken = memoryview(memory).cast("q")

    def take(self, most: int) -> bool:
        """Have one of ``most`` places; False: there is none free."""
        self._taken[self._slot] += 1
        if sum(self._taken) <= most:
            return True
        self._taken[self._slot] -= 1
        return False

    def give(self) -> None:
        """One that was had is free again."""
        self._taken[self._slot] -= 1


def free(folder: Path, generation: int, number: int) -> None:
    """A process has ended, and its calls with it."""
    try:
        with _path(folder, generation).open("r+b") as file:
            file.seek(number % _SLOTS * _BYTES)
            file.write(bytes(_BYTES))
    except FileNotFoundError:
        return  # nobody has called yet


def forget(folder: Path, generation: int) -> None:
    """The variant has gone; calls that are under way go on counting by themselves."""
    _path(folder, generation).unlink(missing_ok=True)


def _path(folder: Path, generation: int) -> Path:
    return folder / f"{generation}.places"
