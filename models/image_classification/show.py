"""A grid of held-out digits with the class that the live endpoint answers for each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models import pictures
from models.showing import ODD, TRUTH, Ask, figure, save

_COLUMNS = 12


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Each digit is one request; above it stand the class of the highest probability, red where it is wrong, and that
    probability."""
    truth = json.loads((card / "shown.json").read_bytes())
    digits = np.split(pictures.read((card / "shown.png").read_bytes()), len(truth), axis=1)
    page = figure(9.0, 1.15 * len(truth) / _COLUMNS)
    places = page.subplots(len(truth) // _COLUMNS, _COLUMNS)
    for place, digit, true in zip(places.flat, digits, truth, strict=True):
        chances = json.loads(ask(pictures.png(digit), "image/png", "application/json"))
        said = int(np.argmax(chances))
        place.imshow(digit, cmap="gray_r", interpolation="nearest")
        place.set_title(f"{said}  {chances[said]:.2f}", color=TRUTH if said == true else ODD, fontsize=9)
        place.set_axis_off()
    save(page, picture)
