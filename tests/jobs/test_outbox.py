"""The outbox: at least once under one id, in time, whatever other receivers do; over a real queue and real HTTP."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import Settings
from serving.errors import ServiceUnavailable
from serving.jobs import outbox
from serving.jobs.clock import Clock
from serving.jobs.outbox import Desk, Notifier, Undelivered, after_send, after_wait, deliver_forever, pause_after
from serving.jobs.queue import Queue, QueueThread
from serving.jobs.work import NewWork, QueueSession, Work
from tests.receivers import Receiver, hang, in_turn, receivers

T = TypeVar("T")
DAY = 86_400


class Post:
    """A queue with an outbox, whose clock goes only when told."""

    def __init__(self, folder: Path) -> None:
        self.seconds = 1000.0
        self._numbers = itertools.count(1)
        self.queue = Queue(f"sqlite:///{folder}/queue.db", Clock(steady=lambda: self.seconds)).open()
        self.thread = QueueThread(self.queue)
        self.dead: list[str] = []
        self.wake: asyncio.Event
        self.loop: asyncio.AbstractEventLoop

    def put(self, *topics: str) -> list[str]:
        """A notification to each; their names."""
        new = [
            NewWork(f"notice-{next(self._numbers)}", "outbox", {"topic": topic, "message": {"to": topic}})
            for topic in topics
        ]
        with self.queue.transaction() as session:
            session.put_all(new)
        return [one.name for one in new]

    def work(self, name: str) -> Work:
        """A notification's row."""
        with self.queue.transaction() as session:
            work = session.get(name)
        assert work is not None
        return work

    def deliver(self, until: Callable[[], bool], *hosts: str, thread: QueueThread | None = None) -> None:
        """Deliver until something is so, which the queue or a receiver shows."""

        async def run() -> None:
            self.wake, self.loop = asyncio.Event(), asyncio.get_running_loop()
            notifier = Notifier(Settings(notify_hosts=hosts))
            delivering = asyncio.create_task(
                deliver_forever(
                    thread or self.thread,
                    notifier,
                    "me",
                    wake=self.wake,
                    given_up=lambda work: self.dead.append(work.name),
                )
            )
            try:
                await self.until(until)
            finally:
                delivering.cancel()
                with suppress(asyncio.CancelledError):
                    await delivering

        asyncio.run(run())

    async def until(self, so: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for what another thread or process does."""
        end = time.monotonic() + seconds
        while not await asyncio.to_thread(so):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)  # the interval of looking

    def states(self, *names: str) -> list[str]:
        """How the rows are."""
        return [self.work(name).state for name in names]

    def close(self) -> None:
        """The end."""
        self.thread.close()
        self.queue.close()


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A queue with an outbox."""
    made = Post(tmp_path)
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver."""
    with Receiver() as running:
        yield running


# --- delivered ------------------------------------------------------------------------------------------------------


def test_what_is_put_is_delivered_and_ends(post: Post, receiver: Receiver) -> None:
    """Each once, under its work's name; also what is put later, as soon as the outbox is woken."""
    names = post.put(*[f"{receiver.url}/{number}" for number in range(20)])
    late: list[str] = []

    def done() -> bool:
        if set(post.states(*names)) != {"done"}:
            return False
        if not late:
            late.extend(post.put(f"{receiver.url}/late"))
            post.loop.call_soon_threadsafe(post.wake.set)
        return {"done"} == set(post.states(*late))

    post.deliver(done, receiver.place)
    assert sorted(names + late) == sorted(got.id for got in receiver.received)
    assert {"to": f"{receiver.url}/late"} == receiver.received[-1].message
    assert {"tries": 1} == post.work(names[0]).outcome


def test_a_refused_one_is_tried_again_under_its_id(post: Post, receiver: Receiver) -> None:
    """Not before its pause is over; others go on meanwhile."""
    receiver.answers["/mended"] = in_turn(500, 404, 200)
    (name,) = post.put(f"{receiver.url}/mended")
    for tries in (1, 2):
        post.deliver(lambda tries=tries: (post.work(name).progress or {}).get("tries") == tries, receiver.place)
        assert "waiting" == post.work(name).state
        (other,) = post.put(f"{receiver.url}/other")
        post.deliver(lambda other=other: post.states(other) == ["done"], receiver.place)
        assert tries == [got.id for got in receiver.received].count(name)
        post.seconds += 2**tries
    post.deliver(lambda: post.states(name) == ["done"], receiver.place)
    assert [name] * 3 == [got.id for got in receiver.received if got.path == "/mended"]
    assert {"tries": 3} == post.work(name).outcome


def test_what_will_never_arrive_is_a_dead_letter(
    post: Post, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, with its reason in the row and in the log; its neighbours arrive."""
    dead = post.put("http://elsewhere.example/", "nonsense", "arn:aws:sns:eu-west-1:123456789012:done")
    living = post.put(receiver.url)
    with caplog.at_level(logging.ERROR, "serving.outbox"):
        post.deliver(lambda: {"failed", "done"} == set(post.states(*dead, *living)), receiver.place)
    assert ["failed"] * 3 + ["done"] == post.states(*dead, *living)
    reasons = [str((post.work(name).outcome or {})["reason"]) for name in dead]
    assert ["not in SERVING_NOTIFY_HOSTS", "neither an http(s) URL", "need AWS"] == [
        next(
            words for words in ("not in SERVING_NOTIFY_HOSTS", "neither an http(s) URL", "need AWS") if words in reason
        )
        for reason in reasons
    ]
    assert sorted(dead) == sorted(post.dead)
    assert all(any(name in record.getMessage() for record in caplog.records) for name in dead)


def test_a_receiver_that_stays_away_gets_a_dead_letter_after_a_day(post: Post) -> None:
    """Of pauses; nobody listens on the port."""
    first, second = post.put("http://127.0.0.1:1/", "http://127.0.0.1:1/")

    def ended() -> bool:
        post.seconds += 600
        return ["failed"] * 2 == post.states(first, second)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "FIRST_PAUSE", 0.001)
        patch.setattr(outbox, "LONGEST_PAUSE", 0.001)
        patch.setattr(outbox, "IDLE_SECONDS", 0.001)
        patch.setattr(outbox, "SLOW_PAUSE", 0.001)
        patch.setattr(outbox, "GIVE_UP_AFTER", 0.01)
        post.deliver(ended, "127.0.0.1")
    assert {"The receiver could not be reached."} == {
        str((post.work(one).outcome or {})["reason"]) for one in (first, second)
    }
    assert sorted([first, second]) == sorted(post.dead)


# --- others ---------------------------------------------------------------------------------------------------------


def test_a_hanging_receiver_holds_up_no_others(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred notifications to it come first, more than the outbox holds; the others arrive while it hangs."""
    monkeypatch.setattr(outbox, "SLOW_AFTER", 0.05)
    monkeypatch.setattr(outbox, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(outbox, "GRACE_SECONDS", 0.01)
    with receivers(2) as (slow, quick):
        slow.answers["/"] = hang
        post.put(*[f"{slow.url}/"] * 300)
        names = post.put(*[f"{quick.url}/"] * 20)
        post.deliver(lambda: {"done"} == set(post.states(*names)), slow.place, quick.place)
        assert outbox.PER_RECEIVER == len(slow.received)
        slow.release.set()
    assert not {"leased", "done"} & {post.work(f"notice-{number}").state for number in range(1, 301)}


def test_a_receiver_that_is_away_is_asked_by_one_at_a_time(post: Post, receiver: Receiver) -> None:
    """Of fifty notifications few are tried while it is away (503); when it is back all arrive."""
    receiver.answers["/"] = 503
    names = post.put(*[f"{receiver.url}/"] * 50)
    post.deliver(lambda: {"waiting"} == set(post.states(*names)), receiver.place)
    assert outbox.PER_RECEIVER >= len(receiver.received)
    receiver.answers["/"] = 200

    def arrived() -> bool:
        post.seconds += 60
        return {"done"} == set(post.states(*names))

    post.deliver(arrived, receiver.place)
    assert set(names) == {got.id for got in receiver.received}


# --- stops and faults -----------------------------------------------------------------------------------------------


def test_what_is_not_sent_is_handed_back(post: Post, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    """When the outbox is stopped: nothing stays leased, and the next one sends it."""
    monkeypatch.setattr(outbox, "GRACE_SECONDS", 0.01)
    receiver.answers["/"] = hang
    names = post.put(*[f"{receiver.url}/"] * 10)
    post.deliver(lambda: 2 == len(receiver.received), receiver.place)
    assert {"queued"} == set(post.states(*names))
    receiver.answers["/"] = 200
    post.deliver(lambda: {"done"} == set(post.states(*names)), receiver.place)


def test_a_send_under_way_may_end_when_the_outbox_is_stopped(post: Post, receiver: Receiver) -> None:
    """Its row ends with it: no second delivery."""
    (name,) = post.put(f"{receiver.url}/")

    def answer(handler: Any) -> None:
        handler.receiver.release.wait(30)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")

    receiver.answers["/"] = answer

    def came() -> bool:
        if not receiver.received:
            return False
        later = (post.loop.call_later, 0.1, receiver.release.set)  # while the outbox is stopping
        post.loop.call_soon_threadsafe(*later)
        return True

    post.deliver(came, receiver.place)
    assert ["done"] == post.states(name)


KILLED = """
import asyncio, sys
from serving.config import Settings
from serving.jobs.outbox import Notifier, deliver_forever
from serving.jobs.queue import Queue, QueueThread
thread = QueueThread(Queue(sys.argv[1]).open())
asyncio.run(deliver_forever(thread, Notifier(Settings(notify_hosts=("127.0.0.1",))), "killed"))
"""


def test_a_kill_between_delivery_and_its_record_repeats_it_under_its_id(tmp_path: Path, receiver: Receiver) -> None:
    """kill -9 as the receiver has it and has not yet answered: the next process delivers it again, and it can tell."""
    url = f"sqlite:///{tmp_path}/queue.db"
    queue = Queue(url).open()
    with queue.transaction() as session:
        session.put(NewWork("notice-1", "outbox", {"topic": f"{receiver.url}/", "message": {"n": 1}}))
    queue.close()
    receiver.answers["/"] = hang
    with subprocess.Popen([sys.executable, "-c", KILLED, url]) as process:
        receiver.wait(1)
        process.send_signal(signal.SIGKILL)
    receiver.answers["/"] = 200
    queue = Queue(url).open()
    with queue.transaction() as session:
        assert ["notice-1"] == [work.name for work in session.rescue(list(session.owners()))]
    queue.close()
    with subprocess.Popen([sys.executable, "-c", KILLED, url]) as process:
        receiver.wait(2)
        process.send_signal(signal.SIGKILL)
    assert [("notice-1", {"n": 1})] * 2 == [(got.id, got.message) for got in receiver.received]


class Deaf(QueueThread):
    """A queue that does what it is asked, and whose answer is lost every second time."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue)
        self._turn = itertools.count()

    async def do(self, function: Callable[[QueueSession], T]) -> T:
        """See ``QueueThread``."""
        answer = await super().do(function)
        if next(self._turn) % 2:
            raise ServiceUnavailable("The answer is lost.")
        return answer


def test_lost_answers_of_the_queue_lose_nothing(
    post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was leased without our knowing is found again; what has ended has ended."""
    monkeypatch.setattr(outbox, "IDLE_SECONDS", 0.01)
    names = post.put(*[f"{receiver.url}/"] * 20)
    deaf = Deaf(post.queue)
    post.deliver(lambda: {"done"} == set(post.states(*names)), receiver.place, thread=deaf)
    deaf.close()
    assert set(names) == {got.id for got in receiver.received}


# --- decisions ------------------------------------------------------------------------------------------------------


def work(number: int, topic: str = "http://h/", **progress: Any) -> Work:
    """A leased notification."""
    return Work(
        number, f"notice-{number}", "outbox", "leased", 5, "", {"topic": topic, "message": {}}, b"", 1, 0, "me",
        progress or None, None, b"", 0.0, 0.0, 0.0, 0.0, None, None,
    )  # fmt: skip


def test_pauses_double_up_to_five_minutes() -> None:
    """And are spread a little."""
    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] == [pause_after(tries, 0.0) for tries in range(1, 12)]
    assert 300 == pause_after(10_000, 0.0)
    assert 240 <= pause_after(20, 0.999) < 300


@given(st.floats(0, 0.999), st.lists(st.booleans(), max_size=20))
def test_a_notification_is_tried_for_a_day(dice: float, away: list[bool]) -> None:
    """Whatever is tried and whatever waits untried: it is given up after a day of pauses, not earlier, and not for
    long after."""
    now, failure = work(1), Undelivered("why", permanent=False)
    for step in itertools.count():
        untried = step < len(away) and away[step]
        verdict = after_wait(now, 60.0) if untried else after_send(now, failure, dice)
        waited = float((now.progress or {}).get("waited", 0.0))
        if verdict.state == "failed":
            assert DAY <= waited <= DAY + 300
            assert "why" == verdict.kept["reason"]
            return
        assert waited < DAY
        assert verdict.pause > 0
        now = work(1, **verdict.kept)


def test_success_and_lasting_refusals_end_it() -> None:
    """At any try."""
    tried = work(1, tries=4, waited=15.0, reason="why")
    assert ("done", {"tries": 5}, 0.0) == after_send(tried, None, 0.5)
    assert ("failed", {"tries": 5, "reason": "no"}, 0.0) == after_send(tried, Undelivered("no", permanent=True), 0.5)


STEPS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 3)), max_size=60)


@given(STEPS, st.integers(1, 6))
def test_the_desk_keeps_its_limits_and_loses_nothing(steps: list[tuple[int, bool, float]], hosts: int) -> None:
    """Whoever answers, is away or slow: never more sends than there may be, to all and to one; every notification is
    waiting here, being sent, or told to wait elsewhere."""
    desk, now, numbers = Desk(), 0.0, itertools.count(1)
    sending: list[Work] = []
    inside: set[int] = set()
    for host, away, seconds in steps:
        now += seconds
        for one in (work(next(numbers), f"http://h{host % hosts}/") for _ in range(desk.room // 2)):
            pause = desk.take(one, now, 0.5)
            assert pause is None or pause >= outbox.FIRST_PAUSE
            if pause is None:
                inside.add(one.id)
        while one := desk.next(now):
            sending.append(one)
        counts = [sum(one.body["topic"] == f"http://h{host}/" for one in sending) for host in range(hosts)]
        assert max(counts) <= outbox.PER_RECEIVER
        assert len(sending) <= outbox.PARALLEL
        assert len(desk.held) <= outbox.HELD
        gone: list[tuple[Work, float]] = desk.crowd(now, 0.5) if not desk.room else []
        if sending:
            ended = sending.pop(host % len(sending))
            gone += [(ended, 1.0), *desk.sent(ended, away, now, 0.5)]
        for one, pause in gone:
            assert pause >= outbox.FIRST_PAUSE
            inside.remove(one.id)
            desk.drop(one)
        assert inside == set(desk.held)


def test_receivers_are_forgotten() -> None:
    """Of a million receivers, each written to once and half of them away, the desk does not keep a million."""
    desk = Desk()
    for number in range(2_000):
        one = work(number, f"http://h{number}/")
        desk.take(one, float(number), 0.0)
        assert one is desk.next(float(number))
        desk.sent(one, number % 2 == 0, float(number), 0.0)
        desk.drop(one)
    assert 400 > len(desk._receivers)
