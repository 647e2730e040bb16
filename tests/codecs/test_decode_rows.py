"""The batcher's short cut: many bodies at once, never with another meaning than each has alone."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from families import FAMILIES, Family, image_spec, spec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.registry import decode, decode_rows
from serving.errors import BadInput

CELLS = st.sampled_from(
    ["1", "2.5", "-3e-5", "", " 4", "nan", "NaN", "inf", "true", "null", '"5"', "[1", "2]", "1e40", "x"]
)
MARKS = st.sampled_from([",", ",", ",", ",", "\n", "\r\n", "\r", "],[", " ", ";", "}", ',"'])
CSV = st.lists(st.tuples(CELLS, MARKS), max_size=8).map(lambda parts: "".join(a + b for a, b in parts).encode())
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.sampled_from(["NaN", "1", "ab"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["instances", "features", "a"]), inner, max_size=2),
    ),
    max_leaves=8,
)
SPECS = [spec(2), spec(1), spec(2, "int64", 0.0), spec(2, "float64"), image_spec(1, 2), spec(None)]
FAST = [
    family
    for family in FAMILIES
    if family.name in ("csv", "instances", "bare array", "json lines", "npy", "recordio", "raw")
]


def _agrees(bodies: list[bytes], content_type: str, which: InputSpec) -> None:
    together = decode_rows(bodies, content_type, which)
    if together is None:
        return
    alone = [decode(body, content_type, which) for body in bodies]
    rows, counts = together
    assert [one.rows for one in alone] == counts
    np.testing.assert_array_equal(np.concatenate([one.inputs for one in alone]), rows)
    assert np.dtype(which.tensors[0].dtype) == rows.dtype


@given(bodies=st.lists(CSV, min_size=1, max_size=4), which=st.sampled_from(SPECS))
@settings(max_examples=500, deadline=None)
@example(bodies=[b"1,2],[3,4"], which=spec(2))
@example(bodies=[b"1", b"2"], which=spec(2))
@example(bodies=[b"1,\n2"], which=spec(2))
def test_csv_batch_means_what_each_body_means(bodies: list[bytes], which: InputSpec) -> None:
    """For CSV-like bodies of every kind of mischief the batch gives what each gives alone, or None."""
    _agrees(bodies, "text/csv", which)


@given(documents=st.lists(JSON, min_size=1, max_size=3), which=st.sampled_from(SPECS))
@settings(max_examples=500, deadline=None)
def test_json_batch_means_what_each_body_means(documents: list[object], which: InputSpec) -> None:
    """The same for JSON documents, and for the same values as lines."""
    _agrees([orjson.dumps(document) for document in documents], "application/json", which)
    _agrees([orjson.dumps(document) for document in documents], "application/jsonlines", which)


@pytest.mark.parametrize(
    "csv",
    [
        b"1,2],[3,4",
        b"1,2,3,4",
        b"1",
        b"1,\n2",
        b"1\n,2",
        b"1\r,2",
        b"true,2",
        b"false,false",
        b"null,2",
        b'"1",2',
        b"[1],2",
        b"1,2\n3",
        b"{},1",
        b"1,2;",
    ],
)
def test_body_that_would_change_its_neighbours_is_left_to_itself(csv: bytes) -> None:
    """Brackets, breaks, words, quotes and short rows never reach the short cut's answer."""
    assert decode_rows([b"1,2", csv, b"3,4"], "text/csv", spec(2)) is None


@pytest.mark.parametrize("family", FAST, ids=[family.name for family in FAST])
def test_plain_bodies_take_the_short_cut(family: Family) -> None:
    """Bodies of one and of two rows are stacked in order, with the count of each."""
    one, two = np.array([[1, 2]], np.float32), np.array([[3, 4], [5, 6]], np.float32)
    together = decode_rows([family.write(one), family.write(two), family.write(one)], family.content_type, spec(2))
    assert together is not None
    assert ([1, 2, 1], [[1, 2], [3, 4], [5, 6], [1, 2]]) == (together[1], together[0].tolist())


def test_missing_values_take_the_short_cut_too() -> None:
    """Tree models' everyday input, empty cells and nan, does not fall out of the batch."""
    together = decode_rows([b"1,\n", b",nan\r\n,2", b"\n\n3,4"], "text/csv", spec(2))
    assert together is not None
    np.testing.assert_array_equal([[1, np.nan], [np.nan, np.nan], [np.nan, 2], [3, 4]], together[0])
    assert [1, 2, 1] == together[1]


def test_configuration_is_never_lost() -> None:
    """A body that carries a configuration is not stacked with others."""
    body = b'{"instances":[[1,2]],"configuration":{"k":2}}'
    assert decode_rows([body], "application/json", spec(2)) is None
    assert {"k": 2} == decode(body, "application/json", spec(2)).configuration


def test_models_that_cannot_be_stacked_are_left_alone() -> None:
    """Several inputs, a fixed row axis and a free width are for the slow path."""
    two = InputSpec((TensorSpec("a", "float32", (None, 1)), TensorSpec("b", "float32", (None, 1))))
    fixed = InputSpec((TensorSpec("a", "float32", (1, 2)),))
    for which in (two, fixed, spec(None)):
        assert decode_rows([b"1,2"], "text/csv", which) is None


def test_overflow_is_found_and_named() -> None:
    """A number beyond float32 is an error of its row, not infinity."""
    assert decode_rows([b"1,1e39"], "text/csv", spec(2)) is None
    with pytest.raises(BadInput, match="row 2: 1e\\+39 is out of range for float32"):
        decode(b"1,2\n3,1e39", "text/csv", spec(2))
