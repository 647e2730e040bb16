"""Reading an input object of a transform job as the requests that are made of it. Everything blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from serving.jobs.splitting import Piece, decompressed, pieces, skip
from serving.jobs.transform_calls import Request
from serving.jobs.transform_plan import Terms
from serving.objects import ObjectStore

#: Pieces that are read at a time at most: small ones are many.
_MOST_PIECES = 64


class Reader:
    """The requests of one object from a record on. After an error it goes on, when asked again, where it was."""

    def __init__(
        self,
        objects: ObjectStore,
        terms: Terms,
        prepare: Callable[[Piece], Request],
        url: str,
        version: str,
        at: int,
        first: int,
    ) -> None:
        """``version``: of the object, which must still be that one; ``at``, ``first``: the byte (of what it holds, if
        it is compressed) and the index of the record to begin with. Nothing is opened before the first ``take``."""
        self._objects, self._terms, self._prepare = objects, terms, prepare
        self._url, self._version = url, version
        self._at, self._first = at, first
        self._stack = ExitStack()
        self._pieces: Iterator[Piece] | None = None

    def take(self, room: int) -> list[Request]:
        """The next requests, of about ``room`` bytes together, at least one; none at the end. Raises ``BadObject`` and
        what the store raises."""
        taken: list[Request] = []
        size = 0
        try:
            if self._pieces is None:
                self._pieces = self._open()
            for piece in self._pieces:
                self._at, self._first = piece.end, piece.first + piece.count
                if piece.end == piece.start:
                    continue  # an empty object is no record
                taken.append(self._prepare(piece))
                size += len(piece.body)
                if size >= room or len(taken) == _MOST_PIECES:
                    break
        except Exception:
            self.close()
            if not taken:  # what was read before is good; the same error comes again, unless it passes
                raise
        return taken

    def _open(self) -> Iterator[Piece]:
        terms = self._terms
        plain = terms.compression != "Gzip"
        offset = self._at if plain else 0
        stream = self._stack.enter_context(self._objects.open(self._url, offset, self._version))
        if not plain:
            stream = decompressed(stream)
            skip(stream, self._at)
        return pieces(stream, terms.split, terms.strategy, terms.most_bytes, start=self._at, first=self._first)

    def close(self) -> None:
        """Let go of the object; harmless when done before."""
        self._pieces = None
        self._stack.close()
