"""Every error this server answers with, and whose fault it is.

::

    ServingError                  code                       status  whose fault
    ├─ RequestRefused                                                the caller's
    │  ├─ ValidationError         ValidationError               400
    │  │  ├─ UnknownEndpoint      ValidationError               400
    │  │  ├─ UnknownVariant       ValidationError               400
    │  │  ├─ UnknownModel         ValidationError               400
    │  │  ├─ InvalidNextToken     ValidationError               400
    │  │  ├─ TooManyTags          ValidationError               400
    │  │  ├─ MissingParameter     MissingParameter              400  CloudWatch's words
    │  │  ├─ InvalidParameterValue  …                           400  for what is wrong
    │  │  ├─ InvalidParameterCombination  …                     400  with a request
    │  │  ├─ InvalidFormat        InvalidFormat                 400
    │  │  ├─ BadObject            ValidationError               400  a job's input object
    │  │  └─ BadRecords           ValidationError               400  records of one
    │  ├─ Unreadable              SerializationException        400
    │  ├─ UnknownOperation        UnknownOperationException     404
    │  ├─ ResourceInUse           ResourceInUse                 400
    │  ├─ ResourceNotFound        ResourceNotFound              404
    │  │  └─ ObjectNotFound       ObjectNotFoundException       404
    │  ├─ ObjectMissing           ValidationError               400
    │  ├─ ResourceLimitExceeded   ResourceLimitExceeded         400
    │  ├─ Conflict                ConflictException             409
    │  ├─ AccessDenied            AccessDeniedException         403
    │  ├─ InvalidSignature        InvalidSignatureException     403
    │  └─ Throttled               ThrottlingException           429
    ├─ ModelNotReady              ModelNotReadyException        429  nobody's: come back
    ├─ ModelError                 ModelError                    424  the model's answer
    │  ├─ BadInput                original status 400                the caller's, found by the model
    │  ├─ NotAcceptable           original status 406                the caller's
    │  ├─ UnsupportedContentType  original status 415                the caller's
    │  ├─ PredictionFailed        original status 500                the model's
    │  ├─ LoadFailed              original status 500                the artifact's
    │  ├─ CodeNotAllowed          original status 403                the operator's choice
    │  ├─ OutOfMemory             original status 507                the model's
    │  ├─ WorkerDied              original status 500                the model's
    │  │  └─ Quarantined          original status 500                nobody's: another call's model
    │  └─ InvocationTimedOut      original status 0                  the model's
    ├─ ObjectUnavailable          InternalDependencyException   530  the object store's
    ├─ ServiceUnavailable         ServiceUnavailable            503  ours: no worker, shutting down
    ├─ InternalFailure            InternalFailure               500  ours: a defect
    └─ ConfigError                -                             -    the operator's, at start

Raise the specific one low down; never build a response there: ``api/failures.py`` dresses an error for each
dialect (container contract, SageMaker runtime). Codes and statuses: SageMaker Runtime API, error table;
``original status`` is the status that a SageMaker container would have answered.
"""

from __future__ import annotations


class ServingError(Exception):
    """Root of the tree. ``str(error)`` is one sentence fit for the caller: no host path, no stack trace."""

    code = "InternalFailure"
    status = 500
    #: Workers that ended while they may have been running the call that is answered so.
    strikes = 0

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestRefused(ServingError):
    """The request never reached a model."""

    code = "ValidationError"
    status = 400


class ValidationError(RequestRefused):
    """A header, path part, body or combination of them that the API does not allow."""


class UnknownEndpoint(ValidationError):
    """No endpoint of that name."""


class UnknownVariant(ValidationError):
    """The endpoint has no variant of that name."""


class UnknownModel(ValidationError):
    """No artifact of that name under the endpoint's prefix."""


class InvalidNextToken(ValidationError):
    """A page's token that was not given out for this list. (Some services of AWS have a code of their own for it.)"""


class TooManyTags(ValidationError):
    """More tags than a resource may have. (The same.)"""


class MissingParameter(ValidationError):
    """A member that is required beside those that are given (CloudWatch API, errors)."""

    code = "MissingParameter"


class InvalidParameterValue(ValidationError):
    """A value that is well formed and means nothing (CloudWatch API, errors)."""

    code = "InvalidParameterValue"


class InvalidParameterCombination(ValidationError):
    """Members that do not go together (CloudWatch API, errors)."""

    code = "InvalidParameterCombination"


class InvalidFormat(ValidationError):
    """A text that was to be JSON (CloudWatch API, errors)."""

    code = "InvalidFormat"


class BadObject(ValidationError):
    """A batch job's input object that cannot be cut into records as the job says; none of it can be trusted."""


class BadRecords(ValidationError):
    """Records that a batch job cannot send or whose answers it cannot use, while their neighbours may be fine.
    ``record``: the first bad one's index in its object, from 0; None when it is not known which (the counts differ)."""

    def __init__(self, message: str, record: int | None = None) -> None:
        super().__init__(message)
        self.record = record


class Unreadable(RequestRefused):
    """A control call's body that is not JSON, or no JSON object."""

    code = "SerializationException"


class UnknownOperation(RequestRefused):
    """No such path or operation."""

    code = "UnknownOperationException"
    status = 404


class ResourceInUse(RequestRefused):
    """A job's name that is taken (control API; endpoints and models answer ``ValidationError`` instead)."""

    code = "ResourceInUse"


class ResourceNotFound(RequestRefused):
    """No resource of that name (only where AWS does not answer ``ValidationError``; the control API says 400)."""

    code = "ResourceNotFound"
    status = 404


class ObjectNotFound(ResourceNotFound):
    """No scalable target, policy or scheduled action of that key (Application Auto Scaling; its API says 400)."""

    code = "ObjectNotFoundException"


class ResourceLimitExceeded(RequestRefused):
    """One more than there may be."""

    code = "ResourceLimitExceeded"


class Conflict(RequestRefused):
    """The resource is not in a state that allows this (the control API says 400)."""

    code = "ConflictException"
    status = 409


class AccessDenied(RequestRefused):
    """Known caller, missing permission; or no signature where keys are required."""

    code = "AccessDeniedException"
    status = 403


class InvalidSignature(RequestRefused):
    """The signature does not match, is too old, or covers too little."""

    code = "InvalidSignatureException"
    status = 403


class Throttled(RequestRefused):
    """Refused to keep the promise to others. ``retry_after`` in seconds."""

    code = "ThrottlingException"
    status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelNotReady(ServingError):
    """The target model is still being fetched or loaded, or nothing can be evicted for it yet."""

    code = "ModelNotReadyException"
    status = 429


class ModelError(ServingError):
    """The model, or what holds it, answered with a failure.

    ``container`` is the host name of the one that failed, of several. ``original_status`` is the status a SageMaker
    container would have answered (0 = no answer in time);
    ``original_message`` its text, at most 2,048 characters reach the caller.
    """

    code = "ModelError"
    status = 424
    original_status = 500
    container = "primary"

    def __init__(self, message: str, original_status: int | None = None) -> None:
        super().__init__(message)
        if original_status is not None:
            self.original_status = original_status


class BadInput(ModelError):
    """A body that cannot be decoded, or that does not fit the model (shape, feature count, dtype)."""

    original_status = 400


class NotAcceptable(ModelError):
    """No media type in Accept that the model's answer can be written in."""

    original_status = 406


class UnsupportedContentType(ModelError):
    """A Content-Type the model cannot read."""

    original_status = 415


class PredictionFailed(ModelError):
    """The model raised while predicting."""

    original_status = 500


class LoadFailed(ModelError):
    """The artifact is damaged, unknown, or its framework refused it."""

    original_status = 500


class CodeNotAllowed(LoadFailed):
    """The artifact's format executes code and the operator has not allowed that."""

    original_status = 403


class OutOfMemory(ModelError):
    """The model does not fit, or asked for more memory than there is."""

    original_status = 507


class WorkerDied(ModelError):
    """The worker died under this call, and again under its retry; or the model is quarantined."""

    original_status = 500


class Quarantined(WorkerDied):
    """The model is refused for a while because it keeps ending its workers; this call has not run. ``retry_after`` in
    seconds."""

    def __init__(self, message: str, original_status: int | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message, original_status)
        self.retry_after = retry_after


class InvocationTimedOut(ModelError):
    """No answer before the deadline."""

    original_status = 0


class ObjectMissing(RequestRefused):
    """There is no such object in the object store (any more)."""


class ObjectUnavailable(ServingError):
    """The object store cannot be reached, refuses, or has no room. ``transient``: trying again later may help."""

    code = "InternalDependencyException"
    status = 530

    def __init__(self, message: str, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class ServiceUnavailable(ServingError):
    """No ready worker, or the server is shutting down."""

    code = "ServiceUnavailable"
    status = 503


class InternalFailure(ServingError):
    """A defect of ours."""


class ConfigError(ServingError):
    """A setting, config file or artifact named on the command line that cannot be used."""


#: Errors a worker or the control process may answer with, by name: an error crosses the process border as (name,
#: status, text).
BY_NAME: dict[str, type[ServingError]] = {
    cls.__name__: cls
    for cls in (
        ValidationError,
        UnknownEndpoint,
        UnknownVariant,
        UnknownModel,
        Unreadable,
        UnknownOperation,
        ResourceInUse,
        ResourceNotFound,
        ResourceLimitExceeded,
        Conflict,
        AccessDenied,
        Throttled,
        ModelNotReady,
        ModelError,
        BadInput,
        NotAcceptable,
        UnsupportedContentType,
        PredictionFailed,
        LoadFailed,
        CodeNotAllowed,
        OutOfMemory,
        WorkerDied,
        Quarantined,
        InvocationTimedOut,
        ObjectMissing,
        ObjectUnavailable,
        ServiceUnavailable,
        InternalFailure,
    )
}
