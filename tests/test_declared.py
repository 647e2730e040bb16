"""Declared endpoints: SageMaker's own bodies in a file, or a path to models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.declared import endpoints_from_path, load_endpoints
from serving.errors import ConfigError
from serving.types import EndpointSpec, ModelSpec, VariantSpec

DOCUMENT: dict[str, Any] = {
    "Models": [
        {
            "ModelName": "tabular",
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/any",
            "PrimaryContainer": {
                "Image": "xgboost",
                "ModelDataUrl": "models/churn.json",
                "Environment": {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "5"},
            },
        },
        {
            "ModelName": "family",
            "PrimaryContainer": {
                "ModelDataUrl": "s3://bucket/family/",
                "Mode": "MultiModel",
                "MultiModelConfig": {"ModelCacheSetting": "Disabled"},
            },
        },
    ],
    "EndpointConfigs": [
        {
            "EndpointConfigName": "ab",
            "ProductionVariants": [
                {"VariantName": "blue", "ModelName": "tabular", "InstanceType": "ml.m5.large"},
                {
                    "VariantName": "green",
                    "ModelName": "family",
                    "InitialInstanceCount": 2,
                    "InitialVariantWeight": 0.5,
                    "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
                },
            ],
        }
    ],
    "Endpoints": [{"EndpointName": "shop", "EndpointConfigName": "ab", "Tags": []}],
}


def declared(folder: Path, document: object) -> tuple[EndpointSpec, ...]:
    """The endpoints of a document written to a file."""
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_endpoints(path)


def changed(path: str, value: object) -> dict[str, Any]:
    """``DOCUMENT`` with the field at a dotted path set, or (``...``) left out."""
    document = copy.deepcopy(DOCUMENT)
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = document
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def test_the_bodies_become_endpoints(tmp_path: Path) -> None:
    """Defaults as SageMaker has them: weight 1.0, random routing; a relative path is meant from the file's folder."""
    tabular = ModelSpec(
        "tabular", str(tmp_path / "models/churn.json"), environment={"SAGEMAKER_MODEL_SERVER_TIMEOUT": "5"}
    )
    family = ModelSpec("family", "s3://bucket/family/", "MultiModel", cache="Disabled")
    variants = (
        VariantSpec("blue", tabular),
        VariantSpec("green", family, weight=0.5, instance_count=2, routing="LEAST_OUTSTANDING_REQUESTS"),
    )
    assert (EndpointSpec("shop", "ab", variants),) == declared(tmp_path, DOCUMENT)


def test_the_bodies_are_what_boto3_takes() -> None:
    """The example document passes AWS's own service model, so scripts and files share one vocabulary."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    calls = {"Models": "CreateModel", "EndpointConfigs": "CreateEndpointConfig", "Endpoints": "CreateEndpoint"}
    for key, call in calls.items():
        shape = model.operation_model(call).input_shape
        for body in DOCUMENT[key]:
            assert "" == botocore.validate.ParamValidator().validate(body, shape).generate_report()


WRONG: list[tuple[str, object, str]] = [
    ("Models.0.ModelName", "a b", r"Models\[0\]\.ModelName is 'a b'; expected a name"),
    ("Models.0.ModelName", "-a", "expected a name"),
    ("Models.0.ModelName", "a" * 64, "at most 63"),
    ("Models.0.ModelName", 12, "in quotes"),
    ("Models.0.ModelName", "family", "two models named 'family'"),
    ("Models.0.PrimaryContainer", ..., r"PrimaryContainer\.ModelDataUrl is missing"),
    ("Models.0.PrimaryContainer", [], "must be a mapping"),
    ("Models.0.PrimaryContainer.ModelDataUrl", "https://x/y", "s3:// or file://"),
    ("Models.0.PrimaryContainer.ModelDataUrl", "", "expected a text"),
    ("Models.0.PrimaryContainer.Mode", "Multi", "SingleModel or MultiModel"),
    ("Models.0.PrimaryContainer.ModelDataURL", "x", "did you mean 'ModelDataUrl'"),
    ("Models.0.PrimaryContainer.ModelDataSource", {}, "does not offer ModelDataSource"),
    ("Models.0.PrimaryContainer.Environment", [], "mapping of names to texts"),
    ("Models.0.PrimaryContainer.Environment", {"a-b": "x"}, "not 'a-b'"),
    ("Models.0.PrimaryContainer.Environment", {"A": 5}, "quote numbers"),
    ("Models.0.PrimaryContainer.Environment", {f"A{i}": "" for i in range(101)}, "at most 100"),
    ("Models.0.PrimaryContainer.Environment", {f"A{i}": "x" * 1024 for i in range(32)}, "32 KiB"),
    ("Models.1.PrimaryContainer.MultiModelConfig.ModelCacheSetting", "Off", "Enabled or Disabled"),
    ("Models.0.Containers", [], "does not offer inference pipelines"),
    ("Models", {}, "Models is {}; expected a list"),
    ("EndpointConfigs.0.EndpointConfigName", "a_b", "expected a name"),
    ("EndpointConfigs.0.ProductionVariants", [], "has 0 production variants"),
    ("EndpointConfigs.0.ProductionVariants.0.VariantName", "green", "two variants of ab named 'green'"),
    ("EndpointConfigs.0.ProductionVariants.0.ModelName", "tabula", "did you mean 'tabular'"),
    ("EndpointConfigs.0.ProductionVariants.0.ModelName", ..., "ModelName is missing"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", -0.1, "at least 0"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", float("nan"), "at least 0"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", float("inf"), "at least 0"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", True, "at least 0"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialInstanceCount", 0, "at least 1"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialInstanceCount", 1.5, "at least 1"),
    ("EndpointConfigs.0.ProductionVariants.0.RoutingConfig", {"RoutingStrategy": "BEST"}, "RANDOM or LEAST"),
    ("EndpointConfigs.0.ProductionVariants.0.ServerlessConfig", {}, "does not offer serverless variants"),
    ("EndpointConfigs.0.ProductionVariants.0.Weight", 1, "has no field 'Weight'"),
    ("EndpointConfigs.0.ProductionVariants.0", "blue", r"ProductionVariants\[0\] must be a mapping"),
    ("EndpointConfigs.0.DataCaptureConfig", {}, "does not offer data capture"),
    ("Endpoints.0.EndpointConfigName", "abc", "did you mean 'ab'"),
    ("Endpoints.0.EndpointName", "", "expected a name"),
    ("Endpoint", [], "The file has no field 'Endpoint'; did you mean 'Endpoints'"),
    ("ScalableTargets", [], "does not offer scaling policies"),
    ("ScalingPolicies", [], "does not offer scaling policies"),
]


@pytest.mark.parametrize(("path", "value", "text"), WRONG, ids=[f"{path}={value!r:.20}" for path, value, _ in WRONG])
def test_a_wrong_field_is_named(tmp_path: Path, path: str, value: object, text: str) -> None:
    """Where it stands, what it holds, what was expected."""
    with pytest.raises(ConfigError, match=text):
        declared(tmp_path, changed(path, value))


def test_at_most_ten_variants(tmp_path: Path) -> None:
    """As in SageMaker."""
    variants = [{"VariantName": f"v{i}", "ModelName": "tabular"} for i in range(11)]
    with pytest.raises(ConfigError, match="has 11 production variants"):
        declared(tmp_path, changed("EndpointConfigs.0.ProductionVariants", variants))
    assert 10 == len(declared(tmp_path, changed("EndpointConfigs.0.ProductionVariants", variants[:10]))[0].variants)


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="ascii"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Models", "Endpoints", "ModelName", "PrimaryContainer", "x"]), inner, max_size=3
        )
    ),
)


@given(value=WILD, path=st.sampled_from([path for path, value, _ in WRONG if value is not ...]))
def test_any_value_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: object, path: str
) -> None:
    """A file of an operator's may be wrong in every way, and always gets a sentence."""
    try:
        result = declared(tmp_path_factory.mktemp("wild"), changed(path, value))
    except ConfigError as error:
        assert "\n" not in error.message
    else:
        assert isinstance(result, tuple)


def test_nothing_declared_is_an_empty_server(tmp_path: Path) -> None:
    """Which is legal: endpoints may come later."""
    assert () == declared(tmp_path, {})


# --- a path to models -----------------------------------------------------------------------------------------------


def is_artifact(path: Path) -> bool:
    """A toy rule: a file that ends in .onnx, or a folder that has model.onnx."""
    return path.suffix == ".onnx" or (path / "model.onnx").exists()


def tree(folder: Path, *files: str) -> Path:
    """A folder of empty files."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_one_artifact_is_served_alone(tmp_path: Path) -> None:
    """As endpoint ``default``, whether it is a file or a folder."""
    for path in (tree(tmp_path, "a.onnx") / "a.onnx", tree(tmp_path / "b", "model.onnx")):
        (endpoint,) = endpoints_from_path(path, is_artifact, workers=3)
        assert ("default", "SingleModel", str(path), 3) == (
            endpoint.name,
            endpoint.variants[0].model.mode,
            endpoint.variants[0].model.model_data_url,
            endpoint.variants[0].instance_count,
        )


@pytest.mark.parametrize("name", ["a.onnx", "team/a.onnx", "x/y/a.onnx", "team/a/model.onnx"])
def test_a_folder_of_artifacts_is_a_multi_model_endpoint(tmp_path: Path, name: str) -> None:
    """Also when they lie in subfolders."""
    (endpoint,) = endpoints_from_path(tree(tmp_path, name, "README.md"), is_artifact)
    assert "MultiModel" == endpoint.variants[0].model.mode


@pytest.mark.parametrize("files", [(), ("README.md",), (".hidden/a.onnx",), ("1/2/3/4/a.onnx",)])
def test_a_folder_without_artifacts_is_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    """Rather than served as an endpoint that answers nothing."""
    with pytest.raises(ConfigError, match="no model this server knows"):
        endpoints_from_path(tree(tmp_path, *files), is_artifact)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match="There is no file or folder"):
        endpoints_from_path(tmp_path / "none", is_artifact)
