"""The decisions of a transform job: values in, values out."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import (
    BY_NAME,
    BadInput,
    InvocationTimedOut,
    LoadFailed,
    ModelError,
    NotAcceptable,
    ObjectUnavailable,
    PredictionFailed,
    Quarantined,
    ServiceUnavailable,
    ServingError,
    Throttled,
    ValidationError,
    WorkerDied,
)
from serving.jobs.patience import is_passing, pause_after
from serving.jobs.transform_plan import (
    MB,
    NOT_READY_SECONDS,
    Meter,
    Step,
    Tally,
    after_failure,
    clipped,
    ending,
    is_nonsense,
    most_bad,
    progress,
    retries_of_part,
    seconds_for,
    terms,
)

ERRORS = "s3://out/j-errors.jsonl"


def row(**members: Any) -> dict[str, Any]:
    """A row of the routing table's ``transforms``."""
    job = {
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://in/"}}},
        "TransformOutput": {"S3OutputPath": "s3://out/"},
        **members,
    }
    return {"name": "j", "created": 7.0, "instances": 2, "job": job}


def test_what_a_job_leaves_open_has_sagemakers_defaults() -> None:
    """And requests are of a megabyte where the job leaves their size open."""
    found = terms(row())
    assert ("None", "MultiRecord", "None", 6 * MB, MB, 8, 600.0, 3, 0) == (
        *(found.split, found.strategy, found.compression, found.most_bytes, found.usual_bytes, found.concurrency),
        *(found.timeout, found.retries, found.most_bad),
    )


def test_what_a_job_says_is_so() -> None:
    """MaxConcurrentTransforms is each instance's; a limit of 0 is none; errors lie beside the outputs."""
    client = {"InvocationsTimeoutInSeconds": 5, "InvocationsMaxRetries": 0}
    found = terms(row(MaxConcurrentTransforms=3, MaxPayloadInMB=0, ModelClientConfig=client))
    assert (6, True, 5.0, 0) == (found.concurrency, found.is_mapped, found.timeout, found.retries)
    assert ERRORS == found.errors_url


def test_no_limit_is_one_for_what_has_to_be_in_memory() -> None:
    """A single line of any size would not be bounded memory: the largest payload is SageMaker's, 100 MB."""
    split = {"SplitType": "Line", **row()["job"]["TransformInput"]}
    found = terms(row(MaxPayloadInMB=0, TransformInput=split))
    assert (100 * MB, False) == (found.most_bytes, found.is_mapped)


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("5", 5), ("-1", 0), ("many", 0), ("9" * 40, 10**9)])
def test_bad_records_that_are_put_up_with(text: str, expected: int) -> None:
    """A number from the job's environment; anything else is none."""
    assert expected == most_bad(text)


@pytest.mark.parametrize(
    ("error", "failures", "expected"),
    [
        (InvocationTimedOut("late"), 0, Step("again", 1.0)),
        (PredictionFailed("raised"), 1, Step("again", 2.0)),
        (ModelError("busy", 429), 2, Step("again", 4.0)),
        (PredictionFailed("raised"), 3, Step("split")),
        (InvocationTimedOut("late"), 3, Step("object")),
        (BadInput("row 3 is text"), 0, Step("split")),
        (ModelError("teapot", 418), 0, Step("split")),
        (WorkerDied("thrice"), 0, Step("split")),
        (NotAcceptable("no such type"), 0, Step("object")),
        (ValidationError("no such variant"), 0, Step("object")),
        (LoadFailed("damaged"), 0, Step("job")),
        (Quarantined("for 5 s"), 9, Step("wait", 1.0)),
        (Throttled("full", 0.2), 9, Step("wait", 0.2)),
        (ServiceUnavailable("no worker"), 0, Step("wait", 1.0)),
    ],
)
def test_what_follows_a_failed_call(error: ServingError, failures: int, expected: Step) -> None:
    """Timeouts, 5xx and 429 are retried after 1, 2, 4 s; other 4xx are not; to wait for a worker does not count."""
    assert expected == after_failure(error, failures, 3, 0.0)


@pytest.mark.parametrize(
    ("timeout", "running", "expected"), [(2, 0, 2), (2, 1, 2), (2, 2, 4), (2, 7, 8), (600, 7, 615)]
)
def test_a_call_is_not_charged_for_those_before_it(timeout: int, running: int, expected: float) -> None:
    """Of two instances, each with half of the calls in flight. It waits for none of them longer than 5 s."""
    found = terms(row(ModelClientConfig={"InvocationsTimeoutInSeconds": timeout}))
    assert expected == seconds_for(found, running)


@pytest.mark.parametrize(
    ("error", "records", "bad", "expected"),
    [
        (ModelError("busy", 429), 7, 900, 3),
        (ModelError("starting", 503), 7, 900, 3),
        (InvocationTimedOut("late"), 7, 900, 3),
        (PredictionFailed("raised"), 7, 0, 0),
        (PredictionFailed("raised"), 1, 0, 1),
        (PredictionFailed("raised"), 1, 20, 0),
    ],
)
def test_retries_of_a_part(error: ServingError, records: int, bad: int, expected: int) -> None:
    """What passes by itself is retried whatever the size; one that the model raised on, alone and once."""
    assert expected == retries_of_part(error, 3, records, bad)
    assert 0 == retries_of_part(error, 0, records, bad)


def test_nobody_waits_for_a_worker_for_ever() -> None:
    """Then the job ends, and says what it was waiting for."""
    assert Step("job") == after_failure(ServiceUnavailable("no worker"), 0, 3, NOT_READY_SECONDS + 1)


@given(st.sampled_from(sorted(BY_NAME)), st.integers(0, 3))
def test_every_error_has_an_end(name: str, retries: int) -> None:
    """Whatever the answer, it is not asked for again without end."""
    error, failures, waited = BY_NAME[name]("no"), 0, 0.0
    for _ in range(2000):
        step = after_failure(error, failures, retries, waited)
        if step.what not in ("again", "wait"):
            return
        failures += step.what == "again"
        waited += step.pause if step.what == "wait" else 0.0
    pytest.fail(f"{name} is tried for ever")


@pytest.mark.parametrize(
    ("bad", "tried", "deadly", "tolerated", "expected"),
    [
        (1000, 1000, 0, 0, False),
        (1001, 1001, 0, 0, True),
        (1001, 100_000, 0, 0, False),
        (1001, 1001, 0, 5000, False),
        (11, 10_000, 11, 0, True),
    ],
)
def test_nonsense_is_given_up(bad: int, tried: int, deadly: int, tolerated: int, expected: bool) -> None:
    """More than a thousand bad records and a fifth of all, or more than ten that each end workers."""
    assert expected is is_nonsense(bad, tried, deadly, tolerated)


def test_a_job_is_completed_only_when_everything_is() -> None:
    """Or when no more records failed than it puts up with."""
    assert ("Completed", "") == ending(Tally(objects=2, objects_done=2, records_done=9), 0, ERRORS)
    holes = Tally(
        objects=2, objects_done=2, objects_bad=1, records_done=9, records_failed=1, first_bad="a, record 3: x"
    )
    assert ("Completed", "") == ending(holes, 1, ERRORS)
    expected = "1 of 10 records failed, in 1 of 2 objects; the first: a, record 3: x. All bad records: " + ERRORS
    assert ("Failed", expected) == ending(holes, 0, ERRORS)
    lost = Tally().with_object(5, 0, 0, "", "s3://in/a: not gzip")
    expected = "1 of 1 object failed and got no output; the first: s3://in/a: not gzip."
    assert ("Failed", expected) == ending(Tally(**{**_values(lost), "objects": 1}), 0, ERRORS)


def _values(tally: Tally) -> dict[str, Any]:
    return {name: getattr(tally, name) for name in Tally.__slots__}


@given(st.text(max_size=3000))
def test_a_reason_fits_into_sagemakers_field(text: str) -> None:
    """1,024 characters, with the errors' URL at its end."""
    holes = Tally(objects=1, objects_done=1, objects_bad=1, records_failed=1, first_bad=text)
    reason = ending(holes, 0, ERRORS).reason
    assert len(reason) <= 1024
    assert reason.endswith(ERRORS)
    assert len(clipped(text)) <= 1024


def test_progress_tells_rate_and_time_left() -> None:
    """By what was done lately; nobody knows the time left while nothing is."""
    meter, tally = Meter(), Tally(objects=2, bytes=100, bytes_done=50, records_done=5)
    meter.look(0.0, 0, 0)
    meter.look(5.0, 5, 50)
    found = progress(tally, meter, ERRORS)
    assert (1.0, 5.0, "") == (found["RecordsPerSecond"], found["SecondsLeft"], found["ErrorsLocation"])
    for at in range(30):
        meter.look(6.0 + at, 5, 50)
    found = progress(tally, meter, ERRORS)
    assert (0.0, None) == (found["RecordsPerSecond"], found["SecondsLeft"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EIO, "broken"), False),
        (ObjectUnavailable("unreachable"), True),
        (ObjectUnavailable("denied", transient=False), False),
        (ServiceUnavailable("the queue's disk is full"), True),
    ],
)
def test_what_passes_by_itself_is_waited_for(error: Exception, expected: bool) -> None:
    """A full disk does, a broken one does not."""
    assert expected is is_passing(error)


def test_pauses_grow_to_a_quarter_of_a_minute() -> None:
    """So that whoever waits for a disk costs nothing, and does not sleep through its being there again."""
    assert [0.25, 0.5, 1.0, 15.0, 15.0] == [pause_after(count) for count in (1, 2, 3, 8, 10_000)]
