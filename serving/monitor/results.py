"""What one execution of a monitor found, whichever monitor it was (``behaviour/06``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.monitor.values import Complaint

Document = dict[str, Any]


class Result(NamedTuple):
    """Documents as they are to be written: ``statistics``; ``constraints`` that this data suggests, if it was a
    baseline's, None of no data; ``violations``, those of the constraints it was compared with. ``metrics``: numbers by
    the names under which they are emitted. ``complaints``: what could not be used; ``item_count``: rows that could."""

    statistics: Document
    constraints: Document | None
    violations: Document
    metrics: Mapping[str, float]
    complaints: list[Complaint]
    item_count: int
