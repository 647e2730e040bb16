"""A bench run's figures and how they are shown: a table for people, JSON for the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

from loadtests.generator import tool
from loadtests.processes import cores


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. ``value`` is compared with ``target``; ``ours`` and ``baseline`` are for the reader.

    ``failures`` counts calls that failed or answered wrongly: a figure with any is a miss, however fast.
    """

    workload: str
    what: str
    ours: str
    baseline: str
    value: float
    target: float
    direction: Literal[">=", "<="] = ">="
    unit: str = "x"
    note: str = ""
    failures: int = 0

    @property
    def ok(self) -> bool:
        """Whether the target is reached, honestly."""
        reached = self.value >= self.target if self.direction == ">=" else self.value <= self.target
        return reached and not self.failures


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": cores(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
        "generator": tool(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "unset"),
    }


def table(figures: Sequence[Figure], facts: dict[str, Any]) -> Table:
    """The figures beside their targets."""
    title = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    grid = Table(title=f"serving beside its floor ({title})", title_justify="left", show_lines=False)
    for column in ("workload", "figure", "ours", "baseline"):
        grid.add_column(column, overflow="fold")
    for column in ("value", "target"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    grid.add_column("note", overflow="fold")
    for one in figures:
        verdict = "[green]ok[/]" if one.ok else "[bold red]MISS[/]"
        note = f"[red]{one.failures} failed calls[/] {one.note}" if one.failures else one.note
        value, target = f"{one.value:.2f} {one.unit}", f"{one.direction} {one.target:g} {one.unit}"
        grid.add_row(one.workload, one.what, one.ours, one.baseline, value, target, verdict, note)
    return grid


def document(figures: Sequence[Figure], facts: dict[str, Any]) -> dict[str, Any]:
    """The same as plain values."""
    return {"machine": facts, "figures": [{**asdict(one), "ok": one.ok} for one in figures]}
