"""From nothing to ready, and from a dead worker to a new one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from statistics import median

from loadtests.processes import Running, our_server
from loadtests.report import Figure
from loadtests.scrape import metric, worker_pids
from loadtests.workloads.base import Bench, microseconds
from loadtests.workloads.rows import MODEL, one_row_call

_STARTED = "sagemaker_worker_start_seconds"
_RESPAWN_SECONDS = 20.0


def start(bench: Bench) -> list[Figure]:
    """``serving up`` until /readyz says so, and the worker that replaces a killed one, by the server's own clock."""
    ready: list[float] = []
    workers: list[float] = []
    wrong = 0
    for number in range(bench.rounds + 1):
        with our_server(str(bench.artifacts / MODEL)) as server:
            ready.append(server.ready_seconds)
            workers.append(_replacement_seconds(server))
            wrong += one_row_call(bench).once(server.port).status != 200
        bench.say(f"  start {number + 1}: ready in {ready[-1]:.2f} s, a new worker in {workers[-1] * 1e3:.0f} ms")
    return [
        Figure("start", "serving up until ready", f"{median(ready):.2f} s", "-", median(ready), 1.5, "<=", "s",
               note=f"median of {len(ready)}; from {min(ready):.2f} to {max(ready):.2f}", failures=wrong),
        Figure("start", "new worker until ready", microseconds(median(workers) * 1e6), "-", median(workers) * 1e3,
               150.0, "<=", "ms", note="after kill -9 of the first; the server's own measure"),
    ]  # fmt: skip


def _replacement_seconds(server: Running) -> float:
    """Kill the worker; how long its successor took from the decision until it was ready."""
    count, total = metric(server.port, f"{_STARTED}_count"), metric(server.port, f"{_STARTED}_sum")
    for pid in worker_pids(server.port):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    limit = time.monotonic() + _RESPAWN_SECONDS
    while (now := metric(server.port, f"{_STARTED}_count")) <= count:
        if time.monotonic() > limit:
            raise RuntimeError(f"no new worker after {_RESPAWN_SECONDS:.0f} s:\n{server.log_tail()}")
        server.look_again()
    return (metric(server.port, f"{_STARTED}_sum") - total) / (now - count)
