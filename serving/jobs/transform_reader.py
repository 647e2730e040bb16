"""Reading an input object of a transform job as the requests that are made of it. Everything blocks."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from serving.errors import BadObject
from serving.jobs.columns import Kind, is_parquet, parquet_pieces
from serving.jobs.splitting import Piece, decompressed, pieces, skip
from serving.jobs.transform_calls import Request
from serving.jobs.transform_plan import Terms
from serving.objects import ObjectStore

#: A request of a gigabyte is what asynchronous calls may have too.
_MOST_MAPPED = 2**30
#: Pieces that are read at a time at most: small ones are many.
_MOST_PIECES = 64


def rows_of(url: str, terms: Terms) -> Kind | None:
    """As what the rows of a Parquet object are sent; None for an object that is sent as the bytes it is."""
    if terms.split != "Line" or not is_parquet(url, terms.content_type):
        return None
    return "text/csv" if terms.content_type.partition(";")[0].strip().lower() == "text/csv" else "application/jsonlines"


class Start(NamedTuple):
    """Where to begin: an object, which must still be of this version, at a byte (of what it holds, if it is compressed)
    where the record of index ``first`` begins."""

    url: str
    version: str
    at: int
    first: int


class Reader:
    """The requests of one object from a record on. After an error it goes on, when asked again, where it was. ``raw``:
    bytes of a compressed object that have been read; None of one that is sent as it is. ``ended``: there is no more."""

    def __init__(self, objects: ObjectStore, terms: Terms, prepare: Callable[[Piece], Request], start: Start) -> None:
        """``prepare`` makes a piece a request. Nothing is opened before the first ``take``."""
        self._objects, self._terms, self._prepare = objects, terms, prepare
        self._url, self._version, self._at, self._first = start
        self._stack = ExitStack()
        self._pieces: Iterator[Piece] | None = None
        self.raw: int | None = None
        self.ended = False

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
            else:
                self.ended = True
                self.close()
        except Exception:
            self.close()
            if not taken:  # what was read before is good; the same error comes again, unless it passes
                raise
        return taken

    def _open(self) -> Iterator[Piece]:
        terms = self._terms
        if (kind := rows_of(self._url, terms)) is not None:
            self.raw = 0  # of columns nobody knows how many bytes a row is
            path = self._stack.enter_context(self._objects.fetch(self._url))
            return parquet_pieces(path, kind, terms.most_bytes, self._first, terms.strategy, terms.usual_bytes)
        if terms.is_mapped:
            return self._mapped(self._stack.enter_context(self._objects.fetch(self._url)))
        gzip = terms.compression == "Gzip"
        stream = self._stack.enter_context(self._objects.open(self._url, 0 if gzip else self._at, self._version))
        if gzip:
            self.raw = 0
            stream = decompressed(cast("BinaryIO", _Counted(stream, self._count)))
            skip(stream, self._at)
        return pieces(
            stream, terms.split, terms.strategy, terms.most_bytes,
            start=self._at, first=self._first, usual_bytes=terms.usual_bytes,
        )  # fmt: skip

    def _mapped(self, path: Path) -> Iterator[Piece]:
        """The object as one piece whose bytes stay on the disk until they are sent. The map goes with the last who has
        it."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_MAPPED:
                raise BadObject(f"It has {size:,} bytes; at most {_MOST_MAPPED:,} can be sent at once.")
            if size and not self._first:
                body = cast("bytes", mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                yield Piece(0, size, 0, 1, body)

    def _count(self, read: int) -> None:
        self.raw = (self.raw or 0) + read

    def close(self) -> None:
        """Let go of the object; harmless when done before."""
        self._pieces = None
        self._stack.close()


class _Counted:
    """A stream whose reads are counted."""

    def __init__(self, stream: BinaryIO, count: Callable[[int], None]) -> None:
        self._stream, self._count = stream, count

    def read(self, size: int = -1) -> bytes:
        """As the stream does."""
        data = self._stream.read(size)
        self._count(len(data))
        return data
