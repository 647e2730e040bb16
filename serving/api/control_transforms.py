"""Transform jobs: CreateTransformJob, DescribeTransformJob, StopTransformJob (ListTransformJobs: ``control_lists``).

An action only writes what should be; ``fleet/transforms.py`` makes it so, and says what the record holds. What can be
known of a job when it is created is checked here; its input objects are not looked at, as there may be a million of
them. AWS's model checks each member by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from serving.api.control_call import Awaited, ControlCall, Outcome
from serving.api.control_changing import find
from serving.api.control_models import find_model, unpacked
from serving.api.control_tags import keep, without_tags
from serving.errors import ResourceLimitExceeded, ValidationError
from serving.fleet import resolve
from serving.fleet.endpoints import tag
from serving.fleet.store import Record
from serving.fleet.transforms import OPEN, TRANSFORM, deployment, spec_of
from serving.jobs.parameters import job_environment, parameters
from serving.jobs.shaping import Shape
from serving.objects.base import object_url, prefix_url
from serving.storage import ObjectUrl

Body = Mapping[str, Any]

#: Instances one job may ask for: a slip of the keyboard must not start a thousand processes.
MOST_INSTANCES = 100


def create(call: ControlCall) -> Outcome:
    """CreateTransformJob: answers at once, in InProgress. The model is copied: it may be deleted while the job runs."""
    name = call.params["TransformJobName"]
    if call.session.get(TRANSFORM, name) is not None:
        raise call.already_exists(TRANSFORM, name)
    job = without_tags(call.params)
    check_job(job)
    model = _model(call, job)
    _check_stores(call, job, model)
    first = _containers(model)[0]
    body = {
        "Job": job,
        "Parameters": parameters(job, first.get("Environment", {})).members(),
        "Deployment": deployment(job["ModelName"], model, job["TransformResources"]["InstanceCount"], call.now),
    }
    spec_of(name, body["Deployment"])  # refuses what could never run
    keep(call, Record(TRANSFORM, name, body, call.now, call.now, status=OPEN[0]))
    return Outcome({"TransformJobArn": call.arn(TRANSFORM, name)}, (tag(TRANSFORM, name),))


def describe(call: ControlCall) -> Outcome:
    """DescribeTransformJob: the request as it was sent and what has become of it. Our extension is ``Progress``.

    A waiter looks at once, and then only after 60 s: the answer about a job that has changed in the last
    ``settle_seconds`` waits for what comes next, for the rest of that time."""
    record = find(call, TRANSFORM, call.params["TransformJobName"])
    body, progress = record.body, record.body.get("Progress") or call.progress(record.name)
    answer = {
        **body["Job"],
        "TransformJobName": record.name,
        "TransformJobArn": call.arn(TRANSFORM, record.name),
        "TransformJobStatus": record.status,
        "CreationTime": record.created,
        **{name: body[name] for name in ("TransformStartTime", "TransformEndTime", "FailureReason") if name in body},
    }
    return Outcome(answer, extension={"Progress": progress} if progress else {}, awaited=_awaited(call, record))


def _awaited(call: ControlCall, record: Record) -> Awaited | None:
    if record.status not in OPEN:
        return None
    settle = call.settings.settle_seconds
    left = min(record.modified + settle - call.now, settle)
    return Awaited(tag(TRANSFORM, record.name), record.revision, left)


def stop(call: ControlCall) -> Outcome:
    """StopTransformJob: answers at once, in Stopping. To stop a job twice is no error; to stop one that has ended is
    (AWS's words for training jobs)."""
    record = find(call, TRANSFORM, call.params["TransformJobName"])
    if record.status not in OPEN:
        raise ValidationError(f"The request was rejected because the transform job is in status {record.status}.")
    if record.status == "InProgress":
        call.session.change(record, now=call.now, status="Stopping")
    return Outcome({}, (tag(TRANSFORM, record.name),))


# --- rules between members ------------------------------------------------------------------------------------------


def check_job(job: Body) -> None:
    """What holds between the members of a job, whatever models and objects there are. Raises ``ValidationError``, and
    ``ResourceLimitExceeded`` for too many instances."""
    source, output = job["TransformInput"]["DataSource"]["S3DataSource"], job["TransformOutput"]["S3OutputPath"]
    if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise ValidationError(
            f"S3DataType {source['S3DataType']} is not supported for transform jobs; use S3Prefix or ManifestFile."
        )
    captured = job.get("DataCaptureConfig", {}).get("DestinationS3Uri")
    manifest = source["S3DataType"] == "ManifestFile"
    _check_url("S3Uri", source["S3Uri"], object_url if manifest else prefix_url)
    _check_url("S3OutputPath", output)
    if captured is not None:
        _check_url("DestinationS3Uri", captured)
    if not manifest:
        _check_apart(source["S3Uri"], "S3OutputPath", output, _names_begin(source["S3Uri"], output))
        if captured is not None:
            _check_apart(source["S3Uri"], "DestinationS3Uri", captured, f"{captured.rstrip('/')}/")
    _check_instances(job["TransformResources"]["InstanceCount"])
    Shape(job)  # filters that do not parse, and what does not go with them


def _check_url(member: str, url: str, parse: Callable[[str], ObjectUrl] = prefix_url) -> None:
    try:
        parse(url)
    except ValidationError as error:
        raise ValidationError(f"{member} {url!r} is no place in an object store. {error.message}") from None


def _names_begin(uri: str, output: str) -> str:
    """With what the URL of every output begins: an object's key below the last ``/`` of the prefix goes on below the
    output path (``behaviour/04``)."""
    return f"{output.rstrip('/')}/{uri.removeprefix('s3://').partition('/')[2].rpartition('/')[2]}"


def _check_apart(uri: str, member: str, path: str, outputs: str) -> None:
    """Outputs that begin as inputs do would be read as inputs, by this job or the next."""
    prefix = uri if "/" in uri.removeprefix("s3://") else f"{uri}/"
    if outputs.startswith(prefix):
        raise ValidationError(
            f"{member} {path} lies where the job reads its input, S3Uri {uri}: outputs would be read as inputs. Choose "
            "another place."
        )


def _check_instances(count: int) -> None:
    if count > MOST_INSTANCES:
        raise ResourceLimitExceeded(
            f"The account-level service limit 'instances per transform job' is {MOST_INSTANCES} Instances, with "
            f"current utilization of 0 Instances and a request delta of {count} Instances."
        )


# --- the model ------------------------------------------------------------------------------------------------------


def _model(call: ControlCall, job: Body) -> dict[str, Any]:
    """The job's model as it is now, its packages replaced by what they contain, its containers' environments as the
    job wants them. Raises ``ValidationError`` for one that no job can use."""
    name = job["ModelName"]
    model, arn = unpacked(call, find_model(call, name).body), call.arn("model", name)
    if any(one.get("Mode") == "MultiModel" for one in _containers(model)):
        raise ValidationError(f'Model "{arn}" is a multi-model one: a transform job has no TargetModel to give.')
    if model.get("InferenceExecutionConfig", {}).get("Mode") == "Direct":
        raise ValidationError(f'The containers of model "{arn}" are invoked directly: a transform job cannot name one.')
    own = job_environment(job)
    containers = [{**one, "Environment": {**one.get("Environment", {}), **own}} for one in _containers(model)]
    if "PrimaryContainer" in model:
        return {**model, "PrimaryContainer": containers[0]}
    return {**model, "Containers": containers}


def _containers(model: Body) -> list[Body]:
    return list(model.get("Containers") or [model["PrimaryContainer"]])


def _check_stores(call: ControlCall, job: Body, model: Body) -> None:
    """Outputs among a model's files would become part of it."""
    places = {"S3OutputPath": job["TransformOutput"]["S3OutputPath"]}
    if "DataCaptureConfig" in job:
        places["DestinationS3Uri"] = job["DataCaptureConfig"]["DestinationS3Uri"]
    stores = [url for one in [model, *(one.body for one in call.session.every("model"))] for url in artifacts(one)]
    for member, place in places.items():
        for store in stores:
            if f"{place.rstrip('/')}/".startswith(f"{store.rstrip('/')}/"):
                raise ValidationError(f"{member} {place} lies in the model store, {store}. Choose another place.")


def artifacts(model: Body) -> Iterator[str]:
    """Where a model's files lie; of a multi-model one, where its models do."""
    for one in model.get("Containers") or [model.get("PrimaryContainer", {})]:
        source = one.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
        url = one.get("ModelDataUrl") or source
        if url:
            with suppress(ValidationError):  # of another model, which nobody can load
                yield resolve.object_url(url)
