"""CSV as people send it."""

from __future__ import annotations

import numpy as np
import pytest
from families import named_spec, spec

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.registry import decode
from serving.errors import BadInput, UnsupportedContentType

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"1,2,3", [[1, 2, 3]]),
        (b"1,2,3\n", [[1, 2, 3]]),
        (b"1,2,3\r\n4,5,6\r\n", [[1, 2, 3], [4, 5, 6]]),
        (b"1,2,3\r4,5,6\r", [[1, 2, 3], [4, 5, 6]]),
        (b"\n1,2,3\n\n \n4,5,6\n\n", [[1, 2, 3], [4, 5, 6]]),
        (b"+1,.5,1.", [[1, 0.5, 1]]),
        (b"01,-0,1E2", [[1, 0, 100]]),
        (b" 1 ,\t2, 3 ", [[1, 2, 3]]),
        (b"1,,3", [[1, NAN, 3]]),
        (b",,", [[NAN, NAN, NAN]]),
        (b"1, ,3", [[1, NAN, 3]]),
        (b"nan,NaN,NAN", [[NAN, NAN, NAN]]),
        (b"inf,-inf,Infinity", [[INF, -INF, INF]]),
        (b'"1","2",3', [[1, 2, 3]]),
        (b'"1.5",,""\n1,2,3', [[1.5, NAN, NAN], [1, 2, 3]]),
        (b"\xef\xbb\xbf1,2,3", [[1, 2, 3]]),
        (b"1;2;3\n4;;6", [[1, 2, 3], [4, NAN, 6]]),
        (b"1\t2\t3", [[1, 2, 3]]),
        (b"1|2|3", [[1, 2, 3]]),
        (b"1 2 3", [[1, 2, 3]]),
    ],
)
def test_legal_spellings(body: bytes, expected: list[list[float]]) -> None:
    """Each spelling means what a person means by it, for a model of known and of free width."""
    np.testing.assert_array_equal(expected, decode(body, "text/csv", spec(3)).inputs)
    np.testing.assert_array_equal(expected, decode(body, "text/csv", spec(None)).inputs)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"age,job,pay\n1,2,3", "row 1: 'age' is not a number: send rows without a header"),
        (b"1,2,3\n4,x,6", "row 2: 'x' is not a number"),
        (b"1,2,3\n4,5", "row 2 has 2 values, the model takes 3"),
        (b"1,2,3\n4,5,6,7", "row 2 has 4 values, the model takes 3"),
        (b"1,2,3\n\n4,5", "row 2 has 2 values, the model takes 3"),
        (b"1,2],[3", "row 1: '2]' is not a number"),
        (b"true,2,3", "row 1: 'true' is not a number"),
        (b"null,2,3", "row 1: 'null' is not a number"),
        (b"1_000,2,3", "row 1: '1_000' is not a number"),
        ("١,2,3".encode(), "row 1: '١' is not a number"),
        (b"1,2,1e999", "row 1: '1e999' is out of range"),
        (b"1,2,\xff", "the CSV body is not UTF-8"),
        (b'1,2,"3', "the CSV body is malformed"),
        (b"\x001,2,3", "row 1: '\\\\x001' is not a number"),
    ],
)
def test_what_is_refused_and_how(body: bytes, message: str) -> None:
    """The message names the row, the cell and the counts."""
    with pytest.raises(BadInput, match=message.replace("[", "\\[")):
        decode(body, "text/csv", spec(3))


def test_header_is_skipped_when_the_type_says_so() -> None:
    """``header=present`` (RFC 4180) is the one way to send a header."""
    assert [[1, 2, 3]] == decode(b"a,b,c\n1,2,3", "text/csv; header=present", spec(3)).inputs.tolist()
    assert [[4, 5, 6]] == decode(b"1,2,3\n4,5,6", "text/csv; header=present", spec(None)).inputs.tolist()


@pytest.mark.parametrize(
    "content_type", ["text/csv; label_size=2", "text/csv; label_size=-1", "text/csv; header=maybe"]
)
def test_parameters_that_move_columns_are_unsupported(content_type: str) -> None:
    """A label column cannot be taken away, so a type that promises one is refused."""
    with pytest.raises(UnsupportedContentType):
        decode(b"1,2,3", content_type, spec(3))


@pytest.mark.parametrize("label_size", [0, 1])
def test_label_size_of_the_containers_is_accepted(label_size: int) -> None:
    """0 is AWS's word for no label, 1 the only value XGBoost's container takes; no column is removed for either."""
    assert 3 == decode(b"1,2,3", f"text/csv;label_size={label_size}", spec(3)).inputs.shape[1]


def test_columns_go_side_by_side_into_several_inputs() -> None:
    """A model with several inputs takes its columns in its own order, text cells as text."""
    decoded = decode(b'39,"clerk, senior"\n27,nurse', "text/csv", named_spec())
    assert {"age": [[39], [27]], "job": [["clerk, senior"], ["nurse"]]} == {
        name: array.tolist() for name, array in decoded.inputs.items()
    }


def test_empty_cell_of_an_integer_model_is_refused() -> None:
    """There is no missing integer."""
    with pytest.raises(BadInput, match="row 1: a missing value is not a whole number"):
        decode(b",x", "text/csv", named_spec())


def test_large_integers_are_exact() -> None:
    """An id beyond 2**53 reaches an int64 model as it is, in plain and in quoted cells."""
    for body in (b"9007199254740993", b'"9007199254740993"'):
        assert [[9007199254740993]] == decode(body, "text/csv", spec(1, "int64", 0.0)).inputs.tolist()
    with pytest.raises(BadInput, match="out of range for int64"):
        decode(b"9223372036854775808", "text/csv", spec(1, "int64", 0.0))


def test_text_model_keeps_its_cells() -> None:
    """Spaces, semicolons and words in text cells are text, and an empty cell is an empty text."""
    texts = InputSpec((TensorSpec("text", "str", (None, 2)),))
    assert [["a; b c", ""], ["1", "true"]] == decode(b"a; b c,\n1,true", "text/csv", texts).inputs.tolist()


def test_flags_read_true_and_false() -> None:
    """A bool model reads the words and 0 and 1, and nothing else."""
    assert [[True, False, True]] == decode(b"true,False,1", "text/csv", spec(3, "bool", 0.0)).inputs.tolist()
    with pytest.raises(BadInput):
        decode(b"true,2,0", "text/csv", spec(3, "bool", 0.0))


def test_cells_per_row_are_one_for_a_flat_model() -> None:
    """A model of scalars reads one value per line."""
    flat = InputSpec((TensorSpec("x", "float32", (None,)),))
    assert [1, 2] == decode(b"1\n2\n", "text/csv", flat).inputs.tolist()
    with pytest.raises(BadInput):
        decode(b"1,2", "text/csv", flat)
