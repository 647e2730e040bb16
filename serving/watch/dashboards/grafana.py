"""A Grafana dashboard of rows of panels, in the JSON model of Grafana 11 and 12 (dashboard schema version 39). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from serving.watch.dashboards.panels import Panel, Row

_SCHEMA = 39
_COLUMNS = 24
_HEIGHT = {"stat": 4}
_USUAL_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_CHOSEN = {
    "{ev}": '{endpoint=~"$endpoint", variant=~"$variant"}',
    "{ev, ": '{endpoint=~"$endpoint", variant=~"$variant", ',
    "{e}": '{endpoint=~"$endpoint"}',
    "[rate]": "[$__rate_interval]",
}
_LINES = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
_STAT = {
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "value",
    "graphMode": "area",
    "textMode": "auto",
}
_SERIES = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
_HEAT = {"calculate": False, "color": {"mode": "scheme", "scheme": "Oranges"}, "yAxis": {"unit": "s"}}
_OPTIONS = {"stat": _STAT, "timeseries": _SERIES, "heatmap": _HEAT}


def dashboard(rows: Sequence[Row]) -> dict[str, Any]:
    """The dashboard: it asks for its Prometheus, and for endpoints and variants, when it is opened."""
    return {
        "uid": "serving",
        "title": "serving",
        "description": "Traffic, latency, workers, models, jobs, shadows, capture and monitoring of a serving server.",
        "tags": ["serving", "sagemaker"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {"list": [_source(), _choice("endpoint", ""), _choice("variant", '{endpoint=~"$endpoint"}')]},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels(rows)),
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _choice(label: str, among: str) -> dict[str, Any]:
    query = f"label_values(sagemaker_invocations_total{among}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Rows below each other, each with its panels from left to right as long as there is room."""
    number, below = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": below, "w": _COLUMNS, "h": 1},
        }
        below, across, tallest = below + 1, 0, 0
        for panel in row.panels:
            if across + panel.width > _COLUMNS:
                below, across, tallest = below + tallest, 0, 0
            number += 1
            height = _HEIGHT.get(panel.kind, _USUAL_HEIGHT)
            yield _panel(panel, number, {"x": across, "y": below, "w": panel.width, "h": height})
            across, tallest = across + panel.width, max(tallest, height)
        below += tallest


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": panel.least, "max": panel.most}
    if panel.kind == "timeseries":
        defaults["custom"] = _LINES
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": at,
        "fieldConfig": {
            "defaults": _given(defaults),
            "overrides": [],
        },
        "options": _OPTIONS[panel.kind],
        "targets": [
            _target(legend, query, chr(ord("A") + place), panel.kind)
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _target(legend: str, query: str, id: str, kind: str) -> dict[str, Any]:
    for short, meant in _CHOSEN.items():
        query = query.replace(short, meant)
    form = {"format": "heatmap"} if kind == "heatmap" else {}
    return {"refId": id, "expr": query, "legendFormat": legend, "datasource": _SOURCE, "range": True, **form}
