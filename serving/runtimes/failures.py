"""What a framework says when it refuses, made fit for a caller: one sentence, no host path, no stack trace."""

from __future__ import annotations

import re

_LONGEST = 300
_PATH = re.compile(r"(?:file://)?(?<![\w.])/(?:[^\s/'\":,()\[\]]+/)+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
#: XGBoost and dmlc head their messages with a time and a C++ source line.
_NATIVE_HEAD = re.compile(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: ")
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "not enough memory",
    "out of memory",
)


def said(error: BaseException | str) -> str:
    """The first telling line of an error's text, folders cut from paths, at most 300 characters."""
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return error if isinstance(error, str) else type(error).__name__
    line = _NATIVE_HEAD.sub("", lines[0])
    line = _CONTROL.sub(" ", _PATH.sub("", line)).strip()
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a framework's error means that memory ran out, whatever its type."""
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)
