"""What a request to DeepAR says: series, and which answers it wants of each (``behaviour/10``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from serving.errors import BadInput
from serving.runtimes.algorithms import timeline
from serving.runtimes.algorithms.timeline import Frequency

TYPES = ("mean", "quantiles", "samples")
_OPTIONS = ("num_samples", "output_types", "quantiles")
_MOST_QUANTILES = 100
#: Larger numbers would not survive float32, nor a mean of many.
LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Form:
    """What a forecaster wants of a series; the settings in ``deepar.py``."""

    step: Frequency
    context: int
    horizon: int
    lags: np.ndarray
    parts: tuple[str, ...]
    dynamic: int
    cardinality: tuple[int, ...]
    scales: tuple[float, ...]
    degrees: float | None

    @property
    def before(self) -> int:
        """How many values before the forecast the net sees."""
        return self.context + int(self.lags.max())

    @property
    def known(self) -> int:
        """How many numbers are known of a step ahead of it."""
        return 2 * timeline.WAVES * len(self.parts) + self.dynamic


class Series(NamedTuple):
    """A read instance. ``start`` and ``target`` as they came (NaN where missing); ``past``: the last ``before`` values,
    NaN where there are none; ``known``: float32 [context + horizon, known]; ``cat``: int64."""

    start: str
    target: np.ndarray
    past: np.ndarray
    scale: float
    known: np.ndarray
    cat: np.ndarray


class Asked(NamedTuple):
    """What to answer of each series; AWS's defaults. ``quantiles`` as the request spells them."""

    samples: int = 100
    types: tuple[str, ...] = ("mean", "quantiles")
    quantiles: tuple[str, ...] = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")


def asked(configuration: Any, default: Asked) -> Asked:
    """A request's ``configuration``; ``default`` for what it leaves out. Raises BadInput."""
    if not isinstance(configuration, Mapping):
        raise BadInput("'configuration' must be an object")
    unknown = [key for key in configuration if key not in _OPTIONS]
    if unknown:
        raise BadInput(f"'configuration' has no {unknown[0][:80]!r}; it may have {', '.join(_OPTIONS)}")
    samples = configuration.get("num_samples", default.samples)
    if type(samples) is not int or samples < 1:
        raise BadInput("'num_samples' must be a whole number from 1")
    types = configuration.get("output_types", list(default.types))
    if not isinstance(types, list) or not types or any(one not in TYPES for one in types):
        raise BadInput(f"'output_types' must be a list of some of {', '.join(TYPES)}")
    quantiles = configuration.get("quantiles", list(default.quantiles))
    if not isinstance(quantiles, list) or not 0 < len(quantiles) <= _MOST_QUANTILES:
        raise BadInput(f"'quantiles' must be a list of 1 to {_MOST_QUANTILES} levels")
    return Asked(samples, tuple(types), tuple(_level(one) for one in quantiles))


def _level(level: Any) -> str:
    try:
        if type(level) not in (str, int, float) or not 0 < float(level) < 1:
            raise ValueError
    except ValueError:
        raise BadInput("'quantiles' must be levels between 0 and 1, like \"0.9\"") from None
    return str(level)


def series(instance: Any, form: Form, where: str) -> Series:
    """One instance. Raises BadInput, beginning with ``where``."""
    if not isinstance(instance, dict):
        raise BadInput(f"{where} must be an object with 'start' and 'target'")
    first = timeline.start(instance.get("start"), where)
    if "target" not in instance:
        raise BadInput(f"{where} has no 'target': send [] for a series that is about to begin")
    target = _target(instance["target"], where)
    cat = _cat(instance.get("cat"), form, where)
    past = np.full(form.before, np.nan)
    if len(target):
        past[-len(target) :] = target[-form.before :]
    offset, steps = len(target) - form.context, form.context + form.horizon
    known = np.zeros((steps, form.known), np.float32)
    waves = timeline.features(form.parts, first, form.step, offset, steps)
    known[:, : waves.shape[1]] = waves
    if form.dynamic:
        given = _dynamic(instance.get("dynamic_feat"), form, len(target), where)[:, -steps:]
        known[-given.shape[1] :, waves.shape[1] :] = given.T
    return Series(instance["start"], target, past, _scale(past, form, cat), known, cat)


def _target(values: Any, where: str) -> np.ndarray:
    """float64; ``"NaN"`` and null are values that are missing."""
    if not isinstance(values, list):
        raise BadInput(f"{where}: 'target' must be a list of numbers")
    kinds = set(map(type, values))
    if kinds & {str, type(None)}:
        values = [np.nan if value is None or value == "NaN" else value for value in values]
        kinds = set(map(type, values))
    if not kinds <= {int, float}:
        raise BadInput(f"{where}: 'target' must hold numbers, and \"NaN\" or null where one is missing")
    target = np.array(values, np.float64)
    if (np.abs(target) > LARGEST).any():
        raise BadInput(f"{where}: 'target' holds a number beyond {LARGEST:g}")
    return target


def _cat(values: Any, form: Form, where: str) -> np.ndarray:
    """The groups that a series is in; ignored by a model that was trained without."""
    if not form.cardinality:
        return np.empty(0, np.int64)
    if not isinstance(values, list) or len(values) != len(form.cardinality):
        raise BadInput(f"{where}: 'cat' must be a list of {len(form.cardinality)} whole numbers")
    for value, count in zip(values, form.cardinality, strict=True):
        if type(value) is not int or not 0 <= value < count:
            raise BadInput(f"{where}: 'cat' has {str(value)[:40]} where the model knows 0 to {count - 1}")
    return np.array(values, np.int64)


def _dynamic(rows: Any, form: Form, past: int, where: str) -> np.ndarray:
    """float32 [dynamic, past + horizon]: what is known of each step, those to be forecast among them."""
    wanted = past + form.horizon
    if not isinstance(rows, list) or len(rows) != form.dynamic:
        lists = "one list" if form.dynamic == 1 else f"{form.dynamic} lists"
        raise BadInput(f"{where}: 'dynamic_feat' must hold {lists} of {wanted} numbers")
    for row in rows:
        if not isinstance(row, list) or not set(map(type, row)) <= {int, float}:
            raise BadInput(f"{where}: 'dynamic_feat' must hold lists of numbers, none of them missing")
        if len(row) != wanted:
            raise BadInput(
                f"{where}: a 'dynamic_feat' has {len(row)} values, where {wanted} are needed: "
                f"{past} of the target and {form.horizon} to be forecast"
            )
    found = np.array(rows, np.float64)
    if (np.abs(found) > LARGEST).any():
        raise BadInput(f"{where}: 'dynamic_feat' holds a number beyond {LARGEST:g}")
    return found.astype(np.float32)


def _scale(past: np.ndarray, form: Form, cat: Sequence[int] | np.ndarray) -> float:
    """The mean size of what the context holds; of all there is where that is nothing; else the usual one."""
    for part in (past[-form.context :], past):
        seen = part[np.isfinite(part)]
        if len(seen):
            return float(np.abs(seen).mean()) or 1.0
    return form.scales[int(cat[0]) if len(form.scales) > 1 else 0]
