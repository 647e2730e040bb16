"""``python -m loadtests SCENARIO --host URL``: a Locust run against any server, a report, a verdict."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.processes import ROOT, python

SCENARIOS = {
    "one_model": "single rows to one model",
    "ab_split": "single rows to several variants; fails unless the split is within three standard deviations",
    "multi_model_zipf": "single rows to one of several hundred models, few of them hot",
    "big_payload": "ten thousand rows in a call",
    "mixed": "rows, variants, many models and big payloads together",
    "gallery": "each built-in algorithm's sample to the multi-model endpoint of all, the whole answers judged",
}
REPORTS = Path(__file__).resolve().parent / "reports"
_GRACE_SECONDS = 120


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line; what we do not know is for the scenario (``--endpoint``, ``--weights`` ...)."""
    lines = "\n".join(f"  {name:<18} {what}" for name, what in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description=f"{__doc__}\n\nscenarios:\n{lines}",
        epilog="Other options are the scenario's own; see loadtests/locustfile.py: --endpoint, "
        "--content-type, --ab-endpoint, --weights, --zoo-endpoint, --zoo-names, --zoo-models, --zoo-exponent, --rows, "
        "--gallery-endpoint, --gallery-artifacts.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", choices=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--host", default="http://127.0.0.1:8080", help="base URL (default: %(default)s)")
    parser.add_argument("--users", type=int, default=16, help="callers at once (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="length of the run (default: %(default)s)")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of the HTML and JSON report")
    parser.add_argument("--body", type=Path, help="file to send instead of a row of 30 columns; with --content-type")
    return parser.parse_known_args(arguments)


def locust_command(options: argparse.Namespace, rest: Sequence[str], report: Path) -> list[str]:
    """The headless Locust run of a scenario. ``report`` is its path without a suffix."""
    return [
        *python("locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--host", options.host.rstrip("/"), "--users", str(options.users), "--spawn-rate", str(options.users)),
        *("--run-time", f"{options.seconds}s", "--stop-timeout", "30"),
        *("--html", f"{report}.html", "--json-file", str(report)),  # locust adds .json itself
        *(("--body", str(options.body.resolve())) if options.body else ()),
        *rest,
        options.scenario,
    ]


def verdict(entries: Sequence[dict[str, Any]], exit_status: int) -> list[str]:
    """What was wrong with a run; nothing for a good one."""
    calls, failed = (sum(entry[key] for entry in entries) for key in ("num_requests", "num_failures"))
    faults = []
    if not calls:
        faults.append("no calls were made")
    if failed:
        faults.append(f"{failed:,} of {calls:,} calls failed")
    if exit_status and not faults:
        faults.append(f"the scenario's own check failed (exit status {exit_status})")
    return faults


def percentile_ms(entry: dict[str, Any], q: float) -> float:
    """A percentile from Locust's histogram of rounded milliseconds."""
    left = q / 100 * entry["num_requests"]
    for milliseconds, count in sorted((float(k), n) for k, n in entry["response_times"].items()):
        left -= count
        if left <= 0:
            return milliseconds
    return 0.0


def summary(options: argparse.Namespace, entries: Sequence[dict[str, Any]]) -> Table:
    """The run's lines."""
    title = f"{options.scenario} against {options.host}, {options.users} users, {options.seconds} s"
    grid = Table("call", "calls", "failed", "a second", "p50 ms", "p95 ms", "p99 ms", "max ms", title=title)
    for entry in entries:
        seconds = max(entry["last_request_timestamp"] - entry["start_time"], 1e-3)
        grid.add_row(
            entry["name"],
            f"{entry['num_requests']:,}",
            f"{entry['num_failures']:,}",
            f"{entry['num_requests'] / seconds:,.1f}",
            *(f"{percentile_ms(entry, q):,.0f}" for q in (50, 95, 99)),
            f"{entry['max_response_time']:,.0f}",
        )
    return grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a scenario; 0 when every call and the scenario's own check succeeded."""
    options, rest = parse(arguments)
    console = Console()
    report = options.reports.resolve() / f"{options.scenario}-{time.strftime('%Y%m%d-%H%M%S')}"
    report.parent.mkdir(parents=True, exist_ok=True)
    try:
        run = subprocess.run(
            locust_command(options, rest, report), cwd=ROOT, timeout=options.seconds + _GRACE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        console.print(f"locust did not end {_GRACE_SECONDS} s after its time", style="bold red")
        return 1
    results = report.with_suffix(".json")
    if not results.exists():
        console.print(f"locust did not run (exit status {run.returncode})", style="bold red")
        return run.returncode or 1
    entries = json.loads(results.read_text())
    console.print(summary(options, entries))
    console.print(f"report: {report}.html", soft_wrap=True, highlight=False)
    faults = verdict(entries, run.returncode)
    for fault in faults:
        console.print(f"FAULT: {fault}", style="bold red")
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
