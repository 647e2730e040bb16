"""``serving check``: would it load?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.options import AllowCode, AsJson, SettingsFile
from serving.config import load_settings
from serving.terminal import busy, print_json


def check(
    file_or_artifact: Annotated[Path, typer.Argument(help="A model, a folder of models, or a file of endpoints.")],
    allow_code: AllowCode = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Dry run: what is it, would it load, what does it cost in memory? Models are loaded in a process of their own."""
    from dataclasses import asdict

    from serving.checking import SOME, subjects, told, tried

    settings = load_settings({"allow_code": allow_code, "settings_file": settings_file})
    failed, found = 0, []
    for subject in subjects(file_or_artifact, settings):
        with busy(f"loading {subject.path.name} ..."):
            trial = tried(subject, settings)
        failed += bool(trial.error)
        found.append({"endpoint": subject.endpoint, "variant": subject.variant, **asdict(trial)})
        if not as_json:
            print(told(trial))
    if as_json:
        print_json({"loads": not failed, "models": found})
    else:
        print(f"{len(found)} tried, {failed} would not load; of a folder the first {SOME} are.", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)
