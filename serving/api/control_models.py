"""Models: CreateModel, DescribeModel, DeleteModel, and the containers a model stands for.

A model is kept as it was sent and never changes; Describe echoes it without defaults (SageMaker API, CreateModel,
ContainerDefinition). AWS's model checks each member by itself; what members mean together is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_registry import find_package
from serving.api.control_tags import keep, without_tags
from serving.errors import ValidationError
from serving.fleet.store import Record

Container = Mapping[str, Any]

MAX_CONTAINERS = 15
#: Keys and values of all containers' environments together, bytes.
MAX_ENVIRONMENT = 32 * 1024
#: Members that say what a container runs. A package says it itself.
_CONTENT = ("Image", "ImageConfig", "ModelDataUrl", "ModelDataSource", "AdditionalModelDataSources")


def create(call: ControlCall) -> Outcome:
    """CreateModel."""
    name, containers = call.params["ModelName"], _containers(call.params)
    _check_together(call.params, containers)
    for container in containers:
        _check_container(container)
    unpacked(call, call.params, approved=True)
    keep(call, Record("model", name, without_tags(call.params), call.now, call.now))
    return Outcome({"ModelArn": call.arn("model", name)})


def describe(call: ControlCall) -> Outcome:
    """DescribeModel."""
    model = find_model(call, call.params["ModelName"])
    return Outcome({**model.body, "ModelArn": call.arn("model", model.name), "CreationTime": model.created})


def delete(call: ControlCall) -> Outcome:
    """DeleteModel. A model in use may go: endpoints keep what they were given."""
    if not call.session.remove("model", call.params["ModelName"]):
        raise call.could_not_find("model", call.params["ModelName"])
    return Outcome({})


def find_model(call: ControlCall, name: str) -> Record:
    """The model of this name. Raises ``ValidationError``."""
    model = call.session.get("model", name)
    if model is None:
        raise call.could_not_find("model", name)
    return model


def unpacked(call: ControlCall, model: Mapping[str, Any], approved: bool = False) -> dict[str, Any]:
    """A CreateModel body in which every model package is replaced by what it contains: what an endpoint is to run.
    An only container whose package holds several becomes a pipeline. ``approved``: packages that are versions of a
    group must be. Raises ``ValidationError`` for a package that is gone or does not go with the rest."""
    containers = [found for one in _containers(model) for found in _unpacked_container(call, one, approved)]
    rest = {member: value for member, value in model.items() if member not in ("PrimaryContainer", "Containers")}
    if "PrimaryContainer" in model and len(containers) == 1:
        return {**rest, "PrimaryContainer": containers[0]}
    if len(containers) > MAX_CONTAINERS:
        raise ValidationError(
            f"A model has at most {MAX_CONTAINERS} containers; with its packages' it would have more."
        )
    _check_hostnames(containers)
    return {**rest, "Containers": containers}


# --- packages -------------------------------------------------------------------------------------------------------


def _unpacked_container(call: ControlCall, container: Container, approved: bool) -> list[dict[str, Any]]:
    if "ModelPackageName" not in container:
        return [dict(container)]
    own = {k: v for k, v in container.items() if k not in ("ModelPackageName", "InferenceSpecificationName")}
    found = _package_containers(call, container, approved)
    if len(found) > 1:
        own.pop("ContainerHostname", None)  # one name cannot stand for several
    return [{**one, **own, **_environment(one, container)} for one in found]


def _environment(*containers: Container) -> dict[str, Any]:
    """What is set last wins: the model's own variables over its package's."""
    merged: dict[str, str] = {}
    for container in containers:
        merged.update(container.get("Environment", {}))
    return {"Environment": merged} if merged else {}


def _package_containers(call: ControlCall, container: Container, approved: bool) -> Sequence[Container]:
    """The containers of the specification that a container picks from its package."""
    package = find_package(call, container["ModelPackageName"])
    arn = call.arn("model-package", package.name)
    if approved and package.parent and package.facet != "Approved":
        raise ValidationError(
            f'Model package "{arn}" cannot be deployed: its ModelApprovalStatus is {package.facet}, not Approved.'
        )
    wanted = container.get("InferenceSpecificationName")
    if wanted is None:
        specification = package.body.get("InferenceSpecification")
    else:
        others = package.body.get("AdditionalInferenceSpecifications", ())
        specification = next((one for one in others if one["Name"] == wanted), None)
    if specification is None:
        what = "InferenceSpecification" if wanted is None else f'inference specification named "{wanted}"'
        raise ValidationError(f'Model package "{arn}" has no {what}.')
    containers: Sequence[Container] = specification["Containers"]
    return containers


# --- rules between members ------------------------------------------------------------------------------------------


def _containers(model: Mapping[str, Any]) -> list[Container]:
    """A model's containers in order. Exactly one of the two members says them."""
    if "PrimaryContainer" in model and "Containers" in model:
        raise ValidationError("A model has either a PrimaryContainer or Containers, not both.")
    if "PrimaryContainer" in model:
        return [model["PrimaryContainer"]]
    if not model.get("Containers"):
        raise ValidationError("A model needs a PrimaryContainer or a list of Containers.")
    return list(model["Containers"])


def _check_together(model: Mapping[str, Any], containers: Sequence[Container]) -> None:
    if "InferenceExecutionConfig" in model and len(containers) < 2:
        mode = model["InferenceExecutionConfig"]["Mode"]
        raise ValidationError(f"InferenceExecutionConfig {mode} needs 2 to 15 Containers; there is one.")
    if "Containers" in model:
        _check_hostnames(containers)
    if sum(container.get("Mode") == "MultiModel" for container in containers) > 1:
        raise ValidationError("At most one of the Containers may be in Mode MultiModel.")
    if _size(containers) > MAX_ENVIRONMENT:
        raise ValidationError("The Environment keys and values of all containers together must be at most 32 KB.")


def _check_hostnames(containers: Sequence[Container]) -> None:
    names = [container["ContainerHostname"].lower() for container in containers if "ContainerHostname" in container]
    if len(names) not in (0, len(containers)):
        raise ValidationError("ContainerHostname must be given for all Containers or for none.")
    if len(set(names)) < len(names):
        raise ValidationError("Each ContainerHostname must be unique within the model.")


def _size(containers: Iterable[Container]) -> int:
    pairs = [pair for container in containers for pair in container.get("Environment", {}).items()]
    return sum(len(text.encode("utf-8", "surrogatepass")) for pair in pairs for text in pair)


def _check_container(container: Container) -> None:
    if "ModelPackageName" in container:
        _check_packaged(container)
    elif "InferenceSpecificationName" in container:
        raise ValidationError("InferenceSpecificationName needs a ModelPackageName to look in.")
    elif not any(container.get(member) for member in ("Image", "ModelDataUrl", "ModelDataSource")):
        raise ValidationError("A container needs an Image, a ModelDataUrl, a ModelDataSource or a ModelPackageName.")
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise ValidationError("ModelDataUrl and ModelDataSource cannot be given together.")
    _check_sources(container)
    if container.get("Mode") == "MultiModel":
        _check_multi_model(container)


def _check_packaged(container: Container) -> None:
    given = [member for member in _CONTENT if member in container]
    if given:
        raise ValidationError(f"{given[0]} cannot be given together with ModelPackageName, which contains it.")


def _check_multi_model(container: Container) -> None:
    if "ModelDataSource" in container:
        raise ValidationError("ModelDataSource is not supported in Mode MultiModel: give a ModelDataUrl.")
    if not container.get("ModelDataUrl"):
        raise ValidationError("Mode MultiModel needs a ModelDataUrl, the prefix under which the models lie.")
    if container["ModelDataUrl"].lower().endswith((".tar.gz", ".tgz")):
        raise ValidationError("In Mode MultiModel the ModelDataUrl must be a prefix, not an archive.")


def _check_sources(container: Container) -> None:
    if "ModelDataSource" in container and "S3DataSource" not in container["ModelDataSource"]:
        raise ValidationError("ModelDataSource needs an S3DataSource.")
    additional = container.get("AdditionalModelDataSources", ())
    channels = [source["ChannelName"] for source in additional]
    if len(set(channels)) < len(channels):
        raise ValidationError("Each ChannelName of AdditionalModelDataSources must be unique.")
    sources = [container["ModelDataSource"]] if "ModelDataSource" in container else []
    for source in (*sources, *additional):
        kinds = source["S3DataSource"]["S3DataType"], source["S3DataSource"]["CompressionType"]
        if kinds == ("S3Prefix", "Gzip"):
            raise ValidationError("CompressionType Gzip needs S3DataType S3Object: a prefix is no archive.")
