"""The routing table fronts work by, and the endpoint descriptions people read. Pure: fleets in, plain values out.

::

    {"version": 7, "aliases": {"endpoint": {"name": "path under the prefix"}}, "endpoints": [
      {"name": "default", "config": "default", "status": "InService", "reason": "", "up": true, "generation": 1,
       "asynchronous": false, "async": null, "holds_components": false, "capture": null, "explainer": null,
       "since": 1789000000.0,
       "variants": [{"name": "AllTraffic", "weight": 1.0, "direct": false, "count": 1,
                     "serverless": null, "pools": [POOL]}],
       "shadows": [as variants: those that get copies],
       "components": [POOL],
       "green": {"config": "next", "generation": 2, "share": 0.1, "variants": [as above]},
       "green_components": [{"share": 0.5, "pool": POOL}]}]}

    "green", during a guarded update only: those who get ``share`` of the calls in place of "variants";
    "green_components": of inference components in such an update, the same
    POOL = {"key": ["default", 1, "AllTraffic", "", ""], "multi_model": false, "routing": "RANDOM",
            "desired": 1, "expected": true, "failure": "", "elastic": false, "hold": 0.0, "report": false,
            "most": 0,
            "workers": [["0001", "…/0001.sock", "…/0001.cell"]], "states": [["0001", 4711, "READY"]],
            "quarantine": {"1234567": 98765.4}}

    "elastic": does it scale? "hold": seconds that calls wait for a worker where there is to be none; "report": control
            wants to hear how hard calls press on its workers
    "serverless" of a serverless variant = {"concurrency": 5, "provisioned": 0}; its "count" follows its calls
    "most": calls at a time of a serverless variant, whose calls bring its workers; 0 = it is none
    "async" of an asynchronous endpoint = {"output": "s3://bucket/out", "failure": "", "concurrency": 4,
            "success_topic": "", "error_topic": "", "include": [], "since": 1789000000.0}
    "since": when this deployment was asked for: what was captured before was perhaps another model's
    "capture" where calls are captured = {"destination": "s3://bucket/captured", "percent": 100, "input": true,
            "output": true, "csv": ["text/csv"], "json": []}
    "explainer" = the ClarifyExplainerConfig as it was given
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from serving.types import EndpointSpec, FleetKey, VariantSpec
from serving.workers.roster import READY, Fleet

#: How a variant or component of an endpoint scales: ``{"hold": seconds, "report": bool}``, None = not at all.
Elastic = Callable[[str, str], Mapping[str, Any] | None]


class Scaling(NamedTuple):
    """What is known of scaling when a table is made. ``hold``: seconds that calls of serverless variants wait."""

    elastic: Elastic = lambda endpoint, name: None
    hold: float = 0.0


#: Nothing scales.
RIGID = Scaling()


def pool_row(fleet: Fleet, now: float, scaling: Scaling = RIGID) -> dict[str, Any]:
    """One fleet as fronts need it. ``expected``: are workers on their way, so that calls may wait for one? Those of a
    serverless variant always may, they bring it."""
    key, serverless = fleet.spec.key, fleet.spec.serverless
    scales = scaling.elastic(key.endpoint, key.component or key.variant)
    hold = scales["hold"] if scales else 0.0
    workers = sorted(fleet.workers.values(), key=lambda worker: worker.plan.worker_id)
    return {
        "key": list(key),
        "multi_model": fleet.spec.model.mode == "MultiModel",
        "routing": fleet.spec.routing,
        "desired": fleet.desired,
        "expected": (fleet.desired > 0 or serverless is not None) and not fleet.given_up,
        "failure": fleet.failure,
        "elastic": scales is not None,
        "hold": scaling.hold if serverless else hold,
        "report": bool(scales and scales["report"] and not serverless),
        "most": serverless.most if serverless else 0,
        "workers": [
            [one.plan.worker_id, str(one.plan.socket), str(one.plan.cell)] for one in workers if one.state == READY
        ],
        "states": [[one.plan.worker_id, one.pid, one.state] for one in workers],
        "quarantine": {str(model): until for model, until in fleet.quarantine.refused(now).items()},
    }


def endpoint_row(
    spec: EndpointSpec,
    fleets: Mapping[FleetKey, Fleet],
    components: Iterable[Fleet],
    status: tuple[str, str, bool],
    now: float,
    scaling: Scaling = RIGID,
) -> dict[str, Any]:
    """One endpoint as fronts need it. ``status``: its EndpointStatus and FailureReason as recorded, and whether its
    fleets could be started at all. Shadow variants do not scale."""

    def rows(variants: Iterable[VariantSpec], scaling: Scaling) -> list[dict[str, Any]]:
        made = (_variant_row(one, spec, fleets, now, scaling) for one in variants)
        return [row for row in made if row["pools"]]

    return {
        "name": spec.name,
        "config": spec.config_name,
        "status": status[0],
        "reason": status[1],
        "up": status[2],
        "generation": spec.generation,
        "asynchronous": spec.asynchronous is not None,
        "async": asdict(spec.asynchronous) if spec.asynchronous else None,
        "capture": asdict(spec.capture) if spec.capture else None,
        "explainer": spec.explainer,
        "since": spec.since,
        "holds_components": any(not one.containers for one in spec.variants),
        "variants": rows(spec.variants, scaling),
        "shadows": rows(spec.shadows, RIGID),
        "components": [pool_row(fleet, now, scaling) for fleet in components],
    }


def green_row(
    spec: EndpointSpec, share: float, fleets: Mapping[FleetKey, Fleet], now: float, scaling: Scaling = RIGID
) -> dict[str, Any]:
    """What comes up beside an endpoint's row in a guarded update, and its ``share`` of the calls."""
    made = (_variant_row(one, spec, fleets, now, scaling) for one in spec.variants)
    return {
        "config": spec.config_name,
        "generation": spec.generation,
        "share": share,
        "variants": [row for row in made if row["pools"]],
    }


def _variant_row(
    variant: VariantSpec, spec: EndpointSpec, fleets: Mapping[FleetKey, Fleet], now: float, scaling: Scaling
) -> dict[str, Any]:
    keys = [FleetKey(spec.name, spec.generation, variant.name, model.hostname) for model in variant.containers]
    on_demand, count = variant.serverless, variant.instance_count
    return {
        "name": variant.name,
        "weight": variant.weight,
        "direct": variant.direct,
        "count": max((fleets[key].desired for key in keys if key in fleets), default=0) if on_demand else count,
        "serverless": {"concurrency": on_demand.most, "provisioned": on_demand.provisioned} if on_demand else None,
        "pools": [pool_row(fleets[key], now, scaling) for key in keys if key in fleets],
    }


def failures(row: Mapping[str, Any]) -> list[str]:
    """What keeps the row's variants, those that shadow too, from having a worker, as ``variant: reason``."""
    return [
        f"{variant['name']}: {pool['failure']}"
        for variant in (*row["variants"], *row["shadows"])
        for pool in variant["pools"]
        if pool["failure"]
    ]


def status(row: Mapping[str, Any]) -> str:
    """SageMaker's EndpointStatus of a row: what its record says, but OutOfService when an InService one could not be
    brought back, or has given up starting workers and none is left; shadow variants answer nobody."""
    pools = [pool for variant in row["variants"] for pool in variant["pools"]]
    gone = any(pool["failure"] for pool in pools) and not any(pool["workers"] for pool in pools)
    if row["status"] == "InService" and (gone or not row["up"]):
        return "OutOfService"
    return str(row["status"])


def describe(row: Mapping[str, Any]) -> dict[str, Any]:
    """A table row in SageMaker's words (DescribeEndpoint), with the workers as our extension."""
    described: dict[str, Any] = {
        "EndpointName": row["name"],
        "EndpointConfigName": row["config"],
        "EndpointStatus": status(row),
        "ProductionVariants": [_describe_variant(one) for one in row["variants"]],
    }
    if row["shadows"]:
        described["ShadowProductionVariants"] = [_describe_variant(one) for one in row["shadows"]]
    if row["components"]:
        described["InferenceComponents"] = [
            {
                "InferenceComponentName": one["key"][-1],
                "CurrentCopyCount": len(one["workers"]),
                "Workers": _workers(one),
            }
            for one in row["components"]
        ]
    if green := row.get("green"):
        described["PendingDeploymentSummary"] = {
            "EndpointConfigName": green["config"],
            "TrafficShare": green["share"],
            "ProductionVariants": [_describe_variant(one) for one in green["variants"]],
        }
    reasons = failures(row) or ([row["reason"]] if row["reason"] else [])
    return described | ({"FailureReason": "; ".join(reasons)[:1024]} if reasons else {})


def _describe_variant(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "VariantName": row["name"],
        "CurrentWeight": row["weight"],
        "DesiredWeight": row["weight"],
        "CurrentInstanceCount": instances(row),
        "DesiredInstanceCount": row["count"],
        "Workers": [worker for pool in row["pools"] for worker in _workers(pool)],
    }


def instances(variant: Mapping[str, Any]) -> int:
    """Complete instances of a variant that answer now: workers of the container that has the fewest."""
    return min((len(pool["workers"]) for pool in variant["pools"]), default=0)


def _workers(pool: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"WorkerId": name, "Pid": pid, "State": state} for name, pid, state in pool["states"]]
