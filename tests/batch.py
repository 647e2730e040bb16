"""Transform jobs against a test's server, by unmodified boto3."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import cloud
from tests.server import Server, script_model
from tests.toys import write_sum_model

#: What a line asks of the script model: ``fail`` raises, ``die`` ends the process, ``once PATH`` raises the first time
#: (until there is a file), ``wait PATH`` waits until there is a file. It answers each line with itself and ``!``, and
#: notes how many lines each call had.
LINES = """
import os, pathlib, signal, time

def transform_fn(model, body, content_type, accept, context):
    lines = (body if isinstance(body, str) else bytes(body).decode()).splitlines()
    notes = context.environment.get("NOTES")
    if notes:
        with open(notes, "a") as file:
            file.write(f"{len(lines)}\\n")
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "fail":
            raise ValueError("this model does not like " + rest)
        if word == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "once" and not pathlib.Path(rest).exists():
            pathlib.Path(rest).touch()
            raise ValueError("not the first time")
        while word == "wait" and not pathlib.Path(rest).exists():
            time.sleep(0.005)  # the model waits, not the test
    return "".join(line + "!\\n" for line in lines), accept
"""
_names = itertools.count()


class Batch:
    """A server's transform jobs. Its models: ``sum`` (30 numbers a row) and ``lines`` (see ``LINES``)."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sagemaker = cloud.client(server)
        self.store = server.data_dir / "s3"

    def make_models(self) -> Batch:
        """Both models, where there are none yet."""
        write_sum_model(self.store / "models" / "sum.onnx")
        script_model(self.store / "models" / "lines", LINES)
        cloud.make_model(self.sagemaker, "sum", cloud.container("s3://models/sum.onnx"))
        cloud.make_model(self.sagemaker, "lines", cloud.container("s3://models/lines"))
        return self

    def put(self, url: str, content: bytes | str) -> str:
        """The object at ``url`` shall be this."""
        path = self.path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return url

    def path(self, url: str) -> Path:
        """Where the object at ``url`` lies."""
        return self.store / url.removeprefix("s3://")

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies below a prefix that ends in a slash, by the rest of its key."""
        folder = self.path(prefix)
        return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}

    def begin(self, uri: str, model: str = "lines", name: str = "", **members: Any) -> str:
        """CreateTransformJob over lines of text, into ``s3://out/NAME``; ``Input``, ``Source``, ``Output`` and
        ``Resources`` go into their structures. Returns its name."""
        name = name or f"job-{next(_names)}"
        source = {"S3DataType": "S3Prefix", "S3Uri": uri, **members.pop("Source", {})}
        given = {"ContentType": "text/csv", "SplitType": "Line", **members.pop("Input", {})}
        resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, **members.pop("Resources", {})}
        output = {"Accept": "text/csv", "AssembleWith": "Line", **members.pop("Output", {})}
        self.sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName=model,
            TransformInput={"DataSource": {"S3DataSource": source}, **_given(given)},
            TransformOutput={"S3OutputPath": f"s3://out/{name}", **_given(output)},
            TransformResources=resources,
            **{"ModelClientConfig": {"InvocationsMaxRetries": 0}, **members},
        )
        return name

    def describe(self, name: str) -> dict[str, Any]:
        """DescribeTransformJob."""
        described: dict[str, Any] = self.sagemaker.describe_transform_job(TransformJobName=name)
        return described

    def progress(self, name: str) -> dict[str, Any]:
        """DescribeTransformJob's ``Progress``, which boto3 does not show; empty while there is none."""
        headers = {"X-Amz-Target": "SageMaker.DescribeTransformJob", "Content-Type": "application/x-amz-json-1.1"}
        with self.server.client() as client:
            told = client.post("/", json={"TransformJobName": name}, headers=headers).json()
        found: dict[str, Any] = told.get("Progress", {})
        return found

    def ended(self, name: str, seconds: float = 60.0) -> dict[str, Any]:
        """Its description once it has ended: polled, as every client does."""
        end = time.monotonic() + seconds
        while True:
            described = self.describe(name)
            if described["TransformJobStatus"] not in ("InProgress", "Stopping"):
                return described
            assert time.monotonic() < end, f"{described}\n{self.server.log[-4000:]}"
            time.sleep(0.05)  # a client's polling interval

    def run(self, uri: str, model: str = "lines", **members: Any) -> Ended:
        """A job from its creation to its end."""
        name = self.begin(uri, model, **members)
        described = self.ended(name)
        return Ended(
            described["TransformJobStatus"], described.get("FailureReason", ""), self.objects(f"s3://out/{name}/")
        )


class Ended:
    """How a job ended: its status, FailureReason, and the objects below its output path but for its errors."""

    def __init__(self, status: str, reason: str, objects: Mapping[str, bytes]) -> None:
        self.status, self.reason = status, reason
        self.outputs = {key: content for key, content in objects.items() if not key.endswith("-errors.jsonl")}
        errors = [content for key, content in objects.items() if key.endswith("-errors.jsonl")]
        self.errors = [json.loads(line) for content in errors for line in content.splitlines()]


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that a test does not want."""
    return {name: value for name, value in members.items() if value is not None}
