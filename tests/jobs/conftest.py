"""What the jobs' tests share: one real S3 server, and a queue on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.jobs.queue import Queue
from tests.objects import S3Server, s3_server
from tests.postgres import Postgres, postgres
from tests.queues import DATABASES, Hands, opened, url_of


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server, started once."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """PostgreSQL, for the length of this file."""
    with postgres() as running:
        yield running


@pytest.fixture
def hands() -> Hands:
    """The hands of the queue's clock."""
    return Hands()


@pytest.fixture(params=DATABASES)
def queue(request: pytest.FixtureRequest, tmp_path: Path, hands: Hands) -> Iterator[Queue]:
    """An empty queue, on each database in turn."""
    with opened(url_of(request, request.param, tmp_path), hands) as queue:
        yield queue
