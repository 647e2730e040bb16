"""From SageMaker's bodies to what must run: snapshots of what an endpoint was given, and the fleets they mean. Pure.

A *deployment* is all that one version of an endpoint (or of an inference component) runs by, copied when it was asked
for: configs and models may be deleted while endpoints use them (SageMaker API, DeleteEndpointConfig). It is plain JSON
and stands in the endpoint's record::

    {"Generation": 3, "EndpointConfigName": "c", "Config": {CreateEndpointConfig…}, "Models": {"m": {CreateModel…}},
     "Variants": {"v": {"Weight": 1.0, "Count": 1}}, "StartTime": 1789000000.0}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from serving.errors import ValidationError
from serving.types import (
    LONGEST_QUARANTINE,
    AsyncSpec,
    CaptureSpec,
    EndpointSpec,
    FleetKey,
    FleetSpec,
    ModelSpec,
    RoutingStrategy,
    ServerlessSpec,
    VariantSpec,
)

Body = Mapping[str, Any]

_STRATEGIES: Mapping[str, RoutingStrategy] = {
    "RANDOM": "RANDOM",
    "LEAST_OUTSTANDING_REQUESTS": "LEAST_OUTSTANDING_REQUESTS",
    # prompt prefixes matter to language models' caches; until those are here, the least loaded worker is the best
    "PREFIX_AWARE": "LEAST_OUTSTANDING_REQUESTS",
    "KV_AWARE": "LEAST_OUTSTANDING_REQUESTS",
}
#: Calls at a time in one instance of an asynchronous endpoint; SageMaker's own default is not documented.
_USUAL_CONCURRENCY = 4
#: The longest InvocationTimeoutSeconds (SageMaker Runtime API, InvokeEndpointAsync).
_LONGEST_ASYNC_CALL = 3600.0
#: A job that ends workers is given up by itself after three: those behind it should not expire meanwhile.
_ASYNC_QUARANTINE = 2.0
#: Where processors are short, a shadow variant's workers get about a tenth of what production's do (POSIX nice).
_SHADOWS_GIVE_WAY = 10
_IMAGE = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/([a-z0-9._/-]+)(?:[:@]\S+)?", re.ASCII)
_PATH_STYLE = re.compile(r"s3[.-]([a-z0-9-]+\.)?amazonaws\.com(\.cn)?", re.ASCII)
_HOST_STYLE = re.compile(r"(.+)\.s3([.-][a-z0-9-]+)?\.amazonaws\.com(\.cn)?", re.ASCII)


# --- deployments ----------------------------------------------------------------------------------------------------


def variants_of(config: Body) -> list[Body]:
    """The production variants of a config body."""
    return list(config["ProductionVariants"])


def shadows_of(config: Body) -> list[Body]:
    """The shadow variants of a config body."""
    return list(config.get("ShadowProductionVariants", ()))


def wanted(variant: Body, deployed: Body) -> Mapping[str, Any]:
    """Weight and count that a variant of a deployment should have now; a deployment that was written before shadow
    variants ran says nothing of them but in its config."""
    found: Mapping[str, Any] = deployed["Variants"].get(variant["VariantName"]) or initial(variant)
    return found


def holders(config: Body) -> list[str]:
    """The variants that hold inference components: they name no model of their own."""
    return [str(one["VariantName"]) for one in variants_of(config) if "ModelName" not in one]


def initial(variant: Body) -> dict[str, Any]:
    """A variant's weight and instance count as its config says: weight 1.0 when absent; a serverless variant has the
    workers that are provisioned for it, at least one."""
    serverless = variant.get("ServerlessConfig") or {}
    count = variant.get("InitialInstanceCount", serverless.get("ProvisionedConcurrency", 1))
    made = {"Weight": float(variant.get("InitialVariantWeight", 1.0)), "Count": int(count)}
    return made | ({"Serverless": dict(serverless)} if serverless else {})


def serverless(variant: Body, deployed: Body) -> Body | None:
    """The ServerlessConfig that a variant of a deployment should have now, None for one that has instances."""
    if "ServerlessConfig" not in variant:
        return None
    found = {**variant["ServerlessConfig"], **wanted(variant, deployed).get("Serverless", {})}
    return {member: value for member, value in found.items() if value}  # nothing provisioned: it is left out


def deployment(
    generation: int, config_name: str, config: Body, models: Mapping[str, Body], now: float
) -> dict[str, Any]:
    """A deployment of a config and the models it names, with the config's own weights and counts."""
    return {
        "Generation": generation,
        "EndpointConfigName": config_name,
        "Config": dict(config),
        "Models": {name: dict(model) for name, model in models.items()},
        "Variants": {one["VariantName"]: initial(one) for one in (*variants_of(config), *shadows_of(config))},
        "StartTime": now,
    }


def retained(new: Body, old: Body, exclude: frozenset[str]) -> dict[str, Any]:
    """``new`` with the current weights and counts of ``old`` for variants of the same name (UpdateEndpoint,
    RetainAllVariantProperties), but for the properties in ``exclude``."""
    kept = {"DesiredWeight": "Weight", "DesiredInstanceCount": "Count"}
    fields = [field for property, field in kept.items() if property not in exclude]
    variants = {
        name: {**values, **{field: old["Variants"][name][field] for field in fields if name in old["Variants"]}}
        for name, values in new["Variants"].items()
    }
    config = dict(new["Config"])
    if "DataCaptureConfig" not in exclude and "DataCaptureConfig" in old["Config"]:
        config["DataCaptureConfig"] = old["Config"]["DataCaptureConfig"]
    return {**new, "Variants": variants, "Config": config}


# --- what they mean -------------------------------------------------------------------------------------------------


def endpoint_spec(name: str, deployed: Body) -> EndpointSpec:
    """An endpoint's deployment as the server works by it. Raises ``ValidationError`` for a container that this server
    cannot run."""
    config = deployed["Config"]
    variants = [_variant(one, deployed) for one in variants_of(config)]
    return EndpointSpec(
        name,
        deployed["EndpointConfigName"],
        tuple(variants),
        deployed["Generation"],
        _asynchronous(config["AsyncInferenceConfig"], deployed) if "AsyncInferenceConfig" in config else None,
        _capture(config["DataCaptureConfig"]) if "DataCaptureConfig" in config else None,
        config.get("ExplainerConfig", {}).get("ClarifyExplainerConfig"),
        tuple(_variant(one, deployed) for one in shadows_of(config)),
        deployed["StartTime"],
    )


def _capture(config: Body) -> CaptureSpec | None:
    """None: nothing is to be captured. Without lists of content types every body is written as Base64."""
    if not config.get("EnableCapture", True):
        return None
    modes = {one["CaptureMode"] for one in config["CaptureOptions"]}
    types = config.get("CaptureContentTypeHeader", {})
    return CaptureSpec(
        destination=config["DestinationS3Uri"],
        percent=config["InitialSamplingPercentage"],
        input=bool(modes & {"Input", "InputAndOutput"}),
        output=bool(modes & {"Output", "InputAndOutput"}),
        csv=tuple(types.get("CsvContentTypes", ())),
        json=tuple(types.get("JsonContentTypes", ())),
    )


def _asynchronous(config: Body, deployed: Body) -> AsyncSpec:
    output = config["OutputConfig"]
    topics = output.get("NotificationConfig", {})
    return AsyncSpec(
        output=output.get("S3OutputPath", ""),
        failure=output.get("S3FailurePath", ""),
        concurrency=config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", _USUAL_CONCURRENCY),
        success_topic=topics.get("SuccessTopic", ""),
        error_topic=topics.get("ErrorTopic", ""),
        include=tuple(topics.get("IncludeInferenceResponseIn", ())),
        since=deployed["StartTime"],
    )


def _variant(variant: Body, deployed: Body) -> VariantSpec:
    name, model_name = variant["VariantName"], variant.get("ModelName")
    model = deployed["Models"][model_name] if model_name else {}
    now = wanted(variant, deployed)
    on_demand = _serverless(serverless(variant, deployed))
    return VariantSpec(
        name=name,
        containers=containers(model_name, model) if model_name else (),
        weight=now["Weight"],
        instance_count=on_demand.provisioned if on_demand else now["Count"],
        routing=_STRATEGIES[variant.get("RoutingConfig", {}).get("RoutingStrategy", "RANDOM")],
        direct=model.get("InferenceExecutionConfig", {}).get("Mode") == "Direct",
        serverless=on_demand,
    )


def _serverless(config: Body | None) -> ServerlessSpec | None:
    if config is None:
        return None
    return ServerlessSpec(
        config["MemorySizeInMB"] * 2**20, config["MaxConcurrency"], config.get("ProvisionedConcurrency", 0)
    )


def containers(name: str, model: Body) -> tuple[ModelSpec, ...]:
    """The containers of a CreateModel body, in order. Those without a host name get ``container-1``, ``container-2``
    …; an only container has none."""
    bodies = model.get("Containers") or [model["PrimaryContainer"]]
    if len(bodies) == 1 and model.get("InferenceExecutionConfig", {}).get("Mode") != "Direct":
        return (container(name, bodies[0], ""),)
    return tuple(
        container(name, body, body.get("ContainerHostname") or f"container-{number}")
        for number, body in enumerate(bodies, 1)
    )


def container(name: str, body: Body, hostname: str) -> ModelSpec:
    """A ContainerDefinition, or the Container of an inference component (which says ArtifactUrl)."""
    source = body.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
    url = body.get("ModelDataUrl") or body.get("ArtifactUrl") or source
    if not url:
        raise ValidationError(
            f"A container of model {name} names no model data: this server runs artifacts, not container images."
        )
    return ModelSpec(
        name,
        object_url(url),
        body.get("Mode", "SingleModel"),
        dict(body.get("Environment", {})),
        body.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled"),
        hostname,
        repository(body.get("Image", "")),
    )


def repository(image: str) -> str:
    """``kmeans`` of ``382416733822.dkr.ecr.us-east-1.amazonaws.com/kmeans:1``; empty for an image of another form."""
    found = _IMAGE.fullmatch(image)
    return found[1] if found else ""


def object_url(url: str) -> str:
    """An artifact's URL as the object store knows it: S3's two https forms as ``s3://``; any other https host is none
    of ours to fetch from. Raises ``ValidationError``."""
    if not url.startswith("https://"):
        return url
    parts = urlsplit(url)
    key = parts.path.lstrip("/")
    if _PATH_STYLE.fullmatch(parts.netloc):
        return f"s3://{key}"
    host = _HOST_STYLE.fullmatch(parts.netloc)
    if host is None:
        raise ValidationError("Model data must lie at s3://, or at an https:// URL of S3.")
    return f"s3://{host[1]}/{key}"


def endpoint_fleets(spec: EndpointSpec) -> tuple[FleetSpec, ...]:
    """One fleet for each container of each variant, shadow variants last."""
    longest = _LONGEST_ASYNC_CALL if spec.asynchronous else 0.0
    quarantine = _ASYNC_QUARANTINE if spec.asynchronous else LONGEST_QUARANTINE
    return tuple(
        FleetSpec(
            FleetKey(spec.name, spec.generation, one.name, model.hostname),
            model,
            one.instance_count,
            one.routing,
            longest,
            quarantine,
            _SHADOWS_GIVE_WAY if one in spec.shadows else 0,
            one.serverless,
        )
        for one in (*spec.variants, *spec.shadows)
        for model in one.containers
    )


def component_fleet(name: str, endpoint: str, deployed: Body) -> FleetSpec:
    """The one fleet of an inference component's deployment: ``{"Generation", "VariantName", "ModelName" or
    "Container", "Models", "Count"}``. Raises ``ValidationError`` as ``container`` does."""
    model_name = deployed.get("ModelName")
    if model_name:
        found = containers(model_name, deployed["Models"][model_name])
        if len(found) > 1:
            raise ValidationError(f"Model {model_name} has several containers; an inference component runs one.")
        model = found[0]
    else:
        model = container(name, deployed.get("Container", {}), "")
    key = FleetKey(endpoint, deployed["Generation"], deployed["VariantName"], "", name)
    return FleetSpec(key, model, deployed["Count"], "LEAST_OUTSTANDING_REQUESTS")
