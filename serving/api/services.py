"""The services of AWS that are offered at ``POST /``, by the word that stands before the dot in ``X-Amz-Target``.

Fronts read here who may ask what, and how a refusal is dressed; which action answers which operation, the control
process alone knows (``control_actions.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from serving.api.failures import Dress
from serving.errors import (
    Conflict,
    InternalFailure,
    InvalidFormat,
    InvalidNextToken,
    InvalidParameterCombination,
    InvalidParameterValue,
    MissingParameter,
    ObjectNotFound,
    ResourceLimitExceeded,
    ResourceNotFound,
    ServingError,
    Throttled,
    TooManyTags,
    ValidationError,
)

SAGEMAKER = "SageMaker"
AUTOSCALING = "AnyScaleFrontendService"
CLOUDWATCH = "GraniteServiceVersion20100801"


class Service(NamedTuple):
    """``model``: its name in botocore's data; ``readers``: how the names of the operations begin that change nothing,
    and need no more than the permission to read; ``dress``: of its answers and errors; ``version`` and ``namespace``:
    of its older wire form (``query_wire.py``), if it has one here."""

    model: str
    readers: tuple[str, ...]
    dress: Dress = Dress()
    version: str = ""
    namespace: str = ""


#: Application Auto Scaling API, errors; all but the last are 400.
_AUTOSCALING_CODES: Mapping[type[ServingError], str] = {
    ObjectNotFound: "ObjectNotFoundException",
    InvalidNextToken: "InvalidNextTokenException",
    ResourceLimitExceeded: "LimitExceededException",
    Conflict: "ConcurrentUpdateException",
    ResourceNotFound: "ResourceNotFoundException",
    TooManyTags: "TooManyTagsException",
    InternalFailure: "InternalServiceException",
}

#: CloudWatch API, errors, as its older wire form spells them: its clients read them so on all.
_CLOUDWATCH_CODES: Mapping[type[ServingError], str] = {
    ValidationError: "ValidationError",
    MissingParameter: "MissingParameter",
    InvalidParameterValue: "InvalidParameterValue",
    InvalidParameterCombination: "InvalidParameterCombination",
    InvalidFormat: "InvalidFormat",
    InvalidNextToken: "InvalidNextToken",
    ResourceLimitExceeded: "LimitExceeded",
    Throttled: "Throttling",
    InternalFailure: "InternalServiceError",
}

SERVICES: Mapping[str, Service] = {
    SAGEMAKER: Service("sagemaker", ("Describe", "List", "BatchDescribe")),
    AUTOSCALING: Service("application-autoscaling", ("Describe", "List"), Dress("1.1", _AUTOSCALING_CODES)),
    CLOUDWATCH: Service(
        "cloudwatch",
        ("Describe", "List", "Get"),
        Dress("1.0", _CLOUDWATCH_CODES, query_error=True),
        "2010-08-01",
        "http://monitoring.amazonaws.com/doc/2010-08-01/",
    ),
}


def service(target: str) -> Service:
    """The service that a target names; SageMaker for one that names none of them."""
    return SERVICES.get(target.rpartition(".")[0], SERVICES[SAGEMAKER])


def only_reads(target: str) -> bool:
    """Does the operation change nothing?"""
    return target.rpartition(".")[2].startswith(service(target).readers)
