"""A single row to each built-in algorithm of rows, beside what the library that runs its model takes in process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

from loadtests.client import request_bytes
from loadtests.families import Asked, trained
from loadtests.latency import library_call, p50_of, p50_over_http
from loadtests.processes import our_server
from loadtests.report import Figure
from loadtests.workloads.base import Bench, microseconds

#: Those whose artifact is a model of rows: the bench trains them.
ARRAYS = ("linear-learner", "xgboost", "lightgbm", "knn", "factorization-machines", "kmeans", "pca")
_MICROSECONDS = 300.0


def gallery_latency(bench: Bench) -> list[Figure]:
    """For each family its own server and the library in turns: what the server takes above twice the library's call."""
    figures = []
    for one in trained(bench.artifacts):
        call = library_call(bench.artifacts / one.family, one.body, one.content_type)
        if call is not None:
            figures.append(_figure(bench, one, call))
    if not figures:
        raise RuntimeError("no family is trained: python -m models train")
    return figures


def _figure(bench: Bench, one: Asked, call: Callable[[], object]) -> Figure:
    request = request_bytes("/invocations", one.body, one.headers)
    ours: list[float] = []
    own: list[float] = []
    with our_server(str(_served(bench.artifacts / one.family))) as server:
        for _ in range(bench.rounds):
            ours.append(p50_over_http(server.port, request, bench.seconds / 2))
            own.append(p50_of(call, bench.seconds / 4))
    served, library = median(ours), median(own)
    bench.say(f"  {one.family}: {served:,.0f} µs, library {library:,.0f} µs")
    return Figure(
        f"gallery: {one.family}", "p50 of a row above 2 x the library's call", microseconds(served),
        microseconds(library), served - 2 * library, _MICROSECONDS, "<=", "µs",
    )  # fmt: skip


def _served(artifact: Path) -> Path:
    """What ``serving up`` is given: the folder, or the archive that lies alone in it."""
    archive = artifact / "model.tar.gz"
    return archive if archive.is_file() else artifact
