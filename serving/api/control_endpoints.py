"""Endpoints: CreateEndpoint, DescribeEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DeleteEndpoint.

An action only writes what should be; the reconciler (``fleet/endpoints.py``) makes it so and writes how it went. The
record's body::

    {"EndpointConfigName": "c", "Serving": DEPLOYMENT, "Pending": DEPLOYMENT, "LastDeploymentConfig": {…},
     "FailureReason": "…", "Origin": "api" | "declared"}

(``DEPLOYMENT``: ``fleet/resolve.py``.) While a new configuration comes up, Describe speaks of the old one and shows the
new in PendingDeploymentSummary (SageMaker API, DescribeEndpoint).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.api.autoscaling_checks import check_update
from serving.api.control_call import ControlCall, Outcome
from serving.api.control_changing import find, refuse_in_progress, settled
from serving.api.control_configs import find_config, model_names
from serving.api.control_deployments import check_alarms, check_deployment_config
from serving.api.control_models import find_model, unpacked
from serving.api.control_tags import keep
from serving.errors import ResourceLimitExceeded, ValidationError
from serving.fleet import resolve, rollout, scaling_records, table
from serving.fleet.endpoints import COMPONENT, ENDPOINT, IN_PROGRESS, tag
from serving.fleet.store import Query, Record

Body = Mapping[str, Any]

#: Instances one endpoint may ask for: a slip of the keyboard must not start a million processes.
MOST_INSTANCES = 1000
#: Members that Describe repeats from the configuration.
_REPEATED = ("AsyncInferenceConfig", "ExplainerConfig", "MetricsConfig", "CrossRegionTrafficConfig")
_REPEATED_OF_VARIANT = ("ManagedInstanceScaling", "RoutingConfig", "InstancePools", "CapacityReservationConfig")


def create(call: ControlCall) -> Outcome:
    """CreateEndpoint: answers at once, in Creating. A DeploymentConfig is only kept for later updates."""
    name, given = call.params["EndpointName"], call.params.get("DeploymentConfig")
    config = find_config(call, call.params["EndpointConfigName"])
    if call.session.get(ENDPOINT, name) is not None:
        raise call.already_exists(ENDPOINT, name)
    pending = _deployment(call, config)
    body: dict[str, Any] = {"EndpointConfigName": config.name, "Pending": pending}
    body["Origin"] = "declared" if call.trusted else "api"
    if given:
        check_deployment_config(given)
        body["LastDeploymentConfig"] = given
    keep(call, Record(ENDPOINT, name, body, call.now, call.now, status="Creating"))
    return _touched(call, name)


def update(call: ControlCall) -> Outcome:
    """UpdateEndpoint: the new configuration comes up beside the old one."""
    params = call.params
    record = settled(call, ENDPOINT, params["EndpointName"])
    config = find_config(call, params["EndpointConfigName"])
    pending = _deployment(call, config)
    serving = record.body["Serving"]
    if _is_serverless(pending) and not _is_serverless(serving):
        raise ValidationError("A real-time endpoint cannot be updated to a serverless configuration.")
    _check_components(call, record, pending)
    check_update(call, record, pending)
    if params.get("RetainAllVariantProperties"):
        excluded = params.get("ExcludeRetainedVariantProperties", [])
        pending = resolve.retained(pending, serving, frozenset(one["VariantPropertyType"] for one in excluded))
        _check_capacity(call, pending)
    guardrails = params.get("DeploymentConfig")
    if guardrails:
        check_deployment_config(guardrails)
    elif params.get("RetainDeploymentConfig"):
        guardrails = record.body.get("LastDeploymentConfig")
    if guardrails:
        pending["DeploymentConfig"] = guardrails
        check_alarms(call, guardrails)
        if rollout.is_guarded(serving, pending):
            rollout.of(serving, pending)  # its sizes must suit this capacity
    body = {name: value for name, value in record.body.items() if name != "FailureReason"}
    call.session.change(record, now=call.now, body={**body, "Pending": pending}, status="Updating")
    return _touched(call, record.name)


def update_weights(call: ControlCall) -> Outcome:
    """UpdateEndpointWeightsAndCapacities: the whole list is checked before anything changes; variants left out stay."""
    record = settled(call, ENDPOINT, call.params["EndpointName"])
    serving = record.body["Serving"]
    changes = call.params["DesiredWeightsAndCapacities"]
    variants = {one["VariantName"]: dict(resolve.wanted(one, serving)) for one in _every_variant(serving)}
    _check_changes(serving, variants, [one["VariantName"] for one in changes])
    for one in changes:
        wanted = variants[one["VariantName"]]
        if "DesiredWeight" in one:
            wanted["Weight"] = float(one["DesiredWeight"])
        if "DesiredInstanceCount" in one:
            wanted["Count"] = one["DesiredInstanceCount"]
        _update_serverless(serving, one, wanted)
    changed = {**serving, "Variants": variants}
    _check_capacity(call, changed)
    call.session.change(record, now=call.now, body={**record.body, "Serving": changed}, status="Updating")
    return _touched(call, record.name)


def delete(call: ControlCall) -> Outcome:
    """DeleteEndpoint. Its configuration and models stay; its scalable targets go."""
    record = find(call, ENDPOINT, call.params["EndpointName"])
    refuse_in_progress(call, record)
    if call.session.count(COMPONENT, record.name):
        raise ValidationError(
            f'Cannot delete endpoint "{call.arn(ENDPOINT, record.name)}" while it has inference components; '
            "delete those first."
        )
    call.session.change(record, now=call.now, status="Deleting")
    return Outcome({}, (tag(ENDPOINT, record.name), *scaling_records.forget(call.session, record, call.now)))


# --- checks ---------------------------------------------------------------------------------------------------------


def _deployment(call: ControlCall, config: Record) -> dict[str, Any]:
    """A snapshot of the configuration and of all it names, as they are now."""
    models = {name: unpacked(call, find_model(call, name).body) for name in model_names(config.body)}
    number = call.session.next_number("generation")
    made = resolve.deployment(number, config.name, config.body, models, call.now)
    _check_capacity(call, made)
    return made


def _check_capacity(call: ControlCall, deployment: Body) -> None:
    wanted = sum(values["Count"] for values in deployment["Variants"].values())
    if wanted > MOST_INSTANCES:
        raise ResourceLimitExceeded(
            f"The account-level service limit 'instances per endpoint' is {MOST_INSTANCES} Instances, with current "
            f"utilization of 0 Instances and a request delta of {wanted} Instances."
        )


def _every_variant(deployment: Body) -> list[Body]:
    """Shadow variants too."""
    return [*resolve.variants_of(deployment["Config"]), *resolve.shadows_of(deployment["Config"])]


def _check_changes(serving: Body, variants: Body, names: list[str]) -> None:
    unknown = [name for name in names if name not in variants]
    if unknown:
        raise ValidationError(
            f'The variant name(s) "{", ".join(unknown)}" is/are not present within endpoint configuration '
            f'"{serving["EndpointConfigName"]}".'
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValidationError(f'The variant name "{twice}" was non-unique within the request.')


def _check_components(call: ControlCall, record: Record, pending: Body) -> None:
    """A variant that holds inference components goes on holding them."""
    for name in resolve.holders(record.body["Serving"]["Config"]):
        held, _ = call.session.find(Query(COMPONENT, parent=record.name, facet=name, limit=1))
        if held and name not in resolve.holders(pending["Config"]):
            raise ValidationError(
                f'Variant "{name}" holds inference component "{held[0].name}", and endpoint configuration '
                f'"{pending["EndpointConfigName"]}" has no such variant; delete its inference components first.'
            )


def _is_serverless(deployment: Body) -> bool:
    return any("ServerlessConfig" in one for one in resolve.variants_of(deployment["Config"]))


def _update_serverless(serving: Body, change: Body, wanted: dict[str, Any]) -> None:
    config = next(one for one in _every_variant(serving) if one["VariantName"] == change["VariantName"])
    serverless = config.get("ServerlessConfig")
    if serverless is None:
        if "ServerlessUpdateConfig" in change:
            raise ValidationError(f'Variant "{change["VariantName"]}" is not serverless.')
        return
    if "DesiredInstanceCount" in change:
        raise ValidationError(f'Variant "{change["VariantName"]}" is serverless: it has no instance count.')
    merged = {**serverless, **wanted.get("Serverless", {}), **change.get("ServerlessUpdateConfig", {})}
    if merged.get("ProvisionedConcurrency", 0) > merged["MaxConcurrency"]:
        raise ValidationError("ProvisionedConcurrency must not be greater than MaxConcurrency.")
    wanted["Serverless"] = merged


def _touched(call: ControlCall, name: str) -> Outcome:
    return Outcome({"EndpointArn": call.arn(ENDPOINT, name)}, (tag(ENDPOINT, name),))


# --- describing -----------------------------------------------------------------------------------------------------


def describe(call: ControlCall) -> Outcome:
    """DescribeEndpoint: the record, and what really runs at this moment."""
    record = find(call, ENDPOINT, call.params["EndpointName"])
    live, body = call.live(record.name), record.body
    serving, pending = body.get("Serving"), body.get("Pending")
    status, reason = record.status, body.get("FailureReason")
    beside = live.get("green") if live is not None else None
    if live is not None and pending is not None and serving is not None and live["generation"] == pending["Generation"]:
        live, beside = None, live  # it answers alone already; what served is on its way out
    if live is not None and serving is not None and status == "InService":
        status = table.status({**live, "status": status})
        reason = "; ".join(table.failures(live)) or live["reason"] or reason
    answer: dict[str, Any] = {
        "EndpointName": record.name,
        "EndpointArn": call.arn(ENDPOINT, record.name),
        "EndpointConfigName": (serving or body)["EndpointConfigName"],
        "EndpointStatus": status,
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
        "FailureReason": reason[:1024] if reason else None,
        "LastDeploymentConfig": body.get("LastDeploymentConfig"),
    }
    if serving is not None:
        config = serving["Config"]
        answer |= {
            **_variants(serving, live, _status("Deleting", record.modified) if status == "Deleting" else None),
            **{member: config[member] for member in _REPEATED if member in config},
            "DataCaptureConfig": _capture(config, live),
        }
    if pending is not None and record.status in IN_PROGRESS:
        answer["PendingDeploymentSummary"] = {
            "EndpointConfigName": pending["EndpointConfigName"],
            "StartTime": pending["StartTime"],
            **_variants(pending, beside, _of_pending(record)),
        }
    return Outcome({member: value for member, value in answer.items() if value is not None})


def _status(status: str, since: float, message: str = "") -> dict[str, Any]:
    """An item of VariantStatus."""
    return {"Status": status, "StartTime": since} | ({"StatusMessage": message} if message else {})


def _of_pending(record: Record) -> dict[str, Any]:
    """What is being done with the variants of a pending deployment."""
    pending = record.body["Pending"]
    at = rollout.progress(pending)
    if record.status == "RollingBack":
        return _status("Deleting", record.modified)
    if at is None:
        return _status("Creating", pending["StartTime"])
    return _status(at.phase, at.since, rollout.message(rollout.of(record.body["Serving"], pending), at))


def _variants(deployment: Body, live: Body | None, state: Body | None) -> dict[str, Any]:
    """ProductionVariants and ShadowProductionVariants of a deployment. ``live``: its row of the routing table, or the
    part of a row that is green; without one nothing of it is said to run. ``state``: an item of VariantStatus."""
    config = deployment["Config"]
    rows = {row["name"]: row for row in (*live["variants"], *live.get("shadows", ()))} if live is not None else {}

    def summaries(variants: list[Body]) -> list[dict[str, Any]]:
        return [_variant(one, deployment, rows.get(one["VariantName"]), live is not None, state) for one in variants]

    shadows = summaries(resolve.shadows_of(config))
    made = {"ProductionVariants": summaries(resolve.variants_of(config))}
    return made | ({"ShadowProductionVariants": shadows} if shadows else {})


def _variant(variant: Body, deployment: Body, row: Body | None, runs: bool, state: Body | None) -> dict[str, Any]:
    wanted, model_name = resolve.wanted(variant, deployment), variant.get("ModelName")
    serverless = resolve.serverless(variant, deployment)
    current = wanted["Count"] if runs and not model_name else table.instances(row) if row is not None else 0
    described: dict[str, Any] = {
        "VariantName": variant["VariantName"],
        "CurrentWeight": row["weight"] if row is not None else wanted["Weight"] if runs else 0.0,
        "DesiredWeight": wanted["Weight"],
        **{member: variant[member] for member in _REPEATED_OF_VARIANT if member in variant},
    }
    if serverless:
        described |= {"CurrentServerlessConfig": serverless, "DesiredServerlessConfig": serverless}
    else:
        described |= {"CurrentInstanceCount": current, "DesiredInstanceCount": wanted["Count"]}
    images = _images(deployment["Models"].get(model_name, {}), deployment["StartTime"])
    if images:
        described["DeployedImages"] = images
    if state:
        described["VariantStatus"] = [state]
    return described


def _images(model: Body, at: float) -> list[dict[str, Any]]:
    containers = model.get("Containers") or [model.get("PrimaryContainer", {})]
    return [
        {"SpecifiedImage": one["Image"], "ResolvedImage": one["Image"], "ResolutionTime": at}
        for one in containers
        if "Image" in one
    ]


def _capture(config: Body, live: Body | None) -> dict[str, Any] | None:
    """DataCaptureConfigSummary: Started where calls are captured now, Stopped where capture is off, or has stopped
    because a disk is full or fails."""
    wanted = config.get("DataCaptureConfig")
    if not wanted:
        return None
    enabled = wanted.get("EnableCapture", True)
    started = enabled and live is not None and not live.get("capture_stopped")
    summary = {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if started else "Stopped",
        "CurrentSamplingPercentage": wanted["InitialSamplingPercentage"],
        "DestinationS3Uri": wanted["DestinationS3Uri"],
    }
    return summary | ({"KmsKeyId": wanted["KmsKeyId"]} if "KmsKeyId" in wanted else {})
