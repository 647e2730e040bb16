"""What people look at, from the samples of ``history.py``: calls a second, quantiles, shares. Pure, JSON values out.

Of two samples a line has one point: what happened in between (calls and errors a second, latency quantiles in
milliseconds, evictions) and what stood at its end (workers, bytes, calls in flight). ``None`` = nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from serving.watch.history import NOTHING, SERVER, History, Row, Sample, is_part
from serving.watch.metrics import LATENCY_BUCKETS, Holder

#: Counters that are told as they have grown.
_STANDS = ("processed", "failed", "expired", "progress", "records_done", "records_failed")
#: Lines of one chart, and samples that "now" looks back over: a minute.
MOST_LINES, _NOW = 8, 12
_MOST_EVENTS = 50

Point = dict[str, float | None]


def quantile(counts: Sequence[float], share: float, bounds: Sequence[float] = LATENCY_BUCKETS) -> float | None:
    """The value below which ``share`` of what was counted lies, taken to be spread evenly in its bucket (as Prometheus'
    ``histogram_quantile``); the highest bound for what lies above it, ``None`` for no counts. ``counts``: one for each
    bound, one for what is above them; what follows is not looked at."""
    buckets = counts[: len(bounds) + 1]
    rank, running = share * sum(buckets), 0.0
    if rank <= 0:
        return None
    for at, bound in enumerate(bounds):
        if running + buckets[at] >= rank:
            low = bounds[at - 1] if at else 0.0
            return low + (bound - low) * (rank - running) / buckets[at]
        running += buckets[at]
    return bounds[-1]


def point(now: Row, before: Row, seconds: float) -> Point:
    """One point of a line. ``seconds`` between the two."""
    grown = now.since(before)
    seconds = max(seconds, 0.001)
    p50, p99 = (quantile(grown.histogram("latency"), share) for share in (0.5, 0.99))
    asked = grown["hits"] + grown["misses"]
    return {
        "calls": round(grown["calls"] / seconds, 3),
        "p50": _milliseconds(p50),
        "p99": _milliseconds(p99),
        "errors_4xx": round(grown["errors_4xx"] / seconds, 3),
        "errors_5xx": round(grown["errors_5xx"] / seconds, 3),
        "rejected": round(grown["rejected"] / seconds, 3),
        "evictions": grown["evictions"],
        "hit_share": round(grown["hits"] / asked, 4) if asked else None,
        "models": now["models"],
        "model_bytes": now["model_bytes"],
        "workers": now["workers"],
        "ready": now["ready"],
        "desired": now["desired"],
        "concurrent": now["concurrent"],
        "backlog": now["backlog"],
        "oldest": round(now["oldest"], 3),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


#: The fields of a point, and one without numbers.
FIELDS = tuple(point(NOTHING, NOTHING, 1.0))
_NONE: Point = dict.fromkeys(FIELDS)


def line(holder: Holder, samples: Sequence[Sample]) -> dict[str, Any]:
    """A line: whose it is, and a list of values for each field, one for each sample but the first."""
    points = [_between(holder, *pair) for pair in pairwise(samples)]
    endpoint, variant = (*holder, "", "")[:2]
    shadow = any(one.rows.get(holder, NOTHING).shadow for one in samples[-1:])
    return {"endpoint": endpoint, "variant": variant, "shadow": shadow} | {
        name: [one[name] for one in points] for name in FIELDS
    }


def _between(holder: Holder, before: Sample, now: Sample) -> Point:
    row = now.rows.get(holder)
    if row is None:
        return _NONE
    return point(row, before.rows.get(holder, NOTHING), now.time - before.time)


def current(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """How each variant and endpoint does now: a point over the last minute, and its counters as they have grown."""
    if not samples:
        return []
    now = samples[-1]
    before = samples[max(0, len(samples) - 1 - _NOW)]
    found = []
    for holder, row in now.rows.items():
        if holder != SERVER:
            endpoint, variant = (*holder, "")[:2]
            told = point(row, before.rows.get(holder, NOTHING), now.time - before.time)
            found.append({"endpoint": endpoint, "variant": variant, **told, **{name: row[name] for name in _STANDS}})
    return found


def busiest(samples: Sequence[Sample], most: int = MOST_LINES) -> list[Holder]:
    """The variants with the most calls in the last two minutes; by name where they are alike."""
    if not samples:
        return []
    now, before = samples[-1].rows, samples[max(0, len(samples) - 1 - 2 * _NOW)].rows
    variants: list[Holder] = [one for one in now if len(one) == 2 and not is_part(one)]
    return sorted(variants, key=lambda one: (before.get(one, NOTHING)["calls"] - now[one]["calls"], one))[:most]


def answer(history: History, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a front asks for (``front.ask("history", …)``): how everybody does now, the last events, and where ``since``
    is given the points after that sample, of the busiest variants or of all of ``endpoint``'s, and of the server.

    ``reset``: ``since`` is none of ours, or so long ago that points are missing; these are all there are. ``next``:
    seconds until there will be more."""
    samples, endpoint = list(history.samples), str(asked.get("endpoint", ""))
    told = {
        "number": history.number,
        "next": history.seconds_left,
        "now": current(samples),
        "whole": _lately(samples, SERVER),
        "events": _events(history, endpoint),
    }
    return told | (lines(samples, int(asked["since"]), endpoint) if "since" in asked else {})


def lines(samples: Sequence[Sample], since: int, endpoint: str = "") -> dict[str, Any]:
    """The points after sample ``since``."""
    known = bool(samples) and samples[0].number <= since <= samples[-1].number
    fresh = samples[since - samples[0].number :] if known else samples
    wanted = busiest(samples) if not endpoint else _of(samples, endpoint)
    return {
        "reset": not known,
        "times": [round(one.time, 3) for one in fresh[1:]],
        "lines": [line(one, fresh) for one in wanted],
        "server": line(SERVER, fresh),
    }


def _of(samples: Sequence[Sample], endpoint: str) -> list[Holder]:
    return sorted(one for one in (samples[-1].rows if samples else {}) if one[:1] == (endpoint,))


def _lately(samples: Sequence[Sample], holder: Holder) -> Point:
    """A point over the last minute."""
    if not samples:
        return _NONE
    before = samples[max(0, len(samples) - 1 - _NOW)]
    seconds = samples[-1].time - before.time
    return point(samples[-1].rows.get(holder, NOTHING), before.rows.get(holder, NOTHING), seconds)


def _events(history: History, endpoint: str) -> list[dict[str, Any]]:
    chosen: Iterable[Any] = (one for one in reversed(history.events) if endpoint in ("", one.endpoint))
    return [one._asdict() for one, _ in zip(chosen, range(_MOST_EVENTS), strict=False)]
