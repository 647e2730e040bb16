"""Values that cross borders: between rooms, processes and machines. Frozen, small, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

RoutingStrategy = Literal["RANDOM", "LEAST_OUTSTANDING_REQUESTS"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as CreateModel describes it. ``model_data_url``: a path, ``file://`` or ``s3://`` URL of an artifact, or,
    with ``mode="MultiModel"``, of the prefix that holds many."""

    name: str
    model_data_url: str
    mode: Literal["SingleModel", "MultiModel"] = "SingleModel"
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: Literal["Enabled", "Disabled"] = "Enabled"


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """A production variant: one model, ``weight`` of the traffic, ``instance_count`` workers."""

    name: str
    model: ModelSpec
    weight: float = 1.0
    instance_count: int = 1
    routing: RoutingStrategy = "RANDOM"


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """An endpoint: 1 to 10 production variants under one name."""

    name: str
    config_name: str
    variants: tuple[VariantSpec, ...]


class Invocation(NamedTuple):
    """One call, whoever made it. ``deadline`` is in ``time.monotonic()`` seconds. Empty string = header absent."""

    endpoint: str
    body: bytes
    content_type: str
    accept: str
    request_id: str
    deadline: float
    target_model: str = ""
    target_variant: str = ""
    affinity_key: str = ""
    inference_id: str = ""
    custom_attributes: str = ""
    session_id: str = ""
    target_container: str = ""
    component: str = ""


class Timing(NamedTuple):
    """The receipt of one call, microseconds. ``overhead`` is everything outside the worker; ``batch`` counts the
    calls predicted together; ``hit`` is whether the model was already in memory."""

    total: int
    queue: int
    load: int
    decode: int
    predict: int
    encode: int
    batch: int
    hit: bool


class Reply(NamedTuple):
    """A model's answer to one call. ``headers`` holds only what the container contract lets a model set; ``total`` and
    ``spent`` (queue, load, decode, predict, encode, batch) are the receipt's numbers as they came, read by few."""

    body: bytes
    content_type: str
    variant: str
    total: float
    spent: tuple[int, ...]
    hit: bool
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def timing(self) -> Timing:
        """The receipt."""
        queue, load, decode, predict, encode, batch = self.spent
        return Timing(int(self.total * 1e6), queue, load, decode, predict, encode, batch, self.hit)
