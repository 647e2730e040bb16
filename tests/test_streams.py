"""Answers in parts: InvokeEndpointWithResponseStream, its bytes, its pace, its ends, whoever breaks off."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api import eventstream
from serving.api.streams import StreamedResponse
from serving.types import Reply
from tests import cloud
from tests.processes import processes
from tests.raw import Raw, gate, open_gate, request
from tests.server import Server, declare, serve, variant
from tests.toys import ROW, write_script_model, write_sum_model

#: A script model that streams as it is told: each of ``parts`` is text to send, a number of bytes to send, or an order.
TOLD = """
import json, os, time

class Odd(Exception):
    status_code = 418

def transform_fn(model, body, content_type, accept, context):
    order = json.loads(body)
    if "whole" in order:
        return order["whole"], "text/whole"
    if "say" in order:
        return json.dumps({"accept": accept, "content_type": content_type, **context.request_headers})
    return parts(order, context)

def parts(order, context):
    if "mark" in order:
        open(order["mark"] + ".begun", "w").close()
    try:
        for name, value in order.get("headers", {}).items():
            context.set_response_header(name, value)
        if "type" in order:
            context.set_response_content_type(order["type"])
        if "status" in order:
            context.set_response_status(order["status"])
        for part in order["parts"] * order.get("times", 1):
            if isinstance(part, int):
                yield b"x" * part
            elif isinstance(part, str):
                yield part
            elif "hold" in part:
                with open(part["hold"]) as opened:  # a FIFO: opens when the test opens it, ends when it closes it
                    opened.read()
            elif "note" in part:
                with open(part["note"], "a") as notes:
                    notes.write("x")
            elif "raise" in part:
                raise Odd("no more") if part["raise"] == "odd" else ValueError("no more")
            elif "exit" in part:
                os._exit(3)
            elif "sleep" in part:
                time.sleep(part["sleep"])  # the model waits, not the test
            else:
                yield part
    except GeneratorExit:
        if "mark" in order:
            open(order["mark"] + ".closed", "w").close()
        raise
"""
#: The other way to stream: only predict_fn, no output_fn.
PREDICTS = """
def model_fn(model_dir): return None
def input_fn(body, content_type): return body.decode().split()
def predict_fn(words, model): return (word + "|" for word in words)
"""
OPTIONS = {"SERVING_LOG_LEVEL": "warning", "SERVING_MAX_QUEUE": "64"}


def _serve(folder: Path, *wanted: str, **environment: str) -> Any:
    """``wanted``: these endpoints; all unless it is said."""
    write_script_model(folder / "told", TOLD)
    write_script_model(folder / "predicts", PREDICTS)
    write_sum_model(folder / "sum" / "model.onnx")
    names = ("told", "predicts", "sum")
    models = {name: {"ModelDataUrl": str(folder / name)} for name in names}
    models["many"] = {"ModelDataUrl": str(folder), "Mode": "MultiModel"}
    endpoints = {name: [variant(name)] for name in (*names, "many")}
    endpoints |= {"two": [variant("told", count=2)], "leaving": [variant("told")]}
    wanted = wanted or tuple(endpoints)
    path = declare(folder / "endpoints.yaml", {name: endpoints[name] for name in wanted}, models)
    return serve(folder, "--config", str(path), "--allow-code", environment=OPTIONS | environment)


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, by either door; nothing in here is a defect of ours."""
    fast = str(request.param == "fast")
    with _serve(tmp_path_factory.mktemp("streams"), SERVING_FAST_PATH=fast) as running:
        yield running
        client(running).close()
        assert "request failed" not in running.log
        assert "answering a caller failed" not in running.log
        assert "cannot go on" not in running.log


@cache
def connect(url: str) -> Any:
    """Unmodified boto3."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
    )


def client(server: Server) -> Any:
    """A client of it."""
    return connect(server.url)


def ask(server: Server, endpoint: str = "told", body: Any = None, **order: Any) -> Any:
    """Unmodified boto3's answer to an order, its headers read, its body not."""
    options = {key: order.pop(key) for key in list(order) if key[0].isupper()}
    data = json.dumps(order) if body is None else body
    return client(server).invoke_endpoint_with_response_stream(EndpointName=endpoint, Body=data, **options)


def parts(answer: Any) -> list[bytes]:
    """All parts of an answer."""
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def streaming(server: Server, endpoint: str = "told") -> float:
    """Calls in flight, as the front counts them."""
    return server.metric("sagemaker_concurrent_requests", endpoint=endpoint)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_the_first_part_arrives_before_the_last_is_made(server: Server, tmp_path: Path) -> None:
    """The model goes on to its last part only when the client, having read the first, lets it."""
    with gate(tmp_path / "gate") as fifo:
        answer = ask(server, parts=["one", {"hold": str(fifo)}, "two"])
        events = iter(answer["Body"])
        assert b"one" == next(events)["PayloadPart"]["Bytes"]
        os.close(open_gate(fifo))
        assert [b"two"] == [event["PayloadPart"]["Bytes"] for event in events]


def test_every_piece_is_a_part_in_order(server: Server) -> None:
    """Bytes and text, empty pieces left out."""
    expected = [f"{n};".encode() for n in range(300)]
    assert expected == parts(ask(server, parts=[part.decode() for part in expected] + [""]))
    assert [b"a|", b"b|"] == parts(ask(server, "predicts", "a b"))


def test_a_piece_of_any_length_arrives_whole(server: Server) -> None:
    """In parts that clients take."""
    sizes = [1, 262_143, 262_144, 262_145, 3_000_000]
    assert b"x" * sum(sizes) == b"".join(parts(ask(server, parts=sizes)))


def test_a_stream_without_a_piece_is_an_empty_answer(server: Server) -> None:
    """And no error."""
    assert [] == parts(ask(server, parts=[]))


def test_the_heads_of_a_stream(server: Server) -> None:
    """What the generator sets before its first piece: types and attributes in their own headers."""
    answer = ask(server, parts=["x"], type="text/mine", headers={"X-Amzn-SageMaker-Custom-Attributes": "a=1"})
    assert ("text/mine", "AllTraffic", "a=1") == (
        answer["ContentType"],
        answer["InvokedProductionVariant"],
        answer["CustomAttributes"],
    )
    assert "application/vnd.amazon.eventstream" == answer["ResponseMetadata"]["HTTPHeaders"]["content-type"]
    assert [b"x"] == parts(answer)


def test_what_the_caller_of_a_stream_says_reaches_the_model(server: Server) -> None:
    """Accept has a header of its own here."""
    answer = ask(server, say=1, Accept="text/csv", ContentType="text/x", CustomAttributes="a", InferenceId="i")
    said = json.loads(b"".join(parts(answer)))
    assert ("text/csv", "text/x", "a", "i") == (
        said["accept"],
        said["content_type"],
        said["X-Amzn-SageMaker-Custom-Attributes"],
        said["X-Amzn-SageMaker-Inference-Id"],
    )


def test_any_model_answers_as_a_stream(server: Server) -> None:
    """A whole answer is one part; of a long one, several."""
    assert [b"30.0\n"] == parts(ask(server, "sum", ROW, ContentType="text/csv", Accept="text/csv"))
    answer = ask(server, whole="y" * 5_000_000)
    assert "text/whole" == answer["ContentType"]
    assert b"y" * 5_000_000 == b"".join(parts(answer))
    assert [] == parts(ask(server, whole=""))


def test_a_plain_call_gets_all_parts_joined(server: Server) -> None:
    """With what the generator said of them."""
    order = {"parts": ["a", "b"], "type": "text/mine", "headers": {"X-Amzn-SageMaker-Custom-Attributes": "a=1"}}
    answer = client(server).invoke_endpoint(EndpointName="told", Body=json.dumps(order))
    assert (b"ab", "text/mine", "a=1") == (answer["Body"].read(), answer["ContentType"], answer["CustomAttributes"])


def test_a_model_of_many_streams(server: Server) -> None:
    """TargetModel is no member of the operation, but the header works."""
    with Raw(server.url) as raw:
        body = json.dumps({"parts": ["a", "b"]}).encode()
        raw.send(
            request("/endpoints/many/invocations-response-stream", body, {"X-Amzn-SageMaker-Target-Model": "told"})
        )
        assert [b"a", b"b"] == payloads(streamed(raw)[1])


# --- the bytes -------------------------------------------------------------------------------------------------------


def streamed(raw: Raw) -> tuple[dict[str, str], list[bytes]]:
    """The head of a streamed answer and its HTTP chunks, of which each is a frame."""
    assert b"HTTP/1.1 200 OK" == raw._line()
    headers: dict[str, str] = {}
    while line := raw._line():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    chunks = []
    while size := int(raw._line(), 16):
        chunks.append(raw._exactly(size))
        assert b"\r\n" == raw._exactly(2)
    assert b"" == raw._line()
    return headers, chunks


def payloads(frames: list[bytes]) -> list[bytes]:
    """What botocore's own reader makes of frames."""
    buffer = EventStreamBuffer()
    for frame in frames:
        buffer.add_data(frame)
    return [event.payload for event in buffer]


VECTOR = (
    "0000006b00000059997770650d3a6d6573736167652d747970650700056576656e740b3a6576656e742d7479706507000b5061796c6f616450"
    "6172740d3a636f6e74656e742d747970650700186170706c69636174696f6e2f6f637465742d73747265616d6869" "7dde0062"
)  # fmt: skip


def test_the_bytes_of_a_part() -> None:
    """The check vector of the service's own reference."""
    assert VECTOR == eventstream.payload_part(b"hi").hex()


TEXTS = st.text(max_size=200)
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


@given(st.dictionaries(NAMES, TEXTS, max_size=6), st.binary(max_size=5000))
def test_botocore_reads_every_frame(headers: dict[str, str], payload: bytes) -> None:
    """Headers and payload come back as they were; two frames in a row are two."""
    frame = eventstream.frame(eventstream.encoded(headers), payload)
    assert zlib.crc32(frame[:-4]) == int.from_bytes(frame[-4:], "big")
    buffer = EventStreamBuffer()
    buffer.add_data(frame + frame)
    assert [(headers, payload)] * 2 == [(event.headers, event.payload) for event in buffer]


def test_each_part_is_one_chunk_and_the_connection_goes_on(server: Server) -> None:
    """Also when the next request was written before the stream's end."""
    body = json.dumps({"parts": ["a", "b"]}).encode()
    with Raw(server.url) as raw:
        path = "/endpoints/told/invocations-response-stream"
        raw.send(request(path, body, {"X-Serving-Timing": "1"}) + request(path, body))
        headers, frames = streamed(raw)
        assert [eventstream.payload_part(b"a"), eventstream.payload_part(b"b")] == frames
        assert "chunked" == headers["transfer-encoding"]
        assert "content-length" not in headers
        assert headers["x-serving-timing"].startswith("total=")
        assert frames == streamed(raw)[1]
        after = raw.ask(request("/endpoints/sum/invocations", ROW.encode(), {"Content-Type": "text/csv"}))
        assert 200 == after.status


def test_a_connection_that_is_to_end_ends_after_the_stream(server: Server) -> None:
    """As the caller asked."""
    body = json.dumps({"parts": ["a"]}).encode()
    with Raw(server.url) as raw:
        raw.send(request("/endpoints/told/invocations-response-stream", body, {"Connection": "close"}))
        headers, frames = streamed(raw)
        assert "close" == headers["connection"]
        assert [b"a"] == payloads(frames)
        assert b"" == raw.rest()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(0, 600_000), st.text(max_size=30)), max_size=12), st.integers(1 << 10, 1 << 20))
def test_whatever_is_made_arrives_in_order(server: Server, made: list[int | str], gulp: int) -> None:
    """However long the pieces are and however much is read at a time."""
    expected = b"".join(b"x" * one if isinstance(one, int) else one.encode() for one in made)
    body = json.dumps({"parts": made}).encode()
    with Raw(server.url, receive_buffer=max(4096, gulp // 8)) as raw:
        raw.send(request("/endpoints/told/invocations-response-stream", body, {"Connection": "close"}))
        data = bytearray()
        while more := raw.sock.recv(gulp):
            data += more
    head, _, chunks = bytes(data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    if b"chunked" in head:
        chunks = dechunked(chunks)
    assert expected == b"".join(payloads([chunks]))


def dechunked(data: bytes) -> bytes:
    """A chunked body, whole."""
    found = []
    while True:
        size, _, data = data.partition(b"\r\n")
        if not int(size, 16):
            assert b"\r\n" == data
            return b"".join(found)
        found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "status", "text"),
    [
        ({"parts": [{"raise": "odd"}]}, 418, "no more"),
        ({"parts": [{"raise": "value"}, "late"]}, 500, "ValueError"),
        ({"parts": [{"a": 1}]}, 500, "must be bytes or text"),
        ({"parts": ["too bad"], "status": 503}, 503, "too bad"),
        ({}, 500, "KeyError"),
    ],
)
def test_what_fails_before_the_first_part_is_an_ordinary_error(
    server: Server, order: dict[str, Any], status: int, text: str
) -> None:
    """A ModelError with the model's own status."""
    with pytest.raises(ClientError) as caught:
        ask(server, **order)
    assert ("ModelError", 424) == (
        caught.value.response["Error"]["Code"],
        caught.value.response["ResponseMetadata"]["HTTPStatusCode"],
    )
    assert status == caught.value.response["OriginalStatusCode"]
    assert text in caught.value.response["OriginalMessage"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"EndpointName": "none"}, "not found"),
        ({"SessionId": "NEW_SESSION"}, "X-Amzn-SageMaker-Session-Id"),
        ({"TargetVariant": "none"}, "Variant none"),
        ({"EndpointName": "many"}, "missing a target model header"),
    ],
)
def test_a_refused_stream_is_an_ordinary_refusal(server: Server, options: dict[str, str], text: str) -> None:
    """Nothing has been streamed yet."""
    with pytest.raises(ClientError) as caught:
        client(server).invoke_endpoint_with_response_stream(**{"EndpointName": "told", "Body": b"{}"} | options)
    assert "ValidationError" == caught.value.response["Error"]["Code"]
    assert text in caught.value.response["Error"]["Message"]


def test_http_1_0_has_no_streams(server: Server) -> None:
    """It cannot tell the end from a break."""
    with Raw(server.url) as raw:
        answer = raw.ask(request("/endpoints/told/invocations-response-stream", b'{"parts": ["a"]}', version="1.0"))
    assert (400, "A stream needs HTTP/1.1.") == (answer.status, answer.fields["Message"])


@pytest.mark.parametrize("what", [{"raise": "value"}, {"raise": "odd"}, {"a": 1}])
def test_a_model_that_fails_in_mid_stream_breaks_it(server: Server, what: dict[str, Any]) -> None:
    """What was made arrives, then the model's exception; it counts as an error."""
    before = server.metric("sagemaker_mid_stream_errors_total", endpoint="told")
    failed = server.metric("sagemaker_invocation_model_errors_total", endpoint="told")
    body = ask(server, parts=["one", what, "two"])["Body"]
    events = iter(body)
    assert b"one" == next(events)["PayloadPart"]["Bytes"]
    with pytest.raises(EventStreamError) as caught:
        next(events)
    body.close()
    assert "ModelStreamError" == caught.value.response["Error"]["Code"]
    assert before + 1 == server.metric("sagemaker_mid_stream_errors_total", endpoint="told")
    assert failed + 1 == server.metric("sagemaker_invocation_model_errors_total", endpoint="told")


def end_of(frames: list[bytes]) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and payload of the last frame."""
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(frames))
    last = list(buffer)[-1]
    return last.headers, json.loads(last.payload)


def raw_stream(server: Server, endpoint: str = "told", **order: Any) -> list[bytes]:
    """The frames of a stream, to its orderly end."""
    with Raw(server.url) as raw:
        raw.send(request(f"/endpoints/{endpoint}/invocations-response-stream", json.dumps(order).encode()))
        return streamed(raw)[1]


def test_a_broken_stream_ends_with_a_frame_and_cleanly(server: Server) -> None:
    """``StreamBroken``, whoever broke it."""
    frames = raw_stream(server, parts=["one", {"raise": "value"}])
    headers, fields = end_of(frames)
    assert ("exception", "ModelStreamError") == (headers[":message-type"], headers[":exception-type"])
    assert "StreamBroken" == fields["ErrorCode"]
    assert "ValueError" in fields["Message"]


def test_a_worker_that_dies_in_mid_stream_breaks_it(server: Server) -> None:
    """It is not tried again: somebody has seen part of it."""
    frames = raw_stream(server, "two", parts=["one", {"exit": 1}])
    assert b"one" == payloads(frames)[0]
    assert "StreamBroken" == end_of(frames)[1]["ErrorCode"]
    server.eventually(lambda: 2 == sum(one["State"] == "READY" for one in server.workers("two")))


def test_a_worker_that_dies_before_the_first_part_is_tried_again(server: Server, tmp_path: Path) -> None:
    """Once, on another one, where the answer is whole."""
    with gate(tmp_path / "gate") as fifo:
        found: list[Any] = []
        caller = threading.Thread(
            target=lambda: found.append(parts(ask(server, "two", parts=[{"hold": str(fifo)}, "one"])))
        )
        caller.start()
        end = open_gate(fifo)
        alive = {one["Pid"] for one in server.workers("two")}
        holder = next(pid for pid in alive if _holds(pid, fifo))
        os.kill(holder, signal.SIGKILL)
        server.eventually(
            lambda: any(_holds(one["Pid"], fifo) for one in server.workers("two") if one["Pid"] != holder)
        )
        os.close(end)
        caller.join(30)
    assert [[b"one"]] == found


def _holds(pid: int, path: Path) -> bool:
    """Has the process opened the file? It may close others while we look, and end."""
    wanted = path.stat()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(wanted, link.stat()):
                    return True
    return False


# --- pace ------------------------------------------------------------------------------------------------------------


def test_others_are_answered_between_two_parts(server: Server, tmp_path: Path) -> None:
    """By the same model, the same worker, while the one who streams does not read."""
    with Raw(server.url, receive_buffer=4096) as slow:
        body = json.dumps({"parts": [100_000], "times": 60, "mark": str(tmp_path / "slow")}).encode()
        slow.send(request("/endpoints/told/invocations-response-stream", body))
        server.eventually((tmp_path / "slow.begun").exists)
        assert [b"a"] == parts(ask(server, parts=["a"]))
        plain = client(server).invoke_endpoint(EndpointName="told", Body=b'{"whole": "w"}')
        assert b"w" == plain["Body"].read()
        total = sum(len(payload) for payload in payloads(streamed(slow)[1]))
    assert 60 * 100_000 == total


def test_a_model_makes_no_more_than_somebody_reads(server: Server, tmp_path: Path) -> None:
    """It stands still while its reader does: of hundreds of megabytes, few have been made."""
    notes = tmp_path / "notes"
    with Raw(server.url, receive_buffer=4096) as slow:
        body = json.dumps({"parts": [{"note": str(notes)}, 1_000_000], "times": 500}).encode()
        slow.send(request("/endpoints/told/invocations-response-stream", body))
        server.eventually(notes.exists)
        assert [b"a"] * 20 == [parts(ask(server, parts=["a"]))[0] for _ in range(20)]  # it has had its time
        assert len(notes.read_text()) < 50


def test_a_reader_who_leaves_closes_the_generator(server: Server, tmp_path: Path) -> None:
    """Wherever it stands: waiting for the reader, or making a part. Its place is free."""
    for number, what in enumerate(
        [{"parts": [50_000], "times": 10_000}, {"parts": ["a", {"sleep": 0.05}], "times": 9999}]
    ):
        mark = tmp_path / str(number)
        with Raw(server.url, receive_buffer=4096) as leaver:
            body = json.dumps(what | {"mark": str(mark)}).encode()
            leaver.send(request("/endpoints/told/invocations-response-stream", body))
            server.eventually(mark.with_suffix(".begun").exists)
            assert b"HTTP/1.1 200 OK" == leaver._line()
        server.eventually(mark.with_suffix(".closed").exists)
    server.eventually(lambda: 0 == streaming(server))
    assert [b"a"] == parts(ask(server, parts=["a"]))


def test_places_of_those_who_leave_are_free(server: Server) -> None:
    """More come and go, early and late, than a worker or a front has room for at once."""
    body = json.dumps({"parts": ["a", 100_000], "times": 50}).encode()
    for number in range(200):
        with Raw(server.url, receive_buffer=4096) as leaver:
            leaver.send(request("/endpoints/told/invocations-response-stream", body))
            if number % 2:
                assert b"HTTP/1.1 200 OK" == leaver._line()
    server.eventually(lambda: 0 == streaming(server))
    assert [b"a"] == parts(ask(server, parts=["a"]))


def test_slow_readers_cost_no_memory(server: Server) -> None:
    """Neither the front nor the worker keeps what they do not read: forty of them want a gigabyte each."""
    watched = [*processes(server, "serving.front_process"), *(one["Pid"] for one in server.workers("told"))]
    before = sum(resident(pid) for pid in watched)
    body = json.dumps({"parts": [1_000_000], "times": 1000}).encode()
    with ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(Raw(server.url, receive_buffer=4096))
            slow.send(request("/endpoints/told/invocations-response-stream", body))
            assert b"HTTP/1.1 200 OK" == slow._line()
        assert [b"a"] * 40 == [parts(ask(server, parts=["a"]))[0] for _ in range(40)]  # all have had their turns
        assert sum(resident(pid) for pid in watched) - before < 150_000_000
    server.eventually(lambda: 0 == streaming(server))


def resident(pid: int) -> int:
    """Memory a process has, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_front_that_dies_closes_its_generators(tmp_path: Path) -> None:
    """The worker is not left with streams that nobody reads."""
    with _serve(tmp_path, "told") as running, Raw(running.url, receive_buffer=4096) as raw:
        body = json.dumps({"parts": [50_000], "times": 10_000, "mark": str(tmp_path / "m")}).encode()
        raw.send(request("/endpoints/told/invocations-response-stream", body))
        running.eventually((tmp_path / "m.begun").exists)
        os.kill(processes(running, "serving.front_process")[0], signal.SIGKILL)
        running.eventually((tmp_path / "m.closed").exists)


def test_boto3_may_close_a_stream(server: Server, tmp_path: Path) -> None:
    """In its middle."""
    answer = ask(server, parts=["a"] * 4 + [200_000], times=500, mark=str(tmp_path / "m"))
    assert b"a" == next(iter(answer["Body"]))["PayloadPart"]["Bytes"]
    answer["Body"].close()
    server.eventually((tmp_path / "m.closed").exists)


class Quick:
    """A model of a thousand parts. They come as from a socket that can always be read: one in each turn of the loop."""

    def __init__(self, readable: int) -> None:
        self.parts = 0
        self.cancelled = False
        self._readable = readable
        self._credit = 0

    def follow(self, take: Callable[[bytes], None], end: Callable[[None], None]) -> None:
        """To whom the parts go."""
        asyncio.get_running_loop().add_reader(self._readable, self._read, take, end)

    def grant(self, part: int) -> None:
        """Room for one more."""
        self._credit += 1

    def cancel(self) -> None:
        """That was the last."""
        self.cancelled = True
        asyncio.get_running_loop().remove_reader(self._readable)

    def _read(self, take: Callable[[bytes], None], end: Callable[[None], None]) -> None:
        if self.parts == 1000:
            end(None)
        elif self._credit:
            self._credit -= 1
            self.parts += 1
            take(b"x")


def test_a_stream_that_never_pauses_ends_with_its_reader() -> None:
    """However quickly the parts come."""
    readable, writable = os.pipe()
    os.write(writable, b"x")
    quick = Quick(readable)

    async def stream() -> None:
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if quick.parts == 5:
                left.set()

        response = StreamedResponse(Reply(b"x", "", "", 0.0, (), True, rest=quick), {})
        await asyncio.wait_for(response({"type": "http"}, receive, send), 30)

    asyncio.run(stream())
    os.close(readable)
    os.close(writable)
    assert quick.cancelled
    assert 5 <= quick.parts < 10


def test_many_streams_at_once(server: Server) -> None:
    """Each gets its own parts in order."""
    found: dict[int, list[bytes]] = {}

    def one(number: int) -> None:
        found[number] = parts(ask(server, "two", parts=[f"{number}-{n}" for n in range(30)]))

    callers = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert {number: [f"{number}-{n}".encode() for n in range(30)] for number in range(24)} == found


def test_a_stream_is_counted(server: Server) -> None:
    """As one invocation, with the time to its first part, and in flight until its end."""
    before = server.metric("sagemaker_invocations_total", endpoint="predicts")
    first = server.metric("sagemaker_first_chunk_latency_seconds_count", endpoint="predicts")
    latency = server.metric("sagemaker_model_latency_seconds_count", endpoint="predicts")
    assert [b"a|"] == parts(ask(server, "predicts", "a"))
    assert before + 1 == server.metric("sagemaker_invocations_total", endpoint="predicts")
    assert first + 1 == server.metric("sagemaker_first_chunk_latency_seconds_count", endpoint="predicts")
    assert latency + 1 == server.metric("sagemaker_model_latency_seconds_count", endpoint="predicts")
    server.eventually(lambda: 0 == streaming(server, "predicts"))


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fast", "asgi"])
def hasty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little patience, and two fronts."""
    limits = {
        "SERVING_INVOCATION_TIMEOUT_SECONDS": "1",
        "SERVING_STREAM_TIMEOUT_SECONDS": "2.5",
        "SERVING_RECEIVE_TIMEOUT_SECONDS": "1",
        "SERVING_FRONTS": "2",
        "SERVING_FAST_PATH": str(request.param == "fast"),
    }
    with _serve(tmp_path_factory.mktemp("hasty"), "told", "two", **limits) as running:
        yield running
        client(running).close()


def test_a_first_part_that_does_not_come_is_a_timeout(hasty: Server) -> None:
    """As of any call."""
    with pytest.raises(ClientError) as caught:
        ask(hasty, "two", parts=[{"sleep": 20}, "a"])
    assert ("ModelError", 0) == (caught.value.response["Error"]["Code"], caught.value.response["OriginalStatusCode"])
    hasty.eventually(lambda: 2 == sum(one["State"] == "READY" for one in hasty.workers("two")))


def test_a_next_part_that_does_not_come_breaks_the_stream(hasty: Server) -> None:
    """In the time that a first one has."""
    frames = raw_stream(hasty, "two", parts=["one", {"sleep": 20}])
    assert b"one" == payloads(frames)[0]
    assert "ModelInvocationTimeExceeded" == end_of(frames)[1]["ErrorCode"]
    hasty.eventually(lambda: 2 == sum(one["State"] == "READY" for one in hasty.workers("two")))


def test_a_stream_without_end_is_ended(hasty: Server, tmp_path: Path) -> None:
    """When its whole time is up; the model hears of it."""
    mark = tmp_path / "endless"
    frames = raw_stream(hasty, parts=["one", {"sleep": 0.02}], times=100_000, mark=str(mark))
    assert "ModelInvocationTimeExceeded" == end_of(frames)[1]["ErrorCode"]
    hasty.eventually(mark.with_suffix(".closed").exists)


def test_a_reader_who_stands_still_is_cut(hasty: Server, tmp_path: Path) -> None:
    """And the model let go."""
    mark = tmp_path / "still"
    with Raw(hasty.url, receive_buffer=4096) as still:
        body = json.dumps({"parts": [100_000], "times": 1000, "mark": str(mark)}).encode()
        still.send(request("/endpoints/told/invocations-response-stream", body))
        hasty.eventually(mark.with_suffix(".closed").exists)
        assert len(still.rest()) < 20_000_000


def test_a_worker_that_leaves_finishes_its_streams(server: Server, tmp_path: Path) -> None:
    """It takes no new calls, and the stream it holds is whole."""
    sagemaker = boto3.client(
        "sagemaker", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    change = {"VariantName": "AllTraffic", "DesiredInstanceCount": 0}
    with gate(tmp_path / "gate") as fifo:
        events = iter(ask(server, "leaving", parts=["one", {"hold": str(fifo)}, "two", 2_000_000])["Body"])
        assert b"one" == next(events)["PayloadPart"]["Bytes"]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="leaving", DesiredWeightsAndCapacities=[change])
        server.eventually(lambda: ["DRAINING"] == [one["State"] for one in server.workers("leaving")])
        os.close(open_gate(fifo))
        assert b"two" + b"x" * 2_000_000 == b"".join(event["PayloadPart"]["Bytes"] for event in events)
    server.eventually(lambda: [] == server.workers("leaving"))
    sagemaker.close()


def test_the_last_container_of_a_pipeline_streams(tmp_path: Path) -> None:
    """Those before it answer as ever."""
    with serve(tmp_path, "--allow-code") as running:
        sagemaker, runtime = cloud.client(running), cloud.client(running, "sagemaker-runtime")
        passing = (
            "def transform_fn(model, body, content_type, accept):\n    return iter([body[:1], body[1:]]), 'text/a'\n"
        )
        stages = [cloud.container(cloud.put_script(running, name, passing)) for name in ("one", "two")]
        cloud.make_model(sagemaker, "e", *stages, InferenceExecutionConfig={"Mode": "Serial"})
        cloud.make_config(sagemaker, "e", cloud.production("e"))
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
        assert "InService" == cloud.settled(sagemaker, "e")["EndpointStatus"]
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName="e", Body=b"xyz")
        assert ("text/a", [b"x", b"yz"]) == (answer["ContentType"], parts(answer))


def test_an_update_leaves_open_streams_whole(tmp_path: Path) -> None:
    """The new deployment serves while the old one's last stream goes on."""
    with serve(tmp_path, "--allow-code") as running, gate(tmp_path / "gate") as fifo:
        sagemaker, runtime = cloud.client(running), cloud.client(running, "sagemaker-runtime")
        cloud.deploy(sagemaker, "e", cloud.put_script(running, "told", TOLD))
        order = {"parts": ["one", {"hold": str(fifo)}, "two"]}
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName="e", Body=json.dumps(order))
        events = iter(answer["Body"])
        assert b"one" == next(events)["PayloadPart"]["Bytes"]
        cloud.make_model(sagemaker, "new", cloud.container(cloud.put_script(running, "predicts", PREDICTS)))
        cloud.make_config(sagemaker, "new", cloud.production("new"))
        sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="new")
        running.eventually(lambda: b"a|" == runtime.invoke_endpoint(EndpointName="e", Body=b"a")["Body"].read())
        os.close(open_gate(fifo))
        assert [b"two"] == [event["PayloadPart"]["Bytes"] for event in events]
        assert "InService" == cloud.settled(sagemaker, "e")["EndpointStatus"]


def test_a_worker_holds_so_many_streams_and_no_more(tmp_path: Path) -> None:
    """One more is refused for now, and plain calls go on; when one has gone there is room."""
    with _serve(tmp_path, "told", SERVING_MAX_QUEUE="1024") as running, ExitStack() as stack:
        body = json.dumps({"parts": [100_000], "times": 100}).encode()
        path = "/endpoints/told/invocations-response-stream"
        held = [stack.enter_context(Raw(running.url, receive_buffer=4096)) for _ in range(128)]
        for raw in held:
            raw.send(request(path, body))
            assert b"HTTP/1.1 200 OK" == raw._line()
        with Raw(running.url) as one_more:
            answer = one_more.ask(request(path, body))
            assert (429, "ThrottlingException") == (answer.status, answer.headers["x-amzn-errortype"])
            assert 200 == one_more.ask(request("/endpoints/told/invocations", b'{"whole": "w"}')).status
            held[0].sock.close()
            running.eventually(lambda: 127 >= streaming(running))
            assert [b"a"] == parts(ask(running, parts=["a"]))
        client(running).close()


def test_a_server_that_ends_says_so_in_the_stream(tmp_path: Path) -> None:
    """What is accepted is finished, a stream as far as there is time; then it ends cleanly."""
    with _serve(tmp_path, "told", SERVING_DRAIN_SECONDS="1") as running, Raw(running.url) as raw:
        body = json.dumps({"parts": ["one", {"sleep": 0.05}], "times": 10_000}).encode()
        raw.send(request("/endpoints/told/invocations-response-stream", body))
        assert b"HTTP/1.1 200 OK" == raw._line()
        raw._have = b"HTTP/1.1 200 OK\r\n" + raw._have
        running.process.send_signal(signal.SIGTERM)
        headers, fields = end_of(streamed(raw)[1])
        assert "InternalStreamFailure" == headers[":exception-type"]
        assert "shutting down" in fields["Message"]
        assert 0 == running.process.wait(30)
