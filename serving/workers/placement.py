"""Which worker of a variant gets a call. Pure: candidates and dice in, a choice out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

#: A model leaves its home worker for the next one when home has this many calls more in flight.
SPILL = 32


class Candidate(Protocol):
    """A worker with calls in flight."""

    @property
    def outstanding(self) -> int: ...  # noqa: D102


C = TypeVar("C", bound=Candidate)


def _score(key: str, worker_id: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{worker_id}".encode(), digest_size=8).digest()


def rendezvous(key: str, worker_ids: Sequence[str]) -> list[int]:
    """Indexes of ``worker_ids`` in the order ``key`` prefers them (highest random weight, Thaler and Ravishankar 1998).
    When a worker comes or goes, only the keys that prefer it move."""
    return sorted(range(len(worker_ids)), key=lambda at: _score(key, worker_ids[at]), reverse=True)


def least_outstanding(workers: Sequence[C], random: Callable[[], float]) -> C:
    """The worker with the fewest calls in flight; ties are broken by the dice (``behaviour/02``)."""
    fewest = min(worker.outstanding for worker in workers)
    ties = [worker for worker in workers if worker.outstanding == fewest]
    return ties[0] if len(ties) == 1 else ties[int(random() * len(ties))]


def home_or_spill(preferred: Sequence[C], warm: Callable[[C], bool]) -> C:
    """The model's home worker, or, once home has the model and is ``SPILL`` calls busier, the next one in its order.

    A cold model never spills: its callers wait for one load, they do not start others.
    """
    home = preferred[0]
    if home.outstanding < SPILL or not warm(home):
        return home
    for other in preferred[1:]:
        if other.outstanding + SPILL <= home.outstanding:
            return other
    return home
