"""What a page tells, as plain values: the rows of the routing table, the numbers of now, calls, jobs, schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from serving.watch.slow import SlowCall

Row = Mapping[str, Any]
Point = Mapping[str, Any]


class Variant(NamedTuple):
    """What answers calls of an endpoint, as one line of a table. ``kind``: empty for a production variant, else
    ``shadow`` or ``component``; ``ready`` of ``desired`` workers; ``states``: those that are not ready, by state."""

    name: str
    kind: str
    weight: float | None
    ready: int
    desired: int
    states: Mapping[str, int]
    failure: str
    multi_model: bool


class Facts(NamedTuple):
    """``rows``: endpoints of the routing table (``fleet/table.py``); ``now``: (endpoint, variant) -> a point of the
    last minute (``watch/points.py``), variant empty for the endpoint itself; ``server``: that of the whole server;
    ``jobs``, ``schedules``: as the control API tells of them; ``scaling``: what scales the endpoint of a page
    (``fleet/scaling_view.py``); ``time``: epoch seconds."""

    time: float
    rows: Sequence[Row]
    now: Mapping[tuple[str, str], Point]
    server: Point
    events: Sequence[Mapping[str, Any]]
    slow: Sequence[SlowCall]
    failed: Sequence[SlowCall]
    jobs: Sequence[Mapping[str, Any]] = ()
    schedules: Sequence[Mapping[str, Any]] = ()
    scaling: Mapping[str, Any] = MappingProxyType({})


def variants(row: Row) -> Iterator[Variant]:
    """What answers its calls: production variants, shadow variants, inference components."""
    for kind, many in (("", row["variants"]), ("shadow", row.get("shadows", ()))):
        for one in many:
            yield _variant(one["name"], kind, one["weight"], one["pools"])
    for pool in row["components"]:
        yield _variant(pool["key"][-1], "component", None, [pool])


def _variant(name: str, kind: str, weight: float | None, pools: Sequence[Row]) -> Variant:
    """Of a series of containers: the workers of the one that has the fewest."""
    weakest = min(pools, key=lambda pool: len(pool["workers"]))
    states: dict[str, int] = {}
    for pool in pools:
        for _, _, state in pool["states"]:
            if state != "READY":
                states[state] = states.get(state, 0) + 1
    failure = next((pool["failure"] for pool in pools if pool["failure"]), "")
    multi_model = any(pool["multi_model"] for pool in pools)
    return Variant(
        name, kind, weight, len(weakest["workers"]), max(p["desired"] for p in pools), states, failure, multi_model
    )


def parts(row: Row, name: str) -> list[str]:
    """The names under which a variant's workers and memory are counted: its own, or those of its containers."""
    for one in (*row["variants"], *row.get("shadows", ())):
        if one["name"] == name:
            return [f"{name}/{pool['key'][3]}" if pool["key"][3] else name for pool in one["pools"]]
    return [name]


def find(rows: Sequence[Row], name: str) -> Row | None:
    """The endpoint of that name."""
    return next((row for row in rows if row["name"] == name), None)
