"""What a monitor process can be asked, by name; each in a module that is imported when it is.

A task is a plain blocking function of its ``args`` (JSON values) and its ``Means``; it returns a JSON value or raises
``ServingError``. It may take seconds, memory and heavy libraries: its process ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from serving.config import Settings
from serving.errors import ValidationError
from serving.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Means:
    """What a task may use. ``staging``: the folder of captures that are still being written (``watch/capture.py``);
    ``metrics_folder``: the cells of all processes (``watch/metrics.py``); None for both outside a server.
    ``explainer``: the socket of the process that computes explanations, None where there is none."""

    settings: Settings
    objects: ObjectStore
    staging: Path | None = None
    metrics_folder: Path | None = None
    explainer: Path | None = None


Task = Callable[[Mapping[str, Any], Means], Any]

#: Name -> who does it, ``module:function``.
TASKS: Mapping[str, str] = {
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
