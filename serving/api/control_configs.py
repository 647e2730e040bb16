"""Endpoint configurations: CreateEndpointConfig, DescribeEndpointConfig, DeleteEndpointConfig.

A configuration is kept as it was sent and never changes; Describe echoes it without defaults, as clients feed what
they read into their next Create (SageMaker API, CreateEndpointConfig, ProductionVariant). AWS's model checks each
member by itself; what members mean together is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.api.complaints import Complaints, Path
from serving.api.control_async import check_async, check_outputs, model_places
from serving.api.control_call import ControlCall, Outcome
from serving.api.control_models import find_model, unpacked
from serving.api.control_tags import keep, without_tags
from serving.errors import ValidationError
from serving.explain import settings as explaining
from serving.fleet.store import Record
from serving.objects.base import prefix_url

Variant = Mapping[str, Any]

SERVERLESS_MEMORY = (1024, 2048, 3072, 4096, 5120, 6144)

#: Members of a variant that speak of instances, which a serverless one has not.
_INSTANCES = ("InstanceType", "InitialInstanceCount", "InstancePools", "ManagedInstanceScaling")
#: Members of a configuration that do not go with a serverless variant.
_NOT_SERVERLESS = ("DataCaptureConfig", "AsyncInferenceConfig", "CrossRegionTrafficConfig", "VpcConfig")


def create(call: ControlCall) -> Outcome:
    """CreateEndpointConfig."""
    name = call.params["EndpointConfigName"]
    check_config(call.params, trusted=call.trusted)
    for model in model_names(call.params):
        _check_model(call, find_model(call, model), call.params)
    _check_shadows(call)
    if "AsyncInferenceConfig" in call.params:
        check_outputs(call)
    _check_capture_place(call)
    keep(call, Record("endpoint-config", name, without_tags(call.params), call.now, call.now))
    return Outcome({"EndpointConfigArn": call.arn("endpoint-config", name)})


def describe(call: ControlCall) -> Outcome:
    """DescribeEndpointConfig."""
    config = find_config(call, call.params["EndpointConfigName"])
    arn = call.arn("endpoint-config", config.name)
    return Outcome({**config.body, "EndpointConfigArn": arn, "CreationTime": config.created})


def delete(call: ControlCall) -> Outcome:
    """DeleteEndpointConfig. One in use may go: endpoints keep what they were given."""
    if not call.session.remove("endpoint-config", call.params["EndpointConfigName"]):
        raise call.could_not_find("endpoint-config", call.params["EndpointConfigName"])
    return Outcome({})


def find_config(call: ControlCall, name: str) -> Record:
    """The configuration of this name. Raises ``ValidationError``."""
    config = call.session.get("endpoint-config", name)
    if config is None:
        raise call.could_not_find("endpoint-config", name)
    return config


def all_variants(config: Mapping[str, Any]) -> list[Variant]:
    """Production variants, then shadow variants."""
    return [*config["ProductionVariants"], *config.get("ShadowProductionVariants", ())]


def model_names(config: Mapping[str, Any]) -> list[str]:
    """Every model a configuration names, in order, once."""
    variants = all_variants(config)
    names = [one["ModelName"] for one in variants if "ModelName" in one]
    pools = [pool for one in variants for pool in one.get("InstancePools", ())]
    names += [pool["ModelNameOverride"] for pool in pools if "ModelNameOverride" in pool]
    return list(dict.fromkeys(names))


# --- rules ----------------------------------------------------------------------------------------------------------


def check_config(config: Mapping[str, Any], trusted: bool = False) -> None:
    """What holds between the members of a configuration, whatever models there are. Pure. ``trusted``: an operator's
    own file need not say instance types and counts. Raises ``ValidationError``."""
    _check_variants(config)
    for member, spelt in (
        ("ProductionVariants", "productionVariants"),
        ("ShadowProductionVariants", "shadowProductionVariants"),
    ):
        for number, variant in enumerate(config.get(member, ()), 1):
            _check_variant(variant, (spelt, str(number), "member"), trusted)
    _check_serverless_config(config)
    if "AsyncInferenceConfig" in config and "CrossRegionTrafficConfig" in config:
        raise ValidationError("CrossRegionTrafficConfig cannot be given together with AsyncInferenceConfig.")
    check_async(config)
    _check_capture(config.get("DataCaptureConfig"))
    _check_explainer(config)


def _check_variants(config: Mapping[str, Any]) -> None:
    """SageMaker takes one shadow variant for one production variant; several of either are no harm here."""
    variants, shadows = all_variants(config), config.get("ShadowProductionVariants")
    _check_unique([variant["VariantName"] for variant in variants])
    with_model = sum("ModelName" in variant for variant in variants)
    if with_model not in (0, len(variants)):
        raise ValidationError("Either every variant has a ModelName or none (for inference components).")
    if shadows and not with_model:
        raise ValidationError("ShadowProductionVariants needs variants with a ModelName.")


def _check_unique(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise ValidationError(f'The variant name "{name}" was non-unique within the request.')
        seen.add(name.lower())


def _check_variant(variant: Variant, where: Path, trusted: bool) -> None:
    if "ServerlessConfig" in variant:
        _check_serverless(variant, where)
    else:
        _check_instances(variant, trusted)
    routing = variant.get("RoutingConfig", {})
    if "PrefixAwareRoutingConfig" in routing and routing["RoutingStrategy"] != "PREFIX_AWARE":
        raise ValidationError("PrefixAwareRoutingConfig needs the RoutingStrategy PREFIX_AWARE.")


# --- instances ------------------------------------------------------------------------------------------------------


def _check_instances(variant: Variant, trusted: bool) -> None:
    name = variant["VariantName"]
    if "InstancePools" in variant:
        _check_pools(variant)
    elif "InstanceType" not in variant and not trusted:
        raise ValidationError(f'Variant "{name}" needs an InstanceType, InstancePools or a ServerlessConfig.')
    if "ModelName" in variant and "InitialInstanceCount" not in variant and not trusted:
        raise ValidationError(f'Variant "{name}" needs an InitialInstanceCount.')
    if "ManagedInstanceScaling" in variant:
        _check_managed_scaling(variant)


def _check_pools(variant: Variant) -> None:
    name, pools = variant["VariantName"], variant["InstancePools"]
    if "InstanceType" in variant:
        raise ValidationError(f'Variant "{name}" has either an InstanceType or InstancePools, not both.')
    for member in ("InstanceType", "Priority"):
        if len({pool[member] for pool in pools}) < len(pools):
            raise ValidationError(f'Each of the InstancePools of variant "{name}" must have an own {member}.')
    if "ModelName" not in variant and any("ModelNameOverride" in pool for pool in pools):
        raise ValidationError(f'ModelNameOverride needs a ModelName to override; variant "{name}" has none.')


def _check_managed_scaling(variant: Variant) -> None:
    if "ModelName" in variant:
        raise ValidationError("ManagedInstanceScaling is only supported for inference component endpoints.")
    scaling = variant["ManagedInstanceScaling"]
    least, most = scaling.get("MinInstanceCount"), scaling.get("MaxInstanceCount")
    if least is not None and most is not None and least > most:
        raise ValidationError(f"MinInstanceCount ({least}) must be at most MaxInstanceCount ({most}).")


# --- serverless -----------------------------------------------------------------------------------------------------


def _check_serverless(variant: Variant, where: Path) -> None:
    serverless, name = variant["ServerlessConfig"], variant["VariantName"]
    given = [member for member in _INSTANCES if member in variant]
    if given:
        raise ValidationError(f'Variant "{name}" has either a ServerlessConfig or {given[0]}, not both.')
    if "ModelName" not in variant:
        raise ValidationError(f'Serverless variant "{name}" needs a ModelName.')
    memory = serverless["MemorySizeInMB"]
    if memory not in SERVERLESS_MEMORY:
        complaints = Complaints()
        sizes = f"Member must satisfy enum value set: {list(SERVERLESS_MEMORY)}"
        complaints.add((*where, "serverlessConfig", "memorySizeInMB"), memory, sizes)
        complaints.raise_any()
    provisioned, most = serverless.get("ProvisionedConcurrency", 0), serverless["MaxConcurrency"]
    if provisioned > most:
        raise ValidationError(f"ProvisionedConcurrency ({provisioned}) must be at most MaxConcurrency ({most}).")


def _is_serverless(config: Mapping[str, Any]) -> bool:
    return any("ServerlessConfig" in variant for variant in all_variants(config))


def _check_serverless_config(config: Mapping[str, Any]) -> None:
    if not _is_serverless(config):
        return
    if len(all_variants(config)) > 1:
        raise ValidationError("A serverless endpoint has exactly one variant and no shadow variants.")
    given = [member for member in _NOT_SERVERLESS if member in config]
    if config.get("EnableNetworkIsolation"):
        given.append("EnableNetworkIsolation")
    if given:
        raise ValidationError(f"{given[0]} is not supported for serverless endpoints.")


def _check_model(call: ControlCall, model: Record, config: Mapping[str, Any]) -> None:
    """A serverless variant's model is one container with one model of its own."""
    if not _is_serverless(config):
        return
    body, arn = unpacked(call, model.body), call.arn("model", model.name)
    containers = body.get("Containers") or [body["PrimaryContainer"]]
    refused = {
        "has several containers": len(containers) > 1,
        "is a multi-model one": any(one.get("Mode") == "MultiModel" for one in containers),
        "has a ModelDataSource": any("ModelDataSource" in one for one in containers),
        "has a VpcConfig": "VpcConfig" in body,
        "has EnableNetworkIsolation": bool(body.get("EnableNetworkIsolation")),
    }
    for what, is_so in refused.items():
        if is_so:
            raise ValidationError(f'Model "{arn}" {what}, which serverless endpoints do not support.')


def _check_shadows(call: ControlCall) -> None:
    """A copy names a model exactly where the call does: all variants are multi-model ones, or none."""
    if "ShadowProductionVariants" not in call.params:
        return
    kinds = {_is_multi_model(call, find_model(call, name)) for name in model_names(call.params)}
    if len(kinds) > 1:
        raise ValidationError(
            "A shadow variant gets the same calls as production: either every variant has a MultiModel container or "
            "none."
        )


def _is_multi_model(call: ControlCall, model: Record) -> bool:
    body = unpacked(call, model.body)
    containers = body.get("Containers") or [body["PrimaryContainer"]]
    return any(one.get("Mode") == "MultiModel" for one in containers)


# --- data capture ---------------------------------------------------------------------------------------------------


def _check_capture(capture: Mapping[str, Any] | None) -> None:
    if capture is None:
        return
    try:
        prefix_url(capture["DestinationS3Uri"])
    except ValidationError:
        raise ValidationError("DestinationS3Uri of DataCaptureConfig must be s3://bucket/prefix.") from None


def _check_capture_place(call: ControlCall) -> None:
    """Captures among a model's files would become part of it, and callers could name them as models."""
    destination = call.params.get("DataCaptureConfig", {}).get("DestinationS3Uri", "").rstrip("/")
    for model, place in model_places(call) if destination else ():
        if f"{destination}/".startswith(f"{place.rstrip('/')}/"):
            raise ValidationError(
                f"DestinationS3Uri {destination} of DataCaptureConfig lies in the data of model {model}. Choose "
                "another prefix."
            )


# --- explanations ---------------------------------------------------------------------------------------------------


def _check_explainer(config: Mapping[str, Any]) -> None:
    clarify = config.get("ExplainerConfig", {}).get("ClarifyExplainerConfig")
    if clarify is None:
        return
    if "AsyncInferenceConfig" in config:  # InvokeEndpointAsync knows of no explanations
        raise ValidationError("ExplainerConfig cannot be given together with AsyncInferenceConfig.")
    explaining.check(clarify)
