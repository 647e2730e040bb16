"""What happened, as lines of JSON in a file that stays small: evictions, to be read by people and tests."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

_MOST_WAITING = 100_000

log = logging.getLogger("serving.journal")


class Journal:
    """``NAME.jsonl``, and its predecessor ``NAME.jsonl.1``: a file that reaches ``most_bytes`` becomes the predecessor.

    A journal never stops what it describes: when the disk refuses, records are dropped, and one line of log says so.
    """

    def __init__(self, path: Path, most_bytes: int = 16 * 2**20) -> None:
        """Nothing is written before the first ``flush``."""
        self._path = path
        self._most = most_bytes
        self._waiting: list[str] = []
        self._broken = False

    def add(self, record: Mapping[str, object]) -> None:
        """Remember a record until the next ``flush``."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(json.dumps(record))

    def flush(self) -> None:
        """Write what was added since the last one."""
        if not self._waiting:
            return
        text = "\n".join(self._waiting) + "\n"
        self._waiting.clear()
        try:
            with self._path.open("a", encoding="ascii") as file:
                file.write(text)
                full = file.tell() >= self._most
            if full:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        except OSError as error:
            if not self._broken:
                log.warning("%s cannot be written: %s; its records are lost", self._path.name, error.strerror)
            self._broken = True
        else:
            self._broken = False

    def close(self) -> None:
        """Write the rest."""
        self.flush()
