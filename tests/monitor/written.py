"""Capture files and labels, as a server would have left them, for tests that read them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from serving.config import Settings
from serving.monitor.labels import label_line
from serving.monitor.tasks import Means
from serving.objects import open_objects

DESTINATION = "s3://captured/here"
#: 2026-11-21 09:00:00 UTC.
NINE = 1_795_251_600.0


def means(tmp_path: Path, metrics_folder: Path | None = None) -> Means:
    """What a task may use, with local buckets."""
    settings = Settings(data_dir=tmp_path)
    return Means(settings, open_objects(settings), tmp_path / "capture", metrics_folder)


def record(
    key: str,
    output: str | None = "1",
    *,
    input: str | None = "1,2",
    at: float = NINE,
    inference: bool = True,
    kind: str = "text/csv",
    **more: Any,
) -> dict[str, Any]:
    """A captured call; ``more`` goes into its ``eventMetadata``."""
    data = {}
    encoding = "JSON" if "json" in kind else "CSV"
    if input is not None:
        data["endpointInput"] = {"observedContentType": "text/csv", "mode": "INPUT", "data": input, "encoding": "CSV"}
    if output is not None:
        data["endpointOutput"] = {"observedContentType": kind, "mode": "OUTPUT", "data": output, "encoding": encoding}
    event = {"eventId": f"event-{key}", "inferenceTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)), **more}
    if inference:
        event["inferenceId"] = key
    return {"captureData": data, "eventMetadata": event, "eventVersion": "0"}


def capture(means: Means, endpoint: str, variant: str, records: Iterable[Mapping[str, Any]], name: str = "") -> None:
    """Write a finished file, in the hour and from the minute of its first record."""
    rows = list(records)
    first = str(rows[0]["eventMetadata"]["inferenceTime"])
    at = f"{first[:10].replace('-', '/')}/{first[11:13]}/{name or first[14:19].replace(':', '-') + '-000-a.jsonl'}"
    means.objects.put(f"{DESTINATION}/{endpoint}/{variant}/{at}", b"".join(orjson.dumps(one) + b"\n" for one in rows))


def label(means: Means, endpoint: str, labels: Mapping[str, str]) -> None:
    """Write a file of labels."""
    lines = b"".join(label_line(key, text) for key, text in labels.items())
    means.objects.put(f"s3://ground-truth/{endpoint}/2026/11/21/10/00-00-000-a.jsonl", lines)
