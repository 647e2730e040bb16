"""HTTP by hand: bytes onto a socket and answers off it, for what no client library would send or keep apart."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

#: A script model that does what it is told, for tests that need to know when it does it.
TOLD = """
import json, os

def transform_fn(model, body, content_type, accept, context):
    order = json.loads(body)
    if "mark" in order:
        with open(order["mark"], "a") as marks:
            marks.write(order["name"] + "\\n")
    if "hold" in order:
        with open(order["hold"]) as gate:  # a FIFO: opens when the test opens it, ends when the test closes it
            gate.read()
    if "raise" in order:
        error = ValueError(order["text"])
        error.status_code = order["raise"]
        raise error
    if order.get("exit"):
        os._exit(1)
    for name, value in order.get("headers", {}).items():
        context.set_response_header(name, value)
    said = {"pid": os.getpid(), "content_type": content_type, "accept": accept, **context.request_headers}
    text = order.get("say", "x" * order["size"] if "size" in order else json.dumps(said))
    return text, order.get("type", "text/plain")
"""


class Answer(NamedTuple):
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The body, which is a JSON object."""
        parsed = json.loads(self.body)
        assert isinstance(parsed, dict)
        return parsed


class Raw:
    """One connection to a server."""

    def __init__(self, url: str, receive_buffer: int = 0) -> None:
        parts = urlsplit(url)
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(30)
        self.sock.connect((parts.hostname, parts.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._have = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()

    def send(self, *parts: bytes) -> Raw:
        """Each part in a write of its own."""
        for part in parts:
            self.sock.sendall(part)
        return self

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError(f"the connection ended after {self._have!r}")
        self._have += data

    def _line(self) -> bytes:
        while b"\r\n" not in self._have:
            self._more()
        line, _, self._have = self._have.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self._have) < size:
            self._more()
        data, self._have = self._have[:size], self._have[size:]
        return data

    def answer(self) -> Answer:
        """The next answer. Raises ``EOFError`` when the connection ends instead."""
        version, status, _ = self._line().split(b" ", 2)
        assert b"HTTP/1.1" == version
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if int(status) < 200:
            return Answer(int(status), headers, b"")
        assert "transfer-encoding" not in headers
        return Answer(int(status), headers, self._exactly(int(headers["content-length"])))

    def ask(self, data: bytes) -> Answer:
        """Send a request, read its answer."""
        return self.send(data).answer()

    def rest(self) -> bytes:
        """Everything up to the connection's end, orderly or not."""
        data, self._have = [self._have], b""
        try:
            while more := self.sock.recv(1 << 20):
                data.append(more)
        except ConnectionResetError:
            pass
        return b"".join(data)


def request(
    path: str = "/invocations",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    version: str = "1.1",
) -> bytes:
    """A well-formed request; a header given as "" is left out."""
    fields = {"Host": "localhost", "Content-Length": str(len(body)) if body or method == "POST" else ""}
    fields |= headers or {}
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    """A body in these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def told(path: str = "/endpoints/told/invocations", headers: Mapping[str, str] | None = None, **order: Any) -> bytes:
    """A request that tells the script what to do."""
    return request(path, json.dumps(order).encode(), {"Content-Type": "text/plain", **(headers or {})})


@contextmanager
def gate(path: Path) -> Iterator[Path]:
    """A FIFO for ``hold``."""
    os.mkfifo(path)
    try:
        yield path
    finally:
        path.unlink()


def open_gate(path: Path) -> int:
    """Wait until the model stands at the gate; it goes on when the returned file is closed."""
    return os.open(path, os.O_WRONLY)
