"""The queue's clock: seconds that go on however the wall clock is set.

It follows the machine's own count since its start, sleep included. That count begins anew with every start of the
machine, so the queue keeps a ``Mark`` of its time on the disk: within one run of the machine the count itself tells how
long the queue was closed, and only a restart of the machine (or a move to another one) is bridged by the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: Linux: a new random id with every start of the machine.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Which run of the machine this is; "" where the system does not tell."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def since_boot() -> float:
    """Seconds since the machine was started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a machine's time is read: ``steady`` seconds since its start, ``wall`` epoch seconds, ``boot`` which start
    that was."""

    steady: Callable[[], float] = since_boot
    wall: Callable[[], float] = time.time
    boot: Callable[[], str] = boot_id


class Mark(NamedTuple):
    """The queue's time as it was kept: it was ``seconds`` when the wall clock showed ``wall``, and the machine's run
    ``boot`` had lasted ``seconds - offset``."""

    boot: str
    offset: float
    seconds: float
    wall: float


def resume(mark: Mark | None, boot: str, steady: float, wall: float) -> float:
    """What to add to ``steady`` for the queue's time to go on after ``mark`` (None: it begins, at 0). It never goes
    back: a wall clock that was set back while the machine was off makes the pause 0 seconds long."""
    if mark is None:
        return -steady
    if boot and boot == mark.boot and steady + mark.offset >= mark.seconds:
        return mark.offset
    return mark.seconds + max(0.0, wall - mark.wall) - steady


class QueueTime:
    """The running clock of an open queue."""

    def __init__(self, clock: Clock, mark: Mark | None) -> None:
        self._clock = clock
        self._boot = clock.boot()
        self._offset = resume(mark, self._boot, clock.steady(), clock.wall())

    def now(self) -> float:
        """Seconds of the queue's clock."""
        return self._clock.steady() + self._offset

    def wall(self) -> float:
        """Epoch seconds, for people to read."""
        return self._clock.wall()

    def mark(self) -> Mark:
        """What to keep, so that the time can go on."""
        return Mark(self._boot, self._offset, self.now(), self.wall())
