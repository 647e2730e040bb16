"""Facts about quarantine: when a model is refused, and for how long."""

from __future__ import annotations

import signal

import pytest

from serving.workers.quarantine import DEATHS, WINDOW, Quarantine, self_inflicted

MODEL, OTHER = 11, 22


def test_three_deaths_within_a_minute_are_quarantine() -> None:
    """The first two are taken for accidents; the third is five seconds."""
    quarantine = Quarantine()
    assert [None, None, 25.0] == [quarantine.strike(MODEL, now) for now in (0.0, 10.0, 20.0)]
    assert {MODEL: 25.0} == quarantine.refused(20.0)
    assert {} == quarantine.refused(25.0)


def test_deaths_far_apart_are_not() -> None:
    """A crash an hour is bad luck."""
    quarantine = Quarantine()
    assert [None] * 10 == [quarantine.strike(MODEL, hour * 3600.0) for hour in range(10)]


def test_each_further_death_doubles_the_time_to_five_minutes() -> None:
    """One trial after each term; the longest term is five minutes."""
    quarantine, now = Quarantine(), 0.0
    terms = []
    for _ in range(12):
        until = quarantine.strike(MODEL, now)
        if until is not None:
            terms.append(until - now)
            now = until
    assert [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0] == terms


def test_terms_are_cut_short_where_calls_are_given_up_by_themselves() -> None:
    """However often it dies; and there may be none at all."""
    quarantine = Quarantine()
    assert [None, None, 2.0, 2.0, 2.0] == [quarantine.strike(MODEL, 0.0, longest=2.0) for _ in range(5)]
    assert [None] * 5 == [quarantine.strike(OTHER, 0.0, longest=0.0) for _ in range(5)]


def test_a_model_that_behaves_for_a_while_starts_afresh() -> None:
    """A minute without a death after its term."""
    quarantine = Quarantine()
    for _ in range(DEATHS):
        quarantine.strike(MODEL, 0.0)
    quarantine.refused(5.0 + WINDOW + 0.1)
    assert quarantine.strike(MODEL, 5.0 + WINDOW + 0.2) is None


def test_models_are_judged_one_by_one() -> None:
    """A neighbour's deaths are not one's own."""
    quarantine = Quarantine()
    for now in (0.0, 1.0):
        quarantine.strike(MODEL, now)
        quarantine.strike(OTHER, now)
    quarantine.strike(MODEL, 2.0)
    assert {MODEL: 7.0} == quarantine.refused(2.0)


def test_nothing_is_remembered_of_models_long_past() -> None:
    """However many models have ever crashed."""
    quarantine = Quarantine()
    for model in range(1000):
        for _ in range(1 + model % 4):
            quarantine.strike(model, 0.0)
    quarantine.refused(1000.0)
    assert Quarantine() == quarantine


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (signal.SIGSEGV, True),
        (signal.SIGSEGV | 0x80, True),
        (signal.SIGABRT, True),
        (signal.SIGBUS, True),
        (0 << 8, True),
        (1 << 8, True),
        (70 << 8, True),
        (signal.SIGKILL, False),
        (signal.SIGTERM, False),
        (signal.SIGHUP, False),
    ],
)
def test_what_a_model_does_is_told_from_what_is_done_to_its_worker(status: int, expected: bool) -> None:
    """A crash and an exit, of whatever status, come from within (wait statuses)."""
    assert expected == self_inflicted(status)
