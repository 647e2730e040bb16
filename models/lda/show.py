"""The topics by their leading words, and which mails they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import Ask, figure, save

_WORDS = 7
_GROUPS = {"easy-ham-1": "lists", "easy-ham-2": "lists, later", "hard-ham-1": "newsletters"}


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Asks the live endpoint for the mixtures of some hundred held-out mails, and draws their mean by kind of mail."""
    draw_topics(ask, card, picture, "topic_mixture")


def draw_topics(ask: Ask, card: Path, picture: Path, field: str) -> None:
    """The same for any answer that is a mixture of topics under ``field``."""
    answer = json.loads(ask((card / "held.json").read_bytes(), "application/json", "application/json"))
    mixtures = np.array([row[field] for row in answer["predictions"]])
    kinds = np.array([_GROUPS.get(group, "spam") for group in json.loads((card / "groups.json").read_bytes())])
    topics = json.loads((card / "topics.json").read_bytes())
    columns = [*_GROUPS.values(), "spam"]
    means = np.array([mixtures[kinds == kind].mean(axis=0) for kind in columns])
    order = np.argsort(-(means[-1] - means[:-1].mean(axis=0)))

    page = figure(8.0, 4.8)
    axes = page.subplots()
    axes.imshow(means[:, order].T, aspect="auto", cmap="Blues", vmin=0)
    for at, topic in enumerate(order):
        for column, part in enumerate(means[:, topic]):
            dark = part > means.max() / 2
            axes.text(column, at, f"{part:.0%}", ha="center", va="center", color="white" if dark else "black", size=7)
    axes.set_xticks(range(len(columns)), [f"{kind}\n({(kinds == kind).sum()} mails)" for kind in columns])
    axes.set_yticks(range(len(order)), [" ".join(topics[topic]["words"][:_WORDS]) for topic in order], size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("how much of each topic is in mails nobody trained on")
    save(page, picture)
