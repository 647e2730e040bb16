"""A real server for the tests of code that calls SageMaker::

    from serving import testing

    with testing.server() as s:
        s.put_object("s3://models/churn/model.tar.gz", Path("model.tar.gz"))
        s.client("sagemaker").create_model(...)
        s.client("sagemaker-runtime").invoke_endpoint(...)

It runs in a process of its own, on a free port, with a temporary data folder; nothing outlives the ``with``, nor the
test run, however that ends. Meanwhile clients that a test does not make itself find it by AWS's own environment
variables. For pytest there is the fixture ``serving_server`` (``pytest_plugin``).
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from serving.config import PREFIX, SETTINGS, borrowed_environment, did_you_mean, inherited_environment
from serving.errors import ConfigError, ServiceUnavailable
from serving.storage import parse_s3, write_atomic

#: What a client signs with; a server without keys does not look.
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}

_READY = " is ready at "
_STOP_SECONDS = 40.0  # a server drains for 30 seconds at most
_LINES_KEPT = 1000


class LocalServer:
    """A running server. ``url``: where it listens; ``folder``: its data folder; ``region``: of its ARNs."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path, region: str) -> None:
        """Nothing runs before ``start``."""
        self.url = ""
        self.folder = folder
        self.region = region
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._news = threading.Condition()
        self._ended = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which AWS's clients, in this process or another, find the server."""
        return {
            "AWS_ENDPOINT_URL_SAGEMAKER": self.url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.url,
            "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
        }

    @property
    def log(self) -> str:
        """The last lines that the server and its models have printed."""
        with self._news:
            return "\n".join(self._lines)

    def client(self, service: str = "sagemaker-runtime", **options: Any) -> Any:
        """A boto3 client for ``sagemaker-runtime`` or ``sagemaker``; ``options`` are those of ``boto3.client``. Raises
        ``ConfigError`` when boto3 is not installed."""
        try:
            import boto3
        except ImportError:
            raise ConfigError("A client needs boto3: pip install boto3.") from None
        usual = {"endpoint_url": self.url, "region_name": self.region, **CREDENTIALS}
        return boto3.client(service, **{**usual, **options})

    def put_object(self, uri: str, content: bytes | str | Path) -> str:
        """Put an artifact into the server's object store, under ``s3://bucket/key``: bytes, text, or the file or whole
        folder at a path. Returns the URI, for ``ModelDataUrl``. Raises ``ServingError`` for what is no such URI."""
        if not uri.startswith("s3://"):
            raise ConfigError(f"{uri!r} is no object's URI; expected s3://bucket/key.")
        bucket, key = parse_s3(uri)
        place = self.folder / "s3" / bucket / key
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path) and content.is_dir():
            shutil.copytree(content, place, dirs_exist_ok=True)
            return uri
        if isinstance(content, Path):
            content = content.read_bytes()
        write_atomic(place, content.encode() if isinstance(content, str) else content)
        return uri

    def start(self, seconds: float = 60.0) -> None:
        """Start it and wait until it is ready. Raises ``ServiceUnavailable`` with its last words when it does not
        become so."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,  # its end tells the server that we have ended
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader.start()
        until = time.monotonic() + seconds
        with self._news:
            while not self.url:
                if self._ended or not self._news.wait(max(0.0, until - time.monotonic())):
                    last = " / ".join(list(self._lines)[-5:]) or "it said nothing"
                    raise ServiceUnavailable(f"The server did not start: {last}")

    def _read(self) -> None:
        """Whatever is printed is read, or the server would wait for us."""
        assert self._process is not None
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            with self._news:
                self._lines.append(line)
                if not self.url and _READY in line:
                    self.url = line.partition(_READY)[2].split()[0]
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def stop(self) -> None:
        """End it: what was accepted is finished first. Harmless when it has ended, or never began."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        self._reader.join(_STOP_SECONDS)
        process.stdout.close()


@contextmanager
def server(
    *,
    models: Path | str | None = None,
    config: Path | str | None = None,
    allow_code: bool = False,
    settings: Mapping[str, object] | None = None,
    set_environment: bool = True,
    start_seconds: float = 60.0,
) -> Iterator[LocalServer]:
    """A server for the length of a ``with``.

    ``models``, ``config``: what ``serving up`` is given, an artifact or folder of them, a file of endpoints.
    ``allow_code``: load formats that are code. ``settings``: further settings by name, such as ``{"file_roots":
    [folder]}``. ``set_environment``: set the variables of ``LocalServer.environment`` meanwhile, so that clients which
    are made without a URL find the server. Raises ``ServingError`` when it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="serving-testing-"))
    given = {"port": 0, "data_dir": folder / "data", "allow_code": allow_code, **(settings or {})}
    arguments = [*([str(models)] if models else []), *(["--config", str(config)] if config else [])]
    command = [sys.executable, "-m", "serving.testing", "up", *arguments]
    environment = {**inherited_environment(without=(PREFIX,)), **_variables(given)}
    running = LocalServer(command, environment, Path(str(given["data_dir"])), str(given.get("region", "us-east-1")))
    try:
        try:
            running.start(start_seconds)
            with borrowed_environment(running.environment) if set_environment else nullcontext():
                yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _variables(given: Mapping[str, object]) -> dict[str, str]:
    """Settings by name as the variables that a server reads. Raises ``ConfigError`` for a name that is none."""
    rows = {row.name: row.env for row in SETTINGS}
    for name in given:
        if name not in rows:
            raise ConfigError(f"There is no setting {name!r}{did_you_mean(name, rows)}.")
    return {rows[name]: _text(value) for name, value in given.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _end_with_parent() -> None:
    """Whoever started us holds the other end of our standard input, whether or not it gets to close it."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("serving", run_name="__main__", alter_sys=True)
