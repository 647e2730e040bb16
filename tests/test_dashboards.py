"""The dashboard and the alert rules speak of metrics that there are, by labels that these have, in forms that Grafana
and Prometheus read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.watch.dashboards import ALERTS, DASHBOARD, files
from serving.watch.metrics import FAMILIES

FILES = files()
SHOWN: dict[str, Any] = json.loads(FILES[DASHBOARD])
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILES[ALERTS])["groups"] for rule in group["rules"]]
PANELS = [panel for panel in SHOWN["panels"] if panel["type"] != "row"]
#: Grafana's names of units, of those that are used.
UNITS = {"reqps", "ops", "s", "bytes", "percentunit", "short"}
#: What Prometheus calls the parts of a histogram.
PARTS = ("_bucket", "_sum", "_count")

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(r"(sagemaker_[a-z0-9_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(rf"([a-z_]+)\s*(?:=~|!~|!=|=)\s*{_STRING}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
#: Every other word of an expression must be one of these.
_WORDS = {
    "sum", "max", "topk", "sqrt", "rate", "increase", "histogram_quantile", "clamp_min", "absent", "time",
    "by", "on", "group_left", "and",
}  # fmt: skip
EXPRESSIONS = [
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]


def family(name: str) -> str:
    """The metric that a series of this name belongs to; empty for none."""
    if name in FAMILIES and FAMILIES[name].kind != "histogram":
        return name
    base = next((name.removesuffix(part) for part in PARTS if name.endswith(part)), "")
    return base if base in FAMILIES and FAMILIES[base].kind == "histogram" else ""


def series(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The name of each series that an expression selects, and the labels it selects by."""
    for name, matchers in _SELECTOR.findall(expression):
        labels = _MATCHER.findall(matchers)
        assert "" == re.sub(r"[,\s]", "", _MATCHER.sub("", matchers)), f"{matchers} is not a list of matchers"
        yield name, set(labels)


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_an_expression_names_metrics_and_labels_that_there_are(where: str, expression: str) -> None:
    """By name, by matcher, by grouping; and is made of functions that Prometheus has."""
    found = list(series(expression))
    assert found, f"{where} selects nothing"
    known = {"le"} if "_bucket" in expression else set()
    for name, labels in found:
        assert family(name), f"{where}: there is no {name}"
        of_this = {*FAMILIES[family(name)].labels, *(("le",) if name.endswith("_bucket") else ())}
        assert labels <= of_this, f"{where}: {name} has no {labels - of_this}"
        known |= of_this
    for grouping in _GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",") if label.strip()} <= known, f"{where}: by {grouping}"
    rest = _GROUPING.sub(" ", _SELECTOR.sub(" ", expression))
    assert {*re.findall(r"[a-z_]{2,}", re.sub(r"\[[^]]*\]", " ", rest))} <= _WORDS, where
    assert expression.count("(") == expression.count(")")


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    """A counter's value says nothing; a gauge's growth neither."""
    for where, expression in EXPRESSIONS:
        for match in _SELECTOR.finditer(expression):
            of = FAMILIES[family(match[1])].kind
            inside = re.search(r"(rate|increase)\($", expression[: match.start()]) is not None
            assert (of != "gauge") == inside, f"{where}: {match[1]} is a {of}"


def test_every_metric_is_shown_somewhere() -> None:
    """A metric that is on no chart is one that nobody will look at."""
    shown = {family(name) for _, expression in EXPRESSIONS for name, _ in series(expression)}
    assert set() == set(FAMILIES) - shown


def test_panels_have_units_words_and_places_of_their_own() -> None:
    """Ids are unique, nothing lies over anything else or outside the 24 columns."""
    ids = [panel["id"] for panel in SHOWN["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in SHOWN["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["description"].endswith(".")
        assert len(panel["targets"]) == len({target["refId"] for target in panel["targets"]})
        assert {"${datasource}"} == {target["datasource"]["uid"] for target in panel["targets"]}


def test_what_a_dashboard_is_asked_for_is_chosen_in_it() -> None:
    """Each variable of a query is one of the dashboard's."""
    named = {variable["name"] for variable in SHOWN["templating"]["list"]}
    used = {name for _, expression in EXPRESSIONS for name in re.findall(r"\$\{?([a-z]+)", expression)}
    assert used <= named
    for query in (one["definition"] for one in SHOWN["templating"]["list"] if one["type"] == "query"):
        metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", query).groups()  # type: ignore[union-attr]  # fails the test
        assert label in FAMILIES[metric].labels


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    """Else it would be empty."""
    for panel in PANELS:
        for target in panel["targets"]:
            kept = {name.strip() for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for name in by.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_an_alert_says_how_bad_and_what_to_do() -> None:
    """Names are unique; the labels in its words are those that its expression keeps."""
    assert len(RULES) == len({rule["alert"] for rule in RULES})
    for rule in RULES:
        assert {"alert", "expr", "for", "labels", "annotations"} == set(rule)
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert re.search(r"(absent\(.*\)|[<>]=? *[\d.]+|== 0|\))\s*\Z", rule["expr"].strip()), rule["alert"]
        kept = {name.strip() for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for name in by.split(",")}
        words = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", words)) <= kept, rule["alert"]
        assert {"summary", "description"} == set(rule["annotations"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed here")
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    """Its own tool says so."""
    (tmp_path / ALERTS).write_text(FILES[ALERTS])
    subprocess.run(["promtool", "check", "rules", str(tmp_path / ALERTS)], check=True)
