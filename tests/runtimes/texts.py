"""Small models of BlazingText, written by hand: fastText's file and word2vec's text."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

MAGIC = 793712314
SOFTMAX = 3

Rows = Sequence[Sequence[float]]


class FastTextFile(NamedTuple):
    """What stands in a ``.bin``. ``rows``: of the words, then of the buckets; ``output``: of the labels."""

    words: Mapping[str, int]
    labels: Mapping[str, int]
    rows: Rows
    output: Rows
    supervised: bool = True
    word_grams: int = 1
    buckets: int = 0
    letters: tuple[int, int] = (0, 0)
    loss: int = SOFTMAX
    version: int = 12
    pruned: int = -1
    quantised: bool = False

    def content(self) -> bytes:
        """The file (``FastText::saveModel``)."""
        dimensions, model = len(self.rows[0]), 3 if self.supervised else 2
        arguments = (dimensions, 5, 1, 1, 5, self.word_grams, self.loss, model, self.buckets, *self.letters, 100)
        entries = [
            *((word, seen, 0) for word, seen in self.words.items()),
            *((label, seen, 1) for label, seen in self.labels.items()),
        ]
        counts = (len(entries), len(self.words), len(self.labels), 1000, self.pruned)
        return b"".join(
            (
                struct.pack("<2i12id", MAGIC, self.version, *arguments, 1e-4),
                struct.pack("<3i2q", *counts),
                *(name.encode() + b"\0" + struct.pack("<qb", seen, kind) for name, seen, kind in entries),
                self._matrix(self.rows),
                self._matrix(self.output),
            )
        )

    def _matrix(self, rows: Rows) -> bytes:
        shape = (len(rows), len(rows[0]) if rows else 0)
        return struct.pack("<?2q", self.quantised, *shape) + np.array(rows, "<f4").tobytes()


#: A film is good or bad; of what else is said, nothing is known. What a line ends with is known too, and means nothing.
FILMS = FastTextFile(
    words={"</s>": 9, "good": 5, "bad": 4, "film": 3},
    labels={"__label__praise": 5, "__label__blame": 4},
    rows=((0.0, 0.0), (6.0, 0.0), (0.0, 3.0), (0.0, 0.0)),
    output=((1.0, 0.0), (0.0, 1.0)),
)


def softmax(*scores: float) -> list[float]:
    """The probabilities of scores."""
    risen = [math.exp(score) for score in scores]
    return [one / sum(risen) for one in risen]


VECTORS = {"king": [0.25, -1.5, 3.0], "queen": [0.5, -1.25, 3.0], "œuvre": [1e-3, 2.0, -7.0]}


def vectors_text(vectors: Mapping[str, Sequence[float]] = VECTORS) -> str:
    """``vectors.txt``."""
    width = len(next(iter(vectors.values())))
    lines = (f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in vectors.items())
    return f"{len(vectors)} {width}\n{''.join(lines)}"
