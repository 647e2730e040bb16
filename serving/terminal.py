"""What a person sees of the ``serving`` command: lines, tables, JSON, a spinner. On a pipe, what a program can read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from serving.config import wants_colour


def complain(text: str) -> None:
    """One line on standard error, whatever a server or model put into it."""
    from serving.watch.logs import printable

    text = printable(text)
    red = wants_colour(sys.stderr.isatty())
    print(f"\x1b[31mError:\x1b[0m {text}" if red else f"Error: {text}", file=sys.stderr)


def tell(text: str) -> None:
    """One line on standard error about what is being done."""
    from serving.watch.logs import printable

    print(printable(text), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """JSON on standard output, indented for a person."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for a person; on a pipe, the cells with tabs between them. What callers or models put into a cell cannot
    speak to the terminal."""
    from serving.watch.logs import printable

    rows = [tuple(map(printable, row)) for row in rows]
    if not sys.stdout.isatty():
        for row in [headings, *rows]:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@contextmanager
def lines_in_place() -> Iterator[Callable[[Sequence[str]], None]]:
    """Lines for a person, who sees the newest in the place of those before; on a pipe they stand one after another.
    What callers or models put into them cannot speak to the terminal."""
    from serving.watch.logs import printable

    if not sys.stdout.isatty():
        yield lambda lines: print(*map(printable, lines), sep="\n", flush=True)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False) as shown:
        yield lambda lines: shown.update(Text("\n".join(map(printable, lines))), refresh=True)


@contextmanager
def busy(text: str) -> Iterator[None]:
    """A spinner while something takes its time, where somebody is looking."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def bar(text: str) -> Iterator[Callable[[float, float, str], None]]:
    """A progress bar, where somebody is looking. What is yielded is told how much is done, how much there is (0 = not
    known), and a few words on it."""
    if not sys.stderr.isatty():
        yield lambda done, total, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.fields[words]}", markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), words)
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task(text, total=None, words="")
        yield lambda done, total, words: shown.update(task, completed=done, total=total or None, words=words)
