"""``serving up``: start the server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving import __version__
from serving.cli.options import HELP, AllowCode, SettingsFile
from serving.config import Settings, load_settings
from serving.errors import ConfigError

if TYPE_CHECKING:
    from serving.declared import Document


def up(
    models: Annotated[
        Path | None,
        typer.Argument(help="A model (served as endpoint 'default'), or a folder of models (multi-model 'default')."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Endpoints, declared as SageMaker bodies.")
    ] = None,
    host: Annotated[str | None, typer.Option(help=HELP["host"])] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help=HELP["port"])] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="FOLDER", help=HELP["data_dir"])] = None,
    allow_code: AllowCode = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes for MODELS.")] = 1,
    fronts: Annotated[str | None, typer.Option(metavar="N", help=HELP["fronts"])] = None,
    settings_file: SettingsFile = None,
) -> None:
    """Start the server and serve until it is told to stop."""
    began = time.monotonic()
    settings = load_settings(
        {
            "host": host,
            "port": port,
            "data_dir": data_dir,
            "allow_code": allow_code,
            "fronts": fronts,
            "settings_file": settings_file,
        }
    )
    document = _declared(models, config, workers, settings)

    def on_ready(url: str, names: list[str]) -> None:
        print(_welcome(url, document, names, settings, time.monotonic() - began), flush=True)

    from serving.app import run

    raise typer.Exit(run(settings, document, on_ready))


def _declared(models: Path | None, config: Path | None, workers: int, settings: Settings) -> Document:
    """What the command line asks to serve; nothing = what the data folder has."""
    from serving.declared import Document, containers, document_from_path, load_document

    declared = load_document(config) if config else Document()
    if models is None:
        if workers != 1:
            raise ConfigError("--workers is for MODELS; a declared endpoint has InitialInstanceCount.")
        return declared
    from serving.checking import is_artifact, refuse_code

    own = document_from_path(models, is_artifact, workers, settings.default_endpoint)
    if containers(own.models[0])[0]["Mode"] == "SingleModel":
        refuse_code(models, settings.allow_code)
    name = settings.default_endpoint
    if any(body[kind.name].lower() == name.lower() for kind, body in declared.bodies()):
        raise ConfigError(
            f"MODELS would be model, config and endpoint {name!r}, but {config} declares one of that name."
        )
    return own + declared


def _welcome(url: str, document: Document, names: list[str], settings: Settings, seconds: float) -> str:
    """What is served, and a call to begin with. ``names``: all endpoints there are, declared or not."""
    from serving.declared import shown

    lines = [f"serving {__version__} is ready at {url} ({seconds:.1f} s)"]
    declared = {name: f"  endpoint {name}  {text}" for name, text, _ in shown(document)}
    lines += declared.values()
    lines += [f"  endpoint {name}  (in the store)" for name in names if name not in declared]
    if document.endpoints:
        name, _, many = next(shown(document))
        header = " -H 'X-Amzn-SageMaker-Target-Model: MODEL'" if many else ""
        user = " -u AccessKeyId:SecretAccessKey" if settings.access_keys else ""
        lines.append(
            f"  try: curl{user} {url}/endpoints/{name}/invocations -H 'Content-Type: text/csv'{header} "
            "--data-binary @rows.csv"
        )
    elif not names:
        lines.append(
            "  no endpoints declared: name a model, serving up MODEL, or a file of them, serving up --config FILE"
        )
    return "\n".join(lines)
