"""What batch transform jobs captured, as records: the objects that the manifests of a window name
(``behaviour/04``: ``{destination}/input/yyyy/mm/dd/hh/UUID.json`` and ``output`` likewise).

A manifest of ``input`` and the one of ``output`` with the same name tell of one job, object by object. A record is one
line of an object: its request, and where the job joined nothing and kept their number, its answer. GenerateInferenceId
adds an id and a time to each answer; those lead to labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import orjson

from serving.errors import ObjectMissing, ValidationError
from serving.monitor.tables import dataset
from serving.monitor.values import Complaints, Record, Side, Window
from serving.objects import ObjectStore

_HOUR = 3600
_LARGEST_MANIFEST = 64 * 2**20
_ID, _TIME = "SageMakerInferenceId", "SageMakerInferenceTime"
_KINDS: Mapping[str, str] = {"Csv": ".csv", "Json": ".jsonl", "Parquet": ".parquet"}


def read(objects: ObjectStore, batch: Mapping[str, Any], window: Window, complaints: Complaints) -> Iterator[Record]:
    """The rows of the objects of every job whose manifests lie in an hour of the window, as captured calls: JSON
    objects by column, one a record. ``batch``: a BatchTransformInput."""
    ((kind, form),) = batch["DatasetFormat"].items()
    header = kind != "Csv" or bool(form.get("Header"))
    root = batch["DataCapturedDestinationS3Uri"].rstrip("/")
    for name, hour in _manifests(objects, root, window):
        asked = _objects(objects, f"{root}/input/{name}", complaints)
        said = _objects(objects, f"{root}/output/{name}", complaints)
        for source, answer in zip_longest(asked, said):
            yield from _records(objects, source, answer, _KINDS[kind], header, hour, complaints)


def _manifests(objects: ObjectStore, root: str, window: Window) -> Iterator[tuple[str, float]]:
    """The names of manifests below ``input/``, and the hours they lie in (epoch seconds)."""
    at = int(window.start // _HOUR) * _HOUR
    while at < window.end:
        prefix = f"{root}/input/{time.strftime('%Y/%m/%d/%H', time.gmtime(at))}/"
        for info in objects.list(prefix):
            if info.url.endswith(".json"):
                yield info.url[len(f"{root}/input/") :], float(at)
        at += _HOUR


def _objects(objects: ObjectStore, url: str, complaints: Complaints) -> list[str]:
    try:
        with objects.open(url) as file:
            head, *keys = orjson.loads(file.read(_LARGEST_MANIFEST))
        return [f"{head['prefix']}{key}" for key in keys]
    except (ObjectMissing, ValueError, TypeError, KeyError):
        complaints.add("a manifest of a transform job is missing or damaged", url)
        return []


def _records(
    objects: ObjectStore,
    source: str | None,
    answer: str | None,
    suffix: str,
    header: bool,
    hour: float,
    complaints: Complaints,
) -> Iterator[Record]:
    asked = _rows(objects, source, suffix, header, complaints)
    said = _rows(objects, answer, suffix, False, complaints)
    for number, (request, reply) in enumerate(zip_longest(asked, said)):
        reply = dict(reply or {})
        id = _taken(reply)
        place = f"{source or answer}:{number}"
        sides = (_side(request, header), _side(reply, False))
        yield Record(place, id, hour, "", *sides, {"eventId": place})


def _rows(
    objects: ObjectStore, url: str | None, suffix: str, header: bool, complaints: Complaints
) -> Iterator[Mapping[str, str | None]]:
    if url is None:
        return
    try:
        with objects.open(url) as file:
            for table in dataset(file, suffix, complaints, header):
                yield from table.to_pylist()
    except (ObjectMissing, ValidationError) as error:
        complaints.add("an object of a transform job has gone, or is not of its format", f"{url}: {error.message}")


def _taken(reply: dict[str, str | None]) -> str:
    """The inference id of an answer, taken out of it with its time: by name, or CSV's last two columns."""
    if _ID in reply:
        reply.pop(_TIME, None)
        return reply.pop(_ID) or ""
    names = list(reply)
    if len(names) > 2 and _is_time(reply[names[-1]]):
        reply.pop(names[-1])
        return reply.pop(names[-2]) or ""
    return ""


def _is_time(text: str | None) -> bool:
    return bool(text) and len(text or "") == len("2026-01-01T00:00:00Z") and (text or "").endswith("Z")


def _side(row: Mapping[str, str | None] | None, named: bool) -> Side | None:
    """A row as a body: an object by column where the columns have names, else CSV."""
    if not row:
        return None
    if named:
        return Side("application/json", "JSON", orjson.dumps(dict(row)).decode())
    return Side("text/csv", "CSV", ",".join(_cell(value) for value in row.values()))


def _cell(value: str | None) -> str:
    text = value or ""
    return '"' + text.replace('"', '""') + '"' if any(one in text for one in ',"\r\n') else text
