"""What the machine gives of what the targets wish for: memory and cores are shared fairly.

Nobody loses a running worker to another, and minimums are promises: they are granted first. What goes beyond is given
out one worker at a time to whoever has least beyond its minimum (max-min fairness), as long as memory and the bound on
workers last.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serving.scaling.values import Resource

#: Workers beyond the minimums for each core, where no other bound is set.
PER_CORE = 4


class Wish(NamedTuple):
    """``current``: the workers it has; ``desired``: what is decided; ``bytes_per_worker``: what one more takes."""

    resource: Resource
    current: int
    desired: int
    minimum: int
    bytes_per_worker: int


def grant(wishes: Sequence[Wish], cores: int, memory_free: int, most_extra: int) -> Mapping[Resource, int]:
    """Workers for each of ``wishes``; all targets belong in, those that wish for nothing new too.
    ``memory_free``: bytes that new workers may take; ``most_extra``: workers beyond the minimums, of all together;
    0 = ``PER_CORE`` for each core. Never below the smaller of current and desired."""
    room = most_extra or PER_CORE * cores
    granted = {}
    hungry: list[tuple[int, Resource, Wish]] = []
    for wish in wishes:
        has = min(wish.desired, max(wish.current, wish.minimum))
        granted[wish.resource] = has
        room -= max(0, has - wish.minimum)
        memory_free -= max(0, has - wish.current) * wish.bytes_per_worker
        if has < wish.desired:
            hungry.append((has - wish.minimum, wish.resource, wish))
    heapq.heapify(hungry)
    while hungry and room > 0:
        beyond, resource, wish = heapq.heappop(hungry)
        if wish.bytes_per_worker > memory_free:
            continue
        granted[resource] += 1
        room -= 1
        memory_free -= wish.bytes_per_worker
        if granted[resource] < wish.desired:
            heapq.heappush(hungry, (beyond + 1, resource, wish))
    return granted
