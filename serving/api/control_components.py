"""Inference components: copies of a model on an endpoint whose variant names none. Create, Describe, Update,
UpdateInferenceComponentRuntimeConfig, Delete.

A copy is a worker. The record's body::

    {"Serving": DEPLOYMENT, "Pending": DEPLOYMENT, "FailureReason": "…", "LastDeploymentConfig": {…}}
    DEPLOYMENT = {"Generation", "VariantName", "ModelName" or "Container", "Models", "Count", "Specification",
                  "StartTime"}

What a component asks of the machine (ComputeResourceRequirements) is kept and shown; copies are not packed by it yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_changing import find, refuse_in_progress, settled
from serving.api.control_deployments import check_alarms, check_deployment_config
from serving.api.control_endpoints import MOST_INSTANCES
from serving.api.control_models import find_model, unpacked
from serving.api.control_tags import keep
from serving.errors import ResourceLimitExceeded, ValidationError
from serving.fleet import resolve, rollout, scaling_records
from serving.fleet.endpoints import COMPONENT, ENDPOINT, tag
from serving.fleet.store import Record

Body = Mapping[str, Any]


def create(call: ControlCall) -> Outcome:
    """CreateInferenceComponent: answers at once, in Creating."""
    params = call.params
    name, endpoint = params["InferenceComponentName"], _endpoint(call, params["EndpointName"])
    if call.session.get(COMPONENT, name) is not None:
        raise call.already_exists(COMPONENT, name)
    variant = _variant(endpoint, params.get("VariantName"))
    count = params.get("RuntimeConfig", {}).get("CopyCount", 1)
    pending = _deployment(call, _specification(params), variant, count)
    record = Record(
        COMPONENT, name, {"Pending": pending}, call.now, call.now, status="Creating", parent=endpoint.name,
        facet=variant,
    )  # fmt: skip
    keep(call, record)
    return _touched(call, name)


def describe(call: ControlCall) -> Outcome:
    """DescribeInferenceComponent."""
    record = find(call, COMPONENT, call.params["InferenceComponentName"])
    body = record.body
    shown = body.get("Serving") or body["Pending"]
    specification = _described(shown)
    answer: dict[str, Any] = {
        "InferenceComponentName": record.name,
        "InferenceComponentArn": call.arn(COMPONENT, record.name),
        "EndpointName": record.parent,
        "EndpointArn": call.arn(ENDPOINT, record.parent),
        "VariantName": record.facet,
        "InferenceComponentStatus": "Updating" if record.status == "RollingBack" else record.status,
        "FailureReason": body.get("FailureReason"),
        "Specification": specification,
        "RuntimeConfig": {"DesiredCopyCount": shown["Count"], "CurrentCopyCount": _copies(call, record)},
        "LastDeploymentConfig": body.get("LastDeploymentConfig"),
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
    }
    return Outcome({member: value for member, value in answer.items() if value is not None})


def update(call: ControlCall) -> Outcome:
    """UpdateInferenceComponent: a new specification comes up beside the old one; a new count alone changes in place."""
    params = call.params
    record = settled(call, COMPONENT, params["InferenceComponentName"])
    body, serving = record.body, record.body["Serving"]
    count = params.get("RuntimeConfig", {}).get("CopyCount", serving["Count"])
    if "Specification" not in params and "Specifications" not in params:
        return _recount(call, record, count)
    pending = _deployment(call, _specification(params), record.facet, count)
    if "DeploymentConfig" in params:
        pending["DeploymentConfig"] = guardrails = params["DeploymentConfig"]
        check_deployment_config(guardrails)
        check_alarms(call, guardrails)
        rollout.of(serving, pending)  # its sizes must suit this number of copies
    kept = {member: value for member, value in body.items() if member != "FailureReason"}
    call.session.change(record, now=call.now, body={**kept, "Pending": pending}, status="Updating")
    return _touched(call, record.name)


def update_runtime(call: ControlCall) -> Outcome:
    """UpdateInferenceComponentRuntimeConfig: the number of copies, 0 included."""
    record = settled(call, COMPONENT, call.params["InferenceComponentName"])
    return _recount(call, record, call.params["DesiredRuntimeConfig"]["CopyCount"])


def delete(call: ControlCall) -> Outcome:
    """DeleteInferenceComponent. Its scalable target goes with it."""
    record = find(call, COMPONENT, call.params["InferenceComponentName"])
    refuse_in_progress(call, record)
    call.session.change(record, now=call.now, status="Deleting")
    return Outcome({}, (tag(COMPONENT, record.name), *scaling_records.forget(call.session, record, call.now)))


# --- parts ----------------------------------------------------------------------------------------------------------


def _endpoint(call: ControlCall, name: str) -> Record:
    endpoint = find(call, ENDPOINT, name)
    if endpoint.status in ("Failed", "Deleting"):
        raise ValidationError(f'Endpoint "{call.arn(ENDPOINT, endpoint.name)}" is in status {endpoint.status}.')
    return endpoint


def _variant(endpoint: Record, named: str | None) -> str:
    """The variant that holds the component, now and after an update that is on its way."""
    deployments = [endpoint.body[one] for one in ("Serving", "Pending") if one in endpoint.body]
    names = resolve.holders(deployments[0]["Config"])
    for other in deployments[1:]:
        names = [name for name in names if name in resolve.holders(other["Config"])]
    if not names:
        raise ValidationError(
            f"Endpoint {endpoint.name} does not hold inference components: each of its variants has a model."
        )
    if named is None:
        return names[0]
    if named not in names:
        raise ValidationError(f"Endpoint {endpoint.name} has no variant {named} that holds inference components.")
    return named


def _specification(params: Body) -> Body:
    given = [params["Specification"]] if "Specification" in params else list(params.get("Specifications", []))
    if len(given) != 1 or ("Specification" in params and "Specifications" in params):
        raise ValidationError("Exactly one specification is needed: Specification, or Specifications with one item.")
    specification: Body = given[0]
    if "BaseInferenceComponentName" in specification:
        raise ValidationError("Adapter components (BaseInferenceComponentName) are not offered by this server.")
    if ("ModelName" in specification) == ("Container" in specification):
        raise ValidationError("A specification needs exactly one of ModelName and Container.")
    needs = specification.get("ComputeResourceRequirements")
    if needs is None:
        raise ValidationError("ComputeResourceRequirements is required.")
    if needs.get("MaxMemoryRequiredInMb", needs["MinMemoryRequiredInMb"]) < needs["MinMemoryRequiredInMb"]:
        raise ValidationError("MaxMemoryRequiredInMb must not be less than MinMemoryRequiredInMb.")
    return specification


def _deployment(call: ControlCall, specification: Body, variant: str, count: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Generation": call.session.next_number("generation"),
        "VariantName": variant,
        "Models": {},
        "Count": _counted(count),
        "Specification": dict(specification),
        "StartTime": call.now,
    }
    if "ModelName" in specification:
        name = specification["ModelName"]
        made |= {"ModelName": name, "Models": {name: unpacked(call, find_model(call, name).body)}}
    else:
        made["Container"] = specification["Container"]
    return made


def _counted(count: int) -> int:
    if count > MOST_INSTANCES:
        raise ResourceLimitExceeded(
            f"The account-level service limit 'copies per inference component' is {MOST_INSTANCES} Copies, with "
            f"current utilization of 0 Copies and a request delta of {count} Copies."
        )
    return count


def _recount(call: ControlCall, record: Record, count: int) -> Outcome:
    body = {**record.body, "Serving": {**record.body["Serving"], "Count": _counted(count)}}
    call.session.change(record, now=call.now, body=body, status="Updating")
    return _touched(call, record.name)


def _described(deployed: Body) -> dict[str, Any]:
    """A specification in Describe's form: a container's image becomes DeployedImage."""
    specification = dict(deployed["Specification"])
    container = dict(specification.get("Container", {}))
    if container:
        image = container.pop("Image", None)
        if image:
            container["DeployedImage"] = {
                "SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": deployed["StartTime"]
            }  # fmt: skip
        specification["Container"] = container
    return specification


def _copies(call: ControlCall, record: Record) -> int:
    live = call.live(record.parent)
    rows = live["components"] if live is not None else ()
    return next((len(row["workers"]) for row in rows if row["key"][-1] == record.name), 0)


def _touched(call: ControlCall, name: str) -> Outcome:
    return Outcome({"InferenceComponentArn": call.arn(COMPONENT, name)}, (tag(COMPONENT, name),))
