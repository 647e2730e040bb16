"""CloudWatch's two wire forms: what botocore writes is read, and what is answered botocore reads."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.model import Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.api import control_wires, query_wire
from serving.api.control_api import load_schema
from serving.api.services import CLOUDWATCH
from serving.errors import ServingError, Unreadable, ValidationError
from tests.conform import service_model
from tests.server import Server, serve

SCHEMA = load_schema(CLOUDWATCH)
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
VERSION = "2010-08-01"

#: Texts with whatever XML and forms have words for.
TEXTS = some.text(some.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


def values_of(shape: Any) -> some.SearchStrategy[Any]:
    """Values of a shape of AWS's model, well formed if not meaningful. No empty structures: a form has none."""
    kind = shape.type_name
    if kind == "structure":
        members = {
            name: values_of(one) for name, one in shape.members.items() if one.type_name != "structure" or one.members
        }
        if shape.is_tagged_union:
            return some.one_of(*(some.fixed_dictionaries({name: one}) for name, one in members.items()))
        required = {name: members.pop(name) for name in shape.required_members}
        return some.fixed_dictionaries(required, optional=members).filter(bool)
    if kind == "list":
        return some.lists(values_of(shape.member), min_size=1, max_size=2)
    if kind == "map":
        return some.dictionaries(TEXTS, values_of(shape.value), min_size=1, max_size=2)
    if kind == "string":
        return some.sampled_from(shape.enum) if shape.enum else TEXTS
    return {
        "integer": some.integers(1, 1000),
        "double": some.floats(-1e12, 1e12),
        "boolean": some.booleans(),
        "timestamp": some.integers(0, 2_000_000_000).map(lambda at: datetime.fromtimestamp(at, UTC)),
    }[kind]


def form_of(operation: str, params: dict[str, Any]) -> str:
    """The body that an old client sends."""
    model = service_model("cloudwatch").operation_model(operation)
    request = create_serializer("query", include_validation=False).serialize_to_request(params, model)
    return urlencode(request["body"])


def as_json(value: Any) -> Any:
    """The same as a new client's JSON would carry it."""
    if isinstance(value, dict):
        return {name: as_json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_json(one) for one in value]
    return value.timestamp() if isinstance(value, datetime) else value


@pytest.mark.parametrize("operation", ["PutMetricAlarm", "PutMetricData", "DescribeAlarmHistory", "ListMetrics"])
@settings(max_examples=10)
@given(data=some.data())
def test_a_form_says_what_the_json_says(operation: str, data: some.DataObject) -> None:
    """Every member, as botocore writes both forms."""
    params = data.draw(values_of(service_model("cloudwatch").operation_model(operation).input_shape))
    node = SCHEMA.input(operation)
    read = query_wire.params(form_of(operation, params), node)
    assert _checked(operation, as_json(params)) == _checked(operation, read)


def _checked(operation: str, params: dict[str, Any]) -> Any:
    """What the action is given, or why it is not asked."""
    try:
        return SCHEMA.check(operation, params)
    except ValidationError as error:
        return error.message


@pytest.mark.parametrize("operation", ["DescribeAlarmHistory", "GetMetricStatistics", "ListMetrics"])
@settings(max_examples=10)
@given(data=some.data())
def test_an_answer_in_xml_is_read_as_it_was_meant(operation: str, data: some.DataObject) -> None:
    """botocore's parser of the older form finds every member."""
    shape: Shape = service_model("cloudwatch").operation_model(operation).output_shape
    answer = data.draw(values_of(shape))
    body = query_wire.answer(operation, "urn:x", SCHEMA.output(operation), as_json(answer), "the-id")
    read = create_parser("query").parse({"body": body, "headers": {}, "status_code": 200}, _wrapped(operation, shape))
    assert "the-id" == read.pop("ResponseMetadata")["RequestId"]
    assert answer == read


def _wrapped(operation: str, shape: Shape) -> Shape:
    shape.serialization.setdefault("resultWrapper", f"{operation}Result")
    return shape


def test_what_xml_cannot_say_is_replaced() -> None:
    """A control character in a reason breaks no client."""
    answer = {"MetricAlarms": [{"AlarmName": "a\0b\x0b<&>\U0001f600"}]}
    body = query_wire.answer("DescribeAlarms", "urn:x", SCHEMA.output("DescribeAlarms"), answer, "id")
    shape = service_model("cloudwatch").operation_model("DescribeAlarms").output_shape
    read = create_parser("query").parse({"body": body, "headers": {}, "status_code": 200}, shape)
    assert "a\ufffdb\ufffd<&>\U0001f600" == read["MetricAlarms"][0]["AlarmName"]


@pytest.mark.parametrize(
    "body",
    [
        "AlarmNames.member.x=1",
        "AlarmNames.member.0=1",
        "AlarmNames.1=x",
        "AlarmNames.member.1=a&AlarmNames.member.1.x=b",
        "AlarmNames.member.1.x=b&AlarmNames.member.1=a",
        "AlarmNames.member=a",
        ".".join(["AlarmNames"] * 20) + "=1",
        "AlarmName=%ff",
    ],
)
def test_a_form_that_is_none_is_refused(body: str) -> None:
    """In words, before anything is looked up."""
    with pytest.raises(ServingError) as refused:
        SCHEMA.check("DescribeAlarms", query_wire.params(body, SCHEMA.input("DescribeAlarms")))
    assert isinstance(refused.value, Unreadable | ValidationError)


@given(some.text(max_size=200))
def test_no_form_is_a_defect(body: str) -> None:
    """Whatever is sent is read, or refused."""
    for text in (body, f"AlarmNames.{body}=1", f"AlarmNames.member.{body}", urlencode({body: body})):
        try:
            SCHEMA.check("DescribeAlarms", query_wire.params(text, SCHEMA.input("DescribeAlarms")))
        except (Unreadable, ValidationError):
            continue


def test_the_action_that_is_permitted_is_the_one_that_is_done() -> None:
    """The last counts, however the names are spelled."""
    sent = control_wires.read(FORM, f"Action=DeleteAlarms&Version={VERSION}&Action=DescribeAlarms".encode())
    assert f"{CLOUDWATCH}.DescribeAlarms" == sent.target
    assert "" == control_wires.read(FORM, f"Acti%6Fn=DescribeAlarms&Version={VERSION}".encode()).target
    assert ".DescribeAlarms" == control_wires.read(FORM, b"Action=DescribeAlarms&Version=2000-01-01").target


# --- packed bodies ----------------------------------------------------------------------------------------------------


def test_a_packed_body_is_unpacked() -> None:
    """PutMetricData above 10 KB comes so."""
    headers = {"x-amz-target": f"{CLOUDWATCH}.PutMetricData", "content-encoding": "gzip"}
    assert '{"a": 1}' == control_wires.read(headers, gzip.compress(b'{"a": 1}')).text


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        ("gzip", b"plain", "not valid gzip"),
        ("gzip", gzip.compress(b"x" * 100)[:-4], "not valid gzip"),
        ("gzip", gzip.compress(b"{}") + b"more", "not valid gzip"),
        ("gzip", gzip.compress(b" " * (2**20 + 1)), "unpacked too"),
        ("br", b"{}", "is not offered"),
        ("gzip", gzip.compress(b"\xff"), "not valid UTF-8"),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_refused(encoding: str, body: bytes, text: str) -> None:
    """A bomb too, before it has grown."""
    with pytest.raises(ServingError, match=text):
        control_wires.read({"x-amz-target": "SageMaker.ListModels", "content-encoding": encoding}, body)


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with nothing on it, and keys: one may read, one may do all."""
    folder = tmp_path_factory.mktemp("cloudwatch-wire")
    with serve(folder) as server:
        yield server


def post(server: Server, body: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a POST to the root."""
    with server.client() as client:
        answer = client.post("/", content=body, headers=headers)
        return answer.status_code, dict(answer.headers), answer.content


def test_a_refusal_comes_in_the_form_of_the_call(server: Server) -> None:
    """XML for a form, with the code where old clients look for it."""
    status, headers, body = post(server, f"Action=SetAlarmState&Version={VERSION}&AlarmName=x", FORM)
    read = create_parser("query").parse({"body": body, "headers": headers, "status_code": status}, None)
    assert (400, "text/xml") == (status, headers["content-type"])
    assert ("ValidationError", "Sender") == (read["Error"]["Code"], read["Error"]["Type"])
    assert "'stateReason'" in read["Error"]["Message"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "X-Amz-Target"),
        ("Version=2010-08-01", "X-Amz-Target"),
        ("Action=PutDashboard&Version=2010-08-01", "does not offer the operation PutDashboard"),
        ("Action=NoSuchThing&Version=2010-08-01", "no operation"),
        ("Action=CreateModel&Version=2017-07-24", "no operation .CreateModel"),
    ],
)
def test_a_form_that_asks_for_nothing_here_is_told_so(server: Server, body: str, text: str) -> None:
    """As the JSON form is."""
    status, _, answer = post(server, body, FORM)
    assert 400 <= status < 500
    assert text in answer.decode()


def test_json_answers_carry_the_older_code_too(server: Server) -> None:
    """New clients look for it in a header."""
    headers = {"x-amz-target": f"{CLOUDWATCH}.SetAlarmState", "content-type": "application/x-amz-json-1.0"}
    asked = json.dumps({"AlarmName": "none", "StateValue": "OK", "StateReason": "x"})
    status, answered, body = post(server, asked, headers)
    assert (400, "ResourceNotFound;Sender") == (status, answered["x-amzn-query-error"])
    assert "application/x-amz-json-1.0" == answered["content-type"]
    assert "ResourceNotFound" == json.loads(body)["__type"]


def test_cbor_is_refused_in_cbor(server: Server) -> None:
    """botocore's own parser of that form reads why."""
    path = f"/service/{CLOUDWATCH}/operation/DescribeAlarms"
    with server.client() as client:
        answer = client.post(path, content=b"\xa0", headers={"content-type": "application/cbor"})
    raw = {"body": answer.content, "headers": dict(answer.headers), "status_code": answer.status_code}
    read = create_parser("smithy-rpc-v2-cbor").parse(raw, None)
    assert (404, "UnknownOperationException") == (answer.status_code, read["Error"]["Code"])
    assert "does not speak CBOR" in read["Error"]["Message"]
