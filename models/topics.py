"""Mails as counts of words, and how well topics foretell the words of mails nobody saw: for LDA and the neural net."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import samples
from models.cards import Sample, Score, Source
from models.data import SEED, Floats
from models.mails import LICENCE, SOURCE, Mail, mails

WORDS = 1000
TOPICS = 20
HELD_OUT = 0.2
SAMPLES, DRAWN = 20, 400
LIMITS = (
    "English mails of 2002 and 2003, four in five of them to lists of people who program: other texts, other topics.",
    "Replies and signatures repeat words of other mails, so mails held out are less new than they seem.",
    "What a topic is about is for people to say: the model knows its words only.",
)
_LEAST_WORDS = 10
_LEAST_MAILS, _MOST_MAILS = 20, 0.2
_WORD = re.compile(r"[a-z]{3,15}")
_ADDRESS = re.compile(r"https?://\S+|\S+@\S+|www\.\S+")


@dataclass(frozen=True, slots=True)
class Counts:
    """``vocabulary``: the word of each column; ``train``, ``held``: float32 ``[mails, words]``, how often each word is
    in a mail; ``held_mails``: those that the rows of ``held`` are of."""

    vocabulary: tuple[str, ...]
    train: Floats
    held: Floats
    held_mails: tuple[Mail, ...]


@functools.cache
def counts() -> Counts:
    """Mails of at least ten words of the vocabulary. The vocabulary is made of the mails that are trained on only."""
    order = np.random.default_rng(SEED).permutation(len(mails()))
    chosen = [mails()[at] for at in order]
    held = int(len(chosen) * HELD_OUT)
    words = [own_words(mail.text) for mail in chosen]
    vocabulary = _vocabulary(words[held:])
    rows = _counted(words, vocabulary)
    long = rows.sum(axis=1) >= _LEAST_WORDS
    kept = tuple(mail for mail, enough in zip(chosen[:held], long[:held], strict=True) if enough)
    return Counts(vocabulary, rows[held:][long[held:]], rows[:held][long[:held]], kept)


def own_words(text: str) -> list[str]:
    """A mail's own words: what it quotes was said by another, and addresses are no words."""
    own = "\n".join(line for line in text.splitlines() if not line.startswith((">", "|", "=")))
    return _WORD.findall(_ADDRESS.sub(" ", own).lower())


def _vocabulary(texts: list[list[str]]) -> tuple[str, ...]:
    """The words in most mails, neither stop words nor rare nor in every fifth mail."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    seen = Counter(word for words in texts for word in set(words))
    most = _MOST_MAILS * len(texts)
    fit = [(-count, word) for word, count in seen.items() if _LEAST_MAILS <= count <= most]
    return tuple(sorted([word for _, word in sorted(fit) if word not in ENGLISH_STOP_WORDS][:WORDS]))


def _counted(texts: list[list[str]], vocabulary: tuple[str, ...]) -> Floats:
    column = {word: at for at, word in enumerate(vocabulary)}
    rows = np.zeros((len(texts), len(vocabulary)), np.float32)
    for row, words in zip(rows, texts, strict=True):
        for word in words:
            if word in column:
                row[column[word]] += 1
    return rows


def halves(rows: Floats) -> tuple[Floats, Floats]:
    """Each mail's words dealt at random into two halves: what is read, and what is to be foretold."""
    first = np.random.default_rng(SEED).binomial(rows.astype(np.int64), 0.5).astype(np.float32)
    return first, rows - first


def perplexity(chances: NDArray[np.floating], rows: Floats) -> float:
    """How many words, equally likely, would be as hard to guess: e to the mean of -log(chance) over the words of
    ``rows``. ``chances``: ``[mails or 1, words]``, each row's sum is 1."""
    logs = np.log(np.maximum(chances.astype(np.float64), 1e-12))
    return float(np.exp(-(rows * logs).sum() / rows.sum()))


def unigram(rows: Floats) -> Floats:
    """The chance of each word wherever it is: what one knows who reads nothing of the mail. One row."""
    total = rows.sum(axis=0, keepdims=True) + 1
    found: Floats = (total / total.sum()).astype(np.float32)
    return found


def leading(topics: NDArray[np.floating], vocabulary: tuple[str, ...], count: int = 10) -> list[list[str]]:
    """The likeliest words of each topic, ``topics`` being ``[topics, words]``."""
    return [[vocabulary[at] for at in np.argsort(-topic, kind="stable")[:count]] for topic in topics]


def source(data: Counts) -> Source:
    """Where the mails are from, and how many there are."""
    return Source("Spam Assassin public mail corpus", SOURCE, LICENCE, len(data.train), len(data.held), "mails")


def score(chances: NDArray[np.floating], unread: Floats, train: Floats) -> Score:
    """How hard the unread halves of mails are to guess, beside guessing by how frequent a word is in all mails."""
    return Score(
        "perplexity of the unread half of held-out mails",
        perplexity(chances, unread),
        "frequencies of words in all mails",
        perplexity(unigram(train), unread),
        higher_is_better=False,
    )


def shown(data: Counts) -> Floats:
    """The first held-out mails, for the samples."""
    return data.held[:SAMPLES]


def samples_of(rows: Floats, answers: Sequence[dict[str, Any]], types: Sequence[str]) -> tuple[Sample, ...]:
    """Those of every algorithm of rows. One mail is asked for by the words that are in it, as anybody would."""
    found = samples.of_rows(rows, answers, types=types)
    return (dataclasses.replace(found[0], body=samples.sparse(rows[:1])), *found[1:])


def extra(data: Counts, chances: NDArray[np.floating]) -> dict[str, bytes]:
    """The vocabulary, the topics' leading words and how likely each is, and some held-out mails as counts, by the parts
    of the corpus they are from: for whoever draws them."""
    words = leading(chances, data.vocabulary)
    column = {word: at for at, word in enumerate(data.vocabulary)}
    told = [
        {"words": of, "chances": [round(float(topic[column[word]]), 6) for word in of]}
        for of, topic in zip(words, chances, strict=True)
    ]
    return {
        "vocab.txt": "".join(f"{word}\n" for word in data.vocabulary).encode(),
        "topics.json": json.dumps(told).encode(),
        "held.json": samples.sparse(data.held[:DRAWN]),
        "groups.json": json.dumps([mail.group for mail in data.held_mails[:DRAWN]]).encode(),
    }
