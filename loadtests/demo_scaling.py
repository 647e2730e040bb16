"""``python -m loadtests.demo scaling``: capacity follows a ramp of Locust's, from one user to as many as it is given.

At the server's default settings, by AWS's own operations: target tracking on the calls in flight for each worker. The
model waits 50 ms for each call without using the processor, as one on an accelerator does, so that two cores are
enough for eight workers. The load climbs, stays, goes, and comes back all at once; beside it an XGBoost model that was
scaled to zero is called. Every call is written down, the workers are looked at ten times a second, and a chart is made
of both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import yaml

from loadtests import figures, scrape
from loadtests.processes import ROOT, Answer, Running, call, our_server, python
from serving.scaling import charting
from serving.scaling.charting import Chart, Panel, Series

RAMP, ZERO = "ramp", "from-zero"
SERVICE_SECONDS = 0.05
#: Calls a second of one user.
PER_USER = 2.0
#: Calls in flight for each worker: one that runs, and three that wait their 50 ms.
TARGET, MOST = 4.0, 8
_LOOK_SECONDS = 0.1
#: A high-resolution metric's, at the server's default of 5 s.
_PERIOD_SECONDS = 5 / 6
_GAUGES: Sequence[tuple[str, Mapping[str, str]]] = (
    ("sagemaker_workers", {"state": "READY"}),
    ("sagemaker_concurrent_requests", {}),
)
_MODEL = f"""\
import time


def transform_fn(model, body, content_type, accept):
    time.sleep({SERVICE_SECONDS})  # what an accelerator would take, for which the processor only waits
    return body, "text/plain"
"""


class Call(NamedTuple):
    """A call of Locust's: epoch seconds, seconds, HTTP status."""

    sent: float
    took: float
    status: int


class Look(NamedTuple):
    """Ready workers and calls in flight at a moment, in epoch seconds."""

    at: float
    ready: int
    in_flight: int


class Plan(NamedTuple):
    """How long each part takes, in seconds, and the users at the top."""

    climb: float
    stay: float
    rest: float
    burst: float
    users: int

    def points(self) -> list[tuple[float, int]]:
        """(seconds, users), to go between. Nobody calls while it rests."""
        ends = [10.0, 10 + self.climb, 10 + self.climb + self.stay]
        back = ends[-1] + self.rest
        return [
            (0, 1), (ends[0], 1), (ends[1], self.users), (ends[2], self.users), (ends[2] + 0.5, 0),
            (back, 0), (back + 0.1, self.users), (back + self.burst, self.users),
        ]  # fmt: skip


class Found(NamedTuple):
    """What the demonstration came to; times in seconds. None: it did not come."""

    second: float | None
    burst: float | None
    back: float | None
    changes: int
    failed: int
    calls: int
    from_zero: float


# --- the server -------------------------------------------------------------------------------------------------------


def declared(folder: Path, xgboost: Path) -> Path:
    """Both endpoints, as ``serving up --config`` takes them."""
    (folder / "model").mkdir()
    (folder / "model" / "inference.py").write_text(_MODEL)
    urls = {RAMP: str(folder / "model"), ZERO: str(xgboost)}
    document = {
        "Models": [{"ModelName": name, "PrimaryContainer": {"ModelDataUrl": url}} for name, url in urls.items()],
        "EndpointConfigs": [
            {
                "EndpointConfigName": name,
                "ProductionVariants": [{"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1}],
            }
            for name in urls
        ],
        "Endpoints": [{"EndpointName": name, "EndpointConfigName": name} for name in urls],
    }
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def client(server: Running, service: str) -> Any:
    """Unmodified boto3."""
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{server.port}",
        region_name="us-east-1",
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
    )


def follow(server: Running) -> None:
    """Register what is scaled, and how; the other endpoint goes to zero."""
    scaling = client(server, "application-autoscaling")
    for endpoint, least, most in ((RAMP, 1, MOST), (ZERO, 0, 1)):
        key = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }
        scaling.register_scalable_target(**key, MinCapacity=least, MaxCapacity=most)
        metric = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        scaling.put_scaling_policy(
            **key,
            PolicyName="calls-in-flight",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": TARGET,
                "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
            },
        )


def ready(server: Running, endpoint: str) -> int:
    """Its ready workers now."""
    (name, labels), _ = _GAUGES
    return int(scrape.metric(server.port, name, {"endpoint": endpoint, **labels}))


@contextmanager
def looking(server: Running) -> Iterator[list[Look]]:
    """Looks at the ramp's workers, ten a second, for the length of the ``with``."""
    looks: list[Look] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            page = call(server.port, "GET", "/metrics").body.decode()
            counts = (scrape.parse_metric(page, name, {"endpoint": RAMP, **more}) for name, more in _GAUGES)
            looks.append(Look(time.time(), *map(int, counts)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join(10)


def drive(server: Running, plan: Plan, folder: Path) -> list[Call]:
    """Locust, by the plan; its calls."""
    calls = folder / "calls.csv"
    command = [
        *python("locust", "-f", "loadtests/ramp_traffic.py", "--headless", "--only-summary", "--loglevel", "WARNING"),
        *(
            "--host",
            f"http://127.0.0.1:{server.port}",
            "--endpoint",
            RAMP,
            "--pace",
            str(PER_USER),
            "--steps",
            json.dumps(plan.points()),
        ),
        *("--calls", str(calls), "--exit-code-on-error", "0"),
    ]
    limit = plan.points()[-1][0] + 90
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=limit, check=False)
    if done.returncode:
        raise RuntimeError(f"locust ended: {done.stderr.decode(errors='replace')[-2000:]}")
    return read_calls(calls)


def read_calls(path: Path) -> list[Call]:
    """What ``ramp_traffic.py`` has written down, in the order in which it was sent; a last line cut short is not."""
    rows = (line.split(",") for line in path.read_text().splitlines())
    return sorted(Call(float(row[0]), float(row[1]) / 1000, int(row[2])) for row in rows if len(row) == 3)


def first_answer(server: Running, body: bytes, seconds: float) -> float:
    """Wait until the other endpoint has no worker; how long its first call takes then."""
    until = time.monotonic() + seconds
    while ready(server, ZERO):
        if time.monotonic() > until:
            raise RuntimeError("the idle endpoint was not scaled to zero")
        server.look_again(0.2)
    began = time.perf_counter()
    answer: Answer = call(server.port, "POST", f"/endpoints/{ZERO}/invocations", body, {"Content-Type": "text/csv"}, 60)
    took = time.perf_counter() - began
    if answer.status != 200:
        raise RuntimeError(f"the first call was answered with {answer.status}: {answer.body[:300]!r}")
    return took


# --- what came of it --------------------------------------------------------------------------------------------------


def exceeded(looks: Sequence[Look], since: float) -> float:
    """When, from ``since`` on, the calls in flight first were above the target in three periods of the policy's alarm
    on end: the beginning of the first. Infinite: never."""
    above: dict[int, bool] = {}
    for one in looks:
        if one.at >= since:
            period = int(one.at // _PERIOD_SECONDS)
            above[period] = above.get(period, False) or one.in_flight > TARGET * one.ready
    found = (one for one in sorted(above) if all(above.get(one + more, False) for more in range(3)))
    return next(found, float("inf")) * _PERIOD_SECONDS


def until(looks: Sequence[Look], since: float, least: int, most: int = MOST) -> float | None:
    """Seconds from ``since`` to the first look with ``least`` to ``most`` workers; None: there is none."""
    return next((one.at - since for one in looks if one.at >= since and least <= one.ready <= most), None)


def judged(calls: Sequence[Call], looks: Sequence[Look], plan: Plan, from_zero: float) -> Found:
    """The figures."""
    start = calls[0].sent
    points = [start + seconds for seconds, _ in plan.points()]
    settled = [one for one in looks if points[2] + 20 <= one.at <= points[3]]
    burst = next((one.sent for one in calls if one.sent > points[5]), points[5])
    above = exceeded(looks, start)
    return Found(
        until(looks, above, 2),
        until(looks, burst, 2),
        until(looks, points[4], 1, 1),
        sum(a.ready != b.ready for a, b in pairwise(settled)),
        sum(one.status != 200 for one in calls),
        len(calls),
        from_zero,
    )


def faults(found: Found, plan: Plan) -> list[str]:
    """The figures beside what they shall be; a sentence for each that is not."""
    allowed = max(1, round(plan.stay / 600))
    rows = [
        ("second worker after the target was exceeded", found.second, 5.0, "s"),
        ("second worker after a burst", found.burst, 1.5, "s"),
        ("back to one worker after the load", found.back, 120.0, "s"),
        (f"changes in {plan.stay:.0f} s of constant load", float(found.changes), float(allowed), ""),
        (f"failed calls of {found.calls:,}", float(found.failed), 0.0, ""),
        ("first answer from zero", found.from_zero, 0.5, "s"),
    ]
    told = []
    for what, value, limit, unit in rows:
        shown = "never" if value is None else f"{value:.2f} {unit}".strip()
        print(f"{what:<46}{shown:>10}   at most {limit:g} {unit}".rstrip())
        if value is None or value > limit:
            told.append(f"{what}: {shown}, where {limit:g} {unit}".rstrip() + " is the limit")
    return told


def chart(calls: Sequence[Call], looks: Sequence[Look], plan: Plan) -> Chart:
    """Load, workers and latency over the ramp, second by second."""
    start = calls[0].sent
    seconds = int(plan.points()[-1][0]) + 1
    by_second: list[list[float]] = [[] for _ in range(seconds)]
    for one in calls:
        by_second[min(int(one.sent - start), seconds - 1)].append(one.took * 1000)
    xs = [float(second) for second in range(seconds)]
    failed = [one.sent - start for one in calls if one.status != 200]
    times = [max(0.0, one.at - start) for one in looks]
    percentiles = [
        [figures.percentile(sorted(second), q) if second else 0.0 for second in by_second] for q in (50.0, 99.0)
    ]
    load = Series("calls", "area", "#888888", xs, [float(len(second)) for second in by_second])
    return Chart(
        f"{len(calls):,} calls, {plan.users} users at the top: capacity that follows the load",
        float(seconds),
        [
            Panel("Load", "calls a second", [load, Series("failed", "marks", "#cc2222", failed)]),
            Panel(
                "Ready workers",
                "workers",
                [Series("ready", "steps", "#1f6f8b", times, [float(o.ready) for o in looks])],
            ),
            Panel(
                "Latency",
                "ms",
                [
                    Series("p50", "line", "#3f7f4f", xs, percentiles[0]),
                    Series("p99", "line", "#b5651d", xs, percentiles[1]),
                ],
            ),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every figure is reached."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo scaling", description=__doc__)
    parser.add_argument("--users", type=int, default=50, help=f"at the top, {PER_USER:g} calls a second each")
    parser.add_argument("--climb", type=float, default=90.0, help="seconds of the ramp (default: %(default)s)")
    parser.add_argument("--stay", type=float, default=120.0, help="seconds at the top (default: %(default)s)")
    parser.add_argument("--rest", type=float, default=160.0, help="seconds without load (default: %(default)s)")
    parser.add_argument("--burst", type=float, default=20.0, help="seconds of all at once (default: %(default)s)")
    parser.add_argument("--chart", type=Path, default=Path("ramp.png"), help="a .png or .svg (default: %(default)s)")
    parser.add_argument("--artifacts", type=Path, default=ROOT / "models" / "artifacts", help="of `python -m models`")
    options = parser.parse_args(arguments)
    plan = Plan(options.climb, options.stay, options.rest, options.burst, options.users)
    card = options.artifacts / "cards" / "bench-xgboost" / "request.csv"
    with tempfile.TemporaryDirectory(prefix="demo-scaling-") as place:
        folder = Path(place)
        config = declared(folder, options.artifacts / "bench-xgboost")
        environment = {"SERVING_ALLOW_CODE": "true", "SERVING_SCALE_TO_ZERO": "true"}
        with our_server("--config", str(config), environment=environment) as server:
            follow(server)
            with looking(server) as looks:
                calls = drive(server, plan, folder)
            from_zero = first_answer(server, card.read_bytes(), plan.rest)
    charting.save(chart(calls, looks, plan), options.chart)
    print(f"chart: {options.chart}")
    told = faults(judged(calls, looks, plan, from_zero), plan)
    for fault in told:
        print(f"FAULT: {fault}")
    return 1 if told else 0
