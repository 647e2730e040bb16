"""Captured calls on their way to the disk: one writer for each process, on a thread of its own.

The event loop hands over chunks of finished records (``capturing.py``); this appends each to the file of its shelf,
whose first record names it, and gives files away that are old enough, long enough, or of an hour that is over
(``behaviour/05``, rotation). What is written survives the process; a chunk that could not be written whole is taken
back to its beginning, so that a file holds whole records only.

Capture must not disturb inference: what waits for this thread is bounded, and when a disk fills up, or fails, or the
destination has not taken files for long, capture stops for a minute and then looks again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from serving.errors import ServingError
from serving.watch.capture import Shelf, file_name
from serving.watch.capture_publishing import Finished, Publisher
from serving.watch.capture_staging import Staging

#: A file is given away so long after its first record, or when it is so long.
ROTATE_SECONDS = 60.0
ROTATE_BYTES = 10 * 2**20
#: After trouble nothing is captured for so long.
PAUSE_SECONDS = 60.0
#: Bytes of records that may wait for the disk; beyond it new ones are dropped.
MOST_WAITING = 32 * 2**20
#: Bytes of finished files that may wait for their destination.
MOST_STAGED = 2**30
#: While records come the thread looks so often, and not for each chunk: the event loop waits for the interpreter
#: whenever it does. More bytes than that wake it at once.
_GATHER_SECONDS = 0.2
_HURRY = 4 * 2**20
#: Files that may be open at once.
_MOST_OPEN = 4096
#: Disks are looked at so often while records come, and otherwise; and dead processes' files looked for.
_LOOK_SECONDS, _IDLE_LOOK_SECONDS, _ADOPT_SECONDS = 1.0, 30.0, 60.0
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger("serving.capture")


class Tally(Protocol):
    """Who counts the records of a variant, on the writer's thread."""

    def written(self, records: int) -> None: ...  # noqa: D102
    def lost(self, records: int) -> None: ...  # noqa: D102


class Chunk(NamedTuple):
    """Records of one shelf. ``first``: when the first of them was, epoch seconds; ``pieces``: their bytes, made as they
    are written where they are many; ``size``: what they count for while they wait; ``last``: no more will come for this
    shelf, unless from calls in flight."""

    shelf: Shelf
    first: float
    pieces: Iterable[bytes | bytearray]
    records: int
    size: int
    tally: Tally
    last: bool = False


class _Open:
    """A file that is being written. ``good``: its length in whole chunks."""

    def __init__(self, path: Path, opened: float, tally: Tally) -> None:
        self.path = path
        self.opened = opened
        self.tally = tally
        self.good = 0
        self.records = 0
        self._fd = _new_file(path)

    def append(self, chunk: Chunk) -> None:
        """The whole chunk, or nothing of it: raises ``OSError``."""
        written = self.good
        try:
            for piece in chunk.pieces:
                rest = memoryview(piece)
                while rest:
                    count = os.write(self._fd, rest)
                    written += count
                    rest = rest[count:]
        except BaseException:
            if written > self.good:
                os.ftruncate(self._fd, self.good)
                os.lseek(self._fd, self.good, os.SEEK_SET)
            raise
        self.good = written
        self.records += chunk.records

    def close(self) -> None:
        os.close(self._fd)


def _new_file(path: Path) -> int:
    """A new file whose folders are made; they may be tidied away just now, which is tried again."""
    for _ in range(3):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            return os.open(path, _NEW_FILE, 0o666)
    return os.open(path, _NEW_FILE, 0o666)


def disk_use(path: Path) -> float:
    """How full the disk of a folder is, in percent of what may be used, as ``df`` says. A folder that is not there yet
    will be made on its parent's."""
    for folder in (path, *path.parents):
        with suppress(FileNotFoundError):
            found = os.statvfs(folder)
            used = found.f_blocks - found.f_bfree
            return 100.0 * used / max(used + found.f_bavail, 1)
    return 0.0


def _why(error: OSError | ServingError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


class CaptureWriter:
    """One process's. ``disks`` are the folders whose disks must not be fuller than ``percent``. ``clock``: monotonic
    seconds. ``on_change`` hears, on the writer's thread, that capture has stopped or goes on."""

    def __init__(
        self,
        staging: Staging,
        publisher: Publisher,
        disks: Sequence[Path],
        percent: int,
        clock: Callable[[], float] = time.monotonic,
        use: Callable[[Path], float] = disk_use,
    ) -> None:
        self.stopped = False
        self.on_change: Callable[[bool], None] = lambda stopped: None
        self._staging = staging
        self._publisher = publisher
        self._disks = tuple(disks)
        self._percent = percent
        self._clock = clock
        self._use = use
        self._chunks: deque[Chunk] = deque()
        self._given = 0  # bytes, by the loop
        self._taken = 0  # bytes, by the thread
        self._held = 0  # bytes that may come, by the loop
        self._files: dict[Shelf, _Open] = {}
        self._wake = threading.Event()
        self._idle = True
        self._closing = False
        self._resume = 0.0
        self._look = -_IDLE_LOOK_SECONDS
        self._adopt = 0.0
        self._wanted = False
        self._thread: threading.Thread | None = None

    # -- the event loop's ---------------------------------------------------------------------------------------------

    def room(self, size: int) -> bool:
        """May so many bytes more wait here?"""
        return self._given - self._taken + self._held + size <= MOST_WAITING

    def give(self, chunk: Chunk) -> None:
        """Have a chunk written."""
        self._given += chunk.size
        self._chunks.append(chunk)
        if (self._idle or self._given - self._taken > _HURRY) and not self._wake.is_set():
            self._wake.set()

    def want(self) -> None:
        """There are calls to capture from now on: whether there is room for them is looked at now, and ever again."""
        if not self._wanted:
            self._wanted = True
            self._wake.set()

    def hold(self, size: int) -> None:
        """So many bytes (below 0: fewer) are held by answers that have not ended, and count as if they waited here."""
        self._held += size

    def start(self) -> None:
        """Write on a thread of its own, and take up what dead processes have left."""
        self._publisher.start()
        self._thread = threading.Thread(target=self._run, name="capture-writer", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> bool:
        """Write what is there and bring it to its destination; what cannot be within this time is adopted by a later
        process. Returns whether all of it has arrived. Blocks."""
        end = self._clock() + seconds
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)
        arrived = self._publisher.close(max(0.1, end - self._clock()))
        if arrived:
            self._staging.close()
        return arrived

    # -- the thread's -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wrote = False
        while not self._closing:
            self._idle = not wrote
            if not (self._idle and self._chunks):  # one may have come just before it was said
                self._wake.wait(min(self._pause(), _GATHER_SECONDS) if wrote else self._pause())
            self._wake.clear()
            try:
                wrote = self.step()
            except Exception:
                log.exception("capturing failed")
        for end in (self.step, self.finish_all):
            try:
                end()
            except Exception:
                log.exception("captures could not be finished")

    def _pause(self) -> float:
        """Until the next file is old enough, or something has to be looked at."""
        dues = [file.opened + ROTATE_SECONDS for file in self._files.values()]
        if self._wanted:
            dues.append(self._resume if self.stopped else self._look + _IDLE_LOOK_SECONDS)
        return max(0.0, min([*dues, self._adopt]) - self._clock())

    def step(self) -> bool:
        """Write what has come, give away what is due, look after the disks. Returns whether something had come."""
        now, came = self._clock(), bool(self._chunks)
        if now >= self._adopt:
            self._adopt = now + _ADOPT_SECONDS
            self._take_over()
        if now >= (self._resume if self.stopped else self._look + _IDLE_LOOK_SECONDS) and self._wanted:
            self._check(now)
        while self._chunks:
            chunk = self._chunks.popleft()
            try:
                self._write(chunk, now)
            finally:
                self._taken += chunk.size
        for shelf, file in list(self._files.items()):
            if now >= file.opened + ROTATE_SECONDS:
                self._finish(shelf)
        return came

    def _write(self, chunk: Chunk, now: float) -> None:
        if chunk.records and now >= self._look and not self.stopped:
            self._check(now)
        if chunk.records and self.stopped:
            chunk.tally.lost(chunk.records)
        elif chunk.records:
            self._append(chunk, now)
        file = self._files.get(chunk.shelf)
        if file is not None and (chunk.last or file.good >= ROTATE_BYTES):
            self._finish(chunk.shelf)

    def _append(self, chunk: Chunk, now: float) -> None:
        """To its shelf's file; what cannot be written ends that, and stops capture."""
        try:
            self._file(chunk, now).append(chunk)
        except Exception as error:
            chunk.tally.lost(chunk.records)
            self._finish(chunk.shelf)
            if not isinstance(error, OSError | ServingError):
                raise
            self._stop(now, f"records cannot be written ({_why(error)})")
        else:
            chunk.tally.written(chunk.records)

    def _file(self, chunk: Chunk, now: float) -> _Open:
        file = self._files.get(chunk.shelf)
        if file is None:
            if len(self._files) >= _MOST_OPEN:
                self._finish(next(iter(self._files)))
            name = file_name(chunk.first, str(uuid.uuid4()))
            path = self._staging.folder() / chunk.shelf.folder / name
            file = self._files[chunk.shelf] = _Open(path, now, chunk.tally)
        return file

    def _finish(self, shelf: Shelf) -> None:
        """Give a shelf's file away, if there is one."""
        file = self._files.pop(shelf, None)
        if file is None:
            return
        file.close()
        if not file.good:
            with suppress(OSError):
                file.path.unlink()
            self._staging.tidy(file.path)
            return
        self._publisher.add(Finished(file.path, file.good, lambda: file.tally.lost(file.records)))

    def finish_all(self) -> None:
        """Give all away."""
        for shelf in list(self._files):
            self._finish(shelf)

    def _take_over(self) -> None:
        """Files of processes that have ended are ours to publish."""
        try:
            for path in self._staging.adopt():
                log.info("captured calls of a process that has ended are published: %s", path.name)
                self._publisher.add(Finished(path, path.stat().st_size, lambda: None))
        except OSError as error:
            log.warning("captured calls of a process that has ended have to wait: %s", error.strerror)

    # -- stopping and going on ----------------------------------------------------------------------------------------

    def _check(self, now: float) -> None:
        """Stop when there is reason to; go on when there is none any more."""
        self._look = now + _LOOK_SECONDS
        trouble = self._trouble()
        if trouble:
            self._stop(now, trouble)
        elif self.stopped:
            self.stopped = False
            log.info("calls are captured again")
            self.on_change(False)

    def _trouble(self) -> str:
        fullest = max((self._use(disk) for disk in self._disks), default=0.0)
        if fullest > self._percent:
            return f"a disk is {fullest:.0f} % full, and may be {self._percent} %"
        if self._publisher.bytes_waiting > MOST_STAGED:
            return "too many files wait for their destination"
        return ""

    def _stop(self, now: float, why: str) -> None:
        self._resume = now + PAUSE_SECONDS
        if self.stopped:
            return
        self.stopped = True
        log.error("capturing calls has stopped: %s; looking again every %.0f s", why, PAUSE_SECONDS)
        self.on_change(True)
