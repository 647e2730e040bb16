"""Models: what may be together in CreateModel, what Describe says, what an endpoint gets to run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.control_call import ControlCall
from serving.api.control_models import unpacked
from serving.errors import ServingError
from tests import memory
from tests.actions import ARN, URL, Control, opened, without

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """An empty store."""
    with opened(tmp_path) as control:
        yield control


EVERYTHING = {
    "ModelName": "Full-1",
    "PrimaryContainer": {
        "ContainerHostname": "only",
        "Image": "123.dkr.ecr.us-east-1.amazonaws.com/x:1",
        "ImageConfig": {"RepositoryAccessMode": "Vpc"},
        "Mode": "SingleModel",
        "ModelDataSource": {
            "S3DataSource": {"S3Uri": "s3://b/k/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        },
        "AdditionalModelDataSources": [
            {
                "ChannelName": "draft",
                "S3DataSource": {"S3Uri": "s3://b/d", "S3DataType": "S3Object", "CompressionType": "Gzip"},
            }
        ],
        "Environment": {"A": "1", "B": ""},
        "MultiModelConfig": {},
        "ContainerMetricsConfig": {"MetricsEndpoints": [{"MetricsEndpointPath": "/metrics"}]},
    },
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/r",
    "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
    "EnableNetworkIsolation": False,
}


def test_describe_echoes_what_was_sent(control: Control) -> None:
    """Every member, an empty one and a false one too; no default is added, no tag is told."""
    created = control("CreateModel", **EVERYTHING, Tags=[{"Key": "k", "Value": "v"}])
    assert {"ModelArn": f"{ARN}model/Full-1"} == created
    described = control("DescribeModel", ModelName="Full-1")
    assert {**EVERYTHING, **created, "CreationTime": control.now - 1} == described


def test_a_small_model_has_no_other_members(control: Control) -> None:
    """An unset member is absent: clients feed answers back."""
    control("CreateModel", ModelName="m", PrimaryContainer={"Image": "i"})
    assert {"ModelName", "ModelArn", "CreationTime", "PrimaryContainer"} == set(control("DescribeModel", ModelName="m"))


def test_names_are_found_in_any_case(control: Control) -> None:
    """And keep the case they were given in what is told of them."""
    control.model("Model-A")
    described = control("DescribeModel", ModelName="mODEL-a")
    assert ("Model-A", f"{ARN}model/Model-A") == (described["ModelName"], described["ModelArn"])
    refusal = control.refusal("CreateModel", ModelName="model-a", PrimaryContainer={"Image": "i"})
    assert f'Cannot create already existing model "{ARN}model/model-a".' == refusal


def test_the_arn_is_of_the_region_that_is_asked(control: Control) -> None:
    """There is one account; regions are names."""
    control.model("m")
    described = control("DescribeModel", ModelName="m", region="eu-west-3")
    assert "arn:aws:sagemaker:eu-west-3:123456789012:model/m" == described["ModelArn"]


def test_a_deleted_model_is_gone_with_its_tags(control: Control) -> None:
    """The answer is an empty body; a second delete finds nothing, a model of that name begins anew."""
    control("CreateModel", ModelName="m", PrimaryContainer={"Image": "i"}, Tags=[{"Key": "k", "Value": "v"}])
    assert control("DeleteModel", ModelName="M") is None
    for operation in ("DescribeModel", "DeleteModel"):
        assert f'Could not find model "{ARN}model/m".' == control.refusal(operation, ModelName="m")
    control.model("m")
    assert [] == control("ListTags", ResourceArn=f"{ARN}model/m")["Tags"]


ONE: dict[str, Any] = {"Image": "i", "ModelDataUrl": URL}
MANY: dict[str, Any] = {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3://b/models/"}
SOURCE: dict[str, Any] = {"S3DataSource": {"S3Uri": "s3://b/k", "S3DataType": "S3Object", "CompressionType": "Gzip"}}
GZIP_PREFIX = {"S3DataSource": {**SOURCE["S3DataSource"], "S3DataType": "S3Prefix"}}


def named(*names: str) -> list[dict[str, Any]]:
    """Containers of these host names."""
    return [{**ONE, "ContainerHostname": name} for name in names]


@pytest.mark.parametrize(
    "members",
    [
        {"PrimaryContainer": {"Image": "i"}},
        {"PrimaryContainer": {"ModelDataUrl": URL}},
        {"PrimaryContainer": {"ModelDataSource": SOURCE}},
        {"PrimaryContainer": MANY},
        {"PrimaryContainer": {**MANY, "MultiModelConfig": {"ModelCacheSetting": "Disabled"}}},
        {"Containers": [ONE]},
        {"Containers": [ONE] * 15},
        {"Containers": named("a", "b"), "InferenceExecutionConfig": {"Mode": "Serial"}},
        {"Containers": named("a", "b"), "InferenceExecutionConfig": {"Mode": "Direct"}},
        {"Containers": [ONE, ONE], "InferenceExecutionConfig": {"Mode": "Direct"}},
        {"Containers": [ONE, MANY]},
        {"PrimaryContainer": {**ONE, "Environment": {"K" * 512: "v" * 512}}},
        {"PrimaryContainer": {**ONE, "Environment": {f"K{at:03}": "v" * 323 for at in range(100)}}},
    ],
)
def test_what_a_model_may_be(control: Control, members: dict[str, Any]) -> None:
    """One container, many models, a pipeline, containers called by name."""
    control("CreateModel", ModelName="m", **members)
    assert members == without(control("DescribeModel", ModelName="m"), "ModelName", "ModelArn", "CreationTime")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "A model needs a PrimaryContainer or a list of Containers."),
        ({"Containers": []}, "A model needs a PrimaryContainer or a list of Containers."),
        ({"PrimaryContainer": ONE, "Containers": [ONE, ONE]}, "either a PrimaryContainer or Containers, not both"),
        ({"PrimaryContainer": {}}, "A container needs an Image"),
        ({"Containers": [ONE, {"Environment": {"A": "b"}}]}, "A container needs an Image"),
        ({"Containers": [ONE] * 16}, "at 'containers' failed to satisfy constraint: Member must have length less"),
        (
            {"Containers": [ONE], "InferenceExecutionConfig": {"Mode": "Serial"}},
            "InferenceExecutionConfig Serial needs 2 to 15 Containers; there is one.",
        ),
        (
            {"PrimaryContainer": ONE, "InferenceExecutionConfig": {"Mode": "Direct"}},
            "InferenceExecutionConfig Direct needs 2 to 15 Containers; there is one.",
        ),
        ({"Containers": [*named("a"), ONE]}, "ContainerHostname must be given for all Containers or for none."),
        ({"Containers": named("a", "b", "A")}, "Each ContainerHostname must be unique within the model."),
        ({"Containers": [MANY, MANY]}, "At most one of the Containers may be in Mode MultiModel."),
        ({"PrimaryContainer": {"Image": "i", "Mode": "MultiModel"}}, "Mode MultiModel needs a ModelDataUrl"),
        ({"PrimaryContainer": {**ONE, "Mode": "MultiModel"}}, "must be a prefix, not an archive"),
        (
            {"PrimaryContainer": {"Image": "i", "Mode": "MultiModel", "ModelDataSource": SOURCE}},
            "ModelDataSource is not supported in Mode MultiModel",
        ),
        (
            {"PrimaryContainer": {**ONE, "ModelDataSource": SOURCE}},
            "ModelDataUrl and ModelDataSource cannot be given together.",
        ),
        ({"PrimaryContainer": {"Image": "i", "ModelDataSource": {}}}, "ModelDataSource needs an S3DataSource."),
        ({"PrimaryContainer": {"Image": "i", "ModelDataSource": GZIP_PREFIX}}, "Gzip needs S3DataType S3Object"),
        (
            {"PrimaryContainer": {**ONE, "AdditionalModelDataSources": [{"ChannelName": "c", **SOURCE}] * 2}},
            "Each ChannelName of AdditionalModelDataSources must be unique.",
        ),
        (
            {"PrimaryContainer": {**ONE, "Environment": {f"K{at}": "v" for at in range(101)}}},
            "Member must have length less than or equal to 100",
        ),
        (
            {"PrimaryContainer": {**ONE, "Environment": {f"K{at:03}": "v" * 324 for at in range(100)}}},
            "must be at most 32 KB",
        ),
        (
            {"Containers": [{**ONE, "Environment": {f"K{at:03}": "é" * 256 for at in range(32)}}] * 2},
            "must be at most 32 KB",
        ),
        ({"PrimaryContainer": {**ONE, "InferenceSpecificationName": "n"}}, "needs a ModelPackageName"),
    ],
)
def test_what_a_model_may_not_be(control: Control, members: dict[str, Any], words: str) -> None:
    """Each with its own sentence, and nothing is kept."""
    assert words in control.refusal("CreateModel", ModelName="m", **members)


@pytest.mark.parametrize("tags", [[("aws:x", "v")], [("AWS:x", "v")], [("k", "1"), ("k", "2")]])
def test_tags_that_may_not_be_leave_no_model(control: Control, tags: list[tuple[str, str]]) -> None:
    """The model is kept with its tags or not at all."""
    control.refusal("CreateModel", ModelName="m", PrimaryContainer=ONE, Tags=[{"Key": k, "Value": v} for k, v in tags])


# --- models of packages ---------------------------------------------------------------------------------------------


@pytest.fixture
def registry(control: Control) -> Control:
    """A group ``g`` with an approved version 1 and a pending version 2; ``single``, on its own, of two containers."""
    control("CreateModelPackageGroup", ModelPackageGroupName="g")
    more = [{"Name": "compiled", "Containers": [{"Image": "c", "ModelDataUrl": "s3://b/compiled.tar.gz"}]}]
    specification = {"Containers": [{"Image": "i", "ModelDataUrl": URL, "Environment": {"A": "1", "B": "1"}}]}
    control.package("g", InferenceSpecification=specification, AdditionalInferenceSpecifications=more)
    control.package("g", "PendingManualApproval")
    control(
        "CreateModelPackage",
        ModelPackageName="single",
        InferenceSpecification={"Containers": [{"Image": "a", "ModelDataUrl": URL}, {"Image": "b"}]},
    )
    return control


def running(control: Control, model: str) -> dict[str, Any]:
    """What an endpoint gets of a model."""
    with control.store.read() as session:
        call = ControlCall("", {}, session, control.settings, "us-east-1", control.now, lambda name: None)
        record = session.get("model", model)
        assert record is not None
        return unpacked(call, record.body)


@pytest.mark.parametrize("name", ["g/1", f"{ARN}model-package/g/1", f"{ARN}model-package/G/1"])
def test_an_approved_version_is_a_model(registry: Control, name: str) -> None:
    """By name or ARN; Describe says the package, an endpoint gets what it contains, with the model's own variables
    over the package's."""
    container = {"ModelPackageName": name, "Environment": {"B": "2"}}
    registry("CreateModel", ModelName="m", PrimaryContainer=container)
    assert container == registry("DescribeModel", ModelName="m")["PrimaryContainer"]
    expected = {"Image": "i", "ModelDataUrl": URL, "Environment": {"A": "1", "B": "2"}}
    assert {"ModelName": "m", "PrimaryContainer": expected} == running(registry, "m")


def test_a_model_may_name_one_of_a_packages_other_specifications(registry: Control) -> None:
    """Compiled for another machine, say."""
    container = {"ModelPackageName": "g/1", "InferenceSpecificationName": "compiled"}
    registry("CreateModel", ModelName="m", PrimaryContainer=container)
    assert "s3://b/compiled.tar.gz" == running(registry, "m")["PrimaryContainer"]["ModelDataUrl"]


def test_a_package_of_several_containers_is_a_pipeline(registry: Control) -> None:
    """In place, among the model's other containers; one of no group needs no approval."""
    registry("CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": "single"})
    assert ["a", "b"] == [one["Image"] for one in running(registry, "m")["Containers"]]
    registry("CreateModel", ModelName="n", Containers=[ONE, {"ModelPackageName": "single"}, {"Image": "z"}])
    assert ["i", "a", "b", "z"] == [one["Image"] for one in running(registry, "n")["Containers"]]


def test_a_model_without_packages_is_run_as_it_was_sent(control: Control) -> None:
    """Nothing to unpack."""
    control("CreateModel", ModelName="m", Containers=[ONE, ONE], InferenceExecutionConfig={"Mode": "Direct"})
    control("CreateModel", ModelName="n", PrimaryContainer=ONE)
    expected = {"ModelName": "m", "Containers": [ONE, ONE], "InferenceExecutionConfig": {"Mode": "Direct"}}
    assert expected == running(control, "m")
    assert {"ModelName": "n", "PrimaryContainer": ONE} == running(control, "n")


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"ModelPackageName": "g/2"}, "its ModelApprovalStatus is PendingManualApproval, not Approved"),
        ({"ModelPackageName": "g/3"}, f'Could not find model package "{ARN}model-package/g/3"'),
        ({"ModelPackageName": "g"}, "Could not find model package"),
        ({"ModelPackageName": f"{ARN}model/g"}, "Could not find model package"),
        ({"ModelPackageName": f"{ARN}model-package/g/1".replace("1234", "4321", 1)}, "Could not find model package"),
        (
            {"ModelPackageName": "g/1", "InferenceSpecificationName": "other"},
            'no inference specification named "other"',
        ),
        ({"ModelPackageName": "g/1", "Image": "i"}, "Image cannot be given together with ModelPackageName"),
        ({"ModelPackageName": "g/1", "ModelDataUrl": URL}, "ModelDataUrl cannot be given together"),
        ({"ModelPackageName": "g/1", "ModelDataSource": SOURCE}, "ModelDataSource cannot be given together"),
        ({"ModelPackageName": "g/1", "Mode": "MultiModel"}, "Mode MultiModel needs a ModelDataUrl"),
    ],
)
def test_packages_that_are_no_model(registry: Control, container: dict[str, Any], words: str) -> None:
    """Unknown, not approved, or told twice what to run."""
    assert words in registry.refusal("CreateModel", ModelName="m", PrimaryContainer=container)


@pytest.mark.parametrize(
    ("containers", "words"),
    [
        ([{**ONE, "ContainerHostname": "first"}, {"ModelPackageName": "named", "ContainerHostname": "x"}], "unique"),
        ([ONE, {"ModelPackageName": "named"}], "for all Containers or for none"),
        ([*[ONE] * 14, {"ModelPackageName": "single"}], "at most 15 containers"),
    ],
)
def test_packages_that_do_not_go_with_the_rest(registry: Control, containers: list[Any], words: str) -> None:
    """What is true of a pipeline is true of what its packages contain."""
    registry(
        "CreateModelPackage",
        ModelPackageName="named",
        InferenceSpecification={"Containers": named("first", "second")},
    )
    assert words in registry.refusal("CreateModel", ModelName="m", Containers=containers)
    registry("CreateModel", ModelName="m", Containers=[{"ModelPackageName": "named"}])
    assert named("first", "second") == running(registry, "m")["Containers"]


def test_a_package_without_a_specification_is_no_model(registry: Control) -> None:
    """It was only registered."""
    registry("CreateModelPackage", ModelPackageGroupName="g", ModelApprovalStatus="Approved")
    refusal = registry.refusal("CreateModel", ModelName="m", PrimaryContainer={"ModelPackageName": "g/3"})
    assert f'Model package "{ARN}model-package/g/3" has no InferenceSpecification.' == refusal


# --- wild input -----------------------------------------------------------------------------------------------------

CONTAINERS = st.fixed_dictionaries(
    {},
    optional={
        "ContainerHostname": st.sampled_from(["a", "b", "A", "x_y"]),
        "Image": st.sampled_from(["i", "", "a b"]),
        "Mode": st.sampled_from(["SingleModel", "MultiModel", "Other"]),
        "ModelDataUrl": st.sampled_from([URL, "s3://b/p/", "ftp://b/x", ""]),
        "ModelDataSource": st.sampled_from([SOURCE, GZIP_PREFIX, {}, None]),
        "ModelPackageName": st.sampled_from(["g/1", "none", "g/", "arn:aws:sagemaker:::x/y"]),
        "InferenceSpecificationName": st.sampled_from(["n"]),
        "Environment": st.dictionaries(st.sampled_from(["A", "1"]), st.text(max_size=3), max_size=2),
        "MultiModelConfig": st.sampled_from([{}, {"ModelCacheSetting": "Enabled"}]),
    },
)
MODELS = st.fixed_dictionaries(
    {"ModelName": st.sampled_from(["m", "M", "n", "-", ""])},
    optional={
        "PrimaryContainer": CONTAINERS,
        "Containers": st.lists(CONTAINERS, max_size=3),
        "InferenceExecutionConfig": st.sampled_from([{"Mode": "Serial"}, {"Mode": "Direct"}, {}]),
        "Tags": st.lists(
            st.fixed_dictionaries({"Key": st.sampled_from(["k", "l", "aws:k"]), "Value": st.just("v")}), max_size=2
        ),
    },
)


@given(requests=st.lists(MODELS, max_size=6))
@settings(deadline=None)
def test_any_request_is_kept_whole_or_refused(
    requests: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but an error of ours comes out; what is kept is what was sent; what is refused leaves nothing."""
    with opened(tmp_path_factory.mktemp("store")) as control:
        for request in requests:
            before = control.everything()
            try:
                control("CreateModel", **request)
            except ServingError as error:
                assert error.status < 500
                assert before == control.everything()
                continue
            described = control("DescribeModel", ModelName=request["ModelName"].swapcase())
            sent = without(request, "Tags")
            for container in (sent.get("PrimaryContainer", {}), *sent.get("Containers", ())):
                container.pop("ModelDataSource", None) if container.get("ModelDataSource", 0) is None else None
            assert sent == without(described, "ModelArn", "CreationTime")
            tags = control("ListTags", ResourceArn=described["ModelArn"])["Tags"]
            assert request.get("Tags", []) == tags
