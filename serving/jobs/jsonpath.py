"""The filters of a batch job: the part of JSONPath that DataProcessing's InputFilter and OutputFilter may use
(behaviour/04, "DataProcessing").

::

    filter   = "$" *step
    step     = "." name | ".*" | "[*]" | "[" names "]" | "[" indexes "]"
    names    = 'name' *( "," 'name' )          quoted with ' or "; a backslash takes the next character as it is
    indexes  = index *( "," index )            index = [-]n | [a]:[b], b not included

What it selects, as in the library that AWS names (Jayway's JsonPath):

* A path of names and single indexes selects one value. Nothing there is an error: ``PathMissing``.
* ``['a','b']`` at the end selects an object of these members; before the end, each of them.
* ``*``, slices and unions select many values: a list of them. An index or name they list must exist; behind the first
  ``*`` or slice, elements that lack what follows are left out.

Parsed once, without regular expressions on anything but the filter's own 63 characters. Selecting visits every value
once per step and per time that unions repeat it, which is bounded (``_MOST_REPEATS``): no filter runs away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from serving.errors import ValidationError

#: Characters (SageMaker API, DataProcessing).
MAX_FILTER = 63
#: How often unions may select one value: ``[0,0][0,0]`` doubles it twice, sixty characters of that a thousand times.
_MOST_REPEATS = 64

_TOKEN = re.compile(
    r"""\.(?P<name>[^\W\d][\w-]*|\*)"""
    r"""|\[\s*(?P<all>\*)\s*\]"""
    r"""|\[(?P<names>\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*(?:,\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*)*)\]"""
    r"""|\[(?P<indexes>[-\d:,\s]+)\]"""
)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_INDEX = re.compile(r"\s*(?:(?P<at>-?\d+)|(?P<start>-?\d+)?\s*:\s*(?P<stop>-?\d+)?)\s*")


class PathMissing(Exception):
    """The document has nothing where the filter points. ``str`` says what, fit for a caller."""


Index = int | slice


@dataclass(frozen=True, slots=True)
class Names:
    """``.a`` (one) or ``['a','b']``."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Indexes:
    """``[0]``, ``[1:]``, ``[0,5:]``."""

    indexes: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Everything:
    """``*``."""


Step = Names | Indexes | Everything


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed filter. ``steps`` empty: ``$``, the whole document."""

    text: str
    steps: tuple[Step, ...]

    @property
    def whole(self) -> bool:
        """It changes nothing."""
        return not self.steps

    @property
    def columns(self) -> tuple[Index, ...] | None:
        """What it takes of an array of plain cells, a CSV row; None when it is no such filter."""
        if self.whole or self.steps == (Everything(),):
            return (slice(None),)
        if len(self.steps) == 1 and isinstance(step := self.steps[0], Indexes):
            return step.indexes
        return None

    def select(self, document: Any) -> Any:
        """What the filter selects of parsed JSON. Raises ``PathMissing``."""
        found, many, loose = [document], False, False
        for number, step in enumerate(self.steps, 1):
            found = [value for each in found for value in _take(step, each, number == len(self.steps), loose)]
            many = many or _selects_many(step, number == len(self.steps))
            loose = loose or _is_open(step)
        return found if many else found[0]


def parse(text: str, field: str) -> Path:
    """A filter of the job's ``field`` (InputFilter, OutputFilter). Raises ``ValidationError``, which names it and the
    place."""
    if len(text) > MAX_FILTER:
        raise ValidationError(f"{field} has {len(text)} characters; a filter has at most {MAX_FILTER}.")
    if not text.startswith("$"):
        _refuse(field, text, 0, "a filter starts with '$'")
    steps: list[Step] = []
    at = 1
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            _refuse(field, text, at, _hint(text[at:]))
        steps.append(_step(token, field, text))
        at = token.end()
    repeats = math.prod(len(step.names) if isinstance(step, Names) else _width(step) for step in steps[:-1])
    if steps and repeats * _width(steps[-1]) > _MOST_REPEATS:
        raise ValidationError(f"{field} {text!r} may select one value more than {_MOST_REPEATS} times.")
    return Path(text, tuple(steps))


def _width(step: Step) -> int:
    return len(step.indexes) if isinstance(step, Indexes) else 1


def _refuse(field: str, text: str, at: int, why: str) -> NoReturn:
    raise ValidationError(f"{field} {text!r} cannot be read at character {at + 1}: {why}.")


def _hint(rest: str) -> str:
    """What is wrong with a step, for those who know more of JSONPath than there is here."""
    if rest.startswith(".."):
        return "'..' is not supported"
    if rest.startswith(("[?", "[(")):
        return "expressions are not supported"
    if rest.startswith("["):
        return "brackets hold '*', quoted names, or indexes and slices without a step"
    return "expected '.name', '.*' or '['"


def _step(token: re.Match[str], field: str, text: str) -> Step:
    if token["all"] or token["name"] == "*":
        return Everything()
    if token["name"]:
        return Names((token["name"],))
    if token["names"]:
        quoted = (match[1] if match[1] is not None else match[2] for match in _QUOTED.finditer(token["names"]))
        return Names(tuple(re.sub(r"\\(.)", r"\1", name) for name in quoted))
    at = token.start("indexes")
    indexes: list[Index] = []
    for part in token["indexes"].split(","):
        index = _INDEX.fullmatch(part)
        if index is None:
            _refuse(field, text, at, "expected an index or a slice without a step")
        indexes.append(int(index["at"]) if index["at"] else slice(_number(index["start"]), _number(index["stop"])))
        at += len(part) + 1
    return Indexes(tuple(indexes))


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _is_open(step: Step) -> bool:
    """How many values it selects is up to the document."""
    return isinstance(step, Everything) or (
        isinstance(step, Indexes) and any(isinstance(i, slice) for i in step.indexes)
    )


def _selects_many(step: Step, last: bool) -> bool:
    if isinstance(step, Names):
        return len(step.names) > 1 and not last
    return _is_open(step) or (isinstance(step, Indexes) and len(step.indexes) > 1)


def _take(step: Step, value: Any, last: bool, loose: bool) -> Sequence[Any]:
    """What a step selects of one value; ``loose``: nothing where there is nothing, instead of ``PathMissing``."""
    try:
        return _STEPS[type(step)](step, value, last)
    except PathMissing:
        if loose:
            return ()
        raise


def _members(step: Names, value: Any, last: bool) -> Sequence[Any]:
    if not isinstance(value, dict):
        raise PathMissing(f"there is no member {step.names[0]!r} in {_kind(value)}")
    for name in step.names:
        if name not in value:
            raise PathMissing(f"there is no member {name!r}")
    if last and len(step.names) > 1:
        return ({name: value[name] for name in step.names},)
    return [value[name] for name in step.names]


def _elements(step: Indexes, value: Any, last: bool) -> Sequence[Any]:
    if not isinstance(value, list):
        raise PathMissing(f"there is nothing to index in {_kind(value)}")
    return pick(value, step.indexes)


def _all(step: Everything, value: Any, last: bool) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return value
    raise PathMissing(f"'*' selects nothing in {_kind(value)}")


_STEPS: dict[type[Any], Callable[[Any, Any, bool], Sequence[Any]]] = {
    Names: _members,
    Indexes: _elements,
    Everything: _all,
}


def pick(values: list[Any], indexes: Sequence[Index]) -> list[Any]:
    """The elements that indexes and slices select, in their order. Raises ``PathMissing`` for an index outside."""
    picked: list[Any] = []
    for index in indexes:
        if isinstance(index, slice):
            picked += values[index]
        elif -len(values) <= index < len(values):
            picked.append(values[index])
        else:
            raise PathMissing(f"there is no index {index} in {len(values)} values")
    return picked


def _kind(value: Any) -> str:
    kinds: dict[type[Any], str] = {dict: "an object", list: "an array", str: "a string", type(None): "null"}
    return kinds.get(type(value), "a number" if not isinstance(value, bool) else "a boolean")
