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

from serving.declared import (
    Document,
    as_any_client_sends,
    document_from_path,
    load_document,
    local_path,
    named_paths,
    shown,
    without_effect,
)
from serving.errors import ConfigError

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


def declared(folder: Path, document: object) -> Document:
    """A document that was written to a file."""
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_document(path)


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


def test_the_bodies_are_taken_as_they_are(tmp_path: Path) -> None:
    """Without defaults or order of their own; a relative path is meant from the file's folder, a URL is left alone."""
    document = declared(tmp_path, DOCUMENT)
    expected = changed("Models.0.PrimaryContainer.ModelDataUrl", str(tmp_path / "models/churn.json"))
    assert [list(bodies) for bodies in expected.values()] == [
        list(bodies) for bodies in (document.models, document.configs, document.endpoints)
    ]


def test_a_prefix_stays_one(tmp_path: Path) -> None:
    """The slash at a folder's end is part of its name in an object store."""
    document = declared(tmp_path, changed("Models.1.PrimaryContainer.ModelDataUrl", "family/"))
    assert f"{tmp_path}/family/" == document.models[1]["PrimaryContainer"]["ModelDataUrl"]


def test_the_bodies_are_what_boto3_takes() -> None:
    """The example document passes AWS's own service model, so scripts and files share one vocabulary."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    calls = {"Models": "CreateModel", "EndpointConfigs": "CreateEndpointConfig", "Endpoints": "CreateEndpoint"}
    for key, call in calls.items():
        shape = model.operation_model(call).input_shape
        for body in DOCUMENT[key]:
            assert "" == botocore.validate.ParamValidator().validate(body, shape).generate_report()


WRONG: list[tuple[str, object, str]] = [
    ("Models.0.ModelName", "a b", r"Models\[0\]\.ModelName is 'a b'; it must satisfy regular expression pattern"),
    ("Models.0.ModelName", "-a", "regular expression pattern"),
    ("Models.0.ModelName", "a" * 64, "length less than or equal to 63"),
    ("Models.0.ModelName", 12, "it must be a string"),
    ("Models.0.ModelName", ..., r"Models\[0\]\.ModelName is missing"),
    ("Models.0.ModelName", "family", "two models named 'family'"),
    ("Models.0.ModelName", "FAMILY", "two models named 'family'"),
    ("Models.0.PrimaryContainer", [], r"Models\[0\]\.PrimaryContainer is '\[\]'; it must be a structure"),
    ("Models.0.PrimaryContainer.ModelDataUrl", "https://x/y", "s3:// or file://"),
    ("Models.0.PrimaryContainer.ModelDataUrl", "", "it must be a path or URL"),
    ("Models.0.PrimaryContainer.Mode", "Multi", "SingleModel, MultiModel"),
    (
        "Models.0.PrimaryContainer.ModelDataURL",
        "x",
        r"Models\[0\]\.PrimaryContainer has no .*did you mean 'ModelDataUrl'",
    ),
    ("Models.0.PrimaryContainer.Environment", [], r"Environment is '\[\]'; it must be a map"),
    ("Models.0.PrimaryContainer.Environment", {"a-b": "x"}, r"\[a-zA-Z_\]"),
    ("Models.0.PrimaryContainer.Environment", {"A": 5}, "it must be a string"),
    ("Models.0.PrimaryContainer.Environment", {f"A{i}": "" for i in range(101)}, "less than or equal to 100"),
    ("Models.1.PrimaryContainer.MultiModelConfig.ModelCacheSetting", "Off", "Enabled, Disabled"),
    ("Models.0.Container", [], "did you mean 'Containers'"),
    ("Models.0", "tabular", r"Models\[0\] must be a mapping"),
    ("Models", {}, "Models is {}; expected a list"),
    ("EndpointConfigs.0.EndpointConfigName", "a_b", r"EndpointConfigs\[0\]\.EndpointConfigName is 'a_b'"),
    ("EndpointConfigs.0.ProductionVariants", [], "length greater than or equal to 1"),
    ("EndpointConfigs.0.ProductionVariants.1.ModelName", "a b", r"\[0\]\.ProductionVariants\[1\]\.ModelName is 'a b'"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", -0.1, "greater than or equal to 0"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", float("nan"), "must be a number"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", float("inf"), "must be a number"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialVariantWeight", True, "must be a number"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialInstanceCount", 0, "greater than or equal to 1"),
    ("EndpointConfigs.0.ProductionVariants.0.InitialInstanceCount", 1.5, "must be an integer"),
    ("EndpointConfigs.0.ProductionVariants.0.RoutingConfig", {"RoutingStrategy": "BEST"}, "RANDOM"),
    ("EndpointConfigs.0.ProductionVariants.0.Weight", 1, "has no field 'Weight'"),
    ("EndpointConfigs.0.ProductionVariants.0", "blue", r"ProductionVariants\[0\] is 'blue'; it must be a structure"),
    ("EndpointConfigs.0.DataCaptureConfig", {"Sampling": 1}, r"EndpointConfigs\[0\]\.DataCaptureConfig has no field"),
    ("Endpoints.0.EndpointName", "", "Endpoints"),
    ("Endpoint", [], "The file has no field 'Endpoint'; did you mean 'Endpoints'"),
    ("ScalableTargets", [{"ResourceId": "e", "MinCapacity": "one"}], r"ScalableTargets\[0\]\.MinCapacity"),
    ("ScalingPolicies", [{"ResourceId": "e"}], r"ScalingPolicies\[0\]\.PolicyName is missing"),
    ("ScheduledActions", {}, "ScheduledActions is {}; expected a list"),
    ("Alarms", [{"AlarmName": "a", "Treshold": 1}], "has no field 'Treshold'; did you mean 'Threshold'"),
    ("ScalableTargets", [{"ResourceId": "e"}, {"ResourceId": "E"}], "two of scalable target of E"),
]


@pytest.mark.parametrize(("path", "value", "text"), WRONG, ids=[f"{path}={value!r:.20}" for path, value, _ in WRONG])
def test_a_wrong_field_is_named(tmp_path: Path, path: str, value: object, text: str) -> None:
    """Where it stands, what it holds, what was expected."""
    with pytest.raises(ConfigError, match=text):
        declared(tmp_path, changed(path, value))


def test_at_most_ten_variants(tmp_path: Path) -> None:
    """As in SageMaker."""
    variants = [{"VariantName": f"v{i}", "ModelName": "tabular"} for i in range(11)]
    with pytest.raises(ConfigError, match=r"ProductionVariants is .*less than or equal to 10"):
        declared(tmp_path, changed("EndpointConfigs.0.ProductionVariants", variants))
    ten = declared(tmp_path, changed("EndpointConfigs.0.ProductionVariants", variants[:10]))
    assert 10 == len(ten.configs[0]["ProductionVariants"])


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
        assert isinstance(result, Document)


def test_nothing_declared_is_an_empty_server(tmp_path: Path) -> None:
    """Which is legal: endpoints may come later."""
    assert Document() == declared(tmp_path, {})


def test_what_changes_nothing_is_said() -> None:
    """Fields that are kept and returned without effect, wherever they stand; a variable of that name is none."""
    document = Document(
        models=({"ModelName": "m", "PrimaryContainer": {"Environment": {"InstancePools": "x"}}},),
        configs=({"EndpointConfigName": "c", "CoreDumpConfig": {}, "ProductionVariants": [{"InstancePools": []}]},),
    )
    assert [
        "endpoint config c: CoreDumpConfig has no effect in this version: no core dumps are written.",
        "endpoint config c: ProductionVariants[0].InstancePools has no effect in this version: all workers are alike.",
    ] == list(without_effect(document))


def test_declared_paths_are_the_operators() -> None:
    """A server may read where the operator's own file points; buckets are the store's affair."""
    urls = ["/models/a", "file:///models/b", "s3://bucket/c"]
    models = tuple({"ModelName": url, "PrimaryContainer": {"ModelDataUrl": url}} for url in urls)
    assert ("/models/a", "file:///models/b") == named_paths(Document(models))


def test_any_client_says_what_an_operator_may_leave_out(tmp_path: Path) -> None:
    """Paths as URLs, whatever is in them, and instances; what is said is left alone."""
    document = as_any_client_sends(
        declared(tmp_path, changed("Models.0.PrimaryContainer.ModelDataUrl", "a b%20/ü.json"))
    )
    url = document.models[0]["PrimaryContainer"]["ModelDataUrl"]
    assert url.startswith("file:///")
    assert str(tmp_path / "a b%20/ü.json") == local_path(url)
    assert [("ml.m5.large", 1), ("ml.m5.large", 2)] == [
        (variant["InstanceType"], variant["InitialInstanceCount"])
        for variant in document.configs[0]["ProductionVariants"]
    ]


def test_endpoints_are_shown_in_a_line(tmp_path: Path) -> None:
    """Variants, what each serves, with how many workers; and whether a call has to name a model."""
    assert [("shop", "blue: churn.json, 1 worker, green: models of s3://bucket/family/, 2 workers", True)] == list(
        shown(declared(tmp_path, DOCUMENT))
    )


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
        document = document_from_path(path, is_artifact, workers=3)
        assert {"ModelDataUrl": str(path), "Mode": "SingleModel"} == document.models[0]["PrimaryContainer"]
        assert ("default", 3) == (
            document.endpoints[0]["EndpointName"],
            document.configs[0]["ProductionVariants"][0]["InitialInstanceCount"],
        )


@pytest.mark.parametrize("name", ["a.onnx", "team/a.onnx", "x/y/a.onnx", "team/a/model.onnx"])
def test_a_folder_of_artifacts_is_a_multi_model_endpoint(tmp_path: Path, name: str) -> None:
    """Also when they lie in subfolders."""
    document = document_from_path(tree(tmp_path, name, "README.md"), is_artifact)
    assert "MultiModel" == document.models[0]["PrimaryContainer"]["Mode"]


@pytest.mark.parametrize("files", [(), ("README.md",), (".hidden/a.onnx",), ("1/2/3/4/a.onnx",)])
def test_a_folder_without_artifacts_is_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    """Rather than served as an endpoint that answers nothing."""
    with pytest.raises(ConfigError, match="no model this server knows"):
        document_from_path(tree(tmp_path, *files), is_artifact)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match="There is no file or folder"):
        document_from_path(tmp_path / "none", is_artifact)
