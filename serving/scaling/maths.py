"""Metric maths, as CloudWatch writes it: expressions over metrics and other expressions. Pure.

::

    m1 / (m1 + m2) * 100        IF(m1 > 10, m2, 0)        SUM([m1, m2])        FILL(m1, 0) - MIN(m1)

There are numbers, series and lists of series. Operators and functions go point by point, over the points in time at
which every series they take has one; ``SUM``, ``AVG``, ``MIN`` and ``MAX`` of one series are numbers, of a list series.
What is no number (a division by zero, an overflow) is no point.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from serving.errors import ValidationError
from serving.scaling.values import Query, Stat

#: (start of the period, value), oldest first.
Series = Sequence[tuple[float, float]]
_Points = dict[float, float]
_Value = float | _Points | list["_Value"]

_LONGEST, _DEEPEST, _MOST_PARTS = 2048, 40, 200
#: Points that all expressions of one call may compute together: others wait for it.
MOST_POINTS = 500_000
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<word>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<sign>>=|<=|==|!=|&&|\|\||[-+*/^()\[\],<>]))"
)


class _Node(NamedTuple):
    """Part of an expression: ``what`` is "number", "id", "list", or an operator's or function's name."""

    what: str
    parts: tuple[_Node, ...] = ()
    text: str = ""


# --- reading ----------------------------------------------------------------------------------------------------------

_BINARY: tuple[tuple[str, ...], ...] = (("OR",), ("AND",), (">=", "<=", "==", "!=", "<", ">"), ("+", "-"), ("*", "/"))
_QUIET = frozenset("()[],")
_SPELLINGS = {"&&": "AND", "||": "OR"}


class _Parser:
    """By recursive descent."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ValidationError(f"An expression has {_LONGEST} characters at most.")
        self._text = text
        self._tokens = list(_tokens(text))
        if sum(token not in _QUIET for token in self._tokens) > 2 * _MOST_PARTS:
            raise ValidationError(f"An expression has {_MOST_PARTS} operators and functions at most.")
        self._at = 0
        self._depth = 0

    def whole(self) -> _Node:
        """All of it."""
        found = self._binary(0)
        if self._at < len(self._tokens):
            raise self._wrong(f"nothing can follow before {self._tokens[self._at]!r}")
        return found

    def _wrong(self, why: str) -> ValidationError:
        return ValidationError(f"The expression {self._text[:200]!r} cannot be read: {why}.")

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._next()
        if token not in wanted:
            return ""
        self._at += 1
        return token

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            raise self._wrong(f"{wanted!r} is missing" + (f" before {self._next()!r}" if self._next() else ""))

    def _binary(self, level: int) -> _Node:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while sign := self._take(*_BINARY[level]):
            left = _Node(sign, (left, self._binary(level + 1)))
        return left

    def _unary(self) -> _Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(f"it is nested more than {_DEEPEST} deep")
        try:
            sign = self._take("-", "+")
            if sign:
                inner = self._unary()
                return _Node("negative", (inner,)) if sign == "-" else inner
            base = self._atom()
            return _Node("^", (base, self._unary())) if self._take("^") else base
        finally:
            self._depth -= 1

    def _atom(self) -> _Node:
        token = self._next()
        self._at += 1
        if not token:
            raise self._wrong("it ends too early")
        if token == "(":
            inner = self._binary(0)
            self._expect(")")
            return inner
        if token == "[":
            return _Node("list", self._several("]"))
        if token[0].isdigit() or token[0] == ".":
            return _Node("number", text=token)
        if token[0].islower():
            return _Node("id", text=token)
        if token in _FUNCTIONS or token == "FILL":
            self._expect("(")
            return self._function(token, self._several(")"))
        raise self._wrong(f"there is no {token!r}" if token[0].isalpha() else f"{token!r} is out of place")

    def _several(self, end: str) -> tuple[_Node, ...]:
        found = [self._binary(0)]
        while self._take(","):
            found.append(self._binary(0))
        self._expect(end)
        return tuple(found)

    def _function(self, name: str, parts: tuple[_Node, ...]) -> _Node:
        least, most = (2, 2) if name == "FILL" else _FUNCTIONS[name][:2]
        if not least <= len(parts) <= most:
            raise self._wrong(f"{name} takes {least if least == most else f'{least} or {most}'} arguments")
        return _Node(name, parts)


def _tokens(text: str) -> Iterator[str]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            wrong = text[at : at + 20]
            raise ValidationError(f"The expression {text[:200]!r} cannot be read: {wrong!r} is no part of one.")
        token = found[0].strip()
        yield _SPELLINGS.get(token, token)
        at = found.end()


# --- computing --------------------------------------------------------------------------------------------------------


def _divide(a: float, b: float) -> float:
    return a / b if b else math.nan


def _power(a: float, b: float) -> float:
    found = a**b
    return found if isinstance(found, float) else math.nan


_SIGNS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "^": _power,
    ">": lambda a, b: float(a > b),
    "<": lambda a, b: float(a < b),
    ">=": lambda a, b: float(a >= b),
    "<=": lambda a, b: float(a <= b),
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "AND": lambda a, b: float(bool(a and b)),
    "OR": lambda a, b: float(bool(a or b)),
}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _over(of: Callable[[list[float]], float]) -> Callable[[_Value], _Value]:
    """A function of many numbers: of a series over time, of a list point by point."""

    def applied(value: _Value) -> _Value:
        if isinstance(value, list):
            return _pointwise(lambda *numbers: of(list(numbers)), *value)
        if isinstance(value, dict):
            return _number(lambda: of(list(value.values()))) if value else math.nan
        return value

    return applied


def _each(of: Callable[[float], float]) -> Callable[[_Value], _Value]:
    """A function of one number: of each point."""

    def applied(value: _Value) -> _Value:
        return [applied(one) for one in value] if isinstance(value, list) else _pointwise(of, value)

    return applied


#: Name -> least and most arguments, what it does.
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., _Value]]] = {
    "SUM": (1, 1, _over(math.fsum)),
    "AVG": (1, 1, _over(_mean)),
    "MIN": (1, 1, _over(min)),
    "MAX": (1, 1, _over(max)),
    "ABS": (1, 1, _each(abs)),
    "CEIL": (1, 1, _each(math.ceil)),
    "FLOOR": (1, 1, _each(math.floor)),
    "IF": (2, 3, lambda *given: _choice(*given)),
}


def _number(of: Callable[[], float]) -> float:
    try:
        found = float(of())
    except (OverflowError, ZeroDivisionError, ValueError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def _pointwise(of: Callable[..., float], *given: _Value) -> _Value:
    """``of`` the numbers; if there is a series among them, at every point that all series have."""
    if any(isinstance(one, list) for one in given):
        raise ValidationError("A list of metrics is out of place in an expression: SUM, AVG, MIN and MAX take one.")
    series = [one for one in given if isinstance(one, dict)]
    if not series:
        return _number(lambda: of(*given))
    found = {}
    for at in series[0]:
        if all(at in one for one in series):
            numbers = [one[at] if isinstance(one, dict) else one for one in given]
            value = _number(lambda numbers=numbers: of(*numbers))  # type: ignore[misc]  # a default binds it
            if not math.isnan(value):
                found[at] = value
    return found


def _choice(condition: _Value, then: _Value, otherwise: _Value | None = None) -> _Value:
    """``IF``: point by point; without its third, no point where the condition does not hold."""
    if otherwise is not None:
        return _pointwise_choice(condition, then, otherwise)
    return _pointwise(lambda c, a: a if c else math.nan, condition, then)


def _pointwise_choice(condition: _Value, then: _Value, otherwise: _Value) -> _Value:
    """Of the two branches only the one that is taken needs a point."""
    if not isinstance(condition, dict):
        return _pointwise(lambda c, a, b: a if c else b, condition, then, otherwise)
    found: _Points = {}
    for at, holds in condition.items():
        branch = then if holds else otherwise
        value = branch.get(at, math.nan) if isinstance(branch, dict) else branch
        if isinstance(value, list):
            raise ValidationError("IF takes metrics and numbers, no lists.")
        if not math.isnan(value):
            found[at] = value
    return found


def _size(value: _Value) -> int:
    """About how many points somebody looks at who looks at all of it."""
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, dict) else 1


class _Computation:
    """The queries of one call, each computed once, in whatever order they name each other."""

    def __init__(
        self, queries: Sequence[Query], fetch: Callable[[Query], Series], times: Sequence[float], most: int
    ) -> None:
        self._queries = {query.id: query for query in queries}
        self._fetch = fetch
        self._times = times
        self._most = self._left = most
        self._found: dict[str, _Value] = {}

    def is_expression(self, id: str) -> bool:
        """Is it no metric?"""
        return self._queries[id].stat is None

    def compute(self, id: str) -> None:
        """Metrics come first, then expressions after those that they name."""
        query = self._queries[id]
        self._found[id] = self._of(_parsed(query.expression)) if query.stat is None else dict(self._fetch(query))

    def value(self, id: str) -> _Value:
        """What a query that has been computed came to."""
        return self._found[id]

    def times(self) -> list[float]:
        """Those at which any metric has a point, and those the caller named."""
        metrics = [self._found.get(id) for id, query in self._queries.items() if query.stat is not None]
        found = sorted({*self._times, *(at for one in metrics if isinstance(one, dict) for at in one)})
        self._take(len(found))
        return found

    def _take(self, points: int) -> None:
        self._left -= points
        if self._left < 0:
            raise ValidationError(f"Its expressions may compute {self._most} points at most, all together.")

    def _of(self, node: _Node) -> _Value:
        if node.what == "number":
            return _number(lambda: float(node.text))
        if node.what == "id":
            return self.value(node.text)
        if node.what == "FILL":
            return self._filled(*node.parts)
        parts = [self._of(one) for one in node.parts]
        self._take(sum(map(_size, parts)))
        if node.what == "list":
            if any(isinstance(one, list) for one in parts):
                raise ValidationError("A list of metrics cannot be within another.")
            return parts
        if node.what == "negative":
            return _each(operator.neg)(parts[0])
        if node.what in _SIGNS:
            return _pointwise(_SIGNS[node.what], *parts)
        return _FUNCTIONS[node.what][2](*parts)

    def _filled(self, series: _Node, by: _Node) -> _Value:
        """Points at all times at which anything has one, or that the caller named."""
        found, other = self._of(series), self._of(by)
        if not isinstance(found, dict):
            return found
        filled = {}
        for at in self.times():
            value = found.get(at, other.get(at, math.nan) if isinstance(other, dict) else other)
            if isinstance(value, list):
                raise ValidationError("FILL takes metrics and numbers, no lists.")
            if not math.isnan(value):
                filled[at] = value
        return filled


def _parsed(expression: str) -> _Node:
    return _Parser(expression).whole()


def _ids(node: _Node) -> Iterator[str]:
    if node.what == "id":
        yield node.text
    for part in node.parts:
        yield from _ids(part)


# --- what others call -------------------------------------------------------------------------------------------------


def _order(queries: Sequence[Query]) -> list[str]:
    """Their ids, each after those that it names. Raises ``ValidationError`` for an expression that cannot be read,
    names what there is not, or itself."""
    uses = {query.id: set(_ids(_parsed(query.expression))) if query.stat is None else set() for query in queries}
    for id, named in uses.items():
        missing = sorted(named - uses.keys())
        if missing:
            raise ValidationError(f"The expression {id} names {missing[0]}, which is not among the queries.")
    order: list[str] = []
    while uses:
        free = [id for id, named in uses.items() if not named & uses.keys()]
        if not free:
            raise ValidationError(f"The expressions {', '.join(sorted(uses))} name each other.")
        order += free
        for id in free:
            del uses[id]
    return order


def all_of(
    queries: Sequence[Query],
    fetch: Callable[[Query], Series],
    times: Sequence[float] = (),
    most: int = MOST_POINTS,
) -> dict[str, Series]:
    """Every query that is ``returned``, by its id. ``fetch``: the series of a query that is a metric; ``times``: where
    FILL fills, beyond the times at which any metric has a point. A number stands at each of these times;
    ``most``: points to compute. Raises ``ValidationError`` for what cannot be read, is more than that, or is a list."""
    order = _order(queries)
    computation = _Computation(queries, fetch, times, most)
    for id in sorted(order, key=computation.is_expression):
        computation.compute(id)
    return {query.id: _series(query, computation) for query in queries if query.returned}


def _series(query: Query, computation: _Computation) -> Series:
    value: Any = computation.value(query.id)
    if isinstance(value, list):
        raise ValidationError(f"The expression {query.id} is a list of metrics, not one.")
    if isinstance(value, dict):
        return sorted(value.items())
    return [] if math.isnan(value) else [(at, value) for at in computation.times()]


def evaluate(
    queries: Sequence[Query],
    fetch: Callable[[Stat], Series],
    times: Sequence[float] = (),
    most: int = MOST_POINTS,
) -> Series:
    """The one query that is ``returned``. ``fetch``: the series of a metric. Raises ``ValidationError`` as ``all_of``
    does, and unless just one is."""

    def series(query: Query) -> Series:
        assert query.stat is not None
        return fetch(query.stat)

    if sum(query.returned for query in queries) != 1:
        raise ValidationError("Exactly one of the metrics and expressions must be returned.")
    (found,) = all_of(queries, series, times, most).values()
    return found
