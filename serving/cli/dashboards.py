"""``serving dashboards``: Grafana's dashboard and Prometheus's alert rules, as files to load there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.errors import ConfigError
from serving.terminal import tell


def dashboards(
    name: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Print this one of them; without: list their names.")
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Write them all there.")] = None,
) -> None:
    """The Grafana dashboard and the Prometheus alert rules of this version, whose metric names fit."""
    from serving.watch.dashboards import files

    made = files()
    if output is None:
        if name and name not in made:
            raise ConfigError(f"There is no {name!r}; there are {' and '.join(made)}.")
        print(made[name] if name else "\n".join(made), end="" if name else "\n")
        return
    for one, text in made.items():
        path = output / one
        try:
            output.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
        tell(f"{path} is written")
