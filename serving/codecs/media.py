"""Media types as headers spell them: Content-Type in, Accept negotiation out (RFC 9110, sections 8.3 and 12.5.1).

SageMaker's containers also take bare words (``csv``, ``libsvm``) for a type, so a type without a slash is legal here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from serving.errors import NotAcceptable, UnsupportedContentType

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_TYPE = re.compile(rf"\s*({_TOKEN}(?:/{_TOKEN})?)\s*")
_PARAM = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*(?:"([^"]*)"|({_TOKEN}(?:,{_TOKEN})*))?)?\s*')
_COMMA_OUTSIDE_QUOTES = re.compile(r'((?:[^,"]|"[^"]*"|")+)')


@lru_cache(maxsize=512)
def parse_media_type(header: str) -> tuple[str, Mapping[str, str]]:
    """``"Text/CSV; Label_Size=0"`` -> ``("text/csv", {"label_size": "0"})``. The mapping is shared: do not change it.

    Raises ``UnsupportedContentType`` for a header that is not a media type.
    """
    parsed = _parse(header)
    if parsed is None:
        raise UnsupportedContentType(f"{header[:80]!r} is not a media type")
    return parsed


def _parse(header: str) -> tuple[str, dict[str, str]] | None:
    match = _TYPE.match(header)
    if match is None:
        return None
    media_type, params, at = match[1].lower(), {}, match.end()
    while at < len(header):
        match = _PARAM.match(header, at)
        if match is None:
            return None
        if match[1]:
            params[match[1].lower()] = match[2] if match[2] is not None else match[3] or ""
        at = match.end()
    return media_type, params


class _Range(NamedTuple):
    """One member of an Accept header. ``precision``: 2 for type/subtype, 1 for type/*, 0 for */*."""

    media_type: str
    params: dict[str, str]
    quality: float
    precision: int
    position: int

    def covers(self, media_type: str) -> bool:
        if self.precision == 2:
            return self.media_type == media_type
        return self.precision == 0 or media_type.startswith(self.media_type[:-1])


def negotiate(accept: str, default: str, offered: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """The media type to answer in and the parameters Accept gave it (without ``q``); the mapping is shared.

    Empty Accept and ``*/*`` mean ``default``. Otherwise the highest quality wins; between equals ``default``, then
    the caller's order, then ours. A member that is no media type is ignored. Raises ``NotAcceptable``.
    """
    return _negotiate(accept, default, tuple(offered))


@lru_cache(maxsize=512)
def _negotiate(accept: str, default: str, offered: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    if not accept or accept.isspace():
        return default, {}
    ranges = [found for position, text in enumerate(_members(accept)) if (found := _range(text, position)) is not None]
    best: tuple[tuple[float, bool, int], str, dict[str, str]] | None = None
    for media_type in dict.fromkeys((default, *offered)):
        chosen = max(
            (r for r in ranges if r.covers(media_type)), key=lambda r: (r.precision, -r.position), default=None
        )
        if chosen is None or chosen.quality == 0:
            continue
        rank = (chosen.quality, media_type == default, -chosen.position)
        if best is None or rank > best[0]:
            best = rank, media_type, chosen.params
    if best is None:
        raise NotAcceptable(f"cannot answer in {accept[:80]!r}; this model answers in {', '.join(offered)}")
    return best[1], best[2]


def _members(accept: str) -> list[str]:
    return _COMMA_OUTSIDE_QUOTES.findall(accept)


def _range(text: str, position: int) -> _Range | None:
    parsed = _parse(text)
    if parsed is None:
        return None
    media_type, params = parsed
    try:
        quality = min(max(float(params.pop("q", "1")), 0.0), 1.0)
    except ValueError:
        return None
    if quality != quality:
        return None
    precision = 0 if media_type in ("*/*", "*") else 1 if media_type.endswith("/*") else 2
    return _Range(media_type, params, quality, precision, position)
