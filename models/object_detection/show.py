"""Scenes that were never trained on, with the boxes that the live endpoint answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from models import pictures
from models.object_detection.scenes import SIDE
from models.showing import Ask, figure, save

#: The scenes on the card that are drawn: too much grass makes too large a file.
_SHOWN, _COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11), 4
_ANSWERED, _TRUE = "#ffe14d", "white"


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """What is answered stands in yellow with digit and score, what is really there in dotted white."""
    truth = json.loads((card / "shown.json").read_bytes())
    scenes = np.split(pictures.read((card / "shown.png").read_bytes()), len(truth), axis=1)
    page = figure(6.4, 3.3)
    places = page.subplots(len(_SHOWN) // _COLUMNS, _COLUMNS)
    for place, one in zip(places.flat, _SHOWN, strict=True):
        pixels, true = scenes[one], truth[one]
        answer = json.loads(ask(pictures.png(pixels), "image/png", "application/json"))
        place.imshow(pixels)
        for left, top, right, bottom in true["boxes"]:
            _frame(place, left, top, right, bottom, color=_TRUE, linestyle=":")
        for digit, score, *corners in answer["prediction"]:
            left, top, right, bottom = (corner * SIDE for corner in corners)
            _frame(place, left, top, right, bottom, color=_ANSWERED)
            place.text(
                left, max(top - 2, 6), f"{digit:.0f} {score:.2f}", color="black", backgroundcolor=_ANSWERED, fontsize=6
            ).get_bbox_patch().set_boxstyle("square", pad=0.1)
        place.set_axis_off()
    save(page, picture)


def _frame(place: Any, left: float, top: float, right: float, bottom: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    frame = Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=1.2, **style)
    place.add_patch(frame)
