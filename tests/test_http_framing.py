"""The connection itself, byte by byte: order, framing, limits, time, and clients that behave badly."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.raw import TOLD, Answer, Raw, chunked, gate, open_gate, request, told
from tests.server import Server, declare, serve, variant
from tests.toys import COLUMNS, write_script_model, write_sum_model

LIMIT = 6_291_456
SMALL = 100_000


def _endpoints(folder: Path) -> str:
    """``default`` sums its columns, ``told`` does what it is told."""
    write_sum_model(folder / "sum.onnx")
    write_script_model(folder / "told", TOLD)
    models = {"sum": {"ModelDataUrl": "sum.onnx"}, "told": {"ModelDataUrl": "told"}}
    return str(declare(folder / "e.yaml", {"default": [variant("sum")], "told": [variant("told")]}, models))


@pytest.fixture(scope="module", params=["fast", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, by either door."""
    folder = tmp_path_factory.mktemp("framing")
    environment = {"SERVING_FAST_PATH": str(request.param == "fast"), "SERVING_LOG_LEVEL": "warning"}
    with serve(folder, "--config", _endpoints(folder), "--allow-code", environment=environment) as running:
        yield running
        assert running.endpoints()["default"]["ProductionVariants"][0]["Workers"][0]["State"] == "READY"
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little patience and little room."""
    folder = tmp_path_factory.mktemp("strict")
    environment = {
        "SERVING_RECEIVE_TIMEOUT_SECONDS": "1",
        "SERVING_MAX_CONNECTIONS": "12",
        "SERVING_MAX_BODY": str(SMALL),
        "SERVING_LOG_LEVEL": "warning",
    }
    with serve(folder, "--config", _endpoints(folder), "--allow-code", environment=environment) as running:
        yield running
        assert "Traceback" not in running.log


def row(value: int) -> bytes:
    """A row whose sum is ``COLUMNS * value``."""
    return ",".join([str(value)] * COLUMNS).encode()


def summed(value: int = 1, **headers: str) -> bytes:
    """A request for that sum."""
    return request(body=row(value), headers={"Content-Type": "text/csv", **headers})


def is_sum(answer: Answer, value: int = 1) -> bool:
    """Whether it is that sum's answer."""
    return (200, b'{"predictions":[[%d.0]]}' % (COLUMNS * value)) == (answer.status, answer.body)


def refused(answer: Answer) -> tuple[int, str]:
    """Status and code of a refusal, after a look at what every refusal has."""
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-amzn-requestid"])
    assert "application/json" == answer.headers["content-type"]
    assert answer.fields["Message"]
    assert answer.fields["__type"] == answer.headers["x-amzn-errortype"]
    return answer.status, answer.fields["__type"]


# --- order ----------------------------------------------------------------------------------------------------------

KINDS = {
    "sum": (lambda n: summed(n), lambda answer, n: is_sum(answer, n)),
    "ping": (lambda n: request("/ping", method="GET"), lambda answer, n: (200, b"") == (answer.status, answer.body)),
    "unknown": (
        lambda n: request(f"/endpoints/e{n}/invocations"),
        lambda answer, n: f"Endpoint e{n} of account 123456789012 not found." == answer.fields["Message"],
    ),
    "chunked": (
        lambda n: (
            request(headers={"Transfer-Encoding": "chunked", "Content-Length": ""}) + chunked(row(n)[:7], row(n)[7:])
        ),
        lambda answer, n: is_sum(answer, n),
    ),
}


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=3)), ids="-".join)
def test_pipelined_requests_are_answered_in_order(server: Server, kinds: tuple[str, ...]) -> None:
    """Whoever answers, and however fast: the first asked is the first answered."""
    with Raw(server.url) as raw:
        raw.send(b"".join(KINDS[kind][0](n) for n, kind in enumerate(kinds, 1)))
        for n, kind in enumerate(kinds, 1):
            assert KINDS[kind][1](raw.answer(), n)
        assert is_sum(raw.ask(summed(9)), 9)


def test_a_slow_first_answer_holds_the_others_back(server: Server, tmp_path: Path) -> None:
    """What has long been answered behind it waits for its turn, and so does the leave to send a body."""
    with gate(tmp_path / "gate") as path, Raw(server.url) as raw:
        raw.send(told(hold=str(path), say="first"), summed(2), KINDS["ping"][0](0), KINDS["unknown"][0](4))
        body = row(5)
        raw.send(request(headers={"Expect": "100-continue", "Content-Length": str(len(body))}))
        os.close(open_gate(path))
        assert b"first" == raw.answer().body
        assert is_sum(raw.answer(), 2)
        assert 200 == raw.answer().status
        assert 400 == raw.answer().status
        assert 100 == raw.answer().status
        assert is_sum(raw.ask(body), 5)


def test_many_requests_wait_behind_a_slow_one(server: Server, tmp_path: Path) -> None:
    """Two hundred refusals, each given at once when its turn comes."""
    with gate(tmp_path / "gate") as path, Raw(server.url) as raw:
        raw.send(told(hold=str(path)) + b"".join(KINDS["unknown"][0](n) for n in range(200)) + summed(3))
        os.close(open_gate(path))
        assert 200 == raw.answer().status
        for n in range(200):
            assert KINDS["unknown"][1](raw.answer(), n)
        assert is_sum(raw.answer(), 3)


@pytest.mark.parametrize(
    "kinds", [("ping",), ("unknown",), ("sum",), ("ping", "sum", "unknown", "chunked")], ids="-".join
)
def test_a_flood_of_requests_is_answered_one_by_one(server: Server, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """Two thousand behind a slow one, in one write: as many are kept as there is room for, and none is lost."""
    asked = list(zip(itertools.cycle(kinds), range(2000), strict=False))
    with gate(tmp_path / "gate") as path, Raw(server.url) as raw:
        raw.send(told(hold=str(path)) + b"".join(KINDS[kind][0](n) for kind, n in asked))
        os.close(open_gate(path))
        assert 200 == raw.answer().status
        for kind, n in asked:
            assert KINDS[kind][1](raw.answer(), n)
        assert is_sum(raw.ask(summed(5)), 5)


def test_a_call_is_answered_before_the_garbage_behind_it_is_refused(server: Server) -> None:
    """The good request is answered, the bad one refused, in this order."""
    with Raw(server.url) as raw:
        raw.send(summed(2) + b"\x00\x01\x02 not http\r\n\r\n")
        assert is_sum(raw.answer(), 2)
        assert (400, "ValidationError") == refused(raw.answer())
        assert b"" == raw.rest()


def test_a_head_is_never_taken_for_another_that_came_before_it(server: Server) -> None:
    """Two calls at once, then a control request of the second's size: it is not answered as that call, now or later."""
    body = row(7)
    control = request("/", body, {"Content-Type": "text/csv"})
    for _ in range(3):
        with Raw(server.url) as raw:
            raw.send(summed(6) + summed(7))
            assert is_sum(raw.answer(), 6)
            assert is_sum(raw.answer(), 7)
            assert "UnknownOperationException" == raw.ask(control).fields["__type"]
        with Raw(server.url) as raw:
            assert "UnknownOperationException" == raw.ask(control).fields["__type"]


def test_nothing_is_answered_after_the_request_that_was_to_be_the_last(server: Server, tmp_path: Path) -> None:
    """``Connection: close`` ends the connection, whatever was sent after it, and that is not carried out."""
    marks = tmp_path / "marks"
    with Raw(server.url) as raw:
        raw.send(
            KINDS["unknown"][0](1).replace(b"Host", b"Connection: close\r\nHost") + told(mark=str(marks), name="x")
        )
        answer = raw.answer()
        assert (400, "close") == (answer.status, answer.headers["connection"])
        assert b"" == raw.rest()
    with Raw(server.url) as raw:
        assert 200 == raw.ask(told(mark=str(marks), name="y")).status
    assert "y\n" == marks.read_text()


# --- the forms a request may have -------------------------------------------------------------------------------------

FORMS = {
    "length": lambda: summed(3),
    "chunked": lambda: KINDS["chunked"][0](3),
    "asgi": lambda: request("/endpoints/default", method="GET"),
    "refused": lambda: request("/endpoints/none/invocations", b"1,2"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_request_split_anywhere_gets_the_same_answer(server: Server, form: str) -> None:
    """In two writes, at every byte, and in as many writes as it has bytes."""
    data = FORMS[form]()

    def essence(answer: Answer) -> tuple[int, set[str], bytes]:
        return answer.status, {*answer.headers}, answer.body

    with Raw(server.url) as raw:
        expected = essence(raw.ask(data))
        for at in range(1, len(data)):
            raw.send(data[:at], data[at:])
            assert expected == essence(raw.answer())
        raw.send(*(data[at : at + 1] for at in range(len(data))))
        assert expected == essence(raw.answer())


@pytest.mark.parametrize(
    "body",
    [
        chunked(row(3)),
        chunked(*(row(3)[at : at + 1] for at in range(len(row(3))))),
        b'%x;a=b;c="d"\r\n%b\r\n0;e\r\n\r\n' % (len(row(3)), row(3)),
        b"%x\r\n%b\r\n0\r\nTrailer: of no meaning\r\n\r\n" % (len(row(3)), row(3)),
        b"%x\r\n%b\r\n0\r\nX-Amzn-SageMaker-Target-Model: m\r\nHost: b\r\nContent-Type: a/b\r\n\r\n"
        % (len(row(3)), row(3)),
    ],
    ids=["whole", "single bytes", "extensions", "trailer", "trailers named like headers"],
)
def test_a_chunked_body_is_read(server: Server, body: bytes) -> None:
    """Chunk extensions and trailers mean nothing; the next request is where it should be."""
    head = request(headers={"Transfer-Encoding": "chunked", "Content-Length": "", "Content-Type": "text/csv"})
    with Raw(server.url) as raw:
        assert is_sum(raw.ask(head + body), 3)
        assert is_sum(raw.ask(summed(4)), 4)


@pytest.mark.parametrize("path", ["/invocations", "/endpoints/default/invocations", "/models"])
def test_a_client_that_asks_first_is_told_to_go_on(server: Server, path: str) -> None:
    """Expect: 100-continue, on either kind of route (stock boto3 and curl send it)."""
    body = row(3)
    head = request(path, headers={"Expect": "100-Continue", "Content-Length": str(len(body))})
    with Raw(server.url) as raw:
        assert 100 == raw.ask(head).status
        assert (200 if path != "/models" else 400) == raw.ask(body).status
        assert is_sum(raw.ask(summed(4)), 4)


def test_a_client_that_asks_first_is_told_when_its_body_is_too_large(server: Server) -> None:
    """413 instead of 100: the body is never sent."""
    with Raw(server.url) as raw:
        answer = raw.ask(request(headers={"Expect": "100-continue", "Content-Length": str(LIMIT + 1)}))
        assert (413, "ValidationError") == refused(answer)


def test_http_1_0_is_answered_without_host_and_then_closed(server: Server) -> None:
    """As old clients and health checkers expect; and nothing informational is sent to them."""
    with Raw(server.url) as raw:
        answer = raw.ask(request(body=row(3), headers={"Host": "", "Expect": "100-continue"}, version="1.0"))
        assert is_sum(answer, 3)
        assert "close" == answer.headers["connection"]
        assert b"" == raw.rest()


@pytest.mark.parametrize(
    "data", [summed(3, Connection="close"), request("/ping", headers={"Connection": "close"}, method="GET")]
)
def test_connection_close_closes(server: Server, data: bytes) -> None:
    """And says so in the answer."""
    with Raw(server.url) as raw:
        answer = raw.ask(data)
        assert (200, "close") == (answer.status, answer.headers["connection"])
        assert b"" == raw.rest()


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_an_offer_of_another_protocol_is_passed_over(server: Server, offer: str) -> None:
    """As stock Java clients make it with every request, body and all."""
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": offer, "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    ping = request("/ping", headers=headers, method="GET")
    with Raw(server.url) as raw:
        assert is_sum(raw.ask(summed(3, **headers)), 3)
        assert 200 == raw.ask(ping).status
        raw.send(summed(4, **headers) + ping + KINDS["unknown"][0](5).replace(b"Host", b"Connection: close\r\nHost"))
        assert is_sum(raw.answer(), 4)
        assert 200 == raw.answer().status
        assert 400 == raw.answer().status
    with Raw(server.url) as raw:
        unknown = request("/endpoints/e1/invocations", headers=headers)
        raw.send(unknown * 1000)
        for _ in range(1000):
            assert KINDS["unknown"][1](raw.answer(), 1)


# --- what no server should accept -------------------------------------------------------------------------------------

H = b"Host: localhost\r\n"
POST = b"POST /invocations HTTP/1.1\r\n"
REFUSED = {
    "length and coding": (POST + H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and length": (POST + H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + H + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n1,2", 400),
    "the same length twice": (POST + H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n1,2", 400),
    "a list of lengths": (POST + H + b"Content-Length: 3, 3\r\n\r\n1,2", 400),
    "a signed length": (POST + H + b"Content-Length: +3\r\n\r\n1,2", 400),
    "a negative length": (POST + H + b"Content-Length: -3\r\n\r\n1,2", 400),
    "a length beyond counting": (POST + H + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "a length over the limit": (POST + H + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1), 413),
    "another coding": (POST + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a coding after chunked": (POST + H + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "coding twice": (POST + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a look-alike coding": (POST + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "chunked in 1.0": (b"POST /invocations HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "a compressed body": (POST + H + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n1,2", 415),
    "no host": (POST + b"Content-Length: 3\r\n\r\n1,2", 400),
    "two hosts": (POST + H + b"Host: elsewhere\r\nContent-Length: 3\r\n\r\n1,2", 400),
    "two hosts, another route": (b"GET /ping HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    "two content types": (POST + H + b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n\r\n", 400),
    "a folded header": (POST + H + b"Accept: a,\r\n b\r\nContent-Length: 3\r\n\r\n1,2", 400),
    "a space before the colon": (POST + b"Host : localhost\r\nContent-Length: 3\r\n\r\n1,2", 400),
    "a control character in a header": (POST + H + b"Accept: a\x01b\r\nContent-Length: 3\r\n\r\n1,2", 400),
    "a nul in a header": (POST + H + b"Accept: a\x00b\r\nContent-Length: 3\r\n\r\n1,2", 400),
    "bare line feeds": (b"POST /invocations HTTP/1.1\nHost: localhost\nContent-Length: 3\n\n1,2", 400),
    "a bad chunk size": (POST + H + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n", 400),
    "a chunk size beyond counting": (POST + H + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n", 400),
    "a chunk longer than it says": (POST + H + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400),
    "a bad chunk, another route": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        400,
    ),
    "a page of another site": (POST + H + b"Origin: http://elsewhere\r\nContent-Length: 3\r\n\r\n1,2", 403),
    "a page of no site": (b"DELETE /models/m HTTP/1.1\r\n" + H + b"Origin: null\r\n\r\n", 403),
    "version 2.0": (b"GET /ping HTTP/2.0\r\n" + H + b"\r\n", 505),
    "version 0.9": (b"GET /ping HTTP/0.9\r\n" + H + b"\r\n", 505),
    "no version": (b"GET /ping\r\n\r\n", 505),
    "an unknown method": (b"FROB /ping HTTP/1.1\r\n" + H + b"\r\n", 400),
    "an asterisk for a path": (b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a target without a path": (b"GET http://localhost HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a target that is no url": (b"GET http://[:: HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a tunnel": (b"CONNECT localhost:22 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a raw byte in the path": (b"GET /p\xffng HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a space in the path": (b"GET /p ng HTTP/1.1\r\n" + H + b"\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    "zeros": (bytes(100), 400),
    "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_or_not_http_is_refused_and_the_connection_ended(server: Server, name: str) -> None:
    """With a JSON error, and without a look at what follows."""
    data, status = REFUSED[name]
    with Raw(server.url) as raw:
        raw.send(data)
        answer = raw.answer()
        assert (status, "AccessDeniedException" if status == 403 else "ValidationError") == refused(answer)
        assert "close" == answer.headers["connection"]
        assert b"" == raw.rest()


def test_a_page_of_this_server_may_use_it(server: Server) -> None:
    """Its origin is the host it asks."""
    with Raw(server.url) as raw:
        assert is_sum(raw.ask(summed(3, Origin="http://LOCALHOST")), 3)
        assert is_sum(raw.ask(summed(3, Origin="https://models.example:8443", Host="models.example:8443")), 3)
        assert 200 == raw.ask(request("/ping", headers={"Origin": "http://elsewhere"}, method="GET")).status


def test_a_head_of_the_size_allowed_is_read_however_it_arrives(server: Server) -> None:
    """28 KiB of headers in four parts: none is counted twice."""
    data = summed(3, **{f"X-{n}": "a" * 1000 for n in range(28)})
    with Raw(server.url) as raw:
        for at in (len(data), 100, 9_000, 20_000):
            raw.send(data[:at], data[at : at + 500], data[at + 500 :])
            assert is_sum(raw.answer(), 3)


@pytest.mark.parametrize(
    "flood",
    [
        POST + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(4000)),
        POST + b"a:\r\n" * 9000,
        POST + H + b"Accept: " + b"a" * 100_000,
        b"POST /" + b"a" * 100_000,
        b"GET /ping?" + b"a" * 40_000 + b" HTTP/1.1\r\n" + H + b"\r\n",
    ],
    ids=["headers", "tiny headers", "a header line", "a request line", "a whole head"],
)
def test_a_head_without_end_is_refused(server: Server, flood: bytes) -> None:
    """431 as soon as the limit is passed, be it one line or many; the client may be writing still."""
    with Raw(server.url) as raw:
        half = len(flood) // 2
        raw.send(flood[:half], flood[half:], b"X: y\r\n" if b"\r\n\r\n" not in flood else b"", *[b"a" * 20_000] * 20)
        assert (431, "ValidationError") == refused(raw.answer())
        assert b"" == raw.rest()


def test_chunks_that_are_all_framing_are_refused(strict: Server) -> None:
    """An endless chunk extension, and trailers without end."""
    head = request(headers={"Transfer-Encoding": "chunked", "Content-Length": ""})
    for start, more in ((b"1;", b"e" * 10_000), (b"0\r\n", b"Trailer: x\r\n" * 1000)):
        with Raw(strict.url) as raw:
            raw.send(head, start, *[more] * 60)
            assert (400, "ValidationError") == refused(raw.answer())


@pytest.mark.parametrize("path", ["/invocations", "/endpoints/default/invocations", "/models", "/nowhere"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_over_the_limit_is_refused_in_an_answer_the_client_gets_to_see(
    server: Server, path: str, framing: str
) -> None:
    """Also by one that sends all its 7 MB before it listens."""
    body = bytes(7_000_000)
    data = request(path, body)
    if framing == "chunked":
        data = request(path, headers={"Transfer-Encoding": "chunked", "Content-Length": ""}) + chunked(body)
    with Raw(server.url) as raw:
        early = (path, framing) == ("/nowhere", "chunked")  # answered before its size is known
        assert (404 if early else 413) == refused(raw.ask(data))[0]
        assert b"" == raw.rest()


def test_a_body_of_just_the_limit_is_read(server: Server) -> None:
    """And found wanting by the model, not by the door."""
    with Raw(server.url) as raw:
        assert 400 == raw.ask(request(body=b" " * LIMIT, headers={"Content-Type": "text/csv"})).status
        assert is_sum(raw.ask(summed(3)), 3)


def test_bytes_beyond_the_declared_body_are_the_next_request(server: Server) -> None:
    """And as such no HTTP."""
    with Raw(server.url) as raw:
        raw.send(summed(3) + b",999")
        assert is_sum(raw.answer(), 3)
        raw.send(b"\r\n\r\n")
        assert (400, "ValidationError") == refused(raw.answer())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [POST, H, b"\r\n", b"\r\n\r\n", b"GET /ping HTTP/1.1\r\n", b"Content-Length: 3\r\n", b"1,2"]
            ),
            st.sampled_from(
                [b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"3\r\n1,2\r\n", b"Connection: close\r\n"]
            ),
        ),
        max_size=12,
    )
)
def test_any_bytes_are_answered_with_http_or_not_at_all(server: Server, parts: list[bytes]) -> None:
    """Never an answer of 5xx, but for a version or coding not spoken here; and the server lives."""
    with Raw(server.url) as raw:
        raw.send(b"".join(parts))
        raw.send(b"\r\n\r\nGET /ping HTTP/1.1\r\nConnection: close\r\n" + H + b"\r\n")
        raw.sock.shutdown(1)
        seen = raw.rest()
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", seen)]
    assert not [status for status in statuses if status >= 500 and status not in (501, 505)]
    with Raw(server.url) as raw:
        assert is_sum(raw.ask(summed(3)), 3)


# --- time and room ----------------------------------------------------------------------------------------------------


PARTS = {
    "a byte": b"P",
    "half a head": summed(3)[:20],
    "half a body": summed(3)[:-1],
    "half a body for another route": request("/models", b"{}" * 10)[:-1],
    "half a chunk": request(headers={"Transfer-Encoding": "chunked", "Content-Length": ""}) + b"5\r\nab",
    "half a second request": summed(3) + summed(3)[:-1],
}


def test_slow_senders_are_cut(strict: Server) -> None:
    """With a 408, after what they had asked in full is answered; a byte now and then renews nothing: the time is that
    of the whole request. Connections that are merely idle are left alone."""
    with ExitStack() as stack:
        idle, used, dripping = (stack.enter_context(Raw(strict.url)) for _ in range(3))
        assert is_sum(used.ask(summed(2)), 2)
        slow = {name: stack.enter_context(Raw(strict.url)).send(part) for name, part in PARTS.items()}
        dripping.send(request(body=b"1" * 500)[:-400])  # begun last, so the others are cut when it is
        assert (408, "ValidationError") == refused(_drip(dripping))
        assert is_sum(slow["half a second request"].answer(), 3)
        for raw in slow.values():
            assert (408, "ValidationError") == refused(raw.answer())
            assert b"" == raw.rest()
        assert is_sum(idle.ask(summed(2)), 2)
        assert is_sum(used.ask(summed(2)), 2)


def _drip(raw: Raw) -> Answer:
    """Send a byte at a time until an answer comes."""
    raw.sock.settimeout(0.05)
    for _ in range(200):
        raw.send(b"1")
        with suppress(TimeoutError):
            return raw.answer()
    raise AssertionError("it was never cut")


def test_slow_readers_are_cut(strict: Server) -> None:
    """Their answers are dropped, also an answer that was to be its connection's last."""
    size = 32 * 2**20
    with ExitStack() as stack:
        readers = [stack.enter_context(Raw(strict.url, receive_buffer=4096)) for _ in range(2)]
        for reader, headers in zip(readers, ({}, {"Connection": "close"}), strict=True):
            reader.send(told(headers=headers, size=size))
            assert b"HTTP/1.1 200" == reader.sock.recv(12)
        with Raw(strict.url) as slow:  # whose time runs out later: the readers' is over
            assert 408 == slow.ask(b"POST").status
        for reader in readers:
            assert len(reader.rest()) < size


def test_too_many_connections_are_refused_until_one_goes(strict: Server) -> None:
    """503, and the others are not disturbed; those refused do not keep others out."""
    with ExitStack() as stack:
        held = [stack.enter_context(Raw(strict.url)) for _ in range(11)]
        for one in held:
            assert is_sum(one.ask(summed(1)))
        full = [stack.enter_context(Raw(strict.url)) for _ in range(12)]
        answers = [one.answer() for one in full[1:]]
        assert {(503, "ServiceUnavailable")} == {refused(answer) for answer in answers}
        assert is_sum(full[0].ask(summed(3)), 3)
        held[0].sock.close()
        strict.eventually(lambda: _is_open(strict))
        assert is_sum(held[1].ask(summed(2)), 2)


def _is_open(server: Server) -> bool:
    with Raw(server.url) as raw:
        try:
            return is_sum(raw.ask(summed(1)))
        except (ConnectionError, EOFError):
            return False


def test_a_client_that_leaves_frees_its_slot_and_its_work_is_not_done(server: Server, tmp_path: Path) -> None:
    """The call that runs is forgotten; those that wait behind it in the worker are never run."""
    marks = tmp_path / "marks"
    with gate(tmp_path / "gate") as path:
        with ExitStack() as stack:
            running = stack.enter_context(Raw(server.url))
            running.send(told(mark=str(marks), name="running", hold=str(path)))
            end = open_gate(path)
            for n in range(3):
                waiting = stack.enter_context(Raw(server.url))
                waiting.send(told(mark=str(marks), name=f"waiting {n}"))
            server.eventually(lambda: 4 == server.metric("sagemaker_concurrent_requests", endpoint="told"))
        server.eventually(lambda: 0 == server.metric("sagemaker_concurrent_requests", endpoint="told"))
        assert "running\n" == marks.read_text()
        os.close(end)
    with Raw(server.url) as raw:
        assert b"done" == raw.ask(told(mark=str(marks), name="last", say="done")).body
    assert "running\nlast\n" == marks.read_text()


def test_a_client_that_leaves_while_it_sends_is_no_failure(server: Server) -> None:
    """Half a request and gone, on either kind of route: nothing is logged as a defect (the fixture looks)."""
    for data in (summed(3)[:-1], request("/models", json.dumps({"model_name": "m"}).encode())[:-1]):
        with Raw(server.url) as raw:
            raw.send(data)
    with Raw(server.url) as raw:
        assert is_sum(raw.ask(summed(3)), 3)


def test_an_accepted_call_and_those_behind_it_are_answered_when_the_server_stops(tmp_path: Path) -> None:
    """SIGTERM while a call runs and another waits on the same connection: both are answered, then it is closed."""
    with serve(tmp_path, "--config", _endpoints(tmp_path), "--allow-code") as running, gate(tmp_path / "gate") as path:
        with Raw(running.url) as raw:
            raw.send(told(hold=str(path), say="first") + summed(2) + request("/healthz", method="GET"))
            end = open_gate(path)
            running.process.terminate()
            running.eventually(lambda: _refuses(running))
            os.close(end)
            assert b"first" == raw.answer().body
            assert is_sum(raw.answer(), 2)
            assert b"ok" == raw.answer().body
            assert b"" == raw.rest()
        assert 0 == running.process.wait(30)


def _refuses(server: Server) -> bool:
    parts = urlsplit(server.url)
    with socket.socket() as sock:
        return sock.connect_ex((parts.hostname, parts.port)) != 0
