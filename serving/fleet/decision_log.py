"""The decision log: what was measured, what was decided, why not more. The last of each target in memory, those that
tell something new in ``decisions.jsonl``."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

from serving.fleet.activities import reason
from serving.scaling.values import NAMESPACE, Decision, Resource
from serving.watch.journal import Journal

#: Entries of one target that are kept in memory.
_KEPT = 20
#: Activities that came to nothing, of all targets.
_MOST_IDLE = 1000
_MOST_BYTES = 4 * 2**20

log = logging.getLogger("serving.scaling")


class DecisionLog:
    """Entries are plain dicts: ``Time``, ``ResourceId``, ``ScalableDimension``, ``Current``, ``Desired``, ``Cause``,
    ``Policy``, ``Measured`` (policy -> words), ``NotScaledReasons`` (codes), ``Outcome`` (words)."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the data folder."""
        self._journal = Journal(folder / "decisions.jsonl", _MOST_BYTES)
        self._kept: dict[Resource, deque[dict[str, Any]]] = {}
        self._now: dict[Resource, dict[str, Any]] = {}
        self._idle: deque[dict[str, Any]] = deque(maxlen=_MOST_IDLE)

    def add(self, decision: Decision, now: float, outcome: str = "") -> None:
        """Remember a decision. ``outcome``: what became of one that would have changed something. One that says no
        more than the one before is only the newest of all."""
        entry = {
            "Time": now,
            "ResourceId": decision.resource.id,
            "ScalableDimension": decision.resource.dimension,
            "Current": decision.current,
            "Desired": decision.desired,
            "Cause": decision.cause,
            "Policy": decision.policy,
            "Measured": dict(decision.measured),
            "NotScaledReasons": [one.code for one in decision.not_scaled],
            "Outcome": outcome,
        }
        before = self._now.get(decision.resource)
        self._now[decision.resource] = entry
        if before is None or _gist(before) != _gist(entry) or (decision.desired != decision.current and not outcome):
            self._kept.setdefault(decision.resource, deque(maxlen=_KEPT)).appendleft(entry)
            self._journal.add(entry)
            if decision.not_scaled and decision.desired == decision.current:
                self._idle.appendleft(_activity(decision, now))
            if decision.desired != decision.current:
                log.info("%s: %d -> %d: %s%s", *_said(decision), f" ({outcome})" if outcome else "")

    def entries(self, resource: Resource) -> list[dict[str, Any]]:
        """Those of a target that told something new, newest first."""
        return list(self._kept.get(resource, ()))

    def latest(self, resource: Resource) -> dict[str, Any] | None:
        """The newest, whether it told something new or not."""
        return self._now.get(resource)

    def not_scaled(self) -> list[dict[str, Any]]:
        """Activities that came to nothing, newest first, as DescribeScalingActivities shows them."""
        return list(self._idle)

    def keep(self, resources: Collection[Resource]) -> None:
        """Forget all others."""
        for gone in [one for one in self._now if one not in resources]:
            del self._now[gone]
            self._kept.pop(gone, None)

    def flush(self) -> None:
        """Write to the file what has been added."""
        self._journal.flush()

    def close(self) -> None:
        """Write the rest."""
        self._journal.close()


def _activity(decision: Decision, now: float) -> dict[str, Any]:
    return {
        "ActivityId": str(uuid.uuid4()),
        "ServiceNamespace": NAMESPACE,
        "ResourceId": decision.resource.id,
        "ScalableDimension": decision.resource.dimension,
        "Description": "Attempting to scale due to alarm triggered",
        "Cause": decision.cause or "an alarm of a scaling policy is in state ALARM",
        "StartTime": now,
        "EndTime": now,
        "StatusCode": "Failed",
        "StatusMessage": f"The capacity was left at {decision.current}.",
        "NotScaledReasons": [reason(one) for one in decision.not_scaled],
    }


def _said(decision: Decision) -> tuple[str, int, int, str]:
    return decision.resource.id, decision.current, decision.desired, decision.cause


def _gist(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("Current", "Desired", "Cause", "NotScaledReasons", "Outcome"))
