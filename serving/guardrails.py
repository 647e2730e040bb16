"""A guarded update as a terminal asks for it: a DeploymentConfig of a few words, and how far it is in a line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.client import Server
from serving.declared import Body
from serving.deploying import IN_PROGRESS
from serving.errors import ConfigError, ServiceUnavailable

#: A part of the instances, or so many of them.
_SIZE = re.compile(r"(\d{1,4})(%?)", re.ASCII)
#: SageMaker API: of a canary, a step and a batch.
_MOST_PERCENT = 50
#: Seconds that an update may take (SageMaker API, BlueGreenUpdatePolicy).
LONGEST_UPDATE = 28_800
_POLL_SECONDS = 0.25


def deployment_config(sizes: Mapping[str, str | None], bake: int, alarms: Sequence[str]) -> Body | None:
    """The DeploymentConfig of at most one size (``10%``, or ``2`` instances) for ``canary``, ``linear`` or ``rolling``,
    a ``bake`` in seconds after every step, and the alarms that take it back; with alarms alone, all at once. None: none
    of these is said. Raises ``ConfigError``."""
    given = {name: _size(name, one) for name, one in sizes.items() if one is not None}
    if len(given) > 1:
        raise ConfigError(f"Only one of --{' and --'.join(given)} can be had.")
    if not given and not alarms:
        return None
    watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": one} for one in alarms]}} if alarms else {}
    if "rolling" in given:
        return {"RollingUpdatePolicy": {"MaximumBatchSize": given["rolling"], "WaitIntervalInSeconds": bake}} | watched
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": bake}
    if "canary" in given:
        routing |= {"Type": "CANARY", "CanarySize": given["canary"]}
    if "linear" in given:
        routing |= {"Type": "LINEAR", "LinearStepSize": given["linear"]}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": bake}
    return {"BlueGreenUpdatePolicy": policy} | watched


def _size(name: str, text: str) -> dict[str, Any]:
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]) or (match[2] and int(match[1]) > _MOST_PERCENT):
        raise ConfigError(
            f"--{name} is {text!r}; expected a percentage up to {_MOST_PERCENT}% or a number of instances (2)."
        )
    return {"Type": "CAPACITY_PERCENT" if match[2] else "INSTANCE_COUNT", "Value": int(match[1])}


def progress(endpoint: Body) -> str:
    """How far an endpoint's update is (DescribeEndpoint); empty when there is nothing to tell."""
    pending = endpoint.get("PendingDeploymentSummary", {})
    for variant in pending.get("ProductionVariants", ()):
        for status in variant.get("VariantStatus", ()):
            return f"{pending['EndpointConfigName']}: {status.get('StatusMessage') or status['Status']}"
    return ""


def follow(server: Server, names: Sequence[str], patience: float, log: Callable[[str], None]) -> list[Body]:
    """The endpoints once none of them is in the middle of an update; ``log`` hears how far each is. Raises
    ``ServiceUnavailable`` when that takes longer than ``patience`` seconds."""
    found: list[Body] = []
    until = time.monotonic() + patience
    for name in names:
        told = ""
        while (there := server.call("DescribeEndpoint", {"EndpointName": name}))["EndpointStatus"] in IN_PROGRESS:
            if time.monotonic() > until:
                raise ServiceUnavailable(f"Endpoint {name} is still {there['EndpointStatus']}.")
            if (now := progress(there)) and now != told:
                told = now
                log(f"{name}: {now}")
            time.sleep(_POLL_SECONDS)  # a client's polling interval
        found.append(there)
    return found
