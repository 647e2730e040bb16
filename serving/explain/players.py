"""What is kept or taken from the baseline: features, and the units of those that are text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from serving.explain.records import Cell, Form
from serving.explain.settings import Granularity

#: Words and numbers with their inner apostrophes, marks, and characters of scripts without blanks one by one.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])\w)+(?:['’]\w+)*|[^\w\s]")
#: Up to a full stop, or the like, that blank or end follows; of scripts without blanks, up to the mark itself.
_SENTENCE = re.compile(r"\S(?:.*?[.!?…]+[\"'”’)\]]*(?=\s|$)|.*?[。！？।॥]+[”’」』）]*|.*$)", re.MULTILINE)
_PARAGRAPH = re.compile(r"\S.*?(?=\s*\n\s*|\s*\Z)")
_UNITS = {"token": _TOKEN, "sentence": _SENTENCE, "paragraph": _PARAGRAPH}


class Unit(NamedTuple):
    """A part of a text: what it says and where it begins, in characters from 0 (``partial_text``, ``start_idx``)."""

    text: str
    start: int


class Feature(NamedTuple):
    """A cell and, of a text, its units; ``units`` None: the whole cell is one player."""

    cell: Cell
    units: tuple[Unit, ...] | None

    @property
    def players(self) -> int:
        """How many it is."""
        return 1 if self.units is None else len(self.units)


def units(text: str, granularity: Granularity) -> tuple[Unit, ...]:
    """The units of a text, in order."""
    return tuple(Unit(match[0], match.start()) for match in _UNITS[granularity].finditer(text))


def features(row: Sequence[Cell], types: Sequence[str], granularity: Granularity) -> tuple[Feature, ...]:
    """A record's features; ``types`` as FeatureTypes, empty: none is text."""
    return tuple(
        Feature(cell, units(cell, granularity) if types and types[at] == "text" and isinstance(cell, str) else None)
        for at, cell in enumerate(row)
    )


def lines(
    record: Sequence[Feature], baseline: Sequence[Sequence[Cell]], masks: np.ndarray, form: Form
) -> Iterator[str]:
    """The synthetic records of a record, written: for each mask (bool [n, players]) one a row of the baseline."""
    kept = [form.cell(one.cell) for one in record]
    taken = [[form.cell(cell) for cell in row] for row in baseline]
    if all(one.units is None for one in record):
        for mask in masks.tolist():
            for row in taken:
                yield (
                    form.before
                    + ",".join([a if m else b for m, a, b in zip(mask, kept, row, strict=True)])
                    + form.after
                )
        return
    bounds = np.cumsum([0, *(one.players for one in record)]).tolist()
    for mask in masks.tolist():
        parts = [mask[low:high] for low, high in pairwise(bounds)]
        for values, written in zip(baseline, taken, strict=True):
            cells = [
                (one_kept if part[0] else other) if one.units is None else form.cell(masked(one, part, cell))
                for one, part, one_kept, other, cell in zip(record, parts, kept, written, values, strict=True)
            ]
            yield form.before + ",".join(cells) + form.after


def masked(feature: Feature, mask: Sequence[bool], baseline: Cell) -> str:
    """A text in which the baseline's stands for the units that are not kept; what is between units stays."""
    text, instead = feature.cell, "" if baseline is None else str(baseline)
    parts, at = [], 0
    for unit, keep in zip(feature.units or (), mask, strict=True):
        parts += [text[at : unit.start], unit.text if keep else instead]
        at = unit.start + len(unit.text)
    return "".join([*parts, text[at:]])
