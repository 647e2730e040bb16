"""Capture files wherever they lie, put in order of time: beneath an ``s3://`` prefix, in a folder, or one alone.

Files of several processes and variants cover the same minutes. They are read side by side, each from when its name says
that it begins: as many are open as cover one moment.
"""

from __future__ import annotations

import heapq
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from serving.errors import ConfigError, ValidationError
from serving.monitor.captures import parse
from serving.monitor.values import Complaints, Record
from serving.objects import ObjectStore

_NAMED = re.compile(r"(?:^|/)([^/]+)/(\d{4})/(\d\d)/(\d\d)/(\d\d)/([0-5]\d)-([0-5]\d)-\d{3}-[^/]*\.jsonl\Z", re.ASCII)
#: Both bodies of 6 MiB, each byte escaped.
_LONGEST_LINE = 80 << 20
#: A file has the records of a minute.
_OVERLAP_SECONDS, _MOST_WAITING = 120.0, 50_000


#: What the inference ids of replayed calls end in (``replaying.py``).
REPLAYED = "-replay"


class File(NamedTuple):
    """A capture file. ``begins``: epoch seconds, by its name; minus infinity where that does not say."""

    name: str
    begins: float
    variant: str
    open: Callable[[], AbstractContextManager[BinaryIO]]


def at_prefix(objects: ObjectStore, prefix: str) -> list[File]:
    """The capture files beneath an ``s3://`` prefix."""
    urls = [info.url for info in objects.list(prefix) if info.url.endswith(".jsonl")]
    return [_file(url, partial(objects.open, url)) for url in urls]


def at_path(path: Path) -> list[File]:
    """A file, or those of a folder; ``-`` is standard input. Raises ``ConfigError`` when nothing is there."""
    if str(path) == "-":
        return [File("-", float("-inf"), "", lambda: nullcontext(sys.stdin.buffer))]
    if not path.exists():
        raise ConfigError(f"There is no file or folder {path}.")
    paths = sorted(one for one in path.rglob("*.jsonl") if one.is_file()) if path.is_dir() else [path]
    return [_file(str(one.absolute()), partial(_opened, one)) for one in paths]


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from None


def _file(name: str, opened: Callable[[], AbstractContextManager[BinaryIO]]) -> File:
    found = _NAMED.search(name)
    if found is None:
        return File(name, float("-inf"), "", opened)
    try:
        when = datetime(*map(int, found.groups()[1:]), tzinfo=UTC)  # type: ignore[misc,arg-type]  # six numbers
    except ValueError:
        return File(name, float("-inf"), "", opened)
    return File(name, when.timestamp(), found[1], opened)


def in_order(files: Iterable[File], complaints: Complaints) -> Iterator[Record]:
    """The records of all files, about in order of time; those of files that do not say when they begin come first, one
    file after the other."""
    ordered = sorted(files, key=lambda one: (one.begins, one.name))
    named = [one for one in ordered if one.begins > float("-inf")]
    for file in ordered[: len(ordered) - len(named)]:
        yield from records(file, complaints)
    streams: list[tuple[float, int, Record, Iterator[Record]]] = []
    started = 0
    while streams or started < len(named):
        while started < len(named) and (not streams or named[started].begins <= streams[0][0]):
            _push(streams, started, records(named[started], complaints))
            started += 1
        if streams:
            _, place, record, stream = heapq.heappop(streams)
            yield record
            _push(streams, place, stream)


def in_time(records: Iterable[Record]) -> Iterator[Record]:
    """Records that come file by file, where files cover the same minute or two, about in order of time: each waits
    until one comes that is so much later."""
    waiting: list[tuple[float, int, Record]] = []
    for number, record in enumerate(records):
        heapq.heappush(waiting, (record.time, number, record))
        while waiting[0][0] < record.time - _OVERLAP_SECONDS or len(waiting) > _MOST_WAITING:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def originals(records: Iterable[Record], complaints: Complaints) -> Iterator[Record]:
    """Without the calls of earlier replays, which were captured like any others."""
    for record in records:
        if record.inference_id.endswith(REPLAYED):
            complaints.add("a call of an earlier replay", record.event_id)
        else:
            yield record


def _push(streams: list[tuple[float, int, Record, Iterator[Record]]], place: int, stream: Iterator[Record]) -> None:
    record = next(stream, None)
    if record is not None:
        heapq.heappush(streams, (record.time, place, record, stream))


def records(file: File, complaints: Complaints) -> Iterator[Record]:
    """The records of one file; lines that are none are complaints."""
    with file.open() as opened:
        yield from parsed(opened, file.name, file.variant, complaints)


def parsed(lines: BinaryIO, name: str, variant: str, complaints: Complaints) -> Iterator[Record]:
    """The records of an open file."""
    number = 0
    while line := lines.readline(_LONGEST_LINE):
        number += 1
        if not line.isspace():
            try:
                yield parse(line, variant)
            except ValidationError as error:
                complaints.add(error.message, f"{name.rpartition('/')[2]}:{number}")
