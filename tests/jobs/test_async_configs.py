"""AsyncInferenceConfig: what is refused when a configuration is made, and what its endpoints go by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.fleet.resolve import deployment, endpoint_fleets, endpoint_spec
from tests import memory
from tests.actions import Control, opened

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk

HOOK = "https://hooks.example:8443/done?for=me"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:done"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """With models in a file, in a folder, in a prefix of many, and at a path that is also an object's."""
    with opened(tmp_path) as control:
        control.model("file", ModelDataUrl="s3://models/team/file.tar.gz")
        control.model("folder", ModelDataUrl="s3://models/folder")
        control.model("many", Mode="MultiModel", ModelDataUrl="s3://models/many/")
        local = control.settings.data_dir / "s3" / "models" / "local"
        control("CreateModel", trusted=True, ModelName="local", PrimaryContainer={"ModelDataUrl": str(local)})
        yield control


def config(model: str = "file", notices: dict[str, Any] | None = None, **output: Any) -> dict[str, Any]:
    """CreateEndpointConfig's members."""
    told = {"NotificationConfig": notices} if notices is not None else {}
    variant = {"VariantName": "v", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    return {
        "EndpointConfigName": "c",
        "ProductionVariants": [variant],
        "AsyncInferenceConfig": {"OutputConfig": {**output, **told}},
    }


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("file", "s3://models/team"),
        ("file", "s3://models/"),
        ("file", "s3://models/team/file.tar.gz"),
        ("folder", "s3://models/folder/out"),
        ("folder", "s3://models/folder"),
        ("many", "s3://models/many/out"),
        ("many", "s3://models"),
        ("local", "s3://models/local/out"),
    ],
)
def test_answers_cannot_come_to_lie_over_a_model(control: Control, model: str, path: str) -> None:
    """Nor can failures."""
    for member in ("S3OutputPath", "S3FailurePath"):
        refusal = control.refusal("CreateEndpointConfig", **config(model, **{member: path}))
        assert f"{member} {path} and the data of model {model} overlap" in refusal


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("file", "s3://models/out"),
        ("folder", "s3://models/folder-2"),
        ("many", "s3://models/manyfold/"),
        ("file", "s3://b"),
    ],
)
def test_answers_may_lie_beside_a_model(control: Control, model: str, path: str) -> None:
    """A name that only begins alike is another place."""
    control("CreateEndpointConfig", **config(model, S3OutputPath=path, S3FailurePath=path))


@pytest.mark.parametrize("path", ["https://b.s3.amazonaws.com/out", "s3://b/../models", "s3://b//x", "s3://.spool/x"])
def test_a_path_is_the_object_store_s(control: Control, path: str) -> None:
    """AWS's pattern allows more than can be written to."""
    for member in ("S3OutputPath", "S3FailurePath"):
        assert f"{member} must be s3://" in control.refusal("CreateEndpointConfig", **config(**{member: path}))


def test_a_topic_is_sns_s_or_a_plain_url(control: Control) -> None:
    """Ours beyond AWS's pattern: webhooks."""
    made = config(S3OutputPath="s3://b/out", notices={"SuccessTopic": HOOK, "ErrorTopic": TOPIC})
    control("CreateEndpointConfig", **made)
    described = control("DescribeEndpointConfig", EndpointConfigName="c")
    assert made["AsyncInferenceConfig"] == described["AsyncInferenceConfig"]


@pytest.mark.parametrize(
    "topic", ["ftp://h/x", "http://", "http://user:pw@h/x", "http://h/a b", "http://h\\x", "arn:aws:sqs:r:1:q", "hook"]
)
def test_what_is_no_receiver_is_refused(control: Control, topic: str) -> None:
    """By the pattern, or for what could be read in two ways."""
    refusal = control.refusal("CreateEndpointConfig", **config(notices={"ErrorTopic": topic}))
    assert "errorTopic" in refusal or "ErrorTopic must be" in refusal


def test_an_asynchronous_call_has_a_model_to_go_to(control: Control) -> None:
    """It cannot name an inference component."""
    made = config()
    made["ProductionVariants"] = [{"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}]
    made["ExecutionRoleArn"] = "arn:aws:iam::123456789012:role/r"
    assert "needs variants with a ModelName" in control.refusal("CreateEndpointConfig", **made)


def test_an_endpoint_goes_by_its_configuration() -> None:
    """And by defaults that are written down."""
    given = config(S3OutputPath="s3://b/out", S3FailurePath="s3://b/bad", notices={"SuccessTopic": HOOK})
    given["AsyncInferenceConfig"]["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": 7}
    models = {"file": {"PrimaryContainer": {"ModelDataUrl": "s3://models/team/file.tar.gz"}}}
    spec = endpoint_spec("e", deployment(1, "c", given, models, 5.0))
    assert spec.asynchronous is not None
    assert ("s3://b/out", "s3://b/bad", 7, HOOK, "", (), 5.0) == (
        spec.asynchronous.output, spec.asynchronous.failure, spec.asynchronous.concurrency,
        spec.asynchronous.success_topic, spec.asynchronous.error_topic, spec.asynchronous.include,
        spec.asynchronous.since,
    )  # fmt: skip
    assert [(3600.0, 2.0)] == [(fleet.call_seconds, fleet.quarantine) for fleet in endpoint_fleets(spec)]
    plain = endpoint_spec("e", deployment(1, "c", config(), models, 5.0)).asynchronous
    assert plain is not None
    assert ("", "", 4) == (plain.output, plain.failure, plain.concurrency)
