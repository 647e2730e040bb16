"""What a model will take, before anybody knows; and what the scales say."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.runtimes.base import Artifact
from serving.workers import memory
from serving.workers.estimates import Estimates
from serving.workers.model_cache import ModelCache

BUDGET = 1_000_000


def artifact(size: int, name: str = "model.ubj", code: bool = False) -> Artifact:
    """An artifact of ``size`` bytes on disk."""
    return Artifact("script" if code else "xgboost", Path("models"), Path("models") / name, size, code)


@pytest.fixture
def estimates() -> Estimates:
    """Nothing known."""
    return Estimates(ModelCache(BUDGET))


def test_at_first_the_size_on_disk_has_to_do(estimates: Estimates) -> None:
    """Nothing has been measured."""
    assert 1000 == estimates.of("a", artifact(1000))


def test_what_was_measured_counts_from_then_on(estimates: Estimates) -> None:
    """For this very version of the artifact."""
    assert 1500 == estimates.learn("a", artifact(1000), 1500)
    assert 1500 == estimates.of("a", artifact(1000))


def test_others_of_its_kind_are_taken_to_be_alike(estimates: Estimates) -> None:
    """By size on disk; a booster in JSON is another kind than one in UBJSON."""
    estimates.learn("a", artifact(1000), 1500)
    assert 3000 == estimates.of("b", artifact(2000))
    assert 2000 == estimates.of("c", artifact(2000, "model.json"))
    estimates.learn("b", artifact(1000), 2500)
    assert 1700 == estimates.of("d", artifact(1000))


def test_a_load_that_seems_to_take_nothing_still_counts(estimates: Estimates) -> None:
    """Others freed memory at the same time: no model is free."""
    assert 125 == estimates.learn("a", artifact(1000), 0)


def test_only_a_measurement_keeps_out_what_the_disk_says_fits(estimates: Estimates) -> None:
    """The kind makes it likely that it is too large; it is tried all the same."""
    estimates.learn("a", artifact(1000), 3000)
    assert BUDGET == estimates.of("b", artifact(BUDGET // 2))
    estimates.learn("b", artifact(BUDGET // 2), 2 * BUDGET)
    assert 2 * BUDGET == estimates.of("b", artifact(BUDGET // 2))


def test_of_small_models_few_are_measured(estimates: Estimates) -> None:
    """Measuring costs more than loading them; the kind is watched all the same."""
    worth = [estimates.worth_weighing(f"m{number}", artifact(60_000)) for number in range(500)]
    assert all(worth[:16])
    assert 7 == sum(worth[16:])


def test_what_is_large_or_code_is_measured_at_every_load(estimates: Estimates) -> None:
    """A first measurement may be wrong: other work beside it, or imports that came with it."""
    for name, one in (("large", artifact(2**21)), ("code", artifact(100, "inference.py", code=True))):
        estimates.learn(name, one, 5000)
        assert estimates.worth_weighing(name, one)
    small = artifact(1000)
    estimates.learn("small", small, 5000)
    assert not estimates.worth_weighing("small", small)


def test_the_scales_tell_what_a_piece_of_work_takes() -> None:
    """Ten megabytes, within what the process does besides."""
    weighing = memory.Scales().start()
    held = bytearray(10_000_000)
    assert 10_000_000 == pytest.approx(weighing.stop(), rel=0.2)
    del held


def test_what_was_freed_again_does_not_count() -> None:
    """Forty megabytes on the way to four: what the allocator keeps is given back before the scales are read."""
    weighing = memory.Scales().start()
    kept = [bytes(100_000) for _ in range(40)]
    passing = [bytes(100_000) for _ in range(400)]
    del passing
    grown = weighing.stop()
    assert grown is not None
    assert grown < 10_000_000
    del kept


def test_overlapping_work_cannot_be_weighed() -> None:
    """Neither the one that was there first nor the one that came into it; afterwards it is quiet again."""
    scales = memory.Scales()
    first = scales.start()
    second = scales.start(weigh=False)
    assert second.stop() is None
    assert first.stop() is None
    assert scales.start().stop() is not None
    first = scales.start(weigh=False)
    second = scales.start()
    assert first.stop() is None
    assert second.stop() is None


def test_algorithms_are_not_taken_to_be_alike(estimates: Estimates) -> None:
    """All are declared by a file of one name: a table of words takes its size, a forest far more."""
    folder = Path("models")
    forest, words = (
        Artifact("algorithm", folder, folder / "algorithm.json", 1000, algorithm=name)
        for name in ("randomcutforest", "blazingtext")
    )
    estimates.learn("a", forest, 9000)
    assert 9000 == estimates.of("b", forest)
    assert 1000 == estimates.of("c", words)
