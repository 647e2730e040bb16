"""The sections of a file of endpoints that say how they scale: the very bodies that RegisterScalableTarget,
PutScalingPolicy, PutScheduledAction and PutMetricAlarm take.

Two members may be left out, as there is only one good value for them: ServiceNamespace, and the ScalableDimension of
instances or copies. An alarm's action may be the name of a policy of the file, in place of its ARN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.api.services import AUTOSCALING, CLOUDWATCH
from serving.scaling.values import COPIES, INSTANCES, NAMESPACE

Body = Mapping[str, Any]

_KEY = ("ResourceId", "ScalableDimension")


class Section(NamedTuple):
    """A section: the service and operation that its bodies are for, the members that say which one is meant, and how
    they are asked for: an operation, the member of its answer, and a filter by name, where it has one. ``noun`` names
    one in a message."""

    section: str
    prefix: str
    create: str
    noun: str
    names: tuple[str, ...]
    describe: str
    found: str
    filter: str = ""

    @property
    def operation(self) -> str:
        """The operation with its service, as ``deploying.Call`` takes it."""
        return f"{self.prefix}.{self.create}"

    @property
    def is_scaling(self) -> bool:
        """Is it about one scalable target?"""
        return self.prefix == AUTOSCALING

    def key(self, body: Body) -> tuple[str, ...]:
        """What tells one body of the section from another. Names of endpoints and components mind no case."""
        return tuple(body[name].lower() if name in _KEY else body[name] for name in self.names)

    def spelt(self, body: Body) -> str:
        """One of them for a person: ``scaling policy busy of endpoint/e/variant/v``."""
        own = [body[name] for name in self.names if name not in _KEY]
        where = [body["ResourceId"]] if self.is_scaling else []
        return " of ".join([" ".join([self.noun, *own]), *where])

    def filled(self, body: object) -> object:
        """The body with what goes without saying."""
        if not self.is_scaling or not isinstance(body, dict):
            return body
        is_component = str(body.get("ResourceId", "")).startswith("inference-component/")
        usual = {"ServiceNamespace": NAMESPACE, "ScalableDimension": COPIES if is_component else INSTANCES}
        return {**usual, **body}


TARGETS = Section(
    "ScalableTargets",
    AUTOSCALING,
    "RegisterScalableTarget",
    "scalable target",
    _KEY,
    "DescribeScalableTargets",
    "ScalableTargets",
)
POLICIES = Section(
    "ScalingPolicies",
    AUTOSCALING,
    "PutScalingPolicy",
    "scaling policy",
    (*_KEY, "PolicyName"),
    "DescribeScalingPolicies",
    "ScalingPolicies",
    "PolicyNames",
)
ACTIONS = Section(
    "ScheduledActions",
    AUTOSCALING,
    "PutScheduledAction",
    "scheduled action",
    (*_KEY, "ScheduledActionName"),
    "DescribeScheduledActions",
    "ScheduledActions",
    "ScheduledActionNames",
)
ALARMS = Section(
    "Alarms", CLOUDWATCH, "PutMetricAlarm", "alarm", ("AlarmName",), "DescribeAlarms", "MetricAlarms", "AlarmNames"
)

#: In the order in which they are made.
SECTIONS = (TARGETS, POLICIES, ACTIONS, ALARMS)
