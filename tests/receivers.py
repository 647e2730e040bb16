"""A receiver of notifications on loopback, over http or https, that behaves as its paths say."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple


class Received(NamedTuple):
    """One request: its path, headers and body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The notification's."""
        return self.headers["Idempotency-Key"]

    @property
    def message(self) -> Any:
        """The notification itself."""
        return json.loads(self.body)


class Receiver:
    """A running receiver. ``answers``: path -> status, or what to do instead with the bare connection; others: 200.
    ``release`` ends what hangs."""

    def __init__(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.answers: dict[str, int | Callable[[Any], None]] = {}
        self.release = threading.Event()
        self._came = threading.Condition()
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer((address, 0), handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self.place = f"{address}:{self.port}"
        self.url = f"http://{self.place}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def note(self, request: Received) -> None:
        """It has come."""
        with self._came:
            self.received.append(request)
            self._came.notify_all()

    def wait(self, number: int, seconds: float = 30.0) -> list[Received]:
        """Everything received, once it is so many."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.received) >= number, seconds), self.received
            return list(self.received)


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Note it, then answer as the path says."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.receiver.note(Received(self.path, dict(self.headers.items()), body))
        answer = self.receiver.answers.get(self.path.partition("?")[0], 200)
        if callable(answer):
            self.close_connection = True
            with suppress(OSError):
                answer(self)
            return
        self.send_response(answer)
        if 300 <= answer < 400:
            self.send_header("Location", f"{self.receiver.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def hang(handler: Any) -> None:
    """No answer until the test lets go."""
    handler.receiver.release.wait(60)


def says(data: bytes) -> Callable[[Any], None]:
    """These bytes, and the end."""

    def answer(handler: Any) -> None:
        handler.wfile.write(data)

    return answer


def drip(handler: Any) -> None:
    """A header without end, slowly."""
    handler.wfile.write(b"HTTP/1.1 ")
    while not handler.receiver.release.wait(0.02):
        handler.wfile.write(b"2")


def in_turn(*answers: int) -> Callable[[Any], None]:
    """One status after the other, the last for good."""
    left = list(answers)

    def answer(handler: Any) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        handler.wfile.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())

    return answer


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS with a certificate for ``name`` that it signed itself, and that certificate's file."""
    key, file = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context, file


@contextmanager
def receivers(number: int) -> Iterator[list[Receiver]]:
    """Several, each with a port of its own."""
    all_of_them = [Receiver().__enter__() for _ in range(number)]
    try:
        yield all_of_them
    finally:
        for one in all_of_them:
            one.__exit__()
