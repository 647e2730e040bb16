"""What the terminal asks of a server's verdicts and captures, and how it shows them."""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from serving.client import Server
from serving.errors import ConfigError, ValidationError
from serving.monitor.captures import parse
from serving.monitor.files import in_time
from serving.monitor.values import Complaints, Record

Body = dict[str, Any]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

_DECISIONS = {"keep": "Keep", "promote": "Promote", "rollback": "RollBack", "wait": "Wait"}
_LONGEST_SHOWN = 60
#: A server that is still computing says so after 25 s; it is asked so often in all.
_PATIENCE, _UNAVAILABLE = 12, 503


# --- asking ---------------------------------------------------------------------------------------------------------


def verdict(server: Server, endpoint: str, asked: Mapping[str, Any]) -> Body:
    """GET …/verdict. Raises ``Refused``."""
    return _asked(server, f"{_path(endpoint)}/verdict", asked, "read")


def shadow_report(server: Server, endpoint: str, asked: Mapping[str, Any]) -> Body:
    """GET …/shadow-report. Raises ``Refused``."""
    return _asked(server, f"{_path(endpoint)}/shadow-report", asked, "manage" if asked["bodies"] else "read")


def _path(endpoint: str) -> str:
    return f"/endpoints/{quote(endpoint, safe='-_.~')}"


def _asked(server: Server, path: str, asked: Mapping[str, Any], action: Any) -> Body:
    given = {name: value for name, value in asked.items() if value not in ("", None, [])}
    for _ in range(_PATIENCE):
        answer = server.send("GET", f"{path}?{urlencode(given, doseq=True)}" if given else path, action)
        if answer.status != _UNAVAILABLE or "ask again" not in answer.complaint:
            break
    return server.told(answer)


def captured(server: Server, endpoint: str, complaints: Complaints) -> Iterator[Record]:
    """What an endpoint's production variants have captured until now, about in order of time. Shadows' records are
    copies of theirs. Raises ``Refused``."""
    until = str(int(time.time()))
    found = _asked(server, _path(endpoint), {}, "read").get("ProductionVariants", ())
    streams = (_of_variant(server, endpoint, one["VariantName"], until, complaints) for one in found)
    return heapq.merge(*map(in_time, streams), key=lambda record: record.time)


def _of_variant(server: Server, endpoint: str, variant: str, until: str, complaints: Complaints) -> Iterator[Record]:
    path = f"{_path(endpoint)}/captures?{urlencode({'variant': variant, 'until': until})}"
    for line in server.stream(path, "manage"):
        if not line.isspace():
            try:
                yield parse(line, variant)
            except ValidationError as error:
                complaints.add(error.message, variant)


def exit_statuses(text: str) -> dict[str, int]:
    """Decision -> exit status, of ``promote=0,keep=3,rollback=4,wait=5``. Raises ``ConfigError``."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, status = part.partition("=")
        if name not in _DECISIONS or not re.fullmatch(r"\d{1,3}", status) or int(status) > 255:
            raise ConfigError(f"{part!r} is no {', '.join(_DECISIONS)} = exit status 0 to 255.")
        found[_DECISIONS[name]] = int(status)
    return found


# --- showing --------------------------------------------------------------------------------------------------------


def verdict_table(found: Body) -> Table:
    """A verdict's variants."""
    heading = ("VARIANT", "WEIGHT", "CALLS", "ERRORS", "P50 MS", "P99 MS", "CAPTURED", "LABELLED")
    return (*heading, found["Metric"].upper()), [_variant_row(one) for one in found["Variants"]]


def _variant_row(one: Body) -> tuple[str, ...]:
    value = "-"
    if one["Value"] is not None:
        value = f"{one['Value']:.4g}"
        if one["StandardError"] is not None:
            value += f" ± {one['StandardError']:.2g}"
    return (
        one["VariantName"],
        f"{one['Weight']:g}",
        f"{one['Invocations']:,}",
        f"{one['Errors']:,}",
        *(milliseconds(one["ModelLatencySeconds"][q]).removesuffix(" ms") for q in ("P50", "P99")),
        f"{one['CapturedCalls']:,}",
        f"{one['LabelledCalls']:,}",
        value,
    )


def sentences(found: Body) -> Iterator[str]:
    """What follows: for each challenger, or for all there are."""
    yield ""
    if len(found["Challengers"]) > 1:
        yield from (one["Sentence"] for one in found["Challengers"])
        yield f"In all: {found['Sentence']}"
    else:
        yield found["Sentence"]


def difference_tables(found: Body) -> Iterator[Table]:
    """The tables of a difference."""
    labels, numbers = found.get("Classification"), found.get("Regression")
    if labels and found["Kind"] == "classification":
        yield (
            ("FIRST", "SECOND", "ROWS"),
            [(one["First"], one["Second"], f"{one['Rows']:,}") for one in labels["Confusion"][:20]],
        )
    errors = [("score distance", labels["ScoreDistance"])] if labels and labels["ScoreDistance"]["Count"] else []
    if numbers and found["Kind"] == "regression":
        errors += [("absolute error", numbers["AbsoluteError"]), ("relative error", numbers["RelativeError"])]
    if errors:
        yield ("", "MEAN", "P50", "P90", "P99", "MAX"), [_error_row(name, one) for name, one in errors]
    if found["Examples"]:
        yield (
            ("DIFFERENCE", "CALL", "ROW", "FIRST", "SECOND", "INPUT"),
            [_example_row(one) for one in found["Examples"]],
        )


def _error_row(name: str, one: Body) -> tuple[str, ...]:
    return (name, *("-" if one[key] is None else f"{one[key]:.4g}" for key in ("Mean", "P50", "P90", "P99", "Max")))


def _example_row(one: Body) -> tuple[str, ...]:
    shown = (" ".join(one.get(key, "-").split())[:_LONGEST_SHOWN] for key in ("First", "Second", "Input"))
    difference = "∞" if one["Difference"] is None else f"{one['Difference']:.4g}"
    return (difference, one["Key"] or "-", str(one["Row"]), *shown)


def replay_facts(told: Body) -> Iterator[tuple[str, str]]:
    """What there is to say of a replay."""
    yield "sent", f"{told['Sent']:,} in {told['Seconds']:.1f} s, to {told['Target']}"
    yield "failed", f"{told['Sent'] - told['Answered']:,} ({told['ErrorRate']:.2%})"
    difference = told["Difference"]
    if difference["Agreement"] is not None:
        yield "agreement", f"{difference['Agreement']:.2%} of {difference['Pairs']:,} ({difference['Kind']})"
    now, then = told["LatencySeconds"], told["CapturedLatencySeconds"]
    yield "latency", ", ".join(f"{q.lower()} {milliseconds(now[q])}" for q in ("P50", "P90", "P99"))
    if told["LatencyRatio"] is not None:
        yield "captured", ", ".join(f"{q.lower()} {milliseconds(then[q])}" for q in ("P50", "P90", "P99"))
        yield "latency ratio", f"{told['LatencyRatio']:.3g} of the median"
    if told["LateSeconds"]["Max"]:
        yield (
            "sent late by",
            ", ".join(f"{q.lower()} {milliseconds(told['LateSeconds'][q])}" for q in ("P50", "P99", "Max")),
        )


def milliseconds(seconds: float | None) -> str:
    """A time for a person."""
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"
