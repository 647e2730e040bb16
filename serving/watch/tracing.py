"""Tracing of a process's calls, where OpenTelemetry's variables ask for it. Light: the library is loaded only then."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from serving.config import traces_exporters
from serving.watch.observing import Observer

log = logging.getLogger("serving.tracing")


class Tracing(Protocol):
    """Who makes spans of a process's calls."""

    def observers(self, row: Mapping[str, Any]) -> tuple[Observer, ...]:
        """Those of an endpoint, by its row of the routing table."""

    def close(self) -> None:
        """Send what is left, as far as that takes a moment only."""


class NoTracing:
    """Nobody asked for any."""

    def observers(self, row: Mapping[str, Any]) -> tuple[Observer, ...]:
        """Nobody looks on."""
        return ()

    def close(self) -> None:
        """Nothing is left."""


def open_tracing(process: str) -> Tracing:
    """What the OTEL_* variables ask for. ``process``: front or jobs. Tracing that cannot be is said, and is no reason
    to serve nobody."""
    exporters = traces_exporters()
    if not exporters:
        return NoTracing()
    try:
        from serving.watch import spans
    except ImportError as error:
        log.error("calls are not traced: pip install 'serving[tracing]' (%s)", error)
        return NoTracing()
    return spans.start(process, exporters)
