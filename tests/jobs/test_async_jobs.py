"""Asynchronous calls from submission to their end: a real queue, real workers, real files, in one process."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import (
    Conflict,
    ObjectUnavailable,
    ResourceNotFound,
    UnknownEndpoint,
    ValidationError,
)
from serving.jobs import async_consumers, async_ends, queue
from serving.jobs.async_ends import EndingConsumer
from serving.jobs.work import NewWork
from tests.jobs.workshop import Workshop

TOPICS = {"success_topic": "http://hooks/good", "error_topic": "http://hooks/bad"}
EVERYTHING = ("SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC")

_names = (f"e{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One for all that leave it whole; every test has an endpoint of its own."""
    made = Workshop(tmp_path_factory.mktemp("shop"))
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Workshop]:
    """One to stop, kill and start again."""
    made = Workshop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """A new endpoint's name."""
    return next(_names)


def notices_of(shop: Workshop, endpoint: str) -> list[dict[str, Any]]:
    """What an endpoint's topics are told of results, oldest first."""
    told = [work.body for work in shop.messages() if work.body["endpoint"] == endpoint]
    return [dict(one["message"]) for one in told if one["message"]["eventName"] == "InferenceResult"]


# --- ends -------------------------------------------------------------------------------------------------------------


def test_an_answer_becomes_an_object(shop: Workshop, name: str) -> None:
    """At the place that was promised, with nothing at the other."""
    shop.endpoint(name)
    taken = shop.submit(name, b"echo hello", inference_id="mine")
    status = shop.ended(name, taken["Id"])
    assert "Completed" == status["Status"]
    assert b"answer to echo hello" == shop.object(taken["OutputLocation"])
    assert shop.object(taken["FailureLocation"]) is None
    assert f"s3://bucket/{name}/out/{taken['Id']}.out" == taken["OutputLocation"]
    assert ("mine", "mine") == (taken["InferenceId"], status["InferenceId"])
    assert ("text/plain", 20, 1) == (status["ContentType"], status["Size"], status["Attempts"])
    assert status["CreationTime"] <= status["StartTime"] <= status["EndTime"]


def test_a_container_s_error_becomes_a_failure_object(shop: Workshop, name: str) -> None:
    """It holds the container's text, and nothing is tried again."""
    shop.endpoint(name)
    taken = shop.submit(name, b"fail " + name.encode())
    status = shop.ended(name, taken["Id"])
    assert "Failed" == status["Status"]
    assert status["FailureReason"].startswith("ClientError: Received server error (500) from model.")
    assert f"this model does not like {name}" in (shop.object(taken["FailureLocation"]) or b"").decode()
    assert shop.object(taken["OutputLocation"]) is None
    assert 1 == shop.begun().count(f"fail {name}")
    assert 1.0 == shop.metric("sagemaker_invocation_failures_total", name, "AllTraffic")


def test_without_a_failure_path_only_the_status_tells(shop: Workshop, name: str) -> None:
    """As SageMaker's."""
    shop.endpoint(name, failure="")
    taken = shop.submit(name, b"fail")
    assert "" == taken["FailureLocation"]
    assert "Failed" == shop.ended(name, taken["Id"])["Status"]
    assert [] == shop.objects_in(f"s3://bucket/{name}/")


def test_an_input_is_read_when_its_turn_comes(shop: Workshop, name: str) -> None:
    """From the object store."""
    shop.endpoint(name)
    shop.objects.put("s3://bucket/in/a.csv", b"echo from afar")
    status = shop.result(name, b"", input="s3://bucket/in/a.csv")
    assert b"answer to echo from afar" == shop.object(status["OutputLocation"])
    assert "s3://bucket/in/a.csv" == status["InputLocation"]


def test_a_large_input_and_a_large_answer_are_whole(shop: Workshop, name: str) -> None:
    """Sixty-four megabytes in, four out."""
    shop.endpoint(name)
    shop.objects.put("s3://bucket/in/large", b"size 4000000" + b" " * (64 * 2**20))
    status = shop.result(name, b"", input="s3://bucket/in/large")
    assert ("Completed", 4_000_000) == (status["Status"], status["Size"])
    assert b"x" * 4_000_000 == shop.object(status["OutputLocation"])
    assert [] == list(shop.objects.spool.glob("async-*"))


def test_a_large_payload_waits_in_the_spool(shop: Workshop, name: str) -> None:
    """And is gone when its job has ended."""
    shop.endpoint(name, count=0)
    taken = shop.submit(name, b"size 5" + b" " * 300_000)
    assert [f"async-{taken['Id']}.in"] == [path.name for path in shop.objects.spool.glob("async-*")]
    shop.endpoint(name, count=1)
    assert "Completed" == shop.ended(name, taken["Id"])["Status"]
    shop.eventually(lambda: not list(shop.objects.spool.glob("async-*")))


def test_an_input_that_is_not_there_is_the_end(shop: Workshop, name: str) -> None:
    """With a failure object that says so."""
    shop.endpoint(name, **TOPICS)
    taken = shop.submit(name, b"", input="s3://bucket/in/nothing")
    status = shop.ended(name, taken["Id"])
    assert "Failed" == status["Status"]
    assert "The input could not be read." in status["FailureReason"]
    assert b"nothing" in (shop.object(taken["FailureLocation"]) or b"")
    assert 1.0 == shop.metric("sagemaker_request_download_failures_total", name, "AllTraffic")
    assert ["Failed"] == [one["invocationStatus"] for one in notices_of(shop, name)]


def test_an_input_beyond_a_gigabyte_is_refused(shop: Workshop, name: str) -> None:
    """SageMaker's limit; nothing of it is read."""
    shop.endpoint(name)
    path = shop.folder / "s3" / "bucket" / "in" / "huge"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    assert "at most 1073741824" in shop.result(name, b"", input="s3://bucket/in/huge")["FailureReason"]


def test_a_call_that_takes_too_long_fails(shop: Workshop, name: str, tmp_path: Path) -> None:
    """InvocationTimeoutSeconds; a model that never comes back costs its worker then, and not an hour later."""
    shop.endpoint(name, concurrency=2)
    status = shop.result(name, f"wait {tmp_path / 'never'}".encode(), timeout=0.3)
    assert "Failed" == status["Status"]
    assert "timed out" in status["FailureReason"]
    assert "Completed" == shop.result(name)["Status"]
    assert 1.0 == shop.metric("sagemaker_worker_deaths_total", name, "AllTraffic")


def test_jobs_that_end_their_workers_three_times_fail_and_their_neighbours_do_not(shop: Workshop, name: str) -> None:
    """Though they are predicted together with them, and wait out the quarantine they bring, which does not grow."""
    shop.endpoint(name, count=0, concurrency=16)
    good = [shop.submit(name, f"echo {number}".encode()) for number in range(4)]
    poison = [shop.submit(name, b"die") for _ in range(2)]
    good += [shop.submit(name, f"echo {number}".encode()) for number in range(4, 8)]
    shop.endpoint(name, count=1, wait=False)
    for one in poison:
        assert "3 times" in shop.ended(name, one["Id"])["FailureReason"]
        assert shop.object(one["FailureLocation"]) is not None
    assert 5 <= (shop.metric("sagemaker_worker_deaths_total", name, "AllTraffic") or 0)
    for number, one in enumerate(good):
        assert "Completed" == shop.ended(name, one["Id"])["Status"]
        assert f"answer to echo {number}".encode() == shop.object(one["OutputLocation"])


def test_what_the_store_refuses_for_good_fails_the_job(shop: Workshop, name: str) -> None:
    """Its failure object says so, if that is let in."""
    shop.endpoint(name, **TOPICS)
    shop.objects.trouble = f"{name}/out", ObjectUnavailable("Access denied.", transient=False)
    taken = shop.submit(name)
    status = shop.ended(name, taken["Id"])
    shop.objects.trouble = None
    assert "Failed" == status["Status"]
    assert "could not be uploaded. Access denied." in status["FailureReason"]
    assert b"Access denied" in (shop.object(taken["FailureLocation"]) or b"")
    assert 1.0 == shop.metric("sagemaker_response_upload_failures_total", name, "AllTraffic")
    assert ["Failed"] == [one["invocationStatus"] for one in notices_of(shop, name)]


def test_a_store_that_is_away_is_waited_for_and_nothing_run_again(shop: Workshop, name: str) -> None:
    """A full disk is the same to us."""
    shop.endpoint(name)
    shop.objects.trouble = name, ObjectUnavailable("The disk is full.")
    taken = shop.submit(name, b"echo once " + name.encode())
    shop.eventually(lambda: f"echo once {name}" in shop.begun())
    shop.eventually(lambda: shop.ask(lambda session: session.get(taken["Id"])).state == "decided")
    assert "InProgress" == shop.do(shop.door.status({"endpoint": name, "id": taken["Id"]}))["Status"]
    assert [] == shop.objects_in(f"s3://bucket/{name}/")
    shop.objects.trouble = None
    assert "Completed" == shop.ended(name, taken["Id"])["Status"]
    assert 1 == shop.begun().count(f"echo once {name}")


# --- order and measure ------------------------------------------------------------------------------------------------


def test_jobs_start_in_the_order_of_arrival_within_their_priority(shop: Workshop, name: str) -> None:
    """0 goes first."""
    shop.endpoint(name, count=0, concurrency=1)
    ids = [
        shop.submit(name, f"echo {name} {number}".encode(), priority=priority)["Id"]
        for number, priority in enumerate([5, 5, 0, 9, 5, 0])
    ]
    assert [2, 3, 0, 5, 4, 1] == [
        shop.do(shop.door.status({"endpoint": name, "id": id}))["QueuePosition"] for id in ids
    ]
    shop.endpoint(name, count=1)
    for id in ids:
        shop.ended(name, id)
    assert [f"echo {name} {number}" for number in (2, 5, 0, 1, 4, 3)] == [one for one in shop.begun() if name in one]


def test_a_worker_gets_no_more_calls_than_are_allowed(shop: Workshop, name: str, tmp_path: Path) -> None:
    """MaxConcurrentInvocationsPerInstance, for each of two."""
    shop.endpoint(name, count=2, concurrency=2)
    gate = tmp_path / "gate"
    ids = [shop.submit(name, f"wait {gate}".encode())["Id"] for _ in range(6)]

    def states() -> list[str]:
        return [shop.do(shop.door.status({"endpoint": name, "id": id}))["Status"] for id in ids]

    shop.eventually(lambda: states().count("InProgress") == 4)
    pools = shop.directory.endpoints[name].pools.values()
    assert [2, 2] == [channel.outstanding for pool in pools for channel in pool.ready]
    assert ["Queued", "Queued"] == states()[4:]
    gate.touch()
    for id in ids:
        assert "Completed" == shop.ended(name, id)["Status"]


def test_several_variants_share_one_queue_by_weight(shop: Workshop, name: str, tmp_path: Path) -> None:
    """And none gets more calls at a time than its instances may have, though the other has room."""
    shop.endpoint(name, concurrency=2, weights={"a": 1.0, "b": 1e-9})
    gate = tmp_path / "gate"
    ids = [shop.submit(name, f"wait {gate}".encode())["Id"] for _ in range(5)]

    def states() -> list[str]:
        return [shop.do(shop.door.status({"endpoint": name, "id": id}))["Status"] for id in ids]

    shop.eventually(lambda: states().count("InProgress") == 2)
    pools = {pool.variant: pool.pending for pool in shop.directory.endpoints[name].pools.values()}
    assert {"a": 2, "b": 0} == pools
    gate.touch()
    for id in ids:
        assert "Completed" == shop.ended(name, id)["Status"]
    assert 5.0 == shop.metric("sagemaker_invocations_processed_total", name, "a")


def test_without_an_instance_jobs_wait_and_the_metrics_say_so(shop: Workshop, name: str) -> None:
    """HasBacklogWithoutCapacity wakes an endpoint that was scaled to zero."""
    shop.endpoint(name, count=0)
    taken = [shop.submit(name) for _ in range(3)]
    shop.eventually(lambda: shop.metric("sagemaker_approximate_backlog_size", name) == 3.0)
    assert 1.0 == shop.metric("sagemaker_has_backlog_without_capacity", name)
    assert math.isnan(shop.metric("sagemaker_approximate_backlog_size_per_instance", name) or 0.0)
    assert {"queued"} == {shop.ask(lambda session, id=one["Id"]: session.get(id)).state for one in taken}
    shop.endpoint(name, count=1)
    for one in taken:
        assert "Completed" == shop.ended(name, one["Id"])["Status"]
    shop.eventually(lambda: shop.metric("sagemaker_approximate_backlog_size", name) == 0.0)
    assert 0.0 == shop.metric("sagemaker_has_backlog_without_capacity", name)
    assert 0.0 == shop.metric("sagemaker_approximate_age_of_oldest_request_seconds", name)
    assert 3.0 == shop.metric("sagemaker_invocations_processed_total", name, "AllTraffic")


def test_a_request_expires_in_the_queue(shop: Workshop, name: str) -> None:
    """RequestTTLSeconds, on the queue's clock; the end is told, and counted twice."""
    shop.endpoint(name, count=0, **TOPICS)
    taken = shop.submit(name, ttl=60, content_type="")
    shop.skew += 61
    shop.do(shop.consumers.sweep())
    status = shop.ended(name, taken["Id"])
    assert "Expired" == status["Status"]
    assert "60 s (RequestTTLSeconds)" in status["FailureReason"]
    shop.eventually(lambda: b"expired" in (shop.object(taken["FailureLocation"]) or b""))
    shop.eventually(lambda: len(notices_of(shop, name)) == 1)
    assert 1.0 == shop.metric("sagemaker_expired_requests_total", name, "AllTraffic")
    assert 1.0 == shop.metric("sagemaker_invocation_failures_total", name, "AllTraffic")


def test_many_expire_at_once(own: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one transaction ends: none has to wait for the next sweep."""
    monkeypatch.setattr(async_ends, "MOST_EXPIRED", 2)
    monkeypatch.setattr(async_consumers, "MOST_EXPIRED", 2)
    own.endpoint("e", count=0)
    taken = [own.submit("e", ttl=60) for _ in range(7)]
    own.skew += 61
    own.do(own.consumers.sweep())
    assert {"Expired"} == {own.do(own.door.status({"endpoint": "e", "id": one["Id"]}))["Status"] for one in taken}


# --- submitting -------------------------------------------------------------------------------------------------------


def test_a_repeated_submission_is_the_same_job(shop: Workshop, name: str) -> None:
    """By its id, or by what the client repeats: the first one's places are answered, and it runs once."""
    shop.endpoint(name)
    first = shop.submit(name, f"echo {name}".encode(), repeat="key", fingerprint="f")
    again = shop.submit(name, f"echo {name}".encode(), repeat="key", fingerprint="f", inference_id="other")
    by_id = shop.submit(name, f"echo {name}".encode(), id=first["Id"], fingerprint="f")
    assert not first.pop("Again")
    assert first | {"Again": True} == again == by_id
    shop.ended(name, first["Id"])
    assert 1 == shop.begun().count(f"echo {name}")


def test_a_key_is_not_for_two_requests(shop: Workshop, name: str) -> None:
    """The second would be lost without a word."""
    shop.endpoint(name, count=0)
    shop.submit(name, repeat="key", fingerprint="one")
    with pytest.raises(Conflict, match="another request"):
        shop.submit(name, repeat="key", fingerprint="two")


def test_a_key_is_for_one_endpoint(shop: Workshop, name: str) -> None:
    """The same key elsewhere is another job."""
    other = next(_names)
    shop.endpoint(name, count=0)
    shop.endpoint(other, count=0)
    assert shop.submit(name, repeat="key")["Id"] != shop.submit(other, repeat="key")["Id"]


def test_a_repeat_leaves_no_file_behind(shop: Workshop, name: str) -> None:
    """Large payloads included."""
    shop.endpoint(name, count=0)
    before = len(list(shop.objects.spool.glob("async-*")))
    for _ in range(3):
        shop.submit(name, b" " * 200_000, repeat="key")
    assert before + 1 == len(list(shop.objects.spool.glob("async-*")))
    shop.delete(name)
    shop.eventually(lambda: len(list(shop.objects.spool.glob("async-*"))) == before)


def test_what_cannot_come_to_anything_is_not_taken(shop: Workshop, name: str) -> None:
    """It is said at once."""
    shop.endpoint(name, count=0)
    for wrong in ({"extension": "../../models"}, {"input": "https://elsewhere/x"}, {"priority": 10}, {"priority": -1}):
        with pytest.raises(ValidationError):
            shop.submit(name, **wrong)
    with pytest.raises(UnknownEndpoint):
        shop.submit("nowhere")


def test_a_plain_endpoint_answers_later_if_asked_to(shop: Workshop, name: str) -> None:
    """Into a bucket of its own, without notices; and only if asked to."""
    shop.endpoint(name, asynchronous=False)
    with pytest.raises(ValidationError, match="not asynchronous"):
        shop.submit(name)
    status = shop.result(name, b"echo later", plain=True)
    assert f"s3://sagemaker-us-east-1-123456789012/async/{name}/{status['Id']}.out" == status["OutputLocation"]
    assert b"answer to echo later" == shop.object(status["OutputLocation"])
    assert [] == notices_of(shop, name)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_many_may_wait_for_one_job(shop: Workshop, name: str, tmp_path: Path) -> None:
    """All are told when it has ended, and nothing is kept of them; who leaves early leaves nothing either."""
    shop.endpoint(name)
    gate = tmp_path / "gate"
    id = shop.submit(name, f"wait {gate}".encode())["Id"]
    asked = {"endpoint": name, "id": id}
    waiting = [shop.begin(shop.door.status({**asked, "wait": 60})) for _ in range(8)]
    left = shop.begin(shop.door.status({**asked, "wait": 60}))
    assert shop.do(shop.door.status({**asked, "wait": 0.05}))["Status"] in ("Queued", "InProgress")
    shop.eventually(lambda: len(shop.consumers.means.ends) == 1)
    left.cancel()
    gate.touch()
    assert ["Completed"] * 8 == [one.result(30)["Status"] for one in waiting]
    assert 0 == len(shop.consumers.means.ends)


def test_a_job_is_found_by_its_inference_id(shop: Workshop, name: str) -> None:
    """The newest, as the id is the caller's and not unique; at its own endpoint only."""
    shop.endpoint(name, count=0)
    shop.submit(name, inference_id="mine")
    newest = shop.submit(name, inference_id="mine")["Id"]
    assert newest == shop.do(shop.door.status({"endpoint": name, "id": "mine"}))["Id"]
    other = next(_names)
    shop.endpoint(other, count=0)
    for id in ("mine", newest):
        with pytest.raises(ResourceNotFound):
            shop.do(shop.door.status({"endpoint": other, "id": id}))


def test_jobs_are_listed_in_pages(shop: Workshop, name: str) -> None:
    """Newest first, by status if wanted."""
    shop.endpoint(name, count=0)
    ids = [shop.submit(name)["Id"] for _ in range(5)]
    shop.do(shop.door.cancel({"endpoint": name, "id": ids[2]}))
    found, token = [], ""
    while token is not None:
        page = shop.do(shop.door.page({"endpoint": name, "most": 2, "token": token}))
        found += [one["Id"] for one in page["AsyncInvocations"]]
        token = page["NextToken"]
    assert ids[::-1] == found
    cancelled = shop.do(shop.door.page({"endpoint": name, "status": "Cancelled"}))["AsyncInvocations"]
    assert [ids[2]] == [one["Id"] for one in cancelled]
    for wrong in ({"token": "x"}, {"status": "Done"}):
        with pytest.raises(ValidationError):
            shop.do(shop.door.page({"endpoint": name, **wrong}))


def test_an_answer_is_read_in_pieces(shop: Workshop, name: str) -> None:
    """Once it is there."""
    shop.endpoint(name, count=0)
    asked = {"endpoint": name, "id": shop.submit(name, b"size 250000")["Id"]}
    with pytest.raises(ResourceNotFound, match="not ended"):
        shop.do(shop.door.read(asked))
    shop.endpoint(name, count=1)
    shop.ended(name, asked["id"])
    pieces, at = [], 0
    while not pieces or pieces[-1]:
        told, piece = shop.do(shop.door.read({**asked, "offset": at, "most": 100_000}))
        assert (at, 250_000) == (told["Offset"], told["Size"])
        pieces.append(piece)
        at += len(piece)
    assert b"x" * 250_000 == b"".join(pieces)


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled(shop: Workshop, name: str) -> None:
    """It never runs; its failure object and its notice say so."""
    shop.endpoint(name, count=0, **TOPICS)
    taken = shop.submit(name, f"echo {name}".encode())
    asked = {"endpoint": name, "id": taken["Id"]}
    assert "Cancelled" == shop.do(shop.door.cancel(asked))["Status"]
    assert "Cancelled" == shop.do(shop.door.cancel(asked))["Status"]
    shop.eventually(lambda: b"cancelled" in (shop.object(taken["FailureLocation"]) or b""))
    shop.eventually(lambda: len(notices_of(shop, name)) == 1)
    assert b"The request was cancelled." == shop.do(shop.door.read(asked))[1]
    shop.endpoint(name, count=1)
    shop.result(name, b"echo another")
    assert f"echo {name}" not in shop.begun()


def test_a_running_job_is_cancelled(shop: Workshop, name: str, tmp_path: Path) -> None:
    """Its place is free at once, and what its model says later is nobody's."""
    shop.endpoint(name, concurrency=1)
    gate = tmp_path / "gate"
    taken = shop.submit(name, f"wait {gate}".encode())
    next_one = shop.submit(name, b"echo next")
    shop.eventually(lambda: f"wait {gate}"[:85] in "\n".join(shop.begun()))
    assert "Cancelled" == shop.do(shop.door.cancel({"endpoint": name, "id": taken["Id"]}))["Status"]
    shop.eventually(
        lambda: shop.do(shop.door.status({"endpoint": name, "id": next_one["Id"]}))["Status"] == "InProgress"
    )
    gate.touch()
    assert b"answer to echo next" == shop.object(shop.ended(name, next_one["Id"])["OutputLocation"])
    assert shop.object(taken["OutputLocation"]) is None
    assert "Cancelled" == shop.ended(name, taken["Id"])["Status"]


def test_what_has_ended_stays_as_it_was(shop: Workshop, name: str) -> None:
    """Cancelling comes too late."""
    shop.endpoint(name)
    id = shop.result(name)["Id"]
    assert "Completed" == shop.do(shop.door.cancel({"endpoint": name, "id": id}))["Status"]
    with pytest.raises(ResourceNotFound):
        shop.do(shop.door.cancel({"endpoint": name, "id": "nothing"}))


def test_an_end_comes_about_though_the_queue_answered_too_late(
    own: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that stands still for longer than anybody waits: what was leased then is leased again."""
    url, ends = "s3://bucket/bad/7-error.out", EndingConsumer(own.consumers.means)
    left = NewWork("ending-7", "endings", {"location": url, "text": "over", "notices": [], "spooled": ""})
    own.ask(lambda session: session.put(left))
    gates, entered = (threading.Event(), threading.Event()), threading.Event()

    async def lease_between() -> list[asyncio.Future[bool]]:
        first = asyncio.ensure_future(own.thread.do(lambda _: entered.set() or gates[0].wait(30)))
        await asyncio.to_thread(entered.wait, 30)
        monkeypatch.setattr(queue, "_PATIENCE", 0.2)
        ends.start()
        await asyncio.sleep(0)  # it asks
        await asyncio.sleep(0)
        monkeypatch.setattr(queue, "_PATIENCE", 30.0)
        second = asyncio.ensure_future(own.thread.do(lambda _: gates[1].wait(30)))
        await asyncio.sleep(0)  # and is in one transaction with this
        gates[0].set()
        return [first, second]

    held = own.do(lease_between())
    own.eventually(lambda: "ends of asynchronous calls have to wait" in caplog.text)
    gates[1].set()
    own.eventually(lambda: own.object(url) == b"over")
    own.do(ends.rest())
    assert all(one.done() for one in held)


# --- endpoints that go ------------------------------------------------------------------------------------------------


def test_jobs_of_a_deleted_endpoint_come_to_their_end(shop: Workshop, name: str, tmp_path: Path) -> None:
    """Those under way too; one that is made anew begins with an empty queue."""
    shop.endpoint(name, concurrency=1, **TOPICS)
    running = shop.submit(name, f"wait {tmp_path / 'never'}".encode())
    shop.eventually(lambda: any(str(tmp_path)[:60] in one for one in shop.begun()))
    waiting = [shop.submit(name, f"echo {name}".encode()) for _ in range(3)]
    shop.delete(name)
    for one in (running, *waiting):
        assert "was deleted" in shop.ended(name, one["Id"])["FailureReason"]
        assert b"was deleted" in (shop.object(one["FailureLocation"]) or b"")
    shop.eventually(lambda: len(notices_of(shop, name)) == 4)
    with pytest.raises(UnknownEndpoint):
        shop.submit(name)
    shop.eventually(lambda: shop.metric("sagemaker_approximate_backlog_size", name) is None)
    shop.endpoint(name)
    assert "Completed" == shop.result(name, b"echo anew")["Status"]
    assert f"echo {name}" not in shop.begun()


# --- notices ----------------------------------------------------------------------------------------------------------


def test_topics_are_told_of_every_end_once(shop: Workshop, name: str) -> None:
    """In the documented words; with the response where it is wanted."""
    shop.endpoint(name, **TOPICS, include=EVERYTHING)
    good, bad = shop.submit(name, b"echo a", inference_id="i"), shop.submit(name, b"fail b")
    shop.ended(name, good["Id"])
    shop.ended(name, bad["Id"])
    told = {one["invocationStatus"]: one for one in notices_of(shop, name)}
    assert {"Completed", "Failed"} == set(told)
    assert 2 == len(notices_of(shop, name))
    assert {"contentType": "text/plain", "outputLocation": good["OutputLocation"]} == told["Completed"][
        "responseParameters"
    ]
    assert "i" == told["Completed"]["inferenceId"]
    assert "YW5zd2VyIHRvIGVjaG8gYQ==" == told["Completed"]["responseBody"]["content"]
    assert told["Failed"]["failureReason"].startswith("ClientError: Received server error (500)")
    assert bad["FailureLocation"] == told["Failed"]["failureLocation"]
    assert json.dumps(told)


def test_a_test_notice_is_sent_when_an_endpoint_is_made_or_changed(own: Workshop) -> None:
    """Not when a table is pushed for another reason, nor again after a restart."""

    def tests() -> list[str]:
        return [one.body["topic"] for one in own.messages() if one.body["message"]["eventName"] == "TestNotification"]

    own.endpoint("e", **TOPICS)
    own.eventually(lambda: sorted(tests()) == ["http://hooks/bad", "http://hooks/good"])
    own.endpoint("other")
    own.stop()
    own.restart()
    own.endpoint("e", **TOPICS)
    assert 2 == len(tests())
    own.endpoint("e", count=2, **TOPICS)
    own.eventually(lambda: len(tests()) == 4)
    own.endpoint("e", count=2, **TOPICS, since=2.0)
    own.eventually(lambda: len(tests()) == 6)


# --- stops and crashes ------------------------------------------------------------------------------------------------


def test_a_stop_lets_calls_finish_and_hands_back_the_rest(tmp_path: Path) -> None:
    """What was handed back goes on after the restart, as if it had not begun."""
    own = Workshop(tmp_path, drain_seconds=1.0)
    gate = tmp_path / "gate"
    try:
        own.endpoint("e", count=2, concurrency=1)
        quick, slow = own.submit("e", b"size 10"), own.submit("e", f"wait {gate}".encode())
        queued = own.submit("e", f"wait {gate}".encode())
        own.ended("e", quick["Id"])
        own.eventually(lambda: sum(one.startswith("wait") for one in own.begun()) == 2)
        own.stop()
        own.restart()
        gate.touch()
        for one in (slow, queued):
            status = own.ended("e", one["Id"])
            assert "Completed" == status["Status"]
            assert 0 == own.ask(lambda session, id=one["Id"]: session.get(id)).deaths
    finally:
        own.close()


def test_a_killed_process_s_jobs_go_on(own: Workshop, tmp_path: Path) -> None:
    """Those that were running run again, in their places; those that waited wait on; ended ones stay as they are."""
    gate = tmp_path / "gate"
    own.endpoint("e", count=2, concurrency=1, **TOPICS)
    done = own.result("e", b"echo done")
    jobs = [own.submit("e", f"wait {gate}".encode()) for _ in range(4)]
    own.eventually(lambda: sum(one.startswith("wait") for one in own.begun()) == 2)
    for _ in range(4):
        own.kill()
        own.restart()
    gate.touch()
    for one in jobs:
        assert "Completed" == own.ended("e", one["Id"])["Status"]
    assert 1 == own.begun().count("echo done")
    assert done == own.ended("e", done["Id"])
    assert 5 == len(notices_of(own, "e"))


@pytest.mark.parametrize("size", [100, 200_000])
def test_what_was_decided_is_published_and_not_run_again(own: Workshop, size: int) -> None:
    """A crash between the two changes nothing, whether the answer was in the row or in the spool."""
    own.endpoint("e", **TOPICS)
    own.objects.trouble = "/out/", ObjectUnavailable("away")
    taken = own.submit("e", f"size {size}".encode())
    own.eventually(lambda: own.ask(lambda session: session.get(taken["Id"])).state == "decided")
    own.kill()
    assert own.object(taken["OutputLocation"]) is None
    own.objects.trouble = None
    own.restart()
    assert "Completed" == own.ended("e", taken["Id"])["Status"]
    assert b"x" * size == own.object(taken["OutputLocation"])
    assert 1 == len(own.begun())
    assert 1 == len(notices_of(own, "e"))


def test_a_crash_after_the_object_s_rename_is_seen_through(own: Workshop) -> None:
    """The spool's file has become the object; only the note of that was lost."""
    own.endpoint("e")
    own.objects.trouble = "/out/", ObjectUnavailable("away")
    taken = own.submit("e", b"size 200000")
    own.eventually(lambda: own.ask(lambda session: session.get(taken["Id"])).state == "decided")
    own.kill()
    own.objects.trouble = None
    (path,) = own.objects.spool.glob("async-*.out")
    own.objects.put(taken["OutputLocation"], path)
    assert not path.exists()
    own.restart()
    assert "Completed" == own.ended("e", taken["Id"])["Status"]
    assert 1 == len(own.begun())


def test_ends_of_cancelled_jobs_survive_a_crash(own: Workshop) -> None:
    """The failure object and the notice are still to come, and come."""
    own.endpoint("e", count=0, **TOPICS)
    own.objects.trouble = "/bad/", ObjectUnavailable("away")
    taken = own.submit("e")
    own.do(own.door.cancel({"endpoint": "e", "id": taken["Id"]}))
    own.kill()
    own.objects.trouble = None
    own.restart()
    own.eventually(lambda: b"cancelled" in (own.object(taken["FailureLocation"]) or b""))
    own.eventually(lambda: len(notices_of(own, "e")) == 1)


def test_files_that_nobody_needs_are_removed_at_the_start(own: Workshop) -> None:
    """Those of open jobs stay."""
    own.endpoint("e", count=0)
    taken = own.submit("e", b" " * 200_000)
    own.stop()
    (own.objects.spool / "async-gone.in").write_bytes(b"x")
    (own.objects.spool / "async-gone-1.out").write_bytes(b"x")
    (own.objects.spool / ".async-gone.in.4711-0.tmp").write_bytes(b"x")
    own.restart()
    assert [f"async-{taken['Id']}.in"] == [path.name for path in own.objects.spool.iterdir()]


def test_ended_jobs_are_forgotten_after_a_while(tmp_path: Path) -> None:
    """``job_retention_seconds``; their objects stay."""
    own = Workshop(tmp_path, job_retention_seconds=60.0)
    try:
        own.endpoint("e")
        status = own.result("e")
        own.skew += 100
        own.do(own.consumers.prune())
        with pytest.raises(ResourceNotFound):
            own.do(own.door.status({"endpoint": "e", "id": status["Id"]}))
        assert own.object(status["OutputLocation"]) is not None
    finally:
        own.close()
