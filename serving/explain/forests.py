"""Which variants are models of trees, and their leaves: read from the artifact that a worker has loaded."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from serving.errors import ServingError
from serving.explain import trees
from serving.explain.trees import Leaves
from serving.workers.pool import Pool
from serving.workers.sides import Target

#: A worker that is asked for its model's file answers at once, unless its interpreter is held up.
_PATIENCE_SECONDS = 1.0
#: Forests kept, and how large a file and how many leaves they may have: 100,000 leaves of depth 8 take 30 MB, and 0.1 s
#: for each row of the baseline.
_MOST, _LARGEST_FILE, _MOST_LEAVES = 16, 2**27, 100_000

log = logging.getLogger("serving.explain")

#: A file as it was read: path, time, size.
_Version = tuple[str, int, int]


class Forests:
    """Leaves by file, kept as long as the file stays as it is."""

    def __init__(self) -> None:
        self._known: dict[_Version, Leaves | None] = {}

    async def find(self, target: Target | None, model: str) -> Leaves | None:
        """The leaves of the model behind a variant; None for one that is not of trees, or in a way unknown here."""
        if not isinstance(target, Pool):
            return None
        try:
            told = [one for one in await target.operate("file", model, _PATIENCE_SECONDS) if one]
        except ServingError:
            return None
        if not told or told[0]["format"] != "xgboost":
            return None
        return await asyncio.to_thread(self._read, Path(told[0]["file"]))

    def _read(self, file: Path) -> Leaves | None:
        """Blocks."""
        try:
            status = file.stat()
            version = (str(file), status.st_mtime_ns, status.st_size)
            if version not in self._known:
                while len(self._known) >= _MOST:
                    self._known.pop(next(iter(self._known)), None)
                self._known[version] = _leaves(file.read_bytes()) if status.st_size <= _LARGEST_FILE else None
            return self._known[version]
        except OSError:  # it has left the disk cache
            return None


def _leaves(data: bytes) -> Leaves | None:
    """What a booster's file holds. A booster that cannot be read is explained by asking it, like any model."""
    from serving.runtimes import trees_to_onnx, xgboost

    try:
        read = trees_to_onnx.read_forest(xgboost.as_json(data))
    except Exception as error:
        log.info("a booster's trees cannot be read: %r", error)
        return None
    if read is None:
        return None
    forest, transform, columns, outputs = read
    if outputs != 1 or int(forest.leaf.sum()) > _MOST_LEAVES:
        return None
    return trees.leaves(forest, columns, transform)
