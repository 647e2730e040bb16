"""What a model will take in memory before anybody knows: by itself last time, else by its size on disk and its kind.

A measurement counts a heap piece by piece, which in a busy worker costs more than a small model's load (2 ms). So of
small artifacts like many before, few are measured; physical memory as a whole is watched elsewhere.
"""

from __future__ import annotations

from serving.runtimes.base import Artifact
from serving.workers.model_cache import ModelCache

#: A model of up to this size on disk is a small one: bytes.
_SMALL = 2**20
#: So many small ones of a kind are measured, then every so manieth.
_FIRST, _AGAIN = 16, 64
_MEMORY = 0.8  # how much of what was known a new measurement leaves
#: No model takes less than this share of its file, whatever a measurement says: others may have freed meanwhile.
_LEAST = 1 / 8


class Estimates:
    """Bytes in memory by bytes on disk, learnt. ``source`` names an artifact's exact version, as in ``ModelCache``."""

    def __init__(self, cache: ModelCache) -> None:
        """``cache`` remembers what each version took."""
        self._cache = cache
        self._per_byte: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def of(self, source: str, artifact: Artifact) -> int:
        """What this version took last time, else what its kind makes likely. Only what was measured may say that an
        artifact no larger than the budget does not fit it."""
        likely = int(artifact.bytes * self._per_byte.get(_kind(artifact), 1.0))
        guess = self._cache.guess(source, likely)
        if artifact.bytes <= self._cache.budget and not self._cache.knows(source):
            return int(min(guess, self._cache.budget))
        return guess

    def learn(self, source: str, artifact: Artifact, grown: int) -> int:
        """Memory has grown by so many bytes while it was loaded; returns what it shall count for."""
        size = max(grown, int(artifact.bytes * _LEAST))
        self._cache.measured(source, size)
        if artifact.bytes:
            kind, now = _kind(artifact), size / artifact.bytes
            self._per_byte[kind] = _MEMORY * self._per_byte.get(kind, now) + (1 - _MEMORY) * now
        return size

    def worth_weighing(self, source: str, artifact: Artifact) -> bool:
        """Measure this load? Always what is large, or brings code whose imports a first load counted too; of small ones
        a few, and none again."""
        if artifact.bytes > _SMALL or artifact.executes_code:
            return True
        if self._cache.knows(source):
            return False
        kind = _kind(artifact)
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        return seen <= _FIRST or seen % _AGAIN == 0


def _kind(artifact: Artifact) -> str:
    """Artifacts of one kind take alike, byte for byte on disk: a booster in JSON is larger than in UBJSON."""
    return artifact.kind + artifact.file.suffix
