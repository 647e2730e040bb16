"""What a loaded model is to the rest of the server. One runtime file per framework returns one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from serving.codecs.base import InputSpec, Outputs


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an artifact is, found by content without importing a framework or executing anything of it.

    ``format`` is a key of ``runtimes/registry.py``; ``root`` the folder (or the file's own folder), ``file`` the file
    to load (for a script model ``root``); ``frameworks`` the importable modules a worker needs for it;
    ``bytes`` its size on disk, the cache's first guess; ``algorithm`` the built-in one that its ``algorithm.json``
    names.
    """

    format: str
    root: Path
    file: Path
    bytes: int
    executes_code: bool = False
    frameworks: frozenset[str] = frozenset()
    algorithm: str = ""

    @property
    def kind(self) -> str:
        """Artifacts of one kind bring the same libraries and take alike, byte for byte on disk."""
        return " ".join((self.format, self.algorithm, *sorted(self.frameworks)))


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How to load. ``threads``: native threads this worker may use; ``environment``: the model's Environment
    (SageMaker container variables and the user's own); ``allow_code``: the operator's consent."""

    allow_code: bool = False
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


class TensorModel(ABC):
    """A model from arrays to arrays. Rows are independent: the batcher may stack the rows of several calls into one
    ``predict`` and split the answer, unless ``batchable`` is False (fixed row axis, or state).

    ``layout`` names the reply shape in ``codecs.registry.encode``; ``default_accept`` the reply's media type when the
    caller names none, and ``default_content_type`` the body's; ``reads`` the request types that an algorithm documents,
    None = all of ours; ``strict``: a body is refused as by XGBoost's container (``codecs.registry.decode_strictly``).
    ``engine`` says which code answers, for ``serving check`` and the logs.
    """

    spec: InputSpec
    layout: str = "generic"
    reads: tuple[str, ...] | None = None
    default_accept: str = "application/json"
    default_content_type: str = "text/csv"
    strict: bool = False
    batchable: bool = True
    max_batch_rows: int | None = None
    engine: str = ""

    @abstractmethod
    def predict(self, inputs: np.ndarray | dict[str, np.ndarray]) -> Outputs:
        """Predict rows. Raises ``BadInput`` for what the model refuses, ``PredictionFailed`` otherwise."""

    def optimise(self) -> bool:
        """Find the fastest engine that gives the same numbers. Slow; called off the invocation path once the model
        has earned it. True when something changed. Safe while ``predict`` runs on another thread."""
        return False

    def set_threads(self, threads: int) -> None:  # noqa: B027  # most have nothing to do
        """Native threads may change while the model is loaded (workers come and go)."""

    def close(self) -> None:  # noqa: B027  # most have nothing to do
        """Release native memory now. ``predict`` is not called again."""


class ScriptCall(NamedTuple):
    """One invocation as a script model sees it: raw body and the documented request headers."""

    body: bytes
    content_type: str
    accept: str
    custom_attributes: str = ""
    inference_id: str = ""
    session_id: str = ""
    target_model: str = ""
    request_id: str = ""


class Chunks(ABC):
    """A streamed answer: an iterator of non-empty chunks. ``content_type`` and ``headers`` are true from the first
    chunk on, because the code that makes it may set them. ``next`` raises ``ServingError``."""

    content_type: str
    headers: Mapping[str, str]

    def __iter__(self) -> Chunks:
        return self

    @abstractmethod
    def __next__(self) -> bytes: ...

    @abstractmethod
    def close(self) -> None:
        """Nobody wants the rest. Raises nothing."""


class ScriptReply(NamedTuple):
    """A script model's answer. ``headers`` may hold the response headers of the container contract. A streamed
    answer has ``chunks`` instead of ``body``, and they have the last word on the rest."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = {}
    chunks: Chunks | None = None


class ScriptModel(ABC):
    """A model from bytes to bytes, which decodes and encodes for itself: user code, or an algorithm whose bodies are no
    rows of numbers. Never batched."""

    engine: str = "script"

    @abstractmethod
    def transform(self, call: ScriptCall) -> ScriptReply:
        """Answer one call. Raises ``ModelError`` with the status the script chose, or 500."""

    def set_threads(self, threads: int) -> None:  # noqa: B027  # most have nothing to do
        """Native threads may change while the model is loaded."""

    def close(self) -> None:  # noqa: B027  # most have nothing to do
        """Drop the model."""


Model = TensorModel | ScriptModel
