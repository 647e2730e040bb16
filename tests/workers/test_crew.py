"""Facts about threads for jobs that may hang."""

from __future__ import annotations

import threading

from serving.workers.crew import Crew


def test_jobs_are_done_by_no_more_threads_than_there_should_be() -> None:
    """However many there are."""
    crew, over, names = Crew("worker", count=2, most=8), threading.Event(), set()
    left = threading.Semaphore(0)

    def job() -> None:
        names.add(threading.get_ident())
        left.release()

    for _ in range(200):
        crew.submit(job)
    for _ in range(200):
        assert left.acquire(timeout=10)
    over.set()
    assert 1 <= len(names) <= 2


def test_jobs_that_hang_hold_up_others_until_the_second_look() -> None:
    """One more thread is taken on when nothing has been begun since the last look; and no more than the most."""
    crew, release, done = Crew("hanging", count=2, most=3), threading.Event(), threading.Event()
    begun = threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        release.wait(30)

    for _ in range(2):
        crew.submit(hang)
        assert begun.acquire(timeout=10)
    crew.submit(done.set)
    crew.look()
    crew.look()
    assert done.wait(10)
    crew.submit(hang)
    crew.look()
    crew.look()
    assert begun.acquire(timeout=10)
    blocked = threading.Event()
    crew.submit(blocked.set)
    for _ in range(5):
        crew.look()
    assert 3 == sum(thread.name == "hanging" for thread in threading.enumerate())
    assert not blocked.is_set()
    release.set()
    assert blocked.wait(10)


def test_a_job_that_fails_ends_no_thread() -> None:
    """Whatever it raises."""
    crew, done = Crew("worker", count=1, most=1), threading.Event()

    def fail() -> None:
        raise SystemExit(3)

    crew.submit(fail)
    crew.submit(done.set)
    assert done.wait(10)
