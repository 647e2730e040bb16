"""Spam or not: a linear classifier on words and pairs of words, left behind as BlazingText does: ``model.bin``."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from models import mails
from models.cards import Card, Sample, Score, Source, json_body
from models.data import SEED
from models.recipes import Tell

AIM = 0.97
EPOCHS, DIMENSIONS, BUCKETS, LEAST_SEEN = 10, 10, 50_000, 3
HELD_OUT = 4
SAMPLE_TEXTS, SAMPLE_WORDS = 20, 120
ASKED = [
    "congratulations ! click here to claim your free offer",
    "thanks for the patch , i will try it with the new kernel",
]
SHOWN_TEXTS, SHOWN_WORDS = 400, 200

_WORD = re.compile(r"\w+|[^\w\s]")
_NAMES = ("__label__ham", "__label__spam")


def train(into: Path, tell: Tell, effort: float = 1.0) -> Card:
    """fastText on three quarters of the mails, judged on the rest. ``effort``: share of the epochs."""
    import fasttext

    tell(0.02, "reading the mails")
    corpus = mails.mails()
    texts = [prepared(mail.text) for mail in corpus]
    names = [_NAMES[mail.spam] for mail in corpus]
    order = np.random.default_rng(SEED).permutation(len(corpus))
    held, read = order[: len(corpus) // HELD_OUT], order[len(corpus) // HELD_OUT :]
    tell(0.3, f"reading {len(read)} of them again and again")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.writelines(f"{names[at]} {texts[at]}\n" for at in read)
        file.flush()
        model = fasttext.train_supervised(
            file.name,
            lr=0.5,
            dim=DIMENSIONS,
            epoch=max(1, round(effort * EPOCHS)),
            wordNgrams=2,
            bucket=BUCKETS,
            minCount=LEAST_SEEN,
            thread=1,
            seed=SEED,
            verbose=0,
        )
    model.save_model(str(into / "model.bin"))
    (into / "algorithm.json").write_text(json.dumps({"Algorithm": "blazingtext", "Model": "model.bin"}) + "\n")

    tell(0.9, "judging held-out mails")
    right = sum(predicted(model, texts[at], 1)["label"] == [names[at]] for at in held)
    shown = [{"source": _first(texts[at], SHOWN_WORDS), "label": names[at]} for at in held[:SHOWN_TEXTS]]
    asked = [_first(texts[at], SAMPLE_WORDS) for at in held[:SAMPLE_TEXTS]]
    return Card(
        name=into.name,
        title="BlazingText: spam or not",
        artifact=into.name,
        framework="fasttext",
        data=Source(
            "Spam Assassin's public mails, each text once",
            mails.SOURCE,
            mails.LICENCE,
            len(read),
            len(held),
            "mails",
            (),
            _NAMES,
        ),
        score=Score(
            "accuracy",
            right / len(held),
            "calling every mail ham",
            sum(names[at] == _NAMES[0] for at in held) / len(held),
            aim=AIM if effort >= 1 else None,
        ),
        inputs="a mail's text without its headers: lower case, blanks between words and punctuation",
        outputs="`label`, the likeliest `k` of `__label__ham` and `__label__spam`, and `prob`, their probabilities",
        limits=(
            "Mails of 2002 and 2003 of a few mailing lists: today's spam is another.",
            "Held-out mails are of the same lists and senders as those it was trained on, which makes them easier.",
            "Texts are prepared by who asks, as for BlazingText: the model sees words as they are sent.",
        ),
        samples=_samples(model, asked),
        training=f"fastText, words and pairs of words in {BUCKETS} buckets, {DIMENSIONS} dimensions, softmax.",
        extra={"held.jsonl": b"".join(json_body(row) for row in shown)},
    )


def prepared(text: str) -> str:
    """A text as the model reads it: lower case, words and punctuation apart, on one line."""
    return " ".join(_WORD.findall(text.lower()))


def predicted(model: Any, text: str, k: int) -> dict[str, Any]:
    """fastText's own answer. Its Python wrapper does not know NumPy 2, what it wraps does."""
    pairs = model.f.predict(f"{text}\n", k, 0.0, "strict")
    return {"label": [name for _, name in pairs], "prob": [chance for chance, _ in pairs]}


def _first(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def _samples(model: Any, texts: list[str]) -> tuple[Sample, ...]:
    """fastText's probabilities are 0.00001 above the model's."""
    kind, lines, near = "application/json", "application/jsonlines", 2e-5
    one = json_body({"instances": ASKED[:1]})
    few = json_body({"instances": ASKED, "configuration": {"k": 2}})
    listed = b"".join(json_body({"source": text, "k": 2}) for text in texts)
    return (
        Sample("request", ".json", kind, one, [predicted(model, ASKED[0], 1)], near, kind),
        Sample("batch", ".jsonl", lines, listed, [predicted(model, text, 2) for text in texts], near, lines),
        Sample("both", ".json", kind, few, [predicted(model, text, 2) for text in ASKED], near, kind),
    )
