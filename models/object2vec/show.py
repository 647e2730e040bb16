"""A map of films by what people think of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.showing import QUIET, Ask, figure, save

JSON = "application/json"
#: The genres of MovieLens in the order of their tokens, and those that are drawn in colours: the first that fits.
GENRES = (
    "(none) Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror IMAX Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
)
COLOURS = {
    "Animation": "C2",
    "Children": "C8",
    "Sci-Fi": "C0",
    "War": "C5",
    "Crime": "C3",
    "Action": "C1",
    "Romance": "C6",
    "Comedy": "C4",
}
_LONGEST_TITLE = 24
#: How much of the map's width and height a letter of a title takes.
_LETTER, _LINE = 0.0085, 0.028


def draw(ask: Ask, card: Path, picture: Path) -> None:
    """The live endpoint's embeddings of the most rated films, laid out flat so that near ones stay near (t-SNE)."""
    from sklearn.manifold import TSNE

    films = json.loads((card / "films.json").read_bytes())
    answer = json.loads(ask(json.dumps({"instances": films["instances"]}).encode(), JSON, JSON))
    rows = np.array([row["embeddings"] for row in answer["predictions"]], np.float32)
    flat = TSNE(2, perplexity=20, metric="cosine", init="pca", random_state=1).fit_transform(rows)
    places = (flat - flat.min(axis=0)) / np.ptp(flat, axis=0)
    genres = [_genre(film["in1"], films["genres_from"]) for film in films["instances"]]

    page = figure(9.0, 5.6)
    axes = page.subplots()
    axes.set_axis_off()
    for genre, colour in {**COLOURS, "others": QUIET}.items():
        spots = places[[at for at, found in enumerate(genres) if found == genre]]
        axes.scatter(spots[:, 0], spots[:, 1], s=9, color=colour, label=genre)
    for at, title in _readable(films["titles"], places):
        axes.annotate(title, places[at], (3, 2), textcoords="offset points", fontsize=7)
    axes.set_xlim(-0.01, 1.12)
    axes.legend(loc="upper center", ncols=len(COLOURS) + 1, bbox_to_anchor=(0.5, 1.06), fontsize=8)
    save(page, picture)


def _genre(tokens: list[int], first: int) -> str:
    """What a film is drawn as."""
    names = GENRES.split()
    named = {names[token - first] for token in tokens if first <= token < first + len(names)}
    return next((genre for genre in COLOURS if genre in named), "others")


def _readable(titles: list[str], places: NDArray[Any]) -> list[tuple[int, str]]:
    """The titles that find room beside their films, the most rated first."""
    chosen: list[tuple[int, str]] = []
    for at, whole in enumerate(titles):
        title = whole.partition(" (")[0][:_LONGEST_TITLE]
        if all(_apart(places[at], places[other], title, taken) for other, taken in chosen):
            chosen.append((at, title))
    return chosen


def _apart(place: NDArray[Any], other: NDArray[Any], title: str, taken: str) -> bool:
    left = title if place[0] <= other[0] else taken
    return bool(abs(place[1] - other[1]) > _LINE or abs(place[0] - other[0]) > _LETTER * len(left))
