"""Options that several commands have, and the server that they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from serving.config import SETTINGS, load_settings

if TYPE_CHECKING:
    from serving.client import Server

HELP = {row.name: row.help for row in SETTINGS}

SettingsFile = Annotated[str | None, typer.Option("--settings", metavar="FILE", help=HELP["settings_file"])]
AllowCode = Annotated[bool | None, typer.Option("--allow-code/--no-allow-code", help=HELP["allow_code"])]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="The server; default: where the settings say one listens.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON, for another program.")]


def server_at(url: str | None, settings_file: str | None) -> Server:
    """The server at ``url``, or where the settings say that one listens."""
    from serving.client import Server, base_url

    settings = load_settings({"settings_file": settings_file})
    return Server(url or base_url(settings), settings)
