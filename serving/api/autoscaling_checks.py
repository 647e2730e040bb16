"""What a call of the Application Auto Scaling API may be about, and what it may ask for. AWS's words where they are
known (``reference/api/06``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.control_call import ControlCall
from serving.errors import ObjectNotFound, ValidationError
from serving.fleet import resolve, scaling_records
from serving.fleet.scaling_records import TARGET
from serving.fleet.store import Record
from serving.scaling.values import COPIES, DIMENSIONS, INSTANCES, NAMESPACE, PROVISIONED, Resource

Body = Mapping[str, Any]

_UNSUPPORTED = "Unsupported service namespace, resource type or scalable dimension"
#: Calls at a time that a serverless variant may keep workers ready for (SageMaker API, ProvisionedConcurrency).
_MOST_PROVISIONED = 200


# --- what it is about -------------------------------------------------------------------------------------------------


def check_namespace(params: Body) -> None:
    """Only SageMaker's resources scale here. Raises ``ValidationError``."""
    dimension = params.get("ScalableDimension", INSTANCES)
    if params["ServiceNamespace"] != NAMESPACE or dimension not in DIMENSIONS:
        raise ValidationError(_UNSUPPORTED)


def key(call: ControlCall) -> Resource:
    """The resource that a call names, spelt as it is. Raises ``ValidationError`` for what can be none."""
    check_namespace(call.params)
    resource = scaling_records.resource_of(call.params)
    parts = resource.id.split("/")
    good = ["inference-component"] if resource.dimension == COPIES else ["endpoint", "variant"]
    if parts[::2] != good or len(parts) != 2 * len(good) or not all(parts):
        raise ValidationError(_UNSUPPORTED)
    return resource


def registered(call: ControlCall) -> Record:
    """The scalable target that a call names. Raises ``ObjectNotFound``."""
    resource = key(call)
    record = call.session.get(TARGET, scaling_records.key(resource))
    if record is None:
        raise ObjectNotFound(f"No scalable target registered for {spelt(resource)}")
    return record


def spelt(resource: Resource) -> str:
    """A key as AWS's messages have it."""
    return f"service namespace: {NAMESPACE}, resource ID: {resource.id}, scalable dimension: {resource.dimension}"


def page_size(params: Body) -> int:
    """MaxResults. Raises ``ValidationError``."""
    size = int(params.get("MaxResults", 50))
    if not 1 <= size <= 50:
        raise ValidationError(f"MaxResults is {size}; it must be from 1 to 50.")
    return size


# --- what may be scaled -----------------------------------------------------------------------------------------------


def existing(call: ControlCall, resource: Resource) -> tuple[Resource, int]:
    """The resource with the names that its records have, and the least capacity it may have. Raises
    ``ValidationError`` for one that is not there, or has no such dimension."""
    record = scaling_records.resource_record(call.session, resource)
    kind = "Inference component" if resource.dimension == COPIES else "Endpoint"
    if record is None or record.status in ("Deleting", "Failed"):
        raise ValidationError(f"{kind} does not exist for resource ID: {resource.id}")
    if resource.dimension == COPIES:
        return Resource(f"inference-component/{record.name}", COPIES), 0
    deployment = record.body.get("Serving") or record.body["Pending"]
    variant = _variant(deployment, resource.id.split("/")[3])
    if variant is None:
        raise ValidationError(f"Endpoint {record.name} has no production variant for resource ID: {resource.id}")
    pending = record.body.get("Pending", deployment) if record.status == "Updating" else deployment
    change = _change(deployment, pending, variant["VariantName"])
    if change:
        config = pending["EndpointConfigName"]
        raise ValidationError(f'Endpoint {record.name} is being updated to configuration "{config}", which {change}')
    serverless = "ServerlessConfig" in variant
    if serverless != (resource.dimension == PROVISIONED):
        what = f"serverless: its scalable dimension is {PROVISIONED if serverless else INSTANCES}"
        raise ValidationError(f"Variant {variant['VariantName']} is {'' if serverless else 'not '}{what}")
    own = Resource(f"endpoint/{record.name}/variant/{variant['VariantName']}", resource.dimension)
    to_zero = not serverless and (call.settings.scale_to_zero or "AsyncInferenceConfig" in deployment["Config"])
    return own, 0 if to_zero else 1


def check_capacity(limits: Body, resource: Resource, least: int) -> None:
    """MinCapacity and MaxCapacity, those that are given. Raises ``ValidationError``."""
    low, high = limits.get("MinCapacity"), limits.get("MaxCapacity")
    if low is not None and low < least:
        zero = " (to zero: asynchronous endpoints, inference components, or SERVING_SCALE_TO_ZERO=true)"
        raise ValidationError(f"Minimum capacity cannot be less than {least}{zero if low == 0 else ''}")
    if high is not None and high < 0:
        raise ValidationError("Maximum capacity cannot be less than 0")
    if low is not None and high is not None and low > high:
        raise ValidationError("Maximum capacity cannot be less than minimum capacity")
    if resource.dimension == PROVISIONED and high is not None and high > _MOST_PROVISIONED:
        raise ValidationError(f"Maximum capacity cannot be more than {_MOST_PROVISIONED} for {PROVISIONED}")


def check_update(call: ControlCall, record: Record, pending: Body) -> None:
    """An endpoint's new deployment keeps the variants that are scaled, and what they are. Raises ``ValidationError``
    (SageMaker, update of an endpoint with automatic scaling: deregister first)."""
    for target in scaling_records.targets_of(call.session, record):
        change = _change(record.body["Serving"], pending, target.body["ResourceId"].split("/")[3])
        if change:
            raise ValidationError(
                f'Endpoint configuration "{pending["EndpointConfigName"]}" {change}, which is a scalable target; '
                f"deregister {target.body['ResourceId']} first."
            )


def _change(before: Body, after: Body, name: str) -> str:
    """What a deployment changes in a variant of this name so that it cannot be scaled meanwhile; or empty."""
    old, new = _variant(before, name) or {}, _variant(after, name)
    if new is None:
        return f"has no variant {name}"
    if ("ServerlessConfig" in old) != ("ServerlessConfig" in new):
        return f"changes whether variant {name} is serverless"
    kinds = {one["InstanceType"] for one in (old, new) if "InstanceType" in one}  # a declared variant may have none
    return f"changes the instance type of variant {name}" if len(kinds) > 1 else ""


def _variant(deployment: Body, name: str) -> Body | None:
    found = resolve.variants_of(deployment["Config"])
    return next((one for one in found if one["VariantName"].lower() == name.lower()), None)
