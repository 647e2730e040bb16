"""The metric files of running processes, read again and again for what has changed.

A file that is as it was costs one read and one comparison, whatever is in it: an idle server costs next to nothing.
``metrics.snapshot`` says what a reader has to heed; this one heeds it for all files at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.watch.metrics import FAMILIES, folds

#: A metric's name, then its labels.
Key = tuple[str, ...]
Cells = npt.NDArray[np.float64]
#: The folder's clock is that coarse: a change so soon after the last look may not show in it.
_COARSE = 50_000_000
_NONE: Cells = np.zeros(0)


class _Place(NamedTuple):
    key: Key
    start: int
    size: int


class _File:
    """One process's. ``kept``: its two files stay open; one that is replaced, or removed, has no name left."""

    def __init__(self, path: Path, kept: bool) -> None:
        self._paths = path, path.with_suffix(".index")
        self._kept = kept
        self._cells = self._index = -1
        self._inode = self._parsed = 0
        self._known: dict[bytes, _Place] = {}
        self._span = 0
        self._starts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._places: list[_Place] = []
        self._last: Cells = _NONE
        self.of: dict[Key, _Place] = {}

    def close(self) -> None:
        """Let go of it."""
        for file in (self._cells, self._index):
            if file >= 0:
                os.close(file)
        self._cells = self._index = -1

    def read(self) -> set[Key]:
        """Read it again: the series that have come, gone or changed. Raises ``OSError`` when it has gone."""
        try:
            return self._read()
        finally:
            if not self._kept:
                self.close()

    def _read(self) -> set[Key]:
        if self._cells < 0:
            self._cells = os.open(self._paths[0], os.O_RDONLY | os.O_CLOEXEC)
        touched: set[Key] = set()
        while True:
            touched |= self._read_index()
            data = os.pread(self._cells, 8 * self._span, 0)
            if os.fstat(self._index).st_nlink:
                break
        fresh = np.frombuffer(data[: len(data) // 8 * 8], np.float64)
        touched |= self._changed(fresh)
        self._last = fresh
        return touched

    def _changed(self, fresh: Cells) -> set[Key]:
        size = min(len(fresh), len(self._last))
        differ = np.flatnonzero(fresh[:size].view(np.uint64) != self._last[:size].view(np.uint64))
        if len(fresh) > size:
            differ = np.concatenate((differ, np.arange(size, len(fresh))))
        if not len(differ) or not self._places:
            return set()
        found = np.unique(np.searchsorted(self._starts, differ, "right") - 1)
        return {self._places[at].key for at in found if at >= 0}

    def _read_index(self) -> set[Key]:
        """The series that its index names now and did not before, or no longer."""
        if self._index < 0 or not os.fstat(self._index).st_nlink:
            index = os.open(self._paths[1], os.O_RDONLY | os.O_CLOEXEC)
            if self._index >= 0:
                os.close(self._index)
            self._index = index
        stat = os.fstat(self._index)
        if stat.st_ino != self._inode:
            self._inode, self._parsed = stat.st_ino, 0
        elif stat.st_size == self._parsed:
            return set()
        text = os.pread(self._index, stat.st_size - self._parsed, self._parsed)
        whole = text[: text.rfind(b"\n") + 1]
        before = {} if not self._parsed else self._known
        known = dict(before)
        for line in whole.splitlines():
            place = self._known.get(line) or _place(line)
            if place is not None:
                known[line] = place
        touched = {self._known[line].key for line in self._known.keys() ^ known.keys() if line in self._known}
        touched |= {known[line].key for line in known.keys() - self._known.keys()}
        self._parsed += len(whole)
        self._known = known
        self._places = sorted(known.values(), key=lambda place: place.start)
        self.of = {place.key: place for place in self._places}
        self._starts = np.array([place.start for place in self._places], np.int64)
        self._span = max((place.start + place.size for place in self._places), default=0)
        return touched

    def value(self, key: Key) -> Cells | None:
        """What it has of a series."""
        place = self.of.get(key)
        if place is None or place.start + place.size > len(self._last):
            return None
        return self._last[place.start : place.start + place.size]


def _place(line: bytes) -> _Place | None:
    try:
        name, labels, start, size = json.loads(line)
    except (ValueError, TypeError):
        return None  # of a process that died while writing it
    return _Place((name, *labels), start, size) if name in FAMILIES else None


class Tail:
    """All processes' files in a folder. ``seldom``: is this one, by its name, read only when asked for all?"""

    def __init__(self, folder: Path, seldom: Callable[[str], bool]) -> None:
        self._folder = folder
        self._seldom = seldom
        self._files: dict[str, _File] = {}
        self._holding: dict[Key, list[_File]] = {}
        self._looked = 0
        self._left: set[Key] = set()

    def changed(self, everything: bool, families: Collection[str] = ()) -> Mapping[Key, Cells | None] | None:
        """The series that may have changed since, summed over all processes; None = that one is gone. With
        ``families`` those of these metrics alone, the others come when they are asked for. Nothing at all while a dead
        process's numbers are being moved: they come with the next read."""
        before = folds(self._folder)
        touched = self._left | self._look()
        for name, file in list(self._files.items()):
            if everything or not self._seldom(name) or not file.of:
                touched |= self._read(name, file)
        if before % 2 or before != folds(self._folder):
            self._left = touched
            return None
        wanted = {key for key in touched if key[0] in families} if families else touched
        self._left = touched - wanted
        return {key: self._total(key) for key in wanted}

    def _look(self) -> set[Key]:
        """Open the files that have come, close those that have gone."""
        stamp = self._folder.stat().st_mtime_ns
        if stamp == self._looked:
            return set()
        with os.scandir(self._folder) as found:
            names = {one.name for one in found if one.name.endswith(".cells")}
        touched: set[Key] = set()
        for name in self._files.keys() - names:
            touched |= self._drop(name)
        for name in names - self._files.keys():
            self._files[name] = _File(self._folder / name, not self._seldom(name))
        self._looked = stamp if time.time_ns() > stamp + _COARSE else 0
        return touched

    def _read(self, name: str, file: _File) -> set[Key]:
        before = file.of
        try:
            touched = file.read()
        except OSError:
            file.of = before
            return self._drop(name)
        if file.of is not before:
            for key in before.keys() - file.of.keys():
                self._let_go(key, file)
            for key in file.of.keys() - before.keys():
                self._holding.setdefault(key, []).append(file)
        return touched

    def _drop(self, name: str) -> set[Key]:
        file = self._files.pop(name)
        file.close()
        for key in file.of:
            self._let_go(key, file)
        return set(file.of)

    def _let_go(self, key: Key, file: _File) -> None:
        self._holding[key].remove(file)
        if not self._holding[key]:
            del self._holding[key]

    def _total(self, key: Key) -> Cells | None:
        total: Cells | None = None
        for file in self._holding.get(key, ()):
            part = file.value(key)
            if part is not None:
                total = part if total is None else total + part
        return total

    def close(self) -> None:
        """Let go of all files."""
        for name in list(self._files):
            self._drop(name)
