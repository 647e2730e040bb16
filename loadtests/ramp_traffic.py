"""Locust's part of ``python -m loadtests.demo scaling``: more and more users, then none, then many at once.

Each user makes a call, waits for the answer, and makes its next one when its time has come. Every call is written down:
when it was sent (epoch seconds), how long it took (ms), and its status, so that the report can be made of calls and not
of averages.
"""

from __future__ import annotations

import json
import time
from typing import IO, Any

from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser


def add_options(parser: LocustArgumentParser) -> None:
    """What is sent where, and when how many users there are."""
    parser.add_argument("--endpoint", type=str, default="", help="name of the endpoint")
    parser.add_argument("--pace", type=float, default=1.0, help="calls a second of one user")
    parser.add_argument("--steps", type=str, default="[]", help="JSON: [seconds, users] from the start, to go between")
    parser.add_argument("--calls", type=str, default="", help="where every call is written down")


class Caller(FastHttpUser):
    """Calls at a steady pace, as long as they are answered in time."""

    network_timeout = connection_timeout = 60.0
    calls: IO[str] | None = None

    def wait_time(self) -> float:
        """Seconds until the next call is due."""
        return float(constant_throughput(self.environment.parsed_options.pace)(self))

    @task
    def call(self) -> None:
        """One call, written down."""
        options: Any = self.environment.parsed_options
        sent = time.time()
        with self.client.post(
            f"/endpoints/{options.endpoint}/invocations", data="1", name="call", catch_response=True
        ) as response:
            status = response.status_code
            response.success() if status == 200 else response.failure(str(status))
        if Caller.calls is not None:
            Caller.calls.write(f"{sent:.4f},{(time.time() - sent) * 1000:.2f},{status}\n")


class Steps(LoadTestShape):
    """Users between the given points, as straight lines."""

    def tick(self) -> tuple[int, float] | None:
        """(users, users that come or go a second) now; None: it is over."""
        runner: Any = self.runner
        points = json.loads(runner.environment.parsed_options.steps)
        now = float(self.get_run_time())  # type: ignore[no-untyped-call]  # locust's own
        if now >= points[-1][0]:
            return None
        after = next(number for number, point in enumerate(points) if point[0] > now)
        (start, fewer), (end, more) = points[after - 1], points[after]
        users = round(fewer + (more - fewer) * (now - start) / (end - start))
        return users, 1000.0


def begin(environment: Any, **_: Any) -> None:
    """Open the list of calls."""
    Caller.calls = open(environment.parsed_options.calls, "w", buffering=1)  # noqa: PTH123, SIM115  # closed below


def end(environment: Any, **_: Any) -> None:
    """Close it."""
    if Caller.calls is not None:
        Caller.calls.close()


events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]  # locust's own
events.test_start.add_listener(begin)  # type: ignore[no-untyped-call]
events.quitting.add_listener(end)  # type: ignore[no-untyped-call]
