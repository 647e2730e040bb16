"""How hard calls press on a variant's or component's workers, over all fronts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A front that has said nothing for so long has no calls waiting any more: it looks four times a second.
_FRESH_SECONDS = 0.6
_SUMMED = ("pending_least", "pending")


class Pressures:
    """The latest that each front has said of each."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], dict[int, tuple[float, Mapping[str, Any]]]] = {}

    def add(self, report: Mapping[str, Any], now: float) -> dict[str, Any]:
        """A front's report (``link.py``, ``pressure``, with its number as ``child``), with the calls of the others."""
        said = self._said.setdefault((report["endpoint"], report["name"]), {})
        said[report["child"]] = now, report
        fresh = {child: one for child, one in said.items() if now - one[0] <= _FRESH_SECONDS}
        self._said[report["endpoint"], report["name"]] = fresh
        pace = sum(one["calls"] / one["window"] for _, one in fresh.values())
        summed = {name: sum(one[name] for _, one in fresh.values()) for name in _SUMMED}
        return {**report, "calls": round(pace * report["window"]), **summed}

    def gone(self, child: int) -> None:
        """A front has ended, and its calls with it."""
        for said in self._said.values():
            said.pop(child, None)
        self._said = {place: said for place, said in self._said.items() if said}
