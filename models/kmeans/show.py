"""The ten centres as images, each with digits that the live endpoint put beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import Ask, figure, save

_BESIDE = 5


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """A row of centres; under each the held-out digits whose ``closest_cluster`` it is, the nearest first."""
    centres = np.loadtxt(card / "centres.csv", delimiter=",")
    body = (card / "shown.csv").read_bytes()
    shown = np.loadtxt(body.decode().splitlines(), delimiter=",")
    rows = json.loads(ask(body, "text/csv", "application/json"))["predictions"]

    page = figure(7.0, 4.2)
    cells = page.subplots(1 + _BESIDE, len(centres))
    for cell in cells.flat:
        cell.axis("off")
    for cluster, centre in enumerate(centres):
        cells[0, cluster].imshow(centre.reshape(8, 8), cmap="Blues")
        cells[0, cluster].set_title(str(cluster))
        own = [at for at, row in enumerate(rows) if row["closest_cluster"] == cluster]
        own.sort(key=lambda at: rows[at]["distance_to_cluster"])
        for place, at in enumerate(own[:_BESIDE], 1):
            cells[place, cluster].imshow(shown[at].reshape(8, 8), cmap="gray_r")
            cells[place, cluster].set_title(f"{rows[at]['distance_to_cluster']:.0f}", fontsize=7, pad=1)
    page.suptitle("ten centres, and the nearest held-out digits of each with their distance")
    save(page, picture)
