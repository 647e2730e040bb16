"""``serving settings`` and ``serving version``."""

from __future__ import annotations

from typing import Annotated

import typer

from serving import __version__
from serving.cli.options import AsJson, SettingsFile
from serving.config import SETTINGS, load_settings, masked
from serving.terminal import print_json, print_table


def settings(
    settings_file: SettingsFile = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of the README.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every setting: its variable, its value now, its default and what it means."""
    if markdown:
        print(settings_table())
        return
    now = load_settings({"settings_file": settings_file})
    values = {row.name: _value_text(getattr(now, row.name)) for row in SETTINGS}
    if as_json:
        fields = [(row, values[row.name]) for row in SETTINGS]
        print_json(
            [
                {
                    "variable": row.env,
                    "key": row.key,
                    "value": value,
                    "default": row.default_text,
                    "expected": row.kind.expected,
                    "help": row.help,
                }
                for row, value in fields
            ]
        )
        return
    rows = [(row.env, values[row.name], row.default_text, row.help) for row in SETTINGS]
    print_table(("VARIABLE", "VALUE", "DEFAULT", "MEANING"), rows)


def _value_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else masked(str(value))


def settings_table() -> str:
    """The README's table of settings, in Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for row in SETTINGS:
        default = f"`{row.default_text}`" if row.default_text else ""
        lines.append(f"| `{row.env}` | {default} | {row.help} |")
    return "\n".join(lines)


def version(as_json: AsJson = False) -> None:
    """The version of the server, and of the frameworks installed beside it."""
    if not as_json:
        print(f"serving {__version__}")
        return
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of
    from platform import python_version

    found: dict[str, str] = {"serving": __version__, "python": python_version()}
    for name in ("numpy", "onnxruntime", "xgboost-cpu", "xgboost", "torch", "scikit-learn", "lightgbm"):
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            continue
    print_json(found)
