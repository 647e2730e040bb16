"""``python -m loadtests.demo rollout``: a canary with a bad model is rolled back by its alarm; a good one goes through.

The bad model loads, and fails at every call, which no start-up check can find. Its release gets a tenth of the calls;
an alarm on the errors of the new endpoint config alone brings everything back in two of its periods. Locust calls all
the time: only calls of the canary's share may fail, and those of the good release none at all.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from loadtests.demo_scaling import Call, client, read_calls
from loadtests.processes import ROOT, Running, our_server, python
from serving.scaling import charting
from serving.scaling.charting import Chart, Panel, Series

ENDPOINT, VARIANT = "release", "AllTraffic"
CANARY_PERCENT = 10
#: CloudWatch's shortest period of an alarm; two of them decide.
_ALARM_SECONDS = 10
_GOOD = 'def transform_fn(model, body, content_type, accept):\n    return b"{name}", "text/plain"\n'
_BAD = 'def transform_fn(model, body, content_type, accept):\n    raise ValueError("not what I was trained on")\n'
SOURCES = {"blue": _GOOD, "bad": _BAD, "green": _GOOD}
_LOOK_SECONDS, _PATIENCE_SECONDS = 0.1, 180.0
#: Standard deviations that chance may take the canary's share from the one promised.
_SIGMAS = 4.0


class Release(NamedTuple):
    """An update, as it went: epoch seconds from its beginning until the endpoint had settled."""

    config: str
    begun: float
    settled: float
    described: dict[str, Any]


def declared(folder: Path) -> Path:
    """One endpoint that serves ``blue``, and the configs of both releases."""
    for name, source in SOURCES.items():
        (folder / name).mkdir()
        (folder / name / "inference.py").write_text(source.format(name=name))
    document = {
        "Models": [{"ModelName": name, "PrimaryContainer": {"ModelDataUrl": str(folder / name)}} for name in SOURCES],
        "EndpointConfigs": [
            {
                "EndpointConfigName": name,
                "ProductionVariants": [{"VariantName": VARIANT, "ModelName": name, "InitialInstanceCount": 1}],
            }
            for name in SOURCES
        ],
        "Endpoints": [{"EndpointName": ENDPOINT, "EndpointConfigName": "blue"}],
    }
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def traffic(server: Running, users: int, calls: Path) -> Iterator[None]:
    """Locust for the length of the ``with``."""
    command = [
        *python("locust", "-f", "loadtests/ramp_traffic.py", "--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--host", f"http://127.0.0.1:{server.port}", "--endpoint", ENDPOINT, "--pace", "2"),
        *("--steps", json.dumps([(0, users), (3 * _PATIENCE_SECONDS, users)]), "--calls", str(calls)),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not calls.exists() or calls.stat().st_size < 1000:
            if process.poll() is not None:
                assert process.stderr is not None
                raise RuntimeError(f"locust ended: {process.stderr.read().decode(errors='replace')[-2000:]}")
            server.look_again(_LOOK_SECONDS)
        yield
    finally:
        process.terminate()
        process.wait(30)


def alarm(server: Running, config: str) -> str:
    """An alarm on the errors of the side that this config is; its name."""
    name = f"errors-of-{config}"
    pairs = {"EndpointName": ENDPOINT, "VariantName": VARIANT, "EndpointConfigName": config}
    client(server, "cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": key, "Value": value} for key, value in pairs.items()],
        Statistic="Average",
        Period=_ALARM_SECONDS,
        EvaluationPeriods=2,
        Threshold=0.05,
        ComparisonOperator="GreaterThanThreshold",
    )
    return name


def release(server: Running, config: str, bake: int, began: float) -> Release:
    """Update the endpoint by a canary; tell its states as they change, until it has settled."""
    sagemaker = client(server, "sagemaker")
    begun = time.time()
    sagemaker.update_endpoint(
        EndpointName=ENDPOINT,
        EndpointConfigName=config,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "CANARY",
                    "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": CANARY_PERCENT},
                    "WaitIntervalInSeconds": bake,
                },
                "MaximumExecutionTimeoutInSeconds": 600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm(server, config)}]},
        },
    )
    shown = ""
    while time.time() < begun + _PATIENCE_SECONDS:
        described = sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        if (words := _words(described)) != shown:
            print(f"{time.time() - began:6.1f} s  {words}", flush=True)
            shown = words
        if described["EndpointStatus"] == "InService":
            return Release(config, begun, time.time(), described)
        server.look_again(_LOOK_SECONDS)
    raise RuntimeError(f"the update to {config} has not settled in {_PATIENCE_SECONDS:.0f} s: {shown}")


def _words(described: dict[str, Any]) -> str:
    """An endpoint's state in a line."""
    pending = described.get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
    texts = [
        status.get("StatusMessage") or status["Status"] for one in pending for status in one.get("VariantStatus", ())
    ]
    reason = [described["FailureReason"]] if "FailureReason" in described else []
    return "  ".join([described["EndpointStatus"], described["EndpointConfigName"], *texts, *reason])


def faults(calls: Sequence[Call], bad: Release, good: Release) -> list[str]:
    """What was not as it should have been; what was is told."""
    meanwhile = [one for one in calls if bad.begun <= one.sent <= bad.settled]
    failed = [one for one in calls if one.status != 200]
    elsewhere = [one for one in failed if not bad.begun <= one.sent <= bad.settled]
    of_canary = len(failed) - len(elsewhere)
    share = CANARY_PERCENT / 100
    allowed = len(meanwhile) * share + _SIGMAS * math.sqrt(len(meanwhile) * share * (1 - share))
    print(
        f"{len(calls):,} calls; {len(failed)} failed, {of_canary} of the {len(meanwhile):,} while the bad release was "
        f"on its way ({bad.settled - bad.begun:.0f} s): at most {allowed:.0f} are the canary's share"
    )
    told = []
    if bad.described["EndpointConfigName"] != "blue" or "FailureReason" not in bad.described:
        told.append(f"the bad release was not rolled back: {_words(bad.described)}")
    if good.described["EndpointConfigName"] != good.config:
        told.append(f"the good release did not go through: {_words(good.described)}")
    if not failed:
        told.append("the canary got no call: nothing was shown")
    if of_canary > allowed:
        told.append("more calls failed than the canary's share")
    if elsewhere:
        told.append(f"{len(elsewhere)} calls failed while the bad release was not on its way: {elsewhere[0]}")
    return told


def chart(calls: Sequence[Call], releases: Sequence[Release]) -> Chart:
    """Answered and failed calls second by second, and when each release began and was settled."""
    start = calls[0].sent
    seconds = int(calls[-1].sent - start) + 1
    counts = {True: [0.0] * seconds, False: [0.0] * seconds}
    for one in calls:
        counts[one.status == 200][int(one.sent - start)] += 1
    xs = [float(second) for second in range(seconds)]
    moments = [at - start for one in releases for at in (one.begun, one.settled)]
    series = (
        Series("answered", "area", "#888888", xs, counts[True]),
        Series("failed", "steps", "#cc2222", xs, counts[False]),
        Series("a release begins, has settled", "marks", "#1f6f8b", moments),
    )
    return Chart(
        "A bad canary is rolled back by its alarm, a good one goes through",
        float(seconds),
        [Panel("Calls", "calls a second", series)],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the bad release was rolled back, the good one went through, and no other call failed."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo rollout", description=__doc__)
    parser.add_argument("--users", type=int, default=20, help="two calls a second each (default: %(default)s)")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="a .png or .svg of the calls")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="demo-rollout-") as place:
        folder = Path(place)
        path = folder / "calls.csv"
        environment = {"SERVING_ALLOW_CODE": "true"}
        with (
            our_server("--config", str(declared(folder)), environment=environment) as server,
            traffic(server, options.users, path),
        ):
            began = time.time()
            bad = release(server, "bad", 90, began)
            good = release(server, "green", 25, began)
            server.look_again(2.0)
        calls = read_calls(path)
    if options.chart:
        charting.save(chart(calls, [bad, good]), options.chart)
        print(f"chart: {options.chart}")
    told = faults(calls, bad, good)
    for fault in told:
        print(f"FAULT: {fault}")
    return 1 if told else 0
