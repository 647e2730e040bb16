"""Servers of calls that are answered later, for tests: an asynchronous endpoint beside a plain one, both of a script
that does what it is told (``raw.TOLD``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.raw import TOLD
from tests.server import Server, declare, script_model, variant

OUTPUT, FAILURE = "s3://results/out", "s3://results/failed"
CALLS = "/endpoints/later/async-invocations"


def declared(folder: Path, concurrency: int = 1, **output: Any) -> str:
    """A file that declares the endpoints ``later`` and ``plain``. ``concurrency``: of ``later``, calls at a time;
    ``output``: more of its OutputConfig."""
    script_model(folder / "told", TOLD)
    endpoints = {"later": [variant("told")], "plain": [variant("told")]}
    path = declare(folder / "endpoints.yaml", endpoints, {"told": {"ModelDataUrl": str(folder / "told")}})
    document = yaml.safe_load(path.read_text())
    document["EndpointConfigs"][0]["AsyncInferenceConfig"] = {
        "OutputConfig": {"S3OutputPath": OUTPUT, "S3FailurePath": FAILURE, **output},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": concurrency},
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def order(**told: Any) -> bytes:
    """A body that tells the script what to do."""
    return json.dumps(told).encode()


def submit(client: httpx.Client, body: bytes = b"{}", **headers: str) -> str:
    """Have a call of ``later`` accepted. ``headers``: with underscores for hyphens. Returns where it is to be seen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(CALLS, content=body, headers=named)
    assert 202 == answer.status_code, answer.text
    return answer.headers["location"]


def status(client: httpx.Client, location: str, wait: float = 0) -> dict[str, Any]:
    """How a call stands; with ``wait``, when it has ended or after so many seconds."""
    answer = client.get(location, params={"wait": f"{wait:g}"} if wait else None)
    assert 200 == answer.status_code, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ended(client: httpx.Client, location: str, seconds: float = 60) -> dict[str, Any]:
    """The same once it has ended."""
    found = status(client, location, seconds)
    assert found["Status"] not in ("Queued", "InProgress"), found
    return found


def stored(server: Server, url: str) -> bytes:
    """The content of an object in the server's local store."""
    return (server.data_dir / "s3" / url.removeprefix("s3://")).read_bytes()
