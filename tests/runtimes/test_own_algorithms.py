"""Factorization Machines, K-Means and Random Cut Forest as they are served: small ones of our own making, through the
whole way from bytes to bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto
from scipy import sparse

from models.factorization_machines import machine
from models.kmeans.train import graph as nearest
from models.packaging import onnx_bytes
from models.random_cut_forest import forest
from models.random_cut_forest.graph import graph as walk
from models.samples import recordio
from serving.codecs.recordio import LABEL, read_records
from serving.errors import BadInput, ModelError, ServingError, UnsupportedContentType
from serving.runtimes import formats, registry
from serving.runtimes.base import LoadSettings, TensorModel
from serving.workers import pipeline

CSV, JSON, LINES, RECORDIO = "text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf"
COLUMNS = 4
DICE = np.random.default_rng(41)
CENTRES = np.array([[0, 0, 0, 0], [3, 4, 0, 0], [0, 0, 9, 9]], np.float32)
MACHINE = machine.Machine(3.5, DICE.normal(size=COLUMNS), DICE.normal(size=(COLUMNS, 2)))
LIKES = machine.Machine(0.5, MACHINE.weights, MACHINE.factors, binary=True)
FOREST = forest.grow(DICE.normal(size=(40, COLUMNS)).astype(np.float32), 5, 16, forest.DEPTH, DICE)
#: Name -> algorithm and graph.
MODELS: dict[str, tuple[str, Callable[[], ModelProto]]] = {
    "stars": ("factorization-machines", lambda: machine.graph(MACHINE, "stars")),
    "likes": ("factorization-machines", lambda: machine.graph(LIKES, "likes")),
    "clusters": ("kmeans", lambda: nearest(CENTRES, "clusters")),
    "forest": ("randomcutforest", lambda: walk(FOREST, "forest")),
}

Loaded = dict[str, TensorModel]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Each from a folder, without leave to execute code."""
    found = {}
    for name, (algorithm, made) in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "model.onnx").write_bytes(onnx_bytes(made()))
        (folder / "algorithm.json").write_text(json.dumps({"Algorithm": algorithm}))
        model = registry.load(formats.recognise(folder), LoadSettings())
        assert isinstance(model, TensorModel)
        found[name] = model
    return found


def asked(model: TensorModel, body: bytes, content_type: str, accept: str = JSON) -> bytes:
    """The answer to one call. Raises what the caller would be told."""
    (answer,) = pipeline.run(model, content_type, accept, [body]).answers
    if isinstance(answer, ServingError):
        raise answer
    return answer


def cells(row: dict[int, float]) -> dict[str, Any]:
    """An instance of ``keys`` and ``values``."""
    keys = {"keys": list(row), "shape": [COLUMNS], "values": list(row.values())}
    return {"data": {"features": keys}}


def test_machine_answers_sparse_rows(loaded: Loaded) -> None:
    """A row of two ones gives the bias, two weights and the product of two factors; lines hold the inner objects."""
    rows = [{0: 1.0, 3: 1.0}, {2: 2.0}]
    factors, weights = MACHINE.factors, MACHINE.weights
    expected = [3.5 + weights[0] + weights[3] + factors[0] @ factors[3], 3.5 + 2 * weights[2]]
    document = json.loads(
        asked(loaded["stars"], json.dumps({"instances": [cells(row) for row in rows]}).encode(), JSON)
    )
    assert {"predictions": [{"score": pytest.approx(score, abs=1e-5)} for score in expected]} == document
    lines = "\n".join(json.dumps(cells(row)) for row in rows).encode()
    answers = asked(loaded["stars"], lines, LINES, LINES).splitlines()
    assert document["predictions"] == [json.loads(line) for line in answers]


def test_binary_machine_answers_score_and_label(loaded: Loaded) -> None:
    """A probability and a whole number, as the documentation prints them."""
    rows = DICE.normal(size=(6, COLUMNS)).astype(np.float32)
    answers = json.loads(asked(loaded["likes"], recordio(rows), RECORDIO))["predictions"]
    expected = LIKES.scores(sparse.csr_matrix(rows.astype(float)))
    assert pytest.approx(expected, abs=1e-5) == [answer["score"] for answer in answers]
    assert [int(score > 0.5) for score in expected] == [answer["predicted_label"] for answer in answers]
    assert {int} == {type(answer["predicted_label"]) for answer in answers}


def test_machine_reads_no_csv(loaded: Loaded) -> None:
    """As AWS documents it."""
    with pytest.raises(UnsupportedContentType, match="it reads application/json"):
        asked(loaded["stars"], b"1,0,0,1\n", CSV)


def test_clusters_answer_number_and_distance(loaded: Loaded) -> None:
    """Floats both, ``1.0,5.0`` as a line; a record each with both as labels."""
    body = b"3,4,0,0\n3,4,5,0\n0,0,9,9.5\n"
    assert b"1.0,0.0\n1.0,5.0\n2.0,0.5\n" == asked(loaded["clusters"], body, CSV, CSV)
    document = json.loads(asked(loaded["clusters"], body, "text/csv; label_size=0"))
    assert {"closest_cluster": 1.0, "distance_to_cluster": 5.0} == document["predictions"][1]
    record = read_records(asked(loaded["clusters"], body, CSV, RECORDIO), LABEL)[1]
    assert {"closest_cluster": [1.0], "distance_to_cluster": [5.0]} == {
        key: value.tolist() for key, value in record.items()
    }


def test_forest_answers_scores(loaded: Loaded) -> None:
    """Under ``scores``; the same for dense and sparse rows, in any company."""
    rows = DICE.normal(size=(30, COLUMNS)).astype(np.float32) * 3
    expected = FOREST.scores(rows)
    together = json.loads(asked(loaded["forest"], recordio(rows), RECORDIO))["scores"]
    np.testing.assert_allclose([answer["score"] for answer in together], expected, rtol=1e-5)
    alone = json.dumps({"instances": [cells(dict(enumerate(map(float, rows[7]))))]}).encode()
    assert {"scores": [{"score": pytest.approx(float(expected[7]), rel=1e-5)}]} == json.loads(
        asked(loaded["forest"], alone, JSON)
    )


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_several_calls_are_answered_together(loaded: Loaded, name: str) -> None:
    """The graphs keep rows apart, so the batcher may stack them."""
    model = loaded[name]
    rows = DICE.normal(size=(3, COLUMNS)).astype(np.float32)
    bodies = [json.dumps({"instances": [{"features": list(map(float, row))}]}).encode() for row in rows]
    assert model.batchable
    assert [asked(model, body, JSON) for body in bodies] == list(pipeline.run(model, JSON, JSON, bodies).answers)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("instance", "sentence"),
    [
        ({"features": [1.0, 2.0, 3.0]}, "3 values"),
        (cells({4: 1.0}), "feature 4 of 4"),
        (cells({-1: 1.0}), "feature -1"),
        ({"data": {"features": {"keys": [0], "shape": [10**12], "values": [1]}}}, "values, 4 are expected"),
        ({"features": [1.0, None, 3.0, 4.0]}, "missing value"),
        ({"features": [1.0, 3e38, 3.0, 4.0]}, "too large"),
        ({"features": "1,2,3,4"}, "the model takes"),
    ],
)
def test_bad_row_is_refused_in_words(loaded: Loaded, name: str, instance: object, sentence: str) -> None:
    """No distance, score or sum is made up for it."""
    with pytest.raises(BadInput, match=sentence):
        asked(loaded[name], json.dumps({"instances": [instance]}).encode(), JSON)


KEYS = st.sampled_from(["features", "data", "keys", "values", "shape"])
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ROW = st.lists(st.floats(width=32), min_size=COLUMNS, max_size=COLUMNS)
SPARSE = st.dictionaries(st.integers(-1, COLUMNS), st.floats(width=32), max_size=4).map(cells)
INSTANCE = ROW.map(lambda row: {"features": row}) | SPARSE | WILD


@settings(max_examples=120)
@given(
    name=st.sampled_from(sorted(MODELS)),
    instances=st.lists(INSTANCE, max_size=3),
    accept=st.sampled_from([JSON, LINES, CSV, RECORDIO]),
)
def test_no_request_is_the_servers_fault(loaded: Loaded, name: str, instances: list[Any], accept: str) -> None:
    """Whatever is sent, there is an answer, a row each, or an error of the caller's."""
    body = json.dumps({"instances": instances}).encode()
    try:
        answer = asked(loaded[name], body, JSON, accept)
    except ModelError as error:
        assert 400 <= error.original_status < 500, error.message
    else:
        if accept == JSON:
            (rows,) = json.loads(answer).values()
            assert len(instances) == len(rows)


def test_nothing_but_data_is_loaded(tmp_path: Path) -> None:
    """The folders the recipes write need no consent to execute code."""
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(walk(FOREST, "forest")))
    (tmp_path / "algorithm.json").write_text('{"Algorithm": "randomcutforest", "Model": "model.onnx"}')
    found = formats.recognise(tmp_path)
    assert ("algorithm", False) == (found.format, found.executes_code)
