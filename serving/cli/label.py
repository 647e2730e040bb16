"""``serving label``: what the right answers to an endpoint's calls were."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from serving.cli.options import AsJson, SettingsFile, Url, server_at
from serving.errors import ConfigError
from serving.terminal import complain, print_json

if TYPE_CHECKING:
    from serving.client import Server

#: A file goes in pieces of whole lines, of so many bytes.
_PIECE = 2**20


def label(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    what: Annotated[
        str, typer.Argument(metavar="FILE|INFERENCE_ID", help="Labels as JSON Lines (- = standard input), or one call.")
    ],
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", help="The call's label; JSON, or text.")] = None,
    url: Url = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Send labels: of calls in a file of SageMaker's ground-truth records, or of one call."""
    pieces = _pieces(_lines(what)) if value is None else [_one(what, value)]
    server = server_at(url, settings_file)
    told: dict[str, Any] = {"Accepted": 0, "Rejected": 0, "Errors": []}
    before = 0
    for piece in pieces:
        _add(told, _sent(server, endpoint, piece), before)
        before += piece.count(b"\n")
    if as_json:
        print_json(told)
    else:
        print(f"{told['Accepted']} accepted, {told['Rejected']} rejected")
        for error in told["Errors"]:
            complain(f"line {error['Line']}: {error['Message']}")
    raise typer.Exit(1 if told["Rejected"] or not told["Accepted"] else 0)


def _lines(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read {name}: {error.strerror}. One call's label: INFERENCE_ID VALUE.") from None


def _pieces(data: bytes) -> list[bytes]:
    """A file in pieces that end with a line."""
    found, at = [], 0
    while at < len(data):
        end = data.find(b"\n", at + _PIECE) + 1 or len(data)
        found.append(data[at:end])
        at = end
    return found


def _one(id: str, value: str) -> bytes:
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    return json.dumps({"InferenceId": id, "Label": read}).encode()


def _sent(server: Server, endpoint: str, piece: bytes) -> dict[str, Any]:
    """What the server says to a piece. One in which nothing is good ends it."""
    path = f"/endpoints/{quote(endpoint, safe='-_.~')}/ground-truth"
    answer = server.send("POST", path, "invoke", piece, {"Content-Type": "application/jsonlines"}, (endpoint, ""))
    if not answer.ok:
        complain(answer.complaint)
        raise typer.Exit(1)
    found: dict[str, Any] = json.loads(answer.body)
    return found


def _add(told: dict[str, Any], more: dict[str, Any], before: int) -> None:
    """Add an answer to the sum; its lines are counted from the file's beginning."""
    told["Accepted"] += more["Accepted"]
    told["Rejected"] += more["Rejected"]
    moved = [error | {"Line": error["Line"] + before} for error in more["Errors"]]
    told["Errors"] = [*told["Errors"], *moved][:10]
