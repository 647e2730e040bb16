"""Finished captures on their way to the object store, on a thread of their own: the store may be slow, or away.

Nothing is given up as long as there is room: a file waits in its staging folder and is tried again, later each time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServingError
from serving.objects import ObjectStore
from serving.watch.capture_staging import Staging

#: Between two attempts for one file.
_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0
CONTENT_TYPE = "application/jsonlines"

log = logging.getLogger("serving.capture")


@dataclass(eq=False, slots=True)
class Finished:
    """A file that nobody writes to any more. ``lost`` hears when its records are lost."""

    path: Path
    size: int
    lost: Callable[[], None]
    failures: int = 0
    due: float = 0.0


class Publisher:
    """Puts finished files where they belong. ``clock``: monotonic seconds."""

    def __init__(
        self, staging: Staging, objects: Callable[[], ObjectStore], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``objects`` opens the store when it is first needed. Raises ``ServingError``."""
        self._staging = staging
        self._open = objects
        self._objects: ObjectStore | None = None
        self._clock = clock
        self._waiting: list[Finished] = []
        self._news = threading.Condition()
        self._busy = False
        self._closing = False
        self._trouble = ""
        self._thread: threading.Thread | None = None

    @property
    def bytes_waiting(self) -> int:
        """Of files that are not at their destination yet."""
        with self._news:
            return sum(one.size for one in self._waiting)

    def add(self, finished: Finished) -> None:
        """One more."""
        with self._news:
            self._waiting.append(finished)
            self._news.notify()

    def start(self) -> None:
        """Work on a thread of its own, which ends with the process."""
        self._thread = threading.Thread(target=self._run, name="capture-publisher", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> bool:
        """Try every file once more, at once; returns whether all are at their destination."""
        with self._news:
            self._closing = True
            for one in self._waiting:
                one.due = 0.0
            self._news.notify()
        if self._thread is not None:
            self._thread.join(seconds)
        return not self._waiting and not self._busy

    def _run(self) -> None:
        while self._wait():
            self.step()

    def _wait(self) -> bool:
        """Until a file is due; False when none will be any more."""
        with self._news:
            while True:
                now = self._clock()
                dues = [one.due for one in self._waiting]
                if self._closing:
                    return any(due <= now for due in dues)
                if dues and min(dues) <= now:
                    return True
                self._news.wait(min(dues) - now if dues else None)

    def step(self) -> None:
        """Try what is due."""
        now = self._clock()
        with self._news:
            due = [one for one in self._waiting if one.due <= now]
            self._busy = bool(due)
        for one in due:
            self._try(one)
        self._busy = False

    def _try(self, one: Finished) -> None:
        try:
            self._put(one.path)
        except Exception as error:
            if not isinstance(error, ServingError | OSError):
                log.exception("a file of captured calls could not be published")
            if one.path.exists():
                self._later(one, error)
                return
            log.error("a file of captured calls is lost: %s", error)
            one.lost()
        with self._news:
            self._waiting.remove(one)
            if not self._waiting and self._trouble:
                self._trouble = ""
                log.info("captured calls reach their destination again")

    def _put(self, path: Path) -> None:
        if self._objects is None:
            self._objects = self._open()
        self._objects.put(self._staging.url(path), path, CONTENT_TYPE)
        with suppress(FileNotFoundError):
            path.unlink()  # a remote store has a copy
        self._staging.tidy(path)

    def _later(self, one: Finished, error: Exception) -> None:
        one.failures += 1
        pause = _RETRY_SECONDS * 2.0 ** min(one.failures - 1, 16)
        one.due = self._clock() + min(pause, _LONGEST_RETRY_SECONDS)
        why = str(error)
        if why != self._trouble:
            self._trouble = why
            log.error("captured calls have to wait, their destination does not take them: %s", why)
