"""Facts about the control plane when things go wrong around it, at the worst moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import client, container, make_config, make_model, production, put_script, settled
from tests.load import Load
from tests.server import Server, serve

AT_ONCE = {"SERVING_SETTLE_SECONDS": "0"}
#: A container that adds its name, after a moment in which anything may happen.
STAGE = (
    "import time\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    time.sleep(0.05)\n"  # the model's work
    "    text = body if isinstance(body, str) else body.decode()\n"
    "    return (text + '{name}').encode(), 'text/plain'\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An empty server, whose control calls answer at once."""
    with serve(tmp_path, "--allow-code", environment=AT_ONCE) as started:
        yield started


@pytest.fixture
def sagemaker(server: Server) -> Any:
    """Its control plane."""
    return client(server)


def chain(server: Server, sagemaker: Any, name: str, *words: str) -> None:
    """A model and a configuration of containers in series."""
    stages = [container(put_script(server, f"{name}{word}", STAGE.format(name=f" {name}-{word}"))) for word in words]
    make_model(sagemaker, name, *stages)
    make_config(sagemaker, name, production(name))


def test_a_pipeline_that_is_updated_under_load_fails_no_call(server: Server, sagemaker: Any) -> None:
    """Calls between two of its containers go on in the deployment that they began in."""
    chain(server, sagemaker, "one", "a", "b")
    chain(server, sagemaker, "two", "a", "b")
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="one")
    settled(sagemaker, "e")
    with Load(server.url, 4, b"x", path="/endpoints/e/invocations") as load:
        for config in ("two", "one", "two", "one"):
            load.wait(4)
            sagemaker.update_endpoint(EndpointName="e", EndpointConfigName=config)
            assert config == settled(sagemaker, "e")["EndpointConfigName"]
    assert [] == load.failures
    assert {b"x one-a one-b", b"x two-a two-b"} == {outcome.body for outcome in load.outcomes}
