"""What code written for the SageMaker Python SDK, version 3, does with its core: run by the interpreter of
``sagemaker-core``.

``python sdk_core.py FIRST_ARTIFACT SECOND_ARTIFACT``: two archives in S3. Prints what it was answered as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sagemaker.core.resources import Endpoint, EndpointConfig, InferenceComponent, Model
from sagemaker.core.shapes import (
    ContainerDefinition,
    InferenceComponentComputeResourceRequirements,
    InferenceComponentRuntimeConfig,
    InferenceComponentSpecification,
    ProductionVariant,
)

ROLE = "arn:aws:iam::123456789012:role/any"
ROW = ",".join(["1"] * 30)


def made(name: str, data: str) -> tuple[Model, EndpointConfig]:
    """A model and a config of one name."""
    container = ContainerDefinition(image="any", model_data_url=data)
    model = Model.create(model_name=name, primary_container=container, execution_role_arn=ROLE)
    variant = ProductionVariant(
        variant_name="v",
        model_name=name,
        instance_type="ml.m5.large",
        initial_instance_count=1,
        initial_variant_weight=1.0,
    )
    return model, EndpointConfig.create(endpoint_config_name=name, production_variants=[variant])


def predicted(endpoint: Endpoint, **more: str) -> Any:
    """An answer to one row."""
    answer = endpoint.invoke(body=ROW, content_type="text/csv", accept="application/json", **more)
    return json.loads(answer.body.read())


def single(first: str, second: str) -> dict[str, Any]:
    """Create, wait, invoke, update, list, delete."""
    one, two = made("core-first", first), made("core-second", second)
    endpoint = Endpoint.create(endpoint_name="core", endpoint_config_name="core-first")
    endpoint.wait_for_status("InService", poll=1)
    told = {"status": endpoint.endpoint_status, "predicted": predicted(endpoint)}
    endpoint.endpoint_config_name = "core-second"
    endpoint.update()
    endpoint.wait_for_status("InService", poll=1)
    told["updated"] = predicted(Endpoint.get(endpoint_name="core"))
    told["listed"] = [one.endpoint_name for one in Endpoint.get_all(name_contains="core")]
    gone(endpoint)
    for part in (*one, *two):
        part.delete()
    return told


def component(artifact: str) -> dict[str, Any]:
    """A model as a component on a shared endpoint: create, invoke, more copies, delete."""
    container = ContainerDefinition(image="any", model_data_url=artifact)
    model = Model.create(model_name="core-part", primary_container=container, execution_role_arn=ROLE)
    variant = ProductionVariant(variant_name="v", instance_type="ml.m5.large", initial_instance_count=1)
    config = EndpointConfig.create(
        endpoint_config_name="core-shared", production_variants=[variant], execution_role_arn=ROLE
    )
    endpoint = Endpoint.create(endpoint_name="core-shared", endpoint_config_name="core-shared")
    endpoint.wait_for_status("InService", poll=1)
    needs = InferenceComponentComputeResourceRequirements(min_memory_required_in_mb=128, number_of_cpu_cores_required=1)
    part = InferenceComponent.create(
        inference_component_name="core-part",
        endpoint_name="core-shared",
        variant_name="v",
        specification=InferenceComponentSpecification(model_name="core-part", compute_resource_requirements=needs),
        runtime_config=InferenceComponentRuntimeConfig(copy_count=1),
    )
    part.wait_for_status("InService", poll=1)
    told = {"component": predicted(endpoint, inference_component_name="core-part")}
    part.update_runtime_configs(desired_runtime_config=InferenceComponentRuntimeConfig(copy_count=2))
    part.wait_for_status("InService", poll=1)
    told["copies"] = part.refresh().runtime_config.current_copy_count
    part.delete()
    part.wait_for_delete(poll=1)
    gone(endpoint)
    for rest in (config, model):
        rest.delete()
    return told


def gone(endpoint: Endpoint) -> None:
    """Deleted, and waited for."""
    endpoint.delete()
    endpoint.wait_for_delete(poll=1)


def main() -> None:
    """Everything, in order."""
    first, second = sys.argv[1:]
    told = single(first, second) | component(second)
    told["left"] = [
        one.get_name() for kind in (Endpoint, EndpointConfig, Model) for one in kind.get_all(name_contains="core")
    ]
    print()  # progress is drawn on a line without end
    print(json.dumps(told))


if __name__ == "__main__":
    main()
