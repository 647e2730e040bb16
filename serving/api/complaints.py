"""What is wrong with a request, in the grammar of AWS's validation errors (``api/02``, error texts).

::

    2 validation errors detected: Value 'a_b' at 'modelName' failed to satisfy constraint: Member must satisfy regular
    expression pattern: ...; Value null at 'containers.1.member.image' failed to satisfy constraint: ...

Paths are lower-camel member names and 1-based ``.member`` steps. Values are clipped and errors counted on beyond the
few that are told: a message is small whatever was sent.
"""

from __future__ import annotations

from collections.abc import Iterator

from serving.errors import ValidationError

#: Steps to a member: lower-camel names, ``1``, ``member``, a map's keys as they are.
Path = tuple[str, ...]

_MOST_TOLD = 10
_LONGEST_VALUE, _LONGEST_STEP = 256, 128
_MOST_SHOWN, _DEEPEST_SHOWN = 3, 2


class Complaints:
    """Everything found wrong with one request."""

    def __init__(self) -> None:
        self._count = 0
        self._told: list[str] = []

    def add(self, path: Path, value: object, rule: str, secret: bool = False) -> None:
        """``value`` at ``path`` breaks ``rule`` ("Member must ..."). ``secret``: the value is not repeated."""
        self._count += 1
        if len(self._told) < _MOST_TOLD:
            at = ".".join(_clipped(step, _LONGEST_STEP) for step in path)
            given = "Value" if secret else f"Value {_shown(value)}"
            self._told.append(f"{given} at '{at}' failed to satisfy constraint: {rule}")

    def raise_any(self) -> None:
        """Raises ``ValidationError`` when there is at least one."""
        if self._count:
            plural = "s" if self._count > 1 else ""
            more = [f"and {self._count - len(self._told)} more"] if self._count > len(self._told) else []
            raise ValidationError(f"{self._count} validation error{plural} detected: {'; '.join(self._told + more)}")


def _shown(value: object) -> str:
    return "null" if value is None else f"'{_clipped(_text(value, 0), _LONGEST_VALUE)}'"


def _text(value: object, depth: int) -> str:
    """Lists and maps as Java prints them, but only their beginning."""
    if isinstance(value, str):
        return value[: _LONGEST_VALUE + 1]
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | dict):
        left, right = "[]" if isinstance(value, list) else "{}"
        inner = "..." if depth >= _DEEPEST_SHOWN else ", ".join(_beginning(value, depth + 1))
        return left + inner + right
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    return str(value)


def _beginning(value: list[object] | dict[object, object], depth: int) -> Iterator[str]:
    for at, item in enumerate(value):
        if at == _MOST_SHOWN:
            yield "..."
            return
        yield f"{_text(item, depth)}={_text(value[item], depth)}" if isinstance(value, dict) else _text(item, depth)


def _clipped(text: str, longest: int) -> str:
    """Printable, and no longer than ``longest``."""
    clean = "".join(one if one.isprintable() else "?" for one in text[:longest])
    return clean + "..." if len(text) > longest else clean
