"""Values that cross borders: between rooms, processes and machines. Frozen, small, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

#: A model that keeps ending its workers is refused for so many seconds at most.
LONGEST_QUARANTINE = 300.0

RoutingStrategy = Literal["RANDOM", "LEAST_OUTSTANDING_REQUESTS"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A container of a model as CreateModel describes it. ``model_data_url``: a path, ``file://`` or ``s3://`` URL of
    an artifact, or, with ``mode="MultiModel"``, of the prefix that holds many. ``hostname`` tells the containers of one
    model apart. ``repository``: that of the image, where it is one of ECR's: those of SageMaker's built-in algorithms
    are named after them."""

    name: str
    model_data_url: str
    mode: Literal["SingleModel", "MultiModel"] = "SingleModel"
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: Literal["Enabled", "Disabled"] = "Enabled"
    hostname: str = ""
    repository: str = ""


@dataclass(frozen=True, slots=True)
class ServerlessSpec:
    """How a variant runs that has workers only as its calls need them (ProductionVariantServerlessConfig). ``memory``:
    bytes that each may take; ``most``: calls, and so workers, at a time; ``provisioned``: workers that stay without
    calls."""

    memory: int
    most: int
    provisioned: int = 0


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """A production variant: one model, ``weight`` of the traffic, ``instance_count`` workers for each of the model's
    containers. Several containers are a chain, or, with ``direct``, called one by one by host name. None: the variant
    only holds inference components. ``serverless``: its workers come and go with its calls."""

    name: str
    containers: tuple[ModelSpec, ...]
    weight: float = 1.0
    instance_count: int = 1
    routing: RoutingStrategy = "RANDOM"
    direct: bool = False
    serverless: ServerlessSpec | None = None


@dataclass(frozen=True, slots=True)
class AsyncSpec:
    """How an asynchronous endpoint's calls are answered (SageMaker API, AsyncInferenceConfig): ``output`` and
    ``failure`` are ``s3://`` prefixes (empty: the usual one, and none); ``concurrency``: calls at a time in one
    instance; topics are empty for none; ``include``: in which notifications the answer is wanted; ``since``: when this
    was deployed, epoch seconds."""

    output: str
    failure: str
    concurrency: int
    success_topic: str
    error_topic: str
    include: tuple[str, ...]
    since: float


@dataclass(frozen=True, slots=True)
class CaptureSpec:
    """What of an endpoint's calls is written down (SageMaker API, DataCaptureConfig; ``behaviour/05``).
    ``destination``: an ``s3://`` prefix; ``percent`` of the calls; ``input``, ``output``: which directions; ``csv``,
    ``json``: the content types whose bodies are text."""

    destination: str
    percent: int
    input: bool
    output: bool
    csv: tuple[str, ...]
    json: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """An endpoint: 1 to 10 production variants under one name. ``generation`` counts its deployments; ``asynchronous``:
    it takes InvokeEndpointAsync and nothing else, and this is how; ``capture``: what of its calls is written down;
    ``explainer``: its ClarifyExplainerConfig as it was given; ``shadows``: variants that get copies of its calls;
    ``since``: when this deployment was asked for, epoch seconds."""

    name: str
    config_name: str
    variants: tuple[VariantSpec, ...]
    generation: int = 1
    asynchronous: AsyncSpec | None = None
    capture: CaptureSpec | None = None
    explainer: Mapping[str, Any] | None = None
    shadows: tuple[VariantSpec, ...] = ()
    since: float = 0.0


class FleetKey(NamedTuple):
    """Names the workers that are alike: those of one container (``part`` = its host name; empty = the only one) of one
    variant in one deployment of an endpoint, or of one inference component (``component``)."""

    endpoint: str
    generation: int
    variant: str
    part: str = ""
    component: str = ""

    @property
    def labels(self) -> tuple[str, str]:
        """The metric labels endpoint and variant: a component goes by its own name, a container of several as
        ``variant/host name``."""
        return self.endpoint, self.component or (f"{self.variant}/{self.part}" if self.part else self.variant)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Workers that there should be: ``count`` of them, each with ``model``. ``call_seconds``: how long one call may
    run before its worker is taken for stuck; 0 = as long as any invocation may. ``quarantine``: a model that keeps
    ending workers is refused for so many seconds at most; few where every call is counted what it has ended, and 0.0 =
    not at all. ``nice``: how far its workers give way to others' where processors are short. ``serverless``: ``count``
    is what it comes up with, and calls decide how many there are from then on."""

    key: FleetKey
    model: ModelSpec
    count: int = 1
    routing: RoutingStrategy = "RANDOM"
    call_seconds: float = 0.0
    quarantine: float = LONGEST_QUARANTINE
    nice: int = 0
    serverless: ServerlessSpec | None = None


class Invocation(NamedTuple):
    """One call, whoever made it. ``deadline`` is in ``time.monotonic()`` seconds. Empty string = header absent.
    ``stream_seconds`` above 0: the answer is wanted in parts as they are made, of which the first must come by the
    deadline, each within the same time of the one before, and the last so long after the call. ``retries``: how often
    another worker may try when one has ended under it; the call is then given up with ``WorkerDied``. ``strikes``:
    workers that ended under it when it was tried before; one that has any runs with no other call. ``traceparent``: the
    W3C trace context it came with. ``explain``: what its EnableExplanations header said."""

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
    stream_seconds: float = 0.0
    retries: int = 1
    strikes: int = 0
    traceparent: str = ""
    explain: str = ""


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
    ``spent`` (queue, load, decode, predict, encode, batch) are the receipt's numbers as they came, read by few.
    ``rest``: ``body`` is only the first part of a streamed answer, and here are the others (``workers/parts.py``)."""

    body: bytes
    content_type: str
    variant: str
    total: float
    spent: tuple[int, ...]
    hit: bool
    headers: tuple[tuple[str, str], ...] = ()
    rest: object | None = None

    @property
    def timing(self) -> Timing:
        """The receipt."""
        queue, load, decode, predict, encode, batch = self.spent
        return Timing(int(self.total * 1e6), queue, load, decode, predict, encode, batch, self.hit)
