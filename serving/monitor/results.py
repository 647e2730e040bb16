"""What one execution of a monitor found, whichever monitor it was (``behaviour/06``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.monitor.values import Complaint

Document = dict[str, Any]


class Result(NamedTuple):
    """``statistics``, ``constraints``: documents to be written, as they are; ``constraints`` are those that this data
    suggests, if it was a baseline's. ``violations``: entries of ``constraint_violations.json``. ``metrics``: numbers by
    the names under which they are emitted. ``complaints``: what could not be used."""

    statistics: Document | None
    constraints: Document | None
    violations: list[Document]
    metrics: Mapping[str, float]
    complaints: list[Complaint]
