"""``python -m models train``: train the built-in algorithms' models that are missing, and show how it goes."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from models import gallery, trainer
from models.families import BY_NAME, FAMILIES
from models.recipes import Recipe
from models.trainer import Failed, Kept, Result, Step, Trained

MOST_JOBS = 2


class Display:
    """A bar for each family that is being trained, where a person looks; a line for each that is done with."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.fields[family]:<26}"),
            BarColumn(24),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )

    def live(self) -> AbstractContextManager[object]:
        """While it is open the bars move; a log gets none."""
        if not self._console.is_terminal:
            return nullcontext()
        return Live(self._progress, console=self._console, refresh_per_second=8, transient=True)

    def step(self, recipe: Recipe, step: Step) -> None:
        """Move its bar."""
        if recipe.name not in self._bars:
            self._bars[recipe.name] = self._progress.add_task(step.what, total=1.0, family=recipe.name)
        self._progress.update(self._bars[recipe.name], completed=step.done, description=step.what)

    def ended(self, recipe: Recipe, result: Result) -> None:
        """Its line takes the bar's place."""
        if recipe.name in self._bars:
            self._progress.remove_task(self._bars.pop(recipe.name))
        match result:
            case Trained():
                self._line(recipe, "green", f"trained in {result.seconds:.1f} s, {result.score}{_aim(result)}")
            case Kept():
                self._line(recipe, "dim", "up to date")
            case Failed():
                self._line(recipe, "red", result.why)
                if result.trace:
                    self._console.print(result.trace, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _line(self, recipe: Recipe, style: str, text: str) -> None:
        self._console.print(f"{recipe.name:<26} {text}", style=style, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command. 0 when every family asked for is there; 1 when one lacks a package, cannot be trained or is not
    good enough; 2 for a wrong command line; 130 when interrupted."""
    options = _parser().parse_args(arguments)
    console = Console()
    chosen = [BY_NAME[name] for name in dict.fromkeys(options.families)] or list(FAMILIES)
    if options.list:
        _print_list(console, chosen, options.out)
        return 0
    display, began = Display(console), time.perf_counter()
    try:
        with display.live():
            failed = trainer.train(
                chosen, options.out, display, jobs=options.jobs, effort=options.effort, force=options.force
            )
    except KeyboardInterrupt:
        console.print("interrupted; what was trained so far is kept")
        return 130
    there, seconds = len(chosen) - len(failed), time.perf_counter() - began
    console.print(f"{there} of {len(chosen)} in {options.out}, {seconds:.0f} s", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _aim(trained: Trained) -> str:
    """What it had to reach, where it had to."""
    score = trained.score
    if score.aim is None:
        return ""
    return f", {'at least' if score.higher_is_better else 'at most'} {score.aim:g} asked"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models train",
        description="Train the built-in algorithms' models on data that ships in packages; only what is missing.",
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", type=known, help="which (default: all)")
    parser.add_argument("--out", type=Path, default=gallery.near(gallery.DEFAULT_OUT), help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="train also what is up to date")
    parser.add_argument("--list", action="store_true", help="show the families and their state, train nothing")
    parser.add_argument(
        "--jobs", type=_count, default=min(MOST_JOBS, os.cpu_count() or 1), help="at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--effort", type=_effort, default=1.0, help="train only this part of it, 0 to 1: quick, and not held to its aim"
    )
    return parser


def known(name: str) -> str:
    """``name``, if there is such a family. Raises ArgumentTypeError, for a parser of command lines."""
    if name not in BY_NAME:
        raise argparse.ArgumentTypeError(f"no family {name!r}; there are {', '.join(BY_NAME)}")
    return name


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no count from 1 to 64")
    return int(text)


def _effort(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and up to 1")
    return value


def _print_list(console: Console, families: Sequence[Recipe], out: Path) -> None:
    table = Table("family", "state", "trains in", "what it is", box=None, pad_edge=False)
    for family in families:
        table.add_row(family.name, gallery.state(family, out), "seconds" if family.quick else "longer", family.summary)
    console.print(table)
