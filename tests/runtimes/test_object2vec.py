"""Object2Vec: pairs of token lists of any length, and one side alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.errors import BadInput, LoadFailed, NotAcceptable, ServingError, UnsupportedContentType
from serving.runtimes import formats, registry
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel
from tests.runtimes.pairs import embedding, score, write

JSON, LINES = "application/json", "application/jsonlines"


def loaded(path: Path) -> ScriptModel:
    """The model at ``path``, recognised and loaded as the server does."""
    found = registry.load(formats.recognise(path), LoadSettings())
    assert isinstance(found, ScriptModel)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ScriptModel:
    """Seven tokens on one side, nine on the other, cut after six and eight."""
    return loaded(write(tmp_path_factory.mktemp("object2vec") / "model", Enc0MaxSeqLen=6, Enc1MaxSeqLen=8))


def ask(model: ScriptModel, body: Any, content_type: str = JSON, accept: str = JSON) -> Any:
    """The answer: a document, or a list of the lines'. ``body``: bytes, or instances."""
    if not isinstance(body, bytes):
        lines = content_type.startswith(LINES)
        body = "\n".join(map(json.dumps, body)).encode() if lines else json.dumps({"instances": body}).encode()
    reply = model.transform(ScriptCall(body, content_type, accept))
    assert reply.content_type == accept
    return [json.loads(line) for line in reply.body.splitlines()] if accept == LINES else json.loads(reply.body)


def scores(pairs: list[dict[str, list[int]]]) -> Any:
    """The answer by the formula."""
    return {"predictions": [{"scores": [pytest.approx(score(pair["in0"], pair["in1"]), abs=1e-6)]} for pair in pairs]}


PAIRS = [
    {"in0": [6, 1, 0, 3, 5], "in1": [1, 2]},
    {"in0": [2], "in1": [8, 0, 7, 7, 7, 3]},
    {"in0": [0, 0], "in1": [0]},
]


def test_lists_of_different_lengths_are_each_their_own(model: ScriptModel) -> None:
    """Token 0 is a token: what fills up the shorter lists is none."""
    assert scores(PAIRS) == ask(model, PAIRS)


@pytest.mark.parametrize(("content_type", "accept"), [(LINES, LINES), (JSON, LINES), (LINES, JSON)])
def test_lines_hold_the_inner_objects(model: ScriptModel, content_type: str, accept: str) -> None:
    """Asked and answered in either type."""
    expected = scores(PAIRS)
    assert (expected["predictions"] if accept == LINES else expected) == ask(model, PAIRS, content_type, accept)


@pytest.mark.parametrize("side", [0, 1])
def test_one_side_alone_has_embeddings(model: ScriptModel, side: int) -> None:
    """By its own encoder."""
    lists = [pair[f"in{side}"] for pair in PAIRS]
    answer = ask(model, [{f"in{side}": tokens} for tokens in lists])
    assert [["embeddings"]] * 3 == [list(row) for row in answer["predictions"]]
    for tokens, row in zip(lists, answer["predictions"], strict=True):
        assert pytest.approx(embedding(side, tokens)) == row["embeddings"]


def test_lists_are_cut_where_the_declaration_says(model: ScriptModel) -> None:
    """As the hyperparameter ``enc0_max_seq_len``: what comes later is not read."""
    long = {"in0": [1] * 6 + [5] * 50, "in1": [2] * 8 + [0]}
    assert scores([{"in0": [1], "in1": [2]}]) == ask(model, [long])


@pytest.mark.parametrize(
    ("lengths", "first", "second"), [("1,2", 1, 2), ("2, 1", 2, 1), ('"5000,1"', 5, 1), ("5000,5000", 5, 2)]
)
def test_lists_are_cut_where_the_request_says(model: ScriptModel, lengths: str, first: int, second: int) -> None:
    """``infer_max_seqlens``, quoted or not; never longer than declared."""
    kind = f"{JSON}; infer_max_seqlens={lengths}" if " " not in lengths else f'{JSON}; infer_max_seqlens="{lengths}"'
    cut = {"in0": PAIRS[0]["in0"][:first], "in1": PAIRS[0]["in1"][:second]}
    assert scores([cut]) == ask(model, PAIRS[:1], kind)


@pytest.mark.parametrize("lengths", ["0,1", "1,5001", "7", "1,2,3", "a,b", "1.5,2", "-1,2"])
def test_lengths_out_of_range_are_refused(model: ScriptModel, lengths: str) -> None:
    """Two numbers from 1 to 5000."""
    with pytest.raises(BadInput, match="'infer_max_seqlens' must be two whole numbers from 1 to 5000"):
        ask(model, PAIRS, f"{JSON}; infer_max_seqlens={lengths}")


def test_many_lists_go_through_in_pieces_and_in_order(tmp_path: Path) -> None:
    """Longer and shorter ones mixed, more than are looked at together."""
    dice = np.random.default_rng(7)
    lists = [dice.integers(0, 7, size).tolist() for size in dice.integers(1, 900, 150)]
    answer = ask(loaded(write(tmp_path / "model")), [{"in0": tokens} for tokens in lists])
    expected = np.stack([embedding(0, tokens) for tokens in lists])
    assert pytest.approx(expected, abs=1e-5) == np.array([row["embeddings"] for row in answer["predictions"]])


@pytest.mark.parametrize(
    ("instances", "why"),
    [
        ([{"in0": [7], "in1": [0]}], "'in0' of instance 1 has a token that is not from 0 to 6"),
        (
            [{"in0": [0], "in1": [0]}, {"in0": [0], "in1": [9]}],
            "'in1' of instance 2 has a token that is not from 0 to 8",
        ),
        ([{"in0": [-1], "in1": [0]}], "not from 0 to 6"),
        ([{"in0": [2**64 - 1], "in1": [0]}], "not from 0 to 6"),
        ([{"in0": [], "in1": [0]}], "'in0' of instance 1 must be a list of at least one token"),
        ([{"in0": [1.0], "in1": [0]}], "each a whole number"),
        ([{"in0": [True], "in1": [0]}], "each a whole number"),
        ([{"in0": ["1"], "in1": [0]}], "each a whole number"),
        ([{"in0": 1, "in1": [0]}], "must be a list"),
        ([{"in0": None, "in1": [0]}], "must be a list"),
        ([{"in2": [1]}], "instance 1 must be an object with 'in0', 'in1' or both"),
        ([[1, 2]], "instance 1 must be an object"),
        ([{"in0": [1]}, {"in0": [1], "in1": [1]}], "instance 2 has in0 and in1, where those before have in0"),
        ([], "at least one instance"),
    ],
)
def test_bad_instances_are_refused_with_a_sentence(model: ScriptModel, instances: list[Any], why: str) -> None:
    """That names the side and the instance."""
    with pytest.raises(BadInput, match=why):
        ask(model, instances)


def test_other_types_are_refused(model: ScriptModel) -> None:
    """Neither read nor answered."""
    with pytest.raises(UnsupportedContentType, match="does not read 'text/csv'"):
        ask(model, b"1,2", "text/csv")
    with pytest.raises(NotAcceptable, match="application/jsonlines"):
        ask(model, PAIRS, JSON, "text/csv")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"Enc0VocabSize": None}, "Enc0VocabSize must be a whole number"),
        ({"Enc1VocabSize": 10}, "does not answer a pair of tokens"),
        ({"Enc1MaxSeqLen": 5001}, "Enc1MaxSeqLen must be a whole number from 1 to 5000"),
        ({"Model": "absent.onnx"}, "no file beside it"),
    ],
)
def test_graph_that_does_not_fit_its_declaration_is_not_served(
    tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    """It is asked for the last token of each side when it is loaded."""
    with pytest.raises(LoadFailed, match=why):
        loaded(write(tmp_path / "model", **settings))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 12) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["instances", "in0", "in1", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    document=anything,
    content_type=st.sampled_from([JSON, LINES]),
    lengths=st.none() | st.text(max_size=6) | st.just("3,4"),
)
@example({"instances": [{"in0": [1], "in1": [1]}]}, JSON, "²,1")
def test_any_document_is_answered_or_refused(
    model: ScriptModel, document: Any, content_type: str, lengths: str | None
) -> None:
    """By a client's error, never by one of ours."""
    kind = content_type if lengths is None else f"{content_type}; infer_max_seqlens={lengths}"
    try:
        reply = model.transform(ScriptCall(json.dumps(document).encode(), kind, ""))
    except ServingError as error:
        assert type(error) in (BadInput, NotAcceptable, UnsupportedContentType), repr(error)
    else:
        assert reply.body
