"""Held-out digits beside the neighbours that named them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.data import Floats
from models.showing import ODD, QUIET, Ask, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 8


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """A column a digit: the one asked about, then its five nearest, found again by the distances of the live answer.
    Half of the digits are ones whose neighbours disagree; the outvoted are framed."""
    held = np.loadtxt(card / "held.csv", delimiter=",", skiprows=1, dtype=np.float32)
    known = np.loadtxt(card / "train.csv", delimiter=",", skiprows=1, dtype=np.float32)
    rows = "\n".join(",".join(map(str, row)) for row in held[:, 1:]).encode()
    answers = json.loads(ask(rows, "text/csv", "application/json; verbose=true"))["predictions"]
    doubtful = sorted(range(len(held)), key=lambda row: (len(set(answers[row]["labels"])) == 1, row))
    asked = sorted(doubtful[: _SHOWN // 2] + doubtful[-_SHOWN // 2 :])

    page = figure(8.0, 5.6)
    grid = page.subplots(1 + len(answers[0]["labels"]), _SHOWN)
    for column, row in enumerate(asked):
        answer = answers[row]
        _tile(grid[0, column], held[row, 1:], f"answer {answer['predicted_label']:.0f}")
        far = np.sqrt(((known[:, 1:] - held[row, 1:]) ** 2).sum(axis=1))
        for place, (distance, label) in enumerate(zip(answer["distances"], answer["labels"], strict=True), 1):
            same = np.where(known[:, 0] == label, np.abs(far - distance), np.inf)
            _tile(grid[place, column], known[same.argmin(), 1:], f"{distance:.1f}")
            if label != answer["predicted_label"]:
                _frame(grid[place, column])
    page.supylabel("asked, then its neighbours and their distances")
    save(page, picture)


def _tile(axes: Axes, ink: Floats, title: str) -> None:
    axes.imshow(ink.reshape(8, 8), cmap="gray_r")
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(visible=True, color=QUIET)


def _frame(axes: Axes) -> None:
    for side in axes.spines.values():
        side.set(color=ODD, linewidth=2)
