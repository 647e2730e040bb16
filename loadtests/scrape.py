"""What a running server says of itself: its Prometheus page, its workers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from loadtests.processes import call

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_metric(page: str, name: str, labels: Mapping[str, str] | None = None) -> float:
    """Sum of the samples ``name`` on a Prometheus page whose labels include ``labels``; 0 where there are none."""
    total = 0.0
    for line in page.splitlines():
        sample = _SAMPLE.match(line)
        if sample and sample["name"] == name:
            found = dict(_LABEL.findall(sample["labels"] or ""))
            if all(found.get(key) == value for key, value in (labels or {}).items()):
                total += float(sample["value"])
    return total


def metric(port: int, name: str, labels: Mapping[str, str] | None = None) -> float:
    """``parse_metric`` of a server's /metrics now."""
    answer = call(port, "GET", "/metrics")
    if answer.status != 200:
        raise RuntimeError(f"GET /metrics answered {answer.status}")
    return parse_metric(answer.body.decode(), name, labels)


def worker_pids(port: int, state: str = "") -> list[int]:
    """Process ids of a server's workers, of those in ``state`` when one is named."""
    answer = call(port, "GET", "/endpoints")
    if answer.status != 200:
        raise RuntimeError(f"GET /endpoints answered {answer.status}")
    return find_workers(json.loads(answer.body), state)


def find_workers(value: object, state: str = "") -> list[int]:
    """The pids of every ``Workers`` list anywhere in a JSON answer, once each."""
    if isinstance(value, list):
        return list(dict.fromkeys(pid for item in value for pid in find_workers(item, state)))
    if not isinstance(value, dict):
        return []
    here = [
        int(worker["Pid"])
        for worker in value.get("Workers") or ()
        if worker.get("Pid") and (not state or str(worker.get("State", "")).lower() == state.lower())
    ]
    below = [pid for key, item in value.items() if key != "Workers" for pid in find_workers(item, state)]
    return list(dict.fromkeys([*here, *below]))


def find_weights(value: object, endpoint: str) -> dict[str, float]:
    """Variant weights of an endpoint in the answer of GET /endpoints; empty where it is not there."""
    if isinstance(value, list):
        return next((found for item in value if (found := find_weights(item, endpoint))), {})
    if not isinstance(value, dict):
        return {}
    if value.get("EndpointName") == endpoint:
        return {
            str(variant["VariantName"]): float(variant["CurrentWeight"])
            for variant in value.get("ProductionVariants") or ()
        }
    return next((found for item in value.values() if (found := find_weights(item, endpoint))), {})
