"""What replies look like, layout by layout and type by type."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.layouts import LAYOUTS
from serving.codecs.recordio import FEATURES, LABEL
from serving.codecs.registry import decode, encode, encode_each, offered
from serving.errors import NotAcceptable, PredictionFailed

JSON, CSV, LINES, NPY, NPZ, RECORDIO, RAW = (
    "application/json",
    "text/csv",
    "application/jsonlines",
    "application/x-npy",
    "application/x-npz",
    "application/x-recordio-protobuf",
    "application/octet-stream",
)
F32 = np.float32
SCORES = np.array([0.43, 0.45], F32)
EVERY = [(layout, media_type) for layout in LAYOUTS for media_type in offered(layout)]


@pytest.mark.parametrize(
    ("layout", "outputs", "expected"),
    [
        ("generic", SCORES, b'{"predictions":[0.43,0.45]}'),
        ("generic", SCORES.reshape(2, 1), b'{"predictions":[[0.43],[0.45]]}'),
        ("generic", {"y": SCORES}, b'{"predictions":[0.43,0.45]}'),
        ("generic", np.array([[1, 2], [3, 4]]), b'{"predictions":[[1,2],[3,4]]}'),
        ("generic", np.array(["a", 'b"']), b'{"predictions":["a","b\\""]}'),
        ("generic", np.array([["a"], ["b"]], object), b'{"predictions":[["a"],["b"]]}'),
        ("generic", np.array([True, False]), b'{"predictions":[true,false]}'),
        ("generic", np.zeros((1, 1, 2), F32), b'{"predictions":[[[0.0,0.0]]]}'),
        ("generic", np.array([{0: 0.5}], object), b'{"predictions":[{"0":0.5}]}'),
        (
            "generic",
            {"label": np.array([1, 0]), "probabilities": np.array([[0.1, 0.9], [0.8, 0.2]], F32)},
            b'{"predictions":[{"label":1,"probabilities":[0.1,0.9]},{"label":0,"probabilities":[0.8,0.2]}]}',
        ),
        ("xgboost", SCORES, b'{"predictions":[{"score":0.43},{"score":0.45}]}'),
        ("xgboost", SCORES.reshape(2, 1), b'{"predictions":[{"score":0.43},{"score":0.45}]}'),
        ("xgboost", np.array([[0.1, 0.9]], F32), b'{"predictions":[{"score":[0.1,0.9]}]}'),
        (
            "linear-learner",
            {"score": np.array([0.4], F32), "predicted_label": np.array([0.0], F32)},
            b'{"predictions":[{"score":0.4,"predicted_label":0}]}',
        ),
        (
            "linear-learner",
            {"score": np.array([[0.1, 0.2, 0.4, 0.3]], F32), "predicted_label": np.array([2])},
            b'{"predictions":[{"score":[0.1,0.2,0.4,0.3],"predicted_label":2}]}',
        ),
        ("linear-learner", {"score": np.array([0.4], F32)}, b'{"predictions":[{"score":0.4}]}'),
        (
            "factorization-machines",
            {"score": np.array([0.4], F32), "predicted_label": np.array([0.0], F32)},
            b'{"predictions":[{"score":0.4,"predicted_label":0}]}',
        ),
        (
            "kmeans",
            {"closest_cluster": np.array([1]), "distance_to_cluster": np.array([3], F32)},
            b'{"predictions":[{"closest_cluster":1.0,"distance_to_cluster":3.0}]}',
        ),
        (
            "knn",
            {"predicted_label": np.array([0]), "labels": np.array([[0, 1]]), "distances": np.array([[1, 2]], F32)},
            b'{"predictions":[{"predicted_label":0.0}]}',
        ),
        ("pca", np.array([[1, 2]], F32), b'{"projections":[{"projection":[1.0,2.0]}]}'),
        ("pca", np.array([1], F32), b'{"projections":[{"projection":[1.0]}]}'),
        ("lda", np.array([[0.3, 0.2, 0.5]], F32), b'{"predictions":[{"topic_mixture":[0.3,0.2,0.5]}]}'),
        ("ntm", np.array([[0.02, 0.1, 0]], F32), b'{"predictions":[{"topic_weights":[0.02,0.1,0.0]}]}'),
        ("randomcutforest", np.array([0.02], F32), b'{"scores":[{"score":0.02}]}'),
        ("ipinsights", {"dot_product": np.array([0.0], F32)}, b'{"predictions":[{"dot_product":0.0}]}'),
    ],
)
def test_json_of_every_layout(layout: str, outputs: object, expected: bytes) -> None:
    """The documents that AWS documents, number for number."""
    assert expected == encode(outputs, JSON, layout)


def test_verbose_shows_more() -> None:
    """k-NN's distances and labels are shown when Accept asks for them."""
    outputs = {
        "predicted_label": np.array([0]),
        "distances": np.array([[1, 2]], F32),
        "labels": np.array([[0, 1]], F32),
    }
    expected = b'{"predictions":[{"predicted_label":0.0,"distances":[1.0,2.0],"labels":[0.0,1.0]}]}'
    assert expected == encode(outputs, f"{JSON}; verbose=true", "knn")


@pytest.mark.parametrize(
    ("layout", "outputs", "expected"),
    [
        ("xgboost", SCORES, b"0.43\n0.45\n"),
        ("xgboost", np.array([[0.1, 0.9], [0.5, 0.5]], F32), b"0.1,0.9\n0.5,0.5\n"),
        ("kmeans", {"closest_cluster": np.array([1]), "distance_to_cluster": np.array([3], F32)}, b"1.0,3.0\n"),
        ("generic", {"a": SCORES, "b": np.array([[1, 2], [3, 4]])}, b"0.43,1,2\n0.45,3,4\n"),
        ("generic", np.array(["a,b", 'c"\n', "é"]), '"a,b"\n"c""\n"\né\n'.encode()),
        ("generic", np.array([[np.nan, np.inf], [-np.inf, 1]], F32), b"nan,inf\n-inf,1.0\n"),
    ],
)
def test_csv_replies(layout: str, outputs: object, expected: bytes) -> None:
    """One line per row, outputs side by side, a final newline."""
    assert expected == encode(outputs, CSV, layout)


def test_json_lines_replies() -> None:
    """The inner rows of the JSON document, one per line."""
    assert b'{"score":0.43}\n{"score":0.45}\n' == encode(SCORES, LINES, "xgboost")
    assert b"[1,2]\n" == encode(np.array([[1, 2]]), LINES, "generic")


def test_nan_and_infinity_are_null_in_json() -> None:
    """Replies stay valid JSON: strict parsers read them."""
    body = encode(np.array([np.nan, np.inf, -np.inf, 1]), JSON, "generic")
    assert {"predictions": [None, None, None, 1.0]} == json.loads(body, parse_constant=pytest.fail)


def test_recordio_replies_hold_float32_labels() -> None:
    """One record per row, each result under its name in ``label``: the request's bytes but for the field number."""
    body = encode({"score": SCORES, "predicted_label": np.array([1, 0])}, RECORDIO, "linear-learner")
    two = InputSpec((TensorSpec("score", "float32", (None, 1)), TensorSpec("predicted_label", "float32", (None, 1))))
    as_request = body.replace(b"\x12\x11\x0a\x05score", b"\x0a\x11\x0a\x05score").replace(
        b"\x12\x1b\x0a\x0fpredicted_label", b"\x0a\x1b\x0a\x0fpredicted_label"
    )
    inputs = decode(as_request, RECORDIO, two).inputs
    assert (1, 2) == (FEATURES, LABEL)
    np.testing.assert_array_equal(SCORES, inputs["score"][:, 0])
    np.testing.assert_array_equal([1, 0], inputs["predicted_label"][:, 0])


def test_numpy_replies_load() -> None:
    """numpy reads what we write, without pickle."""
    table = np.array([[1, 2], [3, 4]], F32)
    np.testing.assert_array_equal(table, np.load(io.BytesIO(encode(table, NPY, "generic"))))
    texts = np.array(["a", "bc"], object)
    assert ["a", "bc"] == np.load(io.BytesIO(encode(texts, NPY, "generic"))).tolist()
    archive = np.load(io.BytesIO(encode({"file": table, "b": texts}, NPZ, "generic")))
    assert (table.tolist(), ["a", "bc"]) == (archive["file"].tolist(), archive["b"].tolist())
    assert ["predictions"] == np.load(io.BytesIO(encode(table, NPZ, "generic"))).files
    assert table.astype("<f4").tobytes() == encode(table, RAW, "generic")


@pytest.mark.parametrize("media_type", [NPY, RAW])
def test_one_array_types_refuse_several_outputs(media_type: str) -> None:
    """406, since nothing would say which output is meant."""
    with pytest.raises(NotAcceptable):
        encode({"a": SCORES, "b": SCORES}, media_type, "generic")


def test_text_has_no_binary_form() -> None:
    """Labels that are text are refused by the numeric types."""
    for media_type in (RAW, RECORDIO):
        with pytest.raises(NotAcceptable):
            encode(np.array(["a"]), media_type, "generic")


@pytest.mark.parametrize(("layout", "media_type"), EVERY)
@pytest.mark.parametrize("counts", [[3], [1, 1, 1], [2, 1]])
def test_split_replies_are_what_each_call_alone_gets(layout: str, media_type: str, counts: list[int]) -> None:
    """For every layout and type, a stacked prediction splits into just the replies of the single calls."""
    fields = LAYOUTS[layout].fields
    name = fields[0].name if fields else "y"
    for array in (np.array([0.1, np.nan, 3], F32), np.array([[1, 2], [3, 4], [5, 6.5]]), np.array([1, 2, 3])):
        parts = np.split(array, np.cumsum(counts)[:-1])
        for wrap in (lambda part: part, lambda part: {name: part}):
            alone = [encode(wrap(part), media_type, layout) for part in parts]
            assert [_stable(body, media_type) for body in alone] == [
                _stable(body, media_type) for body in encode_each(wrap(array), counts, media_type, layout)
            ]


def _stable(body: bytes, media_type: str) -> object:
    """A zip names the second it was written in; its members do not."""
    if media_type != NPZ:
        return body
    return {name: array.tobytes() for name, array in np.load(io.BytesIO(body)).items()}


@given(hnp.arrays(st.sampled_from([np.float32, np.float64]), st.integers(1, 6), elements=st.floats(width=32)))
@settings(max_examples=200, deadline=None)
def test_floats_read_back_exactly(array: np.ndarray) -> None:
    """Each float is written so that it reads back as itself, in CSV even NaN and infinity."""
    lines = encode(array, CSV, "generic").decode().splitlines()
    np.testing.assert_array_equal(array, np.array([float(line) for line in lines]).astype(array.dtype))


def test_float32_has_no_float64_noise() -> None:
    """A third in float32 is written with float32's digits."""
    assert b"0.33333334\n" == encode(np.array([1 / 3], F32), CSV, "generic")


def test_odd_memory_is_written_right() -> None:
    """Views that are not contiguous or not in native byte order are the same numbers."""
    table = np.arange(6, dtype=F32).reshape(2, 3)
    for view in (np.asfortranarray(table), table.astype(">f4"), np.repeat(table, 2, axis=1)[:, ::2]):
        assert b'{"predictions":[[0.0,1.0,2.0],[3.0,4.0,5.0]]}' == encode(view, JSON, "generic")


@pytest.mark.parametrize(
    ("outputs", "layout"),
    [
        (np.array([1, 2, 3]), "generic"),
        (np.array([1j, 2]), "generic"),
        ({"wrong": np.array([1, 2])}, "kmeans"),
        ({"a": np.array([1, 2]), "b": np.array([1])}, "generic"),
        (np.float32(1), "generic"),
        (np.array([object(), object()]), "generic"),
    ],
)
def test_outputs_that_are_no_answer_are_the_models_failure(outputs: object, layout: str) -> None:
    """Wrong row counts, names and kinds of values are PredictionFailed, not a crash."""
    with pytest.raises(PredictionFailed):
        encode_each(outputs, [1, 1], JSON, layout)
