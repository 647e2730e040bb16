"""Fixtures for pytest, there as soon as this package is installed::

    def test_the_model_answers(serving_server):
        runtime = boto3.client("sagemaker-runtime")  # finds the server by AWS's environment variables
        ...

One server serves all tests of a run that ask for it; what a test creates stays until the end, so names should be its
own. A project sets options for ``serving.testing.server`` by a fixture of its own::

    @pytest.fixture(scope="session")
    def serving_server_options():
        return {"allow_code": True}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from serving.config import borrowed_environment
from serving.testing import LocalServer, server


@pytest.fixture(scope="session")
def serving_server_options() -> Mapping[str, Any]:
    """The arguments of ``serving.testing.server``: none, unless a project says otherwise."""
    return {}


@pytest.fixture(scope="session")
def _serving_server_of_the_run(serving_server_options: Mapping[str, Any]) -> Iterator[LocalServer]:
    with server(**{**serving_server_options, "set_environment": False}) as running:
        yield running


@pytest.fixture
def serving_server(_serving_server_of_the_run: LocalServer) -> Iterator[LocalServer]:
    """A running server, which AWS's clients find by the environment while the test lasts."""
    with borrowed_environment(_serving_server_of_the_run.environment):
        yield _serving_server_of_the_run
