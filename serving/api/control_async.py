"""AsyncInferenceConfig of an endpoint configuration: what its members mean together, and where answers must not lie.

Answers go to names that callers choose in part (Filename, S3OutputPathExtension), so that nothing else of ours may lie
beneath an output path: neither is it within the place of a model, nor a model within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serving.api.control_call import ControlCall
from serving.api.control_models import find_model, unpacked
from serving.errors import ServingError, ValidationError
from serving.fleet.resolve import containers
from serving.jobs.notifier import Undelivered, target_of
from serving.objects.base import prefix_url

_PATHS = ("S3OutputPath", "S3FailurePath")


def check_async(config: Mapping[str, Any]) -> None:
    """Paths are of the object store, topics can be sent to, and there is a model to call. Pure. Raises
    ``ValidationError``."""
    if "AsyncInferenceConfig" not in config:
        return
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    for member in _PATHS:
        if member in output:
            _check_path(member, output[member])
    topics = output.get("NotificationConfig", {})
    for member in ("SuccessTopic", "ErrorTopic"):
        _check_topic(member, topics.get(member, ""))
    if any("ModelName" not in variant for variant in config["ProductionVariants"]):
        raise ValidationError(
            "AsyncInferenceConfig needs variants with a ModelName: an asynchronous call cannot name an inference "
            "component."
        )


def _check_path(member: str, url: str) -> None:
    try:
        prefix_url(url)
    except ValidationError:
        raise ValidationError(f"{member} must be s3://bucket/prefix.") from None


def _check_topic(member: str, topic: str) -> None:
    if topic and not topic.startswith("arn:"):
        try:
            target_of(topic)
        except Undelivered:
            raise ValidationError(
                f"{member} must be the ARN of an SNS topic, or a plain http:// or https:// URL."
            ) from None


def check_outputs(call: ControlCall) -> None:
    """No answer can come to lie over the data of the configuration's models. Raises ``ValidationError``."""
    output = call.params["AsyncInferenceConfig"]["OutputConfig"]
    paths = {member: f"{output[member].rstrip('/')}/" for member in _PATHS if member in output}
    for model, place in model_places(call):
        for member, path in paths.items():
            if place.startswith(path) or path.startswith(f"{place.rstrip('/')}/"):
                raise ValidationError(
                    f"{member} {output[member]} and the data of model {model} overlap: answers could overwrite the "
                    "model. Choose another path."
                )


def model_places(call: ControlCall) -> Iterator[tuple[str, str]]:
    """(model, URL of its data) for every container; files of the local bucket folder by their ``s3://`` names."""
    root = f"{call.settings.data_dir / 's3'}/"
    variants = [*call.params["ProductionVariants"], *call.params.get("ShadowProductionVariants", ())]
    for name in dict.fromkeys(str(variant["ModelName"]) for variant in variants if "ModelName" in variant):
        try:
            found = containers(name, unpacked(call, find_model(call, name).body))
        except ServingError:
            continue  # it cannot run here at all, which is said when it is to
        for one in found:
            place = one.model_data_url.removeprefix("file://")
            yield name, f"s3://{place.removeprefix(root)}" if place.startswith(root) else place
