"""The queue's clock: it goes on, and never back, whatever the wall clock is set to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from serving.jobs.clock import Clock, Mark, QueueTime, boot_id, resume, since_boot
from tests.queues import Hands

DAY = 86_400.0
SECONDS = some.floats(0, 1e9)


def test_it_begins_at_nought() -> None:
    """Its seconds are nobody else's: they cannot be taken for those of the wall clock."""
    hands = Hands()
    time = QueueTime(hands.clock(), None)
    assert 0.0 == time.now()
    hands.wait(2.5)
    assert 2.5 == time.now()


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_jump_of_the_wall_clock_is_not_seen(jump: float) -> None:
    """A day forward or back, while it runs."""
    hands = Hands()
    time = QueueTime(hands.clock(), None)
    hands.wall += jump
    hands.wait(1.0)
    assert 1.0 == time.now()


@pytest.mark.parametrize("jump", [0.0, DAY, -DAY])
def test_a_pause_within_a_run_of_the_machine_is_told_by_its_own_count(jump: float) -> None:
    """Closed, ten minutes, opened: the wall clock has no say."""
    hands = Hands()
    before = QueueTime(hands.clock(), None)
    hands.wait(5.0)
    mark = before.mark()
    hands.wait(600.0)
    hands.wall += jump
    assert 605.0 == QueueTime(hands.clock(), mark).now()


def test_a_restart_of_the_machine_is_bridged_by_the_wall_clock() -> None:
    """Nothing else knows how long it was off."""
    hands = Hands()
    before = QueueTime(hands.clock(), None)
    hands.wait(5.0)
    mark = before.mark()
    hands.restart(off=600.0)
    after = QueueTime(hands.clock(), mark)
    assert 615.0 == after.now()
    hands.wall += DAY
    hands.wait(1.0)
    assert 616.0 == after.now()


def test_a_wall_clock_that_went_back_over_a_restart_stops_time_and_no_more() -> None:
    """The battery of the clock was empty: it is 1970. Time does not go back."""
    hands = Hands()
    before = QueueTime(hands.clock(), None)
    hands.wait(5.0)
    mark = before.mark()
    hands.restart()
    hands.wall = 0.0
    assert 5.0 == QueueTime(hands.clock(), mark).now()


def test_a_copy_of_the_machine_is_a_restart() -> None:
    """Its count of seconds says less than was kept, under the same name: a machine that was put back in time."""
    mark = Mark("first", offset=-1000.0, seconds=500.0, wall=100.0)
    assert 700.0 == 300.0 + resume(mark, "first", steady=300.0, wall=300.0)


@given(boot=some.sampled_from(["", "first", "second"]), steady=SECONDS, wall=SECONDS, seconds=SECONDS, kept=SECONDS)
def test_it_never_goes_back(boot: str, steady: float, wall: float, seconds: float, kept: float) -> None:
    """Whatever was kept and whatever the machine tells now."""
    mark = Mark("first", offset=-50.0, seconds=seconds, wall=kept)
    assert seconds <= steady + resume(mark, boot, steady, wall) + 1e-6


def test_the_machine_tells_its_time() -> None:
    """The count goes on, and a run of the machine has one name."""
    first, second = since_boot(), since_boot()
    assert 0.0 < first <= second
    assert boot_id() == boot_id() == Clock().boot()
    assert 36 == len(boot_id())
