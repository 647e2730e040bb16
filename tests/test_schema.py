"""Requests against AWS's own service model: what is let through, what is refused, and in which words."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api import shapes
from serving.api.control_actions import ACTIONS
from serving.api.schema import Schema
from serving.api.schema_patterns import compile_pattern
from serving.errors import ConfigError, UnknownOperation, ValidationError
from tests.calls import ARN, CONTAINER, GOOD, VARIANT, places, spoilt, wild

SCHEMA = Schema.load("sagemaker", ACTIONS)
NAME = "[a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?"


def complaint(operation: str, raw: Any, trusted: bool = False) -> str:
    """What a refused request is told."""
    with pytest.raises(ValidationError) as caught:
        SCHEMA.check(operation, raw, trusted)
    return caught.value.message


def model(**container: Any) -> dict[str, Any]:
    """A CreateModel request with one container."""
    return {"ModelName": "m", "PrimaryContainer": {"Image": "image:1", **container}}


def config(**variant: Any) -> dict[str, Any]:
    """A CreateEndpointConfig request with one variant."""
    return {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "v", **variant}]}


# --- what the model holds ---------------------------------------------------------------------------------------------


def test_every_operation_on_offer_is_in_the_model() -> None:
    """And each has a good request in the tests."""
    assert set(ACTIONS) == SCHEMA.operations
    assert set(ACTIONS) == set(GOOD)
    assert SCHEMA.operations < SCHEMA.known


def test_no_pattern_is_left_unchecked(caplog: pytest.LogCaptureFixture) -> None:
    """Every pattern of the whole service, Java's as they are, compiles at load."""
    with caplog.at_level(logging.WARNING):
        whole = Schema.load("sagemaker")
    assert [] == caplog.messages
    assert whole.known == whole.operations


def test_every_text_with_a_pattern_has_a_greatest_length() -> None:
    """Or a hostile one could keep a pattern busy."""
    for operation in sorted(SCHEMA.operations):
        for node in _texts(SCHEMA.input(operation)):
            assert "" == node.source or node.high is not None, (operation, node)


def _texts(node: Any) -> list[shapes.Text]:
    if isinstance(node, shapes.Text):
        return [node]
    inner: list[Any] = list(node.members.values()) if isinstance(node, shapes.Structure) else []
    inner += [getattr(node, name) for name in ("item", "key", "value") if hasattr(node, name)]
    return [text for one in inner for text in _texts(one)]


def test_a_pattern_nobody_can_read_is_told_at_load(caplog: pytest.LogCaptureFixture) -> None:
    """And checks nothing then: no request fails for it."""
    assert compile_pattern("(unclosed") is None
    assert "(unclosed" in caplog.text


@pytest.mark.parametrize("text", ["٣٣٣٣٣٣٣٣٣٣٣٣", "12345678901²"])
def test_digits_are_ascii_as_in_java(text: str) -> None:
    """``\\d`` in a role's ARN."""
    role = f"arn:aws:iam::{text}:role/name"
    assert "'executionRoleArn'" in complaint("CreateModel", model() | {"ExecutionRoleArn": role})


def test_a_service_without_a_model_is_a_sentence() -> None:
    """No traceback."""
    with pytest.raises(ConfigError, match="'no-such-service' is missing"):
        Schema.load("no-such-service")


def test_other_services_load_too() -> None:
    """Auto scaling has a model of the same make."""
    scaling = Schema.load("application-autoscaling", ["DescribeScalableTargets"])
    assert {"ServiceNamespace": "sagemaker"} == scaling.check(
        "DescribeScalableTargets", {"ServiceNamespace": "sagemaker"}
    )


def test_an_unknown_operation_is_said_to_be() -> None:
    """By its own error."""
    with pytest.raises(UnknownOperation, match="CreateTrainingJob"):
        SCHEMA.check("CreateTrainingJob", {})


# --- what is let through ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", sorted(GOOD))
def test_a_good_request_passes_as_it_is(operation: str) -> None:
    """Every member, unchanged."""
    assert GOOD[operation] == SCHEMA.check(operation, GOOD[operation])


REAL = [
    *(model() | {"ModelName": name} for name in ("a", "A1", "sagemaker-xgboost-2024-01-01-00-00-00-000", "a--b")),
    *(
        model(Image=image)
        for image in (
            "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference@sha256:0a1b2c3d",
            "local/anything",
        )
    ),
    *(
        model(ModelDataUrl=url)
        for url in (
            "s3://bucket",
            "s3://bucket/",
            "s3://bucket/key with blanks/model.tar.gz",
            "https://bucket.s3.amazonaws.com/model.tar.gz",
            "s3://sagemaker-us-east-1-123456789012/job-2024-01-01/output/model.tar.gz",
        )
    ),
    *(
        model() | {"ExecutionRoleArn": role}
        for role in (
            "arn:aws:iam::123456789012:role/SageMakerRole",
            "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole-20240101T000000",
            "arn:aws-us-gov:iam::123456789012:role/a_b+c=d,e.f@g-h",
        )
    ),
    *(
        model() | {"Tags": [{"Key": key, "Value": value}]}
        for key, value in (("aws:cloudformation:stack-name", "x"), ("Kosten stelle/é_.:=+-@", "東京 1"), ("k", ""))
    ),
    *(config(InstanceType=kind) for kind in ("ml.m5.large", "ml.p5en.48xlarge", "ml.m9z-flex.8xlarge")),
    *(
        config() | {"KmsKeyId": key}
        for key in (
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/ExampleAlias",
            "arn:aws:kms:us-west-2:111122223333:alias/ExampleAlias",
        )
    ),
    *(
        config()
        | {
            "DataCaptureConfig": {
                "InitialSamplingPercentage": 0,
                "DestinationS3Uri": url,
                "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
                "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json", "application/vnd.api-json"]},
            }
        }
        for url in ("s3://bucket", "s3://b/deep/prefix/", "https://bucket.s3.amazonaws.com/x")
    ),
]  # fmt: skip


@pytest.mark.parametrize("raw", REAL)
def test_values_from_real_life_pass(raw: dict[str, Any]) -> None:
    """Names, images, roles, keys, tags and places as people have them."""
    operation = "CreateModel" if "ModelName" in raw else "CreateEndpointConfig"
    assert raw == SCHEMA.check(operation, raw)


def test_null_is_absent() -> None:
    """As JSON clients send what they leave unset."""
    assert {"ModelName": "m"} == SCHEMA.check("CreateModel", {"ModelName": "m", "Containers": None})


def test_members_of_newer_clients_are_dropped_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At every depth; a caller's inventions cannot fill the log."""
    schema = Schema.load("sagemaker", ["CreateModel"])
    raw = model(Novelty={"deep": [1]}) | {"Brand\nNew": 1, 7: 7}
    with caplog.at_level(logging.INFO, "serving.control"):
        for _ in range(3):
            assert model() == schema.check("CreateModel", raw)
        assert 3 == len(caplog.messages)
        assert not [line for line in caplog.messages if "\n" in line]
        schema.check("CreateModel", model() | {f"made up {at}": 1 for at in range(2000)})
    assert len(caplog.messages) <= 500


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1_700_000_000, 1.7e9),
        (1_700_000_000.25, 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1.7e9),
        ("2023-11-14T22:13:20", 1.7e9),
        ("2023-11-14T23:13:20.250+01:00", 1_700_000_000.25),
        (0, 0.0),
        (-1, -1.0),
    ],
)
def test_times_become_epoch_seconds(given: Any, expected: float) -> None:
    """Numbers and ISO 8601 text."""
    assert {"CreationTimeAfter": expected} == SCHEMA.check("ListModels", {"CreationTimeAfter": given})


@pytest.mark.parametrize(
    "given", ["yesterday", "", "9" * 5000, "0001-01-01T00:00:00+23:59", 1e300, math.inf, math.nan, True, [], 10**400]
)
def test_what_is_no_time_is_refused(given: Any) -> None:
    """Never an overflow."""
    assert "at 'creationTimeAfter' failed to satisfy constraint: Member must be a timestamp" in complaint(
        "ListModels", {"CreationTimeAfter": given}
    )


def test_numbers_have_the_type_the_model_names() -> None:
    """``2.0`` is a whole number; a weight is a float."""
    passed = SCHEMA.check("CreateEndpointConfig", config(InitialInstanceCount=2.0, InitialVariantWeight=1))
    variant = passed["ProductionVariants"][0]
    assert (int, float) == (type(variant["InitialInstanceCount"]), type(variant["InitialVariantWeight"]))


# --- where a model may lie --------------------------------------------------------------------------------------------


def test_a_file_url_is_a_models_place() -> None:
    """Whether it may be read is the store's to say."""
    source = {"S3Uri": "file:///models/a", "S3DataType": "S3Prefix", "CompressionType": "None"}
    raw = model(ModelDataUrl="file:///models/a.tar.gz", ModelDataSource={"S3DataSource": source})
    assert raw == SCHEMA.check("CreateModel", raw)


@pytest.mark.parametrize("url", ["models/a.onnx", "/models/a.onnx", "a" * 4000])
def test_a_path_is_one_for_the_operator_alone(url: str) -> None:
    """In the file of declared endpoints; never over HTTP."""
    raw = model(ModelDataUrl=url)
    assert raw == SCHEMA.check("CreateModel", raw, trusted=True)
    assert "'primaryContainer.modelDataUrl'" in complaint("CreateModel", raw)


@pytest.mark.parametrize("url", ["", "a\0b", "a" * 5000])
def test_what_is_no_path_is_refused_to_the_operator_too(url: str) -> None:
    """Empty, with a zero, or too long for the system."""
    assert "Member must be a path or URL" in complaint("CreateModel", model(ModelDataUrl=url), trusted=True)


# --- what is refused --------------------------------------------------------------------------------------------------

SHORT, PATTERN = "Member must have length ", "Member must satisfy regular expression pattern: "
TO, FROM = "less than or equal to ", "greater than or equal to "
INSTANCE = r"ml\.[a-z0-9-]+\.[a-z0-9]+"
VARIANT_1 = "productionVariants.1.member."
CONTAINER_1 = "primaryContainer."
ENVIRONMENT = f"{SHORT}{TO}1024, {SHORT}{FROM}0, {PATTERN}"

#: What is wrong -> the operation, its request, and the value, place and rule it is told of.
WRONG: dict[str, tuple[str, dict[str, Any], str, str, str]] = {
    "required": ("CreateModel", {}, "null", "modelName", "Member must not be null"),
    "required inside": (
        "CreateEndpointConfig",
        {"EndpointConfigName": "c", "ProductionVariants": [VARIANT, {}]},
        *("null", "productionVariants.2.member.variantName", "Member must not be null"),
    ),
    "null in a list": (
        "CreateModel",
        {"ModelName": "m", "Containers": [None]},
        *("null", "containers.1.member", "Member must not be null"),
    ),
    "pattern": ("CreateModel", {"ModelName": "a_b"}, "'a_b'", "modelName", PATTERN + NAME),
    "pattern of the whole text": ("CreateModel", {"ModelName": "ab\n"}, "'ab?'", "modelName", PATTERN + NAME),
    "empty name": ("CreateModel", {"ModelName": ""}, "''", "modelName", PATTERN + NAME),
    "length": ("CreateModel", {"ModelName": "a" * 64}, f"'{'a' * 64}'", "modelName", f"{SHORT}{TO}63"),
    "least length": (
        "AddTags",
        {"ResourceArn": f"{ARN}:model/m", "Tags": [{"Key": "", "Value": ""}]},
        *("''", "tags.1.member.key", f"{SHORT}{FROM}1"),
    ),
    "enum": (
        "CreateModel",
        model(Mode="Triple"),
        *("'Triple'", CONTAINER_1 + "mode", "Member must satisfy enum value set: [SingleModel, MultiModel]"),
    ),
    "instance type": (
        "CreateEndpointConfig",
        config(InstanceType="t3.medium"),
        *("'t3.medium'", VARIANT_1 + "instanceType", PATTERN + INSTANCE),
    ),
    "greatest number": ("ListModels", {"MaxResults": 101}, "'101'", "maxResults", f"Member must have value {TO}100"),
    "least number": (
        "CreateEndpointConfig",
        config(InitialVariantWeight=-0.1),
        *("'-0.1'", VARIANT_1 + "initialVariantWeight", f"Member must have value {FROM}0"),
    ),
    "32 bits": (
        "CreateEndpointConfig",
        config(InitialInstanceCount=2**31),
        *("'2147483648'", VARIANT_1 + "initialInstanceCount", f"Member must have value {TO}2147483647"),
    ),
    "single precision": (
        "CreateEndpointConfig",
        config(InitialVariantWeight=1e39),
        *("'1e+39'", VARIANT_1 + "initialVariantWeight", f"Member must have value {TO}3.4028234663852886e+38"),
    ),
    "greatest list": (
        "CreateModel",
        {"ModelName": "m", "Containers": [{}] * 16},
        *("'[{}, {}, {}, ...]'", "containers", f"{SHORT}{TO}15"),
    ),
    "least list": (
        "CreateEndpointConfig",
        {"EndpointConfigName": "c", "ProductionVariants": []},
        *("'[]'", "productionVariants", f"{SHORT}{FROM}1"),
    ),
    "greatest map": (
        "CreateModel",
        model(Environment={f"A{at}": "" for at in range(101)}),
        *("'{A0=, A1=, A2=, ...}'", CONTAINER_1 + "environment", f"{SHORT}{TO}100"),
    ),
    "map key": (
        "CreateModel",
        model(Environment={"1A": ""}),
        *(
            "'1A'",
            CONTAINER_1 + "environment",
            f"Map keys must satisfy constraint: [{ENVIRONMENT}[a-zA-Z_][a-zA-Z0-9_]*]",
        ),
    ),
    "map value": (
        "CreateModel",
        model(Environment={"A": "x" * 1025}),
        "'{A=" + "x" * 253 + "...'",
        *(CONTAINER_1 + "environment", rf"Map value must satisfy constraint: [{ENVIRONMENT}[\S\s]*]"),
    ),
    "half a character": (
        "CreateModel",
        model(Environment={"A": "\ud800"}),
        *("'{A=?}'", CONTAINER_1 + "environment", rf"Map value must satisfy constraint: [{ENVIRONMENT}[\S\s]*]"),
    ),
    "null in a map": (
        "CreateModel",
        model(Environment={"A": None}),
        *("null", CONTAINER_1 + "environment.A.member", "Member must not be null"),
    ),
    "no string in a map": (
        "CreateModel",
        model(Environment={"A": 60}),
        *("'60'", CONTAINER_1 + "environment.A", "Member must be a string"),
    ),
    "no string": ("CreateModel", {"ModelName": 5}, "'5'", "modelName", "Member must be a string"),
    "no integer": ("ListModels", {"MaxResults": "5"}, "'5'", "maxResults", "Member must be an integer"),
    "a boolean is none": ("ListModels", {"MaxResults": True}, "'true'", "maxResults", "Member must be an integer"),
    "nor is a half": ("ListModels", {"MaxResults": 1.5}, "'1.5'", "maxResults", "Member must be an integer"),
    "no number": (
        "CreateEndpointConfig",
        config(InitialVariantWeight="1"),
        *("'1'", VARIANT_1 + "initialVariantWeight", "Member must be a number"),
    ),
    "not a number": (
        "CreateEndpointConfig",
        config(InitialVariantWeight=math.nan),
        *("'nan'", VARIANT_1 + "initialVariantWeight", "Member must be a number"),
    ),
    "infinite": (
        "CreateEndpointConfig",
        config(InitialVariantWeight=math.inf),
        *("'inf'", VARIANT_1 + "initialVariantWeight", "Member must be a number"),
    ),
    "no boolean": (
        "CreateModel",
        model() | {"EnableNetworkIsolation": "true"},
        *("'true'", "enableNetworkIsolation", "Member must be a boolean"),
    ),
    "no list": ("CreateModel", {"ModelName": "m", "Containers": {}}, "'{}'", "containers", "Member must be a list"),
    "no map": ("CreateModel", model(Environment=[]), "'[]'", CONTAINER_1 + "environment", "Member must be a map"),
    "no structure": (
        "CreateModel",
        {"ModelName": "m", "PrimaryContainer": "x"},
        *("'x'", "primaryContainer", "Member must be a structure"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_kind_of_constraint_has_its_refusal(name: str) -> None:
    """The member, the value and the rule, in AWS's grammar."""
    operation, raw, value, place, rule = WRONG[name]
    assert f"1 validation error detected: Value {value} at '{place}' failed to satisfy constraint: {rule}" == complaint(
        operation, raw
    )


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Counted, separated by semicolons."""
    said = complaint("ListModels", {"MaxResults": 0, "SortBy": "Size", "NameContains": "_"})
    assert said.startswith("3 validation errors detected: Value '0' at 'maxResults' failed")
    assert 3 == len(said.split("; "))
    assert 3 == said.count(" failed to satisfy constraint: ")


def test_a_message_is_small_whatever_was_sent() -> None:
    """Ten values at most, each clipped; the rest is counted."""
    wanted = [{"VariantName": "x" * 100_000} for _ in range(5_000)]
    said = complaint("UpdateEndpointWeightsAndCapacities", {"EndpointName": "e", "DesiredWeightsAndCapacities": wanted})
    assert said.startswith("5000 validation errors detected: ")
    assert said.endswith("; and 4990 more")
    assert len(said) < 8192
    assert "'" + "x" * 256 + "...'" in said


def test_a_message_is_printable() -> None:
    """No line of it is anybody else's."""
    said = complaint("CreateModel", model(Environment={"a\r\nb": "\x1b[2J", "\u202e": 1}) | {"ModelName": "\n"})
    assert said.isprintable()


def test_a_secret_is_not_repeated() -> None:
    """What the model marks as sensitive."""
    raw = GOOD["CreateModelPackage"] | {"ModelCard": {"ModelCardContent": 5, "ModelCardStatus": "Draft"}}
    assert "Value at 'modelCard.modelCardContent' failed" in complaint("CreateModelPackage", raw)


def test_what_is_no_object_is_refused() -> None:
    """Whatever it is."""
    for raw in ([], "x", 1, None):
        assert "Member must be a structure" in complaint("CreateModel", raw)


@given(wild())
def test_any_request_passes_or_is_refused_in_one_sentence(case: tuple[str, Any]) -> None:
    """Nothing but ``ValidationError``; what passes passes again unchanged."""
    operation, raw = case
    try:
        passed = SCHEMA.check(operation, raw)
    except ValidationError as error:
        assert re.match(r"\d+ validation errors? detected: Value ", error.message)
        assert error.message.isprintable()
        assert len(error.message) < 8192
    else:
        assert passed == SCHEMA.check(operation, passed)


@pytest.mark.parametrize("operation", sorted(GOOD))
@pytest.mark.parametrize("junk", ["", "a" * 65_536, "-" * 65_536 + "!", -1, 2**70, True, [[]], {"": {}}, "\ud800"])
def test_junk_in_any_place_is_survived(operation: str, junk: Any) -> None:
    """Every member of every good request, one after another."""
    for at in places(GOOD[operation]):
        try:
            SCHEMA.check(operation, spoilt(GOOD[operation], at, junk))
        except ValidationError as error:
            assert len(error.message) < 8192


@given(st.integers(1, 400))
def test_deep_nesting_is_no_deeper_than_the_model(depth: int) -> None:
    """Whatever lies below an unknown or wrong member is not walked."""
    deep: Any = 1
    for _ in range(depth):
        deep = {"a": [deep]}
    assert "Member must be a string" in complaint("CreateModel", {"ModelName": deep, "Unknown": deep})


def test_a_shape_that_holds_itself_is_bounded() -> None:
    """No request may exhaust the stack."""
    loop = shapes.Structure("Loop")
    loop.members["Inner"] = loop
    schema = Schema(frozenset({"Op"}), {"Op": loop}, {"Op": loop})
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"Inner": deep}
    with pytest.raises(ValidationError, match="nested deeper than 64"):
        schema.check("Op", deep)


def test_of_a_union_one_member_is_set() -> None:
    """Neither none nor two."""
    union = shapes.Structure("Union", union=True, members={"A": shapes.Boolean(), "B": shapes.Boolean()})
    schema = Schema(frozenset({"Op"}), {"Op": union}, {"Op": None})
    assert {"A": True} == schema.check("Op", {"A": True})
    for raw in ({}, {"A": True, "B": True}):
        with pytest.raises(ValidationError, match="exactly one"):
            schema.check("Op", raw)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_holds_what_the_model_has_and_is_set() -> None:
    """No foreign member, no null, no structure in which nothing is set; times to the millisecond."""
    answer = {
        "ModelName": "m",
        "ModelArn": f"{ARN}:model/m",
        "CreationTime": 1_700_000_000.123456,
        "PrimaryContainer": {**CONTAINER, "Ours": 1, "ModelPackageName": None},
        "VpcConfig": {"SecurityGroupIds": None, "Subnets": None},
        "ExecutionRoleArn": None,
        "Origin": "api",
    }
    assert {
        "ModelName": "m",
        "ModelArn": f"{ARN}:model/m",
        "CreationTime": 1_700_000_000.123,
        "PrimaryContainer": CONTAINER,
    } == SCHEMA.shape("DescribeModel", answer)


def test_what_the_caller_sent_empty_comes_back_empty() -> None:
    """``NotificationConfig: {}`` means something to clients."""
    sent = {"OutputConfig": {"S3OutputPath": "s3://bucket/out", "NotificationConfig": {}}}
    answer = {"EndpointConfigName": "c", "AsyncInferenceConfig": sent}
    assert answer == SCHEMA.shape("DescribeEndpointConfig", answer)


def test_a_required_structure_may_be_empty() -> None:
    """CreatedBy of a group; lists that the model requires, too."""
    assert {"CreatedBy": {}} == SCHEMA.shape("DescribeModelPackageGroup", {"CreatedBy": {"UserProfileName": None}})
    assert {"Models": []} == SCHEMA.shape("ListModels", {"Models": []})


def test_false_and_zero_are_values() -> None:
    """Not absences."""
    assert {"EnableNetworkIsolation": False} == SCHEMA.shape("DescribeModel", {"EnableNetworkIsolation": False})


@pytest.mark.parametrize("operation", ["DeleteModel", "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModelPackage"])
def test_an_operation_without_output_has_no_answer(operation: str) -> None:
    """Not even ``{}``; DeleteTags has one."""
    assert None is SCHEMA.shape(operation, {"anything": 1})
    assert {} == SCHEMA.shape("DeleteTags", {})
