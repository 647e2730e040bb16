"""Patterns of AWS's service models, which are Java's, as Python compiles them.

A pattern has no anchors and must match the whole text: always ``fullmatch``. All are compiled when the model is
loaded; a pattern that does not compile is a line in the log then, never a failed request later.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Protocol

log = logging.getLogger("serving.control")

#: What neither ``re`` nor ``regex`` reads as Java does: surrogate pairs inside a class, and a quantifier that the
#: model's authors put behind an anchor (meant is the length, which has limits of its own).
_PLAIN, _METADATA = r"[\u0020-\uD7FF\uE000-\uFFFD", r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)"
_TRANSLATED = {
    rf"{_PLAIN}\uD800\uDC00-\uDBFF\uDFFF\t]*": rf"{_PLAIN}\U00010000-\U0010FFFF\t]*",
    rf"{_PLAIN}\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*": rf"{_PLAIN}\U00010000-\U0010FFFF\r\n\t]*",
    _METADATA + "${1,128}": _METADATA,
    _METADATA + "${1,256}": _METADATA,
}


class Matcher(Protocol):
    """A compiled pattern, of whichever library."""

    def fullmatch(self, text: str, /) -> Any:
        """Something true when all of ``text`` matches."""
        ...


def compile_pattern(source: str) -> Matcher | None:
    """The pattern, or None (logged) when nothing here can read it: what it would have checked is then not checked.
    Java's ``\\d``, ``\\w`` and ``\\s`` are ASCII's; ``regex`` reads what ``re`` cannot, Unicode classes above all."""
    translated = _TRANSLATED.get(source, source)
    try:
        return re.compile(translated, re.ASCII)
    except re.error:
        pass
    import regex  # megabytes that only the process which checks needs

    try:
        compiled: Matcher = regex.compile(translated)  # no ASCII flag: \p{L} would be ASCII's letters then
    except regex.error as error:
        log.warning("a pattern of AWS's model cannot be checked: %s (%s)", source, error)
        return None
    return compiled
