"""Algorithms whose requests are rows of numbers and whose answers are named arrays: the model does the work, the
declaration says what its answer is called.

Settings: ``Model``; ``Outputs`` (answer's field -> the model's output), only where the two differ; ``MissingValues``,
true for a model that fills gaps itself: NaN, ``null`` and empty cells reach it, where others refuse the row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from serving.codecs.base import Outputs
from serving.codecs.layouts import LAYOUTS
from serving.errors import LoadFailed
from serving.runtimes.algorithms import counts, finite, inner
from serving.runtimes.base import LoadSettings, TensorModel
from serving.runtimes.declaration import NAME, Declaration

_CSV, _JSON, _LINES, _RECORDIO, _LIBSVM = (
    "text/csv",
    "application/json",
    "application/jsonlines",
    "application/x-recordio-protobuf",
    "text/libsvm",
)
_ALL = (_CSV, _JSON, _LINES, _RECORDIO)
#: Algorithm -> the request types it documents, where these are not all four (``behaviour/10``); a body without a
#: Content-Type is of the first.
READS = {
    "factorization-machines": (_JSON, _LINES, _RECORDIO),
    "lda": (_CSV, _JSON, _RECORDIO),
    "xgboost": (_LIBSVM, _CSV, _RECORDIO),
}


class ArrayAlgorithm(TensorModel):
    """A model of arrays in an algorithm's dress."""

    def __init__(self, algorithm: str, model: TensorModel, names: dict[str, str], missing: bool) -> None:
        """``names``: output of the model -> field of the answer; ``missing``: whether its rows may have gaps."""
        self._model = model
        self._names = names
        self._algorithm = algorithm
        self._finite = algorithm != "xgboost"  # its own container answers with whatever a booster says
        self._check = _check_of(algorithm, missing)
        self.spec = model.spec
        # A booster has chosen among its container's answers already (``xgboost_output.py``).
        self.layout = model.layout if model.layout.startswith(algorithm) else algorithm
        self.strict = algorithm == "xgboost"
        self.reads = READS.get(algorithm, _ALL)
        self.default_content_type = self.reads[0]
        self.default_accept = LAYOUTS[algorithm].types[0]
        self.batchable = model.batchable
        self.max_batch_rows = model.max_batch_rows
        self.engine = f"{model.engine} as {algorithm}"

    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """The model's outputs under the names of the answer. Raises what the model raises."""
        if self._check:
            self._check(inputs)
        outputs = self._model.predict(inputs)
        if self._finite:
            finite.check_answer(outputs)
        if not self._names:
            return outputs
        if not isinstance(outputs, dict):
            return {next(iter(self._names.values())): outputs}
        return {self._names.get(name, name): array for name, array in outputs.items()}

    def optimise(self) -> bool:
        """The model's own."""
        changed = self._model.optimise()
        self.engine = f"{self._model.engine} as {self._algorithm}"
        return changed

    def set_threads(self, threads: int) -> None:
        """The model's own."""
        self._model.set_threads(threads)

    def close(self) -> None:
        """Drop the model."""
        self._model.close()


def load(declared: Declaration, settings: LoadSettings) -> TensorModel:
    """An algorithm of arrays. Raises LoadFailed."""
    names, missing = _names(declared), declared.flag("MissingValues")
    if missing and declared.algorithm in counts.ALGORITHMS:
        raise LoadFailed(
            f"{NAME}: {declared.algorithm} reads counts of words, which are never missing: no MissingValues"
        )
    return dressed(declared.algorithm, inner.model(declared, settings), names, missing)


def dressed(
    algorithm: str, model: TensorModel, names: dict[str, str] | None = None, missing: bool = False
) -> TensorModel:
    """The model, answering as the algorithm does. ``names``: output of the model -> field of the answer, where they
    differ; ``missing``: whether its rows may have missing values."""
    return ArrayAlgorithm(algorithm, model, names or {}, missing)


def _check_of(algorithm: str, missing: bool) -> Callable[[np.ndarray | dict[str, np.ndarray]], None] | None:
    """What an algorithm asks of its rows."""
    if algorithm in finite.MISSING_ALLOWED:
        return None
    if algorithm in counts.ALGORITHMS:
        return counts.check
    return finite.check_known if missing else finite.check


def _names(declared: Declaration) -> dict[str, str]:
    """Output of the model -> field of the answer. Raises LoadFailed."""
    outputs = declared.settings.get("Outputs", {})
    fields = {field.name for field in LAYOUTS[declared.algorithm].fields}
    if not isinstance(outputs, dict) or not all(isinstance(name, str) for name in outputs.values()):
        raise LoadFailed(f"{NAME}: Outputs must map fields of the answer to outputs of the model")
    if unknown := sorted(set(outputs) - fields):
        answers = ", ".join(sorted(fields))
        raise LoadFailed(f"{NAME}: Outputs names {unknown[0][:80]!r}; {declared.algorithm} answers {answers}")
    return {output: field for field, output in outputs.items()}
