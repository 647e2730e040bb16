"""Where the digits lie along the two widest directions, and what is left of them in ten numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import Ask, figure, save

_REBUILT = 5


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """A map of the held-out digits by the live answer's first two numbers; some digits, rebuilt from all ten."""
    import matplotlib

    held = np.loadtxt(card / "held.csv", delimiter=",", skiprows=1, dtype=np.float32)
    rows = "\n".join(",".join(map(str, row)) for row in held[:, 1:]).encode()
    answers = json.loads(ask(rows, "text/csv", "application/json"))["projections"]
    projected = np.array([answer["projection"] for answer in answers])
    rebuilt = projected @ np.load(card / "components.npy") + np.load(card / "mean.npy")

    page = figure(8.0, 4.2)
    chart, tiles = page.subfigures(1, 2, width_ratios=(2.2, 1.0))  # type: ignore[misc]  # an array of two
    axes = chart.subplots()
    colours = matplotlib.colormaps["tab10"]
    axes.set_xlim(projected[:, 0].min() - 2, projected[:, 0].max() + 2)
    axes.set_ylim(projected[:, 1].min() - 2, projected[:, 1].max() + 2)
    for (across, up), digit in zip(projected[:, :2], held[:, 0].astype(int), strict=True):
        axes.text(across, up, str(digit), color=colours(digit), fontsize=8, ha="center", va="center")
    axes.set_xlabel("first number of the projection")
    axes.set_ylabel("second")
    for column, (title, images) in enumerate((("asked", held[:, 1:]), ("from ten numbers", rebuilt))):
        for place in range(_REBUILT):
            tile = tiles.add_subplot(_REBUILT, 2, 1 + column + 2 * place)
            tile.imshow(images[place].reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            tile.set_axis_off()
            if not place:
                tile.set_title(title, fontsize=9)
    save(page, picture)
