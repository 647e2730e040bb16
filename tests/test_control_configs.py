"""Endpoint configurations: what may be together in CreateEndpointConfig, and that Describe echoes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ServingError
from tests import memory
from tests.actions import ARN, Control, opened, without

tmp_path_factory = memory.tmp_path_factory  # no fact here concerns the disk


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """With the models m and n, many (multi-model) and pipeline."""
    with opened(tmp_path) as control:
        add_models(control)
        yield control


def add_models(control: Control) -> None:
    """One of each kind."""
    control.model("m")
    control.model("n")
    control.model("many", Mode="MultiModel", ModelDataUrl="s3://b/prefix/")
    control("CreateModel", ModelName="pipeline", Containers=[{"Image": "a"}, {"Image": "b"}])
    control("CreateModel", ModelName="isolated", PrimaryContainer={"Image": "a"}, EnableNetworkIsolation=True)
    source = {"S3DataSource": {"S3Uri": "s3://b/k", "S3DataType": "S3Object", "CompressionType": "Gzip"}}
    control("CreateModel", ModelName="source", PrimaryContainer={"Image": "a", "ModelDataSource": source})


ROLE = "arn:aws:iam::123456789012:role/r"


def variant(name: str = "v", model: str = "m", **members: Any) -> dict[str, Any]:
    """A production variant with a model on instances."""
    given = {"VariantName": name, "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    return {**given, **members}


def component_variant(name: str = "v", **members: Any) -> dict[str, Any]:
    """A variant for inference components."""
    return {"VariantName": name, "InstanceType": "ml.m5.large", **members}


def serverless(name: str = "v", model: str = "m", *, memory: int = 2048, **members: Any) -> dict[str, Any]:
    """A serverless variant."""
    config = {"MemorySizeInMB": memory, "MaxConcurrency": 5, **members}
    return {"VariantName": name, "ModelName": model, "ServerlessConfig": config}


def pools(*types: str) -> dict[str, Any]:
    """InstancePools of these types, in this order."""
    return {"InstancePools": [{"InstanceType": one, "Priority": at} for at, one in enumerate(types, 1)]}


CAPTURE = {
    "EnableCapture": False,
    "InitialSamplingPercentage": 0,
    "DestinationS3Uri": "s3://b/capture",
    "KmsKeyId": "alias/k",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
}
ASYNC = {
    "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
    "OutputConfig": {"S3OutputPath": "s3://b/out", "S3FailurePath": "s3://b/bad", "NotificationConfig": {}},
}
BASELINE: dict[str, Any] = {"MimeType": "text/csv", "ShapBaseline": "1,2"}


def explainer(**baseline: str) -> dict[str, Any]:
    """An ExplainerConfig with this baseline."""
    shap = {"ShapBaselineConfig": baseline, "NumberOfSamples": 10, "UseLogit": False, "Seed": 0}
    return {"ClarifyExplainerConfig": {"EnableExplanations": "`true`", "InferenceConfig": {}, "ShapConfig": shap}}


VARIANTS: list[dict[str, Any]] = [
    variant("a", InitialVariantWeight=0.5, VolumeSizeInGB=10, EnableSSMAccess=False),
    variant("b", InitialVariantWeight=0, RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}),
    variant("c", RoutingConfig={"RoutingStrategy": "PREFIX_AWARE", "PrefixAwareRoutingConfig": {"PrefixLength": 2048}}),
    variant("d", RoutingConfig={"RoutingStrategy": "KV_AWARE"}, ModelDataDownloadTimeoutInSeconds=60),
    variant(
        "e", "n", CoreDumpConfig={"DestinationS3Uri": "s3://b/core"}, ContainerStartupHealthCheckTimeoutInSeconds=60
    ),
]


@pytest.mark.parametrize(
    "members",
    [
        {"ProductionVariants": [variant()]},
        {"ProductionVariants": VARIANTS, "KmsKeyId": "alias/k"},
        {"ProductionVariants": [variant(f"v{at}") for at in range(10)]},
        {"ProductionVariants": [variant("a", InitialVariantWeight=0)]},
        {
            "ProductionVariants": [variant("a")],
            "ShadowProductionVariants": [variant("b", "n", InitialVariantWeight=0.5)],
        },
        {
            "ProductionVariants": [variant("a"), variant("b")],
            "ShadowProductionVariants": [variant("c"), variant("d", "n", InitialVariantWeight=0)],
        },
        {"ProductionVariants": [variant()], "DataCaptureConfig": CAPTURE},
        {"ProductionVariants": [variant()], "DataCaptureConfig": {**CAPTURE, "CaptureContentTypeHeader": {}}},
        {"ProductionVariants": [variant()], "AsyncInferenceConfig": ASYNC},
        {"ProductionVariants": [variant()], "AsyncInferenceConfig": {"OutputConfig": {}}},
        {"ProductionVariants": [variant()], "ExplainerConfig": explainer(**BASELINE)},
        {"ProductionVariants": [variant()], "ExplainerConfig": explainer(ShapBaselineUri="s3://b/base")},
        {"ProductionVariants": [variant()], "ExplainerConfig": {}},
        {"ProductionVariants": [variant()], "MetricsConfig": {"EnableEnhancedMetrics": False}},
        {
            "ProductionVariants": [variant()],
            "CrossRegionTrafficConfig": {
                "MaxInvocationsPerSecondPerInstance": 5,
                "MaxCrossRegionPercentPerEndpoint": 5,
            },
        },
        {"ProductionVariants": [serverless(ProvisionedConcurrency=5)]},
        {"ProductionVariants": [serverless(memory=6144)], "EnableNetworkIsolation": False},
        {"ProductionVariants": [component_variant()]},
        {
            "ProductionVariants": [
                component_variant(
                    InitialInstanceCount=1,
                    InitialVariantWeight=1,
                    ManagedInstanceScaling={
                        "Status": "ENABLED",
                        "MinInstanceCount": 0,
                        "MaxInstanceCount": 2,
                        "ScaleInPolicy": {"Strategy": "CONSOLIDATION", "MaximumStepSize": 1, "CooldownInMinutes": 20},
                    },
                )
            ],
            "ExecutionRoleArn": ROLE,
            "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
            "EnableNetworkIsolation": True,
        },
        {"ProductionVariants": [component_variant(ManagedInstanceScaling={})]},
        {"ProductionVariants": [component_variant("a"), component_variant("b")]},
        {"ProductionVariants": [{**without(variant(), "InstanceType"), **pools("ml.m5.large", "ml.c5.large")}]},
        {"ProductionVariants": [variant(model="many")]},
        {"ProductionVariants": [variant(model="pipeline")]},
    ],
)
def test_what_a_configuration_may_be(control: Control, members: dict[str, Any]) -> None:
    """Kept as it is sent and told as it was kept: no default is added, what is empty, false or zero stays."""
    created = control("CreateEndpointConfig", EndpointConfigName="C", Tags=[], **members)
    assert {"EndpointConfigArn": f"{ARN}endpoint-config/C"} == created
    described = control("DescribeEndpointConfig", EndpointConfigName="c")
    expected = {"EndpointConfigName": "C", **created, **members, "CreationTime": control.now - 1}
    assert expected == described


def test_what_is_described_can_be_created_again(control: Control) -> None:
    """Clients copy members from the answer into their next request."""
    control("CreateEndpointConfig", EndpointConfigName="a", ProductionVariants=VARIANTS, DataCaptureConfig=CAPTURE)
    described = control("DescribeEndpointConfig", EndpointConfigName="a")
    copied = without(described, "EndpointConfigName", "EndpointConfigArn", "CreationTime")
    control("CreateEndpointConfig", EndpointConfigName="b", **copied)
    again = control("DescribeEndpointConfig", EndpointConfigName="b")
    assert copied == without(again, "EndpointConfigName", "EndpointConfigArn", "CreationTime")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"ProductionVariants": []}, "Member must have length greater than or equal to 1"),
        ({"ProductionVariants": [variant(f"v{at}") for at in range(11)]}, "length less than or equal to 10"),
        ({"ProductionVariants": [variant("a"), variant("A")]}, 'The variant name "A" was non-unique'),
        (
            {"ProductionVariants": [variant("a")], "ShadowProductionVariants": [variant("a")]},
            'The variant name "a" was non-unique',
        ),
        (
            {"ProductionVariants": [variant("a")], "ShadowProductionVariants": [variant("b", "many")]},
            "either every variant has a MultiModel container or none.",
        ),
        ({"ProductionVariants": [variant(model="none")]}, f'Could not find model "{ARN}model/none".'),
        (
            {"ProductionVariants": [variant("a")], "ShadowProductionVariants": [variant("b", "none")]},
            f'Could not find model "{ARN}model/none".',
        ),
        ({"ProductionVariants": [variant(InitialVariantWeight=-1)]}, "Member must have value greater than or equal to"),
        ({"ProductionVariants": [variant(InitialVariantWeight=1e39)]}, "Member must have value less than or equal to"),
        ({"ProductionVariants": [variant(InitialVariantWeight=float("nan"))]}, "Member must be a number"),
        ({"ProductionVariants": [variant(InitialVariantWeight=float("inf"))]}, "Member must be a number"),
        (
            {"ProductionVariants": [variant(InitialInstanceCount=0)]},
            "Member must have value greater than or equal to 1",
        ),
        ({"ProductionVariants": [without(variant(), "InitialInstanceCount")]}, "needs an InitialInstanceCount"),
        ({"ProductionVariants": [without(variant(), "InstanceType")]}, "needs an InstanceType"),
        ({"ProductionVariants": [{"VariantName": "v"}]}, "needs an InstanceType"),
        (
            {"ProductionVariants": [variant(ManagedInstanceScaling={"MaxInstanceCount": 2})]},
            "ManagedInstanceScaling is only supported for inference component endpoints.",
        ),
        (
            {
                "ProductionVariants": [
                    component_variant(ManagedInstanceScaling={"MinInstanceCount": 3, "MaxInstanceCount": 2})
                ]
            },
            "MinInstanceCount (3) must be at most MaxInstanceCount (2).",
        ),
        ({"ProductionVariants": [variant("a"), component_variant("b")]}, "every variant has a ModelName or none"),
        (
            {"ProductionVariants": [component_variant("a")], "ShadowProductionVariants": [component_variant("b")]},
            "ShadowProductionVariants needs variants with a ModelName.",
        ),
        (
            {
                "ProductionVariants": [
                    variant(RoutingConfig={"RoutingStrategy": "RANDOM", "PrefixAwareRoutingConfig": {}})
                ]
            },
            "PrefixAwareRoutingConfig needs the RoutingStrategy PREFIX_AWARE.",
        ),
        (
            {"ProductionVariants": [variant(**pools("ml.m5.large"))]},
            "either an InstanceType or InstancePools, not both",
        ),
        (
            {"ProductionVariants": [{**without(variant(), "InstanceType"), **pools("ml.m5.large", "ml.m5.large")}]},
            "must have an own InstanceType",
        ),
        (
            {
                "ProductionVariants": [
                    {
                        **without(variant(), "InstanceType"),
                        "InstancePools": [
                            {"InstanceType": "ml.m5.large", "Priority": 1, "ModelNameOverride": "none"},
                        ],
                    }
                ]
            },
            f'Could not find model "{ARN}model/none".',
        ),
        (
            {
                "ProductionVariants": [
                    {
                        "VariantName": "v",
                        "InstancePools": [{"InstanceType": "ml.m5.large", "Priority": 1, "ModelNameOverride": "m"}],
                    }
                ]
            },
            "ModelNameOverride needs a ModelName to override",
        ),
        (
            {
                "ProductionVariants": [variant()],
                "AsyncInferenceConfig": ASYNC,
                "CrossRegionTrafficConfig": {
                    "MaxInvocationsPerSecondPerInstance": 5,
                    "MaxCrossRegionPercentPerEndpoint": 5,
                },
            },
            "CrossRegionTrafficConfig cannot be given together with AsyncInferenceConfig.",
        ),
        (
            {"ProductionVariants": [variant()], "ExplainerConfig": explainer()},
            "needs either a ShapBaseline or a ShapBaselineUri",
        ),
        (
            {"ProductionVariants": [variant()], "ExplainerConfig": explainer(ShapBaselineUri="s3://b/k", **BASELINE)},
            "needs either a ShapBaseline or a ShapBaselineUri",
        ),
    ],
)
def test_what_a_configuration_may_not_be(control: Control, members: dict[str, Any], words: str) -> None:
    """Each with its own sentence, and nothing is kept."""
    assert words in control.refusal("CreateEndpointConfig", EndpointConfigName="c", **members)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"ProductionVariants": [{**serverless(), "InstanceType": "ml.m5.large"}]}, "or InstanceType, not both"),
        ({"ProductionVariants": [{**serverless(), "InitialInstanceCount": 1}]}, "or InitialInstanceCount, not both"),
        ({"ProductionVariants": [{**serverless(), **pools("ml.m5.large")}]}, "or InstancePools, not both"),
        ({"ProductionVariants": [without(serverless(), "ModelName")]}, 'Serverless variant "v" needs a ModelName.'),
        ({"ProductionVariants": [serverless("a"), serverless("b")]}, "exactly one variant and no shadow variants"),
        ({"ProductionVariants": [serverless("a"), variant("b")]}, "exactly one variant and no shadow variants"),
        (
            {"ProductionVariants": [variant("a")], "ShadowProductionVariants": [serverless("b")]},
            "exactly one variant and no shadow variants",
        ),
        (
            {"ProductionVariants": [serverless(memory=1500)]},
            "Value '1500' at 'productionVariants.1.member.serverlessConfig.memorySizeInMB' failed to satisfy "
            "constraint: Member must satisfy enum value set: [1024, 2048, 3072, 4096, 5120, 6144]",
        ),
        ({"ProductionVariants": [serverless(memory=7168)]}, "Member must have value less than or equal to 6144"),
        (
            {"ProductionVariants": [serverless(ProvisionedConcurrency=6)]},
            "ProvisionedConcurrency (6) must be at most MaxConcurrency (5).",
        ),
        (
            {"ProductionVariants": [serverless()], "DataCaptureConfig": CAPTURE},
            "DataCaptureConfig is not supported for serverless endpoints.",
        ),
        (
            {"ProductionVariants": [serverless()], "AsyncInferenceConfig": ASYNC},
            "AsyncInferenceConfig is not supported",
        ),
        ({"ProductionVariants": [serverless()], "EnableNetworkIsolation": True}, "EnableNetworkIsolation is not"),
        ({"ProductionVariants": [serverless(model="many")]}, "is a multi-model one, which serverless"),
        ({"ProductionVariants": [serverless(model="pipeline")]}, "has several containers, which serverless"),
        ({"ProductionVariants": [serverless(model="isolated")]}, "has EnableNetworkIsolation, which serverless"),
        ({"ProductionVariants": [serverless(model="source")]}, "has a ModelDataSource, which serverless"),
    ],
)
def test_what_a_serverless_configuration_may_not_be(control: Control, members: dict[str, Any], words: str) -> None:
    """One variant, no instances, a plain model, and nothing that needs instances."""
    assert words in control.refusal("CreateEndpointConfig", EndpointConfigName="c", **members)


def test_a_serverless_variant_looks_into_packages(control: Control) -> None:
    """A package of several containers is a pipeline, whatever the model looks like."""
    containers = [{"Image": "a"}, {"Image": "b"}]
    control("CreateModelPackage", ModelPackageName="p", InferenceSpecification={"Containers": containers})
    control("CreateModel", ModelName="packed", PrimaryContainer={"ModelPackageName": "p"})
    variants = [serverless(model="packed")]
    words = control.refusal("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=variants)
    assert "has several containers, which serverless" in words


def test_an_operators_file_may_leave_out_instances(control: Control) -> None:
    """There are none on one's own machine; a weight or a model that may not be is refused all the same."""
    variants = [{"VariantName": "v", "ModelName": "m"}]
    control("CreateEndpointConfig", trusted=True, EndpointConfigName="c", ProductionVariants=variants)
    assert variants == control("DescribeEndpointConfig", EndpointConfigName="c")["ProductionVariants"]
    variants = [{"VariantName": "v", "ModelName": "none"}]
    words = control.refusal("CreateEndpointConfig", trusted=True, EndpointConfigName="d", ProductionVariants=variants)
    assert "Could not find model" in words


def test_names_are_unique_in_any_case(control: Control) -> None:
    """And may be used again when the configuration is gone."""
    control("CreateEndpointConfig", EndpointConfigName="Config", ProductionVariants=[variant()])
    refusal = control.refusal("CreateEndpointConfig", EndpointConfigName="CONFIG", ProductionVariants=[variant()])
    assert f'Cannot create already existing endpoint configuration "{ARN}endpoint-config/CONFIG".' == refusal
    assert control("DeleteEndpointConfig", EndpointConfigName="config") is None
    for operation in ("DescribeEndpointConfig", "DeleteEndpointConfig"):
        refusal = control.refusal(operation, EndpointConfigName="config")
        assert f'Could not find endpoint configuration "{ARN}endpoint-config/config".' == refusal
    control("CreateEndpointConfig", EndpointConfigName="config", ProductionVariants=[variant()])


def test_a_model_may_go_while_configurations_name_it(control: Control) -> None:
    """The configuration stays as it is."""
    control("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant()])
    control("DeleteModel", ModelName="m")
    assert [variant()] == control("DescribeEndpointConfig", EndpointConfigName="c")["ProductionVariants"]


def test_a_model_is_named_in_any_case(control: Control) -> None:
    """What is told is what was sent."""
    control("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant(model="M")])
    assert "M" == control("DescribeEndpointConfig", EndpointConfigName="c")["ProductionVariants"][0]["ModelName"]


# --- wild input -----------------------------------------------------------------------------------------------------

WILD_VARIANTS = st.fixed_dictionaries(
    {"VariantName": st.sampled_from(["a", "b", "A", "_"])},
    optional={
        "ModelName": st.sampled_from(["m", "n", "N", "many", "pipeline", "none"]),
        "InstanceType": st.sampled_from(["ml.m5.large", "m5"]),
        "InitialInstanceCount": st.sampled_from([1, 2, 0, True]),
        "InitialVariantWeight": st.sampled_from([0, 1.5, -1, 1e300]),
        "ServerlessConfig": st.sampled_from(
            [{"MemorySizeInMB": 1024, "MaxConcurrency": 1}, {"MemorySizeInMB": 1025, "MaxConcurrency": 1}, {}]
        ),
        "ManagedInstanceScaling": st.sampled_from([{}, {"MinInstanceCount": 2, "MaxInstanceCount": 1}]),
        "InstancePools": st.sampled_from([pools("ml.m5.large")["InstancePools"], []]),
        "RoutingConfig": st.sampled_from([{"RoutingStrategy": "RANDOM"}, {}]),
    },
)
WILD_CONFIGS = st.fixed_dictionaries(
    {
        "EndpointConfigName": st.sampled_from(["c", "C", "d", "-"]),
        "ProductionVariants": st.lists(WILD_VARIANTS | st.just(variant()) | st.just(serverless()), max_size=3),
    },
    optional={
        "ShadowProductionVariants": st.lists(WILD_VARIANTS | st.just(variant("s")), max_size=2),
        "DataCaptureConfig": st.sampled_from([CAPTURE, {}]),
        "AsyncInferenceConfig": st.sampled_from([ASYNC, {}]),
        "ExplainerConfig": st.sampled_from([{}, explainer(**BASELINE), explainer()]),
        "Tags": st.sampled_from([[], [{"Key": "k", "Value": ""}], [{"Key": "k", "Value": ""}] * 2]),
    },
)


@given(requests=st.lists(WILD_CONFIGS, max_size=6))
@settings(deadline=None)
def test_any_request_is_kept_whole_or_refused(
    requests: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but an error of ours comes out; what is kept is what was sent; what is refused leaves nothing."""
    with opened(tmp_path_factory.mktemp("store")) as control:
        add_models(control)
        for request in requests:
            before = control.everything()
            try:
                control("CreateEndpointConfig", **request)
            except ServingError as error:
                assert error.status < 500
                assert before == control.everything()
                continue
            described = control("DescribeEndpointConfig", EndpointConfigName=request["EndpointConfigName"])
            assert without(request, "Tags") == without(described, "EndpointConfigArn", "CreationTime")
