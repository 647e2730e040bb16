"""What a detector has to beat: patches that stand out from the scene, each taken for the digit of the nearest mean."""

from __future__ import annotations

import numpy as np

from models import pictures
from models.data import Floats
from models.object_detection.scenes import SIDE, Painter

_STANDS_OUT = 70.0
_SMALLEST, _LARGEST = 12, 48
_GRID = 16


class Finder:
    """Learns the mean ink of each digit, and nothing of pictures."""

    def __init__(self, painter: Painter) -> None:
        inks = np.stack([_squeezed(digit > 64) for digit in painter.digits])
        self._means = np.stack([inks[painter.labels == digit].mean(axis=0) for digit in range(10)])

    def boxes(self, pixels: pictures.Pixels) -> Floats:
        """Connected patches that differ from the scene's median by much, of the size of digits: ``[n, 6]``, class,
        score, xmin, ymin, xmax, ymax from 0 to 1, the most alike first."""
        from scipy import ndimage

        grey = pixels.mean(axis=2)
        patches, _ = ndimage.label(np.abs(grey - np.median(grey)) > _STANDS_OUT, np.ones((3, 3)))
        found = []
        for number, place in enumerate(ndimage.find_objects(patches), 1):
            high, wide = (side.stop - side.start for side in place)
            if not _SMALLEST <= max(high, wide) <= _LARGEST:
                continue
            away = ((self._means - _squeezed(patches[place] == number)) ** 2).mean(axis=(1, 2))
            rows, columns = place
            corners = [side / SIDE for side in (columns.start, rows.start, columns.stop, rows.stop)]
            found.append([float(away.argmin()), 1 - float(away.min()), *corners])
        return np.array(sorted(found, key=lambda box: -box[1]), np.float32).reshape(-1, 6)


def _squeezed(ink: np.ndarray) -> Floats:
    """A patch cut to its ink and stretched to a square of 16."""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    down, across = (np.arange(_GRID) * side // _GRID for side in tight.shape)
    return np.asarray(tight[down[:, None], across], np.float32)
