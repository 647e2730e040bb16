"""``serving capture``: what an endpoint was asked and answered, as its data capture wrote it down."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlencode

import typer

from serving.cli.options import SettingsFile, Url, server_at
from serving.errors import ConfigError
from serving.terminal import busy, tell

if TYPE_CHECKING:
    from serving.client import Server


def capture(
    what: Annotated[str, typer.Argument(metavar="tail|export", help="Show the newest calls, or write all to a file.")],
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    number: Annotated[int, typer.Option("-n", "--number", min=0, max=10_000, help="Of tail: so many.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Of tail: then those that come.")] = False,
    output: Annotated[
        str, typer.Option(metavar="FILE.jsonl|FILE.parquet", help="Of export: the file; - = standard output.")
    ] = "",
    variant: Annotated[list[str] | None, typer.Option(help="Only of this variant; again for each.")] = None,
    since: Annotated[str, typer.Option(help="Only calls since then: a time, or how long ago (30m, 24h, 7d).")] = "",
    until: Annotated[str, typer.Option(help="Only calls before then.")] = "",
    destination: Annotated[
        str, typer.Option(metavar="s3://BUCKET/PREFIX", help="Where they are, when the endpoint captures no more.")
    ] = "",
    url: Url = None,
    settings_file: SettingsFile = None,
) -> None:
    """Show an endpoint's captured calls, follow them, or write them to a file (JSON Lines, Parquet)."""
    if what not in ("tail", "export"):
        raise ConfigError(f"{what!r} is nothing to do with captures; there are tail and export.")
    if (what == "export") != bool(output) or (what == "export" and follow):
        raise ConfigError("export writes to --output FILE; tail prints, and may --follow.")
    asked: dict[str, str | list[str]] = {
        "variant": variant or [],
        "since": since,
        "until": until,
        "destination": destination,
    }
    if what == "tail":
        asked |= {"limit": str(number), "follow": "true" if follow else ""}
    lines = _lines(server_at(url, settings_file), endpoint, {name: value for name, value in asked.items() if value})
    if what == "tail" or output == "-":
        _print(lines)
    else:
        with busy("reading captures"):
            written = _export(lines, Path(output))
        tell(f"{written} records in {output}")


def _lines(server: Server, endpoint: str, asked: dict[str, str | list[str]]) -> Iterator[bytes]:
    path = f"/endpoints/{quote(endpoint, safe='-_.~')}/captures?{urlencode(asked, doseq=True, quote_via=quote)}"
    return (line for line in server.stream(path, "manage") if line.strip())


def _print(lines: Iterator[bytes]) -> None:
    with suppress(KeyboardInterrupt):  # the end of following
        for line in lines:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


def _export(lines: Iterator[bytes], path: Path) -> int:
    """Write a file that appears when it is whole; returns the number of records."""
    from serving.monitor.exporting import to_parquet
    from serving.storage import temporary_name

    fresh = temporary_name(path)
    try:
        written = to_parquet(lines, fresh) if path.suffix == ".parquet" else _to_file(lines, fresh)
        fresh.replace(path)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's own words are long
        raise ConfigError(f"Cannot write {path}: {why}.") from None
    finally:
        with suppress(OSError):
            os.unlink(fresh)  # noqa: PTH108  # gone when all went well
    return written


def _to_file(lines: Iterator[bytes], path: Path) -> int:
    written = 0
    with path.open("wb") as file:
        for line in lines:
            file.write(line)
            written += 1
    return written
