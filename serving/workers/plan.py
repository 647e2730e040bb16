"""What a worker is told when it is started: everything, as one JSON line. It reads no setting of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker's whole life. Paths are absolute; sizes bytes; times seconds. ``decided_at`` (monotonic) is when its
    start was decided, for the start-time metric. ``run_dir`` is private to this server (0700) and short enough for
    Unix socket names. ``own_limits``: calls come with time limits of their own, after which their worker is stuck.
    ``nice``: how far it gives way to others where processors are short (POSIX nice). ``repository``: its image's."""

    worker_id: str
    endpoint: str
    variant: str
    multi_model: bool
    location: str
    environment: Mapping[str, str]
    keep: bool
    run_dir: str
    cache_dir: str
    disk_budget: int
    budget: int
    memory_cap: int
    recycle: int
    allow_code: bool
    threads: int
    max_batch_calls: int
    max_batch_bytes: int
    load_wait: float
    own_limits: bool
    log_format: str
    log_level: str
    decided_at: float
    nice: int = 0
    repository: str = ""

    @property
    def socket(self) -> Path:
        """Where fronts connect."""
        return Path(self.run_dir) / f"{self.worker_id}.sock"

    @property
    def cell(self) -> Path:
        """Its shared cell (``cells.py``)."""
        return Path(self.run_dir) / f"{self.worker_id}.cell"

    @property
    def control(self) -> Path:
        """Where it reports to."""
        return Path(self.run_dir) / "control.sock"

    @property
    def metrics(self) -> Path:
        """Where its metrics file goes."""
        return Path(self.run_dir) / "metrics"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> WorkerPlan:
        """The reverse."""
        return cls(**json.loads(line))
