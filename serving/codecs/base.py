"""The values codecs speak in: what a model wants to read, what a body held, what a prediction is.

Nothing here imports more than numpy; a codec is a pair of pure functions between bytes and these values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

#: A prediction: one array, or several by output name. Axis 0 is the row in each of them.
Outputs: TypeAlias = "np.ndarray | dict[str, np.ndarray]"


class TensorSpec(NamedTuple):
    """One input tensor of a model. ``shape`` has the row axis first; ``None`` = any size. ``dtype`` is a numpy
    dtype name (``"float32"``, ``"int64"``, ``"str"`` ...)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class InputSpec(NamedTuple):
    """What a model reads. ``fill`` is the value of a cell that a sparse form leaves out (NaN = missing for tree
    models, 0.0 for the others); an empty CSV cell and a JSON ``null`` are NaN for every model."""

    tensors: tuple[TensorSpec, ...]
    fill: float = math.nan

    @property
    def columns(self) -> int | None:
        """Feature count of a model with one 2-d input, else None."""
        shape = self.tensors[0].shape
        return shape[1] if len(self.tensors) == 1 and len(shape) == 2 else None


class Decoded(NamedTuple):
    """A decoded body: one array, or several by input name, each with ``rows`` rows on axis 0, of the spec's dtypes
    and shapes. ``configuration`` is what the built-in algorithms' bodies carry beside their instances."""

    inputs: np.ndarray | dict[str, np.ndarray]
    rows: int
    configuration: Mapping[str, object] = {}
