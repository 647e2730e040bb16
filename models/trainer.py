"""Training families in processes of their own: a framework each, none left in the caller's, and as many at a time as
asked for. A family's process does all of it, and tells the caller how far it is through a pipe.

Beside the artifact and the card (``gallery.py``), each is packed for the multi-model endpoint: ``gallery/NAME.tar.gz``.
Two trainings of one family take turns; those of different families disturb each other only while they move into place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from models import cards, gallery, npm
from models.cards import Card, Score
from models.packaging import pack
from models.recipes import GALLERY_EXTRA, NotGoodEnough, Recipe, Tell, advice

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess


@dataclass(frozen=True, slots=True)
class Step:
    """How far a training is: the part done, from 0 to 1, and what is being done."""

    done: float
    what: str


@dataclass(frozen=True, slots=True)
class Trained:
    """It lies in place."""

    seconds: float
    score: Score


@dataclass(frozen=True, slots=True)
class Kept:
    """It was there already."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why it is not there: a sentence. ``trace``: more for whoever works on the recipe."""

    why: str
    trace: str = ""


Result = Trained | Kept | Failed


class Report(Protocol):
    """Who is told how it goes."""

    def step(self, recipe: Recipe, step: Step) -> None:
        """``recipe`` is being trained."""

    def ended(self, recipe: Recipe, result: Result) -> None:
        """It is done with."""


def train(
    recipes: Sequence[Recipe], out: Path, report: Report, *, jobs: int = 1, effort: float = 1.0, force: bool = False
) -> list[Recipe]:
    """Train those of ``recipes`` that are not current (all of them with ``force``), ``jobs`` at a time, the slow ones
    first, and return those that are not there now. With less ``effort`` than 1 they are trained less, and count as
    stale."""
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}

    def end(recipe: Recipe, result: Result) -> None:
        results[recipe.name] = result
        report.ended(recipe, result)

    waiting: deque[Recipe] = deque()
    for recipe in sorted(recipes, key=lambda recipe: recipe.quick):
        if not force and effort >= 1 and gallery.state(recipe, out) == "current":
            end(recipe, Kept())
        elif why := _lacking(recipe):
            end(recipe, Failed(why))
        else:
            waiting.append(recipe)
    running: dict[Connection, tuple[Recipe, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                recipe = waiting.popleft()
                here, process = _started(recipe, out, effort, force)
                running[here] = recipe, process
                report.step(recipe, Step(0.0, "starting"))
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                recipe, process = running[ready]
                said = _said(ready)
                if isinstance(said, Step):
                    report.step(recipe, said)
                else:
                    del running[ready]
                    ready.close()
                    process.join()
                    end(recipe, said or Failed(f"its process ended with status {process.exitcode}"))
    finally:
        for connection, (_, process) in running.items():
            process.terminate()
            process.join()
            connection.close()
    return [recipe for recipe in recipes if isinstance(results[recipe.name], Failed)]


def _lacking(recipe: Recipe) -> str:
    """What is not installed and cannot be had, in a sentence; empty when nothing lacks. Fetches what npm has."""
    if lacking := recipe.lacking():
        return advice(lacking, GALLERY_EXTRA)
    lost = [package for package in npm.lacking(recipe.npm) if not npm.fetch(package)]
    return f"npm could not fetch {' and '.join(lost)}" if lost else ""


def _said(connection: Connection) -> Step | Result | None:
    """The next message; none when the process ended without a last word."""
    try:
        message: Step | Result = connection.recv()
    except EOFError:
        return None
    return message


def _started(recipe: Recipe, out: Path, effort: float, force: bool) -> tuple[Connection, SpawnProcess]:
    """A process that trains ``recipe``, and the end of the pipe it speaks into."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(recipe, out, effort, force, there), daemon=True)
    process.start()
    there.close()
    return here, process


def _run(recipe: Recipe, out: Path, effort: float, force: bool, pipe: Connection) -> None:
    """What the family's process does. Libraries' chatter goes nowhere: it would break the display."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before they are loaded
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a name, not a path
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    pipe.send(attempt(recipe, out, lambda done, what: pipe.send(Step(done, what)), effort=effort, force=force))


def attempt(recipe: Recipe, out: Path, tell: Tell, *, effort: float = 1.0, force: bool = False) -> Result:
    """Train ``recipe`` in this process, unless it is current once it is its turn; what came of it."""
    try:
        with _turn(out, recipe.name, tell):
            if not force and effort >= 1 and gallery.state(recipe, out) == "current":
                return Kept()
            return _train_one(recipe, out, tell, effort)
    except NotGoodEnough as error:
        return Failed(str(error))
    except KeyboardInterrupt:
        return Failed("interrupted")
    except Exception as error:  # whatever a recipe or its libraries raise: the others are trained all the same
        first = next(iter(str(error).strip().splitlines()), "")
        return Failed(f"{type(error).__name__}: {first}", traceback.format_exc())


@contextmanager
def _turn(out: Path, name: str, tell: Tell) -> Iterator[None]:
    """Wait until nobody else trains this family in ``out``. The lock is released with the file, or with the process."""
    with (out / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(0.0, "waiting for another training of it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _train_one(recipe: Recipe, out: Path, tell: Tell, effort: float) -> Trained:
    """Train into a hidden folder, which a killed training may have left, and move the result into place whole."""
    began = time.perf_counter()
    digest = recipe.digest()
    staged = out / f".training-{recipe.name}"
    shutil.rmtree(staged, ignore_errors=True)
    artifact = staged / recipe.name
    artifact.mkdir(parents=True)
    try:
        with gallery.one_thread():
            card = recipe.run(artifact, tell, effort)
        cards.write(card, staged / "cards" / recipe.name)
        _pack(card, staged)
        seconds = time.perf_counter() - began
        gallery.place(recipe, staged, out, seconds, digest if effort >= 1 else f"{digest} with effort {effort}")
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Trained(seconds, card.score)


def _pack(card: Card, staged: Path) -> None:
    """The member of the multi-model endpoint: the artifact as it is where it is packed already."""
    artifact = staged / card.artifact
    target = staged / gallery.PACKED / f"{card.name}.tar.gz"
    target.parent.mkdir()
    if artifact.is_file():
        shutil.copyfile(artifact, target)
    else:
        files = sorted(path for path in artifact.rglob("*") if path.is_file())
        pack(target, {str(path.relative_to(artifact)): path.read_bytes() for path in files})
