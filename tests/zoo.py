"""What tests of many models share: calls to the zoo, the container's API, what a process holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import httpx

from tests.gallery import artifacts, sample
from tests.server import Server

TARGET = "X-Amzn-SageMaker-Target-Model"
BUDGET = 4_000_000  # about fifty of the five hundred
LOADED = "sagemaker_loaded_models"
CACHE = "sagemaker_model_cache_requests_total"
EVICTED = "sagemaker_model_evictions_total"


def zoo() -> Path:
    """The folder of five hundred members."""
    return artifacts("zoo") / "zoo"


def answers() -> dict[str, float]:
    """What each member says to the one row."""
    text = (artifacts("zoo") / "cards" / "zoo" / "members.json").read_text()
    return {name: row[0] for name, row in json.loads(text).items()}


def call(client: httpx.Client, model: str, **headers: str) -> httpx.Response:
    """The one row to a model of the endpoint 'default'."""
    asked = {"Content-Type": "text/csv", TARGET: model, **headers}
    return client.post("/endpoints/default/invocations", content=sample("zoo").body, headers=asked)


def ask(client: httpx.Client, model: str, endpoint: str = "default") -> httpx.Response:
    """A text to a script model."""
    return client.post(
        f"/endpoints/{endpoint}/invocations", content=b"x", headers={"Content-Type": "text/plain", TARGET: model}
    )


def listed(client: httpx.Client) -> list[str]:
    """GET /models, all pages."""
    names: list[str] = []
    token: str | None = None
    while True:
        page = client.get("/models", params={"next_page_token": token} if token else {}).json()
        names += [model["modelName"] for model in page["models"]]
        token = page.get("nextPageToken")
        if token is None:
            return names


def unload_all(client: httpx.Client) -> None:
    """DELETE every model in memory."""
    for name in listed(client):
        assert 200 == client.delete(f"/models/{quote(name)}").status_code


def resident(pid: int) -> int:
    """Bytes of a process in physical memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def samples_of(server: Server, histogram: str) -> float:
    """How many values a histogram has seen."""
    return server.metric(f"{histogram}_count")


def number(answer: httpx.Response) -> float:
    """The answer's one number."""
    return float(answer.text)
