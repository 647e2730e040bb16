"""JMESPath as explanations use it: EnableExplanations, and where features, probabilities and labels are
(SageMaker API, ClarifyInferenceConfig; ``behaviour/06``)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from serving.errors import ValidationError


@lru_cache(maxsize=256)
def parsed(text: str, name: str) -> ParsedResult:
    """The expression; ``name`` says whose it is. Raises ``ValidationError``."""
    try:
        return jmespath.compile(text)
    except JMESPathError as error:
        raise ValidationError(f"{name} {text!r} is not a valid JMESPath expression: {_said(error)}.") from None


def holds(text: str, record: Any) -> bool:
    """Is a record of the model's output to be explained? Raises ``ValidationError`` when the result is neither true
    nor false."""
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


def _said(error: JMESPathError) -> str:
    """What the library says, in one line."""
    return str(error).partition("\n")[0].removeprefix("Invalid jmespath expression: ").rstrip(":. ")
