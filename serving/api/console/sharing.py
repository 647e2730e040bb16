"""Answers that many tabs want at about the same time: made once, kept until the next is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

_MOST = 64


class Shared:
    """A few answers by key, each good for some seconds. One that is being made is waited for, by whoever asks; one that
    failed is nobody's for long: the next to ask has it made anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[object, tuple[float, asyncio.Task[Any]]] = {}

    async def get(self, key: object, make: Callable[[], Awaitable[Any]], seconds: Callable[[Any], float]) -> Any:
        """The answer under ``key``; ``make`` makes it, ``seconds`` says how long it is good for. Raises what ``make``
        does."""
        now = self._clock()
        known = self._kept.get(key)
        if known is not None and (not known[1].done() or now < known[0]):
            return await asyncio.shield(known[1])
        self._kept = {key: kept for key, kept in self._kept.items() if not kept[1].done() or now < kept[0]}
        if len(self._kept) >= _MOST:
            self._kept.clear()
        task: asyncio.Task[Any] = asyncio.ensure_future(self._make(key, make, seconds))
        self._kept[key] = now, task
        return await asyncio.shield(task)

    async def _make(self, key: object, make: Callable[[], Awaitable[Any]], seconds: Callable[[Any], float]) -> Any:
        here = asyncio.current_task()
        assert here is not None
        made = await make()
        self._kept[key] = self._clock() + seconds(made), here
        return made
