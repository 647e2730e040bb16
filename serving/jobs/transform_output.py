"""What an object of a transform job has come to so far, on the disk: output and errors, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from serving.jobs.parts import Part, PartLost


@dataclass(frozen=True, slots=True)
class Mark:
    """How far an object is: all up to here is written. ``at``, ``first``: where its next record begins, and that one's
    index; ``part``, ``errors``: bytes of both files; ``bad``: records among them that failed, and the first of them in
    a sentence. ``alone``: how often it was begun from here with no other object beside it."""

    version: str
    at: int = 0
    first: int = 0
    part: int = 0
    errors: int = 0
    bad: int = 0
    first_bad: str = ""
    alone: int = 0


class Output:
    """The two files of one object, ``INDEX.out`` and ``INDEX.errors`` in the job's folder. Opened when they are needed,
    cut back to the mark that they go on from. Everything blocks; raises ``OSError``, and ``PartLost`` when the disk has
    not kept what the mark says."""

    def __init__(self, folder: Path, index: int) -> None:
        """Nothing is touched."""
        self._paths = folder / f"{index}.out", folder / f"{index}.errors"
        self._part: Part | None = None
        self._errors: Part | None = None

    @property
    def is_open(self) -> bool:
        """Has something been written since the start?"""
        return self._part is not None

    def write(self, mark: Mark, chunks: Sequence[bytes], lines: Sequence[bytes]) -> tuple[int, int]:
        """Write these behind what the mark knows; where both end. The same again does no harm."""
        if self._part is None:
            self._part = Part(self._paths[0], mark.part)
        if self._errors is None and (lines or mark.errors):
            self._errors = Part(self._paths[1], mark.errors)
        errors = self._errors.write(mark.errors, lines) if self._errors is not None else mark.errors
        return self._part.write(mark.part, chunks), errors

    def sync(self) -> None:
        """Put both on the disk."""
        for part in (self._part, self._errors):
            if part is not None:
                part.sync()

    def finish(self, mark: Mark) -> Path:
        """The output as a finished file; the errors are on the disk."""
        self.write(mark, (), ())
        assert self._part is not None  # it has been opened for that
        if self._errors is not None:
            self._errors.sync()
        return self._part.finish(mark.part)

    def give_up(self, mark: Mark, line: bytes) -> int:
        """There will be no output: a last line of errors, on the disk; bytes of errors."""
        self.close()
        self._paths[0].unlink(missing_ok=True)
        try:
            errors, length = Part(self._paths[1], mark.errors), mark.errors
        except PartLost:
            errors, length = Part(self._paths[1]), 0
        with errors:
            length = errors.write(length, [line])
            errors.sync()
        return length

    def close(self) -> None:
        """Nobody writes any more; harmless when done before."""
        for part in (self._part, self._errors):
            if part is not None:
                part.close()
        self._part = self._errors = None


def error_line(url: str, reason: str, record: int | None = None, offset: int | None = None) -> bytes:
    """A line of a job's errors: which record of which object failed, by its number from 1 and (but for Parquet) its
    first byte, and why; without a record, the object as a whole."""
    shown: Mapping[str, Any] = {"source": url, "line": record, "offset": offset, "reason": reason}
    return orjson.dumps(shown) + b"\n"
