"""When a worker holds memory that nobody knows of: it asks to be replaced, before anybody lacks memory if it can."""

from __future__ import annotations

import os
from collections.abc import Callable

from serving.workers import memory
from serving.workers.batcher import Call
from serving.workers.model_cache import ModelCache
from serving.workers.plan import WorkerPlan

#: What the work on models may take beside them, before a worker counts as not returning memory.
_SLACK = 64 * 2**20
_STATUS = 71


class Upkeep:
    """One worker's eye on its own memory. Build it when the worker holds no model yet."""

    def __init__(self, plan: WorkerPlan, cache: ModelCache, tell: Callable[[dict[str, object]], None]) -> None:
        self._plan = plan
        self._cache = cache
        self._tell = tell
        self._data_at_start = memory.data()
        self._asked = False
        self.baseline = memory.held()

    def look(self) -> None:
        """Now and then: ask to be replaced when freed memory does not come back (allocators fragment, models leak)."""
        if not self._asked and self._is_grown():
            memory.give_back(collect=True)
            if self._is_grown():
                self._ask()

    def _is_grown(self) -> bool:
        plan, cache = self._plan, self._cache
        share = cache.budget * 1.1 + _SLACK if plan.multi_model else (cache.used + plan.memory_cap) / 2
        return memory.held().resident - self.baseline.resident > (plan.recycle or share)

    def _ask(self) -> None:
        self._asked = True
        self._tell({"ev": "bloated", "resident": memory.held().resident})

    def is_spoiled(self, call: Call) -> bool:
        """A call found no memory. When half of what the models leave is held by nobody that we know of, it is not the
        call's fault: the worker must go. A call that finds the same in a second one is a strike for its model."""
        try:
            if not self._asked:
                memory.give_back(collect=True)
                unknown = memory.data() - self._data_at_start - self._cache.used
                if unknown < (self._plan.memory_cap - self._cache.used) / 2:
                    return False
                self._ask()
            if call.alone:
                self._tell({"ev": "spoiled", "model": call.meta.model})
        except MemoryError:
            os._exit(_STATUS)
        return True
