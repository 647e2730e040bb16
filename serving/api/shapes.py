"""The kinds of value in an AWS service model: each checks what a caller sent and shapes what we answer.

``check`` returns the value as the rest of the server wants it (unknown members dropped, numbers of the right type,
times as epoch seconds) and tells a ``Request`` what is wrong with it; the caller raises when anything was. ``shape``
turns a stored or computed value into the answer's JSON value. A number where a text should be is a complaint like any
other: AWS's ``SerializationException`` would name neither the member nor the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from serving.api.complaints import Complaints, Path
from serving.api.schema_patterns import Matcher

_DEEPEST = 64
#: Longest text that a pattern is tried on when the model names no limit itself.
_LONGEST_MATCHED = 65_536
_LONGEST_PATH = 4096
#: 0001-01-01 and 9999-12-31, epoch seconds.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800.0, 253_402_300_799.0
LARGEST_FLOAT = 3.4028234663852886e38  # single precision, as AWS's Float


@dataclass(frozen=True, slots=True)
class Request:
    """One request being checked. ``trusted``: from the operator, whose models may lie at any path; ``unknown`` hears
    of members that the model does not have."""

    complaints: Complaints
    unknown: Callable[[str, str], None]
    trusted: bool = False


class Node(Protocol):
    """One shape of the model."""

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """The value in our form; what is wrong with it goes to ``request.complaints``."""
        ...

    def shape(self, value: Any) -> Any:
        """The value in the answer's form."""
        ...


def _size_rules(low: int | None, high: int | None) -> list[str]:
    rules = [] if high is None else [f"Member must have length less than or equal to {high}"]
    return rules if low is None else [*rules, f"Member must have length greater than or equal to {low}"]


def _size_fault(size: int, low: int | None, high: int | None) -> str:
    """The rule that ``size`` breaks, or empty."""
    if high is not None and size > high:
        return f"Member must have length less than or equal to {high}"
    if low is not None and size < low:
        return f"Member must have length greater than or equal to {low}"
    return ""


@dataclass(frozen=True, slots=True)
class Text:
    """``source``: the pattern as AWS writes it; ``words``: an enum's; ``local``: the place of a model, which may also
    be a ``file://`` URL or, in a trusted request, a path."""

    low: int | None = None
    high: int | None = None
    source: str = ""
    pattern: Matcher | None = None
    words: tuple[str, ...] = ()
    secret: bool = False
    local: bool = False

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """A text within its limits."""
        for rule in self.faults(value, request.trusted):
            request.complaints.add(path, value, rule, self.secret)
        return value

    def shape(self, value: Any) -> Any:
        """As it is."""
        return value

    @property
    def rules(self) -> list[str]:
        """All that a text must satisfy."""
        rules = _size_rules(self.low, self.high)
        if self.words:
            rules.append(self._enum_rule)
        return [*rules, self._pattern_rule] if self.source else rules

    @property
    def _enum_rule(self) -> str:
        return f"Member must satisfy enum value set: [{', '.join(self.words)}]"

    @property
    def _pattern_rule(self) -> str:
        return f"Member must satisfy regular expression pattern: {self.source}"

    def faults(self, value: object, trusted: bool) -> list[str]:
        """The rules that ``value`` breaks. No pattern sees a text that is too long."""
        if not isinstance(value, str):
            return ["Member must be a string"]
        if not value.isascii() and not _is_unicode(value):
            return ["Member must be valid Unicode"]
        if self.local and trusted:
            return [] if 0 < len(value) <= _LONGEST_PATH and "\0" not in value else ["Member must be a path or URL"]
        size_fault = _size_fault(len(value), self.low, self.high)
        faults = [size_fault] if size_fault else []
        if len(value) > (_LONGEST_MATCHED if self.high is None else self.high):
            return faults or [f"Member must have length less than or equal to {_LONGEST_MATCHED}"]
        if self.words and value not in self.words:
            faults.append(self._enum_rule)
        if self.pattern is not None and not self.pattern.fullmatch(value):
            faults.append(self._pattern_rule)
        return faults


def _is_unicode(value: str) -> bool:
    """Not half a surrogate pair, which no encoding can write."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Number:
    """``whole``: integers only. ``low``, ``high``: both ends allowed; the type's own limits where the model names
    none."""

    whole: bool
    low: float
    high: float

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """An int or a float, as the model wants it; ``2.0`` is a whole number, ``true`` is none."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            request.complaints.add(path, value, f"Member must be {'an integer' if self.whole else 'a number'}")
        elif self.whole and value != math.floor(value):
            request.complaints.add(path, value, "Member must be an integer")
        elif value > self.high:
            request.complaints.add(path, value, f"Member must have value less than or equal to {self.high}")
        elif value < self.low:
            request.complaints.add(path, value, f"Member must have value greater than or equal to {self.low}")
        else:
            return int(value) if self.whole else float(value)
        return value

    def shape(self, value: Any) -> Any:
        """As it is."""
        return value


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false, and nothing that merely counts as such."""

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """A bool."""
        if not isinstance(value, bool):
            request.complaints.add(path, value, "Member must be a boolean")
        return value

    def shape(self, value: Any) -> Any:
        """As it is."""
        return value


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Epoch seconds, fractions allowed; ISO 8601 text is read too."""

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """Epoch seconds as a float."""
        moment = _moment(value)
        if moment is None:
            request.complaints.add(path, value, "Member must be a timestamp")
        return moment

    def shape(self, value: Any) -> Any:
        """Epoch seconds, to the millisecond as AWS gives them."""
        return round(value, 3)


def _moment(value: object) -> float | None:
    if isinstance(value, str) and len(value) <= 64:
        try:
            read = datetime.fromisoformat(value)
            value = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if _FIRST_SECOND <= value <= _LAST_SECOND else None  # false for NaN


@dataclass(frozen=True, slots=True)
class List:
    """A list of one shape."""

    item: Node
    low: int | None = None
    high: int | None = None

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """The checked items. Those of a list that is too long are not looked at."""
        if not isinstance(value, list):
            request.complaints.add(path, value, "Member must be a list")
            return []
        fault = _size_fault(len(value), self.low, self.high)
        if fault:
            request.complaints.add(path, value, fault)
            return []
        return [self._item(item, (*path, str(at), "member"), request) for at, item in enumerate(value, start=1)]

    def _item(self, item: Any, path: Path, request: Request) -> Any:
        if item is not None:
            return self.item.check(item, path, request)
        return request.complaints.add(path, None, "Member must not be null")

    def shape(self, value: Any) -> Any:
        """Every item shaped."""
        return [self.item.shape(item) for item in value]


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping from texts to one shape."""

    key: Text
    value: Node
    low: int | None = None
    high: int | None = None

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """The checked pairs. Those of a map that is too large are not looked at."""
        if not isinstance(value, dict):
            request.complaints.add(path, value, "Member must be a map")
            return {}
        fault = _size_fault(len(value), self.low, self.high)
        if fault:
            request.complaints.add(path, value, fault)
            return {}
        return {key: self._pair(key, inner, path, request) for key, inner in value.items()}

    def _pair(self, key: Any, value: Any, path: Path, request: Request) -> Any:
        """AWS names the map, and all that its keys (or values) must satisfy."""
        if self.key.faults(key, False):
            rules = ", ".join(self.key.rules) or "Member must be a string"
            request.complaints.add(path, key, f"Map keys must satisfy constraint: [{rules}]")
            return value
        if value is None:
            return request.complaints.add((*path, key, "member"), None, "Member must not be null")
        if not isinstance(self.value, Text):
            return self.value.check(value, (*path, key, "member"), request)
        if not isinstance(value, str):
            return self.value.check(value, (*path, key), request)
        if self.value.faults(value, False):
            rules = ", ".join(self.value.rules)
            request.complaints.add(path, {key: value}, f"Map value must satisfy constraint: [{rules}]")
        return value

    def shape(self, value: Any) -> Any:
        """Every value shaped."""
        return {key: self.value.shape(inner) for key, inner in value.items() if inner is not None}


def _camel(name: str) -> str:
    """How AWS's messages spell a member."""
    return name[:1].lower() + name[1:]


@dataclass(frozen=True, slots=True)
class Structure:
    """Named members. ``members`` is filled in after the fact, as shapes may hold themselves."""

    name: str
    required: tuple[str, ...] = ()
    union: bool = False
    members: dict[str, Node] = field(default_factory=dict, repr=False)

    def check(self, value: Any, path: Path, request: Request) -> Any:
        """The known members that are set: null is AWS's word for absent."""
        if not isinstance(value, dict):
            request.complaints.add(path, value, "Member must be a structure")
            return {}
        if len(path) > _DEEPEST:
            request.complaints.add(path, value, f"Member must not be nested deeper than {_DEEPEST} steps")
            return {}
        known = {}
        for name, inner in value.items():
            node = self.members.get(name)
            if node is None:
                request.unknown(self.name, str(name))
            elif inner is not None:
                known[name] = node.check(inner, (*path, _camel(name)), request)
        for name in self.required:
            if name not in known:
                request.complaints.add((*path, _camel(name)), None, "Member must not be null")
        if self.union and len(known) != 1:
            request.complaints.add(path, value, "Member must have exactly one of its members set")
        return known

    def shape(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The modelled members that are set. A structure in which nothing is set is unset itself, unless its member is
        required or it was given so: a caller's ``NotificationConfig: {}`` comes back."""
        made = {}
        for name, node in self.members.items():
            given = value.get(name)
            if given is None:
                continue
            shaped = node.shape(given)
            if shaped or not given or name in self.required or not isinstance(node, Structure):
                made[name] = shaped
        return made
