"""fastText's ``.bin`` files, read with NumPy: what BlazingText leaves behind and its hosting loads.

::

    magic version | arguments | words and labels | input matrix (words, then buckets of n-grams) | output matrix
                                     text -> rows of the input matrix -> their mean -> output matrix -> probabilities

The file's form and every rule are those of fastText 0.9 (``fasttext.cc``, ``dictionary.cc``, ``loss.cc``).
Probabilities are the model's own: the library's are larger by 0.00001 for each logarithm it takes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serving.errors import LoadFailed
from serving.runtimes.algorithms import fasttext_outputs, ngrams

MAGIC = struct.pack("<i", 793712314)
_VERSIONS = (11, 12)
_ARGUMENTS = struct.Struct("<13i8x")
_COUNTS = struct.Struct("<3i2q")
_ENTRY = struct.Struct("<qb")
_SHAPE = struct.Struct("<?2q")
_SUPERVISED = 3
_END = b"</s>"
_LABEL_PREFIX = b"__label__"
_MOST_DIMENSIONS = 1 << 16
_MOST_GRAM = 64
#: Rows of the input matrix that are added up at once: a text may be long, the memory for it is not.
_ROWS_AT_ONCE = 1 << 15


class _Head(NamedTuple):
    """The arguments of the training that matter afterwards. Grams are in words, letters from shortest to longest."""

    dimensions: int
    word_grams: int
    loss: int
    supervised: bool
    buckets: int
    shortest: int
    longest: int


class FastText:
    """A model in memory: of words, or a classifier of texts."""

    def __init__(
        self, head: _Head, words: dict[bytes, int], labels: dict[bytes, int], rows: np.ndarray, output: np.ndarray
    ) -> None:
        """``words``: word -> its row in ``rows``, float32 [words + buckets, dimensions]; ``labels``: name -> how often
        it was seen; ``output``: float32 [labels, dimensions] of a classifier. Raises LoadFailed."""
        self.supervised = head.supervised
        self.dimensions = head.dimensions
        self.labels = [name.decode("utf-8", "replace") for name in labels]
        self._head, self._words, self._label_names, self._rows = head, words, frozenset(labels), rows
        counts = list(labels.values())
        self._outputs = fasttext_outputs.of(head.loss, output, counts) if head.supervised else None

    def best(self, text: str, k: int) -> tuple[list[str], np.ndarray]:
        """The ``k`` likeliest labels of a text and their probabilities (float32), the likeliest first; none for a text
        in which nothing is known. Line ends are spaces like any other."""
        hidden, found = self._mean(self._line(text))
        if not found or self._outputs is None:
            return [], np.empty(0, np.float32)
        chances = self._outputs(hidden)
        first = np.argsort(-chances, kind="stable")[:k]
        return [self.labels[index] for index in first], chances[first].astype(np.float32)

    def vector(self, word: str) -> np.ndarray:
        """A word's vector, float32: the mean of its own and its subwords' rows; zeros where none is known."""
        token = word.encode()
        known = self._words.get(token)
        own = [] if known is None else [np.array([known])]
        return self._mean(iter((*own, *self._subwords([token]))))[0]

    def _line(self, text: str) -> Iterator[np.ndarray]:
        """The rows that a text stands for, in pieces (``Dictionary::getLine``)."""
        tokens = text.encode().replace(b"\0", b" ").split()
        if _END in tokens:
            tokens = tokens[: tokens.index(_END)]  # the library reads no further either
        tokens.append(_END)
        find = self._words.get
        known = [row for token in tokens if (row := find(token)) is not None]
        if len(known) < len(tokens):
            tokens = [token for token in tokens if find(token) is not None or not self._is_label(token)]
        yield np.array(known, np.int64)
        yield from self._subwords(tokens)
        if self._head.word_grams > 1:
            hashes = np.array([ngrams.of_word(token) for token in tokens], np.int64)
            for grams in ngrams.of_words(hashes, self._head.word_grams):
                yield self._buckets(grams)

    def _subwords(self, tokens: list[bytes]) -> Iterator[np.ndarray]:
        words = [token for token in tokens if token != _END]
        if self._head.longest > 0 and words:
            for grams in ngrams.of_letters(words, self._head.shortest, self._head.longest):
                yield self._buckets(grams)

    def _buckets(self, hashes: np.ndarray) -> np.ndarray:
        rows: np.ndarray = (hashes % hashes.dtype.type(self._head.buckets)).astype(np.int64)
        return rows + len(self._words)

    def _is_label(self, token: bytes) -> bool:
        return token.startswith(_LABEL_PREFIX) or token in self._label_names

    def _mean(self, pieces: Iterator[np.ndarray]) -> tuple[np.ndarray, int]:
        """The mean of rows of the input matrix, and of how many."""
        total, count = np.zeros(self.dimensions, np.float32), 0
        for rows in _runs(pieces):
            total += np.add.reduce(self._rows[rows], axis=0)
            count += len(rows)
        return (total / np.float32(count) if count else total), count


def _runs(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same numbers in few arrays, none of much more than ``_ROWS_AT_ONCE``."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        for start in range(0, len(piece), _ROWS_AT_ONCE):
            waiting.append(piece[start : start + _ROWS_AT_ONCE])
            if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
                yield np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


def read(path: Path) -> FastText:
    """A whole model from its file; every size in it is checked against the file's. Raises LoadFailed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if not size or file.read(len(MAGIC)) != MAGIC:
            raise LoadFailed(f"{path.name!r} is no fastText model")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content, size).model()


class _Reader:
    """Goes through the file once, from its beginning to its end."""

    def __init__(self, path: Path, content: mmap.mmap, size: int) -> None:
        self._path, self._content, self._size = path, content, size
        self._at = len(MAGIC)

    def model(self) -> FastText:
        """All of it. Raises LoadFailed."""
        head = self._head()
        words, labels = self._dictionary(head)
        rows = self._matrix(len(words) + head.buckets, head.dimensions)
        output = self._matrix(len(labels), head.dimensions) if head.supervised else rows[:0]
        return FastText(head, words, labels, rows, output)

    def _head(self) -> _Head:
        version, dimensions, *_unused, word_grams, loss, model, buckets, shortest, longest, _ = self._take(_ARGUMENTS)
        if version not in _VERSIONS:
            raise LoadFailed(f"{self._path.name!r} is a fastText model of version {version}, not 11 or 12")
        supervised = model == _SUPERVISED
        if version == 11 and supervised:
            longest = 0  # as the library says: classifiers of that version had no subwords
        if not 0 < dimensions <= _MOST_DIMENSIONS or buckets < 0 or max(word_grams, longest) > _MOST_GRAM:
            raise self._damaged("its arguments are none of a training")
        if not buckets and (word_grams > 1 or longest > 0):
            raise self._damaged("it has n-grams and no buckets for them")
        return _Head(dimensions, word_grams, loss, supervised, buckets, shortest, longest)

    def _dictionary(self, head: _Head) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """Word -> row, and label -> how often it was seen."""
        entries, known, named, _, pruned = self._take(_COUNTS)
        if known < 0 or named < 0 or known + named != entries or entries * _ENTRY.size > self._size:
            raise self._damaged("its numbers of words and labels do not fit together")
        if pruned >= 0:
            raise self._quantised()
        words: dict[bytes, int] = {}
        labels: dict[bytes, int] = {}
        for number in range(entries):
            end = self._content.find(b"\0", self._at)
            if end < 0:
                raise self._damaged("it ends within its words")
            name = self._content[self._at : end]
            self._at = end + 1
            seen, is_label = self._take(_ENTRY)
            if is_label != (number >= known) or name in words or name in labels:
                raise self._damaged("its words are out of order")
            if is_label:
                labels[name] = seen
            else:
                words[name] = number
        if head.supervised and not labels:
            raise self._damaged("it is a classifier without labels")
        return words, labels

    def _matrix(self, rows: int, columns: int) -> np.ndarray:
        quantised, *shape = self._take(_SHAPE)
        if quantised:
            raise self._quantised()
        if shape != [rows, columns] or rows * columns * 4 > self._size - self._at:
            raise self._damaged("it is cut short, or its matrices are of another size than its words and buckets")
        matrix = np.fromfile(self._path, np.dtype("<f4"), rows * columns, offset=self._at)
        self._at += rows * columns * 4
        return matrix.reshape(rows, columns)

    def _take(self, form: struct.Struct) -> tuple[int, ...]:
        if self._size - self._at < form.size:
            raise self._damaged("it is cut short")
        self._at += form.size
        return form.unpack_from(self._content, self._at - form.size)

    def _damaged(self, why: str) -> LoadFailed:
        return LoadFailed(f"the fastText model {self._path.name!r} is damaged: {why}")

    def _quantised(self) -> LoadFailed:
        return LoadFailed(
            f"the fastText model {self._path.name!r} is quantised, which this server does not read: give it the .bin "
            "that it was made from"
        )
