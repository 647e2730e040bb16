"""Transform jobs in the control API: what Create refuses, what Describe tells, what Stop does. On a real store, without
a server (``test_transform_jobs.py`` has one)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api import control_transforms
from serving.api.control_api import ControlApi
from serving.api.control_call import ControlCall
from serving.config import Settings
from serving.errors import ResourceInUse, ResourceLimitExceeded, ValidationError
from serving.fleet import resolve
from serving.fleet.store import Record, StoreThread
from serving.fleet.transforms import Transforms, Wish, ended, fleets_of, in_turn, lost, outcome, spec_of
from serving.jobs.parameters import execution_parameters, job_environment, parameters
from serving.storage import LocalStore
from serving.types import FleetKey, FleetSpec, ModelSpec
from serving.watch.metrics import Registry
from serving.workers.roster import MOST_FAILED_STARTS, Fleet
from serving.workers.supervisor import Supervisor
from tests import memory
from tests.actions import ARN, URL, Control, opened, schema

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

JOB_ARN = f"{ARN}transform-job/"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A store with a model ``m``."""
    with opened(tmp_path) as control:
        control.model()
        yield control


def job(name: str = "j", **members: Any) -> dict[str, Any]:
    """A job over ``s3://b/in/``, with other members; ``Input``, ``Source`` and ``Output`` go into their structures."""
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/", **members.pop("Source", {})}
    return {
        "TransformJobName": name,
        "ModelName": "m",
        "TransformInput": {"DataSource": {"S3DataSource": source}, **members.pop("Input", {})},
        "TransformOutput": {"S3OutputPath": "s3://b/out", **members.pop("Output", {})},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1, **members.pop("Resources", {})},
        **members,
    }


def created(control: Control, **members: Any) -> Record:
    """The record of a new job."""
    body = job(**members)
    control("CreateTransformJob", **body)
    with control.store.read() as session:
        record = session.get("transform-job", body["TransformJobName"])
    assert record is not None
    return record


def containers(record: Record) -> list[Mapping[str, Any]]:
    """The containers that a job's workers are to hold."""
    (model,) = record.body["Deployment"]["Models"].values()
    return model.get("Containers") or [model["PrimaryContainer"]]


# --- create, describe, stop -------------------------------------------------------------------------------------------


def test_a_job_is_described_as_it_was_sent(control: Control) -> None:
    """With its ARN, status and time; tags are ListTags' to tell."""
    lines = {"ContentType": "text/csv", "SplitType": "Line"}
    wanted = job(
        "Job-1",
        Input=lines,
        Output={"Accept": "text/csv", "AssembleWith": "Line"},
        MaxPayloadInMB=1,
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input"},
        Environment={"A": "b"},
        ExperimentConfig={"TrialName": "t"},
    )
    tags = [{"Key": "a", "Value": "b"}]
    assert {"TransformJobArn": f"{JOB_ARN}Job-1"} == control("CreateTransformJob", **wanted, Tags=tags)
    expected = {
        **wanted,
        "TransformJobArn": f"{JOB_ARN}Job-1",
        "TransformJobStatus": "InProgress",
        "CreationTime": control.now,
    }
    assert expected == control("DescribeTransformJob", TransformJobName="job-1")
    assert {"Tags": tags} == control("ListTags", ResourceArn=f"{JOB_ARN}Job-1")


def test_a_name_is_given_once_for_ever(control: Control) -> None:
    """In whatever case, and AWS's words for it; clients match them."""
    created(control, name="Job")
    error = control.error(ResourceInUse, "CreateTransformJob", **job("job"))
    assert (
        "Job name must be unique within an AWS account and region, and a job with this name already exists "
        f"({JOB_ARN}job)" == error.message
    )


@pytest.mark.parametrize("operation", ["DescribeTransformJob", "StopTransformJob"])
def test_a_job_that_is_not_there(control: Control, operation: str) -> None:
    """The waiter expects a ValidationException."""
    expected = f"Could not find requested job with name: {JOB_ARN}none."
    assert expected == control.refusal(operation, TransformJobName="none")


def test_a_job_is_stopped_once_or_twice_but_not_after_its_end(control: Control) -> None:
    """AWS's words for training jobs."""
    record = created(control)
    assert control("StopTransformJob", TransformJobName="J") is None
    assert control("StopTransformJob", TransformJobName="j") is None
    assert "Stopping" == control("DescribeTransformJob", TransformJobName="j")["TransformJobStatus"]
    with control.store.write() as session:
        stopping = session.get("transform-job", "j")
        assert stopping is not None
        found = {**record.body, "Outcome": outcome("Stopped", "", 7.0)}
        status, body = ended(Record("transform-job", "j", found, 1.0, 1.0))
        session.change(stopping, now=8.0, body=body, status=status)
    expected = "The request was rejected because the transform job is in status Stopped."
    assert expected == control.refusal("StopTransformJob", TransformJobName="j")
    assert 7.0 == control("DescribeTransformJob", TransformJobName="j")["TransformEndTime"]


def test_how_a_job_ended_is_described(control: Control) -> None:
    """Times and FailureReason; its progress is not lost."""
    body = {**created(control).body, "TransformStartTime": 5.0}
    done = {"ObjectsTotal": 2, "ObjectsDone": 1}
    status, kept = ended(Record("j", "j", {**body, "Outcome": outcome("Failed", "x" * 2000, 9.0, done)}, 1.0, 1.0))
    assert ("Failed", "x" * 1024, 5.0, 9.0, done) == (
        status,
        *(kept[name] for name in ("FailureReason", "TransformStartTime", "TransformEndTime", "Progress")),
    )
    assert {"Deployment", "Outcome"}.isdisjoint(kept)
    status, kept = ended(Record("j", "j", {**body, "Outcome": outcome("Completed", "", 9.0)}, 1.0, 1.0))
    assert ("Completed", False) == (status, "FailureReason" in kept)


def test_the_model_must_exist(control: Control) -> None:
    """AWS's text."""
    assert f'Could not find model "{ARN}model/none".' == control.refusal("CreateTransformJob", **job(ModelName="none"))


def test_the_model_is_copied(control: Control) -> None:
    """It may be deleted, or be another one of the name, while the job runs."""
    created(control)
    control("DeleteModel", ModelName="m")
    control.model(ModelDataUrl="s3://other/model.tar.gz")
    with control.store.read() as session:
        record = session.get("transform-job", "j")
    assert record is not None
    assert URL == containers(record)[0]["ModelDataUrl"]


def test_instances_are_workers_that_may_take_as_long_as_the_job_says(control: Control) -> None:
    """A pipeline has as many for each of its containers."""
    parts = [{"ModelDataUrl": f"s3://bucket/{name}.tar.gz"} for name in "ab"]
    control("CreateModel", ModelName="pipe", Containers=parts)
    record = created(
        control,
        ModelName="pipe",
        Resources={"InstanceCount": 3},
        ModelClientConfig={"InvocationsTimeoutInSeconds": 77},
    )
    fleets = fleets_of(spec_of("j", record.body["Deployment"]), record.body["Job"])
    assert [("transform-job/j", "AllTraffic", 3, 77.0)] * 2 == [
        (one.key.endpoint, one.key.variant, one.count, one.call_seconds) for one in fleets
    ]
    assert ["container-1", "container-2"] == [one.key.part for one in fleets]


def test_the_environment_is_the_models_and_over_it_the_jobs(control: Control) -> None:
    """In every container; the batch variables only where the job names them (behaviour/04)."""
    parts = [{"ModelDataUrl": URL, "Environment": {"A": "model", "B": "model"}}] * 2
    control("CreateModel", ModelName="pipe", Containers=parts)
    record = created(control, ModelName="pipe", Environment={"B": "job"})
    assert [{"A": "model", "B": "job", "SAGEMAKER_BATCH": "true"}] * 2 == [
        one["Environment"] for one in containers(record)
    ]
    record = created(control, name="k", MaxPayloadInMB=2, MaxConcurrentTransforms=3, BatchStrategy="SingleRecord")
    assert {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "3",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
    } == containers(record)[0]["Environment"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"MaxPayloadInMB": 101}, "MaxPayloadInMB is 101; it must be at most 100."),
        (
            {"MaxPayloadInMB": 51, "MaxConcurrentTransforms": 2},
            "MaxConcurrentTransforms (2) times MaxPayloadInMB (51) must be at most 100.",
        ),
        ({"MaxConcurrentTransforms": 17}, "MaxConcurrentTransforms (17) times MaxPayloadInMB (6)"),
        ({"MaxPayloadInMB": 0, "MaxConcurrentTransforms": 101}, "must be at most 100"),
        ({"Source": {"S3DataType": "AugmentedManifestFile"}}, "AugmentedManifestFile is not supported"),
        ({"Source": {"S3DataType": "Converse"}}, "Converse is not supported"),
        ({"Source": {"S3DataType": "ManifestFile"}}, "S3Uri 's3://b/in/' is no place in an object store"),
        ({"Source": {"S3Uri": "https://s3.amazonaws.com/b/in/"}}, "S3Uri 'https://s3.amazonaws.com/b/in/' is no place"),
        ({"Source": {"S3Uri": "s3://b/../in"}}, "S3Uri 's3://b/../in' is no place"),
        ({"Output": {"S3OutputPath": "s3://b//out"}}, "S3OutputPath 's3://b//out' is no place"),
        ({"Output": {"S3OutputPath": "https://b/out"}}, "S3OutputPath 'https://b/out' is no place"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "https://b/c"}}, "DestinationS3Uri 'https://b/c' is no place"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://b/in/c"}}, "DestinationS3Uri s3://b/in/c lies where"),
        ({"DataProcessing": {"InputFilter": "$..x"}}, "InputFilter"),
        ({"DataProcessing": {"OutputFilter": "nonsense"}}, "OutputFilter"),
        ({"Environment": {f"K{at}": "v" for at in range(17)}}, "Member must have length less than or equal to 16"),
        ({"TransformJobName": "a_b"}, "Value 'a_b' at 'transformJobName' failed to satisfy constraint"),
        ({"Resources": {"InstanceCount": 0}}, "Member must have value greater than or equal to 1"),
    ],
)
def test_what_can_be_known_is_refused_at_once(control: Control, members: dict[str, Any], words: str) -> None:
    """In a sentence that names the member."""
    assert words in control.refusal("CreateTransformJob", **job(**members))


def test_a_slip_of_the_keyboard_starts_no_thousand_processes(control: Control) -> None:
    """As AWS's limits do."""
    error = control.error(ResourceLimitExceeded, "CreateTransformJob", **job(Resources={"InstanceCount": 101}))
    assert "a request delta of 101 Instances" in error.message


@pytest.mark.parametrize(
    ("uri", "output"),
    [
        ("s3://b/in/", "s3://b/in"),
        ("s3://b/in/", "s3://b/in/"),
        ("s3://b/in/", "s3://b/in/out"),
        ("s3://b/in", "s3://b/in-out"),
        ("s3://b/in", "s3://b"),
        ("s3://b/d/x.csv", "s3://b/d"),
        ("s3://b", "s3://b/out"),
        ("s3://b/", "s3://b"),
    ],
)
def test_outputs_that_would_be_inputs_are_refused(control: Control, uri: str, output: str) -> None:
    """A prefix is a string, not a folder: whatever starts with it would be read."""
    said = control.refusal("CreateTransformJob", **job(Source={"S3Uri": uri}, Output={"S3OutputPath": output}))
    assert f"S3OutputPath {output} lies where the job reads its input, S3Uri {uri}" in said


@pytest.mark.parametrize(
    ("uri", "output"),
    [
        ("s3://b/in/", "s3://b/out"),
        ("s3://b/in/", "s3://b"),
        ("s3://b/in/", "s3://b/in-2"),
        ("s3://b/d/x.csv", "s3://b/d/out"),
        ("s3://b/d/x.csv", "s3://b"),
        ("s3://bucket", "s3://b"),
        ("s3://b", "s3://bucket/out"),
    ],
)
def test_outputs_beside_the_inputs_are_fine(control: Control, uri: str, output: str) -> None:
    """As scripts have them in one bucket."""
    created(control, Source={"S3Uri": uri}, Output={"S3OutputPath": output})


@given(
    uri=st.lists(st.sampled_from(["a", "b", "ab", "/"]), max_size=5).map("".join),
    output=st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map("/".join),
)
def test_a_job_is_refused_just_when_its_output_would_be_its_input(uri: str, output: str) -> None:
    """By the naming rule itself: the key below the last slash of S3Uri, then .out (behaviour/04)."""
    source, path = f"s3://k/{uri}", f"s3://k/{output}".rstrip("/")
    written = f"{path}/{source.rpartition('/')[2]}.out"
    try:
        control_transforms.check_job(job(Source={"S3Uri": source}, Output={"S3OutputPath": path}))
    except ValidationError as error:
        assert ("lies where" in error.message) == written.startswith(source) or "no place" in error.message
    else:
        assert not written.startswith(source)


def test_outputs_among_a_models_files_are_refused(control: Control) -> None:
    """The job's own model or any other, as a folder, and any prefix that multi-model models are loaded from; beside
    them is fine."""
    control.model("folder", ModelDataUrl="s3://models/folder")
    control.model("many", ModelDataUrl="s3://models/many/", Mode="MultiModel")
    folder = "s3://models/folder/out"
    for name, path in (("folder", folder), ("m", folder), ("m", "s3://models/many"), ("m", "s3://models/many/x")):
        said = control.refusal("CreateTransformJob", **job(ModelName=name, Output={"S3OutputPath": path}))
        assert f"S3OutputPath {path} lies in the model store" in said
    captured = {"DestinationS3Uri": "s3://models/many/c"}
    said = control.refusal("CreateTransformJob", **job(DataCaptureConfig=captured))
    assert "DestinationS3Uri s3://models/many/c lies in the model store" in said
    for at, path in enumerate(("s3://models/folder-2", "s3://models/out", "s3://bucket/out")):
        created(control, name=f"j{at}", Output={"S3OutputPath": path})


def test_models_that_a_job_cannot_use(control: Control) -> None:
    """Those that want a TargetModel or a container's name, and those without an artifact."""
    control.model("many", ModelDataUrl="s3://models/many/", Mode="MultiModel")
    control("CreateModel", ModelName="image", PrimaryContainer={"Image": "i"})
    parts = [{"ModelDataUrl": URL, "ContainerHostname": name} for name in "ab"]
    control("CreateModel", ModelName="direct", Containers=parts, InferenceExecutionConfig={"Mode": "Direct"})
    for name, words in (("many", "no TargetModel"), ("direct", "invoked directly"), ("image", "names no model data")):
        assert words in control.refusal("CreateTransformJob", **job(ModelName=name))


@pytest.mark.parametrize("strategy", ["SingleRecord", "MultiRecord"])
def test_objects_that_are_not_split_may_have_a_strategy(control: Control, strategy: str) -> None:
    """AWS's own notebooks send both members; an object is then one request."""
    record = created(control, BatchStrategy=strategy, Input={"SplitType": "None", "ContentType": "image/png"})
    assert strategy == record.body["Parameters"]["BatchStrategy"]


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [
        ({}, {}, (4, 6, "MultiRecord")),
        ({"MaxConcurrentTransforms": 0}, {}, (4, 6, "MultiRecord")),
        ({"MaxPayloadInMB": 0}, {}, (4, 0, "MultiRecord")),
        ({"MaxPayloadInMB": 40}, {}, (2, 40, "MultiRecord")),
        ({"MaxPayloadInMB": 100}, {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "16"}, (1, 100, "MultiRecord")),
        ({"MaxConcurrentTransforms": 0}, {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2"}, (2, 6, "MultiRecord")),
        ({"MaxConcurrentTransforms": 3}, {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2"}, (3, 6, "MultiRecord")),
        ({}, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1", "SAGEMAKER_BATCH_STRATEGY": "single_record"}, (4, 1, "SingleRecord")),
        ({"BatchStrategy": "MultiRecord"}, {"SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD"}, (4, 6, "MultiRecord")),
    ],
)
def test_a_job_goes_by_its_own_members_then_by_its_models_then_by_the_defaults(
    asked: dict[str, Any], environment: dict[str, str], expected: tuple[int, int, str]
) -> None:
    """Negotiation of behaviour/04; what nobody named never exceeds 100 MB at once."""
    assert expected == parameters(asked, environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "six"},
        {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1000"},
        {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "-1"},
        {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "٣"},
        {"SAGEMAKER_BATCH_STRATEGY": "Some"},
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment: dict[str, str]) -> None:
    """When the job is created, not while it runs."""
    with pytest.raises(ValidationError):
        parameters({}, environment)


def test_what_a_container_answers_is_what_a_job_goes_by() -> None:
    """``/execution-parameters`` and the defaults are one; none is told where the container is asked."""
    answered = execution_parameters(1)
    assert answered == {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
    assert [8, 16, 1] == [execution_parameters(*one)["MaxConcurrentTransforms"] for one in ((2,), (64,), (64, 100))]
    assert {"SAGEMAKER_BATCH": "true"} == job_environment({"MaxConcurrentTransforms": 0})


# --- whose turn it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([("a", 1, False), ("b", 1, False)], ["a", "b"]),
        ([("a", 8, True), ("b", 1, False)], []),
        ([("a", 6, True), ("b", 3, False), ("c", 1, False)], []),
        ([("a", 99, False), ("b", 1, False)], ["a"]),
        ([("a", 1, True), ("b", 7, False), ("c", 1, False)], ["b"]),
        ([("b", 2, False), ("a", 6, True)], ["b"]),
        ([], []),
    ],
)
def test_jobs_wait_for_room_in_the_order_they_came(wishes: list[tuple[str, int, bool]], expected: list[str]) -> None:
    """Of eight instances at once; nobody is overtaken, and one that is too large for all of them goes alone."""
    assert expected == in_turn([Wish(*one) for one in wishes], 8)


# --- what the jobs process says ---------------------------------------------------------------------------------------


def reports(control: Control, folder: Path, *told: dict[str, Any]) -> None:
    """What the jobs process says, to a control process that drives nothing yet."""

    async def known() -> None:
        """At once."""

    async def report() -> None:
        registry, thread = Registry(folder / "metrics", "control"), StoreThread(control.store)
        supervisor = Supervisor(Settings(data_dir=folder), folder, registry, lambda: None)
        jobs = Transforms(supervisor, LocalStore(folder), thread, lambda: None, known)
        for one in told:
            await jobs.report(one)
        await asyncio.to_thread(thread.close)
        await supervisor.close()
        registry.close()

    asyncio.run(report())


def test_an_end_is_kept_once_whoever_says_it_again(control: Control, tmp_path: Path) -> None:
    """The first counts; the jobs process repeats it until it is answered, and after a restart. The status changes only
    when the workers have gone."""
    made = created(control).created
    said = {"name": "J", "created": made, "state": "ended", "status": "Completed", "progress": {"ObjectsDone": 1}}
    reports(control, tmp_path, said, {**said, "status": "Failed", "reason": "later"})
    with control.store.read() as session:
        record = session.get("transform-job", "j")
    assert record is not None
    assert ("InProgress", "Completed", {"ObjectsDone": 1}) == (
        record.status,
        *(record.body["Outcome"][name] for name in ("Status", "Progress")),
    )


def test_what_is_said_of_no_job_of_ours_changes_nothing(control: Control, tmp_path: Path) -> None:
    """An unknown name, a job of another time, progress of one that nobody drives."""
    made = created(control).created
    before = control.everything()
    said = {"name": "j", "created": made, "state": "ended", "status": "Failed", "reason": "r"}
    progress = {"name": "j", "created": made, "state": "progress", "progress": {}}
    reports(control, tmp_path, {**said, "name": "none"}, {**said, "created": made + 1}, progress)
    assert before == control.everything()


def test_a_fleet_is_lost_when_it_is_started_no_more_and_nobody_is_left() -> None:
    """Then its jobs are told why; before that calls wait."""
    spec = FleetSpec(FleetKey("transform-job/j", 1, "AllTraffic"), ModelSpec("m", URL))
    fleet = Fleet(spec, "", frozenset(), 1, failure="no such table")
    assert "" == lost([fleet])
    for _ in range(MOST_FAILED_STARTS):
        fleet.start_failed(0.0)
    assert "no such table" == lost([fleet])


# --- the first look of a waiter ---------------------------------------------------------------------------------------


class Ending:
    """A world whose jobs end as soon as somebody waits for news of them."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.waited: list[tuple[str, float]] = []

    def live(self, name: str) -> None:
        """Nothing runs."""

    def progress(self, name: str) -> Mapping[str, Any]:
        """The same for all."""
        return {"ObjectsTotal": 3}

    def touch(self, tags: Any) -> None:
        """Not looked at."""

    async def settled(self, tags: Any, seconds: float) -> None:
        """At once."""

    async def news(self, tag: str, revision: int, seconds: float) -> None:
        """The job ends."""
        self.waited.append((tag, seconds))
        with self.control.store.write() as session:
            record = session.get("transform-job", "j")
            assert record is not None
            status, body = ended(
                Record("", "", {**record.body, "Outcome": outcome("Completed", "", 5.0, {"ObjectsTotal": 3})}, 1.0, 1.0)
            )
            session.change(record, now=5.0, body=body, status=status)


def look(world: Ending, now: float) -> dict[str, Any]:
    """DescribeTransformJob, ``now`` epoch seconds."""

    async def described() -> dict[str, Any]:
        thread = StoreThread(world.control.store)
        try:
            api = ControlApi(world.control.settings, thread, world, lambda _: schema(), lambda: now)
            return await api.call("DescribeTransformJob", {"TransformJobName": "j"})
        finally:
            await asyncio.to_thread(thread.close)

    return asyncio.run(described())


def test_a_first_look_waits_for_the_end_and_a_later_one_does_not(control: Control) -> None:
    """A waiter looks at once and then after 60 s. What is left of settle_seconds since the last change is waited."""
    began = created(control).created
    world = Ending(control)
    assert "InProgress" == look(world, began + 2.0)["TransformJobStatus"]
    assert [] == world.waited
    assert "Completed" == look(world, began + 0.5)["TransformJobStatus"]
    assert [("transform-job/j", 1.5)] == world.waited
    look(world, began)
    assert 1 == len(world.waited)


def test_a_clock_set_back_holds_nobody_up(control: Control) -> None:
    """No longer than settle_seconds, whatever the record says."""
    began = created(control).created
    world = Ending(control)
    look(world, began - 86_400.0)
    assert [("transform-job/j", 2.0)] == world.waited


def test_progress_is_an_extension_of_the_answer(control: Control) -> None:
    """While the job runs as the jobs process says, afterwards as it was kept."""
    began = created(control).created
    world = Ending(control)
    assert {"ObjectsTotal": 3} == look(world, began + 9.0)["Progress"]
    assert {"ObjectsTotal": 3} == look(world, began)["Progress"]


def test_a_call_is_what_the_action_sees(control: Control) -> None:
    """A job with nothing to tell of its progress tells none."""
    record = created(control)
    with control.store.read() as session:
        asked = ControlCall(
            "DescribeTransformJob",
            {"TransformJobName": "j"},
            session,
            control.settings,
            "us-east-1",
            1e12,
            lambda _: None,
        )
        told = control_transforms.describe(asked)
    assert {} == told.extension
    assert told.awaited is not None
    assert (record.revision, True) == (told.awaited.revision, told.awaited.seconds < 0)
    assert resolve.variants_of(record.body["Deployment"]["Config"])[0]["ModelName"] == "m"
