"""Facts about inference components: copies of several models on one endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import answers, client, container, make_config, make_model, production, put_script, said, settled
from tests.server import Server, serve

ROLE = "arn:aws:iam::123456789012:role/any"
NEEDS = {"MinMemoryRequiredInMb": 128, "NumberOfCpuCoresRequired": 1.0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with an endpoint ``e`` whose variant has no model."""
    with serve(tmp_path, "--allow-code") as started:
        sagemaker = client(started)
        bare = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        make_config(sagemaker, "c", bare, ExecutionRoleArn=ROLE)
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        assert "InService" == settled(sagemaker, "e")["EndpointStatus"]
        yield started


@pytest.fixture
def sagemaker(server: Server) -> Any:
    """Its control plane."""
    return client(server)


@pytest.fixture
def runtime(server: Server) -> Any:
    """Its runtime."""
    return client(server, "sagemaker-runtime")


def create(server: Server, sagemaker: Any, name: str, url: str, copies: int = 1) -> dict[str, Any]:
    """A component; returns its description."""
    sagemaker.create_inference_component(
        InferenceComponentName=name,
        EndpointName="e",
        VariantName="AllTraffic",
        Specification={"Container": {"Image": "any", "ArtifactUrl": url}, "ComputeResourceRequirements": NEEDS},
        RuntimeConfig={"CopyCount": copies},
    )
    return described(server, sagemaker, name)


def described(server: Server, sagemaker: Any, name: str) -> dict[str, Any]:
    """The component's description when it has settled."""
    found: dict[str, Any] = {}

    def is_settled() -> bool:
        found.update(sagemaker.describe_inference_component(InferenceComponentName=name))
        return not found["InferenceComponentStatus"].endswith("ing")

    server.eventually(is_settled)
    return found


def test_components_share_an_endpoint_and_answer_to_their_names(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Each has copies of its own; the reply names the variant."""
    one = create(server, sagemaker, "one", answers(server, "one"), copies=2)
    assert ("InService", 2) == (one["InferenceComponentStatus"], one["RuntimeConfig"]["CurrentCopyCount"])
    make_model(sagemaker, "m", container(answers(server, "two")))
    sagemaker.create_inference_component(
        InferenceComponentName="two",
        EndpointName="e",
        VariantName="AllTraffic",
        Specification={"ModelName": "m", "ComputeResourceRequirements": NEEDS},
        RuntimeConfig={"CopyCount": 1},
    )
    described(server, sagemaker, "two")
    assert ["one:x", "two:x"] == [said(runtime, "e", InferenceComponentName=name) for name in ("one", "two")]
    listed = sagemaker.list_inference_components(EndpointNameEquals="e", SortBy="Name", SortOrder="Ascending")
    assert ["one", "two"] == [one["InferenceComponentName"] for one in listed["InferenceComponents"]]


@pytest.mark.parametrize(
    ("named", "words"),
    [({}, "Inference Component Name header is required"), ({"InferenceComponentName": "nobody"}, "nobody")],
)
def test_a_call_must_name_a_component_that_is_there(runtime: Any, named: dict[str, str], words: str) -> None:
    """AWS's words for a missing header; a sentence for an unknown name."""
    with pytest.raises(ClientError, match=words) as caught:
        said(runtime, "e", **named)
    assert "ValidationError" == caught.value.response["Error"]["Code"]


def test_a_component_is_refused_where_a_variant_has_its_own_model(server: Server, sagemaker: Any, runtime: Any) -> None:
    """By the control plane and by the runtime."""
    make_model(sagemaker, "m", container(answers(server, "one")))
    make_config(sagemaker, "own", production("m"))
    sagemaker.create_endpoint(EndpointName="own", EndpointConfigName="own")
    settled(sagemaker, "own")
    with pytest.raises(ClientError, match="does not hold inference components"):
        sagemaker.create_inference_component(
            InferenceComponentName="x",
            EndpointName="own",
            VariantName="AllTraffic",
            Specification={"ModelName": "m", "ComputeResourceRequirements": NEEDS},
            RuntimeConfig={"CopyCount": 1},
        )
    with pytest.raises(ClientError, match="Inference Component Name header is not allowed"):
        said(runtime, "own", InferenceComponentName="x")


def test_copies_follow_the_wanted_count_down_to_none(server: Server, sagemaker: Any, runtime: Any) -> None:
    """With none, the call is refused in AWS's words; copies can come back."""
    create(server, sagemaker, "one", answers(server, "one"))
    for count in (2, 0):
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="one", DesiredRuntimeConfig={"CopyCount": count}
        )
        found = described(server, sagemaker, "one")["RuntimeConfig"]
        assert (count, count) == (found["DesiredCopyCount"], found["CurrentCopyCount"])
    with pytest.raises(ClientError, match="Inference Component has no capacity"):
        said(runtime, "e", InferenceComponentName="one")
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="one", DesiredRuntimeConfig={"CopyCount": 1}
    )
    assert "one:x" == said(runtime, "e", InferenceComponentName="one")


def test_a_new_specification_replaces_the_old_or_leaves_it(server: Server, sagemaker: Any, runtime: Any) -> None:
    """As an endpoint's update does."""
    create(server, sagemaker, "one", answers(server, "one"))

    def update(url: str) -> dict[str, Any]:
        sagemaker.update_inference_component(
            InferenceComponentName="one",
            Specification={"Container": {"Image": "any", "ArtifactUrl": url}, "ComputeResourceRequirements": NEEDS},
        )
        return described(server, sagemaker, "one")

    assert "InService" == update(answers(server, "two"))["InferenceComponentStatus"]
    assert "two:x" == said(runtime, "e", InferenceComponentName="one")
    broken = update(put_script(server, "broken", "raise RuntimeError('no weights')\n"))
    assert "no weights" in broken["FailureReason"]
    assert "two:x" == said(runtime, "e", InferenceComponentName="one")


def test_an_endpoint_goes_after_its_components(server: Server, sagemaker: Any) -> None:
    """Not before; and a deleted component is gone."""
    create(server, sagemaker, "one", answers(server, "one"))
    with pytest.raises(ClientError, match="delete those first"):
        sagemaker.delete_endpoint(EndpointName="e")
    sagemaker.delete_inference_component(InferenceComponentName="one")
    with pytest.raises(ClientError, match="Could not find inference component"):
        sagemaker.describe_inference_component(InferenceComponentName="one")
    sagemaker.delete_endpoint(EndpointName="e")
    assert {} == server.endpoints()


def test_components_come_back_after_kill_9(tmp_path: Path) -> None:
    """With their copies."""
    with serve(tmp_path, "--allow-code") as server:
        sagemaker = client(server)
        bare = {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        make_config(sagemaker, "c", bare, ExecutionRoleArn=ROLE)
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        create(server, sagemaker, "one", answers(server, "one"), copies=2)
        server.process.kill()
        server.process.wait()
    with serve(tmp_path, "--allow-code") as server:
        assert "one:x" == said(client(server, "sagemaker-runtime"), "e", InferenceComponentName="one")
        found = client(server).describe_inference_component(InferenceComponentName="one")
        assert ("InService", 2) == (found["InferenceComponentStatus"], found["RuntimeConfig"]["CurrentCopyCount"])
