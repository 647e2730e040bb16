"""Facts about what the supervisor decides: replacements, back-off, blame, shares of memory."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.types import FleetKey, FleetSpec, ModelSpec
from serving.workers import roster
from serving.workers.cells import LOADING, RUNNING, Busy, Cell, Reading
from serving.workers.plan import WorkerPlan
from serving.workers.roster import DRAINING, MOST_FAILED_STARTS, READY, STARTING, Fleet, WorkerHandle

CRASH, EXIT, KILL = int(signal.SIGSEGV), 1 << 8, int(signal.SIGKILL)
GIB = 2**30


def plan(number: int = 1, **changes: Any) -> WorkerPlan:
    """A worker's plan."""
    values: dict[str, Any] = {
        "worker_id": f"{number:04d}", "endpoint": "e", "variant": "v", "multi_model": False, "location": "/model",
        "environment": {"A": "ü"}, "keep": True, "run_dir": "/run", "cache_dir": "/cache", "disk_budget": 1,
        "budget": 2, "memory_cap": 3, "recycle": 0, "allow_code": False, "threads": 1, "max_batch_calls": 4,
        "max_batch_bytes": 5, "load_wait": 6.0, "own_limits": False, "log_format": "text",
        "log_level": "info", "decided_at": 7.0,
    }  # fmt: skip
    return WorkerPlan(**values | changes)


def worker(state: str = READY, number: int = 1, **changes: Any) -> WorkerHandle:
    """A worker."""
    return WorkerHandle(plan(number), state, **changes)


def fleet(*workers: WorkerHandle, desired: int = 1) -> Fleet:
    """A fleet of these workers."""
    model = ModelSpec("m", "/model")
    made = Fleet(FleetSpec(FleetKey("e", 1, "v"), model), "/model", frozenset(), desired)
    made.workers = {one.plan.worker_id: one for one in workers}
    return made


def test_a_plan_comes_out_of_its_line_as_it_went_in() -> None:
    """One line, whatever is in it; paths beneath the run folder."""
    line = plan(environment={"A": "1\n2", "B": "\u2028"}).to_json()
    assert "\n" not in line
    assert plan(environment={"A": "1\n2", "B": "\u2028"}) == WorkerPlan.from_json(line)
    assert Path("/run/0001.sock") == plan().socket


def test_starts_that_fail_wait_longer_each_time_up_to_ten_seconds() -> None:
    """And none does at first."""
    assert [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0] == [roster.backoff(failed) for failed in range(10)]
    assert 10.0 == roster.backoff(10_000)


def test_after_enough_failed_starts_the_fleet_gives_up_and_says_why() -> None:
    """Until somebody changes it."""
    trying = fleet()
    for _ in range(MOST_FAILED_STARTS):
        assert not trying.given_up
        trying.start_failed(100.0)
    assert trying.given_up
    assert "failed to start 8 times in a row" in trying.failure
    trying.start_over()
    assert ("", 0.0, False) == (trying.failure, trying.next_start, trying.given_up)


def test_the_reason_a_worker_gave_is_kept() -> None:
    """It says more than a count."""
    trying = fleet()
    trying.failure = "the model file is damaged"
    for _ in range(MOST_FAILED_STARTS):
        trying.start_failed(100.0)
    assert "the model file is damaged" == trying.failure


def test_who_counts_as_a_worker_there_should_be() -> None:
    """Not those that drain, that leave when they are replaced, or that stand still."""
    ready, starting = worker(READY, 1), worker(STARTING, 2)
    leaving, stalled, draining = worker(READY, 3, leaving=True), worker(READY, 4, stalled=True), worker(DRAINING, 5)
    made = fleet(ready, starting, leaving, stalled, draining)
    assert [ready, starting, leaving, stalled] == made.live()
    assert [ready, starting] == made.staying()


def test_stand_ins_are_bounded() -> None:
    """A model that stalls one worker after the other cannot fill the machine with them."""
    stalled = [worker(READY, number, stalled=True) for number in range(3)]
    assert fleet(*stalled[:2], desired=1).may_stall()
    assert not fleet(*stalled, desired=1).may_stall()


RUNS, LOADS = Busy(RUNNING, 1, 5.0), Busy(LOADING, 2, 6.0)


@pytest.mark.parametrize(
    ("held", "reading", "status", "expected"),
    [
        ({}, Reading([RUNS]), CRASH, {1}),
        ({}, Reading([RUNS]), EXIT, {1}),
        ({}, Reading([LOADS]), CRASH, {2}),
        ({}, Reading([RUNS]), KILL, set()),
        ({}, Reading([RUNS], last_words="Current thread 0x0 called os.kill(1, 9)"), KILL, {1}),
        ({}, Reading([RUNS, LOADS]), EXIT, set()),
        ({}, Reading([]), CRASH, set()),
        ({"condemned": frozenset({7})}, Reading([RUNS]), KILL, {7}),
        ({"dismissed": True}, Reading([RUNS]), CRASH, set()),
    ],
)
def test_an_end_is_held_against_what_caused_it(
    held: dict[str, Any], reading: Reading, status: int, expected: set[int]
) -> None:
    """A model's own doing, or our verdict on it; never what an operator or a chaos test did, nor a mere suspicion."""
    assert expected == roster.blamed(worker(READY, ready_at=1.0, **held), reading, status)


@pytest.mark.parametrize(
    ("ready_at", "reading", "status", "expected"),
    [
        (0.0, Reading([]), EXIT, True),
        (0.0, Reading([LOADS]), KILL, True),
        (98.0, Reading([]), EXIT, True),
        (98.0, Reading([RUNS]), CRASH, False),
        (98.0, Reading([]), KILL, False),
        (50.0, Reading([]), EXIT, False),
    ],
)
def test_a_worker_that_ends_before_it_was_of_use_is_a_failed_start(
    ready_at: float, reading: Reading, status: int, expected: bool
) -> None:
    """At 100 s: never ready, or gone by itself soon after with nothing to do; not a crash of a model, nor a kill."""
    assert expected == roster.is_failed_start(worker(READY, ready_at=ready_at), reading, status, 100.0)


@pytest.mark.parametrize(
    ("ready_at", "status", "expected"),
    [(0.0, KILL, False), (98.0, KILL, True), (98.0, EXIT, False), (50.0, EXIT, True)],
)
def test_a_worker_that_was_of_use_shows_that_starting_works(ready_at: float, status: int, expected: bool) -> None:
    """At 100 s: it had been ready for a while, or was ended from outside."""
    assert expected == roster.is_recovered(worker(READY, ready_at=ready_at), status, 100.0)


@pytest.mark.parametrize(
    ("held", "status", "expected"),
    [
        ({}, CRASH, "SIGSEGV"),
        ({}, EXIT, "exit status 1"),
        ({"condemned": frozenset({1})}, KILL, "by us: a model ran past its time"),
        ({"dismissed": True}, KILL, "by us"),
    ],
)
def test_endings_are_told_in_words(held: dict[str, Any], status: int, expected: str) -> None:
    """For the log."""
    assert expected == roster.ending(worker(READY, **held), status)


@pytest.mark.parametrize(
    ("asked", "models", "usable", "expected"),
    [
        (512, 4 * GIB, 16 * GIB, 512),
        (0, 4 * GIB, 16 * GIB, 8 * GIB),
        (0, 100, 16 * GIB, GIB),
        (0, 12 * GIB, 16 * GIB, int(0.8 * 16 * GIB)),
    ],
)
def test_a_workers_memory_is_bounded(asked: int, models: int, usable: int, expected: int) -> None:
    """By the operator; else by twice its models, at least a gigabyte, at most four fifths of the machine."""
    assert expected == roster.memory_cap(asked, models, usable)


@given(st.integers(0, 2**40), st.integers(2**20, 2**40), st.integers(0, 10), st.integers(0, 1000))
def test_models_never_get_all_that_a_worker_may_take(memory: int, cap: int, sharing: int, desired: int) -> None:
    """A quarter is for the work on them; and all workers together get no more than there is for models."""
    share = roster.budget(memory, cap, sharing, desired)
    assert 0 <= share <= 0.75 * cap
    assert share * max(1, sharing) * max(1, desired) <= memory


@pytest.mark.parametrize(
    ("workers", "desired", "expected"),
    [
        ([], 0, True),
        ([worker()], 1, True),
        ([worker()], 2, False),
        ([worker(), worker(number=2)], 1, False),
        ([worker(STARTING)], 1, False),
        ([worker(DRAINING)], 1, False),
        ([worker(leaving=True)], 1, False),
        ([worker(stalled=True)], 1, False),
    ],
)
def test_a_fleet_is_settled_with_what_it_should_have(workers: list[WorkerHandle], desired: int, expected: bool) -> None:
    """No more, no fewer, and all fit."""
    assert expected == fleet(*workers, desired=desired).settled()


def test_a_worker_that_has_made_no_cell_yet_does_nothing(tmp_path: Path) -> None:
    """It is looked for again, and then found."""
    made = WorkerHandle(plan(run_dir=str(tmp_path)))
    assert Reading([]) == made.reading()
    cell = Cell(tmp_path / "0001.cell")
    cell.set(0, RUNNING, 7, 1.0)
    assert [7] == [one.model for one in made.reading().busy]
    made.forget_cell()
