"""How well late flights are told from the others, and what the trees go by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.showing import MODEL, TRUTH, Ask, figure, save

_LATE = 15
_COLUMNS = 8


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """The ROC curve of the live answers to held-out flights beside that of the delay at departure; total gains."""
    header, _, body = (card / "held.csv").read_bytes().partition(b"\n")
    lines = [line.partition(b",") for line in body.splitlines()]
    late = np.array([float(minutes) for minutes, _, _ in lines]) >= _LATE
    scores = np.array(ask(b"\n".join(row for _, _, row in lines), "text/csv", "text/csv").split(), np.float64)
    names = header.decode().split(",")[1:]
    at = names.index("delay")
    delays = np.array([float(row.split(b",")[at]) for _, _, row in lines])
    gains = json.loads((card / "gain.json").read_bytes())
    most = sorted(gains, key=lambda name: gains[name])[-_COLUMNS:]

    page = figure(8.0, 3.6)
    left, right = page.subplots(1, 2)
    for values, label, colour in ((scores, "XGBoost", MODEL), (delays, "the delay at departure alone", TRUTH)):
        across, up = _curve(values, late)
        area = float(np.trapezoid(up, across))
        left.plot(across, up, color=colour, label=f"{label}: {area:.3f}")
    left.plot((0, 1), (0, 1), linestyle=":", color=TRUTH, linewidth=1)
    left.set_xlabel("flights in time, called late")
    left.set_ylabel("late flights, called late")
    left.legend(loc="lower right", title="area under the curve")
    right.plot([gains[name] for name in most], most, "o", color=MODEL)
    right.grid(axis="y", linestyle=":")
    right.set_xscale("log")
    right.set_xlabel("gain of all splits on the column")
    save(page, picture)


def _curve(values: NDArray[np.float64], late: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of flights in time and of late ones above each threshold, equal values at once."""
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    caught, wrong = np.cumsum(late[order])[ends], np.cumsum(~late[order])[ends]
    return np.append(0.0, wrong / wrong[-1]), np.append(0.0, caught / caught[-1])
