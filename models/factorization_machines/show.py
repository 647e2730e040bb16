"""What one person would like more, and less, than everybody does; and all held-out ratings beside what was foretold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.showing import MODEL, ODD, QUIET, Ask, figure, save

_FILMS = 7
_LONGEST = 34


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """Left: a person's films whose score is furthest from their mean rating. Right: scores by the stars given."""
    films = json.loads((card / "films.json").read_bytes())
    scores = _scores(ask, json.dumps({"instances": films["instances"]}).encode())
    means = np.array(films["means"])
    order = np.argsort(scores - means)
    chosen = np.concatenate([order[:_FILMS], order[-_FILMS:]])
    stars = np.array(json.loads((card / "held.stars.json").read_bytes()))
    foretold = _scores(ask, (card / "held.json").read_bytes())

    page = figure(9.0, 4.0)
    left, right = page.subplots(1, 2, width_ratios=(1.3, 1.0))
    for place, film in enumerate(chosen):
        left.plot([means[film], scores[film]], [place, place], color=QUIET, zorder=1)
    left.scatter(means[chosen], range(len(chosen)), color=QUIET, label="mean of all people", zorder=2)
    colours = [MODEL if scores[film] > means[film] else ODD for film in chosen]
    left.scatter(scores[chosen], range(len(chosen)), color=colours, label="score for this person", zorder=2)
    left.set_yticks(range(len(chosen)), [films["titles"][film][:_LONGEST] for film in chosen], fontsize=7)
    left.set_xlabel("stars")
    left.legend(loc="upper left", fontsize=7)
    levels = np.unique(stars)
    right.boxplot([foretold[stars == level] for level in levels], positions=levels, widths=0.3, sym="")
    right.set_xticks(range(6), map(str, range(6)))
    right.set_xlim(0, 5.5)
    right.set_xlabel("stars given (held out)")
    right.set_ylabel("score")
    save(page, picture)


def _scores(ask: Ask, body: bytes) -> np.ndarray:
    answer = json.loads(ask(body, "application/json", "application/json"))
    return np.array([row["score"] for row in answer["predictions"]])
