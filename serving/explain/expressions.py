"""JMESPath as explanations use it: EnableExplanations, and where features, probabilities and labels are
(SageMaker API, ClarifyInferenceConfig; ``behaviour/06``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from serving.errors import ValidationError

#: A caller's expression may make of a record so many times its size.
_MOST_GROWTH = 16


@lru_cache(maxsize=256)
def parsed(text: str, name: str) -> ParsedResult:
    """The expression; ``name`` says whose it is. Raises ``ValidationError``."""
    try:
        return jmespath.compile(text)
    except JMESPathError as error:
        raise ValidationError(f"{name} {text!r} is not a valid JMESPath expression: {_said(error)}.") from None


@lru_cache(maxsize=256)
def enabling(text: str) -> ParsedResult:
    """The expression of EnableExplanations, which callers may choose. Raises ``ValidationError``, also for one that
    makes lists of a whole record again and again (``[@,@][]|[@,@][]``) or puts a text between all of its members:
    no record's size would bound its memory and time."""
    made = parsed(text, "EnableExplanations")
    if _growth(made.parsed) > _MOST_GROWTH:
        raise ValidationError(f"EnableExplanations {text!r} makes too much of a record.")
    return made


def holds(text: str, record: Any) -> bool:
    """Is a record of the model's output to be explained? Raises ``ValidationError`` when the result is neither true
    nor false."""
    enabling(text)
    result = found(text, record, "EnableExplanations")
    if not isinstance(result, bool):
        shown = "null" if result is None else repr(result)[:64]
        raise ValidationError(f"EnableExplanations {text!r} must be true or false for each record; it was {shown}.")
    return result


def found(text: str, record: Any, name: str) -> Any:
    """What the expression finds in a record. Raises ``ValidationError`` when it cannot be applied to it."""
    try:
        return parsed(text, name).search(record)
    except JMESPathError as error:
        raise ValidationError(f"{name} {text!r} cannot be applied to a record: {_said(error)}.") from None
    except (TypeError, ValueError, RecursionError):  # the library's own, for values it did not expect
        raise ValidationError(f"{name} {text!r} cannot be applied to a record.") from None


def _growth(node: Mapping[str, Any]) -> int:
    """How many times a record a part of an expression may become, in the worst case."""
    children = [child for child in node["children"] if isinstance(child, dict)]
    grown = math.prod(map(_growth, children))
    if node["type"] in ("multi_select_list", "multi_select_dict"):
        return grown * max(1, len(children))
    if node["type"] == "function_expression" and node["value"] == "join" and children[:1]:
        return grown if children[0]["type"] == "literal" else _MOST_GROWTH + 1
    return grown


def _said(error: JMESPathError) -> str:
    """What the library says, in one line."""
    return str(error).partition("\n")[0].removeprefix("Invalid jmespath expression: ").rstrip(":. ")
