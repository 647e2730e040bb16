"""What the doors of one front process share."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.api.auth import AccessKey
from serving.api.console.sharing import Shared
from serving.api.explain_link import ExplainLink
from serving.api.jobs_link import JobsLink
from serving.config import Settings
from serving.endpoint import Directory
from serving.monitor.collecting import Collector
from serving.watch.metrics import Registry

#: A question to the control process: name and arguments in, its answer out. Raises its ``ServingError``.
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


def _request_ids() -> Callable[[], str]:
    """UUID-shaped ids, unique over processes and restarts, for 0.3 µs each: a random head and a counter."""
    head = str(uuid.UUID(bytes=os.urandom(16), version=4))[:24]
    counter = itertools.count(int.from_bytes(os.urandom(4), "little"))
    return lambda: f"{head}{next(counter) & 0xFFFFFFFFFFFF:012x}"


@dataclass(eq=False, slots=True)
class Front:
    """Settings, endpoints, keys and the ways to ask the control, jobs and explain processes. ``keys`` None = no
    authentication; ``clock`` is the loop's time as of the last sweep, for what needs no better; ``stopping`` is set
    when whoever waits for something should be answered now."""

    settings: Settings
    directory: Directory
    registry: Registry
    metrics_folder: Path
    ask: Ask
    jobs: JobsLink
    explainer: ExplainLink
    keys: Mapping[str, AccessKey] | None = None
    draining: bool = False
    clock: float = 0.0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    next_request_id: Callable[[], str] = field(default_factory=_request_ids)
    shared: Shared = field(default_factory=Shared)
    collector: Collector = field(init=False)

    def __post_init__(self) -> None:
        """Labels are collected where the settings say."""
        self.collector = Collector(self.settings)
