"""The slowest calls of the last ten minutes, and the last ones that failed, so that a page can say why.

Each front keeps its own; the hot path pays one comparison (``total > slow.threshold``). Once a second, if anything has
changed, they are written to a small file beside the metrics, where every front reads all of them. No bodies and no
messages: who, where, how long, and the receipt.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

_MOST = 50
_WINDOW_SECONDS = 600.0

log = logging.getLogger("serving.slow")


@dataclass(frozen=True, slots=True)
class SlowCall:
    """One call: when it was answered (epoch seconds), whose it was, ``total`` seconds, and how it ended. ``receipt``:
    microseconds of queue, load, decode, predict, encode, then calls in the batch; empty when there was no answer."""

    time: float
    endpoint: str
    variant: str
    model: str
    request_id: str
    total: float
    status: int
    code: str
    receipt: tuple[int, ...] = ()
    hit: bool = True


class SlowCalls:
    """Those of one process. ``threshold``: what takes longer than so many seconds is to be noted."""

    def __init__(
        self,
        path: Path | None,
        most: int = _MOST,
        window: float = _WINDOW_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``path``: where they are written, ending in ``.slow``; None = nothing is kept at all."""
        self.threshold = -1.0 if path else math.inf
        self._path = path
        self._most = most
        self._window = window
        self._clock = clock
        self._heap: list[tuple[float, int, SlowCall]] = []
        self._failed: deque[SlowCall] = deque(maxlen=most)
        self._count = 0
        self._changed = False

    def note(self, call: SlowCall) -> None:
        """Keep a call that took longer than the threshold; the fastest of those kept leaves."""
        self._count += 1
        entry = (call.total, self._count, call)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)
        self._changed = True
        self._set_threshold()

    def failed(self, call: SlowCall) -> None:
        """Keep a call that came to nothing."""
        if self._path is None:
            return
        self._failed.append(call)
        self._changed = True
        if call.total > self.threshold:
            self.note(call)

    def now(self) -> float:
        """The time of a call that has just been answered."""
        return self._clock()

    def _set_threshold(self) -> None:
        self.threshold = self._heap[0][0] if len(self._heap) >= self._most else -1.0

    def flush(self) -> None:
        """Once a second: let go of what is too long ago, write what has changed."""
        if self._path is None:
            return
        oldest = self._clock() - self._window
        if any(call.time < oldest for _, _, call in self._heap):
            self._heap = [entry for entry in self._heap if entry[2].time >= oldest]
            heapq.heapify(self._heap)
            self._set_threshold()
        if self._changed:
            self._changed = False
            self._write(self._path)

    async def flush_forever(self) -> None:
        """The same, for a process that has no other clock."""
        while True:
            await asyncio.sleep(1.0)  # the clock
            self.flush()

    def _write(self, path: Path) -> None:
        told = {"slow": [asdict(call) for _, _, call in self._heap], "failed": [asdict(call) for call in self._failed]}
        fresh = path.with_suffix(".slow-fresh")
        try:
            fresh.write_bytes(orjson.dumps(told))
            fresh.replace(path)
        except OSError as error:  # the page is the poorer for it, the calls are not
            log.debug("slow calls cannot be told: %s", error.strerror)


#: For who keeps none.
NONE = SlowCalls(None)


def read(folder: Path, now: float, window: float = _WINDOW_SECONDS) -> dict[str, list[SlowCall]]:
    """The calls of all processes: ``slow``, slowest first, and ``failed``, newest first. Files of processes that have
    long gone are removed."""
    found: dict[str, list[SlowCall]] = {"slow": [], "failed": []}
    for path in folder.glob("*.slow"):
        try:
            if path.stat().st_mtime < now - 2 * window:
                path.unlink(missing_ok=True)
                continue
            told: dict[str, Any] = orjson.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        for kind, calls in found.items():
            calls += [_call(one) for one in told[kind] if one["time"] >= now - window]
    return {
        "slow": sorted(found["slow"], key=lambda call: -call.total),
        "failed": sorted(found["failed"], key=lambda call: -call.time),
    }


def _call(told: dict[str, Any]) -> SlowCall:
    receipt: Sequence[int] = told.pop("receipt")
    return SlowCall(**told, receipt=tuple(receipt))
