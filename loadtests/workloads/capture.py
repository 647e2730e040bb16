"""What data capture costs: one row of CSV to two endpoints of one server that differ in nothing else, in turns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.client import Count
from loadtests.figures import median_ratio
from loadtests.generator import Call
from loadtests.processes import Running, our_server, tree_cpu_seconds
from loadtests.report import Figure
from loadtests.scrape import metric
from loadtests.workloads.base import Bench, Card, failures, is_right, microseconds, per_second
from loadtests.workloads.rows import CSV, MODEL

OFF, ON = "off", "on"
_CONNECTIONS = 64
_CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://captures",
    "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
}


def _declared(artifact: Path) -> dict[str, Any]:
    """Two endpoints with the same model; the calls of one are all captured."""
    variant = {"VariantName": "AllTraffic", "ModelName": MODEL, "InitialInstanceCount": 1}
    configs = {OFF: {}, ON: {"DataCaptureConfig": _CAPTURE}}
    return {
        "Models": [{"ModelName": MODEL, "PrimaryContainer": {"ModelDataUrl": str(artifact)}}],
        "EndpointConfigs": [
            {"EndpointConfigName": name, "ProductionVariants": [variant], **more} for name, more in configs.items()
        ],
        "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in configs],
    }


def capture(bench: Bench) -> list[Figure]:
    """Throughput and 99th percentile with every call captured, beside the same without; and that none is missing."""
    card, spent = Card(bench.artifacts, MODEL), {OFF: list[float](), ON: list[float]()}
    calls = {name: Call(f"/endpoints/{name}/invocations", card.body("request.csv"), CSV) for name in spent}
    with tempfile.TemporaryDirectory(prefix="bench-capture-") as folder:
        file = Path(folder) / "endpoints.json"
        file.write_text(json.dumps(_declared(bench.artifacts / MODEL)))
        # what else fills this machine's disk is not to be measured
        with our_server("--config", str(file), environment={"SERVING_CAPTURE_DISK_PERCENT": "100"}) as server:
            wrong = sum(not is_right(call.once(server.port), card.expected("request")) for call in calls.values())
            for call in calls.values():
                bench.load(server.port, [call], _CONNECTIONS, min(2, bench.seconds))

            def turn(name: str) -> Count:
                before = tree_cpu_seconds(server.pid)
                count = bench.load(server.port, [calls[name]], _CONNECTIONS)
                spent[name].append((tree_cpu_seconds(server.pid) - before) * 1e6 / max(count.calls, 1))
                return count

            counts = bench.take_turns({name: partial(turn, name) for name in calls})
            missing = _missing(server)
    return _figures(counts, spent, wrong + failures(*counts.values()) + missing)


def _missing(server: Running) -> int:
    """Captured calls that were dropped."""
    return int(metric(server.port, "sagemaker_data_capture_dropped_total"))


def _figures(counts: Mapping[str, list[Count]], spent: Mapping[str, Sequence[float]], failed: int) -> list[Figure]:
    rate = {name: [count.per_second for count in each] for name, each in counts.items()}
    tail = {name: [count.p99_us for count in each] for name, each in counts.items()}
    cost = f"processor time a call: {median(spent[ON]):.0f} µs, without {median(spent[OFF]):.0f} µs"
    return [
        Figure("capture, one row, 64 connections", "throughput / without", per_second(median(rate[ON])),
               per_second(median(rate[OFF])), median_ratio(rate[ON], rate[OFF]), 0.85, note=cost, failures=failed),
        Figure("capture, one row, 64 connections", "p99 / without", microseconds(median(tail[ON])),
               microseconds(median(tail[OFF])), median_ratio(tail[ON], tail[OFF]), 1.3, "<=", failures=failed),
    ]  # fmt: skip
