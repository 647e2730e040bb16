"""What pages tell, gathered: numbers from control, slow calls from every front's file, jobs from the control API."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from serving.api.console.facts import Facts
from serving.api.front import Front
from serving.errors import ServingError
from serving.watch import slow
from serving.watch.history import Reader
from serving.watch.metrics import snapshot

_MONITORED = {"sagemaker_feature_baseline_drift": "Drift", "sagemaker_monitoring_metric": "Metrics"}
_MOST_JOBS, _MOST_SCHEDULES = 10, 20
_JOB_SECONDS, _SCHEDULE_SECONDS, _SLOW_SECONDS, _SCALING_SECONDS = 5.0, 10.0, 1.0, 1.0


async def history(front: Front, endpoint: str = "", since: int | None = None) -> Mapping[str, Any]:
    """The numbers (``watch/points.py``), asked of control once for each new sample, however many tabs want them."""
    asked: dict[str, Any] = {"endpoint": endpoint} | ({} if since is None else {"since": since})

    async def ask() -> Any:
        return await front.ask("history", asked)

    told: Mapping[str, Any] = await front.shared.get(("history", endpoint, since), ask, lambda told: told["next"])
    return told


async def facts(front: Front, told: Mapping[str, Any], endpoint: str = "") -> Facts:
    """All that a page tells but its charts. ``told``: the numbers; ``endpoint``: whose page it is, if one's."""
    shared = front.shared
    calls, jobs, schedules, scales = await asyncio.gather(
        shared.get("slow", lambda: _calls(front), lambda _: _SLOW_SECONDS),
        shared.get("jobs", lambda: _jobs(front), lambda _: _JOB_SECONDS),
        shared.get("schedules", lambda: _schedules(front), lambda _: _SCHEDULE_SECONDS),
        scaling(front, endpoint),
    )
    return Facts(
        time=time.time(),
        rows=front.directory.table["endpoints"],
        now={(point["endpoint"], point["variant"]): point for point in told["now"]},
        server=told["whole"],
        events=told["events"],
        slow=calls["slow"],
        failed=calls["failed"],
        jobs=jobs,
        schedules=schedules,
        scaling=scales,
    )


async def scaling(front: Front, endpoint: str) -> Mapping[str, Any]:
    """What scales an endpoint; empty for none, and when control cannot say, which a page can live with."""
    if not endpoint:
        return {}

    async def ask() -> Any:
        try:
            return await front.ask("scaling", {"endpoint": endpoint})
        except ServingError:
            return {}

    found: Mapping[str, Any] = await front.shared.get(("scaling", endpoint), ask, lambda _: _SCALING_SECONDS)
    return found


async def _calls(front: Front) -> dict[str, list[slow.SlowCall]]:
    return slow.read(front.metrics_folder, time.time())


async def _jobs(front: Front) -> Sequence[Mapping[str, Any]]:
    listed = await _control(front, "ListTransformJobs", {"MaxResults": _MOST_JOBS})
    found: Sequence[Mapping[str, Any]] = listed.get("TransformJobSummaries", ())
    return found


async def _schedules(front: Front) -> Sequence[Mapping[str, Any]]:
    """Monitoring schedules as described, each with its last execution."""
    listed = await _control(front, "ListMonitoringSchedules", {"MaxResults": _MOST_SCHEDULES})
    names = [one["MonitoringScheduleName"] for one in listed.get("MonitoringScheduleSummaries", ())]
    described = [await _control(front, "DescribeMonitoringSchedule", {"MonitoringScheduleName": one}) for one in names]
    found = _monitored(front) if names else {}
    return [{**one, **found.get(_holder(one), {})} for one in described if one]


def _holder(schedule: Mapping[str, Any]) -> tuple[str, str]:
    return schedule.get("EndpointName") or "", schedule["MonitoringScheduleName"]


def _monitored(front: Front) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """What the last executions found (``watch/monitored.py``): of (endpoint, schedule) ``Drift`` by feature and
    ``Metrics`` by name."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    taken = snapshot(front.metrics_folder, Reader(frozenset(_MONITORED)))
    for (family, (endpoint, schedule, name)), (value, *_) in taken.items():
        if not math.isnan(value):
            found.setdefault((endpoint, schedule), {}).setdefault(_MONITORED[family], {})[name] = value
    return found


async def _control(front: Front, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """A control call for ourselves; empty when it does not succeed, which a page can live with."""
    call = {
        "target": f"SageMaker.{operation}",
        "body": orjson.dumps(asked).decode(),
        "region": front.settings.region,
        "request_id": front.next_request_id(),
    }
    try:
        reply = await front.ask("api", call)
    except ServingError:
        return {}
    answer: Mapping[str, Any] = orjson.loads(reply["body"]) if reply["status"] == 200 else {}
    return answer
