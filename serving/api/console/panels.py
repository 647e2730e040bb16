"""The parts of a page that change: each a table or list, rendered here at first and again for every new sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from serving.api.console import figures
from serving.api.console.facts import Facts, Row, Variant, parts, variants
from serving.api.console.markup import Html, el, html
from serving.fleet.table import failures, status
from serving.watch.slow import SlowCall

#: Endpoints on one page of the table, and calls, events, jobs in a list.
MOST_ENDPOINTS, _MOST_SLOW, _MOST_FAILED, _MOST_EVENTS = 50, 12, 8, 12

_TONES = {
    "InService": "good",
    "OutOfService": "bad",
    "Failed": "bad",
    "Completed": "good",
    "Successful": "good",
    "Unfulfilled": "bad",
    "Overridden": "calm",
    "CompletedWithViolations": "bad",
    "Scheduled": "good",
    "Stopped": "calm",
    "Deleting": "calm",
}
_NONE: Mapping[str, Any] = {}


def badge(state: str) -> Html:
    """A state: its word, and a colour that says no more than the word."""
    return el("span", state, class_=f"badge {_TONES.get(state, 'busy')}")


def when(moment: float) -> Html:
    """A time."""
    return el("time", figures.clock(moment), datetime=figures.stamp(moment))


def link(endpoint: str) -> Html:
    """To an endpoint's page."""
    return el("a", endpoint, href=f"/console/endpoints/{quote(endpoint, safe='')}")


def table(caption: str, heads: Sequence[str], rows: Iterable[Html], empty: str, wide: bool = False) -> Html:
    """A table that says so when there is nothing in it. A head that begins with ``#`` is of numbers."""
    body = list(rows)
    if not body:
        return el("p", empty, class_="empty")
    numbers = [head.startswith("#") for head in heads]
    top = (
        el("th", head.removeprefix("#"), scope="col", class_="n" if n else None)
        for head, n in zip(heads, numbers, strict=True)
    )
    inner = [
        el("caption", caption, class_="unseen"),
        el("thead", el("tr", top)),
        el("tbody", body),
    ]
    scrolls = {"class_": "scroll wide" if wide else "scroll", "tabindex": 0, "role": "region", "aria_label": caption}
    return el("div", el("table", inner), **scrolls)


def cell(label: str, *content: object, n: bool = False, tone: str = "") -> Html:
    """A cell that knows its column's name, for narrow screens."""
    return el("td", content, data_label=label, class_=" ".join(filter(None, ("n" if n else "", tone))) or None)


# --- the whole server ------------------------------------------------------------------------------------------------


def tiles(facts: Facts) -> Html:
    """The server in six numbers."""
    point = facts.server
    errors = sum(point.get(name) or 0.0 for name in ("errors_4xx", "errors_5xx", "rejected"))
    running = [one for row in facts.rows for one in variants(row)]
    ready, desired = sum(one.ready for one in running), sum(one.desired for one in running)
    in_service = sum(status(row) == "InService" for row in facts.rows)
    shown = (
        ("calls", "Calls", figures.rate(point.get("calls")), f"{figures.number(point.get('concurrent'))} in flight"),
        ("p50", "Latency p50", figures.milliseconds(point.get("p50")), "half are faster"),
        ("p99", "Latency p99", figures.milliseconds(point.get("p99")), "1 in 100 is slower"),
        ("errors", "Errors", figures.rate(errors), "4xx, 5xx and refused"),
        ("ready", "Workers ready", f"{ready} of {desired}", f"{in_service} of {len(facts.rows)} endpoints in service"),
        ("model_bytes", "Models in memory", figures.size(point.get("model_bytes")), _models(point)),
    )
    return html(el("div", el("dt", name), el("dd", value), el("dd", note, class_="note"), class_="tile", data_tile=key)
                for key, name, value, note in shown)  # fmt: skip


def _models(point: Mapping[str, Any]) -> str:
    models = point.get("models") or 0.0
    return f"{figures.number(models)} model{'' if models == 1 else 's'}"


def chosen(rows: Sequence[Row], asked: str, at: int) -> tuple[list[Row], int]:
    """The endpoints of one page of the table, and how many there are of what was asked for: those in trouble first,
    then by name. ``asked`` is part of a name; ``at`` counts pages from 0."""
    found = [row for row in rows if asked.lower() in row["name"].lower()]
    found.sort(key=lambda row: (not _troubled(row), row["name"]))
    return found[at * MOST_ENDPOINTS : (at + 1) * MOST_ENDPOINTS], len(found)


def _troubled(row: Row) -> bool:
    return status(row) not in ("InService", "Creating") or bool(failures(row))


_VARIANT_HEADS = ("Variant", "#Weight", "#Calls", "#p50", "#p99", "#Errors", "#Workers", "#In memory")


def of_one(facts: Facts, row: Row) -> Html:
    """The variants of one endpoint."""
    rows = (el("tr", _variant_cells(facts, row, one)) for one in variants(row))
    return table("Variants and how they do", _VARIANT_HEADS, rows, "The endpoint has no variant.", wide=True)


def endpoints(facts: Facts, asked: str = "", at: int = 0) -> Html:
    """Endpoints, a line for each variant."""
    rows, found = chosen(facts.rows, asked, at)
    heads = ("Endpoint", *_VARIANT_HEADS)
    empty = f"No endpoint has “{asked}” in its name." if asked else "There is no endpoint yet."
    lines = (line for row in rows for line in _endpoint(facts, row))
    return html((table("Endpoints and their variants", heads, lines, empty, wide=True), _pages(asked, at, found)))


def _endpoint(facts: Facts, row: Row) -> Iterable[Html]:
    many: list[Variant | None] = [*variants(row)] or [None]
    reasons = failures(row) or ([row["reason"]] if row["reason"] else [])
    name = el(
        "th",
        el("span", link(row["name"]), badge(status(row)), class_="named"),
        _tags(row),
        el("p", "; ".join(reasons), class_="reason") if reasons else None,
        scope="rowgroup",
        rowspan=len(many),
    )
    for at, one in enumerate(many):
        cells = _variant_cells(facts, row, one) if one else [el("td", "no variant", colspan=8)]
        yield el("tr", name if not at else None, cells, class_="first" if not at else None)


def _tags(row: Row) -> Html | None:
    tags = [("async", row["asynchronous"]), ("captured", row.get("capture")), ("explained", row.get("explainer"))]
    given = [el("span", name, class_="tag") for name, is_so in tags if is_so]
    return el("span", given, class_="tags") if given else None


def _variant_cells(facts: Facts, row: Row, one: Variant) -> list[Html]:
    point = facts.now.get((row["name"], one.name), _NONE)
    errors = (point.get("errors_4xx") or 0.0) + (point.get("errors_5xx") or 0.0)
    memory = [facts.now.get((row["name"], part), _NONE).get("model_bytes") or 0.0 for part in parts(row, one.name)]
    tag = el("span", one.kind, class_="tag") if one.kind else None
    return [
        cell("Variant", el("span", one.name, class_="name"), tag),
        cell("Weight", _weight(row, one), n=True),
        cell("Calls", figures.rate(point.get("calls")), n=True),
        cell("p50", figures.milliseconds(point.get("p50")), n=True),
        cell("p99", figures.milliseconds(point.get("p99")), n=True),
        cell("Errors", figures.rate(errors if point else None), n=True, tone="bad" if errors else ""),
        cell("Workers", _workers(one), n=True, tone="bad" if one.ready < one.desired else ""),
        cell("In memory", figures.size(sum(memory)), n=True),
    ]


def _weight(row: Row, one: Variant) -> str:
    """The part of the calls, as far as there are others."""
    if one.weight is None:
        return figures.NOTHING
    total = sum(other["weight"] for other in row["variants"])
    return figures.share(min(1.0, one.weight / total)) if total else figures.number(one.weight)


def _workers(one: Variant) -> str:
    others = ", ".join(f"{count} {state.lower()}" for state, count in sorted(one.states.items()))
    return f"{one.ready} of {one.desired}" + (f" ({others})" if others else "")


def _pages(asked: str, at: int, found: int) -> Html | None:
    if found <= MOST_ENDPOINTS:
        return None
    last = (found - 1) // MOST_ENDPOINTS

    def to(page: int, name: str) -> Html:
        if not 0 <= page <= last:
            return el("span", name, class_="off")
        return el("a", name, href="/?" + urlencode({"q": asked, "at": page}) + "#endpoints", data_at=page)

    told = f"{at * MOST_ENDPOINTS + 1}–{min(found, (at + 1) * MOST_ENDPOINTS)} of {found}"
    return el("nav", to(at - 1, "Previous"), el("span", told), to(at + 1, "Next"), class_="pages", aria_label="Pages")


# --- calls and events ------------------------------------------------------------------------------------------------

_STEPS = ("queue", "load", "decode", "predict", "encode")


def slow(calls: Sequence[SlowCall], endpoint: str = "") -> Html:
    """The slowest calls of late, with their receipts."""
    heads = ("When", *(() if endpoint else ("Endpoint",)), "Variant", "#Total", "Receipt", "Request id")
    kept = [one for one in calls if endpoint in ("", one.endpoint)][:_MOST_SLOW]
    empty = "None of the slowest calls is this endpoint's." if endpoint else "No call in the last ten minutes."
    rows = (
        el(
            "tr",
            cell("When", when(one.time)),
            None if endpoint else cell("Endpoint", one.endpoint),
            cell("Variant", one.variant, _model(one)),
            cell("Total", figures.milliseconds(one.total * 1000), n=True),
            cell("Receipt", receipt(one)),
            cell("Request id", el("code", one.request_id, class_="id")),
        )
        for one in kept
    )
    return table("Slowest calls of the last ten minutes", heads, rows, empty)


def _model(one: SlowCall) -> Html | None:
    return el("span", one.model, class_="model") if one.model else None


def receipt(one: SlowCall) -> Html:
    """Where a call's time went: a bar, which is decoration, and the same in words."""
    if not one.receipt:
        return el("span", f"{one.status} {one.code}", class_="bad")
    *spent, batch = one.receipt
    total = max(1.0, one.total * 1e6)
    outside = max(0.0, total - sum(spent))
    steps = [*zip(_STEPS, spent, strict=True), ("other", outside)]
    at, bars, words = 0.0, [], []
    for name, micros in steps:
        width = 100.0 * micros / total
        if width >= 0.5:
            bars.append(el("rect", x=f"{at:.1f}", y=0, width=f"{width:.1f}", height=8, class_=f"step {name}"))
        if width >= 1.0:
            words.append(f"{name} {figures.milliseconds(micros / 1000)}")
        at += width
    words += [f"batch of {batch}"] if batch > 1 else []
    words += [] if one.hit else ["model was not in memory"]
    drawn = el("svg", bars, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true", class_="receipt")
    return html((drawn, el("span", " · ".join(words), class_="words")))


def failed(calls: Sequence[SlowCall], endpoint: str = "") -> Html:
    """The last calls that came to nothing."""
    heads = ("When", *(() if endpoint else ("Endpoint",)), "Variant", "Answer", "#After", "Request id")
    kept = [one for one in calls if endpoint in ("", one.endpoint)][:_MOST_FAILED]
    rows = (
        el(
            "tr",
            cell("When", when(one.time)),
            None if endpoint else cell("Endpoint", one.endpoint),
            cell("Variant", one.variant, _model(one)),
            cell("Answer", f"{one.status} {one.code}", tone="bad"),
            cell("After", figures.milliseconds(one.total * 1000), n=True),
            cell("Request id", el("code", one.request_id, class_="id")),
        )
        for one in kept
    )
    return table("Failed calls of the last ten minutes", heads, rows, "No call has failed in the last ten minutes.")


def events(found: Sequence[Mapping[str, Any]], endpoint: str = "") -> Html:
    """Workers that came and went, newest first."""
    items = [
        el(
            "li",
            when(one["time"]),
            el("span", *(() if endpoint else (one["endpoint"], " · ")), one["variant"], class_="name"),
            el("span", one["text"]),
        )
        for one in found[:_MOST_EVENTS]
    ]
    return el("ol", items, class_="events") if items else el("p", "Nothing has changed.", class_="empty")
