"""The ``serving`` command. Nothing else imports this, typer or rich; each command imports what it needs when it runs.

Answers go to standard output, everything said about them to standard error. Exit status: 0 done, 1 the server or the
artifact said no, 2 the command itself cannot be carried out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from serving.cli.about import settings, settings_table, version
from serving.cli.batch import transform, transforms
from serving.cli.calls import invoke, jobs
from serving.cli.capture import capture
from serving.cli.check import check
from serving.cli.compare import replay, shadow, verdict
from serving.cli.dashboards import dashboards
from serving.cli.endpoints import delete, deploy, describe, endpoints, weights
from serving.cli.label import label
from serving.cli.load import load
from serving.cli.monitor import baseline, drift
from serving.cli.scaling import scale, scaling
from serving.cli.simulate import simulate
from serving.cli.up import up
from serving.errors import ServiceUnavailable, ServingError
from serving.terminal import complain

__all__ = ["main", "program", "settings_table"]

#: Every command, in the order in which they are shown.
COMMANDS: tuple[Callable[..., Any], ...] = (
    up,
    invoke,
    jobs,
    transform,
    transforms,
    label,
    capture,
    deploy,
    endpoints,
    describe,
    weights,
    delete,
    scale,
    scaling,
    verdict,
    shadow,
    baseline,
    drift,
    replay,
    check,
    simulate,
    load,
    dashboards,
    settings,
    version,
)
#: ``load`` hands what it does not know on to Locust.
_PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

program = typer.Typer(
    name="serving",
    help="An open, self-hosted inference server that speaks SageMaker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    program.command(context_settings=_PASSES_ON if _command is load else None)(_command)


def main() -> None:
    """Run the command line. Errors of ours are one line, never a traceback."""
    try:
        program(prog_name="serving")
    except ServingError as error:
        from serving.client import Refused

        complain(error.message)
        sys.exit(1 if isinstance(error, ServiceUnavailable | Refused) else 2)
