"""Ground truth: what the right answers were, and which captured calls they belong to (``behaviour/06``, model quality).

Labels are JSON Lines objects ``{root}/yyyy/mm/dd/hh/*.jsonl``, the hour being when the label was collected::

    {"groundTruthData":{"data":"1","encoding":"CSV"},"eventMetadata":{"eventId":"<inferenceId or eventId>"},
     "eventVersion":"0"}

A label knows its call by the call's ``inferenceId``, if it had one, else by its ``eventId``. A call of several rows has
a label of several: lines of CSV, or a JSON list.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import orjson

from serving.errors import ObjectMissing, ValidationError
from serving.monitor.bodies import cells, label_text
from serving.monitor.values import Complaints, Record, Side, Window
from serving.objects import ObjectInfo, ObjectStore

#: What labels are known by (``Record.key``) -> their text: CSV, or a JSON list (``label_rows``).
Labels = Mapping[str, str]

#: An inference id has 64 characters at most (API, InvokeEndpoint), an event id 36.
LONGEST_ID = 64
#: Bytes of a line; a longer one is skipped.
_LONGEST_LINE = 2**23
_PLAIN = re.compile(r'[^,"\r\n]+')
_HOUR, _DAY = 3600, 86_400
_IN_HOUR = re.compile(r"/(\d{4})/(\d\d)/(\d\d)/(\d\d)/[^/]+\Z", re.ASCII)
#: Hours, and days, that are listed one by one; more are listed as one.
_MOST_HOURS, _MOST_DAYS = 48, 400


# --- one record -----------------------------------------------------------------------------------------------------


def parse_label(value: Any) -> tuple[str, str]:
    """(id, text) of a ground-truth record, parsed JSON, in SageMaker's form or the short one, ``{"InferenceId": "7",
    "Label": 1}``. Raises ``ValidationError``."""
    if not isinstance(value, dict):
        raise ValidationError("a label's record is no JSON object")
    if "groundTruthData" not in value and "Label" in value:
        return _id(value.get("InferenceId")), _short(value["Label"])
    data, metadata = value.get("groundTruthData"), value.get("eventMetadata")
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        raise ValidationError("a label's record lacks groundTruthData or eventMetadata")
    return _id(metadata.get("eventId")), _text(data.get("data"), data.get("encoding", "CSV"))


def label_line(id: str, text: str) -> bytes:
    """The record of a label in SageMaker's form, with its line end."""
    record = {"groundTruthData": _ground_truth(text), "eventMetadata": {"eventId": id}, "eventVersion": "0"}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def label_rows(text: str) -> list[str | None]:
    """The labels of a call's rows as ``label_text`` writes them, None for one that is empty: items of a JSON list,
    lines of CSV, or the cells of its only line."""
    if _is_list(text):
        return [label_text(one) for one in orjson.loads(text)]
    try:
        rows = cells(text)
    except ValidationError:
        return [None]
    if len(rows) == 1:
        return [label_text(cell) for cell in rows[0]]
    return [label_text(row[0]) for row in rows] or [None]


def _id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or not value.isprintable():
        raise ValidationError(f"a label's id is not text of 1 to {LONGEST_ID} characters")
    return value


def _short(value: Any) -> str:
    """A text is one label, whatever is in it."""
    if not isinstance(value, str) or not value.strip():
        return _of_json(value)
    return value if _PLAIN.fullmatch(value) else '"' + value.replace('"', '""') + '"'


def _text(data: Any, encoding: Any) -> str:
    if not isinstance(data, str):
        raise ValidationError("a label's data is not text")
    match encoding:
        case "CSV":
            text = data
        case "JSON":
            try:
                text = _of_json(orjson.loads(data))
            except ValueError:
                raise ValidationError("a label's data is not valid JSON") from None
        case "BASE64":
            try:
                text = Side("", "BASE64", data).body.decode()
            except UnicodeDecodeError:
                raise ValidationError("a label's data is not text") from None
        case _:
            raise ValidationError("a label's encoding is not CSV, JSON or BASE64")
    if not text.strip():
        raise ValidationError("a label's data is empty")
    return text


def _of_json(value: Any) -> str:
    """The text of a label that is JSON: one value, or a list of one for each row."""
    if isinstance(value, list) and value and all(label_text(one) is not None for one in value):
        return orjson.dumps(value).decode()
    found = label_text(value)
    if found is None:
        raise ValidationError("a label is not a value, or a list of values")
    return found


def _is_list(text: str) -> bool:
    if not text.lstrip().startswith("["):
        return False
    try:
        return isinstance(orjson.loads(text), list)
    except ValueError:
        return False


def _ground_truth(text: str) -> dict[str, str]:
    return {"data": text, "encoding": "JSON" if _is_list(text) else "CSV"}


# --- reading them ---------------------------------------------------------------------------------------------------


def read_labels(objects: ObjectStore, root: str, window: Window, complaints: Complaints) -> Labels:
    """The labels beneath ``root`` that were collected in an hour of the window. Of two for one id the one collected
    later counts: hours, then names, then lines are in order. Blocks. Raises ``ObjectUnavailable``."""
    found: dict[str, str] = {}
    for info in _files(objects, root.rstrip("/"), window):
        try:
            with objects.open(info.url) as file:
                _read(file, info.url, found, complaints)
        except ObjectMissing:
            complaints.add("a file of labels has gone", info.url)
    return found


def _read(file: BinaryIO, url: str, found: dict[str, str], complaints: Complaints) -> None:
    for number, line in enumerate(_lines(file), start=1):
        place = f"{url.rpartition('/')[2]}:{number}"
        try:
            if line is None:
                raise ValidationError("a line of labels is too long")
            id, text = parse_label(orjson.loads(line))
        except ValidationError as error:
            complaints.add(error.message, place)
        except ValueError:
            complaints.add("a line of labels is not valid JSON", place)
        else:
            if id in found:
                same = label_rows(found[id]) == label_rows(text)
                complaints.add("the same label twice" if same else "two labels for one id: the later counts", id)
            found[id] = text


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines that are not empty; None for one that is too long."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) < _LONGEST_LINE or line.endswith(b"\n"):
            if line.strip():
                yield line
            continue
        yield None
        while line and not line.endswith(b"\n"):
            line = file.readline(_LONGEST_LINE)


def _files(objects: ObjectStore, root: str, window: Window) -> Iterator[ObjectInfo]:
    """Files of labels in the window's hours, the earliest hour first."""
    first = window.start // _HOUR * _HOUR
    for prefix in _prefixes(root, window):
        for info in objects.list(prefix):
            hour = _hour(info.url[len(root) :])
            if hour is not None and first <= hour < window.end and info.url.endswith((".jsonl", ".json")):
                yield info


def _prefixes(root: str, window: Window) -> list[str]:
    """What to list: hours, days, or everything, whichever is not too many; in order of time."""
    for step, most, form in ((_HOUR, _MOST_HOURS, "%Y/%m/%d/%H/"), (_DAY, _MOST_DAYS, "%Y/%m/%d/")):
        first = window.start // step * step
        if window.end - first <= most * step:
            count = int(-((first - window.end) // step))
            return [f"{root}/{time.strftime(form, time.gmtime(first + step * n))}" for n in range(count)]
    return [f"{root}/"]


def _hour(tail: str) -> int | None:
    """When the hour of a file began, epoch seconds; None for a file elsewhere."""
    match = _IN_HOUR.fullmatch(tail)
    if match is None:
        return None
    year, month, day, hour = map(int, match.groups())
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour <= 23):
        return None
    return timegm((year, month, day, hour, 0, 0))


# --- merging --------------------------------------------------------------------------------------------------------


def merge(records: Iterable[Record], labels: Labels, complaints: Complaints) -> Iterator[Record]:
    """The records that have a label, with it. Captures without a label and, in the end, labels without a capture are
    counted."""
    used = set()
    for record in records:
        text = labels.get(record.key)
        if text is None:
            complaints.add("a capture without a label", record.key)
            continue
        used.add(record.key)
        yield record._replace(label=text)
    if len(used) < len(labels):
        first = next(id for id in labels if id not in used)
        complaints.add("a label without a capture", first, len(labels) - len(used))


def merged_line(record: Record) -> bytes:
    """A merged record as the reference writes it, with its line end: the capture, and ``groundTruthData``."""
    captured = {
        key: {"observedContentType": side.content_type, "mode": mode, "data": side.data, "encoding": side.encoding}
        for key, mode, side in (("endpointInput", "INPUT", record.input), ("endpointOutput", "OUTPUT", record.output))
        if side is not None
    }
    whole: dict[str, Any] = {"captureData": captured, "eventMetadata": record.metadata, "eventVersion": "0"}
    if record.label is not None:
        whole["groundTruthData"] = _ground_truth(record.label)
    return orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE)


def merged_url(output: str, endpoint: str, record: Record, id: str) -> str:
    """Where a merged record goes (``behaviour/06``); ``id``: the run's UUID, one file for each variant and hour."""
    hour = time.strftime("%Y/%m/%d/%H", time.gmtime(record.time))
    return f"{output.rstrip('/')}/merge/{endpoint}/{record.variant}/{hour}/part-00000-{id}.c000.jsonl"
