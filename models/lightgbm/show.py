"""Minutes lost on the way: foretold and true, by how much was foretold and by carrier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import MODEL, QUIET, TRUTH, Ask, figure, save

_PARTS = 20
_FEWEST = 150


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """The live answers to held-out flights in twenty equal parts, each with the mean and the middle half of the truth;
    means by carrier."""
    header, _, body = (card / "held.csv").read_bytes().partition(b"\n")
    lines = [line.partition(b",") for line in body.splitlines()]
    answers = json.loads(ask(b"\n".join(row for _, _, row in lines), "text/csv", "application/json"))
    foretold = np.array(answers["predictions"])
    names = header.decode().split(",")[1:]
    cells = [row.split(b",") for _, _, row in lines]
    delay, carrier = (np.array([float(row[names.index(name)]) for row in cells]) for name in ("delay", "carrier"))
    true = np.array([float(minutes) for minutes, _, _ in lines]) - delay

    page = figure(8.0, 3.8)
    left, right = page.subplots(1, 2)
    parts = np.array_split(np.argsort(foretold), _PARTS)
    across = [foretold[part].mean() for part in parts]
    low, high = ([np.quantile(true[part], share) for part in parts] for share in (0.25, 0.75))
    left.fill_between(across, low, high, color=QUIET, alpha=0.5, linewidth=0, label="middle half of the truth")
    left.plot(across, [true[part].mean() for part in parts], "o", color=MODEL, markersize=4, label="mean of the truth")
    left.plot(across, across, ":", color=TRUTH, linewidth=1, label="as foretold")
    left.set_xlabel("minutes foretold")
    left.set_ylabel("minutes lost")
    left.legend(loc="upper left")
    codes = json.loads((card / "codes.json").read_bytes())["carrier"]
    shown = [number for number in range(len(codes)) if (carrier == number).sum() >= _FEWEST]
    shown.sort(key=lambda number: true[carrier == number].mean())
    for place, number in enumerate(shown):
        rows = carrier == number
        right.plot(true[rows].mean(), place, "o", color=TRUTH, label="true" if not place else None)
        right.plot(foretold[rows].mean(), place, "D", color=MODEL, label="foretold" if not place else None)
    right.set_yticks(range(len(shown)), [codes[number] for number in shown])
    right.set_xlabel("mean minutes lost, by carrier")
    right.legend(loc="lower right")
    save(page, picture)
