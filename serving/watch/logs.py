"""Log lines, as text for a person or JSON for a machine, from the standard library's logging alone.

One record is one line, whatever a caller or model put into it: every character that is not printable is written as
its escape, so nobody can forge an entry, move the cursor or turn the reading direction. A module logs with
``extra={"request_id": ..., "endpoint": ..., "variant": ..., "model": ...}``; those fields stand in every line that
has them. Fronts and workers import this: it must stay cheap.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

from serving.config import wants_colour

#: The attributes every record has; any other came from ``extra``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_RESET = "\x1b[0m"


def printable(text: str) -> str:
    """``text`` with everything that is not printable (line ends, control and direction characters, lone surrogates)
    escaped as in a Python string. A plain text is returned as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """The fields given as ``extra``; empty ones (no target model, no variant yet) are left out."""
    return ((name, value) for name, value in vars(record).items() if name not in _OWN and value not in (None, ""))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a wrong format string must not cost the entry
        return f"{record.msg} {record.args!r}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, the extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of ASCII."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        entry |= {name: _plain(value) for name, value in _extra(record) if name not in entry}
        if record.exc_info and record.exc_info[0]:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, separators=(",", ":"))


def _plain(value: object) -> str | int | float:
    """What JSON can say: numbers that are finite stay numbers, all else is text."""
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


class TextFormatter(logging.Formatter):
    """``time LEVEL logger  message  field=value ...``; a traceback follows, each of its lines behind a bar."""

    def __init__(self, colour: bool = False) -> None:
        """``colour``: the stream is a terminal whose reader wants colours."""
        super().__init__()
        self._colours = _COLOURS if colour else {}

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and one more for each line of a traceback."""
        colour = self._colours.get(record.levelname, "")
        level = f"{colour}{record.levelname:<7}{_RESET}" if colour else f"{record.levelname:<7}"
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in _extra(record))
        line = f"{_time(record)} {level} {printable(record.name)}: {printable(_message(record))}{pairs}"
        if record.exc_info and record.exc_info[0]:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n  | {printable(part)}" for part in trace)
        return line


def _quoted(value: object) -> str:
    """A field's value: bare when it is one word, in quotes when it could be mistaken for several fields."""
    text = str(value)
    if text.isprintable() and not any(c in ' "=\\' for c in text):
        return text
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def configure(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log to ``stream`` (standard error). Replaces what was configured before, so that a child
    may call it again. Libraries are heard from warnings up; ``serving`` and ``uvicorn`` from ``level``."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(wants_colour(stream.isatty())))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("serving", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
