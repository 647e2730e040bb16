"""A server as AWS's own client sees it: unmodified boto3, and the few bodies that a bench needs."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import boto3

from loadtests.processes import Running

ROLE = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
_BUCKET = "bench"
_LOOK_SECONDS = 0.005


def model_body(name: str) -> dict[str, Any]:
    """CreateModel of the artifact that ``place`` put there under this name."""
    url = f"s3://{_BUCKET}/{name}"
    container = {"Image": "xgboost:1", "ModelDataUrl": url, "Environment": {"STAGE": "bench", "OWNER": "load tests"}}
    return {"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": container}


def config_body(name: str, model: str, variant: str = "AllTraffic") -> dict[str, Any]:
    """CreateEndpointConfig of one variant with one instance."""
    one = {"VariantName": variant, "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    return {"EndpointConfigName": name, "ProductionVariants": [one]}


def place(data: Path, name: str, artifact: Path) -> None:
    """Put an artifact, a file or the only file of a folder, where ``model_body(name)`` finds it."""
    file = next(artifact.iterdir()) if artifact.is_dir() else artifact
    there = data / "s3" / _BUCKET / name
    there.mkdir(parents=True)
    shutil.copy(file, there / f"model{file.suffix}")


class Cloud:
    """The clients of one server."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self.sagemaker = self._client("sagemaker")
        self.runtime = self._client("sagemaker-runtime")

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self._server.port}",
            region_name="us-east-1",
            aws_access_key_id="bench",
            aws_secret_access_key="bench",
        )

    def model(self, name: str, variant: str = "AllTraffic") -> None:
        """A model, and an endpoint config of the same name that has it for its only variant."""
        self.sagemaker.create_model(**model_body(name))
        self.sagemaker.create_endpoint_config(**config_body(name, name, variant))

    def create(self, endpoint: str, config: str) -> float:
        """Create an endpoint; seconds from the call until DescribeEndpoint says InService."""
        began = time.perf_counter()
        self.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
        self.in_service(endpoint)
        return time.perf_counter() - began

    def update(self, endpoint: str, config: str) -> float:
        """Update an endpoint; seconds from the call until it is InService with the new config."""
        began = time.perf_counter()
        self.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
        if (found := self.in_service(endpoint)["EndpointConfigName"]) != config:
            raise RuntimeError(f"{endpoint} is InService with {found!r} after an update to {config!r}")
        return time.perf_counter() - began

    def in_service(self, endpoint: str, seconds: float = 30.0) -> dict[str, Any]:
        """Describe an endpoint until it is InService. Raises ``RuntimeError`` when it failed, or is not in time."""
        limit = time.monotonic() + seconds
        while True:
            described: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=endpoint)
            status = described["EndpointStatus"]
            if status == "InService":
                return described
            if status not in ("Creating", "Updating") or time.monotonic() > limit:
                raise RuntimeError(f"{endpoint} is {status}: {described.get('FailureReason', 'after its time')}")
            self._server.look_again(_LOOK_SECONDS)

    def sent_headers(self, endpoint: str, body: bytes, content_type: str) -> dict[str, str]:
        """The headers boto3 sends with an InvokeEndpoint call, but for those of the connection."""
        seen: dict[str, str] = {}

        def look(request: Any, **_: Any) -> None:
            seen.update(
                {
                    key: value.decode() if isinstance(value, bytes) else str(value)
                    for key, value in request.headers.items()
                    if key.lower() not in ("host", "content-length", "connection")
                }
            )

        with contextlib.ExitStack() as stack:
            event = "before-send.sagemaker-runtime.InvokeEndpoint"
            self.runtime.meta.events.register(event, look)
            stack.callback(self.runtime.meta.events.unregister, event, look)
            self.runtime.invoke_endpoint(EndpointName=endpoint, ContentType=content_type, Body=body)
        return seen
