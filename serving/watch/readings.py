"""Metrics by CloudWatch's names: what may be asked of the meters (``meters.py``), and of a simulator's."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric by CloudWatch's identity. ``dimensions``: (name, value), sorted by name."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()


class Stat(NamedTuple):
    """A metric under a statistic: ``Average``, ``Sum``, ``Minimum``, ``Maximum``, ``SampleCount`` or a percentile such
    as ``p99`` or ``p99.9``. ``per_minute``: sums are told per minute, whatever the period."""

    metric: Metric
    statistic: str
    per_minute: bool = False
