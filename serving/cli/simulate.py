"""``serving simulate``: what a scaling policy would have done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import AsJson, SettingsFile
from serving.config import load_settings


def simulate(
    trace: Annotated[
        str,
        typer.Argument(help="CSV of arrivals (a time a line) or rates (time,rate or time,calls); - = standard input."),
    ],
    policy: Annotated[Path, typer.Option(metavar="FILE", help="Scalable target and policies, as JSON or YAML.")],
    resource: Annotated[str, typer.Option(metavar="ID", help="Which target, where the file has several.")] = "",
    scale: Annotated[float, typer.Option(min=1e-6, help="Times the trace's traffic.")] = 1.0,
    service_ms: Annotated[float, typer.Option(min=0.001, help="Time a call takes a worker, on the average.")] = 100.0,
    distribution: Annotated[
        str, typer.Option(help="Of these times: lognormal (half the mean apart), constant, exponential.")
    ] = "lognormal",
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Calls that a worker runs at once.")] = 1,
    start_ms: Annotated[float, typer.Option(min=0, help="Time until a new worker is ready.")] = 100.0,
    slow_ms: Annotated[float, typer.Option(min=0, help="A call that waits longer is slow.")] = 500.0,
    period: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds of a period; default: SERVING_SCALING_PERIOD_SECONDS.")
    ] = None,
    aws_lag: Annotated[float, typer.Option(min=0, help="Seconds by which metrics are late in AWS.")] = 0.0,
    aws_start: Annotated[
        float | None, typer.Option(min=0, help="Seconds until an instance is ready in AWS; default: as a worker.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what chance decides.")] = 1,
    chart: Annotated[Path | None, typer.Option(metavar="FILE.svg|.png", help="Draw it there.")] = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Replay traffic through scaling policies on a virtual clock, beside AWS's timing, Kubernetes' HPA and Knative."""
    import sys

    from serving import simulation
    from serving.scaling import charting
    from serving.scaling.simulating import Setup
    from serving.terminal import busy, print_json, print_table

    seconds = load_settings({"settings_file": settings_file}).scaling_period_seconds if period is None else period
    found = simulation.document(policy, resource)
    load = simulation.load(trace, simulation.Calls(scale, service_ms / 1000, distribution, seed))
    setup = Setup(*simulation.bounds(found), concurrency, start_ms / 1000, slow_ms / 1000)
    with busy(f"simulating {len(load.trace.arrivals):,} calls"):
        outcomes = list(simulation.compare(load, found, setup, simulation.Timing(seconds, aws_lag, aws_start)))
    if chart is not None:
        charting.save(simulation.chart(load, setup, outcomes), chart)
    if as_json:
        print_json(simulation.told(load, setup, outcomes))
        return
    print_table(simulation.HEADINGS, simulation.rows(outcomes))
    if sys.stdout.isatty():
        print(*simulation.drawing(load, setup, outcomes), sep="\n")
