"""An output that is still being written: a file in the spool that grows, and can be cut back to a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class PartLost(Exception):
    """The disk has not kept what was written, or the file is shorter than a checkpoint says: its object starts over."""


class Part:
    """A file of the spool that is written from front to back, each write at a place of its own: what a write that
    failed half way has left is written over by the next. Everything blocks, and raises ``OSError`` as the disk does."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open ``path``, made if need be, and cut it back to ``length``. Raises ``PartLost`` when it is shorter."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._fd).st_size < length:
                raise PartLost(f"{path.name} is shorter than it was")
            os.ftruncate(self._fd, length)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, at: int, chunks: Sequence[bytes]) -> int:
        """Write these, one after the other, from ``at`` on; where they end."""
        data = memoryview(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], at + done)
        return at + done

    def sync(self) -> None:
        """Put what was written on the disk. When that fails, pages may be gone that no second try would bring back
        (https://lwn.net/Articles/752063/): the file is removed, and ``PartLost`` raised."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            with suppress(OSError):
                self.path.unlink()
            raise PartLost(f"{self.path.name} could not be put on the disk: {error.strerror}") from error

    def finish(self, length: int) -> Path:
        """Cut off what a failed write may have left, close, and hand over the file."""
        os.ftruncate(self._fd, length)
        self.close()
        return self.path

    def close(self) -> None:
        """No more writes; harmless when done before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Part:
        """For the length of a ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
