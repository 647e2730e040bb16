"""BlazingText: vectors of words and labels of texts, in its own request and answer formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.errors import BadInput, LoadFailed, NotAcceptable, PredictionFailed, ServingError, UnsupportedContentType
from serving.runtimes import formats, registry
from serving.runtimes.algorithms import blazingtext
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel
from tests.runtimes.texts import FILMS, VECTORS, softmax, vectors_text

JSON, LINES = "application/json", "application/jsonlines"


def loaded(path: Path) -> ScriptModel:
    """The model at ``path``, recognised and loaded as the server does."""
    found = registry.load(formats.recognise(path), LoadSettings())
    assert isinstance(found, ScriptModel)
    return found


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> ScriptModel:
    """A classifier, as BlazingText's training leaves it: one file, nothing declared."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "model.bin").write_bytes(FILMS.content())
    return loaded(folder)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ScriptModel:
    """A table of words."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "vectors.txt").write_text(vectors_text())
    return loaded(folder)


def ask(model: ScriptModel, body: Any, content_type: str = JSON, accept: str = "") -> Any:
    """The answer: a document, or a list of the lines'. ``body``: bytes, or what is to be sent as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = model.transform(ScriptCall(sent, content_type, accept))
    assert reply.content_type == (content_type or JSON)
    return [json.loads(line) for line in reply.body.splitlines()] if content_type == LINES else json.loads(reply.body)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_text_has_its_likeliest_label(labels: ScriptModel) -> None:
    """One, where nobody says how many."""
    answer = ask(labels, {"instances": ["good film", "bad film"]})
    assert [["__label__praise"], ["__label__blame"]] == [row["label"] for row in answer]
    assert pytest.approx([softmax(2.0, 0.0)[0], softmax(1.0, 0.0)[0]]) == [row["prob"][0] for row in answer]


def test_as_many_labels_as_asked_for_the_likeliest_first(labels: ScriptModel) -> None:
    """And all of them where more are asked for than there are."""
    for k in (2, 10**18):
        (row,) = ask(labels, {"instances": ["a bad film"], "configuration": {"k": k}})
        assert ["__label__blame", "__label__praise"] == row["label"]
        assert pytest.approx(softmax(1.0, 0.0)) == row["prob"]


def test_lines_say_for_themselves_how_many(labels: ScriptModel) -> None:
    """An answer a line, of the request's type."""
    lines = b'{"source": "good", "k": 2}\n\n{"source": "bad"}\n'
    assert [["__label__praise", "__label__blame"], ["__label__blame"]] == [
        row["label"] for row in ask(labels, lines, LINES)
    ]


def test_body_without_a_type_is_json(labels: ScriptModel) -> None:
    """As for the other algorithms that read instances."""
    assert ["label", "prob"] == list(ask(labels, {"instances": ["good"]}, "")[0])


def test_unknown_words_say_what_a_text_of_nothing_says(labels: ScriptModel) -> None:
    """The end of a line is known to the model: both labels are as likely."""
    assert [0.5, 0.5] == ask(labels, {"instances": ["qqq"], "configuration": {"k": 2}})[0]["prob"]


def test_weights_too_large_for_an_answer_are_the_models_fault(tmp_path: Path) -> None:
    """Infinity less infinity is no probability."""
    wild = FILMS._replace(output=((3e38, 0.0), (3e38, 0.0)))
    (tmp_path / "model.bin").write_bytes(wild.content())
    with pytest.raises(PredictionFailed, match="no finite numbers"), np.errstate(all="ignore"):
        ask(loaded(tmp_path), {"instances": ["good good"]})


# --- words -----------------------------------------------------------------------------------------------------------


def test_words_have_their_vectors_and_unknown_ones_zeros(words: ScriptModel) -> None:
    """In the order asked, with the word."""
    assert [
        {"word": "king", "vector": [0.25, -1.5, 3.0]},
        {"word": "qqq", "vector": [0.0, 0.0, 0.0]},
        {"word": "œuvre", "vector": [0.001, 2.0, -7.0]},
    ] == ask(words, {"instances": ["king", "qqq", "œuvre"]})


def test_words_as_lines(words: ScriptModel) -> None:
    """A word a line, a vector a line."""
    assert [{"word": "queen", "vector": VECTORS["queen"]}] == ask(words, b'{"source": "queen"}', LINES)


def test_binary_model_of_words_knows_the_parts_of_unknown_ones(tmp_path: Path) -> None:
    """A ``vectors.bin`` beside the ``vectors.txt``: what has subwords is preferred."""
    rows = (*([[1.0]] * 4), *([[2.0]] * 3))
    subwords = FILMS._replace(rows=rows, labels={}, supervised=False, buckets=3, letters=(3, 3), output=([1.0],) * 4)
    (tmp_path / "vectors.bin").write_bytes(subwords.content())
    (tmp_path / "vectors.txt").write_text(vectors_text())
    # <unseen> has six n-grams of three letters; <bad> one row of its own and three
    assert [{"word": "unseen", "vector": [2.0]}, {"word": "bad", "vector": [1.75]}] == ask(
        loaded(tmp_path), {"instances": ["unseen", "bad"]}
    )


# --- artifacts -------------------------------------------------------------------------------------------------------


def test_declared_folder_is_the_same_model(tmp_path: Path) -> None:
    """Under any file's name."""
    (tmp_path / "embedding.vec").write_text(vectors_text())
    (tmp_path / "algorithm.json").write_text('{"Algorithm": "blazingtext", "Model": "embedding.vec"}')
    artifact = formats.recognise(tmp_path)
    assert ("algorithm", False, frozenset()) == (artifact.format, artifact.executes_code, artifact.frameworks)
    assert VECTORS["king"] == ask(loaded(tmp_path), {"instances": ["king"]})[0]["vector"]


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("model.bin", FILMS.content(), "fasttext"),
        ("anything", FILMS.content(), "fasttext"),
        ("vectors.txt", vectors_text().encode(), "vectors"),
        ("vectors.txt", b"2 300\nking" + b" 0.125" * 300 + b"\nqueen" + b" -1e-05" * 300 + b"\n", "vectors"),
        ("vectors.txt", b"2 2000\nking" + b" 0.12345678" * 2000 + b"\nqueen" + b" -1e-05" * 2000 + b"\n", "vectors"),
        ("vectors.txt", b"1 1 \r\nking 7 \r\n", "vectors"),
    ],
)
def test_bare_files_are_recognised(tmp_path: Path, name: str, content: bytes, form: str) -> None:
    """By what is in them; neither is code."""
    (tmp_path / name).write_bytes(content)
    artifact = formats.recognise(tmp_path / name)
    assert (form, False, frozenset()) == (artifact.format, artifact.executes_code, artifact.frameworks)


@pytest.mark.parametrize(
    "content", [b"1 2\nno vector at all\n", b"1 3\nking 1 2\n", b"3 2 1\nking 1 2 3\n", b"10 20\n", b"0 3\n", b"1 3"]
)
def test_other_text_is_no_table_of_words(tmp_path: Path, content: bytes) -> None:
    """Numbers at the head of a file are not enough."""
    (tmp_path / "vectors.txt").write_bytes(content)
    with pytest.raises(LoadFailed, match="no format that is recognised"):
        formats.recognise(tmp_path / "vectors.txt")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"3 2\na 1 2\nb 1 2\n", "line 4: there must be a word and 2 finite numbers"),
        (b"2 2\na 1 2\nb 1 2 x\n", "line 3: a number is none"),
        (b"2 2\na 1 2\nb 1 nan\n", "line 3: there must be a word and 2 finite"),
        (b"2 2\na 1 2\nb 1 1e39\n", "line 3: there must be a word and 2 finite"),
        (b"999999999 2\na 1 2\n", "says that it has 999999999 words in 2 dimensions: it is too small"),
        (b"1 70000\na" + b" 1" * 70000, "it is too small"),
        (b"king 1 2\n", "does not begin with its numbers of words and dimensions"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """With the line; and before any memory is taken for what a head promises."""
    (tmp_path / "vectors.txt").write_bytes(content)
    (tmp_path / "algorithm.json").write_text('{"Algorithm": "blazingtext", "Model": "vectors.txt"}')
    with pytest.raises(LoadFailed, match=why), np.errstate(over="ignore"):
        loaded(tmp_path)


def test_word_given_twice_is_the_first_and_may_hold_blanks(tmp_path: Path) -> None:
    """What is last in a line are the numbers."""
    (tmp_path / "vectors.txt").write_bytes(b"3 1\nking 2\nnew york 1.5\nking 3\n")
    model = loaded(tmp_path)
    assert [[1.5], [2.0]] == [row["vector"] for row in ask(model, {"instances": ["new york", "king"]})]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"instances": [""]}, "instance 1 is an empty text"),
        ({"instances": ["good", " \n"]}, "instance 2 is an empty text"),
        ({"instances": ["good", 7]}, "instance 2 must be a string"),
        ({"instances": [{"source": "good"}]}, "instance 1 must be a string"),
        ({"instances": []}, "at least one instance"),
        ({"instances": "good"}, "a list of 'instances'"),
        ({"instances": ["good"], "configuration": {"k": 0}}, "'k' of 'configuration' must be a whole number"),
        ({"instances": ["good"], "configuration": {"k": -1}}, "'k' of"),
        ({"instances": ["good"], "configuration": {"k": 1.5}}, "'k' of"),
        ({"instances": ["good"], "configuration": {"k": "2"}}, "'k' of"),
        ({"instances": ["good"], "configuration": {"k": True}}, "'k' of"),
        ({"instances": ["good"], "configuration": 2}, "'configuration' must be an object"),
        (b'{"instances": ["\\ud800"]}', "not JSON"),
        (b"", "empty"),
    ],
)
def test_bad_documents_are_refused_with_a_sentence(labels: ScriptModel, body: Any, why: str) -> None:
    """That names the instance or the setting."""
    with pytest.raises(BadInput, match=why):
        ask(labels, body)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'"good"', "instance 2 must be an object with a 'source'"),
        (b'{"text": "good"}', "the 'source' of instance 2 must be a string"),
        (b'{"source": "good", "k": null}', "'k' of instance 2"),
        (b'{"source": ""}', "the 'source' of instance 2 is an empty text"),
        (b"{", "line 2 is not JSON"),
    ],
)
def test_one_bad_line_fails_all(labels: ScriptModel, line: bytes, why: str) -> None:
    """With its number."""
    with pytest.raises(BadInput, match=why):
        ask(labels, b'{"source": "good"}\n' + line, LINES)


def test_answers_beyond_all_measure_are_refused_before_they_are_made(tmp_path: Path) -> None:
    """A request of six megabytes of short words would be gigabytes of vectors."""
    (tmp_path / "vectors.txt").write_text(vectors_text({"king": [1] * 65536}))
    with pytest.raises(BadInput, match="would hold 16842752 numbers, and at most 16777216 are answered"):
        ask(loaded(tmp_path), {"instances": ["qqq"] * 257})


def test_more_texts_than_one_request_may_hold_are_refused(labels: ScriptModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six megabytes of short ones would keep a worker busy for longer than a call may take."""
    monkeypatch.setattr(blazingtext, "_MOST_TEXTS", 2)
    with pytest.raises(BadInput, match="the body holds 3 instances; one request may hold 2"):
        labels.transform(ScriptCall(b'{"instances": ["a", "b", "c"]}', "application/json", ""))


def test_answer_is_of_the_requests_type_or_none(labels: ScriptModel) -> None:
    """BlazingText's Content-Type and Accept are the same."""
    body = {"instances": ["good"]}
    assert ask(labels, body, JSON, "*/*") == ask(labels, body, JSON, JSON)
    with pytest.raises(NotAcceptable, match="answers in application/json"):
        ask(labels, body, JSON, LINES)
    with pytest.raises(UnsupportedContentType, match="does not read 'text/csv'"):
        ask(labels, b"good", "text/csv")


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["instances", "configuration", "source", "k", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(document=anything, content_type=st.sampled_from([JSON, LINES]))
@example({"instances": ["\x00"], "configuration": {"k": 2}}, JSON)
@example({"source": "</s>", "k": 2}, LINES)
def test_any_document_is_answered_or_refused(
    labels: ScriptModel, words: ScriptModel, document: Any, content_type: str
) -> None:
    """By a client's error, never by one of ours."""
    body = json.dumps(document).encode()
    for model in (labels, words):
        try:
            reply = model.transform(ScriptCall(body, content_type, ""))
        except ServingError as error:
            assert type(error) in (BadInput, NotAcceptable, UnsupportedContentType), repr(error)
        else:
            assert reply.body
