"""The panel of what scales an endpoint: limits and capacity, what each policy measures, what was decided and done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.console import figures
from serving.api.console.markup import Html, el, html
from serving.api.console.panels import badge, cell, table, when

View = Mapping[str, Any]

_MOST = 12
#: Metrics that are calls a minute for each worker.
_LOADS = ("InvocationsPerInstance", "InvocationsPerCopy")


def targets(view: View) -> dict[str, float]:
    """By variant or component, the calls a minute that a policy wants of each worker."""
    return {
        target["Name"]: policy["TargetValue"]
        for target in view.get("Targets", ())
        for policy in target["Policies"]
        if policy.get("Metric") in _LOADS
    }


def scaling(view: View) -> Html:
    """All of it (``fleet/scaling_view.py``)."""
    found = view.get("Targets", ())
    if not found:
        return el("p", "Nothing scales this endpoint: it has no scalable target.", class_="empty")
    return html([_limits(found), _policies(found), _decisions(found), _activities(found)])


def _limits(found: list[View]) -> Html:
    heads = ("Scaled", "#Ready", "#Wanted", "#Least", "#Most", "Held back by")
    return table("Capacity and its limits", heads, map(_target, found), "")


def _target(one: View) -> Html:
    suspended = [name.removesuffix("Suspended") for name, is_so in one["SuspendedState"].items() if is_so]
    cooling = [f"cooldown {way.lower()} {figures.age(left)}" for way, left in one["CooldownLeft"].items() if left]
    held = [one["Blocked"], f"suspended: {', '.join(suspended)}" if suspended else "", *cooling]
    ready, desired = one["CurrentCapacity"], one["DesiredCapacity"]
    return el(
        "tr",
        el("th", one["Name"], scope="row"),
        cell("Ready", figures.number(ready), n=True, tone="bad" if ready < (desired or 0) else ""),
        cell("Wanted", figures.number(desired), n=True),
        cell("Least", figures.number(one["MinCapacity"]), n=True),
        cell("Most", figures.number(one["MaxCapacity"]), n=True),
        cell("Held back by", ", ".join(filter(None, held)) or figures.NOTHING),
    )


def _policies(found: list[View]) -> Html:
    rows = [
        el(
            "tr",
            cell("Policy", policy["PolicyName"]),
            cell("Of", target["Name"]),
            cell("Tracks", policy.get("Metric") or "steps of an alarm"),
            cell("Measured", (target["Latest"] or {}).get("Measured", {}).get(policy["PolicyName"], figures.NOTHING)),
        )
        for target in found
        for policy in target["Policies"]
    ]
    rows += [
        el(
            "tr",
            cell("Policy", action["ScheduledActionName"]),
            cell("Of", target["Name"]),
            cell("Tracks", action["Schedule"]),
            cell("Measured", ("next ", when(action["Next"])) if action["Next"] is not None else "not again"),
        )
        for target in found
        for action in target["ScheduledActions"]
    ]
    empty = "It has no policy and no scheduled action."
    return table("Policies and scheduled actions", ("Policy", "Of", "Tracks", "Measured"), rows, empty)


def _decisions(found: list[View]) -> Html:
    """Those that changed something, or say why not."""
    told = [
        (target["Name"], one)
        for target in found
        for one in target["Decisions"]
        if one["Current"] != one["Desired"] or one["NotScaledReasons"] or one["Outcome"]
    ]
    told.sort(key=lambda named: -float(named[1]["Time"]))
    rows = (
        el(
            "tr",
            cell("Decided", when(one["Time"])),
            cell("Of", name),
            cell(
                "Capacity", f"{one['Current']} → {one['Desired']}" if one["Current"] != one["Desired"] else "unchanged"
            ),
            cell("Because", _because(one)),
            cell("Not more", ", ".join(filter(None, [*one["NotScaledReasons"], one["Outcome"]])) or figures.NOTHING),
        )
        for name, one in told[:_MOST]
    )
    return table("Decisions, newest first", ("Decided", "Of", "Capacity", "Because", "Not more"), rows, "None yet.")


def _because(one: View) -> str:
    measured = one["Measured"].get(one["Policy"]) if one["Policy"] else None
    return f"{one['Policy']}: {measured}" if measured else one["Cause"] or figures.NOTHING


def _activities(found: list[View]) -> Html:
    told = [(target["Name"], one) for target in found for one in target["Activities"]]
    told.sort(key=lambda named: -float(named[1]["StartTime"]))
    rows = (
        el(
            "tr",
            cell("Begun", when(one["StartTime"])),
            cell("Of", name),
            cell("State", badge(one["StatusCode"])),
            cell("What", one["Description"]),
            cell("How it ended", one["StatusMessage"]),
        )
        for name, one in told[:_MOST]
    )
    heads = ("Begun", "Of", "State", "What", "How it ended")
    return table("Changes of capacity, newest first", heads, rows, "The capacity has not been changed.")
