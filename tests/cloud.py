"""Unmodified boto3 against a test's server, and the objects it finds in its store."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.server import Server, script_model, variant

#: A script model that answers with a constant and what it was sent.
ANSWERS = "def transform_fn(model, body, content_type, accept):\n    return b'{word}:' + body, 'text/plain'\n"


def client(server: Server, service: str = "sagemaker", **options: Any) -> Any:
    """A boto3 client of this server, as stock code makes one; closed when the server's test ends."""
    options.setdefault("retries", {"max_attempts": 0})
    made = boto3.client(
        service,
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(**options),
    )
    server.closers.append(made.close)
    return made


def put(server: Server, uri: str, source: Path) -> str:
    """The object (or prefix) ``s3://bucket/key`` shall be a copy of ``source``."""
    target = server.data_dir / "s3" / uri.removeprefix("s3://")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return uri


def put_script(server: Server, name: str, source: str) -> str:
    """A script artifact in the bucket ``models``."""
    script_model(server.data_dir / "s3" / "models" / name, source)
    return f"s3://models/{name}"


def answers(server: Server, word: str) -> str:
    """A model that answers ``word:body``."""
    return put_script(server, word, ANSWERS.format(word=word))


def container(url: str, **more: Any) -> dict[str, Any]:
    """A ContainerDefinition."""
    return {"Image": "serving", "ModelDataUrl": url, **more}


def make_model(sagemaker: Any, name: str, *containers: Mapping[str, Any], **more: Any) -> None:
    """CreateModel, with one container or several."""
    body = {"PrimaryContainer": containers[0]} if len(containers) == 1 and not more else {"Containers": containers}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn="arn:aws:iam::123456789012:role/any", **body, **more)


def production(model: str, **more: Any) -> dict[str, Any]:
    """A production variant as AWS wants it said."""
    return variant(model, InstanceType="ml.m5.large", **more)


def make_config(sagemaker: Any, name: str, *variants: Mapping[str, Any], **more: Any) -> None:
    """CreateEndpointConfig."""
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **more)


def deploy(sagemaker: Any, name: str, url: str, **more: Any) -> dict[str, Any]:
    """Model, config and endpoint of one name; returns the endpoint once it has settled."""
    make_model(sagemaker, name, container(url))
    make_config(sagemaker, name, production(name, **more))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return settled(sagemaker, name)


def settled(sagemaker: Any, name: str, seconds: float = 60.0) -> dict[str, Any]:
    """The endpoint's description when it is in no transition: polled, as every client does."""
    end = time.monotonic() + seconds
    while True:
        described: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
        if described["EndpointStatus"] not in ("Creating", "Updating", "RollingBack", "Deleting"):
            return described
        assert time.monotonic() < end, described
        time.sleep(0.05)  # a client's polling interval


def said(runtime: Any, endpoint: str, body: bytes = b"x", **more: Any) -> str:
    """What the endpoint answers."""
    text: bytes = runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="text/plain", **more)[
        "Body"
    ].read()
    return text.decode()
