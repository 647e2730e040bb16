"""What was worked out about variants: the verdict over them (``monitor/verdict.py``), and how a shadow's answers differ
(``monitor/shadow_report.py``). Both come as JSON values and are told here in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.api.console import figures
from serving.api.console.markup import Html, el, html
from serving.api.console.panels import cell, table

#: The metrics that a verdict may be asked by, and what they are called.
METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "rmse": "RMSE",
    "business": "mean label",
    "error-rate": "error rate",
    "latency": "latency",
}
_MOST_CONFUSIONS, _MOST_COMPLAINTS = 12, 5
_TONES = {"Promote": "good", "RollBack": "bad", "Keep": "good"}
_WORDS = {"RollBack": "Roll back"}

Told = Mapping[str, Any]


def metric_form(url: str, chosen: str) -> Html:
    """By which metric variants are to be compared."""
    options = [el("option", words, value=name, selected=name == chosen) for name, words in METRICS.items()]
    select = el("select", options, name="metric", id="verdict-metric")
    label = el("label", "By", for_="verdict-metric")
    button = el("button", "Work it out", type="submit")
    return el("form", label, select, button, action=url, method="get", class_="by", data_fetches="verdict-told")


def verdict(told: Told) -> Html:
    """A decision in a sentence, and each variant's numbers."""
    tone = _TONES.get(str(told["Decision"]), "busy")
    by = METRICS.get(told["Metric"], "value").capitalize()
    heads = ("Variant", "#Calls", "#Error rate", "#p50", "#p99", "#Labelled", f"#{by}", "#Gain", "Decision")
    challengers = {one["VariantName"]: one for one in told["Challengers"]}
    rows = [_judged(one, challengers.get(one["VariantName"]), told["Baseline"]) for one in told["Variants"]]
    method = el("p", f"Wrong in {figures.share(told['Alpha'])} of cases at most; {told['Method']}.", class_="note")
    return html(
        (
            el("p", told["Sentence"], class_=f"sentence {tone}"),
            table("Variants compared", heads, rows, "There is no variant.", wide=True),
            _complaints(told["Complaints"]),
            method,
        )
    )


def _judged(one: Told, challenger: Told | None, baseline: str) -> Html:
    latency, name = one["ModelLatencySeconds"], one["VariantName"]
    decision = challenger["Decision"] if challenger else "baseline" if name == baseline else figures.NOTHING
    return el(
        "tr",
        el("th", name, scope="row"),
        cell("Calls", figures.number(one["Invocations"]), n=True),
        cell("Error rate", figures.share(one["ErrorRate"]), n=True),
        cell("p50", _seconds(latency.get("P50")), n=True),
        cell("p99", _seconds(latency.get("P99")), n=True),
        cell("Labelled", figures.number(one["LabelledCalls"]), n=True),
        cell("Value", _value(one["Value"], one["StandardError"]), n=True),
        cell("Gain", _interval(challenger) if challenger else figures.NOTHING, n=True),
        cell("Decision", _WORDS.get(decision, decision)),
    )


def _seconds(value: float | None) -> str:
    return figures.milliseconds(None if value is None else value * 1000)


def _value(value: float | None, error: float | None) -> str:
    if value is None:
        return figures.NOTHING
    return f"{value:.4g}" + (f" ± {error:.2g}" if error else "")


def _interval(one: Told) -> str:
    gain, low, high = one["Gain"], one["GainLow"], one["GainHigh"]
    if gain is None:
        return figures.NOTHING
    bounds = "" if low is None or high is None else f" ({low:+.3g} to {high:+.3g})"
    return f"{gain:+.3g}{bounds}"


def shadow(told: Told) -> Html:
    """How often and how far a shadow's answers differ, and whether it is slower."""
    shares = [
        ("Pairs compared", figures.number(told["Pairs"])),
        ("Agreement", figures.share(told["Agreement"])),
        ("Identical answers", figures.number(told["IdenticalPairs"])),
        ("Not comparable", figures.number(told["UnequalPairs"] + told["UnreadablePairs"])),
        *_latency(told.get("Latency")),
    ]
    return html(
        (
            el("p", told["Sentence"], class_="sentence busy"),
            el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in shares], class_="told"),
            _confusion(told.get("Classification")),
            _errors(told.get("Regression")),
            _examples(told.get("Examples", ())),
            _complaints(told["Complaints"]),
        )
    )


def _latency(told: Told | None) -> list[tuple[str, str]]:
    if not told or told["MeanDifferenceSeconds"] is None:
        return []
    low, high = told["MeanDifferenceLow"], told["MeanDifferenceHigh"]
    more = f"{1000 * told['MeanDifferenceSeconds']:+.3g} ms"
    bounds = "" if low is None or high is None else f" ({1000 * low:+.3g} to {1000 * high:+.3g})"
    return [("Shadow's latency", more + bounds)]


def _confusion(told: Told | None) -> Html | None:
    if not told:
        return None
    rows = (
        el(
            "tr",
            cell("Production", str(one["First"])),
            cell("Shadow", str(one["Second"]), tone="bad" if one["First"] != one["Second"] else ""),
            cell("Rows", figures.number(one["Rows"]), n=True),
        )
        for one in told["Confusion"][:_MOST_CONFUSIONS]
    )
    return table("Labels of production and shadow", ("Production", "Shadow", "#Rows"), rows, "No label on both sides.")


def _errors(told: Told | None) -> Html | None:
    if not told:
        return None
    kinds = [(name, told[name]) for name in ("AbsoluteError", "RelativeError") if told.get(name)]
    names = [name for name in (kinds[0][1] if kinds else {}) if name.lower() != "count"]
    rows = (
        el("tr", el("th", words, scope="row"), [cell(name, _value(one.get(name), None), n=True) for name in names])
        for words, one in ((_spaced(kind), one) for kind, one in kinds)
    )
    heads = ("Difference", *(f"#{name}" for name in names))
    return table("Differences of numbers", heads, rows, "No number on both sides.")


def _spaced(name: str) -> str:
    return "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in name).strip().capitalize()


def _examples(found: Sequence[Told]) -> Html | None:
    if not found:
        return None
    rows = (
        el(
            "tr",
            cell("Call", el("code", str(one["Key"]), class_="id")),
            cell("Row", figures.number(one["Row"]), n=True),
            cell("Difference", _value(one["Difference"], None), n=True),
        )
        for one in found
    )
    heads = ("Call", "#Row", "#Difference")
    return el("details", el("summary", "Worst examples"), table("Worst examples", heads, rows, ""))


def _complaints(found: Sequence[Told]) -> Html | None:
    if not found:
        return None
    items = [el("li", f"{one['Reason']} ({figures.number(one['Times'])}×)") for one in found[:_MOST_COMPLAINTS]]
    return el("ul", items, class_="note")
