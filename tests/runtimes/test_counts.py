"""Rows that are to be counts of words, as the topic models read them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.lda import graph
from models.packaging import onnx_bytes
from serving.errors import BadInput, ServingError
from serving.runtimes import formats, registry
from serving.runtimes.algorithms import counts
from serving.runtimes.base import LoadSettings, TensorModel
from serving.workers import pipeline

PRIOR, STEPS = 0.5, 40
WORDS = np.array([[0.9, 0.09, 0.01], [0.01, 0.09, 0.9]], np.float32)


@pytest.fixture(scope="module")
def lda(tmp_path_factory: pytest.TempPathFactory) -> TensorModel:
    """Two topics of three words."""
    folder = tmp_path_factory.mktemp("lda")
    (folder / "model.onnx").write_bytes(onnx_bytes(graph.of(WORDS, PRIOR, STEPS, "tiny")))
    (folder / "algorithm.json").write_text(json.dumps({"Algorithm": "lda"}))
    model = registry.load(formats.recognise(folder), LoadSettings())
    assert isinstance(model, TensorModel)
    return model


def answer(model: TensorModel, body: str, content_type: str = "text/csv") -> list[list[float]]:
    """The topic mixtures of a body."""
    (text,) = pipeline.run(model, content_type, "application/json", [body.encode()]).answers
    if isinstance(text, ServingError):
        raise text
    return [row["topic_mixture"] for row in json.loads(text)["predictions"]]


def test_words_of_a_topic_make_the_mixture_lean_to_it(lda: TensorModel) -> None:
    """The mixture is that of the fixed point: both topics' priors, and all words for the topic that they are of."""
    first, second, both = answer(lda, "8,0,0\n0,0,8\n8,0,8")
    assert [0.95, 0.05] == pytest.approx(first, abs=0.02)
    assert [0.05, 0.95] == pytest.approx(second, abs=0.02)
    assert [0.5, 0.5] == pytest.approx(both, abs=1e-5)


def test_the_steps_are_those_of_the_paper(lda: TensorModel) -> None:
    """The graph gives what the formula gives, written down word by word and topic by topic, for every row of a
    batch."""
    rows = np.random.default_rng(7).poisson(2.0, (50, 3)).astype(float)
    found = answer(lda, "\n".join(",".join(map(str, row)) for row in rows))
    assert [plain(row) for row in rows] == [pytest.approx(mixture, abs=2e-6) for mixture in found]


def plain(row: np.ndarray) -> list[float]:
    """A text's mixture by Blei, Ng and Jordan's equations 16 and 17, with the digamma of the sum left in."""
    gamma = [1.0, 1.0]
    for _ in range(STEPS):
        theta = [math.exp(digamma(one) - digamma(sum(gamma))) for one in gamma]
        gamma = [PRIOR, PRIOR]
        for word, count in enumerate(row):
            shares = [theta[topic] * float(WORDS[topic][word]) for topic in range(2)]
            gamma = [old + count * share / sum(shares) for old, share in zip(gamma, shares, strict=True)]
    return [one / sum(gamma) for one in gamma]


def digamma(x: float) -> float:
    """The slope of the logarithm of the gamma function."""
    return (math.lgamma(x + 1e-5) - math.lgamma(x - 1e-5)) / 2e-5


def test_a_row_without_words_has_all_topics_alike(lda: TensorModel) -> None:
    """Nothing is known of such a text; its neighbour's answer is what it is alone."""
    empty, other = answer(lda, "0,0,0\n3,1,0")
    assert [0.5, 0.5] == empty
    assert answer(lda, "3,1,0") == [other]


def test_words_may_be_given_by_their_positions(lda: TensorModel) -> None:
    """Sparse rows, as anybody sends the few words of a mail."""
    sparse = '{"instances":[{"data":{"features":{"keys":[0,1],"shape":[3],"values":[3,1]}}}]}'
    assert answer(lda, "3,1,0") == answer(lda, sparse, "application/json")


@pytest.mark.parametrize("cell", ["-1", "nan", "inf", "1e30"])
def test_what_is_no_count_is_refused(lda: TensorModel, cell: str) -> None:
    """The sentence says which row and what is allowed; the model would answer with no numbers."""
    with pytest.raises(BadInput, match=r"row 2 holds no counts of words: each must be a number from 0 to 16777216"):
        answer(lda, f"1,2,3\n1,{cell},3")


def test_a_bad_row_fails_its_own_call_only(lda: TensorModel) -> None:
    """Calls that were stacked by the batcher are no neighbours to each other."""
    good, bad = pipeline.run(lda, "text/csv", "", [b"1,2,3", b"1,-2,3"]).answers
    assert isinstance(bad, BadInput)
    assert "row 1" in bad.message
    assert isinstance(good, bytes)


def test_json_lines_are_not_read(lda: TensorModel) -> None:
    """LDA documents CSV, JSON and RecordIO."""
    with pytest.raises(ServingError, match="does not read 'application/jsonlines'"):
        answer(lda, '{"features":[1,2,3]}', "application/jsonlines")


@given(arrays(np.float32, (2, 3), elements=st.floats(width=32)))
def test_whatever_passes_is_answered_with_numbers(lda: TensorModel, rows: np.ndarray) -> None:
    """Any floats at all: refused, or mixtures whose sum is 1."""
    try:
        counts.check(rows)
    except BadInput:
        return
    mixtures = lda.predict(rows)
    assert np.ones(2) == pytest.approx(np.sum(np.asarray(mixtures), axis=1), abs=1e-4)
