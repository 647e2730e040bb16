"""A real server for a test: started by the command users type, on a free port, ended with it."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

_READY = re.compile(r"is ready at (http://\S+)")
#: Nobody here speaks TLS, and reading the system's certificates anew for each client takes 25 ms.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Server:
    """A started ``serving up``: its URL, its processes, its log."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.url = ""
        self.lines: list[str] = []
        self.closers: list[Callable[[], None]] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def close(self) -> None:
        """After its end: close its clients, read its log to the end."""
        for close in self.closers:
            close()
        self._reader.join(10)

    @property
    def log(self) -> str:
        """Everything it has printed so far."""
        with self._news:
            return "\n".join(self.lines)

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait until a printed line matches; fails with the log when the server ends or time runs out first."""
        end, at = time.monotonic() + seconds, 0
        with self._news:
            while True:
                for line in self.lines[at:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                at = len(self.lines)
                if self._ended or not self._news.wait(end - time.monotonic()):
                    raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self.lines[-40:]))

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client for it."""
        return httpx.Client(base_url=self.url, timeout=options.pop("timeout", 30.0), verify=_NO_TLS, **options)

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """GET /endpoints, by name."""
        rows = self._get("/endpoints").json()["Endpoints"]
        return {row["EndpointName"]: row for row in rows}

    def workers(self, endpoint: str = "default") -> list[dict[str, Any]]:
        """The workers of an endpoint: WorkerId, Pid, State."""
        variants = self.endpoints()[endpoint]["ProductionVariants"]
        return [worker for variant in variants for worker in variant["Workers"]]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self._get("/metrics").text.splitlines():
            sample, _, value = line.rpartition(" ")
            if re.fullmatch(re.escape(name) + r"(\{.*\})?", sample) and all(
                f'{key}="{wanted}"' in sample for key, wanted in labels.items()
            ):
                total += float(value)
        return total

    def _get(self, path: str) -> httpx.Response:
        """On a connection of its own, which holds up no front that is to end."""
        return httpx.get(f"{self.url}{path}", timeout=30.0, verify=_NO_TLS)

    def eventually(self, fact: Callable[[], bool], seconds: float = 20.0) -> None:
        """Poll the server until ``fact`` holds: for what has no line or answer to wait for."""
        end = time.monotonic() + seconds
        pause = threading.Event()
        while not fact():
            assert time.monotonic() < end, "the server did not get there in time:\n" + self.log[-4000:]
            pause.wait(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait, return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(45)


@contextmanager
def serve(
    tmp_path: Path, *arguments: str, wait: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """``serving up --port 0 …`` for the length of a ``with``. ``wait`` False: do not wait for readiness."""
    data_dir = tmp_path / "data"
    command = [sys.executable, "-m", "serving", "up", "--port", "0", "--data-dir", str(data_dir), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})}
    )
    server = Server(process, data_dir)
    try:
        if wait:
            server.url = server.wait_for(_READY.pattern)[1]
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        server.close()


def declare(
    path: Path, endpoints: Mapping[str, list[Mapping[str, Any]]], models: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write a declared-endpoints file: ``endpoints`` = name -> production variants, ``models`` = name -> container."""
    path.write_text(
        yaml.safe_dump(
            {
                "Models": [{"ModelName": name, "PrimaryContainer": dict(body)} for name, body in models.items()],
                "EndpointConfigs": [
                    {"EndpointConfigName": name, "ProductionVariants": [dict(one) for one in variants]}
                    for name, variants in endpoints.items()
                ],
                "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in endpoints],
            }
        )
    )
    return path


def variant(model: str, name: str = "AllTraffic", count: int = 1, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    """A production variant's body."""
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": count,
        "InitialVariantWeight": weight,
        **more,
    }


def script_model(folder: Path, source: str) -> Path:
    """A script artifact: ``folder/code/inference.py``."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(source)
    return folder


def body_json(response: httpx.Response) -> dict[str, Any]:
    """A JSON answer, which every error is."""
    parsed: dict[str, Any] = json.loads(response.content)
    return parsed
