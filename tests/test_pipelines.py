"""Facts about models of several containers: inference pipelines, and containers called one by one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests import gallery
from tests.cloud import client, container, make_config, make_model, production, put, put_script, said, settled
from tests.server import Server, serve

#: Answers in a type of its own, and says what it was asked for and in which type.
STAGE = (
    "def transform_fn(model, body, content_type, accept):\n"
    "    text = body if isinstance(body, str) else body.decode()\n"
    "    return f'{{text}}|{name} got {{content_type}} for {{accept}}'.encode(), 'text/{name}'\n"
)
FAILING = (
    "def transform_fn(model, body, content_type, accept):\n"
    "    if body == b'bad':\n"
    "        raise ValueError('not this one')\n"
    "    return body, content_type\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An empty server."""
    with serve(tmp_path, "--allow-code") as started:
        yield started


def deploy(server: Server, *containers: dict[str, Any], mode: str = "Serial", endpoint: str = "e") -> Any:
    """An endpoint of these containers; returns the runtime client."""
    sagemaker = client(server)
    make_model(sagemaker, endpoint, *containers, InferenceExecutionConfig={"Mode": mode})
    make_config(sagemaker, endpoint, production(endpoint))
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    described = settled(sagemaker, endpoint)
    assert "InService" == described["EndpointStatus"], described
    return client(server, "sagemaker-runtime")


def stage(server: Server, name: str, **more: Any) -> dict[str, Any]:
    """A container that tells of its request."""
    return container(put_script(server, name, STAGE.format(name=name)), **more)


def test_each_answer_and_its_type_are_the_next_request(server: Server) -> None:
    """The client's Accept goes to the last container only, whose answer the client gets."""
    runtime = deploy(server, stage(server, "one"), stage(server, "two"), stage(server, "three"))
    answer = runtime.invoke_endpoint(EndpointName="e", Body=b"x", ContentType="text/first", Accept="text/wanted")
    assert "text/three" == answer["ContentType"]
    assert "AllTraffic" == answer["InvokedProductionVariant"]
    first, one, two, three = answer["Body"].read().decode().split("|")
    assert ("x", "one got text/first for */*") == (first, one)
    assert ("two got text/one for */*", "three got text/two for text/wanted") == (two, three)


def test_a_failing_container_ends_the_chain_and_is_named(server: Server) -> None:
    """ModelError with its host name; the containers behind it are not called."""
    runtime = deploy(
        server,
        stage(server, "one", ContainerHostname="first"),
        container(put_script(server, "strict", FAILING), ContainerHostname="strict-one"),
    )
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="e", Body=b"\xff", ContentType="text/plain")
    assert "ModelError" == caught.value.response["Error"]["Code"]
    assert "from first with message" in caught.value.response["Error"]["Message"]
    assert said(runtime, "e", b"fine").startswith("fine|")


def test_a_container_whose_worker_is_killed_is_replaced_and_its_call_retried(server: Server) -> None:
    """The others are not touched; the next call is answered."""
    runtime = deploy(server, stage(server, "one"), stage(server, "two"))
    before = {worker["Pid"] for worker in server.workers("e")}
    os.kill(min(before), signal.SIGKILL)
    assert said(runtime, "e").startswith("x|one")
    server.eventually(lambda: len([one for one in server.workers("e") if one["State"] == "READY"]) == 2)
    assert 1 == len(before & {worker["Pid"] for worker in server.workers("e")})


def test_containers_in_direct_mode_are_called_by_host_name(server: Server) -> None:
    """And only so: a missing or unknown name is the caller's mistake."""
    runtime = deploy(
        server,
        stage(server, "one", ContainerHostname="left"),
        stage(server, "two", ContainerHostname="right"),
        mode="Direct",
    )
    assert "x|two got text/plain for */*" == said(runtime, "e", TargetContainerHostname="right")
    for wrong, words in (({}, "name one with TargetContainerHostname"), ({"TargetContainerHostname": "up"}, "up")):
        with pytest.raises(ClientError, match=words) as caught:
            said(runtime, "e", **wrong)
        assert "ValidationError" == caught.value.response["Error"]["Code"]


def test_a_host_name_is_refused_where_nothing_is_called_directly(server: Server) -> None:
    """A series of containers, and a single one."""
    runtime = deploy(server, stage(server, "one"), stage(server, "two"))
    deploy(server, stage(server, "three"), stage(server, "four"), endpoint="other")
    for endpoint in ("e", "other"):
        with pytest.raises(ClientError, match="hostname") as caught:
            said(runtime, endpoint, TargetContainerHostname="container-1")
        assert "ValidationError" == caught.value.response["Error"]["Code"]


def test_a_pipeline_counts_as_one_call_and_its_containers_by_themselves(server: Server) -> None:
    """Invocations of the variant, and of each container beside it; the instance count is that of complete chains."""
    runtime = deploy(server, stage(server, "one"), stage(server, "two"))
    said(runtime, "e")
    server.eventually(lambda: server.metric("sagemaker_invocations_total", endpoint="e", variant="AllTraffic") == 1)
    described = client(server).describe_endpoint(EndpointName="e")
    assert 1 == described["ProductionVariants"][0]["CurrentInstanceCount"]


def test_preprocessing_and_a_real_model_answer_as_the_model_alone(server: Server) -> None:
    """A script that scales nothing, then the XGBoost model: the same predictions, from csv through csv."""
    sample = gallery.sample("breast-cancer-xgboost", "batch")
    url = put(server, "s3://models/trees", gallery.artifacts("breast-cancer-xgboost") / "breast-cancer-xgboost")
    passing = "def transform_fn(model, body, content_type, accept):\n    return body, content_type\n"
    runtime = deploy(server, container(put_script(server, "pass", passing)), container(url))
    answer = runtime.invoke_endpoint(EndpointName="e", Body=sample.body, ContentType=sample.content_type)
    (expected,) = sample.expected.values()
    got = np.array(answer["Body"].read().decode().replace("\n", ",").strip(",").split(","), float)
    np.testing.assert_allclose(np.ravel(expected), got, atol=max(sample.tolerance, 1e-6))
