"""What a script model may ask and say beside its data: the optional last argument of its functions.

The names are those of AWS's inference toolkit and the multi-model server beneath it, whose indices into a batch of
requests are accepted and mean nothing here: a script sees one request at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from serving.runtimes.base import ScriptCall

_PREFIX = "X-Amzn-SageMaker-"
#: The response headers of the container contract (SageMaker Developer Guide, "How Containers Serve Requests").
RESPONSE_HEADERS = {
    f"{_PREFIX}{name}".lower(): f"{_PREFIX}{name}"
    for name in ("Custom-Attributes", "New-Session-Id", "Closed-Session-Id", "Session-Id")
}
_VISIBLE = re.compile(r"[\x20-\x7e]{0,1024}")


class ScriptContext:
    """One invocation, or a load when there is no call. ``environment`` is the model's own, not the process's."""

    def __init__(self, model_dir: Path, environment: Mapping[str, str], call: ScriptCall | None = None) -> None:
        """``call`` is None while the model is loaded."""
        self.environment: Mapping[str, str] = MappingProxyType(dict(environment))
        self.model_dir = str(model_dir)
        self.system_properties: Mapping[str, object] = {"model_dir": str(model_dir), "gpu_id": None, "batch_size": 1}
        self.request_headers: Mapping[str, str] = _headers(call) if call is not None else {}
        self.request_id = call.request_id if call is not None else ""
        self.response_headers: dict[str, str] = {}
        self.response_content_type = ""
        self.response_status = 200

    def get_request_id(self, idx: int = 0) -> str:
        """The id of this request."""
        return self.request_id

    def get_all_request_header(self, idx: int = 0) -> Mapping[str, str]:
        """All request headers that the container contract passes in."""
        return self.request_headers

    def get_request_header(self, idx: int | str, key: str | None = None) -> str | None:
        """One request header by its name in any case: ``(key)`` or, as in the toolkit, ``(idx, key)``."""
        wanted = (str(idx) if key is None else key).lower()
        return next((value for name, value in self.request_headers.items() if name.lower() == wanted), None)

    def set_response_content_type(self, request_id: str, value: str | None = None) -> None:
        """The answer's media type: ``(value)`` or, as in the toolkit, ``(request_id, value)``."""
        self.response_content_type = _checked(request_id if value is None else value)

    def get_response_content_type(self, request_id: str = "") -> str:
        """What ``set_response_content_type`` set."""
        return self.response_content_type

    def set_response_header(self, *arguments: object) -> None:
        """A response header: ``(key, value)`` or, as in the toolkit, ``(idx, key, value)``.

        Raises ValueError for a header that the container contract does not let a model set, or for a value that is not
        at most 1,024 visible ASCII characters.
        """
        key, value = (str(argument) for argument in arguments[-2:])
        if key.lower() == "content-type":
            self.response_content_type = _checked(value)
        elif key.lower() in RESPONSE_HEADERS:
            self.response_headers[RESPONSE_HEADERS[key.lower()]] = _checked(value)
        else:
            raise ValueError(f"a model may not set the response header {key!r}")

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """The status of the answer; from 400 on the answer is a failure with the body as its text."""
        self.response_status = int(code)


def _headers(call: ScriptCall) -> dict[str, str]:
    named = {
        "Content-Type": call.content_type,
        "Accept": call.accept,
        f"{_PREFIX}Custom-Attributes": call.custom_attributes,
        f"{_PREFIX}Inference-Id": call.inference_id,
        f"{_PREFIX}Session-Id": call.session_id,
        f"{_PREFIX}Target-Model": call.target_model,
    }
    return {name: value for name, value in named.items() if value}


def _checked(value: str) -> str:
    if not _VISIBLE.fullmatch(value):
        raise ValueError("a header's value is at most 1,024 visible ASCII characters")
    return value
