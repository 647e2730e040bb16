"""Training a family: what is written, what is told, what is left of one that failed. The families learn nothing."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import gallery, trainer
from models.cards import Card, Sample, Score, Source
from models.recipes import Recipe, Tell
from models.trainer import Failed, Kept, Result, Step, Trained

Build = Callable[[Path, Tell, float], Card]


class Told:
    """A report that remembers."""

    def __init__(self) -> None:
        self.results: dict[str, Result] = {}
        self.steps: list[Step] = []

    def step(self, recipe: Recipe, step: Step) -> None:
        """How far."""
        self.steps.append(step)

    def ended(self, recipe: Recipe, result: Result) -> None:
        """What came of it."""
        self.results[recipe.name] = result


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """A family trained by a function of the test."""

    def family(build: Build, name: str = "made-up", **more: tuple[str, ...]) -> Recipe:
        monkeypatch.setitem(sys.modules, "models.made_up", SimpleNamespace(train=build))
        return Recipe(
            name, "made_up:train", more.get("needs", ()), "nothing", family="made_up", npm=more.get("npm", ())
        )

    return family


def card(into: Path, value: float, aim: float | None = 0.9, artifact: str = "") -> Card:
    """The card of a family that learns nothing."""
    return Card(
        name=into.name,
        title="Nothing",
        artifact=artifact or into.name,
        framework="none",
        data=Source("none", "nowhere", "none", 1, 1),
        score=Score("accuracy", value, "chance", 0.5, aim=aim),
        inputs="nothing",
        outputs="nothing",
        limits=("It learns nothing.",),
        samples=(Sample("request", ".json", "application/json", b"{}", {"a": 1}),),
    )


def build(into: Path, tell: Tell, effort: float) -> Card:
    """Two files, one of them in a folder."""
    tell(0.5, "half")
    (into / "deep").mkdir()
    (into / "deep" / "b.txt").write_text(f"{effort}")
    (into / "a.txt").write_text("a")
    return card(into, 0.95, 0.9 if effort >= 1 else None)


def no_one(done: float, what: str) -> None:
    """Hears nothing."""


def test_trained_family_lies_in_place_whole_and_packed(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """Artifact, card, member of the multi-model endpoint and manifest; nothing of the training is left."""
    recipe, steps = made_up(build), []
    result = trainer.attempt(recipe, tmp_path, lambda done, what: steps.append((done, what)))
    assert isinstance(result, Trained)
    assert [(0.5, "half")] == steps
    assert "1.0" == (tmp_path / "made-up" / "deep" / "b.txt").read_text()
    assert 0.9 == json.loads((tmp_path / "cards" / "made-up" / "card.json").read_text())["score"]["aim"]
    with tarfile.open(tmp_path / "gallery" / "made-up.tar.gz") as packed:
        assert ["a.txt", "deep/b.txt"] == packed.getnames()
    assert "current" == gallery.state(recipe, tmp_path)
    assert "gallery/made-up.tar.gz" in gallery.entry(recipe, tmp_path)["files"]
    assert [] == list(tmp_path.glob(".training-*"))
    assert isinstance(trainer.attempt(recipe, tmp_path, no_one), Kept)
    assert isinstance(trainer.attempt(recipe, tmp_path, no_one, force=True), Trained)


def test_packed_artifact_is_a_member_as_it_is(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """A model that SageMaker leaves packed is not packed twice."""

    def packed(into: Path, tell: Tell, effort: float) -> Card:
        (into / "model.tar.gz").write_bytes(b"as it is")
        return card(into, 0.95, artifact=f"{into.name}/model.tar.gz")

    assert isinstance(trainer.attempt(made_up(packed), tmp_path, no_one), Trained)
    assert b"as it is" == (tmp_path / "gallery" / "made-up.tar.gz").read_bytes()


def test_lost_member_makes_a_family_missing(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """The packed copy is a part of it."""
    recipe = made_up(build)
    trainer.attempt(recipe, tmp_path, no_one)
    (tmp_path / "gallery" / "made-up.tar.gz").unlink()
    assert "missing" == gallery.state(recipe, tmp_path)


def test_less_effort_is_stale_and_held_to_no_aim(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """It is there to be looked at, and trained fully by the next run."""
    recipe = made_up(build)
    assert isinstance(trainer.attempt(recipe, tmp_path, no_one, effort=0.5), Trained)
    assert "0.5" == (tmp_path / "made-up" / "deep" / "b.txt").read_text()
    assert "stale" == gallery.state(recipe, tmp_path)


def test_family_that_misses_its_aim_is_not_written(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """One sentence with both figures; what lay there before stays."""
    recipe = made_up(build)
    trainer.attempt(recipe, tmp_path, no_one)
    before = gallery.entry(recipe, tmp_path)
    result = trainer.attempt(made_up(lambda into, tell, effort: card(into, 0.8)), tmp_path, no_one, force=True)
    assert Failed("made-up: accuracy 0.800 (chance: 0.500), but 0.9 is the least that will do") == result
    assert before == gallery.entry(recipe, tmp_path)
    assert (tmp_path / "made-up" / "a.txt").is_file()
    assert [] == list(tmp_path.glob(".training-*"))


def test_recipe_that_raises_is_one_line_and_its_trace(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """The line for everybody, the trace for whoever works on it."""

    def broken(into: Path, tell: Tell, effort: float) -> Card:
        raise ValueError("the first line\nand more")

    result = trainer.attempt(made_up(broken), tmp_path, no_one)
    assert isinstance(result, Failed)
    assert "ValueError: the first line" == result.why
    assert "in broken" in result.trace


def test_scratch_of_a_killed_training_is_cleared_away(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """What it left is no part of the next model."""
    left = tmp_path / ".training-made-up" / "made-up"
    left.mkdir(parents=True)
    (left / "left.txt").write_text("left")
    assert isinstance(trainer.attempt(made_up(build), tmp_path, no_one), Trained)
    assert not (tmp_path / "made-up" / "left.txt").exists()


def test_lacking_package_is_said_and_the_process_is_spared(tmp_path: Path, made_up: Callable[..., Recipe]) -> None:
    """One sentence with what to install."""
    told = Told()
    recipe = made_up(build, needs=("no_such_package",))
    assert [recipe] == trainer.train([recipe], tmp_path, told)
    result = told.results["made-up"]
    assert isinstance(result, Failed)
    assert "no_such_package is not installed (pip install 'serving[" in result.why
    assert [] == told.steps


def test_failure_in_a_process_of_its_own_is_told_and_others_go_on(tmp_path: Path) -> None:
    """Two families whose recipe is not there: both are told, in words that crossed a pipe."""
    told = Told()
    absent = [Recipe(name, "nowhere:train", (), "nothing", family="nowhere") for name in ("one", "two")]
    assert absent == trainer.train(absent, tmp_path, told, jobs=2)
    assert dict.fromkeys(("one", "two"), "ModuleNotFoundError: No module named 'models.nowhere'") == {
        name: result.why for name, result in told.results.items() if isinstance(result, Failed)
    }
