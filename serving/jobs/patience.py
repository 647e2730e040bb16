"""Waiting for a disk that is full, or a store that cannot be reached, to be there again."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serving.errors import ObjectUnavailable, ServiceUnavailable

T = TypeVar("T")

#: Conditions that pass without anybody changing what we ask for.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
#: For so long: a disk may be full for a night, but nothing waits for ever.
PATIENCE_SECONDS = 86_400.0

log = logging.getLogger("serving.jobs")


def is_passing(error: BaseException) -> bool:
    """May the same thing succeed later?"""
    if isinstance(error, ObjectUnavailable):
        return error.transient
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, ServiceUnavailable)


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, up to a quarter of a minute."""
    return float(min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE))


async def patiently(what: str, act: Callable[[], Awaitable[T]]) -> T:
    """What ``act`` comes to, once disk and store let it. ``what`` is for the log. Raises what does not pass by itself,
    and what has not passed within a day."""
    failures, limit = 0, time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await act()
        except (OSError, ObjectUnavailable, ServiceUnavailable) as error:
            if not is_passing(error) or time.monotonic() > limit:
                raise
            failures += 1
            if failures in (1, 10, 100, 1000):
                log.warning("%s has to wait: %s", what, error)
            await asyncio.sleep(pause_after(failures))  # the pause before the next try
