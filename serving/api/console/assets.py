"""The console's files: what is in the package, by name, with a fingerprint that lets browsers keep it for good."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent / "static"
#: Name in a URL -> file in the package, content type. Nothing else is ever opened.
_FILES: dict[str, tuple[str, str]] = {
    "console.css": ("console.css", "text/css; charset=utf-8"),
    "console.js": ("console.js", "text/javascript; charset=utf-8"),
    "charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "theme.js": ("theme.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "uplot.js": ("uplot/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "uplot.css": ("uplot/uPlot.min.css", "text/css; charset=utf-8"),
    "uplot-license.txt": ("uplot/LICENSE", "text/plain; charset=utf-8"),
}


class Asset(NamedTuple):
    """A file: its bytes, plain and packed, and their fingerprint."""

    content_type: str
    body: bytes
    packed: bytes
    etag: str


@cache
def asset(name: str) -> Asset | None:
    """The file of that name; None for any other."""
    if name not in _FILES:
        return None
    path, content_type = _FILES[name]
    body = (_FOLDER / path).read_bytes()
    return Asset(content_type, body, gzip.compress(body, mtime=0), f'"{hashlib.sha256(body).hexdigest()[:16]}"')


@cache
def url(name: str) -> str:
    """Where a page finds it: another content is another URL."""
    found = asset(name)
    assert found is not None, name
    return f"/console/static/{name}?v={found.etag.strip(chr(34))}"
