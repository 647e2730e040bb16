"""Which slow families must be trained anew: ``python -m tests.changed_families [RECORDS]`` prints what ``pytest -k``
takes, or nothing.

A family has changed when its recipe is not the one that ``docs/gallery.json`` was written with, or when that file says
something else than ``RECORDS``, an earlier version of it. Families whose files nobody touched are left to the nightly
run, ``python -m pytest -m slow``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from docs import gallery
from models.families import FAMILIES


def digests(file: Path) -> dict[str, str]:
    """Family -> digest of the recipe that it was recorded with; of a file that is not there, or no record, nothing."""
    try:
        return {name: record["recipe"] for name, record in json.loads(file.read_text())["families"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def changed(today: Mapping[str, str], recorded: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Names of the families of ``today`` that are not as they were ``recorded``, or recorded otherwise than ``before``
    (where anything is known of that)."""
    return [
        name
        for name, digest in today.items()
        if digest != recorded.get(name) or (before and recorded.get(name) != before.get(name))
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the expression."""
    today = {family.name: family.digest() for family in FAMILIES if not family.quick}
    before = digests(Path(arguments[0])) if arguments else {}
    print(" or ".join(changed(today, digests(gallery.RECORDS), before)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
