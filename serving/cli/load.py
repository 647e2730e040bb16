"""``serving load``: a Locust run against an endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import SettingsFile, Url
from serving.config import load_settings
from serving.errors import ConfigError

#: Load test scenario -> its option that names the endpoint.
_SCENARIOS = {
    "one_model": "--endpoint",
    "big_payload": "--endpoint",
    "ab_split": "--ab-endpoint",
    "multi_model_zipf": "--zoo-endpoint",
    "mixed": "--endpoint",
}


def load(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    scenario: Annotated[str, typer.Option(help=f"What to do: {', '.join(_SCENARIOS)}.")] = "one_model",
    users: Annotated[int, typer.Option(min=1, max=10_000, help="Callers at once.")] = 16,
    seconds: Annotated[int, typer.Option(min=1, max=86_400, help="Length of the run.")] = 30,
    url: Url = None,
    settings_file: SettingsFile = None,
) -> None:
    """Put an endpoint under load with Locust and report; other options go to the scenario (see loadtests/)."""
    import subprocess
    from importlib.util import find_spec

    from serving.client import base_url
    from serving.config import did_you_mean

    if scenario not in _SCENARIOS:
        raise ConfigError(f"There is no scenario {scenario!r}{did_you_mean(scenario, list(_SCENARIOS))}.")
    if find_spec("locust") is None:
        raise ConfigError("Load tests need Locust: pip install 'serving[load]'.")
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / "loadtests" / "__main__.py").exists():
        raise ConfigError("The load tests are part of the source checkout; run serving from a clone of the project.")
    settings = load_settings({"settings_file": settings_file})
    command = [sys.executable, "-m", "loadtests", scenario, "--host", url or base_url(settings)]
    command += ["--users", str(users), "--seconds", str(seconds), _SCENARIOS[scenario], endpoint, *context.args]
    try:
        done = subprocess.run(command, cwd=root, timeout=seconds + 300, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"The load test did not end {300} seconds after its time.") from None
    raise typer.Exit(1 if done.returncode else 0)
