"""BlazingText: the vectors of words, or the labels of texts (``behaviour/10``).

===============  =======================================================  =======================================
model            request                                                  answer
===============  =======================================================  =======================================
``vectors.txt``  ``{"instances": ["king", "qqq"]}``                       ``[{"word": "king", "vector": [...]}]``
``model.bin``    ``{"instances": ["a film"], "configuration": {"k": 2}}`` ``[{"label": [...], "prob": [...]}]``
===============  =======================================================  =======================================

In JSON Lines an instance is ``{"source": "a film", "k": 2}``, an answer a line. The answer's type is the request's, as
there. A word that is not known has a vector of zeros, unless the file is fastText's (``vectors.bin``) with subwords.

Setting: ``Model``, a ``vectors.txt`` or fastText's ``.bin``; neither needs an ``algorithm.json`` (``formats.py``).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from serving.errors import BadInput, LoadFailed, PredictionFailed
from serving.runtimes.algorithms import answers, bodies, fasttext
from serving.runtimes.base import Artifact, LoadSettings, ScriptCall, ScriptModel, ScriptReply
from serving.runtimes.declaration import Declaration

_MOST_DIMENSIONS = 1 << 16
_MOST_HEAD = 64
#: Texts of one request, each 50 us of work: five seconds. Six megabytes could hold a million and more.
_MOST_TEXTS = 100_000


class BlazingText(ScriptModel):
    """What both kinds of model share: their bodies."""

    def transform(self, call: ScriptCall) -> ScriptReply:
        """Answer one call. Raises BadInput, UnsupportedContentType, NotAcceptable."""
        asked = bodies.instances(call.body, call.content_type)
        answer_in, _ = bodies.accepted(call.accept, asked.media_type, (asked.media_type,))
        if len(asked.rows) > _MOST_TEXTS:
            raise BadInput(f"the body holds {len(asked.rows)} instances; one request may hold {_MOST_TEXTS}")
        if asked.media_type == bodies.LINES:
            texts = [_line(row, f"instance {at}") for at, row in enumerate(asked.rows, 1)]
        else:
            k = _count(asked.configuration, "'configuration'")
            texts = [(_text(row, f"instance {at}"), k) for at, row in enumerate(asked.rows, 1)]
        answers.check_size(sum(self._width(k) for _, k in texts))
        rows = [self._answer(*text) for text in texts]
        body = answers.lines(rows) if asked.media_type == bodies.LINES else answers.document(rows)
        return ScriptReply(body, answer_in)

    @abstractmethod
    def _answer(self, text: str, k: int) -> dict[str, Any]:
        """To one text or word, with the ``k`` likeliest labels where there are any."""

    @abstractmethod
    def _width(self, k: int) -> int:
        """How many numbers there are in such an answer."""


class TextLabels(BlazingText):
    """A classifier of texts."""

    engine = "NumPy on fastText's file"

    def __init__(self, model: fasttext.FastText) -> None:
        """``model``: a supervised one."""
        self._model = model

    def _answer(self, text: str, k: int) -> dict[str, Any]:
        labels, chances = self._model.best(text, k)
        if not np.isfinite(chances).all():
            raise PredictionFailed("the model's probabilities are no finite numbers")
        return {"label": labels, "prob": chances}

    def _width(self, k: int) -> int:
        return min(k, len(self._model.labels))


class SubwordVectors(BlazingText):
    """Vectors of words from fastText's file: of words never seen too, where it has subwords."""

    engine = "NumPy on fastText's file"

    def __init__(self, model: fasttext.FastText) -> None:
        """``model``: an unsupervised one."""
        self._model = model

    def _answer(self, text: str, k: int) -> dict[str, Any]:
        return {"word": text, "vector": self._model.vector(text)}

    def _width(self, k: int) -> int:
        return self._model.dimensions


class WordVectors(BlazingText):
    """Vectors of words from a table."""

    engine = "NumPy on a table of vectors"

    def __init__(self, rows: dict[str, int], vectors: np.ndarray) -> None:
        """``rows``: word -> row of ``vectors``, float32 [words, dimensions]."""
        self._rows = rows
        self._vectors = vectors
        self._unknown = np.zeros(vectors.shape[1], np.float32)

    def _answer(self, text: str, k: int) -> dict[str, Any]:
        row = self._rows.get(text)
        return {"word": text, "vector": self._unknown if row is None else self._vectors[row]}

    def _width(self, k: int) -> int:
        return len(self._unknown)


def load(declared: Declaration, settings: LoadSettings) -> BlazingText:
    """The model that the setting ``Model`` names. Raises LoadFailed."""
    return _model(declared.file("Model", "model.bin"))


def load_bare(artifact: Artifact, settings: LoadSettings) -> BlazingText:
    """A model as BlazingText's training leaves it, without a declaration. Raises LoadFailed."""
    return _model(artifact.file)


def _model(path: Path) -> BlazingText:
    with path.open("rb") as file:
        is_binary = file.read(len(fasttext.MAGIC)) == fasttext.MAGIC
    if not is_binary:
        return WordVectors(*read_vectors(path))
    model = fasttext.read(path)
    return TextLabels(model) if model.supervised else SubwordVectors(model)


def read_vectors(path: Path) -> tuple[dict[str, int], np.ndarray]:
    """``vectors.txt``: a line of two numbers, words and dimensions, then a word and its numbers a line. A word given
    twice is the first. Raises LoadFailed."""
    name, size = path.name, path.stat().st_size
    with path.open("rb") as file:
        head = file.readline(_MOST_HEAD).split()
        if len(head) != 2 or not all(number.isdigit() for number in head):
            raise LoadFailed(f"{name!r} does not begin with its numbers of words and dimensions")
        words, dimensions = int(head[0]), int(head[1])
        if not words or not 0 < dimensions <= _MOST_DIMENSIONS or words * (2 * dimensions + 1) > size:
            raise LoadFailed(f"{name!r} says that it has {words} words in {dimensions} dimensions: it is too small")
        vectors = np.empty((words, dimensions), np.float32)
        rows: dict[str, int] = {}
        for row in range(words):
            word, vectors[row] = _vector(file.readline(size), dimensions, f"{name!r}, line {row + 2}")
            rows.setdefault(word, row)
    return rows, vectors


def _vector(line: bytes, dimensions: int, where: str) -> tuple[str, np.ndarray]:
    word, *numbers = line.rstrip().rsplit(b" ", dimensions)
    try:
        vector = np.array(numbers, np.float64).astype(np.float32)
    except ValueError:
        raise LoadFailed(f"{where}: a number is none") from None
    if len(vector) != dimensions or not np.isfinite(vector).all():
        raise LoadFailed(f"{where}: there must be a word and {dimensions} finite numbers")
    return word.decode("utf-8", "replace"), vector


def _line(row: Any, where: str) -> tuple[str, int]:
    if not isinstance(row, dict):
        raise BadInput(f"{where} must be an object with a 'source'")
    return _text(row.get("source"), f"the 'source' of {where}"), _count(row, where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{where} must be a string")
    if not value.strip():
        raise BadInput(f"{where} is an empty text")
    return value


def _count(holder: Any, where: str) -> int:
    k = holder.get("k", 1)
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise BadInput(f"'k' of {where} must be a whole number of at least 1")
    return k
