"""Which variants the next calls of a queue go to, where an endpoint has several. Pure; the dice come in as ``draw``.

Variants are drawn by weight, one for each call in its turn. Where the one whose turn it is has no room, the queue waits
for it: to pass it over would give the others more than their share, and to overfill it more calls at a time than its
instances may have (MaxConcurrentInvocationsPerInstance).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence


class Draws:
    """Variants drawn and not used yet, in order."""

    def __init__(self) -> None:
        self._drawn: deque[str] = deque()

    def take(self, room: Mapping[str, int], draw: Callable[[], str]) -> list[str]:
        """The variants of the calls that may start now. ``room``: how many more each may have; ``draw`` gives one of
        these. One drawn before that is not among them has gone, and is forgotten."""
        left, found = dict(room), []
        while any(number > 0 for number in left.values()):
            variant = self._drawn.popleft() if self._drawn else draw()
            if variant not in left:
                continue
            if left[variant] <= 0:
                self._drawn.appendleft(variant)
                break
            left[variant] -= 1
            found.append(variant)
        return found

    def put_back(self, unused: Sequence[str]) -> None:
        """There were fewer calls than that."""
        self._drawn.extendleft(reversed(unused))
