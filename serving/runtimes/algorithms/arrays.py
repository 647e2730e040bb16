"""Algorithms whose requests are rows of numbers and whose answers are named arrays: the model does the work, the
declaration says what its answer is called.

Settings: ``Model``; ``Outputs`` (answer's field -> the model's output), only where the two differ.
"""

from __future__ import annotations

import numpy as np

from serving.codecs.base import Outputs
from serving.errors import LoadFailed
from serving.runtimes.algorithms import inner
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.declaration import NAME, Declaration

_CSV, _JSON, _LINES, _RECORDIO = (
    "text/csv",
    "application/json",
    "application/jsonlines",
    "application/x-recordio-protobuf",
)
#: Algorithm -> the request types it documents, where these are not all four (``behaviour/10``).
READS = {
    "factorization-machines": (_JSON, _LINES, _RECORDIO),
    "lda": (_CSV, _JSON, _RECORDIO),
}


class ArrayAlgorithm(TensorModel):
    """A model of arrays in an algorithm's dress."""

    def __init__(self, algorithm: str, model: TensorModel, names: dict[str, str]) -> None:
        """``names``: output of the model -> field of the answer."""
        self._model = model
        self._names = names
        self.spec = model.spec
        self.layout = algorithm
        self.reads = READS.get(algorithm, (_CSV, _JSON, _LINES, _RECORDIO))
        self.batchable = model.batchable
        self.max_batch_rows = model.max_batch_rows
        self.engine = model.engine

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """The model's outputs under the names of the answer. Raises what the model raises."""
        outputs = self._model.predict(inputs)
        if not self._names or not isinstance(outputs, dict):
            return outputs
        return {self._names.get(name, name): array for name, array in outputs.items()}

    def optimise(self) -> bool:
        """The model's own."""
        return self._model.optimise()

    def set_threads(self, threads: int) -> None:
        """The model's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the model."""
        self._model.close()


def load(declared: Declaration, settings: LoadSettings) -> TensorModel:
    """An algorithm of arrays. Raises LoadFailed."""
    names = declared.settings.get("Outputs", {})
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise LoadFailed(f"{NAME}: Outputs must map fields of the answer to outputs of the model")
    model = inner.model(declared, settings)
    return ArrayAlgorithm(declared.algorithm, model, {output: field for field, output in names.items()})
