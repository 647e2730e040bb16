"""Where captures lie until they are at their destination: a folder for each process, and the right to it.

::

    DATA_DIR/capture/front-4711-1a2b3c.lock        held (flock) as long as the process lives
    DATA_DIR/capture/front-4711-1a2b3c/…           its files (``capture.staged``)

A folder whose lock is free is a dead process's: whoever sees that first moves its files into his own. Of a file that
was being written the whole lines are kept.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LOCK = ".lock"


class Staging:
    """One process's folder. ``role`` names the process, for people who look into it."""

    def __init__(self, root: Path, role: str) -> None:
        """Nothing is touched before ``folder``."""
        self._root = root
        self._role = role
        self._lock = -1
        self._folder: Path | None = None

    @property
    def root(self) -> Path:
        """Where all processes have theirs."""
        return self._root

    def folder(self) -> Path:
        """Ours, made and locked at the first call. Raises ``OSError``."""
        while self._folder is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = self._root / f"{self._role}-{os.getpid()}-{os.urandom(3).hex()}"
            lock = _locked(Path(f"{folder}{_LOCK}"), create=True)
            if lock is not None:
                self._lock = lock
                folder.mkdir(mode=0o700)
                self._folder = folder
        return self._folder

    def adopt(self) -> Iterator[Path]:
        """Files of processes that have ended, in our folder now, each of whole lines. Raises ``OSError``."""
        for path in sorted(self._root.glob(f"*{_LOCK}")):
            lock = _locked(path)
            if lock is None:
                continue
            try:
                yield from self._taken_over(path.with_suffix(""))
                path.unlink()
            finally:
                os.close(lock)

    def _taken_over(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.rglob("*.jsonl")):
            if not path.is_file():  # a part of a destination
                continue
            if not keep_whole_lines(path):
                path.unlink()
                continue
            ours = self.folder() / path.relative_to(folder)
            ours.parent.mkdir(parents=True, exist_ok=True)
            path.rename(ours)
            yield ours
        remove_empty(folder)

    def url(self, path: Path) -> str:
        """The destination of a file of ours."""
        return f"s3://{path.relative_to(self.folder()).as_posix()}"

    def tidy(self, path: Path) -> None:
        """A file of ours has gone: so do the folders it leaves empty."""
        for folder in path.relative_to(self.folder()).parents[:-1]:
            try:
                (self.folder() / folder).rmdir()
            except OSError:  # others lie there
                return

    def close(self) -> None:
        """Leave: what still lies in our folder is for others to adopt."""
        folder, self._folder = self._folder, None
        if folder is None:
            return
        with suppress(OSError):
            remove_empty(folder)
            if not folder.exists():
                Path(f"{folder}{_LOCK}").unlink()
        os.close(self._lock)


def _locked(path: Path, create: bool = False) -> int | None:
    """A lock of our own on a file that still has this name; None when another process holds it or has removed it."""
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def keep_whole_lines(path: Path) -> int:
    """Cut off a last line that has no end; returns how many bytes are left. Raises ``OSError``."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole = content.rfind(b"\n") + 1
        if whole < size:
            file.truncate(whole)
        return whole


def remove_empty(folder: Path) -> None:
    """Remove a folder and those in it, as far as they are empty. Raises ``OSError``."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(path)  # noqa: PTH106  # as ``os.walk`` names it
