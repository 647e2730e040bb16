"""Composed scenes: handwritten digits painted onto real pictures, so that each box is known exactly.

No package with boxes that people drew was found; these are boxes of what was pasted, and a card that uses them says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import pictures
from models.data import SEED, Floats

SIDE = 96
FEWEST, MOST = 1, 6
_SMALLEST, _LARGEST = 22, 40
_HELD = 1000
#: Pictures of scikit-image that stay visible as backgrounds: those to train on, and those only judged on.
TRAINED_ON = ("astronaut", "brick", "camera", "chelsea", "gravel", "immunohistochemistry")
JUDGED_ON = ("coffee", "grass", "rocket", "retina")


class Scene(NamedTuple):
    """``pixels``: uint8 ``[SIDE, SIDE, 3]``; ``boxes``: ``[n, 4]`` xmin, ymin, xmax, ymax in pixels, tight around the
    ink; ``classes``: ``[n]``, the digits."""

    pixels: pictures.Pixels
    boxes: Floats
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Painter:
    """Draws scenes from digits and backgrounds of its own: those held out are never trained on."""

    digits: pictures.Pixels
    labels: NDArray[np.int64]
    backgrounds: tuple[pictures.Pixels, ...]

    def scene(self, dice: np.random.Generator) -> Scene:
        """One to six digits of random size and colour on a random piece of a random picture;
        one that would lie on another is left out."""
        pixels = self._background(dice).astype(np.float32)
        boxes: list[tuple[int, int, int, int]] = []
        classes = []
        for _ in range(dice.integers(FEWEST, MOST + 1)):
            one = int(dice.integers(len(self.digits)))
            ink = _resized(self.digits[one], int(dice.integers(_SMALLEST, _LARGEST + 1)))
            high, wide = ink.shape
            left, top = int(dice.integers(SIDE - wide + 1)), int(dice.integers(SIDE - high + 1))
            box = (left, top, left + wide, top + high)
            if any(_touch(box, other) for other in boxes):
                continue
            part = pixels[top : top + high, left : left + wide]
            part += ink[:, :, None] * (_colour(part.mean(axis=(0, 1)), dice) - part)
            boxes.append(box)
            classes.append(self.labels[one])
        return Scene(pixels.round().astype(np.uint8), np.array(boxes, np.float32), np.array(classes))

    def _background(self, dice: np.random.Generator) -> pictures.Pixels:
        """A square piece of a picture, from as large as the scene to twice that, as a scene."""
        whole = self.backgrounds[dice.integers(len(self.backgrounds))]
        side = int(dice.integers(SIDE, 2 * SIDE))
        top, left = (int(dice.integers(size - side + 1)) for size in whole.shape[:2])
        grid = np.arange(SIDE) * side // SIDE
        return whole[top + grid[:, None], left + grid]


def painters() -> tuple[Painter, Painter]:
    """Of scenes to train on, and of scenes to judge on."""
    digits, labels = pictures.digits()
    order = np.random.default_rng(SEED).permutation(len(digits))
    parts = (order[_HELD:], TRAINED_ON), (order[:_HELD], JUDGED_ON)
    trained, judged = (
        Painter(digits[rows], labels[rows], tuple(_picture(name) for name in names)) for rows, names in parts
    )
    return trained, judged


def overlap(one: Floats, other: Floats) -> float:
    """The area that two boxes share, as a part of the two together."""
    wide, high = (max(0.0, min(one[at + 2], other[at + 2]) - max(one[at], other[at])) for at in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(wide * high / (areas[0] + areas[1] - wide * high))


@cache
def _picture(name: str) -> pictures.Pixels:
    """A picture of scikit-image, uint8 ``[height, width, 3]``."""
    from skimage import data

    found = np.asarray(getattr(data, name)())  # all that are named here are files of the package itself
    return np.repeat(found[:, :, None], 3, axis=2) if found.ndim == 2 else np.ascontiguousarray(found[:, :, :3])


def _resized(digit: pictures.Pixels, size: int) -> Floats:
    """The digit's ink, cut to its edges, its longer side ``size``; 0 to 1."""
    from PIL import Image

    rows, columns = (np.flatnonzero(digit.max(axis=axis) > 64) for axis in (1, 0))
    tight = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shrink = size / max(tight.shape)
    wide, high = (max(2, round(side * shrink)) for side in tight.shape[::-1])
    image = Image.fromarray(tight).resize((wide, high), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / np.float32(255)


def _touch(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _colour(behind: Floats, dice: np.random.Generator) -> Floats:
    """A colour that stands out from what is behind: bright on dark, dark on bright."""
    low, high = (0, 60) if behind.mean() > 110 else (195, 255)
    return dice.uniform(low, high, 3).astype(np.float32)
