"""Facts about serverless endpoints: calls bring workers, up to a limit; without calls there are none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import answers, client, container, make_config, make_model, put_script, said, settled
from tests.server import Server, serve

#: A model that answers once a file of the call's name is there, and says who it was.
WAITS = """
import os, pathlib, time

def transform_fn(model, body, content_type, accept):
    here = pathlib.Path(body.decode())
    (here.parent / (here.name + "-began")).touch()
    while not here.exists():
        time.sleep(0.01)  # polls for the test's word
    return str(os.getpid()), 'text/plain'
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose serverless variants are idle after a second."""
    settings = {"SERVING_SERVERLESS_IDLE_SECONDS": "1"}
    with serve(tmp_path_factory.mktemp("serverless"), "--allow-code", environment=settings) as started:
        yield started


@pytest.fixture(scope="module")
def sagemaker(server: Server) -> Any:
    """Its control plane."""
    return client(server)


@pytest.fixture(scope="module")
def runtime(server: Server) -> Any:
    """Its runtime."""
    return client(server, "sagemaker-runtime", max_pool_connections=20)


def serverless(model: str, most: int = 2, memory: int = 1024, **more: Any) -> dict[str, Any]:
    """A serverless variant."""
    config = {"MemorySizeInMB": memory, "MaxConcurrency": most, **more}
    return {"VariantName": "AllTraffic", "ModelName": model, "ServerlessConfig": config}


def deploy(sagemaker: Any, name: str, url: str, **more: Any) -> dict[str, Any]:
    """A serverless endpoint; returns its description once it has settled."""
    make_model(sagemaker, name, container(url))
    make_config(sagemaker, name, serverless(name, **more))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return settled(sagemaker, name)


def ready(server: Server, endpoint: str) -> int:
    """Its workers that answer."""
    return sum(worker["State"] == "READY" for worker in server.workers(endpoint))


def code(error: ClientError) -> tuple[str, int]:
    """An error's code and status."""
    return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_idle_endpoint_has_no_worker_and_a_call_brings_one(server: Server, sagemaker: Any, runtime: Any) -> None:
    """The call waits for it, and is answered."""
    described = deploy(sagemaker, "comes", answers(server, "comes"))
    variant = described["ProductionVariants"][0]
    assert {"MemorySizeInMB": 1024, "MaxConcurrency": 2} == variant["CurrentServerlessConfig"]
    assert "CurrentInstanceCount" not in variant
    server.eventually(lambda: not server.workers("comes"))
    assert "InService" == sagemaker.describe_endpoint(EndpointName="comes")["EndpointStatus"]
    assert "comes:x" == said(runtime, "comes")
    assert 1 == ready(server, "comes")
    assert 1 == server.metric("sagemaker_model_setup_seconds_count", endpoint="comes")


def test_each_call_has_a_worker_of_its_own_and_one_too_many_is_refused(
    server: Server, sagemaker: Any, runtime: Any, tmp_path: Path
) -> None:
    """MaxConcurrency workers at most; the call beyond is throttled at once, and a place that is free is taken."""
    deploy(sagemaker, "waits", put_script(server, "waits", WAITS), most=2)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(said, runtime, "waits", str(tmp_path / name).encode()) for name in ("a", "b")]
        server.eventually(lambda: all((tmp_path / f"{name}-began").exists() for name in ("a", "b")))
        with pytest.raises(ClientError, match="MaxConcurrency") as caught:
            said(runtime, "waits", str(tmp_path / "c").encode())
        assert ("ThrottlingException", 429) == code(caught.value)
        for name in ("a", "b", "c"):
            (tmp_path / name).touch()
        assert 2 == len({call.result() for call in calls})
    said(runtime, "waits", str(tmp_path / "c").encode())


def test_provisioned_workers_stay_and_follow_their_number(server: Server, sagemaker: Any) -> None:
    """Without calls there are as many as are provisioned, also after a change of that."""
    deploy(sagemaker, "stays", answers(server, "stays"), most=3, ProvisionedConcurrency=2)
    assert 2 == ready(server, "stays")
    for count in (3, 1):
        change = {"ServerlessUpdateConfig": {"MaxConcurrency": 3, "ProvisionedConcurrency": count}}
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="stays", DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", **change}]
        )
        described = settled(sagemaker, "stays")["ProductionVariants"][0]
        assert count == described["CurrentServerlessConfig"]["ProvisionedConcurrency"]
        server.eventually(lambda count=count: count == ready(server, "stays"))  # type: ignore[misc]


def test_what_is_provisioned_is_scaled(server: Server, sagemaker: Any) -> None:
    """A scheduled action, or a minimum, sets ProvisionedConcurrency; workers follow."""
    deploy(sagemaker, "scaled", answers(server, "scaled"), most=3)
    scaling = client(server, "application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/scaled/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency",
    }
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=3)
    server.eventually(lambda: 2 == ready(server, "scaled"))
    described = settled(sagemaker, "scaled")["ProductionVariants"][0]
    assert {"MemorySizeInMB": 1024, "MaxConcurrency": 3, "ProvisionedConcurrency": 2} == described[
        "CurrentServerlessConfig"
    ]
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=1)
    server.eventually(lambda: 1 == ready(server, "scaled"))


def test_a_body_above_four_megabytes_is_refused(server: Server, sagemaker: Any, runtime: Any) -> None:
    """Though other endpoints take six."""
    deploy(sagemaker, "small", answers(server, "small"))
    assert 4 * 2**20 + len("small:") == len(said(runtime, "small", b"x" * 4 * 2**20))
    with pytest.raises(ClientError, match="4194304 bytes") as caught:
        said(runtime, "small", b"x" * (4 * 2**20 + 1))
    assert ("ValidationError", 400) == code(caught.value)


def test_a_model_that_wants_more_memory_than_it_has_fails_as_if_it_had_been_ended(
    server: Server, sagemaker: Any, runtime: Any
) -> None:
    """MemorySizeInMB is the limit; the endpoint goes on."""
    takes = (
        "def transform_fn(model, body, content_type, accept):\n    return str(len(bytes(int(body)))), 'text/plain'\n"
    )
    deploy(sagemaker, "takes", put_script(server, "takes", takes))
    with pytest.raises(ClientError) as caught:
        said(runtime, "takes", str(2 * 2**30).encode())
    assert ("ModelError", 424) == code(caught.value)
    assert 500 == caught.value.response["OriginalStatusCode"]
    assert "1048576" == said(runtime, "takes", b"1048576")


def test_a_model_that_cannot_load_fails_the_endpoint_before_its_first_call(server: Server, sagemaker: Any) -> None:
    """It comes up with a worker first, and then has none."""
    described = deploy(sagemaker, "broken", put_script(server, "broken", "raise RuntimeError('no weights')\n"))
    assert "Failed" == described["EndpointStatus"]
    assert "no weights" in described["FailureReason"]
