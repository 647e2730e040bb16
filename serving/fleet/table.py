"""The routing table fronts work by, and the endpoint descriptions people read. Pure: fleets in, plain values out.

::

    {"version": 7, "aliases": {"endpoint": {"name": "path under the prefix"}}, "endpoints": [
      {"name": "default", "config": "default", "variants": [
        {"name": "AllTraffic", "weight": 1.0, "multi_model": false, "routing": "RANDOM",
         "desired": 1, "expected": true, "failure": "",
         "workers": [["0001", "…/0001.sock", "…/0001.cell"]], "states": [["0001", 4711, "READY"]],
         "quarantine": {"1234567": 98765.4}}]}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.types import EndpointSpec
from serving.workers.roster import READY, Fleet


def variant_row(fleet: Fleet, weight: float, now: float) -> dict[str, Any]:
    """One variant as fronts need it. ``expected``: are workers on their way, so that calls may wait for one?"""
    workers = sorted(fleet.workers.values(), key=lambda worker: worker.plan.worker_id)
    return {
        "name": fleet.spec.name,
        "weight": weight,
        "multi_model": fleet.spec.model.mode == "MultiModel",
        "routing": fleet.spec.routing,
        "desired": fleet.desired,
        "expected": fleet.desired > 0 and not fleet.given_up,
        "failure": fleet.failure,
        "workers": [
            [one.plan.worker_id, str(one.plan.socket), str(one.plan.cell)] for one in workers if one.state == READY
        ],
        "states": [[one.plan.worker_id, one.pid, one.state] for one in workers],
        "quarantine": {str(model): until for model, until in fleet.quarantine.refused(now).items()},
    }


def endpoint_row(
    spec: EndpointSpec, fleets: Mapping[str, Fleet], weights: Mapping[str, float], now: float
) -> dict[str, Any]:
    """One endpoint as fronts need it."""
    variants = [variant_row(fleets[one.name], weights[one.name], now) for one in spec.variants]
    return {"name": spec.name, "config": spec.config_name, "variants": variants}


def status(row: Mapping[str, Any]) -> str:
    """SageMaker's EndpointStatus of a table row: Failed when a variant has given up, InService when every variant has
    the workers it should have, Creating before any has, Updating between."""
    variants = row["variants"]
    if any(one["failure"] and not one["workers"] for one in variants):
        return "Failed"
    if all(len(one["workers"]) >= one["desired"] for one in variants):
        return "InService"
    return "Updating" if any(one["workers"] for one in variants) else "Creating"


def describe(row: Mapping[str, Any]) -> dict[str, Any]:
    """A table row in SageMaker's words (DescribeEndpoint), with the workers as our extension."""
    described: dict[str, Any] = {
        "EndpointName": row["name"],
        "EndpointConfigName": row["config"],
        "EndpointStatus": status(row),
        "ProductionVariants": [_describe_variant(one) for one in row["variants"]],
    }
    reasons = [f"{one['name']}: {one['failure']}" for one in row["variants"] if one["failure"]]
    return described | ({"FailureReason": "; ".join(reasons)[:1024]} if reasons else {})


def _describe_variant(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "VariantName": row["name"],
        "CurrentWeight": row["weight"],
        "DesiredWeight": row["weight"],
        "CurrentInstanceCount": len(row["workers"]),
        "DesiredInstanceCount": row["desired"],
        "Workers": [{"WorkerId": name, "Pid": pid, "State": state} for name, pid, state in row["states"]],
    }
