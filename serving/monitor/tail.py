"""Captured calls for those who look at them: a stretch of time, the newest, and those that come.

Each is the record's own line with a member ``variant`` (in a file the path alone says it). A line that is no record is
passed over. Light, as fronts use it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from serving.errors import ObjectMissing, ValidationError
from serving.monitor import captures
from serving.monitor.values import Complaints, Window
from serving.objects import ObjectStore
from serving.watch.capture import staged

#: The newest are looked for in ever longer stretches of the past, in seconds; then in all of it.
_STRETCHES = (120.0, 1200.0, 4 * 3600.0, 2 * 86_400.0)
#: Of the newest so many bytes at most: some may be very long.
_MOST_BYTES = 64 * 2**20
_AHEAD = 3600.0
#: What is read of a file that grows, at a time.
_PIECE = 2**20


class Source(NamedTuple):
    """Whose captures, and where they are: ``staging`` is this machine's folder of unfinished files, None for none;
    ``variants`` () = all."""

    objects: ObjectStore
    staging: Path | None
    destination: str
    endpoint: str
    variants: Sequence[str] = ()


def told(line: bytes, variant: str) -> bytes:
    """A record's line with the variant in it, and a line end."""
    return b'%b,"variant":%b}\n' % (line.rstrip()[:-1], orjson.dumps(variant))


def between(source: Source, window: Window) -> Iterator[tuple[float, bytes]]:
    """(time, line as told) of the records of a window, file by file. Raises ``ValidationError``, ``ServingError``."""
    for variant, line, _ in captures.lines(*source[:4], window, Complaints(), source.variants):
        try:
            record = captures.parse(line, variant)
        except ValidationError:
            continue
        if window.start <= record.time < window.end:
            yield record.time, told(line, variant)


def newest(source: Source, count: int, now: float, window: Window) -> list[bytes]:
    """The last ``count`` records of a window, in order of time. Memory is bounded: of very long ones there may be
    fewer."""
    found: list[tuple[float, int, bytes]] = []
    end = min(window.end, now + _AHEAD)
    for stretch in (*_STRETCHES, float("inf")):
        start = max(window.start, end - _AHEAD * (window.end > now) - stretch)
        found = _largest(between(source, Window(start, end)), count)
        if len(found) >= count or start <= window.start:
            break
    return [line for _, _, line in sorted(found)]


def _largest(records: Iterator[tuple[float, bytes]], count: int) -> list[tuple[float, int, bytes]]:
    heap: list[tuple[float, int, bytes]] = []
    size = 0
    for number, (time, line) in enumerate(records):
        heapq.heappush(heap, (time, number, line))
        size += len(line)
        while len(heap) > count or (size > _MOST_BYTES and len(heap) > 1):
            size -= len(heapq.heappop(heap)[2])
    return heap


class Follower:
    """Records as they are written on this machine. One that looks too seldom may miss files that came and went."""

    def __init__(self, source: Source) -> None:
        """From now on: what is there already is passed over."""
        self._source = source
        self._read: dict[Path, int] = {path: self._length(path) for _, path in self._files()}

    def _files(self) -> Iterator[tuple[str, Path]]:
        source = self._source
        if source.staging is not None:
            for variant, path in staged(source.staging, source.destination, source.endpoint):
                if not source.variants or variant in source.variants:
                    yield variant, path

    @staticmethod
    def _length(path: Path) -> int:
        try:
            return path.read_bytes().rfind(b"\n") + 1
        except OSError:
            return 0

    def more(self) -> Iterator[bytes]:
        """Lines as told that have come since, in the order of each file."""
        there = dict.fromkeys(path for _, path in self._files())
        for path in there:
            self._read.setdefault(path, 0)
        for path in list(self._read):
            yield from self._news(path)
            if path not in there:
                del self._read[path]

    def _news(self, path: Path) -> Iterator[bytes]:
        variant, at = path.parts[-6], self._read[path]
        for piece in self._pieces(path, at):
            for line in piece.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    at += len(line)
                    yield told(line, variant)
        self._read[path] = at

    def _pieces(self, path: Path, at: int) -> Iterator[bytes]:
        """What a file has from an offset on, cut at line ends; where it has been published, from there."""
        try:
            with path.open("rb") as file:
                file.seek(at)
                yield from _whole_lines(iter(lambda: file.read(_PIECE), b""))
        except FileNotFoundError:
            url = f"s3://{'/'.join(path.relative_to(self._source.staging or path).parts[1:])}"
            try:
                with self._source.objects.open(url, at) as file:
                    yield from _whole_lines(iter(lambda: file.read(_PIECE), b""))
            except ObjectMissing:
                return


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        whole, end, rest = (rest + piece).rpartition(b"\n")
        yield whole + end


def blocks(lines: Iterator[bytes], size: int = 2**18) -> Iterator[bytes]:
    """Lines joined to blocks of about so many bytes, as each costs a change of threads."""
    held = bytearray()
    for line in lines:
        held += line
        if len(held) >= size:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
