"""Mails as counts of words, and how topics are judged by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models import topics

ROWS = arrays(np.float32, (3, 4), elements=st.integers(0, 50))


def test_a_mails_own_words_are_counted_only() -> None:
    """What is quoted was said by another; addresses, numbers and short words say nothing of the subject."""
    mail = "> quoted words\nSee http://example.org/spam or ask joe@example.org: the Kernel, at 42, is on www.kernel.org"
    assert ["see", "ask", "the", "kernel"] == topics.own_words(mail)


def test_guessing_among_equals_is_as_hard_as_they_are_many() -> None:
    """The definition: a thousand words, all alike, are a thousand words to choose from."""
    rows = np.array([[3, 0, 1, 4], [0, 2, 0, 0]], np.float32)
    assert 4.0 == pytest.approx(topics.perplexity(np.full((1, 4), 0.25), rows))


def test_perplexity_is_the_geometric_mean_of_how_unlikely_each_word_was() -> None:
    """Two words at one half and one at one eighth: the cube root of 2 x 2 x 8."""
    assert 32 ** (1 / 3) == pytest.approx(topics.perplexity(np.array([[0.5, 0.125]]), np.array([[2, 1]], np.float32)))


def test_a_word_that_was_held_impossible_is_dear_and_not_infinite() -> None:
    """One such word must not decide over all mails."""
    assert math.isfinite(topics.perplexity(np.array([[1.0, 0.0]]), np.array([[0, 1]], np.float32)))


@given(ROWS)
def test_halves_make_the_whole(rows: np.ndarray) -> None:
    """Each word is in one half, and no half has words that the mail has not."""
    read, unread = topics.halves(rows)
    assert (rows == read + unread).all()
    assert (read >= 0).all() and (unread >= 0).all()


@given(ROWS)
def test_frequencies_are_chances(rows: np.ndarray) -> None:
    """Their sum is 1, a word never seen has one, and more frequent words have more."""
    (chances,) = topics.unigram(rows)
    assert 1.0 == pytest.approx(chances.sum(), abs=1e-6)
    assert (chances > 0).all()
    assert (np.sort(rows.sum(axis=0)) == rows.sum(axis=0)[np.argsort(chances, kind="stable")]).all()


def test_a_topic_is_told_by_its_likeliest_words() -> None:
    """The likeliest first."""
    found = topics.leading(np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]), ("a", "b", "c"), 2)
    assert [["b", "c"], ["a", "c"]] == found
