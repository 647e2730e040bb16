"""The JSON request shapes of SageMaker's algorithms, TensorFlow Serving, MLflow and the Open Inference Protocol."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from families import image_spec, named_spec, spec

from serving.codecs.base import InputSpec, TensorSpec
from serving.codecs.registry import decode
from serving.errors import BadInput

NAN, INF = float("nan"), float("inf")
JSON = "application/json"
PEOPLE = {"age": [[39], [27]], "job": [["clerk"], ["nurse"]]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[1,2,3]", [[1, 2, 3]]),
        (b"[[1,2,3],[4,5,6]]", [[1, 2, 3], [4, 5, 6]]),
        (b'{"features":[1,2,3]}', [[1, 2, 3]]),
        (b'{"features":[[1,2,3]]}', [[1, 2, 3]]),
        (b'{"features":{"values":[1,2,3]}}', [[1, 2, 3]]),
        (b'{"data":{"features":{"values":[1,2,3]}}}', [[1, 2, 3]]),
        (b'{"inputs":[1,2,3]}', [[1, 2, 3]]),
        (b'{"inputs":{"input":[[1,2,3]]}}', [[1, 2, 3]]),
        (b'{"inputs":[{"name":"input-0","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}', [[1, 2, 3]]),
        (b'{"inputs":[{"name":"input","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,6]}]}', [[1, 2, 3], [4, 5, 6]]),
        (b'{"instances":[{"input":[1,2,3]},{"features":[4,5,6]},[7,8,9]]}', [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (b'[{"features":[1,2,3]}]', [[1, 2, 3]]),
        (b'{"dataframe_split":{"data":[[1,2,3]]}}', [[1, 2, 3]]),
        (b'{"dataframe_records":[{"a":1,"b":2,"c":3},{"c":6,"b":5,"a":4}]}', [[1, 2, 3], [4, 5, 6]]),
        (b'[[null,"NaN",1]]', [[NAN, NAN, 1]]),
        (b'[["Infinity","-Infinity",true]]', [[INF, -INF, 1]]),
        (b"[NaN,Infinity,-Infinity]", [[NAN, INF, -INF]]),
        (b'\n {"instances" :\t[[1,2,3]] }\n', [[1, 2, 3]]),
    ],
)
def test_shapes_of_one_input(body: bytes, expected: list[list[float]]) -> None:
    """Every documented envelope holds the same table."""
    np.testing.assert_array_equal(expected, decode(body, JSON, spec(3)).inputs)


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [{"age": 39, "job": "clerk"}, {"job": ["nurse"], "age": [27.0]}]},
        {"inputs": {"age": [39, 27], "job": ["clerk", "nurse"]}},
        {"inputs": {"age": [[39], [27]], "job": [["clerk"], ["nurse"]]}},
        {
            "inputs": [
                {"name": "job", "shape": [2, 1], "datatype": "BYTES", "data": ["clerk", "nurse"]},
                {"name": "age", "shape": [2, 1], "datatype": "INT64", "data": [39, 27]},
            ]
        },
        {"dataframe_split": {"columns": ["job", "age"], "index": [0, 1], "data": [["clerk", 39], ["nurse", 27]]}},
        {"dataframe_split": {"data": [[39, "clerk"], [27, "nurse"]]}},
        {"dataframe_records": [{"job": "clerk", "age": 39}, {"age": 27, "job": "nurse"}]},
        [{"age": 39, "job": "clerk"}, {"age": 27, "job": "nurse"}],
        [[39, "clerk"], [27, "nurse"]],
    ],
)
def test_shapes_of_several_inputs(document: object) -> None:
    """A model with inputs by name reads rows, columns and data frames; order follows names where there are any."""
    decoded = decode(orjson.dumps(document), JSON, named_spec())
    assert 2 == decoded.rows
    assert {name: array.tolist() for name, array in decoded.inputs.items()} == PEOPLE


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[[1,2,3],[4,5]]", "row 2 has 2 values where 3 are expected"),
        (b"[[1,2],[4,5]]", "row 1 has 2 values, the model takes 3"),
        (b"[[1,2,3],4]", "row 2 has a single value where 3 are expected"),
        (b'[[1,2,"3"]]', "row 1: '3' is not a number"),
        (b'[[1,2,3],[1,2,"x"]]', "row 2: 'x' is not a number"),
        (b"[[1,2,{}]]", "row 1: an object is not a number"),
        (b"[[1,2,[3]]]", "row 1: a list is not a number"),
        (b"[[1,2,1e39]]", "row 1: 1e\\+39 is out of range"),
        (b"[]", "row|shape|rows"),
        (b"[[]]", "row 1 has 0 values"),
        (b"7", "must be a JSON array or object"),
        (b"{}", "none of the keys instances"),
        (b'{"instances":[[1,2,3]],"inputs":[[1,2,3]]}', "says both 'instances' and 'inputs'"),
        (b'{"instances":[]}', "at least one instance"),
        (b'{"instances":[1,2,3]}', "shape \\[3\\]"),
        (b'{"instances":[{"x":[1,2,3]}]}', "row 1 has neither 'features' nor 'input'"),
        (b'{"instances":[{"data":{"features":{"keys":[1]}}}]}', "no list 'values'"),
        (b'{"instances":[[1,2,3]],"configuration":[]}', "'configuration' must be an object"),
        (b'{"inputs":{"x":[[1,2,3]]}}', "lacks input 'input'"),
        (b'{"inputs":[{"name":"x","shape":[2,3],"data":[1,2,3]}]}', "its shape says otherwise"),
        (b'{"dataframe_split":{"columns":["a"],"data":[[1,2,3]]}}', "row 1 has 3 values, the model takes 1"),
        (b'{"dataframe_records":[{"a":1,"b":2,"c":3},{"a":1}]}', "record 2 has other columns"),
        (b"[1,2", "the body is not JSON"),
        (b"[1,2,NaN", "the body is not JSON"),
        (b"[1,2,\xff]", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[" * 100_000 + b"NaN", "the body is not JSON"),
        (b"[" * 900 + b"]" * 900, "nested deeper than 32 levels"),
        (b'{"a":' * 900 + b"NaN" + b"}" * 900, "the body is not JSON"),
        (b"[NaN," + b"9" * 5000 + b"]", "the body is not JSON"),
    ],
)
def test_what_is_refused_and_how(body: bytes, message: str) -> None:
    """Malformed, ragged, contradictory and hostile documents are refused with the reason."""
    with pytest.raises(BadInput, match=message):
        decode(body, JSON, spec(3))


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [{"age": 1}]},
        {"instances": [{"age": 1, "job": "a", "pay": 2}]},
        {"instances": [{"age": 1, "job": 2}]},
        {"instances": [{"age": 1.5, "job": "a"}]},
        {"instances": [{"age": None, "job": "a"}]},
        {"instances": [{"age": 2**63, "job": "a"}]},
        {"inputs": {"age": [1, 2], "job": ["a"]}},
        {"inputs": [1, 2]},
        {"inputs": [{"name": "age", "data": [1]}, {"name": "age", "data": [1]}]},
        {"dataframe_split": {"columns": ["age", "name"], "data": [[1, "a"]]}},
        {"dataframe_split": {"columns": ["age", "job", "age"], "data": [[1, "a", 2]]}},
    ],
)
def test_inputs_by_name_must_fit(document: object) -> None:
    """Missing, unknown, wrongly typed and unequally long inputs are refused."""
    with pytest.raises(BadInput):
        decode(orjson.dumps(document), JSON, named_spec())


def test_sparse_instances_are_filled() -> None:
    """What a sparse row leaves out is the model's fill; dense and sparse rows may be mixed."""
    body = b'{"instances":[{"data":{"features":{"keys":[3,0],"shape":[4],"values":[1,4]}}},{"features":[5,6,7,8]}]}'
    assert [[4, 0, 0, 1], [5, 6, 7, 8]] == decode(body, JSON, spec(4, fill=0.0)).inputs.tolist()
    np.testing.assert_array_equal([4, NAN, NAN, 1], decode(body, JSON, spec(None)).inputs[0])


@pytest.mark.parametrize(
    "features",
    [
        {"keys": [4], "shape": [4], "values": [1]},
        {"keys": [-1], "shape": [4], "values": [1]},
        {"keys": [1, 1], "shape": [4], "values": [1, 2]},
        {"keys": [1, 2], "shape": [4], "values": [1]},
        {"keys": [1], "shape": [5], "values": [1]},
        {"keys": [1], "values": [1]},
        {"keys": ["1"], "shape": [4], "values": [1]},
        {"keys": [1], "shape": [4], "values": ["x"]},
        {"keys": 1, "shape": [4], "values": [1]},
        {"keys": [1], "shape": [10**15], "values": [1]},
    ],
)
def test_bad_sparse_instances_are_refused(features: object) -> None:
    """Keys must be unique, inside the shape, as many as values; the shape must be the model's and bounded."""
    body = orjson.dumps({"instances": [{"data": {"features": features}}]})
    with pytest.raises(BadInput):
        decode(body, JSON, spec(4))
    if features != {"keys": [1], "shape": [5], "values": [1]}:
        with pytest.raises(BadInput):
            decode(body, JSON, spec(None))


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"[[1,2],[3,4]]", 1),
        (b"[[[1,2],[3,4]]]", 1),
        (b"[1,2,3,4]", 1),
        (b"[[1,2,3,4],[1,2,3,4]]", 2),
        (b'{"instances":[[[1,2],[3,4]],[[1,2],[3,4]]]}', 2),
        (b'{"inputs":{"image":[[1,2],[3,4]]}}', 1),
    ],
)
def test_more_axes(body: bytes, rows: int) -> None:
    """A model of images reads samples with and without their row axis, and flat rows."""
    assert [[[1, 2], [3, 4]]] * rows == decode(body, JSON, image_spec(2, 2)).inputs.tolist()


@pytest.mark.parametrize("body", [b'{"instances":[[1,2],[3,4]]}', b"[[1,2],[3,4],[5,6],[7,8]]", b"[[[1,2,3,4]]]"])
def test_axes_are_not_reshaped_in_silence(body: bytes) -> None:
    """Two instances of two values are not one image of four, nor are other splits of the right count."""
    with pytest.raises(BadInput):
        decode(body, JSON, image_spec(2, 2))


def test_lines_are_instances() -> None:
    """JSON Lines hold one instance each, in any of their shapes; blank lines are nothing."""
    body = b'[1,2,3]\n\n{"features":[4,5,6]}\r\n{"data":{"features":{"values":[7,8,null]}}}'
    for content_type in ("application/jsonlines", "application/x-ndjson"):
        np.testing.assert_array_equal([[1, 2, 3], [4, 5, 6], [7, 8, NAN]], decode(body, content_type, spec(3)).inputs)


@pytest.mark.parametrize(
    "body", [b"[1,2],[3]", b"[1,2,3]\n[1,2", b"[1,2]\n[3,4]", b"1\n2\n3", b'{"instances":[[1,2,3]]}']
)
def test_bad_lines_are_refused(body: bytes) -> None:
    """A line is one whole instance, no more and no less."""
    with pytest.raises(BadInput):
        decode(body, "application/jsonlines", spec(3))


def test_line_errors_name_the_line() -> None:
    """The number of the damaged line is in the message."""
    with pytest.raises(BadInput, match="line 3: the body is not JSON"):
        decode(b"[1,2,3]\n\n[1,2", "application/jsonlines", spec(3))


def test_named_lines() -> None:
    """Lines of inputs by name, as AWS's two-input algorithms take them."""
    pair = InputSpec((TensorSpec("in0", "int64", (None, None)), TensorSpec("in1", "int64", (None, None))), 0.0)
    decoded = decode(b'{"in0":[6,17],"in1":[16]}\n{"in0":[1,2],"in1":[3]}', "application/jsonlines", pair)
    assert {"in0": [[6, 17], [1, 2]], "in1": [[16], [3]]} == {n: a.tolist() for n, a in decoded.inputs.items()}


def test_long_text_cannot_ask_for_endless_memory() -> None:
    """A text array gives each cell the room of the longest: refused when that multiplies out of bounds."""
    texts = InputSpec((TensorSpec("text", "str", (None, 1)),))
    body = orjson.dumps([["x" * 1_000_000]] + [["a"]] * 1000)
    with pytest.raises(BadInput, match="too large"):
        decode(body, JSON, texts)


def test_text_that_is_no_unicode_is_refused() -> None:
    """A lone surrogate, which only the lenient parser lets through, stops here."""
    with pytest.raises(BadInput):
        decode(b'{"inputs":["\\ud800"],"x":NaN}', JSON, InputSpec((TensorSpec("text", "str", (None,)),)))
