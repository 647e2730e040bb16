"""InvokeEndpointAsync at the door: its request is checked as the service's model says. Its queue is not there yet, so
the answer is a refusal that says so.

Header names and limits: SageMaker Runtime API, InvokeEndpointAsync.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from serving.api.invocations import FIELDS
from serving.endpoint import Endpoint
from serving.errors import ValidationError

#: The largest body that may be sent inline, in bytes; larger ones come by InputLocation.
MAX_BODY = 128_000
_AMZN = "X-Amzn-SageMaker-"
_INPUT = b"x-amzn-sagemaker-inputlocation"


class Header(NamedTuple):
    """A header of the operation: its name as people write it, what a value may be, and that in words."""

    name: str
    allows: Callable[[bytes], bool]
    rule: str


def _text(most: int, pattern: str = r"[\x00-\x7f]+") -> Callable[[bytes], bool]:
    compiled = re.compile(pattern.encode())
    return lambda value: len(value) <= most and compiled.fullmatch(value) is not None


def _whole(least: int, most: int) -> Callable[[bytes], bool]:
    return lambda value: re.fullmatch(rb"[0-9]{1,9}", value) is not None and least <= int(value) <= most


HEADERS = {
    one.name.lower().encode(): one
    for one in (
        Header(_AMZN + "Content-Type", _text(1024), "at most 1024 ASCII characters"),
        Header(_AMZN + "Accept", _text(1024), "at most 1024 ASCII characters"),
        Header(
            _AMZN + "InputLocation",
            _text(1024, r"(?:https|s3)://[^/]+/?.*"),
            "an https:// or s3:// URL of at most 1024 characters",
        ),
        Header(
            _AMZN + "S3OutputPathExtension",
            _text(512, r"(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+"),
            "a path of at most 512 letters, digits and !_.*'()/-",
        ),
        Header(
            _AMZN + "Filename",
            _text(32, r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_.]*"),
            "a file name of at most 32 letters, digits and -_ with one dot",
        ),
        Header(_AMZN + "RequestTTLSeconds", _whole(60, 21_600), "a whole number from 60 to 21600"),
        Header(_AMZN + "InvocationTimeoutSeconds", _whole(1, 3600), "a whole number from 1 to 3600"),
    )
}
#: What the operation shares with InvokeEndpoint.
_SHARED = (b"x-amzn-sagemaker-custom-attributes", b"x-amzn-sagemaker-inference-id")


def check(headers: Mapping[bytes, bytes], body: bytes) -> None:
    """Refuse a request that the service's model does not allow. ``headers``: lower-case names. Raises
    ``ValidationError`` naming the member at fault."""
    for name, header in HEADERS.items():
        value = headers.get(name, b"")
        if value and not header.allows(value):
            raise ValidationError(f"{header.name} must be {header.rule}.")
    for name in _SHARED:
        if headers.get(name):
            FIELDS[name].read(headers[name])
    if len(body) > MAX_BODY:
        raise ValidationError(f"The body of an asynchronous call must be at most {MAX_BODY} bytes; use InputLocation.")
    if bool(headers.get(_INPUT)) == bool(body):
        raise ValidationError("Exactly one of InputLocation and Body is required.")


def refusal(endpoint: Endpoint) -> ValidationError:
    """What a good request is told."""
    if endpoint.asynchronous:
        return ValidationError(f"The queue of asynchronous calls of endpoint {endpoint.name} is not offered yet.")
    return ValidationError(
        f"Endpoint {endpoint.name} is not asynchronous: invoke it with InvokeEndpoint, or give its configuration an "
        "AsyncInferenceConfig."
    )
