"""Request bodies of the algorithms that read no rows of numbers: instances as objects, one by one or in a document.

``application/json`` is ``{"instances": [...], "configuration": {...}}``, ``application/jsonlines`` an instance a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from serving.codecs.media import negotiate, parse_media_type
from serving.errors import BadInput, UnsupportedContentType

JSON, LINES = "application/json", "application/jsonlines"
_ALIASES = {
    "json": JSON,
    "jsonlines": LINES,
    "application/x-jsonlines": LINES,
    "application/x-ndjson": LINES,
}


class Instances(NamedTuple):
    """What a body holds. ``media_type``: ``JSON`` or ``LINES``; ``params``: Content-Type's parameters."""

    rows: list[Any]
    configuration: Mapping[str, Any]
    media_type: str
    params: Mapping[str, str]


def media_type(content_type: str, reads: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """A request's type in its usual spelling, and its parameters; a body of no said type (which is how one without a
    Content-Type arrives) is of the first. Raises UnsupportedContentType, naming what is read."""
    found, params = parse_media_type(content_type or reads[0])
    if found == "application/octet-stream" and found not in reads:
        found = reads[0]
    found = _ALIASES.get(found, found)
    if found not in reads:
        raise UnsupportedContentType(f"this model does not read {found[:80]!r}; it reads {', '.join(reads)}")
    return found, params


def instances(body: bytes, content_type: str, reads: Sequence[str] = (JSON, LINES)) -> Instances:
    """The instances of a body of JSON or JSON Lines. Raises BadInput, UnsupportedContentType."""
    kind, params = media_type(content_type, reads)
    if not body.strip():
        raise BadInput("the body is empty")
    if kind == LINES:
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
        return Instances([_parsed(line, f"line {number}") for number, line in lines], {}, kind, params)
    document = _parsed(body, "the body")
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise BadInput("the body must be an object with a list of 'instances'")
    if not document["instances"]:
        raise BadInput("'instances' must be a list of at least one instance")
    configuration = document.get("configuration", {})
    if not isinstance(configuration, dict):
        raise BadInput("'configuration' must be an object")
    return Instances(document["instances"], configuration, kind, params)


def accepted(accept: str, default: str, offered: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """The media type to answer in, with Accept's parameters. Raises NotAcceptable."""
    return negotiate(accept, default, offered)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"{where} is not JSON: {error}") from None
