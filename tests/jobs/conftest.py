"""What the jobs' tests share: one real S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.objects import S3Server, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server, started once."""
    with s3_server() as server:
        yield server
