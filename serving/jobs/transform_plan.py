"""What a transform job asks for, as values, and the decisions of running it. Pure: the clock is an argument.

Defaults and rules: SageMaker API, CreateTransformJob, and ``behaviour/04``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from serving.errors import (
    CodeNotAllowed,
    InvocationTimedOut,
    LoadFailed,
    ModelError,
    ModelNotReady,
    NotAcceptable,
    Quarantined,
    RequestRefused,
    ServiceUnavailable,
    ServingError,
    Throttled,
    UnknownEndpoint,
    UnsupportedContentType,
    WorkerDied,
)
from serving.jobs.parameters import MOST_MEGABYTES

MB = 2**20
#: SageMaker API: MaxPayloadInMB.
_PAYLOAD_MB = 6
#: A job that leaves MaxPayloadInMB at its default has it as the limit of a record, and requests of this size: a third
#: less processor time for a million rows of CSV than with 6 MB, and half of the memory (measured).
_USUAL_BYTES = MB
#: MaxPayloadInMB=0 is no limit for an object that is sent as it lies on the disk; of what has to be in memory, up to
#: three times at once, the largest MaxPayloadInMB is.
_MOST_IN_MEMORY = MOST_MEGABYTES * MB
#: Calls in flight per instance when the job names no number: enough that a worker never waits for its next call.
_CONCURRENCY = 4
#: ModelClientConfig's own defaults.
_TIMEOUT_SECONDS, _RETRIES = 600, 3
#: The job's environment may allow this many bad records in a job that is Completed all the same.
MOST_BAD = "SERVING_TRANSFORM_MAX_BAD_RECORDS"
#: An object with more bad records than this, and more than this part of it, is nonsense as a whole: to single them all
#: out would be calls without end.
_MOST_BAD_RECORDS, _MOST_BAD_PART = 1000, 0.2
#: And so is one with so many records that each end a worker, as each costs several.
_MOST_DEADLY_RECORDS = 10
#: A call waits no longer than this for a worker that takes it; the longest quarantine is a third of it.
NOT_READY_SECONDS = 900.0
#: SageMaker API: the longest FailureReason.
_LONGEST_REASON = 1024
_NEVER = 10**9
#: A call waits in its worker for those that came before it, each for no longer than this: then they run side by side.
_WAIT_BEHIND_ONE = 5.0
#: Records that failed by themselves are tried once more while an object has no more bad ones than this.
_FEW_BAD = 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What a job asks for. ``most_bytes``: of a request's body; ``usual_bytes``: of several records together, 0 = as
    many as fit; ``is_mapped``: an object goes as it lies on the disk; ``instances``: workers; ``concurrency``: requests
    in flight at once, on all of them; ``timeout``: seconds for each; ``retries``: after the first try; ``most_bad``:
    records that may fail in a job that is Completed."""

    job: str
    created: float
    content_type: str
    accept: str
    split: str
    strategy: str
    compression: str
    data_type: str
    uri: str
    output: str
    capture: str
    most_bytes: int
    usual_bytes: int
    is_mapped: bool
    instances: int
    concurrency: int
    timeout: float
    retries: int
    most_bad: int

    @property
    def id(self) -> str:
        """The job's own row in the queue, and the beginning of the names of its objects' rows."""
        return f"{self.job}#{self.created:.6f}"

    @property
    def lane(self) -> str:
        """Where the job's objects queue."""
        return f"transform/{self.job}"

    @property
    def own_lane(self) -> str:
        """Where the row of the job itself is: planned or not, and what its objects have come to."""
        return own_lane(self.job)

    @property
    def endpoint(self) -> str:
        """The endpoint of the job's own workers."""
        return f"transform-job/{self.job}"

    @property
    def errors_url(self) -> str:
        """The object that names bad records, one JSON document a line."""
        return f"{self.output.rstrip('/')}/{self.job}-errors.jsonl"


def own_lane(job: str) -> str:
    """See ``Terms.own_lane``."""
    return f"transform-job/{job}"


def terms(row: Mapping[str, Any]) -> Terms:
    """A row of the routing table's ``transforms`` as terms; the job's body was checked when it was created."""
    job = row["job"]
    source, client = job["TransformInput"], job.get("ModelClientConfig") or {}
    data = source["DataSource"]["S3DataSource"]
    instances, per_instance = max(1, row["instances"]), job.get("MaxConcurrentTransforms") or _CONCURRENCY
    split, compression = source.get("SplitType") or "None", source.get("CompressionType") or "None"
    payload = job.get("MaxPayloadInMB", _PAYLOAD_MB)
    return Terms(
        job=row["name"],
        created=float(row["created"]),
        content_type=source.get("ContentType") or "",
        accept=job["TransformOutput"].get("Accept") or "",
        split=split,
        strategy=job.get("BatchStrategy") or "MultiRecord",
        compression=compression,
        data_type=data["S3DataType"],
        uri=data["S3Uri"],
        output=job["TransformOutput"]["S3OutputPath"],
        capture=(job.get("DataCaptureConfig") or {}).get("DestinationS3Uri", ""),
        most_bytes=payload * MB or _MOST_IN_MEMORY,
        usual_bytes=_USUAL_BYTES if payload == _PAYLOAD_MB else 0 if payload else _PAYLOAD_MB * MB,
        is_mapped=(payload, split, compression) == (0, "None", "None") and not job.get("DataProcessing"),
        instances=instances,
        concurrency=per_instance * instances,
        timeout=float(client.get("InvocationsTimeoutInSeconds", _TIMEOUT_SECONDS)),
        retries=client.get("InvocationsMaxRetries", _RETRIES),
        most_bad=most_bad((job.get("Environment") or {}).get(MOST_BAD, "")),
    )


def most_bad(text: str) -> int:
    """Bad records that a job puts up with; what is no number is none."""
    return min(int(text), _NEVER) if text.isascii() and text.isdigit() else 0


# --- calls that fail ------------------------------------------------------------------------------------------------

#: What to do about a failed call: try ``again`` (counted), ``wait`` for a worker (not counted), look for the bad
#: records in it (``split``), give up the ``object``, or the whole ``job``.
What = Literal["again", "wait", "split", "object", "job"]


class Step(NamedTuple):
    """What to do next about a failed call, after a pause of so many seconds."""

    what: What
    pause: float = 0.0


def after_failure(error: ServingError, failures: int, retries: int, waited: float) -> Step:
    """What follows a failed call. ``failures``: tries that failed before and counted; ``waited``: seconds that it has
    waited for workers. Retried are timeouts, 5xx and 429, after 1, 2, 4 s (``behaviour/04``); a call of one record or
    many that ended its worker is not, as the pool has tried it elsewhere already."""
    if isinstance(error, (Quarantined, ServiceUnavailable, Throttled, ModelNotReady, UnknownEndpoint)):
        if waited > NOT_READY_SECONDS:
            return Step("job")
        return Step("wait", min(getattr(error, "retry_after", 1.0), 5.0))
    if isinstance(error, (LoadFailed, CodeNotAllowed)):
        return Step("job")
    if isinstance(error, WorkerDied):
        return Step("split")
    if isinstance(error, (NotAcceptable, UnsupportedContentType)):
        return Step("object")  # they are about the job's media types: no record is better than the others
    if _is_lasting(error):
        return Step("split" if isinstance(error, ModelError) else "object")
    if failures < retries:
        return Step("again", float(2**failures))
    return Step("object" if isinstance(error, InvocationTimedOut) else "split")


def seconds_for(terms: Terms, running: int) -> float:
    """What a call may take that begins with so many of the job's already in flight: its own time is what the job says,
    and it is not its fault that it waits in its worker for others."""
    return terms.timeout + running // terms.instances * min(terms.timeout, _WAIT_BEHIND_ONE)


def retries_of_part(error: ServingError, retries: int, records: int, bad: int) -> int:
    """Retries of a part of a request that failed to the end. What passes by itself (429, 502 to 504, a timeout) is
    retried as anywhere; a single record that the model failed on once more, as nobody knows whether it was that which
    failed before, unless its object has many bad ones: each would cost the pause."""
    passes = isinstance(error, InvocationTimedOut) or getattr(error, "original_status", 0) in (429, 502, 503, 504)
    if passes:
        return retries
    return min(retries, 1) if records == 1 and bad < _FEW_BAD else 0


def _is_lasting(error: ServingError) -> bool:
    """Would the same call fail again?"""
    if isinstance(error, ModelError):
        return 400 <= error.original_status < 500 and error.original_status != 429
    return isinstance(error, RequestRefused)


def is_nonsense(bad: int, records: int, deadly: int, most_bad: int) -> bool:
    """Shall an object be given up as a whole, with so many bad ones among its records so far, and so many of those
    that ended workers?"""
    allowed = max(_MOST_BAD_RECORDS, most_bad)
    return deadly > _MOST_DEADLY_RECORDS or (bad > allowed and bad > _MOST_BAD_PART * records)


# --- what it has come to --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tally:
    """What a job's objects have come to so far. ``first_bad`` and ``first_failed``: a sentence on the first bad record
    and on the first object without an output."""

    objects: int = 0
    bytes: int = 0
    objects_done: int = 0
    objects_failed: int = 0
    objects_bad: int = 0
    records_done: int = 0
    records_failed: int = 0
    bytes_done: int = 0
    first_bad: str = ""
    first_failed: str = ""

    def with_object(self, size: int, records: int, bad: int, first_bad: str, failed: str) -> Tally:
        """And one object more: its size, records that were answered and that were not, and why it has no output, if it
        has none."""
        return replace(
            self,
            objects_done=self.objects_done + (not failed),
            objects_failed=self.objects_failed + bool(failed),
            objects_bad=self.objects_bad + bool(bad),
            records_done=self.records_done + records,
            records_failed=self.records_failed + bad,
            bytes_done=self.bytes_done + size,
            first_bad=self.first_bad or first_bad,
            first_failed=self.first_failed or failed,
        )


class Ending(NamedTuple):
    """How a job ends: SageMaker's TransformJobStatus and FailureReason."""

    status: Literal["Completed", "Failed", "Stopped"]
    reason: str = ""


def ending(tally: Tally, most_bad: int, errors_url: str) -> Ending:
    """Completed only when every object has its output and no more records failed than the job puts up with: whoever
    reads outputs of a Completed job takes them for whole."""
    reasons: list[str] = []
    if tally.objects_failed:
        reasons.append(
            f"{tally.objects_failed:,} of {count(tally.objects, 'object')} failed and got no output; the first: "
            f"{tally.first_failed}"
        )
    if tally.records_failed > most_bad:
        records = tally.records_done + tally.records_failed
        reasons.append(
            f"{tally.records_failed:,} of {count(records, 'record')} failed, in {tally.objects_bad:,} of "
            f"{count(tally.objects, 'object')}; the first: {tally.first_bad}"
        )
    if not reasons:
        return Ending("Completed")
    rest = f" All bad records: {errors_url}" if tally.records_failed else ""
    told = " ".join(reason if reason.endswith((".", "…")) else f"{reason}." for reason in reasons)
    return Ending("Failed", clipped(told, _LONGEST_REASON - len(rest)) + rest)


def clipped(text: str, most: int = _LONGEST_REASON) -> str:
    """A text that fits into a FailureReason."""
    return text if len(text) <= most else text[: most - 1] + "…"


def count(number: int, noun: str) -> str:
    """``1 object``, ``2,000 objects``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


# --- progress -------------------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    now: float
    records: int
    bytes: int


@dataclass(slots=True)
class Meter:
    """How fast a job goes: over its last looks, so that a pause or a fast start is forgotten within them. ``now`` is in
    seconds of any clock that only goes forward."""

    looks: deque[_Look] = field(default_factory=lambda: deque(maxlen=20))

    def look(self, now: float, records: int, bytes: int) -> None:
        """So much is done now."""
        self.looks.append(_Look(now, records, bytes))

    def rates(self) -> tuple[float, float]:
        """Records and bytes a second."""
        if len(self.looks) < 2:
            return 0.0, 0.0
        first, last = self.looks[0], self.looks[-1]
        seconds = max(last.now - first.now, 1e-9)
        return (last.records - first.records) / seconds, (last.bytes - first.bytes) / seconds


def progress(tally: Tally, meter: Meter, errors_url: str) -> dict[str, Any]:
    """The job's progress as control and ``DescribeTransformJob`` show it. ``SecondsLeft`` is None while nobody can
    know: nothing has been done lately."""
    records, speed = meter.rates()
    left = max(tally.bytes - tally.bytes_done, 0)
    open_objects = tally.objects - tally.objects_done - tally.objects_failed
    seconds = 0.0 if not open_objects else left / speed if speed > 0 else math.inf
    return {
        "ObjectsTotal": tally.objects,
        "ObjectsDone": tally.objects_done,
        "ObjectsFailed": tally.objects_failed,
        "RecordsDone": tally.records_done,
        "RecordsFailed": tally.records_failed,
        "BytesTotal": tally.bytes,
        "BytesDone": min(tally.bytes_done, tally.bytes),
        "RecordsPerSecond": round(max(records, 0.0), 1),
        "SecondsLeft": round(seconds, 1) if math.isfinite(seconds) else None,
        "ErrorsLocation": errors_url if tally.records_failed else "",
    }
