"""What monitoring found, as gauges of the control process: violations, drift by feature, metrics by name.

The series are a schedule's and go with it: their holder is ``(endpoint, "", schedule)``, which no variant can be. A
schedule has at most ``MOST_NAMES`` features and as many metrics, the farthest from their baseline first: a name that is
shown stays while the server runs, and is NaN when an execution has nothing to say of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from serving.watch.logs import printable
from serving.watch.metrics import Holder, Registry

MOST_NAMES = 100
_LONGEST_NAME = 128


class Gauges:
    """The series of all schedules. For one thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._shown: dict[tuple[Holder, str], list[str]] = {}
        self.holders: frozenset[Holder] = frozenset()

    def keep(self, schedules: Collection[tuple[str, str]]) -> bool:
        """These are the schedules there are, as (endpoint, schedule). Returns whether others were known before."""
        holders = frozenset(holder(*one) for one in schedules)
        changed, self.holders = holders != self.holders, holders
        self._shown = {key: names for key, names in self._shown.items() if key[0] in holders}
        return changed

    def show(self, endpoint: str, schedule: str, time: float, result: Mapping[str, Any]) -> None:
        """What the last finished execution of a schedule found, ended at ``time`` (epoch seconds)."""
        if holder(endpoint, schedule) not in self.holders:
            return
        self._registry.counter("sagemaker_monitoring_violations", endpoint, schedule).set(float(result["Violations"]))
        self._registry.counter("sagemaker_monitoring_finished_seconds", endpoint, schedule).set(time)
        self._show_named("sagemaker_feature_baseline_drift", endpoint, schedule, result.get("Drift", {}))
        self._show_named("sagemaker_monitoring_metric", endpoint, schedule, result.get("Metrics", {}))

    def _show_named(self, family: str, endpoint: str, schedule: str, values: Mapping[str, float]) -> None:
        known = self._shown.setdefault((holder(endpoint, schedule), family), [])
        found = {_label(name): float(value) for name, value in values.items() if isinstance(value, int | float)}
        fresh = sorted(found.keys() - set(known), key=lambda name: (-abs(found[name]), name))
        known += fresh[: MOST_NAMES - len(known)]
        for name in known:
            self._registry.counter(family, endpoint, schedule, name).set(found.get(name, math.nan))


def holder(endpoint: str, schedule: str) -> Holder:
    """Whose the series of a schedule are (``metrics.holders``)."""
    return endpoint, "", schedule


def _label(name: str) -> str:
    """A column's name, which callers chose, as a label."""
    return printable(name)[:_LONGEST_NAME]
