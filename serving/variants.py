"""Which production variant answers a call. Pure: weights and dice in, a choice out.

Share of a variant = its weight / sum of the weights (``behaviour/02``: weighted split). A draw is independent per call;
a sticky choice depends on the caller's key alone.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class Split:
    """A weighted draw prepared once and drawn many times (0.3 µs a draw)."""

    __slots__ = ("_bounds", "total")

    def __init__(self, weights: Sequence[float]) -> None:
        """``weights``: finite, at least 0. All zero is allowed; then nothing can be drawn."""
        self._bounds = list(accumulate(weights))
        self.total = self._bounds[-1] if self._bounds else 0.0

    def pick(self, u: float) -> int:
        """The index for ``u``, uniform in [0, 1). A weight of 0 is never picked. ``total`` must be above 0."""
        at = bisect_right(self._bounds, u * self.total)
        if at < len(self._bounds):
            return at
        # u * total may round up to total: the last variant that has any weight
        return self._bounds.index(self.total)


def sticky(key: str, names: Sequence[str], weights: Sequence[float]) -> int:
    """The index that ``key`` always gets, in proportion to the weights over many keys.

    Weighted rendezvous hashing: each name gets ``-ln(u) / weight`` with u in (0, 1] from hash(key, name); the least
    wins. Changing one weight moves only the keys that this variant gains or loses. At least one weight must be above 0.
    """
    best, best_at = math.inf, -1
    for at, (name, weight) in enumerate(zip(names, weights, strict=True)):
        if weight <= 0:
            continue
        digest = hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
        u = (int.from_bytes(digest, "little") + 1) / 2.0**64
        distance = -math.log(u) / weight
        if distance < best or best_at < 0:
            best, best_at = distance, at
    return best_at
