"""Rows with a missing value, and what the algorithms of arrays say of any body whatever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving.errors import BadInput, LoadFailed, PredictionFailed, ServingError
from serving.runtimes.algorithms import finite
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.formats import recognise
from serving.runtimes.registry import load
from serving.workers import pipeline

TYPES = ("text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf", "")
CELLS = st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=4), st.booleans(), st.lists(st.floats()))
DOCUMENTS = st.recursive(
    CELLS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["instances", "features", "data", "keys", "shape", "values"]), inner),
    ),
    max_leaves=12,
)


def built(folder: Path, algorithm: str, weight: float = 1.0, **declared: bool) -> TensorModel:
    """Three columns times a matrix of ``weight``, in an algorithm's dress; a missing value counts as 10."""
    value = helper.make_tensor_value_info
    weights, mean = np.full((3, 1), weight, np.float32), np.array(10, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["features"], ["gaps"]),
            helper.make_node("Where", ["gaps", "mean", "features"], ["filled"]),
            helper.make_node("MatMul", ["filled", "weights"], ["sums"]),
        ],
        "sums",
        [value("features", TensorProto.FLOAT, ["rows", 3])],
        [value("sums", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(mean, "mean")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "algorithm.json").write_text(json.dumps({"Algorithm": algorithm, **declared}))
    loaded = load(recognise(folder), LoadSettings())
    assert isinstance(loaded, TensorModel)
    return loaded


@pytest.fixture(scope="module", params=["linear-learner", "knn", "pca"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TensorModel:
    """In each algorithm's dress."""
    return built(tmp_path_factory.mktemp(request.param), request.param)


def answer(model: TensorModel, body: bytes, content_type: str = "text/csv") -> bytes | ServingError:
    """What becomes of one body."""
    return pipeline.run(model, content_type, "application/json", [body]).answers[0]


@pytest.mark.parametrize("cell", ["nan", "", "inf", "-inf"])
def test_row_with_a_missing_value_is_refused_by_its_number(model: TensorModel, cell: str) -> None:
    """A sum or distance of it would be no number, and the nearest by such a distance a wrong answer."""
    refused = answer(model, f"1,2,3\n1,{cell},3\n".encode())
    assert isinstance(refused, BadInput)
    assert "row 2 has a missing value or an infinity" in refused.message


def test_row_of_numbers_too_large_is_refused(model: TensorModel) -> None:
    """Each is a float32, the sum of their squares is none."""
    refused = answer(model, b"1e30,2,3\n")
    assert isinstance(refused, BadInput)
    assert "row 1 holds numbers too large for the model" in refused.message


def test_a_bad_row_fails_its_own_call_only(model: TensorModel) -> None:
    """Calls that share a batch do not share a fate."""
    first, second = pipeline.run(model, "text/csv", "application/json", [b"1,2,3", b"1,nan,3"]).answers
    assert isinstance(first, bytes)
    assert isinstance(second, BadInput)


@pytest.mark.parametrize(("row", "score"), [("1,nan,3", 14.0), ("1,,3", 14.0), ("1,2,3", 6.0)])
def test_model_that_fills_gaps_itself_is_given_them(tmp_path: Path, row: str, score: float) -> None:
    """Where its declaration says so: ``"MissingValues": true``."""
    model = built(tmp_path, "linear-learner", MissingValues=True)
    found = answer(model, row.encode())
    assert isinstance(found, bytes)
    assert {"predictions": [{"score": score}]} == json.loads(found)


@pytest.mark.parametrize("row", ["1,inf,nan", "1,1e30,nan"])
def test_model_that_fills_gaps_is_given_no_infinity_all_the_same(tmp_path: Path, row: str) -> None:
    """Only what is missing can be filled."""
    refused = answer(built(tmp_path, "linear-learner", MissingValues=True), row.encode())
    assert isinstance(refused, BadInput)


def test_counts_of_words_are_never_missing(tmp_path: Path) -> None:
    """A declaration that says otherwise is refused when it is loaded."""
    with pytest.raises(LoadFailed, match="lda reads counts of words, which are never missing"):
        built(tmp_path, "lda", MissingValues=True)


def test_answer_that_is_no_finite_number_is_a_failure(tmp_path: Path) -> None:
    """JSON would say null, and a caller take it for an answer. Numbers whose squares are too large for float32 are
    fine."""
    model = built(tmp_path, "linear-learner", weight=1e21)
    failed = answer(model, b"1e18,2,3")
    assert isinstance(failed, PredictionFailed)
    assert "no finite number" in failed.message
    found = answer(model, b"1,2,3")
    assert isinstance(found, bytes)
    assert 6e21 == pytest.approx(json.loads(found)["predictions"][0]["score"])


@settings(max_examples=40)
@given(document=DOCUMENTS, content_type=st.sampled_from(TYPES), lines=st.booleans())
def test_any_document_is_answered_or_refused(
    model: TensorModel, document: object, content_type: str, lines: bool
) -> None:
    """Whatever a body says, it is an answer or the caller's mistake: never a failure of the server."""
    body = json.dumps(document).encode() + (b"\n" if lines else b"")
    found = answer(model, body, content_type)
    assert isinstance(found, bytes) or 400 <= found.status < 500


@settings(max_examples=40)
@given(body=st.binary(max_size=80), content_type=st.sampled_from(TYPES))
def test_any_bytes_are_answered_or_refused(model: TensorModel, body: bytes, content_type: str) -> None:
    """The same for what is no document at all."""
    found = answer(model, body, content_type)
    assert isinstance(found, bytes) or 400 <= found.status < 500


@given(
    rows=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2) | st.just([1.0, 2.0]), min_size=1, max_size=5)
)
def test_rows_pass_just_when_each_has_a_finite_square(rows: list[list[float]]) -> None:
    """The short way over all rows at once refuses no more than row by row would."""
    array: NDArray[np.float32] = np.array(rows, np.float32)
    squares = (array.astype(np.float64) ** 2).sum(axis=1)
    passes = bool((squares <= np.finfo(np.float32).max).all())
    if passes:
        finite.check(array)
    else:
        with pytest.raises(BadInput):
            finite.check({"features": array})
