"""What the terminal asks and says of an endpoint's scaling: how it is, and one line to have it.

The answer of ``GET /endpoints/{name}/scaling`` (``fleet/scaling_view.py``) as lines for a person; and a scalable target
with one target tracking policy, by the calls of any AWS client.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from serving.api.services import AUTOSCALING
from serving.client import Server
from serving.errors import ConfigError
from serving.scaling.values import COPIES, INSTANCES, NAMESPACE, PROVISIONED

Body = Mapping[str, Any]

#: The policy that ``serving scale`` makes.
POLICY = "serving-scale"
#: Decisions and activities that are shown.
_SHOWN = 8
_WIDEST_BAR = 40

#: What may be tracked, by the dimension that is scaled: our word -> AWS's.
METRICS: Mapping[str, Mapping[str, str]] = {
    INSTANCES: {
        "invocations": "SageMakerVariantInvocationsPerInstance",
        "concurrency": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    },
    COPIES: {
        "invocations": "SageMakerInferenceComponentInvocationsPerCopy",
        "concurrency": "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution",
    },
    PROVISIONED: {"utilization": "SageMakerVariantProvisionedConcurrencyUtilization"},
}


# --- how it is --------------------------------------------------------------------------------------------------------


def view(server: Server, endpoint: str) -> Body:
    """Everything about how an endpoint scales. Raises ``Refused``."""
    return server.told(server.send("GET", f"/endpoints/{quote(endpoint, safe='-_.~')}/scaling", "read"))


def lines(seen: Body) -> list[str]:
    """A view for a person."""
    told = [f"endpoint {seen['EndpointName']}, evaluated every {seen['PeriodSeconds']:g} s"]
    for target in seen["Targets"]:
        told += ["", *_target(target, seen["Time"])]
    return told if seen["Targets"] else [*told, "nothing scales it; serving scale makes it a scalable target"]


def _target(target: Body, now: float) -> Iterator[str]:
    low, high = target["MinCapacity"], target["MaxCapacity"]
    ready, desired = target["CurrentCapacity"], target["DesiredCapacity"] or 0
    noun = "component" if target["ScalableDimension"] == COPIES else "variant"
    capacity = f"{ready} of {desired} workers ready, {low} to {high} allowed"
    yield f"{noun} {target['Name']}: {capacity}  {_bar(ready, desired, high)}"
    if target["Blocked"]:
        yield f"  blocked: {target['Blocked']}"
    suspended = [name.removesuffix("Suspended") for name, is_so in target["SuspendedState"].items() if is_so]
    if suspended:
        yield f"  suspended: {', '.join(suspended)}"
    cooling = [f"{way.lower()} {left:.0f} s" for way, left in target["CooldownLeft"].items() if left]
    if cooling:
        yield f"  cooldown: {', '.join(cooling)}"
    measured = (target["Latest"] or {}).get("Measured", {})
    for policy in target["Policies"]:
        yield f"  policy {policy['PolicyName']}: {measured.get(policy['PolicyName'], 'nothing measured yet')}"
    for action in target["ScheduledActions"]:
        yield f"  scheduled {action['ScheduledActionName']}: {_action(action, now)}"
    told = [one for one in target["Decisions"] if _tells(one)][:_SHOWN]
    if told:
        yield "  decided:"
        yield from (f"    {_moment(one['Time'], now)}  {_decision(one)}" for one in told)
    if target["Activities"]:
        yield "  done:"
        yield from (
            f"    {_moment(one['StartTime'], now)}  {one['StatusCode']:<11} {one['StatusMessage']}"
            for one in target["Activities"][:_SHOWN]
        )


def _bar(ready: int, desired: int, most: int) -> str:
    """``[##+..]``: ready, coming, allowed; nothing where that would be too wide."""
    widest = max(ready, desired, most)
    if not 0 < widest <= _WIDEST_BAR:
        return ""
    return f"[{'#' * ready}{'+' * (desired - ready)}".ljust(widest + 1, ".") + "]"


def _tells(decision: Body) -> bool:
    return bool(decision["Current"] != decision["Desired"] or decision["NotScaledReasons"] or decision["Outcome"])


def _decision(one: Body) -> str:
    change = f"{one['Current']} -> {one['Desired']}" if one["Current"] != one["Desired"] else f"stays {one['Desired']}"
    why = one["Measured"].get(one["Policy"]) if one["Policy"] else ""
    parts = [f"{one['Policy']}: {why}" if why else one["Cause"], ", ".join(one["NotScaledReasons"]), one["Outcome"]]
    return "; ".join([change, *filter(None, parts)])


def _action(one: Body, now: float) -> str:
    limits = (("min", one["MinCapacity"]), ("max", one["MaxCapacity"]))
    after = f"next {_moment(one['Next'], now)}" if one["Next"] is not None else "not again"
    return ", ".join([*(f"{name} {value}" for name, value in limits if value is not None), one["Schedule"], after])


def _moment(at: float, now: float) -> str:
    """The time of day here, with the day where it is another."""
    moment = datetime.fromtimestamp(at)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.fromtimestamp(now).date() else f"{moment:%Y-%m-%d %H:%M}"


# --- to have it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """How something shall scale; None = as it is. ``metric``: a word of ``METRICS``."""

    variant: str = ""
    component: str = ""
    minimum: int | None = None
    maximum: int | None = None
    target: float | None = None
    metric: str = ""


def scale(server: Server, endpoint: str, wish: Wish) -> list[str]:
    """Make a variant (the only one, where none is named) or a component a scalable target, with a target tracking
    policy if ``target`` is given; what was done, in lines. Raises ``Refused``, ``ConfigError``."""
    key = _key(server, endpoint, wish)
    limits = {"MinCapacity": wish.minimum, "MaxCapacity": wish.maximum}
    given = {name: value for name, value in limits.items() if value is not None}
    policy = _policy(key, wish)
    server.call(f"{AUTOSCALING}.RegisterScalableTarget", {**key, **given})
    said = [f"{name[:3].lower()} {value}" for name, value in given.items()]
    done = [f"{key['ResourceId']} is a scalable target{': ' * bool(said)}{', '.join(said)}"]
    if policy:
        server.call(f"{AUTOSCALING}.PutScalingPolicy", policy)
        done.append(f"policy {POLICY} keeps {wish.metric or _usual(key)} at {wish.target:g} a worker")
    return done


def leave(server: Server, endpoint: str, wish: Wish) -> str:
    """Let a variant or component scale no more; a line. Raises ``Refused``, ``ConfigError``."""
    key = _key(server, endpoint, wish)
    server.call(f"{AUTOSCALING}.DeregisterScalableTarget", key)
    return f"{key['ResourceId']} is no scalable target any more"


def _key(server: Server, endpoint: str, wish: Wish) -> dict[str, str]:
    if wish.component:
        return _keyed(f"inference-component/{wish.component}", COPIES)
    described = server.call("DescribeEndpoint", {"EndpointName": endpoint})
    variants = {one["VariantName"]: one for one in described.get("ProductionVariants", ())}
    name = wish.variant or next(iter(variants), "")
    if name not in variants or (len(variants) > 1 and not wish.variant):
        raise ConfigError(f"Endpoint {endpoint} has the variants {', '.join(variants) or '(none yet)'}: name one.")
    dimension = PROVISIONED if "CurrentServerlessConfig" in variants[name] else INSTANCES
    return _keyed(f"endpoint/{endpoint}/variant/{name}", dimension)


def _keyed(resource: str, dimension: str) -> dict[str, str]:
    return {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": dimension}


def _usual(key: Mapping[str, str]) -> str:
    return next(iter(METRICS[key["ScalableDimension"]]))


def _policy(key: Mapping[str, str], wish: Wish) -> dict[str, Any]:
    """PutScalingPolicy's body; empty where nothing shall be tracked."""
    known = METRICS[key["ScalableDimension"]]
    metric = wish.metric or _usual(key)
    if metric not in known:
        raise ConfigError(f"{metric!r} is nothing to track of {key['ResourceId']}; there is {', '.join(known)}.")
    if wish.target is None:
        return {}
    if not 0 < wish.target < math.inf:
        raise ConfigError(f"--target is {wish.target:g}; it must be greater than 0.")
    return {
        **key,
        "PolicyName": POLICY,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": wish.target,
            "PredefinedMetricSpecification": {"PredefinedMetricType": known[metric]},
        },
    }
