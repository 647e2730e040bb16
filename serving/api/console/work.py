"""Panels of what is done later or by the clock: asynchronous calls, transform jobs, monitoring."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.api.console import figures
from serving.api.console.facts import Facts, Row
from serving.api.console.markup import Html, el, html
from serving.api.console.panels import badge, cell, link, table, when

_NONE: Mapping[str, Any] = {}
_MOST_FEATURES, _MOST_METRICS = 6, 12


def jobs(facts: Facts) -> Html:
    """Queues of asynchronous endpoints, and the newest transform jobs with their progress."""
    queues = [row for row in facts.rows if row["asynchronous"]]
    parts = [_queues(facts, queues)] if queues else []
    if facts.jobs or not queues:
        heads = ("Transform job", "State", "Progress", "Created", "Why")
        lines = (_job(facts, one) for one in facts.jobs)
        parts.append(table("Transform jobs, newest first", heads, lines, "There is no transform job."))
    return html(parts)


def _queues(facts: Facts, rows: Iterable[Row]) -> Html:
    heads = ("Asynchronous endpoint", "#Waiting", "#Oldest", "#Answered", "#Failed", "#Expired")
    return table("Queues of asynchronous calls", heads, (_queue(facts, row["name"]) for row in rows), "")


def _queue(facts: Facts, name: str) -> Html:
    own = facts.now.get((name, ""), _NONE)
    sums = {
        kind: sum(point[kind] for (endpoint, _), point in facts.now.items() if endpoint == name)
        for kind in ("processed", "failed", "expired")
    }
    return el(
        "tr",
        el("th", link(name), scope="row"),
        cell("Waiting", figures.number(own.get("backlog")), n=True),
        cell("Oldest", figures.age(own.get("oldest")), n=True),
        cell("Answered", figures.number(sums["processed"]), n=True),
        cell("Failed", figures.number(sums["failed"]), n=True, tone="bad" if sums["failed"] else ""),
        cell("Expired", figures.number(sums["expired"]), n=True),
    )


def calls(listed: Sequence[Mapping[str, Any]]) -> Html:
    """The newest asynchronous calls of an endpoint (``GET /endpoints/{name}/async-invocations``)."""
    heads = ("Sent", "State", "#Waited", "#Took", "Id", "Why")
    return table("Newest asynchronous calls", heads, map(_call, listed), "No call has been sent yet.")


def _call(one: Mapping[str, Any]) -> Html:
    sent, started, ended = (one[name] for name in ("CreationTime", "StartTime", "EndTime"))
    waited = (started or time.time()) - sent if one["Status"] != "Expired" else None
    return el(
        "tr",
        cell("Sent", when(sent)),
        cell("State", badge(one["Status"])),
        cell("Waited", _seconds(waited), n=True),
        cell("Took", _seconds(ended - started if started and ended else None), n=True),
        cell("Id", el("code", one["Id"], class_="id")),
        cell("Why", one["FailureReason"] or "", tone="reason"),
    )


def _seconds(value: float | None) -> str:
    return figures.milliseconds(None if value is None else 1000 * max(0.0, value))


def _job(facts: Facts, one: Mapping[str, Any]) -> Html:
    name, state = one["TransformJobName"], str(one["TransformJobStatus"])
    return el(
        "tr",
        el("th", name, scope="row"),
        cell("State", badge(state)),
        cell("Progress", _progress(facts.now.get((f"transform-job/{name}", "AllTraffic"), _NONE), state)),
        cell("Created", when(float(one["CreationTime"]))),
        cell("Why", str(one.get("FailureReason", ""))),
    )


def _progress(point: Mapping[str, Any], state: str) -> Html | None:
    """How far a running job is, by its metrics."""
    if state not in ("InProgress", "Stopping"):
        return None
    share = min(1.0, max(0.0, point.get("progress") or 0.0))
    bar = el("progress", f"{100 * share:.0f} %", value=f"{share:.4f}", max=1, aria_label="Progress")
    words = [f"{100 * share:.0f} %", f"{figures.number(point.get('records_done') or 0.0)} records"]
    if point.get("records_failed"):
        words.append(f"{figures.number(point['records_failed'])} failed")
    return html((bar, el("span", " · ".join(words), class_="words")))


def monitoring(facts: Facts, endpoint: str = "") -> Html:
    """Monitoring schedules, each with its last execution."""
    heads = (
        "Schedule",
        *(() if endpoint else ("Endpoint",)),
        "Watches",
        "State",
        "Last execution",
        "#Violations",
        "When",
    )
    kept = [one for one in facts.schedules if endpoint in ("", one.get("EndpointName"))]
    rows = (row for one in kept for row in (_schedule(one, endpoint), _found(one, len(heads))) if row)
    return table("Monitoring schedules and their last executions", heads, rows, "Nothing is being monitored.")


def _schedule(one: Mapping[str, Any], endpoint: str) -> Html:
    last = one.get("LastMonitoringExecutionSummary") or {}
    more = one.get("LastMonitoringExecution") or {}
    ended = last.get("LastModifiedTime") or last.get("ScheduledTime")
    violations = more.get("Violations")
    count = len(violations) if isinstance(violations, list) else violations
    state = str(last.get("MonitoringExecutionStatus", ""))
    return el(
        "tr",
        el("th", one["MonitoringScheduleName"], scope="row"),
        None if endpoint else cell("Endpoint", str(one.get("EndpointName") or figures.NOTHING)),
        cell("Watches", _words(str(one.get("MonitoringType", "")))),
        cell("State", badge(str(one["MonitoringScheduleStatus"]))),
        cell("Last execution", badge(state) if state else figures.NOTHING, _why(last, more)),
        cell("Violations", figures.number(count), n=True, tone="bad" if count else ""),
        cell("When", when(float(ended)) if ended else figures.NOTHING),
    )


def _found(one: Mapping[str, Any], columns: int) -> Html | None:
    """What the last execution found, by feature and by name: the farthest from the baseline as bars."""
    drift, metrics = one.get("Drift", {}), one.get("Metrics", {})
    if not drift and not metrics:
        return None
    far = sorted(drift.items(), key=lambda item: -abs(item[1]))[:_MOST_FEATURES]
    longest = max((abs(value) for _, value in far), default=0.0) or 1.0
    bars = [
        el("li", el("span", name, class_="name"), _bar(abs(value) / longest), f"{value:.3g}") for name, value in far
    ]
    values = [
        el("div", el("dt", name), el("dd", f"{value:.4g}")) for name, value in list(metrics.items())[:_MOST_METRICS]
    ]
    told = (
        el("p", "Distance from the baseline, farthest first", class_="note") if far else None,
        el("ul", bars, class_="bars") if far else None,
        el("dl", values, class_="told") if values else None,
    )
    return el("tr", el("td", told, colspan=columns), class_="more")


def _bar(share: float) -> Html:
    drawn = el("rect", width=f"{100 * share:.1f}", height=8, class_="step predict")
    return el("svg", drawn, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true", class_="receipt")


def _why(last: Mapping[str, Any], more: Mapping[str, Any]) -> Html | None:
    told = last.get("FailureReason") or more.get("ExitMessage")
    return el("p", str(told)[:300], class_="note") if told else None


def _words(name: str) -> str:
    """``DataQuality`` -> ``data quality``."""
    return "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in name).strip()
