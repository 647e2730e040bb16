"""Rows with a missing value, and what the algorithms of arrays say of any body whatever."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving.errors import BadInput, ServingError
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


@pytest.fixture(scope="module", params=["linear-learner", "knn", "pca"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TensorModel:
    """Three columns times a matrix, in each algorithm's dress."""
    folder = tmp_path_factory.mktemp(request.param)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], ["sums"])],
        "sums",
        [value("features", TensorProto.FLOAT, ["rows", 3])],
        [value("sums", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.ones((3, 1), np.float32), "weights")],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(built.SerializeToString())
    (folder / "algorithm.json").write_text(json.dumps({"Algorithm": request.param}))
    loaded = load(recognise(folder), LoadSettings())
    assert isinstance(loaded, TensorModel)
    return loaded


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
