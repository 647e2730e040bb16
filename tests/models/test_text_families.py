"""How the recipes of words, mails and films prepare their data and judge what they made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from models.blazingtext import labels, words
from models.factorization_machines.ratings import Ratings
from models.object2vec import train as object2vec


@dataclass(frozen=True)
class Table:
    """What gensim's vectors are to who judges them; gensim itself takes two seconds to import."""

    vectors: NDArray[Any]
    key_to_index: dict[str, int]

    def __len__(self) -> int:
        return len(self.vectors)


def test_mails_are_one_line_of_lower_case_with_punctuation_apart() -> None:
    """As the model was trained, so must it be asked."""
    assert "free money ! click : http : / / x . y" == labels.prepared("FREE money!\nClick:\thttp://x.y")


@pytest.mark.parametrize(
    ("held", "area"),
    [([["one", "two"], ["three", "four"]] * 20, 0.75), ([["one", "three"], ["two", "four"]] * 20, 0.5)],
    ids=["who goes together", "who does not"],
)
def test_neighbours_are_judged_against_the_same_words_at_random(held: list[list[str]], area: float) -> None:
    """Vectors and counts know that one goes with two and three with four; about half of the random pairs do as well,
    so that knowing all of it wins three times of four."""
    names = [*(f"common{number}" for number in range(words.COMMON)), "one", "two", "three", "four"]
    rows = np.concatenate((np.ones((words.COMMON, 2)), [[1, 0], [1, 0], [-1, 0], [-1, 0]]))
    vectors: Any = Table(rows, {name: number for number, name in enumerate(names)})
    read = [["one", "common7", "two"], ["three", "four"]]
    assert pytest.approx((area, area), abs=0.1) == words.judge(vectors, read, held)


def test_sparse_rows_become_two_lists_of_tokens() -> None:
    """The person, then the film with its genres and years, each from 0; -1 after the end of the shorter."""
    rows = sparse.csr_matrix(
        np.array([[0, 1, 1, 0, 0, 0.5, 0.5, 1], [1, 0, 0, 0, 1, 1, 0, 1]])  # 2 people, 3 films, 2 genres, 1 period
    )
    table = Ratings(rows, np.array([4.0, 3.0]), 2, 3, 2, 1, np.array([0, 2]), ("a", "b", "c"))
    person, film = object2vec.tokens(table)
    assert [[1], [0]] == person.tolist()
    assert [[0, 3, 4, 5], [2, 3, 5, -1]] == film.tolist()
