"""Seq2Seq's requests, answers and beam search, with nets that copy what they read or follow a table."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.codecs.recordio import encode_record, read_records
from serving.errors import BadInput, LoadFailed, NotAcceptable, ServingError, UnsupportedContentType
from serving.runtimes import registry
from serving.runtimes.algorithms import seq2seq
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel
from serving.runtimes.formats import recognise
from tests import sequences
from tests.sequences import VOCABULARY

JSON, LINES, RECORDIO = "application/json", "application/jsonlines", "application/x-recordio-protobuf"
BEGIN, END = VOCABULARY["<s>"], VOCABULARY["</s>"]


def loaded(folder: Path) -> ScriptModel:
    """The model of a folder."""
    model = registry.load(recognise(folder), LoadSettings())
    assert isinstance(model, ScriptModel)
    return model


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> ScriptModel:
    """Says what it reads, of at most eight tokens the first six."""
    folder = sequences.seq2seq(tmp_path_factory.mktemp("copier"), MaxSourceLength=8, MaxTargetLength=6)
    return loaded(folder)


def ask(model: ScriptModel, *sources: Any, **configuration: Any) -> list[dict[str, Any]]:
    """The predictions for some texts."""
    instances = [{"data": one, "configuration": configuration} for one in sources]
    reply = model.transform(ScriptCall(json.dumps({"instances": instances}).encode(), JSON, ""))
    predictions: list[dict[str, Any]] = json.loads(reply.body)["predictions"]
    return predictions


def test_sources_of_several_lengths_are_answered_together(copier: ScriptModel) -> None:
    """Each ends where its own source ends; more spaces are no tokens."""
    assert [{"target": "a b"}, {"target": "c"}, {"target": "b b a"}] == ask(copier, "a b", "c", " b  b\ta ")


def test_more_sources_than_go_together_are_answered_in_parts(
    copier: ScriptModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order."""
    texts = [" ".join(one) for one in itertools.product("abc", repeat=3)]
    monkeypatch.setattr(seq2seq, "_TOGETHER", 5)
    assert texts == [one["target"] for one in ask(copier, *texts)]


def test_unknown_tokens_are_read_as_unk(copier: ScriptModel) -> None:
    """As SageMaker's algorithm reads them."""
    assert [{"target": "a <unk> b"}] == ask(copier, "a é b")


def test_long_sources_are_cut_and_targets_bounded(tmp_path: Path, copier: ScriptModel) -> None:
    """At MaxSourceLength and MaxTargetLength, each alone."""
    assert [{"target": "a b c a b c"}] == ask(copier, "a b c " * 500)
    short = loaded(sequences.seq2seq(tmp_path / "short", MaxSourceLength=2))
    assert [{"target": "a b"}] == ask(short, "a b c a b c")


@pytest.mark.parametrize(("wanted", "there"), [("true", True), (True, True), ("false", False), (False, False)])
def test_the_attention_matrix_is_answered_on_request(copier: ScriptModel, wanted: Any, there: bool) -> None:
    """A row for each token of the target, a column for each of the source, whatever longer sources are beside it."""
    answers = ask(copier, "a b", "a b c a", attention_matrix=wanted)
    assert [there, there] == ["matrix" in answer for answer in answers]
    if there:
        assert [np.eye(2).tolist(), np.eye(4).tolist()] == [answer["matrix"] for answer in answers]


def test_lines_are_sources_and_targets(copier: ScriptModel) -> None:
    """Read as lines; answered as lines where Accept says so, else as a document."""
    body = b'{"source": "a b"}\n\n{"source": "c"}\n'
    assert b'{"target":"a b"}\n{"target":"c"}\n' == copier.transform(ScriptCall(body, LINES, LINES)).body
    document = copier.transform(ScriptCall(body, LINES, ""))
    assert ({"predictions": [{"target": "a b"}, {"target": "c"}]}, JSON) == (
        json.loads(document.body),
        document.content_type,
    )


def test_records_are_ids_and_so_are_their_answers(copier: ScriptModel) -> None:
    """A record of int32 ids each way; ``features["target"]`` without the end."""
    sources = [[4, 5], [6], [5, 5, 4]]
    body = b"".join(encode_record({"values": np.array(one, np.int32)}) for one in sources)
    reply = copier.transform(ScriptCall(body, RECORDIO, RECORDIO))
    found = [record["target"] for record in read_records(reply.body)]
    assert (sources, RECORDIO) == ([one.tolist() for one in found], reply.content_type)
    assert {np.dtype("<i4")} == {one.dtype for one in found}


# Two ways on: "a" looks likelier at first, what can follow it does not.
_MISLEADING = np.full((7, 7), 1e-6)
_MISLEADING[BEGIN, [4, 5]] = 0.6, 0.4
_MISLEADING[4, [4, 5, 6, END]] = 0.25
_MISLEADING[5, END] = 1.0


@pytest.mark.parametrize(("beam", "expected"), [(1, "a"), (2, "b")])
def test_a_beam_finds_what_a_greedy_search_misses(tmp_path: Path, beam: int, expected: str) -> None:
    """0.4 x 1 is more than 0.6 x 0.25: only who keeps both beginnings sees it."""
    model = loaded(sequences.seq2seq(tmp_path / "model", _MISLEADING, BeamSize=beam))
    assert expected == ask(model, "c")[0]["target"].split()[0]


def _beam(table: np.ndarray, width: int, longest: int) -> list[int]:
    """Beam search over lists, one beginning at a time."""
    beginnings = [(0.0, [BEGIN])]
    for _ in range(longest):
        found = [
            (score + float(np.log(np.float32(table[ids[-1], token]))), [*ids, token])
            for score, ids in beginnings
            if ids[-1] != END
            for token in range(len(table))
            if token not in (VOCABULARY["<pad>"], BEGIN)
        ]
        found += [one for one in beginnings if one[1][-1] == END]
        beginnings = sorted(found, key=lambda one: -one[0])[:width]
        if beginnings[0][1][-1] == END:
            break
    return [one for one in beginnings[0][1][1:] if one != END]


@pytest.mark.parametrize("seed", range(6))
def test_the_beam_is_that_of_a_plain_search(tmp_path: Path, seed: int) -> None:
    """Against a search over lists, for tables of chance."""
    table = np.random.default_rng(seed).dirichlet(np.full(7, 0.5), 7).astype(np.float32)
    width = 1 + seed % 4
    model = loaded(sequences.seq2seq(tmp_path / "model", table, BeamSize=width, MaxTargetLength=9))
    names = list(VOCABULARY)
    assert " ".join(names[one] for one in _beam(table, width, 9)) == ask(model, "a")[0]["target"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"[]", "'instances'"),
        (b'{"instances": []}', "at least one"),
        (b'{"instances": ["a b"]}', "instance 1 must be an object with a text 'data'"),
        (b'{"instances": [{"data": "a"}, {"data": 5}]}', "instance 2 must be an object with a text 'data'"),
        (b'{"instances": [{"data": ""}]}', "instance 1: 'data' is empty"),
        (b'{"instances": [{"data": " \\n"}]}', "instance 1: 'data' is empty"),
        (b'{"instances": [{"data": "a", "configuration": 5}]}', "'configuration' must be an object"),
        (b'{"instances": [{"data": "a", "configuration": {"attention_matrix": 5}}]}', 'must be "true" or "false"'),
    ],
)
def test_a_bad_document_is_told(copier: ScriptModel, body: bytes, words: str) -> None:
    """With the instance's number."""
    with pytest.raises(BadInput, match=words):
        copier.transform(ScriptCall(body, JSON, ""))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "record 1 must hold the ids"),
        ({"values": np.array([1.5], np.float32)}, "record 1 must hold the ids"),
        ({"values": np.array([], np.int32)}, "record 1 must hold the ids"),
        ({"values": np.array([4, 7], np.int32)}, "outside the vocabulary's, which are 0 to 6"),
        ({"values": np.array([-1], np.int32)}, "outside the vocabulary's"),
    ],
)
def test_a_bad_record_is_told(copier: ScriptModel, tensors: dict[str, np.ndarray], words: str) -> None:
    """Ids outside the vocabulary would be another token's."""
    with pytest.raises(BadInput, match=words):
        copier.transform(ScriptCall(encode_record(tensors), RECORDIO, ""))


def test_other_types_are_neither_read_nor_written(copier: ScriptModel) -> None:
    """415 and 406."""
    with pytest.raises(UnsupportedContentType, match="application/json, application/jsonlines"):
        copier.transform(ScriptCall(b"a b", "text/csv", ""))
    with pytest.raises(NotAcceptable):
        copier.transform(ScriptCall(b'{"instances":[{"data":"a"}]}', JSON, "image/png"))


def test_a_request_holds_so_many_sources_and_no_more(copier: ScriptModel) -> None:
    """A bound, told in numbers."""
    with pytest.raises(BadInput, match="holds 1001 sources; one request may hold 1000"):
        ask(copier, *["a"] * 1001)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("vocab.src.json", "{", "vocab.src.json is not JSON"),
        ("vocab.src.json", "[1]", "object of tokens and their ids"),
        ("vocab.src.json", '{"a": 0}', "vocab.src.json has no <unk>"),
        ("vocab.trg.json", '{"<s>": 0, "</s>": 2}', "the ids 0, 1, 2"),
        ("vocab.trg.json", '{"<s>": 0, "a": 1}', "vocab.trg.json has no </s>"),
        ("vocab.trg.json", '{"<s>": 0, "</s>": 1}', "does not tell 2 target tokens apart"),
        ("vocab.src.json", json.dumps({**VOCABULARY, "d": 7}), "do not fit each other or the vocabularies"),
        (
            "algorithm.json",
            '{"Algorithm": "seq2seq", "BeamSize": 1000}',
            "BeamSize must be a whole number from 1 to 20",
        ),
        ("algorithm.json", '{"Algorithm": "seq2seq", "MaxTargetLength": 0}', "MaxTargetLength must be"),
        ("algorithm.json", '{"Algorithm": "seq2seq", "Decoder": "encoder.onnx"}', "do not fit each other"),
    ],
)
def test_an_artifact_that_cannot_be_is_refused(tmp_path: Path, file: str, content: str, words: str) -> None:
    """When it is loaded, in a sentence that names the file or the setting."""
    folder = sequences.seq2seq(tmp_path / "model")
    (folder / file).write_text(content)
    with pytest.raises(LoadFailed, match=words):
        loaded(folder)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_INSTANCES = st.fixed_dictionaries(
    {"data": st.text(max_size=30) | _VALUES},
    optional={"configuration": st.dictionaries(st.just("attention_matrix"), st.just("true") | _VALUES) | _VALUES},
)


@settings(max_examples=100, deadline=None)
@given(
    body=st.binary(max_size=60)
    | st.lists(_INSTANCES | _VALUES, max_size=3).map(lambda rows: json.dumps({"instances": rows}).encode()),
    content_type=st.sampled_from([JSON, LINES, RECORDIO]),
)
def test_no_body_gives_anything_but_an_answer_or_a_refusal(copier: ScriptModel, body: bytes, content_type: str) -> None:
    """Whatever is in it, the error is the caller's."""
    try:
        reply = copier.transform(ScriptCall(body, content_type, ""))
    except ServingError as error:
        assert 400 <= error.original_status < 500  # type: ignore[attr-defined]
    else:
        assert json.loads(reply.body)["predictions"]
