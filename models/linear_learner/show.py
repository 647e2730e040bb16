"""How well the classifier tells tumours apart, and which measurements it goes by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import MODEL, ODD, TRUTH, Ask, figure, save

_WEIGHTS = 8


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """The live endpoint's scores of all held-out tumours by what they were, and the largest weights."""
    held = np.loadtxt(card / "held.csv", delimiter=",", skiprows=1, dtype=np.float32)
    rows = "\n".join(",".join(map(str, row)) for row in held[:, 1:]).encode()
    answer = json.loads(ask(rows, "text/csv", "application/json"))
    scores = np.array([row["score"] for row in answer["predictions"]])
    weights = json.loads((card / "weights.json").read_bytes())
    largest = sorted(weights, key=lambda name: -abs(weights[name]))[:_WEIGHTS][::-1]

    page = figure(9.0, 3.4)
    left, right = page.subplots(1, 2, width_ratios=(1.2, 1.0))
    bins = np.linspace(0, 1, 21)
    benign = held[:, 0] == 1
    kinds = {"stacked": True, "label": ["benign", "malignant"], "color": [MODEL, ODD]}
    left.hist([scores[benign], scores[~benign]], bins, **kinds)
    left.axvline(0.5, linestyle=":", color=TRUTH, linewidth=1)
    left.set_xlabel("score")
    left.set_ylabel("held-out tumours")
    left.legend(loc="upper center", bbox_to_anchor=(0.42, 1.0))
    right.barh(largest, [weights[name] for name in largest], color=MODEL)
    right.set_xlabel("weight (above 0: towards benign)")
    right.tick_params(axis="y", labelsize=8)
    save(page, picture)
