"""What asynchronous calls come to, decided without running any."""

from __future__ import annotations

from typing import Any

import pytest

from serving import errors
from serving.errors import ServingError, ValidationError
from serving.jobs import notices
from serving.jobs.async_calls import (
    MOST_RESCUES,
    MOST_STRIKES,
    Again,
    Failed,
    Outcome,
    check_input,
    failure,
    given_up,
    outcome_of,
    pause_of,
    places,
    states_of,
    verdict,
)
from serving.jobs.work import Work

NOW = 1_789_000_000.0


def work(**more: Any) -> Work:
    """A leased work, received a second ago."""
    body = {
        "endpoint": "e",
        "ttl": 100,
        "timeout": 60,
        "output": "s3://b/out/7.out",
        "failure": "",
        "input": "s3://b/i",
    }
    body |= more.pop("body", {})
    usual: dict[str, Any] = {
        "id": 1, "name": "7", "lane": "async/e", "state": "leased", "priority": 5, "label": "inf", "payload": b"",
        "attempt": 1, "deaths": 0, "owner": "o", "progress": None, "outcome": None, "answer": b"", "queued": NOW - 1,
        "due": 0.0, "expires": 0.0, "created": NOW - 1, "started": NOW, "finished": None,
    }  # fmt: skip
    return Work(body=body, **{**usual, **more})


def struck(error: ServingError, strikes: int) -> ServingError:
    """An answer after workers ended."""
    error.strikes = strikes
    return error


# --- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "extension", "filename", "expected"),
    [
        ("s3://b/out", "", "", "s3://b/out/7.out"),
        ("s3://b/out/", "", "", "s3://b/out/7.out"),
        ("s3://b", "", "", "s3://b/7.out"),
        ("s3://b/out", "a/b", "", "s3://b/out/a/b/7.out"),
        ("s3://b/out", "/a/", "x.json", "s3://b/out/a/x.json"),
        ("s3://b/out", "", "x.json", "s3://b/out/x.json"),
    ],
)
def test_an_output_lies_beneath_the_configured_path(output: str, extension: str, filename: str, expected: str) -> None:
    """The extension is a path below it, and the file name takes the place of ID.out."""
    assert expected == places(output, "", "7", extension, filename).output


@pytest.mark.parametrize("extension", ["..", "a/../../b", "a//b", ".", "a/./b", "x" * 300])
def test_nothing_leads_out_of_the_configured_path(extension: str) -> None:
    """What is no plain name is refused when the call is taken."""
    with pytest.raises(ValidationError, match="output location"):
        places("s3://b/out", "", "7", extension)


def test_a_failure_has_the_id_in_its_name() -> None:
    """Whatever the caller calls the output."""
    assert "s3://b/bad/7-error.out" == places("s3://b/out", "s3://b/bad/", "7", "a", "x.json").failure


@pytest.mark.parametrize(
    "url", ["https://b/k", "s3://b", "s3://b/", "s3://b/k/", "s3:///k", "s3://b/../k", "/etc/passwd"]
)
def test_an_input_is_an_object_of_the_store(url: str) -> None:
    """Nothing else is fetched."""
    with pytest.raises(ValidationError):
        check_input(url)


def test_statuses_are_those_people_see() -> None:
    """A job that waits for its next try is queued."""
    assert {"queued", "waiting"} == set(states_of("Queued"))
    assert [] == states_of("")
    with pytest.raises(ValidationError, match="Completed"):
        states_of("done")


# --- what an attempt came to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (errors.PredictionFailed("it burst"), "Received server error (500) from model.", "it burst"),
        (errors.ModelError("no", 503), "Received server error (503) from model.", "no"),
        (errors.BadInput("not CSV"), "Received client error (400) from model.", "not CSV"),
        (errors.InvocationTimedOut("Your invocation timed out"), "Your invocation timed out", "timed out"),
        (errors.UnknownVariant("Variant v not found."), "Variant v not found.", "Variant v not found."),
    ],
)
def test_a_container_s_error_is_the_end(error: ServingError, reason: str, text: str) -> None:
    """It is not tried again; the reason is in SageMaker's words, the text in the container's."""
    found = verdict(work(), error, NOW)
    assert isinstance(found, Failed)
    assert found.reason.startswith(f"ClientError: {reason}")
    assert text in found.text
    assert "invocation" == found.cause


@pytest.mark.parametrize(
    "error",
    [
        errors.ServiceUnavailable("no worker"),
        errors.Throttled("full", retry_after=3.0),
        errors.Quarantined("another call's model", retry_after=3.0),
        errors.ModelNotReady("loading"),
    ],
)
def test_what_is_nobody_s_fault_is_tried_again(error: ServingError) -> None:
    """As late as the error says; the endpoint's other calls need not be tried meanwhile."""
    found = verdict(work(attempt=50), error, NOW)
    assert isinstance(found, Again)
    assert getattr(error, "retry_after", 30.0) == found.pause
    assert found.others_too
    assert found.progress is None


def test_a_call_of_one_of_many_models_waits_alone() -> None:
    """Those of other models go on."""
    found = verdict(work(body={"target_model": "m"}), errors.Quarantined("m", retry_after=3.0), NOW)
    assert isinstance(found, Again)
    assert not found.others_too


def test_strikes_are_kept_from_try_to_try() -> None:
    """A call that was put off after its second worker ended has one left."""
    found = verdict(work(progress={"strikes": 1}), struck(errors.Quarantined("q", retry_after=1.0), 2), NOW)
    assert isinstance(found, Again)
    assert {"strikes": 2} == found.progress


@pytest.mark.parametrize(
    "error", [struck(errors.WorkerDied("again"), 3), errors.WorkerDied("again"), struck(errors.Quarantined("q"), 3)]
)
def test_three_workers_are_enough(error: ServingError) -> None:
    """It is given up, whatever the answer was."""
    found = verdict(work(), error, NOW)
    assert isinstance(found, Failed)
    assert "3 times" in found.reason


def test_a_work_that_has_ended_its_workers_is_not_run_again() -> None:
    """Nor one under which the whole server ended again and again; a few times are not held against it."""
    assert given_up(work(progress={"strikes": MOST_STRIKES})) is not None
    assert given_up(work(deaths=MOST_RESCUES)) is not None
    assert given_up(work(deaths=MOST_RESCUES - 1, progress={"strikes": MOST_STRIKES - 1})) is None


def test_an_object_store_that_is_away_is_waited_for() -> None:
    """As long as the request may wait, by the queue's clock; what is not there, or not for us, is not."""
    away = errors.ObjectUnavailable("away")
    assert isinstance(verdict(work(), away, NOW), Again)
    assert isinstance(verdict(work(created=NOW - 86_400.0), away, NOW), Again)
    for late in (
        verdict(work(), away, NOW + 100),
        verdict(work(), errors.ObjectMissing("There is no such object."), NOW),
        verdict(work(), errors.ObjectUnavailable("denied", transient=False), NOW),
    ):
        assert isinstance(late, Failed)
        assert "download" == late.cause
        assert late.reason.startswith("ClientError: The input could not be read.")


def test_pauses_grow_to_half_a_minute() -> None:
    """And no further."""
    assert [0.5, 1.0, 2.0, 30.0] == [pause_of(tries) for tries in (1, 2, 3, 100_000)]


def test_an_outcome_comes_back_from_its_row() -> None:
    """All of it."""
    outcome = Outcome("Completed", "", "s3://b/7.out", "text/csv", 5, "file", "v", "")
    assert outcome == outcome_of(work(outcome=outcome.row()))


# --- notices ----------------------------------------------------------------------------------------------------------

DONE = Outcome("Completed", "", "s3://b/out/7.out", "text/csv; charset=utf-8", 5, variant="v")
TOPICS = {"success_topic": "http://hooks/good", "error_topic": "http://hooks/bad", "received": NOW - 0.153}


def test_a_success_is_told_in_the_documented_words() -> None:
    """behaviour/03, Notifications."""
    done = work(body={**TOPICS, "content_type": "text/csv", "inference_id": "1111"})
    (notice,) = notices.of_result(done, DONE, b"0.5", "eu-west-1", NOW)
    assert "http://hooks/good" == notice.body["topic"]
    assert {
        "awsRegion": "eu-west-1",
        "eventTime": "2026-09-10T00:26:40.000Z",
        "receivedTime": "2026-09-10T00:26:39.847Z",
        "invocationStatus": "Completed",
        "requestParameters": {"contentType": "text/csv", "endpointName": "e", "inputLocation": "s3://b/i"},
        "responseParameters": {"contentType": "text/csv; charset=utf-8", "outputLocation": "s3://b/out/7.out"},
        "inferenceId": "1111",
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    } == notice.body["message"]


def test_a_failure_is_told_in_the_documented_words() -> None:
    """The same envelope; where a failure path is configured, with the object's place, which public clients read."""
    failed = verdict(work(), errors.PredictionFailed("it burst"), NOW)
    assert isinstance(failed, Failed)
    for location in ("", "s3://b/bad/7-error.out"):
        one = work(body={**TOPICS, "inference_id": "1111", "failure": location})
        (notice,) = notices.of_result(one, failure(one, failed, "v"), b"it burst", "eu-west-1", NOW)
        assert "http://hooks/bad" == notice.body["topic"]
        assert {
            "awsRegion": "eu-west-1",
            "eventTime": "2026-09-10T00:26:40.000Z",
            "receivedTime": "2026-09-10T00:26:39.847Z",
            "invocationStatus": "Failed",
            "failureReason": "ClientError: Received server error (500) from model. See the SageMaker Endpoint logs in "
            "your account for more information.",
            "requestParameters": {"endpointName": "e", "inputLocation": "s3://b/i"},
            "inferenceId": "1111",
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        } | ({"failureLocation": location} if location else {}) == notice.body["message"]


def test_nobody_is_told_without_a_topic() -> None:
    """Either may be absent."""
    assert [] == notices.of_result(work(body={"error_topic": "http://h/x"}), DONE, b"", "r", NOW)


@pytest.mark.parametrize(("size", "included"), [(0, True), (128 * 1024, True), (128 * 1024 + 1, False)])
def test_a_small_response_is_included_when_it_is_wanted(size: int, included: bool) -> None:
    """In SageMaker's form, base64."""
    wanted = work(body={**TOPICS, "include_response": ["SUCCESS_NOTIFICATION_TOPIC"]})
    (notice,) = notices.of_result(wanted, DONE, b"x" * size, "r", NOW)
    assert included == ("responseBody" in notice.body["message"])
    if size == 0:
        assert "" == notice.body["message"]["responseBody"]["content"]
        assert "BASE64" == notice.body["message"]["responseBody"]["encoding"]
    unwanted = work(body={**TOPICS, "include_response": ["ERROR_NOTIFICATION_TOPIC"]})
    (notice,) = notices.of_result(unwanted, DONE, b"x", "r", NOW)
    assert "responseBody" not in notice.body["message"]


def test_a_notice_has_one_name_for_good() -> None:
    """Made twice it is put once: the queue knows works by their names."""
    done = work(body=TOPICS)
    first, second = (notices.of_result(done, DONE, b"", "r", now)[0].name for now in (NOW, NOW + 5))
    assert first == second


def test_a_test_notice_goes_to_each_topic_once() -> None:
    """One that serves for both gets one."""
    both = {"success_topic": "http://h/x", "error_topic": "http://h/x"}
    (only,) = notices.of_test("e", both, "1.0")
    message = {"eventVersion": "1.0", "eventSource": "aws:sagemaker", "eventName": "TestNotification"}
    assert message == only.body["message"]
    assert 2 == len(notices.of_test("e", {**both, "error_topic": "http://h/y"}, "1.0"))
    assert [] == notices.of_test("e", {"success_topic": "", "error_topic": ""}, "1.0")
