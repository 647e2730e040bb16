"""Things that go wrong under load, and what callers see of it.

``python -m loadtests.chaos kill-workers --seconds 60`` kills -9 a random worker every two seconds under 16 connections:
no call may fail. ``python -m loadtests.chaos cold-herd`` sends 200 callers at once to one cold model: it may be loaded
once. ``python -m loadtests.chaos async-kill --kills 30 --jobs 200`` kills -9 all of the server under asynchronous jobs:
each comes to one end. Exit status 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.async_kill import run as run_async_kill
from loadtests.client import ClientProcess, Count, Plan, run_plan
from loadtests.generator import Call
from loadtests.processes import ROOT, Running, exit_on_sigterm, our_server
from loadtests.scrape import metric, worker_pids
from loadtests.workloads.base import Card, is_right

_LOADS = "sagemaker_model_load_seconds_count"
_DEATHS = "sagemaker_worker_deaths_total"
_RETRIES = "sagemaker_retried_invocations_total"
_CSV = {"Content-Type": "text/csv"}
_TARGET = "X-Amzn-SageMaker-Target-Model"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial showed. ``facts`` are for the reader; ``faults`` name every broken promise."""

    trial: str
    facts: Mapping[str, Any]
    faults: tuple[str, ...]


def declaration(artifact: Path, workers: int, mode: str = "SingleModel") -> dict[str, list[dict[str, Any]]]:
    """An endpoints file, in SageMaker's bodies: one endpoint ``default`` of one variant with ``workers`` instances."""
    variant = {"VariantName": "AllTraffic", "ModelName": "model", "InitialInstanceCount": workers}
    return {
        "Models": [{"ModelName": "model", "PrimaryContainer": {"ModelDataUrl": str(artifact), "Mode": mode}}],
        "EndpointConfigs": [{"EndpointConfigName": "config", "ProductionVariants": [variant]}],
        "Endpoints": [{"EndpointName": "default", "EndpointConfigName": "config"}],
    }


@contextlib.contextmanager
def declared_server(artifact: Path, workers: int, mode: str = "SingleModel") -> Iterator[Running]:
    """Our server with one endpoint of ``workers`` instances."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        config = Path(folder) / "endpoints.json"
        config.write_text(json.dumps(declaration(artifact, workers, mode)))
        with our_server("--config", str(config)) as server:
            yield server


def kill_workers(options: argparse.Namespace) -> Outcome:
    """Kill a random worker every ``options.period`` seconds for ``options.seconds`` of load."""
    artifact, card = options.artifacts / "bench-xgboost", Card(options.artifacts, "bench-xgboost")
    call = Call("/invocations", card.body("request.csv"), _CSV)
    with declared_server(artifact, options.workers) as server:
        right_before = is_right(call.once(server.port), card.expected("request"))
        plan = Plan(server.port, (call.raw(),), options.connections, options.seconds)
        with ClientProcess(plan) as client:
            killed = _kill_while_busy(server, client, options.period, random.Random(options.seed))
            count = client.finish()
        deaths, retries = metric(server.port, _DEATHS), metric(server.port, _RETRIES)
        right_after = is_right(call.once(server.port), card.expected("request"))
    faults = _call_faults(count)
    if not killed:
        faults.append("no worker was killed: nothing was shown")
    if not (right_before and right_after):
        faults.append("a wrong answer before or after the load")
    facts = {"workers": options.workers, "killed": killed, "deaths counted": int(deaths), "calls retried": int(retries)}
    return Outcome("kill-workers", facts | _facts(count), tuple(faults))


def _kill_while_busy(server: Running, client: ClientProcess, period: float, rng: random.Random) -> int:
    killed = 0
    while client.busy(period):
        pids = worker_pids(server.port)
        if pids:
            with contextlib.suppress(ProcessLookupError):  # it died by itself: the next look finds another
                os.kill(rng.choice(pids), signal.SIGKILL)
                killed += 1
    return killed


def cold_herd(options: argparse.Namespace) -> Outcome:
    """``options.callers`` at once on a model that nobody has called, over several models in turn."""
    zoo, card = options.artifacts / "zoo", Card(options.artifacts, "zoo")
    answers = card.member_answers()
    names = [name for name in sorted(answers) if name.endswith(".ubj")][: options.models]
    faults: list[str] = []
    counts: list[Count] = []
    loads: list[int] = []
    with our_server(str(zoo)) as server:
        for name in names:
            before = metric(server.port, _LOADS)
            call = Call("/invocations", card.body("request.csv"), {**_CSV, _TARGET: name})
            counts.append(run_plan(Plan(server.port, (call.raw(),), options.callers, options.seconds, calls=1)))
            loads.append(int(metric(server.port, _LOADS) - before))
            faults += [f"{name}: {fault}" for fault in _call_faults(counts[-1])]
            if loads[-1] != 1:
                faults.append(f"{name} was loaded {loads[-1]} times")
            if counts[-1].calls != options.callers:
                faults.append(f"{name}: {counts[-1].calls} calls were sent by {options.callers} callers")
            if not is_right(call.once(server.port), answers[name]):
                faults.append(f"{name} answered with another model's numbers")
    slowest = max(counts, key=lambda count: count.max_us)
    facts = {"models": len(names), "callers of each": options.callers, "loads": sum(loads)}
    return Outcome("cold-herd", facts | _facts(slowest), tuple(faults))


def _call_faults(count: Count) -> list[str]:
    if not count.calls:
        return ["no calls were made: nothing was shown"]
    return [f"{count.failures} of {count.calls} calls failed: {'; '.join(count.examples)}"] if count.failures else []


def _facts(count: Count) -> dict[str, Any]:
    return {
        "calls": count.calls,
        "failures": count.failures,
        "reconnects": count.reconnects,
        "calls a second": round(count.per_second),
        "p50 ms": round(count.p50_us / 1e3, 2),
        "p99 ms": round(count.p99_us / 1e3, 2),
        "slowest ms": round(count.max_us / 1e3, 1),
    }


def async_kill(options: argparse.Namespace) -> Outcome:
    """Kill everything ``options.kills`` times under ``options.jobs`` asynchronous jobs."""
    facts, faults = run_async_kill(options)
    return Outcome("async-kill", facts, tuple(faults))


TRIALS = {"kill-workers": kill_workers, "cold-herd": cold_herd, "async-kill": async_kill}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.chaos", description=__doc__)
    parser.add_argument("trial", choices=list(TRIALS))
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the load (default: %(default)s)")
    parser.add_argument("--period", type=float, default=2.0, help="seconds between kills (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--callers", type=int, default=200, help="of a cold model (default: %(default)s)")
    parser.add_argument("--models", type=int, default=5, help="cold models, one after the other (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=30, help="of the whole server (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=200, help="asynchronous jobs (default: %(default)s)")
    parser.add_argument("--within", type=float, default=5.0, help="seconds to go on after a start (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of what is left to chance (default: chance)")
    parser.add_argument("--artifacts", type=Path, default=ROOT / "models" / "artifacts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome there too")
    options = parser.parse_args(arguments)
    options.artifacts = options.artifacts.resolve()
    return options


def show(console: Console, outcome: Outcome, seconds: float) -> None:
    """The outcome for a person."""
    grid = Table(title=f"{outcome.trial}, {seconds:.0f} s", title_justify="left", show_header=False)
    for name, value in outcome.facts.items():
        grid.add_row(name, f"{value:,}")
    console.print(grid)
    for fault in outcome.faults:
        console.print(f"FAULT: {fault}", style="bold red", markup=False)
    if not outcome.faults:
        console.print("all promises kept", style="green")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one trial; 0 when every promise was kept."""
    exit_on_sigterm()
    options = parse(arguments)
    began = time.monotonic()
    outcome = TRIALS[options.trial](options)
    show(Console(), outcome, time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
