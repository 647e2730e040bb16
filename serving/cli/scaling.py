"""``serving scaling`` and ``scale``: how an endpoint's workers follow its load, and to have them do so."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.errors import ConfigError
from serving.terminal import lines_in_place, print_json

Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]


def scaling(
    endpoint: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how an endpoint scales: its capacity, what is measured, what was decided and why not more."""
    from serving import elastic

    server = server_at(url, settings_file)
    if as_json:
        print_json(elastic.view(server, endpoint))
        return
    with suppress(KeyboardInterrupt), lines_in_place() as show:  # the end of watching
        show(elastic.lines(elastic.view(server, endpoint)))
        while watch:
            time.sleep(1.0)  # as often as a person looks
            show(elastic.lines(elastic.view(server, endpoint)))


def scale(
    endpoint: Name,
    minimum: Annotated[int | None, typer.Option("--min", min=0, help="Workers it has at least.")] = None,
    maximum: Annotated[int | None, typer.Option("--max", min=0, help="Workers it has at most.")] = None,
    target: Annotated[float | None, typer.Option(help="What each worker shall have of the metric.")] = None,
    metric: Annotated[
        str, typer.Option(metavar="invocations|concurrency|utilization", help="Calls a minute, or at a time.")
    ] = "",
    variant: Annotated[str, typer.Option(help="Which variant, where there are several.")] = "",
    component: Annotated[str, typer.Option(help="An inference component instead of a variant.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Scale no more; the workers there are stay.")] = False,
    url: Url = None,
    settings_file: SettingsFile = None,
) -> None:
    """Have an endpoint's workers follow its load: a scalable target with one target tracking policy."""
    from serving import elastic

    if variant and component:
        raise ConfigError("Either --variant or --component.")
    if off and not (minimum is maximum is target is None and not metric):
        raise ConfigError("--off goes with nothing but --variant or --component.")
    wish = elastic.Wish(variant, component, minimum, maximum, target, metric)
    server = server_at(url, settings_file)
    for line in [elastic.leave(server, endpoint, wish)] if off else elastic.scale(server, endpoint, wish):
        print(line)
