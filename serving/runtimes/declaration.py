"""``algorithm.json``: which of SageMaker's built-in algorithms a model is, so that it reads and answers as that does.

A folder with this file and a model is an artifact like any other, and data only::

    {"Algorithm": "kmeans", "Model": "model.onnx"}

``Algorithm`` is the name of the algorithm's image in SageMaker (``kmeans``, ``forecasting-deepar`` ...). ``Model``
names the file beside it that holds the weights, ``model.onnx`` unless said. Whatever else there is are the algorithm's
own settings, each explained in the module of ``serving/runtimes/algorithms`` that reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import LoadFailed

NAME = "algorithm.json"
_MOST_BYTES = 16 * 2**20
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Declaration:
    """A read ``algorithm.json``. All getters raise LoadFailed in a sentence that names the setting."""

    algorithm: str
    root: Path
    settings: Mapping[str, Any]

    def file(self, key: str, default: str = "") -> Path:
        """The file beside the declaration that the setting ``key`` names."""
        name = self.text(key, default)
        path = self.root / name
        if not name or Path(name).name != name or not _is_file(path):
            raise LoadFailed(f"{NAME}: {key} names {name[:80]!r}, which is no file beside it")
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise LoadFailed(f"{NAME}: {key} leads out of the model's folder")
        return path

    def text(self, key: str, default: str = _MISSING) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise LoadFailed(f"{NAME}: {key} must be a string")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise LoadFailed(f"{NAME}: {key} must be true or false")
        return value

    def whole(self, key: str, default: int = _MISSING, least: int = 1, most: int = 2**31 - 1) -> int:
        """A whole number from ``least`` to ``most``."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise LoadFailed(f"{NAME}: {key} must be a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float = _MISSING) -> float:
        """Any finite number."""
        value = _finite(self._get(key, default))
        if value is None:
            raise LoadFailed(f"{NAME}: {key} must be a number")
        return value

    def numbers(self, key: str, default: list[float] = _MISSING) -> list[float]:
        """A list of finite numbers."""
        value = self._get(key, default)
        found = [_finite(one) for one in value] if isinstance(value, list) else [None]
        if None in found:
            raise LoadFailed(f"{NAME}: {key} must be a list of numbers")
        return [one for one in found if one is not None]

    def words(self, key: str, default: list[str] = _MISSING) -> list[str]:
        """A list of strings."""
        value = self._get(key, default)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise LoadFailed(f"{NAME}: {key} must be a list of strings")
        return list(value)

    def _get(self, key: str, default: Any) -> Any:
        value = self.settings.get(key, default)
        if value is _MISSING:
            raise LoadFailed(f"{NAME}: {key} is missing")
        return value


def read(root: Path) -> Declaration | None:
    """The folder's declaration, None when it has none. Raises LoadFailed for one that cannot be read."""
    path = root / NAME
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(root.resolve()):
        raise LoadFailed(f"{NAME} leads out of the model's folder")
    if path.stat().st_size > _MOST_BYTES:
        raise LoadFailed(f"{NAME} is larger than {_MOST_BYTES // 2**20} MiB")
    try:
        settings = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise LoadFailed(f"{NAME} is not JSON") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("Algorithm"), str):
        raise LoadFailed(f'{NAME} must be an object with the name of an "Algorithm"')
    return Declaration(settings["Algorithm"], root, settings)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or of characters that no name has
        return False


def _finite(value: Any) -> float | None:
    """A JSON number as a float; None for what is none, or too large for one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
