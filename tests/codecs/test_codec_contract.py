"""What every reader of a table of numbers promises, whatever its bytes look like."""

from __future__ import annotations

import numpy as np
import pytest
from families import FAMILIES, Family, image_spec, named_spec, spec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.registry import CODECS, decode, decode_rows
from serving.errors import BadInput, UnsupportedContentType

TABLE = np.array([[1.5, -2.0, 0.1], [3e-5, 16777216.0, 7.0]], np.float32)
BY_NAME = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
TABLES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(3)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
SPECS = [
    spec(),
    spec(None),
    spec(1),
    spec(3, "int64", 0.0),
    spec(3, "bool", 0.0),
    spec(None, "str"),
    image_spec(2, 2),
    named_spec(),
    InputSpec((TensorSpec("a", "float32", (None, None, 2)), TensorSpec("rate", "int64", ()))),
    InputSpec((TensorSpec("text", "object", (None,)),)),
]


def _names(array: object) -> set[str]:
    return set(array) if isinstance(array, dict) else set()


@BY_NAME
@given(table=TABLES)
@settings(max_examples=25, deadline=None)
def test_table_comes_back_as_it_was_written(family: Family, table: np.ndarray) -> None:
    """Values, shape and dtype survive the round trip exactly, and the array can be written to."""
    decoded = decode(family.write(table), family.content_type, spec())
    assert isinstance(decoded.inputs, np.ndarray)
    assert table.tolist() == decoded.inputs.tolist()
    assert (np.float32, table.shape, len(table)) == (decoded.inputs.dtype, decoded.inputs.shape, decoded.rows)
    assert decoded.inputs.flags.writeable


@BY_NAME
def test_missing_values_are_nan(family: Family) -> None:
    """Each format's spelling of a missing value becomes NaN, in every position of a row."""
    table = np.array([[np.nan, 1, 2], [1, np.nan, 2], [1, 2, np.nan], [np.nan] * 3], np.float32)
    np.testing.assert_array_equal(table, decode(family.write(table), family.content_type, spec()).inputs)


@BY_NAME
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint16", "int32", "int64"])
def test_whole_numbers_become_the_models_dtype(family: Family, dtype: str) -> None:
    """Whatever numeric dtype the model reads is what it gets."""
    table = np.array([[1, 2, 3], [4, 5, 100]], np.float32)
    body = family.write(table) if family.name != "raw" else table.astype(dtype).tobytes()
    decoded = decode(body, family.content_type, spec(3, dtype, 0.0))
    assert isinstance(decoded.inputs, np.ndarray)
    assert (dtype, table.tolist()) == (decoded.inputs.dtype.name, decoded.inputs.tolist())


@BY_NAME
def test_fractions_are_refused_by_integer_models(family: Family) -> None:
    """A fraction is never rounded into a model that reads integers."""
    if family.name == "raw":
        return  # raw bytes have no fractions: they are the model's own dtype
    with pytest.raises(BadInput):
        decode(family.write(TABLE), family.content_type, spec(3, "int64", 0.0))


@BY_NAME
@pytest.mark.parametrize("columns", [2, 4, 6])
def test_wrong_width_is_refused(family: Family, columns: int) -> None:
    """Six values in two rows of three are never taken for rows of another width."""
    if family.name == "libsvm" and columns > 3:
        return  # a sparse row says nothing about features it leaves out
    if family.name == "raw" and columns in (2, 6):
        return  # raw bytes carry no shape: three rows of two are the same body
    with pytest.raises(BadInput):
        decode(family.write(TABLE), family.content_type, spec(columns))


@BY_NAME
def test_wrong_width_names_both_counts(family: Family) -> None:
    """The message says what came and what the model takes."""
    with pytest.raises(BadInput) as caught:
        decode(family.write(TABLE[:1]), family.content_type, spec(2))
    assert "2" in caught.value.message or "8 bytes" in caught.value.message
    assert "3" in caught.value.message or "12 bytes" in caught.value.message or "feature 2" in caught.value.message


@BY_NAME
def test_empty_body_is_refused(family: Family) -> None:
    """No bytes, or none but blanks, are no rows."""
    for body in (b"", b"\n", b"  \r\n\r\n"):
        for columns in (3, 1, None):
            with pytest.raises((BadInput, UnsupportedContentType)):
                decode(body, family.content_type, spec(columns))


@BY_NAME
def test_truncated_body_is_refused(family: Family) -> None:
    """Where the format shows its end, no strict prefix of a row passes; elsewhere a lost cell does not."""
    body = family.write(TABLE[:1])
    cuts = range(1, len(body.rstrip())) if family.framed else [body.rindex(b",")] if b"," in body else []
    for cut in cuts:
        with pytest.raises(BadInput):
            decode(body[:cut], family.content_type, spec())


@BY_NAME
def test_rows_reach_a_model_of_more_axes_flat(family: Family) -> None:
    """Four values per row are one 2 x 2 image per row, in order; sparse libsvm has no axes to spread over."""
    table = np.arange(8, dtype=np.float32).reshape(2, 4)
    if family.name in ("libsvm", "dataframe_records"):
        return
    decoded = decode(family.write(table), family.content_type, image_spec(2, 2))
    assert isinstance(decoded.inputs, np.ndarray)
    assert (table.reshape(2, 2, 2).tolist(), 2) == (decoded.inputs.tolist(), decoded.rows)


@BY_NAME
def test_fixed_row_axis_is_kept(family: Family) -> None:
    """A model exported for two rows per call refuses one."""
    fixed = InputSpec((TensorSpec("input", "float32", (2, 3)),))
    assert 2 == decode(family.write(TABLE), family.content_type, fixed).rows
    with pytest.raises(BadInput):
        decode(family.write(TABLE[:1]), family.content_type, fixed)


@pytest.mark.parametrize("content_type", sorted(CODECS))
@given(body=st.binary(max_size=200), which=st.sampled_from(SPECS))
@settings(max_examples=60, deadline=None)
def test_garbage_is_bad_input(content_type: str, body: bytes, which: InputSpec) -> None:
    """Any bytes at all either decode to what the spec says or raise one of the two errors."""
    _decode_or_refuse(body, content_type, which)


@BY_NAME
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_bodies_are_bad_input(family: Family, data: st.DataObject) -> None:
    """A real body with bytes changed, removed or put in never raises anything else either."""
    body = bytearray(family.write(TABLE))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        span = data.draw(st.sampled_from([0, 1, 1, 4]))
        body[at : at + span] = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\n", b",", b'"', b"[", b"}"]))
        )
    _decode_or_refuse(bytes(body), family.content_type, data.draw(st.sampled_from(SPECS)))


def _decode_or_refuse(body: bytes, content_type: str, which: InputSpec) -> None:
    try:
        decoded = decode(body, content_type, which)
    except (BadInput, UnsupportedContentType) as error:
        assert error.message
        return
    arrays = decoded.inputs if isinstance(decoded.inputs, dict) else {which.tensors[0].name: decoded.inputs}
    assert {tensor.name for tensor in which.tensors} == set(arrays)
    for tensor in which.tensors:
        array = arrays[tensor.name]
        assert np.dtype(tensor.dtype).kind == array.dtype.kind
        assert tensor.dtype in ("str", "object") or tensor.dtype == array.dtype.name
        assert len(tensor.shape) == array.ndim
        assert all(want in (None, got) for want, got in zip(tensor.shape, array.shape, strict=True))
        assert not tensor.shape or len(array) == decoded.rows > 0


@pytest.mark.parametrize(
    "content_type", ["", "text/html", "application/x-www-form-urlencoded", ";", "text/csv; =", "a/b/c"]
)
def test_unknown_content_type_is_unsupported(content_type: str) -> None:
    """What no reader is declared for is 415, for one body and for a batch's caller alike."""
    with pytest.raises(UnsupportedContentType):
        decode(b"1,2,3", content_type, spec())
    assert decode_rows([b"1,2,3"], content_type, spec()) is None


def test_other_charset_is_unsupported() -> None:
    """Text is UTF-8; another charset is refused instead of guessed."""
    assert 1 == decode(b"1,2,3", "text/csv; charset=UTF-8", spec()).rows
    with pytest.raises(UnsupportedContentType):
        decode(b"1,2,3", "text/csv; charset=utf-16", spec())
