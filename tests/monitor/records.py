"""Capture records for tests, as ``behaviour/05`` has them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serving.monitor.values import Record, Side
from serving.objects import LocalObjects

#: 2026-04-18T00:00:00Z.
MIDNIGHT = 1776470400.0


def side(data: str, content_type: str = "text/csv", encoding: str = "CSV") -> Side:
    """One direction."""
    return Side(content_type, encoding, data)


def json_side(value: Any, content_type: str = "application/json") -> Side:
    """A JSON document as one direction."""
    return Side(content_type, "JSON", value if isinstance(value, str) else json.dumps(value))


def record(input: Side | None = None, output: Side | None = None, time: float = MIDNIGHT, id: str = "") -> Record:
    """A captured call."""
    event = id or str(uuid.uuid4())
    return Record(event, "", time, "AllTraffic", input, output, {"eventId": event})


def line(record: Record) -> bytes:
    """The record as its file has it."""
    sides = {
        name: {"observedContentType": one.content_type, "mode": mode, "data": one.data, "encoding": one.encoding}
        for name, mode, one in (("endpointInput", "INPUT", record.input), ("endpointOutput", "OUTPUT", record.output))
        if one is not None
    }
    event = {"eventId": record.event_id, "inferenceTime": iso(record.time)}
    if record.inference_id:
        event["inferenceId"] = record.inference_id
    return json.dumps({"captureData": sides, "eventMetadata": event, "eventVersion": "0"}).encode() + b"\n"


def iso(at: float) -> str:
    """``2026-04-18T00:21:48Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def name(at: float, variant: str = "AllTraffic") -> str:
    """The name of a file below its endpoint's prefix."""
    return f"{variant}/{time.strftime('%Y/%m/%d/%H/%M-%S', time.gmtime(at))}-000-{uuid.uuid4()}.jsonl"


def store(folder: Path) -> LocalObjects:
    """An empty object store."""
    return LocalObjects(folder / "s3", folder / "spool")


def put(objects: LocalObjects, lines: Iterable[bytes], at: float = MIDNIGHT, variant: str = "AllTraffic") -> str:
    """A finished capture file of endpoint ``tumours``; its name."""
    file = name(at, variant)
    objects.put(f"s3://captures/here/tumours/{file}", b"".join(lines))
    return file
