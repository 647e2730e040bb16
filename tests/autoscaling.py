"""The Application Auto Scaling API on a real store, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serving.api.control_actions import AUTOSCALING_ACTIONS
from serving.api.control_call import UNWATCHED, ControlCall, Watched
from serving.api.schema import Schema
from serving.config import Settings
from serving.errors import ServingError, ValidationError
from serving.fleet.scaling_records import ACTION, POLICY, TARGET
from serving.fleet.store import Record, Store
from serving.scaling.values import COPIES, INSTANCES, PROVISIONED
from tests.conform import assert_conforms

VARIANT = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/E/variant/V", "ScalableDimension": INSTANCES}
COMPONENT = {"ServiceNamespace": "sagemaker", "ResourceId": "inference-component/C", "ScalableDimension": COPIES}
ASYNC = VARIANT | {"ResourceId": "endpoint/queued/variant/V"}
SERVERLESS = VARIANT | {"ResourceId": "endpoint/less/variant/V", "ScalableDimension": PROVISIONED}

PER_INSTANCE = {
    "TargetValue": 70.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
}
STEPS = {
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
}


@cache
def schema() -> Schema:
    """AWS's model, read once."""
    return Schema.load("application-autoscaling", AUTOSCALING_ACTIONS)


class Scaling:
    """Makes calls as the control process does, one transaction each; a second passes between two calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.settings = Settings()
        self.now = 1_789_000_000.0
        self.watched: Watched = UNWATCHED
        self.touched: tuple[str, ...] = ()

    def __call__(self, operation: str, key: Mapping[str, Any] = VARIANT, /, **params: Any) -> Any:
        """The answer, which is one that botocore's model allows."""
        checked = schema().check(operation, {**key, **params})
        self.now += 1

        def called(name: str) -> None:
            return None

        with self.store.write() as session:
            call = ControlCall(
                operation, checked, session, self.settings, "us-east-1", self.now, called, watched=self.watched
            )
            outcome = AUTOSCALING_ACTIONS[operation](call)
        self.touched = outcome.touched
        shaped = schema().shape(operation, outcome.answer)
        assert_conforms(operation, shaped or {}, {"Tags"}, "application-autoscaling")
        return shaped

    def error(
        self, kind: type[ServingError], operation: str, key: Mapping[str, Any] = VARIANT, /, **params: Any
    ) -> str:
        """What a call that must fail says; nothing is half-written."""
        before = self.everything()
        with pytest.raises(kind) as caught:
            self(operation, key, **params)
        assert before == self.everything()
        return caught.value.message

    def refusal(self, operation: str, key: Mapping[str, Any] = VARIANT, /, **params: Any) -> str:
        """The same, of the caller's mistake."""
        return self.error(ValidationError, operation, key, **params)

    def everything(self) -> list[Record]:
        """All that scaling has in the store."""
        with self.store.read() as session:
            return [record for kind in (TARGET, POLICY, ACTION, "alarm") for record in session.every(kind)]

    def of(self, read: Callable[[Any], Any]) -> Any:
        """What ``read`` makes of a session."""
        with self.store.read() as session:
            return read(session)

    # --- shorthand ---

    def register(self, key: Mapping[str, Any] = VARIANT, low: int = 1, high: int = 4, **more: Any) -> str:
        """A scalable target; its ARN."""
        answer = self("RegisterScalableTarget", key, MinCapacity=low, MaxCapacity=high, **more)
        return str(answer["ScalableTargetARN"])

    def track(self, name: str = "p", key: Mapping[str, Any] = VARIANT, **config: Any) -> Any:
        """A target tracking policy; the answer."""
        whole = {**PER_INSTANCE, **config}
        kind = "TargetTrackingScaling"
        return self(
            "PutScalingPolicy", key, PolicyName=name, PolicyType=kind, TargetTrackingScalingPolicyConfiguration=whole
        )

    def step(self, name: str = "s", **config: Any) -> Any:
        """A step scaling policy; the answer."""
        return self("PutScalingPolicy", PolicyName=name, StepScalingPolicyConfiguration={**STEPS, **config})


def endpoint(name: str, config: Mapping[str, Any] | None = None, **variant: Any) -> Record:
    """An endpoint of one variant ``V``, in service."""
    given = {"VariantName": "V", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large", **variant}
    body = {
        "EndpointConfigName": "c",
        "Config": {"ProductionVariants": [{key: value for key, value in given.items() if value}], **(config or {})},
        "Models": {},
        "Variants": {"V": {"Weight": 1.0, "Count": 1}},
        "Generation": 1,
    }
    return Record("endpoint", name, {"Serving": body}, 1.0, 1.0, status="InService")


def world() -> list[Record]:
    """A real-time endpoint E, an asynchronous one, a serverless one, an inference component C."""
    less = {"MemorySizeInMB": 1024, "MaxConcurrency": 5}
    return [
        endpoint("E"),
        endpoint("queued", {"AsyncInferenceConfig": {"OutputConfig": {}}}),
        endpoint("less", ServerlessConfig=less, InitialInstanceCount=None, InstanceType=None),
        Record("inference-component", "C", {"Serving": {"Count": 1}}, 1.0, 1.0, "InService", parent="E", facet="V"),
    ]


@contextmanager
def opened(folder: Path) -> Iterator[Scaling]:
    """On a store of its own, in which that world is."""
    store = Store(f"sqlite:///{folder / 'state.sqlite'}").open()
    try:
        with store.write() as session:
            session.add_all(world())
        yield Scaling(store)
    finally:
        store.close()
