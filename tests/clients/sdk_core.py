"""What code written for the SageMaker Python SDK, version 3, does with its core: run by the interpreter of
``sagemaker-core``.

``python sdk_core.py FIRST_ARTIFACT SECOND_ARTIFACT``: two archives in S3. Prints what it was answered as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant

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


def predicted(endpoint: Endpoint) -> Any:
    """An answer to one row."""
    answer = endpoint.invoke(body=ROW, content_type="text/csv", accept="application/json")
    return json.loads(answer.body.read())


def main() -> None:
    """Create, wait, invoke, update, list, delete."""
    first, second = sys.argv[1:]
    one, two = made("core-first", first), made("core-second", second)
    endpoint = Endpoint.create(endpoint_name="core", endpoint_config_name="core-first")
    endpoint.wait_for_status("InService", poll=1)
    told = {"status": endpoint.endpoint_status, "predicted": predicted(endpoint)}
    endpoint.endpoint_config_name = "core-second"
    endpoint.update()
    endpoint.wait_for_status("InService", poll=1)
    told["updated"] = predicted(Endpoint.get(endpoint_name="core"))
    told["listed"] = [one.endpoint_name for one in Endpoint.get_all()]
    endpoint.delete()
    endpoint.wait_for_delete(poll=1)
    for part in (*one, *two):
        part.delete()
    told["left"] = [one.model_name for one in Model.get_all(name_contains="core")]
    print()  # progress is drawn on a line without end
    print(json.dumps(told))


if __name__ == "__main__":
    main()
