"""Models, configurations, tags, the registry and lists as an unmodified boto3 sees them, on a running server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.actions import without
from tests.cloud import client, container, make_config, make_model, production, put_script, said, settled
from tests.server import Server, serve

ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
URL = "s3://models/nothing-there.tar.gz"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all: each test uses names of its own."""
    with serve(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def sagemaker(server: Server) -> Any:
    """A stock client."""
    return client(server, max_pool_connections=16)


def refusal(call: Any, **params: Any) -> tuple[str, int, str]:
    """Code, status and message of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_a_model_lives_and_dies(sagemaker: Any) -> None:
    """Created, described, listed, tagged, deleted; times are times, an unknown model is a ValidationException."""
    make_model(sagemaker, "Life", container(URL))
    described = sagemaker.describe_model(ModelName="life")
    assert ("Life", f"{ARN}model/Life") == (described["ModelName"], described["ModelArn"])
    assert abs(datetime.now(UTC) - described["CreationTime"]) < timedelta(minutes=1)
    listed = sagemaker.list_models(NameContains="Life")["Models"]
    assert [{name: described[name] for name in ("ModelName", "ModelArn", "CreationTime")}] == listed
    sagemaker.delete_model(ModelName="LIFE")
    expected = ("ValidationException", 400, f'Could not find model "{ARN}model/Life".')
    assert expected == refusal(sagemaker.describe_model, ModelName="Life")
    assert expected == refusal(sagemaker.delete_model, ModelName="Life")


def test_a_name_that_is_taken(sagemaker: Any) -> None:
    """Clients look for these very words and go on with what there is."""
    make_model(sagemaker, "taken", container(URL))
    make_config(sagemaker, "taken", production("taken"))
    sagemaker.create_model_package_group(ModelPackageGroupName="taken")
    sagemaker.create_model_package(ModelPackageName="taken")
    body = {"PrimaryContainer": container(URL)}
    assert (
        "ValidationException",
        400,
        f'Cannot create already existing model "{ARN}model/Taken".',
    ) == refusal(sagemaker.create_model, ModelName="Taken", **body)
    assert (
        "ValidationException",
        400,
        f'Cannot create already existing endpoint configuration "{ARN}endpoint-config/Taken".',
    ) == refusal(sagemaker.create_endpoint_config, EndpointConfigName="Taken", ProductionVariants=[production("taken")])
    code, _, message = refusal(sagemaker.create_model_package_group, ModelPackageGroupName="Taken")
    assert ("ValidationException", True) == (code, "already exists" in message)
    code, _, message = refusal(sagemaker.create_model_package, ModelPackageName="Taken")
    assert ("ValidationException", True) == (code, "ModelPackage already exists" in message)


def test_what_the_client_does_not_check_the_server_does(sagemaker: Any) -> None:
    """Enums, patterns and maxima in AWS's grammar; what members mean together in a sentence."""
    code, _, message = refusal(sagemaker.create_model, ModelName="a_b", PrimaryContainer=container(URL))
    assert ("ValidationException", True) == (
        code,
        message.startswith("1 validation error detected: Value 'a_b' at 'modelName' failed to satisfy constraint: "),
    )
    scaled = {**production("none"), "ManagedInstanceScaling": {"MaxInstanceCount": 2}}
    expected = "ManagedInstanceScaling is only supported for inference component endpoints."
    asked = {"EndpointConfigName": "c", "ProductionVariants": [scaled]}
    assert ("ValidationException", 400, expected) == refusal(sagemaker.create_endpoint_config, **asked)
    asked = {"EndpointConfigName": "c", "ProductionVariants": [production("none")]}
    expected = f'Could not find model "{ARN}model/none".'
    assert ("ValidationException", 400, expected) == refusal(sagemaker.create_endpoint_config, **asked)


def test_a_configuration_is_copied_from_its_description(sagemaker: Any) -> None:
    """As the SageMaker SDK does to update an endpoint, the tags too; an empty NotificationConfig comes back."""
    make_model(sagemaker, "copied", container(URL))
    wanted = {
        "ProductionVariants": [production("copied", weight=0.5)],
        "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/out", "NotificationConfig": {}}},
    }
    tags = [{"Key": "team", "Value": "a"}]
    created = sagemaker.create_endpoint_config(EndpointConfigName="first", Tags=tags, **wanted)
    described = sagemaker.describe_endpoint_config(EndpointConfigName="first")
    listed = sagemaker.list_tags(ResourceArn=created["EndpointConfigArn"], MaxResults=50)
    copied = {name: described[name] for name in described if name in wanted}
    assert wanted == copied
    assert tags == listed["Tags"]
    sagemaker.create_endpoint_config(EndpointConfigName="second", Tags=listed["Tags"], **copied)
    assert wanted == {
        name: value
        for name, value in sagemaker.describe_endpoint_config(EndpointConfigName="second").items()
        if name in wanted
    }


def test_tags_come_and_go(sagemaker: Any) -> None:
    """By paginator too."""
    make_model(sagemaker, "tagged", container(URL))
    arn = f"{ARN}model/tagged"
    tags = [{"Key": f"k{at}", "Value": "v"} for at in range(50)]
    assert tags == sagemaker.add_tags(ResourceArn=arn, Tags=tags)["Tags"]
    pages = sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    assert tags == [tag for page in pages for tag in page["Tags"]]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=[f"k{at}" for at in range(49)])
    assert tags[49:] == sagemaker.list_tags(ResourceArn=arn)["Tags"]
    code, _, message = refusal(sagemaker.list_tags, ResourceArn=f"{ARN}model/unknown")
    assert ("ValidationException", f'Could not find model "{ARN}model/unknown".') == (code, message)


def test_a_package_is_registered_approved_and_made_a_model(sagemaker: Any) -> None:
    """The way from a training pipeline to an endpoint configuration."""
    sagemaker.create_model_package_group(ModelPackageGroupName="churn", ModelPackageGroupDescription="who leaves")
    specification = {"Containers": [container(URL)], "SupportedContentTypes": ["text/csv"]}
    made = [
        sagemaker.create_model_package(ModelPackageGroupName="churn", InferenceSpecification=specification)
        for _ in range(2)
    ]
    assert [f"{ARN}model-package/churn/{at}" for at in (1, 2)] == [one["ModelPackageArn"] for one in made]
    arn = made[1]["ModelPackageArn"]
    body = {"ModelName": "churn", "PrimaryContainer": {"ModelPackageName": arn}}
    code, _, message = refusal(sagemaker.create_model, **body)
    assert ("ValidationException", True) == (code, "not Approved" in message)
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    approved = sagemaker.list_model_packages(ModelPackageGroupName="churn", ModelApprovalStatus="Approved")
    assert [arn] == [one["ModelPackageArn"] for one in approved["ModelPackageSummaryList"]]
    sagemaker.create_model(**body)
    make_config(sagemaker, "churn", production("churn"))
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["ModelPackageArn"] == arn
    again = sagemaker.describe_model_package(ModelPackageName=described["ModelPackageName"])
    assert arn == again["ModelPackageArn"]
    batch = sagemaker.batch_describe_model_package(ModelPackageArnList=[arn, f"{ARN}model-package/churn/9"])
    assert [arn] == list(batch["ModelPackageSummaries"])
    assert [f"{ARN}model-package/churn/9"] == list(batch["BatchDescribeModelPackageErrorMap"])
    with pytest.raises(sagemaker.exceptions.ConflictException):
        sagemaker.delete_model_package_group(ModelPackageGroupName="churn")
    for one in made:
        sagemaker.delete_model_package(ModelPackageName=one["ModelPackageArn"])
    sagemaker.delete_model_package_group(ModelPackageGroupName="churn")
    code, _, message = refusal(sagemaker.describe_model_package_group, ModelPackageGroupName="churn")
    expected = f"ModelPackageGroup {ARN}model-package-group/churn does not exist."
    assert ("ValidationException", expected) == (code, message)


def test_an_approved_package_serves(tmp_path: Path) -> None:
    """By its ARN, with the model's own variables over its own; the endpoint keeps what it was given."""
    source = (
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    return (context.environment['A'] + context.environment['B']).encode() + body, 'text/plain'\n"
    )
    with serve(tmp_path, "--allow-code") as server:
        sagemaker = client(server)
        runs = container(put_script(server, "packed", source), Environment={"A": "1", "B": "1"})
        sagemaker.create_model_package_group(ModelPackageGroupName="packed")
        made = sagemaker.create_model_package(
            ModelPackageGroupName="packed",
            ModelApprovalStatus="Approved",
            InferenceSpecification={"Containers": [runs]},
        )
        packed = {"ModelPackageName": made["ModelPackageArn"], "Environment": {"B": "2"}}
        make_model(sagemaker, "packed", packed)
        make_config(sagemaker, "packed", production("packed"))
        sagemaker.create_endpoint(EndpointName="packed", EndpointConfigName="packed")
        assert "InService" == settled(sagemaker, "packed")["EndpointStatus"]
        for delete, name in (
            (sagemaker.delete_endpoint_config, {"EndpointConfigName": "packed"}),
            (sagemaker.delete_model, {"ModelName": "packed"}),
            (sagemaker.delete_model_package, {"ModelPackageName": made["ModelPackageArn"]}),
        ):
            delete(**name)
        assert "12x" == said(client(server, "sagemaker-runtime"), "packed")


def test_paginators_see_everything_once(sagemaker: Any) -> None:
    """Every list of ours, three a page."""
    names = [f"page-{at}" for at in range(7)]
    for name in names:
        make_model(sagemaker, name, container(URL))
        make_config(sagemaker, name, production(name))
        sagemaker.create_model_package_group(ModelPackageGroupName=name)
        sagemaker.create_model_package(ModelPackageName=name)
    for operation, key, member in (
        ("list_models", "Models", "ModelName"),
        ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
        ("list_model_package_groups", "ModelPackageGroupSummaryList", "ModelPackageGroupName"),
        ("list_model_packages", "ModelPackageSummaryList", "ModelPackageName"),
    ):
        pages = list(
            sagemaker.get_paginator(operation).paginate(
                NameContains="page-", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 3}
            )
        )
        assert [3, 3, 1] == [len(page[key]) for page in pages]
        assert names == [one[member] for page in pages for one in page[key]]
    for operation, key in (("list_endpoints", "Endpoints"), ("list_inference_components", "InferenceComponents")):
        pages = list(sagemaker.get_paginator(operation).paginate(NameContains="page-"))
        assert [[]] == [page[key] for page in pages]


def test_time_windows_take_datetimes(sagemaker: Any) -> None:
    """boto3 sends whole seconds."""
    make_model(sagemaker, "windowed", container(URL))
    created = sagemaker.describe_model(ModelName="windowed")["CreationTime"]
    minute = timedelta(minutes=1)
    for after, before, expected in (
        (created - minute, created + minute, ["windowed"]),
        (created + minute, created + 2 * minute, []),
        (created - 2 * minute, created - minute, []),
    ):
        listed = sagemaker.list_models(NameContains="windowed", CreationTimeAfter=after, CreationTimeBefore=before)
        assert expected == [one["ModelName"] for one in listed["Models"]]


def test_of_many_creates_of_one_name_one_wins(sagemaker: Any) -> None:
    """The others are told that it is taken, whatever case they wrote it in."""

    def create(at: int) -> str:
        name = "race" if at % 2 else "RACE"
        try:
            sagemaker.create_model(ModelName=name, PrimaryContainer=container(URL))
        except ClientError as error:
            return str(error.response["Error"]["Message"])
        return "made"

    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(create, range(32)))
    assert 1 == told.count("made")
    assert all(one == "made" or one.startswith("Cannot create already existing model ") for one in told)


def test_versions_made_at_once_have_numbers_of_their_own(sagemaker: Any) -> None:
    """1 to 32, none twice and none left out."""
    sagemaker.create_model_package_group(ModelPackageGroupName="many")

    def create(_: int) -> str:
        return str(sagemaker.create_model_package(ModelPackageGroupName="many")["ModelPackageArn"])

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(create, range(32)))
    assert {f"{ARN}model-package/many/{at}" for at in range(1, 33)} == set(made)


def everything_kept(sagemaker: Any) -> list[Any]:
    """What the server tells of the resources named ``kept``."""
    answers = (
        sagemaker.describe_model(ModelName="kept"),
        sagemaker.describe_endpoint_config(EndpointConfigName="kept"),
        sagemaker.list_tags(ResourceArn=f"{ARN}model/kept"),
        sagemaker.describe_model_package(ModelPackageName="kept/1"),
    )
    return [without(answer, "ResponseMetadata") for answer in answers]


def test_what_was_answered_is_there_after_a_crash(tmp_path: Path) -> None:
    """kill -9 right after the answers: models, configurations, tags, packages and their count go on."""
    with serve(tmp_path) as server:
        sagemaker = client(server)
        make_model(sagemaker, "kept", container(URL))
        sagemaker.add_tags(ResourceArn=f"{ARN}model/kept", Tags=[{"Key": "k", "Value": "v"}])
        make_config(sagemaker, "kept", production("kept"))
        sagemaker.create_model_package_group(ModelPackageGroupName="kept")
        for _ in range(2):
            sagemaker.create_model_package(ModelPackageGroupName="kept")
        sagemaker.delete_model_package(ModelPackageName="kept/2")
        before = everything_kept(sagemaker)
        server.stop(signal.SIGKILL)
    with serve(tmp_path) as server:
        sagemaker = client(server)
        assert before == everything_kept(sagemaker)
        made = sagemaker.create_model_package(ModelPackageGroupName="kept")
        assert f"{ARN}model-package/kept/3" == made["ModelPackageArn"]
