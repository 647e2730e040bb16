"""Captured calls, read back: finished files at their destination, and those that are still being written.

Form and paths: ``behaviour/05``; who writes them: ``watch/capture.py``. Light, as commands and fronts read them too.
A line that cannot be read is a complaint, never an error. Only files whose name says that they may hold a record of
the window are opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from serving.errors import ObjectMissing, ValidationError
from serving.monitor.values import Complaints, Record, Side, Window
from serving.objects import ObjectStore
from serving.storage import parse_s3
from serving.watch.capture import staged

#: A record is at most so much later than the hour, and than the first record, of its file (``behaviour/05``: files are
#: changed after 60 s; generous, as files of other servers are read too).
_SLACK_SECONDS = 600.0
_HOUR = 3600.0
_BLOCK = 1 << 20
#: Both bodies of 6 MiB, each byte escaped: no record is longer.
_LONGEST_LINE = 80 << 20
#: Of a window of more days the whole variant is listed.
_MOST_DAYS = 62
_ENCODINGS = ("CSV", "JSON", "BASE64")
#: Half the time that calling the named tuple's class takes.
_new = tuple.__new__
_FOLDER = re.compile(r"([^/]+)/(\d{4})/(\d\d)/(\d\d)/(\d\d)/([^/]+\.jsonl)", re.ASCII)
_FIRST_RECORD = re.compile(r"([0-5]\d)-([0-5]\d)-\d{3}-", re.ASCII)


# --- one record -----------------------------------------------------------------------------------------------------


def parse(line: bytes, variant: str = "") -> Record:
    """A line of a capture file; ``variant`` is in the file's path alone. Raises ``ValidationError`` for what is no
    record; its text tells nothing of the line, so it can be a reason of ``Complaints``."""
    try:
        found = orjson.loads(line)
    except ValueError:
        raise ValidationError("a line is not JSON") from None
    try:
        data, event = found["captureData"], found["eventMetadata"]
        event_id, inference_id, label = event["eventId"], event.get("inferenceId", ""), found.get("groundTruthData")
        if type(event_id) is not str or type(inference_id) is not str:
            raise ValidationError("an eventId or inferenceId is no string")
        output = data.get("endpointOutput") or data.get("batchTransformOutput")
        time, sides = _seconds(event["inferenceTime"]), (_side(data.get("endpointInput")), _side(output))
        return _new(Record, (event_id, inference_id, time, variant, *sides, event, label and _label(label)))
    except (KeyError, TypeError, AttributeError):
        raise ValidationError("a line is no capture record") from None


def _side(found: Mapping[str, Any] | None) -> Side | None:
    if not found:
        return None
    side = _new(Side, (found["observedContentType"], found["encoding"], found["data"]))
    if type(side[0]) is type(side[2]) is str and side[1] in _ENCODINGS:
        return side
    raise ValidationError("a captured body is not as records have them")


def _label(found: Mapping[str, Any]) -> str:
    if type(found["data"]) is not str:
        raise ValidationError("a label is no string")
    return str(found["data"])


@lru_cache(maxsize=64)
def _seconds(text: str) -> float:
    """Epoch seconds of an ``inferenceTime``; UTC where it does not say. The same second comes many times."""
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValidationError("an inferenceTime is not ISO 8601") from None


# --- an endpoint's records ------------------------------------------------------------------------------------------


def read(
    objects: ObjectStore,
    staging: Path | None,
    destination: str,
    endpoint: str,
    window: Window,
    complaints: Complaints,
    variants: Sequence[str] = (),
) -> Iterator[Record]:
    """The records of an endpoint whose ``inferenceTime`` is in ``window``, file by file: those at ``destination`` by
    name, then those in ``staging``. ``variants``: only of these; () = of all. Streams: never more than one file is
    open, and one line in memory. Raises ``ValidationError`` for a destination that is no ``s3://`` prefix,
    ``ObjectUnavailable`` when the store cannot be read."""
    for variant, line, name in lines(objects, staging, destination, endpoint, window, complaints, variants):
        try:
            record = parse(line, variant)
        except ValidationError as error:
            complaints.add(error.message, name)
            continue
        if window.start <= record[2] < window.end:
            yield record


def lines(
    objects: ObjectStore,
    staging: Path | None,
    destination: str,
    endpoint: str,
    window: Window,
    complaints: Complaints,
    variants: Sequence[str] = (),
) -> Iterator[tuple[str, bytes, str]]:
    """(variant, line, file) of all files that may have records of the window: what ``read`` makes records of."""
    for place, some in _blocks(objects, staging, destination, endpoint, window, complaints, variants):
        yield from ((place.variant, line, place.name) for line in some if line.strip())


def _blocks(
    objects: ObjectStore,
    staging: Path | None,
    destination: str,
    endpoint: str,
    window: Window,
    complaints: Complaints,
    variants: Sequence[str],
) -> Iterator[tuple[_Place, list[bytes]]]:
    """The lines of these files, many at a time."""
    bucket, key = parse_s3(destination)
    root = "/".join(part for part in (f"s3://{bucket}", key.strip("/"), endpoint) if part) + "/"
    # Listed first: a file that is published meanwhile is seen here, or there, or in both places under one name.
    waiting = list(_waiting(staging, destination, endpoint, window, variants))
    names = {place.name for place, _ in waiting}
    for place in _finished(objects, root, window, variants):
        if place.name not in names:
            yield from _blocks_of(place, partial(objects.open, root + place.name), complaints, True)
    for place, path in waiting:
        yield from _blocks_of(place, partial(_open_staged, path, objects, root + place.name), complaints, False)


class _Place(NamedTuple):
    """A capture file: its variant, the folder's hour (epoch seconds), and its URL below the endpoint's."""

    variant: str
    hour: float
    name: str

    def may_hold(self, window: Window) -> bool:
        """Whether a record of the window can be in it, by its name."""
        first = _FIRST_RECORD.match(self.name.rpartition("/")[2])
        begins = self.hour + (int(first[1]) * 60 + int(first[2]) if first else 0)
        ends = (begins if first else self.hour + _HOUR) + _SLACK_SECONDS
        return begins < window.end + _SLACK_SECONDS and ends > window.start


def _place(name: str) -> _Place | None:
    """``VARIANT/yyyy/mm/dd/hh/FILE.jsonl``; None for another name."""
    found = _FOLDER.fullmatch(name)
    if found is None:
        return None
    try:
        hour = datetime(int(found[2]), int(found[3]), int(found[4]), int(found[5]), tzinfo=UTC)
    except ValueError:
        return None
    return _Place(found[1], hour.timestamp(), name)


def _finished(objects: ObjectStore, root: str, window: Window, variants: Sequence[str]) -> Iterator[_Place]:
    """The files at the destination that may hold records of the window, by name."""
    for prefix in _prefixes(window, variants):
        for info in objects.list(root + prefix):
            place = _place(info.url.removeprefix(root))
            if place is not None and place.may_hold(window):
                yield place


def _prefixes(window: Window, variants: Sequence[str]) -> Iterator[str]:
    """What to list: of known variants a day at a time, so that months of captures are not gone through for an hour."""
    if not variants:
        yield ""
        return
    days = list(_days(window))
    for variant in sorted(set(variants)):
        yield from (f"{variant}/{day}/" for day in days) if days else (f"{variant}/",)


def _days(window: Window) -> Iterator[str]:
    """The days whose folders may have records of the window, ``yyyy/mm/dd``; none for very long windows."""
    start, end = window.start - _HOUR - _SLACK_SECONDS, window.end + _SLACK_SECONDS
    if not 0 <= start <= end <= start + _MOST_DAYS * 24 * _HOUR:
        return
    for day in range(int(start // (24 * _HOUR)), int(end // (24 * _HOUR)) + 1):
        yield (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y/%m/%d")


def _waiting(
    staging: Path | None, destination: str, endpoint: str, window: Window, variants: Sequence[str]
) -> Iterator[tuple[_Place, Path]]:
    """The files that are still being written, and where they will be."""
    if staging is None:
        return
    for variant, path in staged(staging, destination, endpoint):
        place = _place("/".join((variant, *path.parts[-5:])))
        if place is not None and place.may_hold(window) and (not variants or variant in variants):
            yield place, path


def _open_staged(path: Path, objects: ObjectStore, url: str) -> AbstractContextManager[BinaryIO]:
    """A file being written; at its destination when it was finished meanwhile."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return objects.open(url)


def _blocks_of(
    place: _Place, opened: Callable[[], AbstractContextManager[BinaryIO]], complaints: Complaints, finished: bool
) -> Iterator[tuple[_Place, list[bytes]]]:
    """The lines of a file. Of a file that is not finished, a last one without its end is being written, and is left."""
    try:
        with opened() as file:
            for some in _split(file, place, complaints, finished):
                yield place, some
    except ObjectMissing:
        complaints.add("a capture file went away", place.name)


def _split(file: BinaryIO, place: _Place, complaints: Complaints, finished: bool) -> Iterator[list[bytes]]:
    """By line ends; what is behind the last is a line of a finished file. Of a line that is too long for a record
    nothing is kept."""
    rest, too_long = b"", False
    while block := file.read(_BLOCK):
        *whole, rest = (rest + block).split(b"\n") if rest else block.split(b"\n")
        if too_long and whole:
            whole, too_long = whole[1:], False
        yield whole
        if too_long or len(rest) > _LONGEST_LINE:
            if not too_long:
                complaints.add("a line is longer than a record can be", place.name)
            rest, too_long = b"", True
    if finished:
        yield [rest]
