"""Objects of S3: what is special in a real server, and what a breaking one can do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from serving.config import Settings
from serving.errors import ObjectMissing, ObjectUnavailable
from serving.objects import LocalObjects, S3Objects, open_objects
from tests.objects import ACTS, S3Server, finished, one_try_client, spool


def test_the_settings_choose_the_store(tmp_path: Path, s3: S3Server) -> None:
    """The bucket folder of the data folder, or the store at a URL."""
    assert isinstance(open_objects(Settings(data_dir=tmp_path)), LocalObjects)
    with s3.environment():
        assert isinstance(open_objects(Settings(data_dir=tmp_path, s3=s3.url)), S3Objects)


def test_wrong_credentials_are_refused_for_good(s3: S3Server, tmp_path: Path) -> None:
    """Trying again would not help; it is no missing object either."""
    with s3.objects(tmp_path, secret="wrong") as objects:
        for act in (*ACTS, lambda objects, url: list(objects.list(url))):
            with pytest.raises(ObjectUnavailable) as caught:
                act(objects, "s3://bucket/a")
            assert not caught.value.transient


def test_a_bucket_must_be_there_to_write(s3: S3Server, tmp_path: Path) -> None:
    """Nobody makes buckets by writing; trying again would not help."""
    with s3.objects(tmp_path) as objects, pytest.raises(ObjectUnavailable, match="no such bucket") as caught:
        objects.put("s3://nobody-made-it/a", b"")
    assert not caught.value.transient


def test_the_content_type_is_kept(s3: S3Server, tmp_path: Path) -> None:
    """As the model said it."""
    with s3.objects(tmp_path, "typed") as objects:
        objects.put("s3://typed/a", b"{}", "application/json")
        objects.put("s3://typed/b", finished(objects, b"{}"), "application/json")
        found = [objects._client.head_object(Bucket="typed", Key=key)["ContentType"] for key in "ab"]
    assert ["application/json"] * 2 == found


def test_a_store_that_is_away_may_come_back(tmp_path: Path) -> None:
    """Whatever was wanted of it."""
    client = one_try_client("http://127.0.0.1:1")
    objects = S3Objects(client, tmp_path)
    file = finished(objects, b"1")
    acts = [*ACTS, lambda objects, url: list(objects.list(url)), lambda objects, url: objects.put(url, file)]
    for act in acts:
        with pytest.raises(ObjectUnavailable) as caught:
            act(objects, "s3://bucket/a")
        assert caught.value.transient
    assert b"1" == file.read_bytes()  # to be tried again


class Fragile(BaseHTTPRequestHandler):
    """An S3 server that breaks: answers come from ``answers`` in turn, as (status, code of the error)."""

    content: ClassVar[bytes]
    etag: ClassVar[list[str]]
    asked: ClassVar[list[str]]
    broken: ClassVar[list[tuple[int, str]]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Half of what was asked for, as long as ``broken`` says so; the connection ends in the middle."""
        self.asked.append(f"GET {self.headers.get('Range', '')}")
        if self.broken and self.broken[0][0] != 200:
            self._refuse(*self.broken.pop(0))
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        data = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("ETag", self.etag.pop(0) if len(self.etag) > 1 else self.etag[0])
        self.end_headers()
        if self.broken:
            self.broken.pop(0)
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    def do_PUT(self) -> None:
        """A part of an upload: taken, or what ``broken`` says."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append("PUT")
        self._refuse(*self.broken.pop(0)) if self.broken else self._answer(200, b"")

    def do_POST(self) -> None:
        """The beginning of an upload in parts."""
        self.asked.append("POST")
        self._answer(200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")

    def do_DELETE(self) -> None:
        """An upload is taken back."""
        self.asked.append(f"DELETE {self.path}")
        self._answer(204, b"")

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def fragile(
    folder: Path, broken: list[tuple[int, str]], etag: tuple[str, ...] = ('"1"',)
) -> Iterator[tuple[S3Objects, type[Fragile]]]:
    """A store that breaks, and its handler class."""
    handler = type(
        "Handler", (Fragile,), {"content": bytes(range(250)) * 40_000, "etag": [*etag], "asked": [], "broken": broken}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = one_try_client(f"http://127.0.0.1:{server.server_port}")
    try:
        yield S3Objects(client, folder), handler
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_interrupted_read_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The connection ends three times in the middle: the bytes come each once."""
    with fragile(tmp_path, [(200, "")] * 3) as (objects, handler):
        with objects.open("s3://b/a") as file:
            pieces = [file.read(1_000_000) for _ in range(11)]
        assert handler.content == b"".join(pieces)
        assert ["GET "] == handler.asked[:1]
        assert all(asked.startswith("GET bytes=") for asked in handler.asked[1:])
        assert 4 == len(handler.asked)


def test_an_interrupted_read_does_not_go_on_in_another_object(tmp_path: Path) -> None:
    """It was replaced meanwhile."""
    with (
        fragile(tmp_path, [(200, "")], etag=('"1"', '"2"')) as (objects, _),
        objects.open("s3://b/a") as file,
        pytest.raises(ObjectMissing, match="has been replaced"),
    ):
        file.read()


def test_a_read_that_gets_nowhere_is_given_up(tmp_path: Path) -> None:
    """For now: the store may recover. What was fetched so far is removed."""
    with fragile(tmp_path, [(200, ""), *[(503, "SlowDown")] * 9]) as (objects, _):
        with pytest.raises(ObjectUnavailable) as caught, objects.fetch("s3://b/a"):
            pass
        assert caught.value.transient
        assert [] == spool(objects)


PASSING = [(503, "SlowDown"), (500, "InternalError"), (429, "TooMany"), (400, "RequestTimeout")]
LASTING = [(403, "AccessDenied"), (400, "InvalidRequest"), (409, "<odd>")]


@pytest.mark.parametrize("answer", PASSING + LASTING)
def test_refusals_say_whether_they_pass(tmp_path: Path, answer: tuple[int, str]) -> None:
    """And nothing of what the store says but its code."""
    with fragile(tmp_path, [answer] * 9) as (objects, _):
        with pytest.raises(ObjectUnavailable) as caught:
            objects.put("s3://b/a", b"1")
        assert (answer in PASSING) == caught.value.transient
        assert "<" not in caught.value.message


def test_a_failed_part_takes_the_upload_back(tmp_path: Path) -> None:
    """No half of an object stays in the store, to be paid for."""
    with fragile(tmp_path, [(500, "InternalError")] * 9) as (objects, handler):
        with pytest.raises(ObjectUnavailable):
            objects.put("s3://b/a", finished(objects, bytes(9_000_000)))
        assert "DELETE /b/a?uploadId=1" == handler.asked[-1]
