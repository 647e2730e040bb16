"""What explanations cost: where there is an explainer that is switched off, and explained by trees and by asking."""

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
from loadtests.processes import Running, our_server
from loadtests.report import Figure
from loadtests.workloads.base import Bench, Card, failures, microseconds, per_second
from loadtests.workloads.rows import CSV, MODEL

PLAIN, OFF, TREES, ASKED = "plain", "off", "trees", "asked"
_TYPES = {**CSV, "Accept": "text/csv"}
_FEATURES = 30
#: Many at a time where it is throughput that is measured, one after the other where it is time.
_CONNECTIONS = {PLAIN: 64, OFF: 64, TREES: 1, ASKED: 1}


def _explainer(enable: str, logit: bool) -> dict[str, Any]:
    """Against one row of zeros: the log-odds are a sum of leaves, the probability has to be asked for."""
    shap = {"ShapBaselineConfig": {"ShapBaseline": ",".join(["0"] * _FEATURES)}, "UseLogit": logit}
    return {"ExplainerConfig": {"ClarifyExplainerConfig": {"EnableExplanations": enable, "ShapConfig": shap}}}


def _declared(artifact: Path) -> dict[str, Any]:
    variant = {"VariantName": "AllTraffic", "ModelName": MODEL, "InitialInstanceCount": 1}
    configs = {
        PLAIN: {},
        OFF: _explainer("`false`", False),
        TREES: _explainer("`true`", True),
        ASKED: _explainer("`true`", False),
    }
    return {
        "Models": [{"ModelName": MODEL, "PrimaryContainer": {"ModelDataUrl": str(artifact)}}],
        "EndpointConfigs": [
            {"EndpointConfigName": name, "ProductionVariants": [variant], **more} for name, more in configs.items()
        ],
        "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in configs],
    }


def explanations(bench: Bench) -> list[Figure]:
    """Throughput with an explainer that is off, beside none; time of an explanation by trees, beside by asking."""
    body = Card(bench.artifacts, MODEL).body("request.csv")
    calls = {name: Call(f"/endpoints/{name}/invocations", body, _TYPES) for name in _CONNECTIONS}
    with tempfile.TemporaryDirectory(prefix="bench-explanations-") as folder:
        file = Path(folder) / "endpoints.json"
        file.write_text(json.dumps(_declared(bench.artifacts / MODEL)))
        with our_server("--config", str(file)) as server:
            wrong = sum(not _is_right(server, name, call) for name, call in calls.items())
            for name, call in calls.items():
                bench.load(server.port, [call], _CONNECTIONS[name], 1)
            sides = {name: partial(bench.load, server.port, [call], _CONNECTIONS[name]) for name, call in calls.items()}
            counts = bench.take_turns(sides)
    return _figures(counts, wrong + failures(*counts.values()))


def _is_right(server: Running, name: str, call: Call) -> bool:
    """Is it explained where it shall be? All attributions add up to the prediction less the baseline's, so they are not
    all nothing."""
    answer = call.once(server.port)
    if answer.status != 200 or name == PLAIN:
        return answer.status == 200
    told = json.loads(answer.body)["explanations"]
    if name == OFF:
        return told == {}
    (features,) = told["kernel_shap"]
    return len(features) == _FEATURES and any(one["attributions"][0]["attribution"] != [0.0] for one in features)


def _figures(counts: Mapping[str, Sequence[Count]], failed: int) -> list[Figure]:
    rate = {name: [count.per_second for count in each] for name, each in counts.items()}
    middle = {name: [count.p50_us for count in each] for name, each in counts.items()}
    asks = f"{2 * _FEATURES + 2048:,} synthetic rows a call"
    return [
        Figure("an explainer that is off, one row", "throughput / without", per_second(median(rate[OFF])),
               per_second(median(rate[PLAIN])), median_ratio(rate[OFF], rate[PLAIN]), 0.8, failures=failed),
        Figure(f"one row explained, {_FEATURES} features, 100 trees", "p50 by trees / by asking",
               microseconds(median(middle[TREES])), microseconds(median(middle[ASKED])),
               median_ratio(middle[TREES], middle[ASKED]), 0.3, "<=", note=asks, failures=failed),
    ]  # fmt: skip
