"""``python -m models``: build the example models that are missing; ``python -m models train``: the gallery of the
built-in algorithms (``train.py``)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from models import gallery, train
from models.cards import Card
from models.recipes import BY_NAME, RECIPES, Recipe


class ConsoleReporter:
    """One line a model; on a terminal also a spinner for the one being trained."""

    def __init__(self, console: Console, total: int) -> None:
        """``total``: how many models will be reported."""
        self._console = console
        self._total = total
        self._seen = 0

    def building(self, recipe: Recipe) -> AbstractContextManager[object]:
        """A spinner where a person looks, nothing in a log."""
        if not self._console.is_terminal:
            return nullcontext()
        return self._console.status(f"{self._seen + 1}/{self._total} {recipe.name}: {recipe.summary}")

    def built(self, recipe: Recipe, seconds: float, card: Card) -> None:
        """What it is worth and what it took."""
        self._line(recipe, "green", f"built in {seconds:.1f} s, {card.score}")

    def kept(self, recipe: Recipe) -> None:
        """Nothing was to do."""
        self._line(recipe, "dim", "up to date")

    def skipped(self, recipe: Recipe, why: str) -> None:
        """Why not."""
        self._line(recipe, "yellow", f"skipped: {why}")

    def _line(self, recipe: Recipe, style: str, text: str) -> None:
        self._seen += 1
        self._console.print(f"{recipe.name:<26} {text}", style=style, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. 0 when everything asked for is there, or lacks only torch and was not asked for by name; 1 when
    something could not be built; 2 for a wrong command line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["train"]:
        return train.main(given[1:])
    options = _parser().parse_args(given)
    console = Console()
    chosen = [BY_NAME[name] for name in dict.fromkeys(options.names)] or list(RECIPES)
    if options.list:
        _print_list(console, chosen, options.out)
        return 0
    reporter = ConsoleReporter(console, len(chosen))
    skipped = gallery.build(chosen, options.out, reporter, force=options.force)
    console.print(f"{len(chosen) - len(skipped)} of {len(chosen)} in {options.out}", highlight=False, soft_wrap=True)
    tolerable = not options.names and all(recipe.lacking() == ("torch",) for recipe in skipped)
    return 0 if tolerable or not skipped else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models",
        description="Train the example models on data that ships in packages; build only what is missing.",
        epilog="`python -m models train --help`: the gallery of the built-in algorithms.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=_known, help="models to build (default: all)")
    parser.add_argument(
        "--out", type=Path, default=gallery.near(gallery.DEFAULT_OUT), help="folder (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="build also what is up to date")
    parser.add_argument("--list", action="store_true", help="show the models and their state, build nothing")
    return parser


def _known(name: str) -> str:
    if name not in BY_NAME:
        raise argparse.ArgumentTypeError(f"no model {name!r}; there are {', '.join(BY_NAME)}")
    return name


def _print_list(console: Console, recipes: Sequence[Recipe], out: Path) -> None:
    table = Table("model", "state", "what it is", box=None, pad_edge=False)
    for recipe in recipes:
        table.add_row(recipe.name, gallery.state(recipe, out), recipe.summary)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
