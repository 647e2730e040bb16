"""The server beside its own floor: ``python -m loadtests.bench [--quick] [--only NAME ...] [--json FILE]``.

Every figure is a ratio to a baseline measured in the same run, in turns, on the same cores, as absolute figures of a
shared machine say little. Answers are checked before the clock starts and failed calls spoil the row. Exit status 1
when a figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from loadtests import report
from loadtests.generator import tool
from loadtests.processes import ROOT, exit_on_sigterm, python
from loadtests.report import Figure
from loadtests.workloads import control
from loadtests.workloads.base import Bench
from loadtests.workloads.capture import capture
from loadtests.workloads.convnet import convnet
from loadtests.workloads.drift import drift
from loadtests.workloads.explanations import explanations
from loadtests.workloads.families import ARRAYS, gallery_latency
from loadtests.workloads.queue import queue
from loadtests.workloads.rows import many_rows, one_row
from loadtests.workloads.shadow import shadow
from loadtests.workloads.start import start
from loadtests.workloads.transform import transform, transform_small
from loadtests.workloads.zoo import many_models, memory

WORKLOADS: dict[str, Callable[[Bench], list[Figure]]] = {
    "one-row": one_row,
    "convnet": convnet,
    "many-rows": many_rows,
    "capture": capture,
    "shadow": shadow,
    "explanations": explanations,
    "many-models": many_models,
    "memory": memory,
    "start": start,
    "control-lists": control.lists,
    "control-create": control.create,
    "control-restart": control.restart,
    "control-updates": control.updates,
    "control-route": control.route,
    "queue": queue,
    "transform": transform,
    "transform-small": transform_small,
    "drift": drift,
    "gallery-latency": gallery_latency,
}
_ARTIFACTS = ROOT / "models" / "artifacts"
_QUICK = (3, 1)  # rounds, seconds a side in each
_FULL = (5, 3)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds: under three minutes, noisier")
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--artifacts", type=Path, default=_ARTIFACTS, help="where `python -m models` put the models")
    parser.add_argument("--generator", choices=["wrk", "client"], default=tool(), help="default here: %(default)s")
    return parser.parse_args(arguments)


def _build_models(console: Console, artifacts: Path, workloads: Sequence[str]) -> None:
    """Train the models that are missing; one second when they are there."""
    commands: list[tuple[str, ...]] = [("bench-xgboost", "bench-convnet", "zoo")]
    if "gallery-latency" in workloads:
        commands.append(("train", *ARRAYS))
    for command in commands:
        built = subprocess.run(
            python("models", *command, "--out", str(artifacts)), cwd=ROOT, capture_output=True, text=True, check=False
        )
        if built.returncode:
            console.print(built.stdout + built.stderr, markup=False)
            raise SystemExit("the bench's models could not be built")


def run(bench: Bench, names: Sequence[str]) -> list[Figure]:
    """The chosen workloads, one after the other. One that breaks is a missed figure, not the end of the run."""
    figures = []
    for name in names:
        bench.say(f"{name} ...")
        try:
            figures += WORKLOADS[name](bench)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            told = "\n".join([f"{name} broke: {error}", *getattr(error, "__notes__", ())])
            bench.console.print(told, style="red", markup=False)
            figures.append(Figure(name, "could not be measured", "-", "-", 0.0, 0.0, note=str(error)[:200], failures=1))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when every figure is reached."""
    exit_on_sigterm()
    options = parse(arguments)
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 160)
    workloads = options.only or list(WORKLOADS)
    _build_models(progress, options.artifacts, workloads)
    rounds, seconds = _QUICK if options.quick else _FULL
    bench = Bench(options.artifacts.resolve(), rounds, seconds, progress, options.generator)
    facts = {**report.machine(), "generator": options.generator, "rounds": f"{rounds} x {seconds} s"}
    figures = run(bench, workloads)
    console.print(report.table(figures, facts))
    if options.json:
        options.json.write_text(json.dumps(report.document(figures, facts), indent=1) + "\n")
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
