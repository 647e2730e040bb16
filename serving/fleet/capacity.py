"""The capacity of what is scaled, as its record says it: read, judged, changed. Pure.

An instance (copy) is a worker: ``Serving.Variants[v].Count`` of an endpoint, ``Serving.Count`` of an inference
component, ``Serving.Variants[v].Serverless.ProvisionedConcurrency`` of a serverless variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.fleet.endpoints import COMPONENT, ENDPOINT
from serving.fleet.records import Record
from serving.scaling.values import COPIES, PROVISIONED, Resource

#: Statuses in which a record's capacity may be set: an Updating one without a pending deployment is only being scaled.
_OPEN = frozenset({"InService", "Updating"})


class Place(NamedTuple):
    """Where a resource's capacity is kept: the record, and the variant (empty for a component)."""

    kind: str
    name: str
    variant: str = ""


def place(resource: Resource) -> Place:
    """Of ``endpoint/E/variant/V`` or ``inference-component/C``."""
    parts = resource.id.split("/")
    return Place(COMPONENT, parts[1]) if resource.dimension == COPIES else Place(ENDPOINT, parts[1], parts[3])


def count(record: Record, resource: Resource) -> int | None:
    """The capacity that the record asks for; None when it has none that could be scaled: it has never come up, or has
    no such variant."""
    serving = record.body.get("Serving")
    if serving is None:
        return None
    if resource.dimension == COPIES:
        return int(serving["Count"])
    values = serving["Variants"].get(place(resource).variant)
    if values is None:
        return None
    if resource.dimension == PROVISIONED:
        return int(values.get("Serverless", {}).get("ProvisionedConcurrency", 0))
    return int(values["Count"])


def refusal(record: Record | None, resource: Resource) -> str:
    """Why its capacity cannot be set now, in words; empty when it can."""
    if record is None:
        return "It has gone."
    if "Pending" in record.body and record.status != "Failed":
        return "Scaling is blocked while an update is on its way."
    if record.status not in _OPEN:
        return f"Scaling is blocked in status {record.status}."
    if count(record, resource) is None:
        return "It has no capacity that could be scaled."
    return ""


def with_count(record: Record, resource: Resource, wanted: int) -> dict[str, Any]:
    """The body of the record with another capacity."""
    serving: Mapping[str, Any] = record.body["Serving"]
    if resource.dimension == COPIES:
        return {**record.body, "Serving": {**serving, "Count": wanted}}
    variant = place(resource).variant
    values = dict(serving["Variants"][variant])
    if resource.dimension == PROVISIONED:
        values["Serverless"] = {**values.get("Serverless", {}), "ProvisionedConcurrency": wanted}
    else:
        values["Count"] = wanted
    return {**record.body, "Serving": {**serving, "Variants": {**serving["Variants"], variant: values}}}
