"""The photograph with the mask that the live endpoint answers, and what was never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import pictures
from models.semantic_segmentation.train import TRAINED_ON
from models.showing import MODEL, ODD, Ask, figure, save


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Left the photograph with the coins' answered outlines, right the answered mask and where it differs from the
    computed one; what lies right of the line is judged on."""
    body = (card / "photograph.jpg").read_bytes()
    mask = pictures.read(ask(body, "image/jpeg", "image/png"))
    true = pictures.read((card / "coins.png").read_bytes())
    page = figure(9.0, 3.6)
    left, right = page.subplots(1, 2)
    left.imshow(pictures.read(body), cmap="gray")
    left.contour(mask, [0.5], colors=MODEL, linewidths=1)
    left.set_title("sent, and the answered outlines")
    both = np.full((*mask.shape, 3), 255, np.uint8)
    both[mask == 1] = _colour(MODEL)
    both[mask != true] = _colour(ODD)
    right.imshow(both, interpolation="nearest")
    right.set_title("the answered mask; red where it differs")
    for place in (left, right):
        place.axvline(TRAINED_ON, color="white" if place is left else "black", linestyle="--", linewidth=1)
        place.set_axis_off()
    save(page, picture)


def _colour(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(name.removeprefix("#")))
