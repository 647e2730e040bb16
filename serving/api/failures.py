"""Errors in each dialect's dress. One error, two answers:

======================  ======================================  =============================================
error                   runtime (``/endpoints/…/invocations``)  container (``/invocations``, ``/models…``)
======================  ======================================  =============================================
``ModelError``, 4xx     424 ModelError, OriginalStatusCode 4xx  that 4xx
``ModelError``, 507     424 ModelError, OriginalStatusCode 507  507
``ModelError``, other   424 ModelError                          424
any other               its own status and code                 its own status and code
======================  ======================================  =============================================

The control APIs (AWS JSON, ``dress_control``) answer 400 to whatever is the caller's fault but a missing permission
(403) and too many calls (429), with ``__type`` and ``message``; a ``ValidationError`` is ``ValidationException``, and
each service may have further codes of its own (``Dress``).

Form: SageMaker Runtime API, errors: header ``x-amzn-ErrorType``, JSON body with ``Message``; ``__type`` for clients of
the JSON protocol. No answer holds a stack trace or a host path; the cause is in the log under the request id.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import orjson

from serving.errors import InternalFailure, ModelError, ServingError, Throttled, ValidationError

_LONGEST = 2048

log = logging.getLogger("serving.front")


def as_serving_error(error: Exception, request_id: str) -> ServingError:
    """Anything that is not of our tree is a defect: logged with its trace, told as one."""
    if isinstance(error, ServingError):
        return error
    log.error("request failed", exc_info=error, extra={"request_id": request_id})
    return InternalFailure("An internal failure occurred; the server's log has the cause under this request id.")


def status_of(error: ServingError, container: bool) -> int:
    """The HTTP status in a dialect."""
    if container and isinstance(error, ModelError):
        original = error.original_status
        return original if 400 <= original < 500 or original == 507 else error.status
    return error.status


def dress(
    error: ServingError, container: bool, request_id: str, account: str = "", endpoint: str = "", region: str = "",
    trace: str = "",
) -> tuple[int, list[tuple[str, str]], bytes]:  # fmt: skip
    """Status, headers (without length) and JSON body for an error. ``trace``: the id of the caller's trace, if any."""
    status = status_of(error, container)
    body: dict[str, object] = {"__type": error.code, "Message": error.message[:_LONGEST]}
    if isinstance(error, ModelError):
        body["OriginalStatusCode"] = error.original_status
        body["OriginalMessage"] = error.message[:_LONGEST]
        if not container:
            body |= _as_runtime(error, account, endpoint, region)
    headers = [
        ("content-type", "application/json"),
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", error.code),
    ]
    headers += _retry_after(error)
    if status >= 500 or (isinstance(error, ModelError) and error.original_status >= 500):
        where = {"request_id": request_id, "endpoint": endpoint, "trace_id": trace}
        log.warning("%s: %s", error.code, error.message, extra=where)
    return status, headers, orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)


def _as_runtime(error: ModelError, account: str, endpoint: str, region: str) -> dict[str, object]:
    """The words of AWS's platform around a container's answer (texts: ``reference/api/01-runtime.md``)."""
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    client = 400 <= error.original_status < 500
    kind = "client" if client else "server"
    return {
        "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if client else "INTERNAL_FAILURE_FROM_MODEL",
        "LogStreamArn": f"arn:aws:logs:{region}:{account}:log-group:{group}",
        "Message": (
            f"Received {kind} error ({error.original_status}) from {error.container} "
            f'with message "{error.message[:_LONGEST]}". '
            f"See log group {group} in account {account} for more information."
        ),
    }


class Dress(NamedTuple):
    """How a service that speaks JSON dresses its answers. ``version`` of the protocol; ``codes``: those of our errors
    that it calls otherwise, the nearest class counts; ``query_error``: its clients look for the code in a header that
    is left from its older wire form (AWS JSON protocols, ``awsQueryCompatible``)."""

    version: str = "1.1"
    codes: Mapping[type[ServingError], str] = MappingProxyType({})
    query_error: bool = False

    @property
    def content_type(self) -> str:
        """Of every answer."""
        return f"application/x-amz-json-{self.version}"

    def code(self, error: ServingError) -> str:
        """What the service calls this error."""
        named = {ValidationError: "ValidationException", ModelError: "ValidationException", **self.codes}
        return next((named[kind] for kind in type(error).__mro__ if kind in named), error.code)


_PLAIN = Dress()
#: Control API: statuses that are not 400 where the caller is at fault (``api/02``, errors).
_CONTROL_STATUSES = (403, 429)
_LONGEST_CONTROL = 8192


def dress_control(
    error: ServingError, request_id: str, dress: Dress = _PLAIN
) -> tuple[int, list[tuple[str, str]], bytes]:
    """The same for a control call: AWS JSON, in which botocore reads the code off ``__type``."""
    code = dress.code(error)
    status = error.status if error.status >= 500 or error.status in _CONTROL_STATUSES else 400
    if status >= 500:
        log.warning("%s: %s", code, error.message, extra={"request_id": request_id})
    headers = [("content-type", dress.content_type), ("x-amzn-RequestId", request_id), ("x-amzn-ErrorType", code)]
    if dress.query_error:
        headers.append(("x-amzn-query-error", f"{code};{'Receiver' if status >= 500 else 'Sender'}"))
    body = {"__type": code, "message": error.message[:_LONGEST_CONTROL]}
    return status, [*headers, *_retry_after(error)], orjson.dumps(body)


def _retry_after(error: ServingError) -> list[tuple[str, str]]:
    if not isinstance(error, Throttled):
        return []
    seconds = str(max(1, math.ceil(error.retry_after)))
    return [("Retry-After", seconds), ("x-amz-retry-after", str(max(1, int(error.retry_after * 1000))))]
