"""The pages: a shell common to all, the overview, and one endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from serving.api.console import assets, capacity, compared, panels, work
from serving.api.console.facts import Facts, Row, variants
from serving.api.console.markup import Html, el, html
from serving.fleet.table import failures, status

#: Nothing but our own files, no script or style in the page, no frame around it.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "vary": "Accept",
}


class Panel(NamedTuple):
    """A part of a page that changes: its id, heading and what is in it."""

    id: str
    heading: str
    content: Html


class Chart(NamedTuple):
    """A chart the script draws. ``kind`` names how (``charts.js``)."""

    kind: str
    heading: str
    note: str


_OVERVIEW_CHARTS = (
    Chart("traffic", "Traffic", "calls a second, by variant"),
    Chart("latency", "Latency", "model latency, all endpoints"),
    Chart("errors", "Errors", "a second, all endpoints"),
    Chart("workers", "Workers", "ready, and all there are"),
    Chart("cache", "Model memory", "bytes in memory, evictions"),
    Chart("flight", "Calls in flight", "queued or being answered, all endpoints"),
    Chart("backlog", "Asynchronous queues", "calls waiting or being processed"),
)
_ENDPOINT_CHARTS = (
    Chart("traffic", "Traffic", "calls a second, by variant"),
    Chart("latencies", "Latency", "p50 solid, p99 dashed, by variant"),
    Chart("failures", "Errors", "4xx and 5xx a second, by variant"),
    Chart("crew", "Workers", "ready, and wanted where that differs, by variant"),
    Chart("load", "Load of a worker", "calls a minute for each that is ready; dashed: the target"),
    Chart("memory", "Model memory", "bytes in memory by variant, evictions"),
    Chart("flights", "Calls in flight", "queued or being answered, by variant"),
    Chart("queue", "Asynchronous queue", "calls waiting or being processed"),
)


# --- the shell -------------------------------------------------------------------------------------------------------


def shell(title: str, main: Html, where: Mapping[str, str], here: str = "") -> bytes:
    """A whole page. ``where``: what the script asks for new numbers with."""
    head = (
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · serving" if title else "serving"),
        el("link", rel="icon", href=assets.url("icon.svg"), type="image/svg+xml"),
        el("script", src=assets.url("theme.js")),
        el("link", rel="stylesheet", href=assets.url("uplot.css")),
        el("link", rel="stylesheet", href=assets.url("console.css")),
        el("script", src=assets.url("uplot.js"), defer=True),
        el("script", src=assets.url("charts.js"), defer=True),
        el("script", src=assets.url("console.js"), defer=True),
    )
    data = {f"data_{name}": value for name, value in where.items()}
    body = (
        el("a", "Skip to the content", href="#main", class_="skip"),
        _top(here),
        el("main", main, id="main", **data),
        _foot(),
    )
    page = el("html", el("head", head), el("body", body), lang="en")
    return f"<!doctype html>\n{page}\n".encode()


def _top(here: str) -> Html:
    brand = el("a", _mark(), el("span", "serving"), href="/", class_="brand")
    crumb = el("span", here, class_="here", aria_current="page") if here else None
    buttons = (
        el("span", "Live", class_="live", id="live", role="status"),
        el("button", "Pause", type="button", id="pause", aria_pressed="false", hidden=True),
        el("button", "Theme", type="button", id="theme", hidden=True),
    )
    nav = el("nav", brand, crumb, aria_label="Console")
    return el("header", nav, el("div", buttons, class_="controls"), class_="top")


def _mark() -> Html:
    bars = (el("rect", x=x, y=y, width=4, height=20 - y, rx=1) for x, y in ((2, 12), (8, 7), (14, 3)))
    return el("svg", bars, viewBox="0 0 20 20", width=20, height=20, aria_hidden="true")


def _foot() -> Html:
    links = (("/endpoints", "Endpoints as JSON"), ("/metrics", "Metrics for Prometheus"))
    made = el("a", "uPlot", href=assets.url("uplot-license.txt"))
    items = [el("a", name, href=href) for href, name in links]
    return el("footer", el("nav", items, aria_label="Machine-readable"), el("p", "Charts by ", made, "."))


def section(panel: Panel, *around: object) -> Html:
    """A panel under its heading, between what does not change."""
    inner = el("div", panel.content, class_="panel", data_panel=panel.id)
    return el("section", el("h2", panel.heading, id=f"{panel.id}-heading"), *around, inner, id=panel.id, class_="card",
              aria_labelledby=f"{panel.id}-heading")  # fmt: skip


def _charts(charts: Sequence[Chart]) -> Html:
    drawn = (
        el(
            "figure",
            el("figcaption", el("h3", one.heading), el("span", one.note, class_="note")),
            el("div", class_="plot", data_chart=one.kind),
            class_="card chart",
        )
        for one in charts
    )
    spans = (("300", "5 min"), ("900", "15 min"), ("3600", "1 hour"))
    choice = el(
        "fieldset",
        el("legend", "Time shown", class_="unseen"),
        [
            el(
                "label",
                el("input", type="radio", name="span", value=value, checked=value == "900"),
                el("span", name),
            )
            for value, name in spans
        ],
        class_="spans",
        hidden=True,
        id="spans",
    )
    silent = el("noscript", el("p", "The charts need JavaScript; the tables hold the numbers of now.", class_="empty"))
    heading = el("div", el("h2", "Charts", id="charts-heading"), choice, class_="bar")
    return el(
        "section", heading, silent, el("div", drawn, class_="charts"), id="charts", aria_labelledby="charts-heading"
    )


# --- the overview ----------------------------------------------------------------------------------------------------


def overview_panels(facts: Facts, asked: str = "", at: int = 0) -> list[Panel]:
    """The changing parts of the overview."""
    return [
        Panel("tiles", "Now", panels.tiles(facts)),
        Panel("endpoints", "Endpoints", panels.endpoints(facts, asked, at)),
        Panel("slow", "Slowest calls", panels.slow(facts.slow)),
        Panel("failed", "Failed calls", panels.failed(facts.failed)),
        Panel("events", "Workers that came and went", panels.events(facts.events)),
        Panel("jobs", "Jobs", work.jobs(facts)),
        Panel("monitoring", "Monitoring", work.monitoring(facts)),
    ]


def overview(facts: Facts, asked: str = "", at: int = 0) -> bytes:
    """The page at ``/``."""
    tiles, endpoints, slow, *others = overview_panels(facts, asked, at)
    queued = any(row["asynchronous"] for row in facts.rows)
    charts = [one for one in _OVERVIEW_CHARTS if queued or one.kind != "backlog"]
    main = (
        el("h1", "Overview", class_="unseen"),
        el("dl", tiles.content, class_="tiles", data_panel="tiles"),
        _charts(charts),
        section(endpoints, _search(asked)),
        section(slow),
        el("div", map(section, others[:2]), class_="columns"),
        map(section, others[2:]),
    )
    return shell("", html(main), {"page": "overview", "q": asked, "at": str(at)})


def _search(asked: str) -> Html:
    box = el("input", type="search", name="q", value=asked, id="q", autocomplete="off", maxlength=63)
    label = el("label", "Part of a name", for_="q")
    return el("form", label, box, el("button", "Find", type="submit"), action="/", method="get", role="search")


# --- one endpoint ----------------------------------------------------------------------------------------------------


def endpoint_panels(facts: Facts, row: Row) -> list[Panel]:
    """The changing parts of an endpoint's page."""
    name = row["name"]
    own = facts._replace(rows=[row])
    found = [
        Panel("state", "State", state(row)),
        Panel("variants", "Variants", panels.of_one(facts, row)),
        Panel("scaling", "Scaling", capacity.scaling(facts.scaling)),
        Panel("slow", "Slowest calls", panels.slow(facts.slow, name)),
        Panel("failed", "Failed calls", panels.failed(facts.failed, name)),
        Panel("events", "Workers that came and went", panels.events(facts.events, name)),
        Panel("monitoring", "Monitoring", work.monitoring(facts, name)),
    ]
    return [*found, Panel("jobs", "Queue", work.jobs(own._replace(jobs=())))] if row["asynchronous"] else found


def state(row: Row) -> Html:
    """What there is to say of an endpoint in words: its state, why, its configuration, what is captured."""
    reasons = failures(row) or ([row["reason"]] if row["reason"] else [])
    capture = row.get("capture")
    told: list[tuple[str, object]] = [("State", panels.badge(status(row))), ("Configuration", row["config"])]
    if reasons:
        told.append(("Why", el("span", "; ".join(reasons), class_="reason")))
    if row["asynchronous"]:
        kept = row["async"]
        told += [("Answers", "later: asynchronous"), ("Results go to", kept["output"] or "the usual bucket")]
    told.append(("Data capture", _capture(capture) if capture else "off"))
    if row.get("explainer"):
        told.append(("Explanations", "on request"))
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in told], class_="told")


def _capture(capture: Mapping[str, Any]) -> str:
    sides = [name for name, is_so in (("input", capture["input"]), ("output", capture["output"])) if is_so]
    return f"{capture['percent']} % of calls, {' and '.join(sides)}, to {capture['destination']}"


def endpoint(facts: Facts, row: Row, may_invoke: bool, base: str) -> bytes:
    """The page of one endpoint. ``base``: the URL this server is reached under."""
    name = row["name"]
    head, many, scaling, slow, failed, *others = endpoint_panels(facts, row)
    without = {"queue": not row["asynchronous"], "load": not capacity.targets(facts.scaling)}
    charts = [one for one in _ENDPOINT_CHARTS if not without.get(one.kind)]
    main = (
        el("h1", name),
        el("div", head.content, data_panel="state", class_="card"),
        section(many),
        _charts(charts),
        section(scaling),
        _compared(row),
        _try(row, may_invoke, base),
        _later(row) if may_invoke else None,
        section(slow),
        el("div", map(section, [failed, *others[:1]]), class_="columns"),
        map(section, others[1:]),
    )
    return shell(name, html(main), {"page": "endpoint", "endpoint": name}, name)


def _compared(row: Row) -> Html | None:
    """Places for the verdict over variants and for what shadow variants do otherwise; the script asks for them."""
    base = f"/console/endpoints/{row['name']}"
    placed = []
    if len(row["variants"]) + len(row["shadows"]) > 1:
        metric = "accuracy" if row["capture"] else "error-rate"
        form = compared.metric_form(f"{base}/verdict", metric)
        placed.append(_asked("verdict", "Which variant is better", f"{base}/verdict?metric={metric}", form))
    placed += [
        _asked(f"shadow-{at}", f"What {one['name']} would have answered", f"{base}/shadow-report?shadow={one['name']}")
        for at, one in enumerate(row["shadows"])
    ]
    return html(placed) if placed else None


def _later(row: Row) -> Html | None:
    """A place for the newest asynchronous calls, which are for those who may send some."""
    if not row["asynchronous"]:
        return None
    return _asked("calls", "Newest calls", f"/console/endpoints/{row['name']}/calls", follow=True)


def _asked(id: str, heading: str, url: str, form: Html | None = None, follow: bool = False) -> Html:
    link = el("p", el("a", "Work it out", href=url), class_="empty")
    live = {"data_follow": True} if follow else {"aria_live": "polite"}
    place = el("div", link, data_fetch=url, id=f"{id}-told", class_="panel", **live)
    head = el("div", el("h2", heading, id=f"{id}-heading"), form, class_="bar")
    return el("section", head, place, id=id, class_="card", aria_labelledby=f"{id}-heading")


def found(name: str, heading: str, content: Html) -> bytes:
    """What was worked out about an endpoint, as a page of its own (for browsers without script)."""
    back = el("p", el("a", name, href=f"/console/endpoints/{name}"))
    return shell(heading, el("section", el("h1", heading), back, content, class_="card"), {}, name)


_TYPES = ("text/csv", "application/json", "application/jsonlines", "text/plain", "text/libsvm", "application/x-npy")


def _try(row: Row, may_invoke: bool, base: str) -> Html:
    """A form that makes a real call; for who may not, the reason why there is none."""
    heading = el("h2", "Try it", id="try-heading")
    if not may_invoke:
        said = el("p", "Your key does not have the permission invoke for this endpoint.", class_="empty")
        return el("section", heading, said, id="try", class_="card", aria_labelledby="try-heading")
    many = list(variants(row))
    form = el(
        "form",
        el("div", _fields(row, many), class_="fields"),
        _field("Body", el("textarea", name="body", rows=5, spellcheck="false", id="try-body"), "try-body"),
        _field("or a file", el("input", type="file", name="file", id="try-file"), "try-file"),
        el(
            "p",
            el("button", "Send", type="submit", class_="main"),
            el("span", "Ctrl+Enter in the body sends too.", class_="note"),
            class_="send",
        ),
        id="try-form",
        hidden=True,
        data_later="yes" if row["asynchronous"] else "",
    )
    answer = el("div", id="try-answer", role="status", aria_live="polite", tabindex=-1)
    shell_words = el("details", el("summary", "The same with curl"), el("pre", el("code", _curl(row, base, many))))
    silent = el("noscript", el("p", "The form needs JavaScript; curl does without.", class_="empty"))
    return el("section", heading, silent, form, answer, shell_words, id="try", class_="card",
              aria_labelledby="try-heading")  # fmt: skip


def _field(label: str, control: Html, id: str) -> Html:
    return el("div", el("label", label, for_=id), control, class_="field")


def _fields(row: Row, many: Sequence[Any]) -> list[Html]:
    listed = el("datalist", (el("option", value=one) for one in _TYPES), id="types")
    kind = el("input", name="type", id="try-type", list="types", value="text/csv", required=True, maxlength=1024)
    accept = el("input", name="accept", id="try-accept", list="types", value="application/json", maxlength=1024)
    fields = [_field("Content type", html((kind, listed)), "try-type"), _field("Accept", accept, "try-accept")]
    if any(one.multi_model for one in many):
        model = el("input", name="model", id="try-model", required=True, maxlength=1024, spellcheck="false")
        fields.append(_field("Target model", model, "try-model"))
    components = [one.name for one in many if one.kind == "component"]
    if components:
        fields.append(_field("Inference component", _choice("component", components), "try-component"))
    named = [one.name for one in many if not one.kind]
    if len(named) > 1:
        fields.append(_field("Target variant", _choice("variant", ["", *named]), "try-variant"))
    return fields


def _choice(name: str, values: Sequence[str]) -> Html:
    options = [el("option", value or "by weight", value=value) for value in values]
    return el("select", options, name=name, id=f"try-{name}")


def _curl(row: Row, base: str, many: Sequence[Any]) -> str:
    path = "async-invocations" if row["asynchronous"] else "invocations"
    lines = [f"curl {base}/endpoints/{row['name']}/{path}", "  -H 'Content-Type: text/csv' -H 'X-Serving-Timing: 1'"]
    if any(one.multi_model for one in many):
        lines.append("  -H 'X-Amzn-SageMaker-Target-Model: MODEL'")
    components = [one.name for one in many if one.kind == "component"]
    if components:
        lines.append(f"  -H 'X-Amzn-SageMaker-Inference-Component: {components[0]}'")
    return " \\\n".join([*lines, "  --data-binary @body.csv"])


def refusal(title: str, message: str) -> bytes:
    """A page for who may not see, or who asked for what is not there."""
    main = el("section", el("h1", title), el("p", message), el("p", el("a", "Overview", href="/")), class_="card")
    return shell(title, main, {})
