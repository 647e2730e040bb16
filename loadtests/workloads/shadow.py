"""What a shadow variant costs production: calls at a pace that leaves the workers room, to two endpoints of one server
that differ in nothing but that every call of one is copied to a shadow, in turns.

The load is open: 400 calls a second are due at fixed moments, whatever comes back. A closed loop would fill both cores
with production's calls alone, and would measure that copies need a processor, too.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.client import Count, Plan, run_plan
from loadtests.figures import median_ratio
from loadtests.generator import Call
from loadtests.processes import Running, our_server
from loadtests.report import Figure
from loadtests.scrape import metric
from loadtests.workloads.base import Bench, Card, failures, is_right, microseconds
from loadtests.workloads.rows import CSV, MODEL

ALONE, SHADOWED = "alone", "shadowed"
_CONNECTIONS, _EVERY = 8, 0.02
#: A 99th percentile wants many turns: more than the bench's usual rounds.
_TIMES = 4


def _declared(artifact: Path) -> dict[str, Any]:
    """Two endpoints with the same model; one has a shadow with it, too."""
    variant = {"VariantName": "AllTraffic", "ModelName": MODEL, "InitialInstanceCount": 1}
    shadows = {ALONE: {}, SHADOWED: {"ShadowProductionVariants": [{**variant, "VariantName": "Shadow"}]}}
    return {
        "Models": [{"ModelName": MODEL, "PrimaryContainer": {"ModelDataUrl": str(artifact)}}],
        "EndpointConfigs": [
            {"EndpointConfigName": name, "ProductionVariants": [variant], **more} for name, more in shadows.items()
        ],
        "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in shadows],
    }


def shadow(bench: Bench) -> list[Figure]:
    """The 99th percentile of production's answers with every call copied, beside the same without."""
    card = Card(bench.artifacts, MODEL)
    calls = {name: Call(f"/endpoints/{name}/invocations", card.body("request.csv"), CSV) for name in (ALONE, SHADOWED)}
    with tempfile.TemporaryDirectory(prefix="bench-shadow-") as folder:
        file = Path(folder) / "endpoints.json"
        file.write_text(json.dumps(_declared(bench.artifacts / MODEL)))
        with our_server("--config", str(file)) as server:
            wrong = sum(not is_right(call.once(server.port), card.expected("request")) for call in calls.values())

            def turn(name: str) -> Count:
                return run_plan(
                    Plan(server.port, (calls[name].raw(),), _CONNECTIONS, float(bench.seconds), every=_EVERY)
                )

            for name in calls:
                turn(name)
            longer = replace(bench, rounds=_TIMES * bench.rounds)
            counts = longer.take_turns({name: partial(turn, name) for name in calls})
            told = _copies(server)
    return _figures(counts, told, wrong + failures(*counts.values()))


def _copies(server: Running) -> str:
    dropped = metric(server.port, "sagemaker_shadow_dropped_total")
    return f"{metric(server.port, 'sagemaker_shadow_pairs_total'):,.0f} copies answered, {dropped:.0f} dropped"


def _figures(counts: dict[str, list[Count]], told: str, failed: int) -> list[Figure]:
    middle = {name: [count.p50_us for count in each] for name, each in counts.items()}
    tail = {name: [count.p99_us for count in each] for name, each in counts.items()}
    what = f"shadow at 100 %, {_CONNECTIONS / _EVERY:,.0f} calls a second"
    return [
        Figure(what, "p99 / without", microseconds(median(tail[SHADOWED])), microseconds(median(tail[ALONE])),
               median_ratio(tail[SHADOWED], tail[ALONE]), 1.05, "<=",
               note=f"{told}; p50 {median_ratio(middle[SHADOWED], middle[ALONE]):.2f} x", failures=failed),
    ]  # fmt: skip
