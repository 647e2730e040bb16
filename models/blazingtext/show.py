"""A map of a novel's words; how surely mails are told apart, and by which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.showing import MODEL, ODD, TRUTH, Ask, figure, save

JSON = "application/json"
#: Words to find on the map, in the groups that a reader would put them in; the model was told of no group.
GROUPS = {
    "numbers": "one two three four five six seven eight nine ten twelve twenty thirty forty fifty hundred thousand",
    "bodies": "eyes face head brow arm arms hand hands feet leg fingers hair teeth mouth lips heart ears neck",
    "the ship": "ship vessel deck mast masts sails cabin rigging bows stern hull helm anchor forecastle bulwarks",
    "people": "ahab starbuck stubb flask queequeg peleg bildad captain mate harpooneer sailor carpenter blacksmith",
    "animals": "whale whales leviathan shark sharks horse dog dogs fish bird birds elephant",
    "weather": "wind storm gale calm breeze sun sky clouds rain lightning sunset moonlight",
}
WORDS = "free money click remove offer credit wrote url bug perl spamassassin kernel guarantee dear"
HAM, SPAM = "__label__ham", "__label__spam"


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """The picture of whichever of the two models ``card`` is of."""
    (_words if card.name.endswith("words") else _labels)(ask, card, picture)


def _words(ask: Ask, card: Path, picture: Path) -> None:
    """The live endpoint's vectors, laid out flat so that near ones stay near (t-SNE)."""
    from sklearn.manifold import TSNE

    groups = {group: words.split() for group, words in GROUPS.items()}
    asked = [word for words in groups.values() for word in words]
    answer = json.loads(ask(json.dumps({"instances": asked}).encode(), JSON, JSON))
    vectors = {row["word"]: np.array(row["vector"], np.float32) for row in answer}
    known = [word for word in asked if vectors[word].any()]
    rows = np.stack([vectors[word] / np.linalg.norm(vectors[word]) for word in known])
    flat = TSNE(2, perplexity=12, metric="cosine", init="pca", random_state=1).fit_transform(rows)
    places: dict[str, NDArray[Any]] = dict(zip(known, flat, strict=True))

    page = figure(8.0, 5.4)
    axes = page.subplots()
    axes.set_axis_off()
    for (group, words), colour in zip(groups.items(), ("C0", "C1", "C2", "C3", "C4", "C5"), strict=True):
        spots = np.stack([places[word] for word in words if word in places])
        axes.scatter(spots[:, 0], spots[:, 1], s=10, color=colour, label=group)
        for word, (x, y) in ((word, places[word]) for word in words if word in places):
            axes.annotate(word, (x, y), (3, 2), textcoords="offset points", fontsize=7.5, color=colour)
    axes.legend(loc="upper center", ncols=len(groups), bbox_to_anchor=(0.5, 1.06), fontsize=8)
    save(page, picture)


def _labels(ask: Ask, card: Path, picture: Path) -> None:
    """The live endpoint's probability of spam for held-out mails and for some words alone."""
    held = [json.loads(line) for line in (card / "held.jsonl").read_bytes().splitlines()]
    chances = _asked(ask, [row["source"] for row in held])[:, 1]
    spam = np.array([row["label"] == SPAM for row in held])
    words = WORDS.split()
    alone = _asked(ask, words)
    odds = np.log10(alone[:, 1] / alone[:, 0])
    order = np.argsort(odds)

    page = figure(9.0, 3.4)
    left, right = page.subplots(1, 2, width_ratios=(1.2, 1.0))
    kinds = {"stacked": True, "label": ["ham", "spam"], "color": [MODEL, ODD]}
    left.hist([chances[~spam], chances[spam]], np.linspace(0, 1, 21), **kinds)
    left.axvline(0.5, linestyle=":", color=TRUTH, linewidth=1)
    left.set_yscale("log")
    left.set_xlabel("probability of spam of the first 200 words")
    left.set_ylabel("held-out mails")
    left.legend(loc="upper center")
    right.barh([words[at] for at in order], odds[order], color=[ODD if odds[at] > 0 else MODEL for at in order])
    right.set_xlabel("odds of spam of a word alone, in powers of ten")
    right.tick_params(axis="y", labelsize=8)
    save(page, picture)


def _asked(ask: Ask, texts: list[str]) -> NDArray[np.float64]:
    """The probabilities of ham and of spam [texts, 2]."""
    body = json.dumps({"instances": texts, "configuration": {"k": 2}}).encode()
    rows = (dict(zip(row["label"], row["prob"], strict=True)) for row in json.loads(ask(body, JSON, JSON)))
    return np.array([[row[HAM], row[SPAM]] for row in rows])
