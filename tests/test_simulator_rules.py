"""The simulator's fleet is a queue as theory knows it; HPA and Knative keep to their rules in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scaling import traces
from serving.scaling.rivals import HorizontalPodAutoscaler, KnativePodAutoscaler
from serving.scaling.simulating import Load, Outcome, Setup, run
from serving.scaling.traces import Trace
from serving.scaling.values import Metric, Stat
from serving.scaling.virtual import TICK, Virtual

PER_INSTANCE = Stat(Metric("AWS/SageMaker", "InvocationsPerInstance"), "Sum", per_minute=True)
CONCURRENCY = Stat(Metric("AWS/SageMaker", "ConcurrentRequestsPerModel"), "Maximum")


class Plan:
    """So many workers from so many seconds on."""

    name, start_seconds = "plan", None

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps = steps

    def look(self, seen: Virtual) -> int:
        """The last step that has come."""
        return [count for since, count in self.steps if since <= seen.now][-1]


def steady(rate: float, seconds: float, service: float = 0.1) -> Load:
    """Poisson arrivals, all of one length."""
    trace = traces.drawn(traces.parse([f"0,{rate}", f"{seconds / 2},{rate}"]), 1, seed=3)
    return Load(trace, np.full(len(trace.arrivals), service))


def at(times: list[float], service: float, seconds: float = 60.0) -> Load:
    """Calls at these times."""
    return Load(Trace(np.asarray(times), seconds), np.full(len(times), service))


# --- the fleet --------------------------------------------------------------------------------------------------------


def test_a_call_waits_for_the_one_before_it() -> None:
    """With a worker each, for none."""
    load = at([1.0, 1.0, 1.0], service=2.0)
    assert [0, 2, 4] == run(load, Setup(1, 1), Plan((0, 1))).waits.tolist()
    assert [0, 0, 0] == run(load, Setup(3, 3), Plan((0, 3))).waits.tolist()
    assert [0, 0, 0] == run(load, Setup(1, 1, concurrency=3), Plan((0, 1))).waits.tolist()


def test_a_new_worker_takes_the_first_call_that_waits_once_it_has_started() -> None:
    """Asked for at 10 s, there at 13 s: the second call waits 2 s more, not until the first is done."""
    load = at([1.0, 11.0], service=30.0)
    found = run(load, Setup(1, 2, start_seconds=3.0), Plan((0, 1), (10, 2)))
    assert [0, 2] == found.waits.tolist()
    assert (1, 2) == (found.changes, found.most)


def test_fewer_workers_finish_what_they_have() -> None:
    """The idle one goes first, and what a busy one still does is paid for."""
    load = at([1.0, 1.0, 1.0], service=30.0)
    found = run(load, Setup(4, 4), Plan((0, 4), (11, 1)))
    assert [0, 0, 0] == found.waits.tolist()
    assert 60 + 31 + 31 + 11 == found.worker_seconds


def test_workers_that_start_are_the_first_to_be_given_up() -> None:
    """A call is not harmed by it."""
    load = at([20.0], service=1.0)
    found = run(load, Setup(1, 5, start_seconds=100.0), Plan((0, 1), (5, 5), (10, 1)))
    assert [0] == found.waits.tolist()
    assert 60 + 4 * 5 == found.worker_seconds


def test_calls_that_nobody_answers_have_waited_to_the_end() -> None:
    """And are violations."""
    found = run(at([10.0, 40.0], service=1.0), Setup(0, 1), Plan((0, 0)))
    assert [50, 20] == found.waits.tolist()
    assert 2 == found.violations


def test_waits_are_those_of_queueing_theory() -> None:
    """Pollaczek and Khinchine: one worker, calls of one length, eight tenths busy: 2 services on the average."""
    found = run(steady(8, 20_000), Setup(1, 1), Plan((0, 1)))
    assert 0.1 * 0.8 / (2 * 0.2) == pytest.approx(found.waits.mean(), rel=0.1)
    assert 0.8 == pytest.approx(found.utilisation, rel=0.02)


@given(st.integers(1, 6), st.integers(0, 3), st.floats(1, 40))
def test_more_workers_never_make_a_call_wait_longer(workers: int, more: int, rate: float) -> None:
    """Whatever the load."""
    load = steady(rate, 30)
    few, many = (run(load, Setup(count, count), Plan((0, count))) for count in (workers, workers + more))
    assert (many.waits <= few.waits + 1e-9).all()


# --- what is seen -----------------------------------------------------------------------------------------------------


def watched(*levels: tuple[float, int, float, int]) -> Virtual:
    """Seconds, workers, calls a second and calls that wait, one after the other."""
    seen = Virtual(round(sum(level[0] for level in levels) / TICK) + 1)
    for seconds, ready, rate, waiting in levels:
        for _ in range(round(seconds / TICK)):
            tick = seen.tick + 1
            seen.sample(tick * TICK, ready, ready, waiting, min(ready, round(rate)), 1)
            seen.count(seen.calls + rate * TICK)
    seen.sample((seen.tick + 1) * TICK, levels[-1][1], levels[-1][1], levels[-1][3], 0, 1)
    return seen


def test_meters_show_whole_periods() -> None:
    """Calls per minute and worker; nothing of a period that has not ended, or of a metric that nobody measures."""
    seen = watched((60, 2, 8, 0), (90, 4, 8, 0))
    assert [(0, 240), (60, 120)] == list(seen.series(PER_INSTANCE, 60, 0, 150))
    assert [(140, 120), (145, 120)] == list(seen.series(PER_INSTANCE, 5, 140, 150))
    assert [(0, 1), (60, 1)] == list(seen.series(CONCURRENCY, 60, 0, 150))
    assert [] == list(seen.series(Stat(Metric("AWS/SageMaker", "Weather"), "Average"), 60, 0, 150))


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def looks(scaler: HorizontalPodAutoscaler | KnativePodAutoscaler, load: Load, setup: Setup) -> Outcome:
    """The scaler on a load."""
    return run(load, setup, scaler)


@pytest.mark.parametrize(
    ("ready", "per_worker", "desired"), [(4, 105, 6), (4, 76, 4), (4, 78, 5), (2, 700, 6), (10, 700, 20), (4, 64, 4)]
)
def test_hpa_adds_in_proportion_within_its_limits(ready: int, per_worker: int, desired: int) -> None:
    """ceil(current x metric / target); nothing within a tenth; at most double or four more at a time."""
    seen = watched((15, ready, per_worker / 60 * ready, 0))
    assert desired == HorizontalPodAutoscaler(Setup(1, 100), PER_INSTANCE, 70).look(seen)


def test_hpa_goes_down_to_the_highest_of_five_minutes() -> None:
    """Not before they have passed since the load went."""
    trace = traces.drawn(traces.parse(["0,40", "300,4", "1200,4"]), 1, seed=5)
    load = Load(trace, np.full(len(trace.arrivals), 0.1))
    setup = Setup(1, 20)
    found = looks(HorizontalPodAutoscaler(setup, PER_INSTANCE, 420), load, setup)
    at_second = found.ready[:: round(1 / TICK)]
    assert 6 <= at_second[299]
    assert 6 <= at_second[580]
    assert 1 == at_second[640]


def test_hpa_never_goes_to_none() -> None:
    """Its minimum is one."""
    found = looks(HorizontalPodAutoscaler(Setup(0, 5), PER_INSTANCE, 420), at([1.0], 0.1, 1200), Setup(0, 5))
    assert 1 == found.ready[-1]


# --- Knative ----------------------------------------------------------------------------------------------------------


def test_knative_panics_at_twice_what_is_ready() -> None:
    """Six seconds are enough, where its stable window is sixty."""
    trace = traces.drawn(traces.parse(["0,1", "300,60", "400,60"]), 1, seed=5)
    setup = Setup(1, 20)
    found = looks(KnativePodAutoscaler(setup), Load(trace, np.full(len(trace.arrivals), 0.1)), setup)
    at_second = found.ready[:: round(1 / TICK)]
    assert 1 == at_second[299]
    assert 8 <= at_second[307]


def test_knative_goes_to_none_after_its_window_and_grace() -> None:
    """And a call that comes then waits for one worker to start."""
    setup = Setup(0, 5, start_seconds=2.0)
    found = looks(KnativePodAutoscaler(setup), at([1.0, 300.0], 0.1, 400), setup)
    at_second = found.ready[:: round(1 / TICK)]
    assert 1 == at_second[85]
    assert 0 == at_second[100]
    assert 2.0 == pytest.approx(found.waits[1], abs=TICK)
