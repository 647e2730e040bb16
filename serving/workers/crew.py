"""A few threads for jobs that may hang: when no job has been begun for a while although some wait, one more thread is
taken on, so that hanging jobs hold up others for moments and not for good. There are never more than ``most``."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("serving.worker")


class Crew:
    """Threads that share a queue of jobs. A thread that was taken on beyond ``count`` goes when nothing waits."""

    def __init__(self, name: str, count: int, most: int) -> None:
        self._name = name
        self._count = count
        self._most = most
        self._jobs: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._news = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._begun = 0
        self._begun_before = -1

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        """Have it done soon."""
        with self._news:
            self._jobs.append((job, arguments))
            if not self._idle and self._threads < self._count:
                self._take_on()
            self._news.notify()

    def look(self) -> None:
        """Now and then (this is what "a while" is): take on a thread if nothing has been begun since the last look."""
        with self._news:
            if self._jobs and self._begun == self._begun_before and self._threads < self._most:
                self._take_on()
            self._begun_before = self._begun

    def _take_on(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._threads += 1

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            job, arguments = taken
            try:
                job(*arguments)
            except BaseException:
                log.exception("%s failed", self._name)
            del taken, job, arguments

    def _next(self) -> tuple[Callable[..., None], tuple[Any, ...]] | None:
        with self._news:
            while not self._jobs:
                if self._threads > self._count:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._news.wait()
                self._idle -= 1
            self._begun += 1
            return self._jobs.popleft()
