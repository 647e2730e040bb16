"""An asynchronous call as a work of the queue: what it says, where it ends, and what its attempts came to. Pure.

The body of such a work (lane ``async/ENDPOINT``, name = job id)::

    {"endpoint", "input", "content_type", "accept", "custom_attributes", "inference_id", "target_model",
     "target_variant", "timeout": 900, "ttl": 21600, "output": "s3://…/ID.out", "failure": "s3://…/ID-error.out",
     "success_topic", "error_topic", "include_response": [], "request_id", "received": EPOCH, "spooled": FILE}

and "traceparent" where it came with one.

Without ``input`` the payload is in the row or, when it is large, in the spool under the name ``spooled``.

Every job comes to exactly one end. SageMaker writes a failure object for a container's error only. Here, where a
failure path is configured, every job that does not succeed gets one that says why, also one that expired, was
cancelled, or whose endpoint was deleted: whoever waits for either object always comes to an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from serving.errors import (
    InvocationTimedOut,
    ModelError,
    ModelNotReady,
    ObjectMissing,
    ObjectUnavailable,
    Quarantined,
    ServiceUnavailable,
    ServingError,
    Throttled,
    ValidationError,
    WorkerDied,
)
from serving.jobs.work import State, Work
from serving.objects.base import object_url, prefix_url

PREFIX = "async/"
#: Answers up to so many bytes are kept in the row until they are published, and may go into notifications (SageMaker
#: API, AsyncInferenceNotificationConfig). Payloads up to so many are in the row too.
SMALL = 128 * 1024
#: The largest input object (SageMaker, asynchronous inference).
LARGEST_INPUT = 2**30
USUAL_TIMEOUT, LONGEST_TIMEOUT = 900, 3600
USUAL_TTL = LONGEST_TTL = 21_600
#: Workers that a job may end before it is given up (``reliability.md`` promise 7).
MOST_STRIKES = 3
#: Times that this whole process may end under a job. It runs no model code, so these ends are hardly the job's doing;
#: but a job that takes the machine with it must not do so for ever.
MOST_RESCUES = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

Status = Literal["Queued", "InProgress", "Completed", "Failed", "Expired", "Cancelled"]
STATUSES: Mapping[State, Status] = {
    "waiting": "Queued",
    "queued": "Queued",
    "leased": "InProgress",
    "decided": "InProgress",
    "done": "Completed",
    "failed": "Failed",
    "expired": "Expired",
    "cancelled": "Cancelled",
}


def lane_of(endpoint: str) -> str:
    """The lane of an endpoint's calls."""
    return PREFIX + endpoint


def states_of(status: str) -> list[State]:
    """The states that callers know as ``status``; none named, none wanted in particular. Raises ``ValidationError``."""
    found = [state for state, known in STATUSES.items() if known == status]
    if status and not found:
        raise ValidationError(f"Status must be one of {', '.join(dict.fromkeys(STATUSES.values()))}.")
    return found


# --- where a job ends -----------------------------------------------------------------------------------------------


class Places(NamedTuple):
    """The objects of a job: one of them will be. ``failure`` empty: only the output can be."""

    output: str
    failure: str


def places(output: str, failure: str, id: str, extension: str = "", filename: str = "") -> Places:
    """Where a job's objects will be, beneath the prefixes ``output`` and ``failure``. ``extension``: path parts after
    the output prefix; ``filename`` replaces ``ID.out``. Raises ``ValidationError`` for parts that are no plain names,
    so that nobody gets out of the prefix."""
    parts = (output.rstrip("/"), extension.strip("/"), filename or f"{id}.out")
    made = "/".join(part for part in parts if part)
    try:
        object_url(made)
    except ValidationError as error:
        raise ValidationError(f"The output location is not usable: {error.message}") from None
    return Places(made, f"{failure.rstrip('/')}/{id}-error.out" if failure else "")


def plain_prefix(region: str, account: str, endpoint: str) -> str:
    """Where the answers of an endpoint go that is not configured for asynchronous calls, or names no place."""
    return f"s3://sagemaker-{region}-{account}/async/{endpoint}"


def check_input(url: str) -> None:
    """Is it an object this server can fetch? Raises ``ValidationError``."""
    if not url.startswith("s3://"):
        raise ValidationError("InputLocation must be s3://bucket/key: this server fetches from its object store only.")
    prefix_url(url)
    object_url(url)


# --- what an attempt came to ----------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A job's end, as it is kept in its row. ``reason``: in a sentence, for notifications and Describe; ``location``,
    ``content_type``, ``size``: of its final object, which ``spooled`` (a file in the spool) is going to be if it is too
    large for the row; ``cause``: what is counted (``download``, ``upload``, ``invocation``, ``expired``)."""

    status: Status
    reason: str = ""
    location: str = ""
    content_type: str = ""
    size: int = 0
    spooled: str = ""
    variant: str = ""
    cause: str = ""

    def row(self) -> dict[str, Any]:
        """As JSON values."""
        return self._asdict()


def outcome_of(work: Work) -> Outcome:
    """What ``decide`` or an end kept of a work."""
    kept = work.outcome or {}
    return Outcome(**{name: kept[name] for name in Outcome._fields if name in kept} or {"status": "Failed"})


class Again(NamedTuple):
    """Try again after ``pause`` seconds; ``progress`` is to be kept with the work. ``others_too``: its endpoint's other
    calls would come to the same until then."""

    pause: float
    progress: Mapping[str, Any] | None = None
    others_too: bool = False


class Failed(NamedTuple):
    """It has failed for good. ``text``: the failure object's content; ``variant``: which was to answer, if one was."""

    reason: str
    text: str
    cause: str = "invocation"
    variant: str = ""


def strikes(work: Work) -> int:
    """Workers that ended under this work so far."""
    return int((work.progress or {}).get("strikes", 0))


def given_up(work: Work) -> Failed | None:
    """Has this work ended too much already to be tried once more?"""
    if strikes(work) >= MOST_STRIKES:
        return _ended_workers(strikes(work))
    if work.deaths >= MOST_RESCUES:
        reason = f"The server ended {work.deaths} times while it ran this request."
        return Failed(f"ClientError: {reason}", reason)
    return None


def _ended_workers(count: int) -> Failed:
    reason = f"The worker ended while it ran this request, {count} times."
    return Failed(f"ClientError: {reason}", reason)


def verdict(work: Work, error: ServingError, now: float) -> Again | Failed:
    """What becomes of a work that an attempt answered with this error. What is nobody's fault, or another call's, is
    tried again; workers that have ended under it are counted, whatever the answer was. ``now``: on the queue's
    clock."""
    total = max(strikes(work), error.strikes)
    if isinstance(error, WorkerDied) and not isinstance(error, Quarantined):
        total = max(total, MOST_STRIKES)
    progress = {**(work.progress or {}), "strikes": total} if total > strikes(work) else None
    if total >= MOST_STRIKES:
        return _ended_workers(total)
    only_model = not work.body.get("target_model")
    if isinstance(error, Throttled | Quarantined):
        return Again(error.retry_after, progress, only_model)
    if isinstance(error, ServiceUnavailable | ModelNotReady):
        return Again(pause_of(work.attempt), progress, only_model)
    if isinstance(error, ObjectMissing | ObjectUnavailable):
        return _no_input(work, error, now)
    return _failed(error)


def pause_of(tries: int) -> float:
    """Seconds to wait after so many tries."""
    return float(min(_FIRST_PAUSE * 2.0 ** min(tries - 1, 16), _LONGEST_PAUSE))


def _no_input(work: Work, error: ServingError, now: float) -> Again | Failed:
    """An object store that is away is waited for, as long as the request may wait."""
    waited = now - work.queued
    if isinstance(error, ObjectUnavailable) and error.transient and waited < work.body["ttl"]:
        return Again(pause_of(work.attempt))
    return Failed(f"ClientError: The input could not be read. {error.message}", error.message, "download")


def _failed(error: ServingError) -> Failed:
    """In the words of SageMaker's notifications; the failure object has the container's own."""
    if isinstance(error, InvocationTimedOut):
        return Failed(f"ClientError: {error.message}", error.message)
    if not isinstance(error, ModelError):
        return Failed(f"ClientError: {error.message}", error.message)
    status = error.original_status
    kind = "client" if 400 <= status < 500 else "server"
    logs = "See the SageMaker Endpoint logs in your account for more information."
    return Failed(f"ClientError: Received {kind} error ({status}) from model. {logs}", error.message)


def failure(work: Work, failed: Failed, variant: str, status: Status = "Failed") -> Outcome:
    """The outcome of a job that came to this."""
    location = str(work.body.get("failure", ""))
    size = len(failed.text.encode())
    return Outcome(status, failed.reason, location, "text/plain; charset=utf-8", size, "", variant, failed.cause)


def final_state(outcome: Outcome) -> State:
    """The state of a work whose outcome has been published."""
    return "done" if outcome.status == "Completed" else "failed"
