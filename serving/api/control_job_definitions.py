"""Job definitions of the four monitors: Create, Describe and Delete of DataQuality-, ModelQuality-, ModelBias- and
ModelExplainabilityJobDefinition (the lists: ``control_lists``).

Immutable: a definition is kept as it was sent, and copied by the schedules that use it (``fleet/executions.py``), so
that it may be deleted under them. Images, roles, networks and resources are labels: what runs is this server's own
monitor. Whether the files it names exist is seen by the execution that reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from serving.api.control_call import ControlCall, Outcome
from serving.api.control_tags import keep, without_tags
from serving.api.control_transforms import artifacts
from serving.errors import ValidationError
from serving.fleet import executions, schedules
from serving.fleet.executions import DEFINITIONS
from serving.fleet.store import Record
from serving.objects.base import object_url, prefix_url
from serving.storage import ObjectUrl

Body = Mapping[str, Any]


def create(call: ControlCall) -> Outcome:
    """Create…JobDefinition."""
    type, name = monitoring_type(call.operation), call.params["JobDefinitionName"]
    kind, body = DEFINITIONS[type], without_tags(call.params)
    made = executions.of_job_definition(type, body)
    check_definition(call, body[f"{type}AppSpecification"], made)
    endpoint = executions.endpoint_of(made)
    keep(call, Record(kind, name, body, call.now, call.now, parent=endpoint))
    return Outcome({"JobDefinitionArn": call.arn(kind, name)})


def describe(call: ControlCall) -> Outcome:
    """Describe…JobDefinition: the request as it was sent."""
    record = find_definition(call, monitoring_type(call.operation), call.params["JobDefinitionName"])
    arn = call.arn(record.kind, record.name)
    return Outcome({**record.body, "JobDefinitionArn": arn, "CreationTime": record.created})


def delete(call: ControlCall) -> Outcome:
    """Delete…JobDefinition: schedules that use it keep their copy."""
    record = find_definition(call, monitoring_type(call.operation), call.params["JobDefinitionName"])
    call.session.remove(record.kind, record.name)
    return Outcome({})


def monitoring_type(operation: str) -> str:
    """``CreateModelBiasJobDefinition`` -> ``ModelBias``."""
    return next(type for type in DEFINITIONS if f"{type}JobDefinition" in operation)


def find_definition(call: ControlCall, type: str, name: str) -> Record:
    """A definition of this type. Raises ``ResourceNotFound``."""
    record = call.session.get(DEFINITIONS[type], name)
    if record is None:
        raise call.could_not_find(DEFINITIONS[type], name)
    return record


# --- checks: what AWS's model does not say ----------------------------------------------------------------------------


def check_definition(call: ControlCall, app: Body, definition: Body) -> None:
    """Raises ``ValidationError`` for what no execution could do."""
    if ("Endpoint" in definition) == ("Batch" in definition):
        raise ValidationError("Give either EndpointInput or BatchTransformInput.")
    if definition["Type"] in ("ModelQuality", "ModelBias") and "GroundTruth" not in definition:
        raise ValidationError("GroundTruthS3Input has no S3Uri: this monitor needs labels.")
    if definition["Type"] == "ModelExplainability" and "Batch" in definition:
        raise ValidationError("BatchTransformInput has no endpoint whose predictions could be explained.")
    if definition["Type"] == "ModelQuality" and "ProblemType" not in definition:
        raise ValidationError("ModelQualityAppSpecification has no ProblemType: its metrics depend on it.")
    _check_app(app)
    _check_urls(definition)
    _check_apart(call, definition["Output"])
    given = executions.input_of(definition)
    names = ("StartTimeOffset", "EndTimeOffset")
    schedules.check_offsets(given.get(names[0]), given.get(names[1]), names)
    formats = given.get("DatasetFormat")
    if formats is not None and len(formats) != 1:
        raise ValidationError("DatasetFormat has one of the members Csv, Json and Parquet.")


def _check_app(app: Body) -> None:
    for member in ("RecordPreprocessorSourceUri", "PostAnalyticsProcessorSourceUri"):
        if member in app:
            raise ValidationError(f"{member} is code, which this server's monitor does not run.")


def _check_apart(call: ControlCall, output: str) -> None:
    """Reports among a model's files would become part of it."""
    for record in call.session.every("model"):
        for store in artifacts(record.body):
            if f"{output.rstrip('/')}/".startswith(f"{store.rstrip('/')}/"):
                raise ValidationError(f"S3Uri {output} lies in the model store, {store}. Choose another place.")


def _check_urls(definition: Body) -> None:
    places = {
        "S3Uri of the output": (definition["Output"], prefix_url),
        "S3Uri of the ground truth": (definition.get("GroundTruth"), prefix_url),
        "DataCapturedDestinationS3Uri": (definition.get("Batch", {}).get("DataCapturedDestinationS3Uri"), prefix_url),
        "S3Uri of the constraints": (definition.get("Constraints"), object_url),
        "S3Uri of the statistics": (definition.get("Statistics"), object_url),
        "ConfigUri": (definition.get("Config"), object_url),
    }
    for member, (url, parse) in places.items():
        if url is not None:
            _check_url(member, url, parse)


def _check_url(member: str, url: str, parse: Callable[[str], ObjectUrl]) -> None:
    try:
        parse(url)
    except ValidationError as error:
        raise ValidationError(f"{member}, {url!r}, is no place in an object store. {error.message}") from None
