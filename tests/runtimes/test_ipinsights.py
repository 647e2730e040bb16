"""IP Insights: pairs of a name and an address, in its three request types."""

from __future__ import annotations

import ipaddress
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving.errors import BadInput, LoadFailed, NotAcceptable, ServingError, UnsupportedContentType
from serving.runtimes import formats, registry
from serving.runtimes.algorithms import answers, ipinsights
from serving.runtimes.base import LoadSettings, ScriptCall, ScriptModel
from tests.cloud import client
from tests.server import serve

CSV, JSON, LINES = ipinsights.READS
VECTORS = np.random.default_rng(5).normal(size=(7, 2)).astype(np.float32)
WEIGHTS = np.random.default_rng(6).normal(size=(32, 2)).astype(np.float32)


def graph() -> bytes:
    """Seven vectors of two numbers for entities, and one product of matrices for addresses."""
    node, tensor = helper.make_node, helper.make_tensor_value_info
    constants: dict[str, NDArray[Any]] = {"vectors": VECTORS, "weights": WEIGHTS, "last": np.array([-1], np.int64)}
    made = helper.make_graph(
        [
            node("Gather", ["vectors", "entity"], ["entity_embedding"]),
            node("MatMul", ["bits", "weights"], ["ip_embedding"]),
            node("Mul", ["entity_embedding", "ip_embedding"], ["products"]),
            node("ReduceSum", ["products", "last"], ["dot_product"], keepdims=0),
        ],
        "pairs",
        [tensor("entity", TensorProto.INT64, ["rows"]), tensor("bits", TensorProto.FLOAT, ["rows", 32])],
        [
            tensor("dot_product", TensorProto.FLOAT, ["rows"]),
            tensor("entity_embedding", TensorProto.FLOAT, ["rows", 2]),
            tensor("ip_embedding", TensorProto.FLOAT, ["rows", 2]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def folder(root: Path, **settings: Any) -> Path:
    """An artifact; ``settings`` change its declaration."""
    root.mkdir(exist_ok=True)
    (root / "model.onnx").write_bytes(graph())
    (root / "algorithm.json").write_text(json.dumps({"Algorithm": "ipinsights", "NumEntityVectors": 7, **settings}))
    return root


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact's folder."""
    return folder(tmp_path_factory.mktemp("ipinsights") / "model")


@pytest.fixture(scope="module")
def model(artifact: Path) -> ScriptModel:
    """The loaded model."""
    found = registry.load(formats.recognise(artifact), LoadSettings())
    assert isinstance(found, ScriptModel)
    return found


def ask(model: ScriptModel, body: str | bytes, content_type: str = CSV, accept: str = "") -> bytes:
    """The answer's body."""
    raw = body if isinstance(body, bytes) else body.encode()
    return model.transform(ScriptCall(raw, content_type, accept)).body


def products(model: ScriptModel, body: str | bytes, content_type: str = CSV) -> list[float]:
    """The dot products of a body's rows."""
    return [row["dot_product"] for row in json.loads(ask(model, body, content_type))["predictions"]]


def product(name: str, address: str) -> float:
    """By the formula, written down for one pair."""
    bits = [1.0 if digit == "1" else -1.0 for digit in f"{int(ipaddress.ip_address(address)):032b}"]
    embedding = [sum(bit * float(row[at]) for bit, row in zip(bits, WEIGHTS, strict=True)) for at in range(2)]
    vector = VECTORS[zlib.crc32(name.encode()) % 7]
    return sum(float(one) * other for one, other in zip(vector, embedding, strict=True))


PAIR = product("user1", "10.0.0.1")


def test_the_answer_is_the_product_of_two_vectors(model: ScriptModel) -> None:
    """That of the entity's bucket, and the one the net gives the address, row by row."""
    expected = [PAIR, product("user2", "192.168.3.77"), product("user1", "255.0.255.0")]
    found = products(model, "user1,10.0.0.1\nuser2,192.168.3.77\nuser1,255.0.255.0\n")
    assert expected == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "user1, 10.0.0.1",
        "user1,10.0.0.1\r\n",
        '"user1", "10.0.0.1"\n',
        " user1 ,10.0.0.1 ",
        "\ufeffuser1,10.0.0.1\n\n",
    ],
)
def test_blanks_quotes_and_line_ends_are_no_part_of_a_cell(model: ScriptModel, body: str) -> None:
    """CSV as AWS writes it, with a blank after the comma, and as tools write it."""
    assert [PAIR] == pytest.approx(products(model, body), abs=1e-5)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, '{"instances":[{"features":["user1","10.0.0.1"]}]}'),
        (JSON, '{"instances":[{"data":{"features":{"values":["user1","10.0.0.1"]}}}]}'),
        (LINES, '{"features":["user1","10.0.0.1"]}'),
        ("text/csv; label_size=0", "user1,10.0.0.1"),
        ("text/csv; header=present", "entity,address\nuser1,10.0.0.1"),
    ],
)
def test_all_documented_requests_give_the_same(model: ScriptModel, content_type: str, body: str) -> None:
    """CSV, JSON in both shapes, JSON Lines."""
    assert [PAIR] == pytest.approx(products(model, body, content_type), abs=1e-5)


def test_a_number_is_a_name(model: ScriptModel) -> None:
    """Accounts are often numbers, which JSON may leave without quotes."""
    asked = '{"instances":[{"features":[4711,"10.0.0.1"]}]}'
    assert products(model, "4711,10.0.0.1") == products(model, asked, JSON)


def test_names_keep_their_commas_blanks_and_letters(model: ScriptModel) -> None:
    """A quoted name is one cell, and each alphabet has its bytes."""
    expected = [product("Turk, Telekom", "10.0.0.1"), product("Zoë", "10.0.0.1")]
    assert expected == pytest.approx(products(model, '"Turk, Telekom", 10.0.0.1\nZoë,10.0.0.1'), abs=1e-5)


def test_verbose_answers_show_both_vectors(model: ScriptModel) -> None:
    """``; verbose=True`` in Accept, as documented."""
    (row,) = json.loads(ask(model, "user1,10.0.0.1", accept="application/json; verbose=True"))["predictions"]
    assert {"dot_product", "entity_embedding", "ip_embedding"} == set(row)
    assert row["dot_product"] == pytest.approx(np.dot(row["entity_embedding"], row["ip_embedding"]), abs=1e-5)


def test_json_lines_are_an_object_a_row(model: ScriptModel) -> None:
    """The inner objects of the JSON answer."""
    lines = ask(model, "user1,10.0.0.1\nuser1,10.0.0.1", accept=LINES).splitlines()
    assert [["dot_product"]] * 2 == [list(json.loads(line)) for line in lines]


def test_more_rows_than_go_through_at_once_keep_their_order(model: ScriptModel) -> None:
    """Ten thousand rows are asked in pieces."""
    found = products(model, "user1,10.0.0.1\nuser2,10.0.0.1\n" * 5000)
    assert [PAIR, product("user2", "10.0.0.1")] * 5000 == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("user1,10.0.0.1\nuser1,10.0.0.300", "row 2: '10.0.0.300' is no IPv4 address"),
        ("user1,2001:db8::1", "row 1: '2001:db8::1' is no IPv4 address"),
        ("user1", "row 1 must be an entity and an IPv4 address, as in user1,10.0.0.1"),
        ("user1,10.0.0.1,0", "row 1 must be an entity and an IPv4 address"),
        (",10.0.0.1", "row 1 has no entity"),
        ("user1,", "row 1: '' is no IPv4 address"),
        ("", "the body is empty"),
        ("\n\n", "the body is empty"),
        (b"\xff\xfe,10.0.0.1", "the body is not UTF-8"),
        ('"' + "x" * 200_000, "the body is not CSV"),
    ],
)
def test_bad_rows_are_told_which_and_why(model: ScriptModel, body: str | bytes, said: str) -> None:
    """One bad row refuses the request."""
    with pytest.raises(BadInput) as refused:
        ask(model, body)
    assert said in refused.value.message


@pytest.mark.parametrize(
    "features", ["null", '[1.5,"10.0.0.1"]', '["a",167772161]', '{"a":1}', '["a"]', '[true,"1.1.1.1"]']
)
def test_bad_instances_are_refused(model: ScriptModel, features: str) -> None:
    """Whatever is no pair of a name and an address's text."""
    with pytest.raises(BadInput, match="row 1"):
        ask(model, f'{{"instances":[{{"features":{features}}}]}}', JSON)


def test_record_io_is_neither_read_nor_written(model: ScriptModel) -> None:
    """Names are no numbers."""
    with pytest.raises(UnsupportedContentType, match="it reads text/csv"):
        ask(model, b"\x0a\x23\xd7\xce", "application/x-recordio-protobuf")
    with pytest.raises(NotAcceptable):
        ask(model, "user1,10.0.0.1", accept="application/x-recordio-protobuf")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["features", "data"]), inner),
    max_leaves=6,
)


@given(st.sampled_from([CSV, JSON, LINES]), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(JSON, b'{"instances":[[[]]]}')
@example(CSV, b"a,1\x00.1.1.1")
def test_any_bytes_are_answered_or_refused(model: ScriptModel, content_type: str, body: bytes) -> None:
    """Never anything but an answer or an error of the caller's."""
    try:
        assert json.loads(ask(model, body, content_type))["predictions"]
    except ServingError as error:
        assert isinstance(error, BadInput)


@given(_VALUES)
def test_any_instance_is_answered_or_refused(model: ScriptModel, instance: Any) -> None:
    """The same for well-formed JSON of whatever is in it."""
    try:
        assert products(model, json.dumps({"instances": [instance, {"features": instance}]}), JSON)
    except ServingError as error:
        assert isinstance(error, BadInput)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NumEntityVectors": 8}, "does not answer for an entity and an address"),
        ({"NumEntityVectors": 0}, "NumEntityVectors must be a whole number from 1"),
        ({"Model": "absent.onnx"}, "Model names 'absent.onnx', which is no file beside it"),
    ],
)
def test_a_model_that_does_not_fit_its_declaration_is_not_loaded(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    """More vectors than the model has would fail for some names only, at any time later."""
    with pytest.raises(LoadFailed, match=said):
        registry.load(formats.recognise(folder(tmp_path / "model", **settings)), LoadSettings())


def test_boto3_asks_as_documented(artifact: Path, tmp_path: Path) -> None:
    """The reference's worked example through a real server, and a bad address as a model's error."""
    with serve(tmp_path, str(artifact)) as server:
        runtime = client(server, "sagemaker-runtime")
        call = {"EndpointName": "default", "ContentType": CSV}
        reply = runtime.invoke_endpoint(**call, Body=b"user1, 10.0.0.1")
        assert JSON == reply["ContentType"]
        assert {"predictions": [{"dot_product": pytest.approx(PAIR, abs=1e-5)}]} == json.loads(reply["Body"].read())
        verbose = runtime.invoke_endpoint(**call, Body=b"user1, 10.0.0.1", Accept="application/json; verbose=True")
        (row,) = json.loads(verbose["Body"].read())["predictions"]
        assert row["entity_embedding"] == pytest.approx(VECTORS[ipinsights.bucket("user1", 7)])
        with pytest.raises(ClientError) as refused:
            runtime.invoke_endpoint(**call, Body=b"user1, 10.0.0")
        assert "ModelError" == refused.value.response["Error"]["Code"]
        assert 400 == refused.value.response["OriginalStatusCode"]
        assert "row 1: '10.0.0' is no IPv4 address" in refused.value.response["OriginalMessage"]


def test_answer_of_more_numbers_than_one_may_hold_is_refused(
    model: ScriptModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six megabytes of pairs would have half a gigabyte of embeddings: five numbers a pair here, one where they are not
    asked for."""
    monkeypatch.setattr(answers, "MOST_NUMBERS", 9)
    body = b"user1,10.0.0.1\nuser2,10.0.0.2\n"
    with pytest.raises(BadInput, match="the answer would hold 10 numbers, and at most 9 are answered"):
        model.transform(ScriptCall(body, CSV, f"{JSON}; verbose=true"))
    assert 2 == len(json.loads(model.transform(ScriptCall(body, CSV, JSON)).body)["predictions"])
