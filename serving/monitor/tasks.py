"""What a monitor process can be asked, by name; each in a module that is imported when it is.

A task is a plain blocking function of its ``args`` (JSON values) and its ``Means``; it returns a JSON value or raises
``ServingError``. It may take seconds, memory and heavy libraries: its process ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from serving.config import Settings
from serving.errors import ValidationError
from serving.objects import ObjectStore


class Attributed(Protocol):
    """What the features of records added to their predictions (``explain/asking.py``)."""

    @property
    def headers(self) -> Sequence[str]:
        """A name for each feature."""

    @property
    def values(self) -> Any:
        """Float [records, features, outputs]."""

    @property
    def expected(self) -> Any:
        """Float [outputs]."""

    @property
    def refused(self) -> Sequence[tuple[int, str]]:
        """Calls that could not be explained: index, why."""


#: Asks for attributions: endpoint, variant, calls (body, Content-Type, Accept, target model), ClarifyExplainerConfig
#: (None: the endpoint's own). Raises ``ServingError`` when nothing could be explained.
Attributions = Callable[
    [str, str, Sequence[tuple[bytes, str, str, str]], Mapping[str, Any] | None],
    Attributed,
]


@dataclass(frozen=True, slots=True)
class Means:
    """What a task may use. ``staging``: the folder of captures that are still being written (``watch/capture.py``);
    ``metrics_folder``: the cells of all processes (``watch/metrics.py``); None for both outside a server.
    ``explainer``: the socket of the process that computes explanations, ``attributions`` asks it; None where there is
    none."""

    settings: Settings
    objects: ObjectStore
    staging: Path | None = None
    metrics_folder: Path | None = None
    explainer: Path | None = None
    attributions: Attributions | None = None


Task = Callable[[Mapping[str, Any], Means], Any]

#: Name -> who does it, ``module:function``.
TASKS: Mapping[str, str] = {
    "drift": "serving.monitor.drifting:drift",
    "execution": "serving.monitor.runs:execution",
    "shadow-report": "serving.monitor.shadow_report:shadow_report",
    "verdict": "serving.monitor.verdict:verdict",
}


def find(name: str) -> Task:
    """The task of this name. Raises ``ValidationError``."""
    if name not in TASKS:
        raise ValidationError(f"unknown task {name!r}")
    module, _, function = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), function)
    return task
