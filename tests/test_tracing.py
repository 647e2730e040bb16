"""Spans of calls at a real OTLP/HTTP receiver: whose children they are, what they say; and what a trace context does to
a call when nobody asked for spans: nothing."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.config import traces_exporters
from serving.watch.trace_context import own_ids, trace_id, traceparent
from tests.cloud import client, make_config, make_model, production, put_script, settled
from tests.raw import Raw, request
from tests.server import Server, serve

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"00-{TRACE}-{PARENT}-01"
#: Answers, fails or streams, as it is told.
TOLD = """
def transform_fn(model, body, content_type, accept):
    if body == b"fail":
        raise RuntimeError("as told")
    if body == b"refuse":
        error = ValueError("not this")
        error.status_code = 400
        raise error
    if body == b"stream":
        return iter([b"one", b"two"])
    return b"said:" + body, "text/plain"
"""


class Receiver:
    """An OTLP/HTTP collector that keeps what it gets."""

    def __init__(self) -> None:
        self._spans: list[tuple[dict[str, str], Span]] = []
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def take(self, body: bytes) -> None:
        """One export."""
        asked = ExportTraceServiceRequest.FromString(body)
        with self._news:
            for resource in asked.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                self._spans += [(names, span) for scope in resource.scope_spans for span in scope.spans]
            self._news.notify_all()

    def spans(self, request_id: str, many: int = 1) -> list[Span]:
        """Those of one call, as soon as there are so many."""
        with self._news:
            found: list[Span] = []

            def there() -> bool:
                found[:] = [span for _, span in self._spans if said(span)["aws.request_id"] == request_id]
                return len(found) >= many

            assert self._news.wait_for(there, 30), found
            return sorted(found, key=lambda span: span.start_time_unix_nano)

    def resources(self) -> list[dict[str, str]]:
        """Who has sent spans."""
        with self._news:
            return [names for names, _ in self._spans]


def said(span: Span) -> dict[str, Any]:
    """Its attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One for all."""
    made = Receiver()
    with made.server:
        thread = threading.Thread(target=made.server.serve_forever)
        thread.start()
        yield made
        made.server.shutdown()
        thread.join()


def deployed(server: Server) -> None:
    """The endpoints ``plain``, ``doubled`` (with a shadow) and ``later`` (asynchronous)."""
    sagemaker = client(server)
    make_model(sagemaker, "m", {"Image": "any", "ModelDataUrl": put_script(server, "m", TOLD)})
    make_config(sagemaker, "plain", production("m"))
    make_config(sagemaker, "doubled", production("m"), ShadowProductionVariants=[production("m", name="shadow")])
    output = {"OutputConfig": {"S3OutputPath": "s3://answers/out"}}
    make_config(sagemaker, "later", production("m"), AsyncInferenceConfig=output)
    for name in ("plain", "doubled", "later"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name in ("plain", "doubled", "later"):
        assert "InService" == settled(sagemaker, name)["EndpointStatus"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Server]:
    """One that traces."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SERVICE_NAME": "ours",
        "SERVING_LOG_FORMAT": "json",
        "SERVING_SETTLE_SECONDS": "0",
    }
    with serve(tmp_path_factory.mktemp("traced"), "--allow-code", environment=environment) as running:
        deployed(running)
        yield running


def invoke(server: Server, endpoint: str, body: str, headers: Mapping[str, str], form: str = "invocations") -> Any:
    """One call."""
    with server.client() as http:
        return http.post(
            f"/endpoints/{endpoint}/{form}", content=body, headers={"Content-Type": "text/plain", **headers}
        )


def test_a_call_is_a_span_in_its_callers_trace(server: Server, receiver: Receiver) -> None:
    """Its parent is the caller's span; it says who answered, and its receipt adds up to no more than the whole."""
    answer = invoke(server, "plain", "x", {"traceparent": CONTEXT, "X-Amzn-SageMaker-Inference-Id": "mine"})
    (span,) = receiver.spans(answer.headers["x-amzn-requestid"])
    assert (TRACE, PARENT) == (span.trace_id.hex(), span.parent_span_id.hex())
    assert ("invoke plain", Span.SPAN_KIND_SERVER) == (span.name, span.kind)
    told = said(span)
    expected = {"serving.endpoint": "plain", "serving.variant": "AllTraffic", "serving.inference_id": "mine"}
    assert expected | {"http.response.status_code": 200} == {
        name: told[name] for name in (*expected, "http.response.status_code")
    }
    steps = sum(told[f"serving.{step}_us"] for step in ("queue", "load", "decode", "predict", "encode"))
    lasted = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000
    assert 0 < steps <= told["serving.total_us"] <= lasted + 1000
    assert "ours" in {names["service.name"] for names in receiver.resources()}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-0-0-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        "x" * 300,
    ],
)
def test_a_context_that_is_none_is_ignored(server: Server, receiver: Receiver, header: str) -> None:
    """The call is answered, in a trace of its own that its request id tells."""
    answer = invoke(server, "plain", "x", {"traceparent": header} if header else {})
    assert (200, "said:x") == (answer.status_code, answer.text)
    request_id = answer.headers["x-amzn-requestid"]
    (span,) = receiver.spans(request_id)
    assert (trace_id("", request_id), b"") == (span.trace_id.hex(), span.parent_span_id)


def test_a_failed_call_is_an_error_in_span_and_log(server: Server, receiver: Receiver) -> None:
    """Both say what the caller was told, and the log line names the trace."""
    for headers, trace in (({"traceparent": CONTEXT}, TRACE), ({}, "")):
        answer = invoke(server, "plain", "fail", headers)
        request_id = answer.headers["x-amzn-requestid"]
        (span,) = receiver.spans(request_id)
        assert (Status.STATUS_CODE_ERROR, True) == (span.status.code, "as told" in span.status.message)
        assert (424, "ModelError") == (said(span)["http.response.status_code"], said(span)["error.type"])
        line = json.loads(server.wait_for(rf"\{{.*ModelError.*{request_id}.*").string)
        assert (trace or trace_id("", request_id)) == line["trace_id"]


def test_a_callers_mistake_is_no_error_of_the_server(server: Server, receiver: Receiver) -> None:
    """The span has the status all the same."""
    answer = invoke(server, "plain", "refuse", {})
    (span,) = receiver.spans(answer.headers["x-amzn-requestid"])
    assert (Status.STATUS_CODE_UNSET, 424) == (span.status.code, said(span)["http.response.status_code"])


def test_a_copy_is_a_child_of_the_call_it_copies(server: Server, receiver: Receiver) -> None:
    """In the caller's trace, and in the call's own."""
    for headers in ({"traceparent": CONTEXT}, {}):
        answer = invoke(server, "doubled", "x", headers)
        spans = {said(span)["serving.variant"]: span for span in receiver.spans(answer.headers["x-amzn-requestid"], 2)}
        call, copy = spans["AllTraffic"], spans["shadow"]
        assert (call.trace_id, call.span_id) == (copy.trace_id, copy.parent_span_id)
        assert (Span.SPAN_KIND_INTERNAL, True) == (copy.kind, said(copy)["serving.shadow"])
        assert (TRACE if headers else call.trace_id.hex()) == call.trace_id.hex()


def test_a_stream_and_an_asynchronous_call_have_one_span_too(server: Server, receiver: Receiver) -> None:
    """The stream's ends with it; the asynchronous one is the jobs process's."""
    answer = invoke(server, "plain", "stream", {"traceparent": CONTEXT}, "invocations-response-stream")
    (span,) = receiver.spans(answer.headers["x-amzn-requestid"])
    assert (TRACE, True) == (span.trace_id.hex(), said(span)["serving.streamed"])
    answer = invoke(server, "later", "x", {"traceparent": CONTEXT}, "async-invocations")
    assert 202 == answer.status_code
    (span,) = receiver.spans(answer.headers["x-amzn-requestid"])
    assert (TRACE, PARENT, Span.SPAN_KIND_CONSUMER) == (span.trace_id.hex(), span.parent_span_id.hex(), span.kind)


def test_heads_with_a_context_are_known_again(server: Server, receiver: Receiver) -> None:
    """On one connection, in any spelling: each call has its own context, none has another's, and two are none."""

    def ask(http: Raw, **headers: str) -> Span:
        answer = http.ask(request("/endpoints/plain/invocations", b"x", {"Content-Type": "text/plain", **headers}))
        assert (200, b"said:x") == (answer.status, answer.body)
        return receiver.spans(answer.headers["x-amzn-requestid"])[0]

    with Raw(server.url) as http:
        for number in range(1, 6):
            for name in ("traceparent", "Traceparent", "TRACEPARENT"):
                span = ask(http, **{name: f"00-{number:032x}-{number:016x}-01"})
                assert (number, number) == (int(span.trace_id.hex(), 16), int(span.parent_span_id.hex(), 16))
            assert b"" == ask(http).parent_span_id
            assert b"" == ask(http, traceparent="no").parent_span_id
            both = {"traceparent": CONTEXT, "Traceparent": f"00-{1:032x}-{1:016x}-01"}
            assert ask(http, **both).parent_span_id.hex() in (PARENT, f"{1:016x}")


def test_a_receiver_that_is_not_there_costs_no_call(tmp_path: Path) -> None:
    """Spans are dropped; calls are answered, and the server ends when it is told to."""
    environment = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    with serve(tmp_path, "--allow-code", environment=environment) as server:
        sagemaker = client(server)
        make_model(sagemaker, "m", {"Image": "any", "ModelDataUrl": put_script(server, "m", TOLD)})
        make_config(sagemaker, "plain", production("m"))
        sagemaker.create_endpoint(EndpointName="plain", EndpointConfigName="plain")
        settled(sagemaker, "plain")
        assert {200} == {invoke(server, "plain", "x", {"traceparent": CONTEXT}).status_code for _ in range(20)}
        assert 0 == server.stop()


# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": " otlp, console"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, ()),
    ],
)
def test_nothing_is_traced_unless_asked_for(environ: dict[str, str], expected: tuple[str, ...]) -> None:
    """By OpenTelemetry's own variables."""
    assert expected == traces_exporters(environ)


@given(st.binary(max_size=80) | st.from_regex(rb"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?\Z"))
@example(f"01-{TRACE}-{PARENT}-01-more".encode())
@example(f"00-{TRACE}-{PARENT}-01-more".encode())
def test_a_context_is_read_as_the_standard_says(value: bytes) -> None:
    """Empty, or one of version 00 with ids that are not zero; what later versions add is left out."""
    found = traceparent(value)
    if found:
        version, trace, parent, flags = found.split("-")
        assert ("00", 32, 16, 2) == (version, len(trace), len(parent), len(flags))
        assert int(trace, 16) > 0 < int(parent, 16)
        assert value[2:55].decode() == found[2:]
        assert found == traceparent(found.encode())


@given(st.uuids())
def test_ids_of_ones_own_are_valid_and_always_the_same(request_id: object) -> None:
    """Not zero, of the right length."""
    trace, span = own_ids(str(request_id))
    assert 0 < trace < 2**128
    assert 0 < span < 2**64
    assert f"{trace:032x}" == trace_id("", str(request_id)) == trace_id("", str(request_id))
    assert TRACE == trace_id(CONTEXT, str(request_id))
