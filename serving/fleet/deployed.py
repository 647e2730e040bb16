"""What runs for one record, an endpoint or an inference component: its fleets, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.fleet import resolve
from serving.fleet.records import Record
from serving.types import EndpointSpec, FleetKey, FleetSpec


@dataclass(frozen=True, slots=True)
class Deployed:
    """What runs for one record: its fleets; for an endpoint also the variants they belong to. ``up`` False: its fleets
    could not even be started yet. ``green``: what runs beside it during a guarded update, which gets ``share`` of the
    calls."""

    endpoint: str
    fleets: tuple[FleetSpec, ...]
    spec: EndpointSpec | None = None
    status: str = ""
    reason: str = ""
    up: bool = True
    green: Deployed | None = None
    share: float = 0.0

    @property
    def keys(self) -> tuple[FleetKey, ...]:
        """Their keys."""
        return tuple(fleet.key for fleet in self.fleets)

    @property
    def shadows(self) -> tuple[FleetSpec, ...]:
        """Those of them that only get copies of calls."""
        names = {one.name for one in self.spec.shadows} if self.spec else ()
        return tuple(fleet for fleet in self.fleets if fleet.key.variant in names)

    @property
    def answering(self) -> tuple[FleetSpec, ...]:
        """Those that callers are answered by."""
        shadows = self.shadows
        return tuple(fleet for fleet in self.fleets if fleet not in shadows)


def deployed(record: Record, deployment: Mapping[str, Any]) -> Deployed:
    """The fleets that a deployment of this record means. Raises ``ValidationError`` for one that cannot run."""
    if record.parent:  # an inference component's endpoint
        return Deployed(record.parent, (resolve.component_fleet(record.name, record.parent, deployment),))
    spec = resolve.endpoint_spec(record.name, deployment)
    return Deployed(record.name, resolve.endpoint_fleets(spec), spec)
