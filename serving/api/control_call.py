"""What one control-plane action is given and what it gives back, and the words all actions share.

An action is a plain function of a ``ControlCall``: it runs inside one transaction of the store, on the store's thread,
and either returns an ``Outcome`` or raises a ``ServingError``, which undoes everything it wrote. It does no I/O of its
own and never waits: what must happen in the world afterwards is the reconciler's, told by ``Outcome.touched``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from serving.config import Settings
from serving.errors import RequestRefused, ResourceInUse, ResourceNotFound, ValidationError
from serving.fleet.store import Session
from serving.scaling.values import AlarmReading, Metric, Readings

#: Kind of a record -> (type part of its ARN, what AWS's messages call it). ``reference/api/02``.
KINDS: Mapping[str, tuple[str, str]] = {
    "model": ("model", "model"),
    "endpoint-config": ("endpoint-config", "endpoint configuration"),
    "endpoint": ("endpoint", "endpoint"),
    "inference-component": ("inference-component", "inference component"),
    "model-package-group": ("model-package-group", "model package group"),
    "model-package": ("model-package", "model package"),
    "transform-job": ("transform-job", "transform job"),
    "monitoring-schedule": ("monitoring-schedule", "monitoring schedule"),
    "data-quality-job-definition": ("data-quality-job-definition", "data quality job definition"),
    "model-quality-job-definition": ("model-quality-job-definition", "model quality job definition"),
    "model-bias-job-definition": ("model-bias-job-definition", "model bias job definition"),
    "model-explainability-job-definition": (
        "model-explainability-job-definition",
        "model explainability job definition",
    ),
}
#: Kinds whose names are never free again, and of which AWS speaks in other words.
_JOBS = ("transform-job",)
#: Kinds of which AWS says with a code of its own that there is none, and that a name is taken.
_MONITORING = tuple(kind for kind in KINDS if kind.startswith("monitoring-") or kind.endswith("-job-definition"))


class Meters(Readings, Protocol):
    """What has been measured, and what clients measured themselves (``watch/meters.py``). Asked on the store's
    thread."""

    def listed(self, namespace: str, name: str, dimensions: Sequence[tuple[str, str]]) -> list[Metric]:
        """The metrics there are, of this namespace and name (empty = any) with at least these dimensions."""
        ...

    def put(self, namespace: str, data: Sequence[Mapping[str, Any]]) -> None:
        """Keep what a client has measured: PutMetricData's MetricData."""
        ...


class Alarms(Protocol):
    """What alarms came to (``fleet/alarms.py``). Asked on the store's thread."""

    def reading(self, name: str) -> AlarmReading | None:
        """The last evaluation of the alarm of this name; None before its first."""
        ...


class Watched(NamedTuple):
    """What is measured and decided here, for the actions that tell of it; None where it does not run. ``not_scaled``:
    the activities that came to nothing, newest first, as DescribeScalingActivities shows them, of all targets."""

    meters: Meters | None = None
    alarms: Alarms | None = None
    not_scaled: Callable[[], Sequence[Mapping[str, Any]]] = lambda: ()


UNWATCHED = Watched()


@dataclass(frozen=True, slots=True)
class ControlCall:
    """One operation with its parameters, checked against AWS's model (unknown members dropped, timestamps as epoch
    seconds). ``now``: epoch seconds. ``live``: what runs of an endpoint at this moment, by name (see
    ``fleet/endpoints.py``), None when nothing does. ``trusted``: the call comes from the operator's own command line,
    whose ModelDataUrls may be paths of this machine. ``progress``: how far a running transform job is, by name, None
    when it has not said so yet. ``watched``: what is measured and decided."""

    operation: str
    params: Mapping[str, Any]
    session: Session
    settings: Settings
    region: str
    now: float
    live: Callable[[str], Mapping[str, Any] | None]
    trusted: bool = False
    progress: Callable[[str], Mapping[str, Any] | None] = lambda name: None
    watched: Watched = UNWATCHED

    @property
    def readings(self) -> Meters | None:
        """The server's meters."""
        return self.watched.meters

    @property
    def alarms(self) -> Alarms | None:
        """The server's alarms."""
        return self.watched.alarms

    def arn(self, kind: str, name: str) -> str:
        """The resource's ARN, its name as it was given."""
        return f"arn:aws:sagemaker:{self.region}:{self.settings.account_id}:{KINDS[kind][0]}/{name}"

    def could_not_find(self, kind: str, name: str) -> RequestRefused:
        """AWS's words for an unknown name; clients test the code and ``Could not find``."""
        if kind in _MONITORING:
            return ResourceNotFound(f'Could not find {KINDS[kind][1]} "{self.arn(kind, name)}".')
        if kind in _JOBS:
            return ValidationError(f"Could not find requested job with name: {self.arn(kind, name)}.")
        return ValidationError(f'Could not find {KINDS[kind][1]} "{self.arn(kind, name)}".')

    def already_exists(self, kind: str, name: str) -> RequestRefused:
        """AWS's words for a name that is taken."""
        if kind in (*_JOBS, *_MONITORING):
            return ResourceInUse(
                "Job name must be unique within an AWS account and region, and a job with this name already exists "
                f"({self.arn(kind, name)})"
            )
        return ValidationError(f'Cannot create already existing {KINDS[kind][1]} "{self.arn(kind, name)}".')


class Awaited(NamedTuple):
    """News that an answer may wait for: a change of the record behind ``tag`` beyond ``revision``, for so many
    ``seconds``."""

    tag: str
    revision: int
    seconds: float


class Outcome(NamedTuple):
    """An action's answer. ``touched``: records whose desired state it changed; the reconciler looks at them as soon
    as the transaction is committed, and the answer may wait a moment until they have settled. ``extension``: members
    that AWS's model does not have, which its clients ignore. ``awaited``: what is about to change; the reading action
    is then run again."""

    answer: Mapping[str, Any]
    touched: tuple[str, ...] = ()
    extension: Mapping[str, Any] = MappingProxyType({})
    awaited: Awaited | None = None


Action = Callable[[ControlCall], Outcome]
